"""Makes ready what a cell needs: a preset's options, a method's artifact, and the checkpoint it is stacked on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from srbench.backbones import checkpoint as checkpoints
from srbench.backbones.checkpoint import Checkpoint, laid_over
from srbench.backbones.loader import Backbone
from srbench.backbones.places import is_path, path_of
from srbench.catalog import load, plugins
from srbench.catalog.settings import check, overrides, parsed
from srbench.catalog.specs import ConceptSpec
from srbench.engine import checkpoints as erase
from srbench.engine.untouched import kept_as_it_was
from srbench.errors import ForeignError, SrbenchError, UsageError, did_you_mean
from srbench.faults import contained, module_of, plain
from srbench.files import kind_of_path
from srbench.hashing import canonical, digest
from srbench.methods.base import Artifact, Tell, info_of, quiet
from srbench.results.keys import IDENTITY

WEIGHT = "weight"


class Unmade(SrbenchError):
    """A checkpoint that a run would make first; only a plan that may not make anything raises it."""


@dataclass(frozen=True)
class MethodOnConcept:
    """A preset with its options and artifact, ready to be applied: `active` is what the sampler needs."""

    preset: str
    name: str
    version: int
    options: Any
    active: Any
    artifact_sha: str
    concept_sha: str
    variant: str
    decides: bool
    prepare_seconds: float = 0.0
    parameters: int = 0


def is_weight(preset: str) -> bool:
    """Whether a preset is one of a weight method. Raises `UsageError` for an unknown one."""
    return bool(plugins.plugins("methods")[plugins.preset(preset)[0]].meta["kind"] == WEIGHT)


def weight_presets() -> list[str]:
    """Every preset of a weight method."""
    return [preset for preset in plugins.presets() if is_weight(preset)]


# --- options ---------------------------------------------------------------------------------------------------------------


def check_settings(settings: Iterable[str], presets: Iterable[str], scorers: Iterable[str] = ()) -> None:
    """Refuse a `--set` for a method or scorer that is not part of the run."""
    check(settings, {n for preset in presets for n in (preset, plugins.preset(preset)[0])} | set(scorers))


def check_options(presets: Iterable[str], settings: Sequence[str], family: str, kinds: Iterable[str]) -> None:
    """Try the options of every preset before anything is loaded or made. Raises `UsageError` for a bad one."""
    for preset in presets:
        for kind in dict.fromkeys(kinds):
            with suppress(ForeignError):  # a preset that cannot be used at all costs its own cells
                options_of(preset, settings, family, kind)


def options_of(preset: str, settings: Sequence[str], family: str, kind: str) -> tuple[Any, list[str]]:
    """The preset's options for a kind of concept on a backbone family, with overrides, and which are off their defaults."""
    name, _ = plugins.preset(preset)
    values = plugins.values(preset, family, kind)
    cls = plugins.load("methods", name)
    chosen = overrides(settings, (preset, name))
    with contained(f"the options of {preset}", module_of(cls)):
        default, options = _own_options(cls, preset, values), parsed(cls.Options, preset, values, chosen)
        canonical(plain(options.model_dump()))  # they are part of every image's key
        return options, sorted(key for key in chosen if getattr(options, key) != getattr(default, key))


def _own_options(cls: Any, preset: str, values: dict[str, Any]) -> Any:
    try:
        return parsed(cls.Options, preset, values, {})
    except UsageError as error:  # nothing that the user typed
        raise ForeignError(f"{preset}: its preset does not fit its options ({error.message})", "Mend the plug-in.") from error


def options_text(options: Any, names: Sequence[str], artifact_sha: str = "") -> str:
    """`name=value` with commas; of a file its last name and what it holds, since a path says nothing on another machine."""

    def said(name: str) -> str:
        value = getattr(options, name)
        file = type(options).model_fields[name].exclude
        return f"{name}={Path(value).name}@{artifact_sha[:8]}" if file else f"{name}={value}"

    return ",".join(map(said, names))


def concept_sha(concept: ConceptSpec, family: str) -> str:
    """Of every text of the concept that a method may read."""
    return digest(concept.families[family].model_dump(include=set(IDENTITY["ConceptWords"])))


# --- inference methods -----------------------------------------------------------------------------------------------------


def _check_fit(preset: str, meta: dict[str, Any], backbone: Backbone) -> None:
    family = backbone.spec.family
    fitting = meta.get("preset_families", {}).get(preset, meta["families"])
    if "*" not in fitting and family not in fitting:
        fits = f"It fits: {', '.join(fitting)}"
        raise UsageError(f"{preset} does not fit backbone '{backbone.spec.name}' (family {family})", fits)


def prepare_method(
    preset: str, backbone: Backbone, concept: ConceptSpec, settings: Sequence[str], checkpoint: Checkpoint | None = None,
    cache: Path | None = None, tell: Tell = quiet,
) -> MethodOnConcept:
    """Make a preset ready for a concept, on a checkpoint where one is given.

    Raises `UsageError` where it does not fit the backbone, and `MissingError` with the command that makes what it lacks.
    """
    from srbench.methods.base import Active

    name, _ = plugins.preset(preset)
    cls = plugins.load("methods", name)
    meta, family = cls.meta, backbone.spec.family
    _check_fit(preset, meta, backbone)
    options, changed = options_of(preset, settings, family, concept.kind)
    makes = meta.get("prepare") == "make"
    info = info_of(backbone, checkpoint, weights=makes, cache=cache, tell=tell)
    with (
        laid_over(backbone.pipeline, checkpoint) if makes else nullcontext(),
        kept_as_it_was(backbone, preset) if makes else nullcontext(),
        contained(f"making {preset} ready for {concept.name}", module_of(cls)),
    ):
        artifact = _whole(preset, cls.prepare(info, concept, options))
    sha = artifact.sha256 if artifact else ""
    return MethodOnConcept(
        preset=preset, name=name, version=meta["version"], options=options, active=Active(cls, artifact, options),
        artifact_sha=sha, variant=options_text(options, changed, sha), decides=bool(meta["decides"]),
        concept_sha=concept_sha(concept, family) if meta["reads_concept"] else "",
        prepare_seconds=artifact.prepare_seconds if artifact else 0.0, parameters=artifact.parameters if artifact else 0,
    )


