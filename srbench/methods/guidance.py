"""What guidance methods share: the layout of a denoiser batch, its arguments and output, and a concept's text as tensors."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from srbench.backbones.pipelines import Conditioning, kind_of
from srbench.catalog import screen
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError
from srbench.methods import base

if TYPE_CHECKING:
    from srbench.methods.inversion import Inversion

ENCODE_BATCH = 16
"""Texts are encoded in batches of this one shape, the sampler's: a text's embedding is then the same wherever it is made."""
FITTED_STEPS = 50
"""The papers fitted their step counts to this many sampling steps."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Slot(NamedTuple):
    """Where a module takes an argument: its place, or its name."""

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
    """Refuse a call without guidance for what acts through guidance alone."""
    if not call.guided:
        raise CellError(f"{what} acts through guidance, and there is none at guidance <= 1", "Take a guidance above 1.")


OF_TEXT = {"text_embeds": "pooled", "pooled_projections": "pooled", "encoder_attention_mask": "mask"}
"""What SDXL, SD3 and PixArt are given of a text beside its embedding -> the field of its conditioning."""
OF_PICTURE = ("time_ids", "resolution", "aspect_ratio")
"""What SDXL and PixArt are given of the picture's size."""
INSIDE = "added_cond_kwargs"
"""The argument in which SDXL and PixArt put some of these."""


def widened(args: tuple[Any, ...], kwargs: dict[str, Any], call: base.Call, branch: Conditioning | Tensor) -> Arguments:
    """The call with one more branch at the end: the positive half's latents under another text's conditioning of one text or of
    B, or under other embeddings (B, T, D) of the same text.

    Raises `CellError` where the denoiser is given other tensors, which would have to be widened too.
    """
    embeds = branch if isinstance(branch, Tensor) else branch.embeds
    text = None if isinstance(branch, Tensor) else branch
    latents, t, prompt = (argument(args, kwargs, slot) for slot in (LATENTS, TIMESTEP, PROMPT))
    new = with_argument(args, _with_company(args, kwargs, call, text), LATENTS, _longer(latents, latents[-call.images :]))
    if isinstance(t, Tensor) and t.ndim and len(t) == len(latents):  # else one timestep serves the whole batch
        new = with_argument(*new, TIMESTEP, _longer(t, t[-call.images :]))  # (3B,)
    return with_argument(*new, PROMPT, _longer(prompt, embeds.expand(call.images, *prompt.shape[1:])))  # (3B, T, D)


def _longer(value: Tensor, more: Tensor) -> Tensor:
    """A batch (2B, ...) with one more branch (B, ...)."""
    return torch.cat([value, more.to(value)])


def _with_company(
    args: tuple[Any, ...], kwargs: dict[str, Any], call: base.Call, text: Conditioning | None
) -> dict[str, Any]:
    """The keyword arguments with every tensor widened that belongs to the text or the picture."""
    known = {name for slot in (LATENTS, TIMESTEP, PROMPT) for name in slot.names}
    found, others = dict(kwargs), ["a further positional argument"] * any(map(_holds_tensor, args[3:]))
    for name, value in kwargs.items():
        if name in known or not _holds_tensor(value):
            continue
        wide = _all_wide(value, call, text) if name == INSIDE else _wide(name, value, call, text)
        others += [name] if wide is None else []
        found[name] = wide
    if others:
        raise CellError(
            f"the denoiser is also given {', '.join(others)}, which the method can not widen",
            "The method does not fit this pipeline with these options.",
        )
    return found


def _all_wide(values: dict[str, Any], call: base.Call, text: Conditioning | None) -> dict[str, Any] | None:
    wide = {name: _wide(name, value, call, text) if _holds_tensor(value) else value for name, value in values.items()}
    return None if any(wide[name] is None for name, value in values.items() if _holds_tensor(value)) else wide


def _wide(name: str, value: Any, call: base.Call, text: Conditioning | None) -> Tensor | None:
    """A tensor (2B, ...) with one more branch; None where it is not known what that would be."""
    if not isinstance(value, Tensor) or name not in (*OF_TEXT, *OF_PICTURE):
        return None
    if text is None or name in OF_PICTURE:
        return _longer(value, value[-call.images :])
    own = getattr(text, OF_TEXT[name])
    return None if own is None else _longer(value, own.expand(call.images, *value.shape[1:]))


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


@torch.no_grad()
def embedding(pipeline: Any, text: str) -> Tensor:
    """Prompt embedding (1, T, D) of a concept's text, as the sampler would encode it.

    Raises `UsageError` as `check_text` does, and `CellError` where the encoder can not read all of it.
    """
    return conditioning(pipeline, text).embeds


@torch.no_grad()
def conditioning(pipeline: Any, text: str) -> Conditioning:
    """All that a text is for the pipeline, of one image. Raises as `embedding` does."""
    length, limit = len(pipeline.tokenizer(check_text(text)).input_ids), pipeline.tokenizer.model_max_length
    if length > limit:
        raise CellError(
            f"the concept's text has {length} tokens and the text encoder reads {limit}", "Give a shorter one: option 'text'."
        )
    return kind_of(pipeline).encode(pipeline, [text] * ENCODE_BATCH, None, True).mapped(lambda value: value[:1].clone())


def inverted(backbone: base.BackboneInfo, concept: ConceptSpec, given: str | None) -> Inversion:
    """The concept inversion of 2511.04834, a vector (1, D). Raises as `inversion.load` does, and `CellError` for a foreign
    width."""
    from srbench.methods.inversion import load  # with the presets `+ci` alone

    if kind_of(backbone.pipeline).name != "sd":
        hint = "Take the preset without +ci."
        raise UsageError("a concept inversion stands for the text of Stable Diffusion's one encoder, which is not there", hint)
    found = load(backbone, concept, given)
    width = backbone.pipeline.text_encoder.config.hidden_size
    if found.vector.shape != (1, width):
        raise CellError(f"the inversion has shape {tuple(found.vector.shape)}, not (1, {width})", "Learn one on this backbone.")
    return found


def held(
    backbone: base.BackboneInfo, tensors: dict[str, Tensor], made_from: str, began: float, learned: float = 0.0
) -> base.Artifact:
    """An artifact of tensors that follow from a text, or from an inversion, on the backbone as it is.

    It is identified by what it was made from, not by its bytes: those differ in the last bits from machine to machine.
    began: when its making began (`perf_counter`). learned: seconds that a cached part of it took when it was made.
    """
    sources = "\0".join((made_from, backbone.sha256, backbone.checkpoint_sha))
    count = sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point())
    seconds = max(time.perf_counter() - began, learned)
    return base.Artifact(tensors, hashlib.sha256(sources.encode()).hexdigest(), count, seconds)
