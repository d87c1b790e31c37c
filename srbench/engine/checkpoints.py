"""Makes checkpoints with weight methods and stores them by content, so that none is made twice."""

from __future__ import annotations

import os
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from srbench.analysis.lineage import OnName
from srbench.backbones import checkpoint as checkpoints
from srbench.backbones.checkpoint import CARD, Checkpoint, is_home_made, laid_over, open_home_made, read_card
from srbench.backbones.loader import Backbone
from srbench.backbones.places import is_path, path_of
from srbench.catalog import code, load, plugins
from srbench.catalog.joint import joint
from srbench.catalog.settings import overrides
from srbench.catalog.specs import ConceptSpec
from srbench.engine.judge import ConceptJudge
from srbench.engine.onnames import RELEARN, taken_apart
from srbench.engine.prepare import check_fit, concept_sha, is_weight, options_of, options_text, weight_presets
from srbench.engine.stored import write
from srbench.engine.untouched import kept_as_it_was
from srbench.errors import ForeignError, Unmade, UsageError
from srbench.faults import at, contained, module_of, plain
from srbench.files import kind_of_path, write_atomic
from srbench.hashing import digest
from srbench.methods.base import Edit, Judge, Look, Tell, blind, info_of, quiet, shown_to
from srbench.outputs import OutputFolder, check_folder, foreign_in, own_card, written_folder
from srbench.results.keys import KEY_VERSION

IDENTITY = ("key_version", "backbone_sha256", "method", "version", "options", "concept_sha256", "base")
"""Fields of a card whose digest is its `key`."""
JUDGE = "judge"
"""A further field, of a checkpoint that depends on the concept's judge."""


def _identity_in(card: Mapping[str, Any]) -> dict[str, Any]:
    """What a card's key is the digest of."""
    return {name: card[name] for name in IDENTITY} | ({JUDGE: card[JUDGE]} if JUDGE in card else {})


def _proved(folder: Path) -> dict[str, str]:
    """Files of a checkpoint without a marker, by its card; the card's key shows that srbench wrote it."""
    card, sha = own_card(folder)
    if card["key"] != digest(_identity_in(card)):
        return {}
    return {**card["files"], CARD: sha}


CHECKPOINT = OutputFolder("srbench erase", card=CARD, earlier=_proved)


@dataclass(frozen=True)
class Job:
    """A weight preset with its options for one concept."""

    preset: str
    method: str
    version: int
    cls: Any
    """The registered method class."""
    options: Any
    concept: str
    concept_sha: str
    base: Job | None = None
    """The checkpoint that is loaded before the method begins."""
    judge: Judge | None = None
    """Who decides which images show the concept, where the method asks."""
    concepts: tuple[str, ...] = ()
    """Names of the parts of a joint concept."""

    def identity(self, backbone_sha: str) -> dict[str, Any]:
        """Everything that determines the weights."""
        return {
            "key_version": KEY_VERSION, "backbone_sha256": backbone_sha, "method": self.method, "version": self.version,
            "options": self.options.model_dump(mode="json"), "concept_sha256": self.concept_sha,
            "base": self.base.identity(backbone_sha) if self.base else None,
            **({JUDGE: self.judge.identity} if self.judge else {}),
        }


def _place(job: Job, backbone: Backbone, folder: Path) -> tuple[Path, str]:
    key = digest(job.identity(backbone.sha256))
    return folder / f"{job.preset}-{job.concept}-{key[:12]}", key


def kept(job: Job, folder: Path, backbone: Backbone) -> Path | None:
    """The folder of the job's stored checkpoint, or None."""
    path, key = _place(job, backbone, folder)
    return path if is_home_made(path) and read_card(path).get("key") == key else None


def made(job: Job, backbone: Backbone, concept: ConceptSpec, folder: Path, tell: Tell) -> Path:
    """The folder of the job's checkpoint below `folder`; it is made now unless it is stored."""
    existing = kept(job, folder, backbone)
    if existing is not None:
        return existing
    path, _ = _place(job, backbone, folder)
    _set_aside(path, tell)
    make(job, backbone, concept, path, folder, tell, first_wins=True)
    return path


