"""External checkpoints: full pipelines, U-Nets, text encoders and LoRAs, in the forms in which they are published.

Whatever the form, the result is the same: tensors under the backbone's own names, and a passport. A file that does not fit
the backbone to the last name is refused, never loaded in part: the field's classic mistake is plain Stable Diffusion under a
method's name. Pickles are read with `weights_only`, and there is no switch for anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srbench.backbones import adapters, folder, names, places, weights
from srbench.backbones.adapters import LORA_FILES, part, state_of
from srbench.backbones.checkpoint import Checkpoint, examine
from srbench.backbones.folder import DENOISERS, INDEX, MODULES, STEMS
from srbench.backbones.names import LDM, State
from srbench.catalog.specs import BaselineSpec
from srbench.errors import UsageError, did_you_mean
from srbench.files import file_sha, kind_of_path, printable
from srbench.hashing import digest, folder_sha

HASHED = (".safetensors", ".bin", ".json", ".txt")
"""Suffixes of the files that `folder_sha` reads."""
UNKNOWN_KIND = "Describe it in a file of baselines/, with `kind:` pipeline, unet, text_encoder or lora."
_CHECKPOINT = "checkpoint-*"
"""Folders of intermediate states that training scripts save."""

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
    """Read an external checkpoint for a pipeline, which stays unchanged, bit for bit.

    kind: `pipeline`, `unet`, `text_encoder` or `lora`; None tells it from the form (`guess_kind`). partial: whether the file
    may leave U-Net tensors out; None allows it for a state-dict file. sha256: what the file, or the folder
    (`folder_sha`), must hash to; it is compared before anything is opened.

    Raises `UsageError` where the checkpoint is of another kind, has another hash, or does not fit the backbone.
    """
    _check_files(path)
    sha = _checked_sha(path, sha256)
    inner = meant(path) if kind is None else path
    sha = sha if inner == path else _sha(inner)
    kind = guess_kind(inner, pipeline) if kind is None else kind
    if kind not in _READERS:
        raise UsageError(f"unknown kind of checkpoint '{kind}'", did_you_mean(kind, _READERS))
    if partial and kind in ("pipeline", "text_encoder"):
        raise UsageError(f"{path}: a {kind} is never partial", "Remove `partial: true` from its baseline file.")
    incomplete = kind == "lora" or (kind == "unet" and (inner.is_file() if partial is None else partial))
    tensors, forms = _READERS[kind](inner, pipeline)
    form = ", ".join(sorted(forms))
    passport = examine(pipeline, tensors, where=str(path), sha256=sha, kind=kind, form=form, partial=incomplete)
    return Checkpoint(name, tensors, passport)


def _check_files(path: Path) -> None:
    """Raises `UsageError` for anything but files and folders: reading a fifo would wait for ever."""
    kind = kind_of_path(path)
    if kind == "nothing":
        raise UsageError(f"{path}: there is no such file or folder", "Check the path.")
    if kind not in ("file", "folder"):
        raise UsageError(f"{path}: a {kind}, not a file or a folder", "Check the path.")
    for inner in path.rglob("*") if kind == "folder" else ():
        if kind_of_path(inner) not in ("file", "folder"):
            raise UsageError(f"{inner}: a {kind_of_path(inner)}, not a file", "Take it out of the folder.")


def _checked_sha(path: Path, expected: str) -> str:
    sha = _sha(path)
    if expected not in ("unverified", sha):
        raise UsageError(f"{path}: expected sha256 {expected[:12]}..., found {sha[:12]}...", "Fetch it again.")
    return sha


def _sha(path: Path) -> str:
    """sha256 of a file, or of a folder's files, weights included whose suffix `folder_sha` skips."""
    try:
        if path.is_file():
            return file_sha(path)
        beside = [file for file in sorted(path.glob("*")) if file.suffix in set(places.WEIGHTS) - set(HASHED) and file.is_file()]
        sha = folder_sha(path)
        return digest([sha, *map(file_sha, beside)]) if beside else sha
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", "Check its permissions.") from error


