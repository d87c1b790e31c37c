"""What every training stage of pocket shares: optimiser, schedule, moving average, and a loop that resumes."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Newton-Schulz coefficients for bf16; Jordan et al. 2024, github.com/KellerJordan/Muon (MIT).
_NS = (3.4445, -4.7750, 2.0315)


def _orthogonal(update: Tensor) -> Tensor:
    """The nearest matrix with singular values near one, by five Newton-Schulz steps."""
    a, b, c = _NS
    x = update.bfloat16()
    flip = x.shape[0] > x.shape[1]
    x = x.T if flip else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.T if flip else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, for matrices and for convolutions seen as matrices.

    `torch.optim.Muon` takes matrices only; most weights here are convolutions.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever passed here
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                buffer = state.setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"]).reshape(p.shape[0], -1)
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                p.add_(_orthogonal(update).reshape(p.shape), alpha=-group["lr"] * scale)


def split_optimisers(model: nn.Module, keep: tuple[str, ...], lr: float, muon_lr: float = 0.02) -> list[torch.optim.Optimizer]:
    """Muon for inner weights, AdamW for the rest and for names holding one of `keep`."""
    inner = [p for n, p in model.named_parameters() if p.ndim >= 2 and not any(k in n for k in keep)]
    ids = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in ids]
    return [Muon(inner, lr=muon_lr), torch.optim.AdamW(outer, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)]


def adam(params: Iterable[nn.Parameter], lr: float) -> list[torch.optim.Optimizer]:
    """AdamW as the contrastive and judge stages use it."""
    return [torch.optim.AdamW(list(params), lr=lr, betas=(0.9, 0.98), weight_decay=0.02)]


def cosine(done: float) -> float:
    """Learning-rate factor at the share `done` of the stage, 1 down to 0.02."""
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def late_linear(done: float) -> float:
    """Learning-rate factor: flat for a quarter of the stage, then linear down to 0.01."""
    return 0.01 + 0.99 * min(1.0, (1 - done) / 0.75)


Loss = Callable[[Any, int, float], Tensor]
"""(model, step, share of the stage that is done) -> loss; draws its own batch, seeded by the step."""


@dataclass
class Stage:
    """One training stage."""

    name: str
    model: nn.Module
    optimisers: list[torch.optim.Optimizer]
    loss: Loss
    steps: int
    schedule: Callable[[float], float] = cosine
    warmup: int = 60
    ema: float = 0.998
    validate: Callable[[nn.Module], str] | None = None
    clip: float = 1.0


def _save(path: Path, state: dict) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _resume(stage: Stage, average: nn.Module, path: Path) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    stage.model.load_state_dict(state["model"])
    average.load_state_dict(state["ema"])
    for optimiser, saved in zip(stage.optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return int(state["step"])


def run(stage: Stage, cache: Path, *, budget_seconds: float = math.inf, every: int = 200) -> nn.Module | None:
    """Train `stage` to its last step and return the averaged model, or None where the budget ran out first.

    State is written to `cache/<name>.pt` every `every` steps; the same call goes on from there.
    """
    average = copy.deepcopy(stage.model).eval().requires_grad_(False)
    path = cache / f"{stage.name}.pt"
    start = _resume(stage, average, path)
    base = [[g["lr"] for g in o.param_groups] for o in stage.optimisers]
    if start and (cache / f"{stage.name}.lr.json").exists():
        base = _read_rates(cache, stage.name)
    else:
        _write_rates(cache, stage.name, base)
    began, losses = time.monotonic(), []
    stage.model.train()
    for step in range(start, stage.steps):
        done = step / stage.steps
        factor = min(1.0, (step + 1) / stage.warmup) * stage.schedule(done)
        for optimiser, rates in zip(stage.optimisers, base, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        losses.append(_step(stage, average, step, done))
        if (step + 1) % 50 == 0:
            rate = (step + 1 - start) / (time.monotonic() - began)
            left = (stage.steps - step - 1) / rate
            told = f"loss {np.mean(losses):.4f} {rate:.2f} steps/s, {left:.0f} s left"
            print(f"{stage.name} {step + 1}/{stage.steps} {told}", flush=True)
            losses = []
        over = time.monotonic() - began > budget_seconds
        if (step + 1) % every == 0 or over or step + 1 == stage.steps:
            _checkpoint(stage, average, path, step + 1)
        if stage.validate is not None and (step + 1) % (every * 2) == 0:
            print(f"{stage.name} {step + 1} {stage.validate(average)}", flush=True)
        if over and step + 1 < stage.steps:
            return None
    if stage.validate is not None:
        print(f"{stage.name} end {stage.validate(average)}", flush=True)
    return average


def _read_rates(cache: Path, name: str) -> list[list[float]]:
    return json.loads((cache / f"{name}.lr.json").read_text())


def _write_rates(cache: Path, name: str, rates: list[list[float]]) -> None:
    (cache / f"{name}.lr.json").write_text(json.dumps(rates))


def _checkpoint(stage: Stage, average: nn.Module, path: Path, step: int) -> None:
    _save(path, {
        "step": step,
        "model": stage.model.state_dict(),
        "ema": average.state_dict(),
        "optimisers": [o.state_dict() for o in stage.optimisers],
    })


def _step(stage: Stage, average: nn.Module, step: int, done: float) -> float:
    loss = stage.loss(stage.model, step, done)
    for optimiser in stage.optimisers:
        optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(stage.model.parameters(), stage.clip)
    for optimiser in stage.optimisers:
        optimiser.step()
    decay = min(stage.ema, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(stage.model.parameters()), 1 - decay)
        for mean, current in zip(average.buffers(), stage.model.buffers(), strict=True):
            mean.copy_(current)
    return float(loss.detach())
