"""The leaderboard: verified only where a result's own pictures give it again; nothing dropped in silence, nothing written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from srbench.analysis.records import Metric
from srbench.analysis.results import from_dict, measured, to_dict
from srbench.catalog import load, sources
from srbench.catalog.specs import Row
from srbench.cli.main import app
from srbench.hashing import digest
from srbench.report import leaderboard as room
from srbench.report.leaderboard import Asked, Entry, Leaderboard, leaderboard, named_folders, page
from srbench.report.sources import Source
from srbench.results.origins import images_sha
from srbench.results.store import Store
from srbench.results.stored import Stored, reread
from srbench.scoring import claims
from srbench.scoring.claims import DIFFERS, UNCHECKED, UNVERIFIED, VERIFIED, Checked
from srbench.scoring.scoring import Scoring
from tests.report.conftest import HOSTILE, result, rows

GIVEN = rows(2)
RUN = "20260101T000000-000000"
METRICS = ["fsr", "content_kept", "retain_accuracy"]


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder as a run leaves it: pictures of noise, with the scores and figures that the pocket judge gives."""
    place = tmp_path_factory.mktemp("made") / "ana"
    store = Store(place / "store")
    scoring = Scoring(store)
    scoring.open(["pocket-judge"])
    cells = [_cell(store, scoring, method, number) for number, method in enumerate(("none", "uce"))]
    judge, scorers = load.protocol("pocket-hazard"), scoring.identities
    stored = Stored(store, {"pocket-judge": digest(scorers["pocket-judge"])}, scorers)
    records = [(reread(from_dict(cell["result"]), cell, judge, stored), judge) for cell in cells]
    for cell, figures in zip(cells, measured(records), strict=True):
        cell["result"] = to_dict(figures)
    provenance = {"srbench": "0.1.0", "commit": "c0ffee" * 6, "processor": "a processor", "cores": 2, "packages": {}}
    header = {
        "schema": 1,
        "run": RUN,
        "started": "2026-01-01T00:00:00Z",
        "scorers": scorers,
        "provenance": provenance,
        "request": {},
    }
    path = place / "runs" / RUN / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**header, "cells": cells}))
    return place


def _cell(store: Store, scoring: Scoring, method: str, number: int) -> dict[str, Any]:
    entries, wanted = [], []
    for index, given in enumerate(GIVEN):
        row = Row.model_validate(given)
        entry = {"id": row.id, "image": _drawn(store, row.prompt, 100 * number + index), "row": given}
        if row.reference is not None:
            entry["reference"] = _drawn(store, row.reference, 900 + index)
        entries.append(entry)
        wanted += [scoring.want("pocket-judge", entry[role], row) for role in ("image", "reference") if role in entry]
    scoring.run(wanted, {})
    shas = {"rows_sha": load.rows_sha(tuple(map(Row.model_validate, GIVEN))), "images_sha": images_sha(entries)}
    numbers = result(method, "hazard", "igmu", 2, 0) | {**shas, "metrics": {}}
    suite = {"attack": False, "metrics": METRICS, "sensitive": False, "family": "pocket"}
    return {"result": numbers, "suite": suite, "rows": entries}


def _drawn(store: Store, prompt: str, seed: int) -> str:
    key = digest([prompt, seed])
    if key not in store.images:
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        store.put_images([(key, pixels, {"seconds": 0.1, "run": RUN, "batch": 0, "trace": {}, "prompt": prompt})])
    return key


@pytest.fixture
def ana(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "ana"))


@pytest.fixture
def ben(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "ben"))


def run_of(folder: Path) -> Path:
    return folder / "runs" / RUN / "run.json"


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a folder's run file."""
    data = json.loads(run_of(folder).read_text())
    change(data)
    run_of(folder).write_text(json.dumps(data))


def rerun(folder: Path) -> None:
    """Make the folder one of another run that drew the same pictures."""
    for path in [run_of(folder), *(folder / "store" / "ledger").iterdir()]:
        path.write_text(path.read_text().replace(RUN, "20260202T000000-000000"))
    run_of(folder).parent.rename(folder / "runs" / "20260202T000000-000000")


