"""What every training stage of pocket shares: optimiser, schedule, moving average, and a loop that resumes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srbench.pocket_build.model import checkpoints
from srbench.pocket_build.model.sizes import FULL, Sizes

# Newton-Schulz coefficients for bf16; Jordan et al. 2024, github.com/KellerJordan/Muon (MIT).
_NS = (3.4445, -4.7750, 2.0315)


def _orthogonal(updates: Tensor) -> Tensor:
    """The nearest matrices with singular values near one, by five Newton-Schulz steps, (n, rows, columns)."""
    a, b, c = _NS
    x = updates.bfloat16() if _HALF[0] else updates
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).contiguous()
    for _ in range(5):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).float()


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, for matrices and for convolutions seen as matrices.

    `torch.optim.Muon` takes matrices only; most weights here are convolutions.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever passed here
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"]).reshape(p.shape[0], -1)
                alike.setdefault((update.shape[0], update.shape[1]), []).append((p, update))
            for (rows, columns), members in alike.items():
                scale = max(1.0, rows / columns) ** 0.5
                # Equal shapes go through together: a third faster on a CPU, and few kernels instead of thousands on a GPU.
                for (p, _), step in zip(members, _orthogonal(torch.stack([u for _, u in members])), strict=True):
                    p.add_(step.reshape(p.shape), alpha=-group["lr"] * scale)


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
    inputs: str = ""
    """Digest of the earlier stages this one is trained on: a checkpoint with another digest is not resumed."""


@dataclass(frozen=True)
class Place:
    """Where a stage keeps its state, what it computes on, and how long it may go on."""

    cache: Path
    device: torch.device
    seconds: float = math.inf
    sizes: Sizes = FULL


_HALF = [True]


def compute_in(bf16: bool) -> None:
    """Whether `autocast` computes in bf16. Processors without matrix units train faster in fp32: 2.1 s a step against 3.5."""
    _HALF[0] = bf16


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where it is safe and wanted; weights and their updates stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=_HALF[0])


def averaged(cache: Path, name: str, model: nn.Module) -> Any:
    """`model` with the averaged weights of a stage's newest checkpoint, finished or not, in evaluation mode."""
    model.load_state_dict(checkpoints.read(cache, name)["average"])
    return model.eval().requires_grad_(False)


def _resume(stage: Stage, average: nn.Module, place: Place) -> int:
    """Load the newest checkpoint where it belongs to exactly this stage; how many steps it has seen."""
    index = checkpoints.index(place.cache, stage.name)
    if index is None:
        return 0
    if (index.steps, index.inputs) != (stage.steps, stage.inputs):
        print(f"{stage.name}: its checkpoint is of another recipe, training starts afresh", flush=True)
        return 0
    state = checkpoints.read(place.cache, stage.name)
    average.load_state_dict(state["average"])
    if not index.finished:
        stage.model.load_state_dict(state["model"])
        for optimiser, saved in zip(stage.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
    return index.step


def _checkpoint(stage: Stage, average: nn.Module, place: Place, step: int) -> None:
    """Write a checkpoint; a finished stage keeps only its averaged weights, since nothing else is read again."""
    state: dict[str, Any] = {"average": average.state_dict()}
    if step < stage.steps:
        state |= {"model": stage.model.state_dict(), "optimisers": [o.state_dict() for o in stage.optimisers]}
    checkpoints.write(place.cache, stage.name, state, step=step, steps=stage.steps, inputs=stage.inputs)


def _set_rates(stage: Stage, base: list[list[float]], step: int) -> None:
    factor = min(1.0, (step + 1) / stage.warmup) * stage.schedule(step / stage.steps)
    for optimiser, rates in zip(stage.optimisers, base, strict=True):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor


def run(stage: Stage, place: Place, *, every: int = 200) -> bool:
    """Train `stage`; whether it reached its last step before the time was over.

    Its state is written every `every` steps and at the end of the time; the same call goes on from there.
    """
    base = [[g["lr"] for g in o.param_groups] for o in stage.optimisers]
    stage.model.to(place.device).train()
    average = copy.deepcopy(stage.model).eval().requires_grad_(False)
    start = _resume(stage, average, place)
    began, losses = time.monotonic(), []
    for step in range(start, stage.steps):
        _set_rates(stage, base, step)
        losses.append(_step(stage, average, step))
        done, over = step + 1, time.monotonic() - began > place.seconds
        if done % 50 == 0:
            rate = (done - start) / (time.monotonic() - began)
            mean = float(torch.stack(losses).mean())
            left = (stage.steps - done) / rate
            print(f"{stage.name} {done}/{stage.steps} loss {mean:.4f} {rate:.2f} steps/s, {left:.0f} s left", flush=True)
            losses = []
        if done % every == 0 or over or done == stage.steps:
            _checkpoint(stage, average, place, done)
        if stage.validate is not None and (done % (2 * every) == 0 or done == stage.steps):
            print(f"{stage.name} {done} {stage.validate(average)}", flush=True)
        if over and done < stage.steps:
            return False
    return True


def _step(stage: Stage, average: nn.Module, step: int) -> Tensor:
    """One optimiser step; returns its loss on the device, so that nothing waits for it."""
    loss = stage.loss(stage.model, step, step / stage.steps)
    for optimiser in stage.optimisers:
        optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(stage.model.parameters(), stage.clip)
    for optimiser in stage.optimisers:
        optimiser.step()
    decay = min(stage.ema, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, current in zip(average.parameters(), stage.model.parameters(), strict=True):
            mean.lerp_(current, 1 - decay)
        for buffer, newest in zip(average.buffers(), stage.model.buffers(), strict=True):
            buffer.copy_(newest)
    return loss.detach()
