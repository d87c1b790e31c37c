"""Typed specs of published tables, and their reader.

A figure is written as it is printed, as text: its digits decide what the arithmetic check can say.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, StringConstraints, field_validator, model_validator

from srbench.catalog import load, resolve
from srbench.catalog.specs import Better, Flag, Spec, Whole
from srbench.errors import UsageError

KIND = "results/published"
POCKET = "pocket"
SIGNS = "<>≈"
Printed = Annotated[str, StringConstraints(pattern=rf"^[{SIGNS}]?\d+(\.\d+)?$")]
"""As printed; `>94` and `≈50` where that is all that is said."""
OWN = "@own"
"""Ends a pocket column's suite that names an attack: the prompts that it made against the row itself."""
UNDER_PUBLISHED_NAMES = ("lpips", "lpips_64", "fid", "kid", "pp", "csdr_igmu")
"""Metrics that pocket has stand-ins for, which go by other names."""


class Source(Spec):
    """Where figures were read."""

    title: str
    where: str = ""
    """Address, repository or file."""
    note: str = ""


class Column(Spec):
    """One metric of a published table."""

    name: str
    title: str
    better: Better
    unit: Literal["percent", "share", "plain"]
    """`share`: a rate between 0 and 1; srbench measures rates in percent."""
    rate: Flag = False
    """Whether it is k of n, so that the arithmetic check applies."""
    n: Whole | None = Field(None, gt=0)
    """Images or prompts behind each of its figures, where that is said."""
    candidates: tuple[Whole, ...] = ()
    """Sizes that the check tries where n is not said, or does not fit."""
    measured: str = ""
    """The metric of srbench that stands beside it."""
    complement: Flag = False
    """Whether it is 100 % less that metric."""
    attack: str = ""
    """Measured on the prompts that this attack made against the row itself, not on the row's suite."""
    unmeasured: str = ""
    """Why no metric of srbench stands beside it."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Column:
        if bool(self.measured) == bool(self.unmeasured):
            raise ValueError("give measured, or unmeasured with the reason: one of the two")
        if self.complement and self.unit == "plain":
            raise ValueError("only rates have a complement")
        if self.attack and not self.measured:
            raise ValueError("attack says on which prompts measured is taken; give measured")
        return self


class Figure(Spec):
    """One published number."""

    column: str
    value: Printed
    source: str
    """Key of the table's sources."""
    n: Whole | None = Field(None, gt=0)
    """In place of the column's."""
    candidates: tuple[Whole, ...] = ()
    """In place of the column's."""
    note: str = ""

    @property
    def sign(self) -> str:
        """`<`, `>`, `≈`, or nothing."""
        return self.value[0] if self.value[0] in SIGNS else ""

    @property
    def digits(self) -> str:
        """The number without its sign."""
        return self.value.removeprefix(self.sign)


class _OnCheckpoint(Spec):
    """A spec with the key `on`, which YAML 1.1 reads as true."""

    on: str = "none"

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_word(cls, data: Any) -> Any:
        return {"on" if key is True else key: value for key, value in data.items()} if isinstance(data, dict) else data


class CellOf(_OnCheckpoint):
    """The cell of srbench that a row corresponds to."""

    backbone: str
    concept: str
    suite: str
    method: str = "none"
    variant: str = ""
    protocol: str = ""
    """Empty where the paper's judge is not known: then any cell fits, and the table names its judge."""

    @field_validator("backbone")
    @classmethod
    def _never_pocket(cls, backbone: str) -> str:
        if backbone == POCKET:
            raise ValueError("pocket never stands beside published figures; it has an edition of its own")
        return backbone


class PublishedRow(Spec):
    """One row: figures, and columns that the paper has but whose figures are not known here."""

    label: str
    figures: tuple[Figure, ...] = ()
    unknown: tuple[str, ...] = ()
    run: CellOf | None = None
    """None where no cell of srbench can stand for it; then `note` says why."""
    note: str = ""

    @model_validator(mode="after")
    def _says_something(self) -> PublishedRow:
        if not self.figures and not self.unknown:
            raise ValueError("a row needs figures, or columns whose figures are unknown")
        if self.run is None and not self.note:
            raise ValueError("a row without a cell needs a note that says why")
        doubled = {figure.column for figure in self.figures} & set(self.unknown)
        if doubled:
            raise ValueError(f"'{min(doubled)}' cannot be known and unknown")
        return self


