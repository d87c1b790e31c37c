"""Content keys: what makes an image or a score the same one. A stale or foreign result can never be served.

`IDENTITY` and `RUNTIME` class every field of every spec; a test fails until a new field stands in one of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from srbench.files import file_sha

KEY_VERSION = 1
NOISE = "per-sample torch.Generator('cpu'), float32, seed from the row"

IDENTITY: dict[str, frozenset[str]] = {
    "ImageSpec": frozenset({
        "backbone_sha", "checkpoint_sha", "method", "method_version", "options", "artifact_sha", "concept_sha", "prompt",
        "negative_prompt", "seed", "steps", "guidance", "true_guidance", "eta", "guidance_rescale", "clip_skip", "scheduler",
        "width", "height", "dtype", "approximations",
    }),
    "Recipe": frozenset({"steps", "guidance", "true_guidance", "width", "height", "eta", "guidance_rescale", "clip_skip"}),
    # A row's identity for pixels; scorers declare the other fields they read, and those enter the score key.
    "Row": frozenset({"prompt", "negative_prompt", "seed", "guidance", "width", "height"}),
    "ConceptWords": frozenset({"names", "words", "counterparts", "neighbours"}),
}
RUNTIME: dict[str, frozenset[str]] = {
    "ImageSpec": frozenset(),
    "Recipe": frozenset(),
    "Row": frozenset({
        "id", "kind", "category", "reference", "target", "objects", "companions", "style", "background", "similarity",
    }),
    "ConceptWords": frozenset({"reserved", "protocol"}),
    "ConceptSpec": frozenset({"name", "title", "kind", "sensitive", "families"}),
    "ProtocolSpec": frozenset({
        "name", "title", "scorer", "field", "classes", "threshold", "rule", "top1", "top_k", "unit", "any_of", "cannot", "note",
        "source",
    }),
    "BackboneSpec": frozenset({
        "name", "title", "family", "source", "revision", "licence", "recipe", "concepts", "redirectors", "scenes",
        "scorers",
    }),
    "SuiteSpec": frozenset({
        "name", "title", "source", "licence", "gated", "sensitive", "attack", "metrics", "editions",
    }),
    "Edition": frozenset({
        "family", "concept", "file", "sha256", "files", "rows", "part", "paired", "misfits", "hidden", "protocol", "licence",
        "gated", "sensitive", "metrics",
    }),
    "SourceFile": frozenset({"hub", "revision", "url", "file", "sha256", "kind", "category", "task", "made_by", "columns"}),
    "LayoutSpec": frozenset({"name", "title", "patterns", "numbered", "named", "prompts", "left_out", "source"}),
    "RowFile": frozenset({"meta", "rows"}),
    "BaselineSpec": frozenset({
        "name", "title", "kind", "family", "concept", "source", "revision", "subfolder", "file", "sha256", "licence",
        "partial", "hyperparameters", "published", "deviations",
    }),
    "RunRequest": frozenset({
        "backbone", "methods", "on", "suites", "concepts", "part", "limit", "seed", "batch_size", "dtype", "settings",
        "protocol", "scorers", "out", "score", "keep_images", "device", "prompts", "accept_prompts", "categories",
        "sweep", "columns",
    }),
}


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN. Raises `ValueError` on non-finite numbers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


MODEL_FILES = (".safetensors", ".bin", ".json", ".txt")
"""Endings of the files that a model is made of."""
VOCABULARY, MADE_OF_IT = ".model", "tokenizer.json"
"""Ending of T5's vocabularies, which came later, and the file that tokenizers are read from where it lies beside one."""


def folder_sha(folder: Path, suffixes: tuple[str, ...] = MODEL_FILES) -> str:
    """sha256 over relative paths and contents of a model folder's files; its place and name do not matter.

    Folders behind links count: a component that is linked in decides pixels like one that lies there. A vocabulary counts
    only where the tokenizer is made of it, so that all other folders keep the hash that they had.
    """
    files = sorted(p for p in _below(folder) if (p.suffix in suffixes or _is_read(p)) and not p.name.startswith("card"))
    return digest([[p.relative_to(folder).as_posix(), file_sha(p)] for p in files])


def _is_read(path: Path) -> bool:
    return path.suffix == VOCABULARY and not (path.parent / MADE_OF_IT).is_file()


def _below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Every file below a folder; a link that leads back to a folder above it is not followed."""
    above = (*above, folder.resolve())
    for path in folder.iterdir():
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:
            yield from _below(path, above)


@dataclass(frozen=True)
class ImageSpec:
    """Everything that changes the pixels of one image, resolved."""

    backbone_sha: str
    checkpoint_sha: str
    method: str
    method_version: int
    options: str
    """Canonical JSON of the method's options."""
    artifact_sha: str
    concept_sha: str
    """Of every concept text that the method reads; empty where it reads none."""
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance: float
    eta: float
    guidance_rescale: float
    clip_skip: int | None
    scheduler: str
    """Canonical JSON of class and config, keys starting with `_` dropped."""
    width: int
    height: int
    dtype: str
    approximations: tuple[str, ...] = field(default=())
    true_guidance: float = 1.0
    """Guidance by a second call of the denoiser, for families whose `guidance` is a number that the denoiser reads (FLUX)."""

    def key(self) -> str:
        """The image key. Fields that came later are left out at their defaults, so that older images keep their keys."""
        values = {name: value for name, value in asdict(self).items() if LATER.get(name, ...) != value}
        return digest({"key_version": KEY_VERSION, "noise": NOISE, **values})


LATER = {"true_guidance": 1.0}
"""Field that `ImageSpec` did not always have -> the value that it stood for before."""


def score_key(pixel_sha: str, identity: Mapping[str, Any], fields: Mapping[str, Any], reference_sha: str = "") -> str:
    """Key of one scorer's numbers on one image under the row fields that it reads."""
    return digest({
        "key_version": KEY_VERSION, "pixels": pixel_sha, "scorer": identity, "fields": fields, "reference": reference_sha,
    })
