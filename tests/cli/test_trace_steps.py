"""`run --trace-steps` on the command line: what it cannot go with is one line before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_cli import call

RUN = ("run", "--method", "none,saferedir", "--suite", "igmu", "--limit", "1", "--trace-steps", "2")


@pytest.mark.parametrize(("more", "why"), [
    (("--sample-only",), "--sample-only makes none"), (("--shard", "1/2"), "a shard is a part of one"),
    (("--ray", "auto"), "leave that to actors"), (("--method", "saferedir"), "Add none to --method"),
    (("--trace-steps", "0"), "--trace-steps 0: expected 1 or more"),
])  # fmt: skip
def test_what_it_cannot_go_with_is_one_line(more: tuple[str, ...], why: str, tmp_path: Path) -> None:
    code, _, err = call(*RUN, *more, "--out", str(tmp_path / "out"))
    assert code == 2
    assert why in err
    assert not (tmp_path / "out").exists()
