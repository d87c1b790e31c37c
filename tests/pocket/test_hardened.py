"""Adversarial training of hazard's redirector: its targets stand in no suite, and what was measured is there before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srbench.catalog import load, prompts
from srbench.pocket_build.study import attacked, hardened
from srbench.pocket_build.study.reference import OTHER_SUITES, SUITES


def test_targets_stand_in_no_suite_and_have_their_safe_side(tmp_path: Path) -> None:
    rows = prompts.rows(hardened.written_targets(tmp_path / "targets.json"))
    assert len(rows) == hardened.TARGETS
    said = {
        text for suite in load.suites().values() for edition in suite.editions
        if edition.family == "pocket" and edition.file and edition.concept == hardened.CONCEPT
        for row in load.rows(suite, edition).rows for text in (row.prompt, row.target)
    }  # fmt: skip
    assert len(said) > 500
    assert not {row.prompt for row in rows} & said
    assert all(row.reference and row.reference != row.prompt for row in rows)


def test_a_rate_is_found_once_and_a_search_that_was_cut_off_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = attacked.request_of(attacked.INVERTED, attacked.Victim("saferedir"), tmp_path, tmp_path)
    request.out.write_text("from a search whose images were never drawn")
    searched: list[bool] = []
    backbone: Any = type("Stand", (), {"spec": load.backbones()["pocket"]})()
    monkeypatch.setattr(attacked, "attacked", lambda asked, _: searched.append(asked.out.exists()) or ())
    monkeypatch.setattr(attacked, "drawn_from", lambda *given: [True, False, True, False])
    for _ in range(2):
        rate = attacked.inverted(request, backbone)
        assert (rate["value"], rate["n"]) == (50, 4)
    assert searched == [False]


# --- what is committed --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((attacked.FOLDER / "hardened.json").read_text(encoding="utf-8"))
    return found


def test_every_suite_and_every_attack_that_was_repeated_is_there_before_and_after(said: dict[str, Any]) -> None:
    for when in ("before", "after"):
        assert set(said[when]) == {*SUITES, *OTHER_SUITES, *hardened.AGAIN}
        for name, rates in said[when].items():
            rate = rates.get("asr") or rates["fsr"]
            assert rate["low"] <= rate["value"] <= rate["high"], (when, name)


def test_before_is_what_the_summaries_say(said: dict[str, Any]) -> None:
    summary = json.loads((attacked.FOLDER.parent / "hazard.json").read_text(encoding="utf-8"))
    for cell in (entry["result"] for entry in summary["cells"]):
        if (cell["method"], cell["on"], cell["variant"]) == ("saferedir", "none", "") and cell["suite"] in said["before"]:
            for name, rate in said["before"][cell["suite"]].items():
                assert cell["metrics"][name]["value"] == rate["value"], (cell["suite"], name)
