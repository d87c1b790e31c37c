"""A checkpoint of srbench's own making in its folder: tensors, and a card that comes last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from srbench.backbones.checkpoint import CARD, examine, files_sha
from srbench.backbones.loader import Backbone
from srbench.errors import ForeignError, UsageError
from srbench.faults import contained
from srbench.files import file_sha, write_atomic
from srbench.hashing import digest
from srbench.methods.base import Edit
from srbench.results.provenance import machine
from srbench.version import __version__


def write(
    folder: Path, backbone: Backbone, edit: Edit, identity: Mapping[str, Any], seconds: float, *, title: str, concept: str,
    concepts: Sequence[str] = (), source: str = "",
) -> dict[str, Any]:
    """Write a checkpoint's tensors into an empty folder, and its card last; returns the card.

    identity: everything that determines the weights. Raises `ForeignError` for tensors that cannot be stored or do not fit.
    """
    files = {}
    for component, tensors in edit.tensors.items():
        path = folder / f"{component}.safetensors"
        with contained(f"{title}: its tensors of {component} cannot be stored", let=lambda e: isinstance(e, OSError)):
            data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
        write_atomic(path, data)
        files[path.name] = file_sha(path)
    sha = files_sha(files)
    try:
        passport = examine(
            backbone.pipeline, edit.tensors, where=title, sha256=sha, kind="srbench", form="safetensors", partial=True
        )
    except UsageError as error:  # the method's fault, not the user's
        raise ForeignError(error.message, "The method made weights that do not fit.") from error
    card = {
        "srbench": __version__, "preset": title, "concept": concept, "backbone": backbone.spec.name,
        **({"concepts": list(concepts)} if concepts else {}),
        **identity, "key": digest(identity), "seconds": round(seconds, 1), "source": source, "machine": machine(), "files": files,
        "passport": asdict(passport), "measured": edit.card,
    }
    write_atomic(folder / CARD, (json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return card
