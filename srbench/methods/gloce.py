"""GLoCE (2503.12356): gated low-rank replacement of the concept in cross-attention's outputs; nothing is trained.

On the output projection of each cross-attention, for each place x of an image:

    y   = m_s + V_s V_s^T (I - V_t V_t^T) (x - m_t)
    out = (1 - g) x + g y
    g   = sigmoid(k (||V_g^T u||^2 - c)),  u = (x - m_n) / ||x - m_n||

with means m and leading directions V of such outputs while the model draws the concept (t), a surrogate (s) and neutral prompts
(n); V_g are the leading directions of the concept's outputs about m_n; c lies `threshold` deviations above the mean of the same
projection while the model draws anchors, and k makes the gate nearly a step.

Here the surrogate of a phrase and its anchor are one: the concept's counterpart in srbench's catalog; the neutral prompts are
the empty one and what is kept. The released code counts calls in the layer, so that with other than 50 steps a picture begins
where the last one stopped; here each call counts its own. It keeps the gate closed in the first tenth or fifth of the steps
(`first`). Both halves of a guided batch go through the gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError
from srbench.methods import base, denoising, finetune, guidance, learning, pictures, texts
from srbench.methods.phrases import listed_contexts, listed_texts, neighbours, pairs_in_contexts, split_texts

METHOD = {
    "name": "gloce",
    "version": 1,
    "kind": "inference",
    "title": "GLoCE: a gate lets a surrogate's outputs take the concept's place in cross-attention",
    "equation": [
        "y = m_s + V_s V_s^T (I - V_t V_t^T) (x - m_t)",
        "out = (1 - g) x + g y",
        "g = sigmoid(k (||V_g^T u||^2 - c)), u = (x - m_n) / ||x - m_n||",
    ],
    "paper": "2503.12356",
    "families": ["pocket", "sd"],
    "presets": {"gloce": {}},
    "fitted": {
        # Published, per kind: nudity's are those of content.
        "sd": {
            "gloce": {
                "style": {"rank": 1, "surrogate_rank": 1, "gate_rank": 1, "first": 0, "last": 50},
                "content": {"threshold": 1.5, "images": 8},
            },
        },
        # Not fitted on `dev` rows: the published ranks and threshold, with pocket's steps.
        "pocket": {
            "gloce": {
                "object": {"steps": 16, "guidance": 5.0, "images": 48, "contexts": "@pocket-objects", "neutral": "@pocket-world"},
                "style": {
                    "steps": 16, "guidance": 5.0, "images": 48, "contexts": "@pocket-styles", "neutral": "@pocket-world",
                    "rank": 1, "surrogate_rank": 1, "gate_rank": 1, "first": 0, "last": 50,
                },
            },
        },
    },
    "unfitted": ["gloce"],
    "decides": False,
    "reads_concept": True,
    "prepare": "make",
}

BATCH = 16
ENDING = ".attn2.to_out.0"
"""diffusers' name of the output projection of a cross-attention."""
NEARLY, WITHIN = 0.99, 0.001
"""The gate is open by this much this share of the threshold's width above c: k = logit(.99) / (.001 threshold)."""


class Options(base.Options):
    """Options; the defaults are the published ones for celebrities."""

    rank: int = Field(16, gt=0)
    """Directions of the concept."""
    surrogate_rank: int = Field(2, gt=0)
    """Directions of the surrogate."""
    gate_rank: int = Field(1, gt=0)
    """Directions that the gate looks along."""
    threshold: float = Field(2.5, gt=0)
    """How many deviations above the anchors' mean the gate opens."""
    images: int = Field(3, gt=0)
    """Pictures of each kind from which the statistics are taken, spread evenly over the prompts."""
    first: int = Field(10, ge=0)
    """From which step of 50 on statistics are taken and the gate may open."""
    last: int = Field(20, gt=0)
    """Up to which step of 50 statistics are taken."""
    steps: int = Field(50, gt=0)
    """Inference steps of the pictures."""
    guidance: float = 7.5
    """Of the pictures."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Texts with `{}` where a phrase or its anchor stands, separated by semicolons, or `@NAME`. None: the phrase alone."""
    neutral: Annotated[str | None, AfterValidator(listed_texts)] = Field(None, pattern=r"[^;\s]")
    """Neutral prompts beside the empty one, separated by semicolons, or `@NAME`; those that hold a phrase of the concept are
    left out. None: the concept's neighbours."""
    prompts: Literal["names", "all"] = "all"
    """Phrases that are erased: the concept's names, or those of its members too."""
    seed: int = 0
    """Of the pictures' noise: equal seeds make equal statistics."""


