"""Tables as they are, byte for byte: on a terminal in colour, plain and narrow, and in the formats that had them first.

`--write-golden texts` writes them anew: read the diff.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from srbench.analysis import changes, differences, formats, robustness, table
from srbench.cli import compare
from srbench.tables import terminal, write
from srbench.tables.spec import TableSpec
from tests.tables import inputs
from tests.tables.conftest import SPEC

HERE = Path(__file__).parent / "pinned"
PAPER = TableSpec.model_validate(SPEC)
TABLES: dict[str, Callable[[int, bool], RenderableType]] = {
    "boards": lambda width, plain: table.render(inputs.cells(), None, width, None, plain),
    "boards-sorted": lambda width, plain: table.render(inputs.cells(), {"igmu": "a footnote"}, width, "fsr", plain),
    "changes": lambda width, plain: changes.render(inputs.comparisons(), Path("results"), width, plain),
    "changes-elsewhere": lambda width, plain: changes.render(inputs.comparisons(), Path("my results"), width, plain),
    "attacks": lambda width, plain: table.render_matrices(inputs.matrices(), width, plain),
    "costs": lambda width, plain: table.render_costs(inputs.costs(), plain),
    "costs-of-one-backbone": lambda width, plain: table.render_costs(inputs.costs()[1:], plain),
    "sensitivity": lambda width, plain: table.render_sensitivity(inputs.curves(), width, plain),
    "papers": lambda width, plain: terminal.render(write.laid_out([PAPER], inputs.cells_of_papers(), pocket=False)),
    "papers-pocket": lambda width, plain: terminal.render(write.laid_out([PAPER], inputs.cells_of_papers(), pocket=True)),
}
FORMS = {"colour-120": (120, False), "plain-100": (100, True), "plain-60": (60, True)}


def shown(name: str, form: str) -> str:
    """A table on a console."""
    width, plain = FORMS[form]
    console = Console(
        width=width, file=io.StringIO(), force_terminal=not plain, color_system=None if plain else "standard",
        legacy_windows=False, markup=False, emoji=False, highlight=False,
    )  # fmt: skip
    console.print(TABLES[name](width, plain))
    return console.file.getvalue()


TEXTS: dict[str, Callable[[], str]] = {
    **{f"boards.{form}": lambda form=form: formats.write(inputs.cells(), form) for form in formats.FORMATS},
    **{f"evil.{form}": lambda form=form: formats.write(inputs.evil_cells(), form) for form in formats.FORMATS},
    **{
        f"papers{'-pocket' * pocket}.{form}": lambda form=form, pocket=pocket: write.write(
            [PAPER], inputs.cells_of_papers(), form, pocket
        )
        for form in write.ENDINGS for pocket in (False, True)
    },
    "attacks.md": lambda: formats.matrices_markdown([*inputs.matrices(), *inputs.matrices(inputs.HOSTILE)]),
    "attacks.json": lambda: dumped({"attacks": [robustness.to_dict(matrix) for matrix in inputs.matrices()]}),
    "costs.json": lambda: dumped({"costs": [asdict(cost) for cost in inputs.costs()]}),
    "sensitivity.json": lambda: dumped({"sensitivity": [compare._rates(curve) for curve in inputs.curves()]}),
    "changes.json": lambda: dumped({"comparisons": [differences.to_dict(each) for each in inputs.comparisons()]}),
}


def dumped(value: Any) -> str:
    """As `console.write_json` writes it, without what it escapes for the terminal."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def same(path: Path, text: str, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-golden") == "texts":
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert text.encode("utf-8", "surrogatepass") == path.read_bytes()


@pytest.mark.parametrize("name", TEXTS)
def test_a_format_writes_what_it_wrote(name: str, request: pytest.FixtureRequest) -> None:
    same(HERE / name, TEXTS[name](), request)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TABLES)
def test_the_terminal_shows_what_it_showed(name: str, form: str, request: pytest.FixtureRequest) -> None:
    same(HERE / f"{name}-{form}.txt", shown(name, form), request)
