"""Loads a backbone: finds and hashes its files, and makes a quiet pipeline in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from srbench.backbones import folder as folders
from srbench.backbones import single
from srbench.backbones.lengths import Reader, reader_of
from srbench.catalog import resolve
from srbench.catalog.specs import BackboneSpec
from srbench.downloads import Download
from srbench.errors import MissingError, UsageError
from srbench.files import file_sha
from srbench.hashing import canonical, digest, folder_sha


def locate(spec: BackboneSpec) -> Path:
    """The folder that holds the backbone's files; of a backbone in one file the folder of its configuration.

    Raises `MissingError` with the command that fetches a hub model which is not on this machine.
    """
    if spec.source.startswith("package:"):
        return resolve.package_path(spec.source)
    if (in_one := single.parts(spec)) is not None:
        return in_one[1]
    path = Path(spec.source).expanduser()
    return path if path.is_dir() else fetched(spec.source, spec.revision, spec.name)


def fetched(hub_id: str, revision: str | None, name: str) -> Path:
    """The folder of a hub model in the hub's cache. Raises `MissingError` with the command that fetches it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError) as error:
        raise _lacking(f"backbone '{name}' is not on this machine ({hub_id})", hub_id, revision) from error


def _lacking(message: str, hub_id: str, revision: str | None) -> MissingError:
    download = Download(hub=hub_id, revision=revision)
    return MissingError(message, f"Fetch it: {download.command()}", [download])


@contextmanager
def fetchable(hub_id: str | None, revision: str | None, name: str) -> Iterator[None]:
    """Turn a missing file of a hub model into a `MissingError` with the command that fetches it. hub_id: None for a folder."""
    try:
        yield
    except folders.HalfHere as error:
        if hub_id is None:
            raise
        raise _lacking(f"backbone '{name}' is only half here: {error.message}", hub_id, revision) from error


def hub_id_of(spec: BackboneSpec) -> str | None:
    """The hub's id of a backbone that comes from there, else None."""
    local = spec.source.startswith("package:") or single.parts(spec) is not None or Path(spec.source).expanduser().is_dir()
    return None if local else spec.source


@dataclass(frozen=True)
class Backbone:
    """A located backbone; weights are read only when `pipeline` is first asked for."""

    spec: BackboneSpec
    folder: Path
    dtype: str
    device: str

    @cached_property
    def sha256(self) -> str:
        """Content hash of all model files; of a backbone in one file that file and its configuration."""
        return folder_sha(self.folder) if self.file is None else single.sha(self.file, self.folder)

    @cached_property
    def file(self) -> Path | None:
        """The file with all weights, where there is one; `folder` then holds the configuration alone."""
        in_one = single.parts(self.spec)
        return None if in_one is None else in_one[0]

    @cached_property
    def scheduler(self) -> str:
        """Canonical JSON of the scheduler's class and config, keys starting with `_` dropped, class kept."""
        path = self.folder / folders.SCHEDULER
        if not path.exists():
            raise UsageError(f"{self.folder}: not a diffusers model (no scheduler config)", "Give a diffusers folder.")
        config = folders.configuration(path)
        settings = {k: v for k, v in config.items() if not k.startswith("_")}
        return canonical({"class": config.get("_class_name", ""), "config": settings})

    @cached_property
    def redirectors(self) -> Path | None:
        """Folder of the shipped redirectors, one sub-folder a concept."""
        return resolve.package_path(self.spec.redirectors) if self.spec.redirectors else None

    @cached_property
    def scenes(self) -> Path | None:
        """Folder of the shipped images, one sub-folder a concept."""
        return resolve.package_path(self.spec.scenes) if self.spec.scenes else None

    @cached_property
    def pipeline(self) -> Any:
        """The diffusers pipeline, whole (`components.opened`): frozen, no progress bar, no safety checker."""
        with fetchable(hub_id_of(self.spec), self.spec.revision, self.spec.name):
            return load_pipeline(self.folder, self.dtype, self.device, self.file)

    def check(self) -> None:
        """Try that all of it is whole, with less memory than `pipeline` takes. Raises as that does."""
        from srbench.backbones import components

        if self.file is not None:
            self.pipeline  # noqa: B018  # one file is read at once
            return
        with fetchable(hub_id_of(self.spec), self.spec.revision, self.spec.name):
            components.check(self.folder, folders.family_of(self.folder))

    @cached_property
    def variants(self) -> str:
        """For people: the components whose weights exist only under a variant's name; empty where there are none."""
        variant_of = {} if self.file is not None else folders.variants(self.folder)
        return ", ".join(f"{name}: {variant} files" for name, variant in variant_of.items())

    @cached_property
    def reader(self) -> Reader:
        """The backbone's tokenizers and limits; no weights are opened."""
        if "pipeline" in self.__dict__:
            return reader_of(type(self.pipeline), self.pipeline.components)
        from srbench.backbones import components

        with fetchable(hub_id_of(self.spec), self.spec.revision, self.spec.name):
            return components.reader(self.folder, folders.family_of(self.folder))

    def release(self) -> None:
        """Free the pipeline's memory; the next use loads it again."""
        import torch

        self.__dict__.pop("pipeline", None)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


