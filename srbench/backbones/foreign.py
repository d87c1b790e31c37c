"""Checkpoints that others made: full pipelines, U-Nets, text encoders and LoRAs, in the forms in which they are published.

Whatever the form, the result is the same: tensors under the backbone's own names, and a passport. A file that does not fit
the backbone to the last name is refused, never loaded in part: the field's classic mistake is plain Stable Diffusion under a
method's name. Pickles are read with `weights_only`, and there is no switch for anything else.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from srbench.backbones import places
from srbench.backbones.checkpoint import Checkpoint, examine
from srbench.catalog.specs import BaselineSpec
from srbench.engine.keys import file_sha, folder_sha
from srbench.errors import UsageError, did_you_mean

DENOISERS = ("unet", "transformer")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
COMPONENTS = (*DENOISERS, *ENCODERS, "vae")
"""Components with weights that change an image; the safety checker and the image encoder do not."""
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""What diffusers and transformers call a component's weight file."""
LORA_FILES = (places.LORA_FILE, "pytorch_lora_weights.bin")
WRAPPERS = ("state_dict", "unet", "model")
"""Keys under which training scripts wrap a state dict."""
LDM = "model.diffusion_model."
"""Prefix of the U-Net's names in CompVis checkpoints."""
TEXT_MODEL = "text_model."
"""Prefix that CLIPTextModel's names have in some versions of transformers."""

ADAPTER = "srbench"
UNKNOWN_KIND = "Describe it in a file of baselines/, with `kind:` pipeline, unet, text_encoder or lora."

State = dict[str, Tensor]
Components = dict[str, State]
Read = tuple[Components, set[str]]
"""Tensors by component, and the forms in which they were stored."""


def open_baseline(spec: BaselineSpec, pipeline: Any, family: str, concept: str) -> Checkpoint:
    """Read a published checkpoint for a backbone family and a concept.

    Raises `UsageError` where it was made for another one or does not fit, `MissingError` with the command that fetches it.
    """
    if spec.family != family:
        raise UsageError(f"baseline '{spec.name}' is for family '{spec.family}', not '{family}'", "Choose another --backbone.")
    if spec.concept != concept:
        hint = f"Use --concept {spec.concept}."
        raise UsageError(f"baseline '{spec.name}' unlearned '{spec.concept}', not '{concept}'", hint)
    path = places.locate(spec)
    return open_foreign(path, spec.name, pipeline, kind=spec.kind, partial=spec.partial, sha256=spec.sha256)


def open_foreign(
    path: Path, name: str, pipeline: Any, *, kind: str | None = None, partial: bool | None = None, sha256: str = "unverified"
) -> Checkpoint:
    """Read somebody else's checkpoint for a pipeline, which stays as it is, bit for bit.

    kind: `pipeline`, `unet`, `text_encoder` or `lora`; None tells it from the form (`guess_kind`). partial: whether the file
    may leave U-Net tensors out; None allows it for a state-dict file. sha256: what the file, or the folder
    (`keys.folder_sha`), must hash to; it is compared before anything is opened.

    Raises `UsageError` where the checkpoint is not what it is said to be, or does not fit the backbone.
    """
    sha = _checked_sha(path, sha256)
    kind = guess_kind(path, pipeline) if kind is None else kind
    if kind not in _READERS:
        raise UsageError(f"unknown kind of checkpoint '{kind}'", did_you_mean(kind, _READERS))
    if partial and kind in ("pipeline", "text_encoder"):
        raise UsageError(f"{path}: a {kind} is never partial", "Remove `partial: true` from its baseline file.")
    incomplete = kind == "lora" or (kind == "unet" and (path.is_file() if partial is None else partial))
    tensors, forms = _READERS[kind](path, pipeline)
    form = ", ".join(sorted(forms))
    passport = examine(pipeline, tensors, where=str(path), sha256=sha, kind=kind, form=form, partial=incomplete)
    return Checkpoint(name, tensors, passport)


def _checked_sha(path: Path, expected: str) -> str:
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder", "Check the path.")
    found = folder_sha(path) if path.is_dir() else file_sha(path)
    if expected not in ("unverified", found):
        raise UsageError(f"{path}: expected sha256 {expected[:12]}..., found {found[:12]}...", "Fetch it again.")
    return found


# --- which kind ------------------------------------------------------------------------------------------------------------