class PocketRow(_OnCheckpoint):
    """One row of the pocket edition: a method, what it is stacked on, and a variant (`*` stands for anything)."""

    label: str
    method: str
    variant: str = ""


class PocketColumn(NamedTuple):
    """A metric on a suite, or on an attack's prompts."""

    suite: str
    metric: str

    @property
    def attack(self) -> str:
        """The attack whose prompts were made against the row itself; empty for a suite."""
        return self.suite.removesuffix(OWN) if self.suite.endswith(OWN) else ""


class PocketEdition(Spec):
    """Which pocket cells stand for a table: one table a concept, under pocket's own metric names."""

    note: str
    concepts: tuple[str, ...] = ()
    columns: tuple[Annotated[str, StringConstraints(pattern=rf"^[a-z0-9-]+({OWN})?\.[a-z0-9_]+$")], ...] = ()
    """`suite.metric`, or `attack@own.metric`"""
    only: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Column -> concepts, of columns that not all concepts have."""
    rows: tuple[PocketRow, ...] = ()
    cannot: str = ""
    """Why pocket has nothing that stands for this table."""

    @model_validator(mode="after")
    def _whole(self) -> PocketEdition:
        filled = (bool(self.concepts), bool(self.columns), bool(self.rows))
        if any(filled) == bool(self.cannot) or any(filled) != all(filled):
            raise ValueError("give concepts, columns and rows, or cannot")
        named = {concept for concepts in self.only.values() for concept in concepts}
        strangers = set(self.only) - set(self.columns) | named - set(self.concepts)
        if strangers:
            raise ValueError(f"only: the edition has no column or concept '{min(strangers)}'")
        borrowed = {column.rpartition(".")[2] for column in self.columns} & set(UNDER_PUBLISHED_NAMES)
        if borrowed:
            raise ValueError(f"'{min(borrowed)}' is a published name; pocket's stand-in has its own")
        return self

    def columns_of(self, concept: str) -> tuple[PocketColumn, ...]:
        """The concept's columns as suite and metric."""
        chosen = (column for column in self.columns if concept in self.only.get(column, self.concepts))
        return tuple(PocketColumn(*column.split(".")) for column in chosen)


class TableSpec(Spec):
    """One published table."""

    name: str
    title: str
    paper: str
    """arXiv number or address."""
    where: str
    """Section, table or leaderboard."""
    about: str
    """What is measured in which rows."""
    sources: dict[str, Source]
    columns: tuple[Column, ...]
    rows: tuple[PublishedRow, ...]
    notes: tuple[str, ...] = ()
    pocket: PocketEdition

    @model_validator(mode="after")
    def _refers_to_itself(self) -> TableSpec:
        columns = {column.name for column in self.columns}
        for row in self.rows:
            for name in (*(figure.column for figure in row.figures), *row.unknown):
                if name not in columns:
                    raise ValueError(f"row '{row.label}' names the column '{name}', which the table does not have")
            for figure in row.figures:
                if figure.source not in self.sources:
                    raise ValueError(f"row '{row.label}' names the source '{figure.source}', which the table does not have")
        return self

    def column(self, name: str) -> Column:
        """A column by name."""
        return next(column for column in self.columns if column.name == name)


@cache
def published() -> dict[str, TableSpec]:
    """Every published table by name. Raises `UsageError` that names file and key, or a name that is not the file's."""
    specs = {}
    for file, path in resolve.files(KIND).items():
        spec = load.parse_yaml(path, TableSpec)
        if f"{spec.name}.yaml" != file:
            raise UsageError(f"{path}: its name is '{spec.name}'", f"Name the file {spec.name}.yaml.")
        specs[spec.name] = spec
    return dict(sorted(specs.items()))
