"""Reads external images as uint8 RGB, with a remark where they had to be converted; raises with the reason where it cannot."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps

from srbench.errors import CellError
from srbench.files import kind_of_path

MIN_SIDE_PX = 8
"""Smaller images are refused."""
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of one channel with 16 bits; it would cut them at 255 instead of scaling them."""
LOSSY = "JPEG, whose losses change scores a little"
ORIENTATION = 0x0112
"""EXIF's tag for which side is up."""
DAMAGED_DATA = "its data beside the pixels (EXIF, tags) are damaged"
TURNED = "turned as its EXIF data says"
HINT = "Make the picture again, or take it out of the folder."


class Picture(NamedTuple):
    """An image as scorers read it."""

    pixels: np.ndarray
    """uint8 RGB, (H, W, 3)."""
    remark: str = ""
    """How it differs from the file; empty where it does not."""


def read(path: Path) -> Picture:
    """A file's image. Raises `CellError` with the reason where there is none, or more than one."""
    if (kind := kind_of_path(path)) in ("fifo", "device", "socket"):  # opening a fifo would block
        raise CellError(f"a {kind}, not a picture", HINT)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            # Pillow warns from half the size that it refuses; what it accepts is read.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check(image)
                image.load()
                pixels, remark = _upright(image)
        return Picture(pixels, "; ".join(filter(None, (remark, DAMAGED_DATA if heard else ""))))
    except Image.DecompressionBombError as error:
        raise CellError(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels", HINT) from error
    except Image.UnidentifiedImageError as error:
        raise CellError("not a picture" if path.stat().st_size else "empty file", HINT) from error
    # Pillow's decoders raise any of these for a damaged file.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise CellError(f"cannot be read ({_why(error)})", HINT) from error


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0] if str(error) else type(error).__name__


def _check(image: ImageFile.ImageFile) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise CellError(f"animated: {frames} pictures in one file", HINT)
    if min(image.size) < MIN_SIDE_PX:
        raise CellError(f"{image.width} x {image.height} px: too small to be judged", HINT)


def _upright(image: ImageFile.ImageFile) -> Picture:
    """The image rotated by its EXIF orientation, as viewers show it and Pillow does not."""
    lossy = LOSSY if image.format == "JPEG" else ""
    turned = image.getexif().get(ORIENTATION, 1) not in (0, 1)
    pixels, remark = _rgb(ImageOps.exif_transpose(image) if turned else image, lossy)
    return Picture(pixels, "; ".join(filter(None, (remark, TURNED if turned else ""))))


def _rgb(image: Image.Image, remark: str) -> Picture:
    """Raises `CellError` for pixel values without a defined white: Pillow would clip them to 0 and 255."""
    if image.mode == "F":
        raise CellError("floating-point numbers, whose white cannot be told", "Save it with 8 or 16 bits a channel.")
    if image.mode in DEEP:
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise CellError("numbers of 32 bits, whose white cannot be told", "Save it with 8 or 16 bits a channel.")
        gray = np.clip((deep + 128) // 257, 0, 255).astype(np.uint8)  # (H, W); 65535 becomes 255
        return Picture(np.repeat(gray[..., None], 3, axis=2), "16 bits a channel, scaled to 8")
    if image.mode == "CMYK":
        return Picture(np.asarray(image.convert("RGB")), "CMYK, converted without a colour profile")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _opaque(image.convert("RGBA"), remark)
    return Picture(np.asarray(image.convert("RGB")), remark)


def _opaque(image: Image.Image, remark: str) -> Picture:
    """Transparent pixels on white, as a viewer shows them."""
    if image.getchannel("A").getextrema()[0] == 255:
        return Picture(np.asarray(image.convert("RGB")), remark)
    white = Image.new("RGBA", image.size, "white")
    return Picture(np.asarray(Image.alpha_composite(white, image).convert("RGB")), "transparent, laid on white")
