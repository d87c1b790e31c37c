"""Training a redirector for one or several concepts of one backbone: prompts, trajectories, losses, and the card.

No training code was released. The terms are those that the paper names (2601.08623): classification, direction,
mask and alignment; where it gives no details the choice is ours, and the card records it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save as save_safetensors
from torch import Tensor

from srbench.backbones.pipelines import Conditioning, prompt_width
from srbench.catalog import screen
from srbench.catalog.prompts import PAIR
from srbench.catalog.specs import ConceptSpec, Recipe
from srbench.errors import UsageError
from srbench.files import write_atomic
from srbench.methods.base import BackboneInfo, denoiser
from srbench.methods.phrases import phrases
from srbench.methods.saferedir import ALPHA_SCALE, CARD, WEIGHTS, mining
from srbench.methods.saferedir.adversarial import with_attacks
from srbench.methods.saferedir.module import SafeRedir, Sizes, shift
from srbench.methods.saferedir.pairs import PairSet, pocket_pairs, read_pairs
from srbench.methods.saferedir.partial import FOLDER, Partial
from srbench.methods.saferedir.published import igmu_pairs, of_copy
from srbench.methods.saferedir.tokens import partners
from srbench.methods.saferedir.trajectories import Latents, Sampling, encode, joined, sample, taken
from srbench.outputs import OutputFolder, check_folder, own_card, written_folder
from srbench.version import __version__

Progress = Callable[[str, int, int, str], None]
"""Called with (phase, done, total, note)."""

UNTOUCHED = 0.05
"""Below this 1 - cos a token does not carry the concept; between this and tau the mask is left to the other terms."""
MARKED_AT_MOST = 0.5
"""tau is the lowest threshold that marks no more than this share of the real tokens of the dev pairs."""
TAU = {"sd": 0.2}
"""Family -> the paper's tau, which was fitted to Stable Diffusion's text encoder; elsewhere it is fitted as above."""
LARGE = {"sampling_batch": 4, "batch": 24, "learning_rate": 5e-4}
"""Settings off their defaults, which are pocket's, where the network has the released sizes. Chosen to fit 16 GB of GPU memory,
not by results: they were not tried on Stable Diffusion."""
POCKET = {
    "pairs": 8000, "benign": 8000, "trajectories": 128, "held_trajectories": 48, "train_steps": 1200, "patience": 6,
    "by_text": 0.7,
}  # fmt: skip
"""Settings of pocket, whose sentences are written as many as one likes. Chosen by the held-out loss and on dev rows."""
BUCKETS = ((0, 250), (250, 500), (500, 750), (750, 1000))


class Settings(BaseModel):
    """How a redirector is trained. Steps, guidance and size are the backbone's own recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    steps: int = Field(20, gt=0)
    guidance: float = 5.0
    true_guidance: float = 1.0
    """As in a backbone's recipe: guidance with a negative side where `guidance` is a number that the denoiser reads (FLUX)."""
    height: int = Field(64, gt=0)
    width: int = Field(64, gt=0)
    pairs_file: Path | None = None
    """Table of `unsafe` and `safe`, or a folder with IGMU's forgot.json and retain.json. None: on pocket sentences that are
    written here, elsewhere IGMU's prompts from where the suite is kept."""
    accept_prompts: bool = False
    """Take a copy of IGMU that is not the published one."""
    adversarial: Path | None = None
    """Row file of `srbench attack` on the concept: its prompts are added to the unsafe sides."""
    columns: tuple[tuple[str, str], ...] = ()
    """(field, column of the file of pairs or of attacks that holds it), where the user says so."""
    adversarial_share: float = Field(0.25, gt=0, lt=1)
    """Of the unsafe sides that are drawn."""
    pairs: int = Field(1600, gt=0)
    """Drawn per concept, doubles included; pocket's own sentences."""
    benign: int = Field(1200, gt=0)
    varied: bool = True
    """Pocket's own sentences in `variety`'s ways, too: with other words around them in any order, the concept in other numbers
    and spellings, harmless sentences near it. Off, in eight plain forms alone."""
    token_delta: bool = True
    """Each token has a direction of its own; off, all share one, as in the release."""
    tau: float | None = Field(None, gt=0, lt=2)
    """A token is marked where 1 - cos to its partner exceeds this; None: the family's, or fitted."""
    mined: bool = False
    """Words that the backbone itself draws as an object concept are the concept's, too (`mining`); of pocket's own sentences."""
    trajectories: int = Field(96, gt=1)
    """Per kind: of unsafe prompts, of safe ones, and of unsafe prompts continued under their safe side."""
    held_trajectories: int = Field(32, gt=1)
    by_text: float = Field(0.1, ge=0, le=0.9)
    """Share of a batch that is read without latent and timestep: a detector learns few trajectories by heart."""
    sampling_batch: int = Field(32, gt=0)
    train_steps: int = Field(900, gt=0)
    batch: int = Field(48, ge=6)
    learning_rate: float = Field(4e-3, gt=0)
    evaluate_every: int = Field(100, gt=0)
    """Also how often the state is kept from which an interrupted training goes on."""
    patience: int = Field(3, gt=0)
    """Evaluations without a better held-out loss before training stops."""

    @property
    def sampling(self) -> Sampling:
        """How trajectories are sampled."""
        return Sampling(self.steps, self.guidance, self.true_guidance, self.height, self.width, self.sampling_batch)


