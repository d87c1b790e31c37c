"""Rows of gated suites: no text of theirs is anywhere in a results folder, and older folders are cleaned. Harmless stand-ins."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from srbench.catalog import load
from srbench.catalog.specs import ANY, Edition, SourceFile, SuiteSpec
from srbench.engine import batches
from srbench.engine.plan import plan
from srbench.errors import OK, CellError, UsageError
from srbench.hashing import canonical
from srbench.results import stored
from srbench.results.gated import QUOTES, Hush, without_text
from srbench.results.leftovers import at_work
from srbench.results.run_files import RunResult
from srbench.results.sensitive import tend
from srbench.results.store import Store
from srbench.scoring.runs import score_runs

ROWS = "adv_prompt,target_prompt\nxq zz purple box,a purple box\nqq ww lantern,a lantern in a box\nvv nn,a crate\n"
WORDS = (b"zz purple", b"lantern", b"purple box", b"vv nn", b"a crate")


@pytest.fixture
def gated(world: Any, tmp_path: Path) -> Any:
    """A gated suite of three rows, and the user's own copy of it."""
    file = SourceFile(hub="somebody/boxes", file="boxes.csv", columns={"prompt": "adv_prompt"})
    edition = Edition(family=ANY, concept=ANY, files=(file,), rows=3)
    world.suites["boxes"] = SuiteSpec(
        name="boxes", title="t", source="x", licence="MIT", metrics=("fsr",), editions=(edition,), gated=True
    )  # fmt: skip
    world.copy = tmp_path / "mine.csv"
    world.copy.write_text(ROWS)
    return world


def ran(world: Any, **changes: Any) -> RunResult:
    tend(world.store(), world.lines.append)
    return world.run(**{"methods": ("none", "push"), "suites": ("boxes",), "prompts": world.copy, **changes})


def texts_in(out: Path) -> list[str]:
    """Files under a results folder with a text of a row; compressed chunks of PNGs are looked into."""
    found = []
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if data.startswith(b"\x89PNG"):
            with Image.open(path) as image:
                data += json.dumps(getattr(image, "text", {})).encode()
        found += [str(path.relative_to(out))] * any(word in data for word in WORDS)
    return found


def test_no_text_is_anywhere(gated: Any) -> None:
    done = ran(gated, scorers=("closeness",))
    assert done.exit_code == OK
    assert texts_in(gated.out) == []
    store = gated.store()
    assert all(record["gated"] and len(record["prompt_sha256"]) == 64 for record in store.images.values())
    assert {len(record["fields_sha256"]) for record in store.scores.values() if record["scorer"] == "closeness"} == {64}


def test_keys_are_those_of_a_suite_that_is_not_gated(gated: Any, tmp_path: Path) -> None:
    ran(gated)
    hidden = gated.store()
    gated.suites["boxes"] = gated.suites["boxes"].model_copy(update={"gated": False})
    ran(gated, out=tmp_path / "open")
    shown = Store(tmp_path / "open" / "store")
    assert set(shown.images) == set(hidden.images)
    assert set(shown.scores) == set(hidden.scores)


def test_stored_scores_are_found_again_by_hash(gated: Any) -> None:
    before, sampled = ran(gated), gated.sampled()
    gated.alter("closeness", score=lambda *a: pytest.fail("scored again"))
    assert [cell.metrics["fsr"] for cell in ran(gated).cells] == [cell.metrics["fsr"] for cell in before.cells]
    assert gated.sampled() == sampled
    again = stored.stored_records(gated.out, Store.peek(gated.out / "store"), lambda cell: load.protocols()["bright"])
    assert all(set(row.image.scores) == {"brightness", "closeness"} for cell in again for row in cell.rows if row.image)


def test_scoring_the_runs_again_writes_no_text(gated: Any) -> None:
    ran(gated, methods=("none",))
    late = type("Late", (gated.scorers["closeness"],), {"meta": {**gated.scorers["closeness"].meta, "name": "late"}})
    gated.scorers["late"] = late
    score_runs(gated.out, ["late"], (), gated.store(), gated)
    assert any(record["scorer"] == "late" for record in gated.store().scores.values())
    assert texts_in(gated.out) == []