def guess_kind(path: Path, pipeline: Any) -> str:
    """Tell the kind from the form.

    A folder with `model_index.json` is a pipeline, one with diffusers' LoRA file a LoRA, and one whose `config.json` names
    the class of the pipeline's denoiser or text encoder is that component. A file is a LoRA if a name in it says so, else the
    one component of the two that has names of it.

    Raises `UsageError` where none or more than one of these holds.
    """
    found = _folder_kinds(path, pipeline) if path.is_dir() else _file_kinds(path, pipeline)
    if len(found) != 1:
        what = " or ".join(found) if found else "nothing that srbench knows"
        raise UsageError(f"{path}: its kind can not be told from its form (it looks like {what})", UNKNOWN_KIND)
    return found[0]


def _folder_kinds(folder: Path, pipeline: Any) -> list[str]:
    config = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    named = {config.get("_class_name"), *(config.get("architectures") or ())}
    signs = {
        "pipeline": (folder / "model_index.json").is_file(),
        "lora": any((folder / file).is_file() for file in LORA_FILES),
        "unet": any(type(_part(pipeline, c)).__name__ in named for c in DENOISERS),
        "text_encoder": type(_part(pipeline, "text_encoder")).__name__ in named,
    }
    return [kind for kind, holds in signs.items() if holds]


def _file_kinds(path: Path, pipeline: Any) -> list[str]:
    state, _ = read_file(path)
    if any("lora" in name for name in state):
        return ["lora"]
    unet, encoder = (_own(pipeline, c) for c in (_denoiser(pipeline), "text_encoder"))
    signs = {
        "unet": _is_ldm(state) or not unet.keys().isdisjoint(state),
        "text_encoder": not encoder.keys().isdisjoint(_prefixed(encoder, name) for name in state),
    }
    return [kind for kind, holds in signs.items() if holds]


# --- one reader a kind -----------------------------------------------------------------------------------------------------


def _read_pipeline(path: Path, pipeline: Any) -> Read:
    """Every component of a diffusers folder that the pipeline has too; the folder must have the same ones."""
    own = {c for c in COMPONENTS if _part(pipeline, c) is not None}
    given = {c for c in COMPONENTS if (path / c).is_dir()}
    for component in sorted(own ^ given):
        who = "the checkpoint has no" if component in own else "this backbone has no"
        raise UsageError(f"{path}: {who} {component}", "A pipeline must have the components of its backbone.")
    read = {c: _read_folder(path / c) for c in COMPONENTS if c in own}
    tensors = {c: _fitted(state, _own(pipeline, c)) for c, (state, _) in read.items()}
    return tensors, {form for _, form in read.values()}


def _read_unet(path: Path, pipeline: Any) -> Read:
    """The denoiser, from a file or a folder, under diffusers' or CompVis' names."""
    component = _denoiser(pipeline)
    state, form = _read_folder(path) if path.is_dir() else read_file(path)
    if _is_ldm(state):
        return {component: _from_ldm(state, pipeline, path)}, {form, "CompVis names"}
    return {component: _fitted(state, _own(pipeline, component))}, {form}


def _read_text_encoder(path: Path, pipeline: Any) -> Read:
    """The (first) text encoder, from a file or a folder."""
    state, form = _read_folder(path) if path.is_dir() else read_file(path)
    return {"text_encoder": _fitted(state, _own(pipeline, "text_encoder"))}, {form}


def _read_lora(path: Path, pipeline: Any) -> Read:
    """A LoRA that diffusers takes, fused into a copy in float32; the tensors that it changes are the checkpoint."""
    file = _lora_file(path) if path.is_dir() else path
    state, form = read_file(file)
    work = _float_copy(pipeline)
    _load_lora(work, file, state)
    work.fuse_lora()
    work.unload_lora_weights()
    tensors = {c: _changed(work, pipeline, c) for c in (*DENOISERS, *ENCODERS) if _part(pipeline, c) is not None}
    tensors = {component: changed for component, changed in tensors.items() if changed}
    if not tensors:
        raise UsageError(f"{path}: this checkpoint equals the backbone", "Its matrices are zero: train or fetch it again.")
    return tensors, {form}


_READERS: dict[str, Callable[[Path, Any], Read]] = {
    "pipeline": _read_pipeline,
    "unet": _read_unet,
    "text_encoder": _read_text_encoder,
    "lora": _read_lora,
}

