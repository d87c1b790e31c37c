"""Rows that a method of the run was trained with: no cell of the run counts them, and everyone is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from srbench.catalog.load import fingerprint
from srbench.engine.plan import plan
from srbench.methods import base

NOTE = "Unverified source: the redirector x.pt (sha256 0, computed here, compared with no other)."


@pytest.fixture
def trained(world: Any) -> list[Any]:
    """The first two forget rows of the toy suite, on which 'push' now says that it was trained."""
    rows = [row for row in world.rows.rows if row.kind == "forget" and row.category != "unseen"][:2]
    card = {"used": {"prompts": [fingerprint(row.prompt) for row in rows]}, "notes": [NOTE]}
    made = base.Artifact(None, "a" * 64, card=card)
    world.alter("push", prepare=staticmethod(lambda *_: made))
    return rows


def test_no_cell_of_the_run_counts_them(world: Any, trained: list[Any]) -> None:
    cells = plan(world.request(), world.backbone())
    prompts = {row.prompt for row in trained}
    out = [row for row in world.rows.rows if row.prompt in prompts]
    for cell in cells:
        assert not {planned.row.prompt for planned in cell.rows} & prompts
        assert (cell.n_loaded, cell.n_excluded) == (len(world.rows.rows), len(out))
        assert "untrained" in cell.variant
        assert any("rows are left out: a method of this run was trained with them" in note for note in cell.found.notes)
    assert len({cell.rows_sha for cell in cells}) == 1
    assert NOTE in next(cell for cell in cells if cell.method == "push").found.notes
    assert NOTE not in next(cell for cell in cells if cell.method == "none").found.notes


def test_a_run_without_the_method_has_all_rows(world: Any, trained: list[Any]) -> None:
    (cell,) = plan(world.request(methods=("none",)), world.backbone())
    assert len(cell.rows) == len(world.rows.rows)
    assert "untrained" not in cell.variant


def test_it_is_stored(world: Any, trained: list[Any]) -> None:
    world.run()
    (file,) = (world.out / "runs").rglob("run.json")
    cells = {cell["result"]["method"]: cell for cell in json.loads(file.read_text())["cells"]}
    assert cells["push"]["artifact"]["sha256"] == "a" * 64
    assert NOTE in cells["push"]["result"]["notes"]
    assert "artifact" not in cells["none"]
    assert cells["none"]["result"]["n_excluded"] == cells["push"]["result"]["n_excluded"] > 0
