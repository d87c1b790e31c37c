"""The index of ledgers: it says what reading every line says, whatever happened to it or to them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.results import index, leftovers, records
from srbench.results.index import EMPTY, Lines, read_index
from srbench.results.marks import merged
from srbench.results.store import Store

KEYS = [f"{i:02x}{'0' * 62}" for i in range(6)]
"""They end in zero bytes, which numpy drops."""
SHAS = ["a" * 64, "b" * 64]


@pytest.fixture(autouse=True)
def _written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "WRITTEN_FROM", 1)


def record(key: int, **more: Any) -> dict[str, Any]:
    return {"key": KEYS[key], "pixel_sha": SHAS[0], "seconds": 0.1, "trace": {}, "bytes": 5, **more}


def written(folder: Path, name: str, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"images-{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def opened(root: Path, writes: bool = True, said: list[str] | None = None) -> Lines:
    told = said if said is not None else []
    lines = Lines(root / "ledger", "images", "key", merged, told.append, root / "index" / "images", writes)
    lines.open()
    return lines


def naive(root: Path) -> dict[str, Any]:
    """Every line, read one after the other."""
    found: dict[str, Any] = {}
    for line in records.ledger(root / "ledger", "images", records.silent):
        found[line["key"]] = merged(found.get(line["key"]), line)
    return found


RECORDS = st.builds(
    record, st.integers(0, 5), pixel_sha=st.sampled_from(SHAS), dropped=st.booleans(), sensitive=st.booleans(),
    marked=st.integers(0, 3), seconds=st.sampled_from([0.1, 0.2]),
)  # fmt: skip
LEDGERS = st.lists(st.lists(RECORDS, max_size=6), max_size=5)


@settings(deadline=None, max_examples=60)
@given(before=LEDGERS, after=LEDGERS)
def test_it_says_what_reading_every_line_says(
    before: list[Any], after: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("store")
    (root / "ledger").mkdir()
    for number, lines in enumerate(before):
        written(root / "ledger", f"{number}", lines)
    assert dict(opened(root)) == naive(root)
    for number, lines in enumerate(after):  # some files are new, some are other ones than before
        written(root / "ledger", f"{2 * number}", lines)
    whole = naive(root)
    for found in (opened(root, writes=False), opened(root), opened(root)):
        assert dict(found) == dict(found.items()) == whole
        assert sorted(map(repr, found.values())) == sorted(map(repr, whole.values()))
        assert len(found) == len(whole)
        assert {key for key in KEYS if key in found} == whole.keys()
        for flag in ("dropped", "sensitive"):
            assert found.flagged(flag) == {key for key, line in whole.items() if line.get(flag)}
        assert {line["key"] for line in found.sample(100)} == whole.keys()
        for sha in (*SHAS, "c" * 64, "no hash"):
            about = {line["key"]: line for line in found.about(sha)}
            assert about == {key: line for key, line in whole.items() if line["pixel_sha"] == sha}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    written(tmp_path / "ledger", "1", [record(0), record(1)])
    written(tmp_path / "ledger", "2", [record(1, seconds=0.5), record(2, dropped=True)])
    opened(tmp_path)
    assert len(read_index(tmp_path / "index" / "images").keys) == 4
    return tmp_path


def test_with_an_index_no_line_is_read_to_open(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "lines", lambda path: pytest.fail(f"{path} was read"))
    lines = opened(root)
    assert lines[KEYS[1]]["seconds"] == 0.5
    assert lines.flagged("dropped") == {KEYS[2]}


def test_a_file_that_grew_or_changed_is_read_anew(root: Path) -> None:
    path = written(root / "ledger", "2", [record(1, seconds=0.5), record(2, dropped=True), record(3)])
    assert set(opened(root, writes=False)) == set(KEYS[:4])
    path.write_text(path.read_text().replace("0.5", "0.7"))
    os.utime(path, ns=(1, 1))
    assert opened(root)[KEYS[1]]["seconds"] == 0.7
    path.unlink()
    assert set(opened(root)) == set(KEYS[:2])


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_damage_to_the_index_changes_nothing_that_is_said(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("store")
    written(root / "ledger", "1", [record(0), record(1)])
    opened(root)
    path = root / "index" / "images"
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    path.write_bytes(data.draw(st.sampled_from([flipped, whole[:at], whole[at:], b"", whole + b"x", b"\0" * len(whole)])))
    assert dict(opened(root, writes=False)) == naive(root)


def test_an_index_that_lies_is_found_out_when_a_line_is_read(root: Path) -> None:
    """Places that hold other lines: the ledgers are read anew."""
    path = root / "index" / "images"
    table = read_index(path)
    places = table.places.copy()
    places["start"] = places["start"][::-1].copy()
    places["size"] = places["size"][::-1].copy()
    index.write_index(path, index.Table(table.files, table.keys.copy(), places))
    lines = opened(root, writes=False)
    assert {key: lines[key] for key in KEYS[:3]} == naive(root)


def test_an_index_that_cannot_be_written_is_done_without(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    written(root / "ledger", "3", [record(number) for number in range(6)])
    monkeypatch.setattr(os, "replace", full)
    assert dict(opened(root)) == naive(root)
    assert not list(root.rglob("*.tmp"))


def test_damaged_lines_are_said_at_every_start(root: Path) -> None:
    path = written(root / "ledger", "3", [record(3), record(4)])
    path.write_text("{}\n" + path.read_text())
    told = []
    for _ in range(3):
        said: list[str] = []
        opened(root, said=said)
        told.append(said)
    assert told[0] == told[1] == told[2]
    assert "images-3.jsonl: 1 line is damaged" in told[0][0]


def test_a_ledger_that_another_process_rewrites_meanwhile_is_found_again(root: Path) -> None:
    lines = opened(root)
    written(root / "ledger", "1", [{**record(number), "run": "another line's length"} for number in (0, 1)])
    lines[KEYS[5]] = record(5)
    del lines[KEYS[2]]
    assert lines[KEYS[0]]["run"] == "another line's length"
    assert set(lines) == {KEYS[0], KEYS[1], KEYS[5]}, "what was done meanwhile stays"


def test_what_was_written_and_forgotten_stands_before_the_ledgers(root: Path) -> None:
    lines = opened(root)
    lines[KEYS[0]] = record(0, seconds=9.0)
    lines[KEYS[5]] = record(5, sensitive=True)
    del lines[KEYS[1]]
    assert {key: line["seconds"] for key, line in lines.items()} == {KEYS[0]: 9.0, KEYS[2]: 0.1, KEYS[5]: 0.1}
    assert dict(lines) == dict(lines.items())
    assert lines.flagged("sensitive") == {KEYS[5]}
    assert [line["key"] for line in lines.about(SHAS[0])] == [KEYS[0], KEYS[2], KEYS[5]]
    with pytest.raises(KeyError):
        lines[KEYS[1]]
    with pytest.raises(KeyError):
        del lines[KEYS[1]]
    assert "no key" not in lines
    assert lines.get("0123") is None


def test_memory_does_not_grow_with_what_was_looked_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "KEPT", 2)
    lines = opened(root)
    assert [lines[key]["key"] for key in KEYS[:3]] == KEYS[:3]
    assert len(lines._read) <= 2


def test_a_small_store_has_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    written(tmp_path / "ledger", "1", [record(0)])
    opened(tmp_path)
    assert read_index(tmp_path / "index" / "images") is EMPTY


# --- names of ledgers -------------------------------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path: Path) -> Path:
    (tmp_path / "ledger").mkdir(parents=True)
    return tmp_path / "ledger"


@pytest.mark.parametrize(("name", "busy"), [
    ("images-{now:x}-{host}-{me}-0123abcd.jsonl", False), ("images-{now:x}-{host}-{parent}-0123abcd.jsonl", True),
    ("images-{now:x}-another-host-1-0123abcd.jsonl", True), ("images-{now:x}-{parent}-0123abcd.jsonl", True),
    ("images-{now:x}-{parent}.jsonl", True), ("images-{now:x}-{parent}-01234567.jsonl", True), ("images-0.jsonl", False),
    ("scores-1-4194303.jsonl", False),
])  # fmt: skip
def test_whose_ledger_it_is(name: str, busy: bool, named: Path) -> None:
    from srbench.files import this_host

    path = named / name.format(now=time.time_ns(), host=this_host(), me=os.getpid(), parent=os.getppid())
    path.write_text("")
    assert leftovers.at_work(path) is busy


def test_a_ledger_of_another_host_is_at_rest_after_a_day(named: Path) -> None:
    path = named / "images-1-another-host-1-0123abcd.jsonl"
    path.write_text("")
    os.utime(path, (0, 0))
    assert not leftovers.at_work(path)


def test_a_ledger_s_name_has_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srbench.files._HOST", "node-7")
    name = Store(tmp_path)._image_ledger.path.name
    assert f"-node-7-{os.getpid()}-" in name
