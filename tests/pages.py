"""The commands of README.md and docs/, as they stand in blocks: lines that are indented by four spaces or more."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
MARKS = ("needs a GPU", "needs a network", "your files", "hours", "a cluster")
"""What a comment begins with that says why no test runs a command. More may follow, behind a comma, a colon or a semicolon."""
ALIKE = re.compile(r"(needs?|takes?|wants|your|hours?|minutes?|days?|a cluster|a gpu|a network|not run)\b", re.IGNORECASE)
"""How a comment begins that is a mark, or is taken for one by who reads it."""
PROGRAMS = ("srbench", ".venv/bin/srbench", "make", "python", "pip", "uv", "pytest", "git", "curl", "hf", "sbatch")
COMMAND = re.compile(rf"(?:{'|'.join(map(re.escape, PROGRAMS))})(?: |$)")
COMMENT = re.compile(r"(?:^|\s)#\s+(?P<text>.*)$")
FENCE = re.compile(r"^ {0,3}```")


@dataclass(frozen=True)
class Command:
    """A command of a block, with what the page shows of its output."""

    page: str
    line: int
    text: str
    """Without its comment, on one line."""
    comment: str
    block: str
    """The comment in the first line of its block, which is said of the whole block; else empty."""
    shown: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def mark(self) -> str:
        """Why no test runs it, or nothing."""
        return marked(self.comment) or marked(self.block)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def marked(comment: str) -> str:
    """The mark that a comment begins with, or nothing."""
    return next((mark for mark in MARKS if re.match(rf"{mark}(?=$|[,:;])", comment)), "")


def split_comment(line: str) -> tuple[str, str]:
    """A command line and the comment behind it."""
    found = COMMENT.search(line)
    return (line[: found.start()].rstrip(), found["text"]) if found else (line.rstrip(), "")


Line = tuple[int, str]


def blocks(text: str) -> Iterator[list[Line]]:
    """The indented blocks of a page, each as its lines without the block's indent. Fenced blocks are files, no commands."""
    block: list[Line] = []
    fenced, indent = False, 0
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        fenced ^= bool(FENCE.match(line))
        if fenced or not line.startswith("    "):
            if block:
                yield block
            block = []
            continue
        indent = indent if block else len(line) - len(line.lstrip())
        block.append((number, line[indent:] if not line[:indent].strip() else line.strip()))


def joined(block: list[Line]) -> list[Line]:
    """Lines that end in a backslash with those behind them."""
    lines: list[Line] = []
    for number, line in block:
        if lines and lines[-1][1].endswith("\\"):
            lines[-1] = (lines[-1][0], lines[-1][1][:-1] + line.lstrip())
        else:
            lines.append((number, line))
    return lines


def commands_of(page: Path) -> list[Command]:
    """The commands in the blocks of a page, in their order.

    In a block with `$ ` the lines behind a command are its output; else each line is a command that begins like one. A block
    that begins with `#!` is a script.
    """
    found = []
    for block in map(joined, blocks(page.read_text(encoding="utf-8"))):
        if block[0][1].startswith("#!"):
            continue
        said = COMMENT.match(block[0][1])
        transcript = any(line.startswith("$ ") for _, line in block)
        starts = [
            place for place, (_, line) in enumerate(block)
            if (line.startswith("$ ") if transcript else bool(COMMAND.match(line)))
        ]
        for place, end in pairwise([*starts, len(block)]):
            number, line = block[place]
            text, comment = split_comment(line.removeprefix("$ "))
            shown = tuple(line for _, line in block[place + 1 : end]) if transcript else ()
            found.append(Command(page.name, number, text, comment, said["text"] if said else "", shown))
    return found


def all_commands() -> list[Command]:
    return [command for page in PAGES for command in commands_of(page)]
