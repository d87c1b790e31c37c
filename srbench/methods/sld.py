"""SLD (2211.05105, section 3): a third prediction, under the concept's text, steers guidance away from the concept.

With e_0, e_c, e_s the predictions under the negative prompt, the prompt and the concept's text:

    mu    = 0 where e_c - e_s >= lambda, else min(1, s_s |e_c - e_s|)
    gamma = mu (e_s - e_0) + s_m nu
    nu   <- beta_m nu + (1 - beta_m) gamma
    e     = e_0 + g ((e_c - e_0) - gamma), gamma being left out before the warm-up's end

On families whose denoiser gets more of a text than its embedding (SDXL, SD3, PixArt) the third prediction has the concept's
text there too. SD3 predicts a velocity; differences of it are differences of noise times a factor of at least 1, and the formula
is applied to them as they are, with constants that were fitted to Stable Diffusion's noise. FLUX is left out: it takes the two
sides of guidance in turn.

`sld-weak-200` has the scale of UnlearnDiffAtk's copy. That copy compares the warm-up with the timestep's value instead of
the step's number, which turns the warm-up off for nearly all steps; this is not reproduced.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.specs import ConceptSpec
from srbench.methods import base, guidance
from srbench.methods.guidance import LATENTS, PROMPT, argument

# The four levels: diffusers, pipelines/deprecated/stable_diffusion_safe/__init__.py, SafetyConfig.
METHOD = {
    "name": "sld",
    "version": 1,
    "kind": "inference",
    "title": "SLD: safe latent diffusion",
    "equation": [
        "mu = 0 where e_c - e_s >= lambda, else min(1, s_s |e_c - e_s|)",
        "gamma = mu (e_s - e_0) + s_m nu",
        "nu <- beta_m nu + (1 - beta_m) gamma",
        "e = e_0 + g ((e_c - e_0) - gamma), gamma left out before the warm-up's end",
    ],
    "paper": "2211.05105",
    "families": ["pocket", "sd", "sdxl", "sd3", "pixart"],
    "preset_families": {"sld-medium+ci": ["pocket", "sd"], "sld-max+ci": ["pocket", "sd"]},
    "presets": {
        "sld-weak": {"warmup": 15, "scale": 20.0, "threshold": 0.0, "momentum_scale": 0.0, "momentum_beta": 0.0},
        "sld-weak-200": {"warmup": 15, "scale": 200.0, "threshold": 0.0, "momentum_scale": 0.0, "momentum_beta": 0.0},
        "sld-medium": {"warmup": 10, "scale": 1000.0, "threshold": 0.01, "momentum_scale": 0.3, "momentum_beta": 0.4},
        "sld-strong": {"warmup": 7, "scale": 2000.0, "threshold": 0.025, "momentum_scale": 0.5, "momentum_beta": 0.7},
        "sld-max": {"warmup": 0, "scale": 5000.0, "threshold": 1.0, "momentum_scale": 0.5, "momentum_beta": 0.7},
        "sld-medium+ci": {
            "warmup": 10, "scale": 1000.0, "threshold": 0.01, "momentum_scale": 0.3, "momentum_beta": 0.4,
            "concept": "inversion",
        },
        "sld-max+ci": {
            "warmup": 0, "scale": 5000.0, "threshold": 1.0, "momentum_scale": 0.5, "momentum_beta": 0.7,
            "concept": "inversion",
        },
    },
    # The levels are what their constants are.
    "published": ["sld-weak", "sld-weak-200", "sld-medium", "sld-strong", "sld-max", "sld-medium+ci", "sld-max+ci"],
    "decides": False,
    "reads_concept": True,
    "prepare": "make",
}


class Options(base.Options):
    """Options of all presets; the defaults are `sld-medium`'s."""

    warmup: int = Field(10, ge=0)
    """Steps before gamma is subtracted; the momentum grows meanwhile."""
    scale: float = Field(1000.0, ge=0, allow_inf_nan=False)
    """s_s: how strongly the difference of two predictions steers; a factor without unit."""
    threshold: float = Field(0.01, allow_inf_nan=False)
    """lambda: where e_c exceeds e_s by this or more, nothing is steered; in units of the predicted noise."""
    momentum_scale: float = Field(0.3, ge=0, allow_inf_nan=False)
    """s_m: the share of the momentum nu that is added."""
    momentum_beta: float = Field(0.4, ge=0, lt=1)
    """beta_m: the share of the momentum that is kept from step to step."""
    text: str | None = Field(None, pattern=r"\S")
    """What to steer away from; None: all that methods are told of the concept, as far as one text holds it."""
    steps: Literal["scaled", "absolute"] = "scaled"
    """Whether the warm-up, fitted to 50 steps, scales with the call's steps."""
    concept: Literal["text", "inversion"] = "text"
    """`inversion` (2511.04834): a vector learned on the model replaces the concept's text, in the place that its file says."""
    inversion: str | None = Field(None, exclude=True)
    """Its file or folder; None is where training puts it. Identity is the artifact's sha256, not the path."""


