"""Loads a backbone: finds its files, names it by their content, and makes a quiet pipeline in evaluation mode."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from srbench.backbones import single
from srbench.catalog import resolve
from srbench.catalog.specs import BackboneSpec
from srbench.engine.keys import canonical, folder_sha
from srbench.errors import MissingError, UsageError


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
        pinned = ["--revision", revision] if revision else []
        fetch = f"Fetch it: {shlex.join(['hf', 'download', hub_id, *pinned])}"
        raise MissingError(f"backbone '{name}' is not on this machine ({hub_id})", fetch) from error


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
        path = self.folder / "scheduler" / "scheduler_config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UsageError(f"{self.folder}: not a diffusers model (no scheduler config)", "Give a diffusers folder.") from error
        kept = {k: v for k, v in config.items() if not k.startswith("_")}
        return canonical({"class": config.get("_class_name", ""), "config": kept})

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
        """The diffusers pipeline: frozen, no progress bar, no safety checker."""
        return load_pipeline(self.folder, self.dtype, self.device, self.file)

    def release(self) -> None:
        """Give the pipeline's memory back; it is loaded again where it is asked for."""
        import torch

        self.__dict__.pop("pipeline", None)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


NOT_USED = ("safety_checker", "feature_extractor")
"""The safety checker would blacken images before a judge sees them. The feature extractor only serves it, and old folders name
a class for it that transformers no longer has."""


def _left_out(folder: Path) -> dict[str, Any]:
    """Components to go without: those that the folder does not have, and those that no image comes from."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}  # what is no pipeline's folder is refused by the loader
    absent = {name: None for name, made in index.items() if made == [None, None] or name in NOT_USED}
    return absent | ({"requires_safety_checker": False} if "safety_checker" in index else {})


def load_pipeline(folder: Path, dtype: str, device: str, file: Path | None = None) -> Any:
    """A pipeline from a local folder, its weights from `file` where there is one.

    Raises `UsageError` where the folder or the file can not be loaded.
    """
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    # The missing safety checker is what a benchmark of unlearning wants; `srbench run` says so in its header.
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    try:
        if file is not None:
            pipeline = single.opened(file, folder, kinds[dtype], _left_out(folder))
        else:
            pipeline = DiffusionPipeline.from_pretrained(folder, dtype=kinds[dtype], local_files_only=True, **_left_out(folder))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder}: cannot be loaded as a diffusers pipeline", str(error).splitlines()[0]) from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device=device, dtype=kinds[dtype])
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return tuned(pipeline)


SLICED_ABOVE_PX = 512
"""A VAE decodes larger pictures one by one: all at once they take more memory than the denoiser."""


def tuned(pipeline: Any) -> Any:
    """The same pipeline, laid out for its device: channels last on CUDA, and a VAE that decodes large pictures one by one."""
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
    """Locate a backbone for a dtype (`fp32`, `bf16`, `fp16`) and device."""
    return Backbone(spec, locate(spec), dtype, device)