def board(*folders: Path, **asked: Any) -> Leaderboard:
    return leaderboard(folders, Asked(**asked), lambda name, done, total: None)


def checked(*folders: Path, method: str = "uce") -> Checked:
    """What judging the last folder's result again came to."""
    return [entry for entry in board(*folders).entries if entry.cell.method == method][-1].checked


def key_of(folder: Path, cell: int = 1, row: int = 0) -> str:
    return str(json.loads(run_of(folder).read_text())["cells"][cell]["rows"][row]["image"])


def picture_of(folder: Path, key: str) -> Path:
    return Store.peek(folder / "store").image_path(key)


# --- verified ---------------------------------------------------------------------------------------------------------


def test_a_result_whose_pictures_give_it_again_is_verified(ana: Path) -> None:
    found = board(ana)
    assert [entry.checked.state for entry in found.entries] == [VERIFIED] * 2
    assert all(entry.checked.figures == tuple(METRICS) and entry.checked.rows == 4 for entry in found.entries)
    assert all(entry.checked.apart < 1e-5 for entry in found.entries)
    assert "4 rows judged again" in page(found)


def test_a_picture_that_is_missing_leaves_it_unverified(ana: Path) -> None:
    picture_of(ana, key_of(ana)).unlink()
    assert checked(ana) == Checked(UNVERIFIED, "1 of 6 pictures missing")
    assert checked(ana, method="none").state == VERIFIED


def test_without_a_store_there_are_no_images(ana: Path) -> None:
    shutil.rmtree(ana / "store")
    assert checked(ana) == Checked(UNVERIFIED, "no images")


def test_a_picture_in_the_place_of_another_is_found(ana: Path) -> None:
    shutil.copy(picture_of(ana, key_of(ana, row=1)), picture_of(ana, key_of(ana)))
    found = checked(ana)
    assert found.state == DIFFERS
    assert found.why.startswith("1 of 6 pictures are not as recorded")


def test_a_picture_with_a_forged_record_has_not_the_claimed_scores(ana: Path) -> None:
    """Pixels, the record in the file and the ledger agree; the scores are of the picture that was there before."""
    key, store = key_of(ana), Store(ana / "store")
    before = store.images[key]
    store.put_images(
        [(key, np.zeros((64, 64, 3), np.uint8), {name: before[name] for name in ("seconds", "run", "trace", "prompt")})]
    )
    assert checked(ana) == Checked(DIFFERS, "verdicts differ on 1 of 4 rows")


def test_scores_that_are_forged_are_told_from_those_of_the_pictures(ana: Path) -> None:
    store, key = Store(ana / "store"), key_of(ana, row=2)
    (mine,) = [record for record in store.scores.values() if record["image"] == key]
    backgrounds = {name: value / 2 for name, value in mine["raw"]["background"].items()}  # no verdict of this row reads them
    store.put_scores([{**mine, "raw": {**mine["raw"], "background": backgrounds}}])
    assert checked(ana).why.startswith("raw scores are 0.")
    assert checked(ana).state == DIFFERS


def test_a_figure_that_its_rows_do_not_give_is_named(ana: Path) -> None:
    def better(data: dict[str, Any]) -> None:
        claimed = data["cells"][1]["result"]["metrics"]["retain_accuracy"]
        claimed.update(value=50.0 if claimed["value"] != 50.0 else 100.0, low=0.0, high=100.0)

    changed(ana, better)
    assert re.fullmatch(r"figures differ: retain_accuracy: claimed \d+(\.\d)?, from its rows \d+(\.\d)?", checked(ana).why)
    assert checked(ana).state == DIFFERS


def test_a_count_of_rows_that_its_rows_do_not_give_is_named(ana: Path) -> None:
    changed(ana, lambda data: data["cells"][1]["result"].update(n_scored=3))
    assert checked(ana).why == "figures differ: rows scored: claimed 3, here 4"


def test_rows_have_to_be_those_that_the_hash_names(ana: Path) -> None:
    changed(ana, lambda data: data["cells"][1]["rows"][0]["row"].update(prompt="a quiet beach"))
    assert checked(ana) == Checked(DIFFERS, "its rows are not those that its hash names")


