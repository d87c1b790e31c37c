"""SAFREE (2410.12761, section 3): takes the concept's subspace out of the prompt's trigger tokens, for as many steps as the
prompt calls for, and damps low frequencies in the U-Net's skip features.

Written from the paper's equations. `safree` is the paper's method; `safree-official` is what the released code
(jaehong31/SAFREE: generate_safree.py, models/modified_stable_diffusion_pipeline.py) does: the concept's phrases are the negative
prompt too, and latent re-attention does not act, because free_lunch_utils.py registers its filters without their switch, so that
`-lra` does no more than widen the batch. `reattend` switches it on and off.

On SDXL a row of the prompt embedding is one token as two encoders see it, side by side; both read the same tokens. All of
section 3 is done in that joint space: a text's pooled embedding is its row at the end of the text, as it is on Stable Diffusion.
The second encoder's own pooled embedding, which SDXL gets as well, stays unchanged. The constants are Stable Diffusion's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from srbench.backbones.pipelines import Conditioning, kind_of
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError
from srbench.methods import base, guidance
from srbench.methods.guidance import ENCODE_BATCH, LATENTS, PROMPT, Slot, argument, with_argument
from srbench.methods.phrases import phrases

METHOD = {
    "name": "safree",
    "version": 2,
    "kind": "inference",
    "title": "SAFREE: concept subspace taken out of trigger tokens",
    "equation": [
        "e_i <- (I - P_C) P_M e_i where d_i >= (1 + alpha) mean_(j != i) d_j, d_i = || (I - P_C) m_i ||",
        "at steps i <= t' = round(10 sigmoid(2k (10 beta - m))), beta = 1 - mean cos(e, (I - P_C) P_M e)",
        "low frequencies of skip features: F_safe <- s F_safe where |F_safe| > |F|",
    ],
    "paper": "2410.12761",
    "families": ["pocket", "sd", "sdxl"],
    "preset_families": {"safree+ci": ["pocket", "sd"]},
    "presets": {
        "safree": {},
        "safree-official": {"negative": True, "reattend": False},
        "safree+ci": {"concept": "inversion"},
    },
    # On Stable Diffusion the released code's constants for artists (`f_beta` in models/modified_stable_diffusion_pipeline.py). On
    # pocket by `srbench/pocket_build/study/fit.yaml`, on `dev` rows, for `safree`; the others share what they have of it.
    "fitted": {
        "sd": {
            "safree": {"style": {"m": 5.5, "k": 3.5}},
            "safree-official": {"style": {"m": 5.5, "k": 3.5}},
            "safree+ci": {"style": {"m": 5.5, "k": 3.5}},
        },
        "pocket": {
            "safree": {"object": {"m": 1.0, "steps": "absolute"}, "style": {"m": 1.0, "steps": "absolute"}},
            "safree-official": {"object": {"m": 1.0, "steps": "absolute"}, "style": {"m": 1.0, "steps": "scaled"}},
            "safree+ci": {"object": {"m": 1.0, "steps": "absolute"}, "style": {"m": 1.0, "steps": "absolute"}},
        },
    },
    "decides": True,
    "reads_concept": True,
    "prepare": "make",
}

SKIPS = Slot(1, ("res_hidden_states_tuple",))
LONGEST = 10.0
"""The factor of the sigmoid in t'."""
SHARPNESS = 10.0
"""The factor of beta in t'."""


