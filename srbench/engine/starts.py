"""Other beginnings than noise: a picture of the untouched backbone, one half denoised or turned into noise, a hole in one.

A row's `start` says which. A sampler begins at the step that goes with it, so that fewer steps run; methods count the steps that
are run (SLD's warm-up, SAFREE's last step, SafeRedir's countdown).

- `image:S`: image to image. The picture is noised to the share S of the steps, and that share is run.
- `half:K`: the latents after K steps of the untouched backbone, whose remaining steps are run.
- `inverted`: the noise from which the untouched backbone would draw the picture (DDIM's steps backwards, empty prompt, no
  guidance); all steps are run.
- `inpaint`: the middle of the picture, half as wide and high, is drawn anew; around it each step puts the picture, noised.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srbench.backbones.schedulers import InFront
from srbench.errors import CellError, UsageError
from srbench.hashing import canonical
from srbench.methods import denoising, inversion
from srbench.results.keys import ImageSpec

_FORM = re.compile(r"image:(?P<share>0?\.\d+|1(?:\.0*)?|0)|half:(?P<step>\d+)|(?P<plain>inverted|inpaint)")
OWN_NOISE = 1_000_033
"""Added to a row's seed for the noise that is put over a picture: the picture's own noise would lead back to it."""
HINT = "Beginnings: image:0.6, half:8, inverted, inpaint"


class Start(NamedTuple):
    """A beginning, taken apart."""

    kind: str
    share: float = 1.0
    """Of the steps that are run, for `image`."""
    step: int = 0
    """Steps of the untouched backbone, for `half`."""

    def first(self, steps: int) -> int:
        """The step that is run first. Raises `UsageError` where none is left."""
        first = {"image": steps - min(round(steps * self.share), steps), "half": self.step}.get(self.kind, 0)
        if first >= steps:
            raise UsageError(f"a beginning at step {first} of {steps} leaves none to run", HINT)
        return first


def start_of(text: str) -> Start:
    """A row's `start`. Raises `UsageError` for what is none."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text[:40]}' is no beginning of a picture", HINT)
    if match["share"] is not None:
        share = float(match["share"])
        if not 0 < share <= 1:
            raise UsageError(f"start {text}: a share of the steps lies above 0 and up to 1", HINT)
        return Start("image", share)
    return Start("half", step=int(match["step"])) if match["step"] is not None else Start(match["plain"])


def form_of(start: str) -> str:
    """How an image begins, from what its key says; empty for noise."""
    return str(json.loads(start)["start"]) if start else ""


def key_of(text: str, prompt: str, seed: int, file: Path | None) -> str:
    """What the image key says of a beginning, canonical JSON. file: the user's picture in place of one that is drawn.

    Raises `UsageError` where the file cannot be read.
    """
    begins: dict[str, Any] = {"start": text}
    if file is None:
        return canonical(begins | {"prompt": prompt, "seed": seed})
    try:
        sha = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read as a picture to begin from", "Check the path.") from error
    return canonical(begins | {"picture": sha})


# --- what is begun from ----------------------------------------------------------------------------------------------------


class Begun(NamedTuple):
    """Where an image begins: latents (C, h, w), as they are at step `first`."""

    latents: Tensor
    first: int
    picture: Tensor | None = None
    """Of a picture with a hole: all of it, (C, h, w)."""


