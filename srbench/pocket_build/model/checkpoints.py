"""A training stage's state on disk: an index and parts small enough to be carried between machines."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from srbench.errors import SrbenchError
from srbench.files import write_atomic

PART_BYTES = 14_000_000


@dataclass(frozen=True)
class Index:
    """The index of a checkpoint, read before its parts."""

    step: int
    steps: int
    """Length of the whole stage, which its schedule depends on."""
    inputs: str
    """Digest of the earlier stages this one is trained on; empty where there is none."""
    parts: tuple[str, ...]
    sha256: str

    @property
    def finished(self) -> bool:
        return self.step >= self.steps


def _folder(cache: Path, stage: str) -> Path:
    return cache / "stages" / stage


def index(cache: Path, stage: str) -> Index | None:
    """The index of a stage's newest checkpoint, or None where there is none."""
    path = _folder(cache, stage) / "index.json"
    if not path.exists():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    return Index(**data | {"parts": tuple(data["parts"])})


def write(cache: Path, stage: str, state: dict[str, Any], *, step: int, steps: int, inputs: str = "") -> None:
    """Write `state` in parts of at most 14 MB, then the index that makes them the newest checkpoint."""
    folder = _folder(cache, stage)
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    raw = buffer.getbuffer()
    names = []
    for number, start in enumerate(range(0, len(raw), PART_BYTES)):
        names.append(f"{step:06d}-{number:02d}.part")
        write_atomic(folder / names[-1], bytes(raw[start : start + PART_BYTES]))
    new_index = Index(step, steps, inputs, tuple(names), hashlib.sha256(raw).hexdigest())
    write_atomic(folder / "index.json", json.dumps(asdict(new_index), indent=1).encode())
    for path in folder.glob("*.part"):
        if path.name not in names:
            path.unlink()


def read(cache: Path, stage: str) -> dict[str, Any]:
    """The state of a stage's newest checkpoint. Raises `SrbenchError` where a part is missing or damaged."""
    folder, newest = _folder(cache, stage), index(cache, stage)
    mend = f"Remove {folder} and train that stage again."
    if newest is None:
        raise SrbenchError(f"stage {stage} has no checkpoint", "Run `make pocket`.")
    try:
        raw = b"".join((folder / name).read_bytes() for name in newest.parts)
    except FileNotFoundError as error:
        raise SrbenchError(f"the checkpoint of stage {stage} lacks {Path(error.filename).name}", mend) from error
    if hashlib.sha256(raw).hexdigest() != newest.sha256:
        raise SrbenchError(f"the checkpoint of stage {stage} is damaged", mend)
    return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