class Options(base.Options):
    """Options of all presets. Constants are the released code's for content concepts, on Stable Diffusion at 50 steps."""

    project: bool = True
    """Token projection; without it no embedding changes and nothing else but the negative prompt acts."""
    self_validate: bool = True
    """The safe embedding for the steps i <= t' only; off: for all steps."""
    reattend: bool = True
    """Latent re-attention: low frequencies of the skip features that grew with the safe embedding are scaled down. It never acts
    in the released code, whatever its switch `-lra` says."""
    negative: bool = False
    """The phrases are the negative prompt too, as in the released code."""
    alpha: float = Field(0.01, ge=0, allow_inf_nan=False)
    """A token is a trigger where its distance is at least 1 + alpha times the others' mean."""
    tokens: Literal["prompt", "all"] = "prompt"
    """`all`: what follows the prompt's last word, end-of-text and padding, is projected too. No paper does; it shows how much of
    the concept is left there."""
    beta_over: Literal["text", "words"] = "text"
    """The tokens whose cosines beta is the mean of: the released code's, which are all that its attention mask holds, the start
    and the end of the text among them; or the words alone."""
    m: float = Field(5.333, allow_inf_nan=False)
    """Where t' is half its maximum; 5.5 for artists."""
    k: float = Field(2.5, ge=0, allow_inf_nan=False)
    """How steep t' is; 3.5 for artists."""
    s1: float = Field(0.9, ge=0, allow_inf_nan=False)
    """Scale in the up blocks with the most channels. The published b1 = b2 = 1 scale nothing and are left out."""
    s2: float = Field(0.2, ge=0, allow_inf_nan=False)
    """Scale in the up blocks with the next fewer channels."""
    radius: int = Field(1, ge=1)
    """Low are the frequencies -radius ... radius - 1 on both axes: FreeU's window (2309.11497), threshold 1."""
    mask_id: int = Field(0, ge=0)
    """The tokenizer's id that masks a token."""
    text: str | None = Field(None, pattern=r"[^,\s]")
    """The concept's phrases, separated by commas; None: all that methods are told of the concept."""
    steps: Literal["scaled", "absolute"] = "scaled"
    """Whether t', fitted to 50 steps, scales with the call's steps."""
    concept: Literal["text", "inversion"] = "text"
    """`inversion` (2511.04834): a vector learned on the model, or the pooled embedding of the sentence that it stands in, spans
    the subspace in place of the phrases."""
    inversion: str | None = Field(None, exclude=True)
    """Its file or folder; None is where training puts it. Identity is the artifact's sha256, not the path."""


# --- token projection --------------------------------------------------------------------------------------------------------


def span(rows: Tensor) -> Tensor:
    """Orthonormal basis (D, r), float64 on the CPU, of what `rows` (n, D), n >= 1, span.

    Directions below float32's rounding of the largest are dropped: the same cut as pinv's in C (C^T C)^+ C^T.
    """
    u, s, _ = torch.linalg.svd(rows.double().cpu().T, full_matrices=False)  # (D, min(n, D))
    return u[:, s > s.max() * max(rows.shape) * torch.finfo(torch.float32).eps]


def onto(x: Tensor, basis: Tensor) -> Tensor:
    """Orthogonal projection of the rows of x (n, D) onto the span of `basis` (D, r): P x."""
    return x @ basis @ basis.T


def off(x: Tensor, basis: Tensor) -> Tensor:
    """What is left of the rows of x (n, D) outside the span of `basis` (D, r): (I - P) x."""
    return x - onto(x, basis)


def triggers(distances: Tensor, alpha: float) -> Tensor:
    """Which tokens (n,) are triggers: d_i >= (1 + alpha) mean of d_j, j != i (2410.12761, section 3.2).

    The mean over no token is 0, so a prompt's only token is a trigger: SAFREE then errs on the safe side.
    """
    others = (distances.sum() - distances) / max(len(distances) - 1, 1)  # (n,)
    return distances >= (1 + alpha) * others


def safe_until(beta: float, options: Options, steps: int) -> int:
    """t' = round(10 sigmoid(2k (10 beta - m))) (2410.12761, section 3.3): the last step with the safe embedding."""
    strength = torch.tensor(2 * options.k * (SHARPNESS * beta - options.m), dtype=torch.float64).sigmoid().item()
    return round(guidance.scaled_steps(LONGEST * strength, steps, options.steps))


