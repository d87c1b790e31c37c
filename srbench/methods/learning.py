"""Shared by methods that train modules of their own: the loop, the rate's schedule, and a cache by content of the results."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from srbench.errors import CellError, Unmade
from srbench.files import write_atomic
from srbench.hashing import digest
from srbench.methods.base import BackboneInfo, Tell

Loss = Callable[[int], Tensor]
"""The loss of an iteration, drawn anew; iterations count from 0."""
Look = Callable[[int], None]


@dataclass(frozen=True)
class Recipe:
    """How an optimiser moves parameters."""

    rate: float
    iterations: int
    decay: float = 0.0
    """AdamW's weight decay; 0 is Adam."""
    clip: float | None = None
    """The largest norm of a gradient."""
    schedule: Literal["constant", "cosine"] = "constant"
    """cosine: with hard restarts, after a linear warm-up."""
    warmup: int = 0
    restarts: int = 1
    betas: tuple[float, float] = (0.9, 0.999)

    def factor(self, step: int) -> float:
        """What the rate is multiplied with at a step, from 0."""
        if step < self.warmup:
            return step / self.warmup
        if self.schedule == "constant":
            return 1.0
        progress = (step - self.warmup) / max(1, self.iterations - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * (self.restarts * progress % 1.0))) if progress < 1 else 0.0


def optimiser(parameters: Sequence[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """Adam, or AdamW where weights decay."""
    if recipe.decay:
        return torch.optim.AdamW(parameters, lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.decay)
    return torch.optim.Adam(parameters, lr=recipe.rate, betas=recipe.betas)


def gradients(loss: Tensor, parameters: Sequence[Tensor], again: bool = False) -> list[Tensor]:
    """Of these parameters and no other, whatever else of a pipeline asks for gradients; zeros where there are none.

    again: whether another loss of the same graph follows.
    """
    found = torch.autograd.grad(loss, list(parameters), retain_graph=again, allow_unused=True)
    return [torch.zeros_like(each) if grad is None else grad for each, grad in zip(parameters, found, strict=True)]


def clipped(grads: Sequence[Tensor], most: float | None) -> list[Tensor]:
    """Scaled down together where their common norm exceeds `most`."""
    norm = math.sqrt(sum(float(grad.double().square().sum()) for grad in grads))
    return [grad * (most / norm) for grad in grads] if most is not None and norm > most else list(grads)


def check_loss(value: float, done: int, rate: float) -> None:
    """Raises `CellError` for a loss that is not finite."""
    if not math.isfinite(value):
        raise CellError(f"the loss of iteration {done} is not finite", f"Lower the rate (lr, now {rate:g}).")


def step(chosen: torch.optim.Optimizer, parameters: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
    """One step of an optimiser along these gradients, which are then gone."""
    for each, grad in zip(parameters, grads, strict=True):
        each.grad = grad
    chosen.step()
    chosen.zero_grad(set_to_none=True)


def train(
    parameters: Sequence[Tensor], loss: Loss, recipe: Recipe, tell: Tell, look: Look = lambda done: None, phase: str = "training",
    mask: Sequence[Tensor] | None = None,
) -> list[float]:
    """Move `parameters` along the loss; returns the losses. Nothing else gets gradients.

    mask: for each parameter what its gradient is multiplied with. Raises `CellError` at the first loss that is not finite.
    """
    chosen, losses = optimiser(parameters, recipe), []
    for done in range(recipe.iterations):
        for group in chosen.param_groups:
            group["lr"] = recipe.rate * recipe.factor(done)
        with torch.enable_grad():
            value = loss(done)
            losses.append(float(value.detach()))
            check_loss(losses[-1], done + 1, recipe.rate)
            grads = gradients(value, parameters)
        if mask is not None:
            grads = [grad * each for grad, each in zip(grads, mask, strict=True)]
        step(chosen, parameters, clipped(grads, recipe.clip))
        tell(phase, done + 1, recipe.iterations, f"loss {losses[-1]:.4g}")
        look(done + 1)
    return losses


# --- kept by content -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Learned:
    """What a method learned once, with the digest of everything that decides it."""

    tensors: dict[str, Tensor]
    sha256: str
    seconds: float


def identity(backbone: BackboneInfo, *parts: Any) -> str:
    """sha256 of what decides what a method learns on a backbone; it stands for the result, whose last bits differ between
    machines."""
    kind = str(backbone.pipeline.unet.dtype) if getattr(backbone.pipeline, "unet", None) is not None else ""
    return digest([backbone.sha256, backbone.checkpoint_sha, kind, list(parts)])


def content(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors and their names."""
    return hashlib.sha256(save(dict(sorted(tensors.items())))).hexdigest()


def kept(
    backbone: BackboneInfo, name: str, sha: str, make: Callable[[], Mapping[str, Tensor]], cached: bool = True
) -> Learned:
    """Tensors from the cache, or made now and cached. name: begins the file's. cached: False writes nothing to the disk.

    Raises `Unmade` where they are missing and nothing may be made, and whatever `make` raises.
    """
    path = backbone.cache / f"{name}-{sha[:16]}.safetensors" if backbone.cache is not None and cached else None
    if path is not None and path.is_file():
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("srbench", "{}"))
            tensors = load_file(path)
            if about.get("sha256") == sha and about.get("content") == content(tensors):
                return Learned(tensors, sha, float(about["seconds"]))
        except (SafetensorError, OSError, ValueError, TypeError, KeyError):
            pass  # damaged: it is made again, and replaced
    if not backbone.make:
        raise Unmade(f"{name} is not learned yet", "A run learns it first.")
    began = time.perf_counter()
    tensors = {key: value.detach().cpu().contiguous() for key, value in make().items()}
    seconds = time.perf_counter() - began
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"sha256": sha, "content": content(tensors), "seconds": round(seconds, 1)}
        write_atomic(path, save(tensors, {"srbench": json.dumps(about)}))
    return Learned(tensors, sha, seconds)