# --- statistics ------------------------------------------------------------------------------------------------------------


def layers_of(unet: nn.Module) -> dict[str, nn.Linear]:
    """The output projection of each cross-attention, by path. Raises `UsageError` where there is none."""
    found = {path: module for path, module in unet.named_modules() if path.endswith(ENDING) and isinstance(module, nn.Linear)}
    if not found:
        raise UsageError("this U-Net has no cross-attention named attn2", "Give a Stable Diffusion backbone.")
    return found


@dataclass
class Moments:
    """Sums over vectors of width D, float64: their number, their sum and that of their outer products."""

    count: int
    total: Tensor  # (D,)
    outer: Tensor  # (D, D)

    @staticmethod
    def of(width: int) -> Moments:
        """Of no vector."""
        return Moments(0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64))

    def add(self, rows: Tensor) -> None:
        """Vectors (N, D)."""
        wide = rows.double().cpu()
        self.count += len(wide)
        self.total += wide.sum(0)
        self.outer += wide.T @ wide

    @property
    def mean(self) -> Tensor:
        """(D,)."""
        return self.total / self.count

    def about(self, centre: Tensor) -> Tensor:
        """Mean outer product of what differs from a centre (D,), (D, D)."""
        mean = self.mean
        return self.outer / self.count - torch.outer(mean, centre) - torch.outer(centre, mean) + torch.outer(centre, centre)


def leading(matrix: Tensor, rank: int) -> Tensor:
    """(D, r): the eigenvectors of a symmetric matrix's largest eigenvalues."""
    return torch.linalg.eigh(matrix).eigenvectors[:, -min(rank, len(matrix)) :].flip(1)


def projection(x: Tensor, neutral: Tensor, gate: Tensor) -> Tensor:
    """||V_g^T u||^2 of places (..., D), (...): 0 to 1."""
    away = x - neutral
    unit = away / away.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(away.dtype).tiny)
    return (unit @ gate).square().sum(-1)


def replaced(x: Tensor, held: Mapping[str, Tensor]) -> Tensor:
    """y for places (..., D): what is not the concept's own, as far as the surrogate has it."""
    away = x - held["target_mean"]
    rest = away - away @ held["target"] @ held["target"].T
    return held["surrogate_mean"] + rest @ held["surrogate"] @ held["surrogate"].T


def opened(x: Tensor, held: Mapping[str, Tensor]) -> Tensor:
    """g for places (..., D), (..., 1)."""
    near = projection(x, held["neutral_mean"], held["gate"])
    return torch.sigmoid(held["slope"] * (near - held["centre"]))[..., None]


@dataclass(frozen=True)
class Texts:
    """Prompts of the concept, of its anchors in the same contexts, and neutral ones."""

    phrases: list[str]
    concept: list[str]
    anchors: list[str]
    neutral: list[str]


def texts_of(concept: ConceptSpec, family: str, options: Options) -> Texts:
    """The prompts to draw, screened. Raises `UsageError` for a concept without anchors."""
    anchor_of = finetune.anchored(concept, family, options.prompts)
    said, safe = map(list, zip(*pairs_in_contexts(anchor_of, options.contexts), strict=True))
    listed = split_texts(options.neutral) or neighbours(concept, family)
    neutral = ["", *texts.without_concept(concept, family, listed)]
    finetune.screened(concept, [*said, *safe, *neutral])
    return Texts(list(anchor_of), said, safe, neutral)


