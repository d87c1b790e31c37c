"""What a run needs made before it can be planned: checkpoints of weight methods, and what methods make once for a concept.

Each is a job with a name, so that actors can make them side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from srbench.backbones.loader import Backbone
from srbench.catalog import load, plugins
from srbench.catalog.joint import joint
from srbench.catalog.specs import ConceptSpec
from srbench.engine.checkpoints import Checkpoints, Job, job_of, kept, made
from srbench.engine.plan import grid
from srbench.engine.prepare import is_weight, prepare_method
from srbench.engine.request import RunRequest
from srbench.engine.sweep import parsed
from srbench.errors import SrbenchError, Unmade, UsageError
from srbench.methods.base import Tell, quiet


@dataclass(frozen=True)
class ToMake:
    """One thing to make."""

    concept: str
    """Its name; of several that are unlearned at once all names with commas."""
    on: str
    """The weight preset, or the checkpoint under a method."""
    settings: tuple[str, ...]
    method: str = ""
    """The method that makes something once; empty for a checkpoint."""
    below: int = 0
    """For a checkpoint: 0 is the preset's own, 1 the one that it is based on, and so on."""

    @property
    def name(self) -> str:
        """All of it as one text."""
        return json.dumps([self.concept, self.on, list(self.settings), self.method, self.below])

    @classmethod
    def of(cls, name: str) -> ToMake:
        """The job of a name."""
        concept, on, settings, method, below = json.loads(name)
        return cls(concept, on, tuple(settings), method, below)

    @property
    def title(self) -> str:
        """For people."""
        if self.method:
            return f"{self.method}{f' on {self.on}' if self.on != 'none' else ''} for {self.concept}"
        return f"{'what is below ' * self.below}{self.on} for {self.concept}"


def unmade(request: RunRequest, backbone: Backbone) -> Iterator[list[ToMake]]:
    """What is not made yet of a request, in stages: those of one stage do not need each other.

    What cannot be told here, such as a wrong option, is left to the plan, which says it.
    """
    jobs = list(_checkpoints(request, backbone))
    for below in sorted({job.below for job in jobs}, reverse=True):
        yield [job for job in jobs if job.below == below]
    yield list(_prepared(request, backbone))


def make_ready(name: str, request: RunRequest, backbone: Backbone, tell: Tell = quiet) -> None:
    """Make the job of that name, unless it is there. Raises as the method does."""
    to_make = ToMake.of(name)
    concepts, folder = load.concepts_of(backbone.spec, to_make.concept.split(",")), request.out / "store" / "checkpoints"
    concept = joint(concepts, backbone.spec.family)
    if to_make.method:
        under = Checkpoints(backbone, to_make.settings, folder, tell, make=False, joint=_at_once(request, backbone))
        checkpoint = under.get(to_make.on, concept).checkpoint
        prepare_method(to_make.method, backbone, concept, to_make.settings, checkpoint, folder, tell)
        return
    made(_below(job_of(to_make.on, backbone, concept, to_make.settings), to_make.below), backbone, concept, folder, tell)


def _variants(request: RunRequest) -> list[tuple[str, ...]]:
    """The settings of a request, or of each value of its sweep."""
    if request.sweep is None:
        return [request.settings]
    return [(*request.settings, setting) for setting in parsed(request.sweep).settings]


def _concepts(request: RunRequest, backbone: Backbone) -> list[ConceptSpec]:
    return list(load.concepts_of(backbone.spec, request.concepts))


def _at_once(request: RunRequest, backbone: Backbone) -> tuple[ConceptSpec, ...]:
    """The concepts that weight methods unlearn at once; empty where each has checkpoints of its own."""
    return tuple(_concepts(request, backbone)) if request.joint else ()


def _unlearned(request: RunRequest, backbone: Backbone) -> Iterator[tuple[str, ConceptSpec]]:
    """What checkpoints are made for, with its name as `ToMake.concept`; nothing for concepts that do not go together."""
    at_once = _at_once(request, backbone)
    if at_once:
        with suppress(UsageError):  # the plan says it
            yield ",".join(concept.name for concept in at_once), joint(at_once, backbone.spec.family)
    else:
        yield from ((concept.name, concept) for concept in _concepts(request, backbone))


def _below(job: Job, steps: int) -> Job:
    for _ in range(steps):
        assert job.base is not None
        job = job.base
    return job


def _checkpoints(request: RunRequest, backbone: Backbone) -> Iterator[ToMake]:
    """Checkpoints that are not there, each once, with those that they are based on."""
    folder = request.out / "store" / "checkpoints"
    presets = dict.fromkeys(on for _, on in grid(request.methods, request.on) if on in plugins.presets() and is_weight(on))
    seen: list[Job] = []
    for settings in _variants(request):
        for name, concept in _unlearned(request, backbone):
            for preset in presets:
                try:
                    job: Job | None = job_of(preset, backbone, concept, settings)
                except SrbenchError:
                    continue
                below = 0
                while job is not None and job not in seen and kept(job, folder, backbone) is None:
                    seen.append(job)
                    yield ToMake(name, preset, settings, below=below)
                    job, below = job.base, below + 1


def _prepared(request: RunRequest, backbone: Backbone) -> Iterator[ToMake]:
    """What methods make once for a concept and a checkpoint, where it is not there."""
    folder = request.out / "store" / "checkpoints"
    seen: list[tuple[str, str, str, tuple[str, ...]]] = []
    for settings in _variants(request):
        for concept in _concepts(request, backbone):
            for method, on in grid(request.methods, request.on):
                place = (method, on, concept.name, settings)
                if place in seen or plugins.plugins("methods")[plugins.preset(method)[0]].meta.get("prepare") != "make":
                    continue
                seen.append(place)
                try:
                    under = Checkpoints(backbone, settings, folder, make=False, joint=_at_once(request, backbone))
                    checkpoint = under.get(on, concept).checkpoint
                    prepare_method(method, backbone, concept, settings, checkpoint, folder, make=False)
                except Unmade:
                    yield ToMake(concept.name, on, settings, method)
                except SrbenchError:
                    continue
