"""Content keys: everything that makes two images or two scores the same. A stale or foreign result is never served.

`IDENTITY` and `RUNTIME` classify every field of every spec; a test fails until a new field is listed in one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from srbench.hashing import digest

KEY_VERSION = 1
NOISE = "per-sample torch.Generator('cpu'), float32, seed from the row"

IDENTITY: dict[str, frozenset[str]] = {
    "ImageSpec": frozenset({
        "backbone_sha", "checkpoint_sha", "method", "method_version", "options", "artifact_sha", "concept_sha", "prompt",
        "negative_prompt", "seed", "steps", "guidance", "true_guidance", "eta", "guidance_rescale", "clip_skip", "scheduler",
        "width", "height", "dtype", "approximations", "start",
    }),
    "Recipe": frozenset({"steps", "guidance", "true_guidance", "width", "height", "eta", "guidance_rescale", "clip_skip"}),
    # A row's identity for pixels; scorers declare the other fields they read, and those enter the score key.
    "Row": frozenset({"prompt", "negative_prompt", "seed", "guidance", "width", "height", "start", "pictured", "picture"}),
    "ConceptWords": frozenset({"names", "words", "descriptions", "counterparts", "neighbours"}),
}
RUNTIME: dict[str, frozenset[str]] = {
    "ImageSpec": frozenset(),
    "Recipe": frozenset(),
    "Row": frozenset({
        "id", "kind", "category", "reference", "target", "objects", "companions", "style", "background", "similarity",
        "phrase",
    }),
    "ConceptWords": frozenset({"reserved", "protocol"}),
    "ConceptSpec": frozenset({"name", "title", "kind", "sensitive", "families"}),
    "ProtocolSpec": frozenset({
        # `settings` are a scorer's options, which stand in its own identity.
        "name", "title", "scorer", "settings", "field", "classes", "threshold", "rule", "top1", "top_k", "unit", "any_of",
        "cannot", "note", "source",
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
        "sweep", "columns", "shard", "joint",
    }),
    "Shard": frozenset({"index", "count"}),
}


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
    start: str = ""
    """Canonical JSON of what the image begins from, where that is not noise."""
    true_guidance: float = 1.0
    """Guidance by a second call of the denoiser, for families whose `guidance` is a number that the denoiser reads (FLUX)."""

    def key(self) -> str:
        """The image key. Fields that came later are left out at their defaults, so that older images keep their keys."""
        values = {name: value for name, value in asdict(self).items() if LATER.get(name, ...) != value}
        return digest({"key_version": KEY_VERSION, "noise": NOISE, **values})


LATER_WORDS = frozenset({"descriptions"})
"""Texts of a concept that came later: left out where there are none, so that older images keep their keys."""
LATER = {"true_guidance": 1.0, "start": ""}
"""Field that was added to `ImageSpec` later -> the value that older images were made with."""


def score_key(pixel_sha: str, identity: Mapping[str, Any], fields: Mapping[str, Any], reference_sha: str = "") -> str:
    """Key of one scorer's numbers on one image under the row fields that it reads."""
    return digest({
        "key_version": KEY_VERSION, "pixels": pixel_sha, "scorer": identity, "fields": fields, "reference": reference_sha,
    })
