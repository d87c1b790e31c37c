"""What a pipeline's folder holds, before anything of it is opened: its components, their configurations, their files.

The libraries fill in what is absent (a tokenizer without its vocabulary, an encoder that is not there) and go on. So every
file that a component needs is looked for here, by name, and every configuration must be of a size that a model can have.
Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srbench.backbones.places import WEIGHTS
from srbench.errors import UsageError
from srbench.files import LFS_MARK, kind_of_path, printable, read_json

INDEX = "model_index.json"
CONFIG = "config.json"
SCHEDULER = "scheduler/scheduler_config.json"
FETCH = "Fetch the model again."

DENOISERS = ("unet", "transformer")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
MODULES = (*DENOISERS, *ENCODERS, "vae")
"""Components with weights that change an image."""
USED = (*MODULES, *TOKENIZERS, "scheduler")
"""All components that an image comes from."""
FAMILIES = {
    "StableDiffusionPipeline": "sd", "StableDiffusionXLPipeline": "sdxl", "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux", "PixArtAlphaPipeline": "pixart", "PixArtSigmaPipeline": "pixart",
}  # fmt: skip
"""Class of a pipeline -> its family, as `pipelines.KINDS` has them; without torch."""
NEEDED: dict[str, tuple[str, ...]] = {
    "sd": ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
    "sd3": ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
    "flux": ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
    "pixart": ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
}
"""Family -> components that every image of it needs; only SD3's third encoder may be left out."""
STEMS = {"diffusers": ("diffusion_pytorch_model",), "transformers": ("model", "pytorch_model")}
"""Library -> what it calls a component's file of weights, for .safetensors and for .bin."""
TEXTS = {b"<!doctype": "a web page", b"<html": "a web page", b"<?xml": "XML", LFS_MARK: "a git-lfs pointer"}
"""First bytes of a file in lower case -> what it is, where a download gave something else."""
LFS_PULL = "Run `git lfs pull` in its clone, or download the file itself."
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",), ("tokenizer.model",), ("vocab.txt",))
"""Any one of these sets of files is a whole vocabulary."""

MAX_BYTES = 16_000_000
"""Of a configuration. T5's tokenizer.json, the largest that is known, has 2.4 MB."""
MAX_TOKENIZER_BYTES = 100_000_000
MAX_NUMBER = 10_000_000
"""Of a whole number in a configuration; vocabularies of a million exist."""
MAX_ENTRIES = 100_000
"""Of one list or object in a configuration."""
MAXIMA = {
    "sample_size": 8192, "image_size": 8192, "pos_embed_max_size": 512, "num_train_timesteps": 100_000, "patch_size": 1024,
    "max_position_embeddings": 1_000_000,
}  # fmt: skip
"""Numbers for which the libraries reserve memory before a weight is read."""
MAX_LATENT_SIDE = 1024
"""Of a denoiser's `sample_size`: 8192 px."""
MAX_LAYERS = 1000
_LAYERS = re.compile(r"(^|_)(layers?|blocks?|depths?)(_|$)")


class HalfHere(UsageError):
    """A folder lacks a file; a hub model is mended by fetching the rest."""


@dataclass(frozen=True)
class Component:
    """One component of a pipeline's folder, as `model_index.json` names it."""

    name: str
    library: str
    """`diffusers` or `transformers`."""
    cls: str
    folder: Path
    variant: str | None = None
    """`fp16` where the weights exist only under that variant's name."""


# --- the whole folder -------------------------------------------------------------------------------------------------------


