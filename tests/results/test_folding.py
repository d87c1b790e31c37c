"""Small ledgers become one without losing a line, whoever reads, writes or dies meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srbench.files import this_host
from srbench.hashing import canonical, digest
from srbench.results import folding, records
from srbench.results.store import Ledger, Store
from tests.results.kills import FAILED, KILLED, Deaths, forked

ENDED = 2**22 + 1
"""No process has this number: it is above what Linux gives."""


def name(kind: str, number: int, pid: int = ENDED) -> str:
    return f"{kind}-{1_700_000_000_000_000_000 + number:x}-{this_host()}-{pid}-{number:08x}.jsonl"


def image(number: int, **more: Any) -> dict[str, Any]:
    same = {"bytes": 10, "seconds": 0.1, "run": "r", "batch": 0, "trace": {}}
    return {"key": digest(number), "pixel_sha": digest([number]), **same, **more}


def write(folder: Path, file: str, lines: list[dict[str, Any]], end: str = "\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    path.write_text("\n".join(map(canonical, lines)) + end)
    return path


def found(folder: Path) -> dict[str, Any]:
    return dict(Store.peek(folder.parent, indexed=False).images.items())


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Twenty ledgers of ended processes; the last one marks the first one's image as dropped."""
    folder = tmp_path / "store" / "ledger"
    for number in range(20):
        write(folder, name("images", number), [image(number), image(100 + number)])
    write(folder, name("images", 20), [image(0, dropped=True)])
    assert len(found(folder)) == 40
    return folder


def test_many_become_one_with_every_line(many: Path) -> None:
    before = found(many)
    assert folding.fold(many, "images", 10) == 21
    (path,) = records.ledger_files(many, "images")
    assert found(many) == before
    assert before[digest(0)]["dropped"]
    assert len(path.read_text().splitlines()) == 41
    assert folding.fold(many, "images", 2) == 0


def test_few_stay_as_they_are(many: Path) -> None:
    assert folding.fold(many, "images", 22) == 0
    assert len(records.ledger_files(many, "images")) == 21


def test_the_later_of_two_lines_stays_the_later_one_around_a_ledger_that_is_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "ledger"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        try:
            now = time.time_ns()
            old = [write(folder, name("images", number), [image(number), image(50, run=f"r{number}")]) for number in range(4)]
            used = write(folder, f"images-{now:x}-{this_host()}-{other.pid}-00000000.jsonl", [image(50, run="in use")])
            young = f"images-{now + 9:x}-{this_host()}-{ENDED}-0000000"
            late = [write(folder, f"{young}{each}.jsonl", [image(50, run=f"late{each}")]) for each in range(3)]
            assert folding.fold(folder, "images", 3) == 7
            assert used.exists()
            assert not any(path.exists() for path in (*old, *late))
            assert [path.name < used.name for path in records.ledger_files(folder, "images")] == [True, False, False]
            assert found(folder)[digest(50)]["run"] == "late2"
        finally:
            other.kill()


def test_a_folded_ledger_is_folded_again_under_a_name_that_does_not_grow(many: Path) -> None:
    folding.fold(many, "images", 10)
    (first,) = records.ledger_files(many, "images")
    for number in range(30, 40):
        write(many, name("images", number), [image(number)])
    before = found(many)
    assert folding.fold(many, "images", 10) == 11
    (second,) = records.ledger_files(many, "images")
    assert found(many) == before
    assert len(second.name) == len(first.name)


def test_large_ledgers_are_not_copied(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "LARGEST", 1000)
    large = write(many, name("images", 10), [image(number) for number in range(200, 220)])
    assert folding.fold(many, "images", 10) == 20
    assert large.exists()


