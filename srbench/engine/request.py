"""A run's request, and what a plan makes of it: cells, their rows, and the images that they need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from srbench.analysis.records import label
from srbench.backbones.checkpoint import Checkpoint
from srbench.catalog import sources
from srbench.catalog.specs import ConceptSpec, ProtocolSpec, Row, SuiteSpec
from srbench.engine.prepare import MethodOnConcept
from srbench.errors import SrbenchError
from srbench.results.keys import ImageSpec
from srbench.shards import Shard


@dataclass(frozen=True)
class RunOptions:
    """A run's options in the command line's words, before they are resolved."""

    backbone: str = "pocket"
    """A name, a folder, a file of weights, a hub id, or `auto`."""
    methods: tuple[str, ...] = ("none", "saferedir")
    on: tuple[str, ...] = ("none",)
    """Checkpoints under the methods; `none` is the untouched backbone."""
    suites: tuple[str, ...] = ("igmu",)
    """Empty where `prompts` is a suite of its own."""
    concepts: tuple[str, ...] = ()
    """Empty: the backbone's first."""
    joint: bool = False
    """Whether a weight method makes one checkpoint for all concepts."""
    dev: bool = False
    limit: int | None = None
    """Rows a kind."""
    seed: int = 0
    batch_size: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    settings: tuple[str, ...] = ()
    """`NAME.OPTION=VALUE` of methods and scorers."""
    protocol: str | None = None
    """None: the concept's."""
    scorers: tuple[str, ...] = ()
    out: Path = Path("results")
    score: bool = True
    keep_images: bool = False
    prompts: Path | None = None
    accept_prompts: bool = False
    categories: tuple[str, ...] = ()
    reference: bool = False
    compile: str = "auto"
    gpus: str | None = None
    durable: str = "each"
    """When images are synced to the disk: `each`, `batch` or `none`."""
    ray: str | None = None
    """`auto`, `local`, or the address of a cluster whose actors sample and score."""
    ray_gpus: float | None = None
    """Cards of an actor."""
    ray_cpus: float | None = None
    """Cores of an actor."""
    sheet: bool = False
    sweep: str | None = None
    columns: tuple[str, ...] = ()
    """`FIELD=COLUMN` each."""
    shard: str | None = None
    """`I/N` or `auto`: only this part of the images; no run is written."""
    trace_steps: int | None = None
    """Strips of steps for at most so many rows a cell whose verdict flipped; None for none."""


@dataclass(frozen=True)
class RunRequest:
    """A run's resolved options. None of them enters a key as such."""

    backbone: str
    methods: tuple[str, ...]
    on: tuple[str, ...]
    suites: tuple[str, ...]
    concepts: tuple[str, ...]
    part: str
    limit: int | None
    seed: int
    batch_size: int
    dtype: str
    settings: tuple[str, ...]
    """`NAME.OPTION=VALUE` of methods and scorers."""
    protocol: str | None
    scorers: tuple[str, ...]
    out: Path
    score: bool = True
    keep_images: bool = False
    device: str = "cpu"
    prompts: Path | None = None
    """The user's copy of the suite; the suite itself where none is named."""
    accept_prompts: bool = False
    categories: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    """(row field, column of `prompts` that holds it)."""
    sweep: str | None = None
    """`METHOD.OPTION=V1,V2,...`: a variant for each value."""
    joint: bool = False
    """Whether a weight method makes one checkpoint for all concepts."""
    shard: Shard | None = None
    """The part of the images that is sampled and scored; None for all, of which a run is written."""

    @property
    def given(self) -> sources.Given:
        """The options that concern reading the suites' rows."""
        return sources.Given(self.prompts, self.accept_prompts, self.categories, self.columns)


@dataclass(frozen=True)
class Planned:
    """One image to have: its spec, and the method and checkpoint that make it."""

    spec: ImageSpec
    method: MethodOnConcept
    checkpoint: Checkpoint | None = None
    picture: Path | None = None
    """The user's picture that the image begins from."""

    @cached_property
    def key(self) -> str:
        """The image key."""
        return self.spec.key()


@dataclass(frozen=True)
class PlannedRow:
    """A row and its images."""

    row: Row
    image: Planned
    reference: Planned | None = None
    floor: Planned | None = None


@dataclass
class Cell:
    """One planned cell of the grid. `blocked` holds the error where it cannot run."""

    method: str
    on: str
    suite: SuiteSpec
    concept: ConceptSpec
    protocol: ProtocolSpec
    variant: str
    family: str = ""
    """The backbone's."""
    found: sources.Found = field(default_factory=lambda: sources.Found(()))
    """Rows as they were read, with notes and flags."""
    prompts: Path | None = None
    """The user's copy that the rows were read from."""
    columns: tuple[tuple[str, str], ...] = ()
    """(row field, its column) for each that the user named."""
    n_loaded: int = 0
    n_excluded: int = 0
    rows: list[PlannedRow] = field(default_factory=list)
    scorers: tuple[str, ...] = ()
    sensitive: bool = False
    rows_sha: str = ""
    blocked: SrbenchError | None = None
    decides: bool = False
    applied: MethodOnConcept | None = None
    """The method; None where the cell is blocked."""
    checkpoint: Checkpoint | None = None

    @property
    def title(self) -> str:
        """Short name for progress lines."""
        return f"{self.suite.name}/{self.concept.name}/{label(self)}"

    def images(self) -> Iterable[Planned]:
        """Every image the cell needs, rows first."""
        for planned in self.rows:
            yield planned.image
        for planned in self.rows:
            yield from (s for s in (planned.reference, planned.floor) if s is not None)
