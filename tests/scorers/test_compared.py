"""Scorers that compare, against the libraries they stand on and against definitions written out here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch
import torch_fidelity
import torchvision
from PIL import Image
from scipy import linalg, ndimage

from srbench.errors import CellError, MissingError, UsageError
from srbench.scorers import _files, _lpips, _sets
from srbench.scorers._files import File, fetched, read_state
from srbench.scorers.fid import Fid
from srbench.scorers.lpips import LpipsNative
from srbench.scorers.pocket_perceptual import distance
from srbench.scorers.ssim import Ssim

Pictures = Callable[[int], list[np.ndarray]]


# --- LPIPS -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def reference(options_for: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> lpips.LPIPS:
    """The library as a user makes it, its trunk read by torchvision from the same file."""
    state = torch.load(options_for("lpips").weights, weights_only=True)

    def alexnet(**given: Any) -> Any:
        made = torchvision.models.AlexNet()
        made.load_state_dict({**made.state_dict(), **state})
        return made

    monkeypatch.setattr("lpips.pretrained_networks.tv.alexnet", alexnet)
    return lpips.LPIPS(net="alex", verbose=False)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_lpips_is_the_library_s(count: int, reference: lpips.LPIPS, opened: Callable[[str], Any], pictures: Pictures) -> None:
    images = pictures(96)[:count]
    references = pictures(96)[::-1][:count]
    tensors = [torch.stack([torch.from_numpy(i).permute(2, 0, 1) / 127.5 - 1 for i in each]) for each in (images, references)]
    theirs = reference(*tensors).flatten().tolist()
    ours = [score["distance"] for score in opened("lpips").score(images, references, [{}] * count)]
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert max(theirs) > 0.01


def test_scaling_changes_the_number(opened: Callable[[str], Any], pictures: Pictures) -> None:
    images, references = pictures(128)[:2], pictures(128)[2:]
    native, scaled = (opened(name).score(images, references, [{}] * 2) for name in ("lpips", "lpips-64"))
    assert all(abs(a["distance"] - b["distance"]) > 1e-3 for a, b in zip(native, scaled, strict=True))
    small = [np.asarray(Image.fromarray(i).resize((64, 64), Image.Resampling.BILINEAR)) for i in (*images, *references)]
    again = opened("lpips").score(small[:2], small[2:], [{}] * 2)
    # uint8 in between costs a little; which filter scales costs far more.
    assert [s["distance"] for s in scaled] == pytest.approx([s["distance"] for s in again], rel=0.02)


def test_a_file_that_is_no_alexnet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    with pytest.raises(UsageError, match="not torchvision's AlexNet"):
        LpipsNative(File(weights=path))


def test_a_trunk_of_another_width_is_refused(tmp_path: Path, options_for: Callable[[str], Any]) -> None:
    state = torch.load(options_for("lpips").weights, weights_only=True)
    path = tmp_path / "wide.pth"
    torch.save({name: torch.cat([value, value]) for name, value in state.items()}, path)
    with pytest.raises(UsageError, match="not torchvision's AlexNet"):
        _lpips.network(path)


# --- SSIM --------------------------------------------------------------------------------------------------------------------


def by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, section III-B: an 11 x 11 Gaussian window of sigma 1.5, averaged where the window fits."""

    def mean(x: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(x, 1.5, radius=5)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for x, y in zip(np.moveaxis(a.astype(float), 2, 0), np.moveaxis(b.astype(float), 2, 0), strict=True):
        mx, my = mean(x), mean(y)
        vx, vy, xy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        found = (2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        values.append(found[5:-5, 5:-5].mean())
    return float(np.mean(values))


def test_ssim_is_its_definition(pictures: Pictures) -> None:
    images = pictures(48)
    ours = Ssim().score(images, images[1:] + images[:1], [{}] * 4)
    expected = [by_hand(a, b) for a, b in zip(images, images[1:] + images[:1], strict=True)]
    assert [score["similarity"] for score in ours] == pytest.approx(expected, abs=1e-5)
    assert [score["similarity"] for score in Ssim().score(images, images, [{}] * 4)] == [1.0] * 4


def test_a_picture_smaller_than_the_window_is_refused(pictures: Pictures) -> None:
    with pytest.raises(CellError, match="11 px at least, not 8 x 8"):
        Ssim().score(pictures(8)[:1], pictures(8)[1:2], [{}])


# --- sets --------------------------------------------------------------------------------------------------------------------


def frechet_by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """1706.08500, equation 6, with a matrix square root."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(first @ second).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


def test_frechet_distance_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 6)).astype(np.float32), (1.5 * rng.normal(size=(150, 6)) + 0.5).astype(np.float32)
    assert _sets.frechet(a, b) == pytest.approx(frechet_by_hand(a.astype(float), b.astype(float)), rel=1e-4)
    assert _sets.frechet(a, b) == pytest.approx(_sets.frechet(b, a), rel=1e-4)


def test_kernel_distance_is_its_definition() -> None:
    """1801.01401, equation 4, on sets that are taken whole: every subset is the same set in another order."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, 5)).astype(np.float32), (rng.normal(size=(40, 5)) + 0.3).astype(np.float32)

    def k(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x.astype(float) @ y.T.astype(float) / 5 + 1) ** 3

    off = ~np.eye(40, dtype=bool)
    expected = k(a, a)[off].mean() + k(b, b)[off].mean() - 2 * k(a, b).mean()
    mean, spread = _sets.kernel(a, b)
    assert mean == pytest.approx(expected, rel=1e-4)
    assert spread == pytest.approx(0, abs=1e-4)


def test_fid_is_the_library_s(options_for: Callable[[str], Any], pictures: Pictures, tmp_path: Path) -> None:
    """The library reads two folders of the same pictures by itself."""
    folders, sets = [], []
    for side in (40, 72):
        folder = tmp_path / str(side)
        folder.mkdir()
        sets.append(pictures(side))
        for i, image in enumerate(sets[-1]):
            Image.fromarray(image).save(folder / f"{i}.png")
        folders.append(str(folder))
    path = options_for("fid").weights
    theirs = torch_fidelity.calculate_metrics(
        input1=folders[0], input2=folders[1], fid=True, kid=True, kid_subset_size=4, cuda=False, verbose=False, batch_size=1,
        feature_extractor_weights_path=str(path), save_cpu_ram=True, cache=False,
    )
    scorer = Fid(File(weights=path))
    ours = scorer.reduce(*(scorer.features(images) for images in sets))
    assert ours["frechet"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert ours["kernel"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4, abs=1e-6)


def test_a_file_that_is_no_inception_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    with pytest.raises(UsageError, match="not torch-fidelity's Inception"):
        Fid(File(weights=path))


# --- pocket's own ------------------------------------------------------------------------------------------------------------


def test_perceptual_distance_is_lpips_uncalibrated() -> None:
    """What the library gives without its linear heads, on the same features."""
    rng = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.randn(1, c, s, s, generator=rng) for c, s in ((4, 8), (6, 4))] for _ in range(2))
    expected = 0.0
    for f, g in zip(ours, theirs, strict=True):
        f, g = (x / x.square().sum(1, keepdim=True).sqrt() for x in (f, g))
        expected += float((f - g).square().sum(1).mean())
    assert distance(ours, theirs) == pytest.approx(expected, rel=1e-5)


def test_perceptual_distance_grows_with_the_change(opened: Callable[[str], Any], pictures: Pictures) -> None:
    image = pictures(64)[1]
    noise = np.random.default_rng(0).normal(size=image.shape)
    changed = [np.clip(image + level * noise, 0, 255).astype(np.uint8) for level in (0, 10, 40, 120)]
    found = [s["distance"] for s in opened("pocket-perceptual").score(changed, [image] * 4, [{}] * 4)]
    assert found[0] == 0
    assert found == sorted(found)
    assert len(set(found)) == 4


# --- weights that are not there ----------------------------------------------------------------------------------------------


def test_missing_weights_say_what_fetches_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "a b"))
    for cls, name in ((LpipsNative, "alexnet-owt-7be5be79.pth"), (Fid, "weights-inception-2015-12-05-6726825d.pth")):
        with pytest.raises(MissingError) as caught:
            cls()
        assert name in caught.value.message
        assert f"curl -fL --create-dirs -o '{tmp_path}/a b/checkpoints/{name}' https://" in caught.value.hint


def test_a_download_that_is_not_what_its_name_says_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    content = b"weights"
    sha = hashlib.sha256(content).hexdigest()
    (tmp_path / "checkpoints").mkdir()
    for stated, fits in ((sha[:8], True), ("0" * 8, False)):
        path = tmp_path / "checkpoints" / f"net-{stated}.pth"
        path.write_bytes(content)
        if fits:
            assert fetched(None, f"https://example.org/{path.name}", "x") == path
        else:
            with pytest.raises(UsageError, match="sha256 does not begin with 00000000"):
                fetched(None, f"https://example.org/{path.name}", "x")
            assert fetched(path, f"https://example.org/{path.name}", "x") == path  # the user's own file is the user's word


class Malicious:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize("cls", [LpipsNative, Fid])
def test_a_malicious_pickle_is_never_executed(cls: type, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"features.0.weight": Malicious()}, path)
    with pytest.raises(UsageError, match="not a file of weights"):
        cls(File(weights=path))


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not a file of weights"):
        read_state(path)


def test_weights_without_names_are_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="holds no tensors by name"):
        _files.read_state(tmp_path / "weights.pth")
