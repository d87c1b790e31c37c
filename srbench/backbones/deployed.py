"""A backbone as it is deployed: other steps, another sampler, fewer bits a weight. `--set backbone.OPTION=VALUE`.

Methods and checkpoints are prepared on the backbone as it is and only sampled otherwise, as a user does who rounds an unlearned
model or draws with fewer steps. Every change stands in the image key.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from srbench.catalog.settings import overrides, parsed
from srbench.catalog.specs import Recipe, Spec
from srbench.errors import CellError, UsageError
from srbench.hashing import canonical

NAME = "backbone"
"""What `--set` calls it."""
SAMPLERS = {
    "ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler", "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "dpm-solver": "DPMSolverMultistepScheduler",
}  # fmt: skip
"""Name of a sampler -> its class in diffusers."""
KNOWN = ("pocket", "sd", "sdxl")
"""Families whose noise schedule these samplers share."""
GROUP = 32
"""Weights that share a scale at 4 bits."""


class Changes(Spec):
    """What a run changes of a backbone's sampling; None: as its recipe has it."""

    steps: int | None = Field(None, gt=0, le=1000)
    guidance: float | None = Field(None, ge=0)
    """Of rows that bring none of their own."""
    eta: float | None = Field(None, ge=0)
    """Noise that DDIM adds in each step: 0 none, 1 as much as DDPM."""
    scheduler: Literal["ddim", "euler", "euler-ancestral", "dpm-solver"] | None = None
    bits: int | None = None
    """8 or 4: weights of the denoiser's and text encoders' linear and convolution layers are rounded to so many bits."""

    @field_validator("bits")
    @classmethod
    def _known(cls, value: int | None) -> int | None:
        if value not in (None, 8, 4):
            raise ValueError("expected 8 or 4 bits")
        return value

    @property
    def said(self) -> str:
        """The changes as a variant is called; empty for none."""
        return ",".join(f"{NAME}.{name}={value}" for name, value in self.model_dump(exclude_none=True).items())

    @property
    def approximations(self) -> tuple[str, ...]:
        """What the image key says of rounded weights."""
        if self.bits is None:
            return ()
        scale = "output channel" if self.bits == 8 else f"{GROUP} inputs"
        return (f"weights: {self.bits} bits, symmetric, a scale for each {scale}",)

    def recipe(self, own: Recipe) -> Recipe:
        """A backbone's recipe with the changes."""
        values = {"steps": self.steps, "guidance": self.guidance, "eta": self.eta}
        return own.model_copy(update={name: value for name, value in values.items() if value is not None})


def changes_of(settings: Sequence[str], family: str) -> Changes:
    """The changes among a run's settings. Raises `UsageError` for a bad value, and for a sampler that the family has not."""
    changes = parsed(Changes, NAME, {}, overrides(settings, (NAME,)))
    if changes.scheduler is not None and family not in KNOWN:
        problem = f"--set {NAME}.scheduler: backbones of the family '{family}' have a sampler of their own"
        raise UsageError(problem, "Leave it out.")
    return changes


def scheduler_of(own: str, changes: Changes) -> str:
    """Canonical JSON of the sampler that is drawn with. own: the backbone's.

    Raises `UsageError` where a sampler takes no eta.
    """
    if changes.scheduler is None and not changes.eta:
        return own
    about = json.loads(own)
    name = about["class"] if changes.scheduler is None else SAMPLERS[changes.scheduler]
    cls = _class(name)
    if changes.eta and "eta" not in inspect.signature(cls.step).parameters:
        problem = f"--set {NAME}.eta: {name} adds no noise of that kind"
        raise UsageError(problem, "eta is DDIM's; euler-ancestral is a sampler with noise of its own.")
    if changes.scheduler is None:
        return own
    known = inspect.signature(cls.__init__).parameters  # what the backbone says of its noise; the rest is the class's own
    return canonical({"class": name, "config": {key: value for key, value in about["config"].items() if key in known}})


def _class(name: str) -> Any:
    """A sampler's class. Raises `UsageError` for one that this version of diffusers lacks."""
    import diffusers

    if not hasattr(diffusers, name):
        raise UsageError(f"this version of diffusers has no {name}", "Take another: --set backbone.scheduler=ddim")
    return getattr(diffusers, name)


def built(said: str) -> Any:
    """A diffusers sampler from its canonical JSON."""
    about = json.loads(said)
    return _class(about["class"]).from_config(about["config"])


# --- fewer bits ------------------------------------------------------------------------------------------------------------


def bits_of(approximations: Sequence[str]) -> int | None:
    """The bits that an image key's approximations speak of. Raises `CellError` for one that this version does not know."""
    known = {Changes(bits=bits).approximations[0]: bits for bits in (8, 4)}
    unknown = [each for each in approximations if each not in known]
    if unknown:
        raise CellError(f"this version of srbench cannot draw with '{unknown[0]}'", "It is an image of another version.")
    return known[approximations[0]] if approximations else None


def rounded(weight: Tensor, bits: int) -> Tensor:
    """A weight (out, ...) rounded to signed integers of `bits` bits times a scale, and back.

    8 bits: a scale for each output; 4: one for each `GROUP` inputs of an output, or for all where they do not divide. torch's
    own fake quantisation; a group of zeros stays.
    """
    rows = weight.detach().float().flatten(1)  # (out, in)
    if bits == 4 and rows.shape[1] % GROUP == 0:
        rows = rows.reshape(-1, GROUP)
    most = 2 ** (bits - 1) - 1
    scale = (rows.abs().amax(1) / most).clamp(min=torch.finfo(torch.float32).tiny)
    zero = torch.zeros(len(rows), dtype=torch.int32, device=rows.device)
    new = torch.fake_quantize_per_channel_affine(rows, scale, zero, 0, -most, most)
    return new.reshape(weight.shape).to(weight.dtype)


def _weights(pipeline: Any) -> Iterator[Tensor]:
    """Of the linear and convolution layers of the denoiser and of every text encoder."""
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module) and (name in ("unet", "transformer") or name.startswith("text_encoder")):
            for layer in part.modules():
                if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
                    yield layer.weight.detach()  # shares memory with the parameter


@contextmanager
def with_bits(pipeline: Any, bits: int | None) -> Iterator[None]:
    """The pipeline's weights rounded; afterwards they are as before, bit for bit."""
    before: list[tuple[Tensor, Tensor]] = []
    try:
        for weight in _weights(pipeline) if bits is not None else ():
            before.append((weight, weight.clone()))
            weight.copy_(rounded(weight, bits or 8))
        yield
    finally:
        for weight, own in reversed(before):  # of two layers with one weight the second clone is already rounded
            weight.copy_(own)


@contextmanager
def drawing(pipeline: Any, own: str, wanted: str) -> Iterator[None]:
    """The pipeline with the sampler `wanted` in place of its `own`, both as canonical JSON."""
    if wanted == own:
        yield
        return
    before = pipeline.scheduler
    pipeline.scheduler = built(wanted)
    try:
        yield
    finally:
        pipeline.scheduler = before
