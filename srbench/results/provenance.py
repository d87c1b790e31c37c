"""Provenance of a result: versions, commit, machine, command line."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from srbench.version import __version__

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "open_clip_torch", "nudenet", "onnxruntime", "scipy")


@dataclass(frozen=True)
class OfStudy:
    """What a run is a step of."""

    name: str
    step: str
    sha256: str
    """Of the study's file."""
    text: str
    """The file, whole."""


def of_study(study: OfStudy | None) -> dict[str, Any]:
    """What a run's record says of the study that it belongs to; nothing where there is none."""
    return {} if study is None else {"study": asdict(study)}


def _git(*arguments: str) -> str:
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def machine() -> dict[str, Any]:
    """Processor, cores, threads, GPU. Training rounds differently on another machine or with another number of threads."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    facts = {"processor": next(names, platform.processor()), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if not torch.cuda.is_available():
        return facts
    return {**facts, "gpu": torch.cuda.get_device_name(0), "cuda": str(torch.version.cuda)}


def provenance() -> dict[str, Any]:
    """Versions, commit and dirty flag, machine, command line; JSON-ready."""
    return {
        "srbench": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        **machine(),
        "command": " ".join(["srbench", *sys.argv[1:]]),
    }