def _set_aside(path: Path, tell: Tell) -> None:
    """Rename whatever is in the place of a checkpoint, if it holds files that are not srbench's; nothing is deleted."""
    if os.path.lexists(path) and (not path.is_dir() or path.is_symlink() or foreign_in(path, CHECKPOINT)):
        aside = path.with_name(f"damaged-{secrets.token_hex(4)}-{path.name}")
        os.rename(path, aside)
        tell(f"damaged, kept as {aside.name}", 1, 1, "")


def no_pictures() -> Mapping[str, bytes]:
    """No image files beside the weights."""
    return {}


def make(
    job: Job, backbone: Backbone, concept: ConceptSpec, target: Path, folder: Path, tell: Tell, look: Look = blind,
    pictures: Callable[[], Mapping[str, bytes]] = no_pictures, first_wins: bool = False,
) -> dict[str, Any]:
    """Run the method and write its checkpoint to `target`; returns the card. A base checkpoint is stored below `folder`.

    The card is written last, so that the checkpoint is complete or absent. pictures: further files for the folder, called when
    the method has ended. first_wins: as for `written_folder`. Raises `UsageError` where `target` holds something else, before
    the method begins.
    """
    check_folder(target, CHECKPOINT)
    began = time.perf_counter()
    plain = backbone if backbone.dtype == "fp32" else replace(backbone, dtype="fp32")
    edit = _edited(job, plain, concept, folder, tell, look)
    seconds = time.perf_counter() - began
    with written_folder(target, CHECKPOINT, first_wins) as fresh:
        for name, data in pictures().items():
            write_atomic(fresh / name, data)
        return _write(job, plain, edit, seconds, fresh)


def _edited(job: Job, backbone: Backbone, concept: ConceptSpec, folder: Path, tell: Tell, look: Look) -> Edit:
    under: Checkpoint | None = None
    original: dict[str, dict[str, Tensor]] = {}
    if job.base is not None:
        at = made(job.base, backbone, concept, folder, tell)
        under = open_home_made(at, job.base.preset, backbone.sha256, concept.name, backbone.pipeline)
        for component, tensors in under.tensors.items():
            state = getattr(backbone.pipeline, component).state_dict()
            original[component] = {name: state[name].clone() for name in tensors}
    with laid_over(backbone.pipeline, under):
        info = info_of(backbone, original=original, tell=tell, look=look, cache=folder, judge=job.judge)
        with kept_as_it_was(backbone, job.preset), contained(f"making {job.preset} for {concept.name}", module_of(job.cls)):
            return _whole(job, job.cls.erase(info, shown_to(job.cls.meta, concept), job.options, tell))


def _whole(job: Job, edit: Any) -> Edit:
    """The edit, if it is one: tensors by component and name, and a card that JSON can hold. Raises `ForeignError`."""
    tensors = getattr(edit, "tensors", None)
    parts = tensors.values() if isinstance(tensors, dict) else [None]
    if not all(isinstance(part, dict) and all(isinstance(value, Tensor) for value in part.values()) for part in parts):
        problem = f"{job.preset}: `erase` returned no tensors by component and name{at(job.cls.erase)}"
        raise ForeignError(problem, 'Return base.Edit({"unet": {name: tensor}}).')
    return replace(edit, card=plain(edit.card))


def _write(job: Job, backbone: Backbone, edit: Edit, seconds: float, folder: Path) -> dict[str, Any]:
    return write(
        folder, backbone, edit, job.identity(backbone.sha256), seconds, title=job.preset, concept=job.concept,
        concepts=job.concepts, source=code.source_of("methods", job.method),
    )  # fmt: skip


@dataclass(frozen=True)
class OnConcept:
    """A checkpoint of `--on` for one concept; `checkpoint` is None for the untouched backbone."""

    name: str
    checkpoint: Checkpoint | None = None
    variant: str = ""


UNTOUCHED = OnConcept("none")


