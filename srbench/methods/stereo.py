"""STEREO (2408.16807): embeddings that bring the concept back are collected first; one erasure then keeps away from all of them.

First stage, `rounds` times: ESD on everything outside of cross-attention, for the concept's prompts and all embeddings found so
far; then an embedding is learned under which the edited model draws the concept's images again (2208.01618). Second stage, from
the original weights:

    target = e_0 + scale [ (e_a - e_0) - mean_i (e_i - e_0) ],

with e_a the frozen model's prediction for the phrase's anchor and e_i those for the concept's prompt and each embedding.

The authors' repository held no code when it was looked at. The numbers are a third party's, and that stage two moves
cross-attention, averages over the directions and trains on prompts and embeddings in turn is srbench's reading (unverified). The
embeddings are kept in the cache by content, apart from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.screen import sensitive_concept
from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import base, denoising, esd, finetune, learning, pictures, texts
from srbench.methods.phrases import listed_contexts, pairs_in_contexts

METHOD = {
    "name": "stereo",
    "version": 1,
    "kind": "weight",
    "title": "STEREO: embeddings that bring the concept back are collected, then erased at once",
    "equation": [
        "L = || e'(x_t, c) - target ||^2, c the concept's prompts and the embeddings found",
        "target = e_0 + scale [(e_a - e_0) - mean_i (e_i - e_0)]",
    ],
    "paper": "2408.16807",
    "families": ["pocket", "sd"],
    "presets": {"stereo": {}},
    # Not fitted on `dev` rows: fewer iterations, pocket's steps, and rates for a small model.
    "fitted": {
        "pocket": {
            "stereo": {
                "object": {
                    "steps": 16, "guidance": 5.0, "images": 48, "iterations": 100, "lr": 3e-4, "search_iterations": 100,
                    "search_lr": 3e-4, "inversion_iterations": 300, "inversion_batch": 8, "batch": 4,
                    "contexts": "@pocket-objects",
                },
                "style": {
                    "steps": 16, "guidance": 5.0, "images": 48, "iterations": 150, "lr": 1e-3, "search_iterations": 100,
                    "search_lr": 1e-3, "inversion_iterations": 300, "inversion_batch": 8, "batch": 4,
                    "contexts": "@pocket-styles",
                },
            },
        },
    },
    "unfitted": ["stereo"],
    "decides": False,
    "reads_concept": True,
    "judged": True,
}

class Options(base.Options):
    """Options; the defaults are a third party's settings for Stable Diffusion 1.4."""

    rounds: int = Field(4, gt=0)
    """Of the first stage: each finds one embedding."""
    search_iterations: int = Field(200, gt=0)
    """Of the erasure in each round."""
    search_lr: float = Field(5e-6, gt=0)
    """Adam's rate of the erasure in each round."""
    inversion_iterations: int = Field(3000, gt=0)
    """Training steps of each embedding."""
    inversion_lr: float = Field(5e-3, gt=0)
    """The rate at which an embedding is learned."""
    inversion_batch: int = Field(1, gt=0)
    """Images a training step of an embedding."""
    iterations: int = Field(200, gt=0)
    """Of the second stage."""
    lr: float = Field(2e-5, gt=0)
    """Adam's rate of the second stage."""
    scale: float = Field(2.0, gt=0)
    """How far the target lies from the empty prompt's prediction."""
    parameters: Literal["x", "u", "x-strict", "all", "noxattn"] = "x"
    """Of the second stage, as ESD's."""
    batch: int = Field(1, gt=0)
    """Samples a training step of an erasure; they share the timestep."""
    images: int = Field(8, gt=0)
    """Of the concept, which embeddings are learned from."""
    judged: bool = True
    """Whether the concept's judge has to see the concept in the images."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Texts with `{}` where a phrase or its anchor stands, separated by semicolons, or `@NAME`. None: the phrase alone."""
    sentence: str = Field("a picture of", pattern=r"\S")
    """What stands before a learned embedding."""
    start_guidance: float = 3.0
    """Guidance towards the concept while x_t is sampled."""
    guidance: float = 7.5
    """Of the images."""
    steps: int = Field(50, gt=0)
    """Inference steps of the images and of the sampling; x_t is taken at a random one."""
    prompts: Literal["names", "all"] = "all"
    """Phrases that are erased: the concept's names, or those of its members too."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""


def target(empty: Tensor, anchor: Tensor, adversaries: Tensor, scale: float) -> Tensor:
    """e_0 + scale [(e_a - e_0) - mean_i (e_i - e_0)]; empty and anchor (B, C, h, w), adversaries (n, B, C, h, w)."""
    return empty + scale * ((anchor - empty) - (adversaries - empty).mean(0))


@dataclass(frozen=True)
class Prompts:
    """Prompts of the concept and of its anchors in the same contexts, aligned, and their states (N, T, D)."""

    phrases: list[str]
    texts: list[tuple[str, str]]
    concepts: Tensor
    anchors: Tensor


def prompts_of(pipeline: Any, concept: ConceptSpec, family: str, options: Options) -> Prompts:
    """What is erased, screened. Raises `UsageError` for a concept without anchors."""
    anchor_of = finetune.anchored(concept, family, options.prompts)
    pairs = pairs_in_contexts(anchor_of, options.contexts)
    finetune.screened(concept, [options.sentence, *(text for pair in pairs for text in pair)])
    concepts, anchors = (finetune.encode(pipeline, list(column)) for column in zip(*pairs, strict=True))
    return Prompts(list(anchor_of), pairs, concepts, anchors)


class Session:
    """A pipeline, its prompts, and random numbers of one training."""

    def __init__(self, backbone: base.BackboneInfo, prompts: Prompts, options: Options, tell: base.Tell) -> None:
        self.backbone, self.pipeline, self.prompts, self.options, self.tell = backbone, backbone.pipeline, prompts, options, tell
        self.empty = finetune.encode(self.pipeline, [""])  # (1, T, D)
        self.sampler = finetune.Sampler(self.pipeline, self.empty, options.steps, options.start_guidance)
        self.rng = torch.Generator().manual_seed(options.seed)

    def picked(self, adversaries: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Rows of the prompts (B,), and what is read: prompts, or in as many cases as there are embeddings to one, embeddings."""
        which = torch.randint(len(self.prompts.concepts), (self.options.batch,), generator=self.rng)
        kind = torch.randint(len(adversaries) + 1, (self.options.batch,), generator=self.rng).tolist()
        rows = zip(which.tolist(), kind, strict=True)
        return which, torch.stack([adversaries[k - 1][0] if k else self.prompts.concepts[i] for i, k in rows])  # (B, T, D)

    def search(self, nets: finetune.Copies, adversaries: Sequence[Tensor], phase: str) -> None:
        """ESD of the prompts and of the embeddings found so far, on a copy."""

        def draw(done: int) -> Tensor:
            _, read = self.picked(adversaries)
            x, t = self.sampler.noisy(nets.frozen, read, self.rng)
            return esd.loss(nets, x, t, read, read, self.empty, 1.0)

        recipe = learning.Recipe(self.options.search_lr, self.options.search_iterations)
        learning.train(list(nets.parameters.values()), draw, recipe, self.tell, phase=phase)

    def found(self, unet: Any, latents: Tensor, phase: str) -> Tensor:
        """States (1, T, D) of a sentence whose last word is an embedding under which a U-Net draws the images."""
        encoder, options = texts.one_encoder(self.pipeline, "stereo"), self.options
        ids, start = texts.with_places(self.pipeline, options.sentence, 1, before=False)
        vector = texts.random_vectors(encoder, 1, self.rng).float().requires_grad_(True)  # (1, 1, width)
        draws, scheduler = denoising.Denoising(self.pipeline, options.steps, options.guidance), self.pipeline.scheduler

        def draw(done: int) -> Tensor:
            which = torch.randint(len(latents), (options.inversion_batch,), generator=self.rng)
            clean, noise = latents[which], draws.noise(options.inversion_batch, self.rng)
            t = torch.randint(scheduler.config.num_train_timesteps, (len(clean),), generator=self.rng).to(clean.device)
            x, wanted = denoising.added_noise(scheduler, clean, noise, t), denoising.wanted(scheduler, clean, noise, t)
            said = texts.states(encoder, ids, vector, start).float().expand(len(clean), -1, -1)
            return F.mse_loss(draws.predict(unet, x, t, Conditioning(said)), wanted)

        recipe = learning.Recipe(options.inversion_lr, options.inversion_iterations)
        learning.train([vector], draw, recipe, self.tell, phase=phase)
        with torch.no_grad():
            return texts.states(encoder, ids, vector, start).float()

    def collected(self, latents: Tensor) -> dict[str, Tensor]:
        """The first stage: an embedding of each round, as states (1, T, D)."""
        nets = finetune.copies(self.pipeline, "noxattn", "stereo")
        found: list[Tensor] = []
        for number in range(1, self.options.rounds + 1):
            self.search(nets, found, f"round {number}: erasing")
            found.append(self.found(nets.edited, latents, f"round {number}: inversion"))
        return {f"{number}": states for number, states in enumerate(found)}

    def final(self, nets: finetune.Copies, adversaries: Sequence[Tensor]) -> list[float]:
        """The second stage, on a copy of the original weights; the losses."""

        def draw(done: int) -> Tensor:
            which, read = self.picked(adversaries)
            x, t = self.sampler.noisy(nets.frozen, read, self.rng)
            return F.mse_loss(finetune.predict(nets.edited, x, t, read), self.wanted(nets.frozen, x, t, which, adversaries))

        def look(done: int) -> None:
            self.backbone.look(nets.edited, done, self.options.iterations)

        recipe = learning.Recipe(self.options.lr, self.options.iterations)
        return learning.train(list(nets.parameters.values()), draw, recipe, self.tell, look)

    @torch.no_grad()
    def wanted(self, frozen: Any, x: Tensor, t: Tensor, which: Tensor, adversaries: Sequence[Tensor]) -> Tensor:
        """The second stage's target for x (B, C, h, w)."""
        count, own = len(x), self.prompts
        sides = [self.empty.expand(count, -1, -1), own.anchors[which], own.concepts[which]]
        sides += [each.expand(count, -1, -1) for each in adversaries]
        said = finetune.predict(frozen, x.repeat(len(sides), 1, 1, 1), t, torch.cat(sides)).unflatten(0, (len(sides), count))
        return target(said[0], said[1], said[2:], self.options.scale)


