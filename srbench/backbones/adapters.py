"""Published LoRAs: diffusers or peft fuses one in float32 into a copy of the pipeline; the changed tensors are the checkpoint."""

from __future__ import annotations

import copy
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srbench.backbones import folder, names, places
from srbench.backbones.folder import DENOISERS, ENCODERS
from srbench.backbones.weights import SAFETENSORS, first_line
from srbench.errors import UsageError
from srbench.files import printable

State = dict[str, Tensor]
ADAPTER = "srbench"
LORA_FILES = (places.LORA_FILE, "pytorch_lora_weights.bin")
PEFT_CONFIG = "adapter_config.json"
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
OTHER = "It belongs to another model."
FUSE = "Fuse it with peft, and give the U-Net."
_OLD = re.compile(r"(?:unet\.)?(.+)\.processor\.to_(q|k|v|out)_lora\.(down|up)\.weight")
"""diffusers up to 0.17, `save_attn_procs`."""
_HEADS = ("unet.", "transformer.", "text_encoder.", "text_encoder_2.", "lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
"""Prefixes of module names in LoRA files."""
MOST_RANK = 4096
_PEFT_PREFIX = "base_model.model."


def part(pipeline: Any, component: str) -> torch.nn.Module | None:
    """A component with weights, or None."""
    module = getattr(pipeline, component, None)
    return module if isinstance(module, torch.nn.Module) else None


def state_of(pipeline: Any, component: str) -> State:
    """State dict of a component; empty where the pipeline has none."""
    module = part(pipeline, component)
    return {} if module is None else module.state_dict()


def refuse_foreign(path: Path, state: State) -> None:
    """Raises `UsageError` for adapters of other kinds, by name."""
    what = names.foreign_kind(state)
    if what:
        raise UsageError(f"{path}: {what}, which srbench does not read", "Fuse it with what made it, and give the U-Net.")


# --- diffusers' -------------------------------------------------------------------------------------------------------------


def lora(path: Path, file: Path, state: State, form: str, pipeline: Any) -> dict[str, State]:
    """A LoRA under names that diffusers takes: component -> the tensors that it changes.

    path: the path as given, for messages; file: the file with the matrices. Raises `UsageError` with the name of a module
    that this backbone does not have.
    """
    refuse_foreign(file, state)
    old = _from_old(state)
    work = _float_copy(pipeline)
    _load_lora(work, file, old or state, from_file=form == SAFETENSORS and not old and file.suffix == ".safetensors")
    try:
        work.fuse_lora()
        work.unload_lora_weights()
    except Exception as error:  # peft raises of many kinds for matrices that do not fit
        raise UsageError(f"{file}: no LoRA for this backbone ({first_line(error)})", OTHER) from error
    return _all_changed(path, work, pipeline)


def _from_old(state: State) -> State:
    """The tensors of a LoRA from diffusers up to 0.17 under today's names; empty for other files."""
    matches = {name: _OLD.fullmatch(name) for name in state}
    if not matches or not all(matches.values()):
        return {}
    where = {"down": "lora_A", "up": "lora_B"}
    return {
        f"unet.{match[1]}.to_{match[2]}{'.0' if match[2] == 'out' else ''}.{where[match[3]]}.weight": state[name]
        for name, match in matches.items() if match
    }  # fmt: skip


def _float_copy(pipeline: Any) -> Any:
    """The same pipeline with copies in float32 of all that a LoRA may touch; the rest is shared."""
    work = copy.copy(pipeline)
    for component in (*DENOISERS, *ENCODERS):
        module = part(pipeline, component)
        if module is not None:
            setattr(work, component, copy.deepcopy(module).to("cpu", torch.float32))
    return work


def _load_lora(work: Any, file: Path, state: State, from_file: bool) -> None:
    """Load the LoRA into the copy. Raises `UsageError` where a matrix has no module there; diffusers only warns."""
    if any("dora" in name for name in state):
        raise UsageError(f"{file}: a DoRA, which diffusers reads without its scales", "Fuse it with peft, and give the U-Net.")
    # A safetensors header may hold the adapter's alpha, so diffusers reads that file itself; a pickle it never touches.
    source = str(file.parent) if from_file else state
    where = {"weight_name": file.name, "local_files_only": True} if from_file else {}
    try:
        work.load_lora_weights(source, adapter_name=ADAPTER, **where)
    except Exception as error:  # diffusers and peft raise of many kinds for names and shapes that do not fit
        hint = f"{OTHER}{names.made_for(state)}"
        raise UsageError(f"{file}: no LoRA for this backbone ({first_line(error)})", hint) from error
    expected = sum(not name.endswith("alpha") for name in state)
    loaded = sum(_is_matrix(name) for c in (*DENOISERS, *ENCODERS) for name in state_of(work, c))
    if loaded < expected:
        raise UsageError(
            f"{file}: {expected - loaded} of {expected} LoRA matrices are for modules that this backbone does not have"
            f"{_unfound(work, state)}",
            f"{OTHER}{names.made_for(state)}",
        )


def _is_matrix(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _unfound(work: Any, state: State) -> str:
    """One module of the file that got no matrices in the copy, in brackets; empty where none can be named."""
    matrices = [name for c in (*DENOISERS, *ENCODERS) for name in state_of(work, c) if _is_matrix(name)]
    spelled = {re.split(r"\.lora_[AB]\.", name)[0].replace(".", "_") for name in matrices}
    for name in state:
        module = re.split(r"\.lora_?[A-Za-z.]*|\.processor\.", name)[0]
        for head in _HEADS:
            module = module.removeprefix(head)
        if module.removeprefix("text_model.").replace(".", "_") not in spelled and module.replace(".", "_") not in spelled:
            return f" ({module[:100]}, ...)"
    return ""


def _all_changed(path: Path, work: Any, pipeline: Any) -> dict[str, State]:
    tensors = {c: _changed(work, pipeline, c) for c in (*DENOISERS, *ENCODERS) if part(pipeline, c) is not None}
    tensors = {component: changed for component, changed in tensors.items() if changed}
    if not tensors:
        raise UsageError(f"{path}: this checkpoint equals the backbone", "Its matrices are zero: train or fetch it again.")
    return tensors


def _changed(work: Any, pipeline: Any, component: str) -> State:
    before = state_of(pipeline, component)
    after = state_of(work, component)
    return {n: v for n, v in after.items() if not torch.equal(v, before[n].to("cpu", torch.float32).to(v.dtype))}


# --- peft's -----------------------------------------------------------------------------------------------------------------

_READ = (
    "r", "lora_alpha", "target_modules", "fan_in_fan_out", "use_rslora", "rank_pattern", "alpha_pattern", "use_dora",
    "layers_to_transform", "layers_pattern", "exclude_modules",
)  # fmt: skip
"""Entries of `adapter_config.json` that decide what the matrices do."""
_WITHOUT_EFFECT = (
    "peft_type", "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version",
    "lora_dropout", "megatron_core", "init_lora_weights", "modules_to_save",
)  # fmt: skip
"""Entries that do not change what stored matrices do, or that are checked below."""
_STARTS_ELSEWHERE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of `init_lora_weights` that change the backbone's own weights."""


def is_peft(path: Path, state: State) -> bool:
    """Whether a file's names are those that peft's `save_pretrained` writes."""
    return path.name in PEFT_FILES or any(name.startswith(_PEFT_PREFIX) for name in state)


def peft_file(path: Path) -> Path:
    """The file of matrices in a folder of peft's. Raises `UsageError` where there is none."""
    file = next((path / name for name in PEFT_FILES if (path / name).is_file()), None)
    if file is None:
        raise UsageError(f"{path}: {PEFT_FILES[0]} is missing beside {PEFT_CONFIG}", "Fetch the adapter again.")
    return file


def peft(path: Path, file: Path, state: State, pipeline: Any) -> dict[str, State]:
    """An adapter that peft saved, fused by peft into the one component that has all of its modules.

    Raises `UsageError` for other adapters than LoRA, and where a module is not in this backbone, naming it.
    """
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict

    refuse_foreign(file, state)
    config = _peft_config(file)
    component, renamed = _place_of(file, state, pipeline)
    work = copy.copy(pipeline)
    module = copy.deepcopy(part(pipeline, component)).to("cpu", torch.float32)  # type: ignore[union-attr]  # it is there
    try:
        with torch.random.fork_rng(devices=[]):
            model = PeftModel(module, LoraConfig(**config), adapter_name=ADAPTER)
        report = set_peft_model_state_dict(model, renamed, adapter_name=ADAPTER)
        loaded = {name for name in model.state_dict() if f".{ADAPTER}." in name}
        merged = model.merge_and_unload(safe_merge=True)
    except Exception as error:  # peft raises of many kinds for names, shapes and settings that do not fit
        raise UsageError(f"{file}: no LoRA for this backbone ({first_line(error)})", f"{OTHER}{names.made_for(state)}") from error
    lacking = [name for name in report.missing_keys if f".{ADAPTER}." in name]
    if report.unexpected_keys or lacking or len(loaded) != len(renamed):
        odd = next(iter((*report.unexpected_keys, *lacking)), "its matrices are not those that its configuration describes")
        raise UsageError(f"{file}: not the matrices that {PEFT_CONFIG} describes ({odd})"[:300], "Fetch the adapter again.")
    setattr(work, component, merged)
    return _all_changed(path, work, pipeline)


def _peft_config(file: Path) -> dict[str, Any]:
    """The entries that peft is given. Raises `UsageError` for other adapters and for settings that srbench does not read."""
    from peft import LoraConfig

    path = file.parent / PEFT_CONFIG
    if not path.is_file():
        what = f"{PEFT_CONFIG} is missing beside it, which says what its matrices are scaled with"
        raise UsageError(f"{file}: {what}", "Fetch both.")
    config = folder.configuration(path)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UsageError(f"{path}: an adapter of kind '{kind!s:.40}', which srbench does not read", FUSE)
    usual = {each.name: each.default for each in fields(LoraConfig)}
    left = {key: value for key, value in config.items() if key not in (*_READ, *_WITHOUT_EFFECT)}
    odd = [key for key, value in left.items() if value and value != "none" and value != usual.get(key)]
    odd += ["modules_to_save"] if config.get("modules_to_save") else []
    odd += ["init_lora_weights"] if str(config.get("init_lora_weights")).lower().startswith(_STARTS_ELSEWHERE) else []
    ranks = [config.get("r"), *(config["rank_pattern"].values() if isinstance(config.get("rank_pattern"), dict) else ())]
    odd += ["r"] if not all(isinstance(rank, int) and 0 < rank <= MOST_RANK for rank in ranks) else []
    if odd:
        value = printable(repr(config.get(odd[0])))[:60]
        raise UsageError(f"{path}: sets '{printable(odd[0])}' to {value}, which srbench does not read", FUSE)
    return {key: config[key] for key in _READ if config.get(key) is not None}


def _place_of(file: Path, state: State, pipeline: Any) -> tuple[str, State]:
    """The component that has every module, and the tensors under its names. Raises `UsageError` with one that is not found."""
    components = [c for c in (*DENOISERS, *ENCODERS) if part(pipeline, c) is not None]
    unfound = {}
    for component in components:
        modules = {name for name, _ in part(pipeline, component).named_modules()}  # type: ignore[union-attr]  # it is there
        renamed = {_spelled(name, modules): value for name, value in state.items()}
        unfound[component] = [name for name in renamed if _module(name) not in modules]
        if not unfound[component] and len(renamed) == len(state):
            return component, renamed
    nearest = min(unfound, key=lambda component: len(unfound[component]))
    first = _module(unfound[nearest][0]) if unfound[nearest] else ""
    how_many = f"{len(unfound[nearest])} of {len(state)} LoRA matrices"
    what = f"{how_many} are for modules that this backbone does not have ({first}, ...)"
    raise UsageError(f"{file}: {what}", f"{OTHER}{names.made_for(state)}")


def _module(name: str) -> str:
    return re.split(r"\.lora_", name.removeprefix(_PEFT_PREFIX))[0]


def _spelled(name: str, modules: set[str]) -> str:
    """The name with its module as this version of transformers spells it, and with peft's prefix."""
    inner = name.removeprefix(_PEFT_PREFIX)
    module = _module(inner)
    return _PEFT_PREFIX + names.prefixed(modules, module) + inner.removeprefix(module)