def anatomy(folder: Path, family: str, weights: bool = True) -> dict[str, Component]:
    """The components that a family's images depend on, each with all of its files.

    weights: whether weight files must exist, too; else configurations and vocabularies are enough. Raises `HalfHere` with the
    file that is missing, `UsageError` for what no model of that family has.
    """
    index = read_index(folder)
    components = {name: _component(folder, name, index[name]) for name in USED if index.get(name) not in (None, [None, None])}
    for name in NEEDED[family]:
        if name not in components:
            raise UsageError(f"{folder / INDEX}: names no {name}, without which this pipeline makes no picture", FETCH)
    _check_pairs(folder, components)
    for name in sorted(set(USED) - set(index)):
        if weights and kind_of_path(folder / name) == "folder" and any((folder / name).iterdir()):
            raise UsageError(f"{folder / INDEX}: does not name {name}, whose files are in the folder", FETCH)
    return {name: _with_files(component, weights) for name, component in components.items()}


def read_index(folder: Path) -> dict[str, Any]:
    """`model_index.json`. Raises `HalfHere` where it is missing, `UsageError` where it is no list of components."""
    if kind_of_path(folder / INDEX) == "nothing":
        raise HalfHere(f"{folder}: not a folder in the hub's format ({INDEX} is missing)", "Name the folder that holds it.")
    return configuration(folder / INDEX)


def family_of(folder: Path) -> str:
    """The family by the pipeline's class. Raises `UsageError` for a class that srbench does not know."""
    cls = read_index(folder).get("_class_name")
    if not isinstance(cls, str) or cls not in FAMILIES:
        hint = f"srbench samples with {', '.join(FAMILIES)}."
        raise UsageError(f"{folder}: a pipeline of class '{printable(str(cls))[:80]}'", hint)
    return FAMILIES[cls]


def variants(folder: Path) -> dict[str, str]:
    """Component -> the variant (`fp16`), where its weights exist only under a variant's name."""
    variant_of = {}
    for name in MODULES:
        for library, stems in STEMS.items():
            names = _names(folder / name) if (folder / name).is_dir() else []
            variant = _variant(names, stems) if library == _library_of(name) else None
            if variant is not None:
                variant_of[name] = variant
    return variant_of


def _library_of(name: str) -> str:
    return "transformers" if name in ENCODERS else "diffusers"


def _component(folder: Path, name: str, entry: Any) -> Component:
    """One entry of the index. Raises `UsageError` for classes from anywhere but the two libraries: they are code."""
    if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)):
        raise UsageError(f"{folder / INDEX}: '{name}' is not a library and a class", FETCH)
    library, cls = entry
    if library not in STEMS or not cls.isidentifier() or cls.startswith("_"):
        raise UsageError(
            f"{folder / INDEX}: {name} is of class '{printable(cls)[:60]}' from '{printable(library)[:60]}'",
            "srbench opens classes of diffusers and transformers; foreign code is not run.",
        )
    return Component(name, library, cls, folder / name)


def _check_pairs(folder: Path, components: Mapping[str, Component]) -> None:
    """Every encoder has a tokenizer; Stable Diffusion 3's third tokenizer may come without its encoder. Raises `UsageError`."""
    for encoder, tokenizer in zip(ENCODERS, TOKENIZERS, strict=True):
        if encoder in components and tokenizer not in components:
            raise UsageError(f"{folder / INDEX}: names {encoder} and no {tokenizer}", FETCH)


def _with_files(component: Component, weights: bool) -> Component:
    """The component with its variant. Raises `HalfHere` for a file that is not there."""
    if kind_of_path(component.folder) != "folder":
        kind = kind_of_path(component.folder)
        raise HalfHere(f"{component.folder}: {'is missing' if kind == 'nothing' else f'a {kind}, not a folder'}", FETCH)
    if component.name == "scheduler":
        _need_file(component.folder / "scheduler_config.json")
        config = configuration(component.folder / "scheduler_config.json")
        if not isinstance(config.get("_class_name"), str) or "num_train_timesteps" not in config:
            raise UsageError(f"{component.folder / 'scheduler_config.json'}: describes no scheduler", FETCH)
        return component
    if component.name in TOKENIZERS:
        _check_tokenizer(component)
        return component
    _need_file(component.folder / CONFIG)
    configuration(component.folder / CONFIG)
    return _weighed(component) if weights else component


