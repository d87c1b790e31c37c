"""DUO (2407.21035): preference optimisation on pairs of an image with the concept and its twin without it.

Written from the paper's loss and the settings of naver-ai/DUO, which say that they are the conference's. Adapters go to
self-attention alone; `duo-all` adds cross-attention, which the paper leaves out on purpose. Every prediction is made under the
empty prompt, so what is edited is the distribution of images.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from srbench.catalog.specs import ConceptSpec
from srbench.methods import adapters, base, denoising, finetune, learning, pictures
from srbench.methods.adapters import Adapters
from srbench.methods.phrases import in_contexts, listed_contexts, pairs_in_contexts

METHOD = {
    "name": "duo",
    "version": 1,
    "kind": "weight",
    "title": "DUO: preference for an image's twin without the concept",
    "equation": [
        "L = -log sigmoid(-B ([d'(x+) - d(x+)] - [d'(x-) - d(x-)])) + lam || e'(x_T) - e(x_T) ||^2",
        "d: squared error of the noise predicted under the empty prompt; lam = base_lam B / 100, rate = base_lr 100 / B",
    ],
    "paper": "2407.21035",
    "families": ["pocket", "sd"],
    "presets": {"duo": {}, "duo-all": {"layers": "all"}},
    # Not fitted on `dev` rows: the published recipe with pocket's steps, smaller adapters and a rate for a small model.
    "fitted": {
        "pocket": {
            "duo": {
                "object": {
                    "steps": 16, "guidance": 5.0, "rank": 8, "alpha": 8.0, "iterations": 400, "base_lr": 5e-3,
                    "contexts": "@pocket-objects",
                },
                "style": {
                    "steps": 16, "guidance": 5.0, "rank": 8, "alpha": 8.0, "iterations": 400, "base_lr": 5e-3,
                    "contexts": "@pocket-styles",
                },
            },
            "duo-all": {
                "object": {
                    "steps": 16, "guidance": 5.0, "rank": 8, "alpha": 8.0, "iterations": 400, "base_lr": 5e-3,
                    "contexts": "@pocket-objects",
                },
                "style": {
                    "steps": 16, "guidance": 5.0, "rank": 8, "alpha": 8.0, "iterations": 400, "base_lr": 5e-3,
                    "contexts": "@pocket-styles",
                },
            },
        },
    },
    "unfitted": ["duo", "duo-all"],
    "decides": False,
    "reads_concept": True,
    "judged": True,
}

LATEST = 750
"""Timesteps are drawn below this."""


class Options(base.Options):
    """Options; the defaults are the released ones for nudity (naver-ai/DUO)."""

    beta: float = Field(500.0, gt=0)
    """B, the one free number: the rate is base_lr * 100 / B, and the weight of what is preserved base_lam * B / 100."""
    base_lr: float = Field(3e-4, gt=0)
    """AdamW's rate at B = 100."""
    base_lam: float = Field(1e6, ge=0)
    """The weight of what is preserved at B = 100."""
    layers: Literal["self", "all"] = "self"
    """self: the paper's; all: cross-attention, too."""
    rank: int = Field(32, gt=0)
    """Of the adapters: inner dimensions of each."""
    alpha: float = Field(32.0, gt=0)
    """The adapters' scale is alpha / rank."""
    iterations: int = Field(1000, gt=0)
    """Training steps: how often the weights are updated."""
    batch: int = Field(4, gt=0)
    """Released: 1 on each of 4 GPUs."""
    images: int = Field(64, gt=0)
    """Pairs."""
    strength: float = Field(0.75, gt=0, le=1)
    """The share of the steps from which a twin is drawn again. Nudity .75, violence .8."""
    guidance: float = 7.5
    """Of the pairs' images; a factor without unit."""
    steps: int = Field(50, gt=0)
    """Inference steps of the pairs' images."""
    judged: bool = True
    """Whether the concept's judge has to see the concept in the one image of a pair and not in the other."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Texts with `{}` where a phrase or its anchor stands, separated by semicolons, or `@NAME`. None: the phrase alone."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""

    @property
    def lr(self) -> float:
        """AdamW's rate."""
        return self.base_lr * 100 / self.beta

    @property
    def lam(self) -> float:
        """The weight of what is preserved."""
        return self.base_lam * self.beta / 100


def preference(plus: Tensor, plus_frozen: Tensor, minus: Tensor, minus_frozen: Tensor, beta: float) -> Tensor:
    """-log sigmoid(-B ([d'(x+) - d(x+)] - [d'(x-) - d(x-)])), a pair each, (B,) (2407.21035, section 3).

    The arguments are mean squared errors of the predicted noise, (B,): of the twins and of the images with the concept, edited
    and frozen.
    """
    return -F.logsigmoid(-beta * ((plus - plus_frozen) - (minus - minus_frozen)))


