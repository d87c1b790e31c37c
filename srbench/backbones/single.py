"""Backbones in one file of weights, as CompVis and others publish them. What the file does not say, its configuration, comes
from a folder in the hub's format."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from srbench.backbones import folder as folders
from srbench.backbones.places import WEIGHTS
from srbench.backbones.weights import all_zero, not_finite
from srbench.catalog import load, resolve
from srbench.catalog.specs import BackboneSpec
from srbench.downloads import Download
from srbench.errors import MissingError, UsageError, did_you_mean
from srbench.files import file_sha
from srbench.hashing import digest

MARK = "@"
"""Separates the file from the source of its configuration."""
CONFIG_SUFFIXES = (".json", ".txt", ".model")
"""Files of a pipeline's folder that are no weights: configurations and tokenizers."""
WEIGHT_INDEX = ".index.json"
NO_FILE = ("pixart",)
"""Families whose pipelines diffusers reads from no single file."""
PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
"""Component -> prefix of its names in CompVis files. diffusers' converter drops in silence what it does not know there."""
NOT_WEIGHTS = ("model_ema", "loss.")
"""Parts of CompVis' names that belong to the training."""
GUESSES = {"v1": ("sd15", "sd14"), "v2": ("sd21",), "xl_base": ("sdxl",), "sd3": ("sd3",), "flux-dev": ("flux",)}
"""diffusers' model type, by a file's tensor names -> backbones whose configuration fits; the first on this machine counts."""


def file_and_config(name: str) -> tuple[Path, str] | None:
    """(file, source of its configuration) if `name` names a file of weights; the source is empty where not given."""
    whole = Path(name).expanduser()
    if whole.suffix in WEIGHTS:
        return whole, ""
    file, mark, config = name.rpartition(MARK)
    path = Path(file).expanduser()
    return (path, config) if mark and path.suffix in WEIGHTS else None


def parts(spec: BackboneSpec) -> tuple[Path, Path] | None:
    """(file, folder of its configuration) of a backbone in one file, else None."""
    named = file_and_config(spec.source)
    return (named[0], Path(named[1])) if named and named[1] else None


def config_of(file: Path, config: str) -> Path:
    """The folder whose configuration a file is read with: a backbone's by name, a folder, or the one that fits its names.

    Raises `UsageError` where nothing is known of that name, `MissingError` with the command that fetches it.
    """
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file", "Check the path.")
    if config in load.backbones():
        return _of_backbone(load.named("backbone", config, load.backbones()))
    if config and Path(config).expanduser().is_dir():
        return Path(config).expanduser()
    if config:
        hint = f"{did_you_mean(config, load.backbones())} Or a folder in the hub's format."
        raise UsageError(f"{file.name}{MARK}{config}: no backbone and no folder to take the configuration from", hint)
    return _guessed(file)


def _guessed(file: Path) -> Path:
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    names = GUESSES.get(infer_diffusers_model_type(_state(file)), ())
    missing: MissingError | None = None
    for name in names:
        try:
            return _of_backbone(load.backbones()[name])
        except MissingError as error:
            missing = missing or error
    if missing is not None:
        raise missing
    hint = f"Say whose configuration it has: --backbone FILE{MARK}NAME, or FILE{MARK}FOLDER."
    raise UsageError(f"{file}: its names fit no backbone that srbench knows", hint)


def _of_backbone(spec: BackboneSpec) -> Path:
    """A backbone's folder; of a hub model its configuration is enough."""
    if spec.source.startswith("package:"):
        return resolve.package_path(spec.source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(spec.source, revision=spec.revision, local_files_only=True))
        folders.anatomy(folder, folders.family_of(folder), weights=False)
        return folder
    except (LocalEntryNotFoundError, OSError, folders.HalfHere) as error:
        download = Download(hub=spec.source, revision=spec.revision, include=tuple(f"*{suffix}" for suffix in CONFIG_SUFFIXES))
        raise MissingError(
            f"the configuration of '{spec.name}' is not on this machine ({spec.source})",
            f"Fetch it (a few MB): {download.command()}; or name a folder: --backbone FILE{MARK}FOLDER", [download],
        ) from error


