"""SPM (2312.16145): rank-1 adapters that erase a concept, and a gate that lets them act as far as the prompt is near it.

Written from the paper. The released code multiplies both factors of an adapter by the gate, so that its strength is the gate
squared, and sums the factors of several modules apart, so that their products mix: the preset `spm-upstream` does both. As in the
released code, an image's gate acts on both halves of a guided batch. A plain checkpoint, without the gate, is `spm-fused`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError
from srbench.methods import adapters, base, denoising, finetune, guidance, learning
from srbench.methods.adapters import Adapter, Adapters

METHOD = {
    "name": "spm",
    "version": 1,
    "kind": "inference",
    "title": "SPM: one-dimensional adapters, gated by how near a prompt is to the concept",
    "equation": [
        "L = || e'(x_t, c_e) - [e(c_0) - eta (e(c_e) - e(c_0))] ||^2",
        "    + anchor_weight || e'(x_t, c_k) - e(x_t, c_k) ||^2",
        "W x + gate s B A x, s = 1 / rank, gate = max(cos(prompt, phrase), share of the phrase's tokens in the prompt)",
    ],
    "paper": "2312.16145",
    "families": ["pocket", "sd"],
    "presets": {"spm": {}, "spm-upstream": {"released": True}},
    # Not fitted on `dev` rows: the published recipe with pocket's steps, fewer iterations and a rate for a small model.
    "fitted": {
        "pocket": {
            "spm": {
                "object": {"steps": 16, "iterations": 400, "batch": 2, "lr": 1e-3, "warmup": 40, "anchor_weight": 100.0},
                "style": {"steps": 16, "iterations": 400, "batch": 2, "lr": 1e-3, "warmup": 40, "anchor_weight": 100.0},
            },
            "spm-upstream": {
                "object": {"steps": 16, "iterations": 400, "batch": 2, "lr": 1e-3, "warmup": 40, "anchor_weight": 100.0},
                "style": {"steps": 16, "iterations": 400, "batch": 2, "lr": 1e-3, "warmup": 40, "anchor_weight": 100.0},
            },
        },
    },
    "unfitted": ["spm", "spm-upstream"],
    "decides": False,
    "reads_concept": True,
    "prepare": "make",
}


class Training(base.Options):
    """How the adapters are learned; the defaults are the official recipe (Con6924/SPM), whose optimiser has 8 bits."""

    eta: float = Field(1.0, gt=0)
    """How far beyond the neutral prompt the target is."""
    neutral: Literal["empty", "anchor"] = "empty"
    """c_0: the empty prompt, or the phrase's anchor (the paper's surrogate)."""
    anchor_weight: float = Field(1000.0, ge=0)
    """Of latent anchoring."""
    anchors: int = Field(4, gt=0)
    """Embeddings that are anchored in an iteration."""
    rank: int = Field(1, gt=0)
    """Inner dimensions of each adapter."""
    lr: float = Field(1e-4, gt=0)
    """AdamW's rate: cosine with three restarts after the warm-up."""
    warmup: int = Field(500, ge=0)
    """Training steps in which the rate rises from 0."""
    iterations: int = Field(3000, gt=0)
    """Training steps, the warm-up's among them."""
    batch: int = Field(1, gt=0)
    """Samples an iteration; they share the timestep."""
    steps: int = Field(30, gt=0)
    """Inference steps of the sampling; x_t is taken at a random one."""
    start_guidance: float = 3.0
    """Guidance towards the concept while x_t is sampled, with the adapters on."""
    prompts: Literal["names", "all"] = "all"
    """Phrases that are erased, one drawn for each sample: the concept's names, or those of its members too."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""


class Options(Training):
    """Options of both presets."""

    released: bool = False
    """The released code's sum and gate: both factors are multiplied by it, and several modules' factors are added apart."""


# --- learning ------------------------------------------------------------------------------------------------------------


def target(concept: Tensor, neutral: Tensor, eta: float) -> Tensor:
    """e(x_t, c_0) - eta (e(x_t, c_e) - e(x_t, c_0)), each (B, C, h, w) (2312.16145, section 3.1)."""
    return neutral - eta * (concept - neutral)


def anchor_embeddings(concept: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """(count, T, D): Gaussian, of the concept's (T, D) norm times U(.8, 1.2), each accepted with probability 1 - cos to it."""
    kept: list[Tensor] = []
    while len(kept) < count:
        drawn = torch.randn(concept.shape, generator=rng).to(concept)
        size = 0.8 + 0.4 * float(torch.rand((), generator=rng))
        drawn = drawn * (concept.norm() * size / drawn.norm())
        if float(torch.rand((), generator=rng)) <= 1 - float(F.cosine_similarity(drawn.flatten(), concept.flatten(), dim=0)):
            kept.append(drawn)
    return torch.stack(kept)


