"""What a method is told of an opened backbone."""

from __future__ import annotations

from typing import Any

from srbench.backbones.checkpoint import Checkpoint
from srbench.backbones.loader import Backbone
from srbench.methods.base import BackboneInfo


def info_of(backbone: Backbone, checkpoint: Checkpoint | None = None, *, weights: bool = True, **more: Any) -> BackboneInfo:
    """The backbone as methods see it, with the checkpoint that lies under them; laying it over is the caller's task.

    weights: off, no weights are read and the pipeline is None. more: further fields (`cache`, `tell`, `look`, `original`).
    """
    return BackboneInfo(
        name=backbone.spec.name, family=backbone.spec.family, sha256=backbone.sha256,
        pipeline=backbone.pipeline if weights else None, redirectors=backbone.redirectors, scenes=backbone.scenes,
        checkpoint_sha=checkpoint.sha256 if checkpoint else "", **more,
    )
