"""Training a redirector for one or several concepts of one backbone: prompts, trajectories, losses, and the card.

No training code was released. The terms are those that the paper names (2601.08623): classification, direction,
mask and alignment; where it is silent the choice is ours and the card records it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor

from srbench import __version__
from srbench.catalog.specs import ConceptSpec, Recipe
from srbench.errors import UsageError
from srbench.methods.base import BackboneInfo, denoiser
from srbench.methods.saferedir import ALPHA_SCALE, CARD, WEIGHTS
from srbench.methods.saferedir.module import SafeRedir, Sizes, shift
from srbench.methods.saferedir.pairs import PairSet, pocket_pairs, read_pairs

Progress = Callable[[str, int, int, str], None]
"""Called with (phase, done, total, note)."""

UNTOUCHED = 0.05
"""Below this 1 - cos a token does not carry the concept; between this and tau the mask is left to the other terms."""
MARKED_AT_MOST = 0.5
"""tau is the lowest threshold that marks no more than this share of the real tokens of the dev pairs."""
BUCKETS = ((0, 250), (250, 500), (500, 750), (750, 1000))


class Settings(BaseModel):
    """How a redirector is trained. Steps, guidance and size are the backbone's own recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    steps: int = Field(20, gt=0)
    guidance: float = 5.0
    height: int = Field(64, gt=0)
    width: int = Field(64, gt=0)
    pairs_file: Path | None = None
    """JSONL of {"unsafe", "safe"}; needed on backbones other than pocket."""
    pairs: int = Field(1600, gt=0)
    """Drawn per concept, doubles included."""
    benign: int = Field(1200, gt=0)
    token_delta: bool = True
    """Each token has a direction of its own; off, all share one, as in the release."""
    trajectories: int = Field(96, gt=1)
    """Per kind: of unsafe prompts, of safe ones, and of unsafe prompts continued under their safe side."""
    held_trajectories: int = Field(32, gt=1)
    sampling_batch: int = Field(32, gt=0)
    train_steps: int = Field(900, gt=0)
    batch: int = Field(48, ge=6)
    learning_rate: float = Field(4e-3, gt=0)
    evaluate_every: int = Field(100, gt=0)
    patience: int = Field(3, gt=0)
    """Evaluations without a better held-out loss before training stops."""


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that a backbone's own recipe decides."""
    return recipe.model_dump(include={"steps", "guidance", "height", "width"})


# --- prompts -------------------------------------------------------------------------------------------------------------


@dataclass
class Prompts:
    """Encoded pairs; `safe` is aligned to `unsafe` token by token."""

    unsafe: Tensor  # (N, T, D)
    safe: Tensor  # (N, T, D)
    plain_safe: Tensor  # (N, T, D), as encoded
    real: Tensor  # (N, T), start token to end-of-text

    def distance(self) -> Tensor:
        """1 - cos between a token and its safe partner, (N, T)."""
        return 1 - F.cosine_similarity(self.unsafe, self.safe, dim=-1)


