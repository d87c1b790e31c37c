"""RACE (2405.16341): ESD whose prompts are moved, in each iteration, to where the edited model still draws the concept.

The states of a prompt are moved within `epsilon` of each number, by projected gradient steps, so that e'(x_t, moved) comes near
the frozen model's e(x_t, c_e); then ESD's loss is taken with the moved states as what the edited model reads.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from srbench.catalog.specs import ConceptSpec
from srbench.methods import base, esd, finetune

METHOD = {
    "name": "race",
    "version": 1,
    "kind": "weight",
    "title": "RACE: ESD under prompts that are moved towards the concept",
    "equation": [
        "L = || e'(x_t, c_from + d) - [e(x_t, c_from) - (1 + eta) (e(x_t, c_e) - e(x_t, c_0))] ||^2",
        "d <- clamp(d - attack_step sign(grad_d || e'(x_t, c_from + d) - e(x_t, c_from) ||^2), -epsilon, epsilon)",
    ],
    "paper": "2405.16341",
    "families": ["pocket", "sd"],
    "presets": {"race": {}, "race-u": {"parameters": "u"}},
    # Not fitted on `dev` rows: `esd-x`'s and `esd-u`'s constants there, which are.
    "fitted": {
        "pocket": {
            "race": {
                "object": {"steps": 16, "batch": 4, "iterations": 100, "lr": 3e-4},
                "style": {"steps": 16, "batch": 4, "iterations": 200, "lr": 2e-3, "contexts": "@pocket-styles"},
            },
            "race-u": {
                "object": {"steps": 16, "batch": 4, "iterations": 100, "lr": 3e-4},
                "style": {"steps": 16, "batch": 4, "iterations": 150, "lr": 1e-3, "contexts": "@pocket-styles"},
            },
        },
    },
    "unfitted": ["race", "race-u"],
    "decides": False,
    "reads_concept": True,
}


class Options(esd.Options):
    """ESD's options and the adversary's; the defaults are the published ones."""

    epsilon: float = Field(0.1, ge=0, allow_inf_nan=False)
    """How far each number of a prompt's states may move."""
    attack_step: float = Field(0.025, gt=0, allow_inf_nan=False)
    """How far it moves in a step."""
    attack_steps: int = Field(10, ge=0)
    """0: ESD."""


def moved(
    nets: finetune.Copies, x: Tensor, t: Tensor, prompts: Tensor, options: Options, rng: torch.Generator,
    seen: list[float] | None = None,
) -> Tensor:
    """Prompts (B, T, D) moved so that the edited model predicts for them what the frozen one does. seen: gets the losses."""
    if not options.attack_steps or not options.epsilon:
        return prompts
    with torch.no_grad():
        wanted = finetune.predict(nets.frozen, x, t, prompts)  # (B, C, h, w)
    start = 2 * torch.rand(prompts.shape, generator=rng).to(prompts) - 1
    away = options.epsilon * start
    for _ in range(options.attack_steps):
        away.requires_grad_(True)
        with torch.enable_grad():
            loss = F.mse_loss(finetune.predict(nets.edited, x, t, prompts + away), wanted)
            (slope,) = torch.autograd.grad(loss, [away])  # of what is moved alone: the weights' gradients stay clear
        away = (away.detach() - options.attack_step * slope.sign()).clamp(-options.epsilon, options.epsilon)
        if seen is not None:
            seen.append(float(loss.detach()))
    return prompts + away


@base.method(METHOD)
class Race:
    """Fine-tunes a part of the U-Net against an adversary."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Weights under which the concept's prompts, and what lies near them, lead away from it. Raises as `esd.erased` does."""

        def disturb(nets: finetune.Copies, x: Tensor, t: Tensor, prompts: Tensor, rng: torch.Generator) -> Tensor:
            return moved(nets, x, t, prompts, options, rng)

        return esd.erased(backbone, concept, options, tell, "race", disturb)
