"""Measures the pocket model with its judge on held-out captions, and draws its contact sheet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.stats import binomtest

from srbench.analysis.judging import concept_present
from srbench.catalog.load import protocols
from srbench.pocket.captions import caption, write_prompt
from srbench.pocket.scene import Scene
from srbench.pocket.world import BACKGROUNDS, CONCEPTS, OBJECTS, STYLES, article
from srbench.pocket_build.model import vae
from srbench.pocket_build.model.data import STREAM, batch
from srbench.pocket_build.model.scenes import Painter, sample_scene
from srbench.scorers.pocket_judge import PocketJudge

Score = dict[str, dict[str, float]]
Figure = dict[str, float | int]
FIRST_PART = 2
"""Parts of the held-out stream that the card's figures are made of start here; those before are for looking while building."""
VAE_STEP, VAE_SCENES = 21, 400
SHEET_SCALE, SHEET_MARGIN_PX, SHEET_BLOCKS = 2, 64, 3
SHEET_PAIRS = (
    ("cat", "dagger"), ("bomb", "tree"), ("church", "penguin"), ("owl", "skull"), ("car", "umbrella"), ("apple", "key"),
)
"""Pairs at the end of the contact sheet."""


@dataclass(frozen=True)
class Sampler:
    """How pictures are made: the pipeline and the shipped recipe."""

    pipeline: Any
    steps: int
    guidance: float
    batch_size: int = 16

    def images(self, prompts: Sequence[str], seed: int) -> Iterator[np.ndarray]:
        """One uint8 RGB picture (64, 64, 3) a prompt; picture i has the noise of seed + i."""
        for start in range(0, len(prompts), self.batch_size):
            part = list(prompts[start : start + self.batch_size])
            noise = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
            images = self.pipeline(
                part, generator=noise, num_inference_steps=self.steps, guidance_scale=self.guidance, output_type="np",
            ).images  # (B, 64, 64, 3) in [0, 1]
            yield from (images * 255).round().astype(np.uint8)


def percent(hits: Sequence[bool]) -> Figure:
    """Share in percent with its 95 % Wilson interval and n."""
    if not hits:
        return {"n": 0}
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    shares = {"value": sum(hits) / len(hits), "low": float(interval.low), "high": float(interval.high)}
    return {name: round(100 * share, 2) for name, share in shares.items()} | {"n": len(hits)}


def ranked(probabilities: dict[str, float]) -> list[str]:
    """Names by falling probability."""
    return sorted(probabilities, key=lambda name: -probabilities[name])


def _allowed(key: str, text: str) -> set[str]:
    """Objects that fit what `text` calls the object: itself, or all of its concept where only that is named."""
    item = OBJECTS[key]
    if any(name in text for name in (*item.nouns, item.description)):
        return {key}
    return {member for c in CONCEPTS.values() if key in c.members for member in c.members} or {key}


def objects_right(scene: Scene, text: str, score: Score) -> bool:
    """Whether every object of the scene is among the judge's top k, k = number of objects."""
    top = set(ranked(score["objects"])[: len(scene.objects)])
    return all(top & _allowed(key, text) for key in scene.objects)


def _says(phrases: Sequence[str], text: str) -> bool:
    return any(phrase in text for phrase in phrases)


def style_said(scene: Scene, text: str) -> bool:
    """Whether `text` names the style; of van gogh it always does."""
    style = STYLES[scene.style]
    return scene.style == "vangogh" or _says((*style.phrases, style.short), text)


def background_said(scene: Scene, text: str) -> bool:
    """Whether `text` names the background."""
    place = BACKGROUNDS[scene.background]
    return _says([p.format(color=scene.color) for p in (*place.phrases, place.short)], text)


def heldout_scenes(count: int, part: int) -> list[Scene]:
    """Scenes whose first object stands in a combination that no training picture showed."""
    rng = np.random.default_rng([STREAM["heldout"], part])
    return [sample_scene(rng, "heldout") for _ in range(count)]


def _look_figures(scenes: list[Scene], texts: list[str], scores: list[Score]) -> dict[str, Figure]:
    rows = list(zip(scenes, texts, scores, strict=True))
    return {
        "object_top1": percent([objects_right(s, t, x) for s, t, x in rows if len(s.objects) == 1]),
        "pair_both_in_top2": percent([objects_right(s, t, x) for s, t, x in rows if len(s.objects) == 2]),
        "style": percent([ranked(x["style"])[0] == s.style for s, t, x in rows if style_said(s, t)]),
        "background": percent([ranked(x["background"])[0] == s.background for s, t, x in rows if background_said(s, t)]),
    }


def shown(concept: str, scores: Sequence[Score]) -> Figure:
    """Share of pictures in which the concept's protocol sees it."""
    protocol = protocols()[f"pocket-{concept}"]
    return percent([concept_present(score, protocol) for score in scores])


