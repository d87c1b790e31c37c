"""Damaged and foreign records: named once, left out, never guessed at, and never a traceback; good ones beside them are shown."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.errors import SrbenchError, UsageError
from srbench.hashing import canonical
from srbench.results import records
from srbench.results.run_files import newest, next_place, read_run, run_id, write_run
from srbench.results.store import Store
from srbench.rules import Misfit, check
from tests.report.conftest import Made, rows
from tests.results.mutants import DEEP, ESCAPE, mutants

A, B, C = "a" * 64, "b" * 64, "c" * 64
SCORE = {"score_key": A, "image": B, "identity": C, "scorer": "s", "fields": "{}", "raw": {"objects": {"cat": 0.5}}}
IMAGE = {"key": A, "pixel_sha": B, "seconds": 0.1, "trace": {}, "bytes": 10}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A results folder with one good run."""
    (tmp_path / "results").mkdir()
    found = Made(tmp_path / "results")
    found.run(rows(1))
    return found


def ledger(folder: Path, content: bytes, kind: str = "scores") -> tuple[list[Any], list[str]]:
    """What is read of a ledger file, and what is said."""
    (folder / f"{kind}-1.jsonl").write_bytes(content)
    said: list[str] = []
    return list(records.ledger(folder, kind, said.append)), said


def line(record: Any) -> bytes:
    return canonical(record).encode() + b"\n"


# --- ledgers ----------------------------------------------------------------------------------------------------------

HARMLESS = {
    "a byte order mark": b"\xef\xbb\xbf" + line(SCORE), "CRLF": line(SCORE).replace(b"\n", b"\r\n"),
    "blank lines": b"\n\r\n  \n" + line(SCORE) + b"\n\n", "a torn last line": line(SCORE) + line(SCORE)[:50],
    "keys that are not known": line({**SCORE, "later": [1]}), "no last line end": line(SCORE)[:-1],
}  # fmt: skip
DAMAGED: dict[str, bytes] = {
    "no object": b"[1]\n", "a text": b'"x"\n', "null": b"null\n", "no JSON": b"{'a': 1}\n", "NUL": b"\0" * 40 + b"\n",
    "UTF-16": canonical(SCORE).encode("utf-16"), "bad bytes": b"\xff\xfe\n", "deep": b"[" * 100_000 + b"\n",
    "a huge integer": line({**SCORE, "raw": {"x": 10**300}}), "digits": line(SCORE).replace(b"0.5", b"9" * 6000),
    "infinite": line(SCORE).replace(b"0.5", b"1e999"), "NaN": line(SCORE).replace(b"0.5", b"NaN"),
    "infinite in a list": line(SCORE).replace(b"0.5", b"[1e999]"),
    "a key twice": line(SCORE).replace(b'{"fields"', b'{"image":1,"fields"'),
    "a path for a key": line({**SCORE, "image": "../../x"}), "old Mac line ends": line(SCORE).replace(b"\n", b"\r") * 2,
    "a key of another type": line({**SCORE, "score_key": 1}), "raw of another type": line({**SCORE, "raw": [1]}),
    "long": b'{"a":"' + b"x" * records.MAX_LINE + b'"}\n',
    **{f"without {name}": line({k: v for k, v in SCORE.items() if k != name}) for name in SCORE},
}  # fmt: skip


@pytest.mark.parametrize("content", HARMLESS.values(), ids=HARMLESS)
def test_what_is_no_damage_is_read_without_a_word(content: bytes, tmp_path: Path) -> None:
    found, said = ledger(tmp_path, content)
    assert len(found) == 1
    assert found[0]["score_key"] == A
    assert said == []


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_is_named_once_and_the_good_ones_are_read(content: bytes, tmp_path: Path) -> None:
    good = line({**SCORE, "score_key": B})
    found, said = ledger(tmp_path, good + content * 2 if content.endswith(b"\n") else good + content)
    assert [record["score_key"] for record in found] == [B]
    assert len(said) == 1
    assert "scores-1.jsonl" in said[0]
    assert "line 2: " in said[0]
    assert said[0].isprintable()
    assert len(said[0]) < 300


