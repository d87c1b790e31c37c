"""An unlearned checkpoint in a folder of its own: `srbench erase` for Python."""

from __future__ import annotations

import io
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from srbench.backbones.checkpoint import Passport
from srbench.backbones.choose import chosen
from srbench.backbones.loader import Opener, open_backbone
from srbench.catalog import load, screen
from srbench.catalog.joint import joint
from srbench.engine.checkpoints import CHECKPOINT, job_of, make
from srbench.engine.command import Telling
from srbench.engine.devices import device_of
from srbench.engine.options import Say
from srbench.engine.prepare import is_weight, weight_presets
from srbench.engine.preview import Preview
from srbench.errors import UsageError, did_you_mean
from srbench.methods.base import blind
from srbench.outputs import check_folder

PREVIEW = "preview.png"


@dataclass(frozen=True)
class EraseOptions:
    """What an erasure is asked for, in the command line's words."""

    method: str
    """A preset of a weight method."""
    concept: str
    """One, or several with commas: unlearned at once, in one checkpoint."""
    backbone: str = "pocket"
    out: Path | None = None
    """None: a folder of its name."""
    device: str = "auto"
    settings: tuple[str, ...] = ()
    """`OPTION=VALUE` each."""


def erase(asked: EraseOptions, say: Say, telling: Telling, opener: Opener = open_backbone) -> Path:
    """Run a weight method, write its checkpoint, and say its passport; returns the folder.

    Raises `SrbenchError` where the request is wrong or something is missing.
    """
    method = asked.method
    if not is_weight(method):
        raise UsageError(f"'{method}' acts while sampling: there is nothing to erase", did_you_mean(method, weight_presets()))
    spec = chosen(asked.backbone)
    concept = joint(load.concepts_of(spec, asked.concept.split(",")), spec.family)
    folder = asked.out or Path("checkpoints") / spec.name / concept.name / method
    check_folder(folder, CHECKPOINT)
    backbone = opener(spec, "fp32", device_of(asked.device))
    job = job_of(method, backbone, concept, [f"{method}.{setting}" for setting in asked.settings])
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
    return folder


def _drawn(preview: Preview) -> dict[str, bytes]:
    """What the model drew while it was changed, where it drew anything."""
    if len(preview.shots) < 2:
        return {}
    data = io.BytesIO()
    preview.strip().save(data, "PNG")
    return {PREVIEW: data.getvalue()}
