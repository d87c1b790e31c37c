"""Shared by the guidance methods: a denoiser batch's layout, its arguments and output, and a concept's text as tensors."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from srbench.backbones.pipelines import Conditioning, kind_of
from srbench.catalog import screen
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError
from srbench.methods import base, phrases

if TYPE_CHECKING:
    from srbench.methods.inversion import Inversion

ENCODE_BATCH = 16
"""Texts are encoded in batches of this one shape, the sampler's: a text's embedding is then the same wherever it is made."""
FITTED_STEPS = 50
"""The papers fitted their step counts to this many sampling steps."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Slot(NamedTuple):
    """The position and the names of a module's argument."""

    place: int
    names: tuple[str, ...]


LATENTS = Slot(0, ("sample", "hidden_states"))
TIMESTEP = Slot(1, ("timestep",))
PROMPT = Slot(2, ("encoder_hidden_states",))


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], slot: Slot) -> Any:
    """The argument of a call. Raises `CellError` where it is not there."""
    for name in slot.names:
        if name in kwargs:
            return kwargs[name]
    if slot.place >= len(args):
        raise CellError(f"the denoiser was called without '{slot.names[-1]}'", "The method does not fit this pipeline.")
    return args[slot.place]


def with_argument(args: tuple[Any, ...], kwargs: dict[str, Any], slot: Slot, value: Any) -> Arguments:
    """The same call with another value for one argument."""
    for name in slot.names:
        if name in kwargs:
            return args, {**kwargs, name: value}
    return (*args[: slot.place], value, *args[slot.place + 1 :]), kwargs


def check_batch(method: str, call: base.Call, latents: Tensor, prompt: Tensor) -> None:
    """Refuse a batch that is neither [negative; positive] of the call's images nor its images alone."""
    expected = call.images * (2 if call.doubled else 1)
    if len(latents) != expected or len(prompt) != expected:
        raise CellError(
            f"{method} expects a denoiser batch of {expected}, not {len(latents)} latents with {len(prompt)} prompts",
            "It knows guidance as [negative; positive] and no guidance; nothing else.",
        )


def require_guidance(what: str, call: base.Call) -> None:
    """Raises `CellError` for a call without guidance. what: the method, for the message."""
    if not call.guided:
        raise CellError(f"{what} acts through guidance, and there is none at guidance <= 1", "Take a guidance above 1.")


OF_TEXT = {"text_embeds": "pooled", "pooled_projections": "pooled", "encoder_attention_mask": "mask"}
"""Arguments of SDXL, SD3 and PixArt about a text, beside its embedding -> field of `Conditioning`."""
OF_PICTURE = ("time_ids", "resolution", "aspect_ratio")
"""Arguments of SDXL and PixArt about the image's size."""
INSIDE = "added_cond_kwargs"
"""The argument in which SDXL and PixArt put some of these."""


def widened(args: tuple[Any, ...], kwargs: dict[str, Any], call: base.Call, branch: Conditioning | Tensor) -> Arguments:
    """The call with one more branch at the end of the batch: the positive half's latents under `branch`.

    branch: another text's conditioning, of one text or of B, or other embeddings (B, T, D) of the same text. Raises `CellError`
    where the denoiser gets further tensors, which would have to be widened too.
    """
    embeds = branch if isinstance(branch, Tensor) else branch.embeds
    text = None if isinstance(branch, Tensor) else branch
    latents, t, prompt = (argument(args, kwargs, slot) for slot in (LATENTS, TIMESTEP, PROMPT))
    new = with_argument(args, _widened_keywords(args, kwargs, call, text), LATENTS, _longer(latents, latents[-call.images :]))
    if isinstance(t, Tensor) and t.ndim and len(t) == len(latents):  # else one timestep serves the whole batch
        new = with_argument(*new, TIMESTEP, _longer(t, t[-call.images :]))  # (3B,)
    return with_argument(*new, PROMPT, _longer(prompt, embeds.expand(call.images, *prompt.shape[1:])))  # (3B, T, D)


def _longer(value: Tensor, more: Tensor) -> Tensor:
    """A batch (2B, ...) with one more branch (B, ...)."""
    return torch.cat([value, more.to(value)])


def _widened_keywords(
    args: tuple[Any, ...], kwargs: dict[str, Any], call: base.Call, text: Conditioning | None
) -> dict[str, Any]:
    """The keyword arguments with every tensor of the text or the image widened."""
    handled = {name for slot in (LATENTS, TIMESTEP, PROMPT) for name in slot.names}
    wider, others = dict(kwargs), ["a further positional argument"] * any(map(_holds_tensor, args[3:]))
    for name, value in kwargs.items():
        if name in handled or not _holds_tensor(value):
            continue
        wide = _all_wide(value, call, text) if name == INSIDE else _wide(name, value, call, text)
        others += [name] if wide is None else []
        wider[name] = wide
    if others:
        raise CellError(
            f"the denoiser is also given {', '.join(others)}, which the method can not widen",
            "The method does not fit this pipeline with these options.",
        )
    return wider


def _all_wide(values: dict[str, Any], call: base.Call, text: Conditioning | None) -> dict[str, Any] | None:
    wide = {name: _wide(name, value, call, text) if _holds_tensor(value) else value for name, value in values.items()}
    return None if any(wide[name] is None for name, value in values.items() if _holds_tensor(value)) else wide