def loss(
    draws: denoising.Denoising, unet: Any, own: Adapters, x: Tensor, t: Tensor, concepts: Conditioning, neutral: Conditioning,
    kept: Conditioning, options: Training,
) -> Tensor:
    """Erasing and latent anchoring, means over elements; x (B, C, h, w), a prompt for each; kept (A, T, D) on the first x."""
    anchored = x[:1].expand(len(kept.embeds), *x.shape[1:])
    with torch.no_grad():
        both = denoising.joined(concepts, neutral, kept)
        said, nothing, stays = draws.predict(unet, torch.cat([x, x, anchored]), t, both).split([len(x), len(x), len(anchored)])
    with adapters.attached(unet, own):
        edited, now = draws.predict(unet, torch.cat([x, anchored]), t, denoising.joined(concepts, kept)).split(
            [len(x), len(anchored)]
        )
    return F.mse_loss(edited, target(said, nothing, options.eta)) + options.anchor_weight * F.mse_loss(now, stays)


@dataclass(frozen=True)
class Texts:
    """What a module is told: its phrases, and for each the neutral text."""

    phrases: list[str]
    neutral: list[str]


def texts_of(concept: ConceptSpec, family: str, options: Training) -> Texts:
    """Phrases with their neutral texts, screened. Raises `UsageError` where an anchor is asked for and missing."""
    phrases = finetune.texts_of(concept, family, options.prompts)
    anchor_of = finetune.anchored(concept, family) if options.neutral == "anchor" else dict.fromkeys(phrases, "")
    texts = Texts(phrases, [anchor_of[phrase] for phrase in phrases])
    finetune.screened(concept, [*texts.phrases, *texts.neutral])
    return texts


def learn(
    backbone: base.BackboneInfo, texts: Texts, options: Training, tell: base.Tell
) -> tuple[dict[str, Adapter], list[float]]:
    """Adapters that make the phrases predict what lies beyond the neutral text, and the losses. Deterministic in the seed.

    Raises `UsageError` without a U-Net or its transformers, `CellError` where training diverges.
    """
    pipeline = backbone.pipeline
    unet = denoising.frozen(pipeline, "spm")
    draws = denoising.Denoising(pipeline, options.steps, options.start_guidance)
    concepts, neutral = denoising.encoded(pipeline, texts.phrases), denoising.encoded(pipeline, texts.neutral)
    rng = torch.Generator().manual_seed(options.seed)
    own = adapters.made(adapters.transformer_layers(unet), options.rank, 1.0, "kaiming", rng)

    def draw(done: int) -> Tensor:
        chosen = torch.randint(len(texts.phrases), (options.batch,), generator=rng)
        prompts = denoising.chosen(concepts, chosen)
        with adapters.attached(unet, own):
            x, t = draws.noisy(unet, prompts, rng)
        kept = Conditioning(anchor_embeddings(prompts.embeds[0], options.anchors, rng))
        return loss(draws, unet, own, x, t, prompts, denoising.chosen(neutral, chosen), kept, options)

    warmup = min(options.warmup, options.iterations - 1)
    recipe = learning.Recipe(options.lr, options.iterations, decay=1e-2, schedule="cosine", restarts=3, warmup=warmup)
    look = adapters.looking(backbone, unet, own, options.iterations)
    return own, learning.train(adapters.parameters(own), draw, recipe, tell, look)


# --- the gate ------------------------------------------------------------------------------------------------------------


def content_tokens(pipeline: Any, text: str) -> set[int]:
    """A text's tokens without start, end and padding."""
    special = {pipeline.tokenizer.bos_token_id, pipeline.tokenizer.eos_token_id, pipeline.tokenizer.pad_token_id}
    return set(pipeline.tokenizer(text, truncation=True).input_ids) - special


def gate(prompt: Tensor, tokens: Set[int], phrases: Tensor, phrase_tokens: Sequence[Set[int]]) -> float:
    """How far a module acts on a prompt: max over its phrases of the cosine of the flattened text states and of the share of
    the phrase's tokens that the prompt holds (2312.16145, section 3.3). prompt (T, D), phrases (n, T, D); 0 at least, 1 at most.
    """
    near = F.cosine_similarity(phrases.detach().flatten(1).double(), prompt.detach().flatten()[None].double(), dim=1)  # (n,)
    shares = [len(own & tokens) / len(own) if own else 0.0 for own in phrase_tokens]
    return min(1.0, max(0.0, float(near.max()), *shares))


@dataclass(frozen=True)
class Module:
    """One concept's adapters, with what its gate reads."""

    own: dict[str, Adapter]
    states: Tensor  # (n, T, D)
    tokens: tuple[frozenset[int], ...]


