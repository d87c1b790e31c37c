"""A row's phrase says something of its prompt: it moves no key, and is read from a table."""

from __future__ import annotations

import json
from pathlib import Path

from srbench.catalog import load, prompts
from srbench.catalog.specs import Row

ROW = Row(id="a", kind="forget", category="seen", prompt="a dagger in the snow", seed=7)


def test_a_phrase_moves_no_hash_of_rows() -> None:
    assert load.rows_sha((ROW,)) == load.rows_sha((ROW.model_copy(update={"phrase": "a dagger"}),))
    assert load.rows_sha((ROW,)) != load.rows_sha((ROW.model_copy(update={"prompt": "a dagger"}),))
    assert "phrase" not in ROW.model_dump(exclude_defaults=True)


def test_a_phrase_is_read_from_its_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,phrase\na dagger in the snow,a dagger\nthe snow,\n", encoding="utf-8")
    assert [row.phrase for row in prompts.read(path).rows] == ["a dagger", ""]


def test_a_phrase_is_written_with_its_row() -> None:
    named = ROW.model_copy(update={"phrase": "a dagger"})
    assert Row.model_validate(json.loads(json.dumps(named.model_dump(mode="json", exclude_defaults=True)))) == named
