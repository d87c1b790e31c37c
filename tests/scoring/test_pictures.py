"""Pictures that others made: what is read, with which remark, and what is refused with which reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srbench.errors import CellError
from srbench.scoring.pictures import LOSSY, read

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    (image or Image.fromarray(PIXELS)).save(path, **options)
    return path


def test_a_png_is_read_as_it_is(tmp_path: Path) -> None:
    found = read(save(tmp_path / "a.png"))
    assert np.array_equal(found.pixels, PIXELS)
    assert found.pixels.dtype == np.uint8
    assert not found.remark


def test_a_jpeg_is_read_and_said_so_whatever_its_name(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert read(tmp_path / "a.png").remark == LOSSY


@pytest.mark.parametrize("name", ["truncated.png", "empty.png", "text.png", "loop.png", "gone.png", "page.png"])
def test_what_cannot_be_read_is_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    match name:
        case "truncated.png":
            data = save(tmp_path / "whole.png").read_bytes()
            path.write_bytes(data[: len(data) // 2])
        case "empty.png":
            path.touch()
        case "text.png":
            path.write_text("not a picture\n")
        case "page.png":
            path.write_bytes(b"<html>404</html>")
        case "loop.png":
            path.symlink_to(path)
    with pytest.raises(CellError) as error:
        read(path)
    expected = {"empty.png": "empty file", "text.png": "not a picture", "page.png": "not a picture"}
    assert error.value.message.startswith(expected.get(name, "cannot be read")), error.value.message


def test_a_truncated_jpeg_is_refused_and_not_filled_with_grey(tmp_path: Path) -> None:
    data = save(tmp_path / "a.jpg", quality=95).read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(CellError, match="cannot be read"):
        read(tmp_path / "a.jpg")


def test_sixteen_bits_are_scaled_and_not_cut(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 32896, 65535]] * 8, dtype=np.uint16).repeat(2, axis=1)  # (8, 8)
    found = read(save(tmp_path / "a.png", Image.fromarray(deep)))
    assert found.pixels[0, ::2, 0].tolist() == [0, 1, 128, 255]
    assert "16 bits" in found.remark
    assert found.pixels.shape == (8, 8, 3)


def test_transparent_pixels_are_laid_on_white_and_opaque_ones_kept(tmp_path: Path) -> None:
    alpha = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, np.uint8)])
    assert read(save(tmp_path / "opaque.png", Image.fromarray(alpha))) [1] == ""
    alpha[:4, :, 3] = 0
    found = read(save(tmp_path / "a.png", Image.fromarray(alpha)))
    assert (found.pixels[:4] == 255).all()
    assert np.array_equal(found.pixels[4:], PIXELS[4:])
    assert "white" in found.remark


def test_cmyk_and_grey_and_palettes_become_rgb(tmp_path: Path) -> None:
    cmyk = read(save(tmp_path / "a.tif", Image.new("CMYK", (16, 16), (0, 255, 255, 0))))
    assert cmyk.pixels[0, 0].tolist() == [255, 0, 0]
    assert "CMYK" in cmyk.remark
    assert read(save(tmp_path / "g.png", Image.new("L", (16, 16), 7))).pixels[0, 0].tolist() == [7, 7, 7]
    palette = Image.fromarray(PIXELS).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(read(save(tmp_path / "p.png", palette)).pixels, np.asarray(palette.convert("RGB")))


def test_an_animation_is_no_picture(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    with pytest.raises(CellError, match="animated: 2 pictures"):
        read(save(tmp_path / "a.webp", frames[0], save_all=True, append_images=frames[1:]))


def test_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellError, match="1 x 1 px: too small"):
        read(save(tmp_path / "one.png", Image.new("RGB", (1, 1))))
    assert read(save(tmp_path / "wide.png", Image.new("RGB", (10_000, 8)))).pixels.shape == (8, 10_000, 3)
    assert read(save(tmp_path / "large.png", Image.new("RGB", (10_000, 10_000), "red"))).pixels.shape == (10_000, 10_000, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(CellError, match="megapixels"):
        read(tmp_path / "wide.png")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(CellError, match="a fifo, not a picture"):
        read(tmp_path / "0.png")


def test_a_picture_is_turned_as_its_exif_data_says(tmp_path: Path) -> None:
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    found = read(tmp_path / "turned.png")
    assert found.pixels.shape == (24, 16, 3)
    assert (found.pixels[:, 8:] == 255).all()
    assert "EXIF" in found.remark


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("F", 200.0), ("I", 65536), ("I", -1)])
def test_numbers_of_which_nobody_says_what_is_white_are_refused(mode: str, value: float, tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    Image.new(mode, (64, 64), value).save(path)
    with pytest.raises(CellError, match="whose white cannot be told"):
        read(path)