@pytest.mark.parametrize(("end", "kept", "said"), [
    ('\n{"key": "ab', 2, 0), ("", 2, 0), ("\n{\r}", 2, 1), ("\nno record\n", 2, 1),
], ids=["torn", "no end", "changed by something else", "damaged"])  # fmt: skip
def test_last_lines_are_read_as_before(end: str, kept: int, said: int, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "ledger"
    write(folder, name("images", 1), [image(1), image(2)], end)
    write(folder, name("images", 2), [image(3)])
    before = found(folder)
    assert len(before) == kept + 1
    assert folding.fold(folder, "images", 2) == 2
    lines: list[str] = []
    assert dict(Store.peek(folder.parent, lines.append, indexed=False).images.items()) == before
    assert len(lines) == said


def _killed(at: int, after: bool, folder: Path) -> Callable[[], None]:
    def do() -> None:
        Deaths(at, after).install()
        folding.fold(folder, "images", 10)

    return do


def _points() -> Iterator[tuple[int, bool]]:
    return ((at, after) for at in range(1, 26) for after in (False, True))


@pytest.mark.parametrize(("at", "after"), _points())
def test_a_process_that_is_killed_loses_no_line(at: int, after: bool, many: Path, tmp_path: Path) -> None:
    before, say = found(many), tmp_path / "said"
    code = forked(_killed(at, after, many), say)
    assert code != FAILED, say.read_text()
    assert code in (0, KILLED)
    assert found(many) == before
    folding.fold(many, "images", 2)
    assert found(many) == before
    assert len(records.ledger_files(many, "images")) == 1


def test_the_deaths_are_reached(many: Path, tmp_path: Path) -> None:
    assert forked(_killed(1, False, many), tmp_path / "said") == KILLED
    assert forked(_killed(23, False, many), tmp_path / "said") == KILLED


def test_a_line_that_is_written_meanwhile_is_not_lost(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = many / name("images", 7)

    def fsync_folder(folder: Path) -> None:
        with late.open("a") as handle:
            handle.write(canonical(image(77)) + "\n")

    monkeypatch.setattr(folding, "fsync_folder", fsync_folder)
    assert folding.fold(many, "images", 10) == 20
    assert late.exists()
    assert digest(77) in found(many)


def test_a_writer_whose_ledger_goes_while_it_writes_writes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store" / "ledger").mkdir(parents=True)
    ledger = Ledger(tmp_path / "store" / "ledger", "images")
    ledger.append([image(1)])
    real, gone = os.fsync, [ledger.path]

    def fsync(handle: int) -> None:
        real(handle)
        if gone:
            gone.pop().unlink()

    monkeypatch.setattr(os, "fsync", fsync)
    ledger.append([image(2)])
    monkeypatch.undo()
    ledger.append([image(3)])
    assert set(found(ledger.folder)) == {digest(2), digest(3)}, "line 1 was in the file that the test deleted"


def test_who_had_opened_the_store_before_still_finds_every_record(many: Path) -> None:
    before = found(many)
    reader, other = Store.peek(many.parent), Store.peek(many.parent)
    folding.fold(many, "images", 10)
    assert {key: reader.images[key] for key in before} == before
    assert dict(other.images.items()) == before


def test_a_store_that_is_opened_for_writing_folds_and_says_so(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding.fold, "__defaults__", (10,))
    lines: list[str] = []
    before = found(many)
    Store(many.parent, lines.append, tidy=False)
    assert lines == []
    store = Store(many.parent, lines.append)
    assert lines == ["21 small ledgers of processes that have ended were folded"]
    assert dict(store.images.items()) == before
    store.put_images([(digest(500), np.zeros((4, 4, 3), np.uint8), {"seconds": 0.1, "run": "r", "batch": 0, "trace": {}})])
    assert set(found(many)) == {*before, digest(500)}


def test_a_folder_that_cannot_be_written_to_stays_as_it_is(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding.fold, "__defaults__", (10,))

    def refuse(*given: Any, **named: Any) -> Any:
        raise PermissionError(13, "not writable")

    monkeypatch.setattr(folding, "written_whole", refuse)
    before = found(many)
    assert dict(Store(many.parent).images.items()) == before
    assert len(records.ledger_files(many, "images")) == 21
