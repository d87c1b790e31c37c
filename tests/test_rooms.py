"""The plan of the rooms: imports point one way, from later rooms to earlier ones, and no files import each other in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "srbench"
ORDER = (
    "version", "downloads", "errors", "files", "faults", "rules", "hashing", "progress", "shards", "stopping", "fetching",
    "outputs",
    "catalog", "pocket", "backbones", "methods", "scorers", "analysis", "results", "tables", "scoring", "engine", "attacks",
    "testing", "studies", "report", "exports", "scaffold", "cli", "api", "pocket_build", "__main__", "__init__",
)  # fmt: skip
"""Files of the ground floor and rooms, lowest first."""
TORCH = ("torch", "diffusers", "transformers", "open_clip")
LIGHT = (
    "version", "downloads", "errors", "files", "faults", "rules", "hashing", "shards", "stopping", "fetching", "outputs",
    "catalog", "analysis", "tables",
    "results", "report", "exports", "scaffold", "cli",
)  # fmt: skip
"""Rooms that a table, a list or a help text needs: no import of theirs at the top of a file brings torch."""


def modules() -> dict[str, Path]:
    """Dotted name -> file."""
    named = {path.relative_to(PACKAGE.parent).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in named.items()}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(path: Path, known: dict[str, Path], at_top: bool = False) -> Iterator[str]:
    """Modules that a file imports, also inside of functions and for types; at_top: only where the file itself is read."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else node.module


MODULES = modules()
EDGES = {name: set(imported(path, MODULES)) & MODULES.keys() - {name} for name, path in MODULES.items()}


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in EDGES} == set(ORDER)


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(EDGES).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of files: {' -> '.join(error.args[1])}")


def test_imports_point_from_later_rooms_to_earlier_ones() -> None:
    up = [
        f"{name} imports {other}"
        for name, others in EDGES.items() for other in others
        if ORDER.index(room(other)) > ORDER.index(room(name))
    ]  # fmt: skip
    assert not up


def test_analysis_holds_numbers_and_no_text_of_tables() -> None:
    texts = [
        f"{name} imports {other}"
        for name, path in MODULES.items() if room(name) == "analysis"
        for other in imported(path, MODULES) if other.split(".")[0] == "rich" or other.startswith("srbench.tables")
    ]  # fmt: skip
    assert not texts


def test_tables_are_written_in_one_place_a_format() -> None:
    """Markdown's, LaTeX's and HTML's lines of a table; the report's page is a template, and its figures are SVG."""
    written = {"md": '"---"', "latex": r"\begin{table}", "html": "<tbody>", "csv": "DictWriter(", "rich": "Table("}
    rooms = [path for name, path in MODULES.items() if room(name) in ("analysis", "tables")]
    for format, text in written.items():
        places = {path.name for path in rooms if text in path.read_text(encoding="utf-8")}
        assert places == {"terminal.py" if format == "rich" else "formats.py"}, text


def test_no_light_room_imports_torch_at_its_top() -> None:
    heavy = [
        f"{name} imports {other}"
        for name, path in MODULES.items() if room(name) in LIGHT
        for other in imported(path, MODULES, at_top=True) if other.split(".")[0] in TORCH
    ]  # fmt: skip
    assert not heavy