@pytest.mark.parametrize("where", ["scorer", "method"])
def test_an_error_that_quotes_a_row_is_not_passed_on(where: str, gated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(self: Any, images: Any, rows: Any) -> Any:
        raise ValueError(f"cannot read '{rows[0]['prompt']}'")

    def sample(pipeline: Any, prompts: Any, active: Any, specs: Any, *more: Any) -> Any:
        raise CellError(f"cannot draw '{specs[0].prompt}'", "")

    if where == "scorer":
        gated.alter("closeness", score=score)
    else:
        monkeypatch.setattr(batches, "sample", sample)
    done = ran(gated)
    assert texts_in(gated.out) == []
    said = [*gated.lines, *(metric.reason for cell in done.cells for metric in cell.metrics.values())]
    assert not [line for line in said if any(word.decode() in line for word in WORDS)]


def test_a_trace_that_holds_texts_is_hashed() -> None:
    kept = without_text({"prompt": "a red box", "trace": {"word": "red box", "steps": 2, "by": {"a red box": [1, "red"]}}})
    assert "red" not in json.dumps(kept)
    assert kept["trace"]["steps"] == 2


@pytest.mark.parametrize(("message", "shown"), [
    ("ValueError: bad 'a small red box'", f"ValueError: {QUOTES}"), ("ValueError: a small", "ValueError: a small"),
    ("KeyError: small-red-box", f"KeyError: {QUOTES}"), ("out of memory", "out of memory"), ("a", "a"),
    ("A SMALL RED", QUOTES),
])  # fmt: skip
def test_what_quotes_three_words_of_a_row_is_hushed(message: str, shown: str) -> None:
    assert Hush(["a small red box", "a", "", None])(message) == shown


# --- older stores -----------------------------------------------------------------------------------------------------


def as_older_versions_wrote(world: Any) -> int:
    """Put the texts back into ledgers and pictures; returns how many records have one."""
    cells = plan(world.request(methods=("none", "push"), suites=("boxes",), prompts=world.copy), world.backbone())
    prompts = {image.key: image.spec.prompt for cell in cells for image in cell.images()}
    rows = {image.key: row.row for cell in cells for row in cell.rows for image in (row.image,)}
    (world.out / "store" / "looked.json").unlink(missing_ok=True)
    for path in (world.out / "store/ledger").glob("*.jsonl"):
        lines = []
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if "key" in record:
                record = {k: v for k, v in record.items() if k not in ("gated", "marked", "prompt_sha256")}
                record["prompt"] = prompts[record["key"]]
            elif record.pop("fields_sha256", None):
                row = rows[record["image"]]
                record["fields"] = canonical({"prompt": row.prompt, "reference": row.reference})
            lines.append(canonical(record) + "\n")
        path.write_text("".join(lines))
        path.rename(path.with_name(f"{path.name.partition('-')[0]}-1-4194303.jsonl"))
    store = Store.peek(world.out / "store")
    for key, path in store.pictures():
        with Image.open(path) as image:
            image.load()
        chunk = PngImagePlugin.PngInfo()
        chunk.add_text("srbench", canonical({k: v for k, v in store.images[key].items() if k != "bytes"}))
        image.save(path, "PNG", pnginfo=chunk, compress_level=1)
    return len(store.images) + len(store.scores)


def test_an_older_store_is_cleaned_when_it_is_opened_and_says_so(gated: Any) -> None:
    before = ran(gated)
    as_older_versions_wrote(gated)
    assert len(texts_in(gated.out)) > 3
    pixels = {key: record["pixel_sha"] for key, record in gated.store().images.items()}
    tend(gated.store(), gated.lines.append)
    assert texts_in(gated.out) == []
    said = r"rows of gated suites are kept by id and hash alone: texts of \d+ records were taken out"
    assert any(re.fullmatch(said, line) for line in gated.lines)
    sampled = gated.sampled()
    gated.alter("closeness", score=lambda *a: pytest.fail("scored again"))
    gated.lines.clear()
    after = ran(gated)
    assert gated.sampled() == sampled
    assert not any("gated" in line or "damaged" in line for line in gated.lines), "it is cleaned once"
    assert [cell.metrics["fsr"] for cell in after.cells] == [cell.metrics["fsr"] for cell in before.cells]
    assert {key: record["pixel_sha"] for key, record in gated.store().images.items()} == pixels


def test_an_older_store_without_a_run_file_is_cleaned_when_its_rows_are_planned(gated: Any) -> None:
    """A run that was killed left records, and nothing else that says whose they are."""
    ran(gated)
    as_older_versions_wrote(gated)
    for path in gated.out.glob("runs/*/run.json"):
        path.unlink()
    ran(gated)
    assert texts_in(gated.out) == []


def test_a_ledger_of_a_process_at_work_is_left_for_later(gated: Any) -> None:
    ran(gated, methods=("none",))
    as_older_versions_wrote(gated)
    (ledger,) = (gated.out / "store/ledger").glob("scores-*")
    mine = ledger.rename(ledger.with_name(f"scores-{time.time_ns():x}-{os.getppid()}.jsonl"))
    assert at_work(mine)
    tend(gated.store(), gated.lines.append)
    assert texts_in(gated.out) == [f"store/ledger/{mine.name}"]
    assert f"{mine.name} belongs to a process that is at work: its texts are taken out at a later start" in gated.lines
    mine.rename(mine.with_name("scores-1-4194303.jsonl"))
    tend(gated.store(), gated.lines.append)
    assert texts_in(gated.out) == []


def test_no_attack_writes_a_gated_row_into_a_file(gated: Any, tmp_path: Path) -> None:
    from srbench.attacks.targets import AttackRequest, _loaded

    request = AttackRequest("mma", "box", "boxes", None, "none", "none", None, None, tmp_path / "x.json", None)
    with pytest.raises(UsageError, match="is gated"):
        _loaded(request, gated.spec, gated.concept, gated.lines.append)
