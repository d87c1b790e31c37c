"""Receler (2311.17717): small erasers after each cross-attention, trained against an adversary, only where the concept is.

Written from the paper. The released code writes the adversary's vectors into a temporary copy, so that they never reach the
prompt and its training has no adversary: the preset `receler-upstream`. Whether the erasers have biases was not verified: here
they have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.specs import ConceptSpec
from srbench.methods import base, denoising, esd, finetune, guidance, learning, probabilities, texts

METHOD = {
    "name": "receler",
    "version": 1,
    "kind": "inference",
    "title": "Receler: erasers after cross-attention, trained against adversarial prompts",
    "equation": [
        "h <- h + o, o = U GELU(D h), after each cross-attention",
        "L = || e'(x_t, c, adv) - [e_0 - eta (e_c - e_0)] ||^2",
        "    + local_weight mean(|| o (1 - M) ||^2 / |1 - M|)",
        "adv = argmin || e'(x_t, c, adv) - e_c ||^2; M: where the attention to the concept exceeds the threshold",
    ],
    "paper": "2311.17717",
    "families": ["pocket", "sd"],
    "presets": {"receler": {}, "receler-upstream": {"attack_steps": 0}},
    # Not fitted on `dev` rows: the published recipe with pocket's steps, fewer iterations, smaller erasers and a larger rate.
    "fitted": {
        "pocket": {
            "receler": {
                "object": {"steps": 16, "rank": 32, "iterations": 300, "batch": 2, "attack_steps": 5, "lr": 1e-3},
                "style": {"steps": 16, "rank": 32, "iterations": 300, "batch": 2, "attack_steps": 5, "lr": 1e-3},
            },
            "receler-upstream": {
                "object": {"steps": 16, "rank": 32, "iterations": 300, "batch": 2, "lr": 1e-3},
                "style": {"steps": 16, "rank": 32, "iterations": 300, "batch": 2, "lr": 1e-3},
            },
        },
    },
    "unfitted": ["receler", "receler-upstream"],
    "decides": False,
    "reads_concept": True,
    "prepare": "make",
}


class Options(base.Options):
    """Options of both presets; the defaults are the published ones."""

    rank: int = Field(128, gt=0)
    """Inner dimensions of each eraser."""
    eta: float = Field(1.0, gt=0)
    """How far the target is beyond the empty prompt's prediction, as ESD's."""
    local_weight: float = Field(0.1, ge=0)
    """Of the erasers' output where the concept is not."""
    threshold: float = Field(0.1, ge=0, le=1)
    """The concept is where the attention to its words exceeds this share of the maximum."""
    vectors: int = Field(16, gt=0)
    """Free embeddings after the phrase, which the adversary moves."""
    attack_steps: int = Field(50, ge=0)
    """0: no adversary."""
    attack_lr: float = Field(0.1, gt=0)
    """AdamW's rate for the adversary's vectors."""
    attack_decay: float = Field(0.1, ge=0)
    """AdamW's weight decay for the adversary's vectors."""
    lr: float = Field(3e-4, gt=0)
    """Adam's rate."""
    iterations: int = Field(500, gt=0)
    """Training steps: how often the weights are updated."""
    batch: int = Field(1, gt=0)
    """Samples an iteration, of one phrase; they share the timestep."""
    steps: int = Field(50, gt=0)
    """Inference steps of the sampling; x_t is taken at a random one."""
    start_guidance: float = 3.0
    """Guidance towards the concept while x_t is sampled; a factor without unit."""
    prompts: Literal["names", "all"] = "all"
    """Phrases that are erased: the concept's names, or those of its members too."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""


Erasers = Mapping[str, tuple[Tensor, Tensor]]
"""Path of a cross-attention -> D (rank, width) and U (width, rank)."""


def made(unet: nn.Module, rank: int, rng: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """An eraser for each cross-attention, D as torch begins a linear layer, U zero; both ask for gradients."""
    with probabilities.recorded(unet) as layers:
        paths = list(layers)
    found = {}
    for path in paths:
        output: Any = unet.get_submodule(f"{path}.to_out.0")
        width, place = output.out_features, output.weight.device
        down = (torch.rand((rank, width), generator=rng) * 2 - 1) / width**0.5
        found[path] = (down.to(place).requires_grad_(True), torch.zeros((width, rank), device=place).requires_grad_(True))
    return found


def erased(h: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """o = U GELU(D h), which is added to h (B, N, width) (2311.17717, section 3.1)."""
    return F.linear(F.gelu(F.linear(h, down.to(h))), up.to(h))


@contextmanager
def attached(unet: nn.Module, erasers: Erasers, kept: list[Tensor] | None = None) -> Iterator[None]:
    """The U-Net with its erasers; afterwards no hook of them is left. kept: gets each layer's o, (B, N, width)."""

    def hook(down: Tensor, up: Tensor) -> Any:
        def after(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
            added = erased(output, down, up)
            if kept is not None:
                kept.append(added)
            return output + added

        return after

    with base.hooks(*(unet.get_submodule(path).register_forward_hook(hook(*each)) for path, each in erasers.items())):
        yield


def outside(outputs: Sequence[Tensor], maps: Tensor, threshold: float, size: tuple[int, int]) -> Tensor:
    """Mean over layers and images of || o (1 - M) ||^2 / |1 - M| (2311.17717, eq. 5); 0 where the concept is everywhere.

    outputs: (B, N, width) a layer; maps: (B, h, w) of maximum 1; M is where a map exceeds the threshold.
    """
    total = []
    for each in outputs:
        rest = (~probabilities.resized(maps > threshold, each.shape[1], *size)).to(each)  # (B, N)
        total.append(((each * rest[..., None]).square().sum((1, 2)) / rest.sum(1).clamp(min=1)).mean())
    return torch.stack(total).mean()


class Session:
    """What one training needs at hand."""

    def __init__(self, pipeline: Any, options: Options) -> None:
        self.options = options
        self.unet, self.encoder = denoising.frozen(pipeline, "receler"), texts.one_encoder(pipeline, "receler")
        self.draws = denoising.Denoising(pipeline, options.steps, options.start_guidance)
        self.rng = torch.Generator().manual_seed(options.seed)
        self.erasers = made(self.unet, options.rank, self.rng)

    def predict(self, x: Tensor, t: Tensor, states: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        """The prediction with the erasers for x (B, C, h, w) under one prompt (1, T, D)."""
        with attached(self.unet, self.erasers, kept):
            return self.draws.predict(self.unet, x, t, Conditioning(states.float().expand(len(x), -1, -1)))

    def frozen(self, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The same without erasers, and without a gradient."""
        with torch.no_grad():
            return self.draws.predict(self.unet, x, t, Conditioning(states.float().expand(len(x), -1, -1)))

    def attacked(self, x: Tensor, t: Tensor, phrase: str, wanted: Tensor, seen: list[float] | None = None) -> Tensor:
        """States (1, T, D) of the phrase with vectors after it that bring the erasers' prediction near `wanted`, e(c_e).

        seen: gets the adversary's losses. The erasers are not moved.
        """
        options = self.options
        ids, start = texts.with_places(self.draws.pipeline, phrase, options.vectors, before=False)
        vectors = texts.random_vectors(self.encoder, options.vectors, self.rng).requires_grad_(True)
        recipe = learning.Recipe(options.attack_lr, options.attack_steps, decay=options.attack_decay)
        chosen = learning.optimiser([vectors], recipe)
        for _ in range(options.attack_steps):
            with torch.enable_grad():
                loss = F.mse_loss(self.predict(x, t, texts.states(self.encoder, ids, vectors, start)), wanted)
                grads = learning.gradients(loss, [vectors])
            learning.step(chosen, [vectors], grads)
            if seen is not None:
                seen.append(float(loss.detach()))
        with torch.no_grad():
            return texts.states(self.encoder, ids, vectors, start)

    def loss(self, x: Tensor, t: Tensor, phrase: str, concept: Tensor) -> Tensor:
        """ESD's target under the adversary's prompt, and the erasers' output outside of the concept. concept: (1, T, D)."""
        options, empty = self.options, self.draws.empty.embeds
        tokens = texts.word_tokens(self.draws.pipeline.tokenizer, phrase, phrase, ends=False)
        with torch.no_grad(), probabilities.recorded(self.unet) as recorders:
            wanted = self.frozen(x, t, concept)
            maps = probabilities.word_map(
                probabilities.last(recorders), tokens.expand(len(x), -1).to(x.device), *self.draws.size
            )
        nothing = self.frozen(x, t, empty)
        states = self.attacked(x, t, phrase, wanted) if options.attack_steps else concept
        outputs: list[Tensor] = []
        said = self.predict(x, t, states, outputs)
        target = esd.target(wanted, nothing, wanted, options.eta)
        return F.mse_loss(said, target) + options.local_weight * outside(outputs, maps, options.threshold, self.draws.size)


def learn(backbone: base.BackboneInfo, phrases: Sequence[str], options: Options, tell: base.Tell) -> dict[str, Tensor]:
    """Erasers as plain tensors. Raises `UsageError` for a backbone that they do not fit, `CellError` where training diverges."""
    session = Session(backbone.pipeline, options)
    concepts = denoising.encoded(backbone.pipeline, phrases).embeds  # (n, T, D)

    def draw(done: int) -> Tensor:
        which = int(torch.randint(len(phrases), (), generator=session.rng))
        states = concepts[which : which + 1]
        with attached(session.unet, session.erasers):
            x, t = session.draws.noisy(session.unet, Conditioning(states.expand(options.batch, -1, -1)), session.rng)
        return session.loss(x, t, phrases[which], states)

    parameters = [factor for pair in session.erasers.values() for factor in pair]
    learning.train(parameters, draw, learning.Recipe(options.lr, options.iterations), tell)
    return packed(session.erasers)


def packed(erasers: Erasers) -> dict[str, Tensor]:
    """As plain tensors for a file."""
    return {f"{path}|{name}": value.detach().float() for path, pair in erasers.items()
            for name, value in zip(("down", "up"), pair, strict=True)}  # fmt: skip


def unpacked(tensors: Mapping[str, Tensor], device: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """The inverse of `packed`."""
    paths = [name.removesuffix("|down") for name in tensors if name.endswith("|down")]
    return {path: (tensors[f"{path}|down"].to(device), tensors[f"{path}|up"].to(device)) for path in paths}


class Erasing(base.Applied):
    """Hooks on the U-Net and its cross-attentions during one call. B images."""

    hooked = True

    def __init__(self, erasers: Erasers, call: base.Call) -> None:
        self.erasers, self.call = erasers, call
        self.calls = 0
        self.shares: list[Tensor] = []

    def before(self, denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Counts the call."""
        x, prompt = guidance.argument(args, kwargs, guidance.LATENTS), guidance.argument(args, kwargs, guidance.PROMPT)
        guidance.check_batch("receler", self.call, x, prompt)
        self.calls += 1

    def on(self, path: str) -> Any:
        """A hook for a cross-attention: its output with the eraser's."""
        down, up = self.erasers[path]

        def after(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
            added = erased(output, down, up)
            sizes = [each[-self.call.images :].float().flatten(1).norm(dim=1) for each in (added, output)]  # (B,) each
            self.shares.append(sizes[0] / sizes[1].clamp(min=1e-12))
            return output + added

        return after

    def trace(self) -> list[dict[str, Any]]:
        """Per image: how large the erasers' output is against the attention's, mean over layers and steps."""
        if not self.shares:
            return [{} for _ in range(self.call.images)]
        return [{"erased": round(value, 4)} for value in torch.stack(self.shares).mean(0).tolist()]


@base.method(METHOD)
class Receler:
    """Erasers that act in every image."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any) -> base.Artifact:
        """Learn the erasers on the pipeline as it is, or take them from the cache.

        Raises as `learn` does, and `Unmade` in a forecast.
        """
        phrases = finetune.texts_of(concept, backbone.family, options.prompts)
        finetune.screened(concept, phrases)
        unet = finetune.unet_of(backbone.pipeline, "receler")
        sha = learning.identity(backbone, METHOD["name"], METHOD["version"], phrases, options.model_dump(mode="json"))
        learned = learning.kept(
            backbone, f"receler-{concept.name}", sha, lambda: learn(backbone, phrases, options, backbone.tell)
        )
        count = sum(value.numel() for value in learned.tensors.values())
        return base.Artifact(unpacked(learned.tensors, unet.device), sha, count, learned.seconds)

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[Erasing]:
        """Hooks on the U-Net and its cross-attentions; nothing of them is left afterwards."""
        unet, active = base.denoiser(pipeline), Erasing(artifact.payload, call)
        handles = [unet.register_forward_pre_hook(active.before, with_kwargs=True)]
        handles += [unet.get_submodule(path).register_forward_hook(active.on(path)) for path in artifact.payload]
        with base.hooks(*handles):
            yield active