NOT_USED = ("safety_checker", "feature_extractor", "image_encoder")
"""The safety checker would blacken images before a judge sees them. The feature extractor and the image encoder only serve it and
prompts that are images, and old folders name a class for them that transformers no longer has."""


def _left_out(folder: Path) -> dict[str, Any]:
    """Components that the pipeline goes without: those that the folder lacks, and those that no image depends on."""
    index = folders.read_index(folder)
    absent = {name: None for name, entry in index.items() if entry == [None, None] or name in NOT_USED}
    return absent | ({"requires_safety_checker": False} if "safety_checker" in index else {})


def load_pipeline(folder: Path, dtype: str, device: str, file: Path | None = None) -> Any:
    """A pipeline from a local folder, its weights from `file` where there is one.

    Raises `UsageError` where the folder or the file can not be loaded, or is not whole (`components.opened`).
    """
    import torch

    from srbench.backbones import components

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    with components.quiet(), components.one_line(f"{folder}: cannot be loaded as a diffusers pipeline"):
        if file is not None:
            pipeline = single.opened(file, folder, kind, _left_out(folder))
        else:
            pipeline = components.opened(folder, folders.family_of(folder), kind, _left_out(folder))
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(device=device, dtype=kind)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return tuned(pipeline)


SLICED_ABOVE_PX = 512
"""A VAE decodes larger images one by one: all at once they take more memory than the denoiser."""


def tuned(pipeline: Any) -> Any:
    """The same pipeline, laid out for its device: channels last on CUDA, and a VAE that decodes large images one by one."""
    import torch

    if pipeline.device.type == "cuda":
        for name in ("unet", "vae"):
            part = getattr(pipeline, name, None)
            if part is not None:
                part.to(memory_format=torch.channels_last)
    size = getattr(pipeline.vae.config, "sample_size", None)
    if isinstance(size, int) and size > SLICED_ABOVE_PX:
        pipeline.vae.enable_slicing()
    return pipeline


def open_backbone(spec: BackboneSpec, dtype: str, device: str) -> Backbone:
    """Locate a backbone for a dtype (`fp32`, `bf16`, `fp16`) and device, and see that no file of it is missing.

    Raises `MissingError` with the command that fetches a hub's model, or the rest of it; `UsageError` for other folders.
    """
    folder = locate(spec)
    if single.parts(spec) is None:
        with fetchable(hub_id_of(spec), spec.revision, spec.name):
            folders.anatomy(folder, folders.family_of(folder))
    return Backbone(spec, folder, dtype, device)


Opener = Callable[[BackboneSpec, str, str], Backbone]
"""As `open_backbone`; one that keeps what it opened saves its loading."""
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")
"""Suffixes of weight files that count where there are no safetensors, which libraries read first."""


ENCODER_SHA = "text_encoder_sha256"
"""Key in a row file's `meta`: the text encoder that its prompts were made against."""


def encoder_sha(backbone: Backbone) -> str:
    """sha256 of the backbone's text encoder weights, as adversarial row files state it.

    Raises `UsageError` where it has none: they would pass for those of any other such backbone.
    """
    if backbone.file is not None:  # a backbone in one file: its own hash
        return backbone.sha256
    folder = backbone.folder / "text_encoder"
    by_ending = (sorted(folder.glob(f"*{ending}")) for ending in (".safetensors", *OTHER_WEIGHTS))
    files = next(filter(None, by_ending), None)
    if files is None:
        raise UsageError(f"{folder}: no weights of a text encoder", f"They end in .safetensors or {', '.join(OTHER_WEIGHTS)}.")
    return file_sha(files[0]) if len(files) == 1 else digest([file_sha(path) for path in files])