def test_one_picture_cannot_stand_for_several_rows(ana: Path) -> None:
    def twice(data: dict[str, Any]) -> None:
        entries = data["cells"][1]["rows"]
        entries[1]["image"] = entries[0]["image"]
        data["cells"][1]["result"]["images_sha"] = images_sha(entries)

    changed(ana, twice)
    assert checked(ana) == Checked(DIFFERS, "one picture is given for rows of several prompts")


def test_a_picture_of_another_prompt_is_found(ana: Path) -> None:
    def swapped(data: dict[str, Any]) -> None:
        entries = data["cells"][1]["rows"]
        entries[0]["image"], entries[1]["image"] = entries[1]["image"], entries[0]["image"]
        data["cells"][1]["result"]["images_sha"] = images_sha(entries)

    changed(ana, swapped)
    assert "made for another prompt" in checked(ana).why


def test_a_judge_with_other_weights_verifies_nothing(ana: Path) -> None:
    changed(ana, lambda data: data["scorers"]["pocket-judge"].update(weights_sha256="ab" * 32))
    assert checked(ana) == Checked(UNVERIFIED, "scorer pocket-judge is another one here: its weights, options or version")


def test_a_judge_that_is_not_at_hand_verifies_nothing(ana: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_opened", lambda *_: (None, "its weights are not here"))
    assert checked(ana) == Checked(UNVERIFIED, "judge not installed here (its weights are not here)")


def test_a_judge_that_is_not_known_verifies_nothing(ana: Path) -> None:
    changed(ana, lambda data: data["cells"][1]["result"].update(protocol="../../judge.yaml"))
    assert checked(ana) == Checked(UNVERIFIED, "judge not known here")


def test_options_of_a_run_file_never_open_a_scorer(ana: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They could name a file of weights to load."""
    changed(ana, lambda data: data["scorers"]["pocket-judge"].update(options={"weights": "/tmp/weights.pt"}))
    asked: list[Any] = []
    opened = claims._opened

    def noted(*given: Any) -> Any:
        asked.append(given[:2])
        return opened(*given)

    monkeypatch.setattr(claims, "_opened", noted)
    assert checked(ana).state == UNVERIFIED
    assert asked == [("pocket-judge", ())]


def test_scorers_of_a_damaged_form_end_nothing(ana: Path) -> None:
    changed(ana, lambda data: data["scorers"]["pocket-judge"].update(options=5))
    assert checked(ana).state == UNVERIFIED


def test_pictures_of_sensitive_rows_are_said_not_to_be_kept(ana: Path) -> None:
    store, key = Store(ana / "store"), key_of(ana)
    store.restate([{**store.images[key], "sensitive": True}])
    store.drop([key])
    assert checked(ana) == Checked(UNVERIFIED, "sensitive: images were not kept")


def test_prompts_of_a_gated_suite_are_not_looked_for(ana: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(data: dict[str, Any]) -> None:
        data["cells"][1]["suite"]["prompts"] = str(tmp_path / "prompts.csv")
        for entry in data["cells"][1]["rows"]:
            del entry["row"]

    changed(ana, gated)
    monkeypatch.setattr(sources, "rows", lambda *given, **more: pytest.fail("a path of a run file was followed"))
    assert checked(ana) == Checked(UNVERIFIED, "gated suite: the texts of its rows are not in the run file")


def test_a_link_out_of_the_folder_is_not_followed(ana: Path, tmp_path: Path) -> None:
    path = picture_of(ana, key_of(ana))
    path.rename(tmp_path / "elsewhere.png")
    path.symlink_to(tmp_path / "elsewhere.png")
    assert "a link leads out of the folder" in checked(ana).why


def test_a_summary_is_not_verified(ana: Path) -> None:
    data = json.loads(run_of(ana).read_text())
    summary = {**data, "cells": [{"result": cell["result"]} for cell in data["cells"]]}
    shutil.rmtree(ana)
    (ana / "pocket").mkdir(parents=True)
    (ana / "pocket" / "hazard.json").write_text(json.dumps(summary))
    assert checked(ana) == Checked(UNVERIFIED, "committed summary: it has no pictures")


def test_without_verification_nothing_is_judged(ana: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "judged_again", lambda *_: pytest.fail("it was judged"))
    found = board(ana, verify=False)
    assert {entry.checked.state for entry in found.entries} == {UNCHECKED}
    assert "every figure is its contributor's claim" in unescape(page(found))


def test_the_pictures_of_one_folder_never_verify_another(ana: Path, ben: Path) -> None:
    shutil.rmtree(ben / "store" / "images")
    assert checked(ana, ben) == Checked(UNVERIFIED, "no images")


# --- tables -----------------------------------------------------------------------------------------------------------


def said(content: Leaderboard, contributor: str, method: str = "uce") -> tuple[str, ...]:
    lines = (line for contest in content.contests for line in contest.lines)
    (found,) = [line for line in lines if line.entry.contributor == contributor and line.entry.cell.method == method]
    return found.others


def test_the_same_cell_of_another_run_is_reproduced(ana: Path, ben: Path) -> None:
    rerun(ben)
    found = board(ana, ben)
    assert len(found.contests) == 1
    assert said(found, "ana") == ("reproduced by ben: same figures",)
    assert said(found, "ben") == ("reproduced by ana: same figures",)


def test_other_figures_from_the_same_pictures_are_both_named(ana: Path, ben: Path) -> None:
    rerun(ben)
    path = ben / "runs" / "20260202T000000-000000" / "run.json"
    data = json.loads(path.read_text())
    data["cells"][1]["result"]["metrics"]["content_kept"].update(value=33.0, low=0.0, high=100.0)
    path.write_text(json.dumps(data))
    (text,) = said(board(ana, ben), "ana")
    assert re.fullmatch(r"differs from ben: content_kept [\d.]+ here, 33\.0 there", text)


def test_a_copy_is_no_reproduction(ana: Path, ben: Path) -> None:
    assert said(board(ana, ben), "ana") == ("the same run as ben: a copy",)


def test_a_copy_under_another_run_name_is_no_reproduction(ana: Path, ben: Path) -> None:
    changed(ben, lambda data: [cell["result"].update(run="another") for cell in data["cells"]])
    assert said(board(ana, ben), "ana") == ("the same run as ben: a copy",)


@pytest.mark.parametrize("name", ["rows_sha", "backbone_sha", "dtype", "noise", "protocol", "concept", "suite"])
def test_results_that_differ_in_what_makes_them_comparable_never_share_a_table(ana: Path, ben: Path, name: str) -> None:
    changed(ben, lambda data: [cell["result"].update({name: "another"}) for cell in data["cells"]])
    tables = [{line.entry.contributor for line in contest.lines} for contest in board(ana, ben, verify=False).contests]
    assert sorted(map(sorted, tables)) == [["ana"], ["ben"]]


def test_judges_of_one_name_and_other_weights_never_share_a_table(ana: Path, ben: Path) -> None:
    changed(ben, lambda data: data["scorers"]["pocket-judge"].update(weights_sha256="ab" * 32))
    assert len(board(ana, ben, verify=False).contests) == 2


def test_another_library_version_shares_the_table_and_is_named(ana: Path, ben: Path) -> None:
    changed(ben, lambda data: data["scorers"]["pocket-judge"].update(library_version="1.0"))
    assert len(board(ana, ben, verify=False).contests) == 1


def _entry(method: str, value: float, low: float | None, high: float | None, state: str = VERIFIED) -> Entry:
    cell = from_dict({**result(method, "hazard", "igmu", 2, 0), "metrics": {}})
    metric = Metric("higher", value, low, high, n=2, scored=2)
    return Entry("ana", Source(replace(cell, metrics={"fsr": metric}), {}, {}), checked=Checked(state))


def standings(*entries: Entry) -> list[str]:
    ordered = sorted(entries, key=lambda entry: room._rank(entry, "fsr"))
    found = room._standings(ordered, "fsr")
    return [f"{entry.cell.method}: {found[number]}" for number, entry in enumerate(ordered)]


def test_no_entry_is_called_worse_whose_interval_meets_the_bests() -> None:
    entries = _entry("uce", 90, 70, 99), _entry("rece", 60, 30, 80), _entry("none", 5, 0, 20), _entry("spm", 50, None, None)
    assert standings(*entries) == [
        "uce: best value", "rece: not told from the best (intervals overlap)", "spm: no interval: cannot be told",
        "none: worse (intervals apart)",
    ]  # fmt: skip


def test_a_result_that_does_not_hold_is_never_the_best() -> None:
    assert standings(_entry("uce", 100, 90, 100, DIFFERS), _entry("none", 5, 0, 20), _entry("spm", 4, 0, 20)) == [
        "none: best value", "spm: not told from the best (intervals overlap)", "uce: not ranked: its figures do not hold",
    ]  # fmt: skip


def test_a_best_value_that_is_only_claimed_is_said_to_be() -> None:
    assert standings(_entry("uce", 100, 90, 100, UNVERIFIED), _entry("none", 5, 0, 20))[0] == "uce: best value, as claimed"


def test_copies_do_not_make_the_tests_of_a_table_weaker(ana: Path, ben: Path) -> None:
    """Holm's correction counts results, not how often somebody handed them in."""

    def p_values(*folders: Path) -> set[float]:
        entries = board(*folders, verify=False).entries
        best = next(entry for entry in entries if entry.cell.method == "uce")
        low = [replace(e, source=replace(e.source, cell=_lower(e))) for e in entries if e.cell.method == "none"]
        return set(room._p_values(best, dict(enumerate(low)), "fsr").values())

    assert p_values(ana) == p_values(ana, ben) != set()


def _lower(entry: Entry) -> Any:
    fsr = replace(entry.cell.metrics["fsr"], value=-1.0)
    return replace(entry.cell, metrics={**entry.cell.metrics, "fsr": fsr})


# --- the page and the command -----------------------------------------------------------------------------------------


def test_hostile_texts_of_a_run_file_are_escaped_and_cut(ana: Path) -> None:
    def hostile(data: dict[str, Any]) -> None:
        for name in ("method", "on", "variant", "concept", "dtype"):
            data["cells"][1]["result"][name] = HOSTILE * 30
        data["cells"][1]["checkpoint"] = {
            "passport": {"kind": HOSTILE, "format": [1], "changed": HOSTILE, "sha256": HOSTILE},
            "card": {},
        }
        data["provenance"].update(srbench=HOSTILE, commit={"a": 1}, gpu=HOSTILE, cores=10**9)
        data["started"] = HOSTILE

    changed(ana, hostile)
    html = page(board(ana))
    assert not re.search(r"<(script|img|b)\b", html)
    assert "{{" not in html.replace("{{ 7 * 7 }}", "")
    assert max(map(len, re.findall(r"[^\s<>]+ ?", unescape(html)))) < 2000
    assert len(html) < 40_000


@pytest.mark.parametrize("number", ["NaN", "1e999", "-1", "101", "1" * 400])
def test_a_cell_with_an_impossible_number_is_left_out_and_named(ana: Path, number: str) -> None:
    text = json.dumps(json.loads(run_of(ana).read_text()))
    run_of(ana).write_text(re.sub(r'("retain_accuracy": \{"value": )[^,]+', rf"\g<1>{number}", text, count=1))
    run = CliRunner().invoke(app, ["report", "--leaderboard", str(ana), "--no-verify", "-o", str(ana.parent / "b.html")])
    assert run.exit_code in (1, 2)
    assert "damaged" in run.output


def test_a_page_asks_no_network_and_shows_no_prompt_and_no_path(ana: Path) -> None:
    html = page(board(ana))
    assert "default-src 'none'" in unescape(html)
    assert not re.search(r"https?://|<img|<script|url\(", html)
    assert not any(row["prompt"] in html for row in GIVEN)
    assert str(ana.parent) not in html


def test_damaged_and_empty_folders_are_listed(ana: Path, ben: Path, tmp_path: Path) -> None:
    run_of(ben).write_text('{"schema":')
    (tmp_path / "carl").mkdir()
    out = tmp_path / "board.html"
    run = CliRunner().invoke(
        app, ["report", "--leaderboard", str(ana), str(ben), str(tmp_path / "carl"), "--no-verify", "-o", str(out)]
    )
    assert run.exit_code == 1
    assert "carl: left out: no results" in run.output
    assert re.search(r"ben: left out: runs/\S+/run.json: damaged run file", run.output)
    text = unescape(out.read_text())
    assert "Left out" in text
    assert "<bdi>carl</bdi></strong>: no results" in text
    assert str(tmp_path) not in text


def test_a_damaged_cell_beside_a_sound_one_is_named(ana: Path) -> None:
    changed(ana, lambda data: data["cells"][0]["result"].update(n_run="many"))
    found = board(ana, verify=False)
    assert [entry.cell.method for entry in found.entries] == ["uce"]
    assert len(found.left_out) == 1


@pytest.mark.parametrize("where", ["scorers", "row", "id"])
def test_half_a_character_ends_nothing(ana: Path, ben: Path, where: str) -> None:
    """It has no hash."""

    def halved(data: dict[str, Any]) -> None:
        entry = data["cells"][1]["rows"][0]
        {"scorers": data["scorers"]["pocket-judge"], "row": entry["row"], "id": entry}[where].update(id="\ud800", prompt="\ud800")
        del data["cells"][1]["result"]["images_sha"]

    changed(ana, halved)
    found = board(ana, ben)
    assert {entry.contributor for entry in found.entries if entry.cell.method == "uce"} <= {"ana", "ben"}
    assert found.left_out or any(entry.checked.why for entry in found.entries)


def test_nothing_is_written_into_the_folders(ana: Path, ben: Path, tmp_path: Path) -> None:
    shutil.copy(picture_of(ben, key_of(ben, row=1)), picture_of(ben, key_of(ben)))  # a store that may write sets it aside

    def state() -> Iterator[tuple[str, int, bytes]]:
        for path in sorted([*ana.rglob("*"), *ben.rglob("*")]):
            yield str(path), path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b""

    before = list(state())
    run = CliRunner().invoke(app, ["report", "--leaderboard", str(ana), str(ben), "-o", str(tmp_path / "board.html")])
    assert run.exit_code == 0, run.output
    assert "4 results of 2 contributors, 3 verified, 1 that does not hold" in run.output
    assert list(state()) == before


def test_results_can_be_chosen(ana: Path) -> None:
    content = board(ana, methods=("uce",), verify=False)
    assert {entry.cell.method for entry in content.entries} == {"none", "uce"}  # the untouched backbone stays, as in a report
    with pytest.raises(room.UsageError, match="no result has suite 'mma'"):
        board(ana, suites=("mma",), verify=False)


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        (["--leaderboard"], 2, "of which results folders"),
        (["--leaderboard", "ana", "ana"], 2, "given twice"),
        (["--leaderboard", "ana", "nobody"], 2, "nobody: not a results folder"),
        (["--leaderboard", "ana", "--images", "5"], 2, "a leaderboard has no pictures"),
        (["--leaderboard", "empty"], 3, "no results yet"),
        (["ana", "ben"], 2, "Add --leaderboard"),
        (["ana", "--no-verify"], 2, "goes with --leaderboard"),
    ],
)
def test_usage_errors(ana: Path, ben: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], code: int, told: str) -> None:
    (ana.parent / "empty").mkdir()
    monkeypatch.chdir(ana.parent)
    run = CliRunner().invoke(app, ["report", *given])
    assert run.exit_code == code, run.output
    assert told in run.output
    assert not list(ana.parent.glob("*.html"))


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("ana", "ben"):
        (tmp_path / name / "results").mkdir(parents=True)
    assert list(named_folders([tmp_path / "ana" / "results", tmp_path / "ben" / "results"])) == ["ana/results", "ben/results"]
    assert list(named_folders([tmp_path / "ana", tmp_path / "ben"])) == ["ana", "ben"]