def config_files(folder: Path) -> list[Path]:
    """Configuration and tokenizer files of a pipeline's folder, sorted."""
    files = (path for path in folder.rglob("*") if path.suffix in CONFIG_SUFFIXES and not path.name.endswith(WEIGHT_INDEX))
    return sorted(path for path in files if path.is_file())


def sha(file: Path, folder: Path) -> str:
    """Hash of the weights and of the configuration they are read with, whatever their folder."""
    configuration = [[path.relative_to(folder).as_posix(), file_sha(path)] for path in config_files(folder)]
    return digest({"file": file_sha(file), "configuration": configuration})


def opened(file: Path, folder: Path, dtype: Any, left_out: Mapping[str, Any]) -> Any:
    """The pipeline of a file, by diffusers' own reader. A pickle is read with `weights_only`.

    dtype: torch's. left_out: components that the pipeline goes without. Raises `UsageError` where the file holds more than
    tensors, or is not a whole model of that configuration.
    """
    from srbench.backbones import components

    state = _state(file)
    cls = _pipeline_class(folder)
    with TemporaryDirectory() as place:
        # A copy without weights: else diffusers would take what the file lacks from the folder, which is not hashed.
        for path in config_files(folder):
            copy = Path(place) / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        try:
            pipeline = cls.from_single_file(str(file), config=place, dtype=dtype, local_files_only=True, **left_out)
        except Exception as error:  # diffusers' converters index names and configuration without a check
            raise _unfit(file, folder, str(error).strip().replace(place, str(folder)).splitlines()[:1]) from error
    _check_whole(pipeline, state, file, folder)
    components.check_tokenizers(folder, pipeline.components)
    return pipeline


def _unfit(file: Path, folder: Path, why: list[str]) -> UsageError:
    reason = f" ({why[0][:120]})" if why else ""
    return UsageError(
        f"{file}: not a whole model of the configuration in {folder}{reason}",
        f"Name the right one: --backbone FILE{MARK}NAME. A U-Net alone is no backbone: give it to --on.",
    )


def _pipeline_class(folder: Path) -> Any:
    import diffusers

    folders.family_of(folder)
    return getattr(diffusers, folders.read_index(folder)["_class_name"])


def _state(file: Path) -> dict[str, Any]:
    """The tensors by name. Raises `UsageError` for a file that is damaged or holds more than tensors."""
    from srbench.backbones.foreign import read_file

    return read_file(file)[0]


def _check_whole(pipeline: Any, state: Mapping[str, Any], file: Path, folder: Path) -> None:
    """Check that the file holds every weight of the pipeline, and its U-Net and VAE nothing else. Raises `UsageError`."""
    import torch

    for name, part in pipeline.components.items():
        lacking = [key for key, value in part.state_dict().items() if value.is_meta] if isinstance(part, torch.nn.Module) else []
        if lacking:
            raise _unfit(file, folder, [f"{len(lacking)} tensors of {name} are missing: {lacking[0]}, ..."])
        state_of = part.state_dict() if isinstance(part, torch.nn.Module) else {}
        for what, bad in (("has values that are not numbers", not_finite(state_of)), ("holds only zeros", all_zero(state_of))):
            if bad:
                raise UsageError(f"{file}: {bad[0]} of {name} {what}", "Fetch the file again.")
    for name, prefix in PREFIXES.items():
        part = getattr(pipeline, name, None)
        stored = [v for n, v in state.items() if n.startswith(prefix) and not any(mark in n for mark in NOT_WEIGHTS)]
        size = sum(value.numel() for value in stored)
        expected = sum(value.numel() for value in part.state_dict().values()) if part is not None else size
        if stored and size != expected:
            raise _unfit(file, folder, [f"its {name} holds {size} numbers, the configuration's {expected}"])
