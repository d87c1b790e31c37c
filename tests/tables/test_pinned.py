"""Tables as they are, byte for byte: on a terminal in colour, plain and narrow, and in every format.

`--write-golden texts` writes them anew: read the diff.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from srbench.tables import attacks, boards, changes, costs, formats, sensitivity, terminal
from srbench.tables.papers import sheets
from srbench.tables.papers.spec import TableSpec
from srbench.tables.sheet import Tables
from tests.tables import inputs
from tests.tables.conftest import SPEC

HERE = Path(__file__).parent / "pinned"
PAPER = TableSpec.model_validate(SPEC)
TABLES: dict[str, Tables] = {
    "boards": boards.tables(inputs.cells()),
    "boards-sorted": boards.tables(inputs.cells(), {"igmu": "a footnote"}, "fsr"),
    "changes": changes.tables(inputs.comparisons(), Path("results")),
    "changes-elsewhere": changes.tables(inputs.comparisons(), Path("my results")),
    "attacks": attacks.tables(inputs.matrices()),
    "costs": costs.tables(inputs.costs()),
    "costs-of-one-backbone": costs.tables(inputs.costs()[1:]),
    "sensitivity": sensitivity.tables(inputs.curves()),
    "papers": sheets.tables([PAPER], inputs.cells_of_papers(), pocket=False),
    "papers-pocket": sheets.tables([PAPER], inputs.cells_of_papers(), pocket=True),
}
FORMS = {"colour-120": (120, False), "plain-100": (100, True), "plain-60": (60, True)}


def shown(name: str, form: str) -> str:
    """A table on a console."""
    width, plain = FORMS[form]
    console = Console(
        width=width, file=io.StringIO(), force_terminal=not plain, color_system=None if plain else "standard",
        legacy_windows=False, markup=False, emoji=False, highlight=False,
    )  # fmt: skip
    tables = TABLES[name]
    console.print(terminal.render(tables, width, plain))
    return console.file.getvalue()


WRITTEN: dict[str, Tables] = {
    **{f"{name}.{form}": tables for name, tables in TABLES.items() for form in formats.FORMATS},
    **{f"evil.{form}": boards.tables(inputs.evil_cells()) for form in formats.FORMATS},
    "attacks-evil.md": attacks.tables([*inputs.matrices(), *inputs.matrices(inputs.HOSTILE)]),
}


def same(path: Path, text: str, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-golden") == "texts":
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert text.encode("utf-8", "surrogatepass") == path.read_bytes()


@pytest.mark.parametrize("name", WRITTEN)
def test_a_format_writes_what_it_wrote(name: str, request: pytest.FixtureRequest) -> None:
    text = formats.write(WRITTEN[name], name.rpartition(".")[2])
    same(HERE / name, text.rstrip("\n") if name.endswith(".json") else text, request)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TABLES)
def test_the_terminal_shows_what_it_showed(name: str, form: str, request: pytest.FixtureRequest) -> None:
    same(HERE / f"{name}-{form}.txt", shown(name, form), request)
