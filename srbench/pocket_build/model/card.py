"""The model card of pocket: `card.json` for programs, `card.md` for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from srbench.pocket.world import BACKGROUNDS, CONCEPTS, OBJECTS, STYLES
from srbench.pocket_build.model.assemble import weight_bytes, write_json
from srbench.pocket_build.model.data import STREAM
from srbench.pocket_build.model.scenes import HELD_OUT_ONE_IN, sample_scene
from srbench.pocket_build.model.sizes import FULL, PASSES
from srbench.pocket_build.model.sprites import VENDORS
from srbench.scorers._files import sha256_of

SEEDS = {"vae": 101, "text": 202, "clip": 303, "judge": 404, "unet": 505}
"""Of the initial weights; batches are seeded by stage and step."""

LICENCES = {"noto": "Apache-2.0", "twemoji": "CC-BY-4.0", "fluent-emoji-flat": "MIT"}

LIMITS = (
    "It draws 26 objects, 7 backgrounds and 5 styles at 64 x 64 px, and nothing else.",
    "It is a laboratory: results on it rank and debug methods; they are not claims about Stable Diffusion.",
    "Its judge and its CLIP know the pocket world only.",
    "`hazard` is a harmless stand-in for unsafe content: emoji of daggers, bombs, skulls and the like.",
)


def _parts(package: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(package.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - not a dict
        count = 0
        for shape in sizes:
            product = 1
            for side in shape:
                product *= side
            count += product
        yield path.relative_to(package).as_posix(), {
            "parameters": count, "bytes": path.stat().st_size, "sha256": sha256_of(path),
        }


def shares(count: int = 20_000) -> dict[str, float]:
    """Share of training scenes without an object and with two, counted: leaving out held-out combinations shifts both."""
    rng = np.random.default_rng([STREAM["heldout"], count])
    sizes = [len(sample_scene(rng).objects) for _ in range(count)]
    return {"empty_share": round(sizes.count(0) / count, 3), "pairs_share": round(sizes.count(2) / count, 3)}


def card(package: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """Everything that the card says. `figures` is what `evaluate.evaluate` measured."""
    judge = json.loads((package / "judge" / "judge.json").read_text(encoding="utf-8"))
    return {
        "name": "pocket",
        "world": {
            "objects": list(OBJECTS), "styles": list(STYLES), "backgrounds": list(BACKGROUNDS),
            "concepts": {name: list(c.members) for name, c in CONCEPTS.items()},
            **shares(), "held_out_one_in": HELD_OUT_ONE_IN,
        },
        "training": {"steps": dict(FULL.steps), "seeds": SEEDS, "unet_scenes": FULL.unet_scenes, "passes": list(PASSES)},
        "artwork": {f"@iconify-json/{package_}": LICENCES[vendor] for vendor, package_ in VENDORS.items()},
        "judge": {k: judge[k] for k in ("accuracy", "accuracy_scenes", "thresholds", "false_positives", "calibration_scenes")},
        "measured": figures,
        "parts": dict(_parts(package)),
        "bytes": weight_bytes(package),
        "licence": "MIT",
        "limits": list(LIMITS),
    }


def _figure(figure: dict[str, Any]) -> str:
    if "value" not in figure:
        return "- (no such prompt)"
    return f"{figure['value']:.1f} % [{figure['low']:.1f}, {figure['high']:.1f}], n = {figure['n']}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, tuple("---" for _ in head), *rows)]
    return [*lines, ""]


_NAMES = {
    "object_top1": "named object is the judge's top class (one object)",
    "pair_both_in_top2": "both named objects are its top two (two objects)",
    "style": "named style", "background": "named background",
}


def _measured(figures: dict[str, Any]) -> list[str]:
    recipe = f"DDIM, {figures['steps']} steps, guidance {figures['guidance']:g}, fp32, {figures['images']} pictures"
    looks = [
        (title, _figure(figures["written"][key]), _figure(figures["captions"][key])) for key, title in _NAMES.items()
    ]
    concepts = [
        (name, *(_figure(forms[form]) for form in ("named", "synonym", "reference")))
        for name, forms in figures["concepts"].items()
    ]
    return [
        f"{recipe}; {figures['seconds_per_image']} s a picture on {figures['threads']} threads. Scenes are held-out "
        "combinations; intervals are Wilson's, 95 %.", "",
        *_table(("the judge sees", "prompts in one fixed form", "free captions"), looks),
        "How often the judge sees a concept in pictures of prompts that name it, name it by a reserved synonym, and in "
        "their reference prompts (the concept's words taken out):", "",
        *_table(("concept", "named", "synonym", "reference"), concepts),
    ]


def markdown(data: dict[str, Any]) -> str:
    """The card for people."""
    world, judge = data["world"], data["judge"]
    artwork = ", ".join(f"{name} ({licence})" for name, licence in data["artwork"].items())
    accuracy = ", ".join(f"{name} {100 * share:.1f} %" for name, share in judge["accuracy"].items())
    limits = ", ".join(f"{name} {value}" for name, value in judge["thresholds"].items())
    training = [(stage, str(steps), str(data["training"]["seeds"][stage])) for stage, steps in data["training"]["steps"].items()]
    parts = [(name, f"{p['parameters']:,}", f"{p['bytes'] / 1e6:.2f} MB", p["sha256"][:12]) for name, p in data["parts"].items()]
    return "\n".join([
        "# pocket", "",
        "A small latent diffusion model in Stable Diffusion's shape (CLIP text encoder, U-Net, VAE, DDIM), 64 x 64 px, trained "
        "from nothing by `make pocket` on scenes composed from emoji artwork. This card is written by that build.", "",
        "## What it draws", "",
        f"Objects: {', '.join(world['objects'])}. Styles: {', '.join(world['styles'])}. "
        f"Backgrounds: {', '.join(world['backgrounds'])}.", "",
        f"{100 * world['pairs_share']:.0f} % of its training scenes hold two objects, {100 * world['empty_share']:.0f} % none; "
        f"one combination of object, style and background in {world['held_out_one_in']} was never shown.", "",
        "## What was measured", "", *_measured(data["measured"]),
        f"Its VAE gives held-out scenes back at {data['measured']['vae_psnr_db']} dB (PSNR). "
        f"Its judge on {judge['accuracy_scenes']} real scenes: {accuracy}. Thresholds: {limits}, with at most "
        f"{100 * judge['false_positives']:.0f} % false positives on {judge['calibration_scenes']} other scenes. The judge never "
        "saw a generated picture.", "",
        "## How it was trained", "", "The shipped weights in three passes:", "",
        *[f"{number}. {line}." for number, line in enumerate(data["training"]["passes"], 1)], "",
        "`make pocket` trains from nothing in one:", "", *_table(("stage", "steps", "seed"), training),
        f"## Files ({data['bytes'] / 1e6:.1f} MB)", "", *_table(("file", "values", "size", "sha256"), parts),
        "## Licence", "", f"Weights and code: {data['licence']}. Artwork used for training: {artwork}; see NOTICE.", "",
        "## Limits", "", *[f"- {line}" for line in data["limits"]], "",
    ])


def write(package: Path, figures: dict[str, Any]) -> None:
    """Write `card.json` and `card.md` into `package` (srbench/pocket)."""
    data = card(package, figures)
    write_json(package / "card.json", data)
    (package / "card.md").write_text(markdown(data), encoding="utf-8")
