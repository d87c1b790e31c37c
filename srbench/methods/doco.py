"""DoCo (2405.15304): a discriminator tells the concept's predictions from its anchor's, and the model learns to deceive it.

Written from the paper. What is preserved is the denoising of the anchor's images. In the released code the projection of the
gradients ignores their length, and with clipping the preserving gradient is never applied; here the erasing gradient loses its
part against the preserving one, and both are applied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import ablation, base, denoising, finetune, learning
from srbench.methods.phrases import listed_contexts, pairs_in_contexts

METHOD = {
    "name": "doco",
    "version": 1,
    "kind": "weight",
    "title": "DoCo: the concept's predictions pass for its anchor's before a discriminator",
    "equation": [
        "L_D = -log D(x0(c_anchor)) - log(1 - D(x0'(c)))",
        "g = grad[-log D(x0'(c))], r = prior_weight grad || e'(x_t, c_anchor) - noise ||^2",
        "the step is along r + (g - (g.r / r.r) r where g.r < 0, else g)",
    ],
    "paper": "2405.15304",
    "families": ["pocket", "sd"],
    "presets": {"doco": {}},
    "fitted": {
        # Published: the discriminator's rate for styles; objects are the defaults.
        "sd": {"doco": {"style": {"discriminator_lr": 5e-4}}},
        # Not fitted on `dev` rows: the published recipe with pocket's steps, fewer iterations and rates for a small model.
        "pocket": {
            "doco": {
                "object": {
                    "steps": 16, "guidance": 5.0, "images": 192, "iterations": 600, "warmup": 200, "lr": 1e-4,
                    "discriminator_lr": 5e-4, "contexts": "@pocket-objects",
                },
                "style": {
                    "steps": 16, "guidance": 5.0, "images": 192, "iterations": 600, "warmup": 200, "lr": 1e-4,
                    "discriminator_lr": 5e-4, "contexts": "@pocket-styles",
                },
            },
        },
    },
    "unfitted": ["doco"],
    "decides": False,
    "reads_concept": True,
}

WIDTH = 64
"""Channels of the discriminator's first layer."""


class Options(base.Options):
    """Options; the defaults are the published ones for objects (yongliang-wu/DoCo)."""

    lr: float = Field(6e-6 * 8, gt=0)
    """AdamW's rate: the published 6e-6, scaled by the batch of 8."""
    discriminator_lr: float = Field(1e-4, gt=0)
    """Adam's rate, with a first moment of .5. Styles 5e-4, objects 1e-4."""
    iterations: int = Field(2000, gt=0)
    """Training steps, the warm-up's among them."""
    warmup: int = Field(1000, ge=0)
    """The first of them, in which the discriminator alone learns."""
    prior_weight: float = Field(1.0, ge=0)
    """Of what is preserved."""
    batch: int = Field(8, gt=0)
    """Anchor images a training step."""
    images: int = Field(1000, gt=0)
    """Anchor images that the frozen model draws, spread evenly over the anchors."""
    guidance: float = 7.5
    """Of the anchor images."""
    steps: int = Field(50, gt=0)
    """Of the anchor images."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Texts with `{}` where a phrase or its anchor stands, separated by semicolons, or `@NAME`. None: the phrase alone."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""


def surgery(erasing: Sequence[Tensor], preserving: Sequence[Tensor]) -> list[Tensor]:
    """g - (g.r / r.r) r where g.r < 0, else g, over all parameters as one vector (2405.15304, section 3.3)."""
    along = sum(float((g.double() * r.double()).sum()) for g, r in zip(erasing, preserving, strict=True))
    length = sum(float(r.double().square().sum()) for r in preserving)
    if along >= 0 or length == 0:
        return list(erasing)
    return [g - along / length * r for g, r in zip(erasing, preserving, strict=True)]


def discriminator(channels: int, side: int, rng: torch.Generator) -> nn.Sequential:
    """Scores patches of latents (B, C, h, w): up to three strided layers, as many as leave more than one place."""
    count = max(1, min(3, int(math.log2(side)) - 1))
    widths = [channels, *(WIDTH * 2**i for i in range(count))]
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        network = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=rng) * 0.02 if value.ndim > 1 else torch.zeros(value.shape))
    return network


def clean_of(scheduler: Any, x: Tensor, output: Tensor, t: Tensor) -> Tensor:
    """The predicted clean latents (B, C, h, w) of x_t and the U-Net's output."""
    share = scheduler.alphas_cumprod.to(x.device)[t].view(-1, 1, 1, 1)
    if scheduler.config.prediction_type == "v_prediction":
        return share.sqrt() * x - (1 - share).sqrt() * output
    return (x - (1 - share).sqrt() * output) / share.sqrt()


