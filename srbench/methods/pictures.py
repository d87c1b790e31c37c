"""Shared by methods that learn from images: sets that the frozen model draws and the concept's judge accepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.screen import is_sexual, sensitive_concept
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError
from srbench.methods import learning
from srbench.methods.base import BackboneInfo, Judge, Tell
from srbench.methods.denoising import Denoising, chosen, encoded, pixels_of

Sentence = TypeVar("Sentence", bound=tuple[str, ...])

BATCH = 16
ROUNDS = 6
"""How often an image that the judge refuses is drawn again."""
Draw = Callable[[Conditioning, list[int]], Tensor]
"""Draws images for prompts; also given which of the asked-for images they are."""


def judge_of(backbone: BackboneInfo, concept: ConceptSpec, judged: bool, method: str) -> Judge | None:
    """The judge that accepts images, or None where all are taken.

    Raises `UsageError` where one is wanted and there is none.
    """
    if judged and backbone.judge is None:
        raise UsageError(
            f"{method} needs a judge of '{concept.name}', to take only images that show it, and there is none",
            f"Take the images as they are drawn: --set {method}.judged=false",
        )
    return backbone.judge if judged else None


def may_be_kept(concept: ConceptSpec, texts: Sequence[str]) -> bool:
    """Whether images of these texts may lie on the disk: none of a sensitive concept may."""
    return not sensitive_concept(concept) and not any(map(is_sexual, texts))


def spread(images: int, prompts: int) -> Tensor:
    """Which prompt each image is of, (images,): each in turn, or where there are fewer images a share of the prompts, evenly."""
    return torch.arange(images) * prompts // images if images < prompts else torch.arange(images) % prompts


def accepted(
    draws: Denoising, prompts: Conditioning, draw: Draw, judge: Judge | None, shows: bool, tell: Tell, phase: str
) -> tuple[Tensor, list[int]]:
    """Latents (n, C, h, w) of one image a prompt, and whose prompts' they are; refused ones are drawn again, then left out.

    shows: what the judge has to say of an image. Raises `CellError` where it accepts none.
    """
    total = len(prompts.embeds)
    found: dict[int, Tensor] = {}
    rest = list(range(total))
    for _ in range(ROUNDS if judge is not None else 1):
        for start in range(0, len(rest), BATCH):
            part = rest[start : start + BATCH]
            latents = draw(chosen(prompts, part), part)  # (B, C, h, w)
            said = [shows] * len(part) if judge is None else judge(pixels_of(draws.pipeline, latents))
            found |= {index: latents[i] for i, index in enumerate(part) if said[i] == shows}
            tell(phase, len(found), total, "")
        rest = [index for index in rest if index not in found]
        if not rest:
            break
    if not found:
        what = "shows" if shows else "is without"
        problem = f"of {total} images drawn {ROUNDS} times each none {what} the concept, says its judge"
        raise CellError(problem, "Take other contexts or words.")
    tell(phase, total, total, "")
    return torch.stack([found[index] for index in sorted(found)]), sorted(found)


def of_prompts(
    draws: Denoising, prompts: Conditioning, rng: torch.Generator, judge: Judge | None, tell: Tell, phase: str = "images",
    shows: bool = True,
) -> tuple[Tensor, list[int]]:
    """One image a prompt by the pipeline's own U-Net. As `accepted`."""

    def draw(part: Conditioning, which: list[int]) -> Tensor:
        return draws.walk(draws.pipeline.unet, part, rng)

    return accepted(draws, prompts, draw, judge, shows, tell, phase)


def twins(
    draws: Denoising, images: Tensor, safe: Conditioning, unsafe: Conditioning, strength: float, rng: torch.Generator,
    judge: Judge | None, tell: Tell, phase: str = "twins",
) -> tuple[Tensor, list[int]]:
    """Each image (n, C, h, w) drawn again from `strength` of its steps under its safe prompt, away from its unsafe one, until
    the judge is silent. As `accepted`."""

    def draw(part: Conditioning, which: list[int]) -> Tensor:
        return draws.redrawn(draws.pipeline.unet, images[which], part, chosen(unsafe, which), strength, rng)

    return accepted(draws, safe, draw, judge, False, tell, phase)


def of_sentences(
    backbone: BackboneInfo, concept: ConceptSpec, sentences: Sequence[Sentence], options: Any, method: str, tell: Tell,
    shows: bool = True,
) -> tuple[Tensor, list[Sentence]]:
    """Latents (n, C, h, w) that the frozen model draws for the first text of some sentences, kept by content, and their
    sentences. options: a method's, with `images`, `judged`, `guidance`, `steps` and `seed`. shows: whether the judge has to
    see the concept on them, or not to. Raises as `judge_of` and `accepted` do.
    """
    judge = judge_of(backbone, concept, options.judged, method)
    draws = Denoising(backbone.pipeline, options.steps, options.guidance)
    picked = [sentences[i] for i in spread(options.images, len(sentences)).tolist()]
    texts = [sentence[0] for sentence in picked]

    def make() -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(options.seed)
        latents, of = of_prompts(draws, encoded(backbone.pipeline, texts), rng, judge, tell, shows=shows)
        return {"latents": latents, "of": torch.tensor(of)}

    drawn = (options.guidance, options.steps, options.seed)
    sha = learning.identity(backbone, "images", 1, texts, drawn, judge.identity if judge else "", *([] if shows else ["without"]))
    kept = learning.kept(backbone, f"images-{concept.name}", sha, make, may_be_kept(concept, texts))
    return kept.tensors["latents"].to(backbone.pipeline.unet.device), [picked[i] for i in kept.tensors["of"].tolist()]