def loss(
    draws: denoising.Denoising, unet: Any, own: Adapters, plus: Tensor, minus: Tensor, t: Tensor, noise: Tensor, start: Tensor,
    options: Options,
) -> Tensor:
    """Mean over the pairs, with what is preserved at the start of sampling.

    plus, minus, noise: (B, C, h, w), one noise for both of a pair; t: (2B,), of the twins, then of the others; start: noise that
    is predicted at the last timestep.
    """
    clean, both = torch.cat([plus, minus]), torch.cat([noise, noise])
    scheduler = draws.pipeline.scheduler
    last = torch.full((len(start),), scheduler.config.num_train_timesteps - 1, device=t.device)
    x = torch.cat([denoising.added_noise(scheduler, clean, both, t), start])  # (3B, C, h, w)
    times, prompts = torch.cat([t, last]), denoising.expanded(draws.empty, len(x))
    with torch.no_grad():
        before = draws.predict(unet, x, times, prompts)
    with adapters.attached(unet, own):
        after = draws.predict(unet, x, times, prompts)
    wanted, pairs = denoising.wanted(scheduler, clean, both, t), len(clean)
    said, frozen = ((each[:pairs] - wanted).square().flatten(1).mean(1).chunk(2) for each in (after, before))
    kept = F.mse_loss(after[pairs:], before[pairs:])
    return preference(said[0], frozen[0], said[1], frozen[1], options.beta).mean() + options.lam * kept


def pairs_of(backbone: base.BackboneInfo, concept: ConceptSpec, options: Options, tell: base.Tell) -> tuple[Tensor, Tensor]:
    """Twins and images with the concept, latents (n, C, h, w) each, drawn once and kept by content.

    Raises `UsageError` for a concept without anchors or where a judge is wanted and there is none, `CellError` where it accepts
    no pair.
    """
    pipeline, anchor_of = backbone.pipeline, finetune.anchored(concept, backbone.family)
    unsafe, safe = map(list, zip(*pairs_in_contexts(anchor_of, options.contexts), strict=True))
    away = [phrase for phrase in anchor_of for _ in in_contexts(phrase, options.contexts)]  # the phrase alone: the scene stays
    finetune.screened(concept, [*unsafe, *safe])
    judge = pictures.judge_of(backbone, concept, options.judged, "duo")
    draws = denoising.Denoising(pipeline, options.steps, options.guidance)
    rng = torch.Generator().manual_seed(options.seed)
    which = pictures.spread(options.images, len(unsafe))

    def make() -> dict[str, Tensor]:
        wrong, right, phrase = (denoising.chosen(denoising.encoded(pipeline, each), which) for each in (unsafe, safe, away))
        images, shown = pictures.of_prompts(draws, wrong, rng, judge, tell)
        cleaned, of = pictures.twins(
            draws, images, denoising.chosen(right, shown), denoising.chosen(phrase, shown), options.strength, rng, judge, tell
        )
        return {"plus": cleaned, "minus": images[of]}

    drawn = (options.images, options.strength, options.guidance, options.steps, options.seed)
    sha = learning.identity(backbone, "duo pairs", 1, unsafe, safe, drawn, judge.identity if judge else "")
    kept = learning.kept(backbone, f"pairs-{concept.name}", sha, make, pictures.may_be_kept(concept, [*unsafe, *safe]))
    return kept.tensors["plus"], kept.tensors["minus"]


@base.method(METHOD)
class Duo:
    """Trains adapters on pairs, and adds them to the weights."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Draw the pairs, prefer the twins, and return the weights with the adapters added.

        Raises as `pairs_of` does, `UsageError` for a backbone without a U-Net, `CellError` where training diverges or changes
        nothing.
        """
        unet = denoising.frozen(backbone.pipeline, "duo")
        phrases = list(finetune.anchored(concept, backbone.family))
        plus, minus = (each.to(unet.device) for each in pairs_of(backbone, concept, options, tell))
        draws = denoising.Denoising(backbone.pipeline, options.steps, options.guidance)
        rng = torch.Generator().manual_seed(options.seed + 1)
        own = adapters.made(adapters.attention_layers(unet, options.layers), options.rank, options.alpha, "gaussian", rng)

        def draw(done: int) -> Tensor:
            chosen = torch.randint(len(plus), (options.batch,), generator=rng)
            t = torch.randint(LATEST, (2 * options.batch,), generator=rng).to(plus.device)
            noise, start = draws.noise(options.batch, rng), draws.noise(options.batch, rng)
            return loss(draws, unet, own, plus[chosen], minus[chosen], t, noise, start, options)

        recipe = learning.Recipe(options.lr, options.iterations, decay=1e-2, clip=1.0)
        look = adapters.looking(backbone, unet, own, options.iterations)
        losses = learning.train(adapters.parameters(own), draw, recipe, tell, look)
        before, after = adapters.fused(unet, own)
        tensors = finetune.changed(before, after, options_name(options))
        card = {"names": len(phrases), "phrases": phrases, "pairs": len(plus), "loss_curve": finetune.curve(losses)}
        trained = {"trained_parameters": sum(each.numel() for each in adapters.parameters(own))}
        return base.Edit({"unet": tensors}, card | trained | finetune.edit_card(before, tensors))


def options_name(options: Options) -> str:
    """The preset's name, for messages."""
    return "duo-all" if options.layers == "all" else "duo"