def _without(scene: Scene, concept: str) -> Scene:
    """`scene` with every object of the concept taken out."""
    left = tuple(key for key in scene.objects if key not in CONCEPTS[concept].members)
    return replace(scene, objects=left)


def concept_prompts(concept: str, count: int) -> dict[str, list[str]]:
    """Prompts that name the concept by its members, its names and its reserved synonyms, and their reference form.

    The reference of an object is the same place and style without any object; of a style, the scene without a style.
    """
    words = CONCEPTS[concept]
    rng = np.random.default_rng([STREAM["heldout"], 10 + list(CONCEPTS).index(concept)])
    prompts: dict[str, list[str]] = {"named": [], "synonym": [], "reference": []}
    for i in range(count):
        scene = sample_scene(rng)
        member = words.members[i % len(words.members)]
        if words.kind == "object":
            one = Scene((member,), scene.style, scene.background, scene.color)
            names = (article(OBJECTS[member].nouns[0]), *words.names)
            prompts["named"].append(write_prompt(one, nouns=(names[i % len(names)],)))
            prompts["synonym"].append(write_prompt(one, nouns=(words.reserved[i % len(words.reserved)],)))
            prompts["reference"].append(write_prompt(_without(one, concept)))
        else:
            prompts["named"].append(write_prompt(scene, style=words.names[i % len(words.names)]))
            prompts["synonym"].append(write_prompt(scene, style=words.reserved[i % len(words.reserved)]))
            prompts["reference"].append(write_prompt(scene, style=""))
    return prompts


def evaluate(
    sampler: Sampler, judge: PocketJudge, *, count: int = 500, progress: Callable[[str], None] = print
) -> dict[str, Any]:
    """Accuracies in percent with Wilson intervals.

    `count` written prompts (one fixed form) and half as many free captions of held-out scenes, and a fifth of it for
    each concept and form; `seconds_per_image` is of the whole sampling.
    """
    began, drawn = time.monotonic(), 0

    def scored(prompts: list[str], seed: int) -> list[Score]:
        nonlocal drawn
        drawn += len(prompts)
        return judge.score(list(sampler.images(prompts, seed)), [{}] * len(prompts))

    figures: dict[str, Any] = {"written": {}, "captions": {}, "concepts": {}}
    for part, (kind, size) in enumerate((("written", count), ("captions", count // 2)), start=FIRST_PART):
        progress(f"evaluate: {size} {kind}")
        scenes = heldout_scenes(size, part)
        rng = np.random.default_rng([STREAM["heldout"], 5])
        texts = [write_prompt(s) if kind == "written" else caption(s, rng) for s in scenes]
        figures[kind] = _look_figures(scenes, texts, scored(texts, 1_000_000 * (part + 1)))
    for part, concept in enumerate(CONCEPTS):
        progress(f"evaluate: concept {concept}")
        prompts = concept_prompts(concept, max(1, count // 5))
        figures["concepts"][concept] = {
            form: shown(concept, scored(texts, 10_000_000 * (part + 1))) for form, texts in prompts.items()
        }
    seconds = (time.monotonic() - began) / drawn
    return figures | {
        "images": drawn, "seconds_per_image": round(seconds, 3), "threads": torch.get_num_threads(),
        "steps": sampler.steps, "guidance": sampler.guidance,
    }


def vae_psnr(network: Any, painter: Painter) -> float:
    """Peak signal-to-noise ratio in dB of held-out scenes that the VAE encoded and decoded."""
    images = batch(painter, "validate", VAE_STEP, VAE_SCENES, "heldout").images.to(network.device)
    return round(vae.psnr(network, images), 2)


def contact_sheet(sampler: Sampler, path: Path, seed: int = 7) -> None:
    """Draw every object and some pairs in every style, one row each, in blocks side by side, as a PNG."""
    places = list(BACKGROUNDS)
    shown = [*((key,) for key in OBJECTS), *SHEET_PAIRS]
    grid = [
        [write_prompt(Scene(keys, style, places[(r + c) % len(places)], "white")) for c, style in enumerate(STYLES)]
        for r, keys in enumerate(shown)
    ]
    images = iter(sampler.images([text for row in grid for text in row], seed))
    cell, high = 64 * SHEET_SCALE, -(-len(shown) // SHEET_BLOCKS)
    wide = SHEET_MARGIN_PX + cell * len(STYLES)
    sheet = Image.new("RGB", (wide * SHEET_BLOCKS, 16 + cell * high), "white")
    pen = ImageDraw.Draw(sheet)
    for number, keys in enumerate(shown):
        left, top = wide * (number // high), 16 + cell * (number % high)
        pen.text((left + 4, top + cell // 2 - 12), "\n".join(keys), "black")
        for column, style in enumerate(STYLES):
            x = left + SHEET_MARGIN_PX + column * cell
            if top == 16:
                pen.text((x + 4, 2), style, "black")
            picture = Image.fromarray(next(images)).resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(picture, (x, top))
    sheet.save(path, optimize=True)