def steered(e0: Tensor, ec: Tensor, es: Tensor, momentum: Tensor, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """gamma, the next momentum and mu, each of the predictions' shape (2211.05105, equations 4 to 8)."""
    difference = ec - es
    mu = torch.where(difference >= options.threshold, 0.0, (options.scale * difference.abs()).clamp(max=1.0))
    gamma = mu * (es - e0) + options.momentum_scale * momentum
    return gamma, options.momentum_beta * momentum + (1 - options.momentum_beta) * gamma, mu


class Steer(base.Applied):
    """A pre-hook that widens the denoiser's batch and a post-hook that narrows it; all state of one call. B images."""

    hooked = True

    def __init__(self, concept: Conditioning, options: Options, call: base.Call) -> None:
        self.concept, self.options, self.call = concept, options, call  # of one text; embeddings (1, T, D) or (1, 1, D)
        self.channels = 0
        """Of the latents; PixArt predicts a variance behind them."""
        self.warmup = round(guidance.scaled_steps(options.warmup, call.steps, options.steps))
        self.calls = 0
        self.momentum = torch.zeros(())  # then (B, C, h, w) float32
        self.records: list[tuple[Tensor, Tensor]] = []

    def before(self, denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> guidance.Arguments:
        """[negative; positive] becomes [negative; positive; safety]."""
        latents, prompt = argument(args, kwargs, LATENTS), argument(args, kwargs, PROMPT)
        guidance.check_batch("sld", self.call, latents, prompt)
        self.calls += 1
        self.channels = latents.shape[1]
        return guidance.widened(args, kwargs, self.call, self.concept)

    def after(self, denoiser: Any, args: tuple[Any, ...], output: Any) -> Any:
        """[e_0; e_c; e_s] becomes [e_0; e_c - gamma], which the pipeline's own guidance turns into SLD's."""
        e = guidance.prediction(output)
        e0, ec, es = e.float().chunk(3)  # (B, C, h, w) each
        gamma, self.momentum, mu = steered(e0, ec, es, self.momentum.to(e0), self.options)
        gamma = gamma if self.calls > self.warmup else torch.zeros_like(gamma)
        noise = slice(self.channels)
        self.records.append(((gamma[:, noise] != 0).flatten(1).any(1), (mu[:, noise] > 0).flatten(1).float().mean(1)))
        return guidance.with_prediction(output, torch.cat([e0, ec - gamma]).to(e.dtype))  # (2B, C, h, w)

    def trace(self) -> list[dict[str, Any]]:
        """Per image: steps at which gamma was subtracted and not zero, and the share of latent elements with mu > 0."""
        if not self.records:
            return [{} for _ in range(self.call.images)]
        acted, share = (torch.stack(column).float().cpu() for column in zip(*self.records, strict=True))  # (S, B)
        counts, means = acted.sum(0).int().tolist(), share.mean(0).tolist()
        return [{"guided_steps": n, "share": round(mean, 4)} for n, mean in zip(counts, means, strict=True)]


@base.method(METHOD)
class SldMethod:
    """Steers guidance away from the concept."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any) -> base.Artifact:
        """Encode the concept's text, or load its inversion.

        Raises as `guidance.embedding` and `guidance.inverted` do, and `UsageError` without words for the family.
        """
        began = time.perf_counter()
        if options.concept == "inversion":
            # A single row is repeated over the tokens when used: attention over equal tokens is attention over one.
            inversion = guidance.inverted(backbone, concept, options.inversion)
            tensors = {"safety": inversion.rows(backbone.pipeline)[None]}  # (1, 1, D), or (1, T, D) of a sentence
            return guidance.artifact_of(backbone, tensors, inversion.sha256, began, inversion.seconds, inversion.card())
        text, card = guidance.told(backbone.pipeline, concept, backbone.family, options.text)
        encoded = guidance.conditioning(backbone.pipeline, text)
        parts = {"safety": encoded.embeds, "pooled": encoded.pooled, "mask": encoded.mask}
        tensors = {name: part for name, part in parts.items() if part is not None}
        return guidance.artifact_of(backbone, tensors, text, began, card=card | {"constants": "published, not fitted"})

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[Steer]:
        """Two hooks on the denoiser; nothing of them is left afterwards. Raises `CellError` without guidance."""
        guidance.require_guidance("sld", call)
        tensors = artifact.payload
        concept = Conditioning(tensors["safety"], tensors.get("pooled"), tensors.get("mask"))
        target, steer = base.denoiser(pipeline), Steer(concept, options, call)
        with base.hooks(
            target.register_forward_pre_hook(steer.before, with_kwargs=True), target.register_forward_hook(steer.after)
        ):
            yield steer