Take = Callable[[str, Tensor], None]
"""Gets a layer's path and its outputs (N, D), of the prompt's half."""


class Statistics:
    """Draws pictures with the pipeline's own U-Net and looks at its layers' outputs."""

    def __init__(self, pipeline: Any, options: Options, tell: base.Tell) -> None:
        self.unet, self.pipeline, self.options, self.tell = finetune.unet_of(pipeline, "gloce"), pipeline, options, tell
        self.layers = layers_of(self.unet)
        self.draws = denoising.Denoising(pipeline, options.steps, options.guidance)
        first, last = (round(guidance.scaled_steps(step, options.steps, "scaled")) for step in (options.first, options.last))
        self.window = range(first, max(last, first + 1))

    def look(self, prompts: Sequence[str], take: Take, phase: str) -> None:
        """Draw pictures of some prompts and hand over the outputs in the window's steps; the same noise for each kind."""
        options, now = self.options, [0]
        picked = [prompts[i] for i in pictures.spread(options.images, len(prompts)).tolist()]
        for start in range(0, len(picked), BATCH):
            part = denoising.encoded(self.pipeline, picked[start : start + BATCH])
            self._walk(part, take, now, options.seed + start)
            self.tell(phase, min(start + BATCH, len(picked)), len(picked), "")

    def _walk(self, part: Conditioning, take: Take, now: list[int], seed: int) -> None:
        count = len(part.embeds)

        def hook(path: str) -> Any:
            def after(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
                if now[0] in self.window:
                    take(path, output[-count:].flatten(0, 1))

            return after

        def visit(step: int) -> None:
            now[0] = step

        with base.hooks(*(layer.register_forward_hook(hook(path)) for path, layer in self.layers.items())):
            rng = torch.Generator().manual_seed(seed)
            self.draws.walk(self.unet, part, rng, stop=self.window.stop, visit=visit)

    def moments(self, prompts: Sequence[str], phase: str) -> dict[str, Moments]:
        """Of each layer's outputs."""
        found = {path: Moments.of(layer.out_features) for path, layer in self.layers.items()}
        self.look(prompts, lambda path, rows: found[path].add(rows), phase)
        return found

    def projections(self, prompts: Sequence[str], held: Mapping[str, Mapping[str, Tensor]], phase: str) -> dict[str, Moments]:
        """Moments of each layer's projection on the gate, as vectors of width 1."""
        found = {path: Moments.of(1) for path in self.layers}

        def take(path: str, rows: Tensor) -> None:
            own = held[path]
            found[path].add(projection(rows.double().cpu(), own["neutral_mean"], own["gate"])[:, None])

        self.look(prompts, take, phase)
        return found


def slope_of(threshold: float) -> float:
    """k."""
    return math.log(NEARLY / (1 - NEARLY)) / (WITHIN * threshold)


def measured(pipeline: Any, said: Texts, options: Options, tell: base.Tell) -> dict[str, Tensor]:
    """Every layer's statistics, `path|name` -> tensor, float32. Raises `CellError` where they are not finite."""
    looking = Statistics(pipeline, options, tell)
    target, surrogate, neutral = (
        looking.moments(prompts, phase)
        for prompts, phase in ((said.concept, "concept"), (said.anchors, "surrogate"), (said.neutral, "neutral"))
    )
    held: dict[str, dict[str, Tensor]] = {
        path: {
            "target_mean": target[path].mean, "target": leading(target[path].about(target[path].mean), options.rank),
            "surrogate_mean": surrogate[path].mean,
            "surrogate": leading(surrogate[path].about(surrogate[path].mean), options.surrogate_rank),
            "neutral_mean": neutral[path].mean, "gate": leading(target[path].about(neutral[path].mean), options.gate_rank),
        }
        for path in looking.layers
    }  # fmt: skip
    for path, near in looking.projections(said.anchors, held, "anchors").items():
        deviation = near.about(near.mean).clamp(min=0).sqrt()[0, 0]
        held[path]["centre"] = near.mean[0] + options.threshold * deviation
        held[path]["slope"] = torch.tensor(slope_of(options.threshold), dtype=torch.float64)
    flat = {f"{path}|{name}": value.float() for path, own in held.items() for name, value in own.items()}
    if not all(bool(value.isfinite().all()) for value in flat.values()):
        raise CellError("gloce: the layers' statistics are not finite", "Give more images.")
    return flat


# --- one call --------------------------------------------------------------------------------------------------------------


class Gated(base.Applied):
    """Hooks on the U-Net and on its output projections during one call. B images."""

    hooked = True

    def __init__(self, held: Mapping[str, Mapping[str, Tensor]], options: Options, call: base.Call) -> None:
        self.held, self.call = held, call
        self.first = round(guidance.scaled_steps(options.first, call.steps, "scaled"))
        self.calls = 0
        self.shares: list[Tensor] = []

    def before(self, denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Counts the call, whose batch has to be the one that is known."""
        x, prompt = guidance.argument(args, kwargs, guidance.LATENTS), guidance.argument(args, kwargs, guidance.PROMPT)
        guidance.check_batch("gloce", self.call, x, prompt)
        self.calls += 1

    def on(self, path: str) -> Any:
        """A hook for an output projection."""
        own = self.held[path]

        def after(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            if self.calls <= self.first:
                return output
            held = {name: value.to(output.device) for name, value in own.items()}
            x = output.float()  # (batch, places, D)
            gate = opened(x, held)
            self.shares.append(gate[-self.call.images :].mean((1, 2)).detach().cpu())
            return ((1 - gate) * x + gate * replaced(x, held)).to(output)

        return after

    def trace(self) -> list[dict[str, Any]]:
        """Per image: the gate, mean over layers, places and steps."""
        if not self.calls:
            return [{} for _ in range(self.call.images)]
        means = torch.stack(self.shares).mean(0).tolist() if self.shares else [0.0] * self.call.images
        return [{"gate": round(each, 4)} for each in means]


@base.method(METHOD)
class GLoCe:
    """Puts a surrogate in the concept's place where the gate opens."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any) -> base.Artifact:
        """Take the statistics on the pipeline as it is, or from the cache.

        Raises as `texts_of`, `layers_of` and `learning.kept` do.
        """
        said = texts_of(concept, backbone.family, options)
        finetune.unet_of(backbone.pipeline, "gloce")
        own = options.model_dump(mode="json")
        sha = learning.identity(backbone, METHOD["name"], METHOD["version"], said.concept, said.anchors, said.neutral, own)
        learned = learning.kept(
            backbone, f"gloce-{concept.name}", sha, lambda: measured(backbone.pipeline, said, options, backbone.tell)
        )
        count = sum(value.numel() for value in learned.tensors.values())
        card = {"phrases": said.phrases, "neutral": len(said.neutral)}
        return base.Artifact(_by_layer(learned.tensors), learned.sha256, count, learned.seconds, card)

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[Gated]:
        """Hooks on the U-Net and its output projections; nothing of them is left afterwards."""
        unet, gated = base.denoiser(pipeline), Gated(artifact.payload, options, call)
        handles = [unet.register_forward_pre_hook(gated.before, with_kwargs=True)]
        handles += [layer.register_forward_hook(gated.on(path)) for path, layer in layers_of(unet).items()]
        with base.hooks(*handles):
            yield gated


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    held: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        path, part = name.rsplit("|", 1)
        held.setdefault(path, {})[part] = value
    return held
