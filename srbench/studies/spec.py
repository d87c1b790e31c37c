"""What a study says: its steps, and the jobs that they come to. The options of a step are those of its command.

A job is one training, one checkpoint, one search, one run, one folder of pictures or one grid, for one concept. Values of its
fields may be `Made`: what an earlier job makes, which is known when that job is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from srbench.attacks.command import AttackOptions
from srbench.engine.erasing import EraseOptions
from srbench.engine.request import RunOptions
from srbench.engine.training import TrainOptions
from srbench.scoring.layouts import ScoreRequest

WORDS = {
    "methods": "method", "suites": "suite", "concepts": "concept", "settings": "set", "categories": "category",
    "columns": "column", "layout": "as",
}  # fmt: skip
"""Field of an options class -> the word for it in a study: the command line's."""
PLURALS = {"methods": "method", "suites": "suite", "concepts": "concept", "categories": "category", "columns": "column"}
"""What may be written in place of a word."""
OF_STUDY = frozenset({
    "out", "device", "gpus", "ray", "ray_gpus", "ray_cpus", "reference", "shard", "sheet", "checkpoints", "trace_steps",
})  # fmt: skip
"""Fields that are the study's, from the command line, or that a study has no use for."""
REDIRECTOR = "redirector"
"""A word for `saferedir.redirector` in `set`."""


@dataclass(frozen=True)
class Kind:
    """A kind of step."""

    verb: str
    options: type[Any]
    subject: str
    """The field that the verb's value fills."""
    more: tuple[str, ...] = ()
    """Words that no option has."""
    without: frozenset[str] = frozenset()
    """Fields that a step may not set."""

    @property
    def words(self) -> dict[str, str]:
        """Word -> field; words of `more` stand for themselves."""
        excluded = OF_STUDY - ({"reference"} if self.verb == "score" else set()) | self.without | {self.subject}
        words = {WORDS.get(each.name, each.name): each.name for each in fields(self.options) if each.name not in excluded}
        return words | {word: word for word in self.more}


KINDS = {
    kind.verb: kind
    for kind in (
        Kind("train", TrainOptions, "method"),
        Kind("erase", EraseOptions, "method"),
        Kind("attack", AttackOptions, "name", (REDIRECTOR,)),
        Kind("run", RunOptions, "methods", (REDIRECTOR,)),
        Kind("score", ScoreRequest, "folders"),
        Kind("grid", RunOptions, "methods", ("options", "by", "per"), frozenset({"dev", "sweep", "score", "on", "settings"})),
    )
}


class Choice(BaseModel):
    """How a grid chooses: what it tries, and what is best."""

    model_config = ConfigDict(extra="forbid", strict=True)

    options: list[dict[str, Any]] = Field(min_length=1)
    """Grids of the preset's options, option -> values; each is taken whole, and `{}` is the preset as it is."""
    by: list[list[str]] = Field(min_length=1)
    """Metrics. The mean within each list, the harmonic mean of those; rates of which less is better are turned first."""
    per: Literal["concept", "kind"] = "concept"
    """For what one choice is made."""


@dataclass(frozen=True)
class Made:
    """What a job makes, as a value of another."""

    job: Job


Settings = tuple[tuple[str, str | Made], ...]
"""(`NAME.OPTION`, value); of a `Made` grid the name is empty: it stands for the settings that were chosen."""


@dataclass(frozen=True, eq=False)
class Job:
    """One thing to do."""

    step: str
    verb: str
    concepts: tuple[str, ...]
    called: str
    """The last name of what it makes: tables show it."""
    title: str
    """For people."""
    values: Mapping[str, Any]
    """Field of the options class -> value; `settings` are `Settings`."""
    choice: Choice | None = None
    points: tuple[Settings, ...] = ()
    """Of a grid: the settings to try."""

    @property
    def needs(self) -> tuple[Job, ...]:
        """The jobs whose output this one reads."""
        return tuple(dict.fromkeys(made.job for made in _made_in(tuple(self.values.values()))))


def _made_in(value: Any) -> Iterator[Made]:
    if isinstance(value, Made):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _made_in(each)


@dataclass(frozen=True)
class Step:
    """A step with its jobs, in order."""

    name: str
    verb: str
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Study:
    """A study as it was read."""

    path: Path
    name: str
    text: str
    sha256: str
    steps: tuple[Step, ...]
    lines: Mapping[str, int] = field(default_factory=dict)
    """Step -> the line on which it begins."""
