"""The model of a table: what every format writes and a terminal shows. Texts in it are plain; each writer escapes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Align = Literal["l", "r", "w"]
SHORT = 17
"""Characters up to which a reason stands in its field; a longer one stands below the table."""


class Column(NamedTuple):
    """A column's heading, and how its items stand."""

    heading: str
    """A line end stands where a narrow column may go on below."""
    align: Align = "r"
    """`l`eft, `r`ight, or `w`rapped words on the left."""
    narrow: str = ""
    """The heading on a terminal, over several lines; empty: as it is."""
    beside: bool = False
    """Whether it stays with the first columns where a terminal has to write the others further below."""
    wraps: bool = True
    """Whether a terminal may break its items."""


class Item(NamedTuple):
    """One field of a table."""

    text: str
    small: str = ""
    """Small print behind or below the text, such as an interval."""
    bounds: tuple[str, ...] = ()
    """Further small print: the range where rows failed, how many did, a p-value."""
    mark: str = ""
    """A word in small print behind everything."""
    tail: str = ""
    """Goes on behind the text on the same line, less prominent."""
    reason: str = ""
    """Why there is no value; a long one stands below the table, under a number."""
    best: bool = False
    """Whether it is the best value of its column: bold, with a star."""
    strong: bool = False
    """Bold without a star."""
    narrow: str = ""
    """The text on a terminal, over several lines; empty: as it is."""

    @property
    def whole(self) -> str:
        """The text with what goes on behind it."""
        return self.text + self.tail


class Section(NamedTuple):
    """Lines that belong together. heading: what sets them apart from those above; empty for the first."""

    heading: str
    lines: tuple[tuple[Item, ...], ...]


class Detail(NamedTuple):
    """A list below a table, such as the rows that flipped."""

    heading: str
    lines: tuple[Item, ...]


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    caption: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    name: str = ""
    """What it is called on the command line; empty where it has no such name."""
    summary: str = ""
    """One line on what the table shows."""
    details: tuple[Detail, ...] = ()

    @property
    def lines(self) -> Iterator[tuple[Item, ...]]:
        """Of all sections."""
        return (line for section in self.sections for line in section.lines)


@dataclass(frozen=True)
class Layout:
    """How tables of one kind look different from those of another kind."""

    paper: bool = False
    """As the tables of papers: the title is a heading with the caption below it, LaTeX breaks long headings, and HTML says of
    each field how it is aligned. Otherwise title and caption are one line."""
    blocks: bool = True
    """Whether a terminal writes columns that do not fit as a further table below; otherwise it breaks items."""
    titled: bool = True
    """Whether a terminal writes the title."""


BOARD = Layout()


@dataclass(frozen=True)
class Tables:
    """Everything that one command shows: sheets for people, the same for programs with numbers that are not rounded."""

    title: str
    """Of a page that holds them all."""
    sheets: tuple[Sheet, ...]
    fields: tuple[str, ...]
    """Columns of CSV."""
    records: Sequence[Mapping[str, Any]]
    """Lines of CSV by field; a field that is missing is empty."""
    data: Mapping[str, Any]
    """JSON: every number in it is finite."""
    layout: Layout = BOARD


class Reasons:
    """Reasons of one table. Those too long for a field have numbers, in the order in which they are first met."""

    def __init__(self) -> None:
        self.long: list[str] = []

    def brief(self, reason: str) -> str:
        """A short reason itself, the number of a long one."""
        if len(reason) <= SHORT:
            return reason
        if reason not in self.long:
            self.long.append(reason)
        return str(self.long.index(reason) + 1)

    def notes(self) -> list[str]:
        """A note for each number."""
        return [f"n/a ({number}): {reason}" for number, reason in enumerate(self.long, 1)]