@torch.no_grad()
def pooled(pipeline: Any, ids: Tensor) -> Tensor:
    """Pooled text embeddings (N, D), float32 on the CPU, of token ids (N, T), encoded in batches of one shape.

    Raises `CellError` where the text encoder has none.
    """
    parts = []
    for part in ids.split(ENCODE_BATCH):
        padded = torch.cat([part, part[-1:].expand(ENCODE_BATCH - len(part), -1)])  # (16, T)
        read = _read(pipeline, padded.to(pipeline.device))
        if read is None:
            raise CellError("SAFREE needs a text encoder with a pooled embedding", "It fits backbones with CLIP's text model.")
        parts.append(read[: len(part)])
    return torch.cat(parts).float().cpu()


def _read(pipeline: Any, ids: Tensor) -> Tensor | None:
    """The encoders' pooled embeddings at the end of the text, (N, D); None where they have none."""
    if hasattr(pipeline, "tokenizer_2"):
        return _joint(pipeline, ids) if kind_of(pipeline).name == "sdxl" else None
    return getattr(pipeline.text_encoder(ids), "pooler_output", None)


def _joint(pipeline: Any, ids: Tensor) -> Tensor:
    """SDXL's prompt embedding at the end of the text (N, D1 + D2): both encoders' states before their last layer."""
    last = (ids == pipeline.tokenizer.eos_token_id).int().argmax(1)  # (N,)
    beyond = torch.arange(ids.shape[1], device=ids.device)[None] > last[:, None]  # (N, T)
    padded = torch.where(beyond, pipeline.tokenizer_2.pad_token_id, ids)
    pairs = ((pipeline.text_encoder, ids), (pipeline.text_encoder_2, padded))
    # (N, T, D1), (N, T, D2)
    states = [encoder(encoder_ids, output_hidden_states=True).hidden_states[-2] for encoder, encoder_ids in pairs]
    return torch.cat(states, -1)[torch.arange(len(ids), device=ids.device), last]