def check_on(name: str) -> None:
    """Raises `UsageError` for a name that is neither `none`, a weight preset, a baseline nor a path, with or without a seed and
    steps of teaching it again."""
    own = taken_apart(name)
    if own.base != name:
        check_on(own.base)
        if own.seed is not None:
            _check_seed(own)
        return
    load.check_named("baselines", name)
    if name == "none" or name in load.baselines() or (name in plugins.presets() and is_weight(name)):
        return
    kind = kind_of_path(path_of(name))
    if kind in ("file", "folder"):
        return
    if kind != "nothing" or (name not in plugins.presets() and is_path(name)):
        what = "there is no such file or folder" if kind == "nothing" else f"a {kind}, not a file or a folder"
        raise UsageError(f"--on {name}: {what}", "Check the path.")
    if name not in plugins.presets():
        raise load.unknown("checkpoint", name, load.baselines(), ("none", *weight_presets()))
    if not is_weight(name):
        hint = f"Give it to --method; --on takes {', '.join(weight_presets())}."
        raise UsageError(f"'{name}' acts while sampling and is no checkpoint", hint)


def _check_seed(name: OnName) -> None:
    """Raises `UsageError` where a seed does not change the checkpoint."""
    if name.base not in plugins.presets():
        problem = f"--on {name.before}: a seed is of a training, and '{name.base}' is there already"
        raise UsageError(problem, "Leave the seed out.")
    method, _ = plugins.preset(name.base)
    if "seed" not in plugins.load("methods", method).Options.model_fields:
        raise UsageError(f"--on {name.before}: {name.base} draws nothing at random; every seed makes the same", "Leave it out.")