# --- files -----------------------------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> tuple[State, str]:
    """A component's weights, in one file or several."""
    state: State = {}
    forms = set()
    for file in _weight_files(folder):
        part, form = read_file(file)
        state |= part
        forms.add(form)
    return state, ", ".join(sorted(forms))


def _weight_files(folder: Path) -> list[Path]:
    """By the libraries' names, safetensors first; else the folder's only weight file (say, a `.fp16.` variant)."""
    for name in (stem + suffix for suffix in (".safetensors", ".bin") for stem in STEMS):
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            return _shards(folder / f"{name}.index.json")
    found = sorted(p for p in folder.glob("*") if p.suffix in places.WEIGHTS)
    if len(found) != 1:
        how_many = f"{len(found)} files of weights, none under a name that diffusers gives" if found else "no file of weights"
        raise UsageError(f"{folder}: {how_many}", "Fetch the checkpoint again, or name the file that is meant.")
    return found


def _shards(index: Path) -> list[Path]:
    names = sorted(set(map(str, (_json(index).get("weight_map") or {}).values())))
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise UsageError(f"{index}: its part {name} is missing", "Fetch the checkpoint again.")
    return [index.parent / name for name in names]


def _lora_file(folder: Path) -> Path:
    found = [folder / name for name in LORA_FILES if (folder / name).is_file()]
    found = found or sorted(p for p in folder.glob("*") if p.suffix in places.WEIGHTS)
    if not found:
        raise UsageError(f"{folder}: no LoRA in it", f"Name the file, or call it {places.LORA_FILE}.")
    if len(found) > 1 and found[0].name not in LORA_FILES:
        raise UsageError(f"{folder}: {len(found)} files of weights", "Name the one that is meant.")
    return found[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: damaged file", "Fetch the checkpoint again.") from error
    return read if isinstance(read, dict) else {}


def read_file(path: Path) -> tuple[State, str]:
    """One file of tensors, and the form that it is in."""
    if path.suffix not in places.WEIGHTS:
        raise UsageError(f"{path}: not a file of weights", f"srbench reads {', '.join(places.WEIGHTS)}.")
    if path.suffix != ".safetensors":
        return _tensors(_unwrapped(_unpickled(path), path), path), "pickle (weights only)"
    try:
        return _tensors(load_file(path), path), "safetensors"
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path}: damaged file, was not opened ({_first_line(error)})", "Fetch it again.") from error


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile stream makes the reader raise
        raise UsageError(
            f"{path}: damaged, or holds more than tensors, and was not opened",
            "Convert it to safetensors where you trust its maker; srbench has no switch that runs a pickle's code.",
        ) from error


def _unwrapped(read: Any, path: Path) -> Any:
    """The state dict inside one level of wrapping. Raises `UsageError` where there is more than one to choose from."""
    if not isinstance(read, Mapping):
        return read
    inside = [key for key, value in read.items() if _is_state(value)]
    if not inside:
        return read
    if len(inside) > 1 or inside[0] not in WRAPPERS:
        names = ", ".join(map(str, inside))
        raise UsageError(f"{path}: holds state dicts under {names}", f"srbench unwraps one of {', '.join(WRAPPERS)}.")
    return read[inside[0]]


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _tensors(read: Any, path: Path) -> State:
    """`read` as a state dict without gradients."""
    if not isinstance(read, Mapping) or not read:
        raise UsageError(f"{path}: holds no tensors by name", "Give a plain state dict.")
    for name, value in read.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UsageError(f"{path}: '{name}' is no tensor", "Give a plain state dict.")
    return {name: value.detach() for name, value in read.items()}


# --- names -----------------------------------------------------------------------------------------------------------------


def _part(pipeline: Any, component: str) -> torch.nn.Module | None:
    module = getattr(pipeline, component, None)
    return module if isinstance(module, torch.nn.Module) else None


def _own(pipeline: Any, component: str) -> State:
    """State dict of a component; empty where the pipeline has none, which `examine` refuses by name."""
    module = _part(pipeline, component)
    return {} if module is None else module.state_dict()


def _denoiser(pipeline: Any) -> str:
    return "unet" if _part(pipeline, "unet") is not None else "transformer"


def _fitted(given: State, own: State) -> State:
    """`given` under the backbone's names, if one of the known differences between library versions explains all of them."""
    plain = {n: v for n, v in given.items() if n in own or not _is_position_buffer(n, v)}
    for rename in (_same, _prefixed, _attention):
        renamed = {rename(own, name): value for name, value in plain.items()}
        if len(renamed) == len(plain) and renamed.keys() <= own.keys():
            return renamed | _ties(renamed, own)
    return plain