# --- which file ------------------------------------------------------------------------------------------------------------


def meant(path: Path) -> Path:
    """The checkpoint at a path: the path itself, or the only file or component in a plain folder.

    Raises `UsageError` with the candidates where there are several.
    """
    if not path.is_dir() or _is_checkpoint(path):
        return path
    inside = [path / name for name in MODULES if (path / name / folder.CONFIG).is_file()]
    if len(inside) == 1 and inside[0].name in DENOISERS:
        return inside[0]
    if inside:
        which = " or ".join(map(str, inside))
        what = ", ".join(each.name for each in inside)
        raise UsageError(f"{path}: holds {what} and no {INDEX}", f"Name the one that is meant: {which}")
    files = sorted(each for each in path.iterdir() if each.suffix in places.WEIGHTS and each.is_file())
    if len(files) == 1:
        return files[0]
    states = sorted(path.glob(_CHECKPOINT))
    if states:
        raise UsageError(f"{path}: a training's folder", f"Name one of its states: {', '.join(map(str, states[:5]))}")
    if files:
        shown = printable(", ".join(each.name for each in files[:5]))
        raise UsageError(f"{path}: {len(files)} files of weights ({shown})", f"Name the one that is meant: {path}/FILE")
    raise UsageError(f"{path}: no weights in it", "Name the file, or the folder that holds it.")


def _is_checkpoint(path: Path) -> bool:
    """Whether a folder has a file that tells its kind."""
    signs = (INDEX, folder.CONFIG, adapters.PEFT_CONFIG, *LORA_FILES)
    library = (name for stems in STEMS.values() for stem in stems for name in (f"{stem}.safetensors", f"{stem}.bin"))
    return any((path / name).is_file() for name in (*signs, *library))


# --- which kind ------------------------------------------------------------------------------------------------------------


def guess_kind(path: Path, pipeline: Any) -> str:
    """Tell the kind from the form.

    A folder with `model_index.json` is a pipeline, one with diffusers' or peft's LoRA file a LoRA, and one whose `config.json`
    names the class of the pipeline's denoiser or text encoder is that component. A file is a LoRA if a name in it says so, else
    the one component of the two that has names of it.

    Raises `UsageError` where none or more than one of these holds.
    """
    if path.is_dir():
        return _one_of(path, _folder_kinds(path, pipeline), _why_folder(path))
    state, _ = read_file(path)
    return _one_of(path, _file_kinds(path, state, pipeline), names.foreign_kind(state) or _why_file(state, pipeline))


def _one_of(path: Path, kinds: list[str], why: str) -> str:
    if len(kinds) == 1:
        return kinds[0]
    if not kinds and why:
        raise UsageError(f"{path}: {why}", UNKNOWN_KIND if "names" in why else "srbench reads U-Nets, text encoders and LoRAs.")
    what = " or ".join(kinds) if kinds else "nothing that srbench knows"
    raise UsageError(f"{path}: its kind can not be told from its form (it looks like {what})", UNKNOWN_KIND)


def _why_folder(path: Path) -> str:
    config = folder.configuration(path / folder.CONFIG) if (path / folder.CONFIG).is_file() else {}
    cls = config.get("_class_name") or config.get("architectures")
    neither = "is neither this backbone's denoiser nor its text encoder"
    return f"its kind can not be told, a {printable(str(cls))[:80]} {neither}" if cls else ""


def _why_file(state: State, pipeline: Any) -> str:
    if names.fits(names.bare(state, state_of(pipeline, "vae")), state_of(pipeline, "vae")):
        return "the tensors of a VAE alone"
    first = printable(next(iter(state)))[:100]
    return f"its kind can not be told, none of its {len(state)} names is one of this backbone's ({first}, ...)"


