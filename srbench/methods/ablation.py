"""Concept Ablation (2303.13516), model-based: the concept's prompts learn to predict what their anchors predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from pydantic import AfterValidator, Field
from torch import Tensor

from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import base, finetune
from srbench.methods.phrases import listed_contexts, pairs_in_contexts

METHOD = {
    "name": "ablation",
    "version": 1,
    "kind": "weight",
    "title": "Concept Ablation: the concept's prompts predict what their anchors predict",
    "equation": [
        "L = || e'(x_t, c_target) - sg e*(x_t, c_anchor) ||^2, x_t a noised image of the anchor",
        "e* = e' (anchor_from=edited) or the untouched e (anchor_from=frozen)",
    ],
    "paper": "2303.13516",
    "families": ["pocket", "sd"],
    "presets": {"ablation": {}},
    # On pocket's `dev` rows of hazard and vangogh, by `srbench/pocket_build/study/fit.yaml`.
    "fitted": {
        "pocket": {
            "ablation": {
                "object": {
                    "steps": 16, "guidance": 5.0, "images": 192, "iterations": 200, "lr": 3e-4, "contexts": "@pocket-objects",
                },
                "style": {
                    "steps": 16, "guidance": 5.0, "images": 192, "iterations": 200, "lr": 1e-3, "contexts": "@pocket-styles",
                    "anchor_from": "frozen",
                },
            },
        },
    },
    "decides": False,
    "reads_concept": True,
}

SAMPLING_BATCH = 16


class Options(base.Options):
    """Options; the defaults are the official recipe for styles and objects (nupurkmr9/concept-ablation)."""

    parameters: Literal["kv", "x", "all"] = "kv"
    """kv: cross-attention's keys and values; x: all its linear layers; all: the whole U-Net."""
    lr: float = Field(1.6e-5, gt=0)
    """Adam's rate: the official 2e-6, scaled by the batch of 8 as its scripts do."""
    iterations: int = Field(100, gt=0)
    """Training steps: how often the weights are updated."""
    batch: int = Field(8, gt=0)
    """Official: 4 on each of 2 GPUs."""
    images: int = Field(1000, gt=0)
    """Anchor images that the frozen model draws, spread evenly over the anchors."""
    anchor_from: Literal["edited", "frozen"] = "edited"
    """Whose prediction for the anchor is the target; the paper takes the model being trained, without its gradient."""
    guidance: float = 7.5
    """Of the anchor images."""
    steps: int = Field(50, gt=0)
    """Of the anchor images."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Texts with `{}` where a phrase or its anchor stands, separated by semicolons, or `@NAME`. The official recipe draws
    its images from captions written for each anchor. None: the phrase alone."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""


@dataclass(frozen=True)
class Anchors:
    """Distinct anchors with their images, and the phrases that each replaces."""

    texts: list[str]
    latents: Tensor  # (images, C, h, w), image i shows anchor i % A
    anchors: Tensor  # (A, T, D)
    phrases: list[Tensor]
    """Per anchor, (n, T, D)."""

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random images (B, C, h, w), their anchors (B, T, D), and for each a phrase of its anchor (B, T, D)."""
        image = torch.randint(len(self.latents), (count,), generator=rng)
        which = (image % len(self.texts)).tolist()
        phrases = [self.phrases[k][int(torch.randint(len(self.phrases[k]), (), generator=rng))] for k in which]
        return self.latents[image], self.anchors[which], torch.stack(phrases)


def _grouped(pairs: Mapping[str, str]) -> dict[str, list[str]]:
    """Anchor -> the phrases that it replaces."""
    return {anchor: [phrase for phrase, its in pairs.items() if its == anchor] for anchor in dict.fromkeys(pairs.values())}


def gather(
    pipeline: Any, unet: Any, pairs: Mapping[str, str], options: Options, rng: torch.Generator, tell: base.Tell
) -> Anchors:
    """Encode both sides and draw the anchors' images with `unet`, the frozen one.

    Raises `UsageError` where there are fewer images than anchors.
    """
    groups = _grouped(pairs)
    if options.images < len(groups):
        raise UsageError(f"ablation: {options.images} images for {len(groups)} anchors", "Raise images to one an anchor.")
    anchors = finetune.encode(pipeline, list(groups))  # (A, T, D)
    phrases = [finetune.encode(pipeline, group) for group in groups.values()]
    sampler = finetune.Sampler(pipeline, finetune.encode(pipeline, [""]), options.steps, options.guidance)
    parts = []
    for start in range(0, options.images, SAMPLING_BATCH):
        image = torch.arange(start, min(start + SAMPLING_BATCH, options.images))
        parts.append(sampler.clean(unet, anchors[image % len(groups)], rng))
        tell("images", int(image[-1]) + 1, options.images, "")
    return Anchors(list(groups), torch.cat(parts), anchors, phrases)


def loss(nets: finetune.Copies, teacher: Any, x: Tensor, t: Tensor, anchors: Tensor, phrases: Tensor) -> Tensor:
    """Mean of || e'(x_t, c_target) - sg[e(x_t, c_anchor)] ||^2 over elements (2303.13516, section 3).

    x (B, C, h, w), t (B,), anchors and phrases (B, T, D); e is the teacher's, which no gradient reaches.
    """
    with torch.no_grad():
        wanted = finetune.predict(teacher, x, t, anchors)  # (B, C, h, w)
    return F.mse_loss(finetune.predict(nets.edited, x, t, phrases), wanted)


@base.method(METHOD)
class Ablation:
    """Fine-tunes cross-attention on images of the anchors."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Train a copy of the U-Net to read the concept's phrases as their anchors.

        Raises `UsageError` for a backbone without a U-Net or a concept without anchors, `CellError` where training diverges
        or changes nothing.
        """
        anchor_of = finetune.anchored(concept, backbone.family)
        pairs = dict(pairs_in_contexts(anchor_of, options.contexts))
        finetune.screened(concept, [*pairs, *pairs.values()])
        nets = finetune.copies(backbone.pipeline, options.parameters, "ablation")
        rng = torch.Generator().manual_seed(options.seed)
        anchors = gather(backbone.pipeline, nets.frozen, pairs, options, rng, tell)
        # The training noise of the backbone's own schedule, whatever solver it samples with.
        noising = DDPMScheduler.from_config(backbone.pipeline.scheduler.config)
        teacher = getattr(nets, options.anchor_from)

        def draw() -> Tensor:
            x0, anchor, phrase = anchors.draw(options.batch, rng)
            noise = torch.randn(x0.shape, generator=rng).to(x0)  # (B, C, h, w)
            t = torch.randint(noising.config.num_train_timesteps, (options.batch,), generator=rng).to(x0.device)
            return loss(nets, teacher, noising.add_noise(x0, noise, t), t, anchor, phrase)

        def look(done: int) -> None:
            backbone.look(nets.edited, done, options.iterations)

        losses = finetune.fit(nets.parameters.values(), draw, options.lr, options.iterations, tell, look)
        tensors = nets.result("ablation")
        card = {
            "names": len(anchor_of), "phrases": list(anchor_of), "anchors": anchor_of, "prompts": len(pairs),
            "images": options.images,
        }  # fmt: skip
        return base.Edit({"unet": tensors}, card | finetune.training_card(losses, nets.parameters, len(tensors)))