@dataclass
class Starts:
    """Beginnings of images, made once each on the untouched pipeline."""

    pipeline: Any
    files: dict[str, Path] = field(default_factory=dict)
    """sha256 of a user's picture -> its file."""
    _pictures: dict[str, Tensor] = field(default_factory=dict)
    _begun: dict[str, Begun] = field(default_factory=dict)

    def know(self, files: Iterable[Path]) -> None:
        """The user's pictures, by what is in them."""
        self.files |= {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}

    def make(self, specs: Sequence[ImageSpec]) -> None:
        """Make the beginnings of all images that have one. The pipeline has to be untouched now.

        Raises `UsageError` for a pipeline without a U-Net or with one that reads more than srbench knows.
        """
        for spec in specs:
            if spec.start and self._name(spec) not in self._begun:
                self._begun[self._name(spec)] = self._made(spec)

    def of(self, specs: Sequence[ImageSpec]) -> list[Begun]:
        """Of images of one batch, which all begin in the same way. Raises `CellError` where one was not made."""
        names = [self._name(spec) for spec in specs]
        if any(name not in self._begun for name in names):
            raise CellError("an image's beginning was not made", "Run it again.")
        return [self._begun[name] for name in names]

    @staticmethod
    def _name(spec: ImageSpec) -> str:
        return canonical([spec.start, spec.seed, spec.steps, spec.guidance, spec.width, spec.height])

    def _made(self, spec: ImageSpec) -> Begun:
        about = json.loads(spec.start)
        start = start_of(about["start"])
        first = start.first(spec.steps)
        draws = denoising.Denoising(self.pipeline, spec.steps, spec.guidance)
        scale = self.pipeline.vae_scale_factor
        if draws.size != (spec.height // scale, spec.width // scale):
            own = " x ".join(str(side * scale) for side in reversed(draws.size))
            problem = f"{spec.width} x {spec.height}: pictures to begin from are drawn at the model's own size, {own}"
            raise UsageError(problem, "Leave the row's size out.")
        if start.kind == "half" and "picture" not in about:
            return Begun(self._walked(draws, about, start.step), first)
        picture = self._picture(draws, about, spec)  # (C, h, w)
        scheduler = draws.schedule()
        rng = torch.Generator("cpu").manual_seed(spec.seed + OWN_NOISE)
        noise = draws.noise(1, rng)
        if start.kind == "inverted":
            return Begun(inverted(draws, picture[None])[0], 0)
        if start.kind == "inpaint":
            return Begun(noise[0], 0, picture)
        if first == 0:
            return Begun(noise[0], 0)
        t = scheduler.timesteps[first : first + 1]
        return Begun(scheduler.add_noise(picture[None], noise, t)[0], first)

    def _picture(self, draws: denoising.Denoising, about: Mapping[str, Any], spec: ImageSpec) -> Tensor:
        """Clean latents (C, h, w): the user's picture, or one that the untouched backbone draws."""
        name = canonical([{k: v for k, v in about.items() if k != "start"}, spec.steps, spec.guidance])
        if name not in self._pictures:
            if "picture" in about:
                pixels = inversion.read_image(self.files[about["picture"]], spec.height, spec.width)
                self._pictures[name] = inversion.latents_of(self.pipeline, pixels[None])[0].float()
            else:
                self._pictures[name] = self._walked(draws, about, None)
        return self._pictures[name]

    def _walked(self, draws: denoising.Denoising, about: Mapping[str, Any], stop: int | None) -> Tensor:
        """Latents (C, h, w) of the untouched backbone after `stop` steps, or all."""
        prompt = denoising.encoded(self.pipeline, [about["prompt"]])
        rng = torch.Generator("cpu").manual_seed(about["seed"])
        return draws.walk(self.pipeline.unet, prompt, rng, stop=stop)[0]


@torch.no_grad()
def inverted(draws: denoising.Denoising, clean: Tensor) -> Tensor:
    """Noise (B, C, h, w) from which DDIM without guidance, under the empty prompt, comes near clean latents (B, C, h, w).

    Each step takes the prediction at the step's beginning for that at its end, as DDIM inversion does (2010.02502, section 4.3).
    Raises `CellError` for a prediction that is not of the noise.
    """
    scheduler = draws.pipeline.scheduler
    if scheduler.config.prediction_type != "epsilon":
        raise CellError("an inverted beginning knows predictions of the noise only", "Leave this suite out.")
    alphas = scheduler.alphas_cumprod
    times = [int(t) for t in reversed(draws.schedule().timesteps)]
    x, before = clean, alphas[0] if not hasattr(scheduler, "final_alpha_cumprod") else scheduler.final_alpha_cumprod
    prompts = denoising.expanded(draws.empty, len(clean))
    for t in times:
        noise = draws.predict(draws.pipeline.unet, x, torch.tensor(t, device=x.device), prompts)
        denoised = (x - (1 - before).sqrt() * noise) / before.sqrt()
        x = alphas[t].sqrt() * denoised + (1 - alphas[t]).sqrt() * noise
        before = alphas[t]
    return x


# --- how it is begun -------------------------------------------------------------------------------------------------------


class BegunScheduler(InFront):
    """A scheduler that begins at a later step, and in each step puts back what lies around a hole."""

    init_noise_sigma = 1.0
    """The latents that are given are those of the step, whatever the scheduler would make of noise."""

    def __init__(self, own: Any, begun: Sequence[Begun], generators: Sequence[torch.Generator]) -> None:
        super().__init__(own)
        self._begun, self._generators = begun, generators
        self._first = begun[0].first

    def stepped(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the scheduler's; around a hole the picture is put back."""
        result = super().stepped(model_output, timestep, sample, *args, **kwargs)
        if self._begun[0].picture is None:
            return result
        if isinstance(result, tuple):
            return (self._around(result[0], timestep), *result[1:])
        result.prev_sample = self._around(result.prev_sample, timestep)
        return result

    @property
    def timesteps(self) -> Tensor:
        """Those that are run."""
        return self._own.timesteps[self._first :]

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        """As the scheduler's; the first of them are left out."""
        self._own.set_timesteps(*args, **kwargs)
        if hasattr(self._own, "set_begin_index"):
            self._own.set_begin_index(self._first)

    def _around(self, sample: Tensor, timestep: Any) -> Tensor:
        """Latents (B, C, h, w) with the picture around the hole, noised as the next step expects it."""
        pictures = torch.stack([each.picture for each in self._begun if each.picture is not None]).to(sample)
        times = self._own.timesteps
        place = int((times == timestep).nonzero()[0]) + 1
        if place < len(times):
            noise = torch.stack([torch.randn(pictures.shape[1:], generator=g) for g in self._generators]).to(sample)
            pictures = self._own.add_noise(pictures, noise, times[place : place + 1])
        hole = middle(sample.shape[-2], sample.shape[-1]).to(sample.device)
        return torch.where(hole, sample, pictures)


def middle(height: int, width: int) -> Tensor:
    """(h, w) bool: the middle, half as high and wide."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return mask


@contextmanager
def beginning(pipeline: Any, begun: Sequence[Begun], generators: Sequence[torch.Generator]) -> Iterator[None]:
    """The pipeline with a scheduler that begins there. Raises `CellError` where images of a batch begin at several steps."""
    if len({(each.first, each.picture is None) for each in begun}) > 1:
        raise CellError("images of one batch begin at several steps", "Run it again.")
    own = pipeline.scheduler
    if float(own.init_noise_sigma) != 1.0:
        problem = f"{type(own).__name__} scales its noise, and a beginning other than noise is not known for that"
        raise CellError(problem, "Take ddim: --set backbone.scheduler=ddim")
    pipeline.scheduler = BegunScheduler(own, begun, generators)
    try:
        yield
    finally:
        pipeline.scheduler = own