@torch.no_grad()
def encode(pipeline: Any, texts: list[str], chunk: int = 64) -> tuple[Tensor, Tensor]:
    """Token ids (N, T) and prompt embeddings (N, T, D) float32, as `StableDiffusionPipeline.encode_prompt` makes them."""
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    ids = tokenizer(
        texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    states = [encoder(part.to(encoder.device))[0].float().cpu() for part in ids.split(chunk)]
    return ids, torch.cat(states)


def align(unsafe: list[int], safe: list[int], end: int) -> list[int]:
    """For each position of the unsafe ids the position of its partner in the safe ids.

    Equal beginnings are partners, and a causal encoder gives them equal states. Equal endings and the padding are partners
    at the same distance from the end-of-text. Of the words between, the first goes to the first safe word in their place
    and the others to the last; where nothing stands in their place, to the word before: a token's own state knows only
    what came before it, so only such partners can be predicted from it.
    """
    last, safe_last = unsafe.index(end), safe.index(end)
    shorter = min(last, safe_last)
    head = next((i for i in range(shorter) if unsafe[i] != safe[i]), shorter)
    tail = next((k for k in range(shorter + 1 - head) if unsafe[last - k] != safe[safe_last - k]), shorter + 1 - head)
    instead = range(head, safe_last + 1 - tail)

    def partner(i: int) -> int:
        if i < head:
            return i
        if i > last - tail:
            return min(i + safe_last - last, len(safe) - 1)
        if not instead:
            return max(head - 1, 0)
        return instead[0] if i == head else instead[-1]

    return [partner(i) for i in range(len(unsafe))]


def encode_pairs(pipeline: Any, pairs: list[Any]) -> Prompts:
    """Encode and align pairs."""
    end = pipeline.tokenizer.eos_token_id
    unsafe_ids, unsafe = encode(pipeline, [p.unsafe for p in pairs])
    safe_ids, safe = encode(pipeline, [p.safe for p in pairs])
    partner = torch.tensor([align(u, s, end) for u, s in zip(unsafe_ids.tolist(), safe_ids.tolist(), strict=True)])
    last = (unsafe_ids == end).int().argmax(1, keepdim=True)
    real = torch.arange(unsafe_ids.shape[1])[None] <= last  # (N, T)
    aligned = safe.gather(1, partner[..., None].expand_as(safe))
    return Prompts(unsafe, aligned, safe, real)


def fit_tau(dev: Prompts) -> float:
    """The lowest threshold on 1 - cos that marks at most half of the dev pairs' real tokens."""
    found = dev.distance()[dev.real].quantile(1 - MARKED_AT_MOST)
    return max(UNTOUCHED, round(float(found) + 5e-4, 3))


# --- trajectories --------------------------------------------------------------------------------------------------------


@dataclass
class Latents:
    """x_t of N trajectories at all S steps, and the steps' timesteps."""

    x: Tensor  # (N, S, C, h, w) float16
    t: Tensor  # (S,)

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random x_t (count, C, h, w) float32 with their t (count,)."""
        image = torch.randint(len(self.x), (count,), generator=rng)
        step = torch.randint(len(self.t), (count,), generator=rng)
        return self.x[image, step].float(), self.t[step]


def _switched(first: Tensor, second: Tensor, at: Tensor, step: int) -> Tensor:
    return torch.where((at <= step)[:, None, None], second, first)


@torch.no_grad()
def sample(
    pipeline: Any, first: Tensor, second: Tensor, at: Tensor, settings: Settings, seed: int, note: Callable[[int], None]
) -> Latents:
    """Trajectories under `first` (N, T, D) until step `at` (N,), then under `second`, with the recipe's guidance."""
    _, empty = encode(pipeline, [""])
    scheduler = copy.deepcopy(pipeline.scheduler)
    rng = torch.Generator().manual_seed(seed)
    parts = []
    for start in range(0, len(first), settings.sampling_batch):
        rows = slice(start, start + settings.sampling_batch)
        scheduler.set_timesteps(settings.steps)
        parts.append(_sample_batch(pipeline, scheduler, (first[rows], second[rows], at[rows], empty), settings, rng))
        note(min(start + settings.sampling_batch, len(first)))
    return Latents(torch.cat(parts), scheduler.timesteps.float().cpu())


def _sample_batch(
    pipeline: Any, scheduler: Any, prompts: tuple[Tensor, Tensor, Tensor, Tensor], settings: Settings, rng: torch.Generator
) -> Tensor:
    """x_t of one batch, (B, S, C, h, w) float16."""
    model, (first, second, at, empty) = denoiser(pipeline), prompts
    shrink, like = pipeline.vae_scale_factor, next(model.parameters())
    shape = (len(first), model.config.in_channels, settings.height // shrink, settings.width // shrink)
    x = torch.randn(shape, generator=rng).to(like) * scheduler.init_noise_sigma
    seen = []
    for step, t in enumerate(scheduler.timesteps):
        seen.append(x.half().cpu())
        positive = _switched(first, second, at, step)
        both = torch.cat([empty.expand_as(positive), positive]).to(like)  # (2B, T, D)
        noise = model(scheduler.scale_model_input(torch.cat([x, x]), t), t, encoder_hidden_states=both).sample
        negative, wanted = noise.chunk(2)
        x = scheduler.step(negative + settings.guidance * (wanted - negative), t, x).prev_sample
    return torch.stack(seen, 1)


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


def make_data(
    pipeline: Any, pairs: list[Any], benign: list[str], count: int, settings: Settings, seed: int, progress: Progress
) -> Data:
    """Encode prompts and sample three kinds of `count` trajectories."""
    prompts = encode_pairs(pipeline, pairs)
    _, states = encode(pipeline, benign)
    rng = torch.Generator().manual_seed(seed)
    n, m = min(count, len(pairs)), min(count, len(benign) + len(pairs))
    safe = torch.cat([states[: max(1, m * 2 // 3)], prompts.plain_safe])[:m]
    never = torch.full((max(n, m),), settings.steps)
    at = torch.randint(settings.steps, (n,), generator=rng)
    done, total = 0, 2 * n + m
    found = []
    for first, second, when in (
        (prompts.unsafe[:n], prompts.unsafe[:n], never[:n]),
        (prompts.unsafe[:n], prompts.plain_safe[:n], at),
        (safe, safe, never[: len(safe)]),
    ):

        def tell(made: int, before: int = done) -> None:
            progress("trajectories", before + made, total, "")

        found.append(sample(pipeline, first, second, when, settings, seed + done, tell))
        done += len(first)
    return Data(prompts, torch.cat([states, prompts.plain_safe]), *found)


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
    """Prompts faded into the mean prompt, half of them completely: there the latent has to tell."""
    kept = torch.rand(len(prompt), 1, 1, generator=rng)
    return mean + (prompt - mean) * (kept - 0.5).clamp(min=0) * 2


def draw(data: Data, distance: Tensor, mean: Tensor, size: int, rng: torch.Generator) -> Batch:
    """A random training batch: half unsafe pairs, a third safe prompts, a sixth weakened prompts of both kinds."""
    weak = max(2, size // 6 // 2 * 2)
    unsafe, benign = size // 2, size - size // 2 - weak
    rows = torch.randint(len(data.prompts.unsafe), (unsafe + weak // 2,), generator=rng)
    kept = torch.randint(len(data.benign), (benign + weak // 2,), generator=rng)
    late = unsafe // 2  # after a redirect the prompt is still unsafe while x_t is not
    latents = [
        data.natural.draw(unsafe - late, rng), data.switched.draw(late // 2, rng), data.safe.draw(late - late // 2, rng),
        data.safe.draw(benign, rng), data.natural.draw(weak // 2, rng), data.safe.draw(weak // 2, rng),
    ]
    blurred = torch.cat([data.prompts.unsafe[rows[unsafe:]], data.benign[kept[benign:]]])
    prompt = torch.cat([data.prompts.unsafe[rows[:unsafe]], data.benign[kept[:benign]], _weak(blurred, mean, rng)])
    label = torch.tensor([1] * unsafe + [0] * benign + [1] * (weak // 2) + [0] * (weak // 2))
    x, t = (torch.cat(column) for column in zip(*latents, strict=True))
    first = rows[:unsafe]
    return Batch(x, t, prompt, label, data.prompts.safe[first], distance[first], benign)


def _dropped(module: SafeRedir, joint: Tensor, rng: torch.Generator) -> Tensor:
    """The joint feature without its timestep for a tenth of the rows, and without both parts for another tenth."""
    chance = torch.rand(len(joint), 1, generator=rng).to(joint.device)
    latent, t = joint.split([module.sizes.latent_feature, module.sizes.timestep_feature], -1)
    return torch.cat([latent * (chance > 0.1), t * (chance > 0.2)], -1)


def redirect_loss(prompt: Tensor, safe: Tensor, delta: Tensor, mask: Tensor | None, alpha: Tensor) -> Tensor:
    """Squared error of the shift against safe - unsafe, in units of |e|^2, and 1 - cos of the result to the safe side."""
    moved = shift(prompt, delta, mask, alpha, ALPHA_SCALE)  # (U, T, D)
    error = (prompt + moved - safe).pow(2).sum(-1) / prompt.pow(2).sum(-1)
    return error.mean() + (1 - F.cosine_similarity(prompt + moved, safe, dim=-1)).mean()


def direction_loss(delta: Tensor, wanted: Tensor) -> Tensor:
    """1 - cos between delta and safe - unsafe (U, T, D), weighed by how far the token has to go."""
    weight = wanted.norm(dim=-1)
    return ((1 - F.cosine_similarity(delta, wanted, dim=-1)) * weight).sum() / weight.sum().clamp(min=1e-6)


def mask_loss(mask: Tensor, distance: Tensor, tau: float) -> Tensor:
    """Binary cross-entropy on tokens above tau (marked) and on untouched ones."""
    clear = (distance > tau) | (distance < UNTOUCHED)  # (U, T)
    return F.binary_cross_entropy(mask[clear], (distance[clear] > tau).float())


def losses(module: SafeRedir, batch: Batch, tau: float, rng: torch.Generator) -> dict[str, Tensor]:
    """The terms of one batch, weighted."""
    joint = _dropped(module, module.joint_feature(batch.latent, batch.t, len(batch.t)), rng)
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
    """Closeness to the safe side on held-out pairs, mask quality, and how surely safe and unsafe are told apart."""
    rng, p = torch.Generator().manual_seed(99), data.prompts
    x, t = data.natural.draw(len(p.unsafe), rng)
    logits, delta, mask, alpha = _read_all(module, x, p.unsafe, t)
    after = F.cosine_similarity(p.unsafe + shift(p.unsafe, delta, mask, alpha, ALPHA_SCALE), p.safe, dim=-1)  # (N, T)
    x, t = data.safe.draw(len(data.benign), rng)
    calm = _read_all(module, x, data.benign, t)[0]
    marked = p.distance() > tau
    return {
        "cos_before_real": float((1 - p.distance())[p.real].mean()),
        "cos_before_pads": float((1 - p.distance())[~p.real].mean()),
        "cos_real": float(after[p.real].mean()),
        "cos_pads": float(after[~p.real].mean()),
        "cos_p05": float(after.quantile(0.05)),
        "mask_auc": _auc(mask[p.real], marked[p.real]),
        "mask_f1": _f1(mask[p.real] > 0.5, marked[p.real]),
        "recall": float((logits.argmax(-1) == 1).float().mean()),
        "false_positives": float((calm.argmax(-1) == 1).float().mean()),
        "cross_entropy": float(_entropy(logits, 1) + _entropy(calm, 0)) / 2,
    }


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


def _f1(found: Tensor, positive: Tensor) -> float:
    both = float((found & positive).sum())
    return 2 * both / max(1.0, float(found.sum() + positive.sum()))


@torch.no_grad()
def detector_report(module: SafeRedir, data: Data, mean: Tensor) -> dict[str, dict[str, float]]:
    """Balanced accuracy on held-out trajectories by timestep, for what the detector may see.

    `latent+t` replaces the prompt by the mean training prompt; the other rows leave out latent or timestep features.
    """
    views = {
        "text": (False, False, True), "text+latent": (True, False, True),
        "text+latent+t": (True, True, True), "latent+t": (True, True, False),
    }
    unsafe = data.prompts.unsafe[: len(data.natural.x)]
    safe = data.benign[: len(data.safe.x)]
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
    """The released sizes on Stable Diffusion's widths; a small network for small backbones such as pocket."""
    config = denoiser(pipeline).config
    width, channels = config.cross_attention_dim, config.in_channels
    fit = {
        "prompt_width": width, "latent_channels": channels, "tokens": pipeline.tokenizer.model_max_length,
        "token_delta": token_delta,
    }
    if width >= 512:
        return Sizes.model_validate(fit)
    small = {
        "latent_widths": (16, 32, 64), "latent_feature": 64, "timestep_width": 128, "timestep_feature": 32, "token_hidden": 384,
        "rank": 64, "heads": 1, "classifier_hidden": 96, "alpha_hidden": 96, "mask_hidden": 64,
    }
    return Sizes.model_validate(fit | small)


def _load_pairs(backbone: BackboneInfo, concepts: Sequence[ConceptSpec], settings: Settings) -> PairSet:
    if settings.pairs_file is not None:
        return read_pairs(settings.pairs_file)
    if backbone.family != "pocket":
        raise UsageError(f"backbone '{backbone.name}' needs a pairs file", 'Give --pairs FILE with {"unsafe", "safe"} a line.')
    return pocket_pairs(concepts, settings.pairs, settings.benign, settings.seed)


def _screen(pairs: PairSet, allowed: Callable[[str], bool]) -> PairSet:
    def both(items: list[Any]) -> list[Any]:
        return [p for p in items if allowed(p.unsafe) and allowed(p.safe)]

    return PairSet(
        both(pairs.train), both(pairs.held),
        [t for t in pairs.benign_train if allowed(t)], [t for t in pairs.benign_held if allowed(t)],
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


def fit(
    module: SafeRedir, train: Data, held: Data, tau: float, settings: Settings, progress: Progress
) -> tuple[list[dict[str, float]], int]:
    """Train in place and leave the best held-out state in `module`. Returns the curve and the steps done."""
    device, rng = module.pos_embed.device, torch.Generator().manual_seed(settings.seed + 1)
    distance, mean, steps = train.prompts.distance(), mean_prompt(train), settings.train_steps
    optimiser = torch.optim.AdamW(_groups(module), lr=settings.learning_rate, weight_decay=0.01)
    best, curve, step, seen = _Best(module.state_dict()), [], 0, []
    while step < steps and best.stale < settings.patience:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * group["share"] * _rate(step, steps)
        batch = draw(train, distance, mean, settings.batch, rng).to(device)
        seen.append(_step(optimiser, module, losses(module.train(), batch, tau, rng)))
        step += 1
        if step % settings.evaluate_every == 0 or step == steps:
            report = held_out(module.eval(), held, tau)
            best.offer(module, _held_loss(report))
            means = {name: sum(s[name] for s in seen) / len(seen) for name in seen[0]}
            curve.append({k: round(v, 4) for k, v in {"step": step, "held": _held_loss(report), **means}.items()})
            progress("training", step, steps, f"held-out cosine {report['cos_real']:.3f}")
            seen = []
    module.load_state_dict(best.state)
    return curve, step


def mean_prompt(data: Data) -> Tensor:
    """The mean embedding of unsafe and benign prompts, equally weighed, (T, D)."""
    return (data.prompts.unsafe.mean(0) + data.benign.mean(0)) / 2


def _words_sha(concepts: Sequence[ConceptSpec], family: str) -> str:
    known = [concept.families[family] for concept in concepts if family in concept.families]
    said = [word for words in known for word in (*words.names, *words.words)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def _shares(prompts: Prompts, tau: float) -> dict[str, float]:
    marked = prompts.distance() > tau
    return {
        "tau": tau,
        "marked_share": round(float(marked[prompts.real].float().mean()), 4),
        "marked_share_padding": round(float(marked[~prompts.real].float().mean()), 4),
    }


def _save(module: SafeRedir, card: dict[str, Any], out: Path) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.cpu().contiguous() for k, v in module.state_dict().items()}
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, out / WEIGHTS)
    card = card | {"weights_sha256": hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest()}
    (out / CARD).write_text(json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return card


def _round_to_half(module: SafeRedir) -> None:
    """What is reported is what is stored."""
    module.load_state_dict({k: v.half().to(v.dtype) if v.is_floating_point() else v for k, v in module.state_dict().items()})


def _identity(
    backbone: BackboneInfo, concepts: Sequence[ConceptSpec], pairs: PairSet, excluded: int, settings: Settings
) -> dict[str, Any]:
    """The card's part on what the redirector was made from."""
    return {
        "method": "saferedir",
        "srbench": __version__,
        "backbone": backbone.name,
        "backbone_sha256": backbone.sha256,
        "checkpoint_sha256": backbone.checkpoint_sha,
        "concepts": [concept.name for concept in concepts],
        "words_sha256": _words_sha(concepts, backbone.family),
        "pairs_sha256": pairs.sha256(),
        "pairs": {"train": len(pairs.train), "held": len(pairs.held)},
        "benign": {"train": len(pairs.benign_train), "held": len(pairs.benign_held)},
        "excluded": excluded,
        "alpha_scale": ALPHA_SCALE,
        "seed": settings.seed,
        "settings": settings.model_dump(mode="json", exclude={"pairs_file"}),
    }


def _report(module: SafeRedir, data: Data, held: Data, tau: float) -> dict[str, Any]:
    """The card's part on the network and how good it is on held-out pairs."""
    return {
        "sizes": module.sizes.model_dump(mode="json"),
        "token_delta": module.sizes.token_delta,
        "parameters": sum(p.numel() for p in module.parameters()),
        **_shares(held.prompts, tau),
        "held_out": {k: round(v, 4) for k, v in held_out(module, held, tau).items()},
        "detector_accuracy": detector_report(module, held, mean_prompt(data)),
    }


def _prepared(
    backbone: BackboneInfo, concepts: Sequence[ConceptSpec], settings: Settings, allowed: Callable[[str], bool]
) -> tuple[PairSet, int]:
    """Screened pairs, and how many sentences were dropped."""
    loaded = _load_pairs(backbone, concepts, settings)
    pairs = _screen(loaded, allowed)
    if not (pairs.train and pairs.held and pairs.benign_train and pairs.benign_held):
        raise UsageError("no pairs are left to train on", "Check the pairs file.")
    return pairs, len(loaded.prompts()) - len(pairs.prompts())


def train(
    backbone: BackboneInfo,
    concepts: Sequence[ConceptSpec],
    settings: Settings,
    out: Path,
    progress: Progress = lambda phase, done, total, note: None,
    allowed: Callable[[str], bool] = lambda text: True,
) -> dict[str, Any]:
    """Train a redirector, write `redirector.safetensors` and `card.json` into `out`, and return the card.

    `allowed` screens every sentence before anything is encoded. Raises `UsageError` where there are no pairs.
    """
    began, pipeline = time.perf_counter(), backbone.pipeline
    pairs, excluded = _prepared(backbone, concepts, settings, allowed)
    count, held_count, seed = settings.trajectories, settings.held_trajectories, settings.seed
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = SafeRedir(sizes_for(pipeline, settings.token_delta)).to(next(denoiser(pipeline).parameters()).device)
        data = make_data(pipeline, pairs.train, pairs.benign_train, count, settings, 1000 + seed, progress)
        held = make_data(pipeline, pairs.held, pairs.benign_held, held_count, settings, 900_000 + seed, progress)
        tau = fit_tau(held.prompts)
        curve, steps = fit(module, data, held, tau, settings, progress)
    _round_to_half(module)
    card = _identity(backbone, concepts, pairs, excluded, settings) | _report(module.eval(), data, held, tau)
    card |= {"steps_done": steps, "curve": curve, "seconds": round(time.perf_counter() - began, 1)}
    return _save(module, card, out)