def said_of(settings: Settings) -> dict[str, Any]:
    """As a card states them: without files, whose texts have a digest of their own, and without settings of a missing file."""
    without = {"pairs_file", "adversarial", "columns"} | ({"adversarial_share"} if settings.adversarial is None else set())
    return settings.model_dump(mode="json", exclude=without)


def recipe_settings(recipe: Recipe, family: str = "pocket") -> dict[str, Any]:
    """The settings that follow from a backbone's own recipe and its size."""
    values = recipe.model_dump(include={"steps", "guidance", "true_guidance", "height", "width"})
    return values | (POCKET if family == "pocket" else LARGE)


# --- prompts -------------------------------------------------------------------------------------------------------------


@dataclass
class Prompts:
    """Encoded pairs; `safe` is aligned to `unsafe` token by token."""

    unsafe_states: Conditioning
    """Of the N unsafe sides, as encoded."""
    safe_states: Conditioning
    """Of the safe sides, as encoded."""
    safe: Tensor  # (N, T, D)
    real: Tensor  # (N, T), start token to end-of-text

    @property
    def unsafe(self) -> Tensor:
        """(N, T, D)."""
        return self.unsafe_states.embeds

    @property
    def present(self) -> Tensor:
        """Tokens that are not zeros, (N, T); zeros replace an encoder that is left out."""
        return self.unsafe.norm(dim=-1) > 0

    def distance(self) -> Tensor:
        """1 - cos between a token and its safe partner, (N, T); 0 for zeros."""
        return torch.where(self.present, 1 - F.cosine_similarity(self.unsafe, self.safe, dim=-1), 0.0)


def encode_pairs(pipeline: Any, pairs: list[Any]) -> Prompts:
    """Encode and align pairs."""
    unsafe, safe = [p.unsafe for p in pairs], [p.safe for p in pairs]
    states, safe_states = encode(pipeline, unsafe), encode(pipeline, safe)
    partner, real = partners(pipeline, unsafe, safe, states.embeds.shape[1])
    aligned = safe_states.embeds.gather(1, partner[..., None].expand_as(states.embeds))
    return Prompts(states, safe_states, aligned, real)


def fit_tau(dev: Prompts) -> float:
    """The lowest threshold on 1 - cos that marks at most half of the dev pairs' real tokens."""
    quantile = dev.distance()[dev.real].quantile(1 - MARKED_AT_MOST)
    return max(UNTOUCHED, round(float(quantile) + 5e-4, 3))


# --- data ----------------------------------------------------------------------------------------------------------------


@dataclass
class Data:
    """Everything that training or evaluation reads."""

    prompts: Prompts
    benign: Tensor  # (M, T, D)
    natural: Latents
    """Of unsafe prompts left alone."""
    switched: Latents
    """Of unsafe prompts redirected to their safe side at a random step: what x_t looks like once the method acts."""
    safe: Latents
    """Of benign prompts and of safe sides."""


def _around(count: int, size: int) -> Tensor:
    """`count` indices below `size`, repeating."""
    return torch.arange(count) % size


