"""The contract of a method, and the decorator that registers one.

A method is one module with a literal dict `METHOD` (read by `srbench list` without importing it) and one class
under `@method(METHOD)`: an inference method (`kind: inference`) acts while sampling, a weight method (`kind: weight`)
returns changed weights.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from srbench.backbones.checkpoint import Checkpoint
from srbench.backbones.loader import Backbone
from srbench.backbones.pipelines import Conditioning, Layout
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, ForeignError
from srbench.faults import at


class Options(BaseModel):
    """Base of a method's options: every field has a default and is part of the image key."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Artifact:
    """What a method prepared once: a payload, the sha256 of what it was made from, and what it cost."""

    payload: Any
    sha256: str
    parameters: int = 0
    prepare_seconds: float = 0.0
    card: dict[str, Any] = field(default_factory=dict)


Tell = Callable[[str, int, int, str], None]
"""Progress: phase, done, total, and a short note such as the loss."""


def quiet(phase: str, done: int, total: int, note: str) -> None:
    """A `Tell` that reports nothing."""


Look = Callable[[Any, int, int], None]
"""Called with a denoiser in training, the iterations done and all of them; may draw an image with it."""


def blind(denoiser: Any, done: int, total: int) -> None:
    """A `Look` that draws nothing."""


class Judge(Protocol):
    """Says in which images a concept is, by the concept's own protocol."""

    @property
    def identity(self) -> str:
        """Digest of the protocol and its scorers; part of the key of what depends on it."""

    def __call__(self, pixels: np.ndarray) -> list[bool]:
        """Whether each of uint8 RGB (N, H, W, 3) shows the concept. Raises where the judge cannot be opened."""


@dataclass(frozen=True)
class BackboneInfo:
    """A backbone as methods see it."""

    name: str
    family: str
    sha256: str
    """Of all weight files."""
    pipeline: Any
    """A diffusers pipeline in evaluation mode."""
    redirectors: Path | None = None
    """Folder with one sub-folder a concept: the shipped redirectors."""
    scenes: Path | None = None
    """Folder with one sub-folder a concept: images that show it, for methods that learn from images."""
    checkpoint_sha: str = ""
    """Of the checkpoint that is loaded into the pipeline; empty for the untouched backbone."""
    cache: Path | None = None
    """Folder in which a method may cache, by content, what took long to make."""
    make: bool = True
    """False in a forecast: raise `srbench.errors.Unmade` in place of making what takes long."""
    tell: Tell = quiet
    """Reports the method's progress."""
    look: Look = blind
    """What a weight method that trains calls after each iteration; never given for a sensitive concept."""
    judge: Judge | None = None
    """For weight methods that say `"judged": True`: who decides which images show the concept."""
    original: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Weights of the untouched backbone that a base checkpoint replaced, by component and name; empty without a base."""


@dataclass(frozen=True)
class Call:
    """One pipeline call."""

    images: int
    steps: int
    guided: bool
    """Whether there is guidance with a negative half."""
    prompts: tuple[str, ...] = ()
    """The batch's texts, for methods that read tokens."""
    layout: Layout = "doubled"
    """How a guided step calls the denoiser."""
    packed: tuple[int, int, int] | None = None
    """(C, h, w) of latents that the denoiser gets as (B, h/2 * w/2, 4 C); None where it gets (B, C, h, w)."""
    timesteps: float = 1.0
    """What the denoiser's timesteps are multiplied with to run from 0 to 1000."""
    negatives: tuple[str, ...] = ()
    """The batch's negative texts."""
    clip_skip: int | None = None
    """Layers of the text encoder that are left out at its end."""

    @property
    def doubled(self) -> bool:
        """Whether the denoiser's batch is [negative; positive]."""
        return self.guided and self.layout == "doubled"


class Unread:
    """What a method gets in place of the concept where it says that it reads none: the image key then says nothing of it."""

    def __getattribute__(self, name: str) -> NoReturn:
        caller = sys._getframe(1)
        if caller.f_code is Unread.__repr__.__code__:
            caller = sys._getframe(2)  # the plug-in's line, not ours
        where = f"{caller.f_globals.get('__name__', '')}, line {caller.f_lineno}"
        problem = f'{where}: it reads the concept, and METHOD says "reads_concept": False'
        raise ForeignError(problem, "Take that key out of METHOD.")

    def __repr__(self) -> str:
        return self.name  # as text, too, it would be read


def shown_to(meta: Mapping[str, Any], concept: ConceptSpec) -> Any:
    """The concept as a method with this metadata gets it: where it says that it reads none, reading it raises."""
    return concept if meta["reads_concept"] else Unread()


CLOSE = 0.7
"""How alike two names are, by `difflib`, of which one is taken for the other misspelled."""


