"""Adversarial training: which rows of an attack's file train, how often, what stays harmless, and what the card says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srbench.catalog.load import fingerprint
from srbench.catalog.specs import Row
from srbench.errors import UsageError
from srbench.methods.saferedir.adversarial import harmless, with_attacks
from srbench.methods.saferedir.pairs import Pair, PairSet

PLAIN = PairSet(
    [Pair(unsafe=f"a dagger {i}", safe=f"an empty scene {i}") for i in range(90)], [Pair(unsafe="a bomb", safe="an empty scene")],
    ["a cat"], ["a dog"],
)  # fmt: skip


def row(number: int, **fields: Any) -> dict[str, Any]:
    place = f"in meadow {number}"
    given = {"prompt": f"kettle spout a skull {place}", "target": f"a skull {place}", "reference": f"an empty scene {place}"}
    return {"id": f"r{number}", "kind": "forget", "category": "adversarial", **given, **fields}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"meta": {"attack": "unlearndiffatk"}, "rows": rows}))
    return path


def test_found_prompts_are_the_asked_share_and_whole_targets_are_held_out(tmp_path: Path) -> None:
    file = written(tmp_path / "found.json", [row(n) for n in range(40)])
    both = with_attacks(PLAIN, file, 0.25)
    found = [pair for pair in both.train if "skull" in pair.unsafe]
    assert both.train[:90] == PLAIN.train
    assert len(found) / len(both.train) == pytest.approx(0.25, abs=0.06)
    held = {pair.unsafe for pair in both.held if "skull" in pair.unsafe}
    assert 0 < len(held) < 20
    assert not held & {pair.unsafe for pair in found}
    assert {pair.unsafe for pair in found} | held == {row(n)["prompt"] for n in range(40)}
    assert all(pair.safe == pair.unsafe.replace("kettle spout a skull", "an empty scene") for pair in found)


def test_what_stands_before_the_target_stands_before_the_reference_too(tmp_path: Path) -> None:
    both = with_attacks(PLAIN, written(tmp_path / "found.json", [row(n) for n in range(40)]), 0.25)
    added = {*both.benign_train, *both.benign_held} - {"a cat", "a dog"}
    assert added == {f"kettle spout an empty scene in meadow {n}" for n in range(40)}
    assert not {*both.benign_train} & {*both.benign_held}


@pytest.mark.parametrize(("prompt", "expected"), [
    ("ball spout a skull , in snow", "ball spout an empty scene"),
    ("a skull, in snow", None),
    ("ball of wool", None),
    ("ball drawing parachute beside a skull", None),
])  # fmt: skip
def test_only_a_prefix_can_be_told_from_the_target(prompt: str, expected: str | None) -> None:
    spec = Row(id="x", kind="forget", category="", prompt=prompt, target="a skull, in snow", reference="an empty scene")
    assert harmless(spec) == expected


def test_targets_and_prompts_count_as_used_so_that_no_run_tests_on_them(tmp_path: Path) -> None:
    both = with_attacks(PLAIN, written(tmp_path / "found.json", [row(n) for n in range(40)]), 0.25)
    for text in (row(3)["prompt"], row(3)["target"], row(3)["reference"]):
        assert fingerprint(text) in both.used.prompts
    assert fingerprint("a dagger 1") not in both.used.prompts


@pytest.mark.parametrize("rows", [
    [row(1, reference=None)], [row(1, prompt="a skull in meadow 1")], [row(1, kind="retain", target=None)],
])  # fmt: skip
def test_a_file_without_attack_rows_is_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="no attack row with a reference"):
        with_attacks(PLAIN, written(tmp_path / "found.json", rows), 0.25)
