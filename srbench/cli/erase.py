"""`srbench erase`: an unlearned checkpoint in a folder of its own."""

from __future__ import annotations

import io
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from srbench.backbones.checkpoint import Passport
from srbench.backbones.choose import chosen
from srbench.backbones.loader import open_backbone
from srbench.catalog import load, screen
from srbench.cli.console import say
from srbench.cli.progress import telling
from srbench.engine.checkpoints import CHECKPOINT, job_of, make
from srbench.engine.prepare import is_weight, weight_presets
from srbench.engine.preview import Preview
from srbench.errors import UsageError, did_you_mean
from srbench.methods.base import blind
from srbench.outputs import check_folder

PREVIEW = "preview.png"


def erase(method: str, backbone_name: str, concept_name: str, out: Path | None, device: str, settings: Sequence[str]) -> int:
    """Run a weight method, write its checkpoint, and print its passport."""
    if not is_weight(method):
        raise UsageError(f"'{method}' acts while sampling: there is nothing to erase", did_you_mean(method, weight_presets()))
    spec = chosen(backbone_name)
    (concept,) = load.concepts_of(spec, [concept_name])
    folder = out or Path("checkpoints") / spec.name / concept.name / method
    check_folder(folder, CHECKPOINT)
    backbone = open_backbone(spec, "fp32", device)
    job = job_of(method, backbone, concept, [f"{method}.{setting}" for setting in settings])
    preview = Preview(backbone.pipeline, concept.families[spec.family].names[0], spec.recipe)
    look = blind if screen.sensitive_concept(concept) else preview
    with tempfile.TemporaryDirectory() as bases, telling(f"{method}/{concept.name}") as tell:
        if look is preview:
            preview.begin()
        card = make(job, backbone, concept, folder, Path(bases), tell, look, lambda: _drawn(preview))
    say(f"{method}: {Passport(**card['passport']).line()}")
    if len(preview.shots) > 1:
        say(f"what it drew of '{preview.prompt}' meanwhile: {folder / PREVIEW}")
    say(f"{card['seconds']} s; written: {folder}; use it with {shlex.join(['--on', str(folder)])}")
    return 0


def _drawn(preview: Preview) -> dict[str, bytes]:
    """What the model drew while it was changed, where it drew anything."""
    if len(preview.shots) < 2:
        return {}
    data = io.BytesIO()
    preview.strip().save(data, "PNG")
    return {PREVIEW: data.getvalue()}