def combined(every: Sequence[Adapter], gates: Tensor, released: bool) -> list[tuple[Adapter, Tensor]]:
    """What acts on one layer: adapters, each with its strength (B,). every: the modules' for this layer; gates: (modules, B).

    The sum of gate x adapter; or, as released, every pair of a module's A and another's B with the product of both gates.
    """
    if not released:
        return [(each, gates[i]) for i, each in enumerate(every)]
    return [
        (Adapter(down.down, up.up, down.scale), gates[i] * gates[j])
        for i, down in enumerate(every) for j, up in enumerate(every)
    ]  # fmt: skip


class Gated(base.Applied):
    """Hooks on the U-Net and on its layers during one call. B images."""

    hooked = True

    def __init__(self, pipeline: Any, modules: Sequence[Module], released: bool, call: base.Call) -> None:
        self.pipeline, self.modules, self.released, self.call = pipeline, modules, released, call
        self.calls = 0
        self.gates: Tensor = torch.empty(0)  # (modules, B)

    def prompts(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Reads the prompts' states for the gates; changes none."""
        tokens = [content_tokens(self.pipeline, text) for text in self.call.prompts]
        if len(tokens) != len(positive):
            raise CellError(f"spm got {len(tokens)} texts for {len(positive)} prompts", "It reads tokens: fill Call.prompts.")
        gates = [
            [gate(state, has, each.states.to(state), each.tokens) for state, has in zip(positive, tokens, strict=True)]
            for each in self.modules
        ]  # fmt: skip
        self.gates = torch.tensor(gates, dtype=torch.float32, device=positive.device)
        return positive, negative

    def before(self, denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Counts the call, whose batch has to be the one that the gates are for."""
        if not self.gates.numel():
            raise CellError("spm's gates were not made before sampling", "Call its prompts() first.")
        x, prompt = guidance.argument(args, kwargs, guidance.LATENTS), guidance.argument(args, kwargs, guidance.PROMPT)
        guidance.check_batch("spm", self.call, x, prompt)
        self.calls += 1

    def on(self, path: str) -> Any:
        """A hook for a layer: its output with what its adapters add."""

        def after(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
            x = args[0]
            gates = self.gates.repeat(1, len(x) // self.call.images)  # (modules, batch)
            for adapter, strength in combined([each.own[path] for each in self.modules], gates, self.released):
                output = output + strength.to(output).view(-1, *[1] * (output.ndim - 1)) * adapter(layer, x)
            return output

        return after

    def trace(self) -> list[dict[str, Any]]:
        """Per image: the gate of each module."""
        if not self.gates.numel():
            return [{} for _ in range(self.call.images)]
        return [{"gate": [round(value, 4) for value in column]} for column in self.gates.T.tolist()]


def module_of(backbone: base.BackboneInfo, concept: ConceptSpec, options: Training) -> tuple[Module, learning.Learned]:
    """A concept's module, from the cache or learned now. Raises as `learn` does, and `Unmade` in a forecast."""
    texts = texts_of(concept, backbone.family, options)
    finetune.unet_of(backbone.pipeline, "spm")
    training = options.model_dump(mode="json", include=set(Training.model_fields))
    sha = learning.identity(backbone, METHOD["name"], METHOD["version"], texts.phrases, texts.neutral, training)

    def make() -> dict[str, Tensor]:
        own, _ = learn(backbone, texts, options, backbone.tell)
        return adapters.packed(own)

    learned = learning.kept(backbone, f"spm-{concept.name}", sha, make)
    states = denoising.encoded(backbone.pipeline, texts.phrases).embeds  # (n, T, D)
    tokens = tuple(frozenset(content_tokens(backbone.pipeline, phrase)) for phrase in texts.phrases)
    device = backbone.pipeline.unet.device
    own = adapters.unpacked({name: value.to(device) for name, value in learned.tensors.items()}, 1.0)
    return Module(own, states, tokens), learned


@base.method(METHOD)
class Spm:
    """Adapters that act as far as a prompt is near the concept."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any) -> base.Artifact:
        """Learn the adapters on the pipeline as it is, or take them from the cache. Raises as `module_of` does."""
        module, learned = module_of(backbone, concept, options)
        count = sum(value.numel() for value in learned.tensors.values())
        return base.Artifact([module], learned.sha256, count, learned.seconds)

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[Gated]:
        """Hooks on the U-Net and on its transformers' layers; nothing of them is left afterwards."""
        unet, gated = base.denoiser(pipeline), Gated(pipeline, artifact.payload, options.released, call)
        handles = [unet.register_forward_pre_hook(gated.before, with_kwargs=True)]
        handles += [unet.get_submodule(path).register_forward_hook(gated.on(path)) for path in artifact.payload[0].own]
        with base.hooks(*handles):
            yield gated