def make_data(
    pipeline: Any, pairs: list[Any], benign: list[str], count: int, settings: Settings, seed: int, progress: Progress,
    partial: Partial | None = None,
) -> Data:
    """Encode prompts and sample three kinds of `count` trajectories; where there are fewer prompts each has several."""
    prompts = encode_pairs(pipeline, pairs)
    states = encode(pipeline, benign)
    rng = torch.Generator().manual_seed(seed)
    at = torch.randint(settings.steps, (count,), generator=rng)
    never = torch.full((count,), settings.steps)
    pool = joined([states.mapped(lambda value: value[: max(1, count * 2 // 3)]), prompts.safe_states])
    here, safely = _around(count, len(pairs)), _around(count, len(pool.embeds))
    unsafe, safe = taken(prompts.unsafe_states, here), taken(pool, safely)
    kinds = ((unsafe, unsafe.embeds, never), (unsafe, prompts.safe_states.embeds[here], at), (safe, safe.embeds, never))
    latents: list[Latents] = []
    for done, (first, second, when) in zip(range(0, 3 * count, count), kinds, strict=True):

        def tell(sampled: int, before: int = done) -> None:
            progress("trajectories", before + sampled, 3 * count, "")

        latents.append(sample(pipeline, first, second, when, settings.sampling, seed + done, tell, partial))
    return Data(prompts, torch.cat([states.embeds, prompts.safe_states.embeds]), *latents)


# --- losses --------------------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """U unsafe rows first, then safe ones, then rows with a weakened prompt, which only teach the classifier."""

    latent: Tensor  # (B, C, h, w)
    t: Tensor  # (B,)
    prompt: Tensor  # (B, T, D)
    label: Tensor  # (B,)
    safe: Tensor  # (U, T, D)
    distance: Tensor  # (U, T)
    benign: int
    """How many safe rows follow the unsafe ones."""

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def _weak(prompt: Tensor, mean: Tensor, rng: torch.Generator) -> Tensor:
    """Prompts blended with the mean prompt, half of them completely, so that only the latent can tell."""
    strength = torch.rand(len(prompt), 1, 1, generator=rng)
    return mean + (prompt - mean) * (strength - 0.5).clamp(min=0) * 2


def draw(data: Data, distance: Tensor, mean: Tensor, size: int, rng: torch.Generator) -> Batch:
    """A random training batch: half unsafe pairs, a third safe prompts, a sixth weakened prompts of both kinds."""
    weak = max(2, size // 6 // 2 * 2)
    unsafe, benign = size // 2, size - size // 2 - weak
    rows = torch.randint(len(data.prompts.unsafe), (unsafe + weak // 2,), generator=rng)
    safe_rows = torch.randint(len(data.benign), (benign + weak // 2,), generator=rng)
    late = unsafe // 2  # after a redirect the prompt is still unsafe while x_t is not
    latents = [
        data.natural.draw(unsafe - late, rng), data.switched.draw(late // 2, rng), data.safe.draw(late - late // 2, rng),
        data.safe.draw(benign, rng), data.natural.draw(weak // 2, rng), data.safe.draw(weak // 2, rng),
    ]
    blurred = torch.cat([data.prompts.unsafe[rows[unsafe:]], data.benign[safe_rows[benign:]]])
    prompt = torch.cat([data.prompts.unsafe[rows[:unsafe]], data.benign[safe_rows[:benign]], _weak(blurred, mean, rng)])
    label = torch.tensor([1] * unsafe + [0] * benign + [1] * (weak // 2) + [0] * (weak // 2))
    x, t = (torch.cat(column) for column in zip(*latents, strict=True))
    first = rows[:unsafe]
    return Batch(x, t, prompt, label, data.prompts.safe[first], distance[first], benign)


def _dropped(module: SafeRedir, joint: Tensor, rng: torch.Generator, share: float) -> Tensor:
    """The joint feature without both parts for a share of the rows, and without its timestep for a tenth of all."""
    chance = torch.rand(len(joint), 1, generator=rng).to(joint.device)
    latent, t = joint.split([module.sizes.latent_feature, module.sizes.timestep_feature], -1)
    return torch.cat([latent * (chance > share), t * (chance > share + 0.1)], -1)


def redirect_loss(prompt: Tensor, safe: Tensor, delta: Tensor, mask: Tensor | None, alpha: Tensor) -> Tensor:
    """Squared error of the shift against safe - unsafe, in units of |e|^2, and 1 - cos of the result to the safe side."""
    moved = shift(prompt, delta, mask, alpha, ALPHA_SCALE)  # (U, T, D)
    # Zeros stand for an encoder that is left out (SD3 without T5): they are never moved.
    error = (prompt + moved - safe).pow(2).sum(-1) / prompt.pow(2).sum(-1).clamp(min=1e-12)
    return error.mean() + (1 - F.cosine_similarity(prompt + moved, safe, dim=-1)).mean()


def direction_loss(delta: Tensor, wanted: Tensor) -> Tensor:
    """1 - cos between delta and safe - unsafe (U, T, D), weighed by how far the token has to go."""
    weight = wanted.norm(dim=-1)
    return ((1 - F.cosine_similarity(delta, wanted, dim=-1)) * weight).sum() / weight.sum().clamp(min=1e-6)


def mask_loss(mask: Tensor, distance: Tensor, tau: float) -> Tensor:
    """Binary cross-entropy on tokens above tau (marked) and on untouched ones."""
    clear = (distance > tau) | (distance < UNTOUCHED)  # (U, T)
    return F.binary_cross_entropy(mask[clear], (distance[clear] > tau).float())


def losses(module: SafeRedir, batch: Batch, tau: float, rng: torch.Generator, by_text: float = 0.1) -> dict[str, Tensor]:
    """The terms of one batch, weighted. by_text: as `Settings.by_text`."""
    joint = _dropped(module, module.joint_feature(batch.latent, batch.t, len(batch.t)), rng, by_text)
    logits, delta, mask, alpha = module.read(joint, module.about(batch.prompt))
    u = len(batch.safe)
    unsafe, quiet = batch.prompt[:u], mask[u : u + batch.benign]
    args = (unsafe, batch.safe, delta[:u])
    # Without the mask at a smaller weight, so that alpha alone is a magnitude too: the upstream preset has no mask.
    return {
        "classification": 0.5 * F.cross_entropy(logits, batch.label),
        "redirect": redirect_loss(*args, mask[:u], alpha[:u]) + 0.3 * redirect_loss(*args, None, alpha[:u]),
        "direction": 0.5 * direction_loss(delta[:u], batch.safe - unsafe),
        "mask": 0.1 * mask_loss(mask[:u], batch.distance, tau) + 0.02 * quiet.mean(),
    }


# --- evaluation ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _read_all(module: SafeRedir, latent: Tensor | None, prompt: Tensor, t: Tensor | None) -> list[Tensor]:
    device = module.pos_embed.device
    parts = []
    for rows in torch.arange(len(prompt)).split(64):
        x = None if latent is None else latent[rows].to(device)
        when = None if t is None else t[rows].to(device)
        parts.append([y.float().cpu() for y in module(x, prompt[rows].to(device), when)])
    return [torch.cat(column) for column in zip(*parts, strict=True)]


@torch.no_grad()
def held_out(module: SafeRedir, data: Data, tau: float) -> dict[str, float]:
    """Closeness to the safe side on held-out pairs, mask quality, and how well safe and unsafe are classified."""
    rng, p = torch.Generator().manual_seed(99), data.prompts
    x, t = data.natural.draw(len(p.unsafe), rng)
    logits, delta, mask, alpha = _read_all(module, x, p.unsafe, t)
    after = F.cosine_similarity(p.unsafe + shift(p.unsafe, delta, mask, alpha, ALPHA_SCALE), p.safe, dim=-1)  # (N, T)
    pads = ~p.real & p.present  # (N, T)
    x, t = data.safe.draw(len(data.benign), rng)
    calm = _read_all(module, x, data.benign, t)[0]
    marked = p.distance() > tau
    return {
        "cos_before_real": float((1 - p.distance())[p.real].mean()),
        "cos_before_pads": _mean((1 - p.distance())[pads]),
        "cos_real": float(after[p.real].mean()),
        "cos_pads": _mean(after[pads]),
        "cos_p05": _low(after[p.present]),
        "mask_auc": _auc(mask[p.real], marked[p.real]),
        "mask_f1": _f1(mask[p.real] > 0.5, marked[p.real]),
        "recall": float((logits.argmax(-1) == 1).float().mean()),
        "false_positives": float((calm.argmax(-1) == 1).float().mean()),
        "cross_entropy": float(_entropy(logits, 1) + _entropy(calm, 0)) / 2,
    }


def _mean(values: Tensor) -> float:
    """The mean cosine; 1 where there is no token."""
    return float(values.mean()) if len(values) else 1.0


def _low(values: Tensor) -> float:
    """The 5th percentile, of at most the first 2^24 values: `quantile` takes no more."""
    return float(values[: 2**24].quantile(0.05))


def _entropy(logits: Tensor, label: int) -> Tensor:
    return F.cross_entropy(logits, torch.full((len(logits),), label))


def _auc(score: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve by ranks; 0.5 where only one class is present."""
    n, m = int(positive.sum()), int((~positive).sum())
    if n == 0 or m == 0:
        return 0.5
    rank = torch.empty(len(score), dtype=torch.float64)
    rank[score.argsort()] = torch.arange(1, len(score) + 1, dtype=torch.float64)
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def _f1(predicted: Tensor, positive: Tensor) -> float:
    both = float((predicted & positive).sum())
    return 2 * both / max(1.0, float(predicted.sum() + positive.sum()))


@torch.no_grad()
def detector_report(module: SafeRedir, data: Data, mean: Tensor) -> dict[str, dict[str, float]]:
    """Balanced accuracy on held-out trajectories by timestep, for what the detector may see.

    `latent+t` replaces the prompt by the mean training prompt; the other rows leave out latent or timestep features.
    """
    views = {
        "text": (False, False, True), "text+latent": (True, False, True),
        "text+latent+t": (True, True, True), "latent+t": (True, True, False),
    }
    unsafe = data.prompts.unsafe[_around(len(data.natural.x), len(data.prompts.unsafe))]
    safe = data.benign[_around(len(data.safe.x), len(data.benign))]
    report: dict[str, dict[str, float]] = {}
    for name, view in views.items():
        caught = _accuracy(module, data.natural, unsafe, mean, view, 1)
        passed = _accuracy(module, data.safe, safe, mean, view, 0)
        report[name] = {k: round((caught[k] + passed[k]) / 2, 4) for k in caught}
    return report


def _accuracy(
    module: SafeRedir, latents: Latents, prompts: Tensor, mean: Tensor, view: tuple[bool, bool, bool], label: int
) -> dict[str, float]:
    with_latent, with_t, with_text = view
    n, steps = len(prompts), len(latents.t)
    right = torch.zeros(steps)
    for step in range(steps):
        prompt = prompts if with_text else mean.expand(n, -1, -1)
        t = latents.t[step].expand(n) if with_t else None
        logits = _read_all(module, latents.x[:n, step].float() if with_latent else None, prompt, t)[0]
        right[step] = (logits.argmax(-1) == label).float().mean()
    inside = {f"t{low}-{high}": (latents.t >= low) & (latents.t < high) for low, high in BUCKETS}
    return {"all": float(right.mean())} | {k: float(right[m].mean()) for k, m in inside.items() if m.any()}


# --- training ------------------------------------------------------------------------------------------------------------


def sizes_for(pipeline: Any, token_delta: bool = True) -> Sizes:
    """The backbone's widths; all else as released on those of Stable Diffusion and more, a small network on small backbones
    such as pocket. Raises `UsageError` where the denoiser does not say how wide a prompt is."""
    width, channels = prompt_width(pipeline), pipeline.vae.config.latent_channels
    if width is None:
        raise UsageError(f"{type(pipeline).__name__} does not say how wide its prompts are", "No redirector fits it.")
    tokens = encode(pipeline, [""]).embeds.shape[1]
    fit = {"prompt_width": width, "latent_channels": channels, "tokens": tokens, "token_delta": token_delta}
    if width >= 512:
        return Sizes.model_validate(fit)
    small = {
        "latent_widths": (16, 32, 64), "latent_feature": 64, "timestep_width": 128, "timestep_feature": 32, "token_hidden": 256,
        "rank": 64, "heads": 1, "classifier_hidden": 96, "alpha_hidden": 96, "mask_hidden": 64,
    }
    return Sizes.model_validate(fit | small)


def _mined(
    backbone: BackboneInfo, concepts: Sequence[ConceptSpec], settings: Settings, allowed: Callable[[str], bool],
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """Concept -> mined word -> its gain as a share of the told phrases' (`mining.mined`)."""
    found = {}
    for concept in concepts if settings.mined and backbone.family == "pocket" else ():
        if concept.kind == "object":
            told = phrases(concept, backbone.family)
            words = mining.vocabulary(backbone.pipeline, told, allowed)
            search = mining.Search(seed=settings.seed)
            names = concept.families[backbone.family].names
            recipe = (settings.steps, settings.guidance, search, progress)
            found[concept.name] = mining.mined(backbone.pipeline, names, told, words, *recipe)
    return found


def _load_pairs(
    backbone: BackboneInfo, concepts: Sequence[ConceptSpec], settings: Settings, mined: Mapping[str, Sequence[str]]
) -> PairSet:
    file = settings.pairs_file
    if file is not None and not of_copy(file):
        return read_pairs(file, {name: column for name, column in settings.columns if name in PAIR})
    if file is None and backbone.family == "pocket":
        return pocket_pairs(concepts, settings.pairs, settings.benign, settings.seed, settings.varied, mined)
    return igmu_pairs(concepts, backbone.family, settings.seed, file, settings.accept_prompts)


def _screen(pairs: PairSet, allowed: Callable[[str], bool]) -> PairSet:
    def both(items: list[Any]) -> list[Any]:
        return [p for p in items if whole(p.unsafe) and whole(p.safe)]

    def whole(text: str) -> bool:
        return allowed(text) and all(map(allowed, pairs.beside.get(text, ())))

    return replace(
        pairs, train=both(pairs.train), held=both(pairs.held), benign_train=list(filter(whole, pairs.benign_train)),
        benign_held=list(filter(whole, pairs.benign_held)),
    )


def _held_loss(report: dict[str, float]) -> float:
    return 2 - report["cos_real"] - report["cos_pads"] + 0.5 * report["cross_entropy"]


def _rate(step: int, steps: int) -> float:
    """Learning-rate factor: 30 steps of warm-up, then linear to 2 %."""
    return min(1.0, (step + 1) / 30) * max(0.02, 1 - step / steps)


@dataclass
class _Best:
    """The best held-out state so far, and for how many evaluations it has not been beaten."""

    state: dict[str, Tensor]
    value: float = math.inf
    stale: int = 0

    def offer(self, module: SafeRedir, value: float) -> None:
        self.stale += 1
        if value < self.value:
            self.state, self.value, self.stale = copy.deepcopy(module.state_dict()), value, 0


def _step(optimiser: torch.optim.Optimizer, module: SafeRedir, terms: dict[str, Tensor]) -> dict[str, float]:
    optimiser.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimiser.step()
    return {name: float(term.detach()) for name, term in terms.items()}


def _groups(module: SafeRedir) -> list[dict[str, Any]]:
    """The detector learns slower: at the redirector's rate its latent encoder died in one of three runs on pocket."""
    slow = {id(p) for part in (module.latent_encoder, module.t_encoder, module.classifier) for p in part.parameters()}
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if id(p) not in slow], "share": 1.0},
        {"params": [p for p in parameters if id(p) in slow], "share": 0.25},
    ]


def _state(module: SafeRedir, optimiser: torch.optim.Optimizer, best: _Best, rng: torch.Generator) -> dict[str, Any]:
    """All that a resumed training needs."""
    device = module.pos_embed.device
    return {
        "module": module.state_dict(), "optimiser": optimiser.state_dict(), "best": vars(best), "rng": rng.get_state(),
        "noise": torch.get_rng_state(),
        "device_noise": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _restored(
    state: dict[str, Any], module: SafeRedir, optimiser: torch.optim.Optimizer, best: _Best, rng: torch.Generator
) -> tuple[int, list[dict[str, float]]]:
    """Restore a saved state; returns the steps done and the curve."""
    module.load_state_dict(state["module"])
    optimiser.load_state_dict(state["optimiser"])
    best.state, best.value, best.stale = state["best"]["state"], state["best"]["value"], state["best"]["stale"]
    rng.set_state(state["rng"])
    torch.set_rng_state(state["noise"])
    if state["device_noise"] is not None:
        torch.cuda.set_rng_state(state["device_noise"], module.pos_embed.device)
    return state["step"], state["curve"]


def fit(
    module: SafeRedir, train: Data, dev: Data, tau: float, settings: Settings, progress: Progress,
    partial: Partial | None = None,
) -> tuple[list[dict[str, float]], int]:
    """Train in place and leave the best held-out state in `module`. Returns the curve and the steps done.

    Goes on from the last evaluation that `partial` holds.
    """
    began = time.perf_counter()
    device, rng = module.pos_embed.device, torch.Generator().manual_seed(settings.seed + 1)
    distance, mean, steps = train.prompts.distance(), mean_prompt(train), settings.train_steps
    optimiser = torch.optim.AdamW(_groups(module), lr=settings.learning_rate, weight_decay=0.01)
    curve: list[dict[str, float]] = []
    best, step, seen = _Best(module.state_dict()), 0, []
    saved = partial.load("training") if partial else None
    if saved:
        step, curve = _restored(saved, module, optimiser, best, rng)
        began -= saved["seconds"]
    while step < steps and best.stale < settings.patience:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * group["share"] * _rate(step, steps)
        batch = draw(train, distance, mean, settings.batch, rng).to(device)
        seen.append(_step(optimiser, module, losses(module.train(), batch, tau, rng, settings.by_text)))
        step += 1
        if step % settings.evaluate_every == 0 or step == steps:
            report = held_out(module.eval(), dev, tau)
            best.offer(module, _held_loss(report))
            means = {name: sum(s[name] for s in seen) / len(seen) for name in seen[0]}
            curve.append({k: round(v, 4) for k, v in {"step": step, "held": _held_loss(report), **means}.items()})
            progress("training", step, steps, f"held-out cosine {report['cos_real']:.3f}")
            seen = []
            if partial:
                state = _state(module, optimiser, best, rng)
                partial.save("training", time.perf_counter() - began, step=step, curve=curve, **state)
    module.load_state_dict(best.state)
    return curve, step


def mean_prompt(data: Data) -> Tensor:
    """The mean embedding of unsafe and benign prompts, equally weighed, (T, D)."""
    return (data.prompts.unsafe.mean(0) + data.benign.mean(0)) / 2


def _words_sha(concepts: Sequence[ConceptSpec], family: str) -> str:
    vocabularies = [concept.families[family] for concept in concepts if family in concept.families]
    listed = [word for words in vocabularies for word in (*words.names, *words.words)]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def _shares(prompts: Prompts, tau: float) -> dict[str, float]:
    marked = prompts.distance() > tau
    return {
        "tau": tau,
        "marked_share": share(marked[prompts.real]),
        "marked_share_padding": share(marked[~prompts.real]),
    }


def share(marked: Tensor) -> float:
    """The share that is marked; 0 where there is no token."""
    return round(float(marked.float().mean()), 4) if len(marked) else 0.0


def _proved(folder: Path) -> dict[str, str]:
    """Files of a redirector that has no marker, by its card."""
    card, sha = own_card(folder)
    return {WEIGHTS: card["weights_sha256"], CARD: sha} if card["method"] == "saferedir" else {}


REDIRECTOR = OutputFolder("srbench train saferedir", card=CARD, earlier=_proved, within=(FOLDER,))


def _save(module: SafeRedir, card: dict[str, Any], out: Path) -> dict[str, Any]:
    state = {k: v.cpu().contiguous() for k, v in module.state_dict().items()}
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    raw = save_safetensors(half)
    card = card | {"weights_sha256": hashlib.sha256(raw).hexdigest()}
    text = json.dumps(card, indent=1, allow_nan=False) + "\n"
    with written_folder(out, REDIRECTOR) as fresh:
        write_atomic(fresh / WEIGHTS, raw)
        write_atomic(fresh / CARD, text.encode())
    return card


def _round_to_half(module: SafeRedir) -> None:
    """Round the weights as they are stored, before they are evaluated."""
    module.load_state_dict({k: v.half().to(v.dtype) if v.is_floating_point() else v for k, v in module.state_dict().items()})


def _identity(
    backbone: BackboneInfo, concepts: Sequence[ConceptSpec], pairs: PairSet, excluded: int, settings: Settings
) -> dict[str, Any]:
    """The card's part on what the redirector was made from."""
    made_from = {
        "method": "saferedir",
        "srbench": __version__,
        "backbone": backbone.name,
        "backbone_sha256": backbone.sha256,
        "checkpoint_sha256": backbone.checkpoint_sha,
        "dtype": str(next(denoiser(backbone.pipeline).parameters()).dtype).removeprefix("torch."),
        "concepts": [concept.name for concept in concepts],
        "words_sha256": _words_sha(concepts, backbone.family),
        "pairs_sha256": pairs.sha256(),
        "pairs": {"train": len(pairs.train), "held": len(pairs.held)},
        "benign": {"train": len(pairs.benign_train), "held": len(pairs.benign_held)},
        "excluded": excluded,
        "alpha_scale": ALPHA_SCALE,
        "seed": settings.seed,
        "settings": said_of(settings),
    }
    if settings.pairs_file is None and backbone.family == "pocket":  # sentences are written around all that methods are told
        told = [phrase for concept in concepts for phrase in phrases(concept, backbone.family)]
        made_from["phrases"] = list(dict.fromkeys(told))
    used = {name: value if isinstance(value, str) else list(value) for name, value in asdict(pairs.used).items()}
    return made_from | ({"used": used} if pairs.used.prompts else {})


def _report(module: SafeRedir, data: Data, dev: Data, tau: float) -> dict[str, Any]:
    """The card's part on the network and how good it is on held-out pairs."""
    return {
        "sizes": module.sizes.model_dump(mode="json"),
        "token_delta": module.sizes.token_delta,
        "parameters": sum(p.numel() for p in module.parameters()),
        **_shares(dev.prompts, tau),
        "held_out": {k: round(v, 4) for k, v in held_out(module, dev, tau).items()},
        "detector_accuracy": detector_report(module, dev, mean_prompt(data)),
    }


def _prepared(
    backbone: BackboneInfo, concepts: Sequence[ConceptSpec], settings: Settings, allowed: Callable[[str], bool],
    mined: Mapping[str, Sequence[str]],
) -> tuple[PairSet, int]:
    """Screened pairs, and how many sentences and rows were dropped."""
    loaded = _load_pairs(backbone, concepts, settings, mined)
    if settings.adversarial is not None:
        rows = {name: column for name, column in settings.columns if name not in PAIR}
        loaded = with_attacks(loaded, settings.adversarial, settings.adversarial_share, rows)
    texts = loaded.prompts()
    beside = {text for more in loaded.beside.values() for text in more}
    sensitive = any(map(screen.sensitive_concept, concepts)) or any(map(screen.is_sexual, texts | beside))
    pairs = _screen(loaded, lambda text: allowed(text) and not (sensitive and screen.names_minor(text)))
    if not (pairs.train and pairs.held and pairs.benign_train and pairs.benign_held):
        raise UsageError("no pairs are left to train on", "Check the pairs file.")
    return pairs, loaded.dropped + len(texts) - len(pairs.prompts())


def train(
    backbone: BackboneInfo,
    concepts: Sequence[ConceptSpec],
    settings: Settings,
    out: Path,
    progress: Progress = lambda phase, done, total, note: None,
    allowed: Callable[[str], bool] = lambda text: True,
) -> dict[str, Any]:
    """Train a redirector, write `redirector.safetensors` and `card.json` into `out`, and return the card.

    `allowed` screens every sentence before anything is encoded; those that name minors are dropped where a concept or a sentence
    is sensitive. An interrupted training goes on where it was and ends at the same weights, on a CPU bit for bit. Raises
    `UsageError` where there are no pairs, where `out` holds something else, and as `igmu_pairs` does.
    """
    check_folder(out, REDIRECTOR)
    began, pipeline = time.perf_counter(), backbone.pipeline
    mined = _mined(backbone, concepts, settings, allowed, progress)
    pairs, excluded = _prepared(backbone, concepts, settings, allowed, {name: tuple(words) for name, words in mined.items()})
    count, held_count, seed = settings.trajectories, settings.held_trajectories, settings.seed
    identity = _identity(backbone, concepts, pairs, excluded, settings)
    device = next(denoiser(pipeline).parameters()).device
    partial = Partial(out, identity | {"device": device.type})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = SafeRedir(sizes_for(pipeline, settings.token_delta)).to(device)
        data = make_data(pipeline, pairs.train, pairs.benign_train, count, settings, 1000 + seed, progress, partial)
        dev = make_data(pipeline, pairs.held, pairs.benign_held, held_count, settings, 900_000 + seed, progress, partial)
        tau = settings.tau or TAU.get(backbone.family) or fit_tau(dev.prompts)
        curve, steps = fit(module, data, dev, tau, settings, progress, partial)
    _round_to_half(module)
    card = identity | _report(module.eval(), data, dev, tau)
    card |= {"steps_done": steps, "curve": curve, "seconds": round(time.perf_counter() - began + partial.seconds, 1)}
    card |= {"mined": mined} if mined else {}
    card |= {"read": list(pairs.told)} if pairs.told else {}  # which columns of the files were read as what
    card = _save(module, card, out)
    partial.drop()
    return card
