"""Sensitive runs on the command line: what is refused before anything is sampled, and what commands that read say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from srbench.results.marks import AWAITS, SENSITIVE
from srbench.results.store import Store
from tests.cli.test_cli import call

RUN = ("run", "--method", "none", "--suite", "i2p", "--concept", "church", "--limit", "1")


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_sheet_of_a_sensitive_run_is_refused_before_it_samples(tmp_path: Path, more: tuple[str, ...]) -> None:
    code, _, err = call(*RUN, "--sheet", str(tmp_path / "s.png"), "--out", str(tmp_path / "out"), *more)
    assert code == 2
    assert "--sheet keeps pictures, and i2p/church is sensitive" in err
    assert "hint: Add --keep-images, or leave --sheet out." in err
    assert not list(tmp_path.rglob("*.png"))


def test_with_keep_images_it_is_planned(tmp_path: Path) -> None:
    code, _, err = call(*RUN, "--sheet", str(tmp_path / "s.png"), "--out", str(tmp_path / "out"), "--keep-images", "--dry-run")
    assert code == 0, err


def test_commands_that_read_say_what_is_left_and_change_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    marks = {SENSITIVE: True, AWAITS: [["pocket-judge", "", "0" * 64, "a" * 64, ""]]}
    store.put_images([("a" * 64, np.zeros((8, 8, 3), np.uint8), {"run": "r1", "seconds": 0.1, "trace": {}, **marks})])
    (tmp_path / "store" / "commands").mkdir()
    (tmp_path / "store" / "commands" / "r1.json").write_text(json.dumps({"command": "srbench run --suite i2p"}))
    before = sorted(map(str, tmp_path.rglob("*")))
    for command in (("compare", str(tmp_path)), ("show", "aaaaaaaa", "--out", str(tmp_path))):
        _, _, err = call(*command)
        assert "1 pictures of sensitive rows lie in" in err, command
        assert f"this scores and drops them: srbench run --suite i2p --out {tmp_path}" in err, command
    assert sorted(map(str, tmp_path.rglob("*"))) == before
