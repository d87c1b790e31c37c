"""Tensor names in external checkpoints: wrappers and prefixes that programs add, and old spellings.

A prefix is removed only where every name has it and every name that is left belongs to the backbone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srbench.errors import UsageError
from srbench.files import printable

State = dict[str, Tensor]

PREFIXES = ("module.", "_orig_mod.", "unet.", "transformer.", "text_encoder.", "model.diffusion_model.", "model.")
"""What DataParallel, torch.compile, Lightning and whole pipelines put before every name."""
WRAPPERS = ("state_dict", "unet", "model")
"""Keys under which training scripts wrap a state dict."""
LDM = "model.diffusion_model."
"""Prefix of the U-Net's names in CompVis checkpoints."""
TEXT_MODEL = "text_model."
"""Prefix that CLIPTextModel's names have in some versions of transformers."""
OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Names of the VAE's attention before diffusers 0.15 (modeling_utils.py, `_convert_deprecated_attention_blocks`)."""
MOST_PREFIXES = 6
"""Prefixes that are removed one after the other, at most."""


# --- wrappers ---------------------------------------------------------------------------------------------------------------


def unwrapped(read: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The state dict inside one wrapper of a known name. Raises `UsageError` for others, and where there are several."""
    if any(isinstance(value, Tensor) and isinstance(key, str) for key, value in read.items()):
        return read
    inside = [name for key, value in read.items() for name in _states(str(key), value)]
    if not inside:
        return read
    if len(inside) > 1 or inside[0] not in WRAPPERS:
        keys = printable(", ".join(inside[:5]))[:200]
        hint = f"srbench unwraps one of {', '.join(WRAPPERS)}, and one level."
        raise UsageError(f"{path}: holds state dicts under {keys}", hint)
    return read[inside[0]]


def _states(name: str, value: Any, levels: int = 3) -> list[str]:
    """Keys of the state dicts inside a value, with dots between levels."""
    if not isinstance(value, Mapping) or not levels:
        return []
    if any(isinstance(key, str) and isinstance(inner, Tensor) for key, inner in value.items()):
        return [name]
    return [place for key, inner in value.items() for place in _states(f"{name}.{key}", inner, levels - 1)]


# --- prefixes ---------------------------------------------------------------------------------------------------------------


def bare(original: State, base: State) -> State:
    """`original` without prefixes that every name has, if every name then belongs to the backbone (`base`); else unchanged."""
    state = original
    for _ in range(MOST_PREFIXES):
        if fits(state, base) or is_ldm(state):
            return state
        prefix = next((choice for choice in PREFIXES if state and all(name.startswith(choice) for name in state)), None)
        if prefix is None:
            return original
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state if fits(state, base) or is_ldm(state) else original


def fits(state: State, base: State) -> bool:
    """Whether every name belongs to the backbone, in one of the known spellings."""
    return bool(state) and bool(base) and fitted(state, base).keys() <= base.keys()


def is_ldm(names: Iterable[str]) -> bool:
    """Whether there are names of a CompVis U-Net."""
    return any(name.startswith((LDM + "input_blocks.", LDM + "out.", "input_blocks.")) for name in names)


def twice_named(path: Path, state: State, base: State) -> State | None:
    """The one copy of a component in a file that holds the same tensors under several names, else None.

    Trainers that wrap an encoder save it as a submodule, and its own submodules once more beside it. The copy must be whole,
    and every other tensor must equal one of its tensors bit for bit.
    """
    heads = sorted({name[: name.index(part)] + part for name in state for part in PREFIXES if part in name}, key=len)
    for head in heads:
        inside = {name.removeprefix(head): value for name, value in state.items() if name.startswith(head)}
        copy = fitted(inside, base)
        beside = {name: value for name, value in state.items() if not name.startswith(head)}
        if beside and copy.keys() == base.keys():
            _refuse_other_copies(path, inside, beside)
            if _all_known(beside, copy):
                return copy
    return None


def _refuse_other_copies(path: Path, inside: State, beside: State) -> None:
    """Raises `UsageError` where a tensor of one name differs between the two copies."""
    for name, value in beside.items():
        twin = next((tensor for full_name, tensor in inside.items() if full_name == name or full_name.endswith(f".{name}")), None)
        if twin is not None and value.shape == twin.shape and _print(value) != _print(twin):
            raise UsageError(f"{path}: two copies of one component, whose '{printable(name)}' differ", "Save the right one.")


def _all_known(state: State, copy: State) -> bool:
    prints = {_print(value) for value in copy.values()}
    return all(is_position_buffer(name, value) or _print(value) in prints for name, value in state.items())


def _print(value: Tensor) -> tuple[tuple[int, ...], str, str]:
    raw = value.detach().cpu().contiguous().view(torch.uint8) if value.ndim else value.detach().cpu().reshape(1).view(torch.uint8)
    return tuple(value.shape), str(value.dtype), hashlib.sha256(raw.numpy().tobytes()).hexdigest()


# --- spellings --------------------------------------------------------------------------------------------------------------


def fitted(state: State, base: State) -> State:
    """`state` under the backbone's names (`base`), if one known difference between library versions explains all of them."""
    plain = {n: v for n, v in state.items() if n in base or not is_position_buffer(n, v)}
    for rename in (_same, prefixed, _attention):
        renamed = {rename(base, name): value for name, value in plain.items()}
        if len(renamed) == len(plain) and renamed.keys() <= base.keys():
            return renamed | _ties(renamed, base)
    return plain


def _same(base: State, name: str) -> str:
    return name


def prefixed(base: Iterable[str], name: str) -> str:
    """The name with or without `text_model.`, whichever the backbone has."""
    choices = (name, name.removeprefix(TEXT_MODEL), TEXT_MODEL + name)
    return next((choice for choice in choices if choice in base), name)


def _attention(base: State, name: str) -> str:
    for old, new in OLD_ATTENTION.items():
        name = name if name in base else name.replace(old, new)
    return name


def is_position_buffer(name: str, value: Tensor) -> bool:
    """transformers before 4.31 stored 0, 1, 2, ... as `position_ids`; that is no weight, and now nowhere in a state dict."""
    if not name.endswith("position_ids") or value.is_floating_point():
        return False
    return torch.equal(value.flatten(), torch.arange(value.numel(), dtype=value.dtype))


def _ties(state: State, base: State) -> State:
    """Second names of tensors that a file stores once (T5's `shared` and `embed_tokens`)."""
    homes = {base[name].data_ptr(): name for name in state if base[name].numel()}
    twins = {name: homes.get(base[name].data_ptr()) for name in base if name not in state}
    return {name: state[twin] for name, twin in twins.items() if twin is not None and base[twin].shape == base[name].shape}


# --- what else it may be ----------------------------------------------------------------------------------------------------


FOREIGN = {
    "hada_w1": "a LoHa", "lokr_w": "a LoKr", "oft_": "an OFT", "ia3_l": "an IA3", "on_input": "an IA3", "glora": "a GLoRA",
    "custom_diffusion": "Custom Diffusion's matrices", "emb_params": "a textual inversion's embedding",
    "string_to_param": "a textual inversion's embedding", "controlnet_": "a ControlNet", "control_model.": "a ControlNet",
    "vision_model.": "a CLIP with its picture side", "first_stage_model.": "a whole CompVis model",
}  # fmt: skip
"""Part of a tensor's name -> what such a file is; srbench reads none of them."""
WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
"""Width of the text embeddings that a U-Net reads -> its model."""


def foreign_kind(names: Iterable[str]) -> str:
    """What a file is by its tensor names, if it is of a kind that srbench does not read; else empty."""
    return next((what for name in names for part, what in FOREIGN.items() if part in name), "")


def made_for(state: Mapping[str, Tensor]) -> str:
    """For a hint: the width of the text embeddings that these tensors read, and its model; else empty."""
    for name, value in state.items():
        down = ("lora_A", "lora_down", "lora.down", "_lora.down")
        if "attn2" in name and "to_k" in name and value.ndim == 2 and ("lora" not in name or any(part in name for part in down)):
            width = value.shape[1]
            whose = f", as {WIDTHS[width]}'s are" if width in WIDTHS else ""
            return f" Its texts are {width} wide{whose}."
    return ""
