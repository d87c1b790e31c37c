"""SalUn (2310.12508): the weights that the concept's images depend on most learn to predict its anchor in its place.

The mask: the gradient of the denoising loss of the concept's images, under guidance, summed over them; the largest `keep` of its
magnitudes over the whole U-Net. Then, of the masked weights alone,

    || e'(x_f, c_f) - sg e'(x_f, c_pseudo) ||^2 + alpha (the denoising loss of retain images).

Images are drawn by the frozen model: of the concept those on which its judge sees it, of its anchors those on which it does not.
The pseudo concept of a phrase is its anchor; the paper's classes take the next class, its nudity recipe a clothed person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.specs import ConceptSpec
from srbench.methods import base, denoising, finetune, learning, pictures
from srbench.methods.phrases import listed_contexts, pairs_in_contexts

METHOD = {
    "name": "salun",
    "version": 1,
    "kind": "weight",
    "title": "SalUn: salient weights learn the anchor's predictions for the concept",
    "equation": [
        "L = || e'(x_f, c_f) - sg e'(x_f, c_pseudo) ||^2 + alpha || e'(x_r, c_r) - noise ||^2",
        "only of weights whose |grad of the concept's guided denoising loss| is among the largest keep",
    ],
    "paper": "2310.12508",
    "families": ["pocket", "sd"],
    "presets": {
        # Classes: five epochs over 800 images; the paper's alpha, of which the code has a fifth.
        "salun": {},
        "salun-nudity": {"alpha": 0.1, "iterations": 100},
    },
    # Not fitted on `dev` rows: the published recipe with pocket's steps, fewer iterations and a rate for a small model.
    "fitted": {
        "pocket": {
            "salun": {
                "object": {
                    "steps": 16, "guidance": 5.0, "images": 96, "iterations": 200, "lr": 1e-4, "contexts": "@pocket-objects",
                },
                "style": {
                    "steps": 16, "guidance": 5.0, "images": 96, "iterations": 200, "lr": 1e-4, "contexts": "@pocket-styles",
                },
            },
        },
    },
    "unfitted": ["salun", "salun-nudity"],
    "decides": False,
    "reads_concept": True,
    "judged": True,
}

MASK_BATCH = 8


class Options(base.Options):
    """Options of both presets; the defaults are the published ones for classes (OPTML-Group/Unlearn-Saliency)."""

    keep: float = Field(0.5, gt=0, le=1)
    """The share of the U-Net's weights that may change; 1: all."""
    alpha: float = Field(0.5, ge=0)
    """Of the retain images."""
    lr: float = Field(1e-5, gt=0)
    """Adam's rate."""
    iterations: int = Field(500, gt=0)
    """Training steps: how often the weights are updated."""
    batch: int = Field(8, gt=0)
    """Images of the concept a training step, and as many that are retained."""
    images: int = Field(800, gt=0)
    """Of the concept, and as many of its anchors, spread evenly over the prompts."""
    judged: bool = True
    """Whether the concept's judge has to see the concept in its images, and not in its anchors'."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Texts with `{}` where a phrase or its anchor stands, separated by semicolons, or `@NAME`. None: the phrase alone."""
    guidance: float = 7.5
    """Of the images, and of the prediction under which the mask is taken."""
    steps: int = Field(50, gt=0)
    """Of the images."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""


def salient(gradients: Sequence[Tensor], keep: float) -> list[Tensor]:
    """Per gradient 1 where its magnitude is among the largest `keep` of all entries together, else 0."""
    sizes = torch.cat([each.abs().flatten() for each in gradients])
    count = max(1, round(keep * len(sizes)))
    chosen = torch.zeros_like(sizes).scatter(0, sizes.topk(count).indices, 1.0)
    parts = chosen.split([each.numel() for each in gradients])
    return [part.view_as(each) for part, each in zip(parts, gradients, strict=True)]


class Session:
    """Images with their prompts, and a U-Net twice."""

    def __init__(self, pipeline: Any, nets: finetune.Copies, options: Options) -> None:
        self.pipeline, self.nets, self.options = pipeline, nets, options
        self.draws = denoising.Denoising(pipeline, options.steps, options.guidance)
        self.last = pipeline.scheduler.config.num_train_timesteps

    def noised(self, clean: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x_t (B, C, h, w) of clean latents at random timesteps, t (B,), and what the U-Net should predict."""
        t = torch.randint(self.last, (len(clean),), generator=rng).to(clean.device)
        noise = self.draws.noise(len(clean), rng)
        scheduler = self.pipeline.scheduler
        return denoising.added_noise(scheduler, clean, noise, t), t, denoising.wanted(scheduler, clean, noise, t)

    def forgetting(self, x: Tensor, t: Tensor, concept: Tensor, pseudo: Tensor) -> Tensor:
        """|| e'(x, c_f) - sg e'(x, c_pseudo) ||^2, mean; texts (B, T, D)."""
        with torch.no_grad():
            wanted = self.draws.predict(self.nets.edited, x, t, Conditioning(pseudo))
        return F.mse_loss(self.draws.predict(self.nets.edited, x, t, Conditioning(concept)), wanted)

    def retaining(self, clean: Tensor, prompts: Tensor, rng: torch.Generator) -> Tensor:
        """The denoising loss of images under their prompts."""
        x, t, wanted = self.noised(clean, rng)
        return F.mse_loss(self.draws.predict(self.nets.edited, x, t, Conditioning(prompts)), wanted)

    def mask(self, latents: Tensor, prompts: Tensor, rng: torch.Generator) -> list[Tensor]:
        """Which weights count, by the gradient of the guided denoising loss summed over the concept's images."""
        parameters = list(self.nets.parameters.values())
        total = [torch.zeros_like(each) for each in parameters]
        empty = self.draws.empty.embeds
        for start in range(0, len(latents), MASK_BATCH):
            clean, said = latents[start : start + MASK_BATCH], prompts[start : start + MASK_BATCH]
            x, t, wanted = self.noised(clean, rng)
            with torch.enable_grad():
                both = Conditioning(torch.cat([empty.expand_as(said), said]))
                nothing, own = self.draws.predict(self.nets.edited, torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
                loss = F.mse_loss(nothing + self.options.guidance * (own - nothing), wanted)
                found = learning.gradients(loss, parameters)
            total = [sums + grad.detach() for sums, grad in zip(total, found, strict=True)]
        return salient(total, self.options.keep)


@base.method(METHOD)
class SalUn:
    """Trains a part of a copy of the U-Net."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """A U-Net whose salient weights read the concept's prompts as their anchors.

        Raises `UsageError` for a backbone without a U-Net, a concept without anchors or where a judge is wanted and there is
        none, `CellError` where training diverges or changes nothing.
        """
        pipeline = backbone.pipeline
        nets = finetune.copies(pipeline, "all", "salun")
        anchor_of = finetune.anchored(concept, backbone.family)
        sentences = pairs_in_contexts(anchor_of, options.contexts)
        finetune.screened(concept, [text for pair in sentences for text in pair])
        forget, said = pictures.of_sentences(backbone, concept, sentences, options, "salun", tell)
        anchors = [(safe,) for safe in dict.fromkeys(safe for _, safe in sentences)]
        retain, kept = pictures.of_sentences(backbone, concept, anchors, options, "salun", tell, shows=False)
        concepts, pseudo = (denoising.encoded(pipeline, list(column)).embeds for column in zip(*said, strict=True))  # (n, T, D)
        stays = denoising.encoded(pipeline, [text for (text,) in kept]).embeds
        session, rng = Session(pipeline, nets, options), torch.Generator().manual_seed(options.seed + 1)
        mask = session.mask(forget, concepts, rng)

        def draw(done: int) -> Tensor:
            which = torch.randint(len(forget), (options.batch,), generator=rng)
            x, t, _ = session.noised(forget[which], rng)
            loss = session.forgetting(x, t, concepts[which], pseudo[which])
            if not options.alpha:
                return loss
            other = torch.randint(len(retain), (options.batch,), generator=rng)
            return loss + options.alpha * session.retaining(retain[other], stays[other], rng)

        def look(done: int) -> None:
            backbone.look(nets.edited, done, options.iterations)

        recipe = learning.Recipe(options.lr, options.iterations)
        losses = learning.train(list(nets.parameters.values()), draw, recipe, tell, look, mask=mask)
        tensors = nets.result("salun")
        share = sum(float(each.sum()) for each in mask) / sum(each.numel() for each in mask)
        card = {
            "names": len(anchor_of), "phrases": list(anchor_of), "anchors": anchor_of, "images": len(forget),
            "retain_images": len(retain), "masked_share": round(share, 4),
        }  # fmt: skip
        return base.Edit({"unet": tensors}, card | finetune.training_card(losses, nets.parameters, len(tensors)))