def _wide(name: str, value: Any, call: base.Call, text: Conditioning | None) -> Tensor | None:
    """A tensor (2B, ...) with one more branch; None where the branch's values are not known."""
    if not isinstance(value, Tensor) or name not in (*OF_TEXT, *OF_PICTURE):
        return None
    if text is None or name in OF_PICTURE:
        return _longer(value, value[-call.images :])
    more = getattr(text, OF_TEXT[name])
    return None if more is None else _longer(value, more.expand(call.images, *value.shape[1:]))


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_tensor, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_tensor, value))
    return isinstance(value, Tensor)


def prediction(output: Any) -> Tensor:
    """The denoiser's prediction, (batch, C, h, w), from a tuple (`return_dict=False`) or from `.sample`."""
    return output[0] if isinstance(output, tuple) else output.sample


def with_prediction(output: Any, value: Tensor) -> Any:
    """The same kind of output with another prediction."""
    if isinstance(output, tuple):
        return (value, *output[1:])
    return dataclasses.replace(output, sample=value)


def scaled_steps(count: float, steps: int, how: str) -> float:
    """A number of steps that was fitted to 50, for a call of `steps`; `absolute` leaves it as it is. Not rounded."""
    return count if how == "absolute" else count * steps / FITTED_STEPS


def check_text(text: str) -> str:
    """`text`, which is about to be encoded. Raises `UsageError` where it names a minor (design section 8).

    A method does not know whether its run is sensitive, so this holds for every concept.
    """
    if screen.names_minor(text):
        raise UsageError("a concept's text names minors and is not encoded", "Take that word out of the concept or the option.")
    return text


def fitting(pipeline: Any, texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """As many texts, from the first, as the encoder reads in one text with commas between them; and those left out."""
    tokenizer, limit = pipeline.tokenizer, pipeline.tokenizer.model_max_length
    joined = [", ".join(texts[:count]) for count in range(1, len(texts) + 1)]
    read = tokenizer(joined, truncation=True, max_length=limit + 1).input_ids  # uncut, the library warns of longer ones
    count = max(1, sum(len(ids) <= limit for ids in read))
    return list(texts[:count]), list(texts[count:])


def told(pipeline: Any, concept: ConceptSpec, family: str, text: str | None) -> tuple[str, dict[str, Any]]:
    """A concept as one text, and the card's part on what the method was told.

    text: the user's own, which is taken whole. Raises `UsageError` without words for the family.
    """
    if text is not None:
        return text, {"phrases": [text]}
    fit, left_out = fitting(pipeline, phrases.phrases(concept, family))
    return ", ".join(fit), {"phrases": fit} | ({"left_out": left_out} if left_out else {})


@torch.no_grad()
def embedding(pipeline: Any, text: str) -> Tensor:
    """Prompt embedding (1, T, D) of a concept's text, as the sampler would encode it.

    Raises `UsageError` as `check_text` does, and `CellError` where the encoder can not read all of it.
    """
    return conditioning(pipeline, text).embeds


@torch.no_grad()
def conditioning(pipeline: Any, text: str) -> Conditioning:
    """A text's whole conditioning, for one image. Raises as `embedding` does."""
    length, limit = len(pipeline.tokenizer(check_text(text)).input_ids), pipeline.tokenizer.model_max_length
    if length > limit:
        raise CellError(
            f"the concept's text has {length} tokens and the text encoder reads {limit}", "Give a shorter one: option 'text'."
        )
    return kind_of(pipeline).encode(pipeline, [text] * ENCODE_BATCH, None, True).mapped(lambda value: value[:1].clone())


def inverted(backbone: base.BackboneInfo, concept: ConceptSpec, path: str | None) -> Inversion:
    """The concept inversion of 2511.04834, a vector (1, D) and its place.

    Raises as `inversion.load` does, and `CellError` for a foreign width.
    """
    from srbench.methods.inversion import load  # with the presets `+ci` alone

    if kind_of(backbone.pipeline).name != "sd":
        hint = "Take the preset without +ci."
        raise UsageError("a concept inversion stands for the text of Stable Diffusion's one encoder, which is not there", hint)
    inversion = load(backbone, concept, path)
    width = backbone.pipeline.text_encoder.config.hidden_size
    shape = tuple(inversion.vector.shape)
    if shape != (1, width):
        raise CellError(f"the inversion has shape {shape}, not (1, {width})", "Learn one on this backbone.")
    return inversion


def artifact_of(
    backbone: base.BackboneInfo, tensors: dict[str, Tensor], made_from: str, began: float, learned: float = 0.0,
    card: dict[str, Any] | None = None,
) -> base.Artifact:
    """An artifact of tensors made from a text or an inversion on the current backbone.

    It is identified by what it was made from, not by its bytes: those differ in the last bits from machine to machine.
    began: the start of the work (`perf_counter`). learned: seconds that a cached part took when it was learned. card: for people.
    """
    sources = "\0".join((made_from, backbone.sha256, backbone.checkpoint_sha))
    count = sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point())
    seconds = max(time.perf_counter() - began, learned)
    return base.Artifact(tensors, hashlib.sha256(sources.encode()).hexdigest(), count, seconds, card or {})