def _folder_kinds(path: Path, pipeline: Any) -> list[str]:
    config = folder.configuration(path / folder.CONFIG) if (path / folder.CONFIG).is_file() else {}
    classes = config.get("architectures")
    named = {str(config.get("_class_name")), *(map(str, classes) if isinstance(classes, list) else ())}
    signs = {
        "pipeline": (path / INDEX).is_file(),
        "lora": any((path / file).is_file() for file in (*LORA_FILES, adapters.PEFT_CONFIG)),
        "unet": any(type(part(pipeline, c)).__name__ in named for c in DENOISERS),
        "text_encoder": type(part(pipeline, "text_encoder")).__name__ in named,
    }
    return [kind for kind, holds in signs.items() if holds]


def _file_kinds(path: Path, state: State, pipeline: Any) -> list[str]:
    if any("lora" in name for name in state):
        return ["lora"]
    unet, encoder = (state_of(pipeline, c) for c in (_denoiser(pipeline), "text_encoder"))
    bare_unet, bare_encoder = names.bare(state, unet), names.bare(state, encoder)
    signs = {
        "unet": names.is_ldm(bare_unet) or not unet.keys().isdisjoint(bare_unet),
        "text_encoder": not encoder.keys().isdisjoint(names.prefixed(encoder, name) for name in bare_encoder)
        or names.twice_named(path, state, encoder) is not None,
    }
    return [kind for kind, holds in signs.items() if holds]


# --- one reader a kind -----------------------------------------------------------------------------------------------------


def _read_pipeline(path: Path, pipeline: Any) -> Read:
    """Every component of a diffusers folder that the pipeline has too; the folder must have the same ones."""
    ours = {c for c in MODULES if part(pipeline, c) is not None}
    theirs = {c for c in MODULES if (path / c).is_dir()}
    for component in sorted(ours ^ theirs):
        who = "the checkpoint has no" if component in ours else "this backbone has no"
        raise UsageError(f"{path}: {who} {component}", "A pipeline must have the components of its backbone.")
    read = {c: _read_folder(path / c) for c in MODULES if c in ours}
    tensors = {c: names.fitted(state, state_of(pipeline, c)) for c, (state, _) in read.items()}
    return tensors, {form for _, form in read.values()}


def _read_unet(path: Path, pipeline: Any) -> Read:
    """The denoiser, from a file or a folder, under diffusers' or CompVis' names."""
    component = _denoiser(pipeline)
    ours = state_of(pipeline, component)
    state, form = _read_folder(path) if path.is_dir() else read_file(path)
    state = names.bare(state, ours)
    if names.is_ldm(state):
        return {component: _from_ldm(state, pipeline, path)}, {form, "CompVis names"}
    return {component: names.fitted(state, ours)}, {form}


def _read_text_encoder(path: Path, pipeline: Any) -> Read:
    """The (first) text encoder, from a file or a folder."""
    ours = state_of(pipeline, "text_encoder")
    state, form = _read_folder(path) if path.is_dir() else read_file(path)
    state = names.bare(state, ours)
    copy = None if names.fits(state, ours) else names.twice_named(path, state, ours)
    return {"text_encoder": names.fitted(state, ours) if copy is None else copy}, {form}


def _read_lora(path: Path, pipeline: Any) -> Read:
    """A LoRA that diffusers or peft reads, fused into a copy in float32; the changed tensors are the checkpoint."""
    in_peft = path.is_dir() and (path / adapters.PEFT_CONFIG).is_file()
    file = adapters.peft_file(path) if in_peft else _lora_file(path) if path.is_dir() else path
    state, form = read_file(file)
    if in_peft or adapters.is_peft(file, state):
        return adapters.peft(path, file, state, pipeline), {form, "peft"}
    return adapters.lora(path, file, state, form, pipeline), {form}


_READERS: dict[str, Callable[[Path, Any], Read]] = {
    "pipeline": _read_pipeline,
    "unet": _read_unet,
    "text_encoder": _read_text_encoder,
    "lora": _read_lora,
}

# --- files -----------------------------------------------------------------------------------------------------------------