class Applied:
    """What is active during one pipeline call. All state in it belongs to that call's images alone."""

    calls: int = 0
    """How often the method's hook ran; the engine compares it with the number of denoiser calls."""
    hooked: bool = False
    """Whether the method acts through a hook at all."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raises `ForeignError` for a misspelled method, such as `prompt`, which nobody would call."""
        super().__init_subclass__(**kwargs)
        known = [name for name in vars(Applied) if not name.startswith("_")]
        for name, value in vars(cls).items():
            close = difflib.get_close_matches(name, known, n=1, cutoff=CLOSE)
            if callable(value) and close and name not in known and not name.startswith("_"):
                problem = f"{cls.__name__}.{name}{at(value)}: base.Applied has no `{name}`, and it would never be called"
                raise ForeignError(problem, f"Did you mean '{close[0]}'? If not, begin its name with `_`.")

    def prompts(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """New prompt embeddings, each (B, tokens, width); prompt-level methods override this."""
        return positive, negative

    def conditioning(self, positive: Conditioning, negative: Conditioning) -> tuple[Conditioning, Conditioning]:
        """Both sides as the pipeline gets them; pooled embeddings and masks stay unless a method overrides this."""
        pair: Any = self.prompts(positive.embeds, negative.embeds)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            returned = f"{len(pair)} values" if isinstance(pair, tuple | list) else type(pair).__name__
            problem = f"`prompts` returned {returned} in place of two prompt embeddings{at(type(self).prompts)}"
            raise CellError(problem, "Return the new positive and the new negative ones: `return positive, negative`.")
        ours, theirs = pair
        return replace(positive, embeds=ours), replace(negative, embeds=theirs)

    def trace(self) -> list[dict[str, Any]]:
        """One JSON-ready dict per image, in batch order; empty dicts where there is nothing to say."""
        return []


class Method(Protocol):
    """An inference method. `meta` is the module's `METHOD` dict.

    `prepare` sees the pipeline only where `meta["prepare"]` is `"make"`; the checkpoint it is stacked on is loaded into it.
    """

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[Options]]

    @staticmethod
    def prepare(backbone: BackboneInfo, concept: ConceptSpec, options: Any) -> Artifact | None:
        """Load or make what the method needs. Raises `MissingError` with the command that makes it."""

    @staticmethod
    def applied(
        pipeline: Any, artifact: Artifact | None, options: Any, call: Call
    ) -> AbstractContextManager[Applied]:
        """Install on `pipeline` for one call and remove every trace afterwards."""


@dataclass(frozen=True)
class Edit:
    """What a weight method made."""

    tensors: dict[str, dict[str, Tensor]]
    """Pipeline component (`unet`, `text_encoder`) -> name in its state dict -> new value, float32; only what changed."""
    card: dict[str, Any] = field(default_factory=dict)
    """JSON-ready: what was measured while making it."""


class WeightMethod(Protocol):
    """A method that changes weights. `meta` is the module's `METHOD` dict."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[Options]]

    @staticmethod
    def erase(backbone: BackboneInfo, concept: ConceptSpec, options: Any, tell: Tell) -> Edit:
        """New weights, in float32. The pipeline is left as it was, bit for bit. Deterministic: seeds are options.

        Raises `UsageError` where the concept lacks what the method needs (say, an anchor).
        """


REGISTRY: dict[str, type[Any]] = {}


def method(meta: dict[str, Any]) -> Callable[[type], type]:
    """Register a method class under `meta["name"]`; `meta` is the module's literal `METHOD`."""

    def register(cls: type) -> type:
        cls.meta = meta  # type: ignore[attr-defined]
        REGISTRY[meta["name"]] = cls
        return cls

    return register


def denoiser(pipeline: Any) -> Any:
    """The pipeline's U-Net or transformer."""
    unet = getattr(pipeline, "unet", None)
    return pipeline.transformer if unet is None else unet


@contextmanager
def hooks(*handles: Any) -> Iterator[None]:
    """Remove torch hook handles on exit, whatever happened."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Active:
    """A method ready to be applied."""

    method: type[Method]
    artifact: Artifact | None
    options: Options


def info_of(backbone: Backbone, checkpoint: Checkpoint | None = None, *, weights: bool = True, **more: Any) -> BackboneInfo:
    """The backbone as methods see it. The caller has to load `checkpoint` into the pipeline (`laid_over`).

    weights: False reads none, and the pipeline is None. more: further fields (`cache`, `make`, `tell`, `look`, `original`).
    """
    return BackboneInfo(
        name=backbone.spec.name, family=backbone.spec.family, sha256=backbone.sha256,
        pipeline=backbone.pipeline if weights else None, redirectors=backbone.redirectors, scenes=backbone.scenes,
        checkpoint_sha=checkpoint.sha256 if checkpoint else "", **more,
    )