def _whole(preset: str, artifact: Any) -> Artifact | None:
    """The artifact, if it is one. Raises `ForeignError` for anything else: its hash is part of every image's key."""
    if artifact is None:
        return None
    if not isinstance(artifact, Artifact) or re.fullmatch("[0-9a-f]{64}", str(artifact.sha256)) is None:
        raise ForeignError(f"{preset}: what it prepared has no sha256", "See Artifact in srbench.methods.base.")
    numbers = artifact.parameters, artifact.prepare_seconds
    if not all(isinstance(each, int | float) and math.isfinite(each) and each >= 0 for each in numbers):
        raise ForeignError(f"{preset}: what it cost to prepare is not a number", "See Artifact in srbench.methods.base.")
    return replace(artifact, card=plain(artifact.card))


# --- checkpoints -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnConcept:
    """What `--on` names, for one concept: `checkpoint` is None for the untouched backbone."""

    name: str
    checkpoint: Checkpoint | None = None
    variant: str = ""


UNTOUCHED = OnConcept("none")


def check_on(name: str) -> None:
    """Refuse a name that is no checkpoint: neither `none`, a weight preset, a baseline nor a path."""
    if name == "none" or name in load.baselines() or (name in plugins.presets() and is_weight(name)):
        return
    kind = kind_of_path(path_of(name))
    if kind in ("file", "folder"):
        return
    if kind != "nothing" or (name not in plugins.presets() and is_path(name)):
        what = "there is no such file or folder" if kind == "nothing" else f"a {kind}, not a file or a folder"
        raise UsageError(f"--on {name}: {what}", "Check the path.")
    if name not in plugins.presets():
        raise UsageError(f"unknown checkpoint '{name}'", did_you_mean(name, ("none", *weight_presets(), *load.baselines())))
    if not is_weight(name):
        hint = f"Give it to --method; --on takes {', '.join(weight_presets())}."
        raise UsageError(f"'{name}' acts while sampling and is no checkpoint", hint)


@dataclass
class Checkpoints:
    """Reads or makes what `--on` names, each once per concept."""

    backbone: Backbone
    settings: Sequence[str]
    folder: Path
    """Where home-made checkpoints are kept, by content."""
    tell: Tell = quiet
    make: bool = True
    """Whether one that is not there may be made; else `Unmade` is raised."""
    _known: dict[tuple[str, str], OnConcept] = field(default_factory=dict)

    def get(self, name: str, concept: ConceptSpec) -> OnConcept:
        """The checkpoint. Raises as `erase.made`, `open_home_made` and `foreign` do."""
        if name == "none":
            return UNTOUCHED
        if (name, concept.name) not in self._known:
            self._known[name, concept.name] = self._open(name, concept)
        return self._known[name, concept.name]

    def _open(self, name: str, concept: ConceptSpec) -> OnConcept:
        if name in plugins.presets():
            return self._home_made(name, concept)
        from srbench.backbones import foreign

        pipeline, family = self.backbone.pipeline, self.backbone.spec.family
        if name in load.baselines():
            return OnConcept(name, foreign.open_baseline(load.baselines()[name], pipeline, family, concept.name))
        path = path_of(name)
        if checkpoints.is_home_made(path):
            found = checkpoints.open_home_made(path, path.name, self.backbone.sha256, concept.name, pipeline)
        else:
            found = foreign.open_foreign(path, path.name, pipeline)
        # A path says nothing on another machine: its last name and what it holds do.
        said = f"{path.name}@{found.sha256[:8]}"
        return OnConcept(said, replace(found, name=said))

    def _home_made(self, preset: str, concept: ConceptSpec) -> OnConcept:
        job = job_of(preset, self.backbone, concept, self.settings)
        if not self.make and erase.kept(job, self.folder, self.backbone) is None:
            raise Unmade(f"{preset} is not made yet for {concept.name}", "A run makes it first.")
        folder = erase.made(job, self.backbone, concept, self.folder, self.tell)
        found = checkpoints.open_home_made(folder, preset, self.backbone.sha256, concept.name, self.backbone.pipeline)
        changed = options_of(preset, self.settings, self.backbone.spec.family, concept.kind)[1]
        variant = ",".join(f"{preset}.{part}" for part in options_text(job.options, changed).split(",") if part)
        return OnConcept(preset, found, variant)


def job_of(preset: str, backbone: Backbone, concept: ConceptSpec, settings: Sequence[str]) -> erase.Job:
    """What a weight preset is to make for a concept, with the base checkpoint that its method declares."""
    name, _ = plugins.preset(preset)
    cls = plugins.load("methods", name)
    _check_fit(preset, cls.meta, backbone)
    options, _ = options_of(preset, settings, backbone.spec.family, concept.kind)
    base = cls.meta.get("base")
    under = None
    if base is not None:
        asked = overrides(settings, (base["preset"], plugins.preset(base["preset"])[0]))
        fixed = [f"{base['preset']}.{key}={value}" for key, value in base["options"].items() if key not in asked]
        under = job_of(base["preset"], backbone, concept, [*fixed, *settings])
    sha = concept_sha(concept, backbone.spec.family) if cls.meta["reads_concept"] else ""
    return erase.Job(preset, name, cls.meta["version"], cls, options, concept.name, sha, under)
