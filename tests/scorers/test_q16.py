"""Q16: its decision by open_clip's vectors, and a pickle that runs nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from srbench.errors import MissingError, UsageError
from srbench.scorers.q16 import Q16, Q16Options, read_prompts
from tests.scorers.clip_stand_ins import clip_folder, prompts

Pictures = Callable[[int], list[np.ndarray]]


@pytest.mark.parametrize("count", [1, 4])
def test_probabilities_are_the_softmax_of_100_times_the_cosine(
    count: int, opened: Callable[[str], Any], pictures: Pictures, tmp_path: Path
) -> None:
    images = pictures(80)[:count]
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder(tmp_path, 768)}")
    with torch.inference_mode():
        x = model.eval().encode_image(torch.stack([transform(Image.fromarray(image)) for image in images]))
    p = torch.from_numpy(prompts().astype(np.float64))
    cosine = (x / x.norm(dim=-1, keepdim=True)).double() @ (p / p.norm(dim=-1, keepdim=True)).T
    theirs = torch.softmax(100 * cosine, -1)
    ours = [score["q16"] for score in opened("q16").score(images, [{}] * count)]
    assert all(list(each) == ["appropriate", "inappropriate"] for each in ours)
    assert [list(each.values()) for each in ours] == [pytest.approx(row, abs=1e-4) for row in theirs.tolist()]
    assert [each["inappropriate"] > 0.5 for each in ours] == [bool(i) for i in cosine.argmax(-1)]


# --- the prompts' file -------------------------------------------------------------------------------------------------------


def written(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_from_any_pickle(protocol: int, kind: str, order: Any, tmp_path: Path) -> None:
    array = np.asarray(prompts().astype(kind), order=order)
    found = read_prompts(written(tmp_path / "prompts.p", array, protocol))
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), array.astype(np.float32))


@pytest.mark.parametrize("protocol", [0, 2, 3])
def test_an_array_of_an_older_numpy_is_read(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps(prompts(), protocol=protocol)
    older = content.replace(b"numpy._core.", b"numpy.core.")
    assert older != content
    (tmp_path / "prompts.p").write_bytes(older)
    assert np.array_equal(read_prompts(tmp_path / "prompts.p").numpy(), prompts().astype(np.float32))


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_a_tensor_that_torch_saved_is_read(kind: torch.dtype, tmp_path: Path) -> None:
    torch.save(torch.from_numpy(prompts()).to(kind), tmp_path / "prompts.pt")
    assert np.array_equal(read_prompts(tmp_path / "prompts.pt").numpy(), prompts().astype(np.float32))


class Malicious:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('ran')",))


class Hidden:
    """Calls what an array's own pickle names, but for another end."""

    def __init__(self, call: Any, *given: Any) -> None:
        self.call, self.given = call, given

    def __reduce__(self) -> Any:
        return (self.call, self.given)


@pytest.mark.parametrize("content", [
    Malicious(), [prompts(), Malicious()], {"a": Malicious()}, Hidden(getattr, "a", "upper"), Hidden(eval, "1"),
    Hidden(np.load, "/etc/hostname"), Hidden(np.frombuffer, b"12345678"), Path("x"), np.float64(1),
    np.array([Malicious()], dtype=object), Hidden(__import__, "os"),
])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_is_never_executed(content: Any, protocol: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not an array of numbers, or more than that .* is not part of an array"):
        read_prompts(written(tmp_path / "prompts.p", content, protocol))


def test_what_an_array_s_pickle_names_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "prompts.p", prompts(), 2)

    def never(*_: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(np._core.multiarray, "_reconstruct", never)
    assert read_prompts(path).shape == (2, 768)


def test_a_malicious_torch_file_is_never_executed(tmp_path: Path) -> None:
    torch.save([torch.zeros(2, 768), Malicious()], tmp_path / "prompts.pt")
    with pytest.raises(UsageError, match="not an array of numbers"):
        read_prompts(tmp_path / "prompts.pt")


@pytest.mark.parametrize("content", [
    prompts()[:1], prompts()[:, :512], prompts()[None], prompts().astype(int), prompts().astype(complex), [1.0, 2.0], 3,
    prompts() * np.nan,
    {"prompts": 1}, np.array([None, "x"], dtype=object), np.zeros((2, 768), "datetime64[s]"), np.array(["a", "b"]),
])
def test_what_is_not_two_vectors_of_768_numbers_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_prompts(written(tmp_path / "prompts.p", content))
    assert "ml-research/Q16" in caught.value.hint


@pytest.mark.parametrize("content", [torch.zeros(2, 512), torch.zeros(2, 768).int(), {"a": torch.zeros(2, 768)}])
def test_another_torch_file_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "prompts.pt")
    with pytest.raises(UsageError, match="not 2 prompt vectors of 768 numbers"):
        read_prompts(tmp_path / "prompts.pt")


@pytest.mark.parametrize("content", [
    b"", b"no pickle", b"PK\x03\x04", pickle.dumps(prompts())[:-9], pickle.dumps(prompts())[:100], b"\x80\x05]\x94.", b"}.",
    b"cnumpy.core.multiarray\n_reconstruct\n.", b"cnumpy.core.multiarray\n_reconstruct\n(tR.",
    b"cnumpy.core.multiarray\n_reconstruct\n(tRNb.", b"cnumpy\ndtype\n.", b"c_codecs\nencode\n(VA\nVzip\ntR.",
])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "prompts.p"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_prompts(path)
    assert "\n" not in caught.value.message


# --- what is missing ---------------------------------------------------------------------------------------------------------


def test_missing_prompts_say_where_they_are_published(tmp_path: Path) -> None:
    for options in (None, Q16Options(), Q16Options(weights=tmp_path / "prompts.p")):
        with pytest.raises(MissingError) as caught:
            Q16(options)
        assert "ml-research/Q16" in caught.value.hint
        assert caught.value.hint.endswith("--set q16.weights=FILE")


def test_a_missing_clip_says_what_fetches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MissingError) as caught:
        Q16(Q16Options(weights=written(tmp_path / "prompts.p", prompts())))
    assert caught.value.hint == "Fetch it: hf download timm/vit_large_patch14_clip_224.openai open_clip_model.safetensors"


def test_a_clip_of_another_width_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "prompts.p", prompts())
    with pytest.raises(UsageError, match="reads CLIP vectors of 768 numbers, not 512"):
        Q16(Q16Options(weights=path, clip=clip_folder(tmp_path, 512)))
