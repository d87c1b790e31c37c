"""Which backbone a name means: one that srbench knows, a folder in the hub's format, a file of weights, or a hub id."""

from __future__ import annotations

import re
from pathlib import Path

from srbench.backbones import folder as folders
from srbench.backbones import single
from srbench.backbones.loader import fetchable, fetched
from srbench.catalog import load
from srbench.catalog.specs import BackboneSpec, Recipe
from srbench.errors import UsageError

MAX_SIDE_PX = 8192
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
UNKNOWN = "not known"


def chosen(name: str) -> BackboneSpec:
    """The backbone of that name, else the folder or the file of weights at that path, else the hub's model of that id.

    Raises `UsageError` for anything else, and for a folder that is no pipeline srbench can sample with; `MissingError` with
    the command that fetches a hub model.
    """
    if name in load.backbones():
        load.check_named("backbones", name)
        return load.backbones()[name]
    path = Path(name).expanduser()
    if path.is_dir():
        return of_folder(path, path.resolve().name, str(path.resolve()), None)
    if (in_one := single.file_and_config(name)) is not None:
        return _of_file(*in_one)
    if HUB_ID.fullmatch(name) and not path.exists():
        with fetchable(name, None, name):
            return of_folder(fetched(name, None, name), name, name, None)
    more = " Or give a folder in the hub's format, a file of weights, or a hub id."
    raise load.unknown("backbone", name, load.backbones(), hint=more)


def _of_file(file: Path, config: str) -> BackboneSpec:
    """A spec for a whole model in one file: the family, the scheduler and the size are those of its configuration."""
    folder = single.config_of(file, config).resolve()
    if folders.family_of(folder) in single.NO_FILE:
        cls = folders.read_index(folder)["_class_name"]
        raise UsageError(f"{cls} takes no single file", "Give its folder in the hub's format.")
    spec = of_folder(folder, file.stem, f"{file.resolve()}{single.MARK}{folder}", None, whole=False)
    return spec.model_copy(update={"title": f"{file.name}, read with the configuration in {folder}"})


def of_folder(folder: Path, name: str, source: str, revision: str | None, whole: bool = True) -> BackboneSpec:
    """A spec for a pipeline's folder: its family by its class, the family's recipe at the folder's own size.

    whole: whether the weights must be there, too; of a model in one file the configuration is enough. Raises `HalfHere` with a
    file that is missing, `UsageError` where the folder is no pipeline, or one of a class that srbench does not know.
    """
    family = folders.family_of(folder)
    folders.anatomy(folder, family, weights=whole)
    cls = folders.read_index(folder)["_class_name"]
    sibling = next(spec for spec in load.backbones().values() if spec.family == family)
    side = _side_px(folder) or sibling.recipe.width
    concepts = tuple(name for name, concept in load.concepts().items() if family in concept.families)
    return BackboneSpec(
        name=name, title=f"{cls} of {name}", family=family, source=source, revision=revision, licence=UNKNOWN,
        recipe=Recipe(**{**sibling.recipe.model_dump(), "width": side, "height": side}), concepts=concepts,
        scorers=sibling.scorers,
    )


def _side_px(folder: Path) -> int | None:
    """Image side in px: the denoiser's sample size times the VAE's scale, or the VAE's own size where FLUX gives none."""
    parts = [folder / part / folders.CONFIG for part in ("unet", "transformer", "vae")]
    configs = [folders.configuration(path) for path in parts if path.is_file()]
    if len(configs) != 2:
        return None
    (denoiser, vae), blocks = configs, configs[1].get("block_out_channels", [])
    size = denoiser.get("sample_size")
    counted = isinstance(size, int) and isinstance(blocks, list) and blocks
    side = size * 2 ** (len(blocks) - 1) if counted else vae.get("sample_size")
    if isinstance(side, int) and not 0 < side <= MAX_SIDE_PX:
        raise UsageError(f"{folder}: made for pictures of {side} px", "No model is. Fetch it again.")
    return side if isinstance(side, int) else None