def judged(network: nn.Module, latents: Tensor, anchor: bool) -> Tensor:
    """Binary cross-entropy of the discriminator's scores, if all are to be the anchor's, or none."""
    scores = network(latents)
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(anchor)))


@base.method(METHOD)
class DoCo:
    """Trains keys and values against a discriminator."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """A U-Net whose predictions for the concept cannot be told from those for its anchor.

        Raises `UsageError` for a backbone without a U-Net, a concept without anchors, or a warm-up that leaves nothing to train;
        `CellError` where training diverges or changes nothing.
        """
        pipeline = backbone.pipeline
        finetune.unet_of(pipeline, "doco")
        if options.warmup >= options.iterations:
            raise UsageError(
                f"doco: {options.iterations} iterations of which {options.warmup} train the discriminator alone", "Lower warmup."
            )
        anchor_of = finetune.anchored(concept, backbone.family)
        pairs = dict(pairs_in_contexts(anchor_of, options.contexts))
        finetune.screened(concept, [*pairs, *pairs.values()])
        nets = finetune.copies(pipeline, "kv", "doco")
        draws = denoising.Denoising(pipeline, options.steps, options.guidance)
        rng = torch.Generator().manual_seed(options.seed)
        sampled = ablation.Options(images=options.images, steps=options.steps, guidance=options.guidance, seed=options.seed)
        anchors = ablation.gather(pipeline, nets.frozen, pairs, sampled, rng, tell)
        critic = discriminator(nets.edited.config.in_channels, min(draws.size), rng).to(anchors.latents.device)
        values, own = list(nets.parameters.values()), list(critic.parameters())
        student = learning.optimiser(values, learning.Recipe(options.lr, options.iterations, decay=1e-2))
        teacher = learning.optimiser(own, learning.Recipe(options.discriminator_lr, options.iterations, betas=(0.5, 0.999)))
        losses = []
        for done in range(1, options.iterations + 1):
            batch = drawn(draws, anchors, options.batch, rng)
            with torch.enable_grad():
                fake, real, keeping = predictions(draws, nets, batch)
                telling = judged(critic, real, True) + judged(critic, fake.detach(), False)
                learning.check_loss(float(telling.detach()), done, options.discriminator_lr)
                learning.step(teacher, own, learning.gradients(telling, own))
                deceiving = judged(critic, fake, True)
                losses.append(float(deceiving.detach()))
                learning.check_loss(losses[-1], done, options.lr)
                if done > options.warmup:
                    moved = learning.gradients(deceiving, values, again=True)
                    kept = [options.prior_weight * grad for grad in learning.gradients(keeping, values)]
                    learning.step(student, values, [g + r for g, r in zip(surgery(moved, kept), kept, strict=True)])
            tell("training", done, options.iterations, f"loss {losses[-1]:.4g}")
            backbone.look(nets.edited, done, options.iterations)
        tensors = nets.result("doco")
        card = {"names": len(anchor_of), "phrases": list(anchor_of), "prompts": len(pairs), "images": options.images}
        return base.Edit({"unet": tensors}, card | finetune.training_card(losses, nets.parameters, len(tensors)))


Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""x_t, t, what the U-Net is to predict of it, anchors and phrases."""


def drawn(draws: denoising.Denoising, anchors: ablation.Anchors, count: int, rng: torch.Generator) -> Batch:
    """Noised anchor images, each with its anchor and a phrase of it."""
    clean, anchor, phrase = anchors.draw(count, rng)
    noise = torch.randn(clean.shape, generator=rng).to(clean)
    t = torch.randint(draws.pipeline.scheduler.config.num_train_timesteps, (count,), generator=rng).to(clean.device)
    scheduler = draws.pipeline.scheduler
    return denoising.added_noise(scheduler, clean, noise, t), t, denoising.wanted(scheduler, clean, noise, t), anchor, phrase


def predictions(draws: denoising.Denoising, nets: finetune.Copies, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Clean latents for the phrases by the edited model and for the anchors by the frozen one, and the preserving loss."""
    x, t, wanted, anchor, phrase = batch
    scheduler, both = draws.pipeline.scheduler, Conditioning(torch.cat([phrase, anchor]))
    said, stays = draws.predict(nets.edited, torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
    with torch.no_grad():
        real = clean_of(scheduler, x, draws.predict(nets.frozen, x, t, Conditioning(anchor)), t)
    return clean_of(scheduler, x, said, t), real, F.mse_loss(stays, wanted)