def _need_file(path: Path) -> None:
    kind = kind_of_path(path)
    if kind != "file":
        what = "is missing" if kind == "nothing" else f"a {kind}, not a file"
        raise HalfHere(f"{path}: {what}", FETCH)


# --- weights ----------------------------------------------------------------------------------------------------------------


def _weighed(component: Component) -> Component:
    """The component with the variant of its weights. Raises `HalfHere` where a part is missing."""
    if kind_of_path(component.folder / "adapter_config.json") != "nothing":
        raise UsageError(
            f"{component.folder}: holds a peft adapter (adapter_config.json), which transformers would add to the model",
            "Take it out, and give it to --on.",
        )
    stems, names = STEMS[component.library], _names(component.folder)
    variant = None if _plain(names, stems) else _variant(names, stems, component.folder)
    for path in weight_files(component.folder, variant, component.library):
        _need_file(path)
    return Component(component.name, component.library, component.cls, component.folder, variant)


def weight_files(folder: Path, variant: str | None, library: str) -> list[Path]:
    """The files of weights that a library reads in a component's folder, of that variant."""
    return _parts(folder, STEMS[library], variant)


def files_of(folder: Path, stems: tuple[str, ...]) -> list[Path]:
    """The files of weights under the libraries' names, plain or of the only variant; none where there are none or several."""
    return _parts(folder, stems, _variant(_names(folder), stems))


def _parts(folder: Path, stems: tuple[str, ...], variant: str | None) -> list[Path]:
    first = _first_file(_names(folder), stems, variant)
    if first is None:
        return []
    return [folder / part for part in parts_of(folder / first)] if first.endswith(".json") else [folder / first]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if kind_of_path(path) != "folder")


def _files(stems: Iterable[str], variant: str | None) -> list[str]:
    """Names under which the libraries look for weights, in their order."""
    dotted = f".{variant}" if variant else ""
    return [
        name for suffix in (".safetensors", ".bin") for stem in stems
        for name in (f"{stem}{dotted}{suffix}", f"{stem}{suffix}.index{dotted}.json")
    ]  # fmt: skip


def _first_file(names: Iterable[str], stems: Iterable[str], variant: str | None) -> str | None:
    present = set(names)
    return next((name for name in _files(stems, variant) if name in present), None)


def _plain(names: Iterable[str], stems: Iterable[str]) -> bool:
    return _first_file(names, stems, None) is not None


def _variant(names: Iterable[str], stems: tuple[str, ...], folder: Path | None = None) -> str | None:
    """The only variant whose file, or index of parts, exists; None where there are plain files.

    folder: None where there may be none; else none and several raise `UsageError`.
    """
    if _plain(names, stems):
        return None
    stem = "|".join(map(re.escape, stems))
    pattern = re.compile(rf"(?:{stem})(?:\.([^.]+)\.(?:safetensors|bin)|\.(?:safetensors|bin)\.index\.([^.]+)\.json)")
    candidates = {match[1] or match[2] for name in names if (match := pattern.fullmatch(name))}
    candidates = {variant for variant in candidates if not re.fullmatch(r".*-\d{5}-of-\d{5}", variant)}
    if len(candidates) == 1:
        return candidates.pop()
    if folder is None:
        return None
    raise _no_weights(folder, stems, sorted(candidates), [name for name in names if Path(name).suffix in WEIGHTS])


def _no_weights(folder: Path, stems: tuple[str, ...], candidates: list[str], weights: list[str]) -> UsageError:
    wanted = f"{stems[0]}.safetensors"
    if candidates:
        message = f"{folder}: {wanted} is missing, and of variants there are {', '.join(candidates)}"
        return UsageError(message, "Leave one of them there.")
    if weights:
        return HalfHere(f"{folder / wanted}: is missing (there is {printable(', '.join(weights))[:100]})", FETCH)
    return HalfHere(f"{folder / wanted}: is missing, the folder holds no weights", FETCH)


