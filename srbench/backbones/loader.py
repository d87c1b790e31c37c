"""Loads a backbone: finds its files, names it by their content, and makes a quiet pipeline in evaluation mode."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from srbench.catalog import resolve
from srbench.catalog.specs import BackboneSpec
from srbench.engine.keys import canonical, folder_sha
from srbench.errors import MissingError, UsageError


def locate(spec: BackboneSpec) -> Path:
    """The folder that holds the backbone's files.

    Raises `MissingError` with the command that fetches a hub model which is not on this machine.
    """
    if spec.source.startswith("package:"):
        return resolve.package_path(spec.source)
    path = Path(spec.source).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(spec.source, revision=spec.revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError) as error:
        revision = f" --revision {spec.revision}" if spec.revision else ""
        raise MissingError(
            f"backbone '{spec.name}' is not on this machine ({spec.source})", f"Fetch it: hf download {spec.source}{revision}"
        ) from error


@dataclass(frozen=True)
class Backbone:
    """A located backbone; weights are read only when `pipeline` is first asked for."""

    spec: BackboneSpec
    folder: Path
    dtype: str
    device: str

    @cached_property
    def sha256(self) -> str:
        """Content hash of all model files."""
        return folder_sha(self.folder)

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
        return load_pipeline(self.folder, self.dtype, self.device)


def load_pipeline(folder: Path, dtype: str, device: str) -> Any:
    """A pipeline from a local folder. Raises `UsageError` where the folder can not be loaded."""
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
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=kinds[dtype], local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder}: cannot be loaded as a diffusers pipeline", str(error).splitlines()[0]) from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device=device, dtype=kinds[dtype])
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipeline


def open_backbone(spec: BackboneSpec, dtype: str, device: str) -> Backbone:
    """Locate a backbone for a dtype (`fp32`, `bf16`, `fp16`) and device."""
    return Backbone(spec, locate(spec), dtype, device)