def token_ids(pipeline: Any, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
    """Padded token ids (N, T), and the number of tokens between start and end of each text."""
    size = pipeline.tokenizer.model_max_length
    read = pipeline.tokenizer(list(texts), padding="max_length", max_length=size, truncation=True, return_tensors="pt")
    return read.input_ids, (read.attention_mask.sum(1) - 2).tolist()


@dataclass(frozen=True)
class Filtered:
    """A prompt after token projection."""

    safe: Tensor
    """(T, D): the original embedding with its trigger rows replaced."""
    triggers: int = 0
    beta: float = 0.0
    """1 - mean cosine of token embeddings and their projections."""


def project(pipeline: Any, text: str, embedding: Tensor, concept: Tensor, options: Options) -> Filtered:
    """Replace the trigger rows of a prompt's embedding (T, D) by (I - P_C) P_M e (2410.12761, sections 3.1 to 3.3).

    P_C projects onto `concept` (D, r), P_M onto the span of the pooled embeddings of the prompt with one token masked each.
    A prompt is encoded in batches of its own, so other prompts do not change it. An empty one stays as it is.
    """
    ids, (count,) = token_ids(pipeline, [text])
    if count == 0:
        return Filtered(embedding)
    masked = ids.repeat(count, 1)  # (n, T)
    masked[torch.arange(count), torch.arange(count) + 1] = options.mask_id
    means = pooled(pipeline, masked).double()  # (n, D), m_i
    hit = triggers(off(means, concept).norm(dim=1), options.alpha)  # (n,)
    rows = embedding.double().cpu()  # (T, D): start of text, e_i, end of text, padding
    projected = off(onto(rows, span(means)), concept)  # (T, D)
    replaced = torch.full((len(rows),), options.tokens == "all")  # (T,)
    replaced[0], replaced[1 : count + 1] = False, hit
    safe = torch.where(replaced[:, None], projected.to(embedding), embedding)
    read = slice(0, count + 2) if options.beta_over == "text" else slice(1, count + 1)
    beta = 1 - cosine_similarity(rows[read], projected[read], dim=1).mean().item()
    return Filtered(safe, int(hit.sum()), beta)


# --- latent re-attention -----------------------------------------------------------------------------------------------------


def low_frequencies(height: int, width: int, radius: int) -> Tensor:
    """Which coefficients of a 2-D FFT (h, w) are low, zero frequency first: FreeU's window, as in diffusers'
    utils/torch_utils.py, `fourier_filter`."""
    low = torch.zeros(height, width, dtype=torch.bool)
    y, x = height // 2, width // 2
    low[max(y - radius, 0) : y + radius, max(x - radius, 0) : x + radius] = True
    return torch.fft.ifftshift(low)


def attenuate(safe: Tensor, original: Tensor, scale: float, radius: int, acting: Tensor) -> tuple[Tensor, Tensor, int]:
    """Scale the low frequencies of `safe` (B, C, h, w) that exceed those of `original`, where `acting` (B,).

    Returns the filtered features, how many coefficients were scaled per image (B,), and how many are low (2410.12761,
    section 3.4). The transform is taken in float32; like FreeU's it keeps the inverse's real part.
    """
    low = low_frequencies(safe.shape[-2], safe.shape[-1], radius).to(safe.device)  # (h, w)
    f, g = torch.fft.fft2(safe.float()), torch.fft.fft2(original.float())  # (B, C, h, w) complex
    acts = acting[:, None, None, None]
    hit = low & (f.abs() > g.abs()) & acts  # (B, C, h, w)
    filtered = torch.fft.ifft2(torch.where(hit, scale * f, f)).real.to(safe.dtype)
    # Where nothing acts the features stay as they are, bit for bit.
    return torch.where(acts, filtered, safe), hit.flatten(1).sum(1), int(low.sum()) * safe.shape[1]


def scaled_blocks(unet: Any, options: Options) -> list[tuple[Any, float]]:
    """Up blocks and their scale: s1 where they have the most channels, s2 where the next fewer. Raises `CellError`
    where there are no up blocks."""
    blocks = getattr(unet, "up_blocks", None)
    if not blocks:
        raise CellError("latent re-attention needs a U-Net with up blocks", "Switch it off: --set safree.reattend=false")
    widths = list(reversed(unet.config.block_out_channels))
    # Not strict: two scales are published, and a U-Net has as many widths as it likes.
    scale = dict(zip(sorted(set(widths), reverse=True), (options.s1, options.s2), strict=False))
    return [(block, scale[width]) for block, width in zip(blocks, widths, strict=True) if width in scale]


# --- the method --------------------------------------------------------------------------------------------------------------


class Guard(base.Applied):
    """Safe embeddings, hooks on the denoiser and its up blocks, and all state of one call. B images, T tokens of width D."""

    hooked = True

    def __init__(self, pipeline: Any, tensors: dict[str, Tensor], options: Options, call: base.Call) -> None:
        self.pipeline, self.tensors, self.options, self.call = pipeline, tensors, options, call
        self.calls = 0
        self.filtered: list[Filtered] = []
        self.safe = torch.empty(0)  # (B, T, D)
        self.last = torch.empty(0)  # (B,) last step with the safe embedding; none where it is -1
        self.differs = torch.empty(0)  # (B,) whether the safe embedding is another one
        self.acting = torch.empty(0)  # (B,) whether it is in force now, and another one
        self.records: list[tuple[Tensor, Tensor]] = []
        self.scaled: Tensor | int = 0  # (B,) coefficients scaled
        self.low = 0
        """Low coefficients seen per image."""

    def prompts(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Make the safe embeddings, which the hook puts in place step by step. `negative` changes with the option alone."""
        texts = self.call.prompts
        if len(texts) != len(positive):
            raise CellError(f"safree got {len(texts)} texts for {len(positive)} prompts", "It reads tokens: fill Call.prompts.")
        by_text = {text: self._filter(text, positive[texts.index(text)]) for text in dict.fromkeys(texts)}
        self.filtered = [by_text[text] for text in texts]
        self.safe = torch.stack([f.safe for f in self.filtered])  # (B, T, D)
        self.last = torch.tensor([self._last(f.beta) for f in self.filtered], device=positive.device)
        self.differs = (self.safe != positive).flatten(1).any(1)
        return positive, self.tensors["negative"].to(negative).expand_as(negative) if self.options.negative else negative

    def conditioning(self, positive: Conditioning, negative: Conditioning) -> tuple[Conditioning, Conditioning]:
        """Both sides; with the phrases as negative prompt their pooled embedding too, where the pipeline reads one."""
        ours, theirs = super().conditioning(positive, negative)
        pooled = self.tensors.get("pooled")
        if pooled is None or theirs.pooled is None:
            return ours, theirs
        return ours, replace(theirs, pooled=pooled.to(theirs.pooled).expand_as(theirs.pooled))

    def _filter(self, text: str, embedding: Tensor) -> Filtered:
        if not self.options.project:
            return Filtered(embedding)
        if embedding.shape[-1] != self.tensors["concept"].shape[-1]:
            raise CellError("SAFREE needs prompt and pooled embeddings of one width", "It fits backbones with CLIP's text model.")
        return project(self.pipeline, text, embedding, span(self.tensors["concept"]), self.options)

    def _last(self, beta: float) -> float:
        if not self.options.project:
            return -1.0
        return float(safe_until(beta, self.options, self.call.steps)) if self.options.self_validate else math.inf

    def before(self, denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> guidance.Arguments:
        """The safe embedding in the positive half; with re-attention the original one as a further branch."""
        if not self.filtered:
            raise CellError("SAFREE's embeddings were not made before sampling", "Call its prompts() first.")
        prompt = argument(args, kwargs, PROMPT)
        guidance.check_batch("safree", self.call, argument(args, kwargs, LATENTS), prompt)
        in_force = self.calls <= self.last  # (B,)
        self.acting = in_force & self.differs
        self.calls += 1
        self.records.append((in_force, self.acting))
        rest, original = prompt[: -self.call.images], prompt[-self.call.images :]  # (B or 0, T, D), (B, T, D)
        used = torch.where(self.acting[:, None, None], self.safe.to(prompt), original)
        args, kwargs = with_argument(args, kwargs, PROMPT, torch.cat([rest, used]))
        return guidance.widened(args, kwargs, self.call, original) if self.options.reattend else (args, kwargs)

    def at(self, scale: float) -> Callable[..., guidance.Arguments]:
        """A pre-hook for an up block: the safe branch's skip features are attenuated, the others stay."""

        def hook(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> guidance.Arguments:
            skips = argument(args, kwargs, SKIPS)
            return with_argument(args, kwargs, SKIPS, tuple(self._reattended(skip, scale) for skip in skips))

        return hook

    def _reattended(self, skip: Tensor, scale: float) -> Tensor:
        """Of [negative; safe; original] or [safe; original], each (B, C, h, w), the safe part filtered."""
        count = self.call.images
        rest, safe, original = skip[: -2 * count], skip[-2 * count : -count], skip[-count:]
        filtered, scaled, low = attenuate(safe, original, scale, self.options.radius, self.acting)
        self.scaled, self.low = self.scaled + scaled, self.low + low
        return torch.cat([rest, filtered, original])

    def after(self, denoiser: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Without the original prompt's branch."""
        return guidance.with_prediction(output, guidance.prediction(output)[: -self.call.images])

    def trace(self) -> list[dict[str, Any]]:
        """Per image: trigger tokens, beta, steps with the safe embedding and those among them where it is another than the
        original, and the share of low-frequency coefficients scaled, mean over the steps."""
        if not self.records:
            return [{} for _ in range(self.call.images)]
        safe, acted = (torch.stack(column).sum(0).tolist() for column in zip(*self.records, strict=True))
        shares = (self.scaled / self.low).tolist() if isinstance(self.scaled, Tensor) else [0.0] * self.call.images
        return [
            {
                "trigger_tokens": f.triggers,
                "beta": round(f.beta, 4),
                "safe_steps": safe[i],
                "redirected_steps": acted[i],
                "reattended": round(shares[i], 4),
            }
            for i, f in enumerate(self.filtered)
        ]


def concept_rows(backbone: base.BackboneInfo, concept: ConceptSpec, options: Options) -> tuple[Tensor, list[str]]:
    """Pooled embeddings (n, D) float32 of the concept's phrases, and the phrases."""
    listed = [part.strip() for part in (options.text or "").split(",") if part.strip()]
    texts = [guidance.check_text(phrase) for phrase in listed or phrases(concept, backbone.family)]
    return pooled(backbone.pipeline, token_ids(backbone.pipeline, texts)[0]), texts


def _negative(pipeline: Any, told: Sequence[str], options: Options) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The phrases as negative prompt, as far as one text holds them: (1, T, D), and (1, P) where the pipeline reads a pooled
    embedding; and the card's part on it."""
    if not options.negative:
        return {}, {}
    fit, _ = guidance.fitting(pipeline, told)
    encoded = guidance.conditioning(pipeline, ", ".join(fit))
    return {"negative": encoded.embeds} | ({} if encoded.pooled is None else {"pooled": encoded.pooled}), {"negative": fit}


def _check(options: Options, pipeline: Any) -> None:
    if options.concept == "inversion" and options.negative:
        raise UsageError("an inversion has no text for a negative prompt", "Leave out safree.negative or safree.concept.")
    if options.mask_id == pipeline.tokenizer.eos_token_id:
        raise UsageError("safree.mask_id is the end of the text, where pooled embeddings are read", "Take another id.")


@base.method(METHOD)
class SafreeMethod:
    """Filters prompts while sampling."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any) -> base.Artifact:
        """Pooled embeddings of the concept's phrases, or its inversion; with `negative` the phrases' prompt embedding.

        Raises `CellError` without a pooled embedding, `UsageError` for options that contradict each other or a family
        without words, and as `guidance.inverted` and `guidance.embedding` do.
        """
        began = time.perf_counter()
        _check(options, backbone.pipeline)
        if options.concept == "inversion":
            inversion = guidance.inverted(backbone, concept, options.inversion)
            tensors = {"concept": inversion.pooled(backbone.pipeline)}  # (1, D)
            return guidance.artifact_of(backbone, tensors, inversion.sha256, began, inversion.seconds, inversion.card())
        rows, told = concept_rows(backbone, concept, options)
        negative, card = _negative(backbone.pipeline, told, options)
        return guidance.artifact_of(
            backbone, {"concept": rows} | negative, ", ".join(told), began, card={"phrases": told} | card
        )

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[Guard]:
        """Hooks on the denoiser and, with re-attention, on its up blocks; nothing of them is left afterwards.

        Raises `CellError` without guidance where the phrases are a negative prompt.
        """
        if options.negative:
            guidance.require_guidance("safree.negative", call)
        target, guard = base.denoiser(pipeline), Guard(pipeline, artifact.payload, options, call)
        blocks = scaled_blocks(target, options) if options.reattend else []
        handles = [target.register_forward_pre_hook(guard.before, with_kwargs=True)]
        handles += [block.register_forward_pre_hook(guard.at(scale), with_kwargs=True) for block, scale in blocks]
        handles += [target.register_forward_hook(guard.after)] if options.reattend else []
        with base.hooks(*handles):
            yield guard