def parts_of(index: Path) -> list[str]:
    """The files that an index of parts names. Raises `UsageError` where it is none, or names a file elsewhere."""
    table = read_json(index, FETCH, MAX_BYTES)
    names = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise UsageError(f"{index}: not an index of parts (no weight_map)", FETCH)
    for name in names.values():
        if Path(name).name != name:
            raise UsageError(f"{index}: '{printable(name)[:80]}' is not a file beside it", FETCH)
    return sorted(set(names.values()))


# --- tokenizers -------------------------------------------------------------------------------------------------------------


def _check_tokenizer(component: Component) -> None:
    """Raises `HalfHere` where a tokenizer lacks its vocabulary or its configuration."""
    names = set(_names(component.folder))
    sets = VOCABULARIES[:2] if component.cls.startswith("CLIP") else VOCABULARIES
    if not any(names.issuperset(files) for files in sets):
        begun = next((files for files in sets if names.intersection(files)), sets[0])
        missing = next(name for name in begun if name not in names)
        raise HalfHere(f"{component.folder / missing}: is missing, without which the tokenizer has no vocabulary", FETCH)
    _need_file(component.folder / "tokenizer_config.json")
    for name in sorted(names):
        _need_file(component.folder / name)
        if name.endswith(".json"):
            configuration(component.folder / name, MAX_TOKENIZER_BYTES, sane=False)


# --- configurations ---------------------------------------------------------------------------------------------------------


def configuration(path: Path, limit: int = MAX_BYTES, sane: bool = True) -> dict[str, Any]:
    """A configuration, an object of JSON, within limits of size, depth and numbers.

    sane: whether its numbers must be those of a model; a vocabulary's are of any size. Raises `UsageError`.
    """
    if kind_of_path(path) == "file" and read_head(path, 3) == b"\xef\xbb\xbf":
        what = "begins with a byte order mark, which diffusers and transformers do not read"
        raise UsageError(f"{path}: {what}", "Save it without.")
    head = read_head(path, 100).lstrip().lower() if kind_of_path(path) == "file" else b""
    if text := next((what for mark, what in TEXTS.items() if head.startswith(mark)), ""):
        raise UsageError(f"{path}: {text}, not a configuration", LFS_PULL if "git-lfs" in text else FETCH)
    config = read_json(path, FETCH, limit, nan=True)  # schedulers have infinities
    if not isinstance(config, dict):
        raise UsageError(f"{path}: holds no configuration but a {type(config).__name__}", FETCH)
    if sane:
        _check_numbers(path, "", config)
    return config


def read_head(path: Path, size: int) -> bytes:
    """The first bytes of a regular file. Raises `UsageError`."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", FETCH) from error


def _check_numbers(path: Path, key: str, value: Any) -> None:
    """No number, list or object beyond what a model has. Raises `UsageError`."""
    if isinstance(value, dict | list):
        if len(value) > MAX_ENTRIES or (isinstance(value, list) and _LAYERS.search(key) and len(value) > MAX_LAYERS):
            raise UsageError(f"{path}: '{key or 'it'}' has {len(value)} entries", "No model has so many. " + FETCH)
        for name, entry in value.items() if isinstance(value, dict) else ((key, entry) for entry in value):
            _check_numbers(path, str(name), entry)
        return
    if value is None or isinstance(value, bool) or (isinstance(value, str) and key not in MAXIMA):
        return
    most, whole = _most(path, key), isinstance(value, int)
    useless = value != value or (key == "scaling_factor" and (value == 0 or abs(value) == float("inf")))
    if useless or (whole and abs(value) > most) or (key in MAXIMA and (not whole or value < 1)):
        raise UsageError(f"{path}: '{printable(key)[:60]}' is {_short(value)}", "No model has such a number. " + FETCH)


def _most(path: Path, key: str) -> int:
    if key == "sample_size" and path.parent.name in DENOISERS:
        return MAX_LATENT_SIDE
    return MAX_LAYERS if _LAYERS.search(key) and "channels" not in key else MAXIMA.get(key, MAX_NUMBER)


def _short(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    return printable(repr(value))[:40]