@dataclass
class Checkpoints:
    """Opens or makes the checkpoints of `--on`, each once per concept."""

    backbone: Backbone
    settings: Sequence[str]
    folder: Path
    """Where local checkpoints are stored by content."""
    tell: Tell = quiet
    make: bool = True
    """Whether a missing one may be made; else `Unmade` is raised."""
    joint: tuple[ConceptSpec, ...] = ()
    """Concepts that weight methods unlearn at once, in one checkpoint; empty where each concept has its own."""
    _opened: dict[tuple[str, str], OnConcept] = field(default_factory=dict)

    def get(self, name: str, concept: ConceptSpec) -> OnConcept:
        """The checkpoint. Raises as `made`, `open_home_made` and `foreign` do."""
        if name == "none":
            return UNTOUCHED
        if (name, concept.name) not in self._opened:
            self._opened[name, concept.name] = self._open(name, concept)
        return self._opened[name, concept.name]

    def _open(self, name: str, concept: ConceptSpec) -> OnConcept:
        own = taken_apart(name)
        if own.steps:
            return self._relearned(own, concept, name)
        if own.seed is not None:
            seeded = replace(self, settings=(*self.settings, *own.settings), _opened={})
            return replace(seeded.get(own.base, concept), name=own.before, variant=self._variant(own.base, concept))
        if own.base != name:  # no steps of teaching: what it was
            return replace(self.get(own.before, concept), name=own.before)
        if name in plugins.presets():
            return self._home_made(name, concept)
        from srbench.backbones import foreign

        pipeline, family = self.backbone.pipeline, self.backbone.spec.family
        if name in load.baselines():
            spec = load.named("checkpoint", name, load.baselines())
            return OnConcept(name, foreign.open_baseline(spec, pipeline, family, concept.name))
        path = path_of(name)
        if checkpoints.is_home_made(path):
            checkpoint = checkpoints.open_home_made(path, path.name, self.backbone.sha256, concept.name, pipeline)
        else:
            checkpoint = foreign.open_foreign(path, path.name, pipeline)
        # Paths differ between machines: the checkpoint is named by its file name and its hash.
        shown = f"{path.name}@{checkpoint.sha256[:8]}"
        return OnConcept(shown, replace(checkpoint, name=shown))

    def _variant(self, preset: str, concept: ConceptSpec) -> str:
        """A preset's options that are not at their default, but the seed that stands in its name."""
        whole = joint(self.joint, self.backbone.spec.family) if self.joint else concept
        options, changed = options_of(preset, self.settings, self.backbone.spec.family, concept.kind)
        parts = [*options_text(options, changed).split(","), f"joint={whole.name}" if self.joint else ""]
        return ",".join(f"{preset}.{part}" for part in parts if part)

    def _relearned(self, own: OnName, concept: ConceptSpec, name: str) -> OnConcept:
        """A checkpoint after it was taught again."""
        from srbench.engine.relearned import relearned, settings_of

        under = self.get(own.before, concept)
        settings = settings_of(tuple(self.settings), concept, self.backbone.spec.family)
        plain = self.backbone if self.backbone.dtype == "fp32" else replace(self.backbone, dtype="fp32")
        checkpoint = relearned(plain, concept, under.checkpoint, own, settings, self.folder, CHECKPOINT, self.tell, self.make)
        chosen = overrides(self.settings, (RELEARN,))
        if "folder" in chosen:  # paths differ between machines
            chosen["folder"] = f"{Path(chosen['folder']).name}@{checkpoint.sha256[:8]}"
        changed = [f"{RELEARN}.{option}={value}" for option, value in sorted(chosen.items())]
        lesson = name.removeprefix(own.before)
        return OnConcept(f"{under.name}{lesson}", checkpoint, ",".join(filter(None, (under.variant, *changed))))

    def _home_made(self, preset: str, concept: ConceptSpec) -> OnConcept:
        whole = joint(self.joint, self.backbone.spec.family) if self.joint else concept
        job = job_of(preset, self.backbone, whole, self.settings)
        if not self.make and kept(job, self.folder, self.backbone) is None:
            raise Unmade(f"{preset} is not made yet for {concept.name}", "A run makes it first.", self._command(job))
        folder = made(job, self.backbone, whole, self.folder, self.tell)
        checkpoint = checkpoints.open_home_made(folder, preset, self.backbone.sha256, concept.name, self.backbone.pipeline)
        return OnConcept(preset, checkpoint, self._variant(preset, concept))

    def _command(self, job: Job) -> str:
        """The command that makes a checkpoint where a run finds it; empty where options of its base are changed.

        `srbench erase` takes options of the method alone.
        """
        own = [f"{name}={value}" for name, value in overrides(self.settings, (job.preset, job.method)).items()]
        names = job.concepts or (job.concept,)
        concept = joint([load.concepts()[name] for name in names], self.backbone.spec.family)
        erased = job_of(job.preset, self.backbone, concept, [f"{job.preset}.{each}" for each in own])
        if erased != job:
            return ""
        path, _ = _place(job, self.backbone, self.folder)
        words = ["srbench", "erase", job.preset, "--concept", ",".join(names), "--backbone", self.backbone.spec.name]
        return shlex.join([*words, *(f"--set={each}" for each in own), "--out", str(path)])


def job_of(preset: str, backbone: Backbone, concept: ConceptSpec, settings: Sequence[str]) -> Job:
    """The job of a weight preset for a concept, with the base checkpoint that its method declares."""
    name, _ = plugins.preset(preset)
    cls = plugins.load("methods", name)
    check_fit(preset, cls.meta, backbone)
    options, _ = options_of(preset, settings, backbone.spec.family, concept.kind)
    base = cls.meta.get("base")
    under = None
    if base is not None:
        chosen = overrides(settings, (base["preset"], plugins.preset(base["preset"])[0]))
        fixed = [f"{base['preset']}.{key}={value}" for key, value in base["options"].items() if key not in chosen]
        under = job_of(base["preset"], backbone, concept, [*fixed, *settings])
    sha = concept_sha(concept, backbone.spec.family) if cls.meta["reads_concept"] else ""
    parts = tuple(part.name for part in concept.parts)
    judged = cls.meta.get("judged", False) and getattr(options, "judged", True)
    judge = ConceptJudge.of(concept, backbone.spec.family) if judged else None
    return Job(preset, name, cls.meta["version"], cls, options, concept.name, sha, under, judge, parts)
