"""Downloads what a run needs: `srbench fetch` for Python.

What is missing is found as a run would find it: every part of the run is located, and each `MissingError` says with which
download it is mended. Some parts can only be looked for once others are here, so it is looked for again after each round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from srbench.backbones import places
from srbench.backbones.choose import chosen
from srbench.backbones.loader import locate
from srbench.catalog import load, plugins
from srbench.downloads import Download
from srbench.engine import auto
from srbench.engine.doctor import lacking_judges, opened
from srbench.engine.onnames import expanded, taken_apart
from srbench.engine.request import RunOptions
from srbench.errors import MissingError, SrbenchError, UsageError, did_you_mean
from srbench.files import kind_of_path

ROUNDS = 4
"""A run's parts are looked for in at most so many rounds."""


@dataclass(frozen=True)
class FetchOptions:
    """What is fetched, in the command line's words: the parts of a run, or single things by name."""

    backbone: str = "pocket"
    methods: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    """Checkpoints of `baselines`; `none`, paths and what a run makes itself are skipped."""
    scorers: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    protocol: str | None = None
    prompts: Path | None = None
    dev: bool = False

    @property
    def run(self) -> bool:
        """Whether a run's prompts and judges are asked for."""
        return bool(self.methods or self.suites or self.concepts or self.protocol or self.prompts)


@dataclass(frozen=True)
class Missing:
    """What is not here: what can be fetched, and what a person has to do."""

    downloads: tuple[Download, ...]
    by_hand: tuple[str, ...]
    """Lines on what no download mends, each with its hint."""


def missing(options: FetchOptions) -> Missing:
    """Everything that is not here. Raises `UsageError` for an unknown name."""
    errors = list(_errors(options))
    downloads = dict.fromkeys(each for error in errors for each in getattr(error, "downloads", ()))
    by_hand = dict.fromkeys(error.line for error in errors if not getattr(error, "downloads", ()))
    return Missing(tuple(downloads), tuple(by_hand))


def _errors(options: FetchOptions) -> Iterator[SrbenchError]:
    spec = chosen(auto.WANTED if options.backbone == auto.AUTO else options.backbone)
    yield from _raised(locate, spec)
    known = load.baselines()
    for name in dict.fromkeys(taken_apart(each).base for each in expanded(options.on)):
        if name in known:
            yield from _raised(places.locate, known[name])
        elif name not in {"none", *plugins.presets()} and kind_of_path(places.path_of(name)) == "nothing":
            raise UsageError(f"unknown checkpoint '{name}'", did_you_mean(name, known))
    if options.run:
        planned = RunOptions(
            methods=options.methods or ("none",), suites=options.suites or (() if options.prompts else ("igmu",)),
            concepts=options.concepts, settings=options.settings, protocol=options.protocol, prompts=options.prompts,
            dev=options.dev,
        )
        yield from auto.lacking(planned, spec)
        yield from lacking_judges(planned, spec)
    for name in options.scorers:
        if name not in plugins.plugins("scorers"):
            raise UsageError(f"unknown scorer '{name}'", did_you_mean(name, plugins.plugins("scorers")))
        yield from _raised(opened, name, options.settings)


def _raised(look: Callable[..., object], *given: object) -> Iterator[SrbenchError]:
    try:
        look(*given)
    except MissingError as error:
        yield error