@base.method(METHOD)
class Stereo:
    """Collects embeddings, then fine-tunes a part of the U-Net away from all of them."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Weights under which neither the concept's prompts nor the embeddings found lead to it.

        Raises `UsageError` for a sensitive concept, of which no embedding is learned from images, for a backbone without a U-Net
        or with several text encoders, a concept without anchors, or where a judge is wanted and there is none; `CellError` where
        training diverges or changes nothing.
        """
        if sensitive_concept(concept):
            problem = f"concept '{concept.name}' is sensitive: no embedding is learned from images"
            raise UsageError(problem, "Take another method: srbench list methods")
        pipeline = backbone.pipeline
        nets = finetune.copies(pipeline, esd.RULES[options.parameters], "stereo")
        texts.one_encoder(pipeline, "stereo")
        prompts = prompts_of(pipeline, concept, backbone.family, options)
        latents, _ = pictures.of_sentences(backbone, concept, prompts.texts, options, "stereo", tell)
        session = Session(backbone, prompts, options, tell)
        own = options.model_dump(mode="json", exclude={"iterations", "lr", "scale", "parameters"})
        sha = learning.identity(backbone, METHOD["name"], METHOD["version"], prompts.texts, learning.content({"x": latents}), own)
        kept = learning.kept(backbone, f"stereo-{concept.name}", sha, lambda: session.collected(latents))
        adversaries = [kept.tensors[str(number)].to(latents.device) for number in range(options.rounds)]
        session.rng.manual_seed(options.seed + 1)  # whether the embeddings were in the cache or not
        losses = session.final(nets, adversaries)
        tensors = nets.result("stereo")
        card = {
            "names": len(prompts.phrases), "phrases": prompts.phrases, "embeddings": len(adversaries), "embeddings_sha256": sha,
        }  # fmt: skip
        return base.Edit({"unet": tensors}, card | finetune.training_card(losses, nets.parameters, len(tensors)))