def _same(own: State, name: str) -> str:
    return name


def _prefixed(own: State, name: str) -> str:
    choices = (name, name.removeprefix(TEXT_MODEL), TEXT_MODEL + name)
    return next((choice for choice in choices if choice in own), name)


def _attention(own: State, name: str) -> str:
    for old, new in OLD_ATTENTION.items():
        name = name if name in own else name.replace(old, new)
    return name


def _is_position_buffer(name: str, value: Tensor) -> bool:
    """transformers before 4.31 stored 0, 1, 2, ... as `position_ids`; that is no weight, and now nowhere in a state dict."""
    if not name.endswith("position_ids") or value.is_floating_point():
        return False
    return torch.equal(value.flatten(), torch.arange(value.numel(), dtype=value.dtype))


def _ties(given: State, own: State) -> State:
    """Second names of tensors that a file stores once (T5's `shared` and `embed_tokens`)."""
    homes = {own[name].data_ptr(): name for name in given if own[name].numel()}
    twins = {name: homes.get(own[name].data_ptr()) for name in own if name not in given}
    return {name: given[twin] for name, twin in twins.items() if twin is not None and own[twin].shape == own[name].shape}


def _is_ldm(names: Iterable[str]) -> bool:
    return any(name.startswith((LDM, "input_blocks.")) for name in names)


def _from_ldm(state: State, pipeline: Any, path: Path) -> State:
    """A CompVis U-Net under diffusers' names, by diffusers' own converter, which drops in silence what it does not know."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    given = state if any(name.startswith(LDM) for name in state) else {LDM + name: value for name, value in state.items()}
    beside = sorted(name for name in given if not name.startswith(LDM))
    if beside:
        raise UsageError(
            f"{path}: {len(beside)} tensors beside the CompVis U-Net ({beside[0]}, ...)",
            "Convert a whole model with diffusers' from_single_file and save_pretrained, and give that folder.",
        )
    other = UsageError(f"{path}: a CompVis U-Net of another architecture than this backbone's", "It belongs to another model.")
    own = _own(pipeline, "unet")
    try:
        converted = convert_ldm_unet_checkpoint(given, dict(pipeline.unet.config))
    except Exception as error:  # it indexes names and config without a check
        raise other from error
    if len(converted) != len(given) or converted.keys() != own.keys():
        raise other
    return converted


# --- LoRA ------------------------------------------------------------------------------------------------------------------


def _float_copy(pipeline: Any) -> Any:
    """The same pipeline with copies in float32 of all that a LoRA may touch; the rest is shared."""
    work = copy.copy(pipeline)
    for component in (*DENOISERS, *ENCODERS):
        module = _part(pipeline, component)
        if module is not None:
            setattr(work, component, copy.deepcopy(module).to("cpu", torch.float32))
    return work


def _load_lora(work: Any, file: Path, state: State) -> None:
    """Load into the copy, and see that every matrix of the file has found its module: diffusers only warns."""
    if any("dora" in name for name in state):
        raise UsageError(f"{file}: a DoRA, which diffusers reads without its scales", "Fuse it with peft, and give the U-Net.")
    # A safetensors header may hold the adapter's alpha, so diffusers reads that file itself; a pickle it never touches.
    source = str(file.parent) if file.suffix == ".safetensors" else state
    where = {"weight_name": file.name, "local_files_only": True} if file.suffix == ".safetensors" else {}
    try:
        work.load_lora_weights(source, adapter_name=ADAPTER, **where)
    except Exception as error:  # diffusers and peft raise of many kinds for names and shapes that do not fit
        raise UsageError(f"{file}: no LoRA for this backbone ({_first_line(error)})", "It belongs to another model.") from error
    expected = sum(not name.endswith("alpha") for name in state)
    loaded = sum(_is_matrix(name) for c in (*DENOISERS, *ENCODERS) for name in _own(work, c))
    if loaded < expected:
        raise UsageError(
            f"{file}: {expected - loaded} of {expected} LoRA matrices are for modules that this backbone does not have",
            "It belongs to another model.",
        )


def _is_matrix(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _changed(work: Any, pipeline: Any, component: str) -> State:
    before = _own(pipeline, component)
    after = _own(work, component)
    return {n: v for n, v in after.items() if not torch.equal(v, before[n].to("cpu", torch.float32).to(v.dtype))}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