def _read_folder(path: Path) -> tuple[State, str]:
    """A component's weights, in one file or several. Raises `UsageError` where two of them hold the same tensor."""
    state: State = {}
    forms = set()
    for file in _weight_files(path):
        read, form = read_file(file)
        twice = sorted(state.keys() & read.keys())
        if twice:
            what = f"holds {printable(twice[0])}, which stands in another part, too"
            raise UsageError(f"{file}: {what}", "Fetch the checkpoint again.")
        state |= read
        forms.add(form)
    return state, ", ".join(sorted(forms))


def _weight_files(path: Path) -> list[Path]:
    """By the libraries' names, plain or of the only variant, safetensors first; else the folder's only weight file."""
    stems = tuple(dict.fromkeys(stem for library in STEMS.values() for stem in library))
    files = folder.files_of(path, stems)
    files = files or sorted(p for p in path.glob("*") if p.suffix in places.WEIGHTS)
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise UsageError(f"{path}: its part {missing.name} is missing", "Fetch the checkpoint again.")
    if len(files) > 1 and not folder.files_of(path, stems):
        how_many = f"{len(files)} files of weights, none under a name that diffusers gives"
        raise UsageError(f"{path}: {how_many}", "Fetch the checkpoint again, or name the file that is meant.")
    if not files:
        raise UsageError(f"{path}: no file of weights", "Fetch the checkpoint again, or name the file that is meant.")
    return files


def _lora_file(path: Path) -> Path:
    files = [path / name for name in LORA_FILES if (path / name).is_file()]
    files = files or sorted(p for p in path.glob("*") if p.suffix in places.WEIGHTS)
    if not files:
        raise UsageError(f"{path}: no LoRA in it", f"Name the file, or call it {places.LORA_FILE}.")
    if len(files) > 1 and files[0].name not in LORA_FILES:
        raise UsageError(f"{path}: {len(files)} files of weights", "Name the one that is meant.")
    return files[0]


def read_file(path: Path) -> tuple[State, str]:
    """One file of tensors, whatever its name, and the form that it is in. Raises `UsageError` with the cause."""
    read, form = weights.named(path)
    inner = names.unwrapped(read, path)
    return _tensors(inner, path), form


def _tensors(read: Any, path: Path) -> State:
    """`read` as a state dict without gradients."""
    if not read:
        raise UsageError(f"{path}: holds no tensors by name", "Give a plain state dict.")
    for name, value in read.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UsageError(f"{path}: '{printable(str(name))[:80]}' is no tensor", "Give a plain state dict.")
        if value.layout is not torch.strided or value.is_quantized:
            raise UsageError(f"{path}: '{printable(name)[:80]}' is a sparse or quantised tensor", "Save it as plain numbers.")
    return {name: value.detach() for name, value in read.items()}


def _denoiser(pipeline: Any) -> str:
    return "unet" if part(pipeline, "unet") is not None else "transformer"


# --- CompVis' names --------------------------------------------------------------------------------------------------------


def _from_ldm(state: State, pipeline: Any, path: Path) -> State:
    """A CompVis U-Net under diffusers' names, by diffusers' own converter, which drops in silence what it does not know."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    prefixed = state if any(name.startswith(LDM) for name in state) else {LDM + name: value for name, value in state.items()}
    beside = sorted(name for name in prefixed if not name.startswith(LDM))
    if beside:
        raise UsageError(
            f"{path}: {len(beside)} tensors beside the CompVis U-Net ({beside[0]}, ...)",
            "Convert a whole model with diffusers' from_single_file and save_pretrained, and give that folder.",
        )
    other = UsageError(f"{path}: a CompVis U-Net of another architecture than this backbone's", "It belongs to another model.")
    ours = state_of(pipeline, "unet")
    try:
        converted = convert_ldm_unet_checkpoint(prefixed, dict(pipeline.unet.config))
    except Exception as error:  # it indexes names and config without a check
        raise other from error
    if len(converted) != len(prefixed) or converted.keys() != ours.keys():
        raise other
    return converted