@pytest.mark.parametrize("wrong", [
    {"key": "../../x"}, {"key": A.upper()}, {"seconds": -1}, {"seconds": True}, {"seconds": "1"}, {"bytes": -1}, {"bytes": 1.5},
    {"trace": []}, {"dropped": "false"}, {"batch": "0"}, {"run": 1}, {"pixel_sha": A[:-1]}, {"elsewhere": 1}, {"peak_mb": []},
])  # fmt: skip
def test_an_image_with_a_wrong_value_is_left_out(wrong: dict[str, Any], tmp_path: Path) -> None:
    found, said = ledger(tmp_path, line(IMAGE) + line({**IMAGE, **wrong}), "images")
    assert found == [IMAGE]
    assert next(iter(wrong)) in said[0]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


PLACED: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir, "fifo": _fifo, "dangling link": lambda path: path.symlink_to("nowhere"), "socket": _socket,
}  # fmt: skip


@pytest.mark.parametrize("place", ["store", "store/ledger", "store/images", "store/ledger/scores-9.jsonl", "store/version"])
@pytest.mark.parametrize("kind", PLACED)
def test_what_is_no_file_in_a_records_place_is_one_line(kind: str, place: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has to be short
    path = Path("r") / place
    path.parent.mkdir(parents=True)
    PLACED[kind](path)
    for open_store in (Store.peek, Store):
        if place == "store/version" and kind == "dangling link":
            continue  # is replaced
        if kind == "folder" and not place.endswith(("version", "jsonl")):
            open_store(Path("r") / "store")
            continue
        with pytest.raises(UsageError) as caught:
            open_store(Path("r") / "store")
        assert caught.value.line.isprintable()


@pytest.mark.parametrize("kind", [kind for kind in PLACED if kind != "folder"])
def test_runs_that_are_no_folder_are_one_line(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    PLACED[kind](Path("runs"))
    with pytest.raises(UsageError, match=f"a {kind}, not a folder"):
        newest(Path(), print)


@pytest.mark.parametrize("kind", PLACED)
def test_what_is_no_file_in_a_runs_place_is_named_and_the_rest_is_shown(kind: str, made: Made, monkeypatch: Any) -> None:
    monkeypatch.chdir(made.folder)
    place = Path("runs/20260201T000000-000000/run.json")
    place.parent.mkdir()
    PLACED[kind](place)
    said: list[str] = []
    assert {cell.method for cell in newest(Path(), said.append)} == {"none", "saferedir"}
    assert len(said) == 1
    assert f"a {kind}, not a file" in said[0]


@pytest.mark.parametrize("text", [b"", b"\xff\x00", b"-1", b"0", "\u00b2".encode(), b"1.0", b"9" * 5000, b"1\n1", b"true"])
def test_a_version_of_any_content_is_one_line(text: bytes, tmp_path: Path) -> None:
    Store(tmp_path)
    (tmp_path / "version").write_bytes(text)
    for open_store in (Store, Store.peek):
        with pytest.raises(UsageError, match="version") as caught:
            open_store(tmp_path)
        assert caught.value.line.isprintable()


# --- run files --------------------------------------------------------------------------------------------------------


def _run(made: Made) -> dict[str, Any]:
    path = min((made.folder / "runs").glob("*/run.json"))
    data: dict[str, Any] = json.loads(path.read_text())
    data["cells"][0]["suite"] = {"attack": False, "metrics": ["fsr"], "sensitive": False, "family": "pocket", "sha256": ["a"]}
    return {**data, "order": 3, "after": None, "finished": "2026-01-01T00:00:00Z"}


def test_every_mutant_of_a_run_file_is_read_or_named(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "x" / "run.json"
    path.parent.mkdir()
    counts = {"read": 0, "part": 0, "refused": 0}
    for name, data in mutants(_run(made)):
        path.write_text(json.dumps(data))
        said: list[str] = []
        try:
            read_run(path, said.append)
            counts["part" if said else "read"] += 1
        except UsageError as error:
            counts["refused"] += 1
            said.append(error.line)
        assert all(text.isprintable() for text in said), name
    assert counts["refused"] > 500
    assert counts["part"] > 1000
    assert counts["read"] < 500, "texts that nobody reads, and what may be left out"


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b"\xff", b"\0" * 100, b"[" * 100_000, b'{"schema": 1}',
    b'{"schema": 1, "schema": 1, "run": "x", "cells": []}',
    b'{"schema": NaN}', b'{"schema": true, "run": "x", "cells": []}', b'{"schema": 0, "run": "x", "cells": []}',
    b'{"schema": 1, "run": "../x", "cells": []}', b'{"schema": 1, "run": "x", "cells": {}}',
    b'{"schema": 2, "run": "x", "cells": []}',
    b'{"schema": 1, "run": "x", "cells": [], "order": -1}', b'{"schema": 1, "run": "x", "cells": [], "scorers": {"a": 1}}',
])  # fmt: skip
def test_a_damaged_file_beside_a_good_one_is_named(content: bytes, made: Made) -> None:
    for place in ("runs/20260201T000000-000000/run.json", "pocket/summary.json"):
        path = made.folder / place
        path.parent.mkdir()
        path.write_bytes(content)
    said: list[str] = []
    assert {cell.method for cell in newest(made.folder, said.append)} == {"none", "saferedir"}
    assert len(said) == 2
    assert all("damaged run file" in text or "newer srbench" in text for text in said)


def test_where_no_run_file_can_be_read_that_is_said(made: Made) -> None:
    (path,) = (made.folder / "runs").glob("*/run.json")
    path.write_text("{")
    with pytest.raises(UsageError, match="none of its run files can be read"):
        newest(made.folder, print)


@pytest.mark.parametrize(("place", "to", "why"), [
    (("better",), "lower", "higher is better"), (("better",), "up", "expected one of"), (("value",), 200.0, "percentage"),
    (("scored",), 99, "scored of"), (("low",), 99.5, "ends below"), (("n",), -1, "a count"), (("p",), 2, "from 0 to 1"),
    (("reason",), 1, "a text"), (("value",), "1", "a finite number"), (("test",), "t-test", "expected one of"),
])  # fmt: skip
def test_a_wrong_number_costs_its_cell_and_no_other(place: tuple[str], to: Any, why: str, made: Made) -> None:
    (path,) = (made.folder / "runs").glob("*/run.json")
    data = json.loads(path.read_text())
    data["cells"][1]["result"]["metrics"]["fsr"][place[0]] = to
    path.write_text(json.dumps(data))
    said: list[str] = []
    assert [cell.method for cell in newest(made.folder, said.append)] == ["none"]
    assert len(said) == 1
    assert "cells[1]" in said[0]
    assert why in said[0]


def test_rows_that_were_cut_off_are_not_judged_anew(made: Made) -> None:
    (path,) = (made.folder / "runs").glob("*/run.json")
    data = json.loads(path.read_text())
    del data["cells"][1]["rows"][1]
    path.write_text(json.dumps(data))
    result = CliRunner().invoke(app, ["compare", str(made.folder), "--protocol", "pocket-hazard", "--json"])
    assert [cell["method"] for cell in json.loads(result.stdout)["cells"]] == ["none"]
    assert "1 rows, where its numbers are about 2" in result.stderr


ODD_TRACES = ({"unsafe": 1}, {"unsafe": ["x"], "redirected_steps": 1}, {"mask": [1], "alpha": []}, {"x": DEEP[0]}, {"x": ESCAPE})
ODD_RAWS = (
    {"objects": [1]}, {"objects": {"dagger": "x"}}, {"boxes": {"a": 1}}, {"boxes": ["x"]}, {}, {"objects": None}, {"style": 3},
    {"objects": {"dagger": {"a": 1}}},
)  # fmt: skip
COMMANDS = (
    ("compare",), ("compare", "--format", "md"), ("compare", "--format", "json"), ("compare", "--protocol", "pocket-hazard"),
    ("compare", "--attacks"), ("compare", "--costs"), ("compare", "--sensitivity", "--protocol", "pocket-hazard"),
    ("compare", "--baseline", "none"),
)  # fmt: skip


def _odd(made: Made) -> None:
    """Accepted mutants beside the good run, each with a variant of its own; odd traces and scores in the ledgers."""
    data = _run(made)
    changed = ("provenance", "cells.0.result.con", "cells.1.result.me", "scorers")
    kept = [mutant for name, mutant in mutants(data) if name.startswith(changed)]
    for number, mutant in enumerate(kept[::7]):
        for cell in mutant["cells"]:
            cell["result"] = {**cell["result"], "variant": f"alpha_scale={number}"}
        path = made.folder / "runs" / f"20260102T{number:06d}-000000" / "run.json"
        path.parent.mkdir()
        path.write_text(json.dumps(mutant))
    images = made.folder / "store" / "ledger"
    store = Store.peek(made.folder / "store")
    pairs = zip(store.images.values(), ODD_TRACES * 2, strict=False)
    (images / "images-z.jsonl").write_text("".join(json.dumps({**record, "trace": trace}) + "\n" for record, trace in pairs))
    raws = zip(store.scores.values(), ODD_RAWS, strict=False)
    (images / "scores-z.jsonl").write_text("".join(json.dumps({**record, "raw": raw}) + "\n" for record, raw in raws))


def test_every_reader_survives_odd_records(made: Made, tmp_path: Path) -> None:
    _odd(made)
    folder = str(made.folder)
    calls = [[command, folder, *rest] for command, *rest in COMMANDS]
    calls += [
        ["compare", folder, "none", "saferedir"], ["tables", "--results", folder], ["show", "f0", "--out", folder],
        ["show", "20260101T000000-000000", "--out", folder, "--sheet", str(tmp_path / "s.png")],
        ["report", folder, "-o", str(tmp_path / "r.html"), "--images", "8"], ["verify", folder, "--scores", "0"],
    ]  # fmt: skip
    for call in calls:
        done = CliRunner().invoke(app, call)
        assert done.exception is None or isinstance(done.exception, SystemExit), (call, done.exception)
        assert done.exit_code in (0, 1, 3), (call, done.stderr)
        assert "\x1b" not in done.stderr, call


# --- the order of runs ------------------------------------------------------------------------------------------------


def _copy(made: Made, name: str, value: float, **header: Any) -> None:
    data = _run(made)
    data = {name: each for name, each in data.items() if name not in ("order", "after", "finished")}
    data["cells"] = data["cells"][:1]
    data["cells"][0]["result"] |= {"run": name}
    data["cells"][0]["result"]["metrics"]["fsr"] |= {"value": value, "low": value, "high": value}
    path = made.folder / "runs" / name / "run.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**data, "run": name, **header}))


def _fsr(made: Made) -> tuple[float | None, list[str]]:
    said: list[str] = []
    return next(c.metrics["fsr"].value for c in newest(made.folder, said.append) if c.method == "none"), said


def test_a_run_of_the_future_does_not_hide_a_later_one(made: Made) -> None:
    data = _run(made)
    for name in ("20990101T000000-000000", "20260103T000000-000000"):
        found = [{**data["cells"][0], "result": {**data["cells"][0]["result"], "run": name}}]
        header = {each: data[each] for each in ("scorers", "request", "provenance")} | {"finished": "2026-01-03T00:00:00Z"}
        write_run(made.folder, name, header, found)
    said: list[str] = []
    assert [cell.run for cell in newest(made.folder, said.append) if cell.method == "none"] == ["20260103T000000-000000"]
    assert len(said) == 1
    assert "20990101T000000-000000" in said[0]
    assert "a clock was wrong" in said[0]


def test_a_run_of_the_future_that_tells_no_place_hides_none(made: Made) -> None:
    _copy(made, "20260103T000000-000000", 7.0)
    _copy(made, "20990101T000000-000000", 9.0)
    value, said = _fsr(made)
    assert value == 7.0
    assert "20990101T000000-000000" in said[0]


def test_without_wrong_clocks_nothing_is_said_and_old_and_new_stand_in_order(made: Made) -> None:
    _copy(made, "20260103T000000-000000", 7.0)
    _copy(made, "20260104T000000-000000", 8.0, order=1, after="20260103T000000-000000")
    assert _fsr(made) == (8.0, [])
    _copy(made, "20260105T000000-000000", 9.0)  # an older srbench wrote again
    assert _fsr(made) == (9.0, [])


def test_a_run_tells_its_place_and_takes_nobodys(made: Made) -> None:
    assert next_place(made.folder) == {"order": 1, "after": "20260101T000000-000000"}
    write_run(made.folder, "20250101T000000-000000", {}, [])
    assert next_place(made.folder)["order"] == 2
    with pytest.raises(SrbenchError, match="File exists"):
        write_run(made.folder, "20250101T000000-000000", {}, [])
    assert len({run_id() for _ in range(50)}) == 50


def test_a_rule_says_where_and_what() -> None:
    with pytest.raises(Misfit, match="it: expected an object, found a list of 1"):
        check([1], {}, {})
    with pytest.raises(Misfit, match="it has no 'key'"):
        check({}, records.OF_IMAGE, {})
