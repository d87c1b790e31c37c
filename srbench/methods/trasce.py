"""TraSCE (2412.07658): guidance away from the concept's text, and latents that are moved away from where it pulls.

With e_0, e_c, e_n the predictions under the negative prompt, the prompt and the concept's text, a step predicts

    e = e_0 + s (e_c - e_n),

so that a prompt which says the concept alone is drawn as the negative prompt is; and before it the latents are moved,

    x <- x - g grad_x( -eta exp(-||e_c - e_n|| / sigma) ).

The norm is one image's own. In the released code it is taken over the batch, so that an image depends on its neighbours, and the
script's constants (15, 5) are not the paper's. `sigma` belongs to the size of the latents: at 16 x 8 x 8 numbers norms are a
quarter of those at 4 x 64 x 64. A step costs a prediction with gradients of two texts, and the prediction itself of three.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from srbench.backbones.pipelines import Conditioning
from srbench.backbones.schedulers import InFront
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError
from srbench.methods import base, guidance
from srbench.methods.guidance import LATENTS, PROMPT, argument

METHOD = {
    "name": "trasce",
    "version": 1,
    "kind": "inference",
    "title": "TraSCE: guidance and latents are moved away from the concept's prediction",
    "equation": [
        "x <- x - g grad_x(-eta exp(-||e_c - e_n|| / sigma))",
        "e = e_0 + s (e_c - e_n)",
    ],
    "paper": "2412.07658",
    "families": ["pocket", "sd"],
    "presets": {"trasce": {}},
    "fitted": {
        # Published, per kind.
        "sd": {"trasce": {"style": {"eta": 1.0, "sigma": 0.25}, "object": {"eta": 1.0, "sigma": 1.0}}},
        # Not fitted on `dev` rows: the published ones, with sigma for norms of a quarter.
        "pocket": {"trasce": {"style": {"eta": 1.0, "sigma": 0.0625}, "object": {"eta": 1.0, "sigma": 0.25}}},
    },
    "unfitted": ["trasce"],
    "decides": False,
    "reads_concept": True,
    "prepare": "make",
}


class Options(base.Options):
    """Options; the defaults are the published ones for nudity."""

    eta: float = Field(1.5, ge=0, allow_inf_nan=False)
    """Height of what the latents are moved down from; at 0 they stay."""
    sigma: float = Field(2.0, gt=0, allow_inf_nan=False)
    """Its width, in the norm of a difference of two predictions."""
    move: float = Field(1.0, ge=0, allow_inf_nan=False)
    """g: how far the latents are moved, a factor of the gradient."""
    text: str | None = Field(None, pattern=r"\S")
    """What is moved away from; None: all that methods are told of the concept, as far as one text holds it."""


def potential(wanted: Tensor, concept: Tensor, eta: float, sigma: float) -> Tensor:
    """-eta exp(-||e_c - e_n|| / sigma), (B,), of predictions (B, C, h, w); the norm is each image's own.

    Where the two are equal the norm has no slope and counts with slope 0.
    """
    squares = (wanted - concept).float().square().flatten(1).sum(1)
    there = squares > 0
    norms = torch.where(there, squares, torch.ones_like(squares)).sqrt() * there
    return -eta * torch.exp(-norms / sigma)


class MovedScheduler(InFront):
    """A scheduler whose step begins from latents that were moved."""

    def __init__(self, own: Any, applied: Moved) -> None:
        super().__init__(own)
        self._applied = applied

    def stepped(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the scheduler's, from the moved latents."""
        return super().stepped(model_output, timestep, self._applied.moved(sample), *args, **kwargs)

    def scale_model_input(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the scheduler's; remembers how much it changed the latents."""
        scaled = self._own.scale_model_input(sample, *args, **kwargs)
        largest = sample.abs().amax()
        self._applied.scale = float(scaled.abs().amax() / largest) if float(largest) > 0 else 1.0
        return scaled


class Moved(base.Applied):
    """A pre-hook that moves latents and widens the batch, and a post-hook that narrows it; all state of one call. B images."""

    hooked = True

    def __init__(self, concept: Conditioning, options: Options, call: base.Call) -> None:
        self.concept, self.options, self.call = concept, options, call
        self.calls = 0
        self.scale = 1.0
        """What the scheduler multiplied the latents with before this step's prediction."""
        self.shift: Tensor | None = None  # (B, C, h, w), as the denoiser reads latents
        self.norms: list[Tensor] = []

    def moved(self, sample: Tensor) -> Tensor:
        """Latents (B, C, h, w) as this step's prediction saw them, before the scheduler's scale."""
        return sample if self.shift is None else sample + (self.shift / self.scale).to(sample)

    def before(self, denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> guidance.Arguments:
        """[negative; positive] becomes [negative; positive; concept], all on moved latents."""
        latents, prompt = argument(args, kwargs, LATENTS), argument(args, kwargs, PROMPT)
        guidance.check_batch("trasce", self.call, latents, prompt)
        self.calls += 1
        wide = guidance.widened(args, kwargs, self.call, self.concept)
        self.shift = self._shift(denoiser, wide)
        wider = argument(*wide, LATENTS)  # (3B, C, h, w)
        return guidance.with_argument(*wide, LATENTS, wider + self.shift.to(wider).repeat(3, 1, 1, 1))

    def _shift(self, denoiser: Any, wide: guidance.Arguments) -> Tensor:
        """-g grad_x of the potential, (B, C, h, w), by a prediction of the prompt and the concept alone."""
        images = self.call.images
        if not self.options.eta or not self.options.move:
            return torch.zeros_like(argument(*wide, LATENTS)[-images:])
        t = argument(*wide, guidance.TIMESTEP)
        # The sampler runs in inference mode, whose tensors no gradient can go through: copies of them can.
        with torch.inference_mode(False), torch.enable_grad():
            x = argument(*wide, LATENTS)[-images:].detach().clone().requires_grad_(True)  # (B, C, h, w)
            prompts = argument(*wide, PROMPT)[-2 * images :].detach().clone()  # (2B, T, D)
            args, kwargs = guidance.with_argument(*wide, PROMPT, prompts)
            if isinstance(t, Tensor):
                own = t[-2 * images :] if t.ndim and len(t) == 3 * images else t
                args, kwargs = guidance.with_argument(args, kwargs, guidance.TIMESTEP, own.clone())
            args, kwargs = guidance.with_argument(args, kwargs, LATENTS, torch.cat([x, x]))
            wanted, concept = guidance.prediction(denoiser.forward(*args, **kwargs)).chunk(2)  # (B, C, h, w) each
            height = potential(wanted, concept, self.options.eta, self.options.sigma)  # (B,)
            (slope,) = torch.autograd.grad(height.sum(), [x])
        if not bool(slope.isfinite().all()):
            raise CellError("trasce: the latents' gradient is not finite", "Raise sigma, or lower eta.")
        self.norms.append(slope.detach().float().flatten(1).norm(dim=1).cpu() * self.options.move)
        return (-self.options.move * slope).detach()

    def after(self, denoiser: Any, args: tuple[Any, ...], output: Any) -> Any:
        """[e_0; e_c; e_n] becomes [e_0; e_0 + e_c - e_n], which the pipeline's own guidance turns into e."""
        e = guidance.prediction(output)
        e0, ec, en = e.float().chunk(3)  # (B, C, h, w) each
        return guidance.with_prediction(output, torch.cat([e0, e0 + ec - en]).to(e.dtype))  # (2B, C, h, w)

    def trace(self) -> list[dict[str, Any]]:
        """Per image: how far its latents were moved in a step, mean over the steps."""
        if not self.calls:
            return [{} for _ in range(self.call.images)]
        far = torch.stack(self.norms).mean(0).tolist() if self.norms else [0.0] * self.call.images
        return [{"moved": round(each, 4)} for each in far]


@contextmanager
def _scheduler(pipeline: Any, applied: Moved) -> Iterator[None]:
    """The pipeline's scheduler within this context begins its steps from moved latents."""
    own = pipeline.scheduler
    pipeline.scheduler = MovedScheduler(own, applied)
    try:
        yield
    finally:
        pipeline.scheduler = own


@base.method(METHOD)
class TraSce:
    """Moves guidance and latents away from the concept."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any) -> base.Artifact:
        """Encode the concept's text. Raises as `guidance.embedding` does, and `UsageError` without words for the family."""
        began = time.perf_counter()
        text, card = guidance.told(backbone.pipeline, concept, backbone.family, options.text)
        encoded = guidance.conditioning(backbone.pipeline, text)
        return guidance.artifact_of(backbone, {"concept": encoded.embeds}, text, began, card=card)

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[Moved]:
        """Two hooks on the denoiser and a scheduler in front of the pipeline's; nothing of them is left afterwards.

        Raises `CellError` without guidance.
        """
        guidance.require_guidance("trasce", call)
        target, moved = base.denoiser(pipeline), Moved(Conditioning(artifact.payload["concept"]), options, call)
        with _scheduler(pipeline, moved), base.hooks(
            target.register_forward_pre_hook(moved.before, with_kwargs=True), target.register_forward_hook(moved.after)
        ):
            yield moved
