"""Prepares methods: a preset's options, and the method's artifact for a concept on a checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srbench.backbones.checkpoint import Checkpoint, laid_over
from srbench.backbones.loader import Backbone
from srbench.catalog import code, plugins
from srbench.catalog.contracts import GUIDE
from srbench.catalog.settings import check, overrides, parsed
from srbench.catalog.specs import ConceptSpec
from srbench.engine.untouched import kept_as_it_was
from srbench.errors import ForeignError, UsageError
from srbench.faults import at, contained, module_of, plain
from srbench.hashing import canonical, digest
from srbench.methods.base import Artifact, Tell, info_of, quiet, shown_to
from srbench.results.keys import IDENTITY, LATER_WORDS

WEIGHT = "weight"


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
    source: str = ""
    """Hash of the method's code; recorded beside its images, not in their keys."""


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
    """Check the options of every preset before anything is loaded or made. Raises `UsageError` for a bad one."""
    for preset in presets:
        for kind in dict.fromkeys(kinds):
            with suppress(ForeignError):  # a preset that cannot be used blocks only its own cells
                options_of(preset, settings, family, kind)


def options_of(preset: str, settings: Sequence[str], family: str, kind: str) -> tuple[Any, list[str]]:
    """The preset's options for a kind of concept on a backbone family, with overrides; and the names of those that changed."""
    name, _ = plugins.preset(preset)
    values = plugins.values(preset, family, kind)
    cls = plugins.load("methods", name)
    chosen = overrides(settings, (preset, name))
    with contained(f"the options of {preset}", module_of(cls)):
        try:
            default = parsed(cls.Options, preset, values, {})
        except UsageError as error:  # the plug-in's fault, not the user's
            why = error.message.removeprefix("--set ")
            problem = f"{preset}: its preset does not fit its options ({why}){at(cls.Options)}"
            raise ForeignError(problem, "Mend `presets` or `fitted` of METHOD, or Options.") from error
        options = parsed(cls.Options, preset, values, chosen)
        canonical(plain(options.model_dump()))  # raises where they cannot be part of an image's key
        return options, sorted(key for key in chosen if getattr(options, key) != getattr(default, key))


def options_text(options: Any, names: Sequence[str], artifact_sha: str = "") -> str:
    """`name=value` with commas; of a file its name and hash, since paths differ between machines."""

    def shown(name: str) -> str:
        value = getattr(options, name)
        file = type(options).model_fields[name].exclude
        return f"{name}={Path(value).name}@{artifact_sha[:8]}" if file else f"{name}={value}"

    return ",".join(map(shown, names))


def concept_sha(concept: ConceptSpec, family: str) -> str:
    """sha256 of every text of the concept that a method may read; of a joint one from those of its parts, in order."""
    if concept.parts:
        return digest([concept_sha(part, family) for part in concept.parts])
    words = concept.families[family].model_dump(include=set(IDENTITY["ConceptWords"]))
    return digest({name: texts for name, texts in words.items() if texts or name not in LATER_WORDS})


# --- inference methods -----------------------------------------------------------------------------------------------------


def check_fit(preset: str, meta: dict[str, Any], backbone: Backbone) -> None:
    family = backbone.spec.family
    fitting = meta.get("preset_families", {}).get(preset, meta["families"])
    if "*" not in fitting and family not in fitting:
        fits = f"It fits: {', '.join(fitting)}"
        raise UsageError(f"{preset} does not fit backbone '{backbone.spec.name}' (family {family})", fits)


def prepare_method(
    preset: str, backbone: Backbone, concept: ConceptSpec, settings: Sequence[str], checkpoint: Checkpoint | None = None,
    cache: Path | None = None, tell: Tell = quiet, make: bool = True,
) -> MethodOnConcept:
    """Prepare a preset for a concept, on a checkpoint where one is given.

    make: whether what takes long may be made now; else a method raises `Unmade`.

    Raises `UsageError` where it does not fit the backbone, `MissingError` with the command that makes what is missing.
    """
    from srbench.methods.base import Active

    name, _ = plugins.preset(preset)
    cls = plugins.load("methods", name)
    meta, family = cls.meta, backbone.spec.family
    check_fit(preset, meta, backbone)
    options, changed = options_of(preset, settings, family, concept.kind)
    makes = meta.get("prepare") == "make"
    info = info_of(backbone, checkpoint, weights=makes, cache=cache, tell=tell, make=make)
    with (
        laid_over(backbone.pipeline, checkpoint) if makes else nullcontext(),
        kept_as_it_was(backbone, preset) if makes else nullcontext(),
        contained(f"making {preset} ready for {concept.name}", module_of(cls)),
    ):
        returned = cls.prepare(info, shown_to(meta, concept), options)
        artifact = _whole(f"{preset}: what `prepare` returned{at(cls.prepare)}", returned)
    sha = artifact.sha256 if artifact else ""
    return MethodOnConcept(
        preset=preset, name=name, version=meta["version"], options=options, active=Active(cls, artifact, options),
        artifact_sha=sha, variant=options_text(options, changed, sha), decides=bool(meta["decides"]),
        concept_sha=concept_sha(concept, family) if meta["reads_concept"] else "",
        prepare_seconds=artifact.prepare_seconds if artifact else 0.0, parameters=artifact.parameters if artifact else 0,
        source=code.source_of("methods", name),
    )


def _whole(what: str, artifact: Any) -> Artifact | None:
    """The artifact, if it is one. Raises `ForeignError` for anything else: its hash is part of every image's key.

    what: whose it is, for messages.
    """
    if artifact is None:
        return None
    if not isinstance(artifact, Artifact) or re.fullmatch("[0-9a-f]{64}", str(artifact.sha256)) is None:
        raise ForeignError(f"{what} has no sha256", f"Return base.Artifact(payload, sha256) or None. {GUIDE}")
    numbers = artifact.parameters, artifact.prepare_seconds
    if not all(isinstance(number, int | float) and math.isfinite(number) and number >= 0 for number in numbers):
        raise ForeignError(f"{what} says no number for what it cost", "Mend its `parameters` or `prepare_seconds`.")
    return replace(artifact, card=plain(artifact.card))
