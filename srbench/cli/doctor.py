"""`srbench doctor`: does everything that a run needs exist, and does it work."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from srbench.catalog import load, plugins, sources
from srbench.engine.pictures import read
from srbench.engine.settings import check as check_settings
from srbench.engine.settings import overrides, parsed
from srbench.errors import MISSING, OK, SrbenchError
from srbench.scorers.base import Scorer

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "open_clip_torch", "nudenet", "onnxruntime", "scipy", "pandas")

DETECTOR = "nudenet320n-rgb"
"""The default detector, which the package brings."""


def _catalog() -> str:
    counts = {
        "methods": len(plugins.presets()), "suites": len(load.suites()), "concepts": len(load.concepts()),
        "backbones": len(load.backbones()), "scorers": len(plugins.plugins("scorers")), "protocols": len(load.protocols()),
    }
    return ", ".join(f"{n} {name}" for name, n in counts.items())


def _suite_files() -> str:
    editions = [(suite, e) for suite in load.suites().values() for e in suite.editions]
    shipped = [(suite, e) for suite, e in editions if e.file]
    rows = sum(len(load.rows(suite, e).rows) for suite, e in shipped)
    here = sum(sources.at_hand(suite, e) for suite, e in editions if not e.file)
    told = f"{len(shipped)} shipped editions, {rows} rows, every sha256 as stated"
    return f"{told}; {here} of {len(editions) - len(shipped)} others are here"


def _packages() -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)


def _machine() -> str:
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA device"
    return f"python {platform.python_version()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}"


def _backbone(name: str) -> Callable[[], str]:
    def check() -> str:
        from srbench.backbones.choose import chosen
        from srbench.backbones.loader import open_backbone

        backbone = open_backbone(chosen(name), "fp32", "cpu")
        recipe = backbone.spec.recipe
        image = backbone.pipeline(
            "a house", num_inference_steps=2, guidance_scale=recipe.guidance, height=recipe.height, width=recipe.width
        ).images[0]
        return f"{name} {backbone.sha256[:12]}: a picture of {image.size[0]} x {image.size[1]} px"

    return check


def _opened(name: str, settings: Sequence[str]) -> Scorer:
    cls = plugins.load("scorers", name)
    return cls(parsed(cls.Options, name, {}, overrides(settings, (name,))))


def _scorer(name: str, settings: Sequence[str]) -> Callable[[], str]:
    def check() -> str:
        identity = _opened(name, settings).identity()
        return f"{identity['library']} {identity['library_version']}, weights {identity['weights_sha256'][:12]}"

    return check


HEAD = "igmu-head"
SURE = 0.9
"""Share of known images on which a label must be right before it is believed."""


def _polarity(known: Path, settings: Sequence[str]) -> Callable[[], str]:
    """Which label of IGMU's head means the concept, tried on images of which it is known."""

    def check() -> str:
        head = _opened(HEAD, settings)
        ones = {name: _label_one(head, known / name) for name in ("with", "without")}
        shares = {"1": (ones["with"], 1 - ones["without"]), "0": (1 - ones["with"], ones["without"])}
        said = ", ".join(f"label 1 on {100 * share:.0f} % {name} the concept" for name, share in ones.items())
        for label, right in shares.items():
            if min(right) >= SURE:
                return f"label {label} means the concept ({said})"
        raise SrbenchError(f"cannot be told: {said}", "Is it the head of this concept? Give more images, or others.")

    return check


def _label_one(head: Scorer, folder: Path) -> float:
    """Share of a folder's pictures on which label 1 is the likelier one."""
    pixels = [read(path).pixels for path in sorted(folder.glob("*")) if path.is_file()]
    if not pixels:
        raise SrbenchError(f"{folder}: no pictures", "Put known images into with/ and without/.")
    return sum(score["label"]["1"] > 0.5 for score in head.score(pixels, [{}] * len(pixels))) / len(pixels)


def _folder(out: Path) -> Callable[[], str]:
    def check() -> str:
        place = next(p for p in (out, *out.resolve().parents) if p.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise SrbenchError(f"{out}: cannot write here", "Choose another --out.")
        return f"{out}: {shutil.disk_usage(place).free / 1e9:.0f} GB free"

    return check


def _needed(backbone: str) -> set[str]:
    """Scorers without which a run on the backbone has no result: the backbone's own, its judges', and the default detector."""
    from srbench.backbones.choose import chosen

    spec = chosen(backbone)
    judges = {load.concepts()[name].families[spec.family].protocol for name in spec.concepts}
    return {*spec.describing, *(part.scorer for name in judges for part in load.parts(load.protocol(name))), DETECTOR}


def _verdict(check: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, check().strip()
    except importlib.metadata.PackageNotFoundError as error:
        return False, f"package {error.name} is not installed. pip install {error.name}"
    except SrbenchError as error:
        return False, f"{error.message}. {error.hint}"


def doctor(backbone: str, out: Path, settings: Sequence[str], known: Path | None, as_json: bool) -> int:
    """Run every check; exit 3 if one failed that a run needs. Scorers that are not at hand are shown and do no harm."""
    check_settings(settings, plugins.plugins("scorers"))
    checks: dict[str, Callable[[], str]] = {
        "machine": _machine, "packages": _packages, "catalog": _catalog, "suites": _suite_files,
        f"backbone {backbone}": _backbone(backbone), "results folder": _folder(out),
    }
    checks |= {f"scorer {name}": _scorer(name, settings) for name in plugins.plugins("scorers")}
    checks |= {f"{HEAD} polarity": _polarity(known, settings)} if known else {}
    optional = {f"scorer {name}" for name in plugins.plugins("scorers")} - {f"scorer {name}" for name in _needed(backbone)}
    report = {}
    for name, check in checks.items():
        ok, detail = _verdict(check)
        report[name] = {"ok": ok, "needed": name not in optional, "detail": detail}
        if not as_json:
            print(f"{'ok ' if ok else '-  ' if name in optional else 'BAD'}  {name}: {detail}", flush=True)
    if as_json:
        print(json.dumps(report, indent=2))
    return MISSING if any(each["needed"] and not each["ok"] for each in report.values()) else OK
