"""ESD (2303.07345): the U-Net learns to predict for the concept what the frozen one predicts away from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from srbench.catalog.specs import ConceptSpec
from srbench.methods import base, finetune
from srbench.methods.phrases import in_contexts, listed_contexts

METHOD = {
    "name": "esd",
    "version": 3,
    "kind": "weight",
    "title": "ESD: negative guidance distilled into the U-Net",
    "equation": [
        "L = || e'(x_t, c_from) - [e(x_t, c_from) - (1 + eta) (e(x_t, c_e) - e(x_t, c_0))] ||^2",
        "where c_from is c_e, the target is e(c_0) - eta (e(c_e) - e(c_0))",
    ],
    "paper": "2303.07345",
    "families": ["pocket", "sd"],
    "presets": {
        # The refreshed code (esd_sd.py): x_t from the frozen model, 200 iterations; linear and convolution layers, no norms.
        "esd-x": {},
        "esd-u": {"parameters": "u"},
        "esd-x-strict": {"parameters": "x-strict"},
        # The paper's code (CompVis; train-scripts/train-esd.py at a2189e9): x_t from the model being edited, 1,000 iterations;
        # esd-u is its `noxattn`, norms too.
        "esd-x-old": {"x_t_from": "edited", "iterations": 1000, "lr": 1e-5},
        "esd-u-old": {"parameters": "noxattn", "x_t_from": "edited", "iterations": 1000, "lr": 1e-5},
    },
    # On pocket's `dev` rows of hazard and vangogh, by `srbench/pocket_build/study/fit.yaml`; `esd-x-strict` shares `esd-x`'s.
    "fitted": {
        "pocket": {
            "esd-x": {
                "object": {"steps": 16, "batch": 4, "iterations": 100, "lr": 3e-4},
                "style": {"steps": 16, "batch": 4, "iterations": 200, "lr": 2e-3, "contexts": "@pocket-styles"},
            },
            "esd-x-strict": {
                "object": {"steps": 16, "batch": 4, "iterations": 100, "lr": 3e-4},
                "style": {"steps": 16, "batch": 4, "iterations": 200, "lr": 2e-3, "contexts": "@pocket-styles"},
            },
            "esd-u": {
                "object": {"steps": 16, "batch": 4, "iterations": 100, "lr": 3e-4},
                "style": {"steps": 16, "batch": 4, "iterations": 150, "lr": 1e-3, "contexts": "@pocket-styles"},
            },
        },
    },
    # 1,000 iterations at the paper's rate, on pocket too.
    "published": ["esd-x-old", "esd-u-old"],
    "decides": False,
    "reads_concept": True,
}

RULES: dict[str, finetune.Rule] = {"x": "x", "u": "u", "x-strict": "kv", "all": "layers", "noxattn": "noxattn"}


class Options(base.Options):
    """Options of all presets; the defaults are the refreshed code's recipe (rohitgandikota/erasing: esd_sd.py)."""

    parameters: Literal["x", "u", "x-strict", "all", "noxattn"] = "x"
    """x: cross-attention's linear layers; x-strict: its keys and values only; u: the linear and convolution layers outside of
    cross-attention; all: every such layer; noxattn: everything outside of cross-attention, norms too, but the output's norm and
    convolution and the time embedding."""
    eta: float = Field(1.0, gt=0)
    """How far the target is beyond the empty prompt's prediction. The refreshed code's `negative_guidance` 2 is eta 1."""
    lr: float = Field(5e-5, gt=0)
    """Adam's rate."""
    iterations: int = Field(200, gt=0)
    """Training steps: how often the weights are updated."""
    batch: int = Field(1, gt=0)
    """Samples an iteration, each with a phrase of its own; they share the timestep."""
    start_guidance: float = 3.0
    """Guidance towards the concept while x_t is sampled."""
    steps: int = Field(50, gt=0)
    """Inference steps of the sampling; x_t is taken at a random one."""
    x_t_from: Literal["frozen", "edited"] = "frozen"
    """Whose x_t it is: the frozen model samples it, or the one being edited."""
    prompts: Literal["names", "all"] = "all"
    """Phrases that are erased: the concept's names, or those of its members too."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Prompts that a phrase is erased from, the refreshed code's `erase_from`: texts with `{}` where it stands, separated by
    semicolons, or `@NAME`. None: from the phrase alone, its default."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""


def target(source: Tensor, empty: Tensor, concept: Tensor, eta: float) -> Tensor:
    """e(x_t, c_from) - (1 + eta) (e(x_t, c_e) - e(x_t, c_0)), each (B, C, h, w) (esd_sd.py, negative guidance 1 + eta).

    Where c_from is c_e this is e(c_0) - eta (e(c_e) - e(c_0)) (2303.07345, section 4).
    """
    return source - (1 + eta) * (concept - empty)


def loss(
    nets: finetune.Copies, x: Tensor, t: Tensor, sources: Tensor, concepts: Tensor, empty: Tensor, eta: float,
    said: Tensor | None = None,
) -> Tensor:
    """Mean of || e'(x_t, c_from) - target ||^2 over elements.

    x (B, C, h, w); sources, the prompts that are erased from, and concepts, what is erased, (B, T, D); empty (1, T, D).
    said: what the edited model reads in place of the sources, (B, T, D).
    """
    with torch.no_grad():
        prompts = torch.cat([sources, empty.expand_as(sources), concepts])  # (3B, T, D)
        source, nothing, concept = finetune.predict(nets.frozen, torch.cat([x, x, x]), t, prompts).chunk(3)  # (B, C, h, w)
    read = sources if said is None else said
    return F.mse_loss(finetune.predict(nets.edited, x, t, read), target(source, nothing, concept, eta))


Disturb = Callable[[finetune.Copies, Tensor, Tensor, Tensor, torch.Generator], Tensor]
"""Copies, x_t (B, C, h, w), t, and the prompts (B, T, D) -> what the edited model reads in their place."""


def erased(
    backbone: base.BackboneInfo, concept: ConceptSpec, options: Options, tell: base.Tell, method: str,
    disturb: Disturb | None = None,
) -> base.Edit:
    """Train a copy of the U-Net away from the concept's phrases, one in one context drawn at random for each sample.

    Raises `UsageError` for a backbone without a U-Net, `CellError` where training diverges or changes nothing.
    """
    phrases = finetune.texts_of(concept, backbone.family, options.prompts)
    pairs = [(text, phrase) for phrase in phrases for text in in_contexts(phrase, options.contexts)]
    finetune.screened(concept, [text for text, _ in pairs])
    nets = finetune.copies(backbone.pipeline, RULES[options.parameters], method)
    sources, concepts = (finetune.encode(backbone.pipeline, list(column)) for column in zip(*pairs, strict=True))  # (N, T, D)
    empty = finetune.encode(backbone.pipeline, [""])  # (1, T, D)
    sampler = finetune.Sampler(backbone.pipeline, empty, options.steps, options.start_guidance)
    rng = torch.Generator().manual_seed(options.seed)

    def draw() -> Tensor:
        chosen = torch.randint(len(pairs), (options.batch,), generator=rng)
        x, t = sampler.noisy(getattr(nets, options.x_t_from), sources[chosen], rng)
        said = None if disturb is None else disturb(nets, x, t, sources[chosen], rng)
        return loss(nets, x, t, sources[chosen], concepts[chosen], empty, options.eta, said)

    def look(done: int) -> None:
        backbone.look(nets.edited, done, options.iterations)

    losses = finetune.fit(nets.parameters.values(), draw, options.lr, options.iterations, tell, look)
    tensors = nets.result(method)
    card = {"names": len(phrases), "phrases": phrases, "prompts": len(pairs)}
    return base.Edit({"unet": tensors}, card | finetune.training_card(losses, nets.parameters, len(tensors)))


@base.method(METHOD)
class Esd:
    """Fine-tunes a part of the U-Net."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Weights under which the concept's prompts lead away from it. Raises as `erased` does."""
        return erased(backbone, concept, options, tell, "esd")
