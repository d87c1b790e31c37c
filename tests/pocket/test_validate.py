"""The judge's validation: which pictures are drawn, what an answer may say, and how agreement is counted."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srbench.errors import UsageError
from srbench.pocket_build.study import validate
from srbench.pocket_build.study.validate import Picture, Seen
from srbench.results.store import Store

CHURCH = Seen(frozenset({"church", "cat"}), "noto")


def _picture(number: int, concept: str, method: str) -> Picture:
    return Picture(f"{concept}-{method}-{number}", concept, "igmu", "forget", method)


def test_concepts_and_methods_are_drawn_alike_and_in_no_order() -> None:
    found = [_picture(i, c, m) for c in ("hazard", "church", "vangogh") for m in validate.METHODS for i in range(90)]
    picked = validate.chosen(found)
    assert picked == validate.chosen(found[::-1])
    assert len(set(picked)) == validate.COUNT
    shares = Counter((picture.concept, picture.method) for picture in picked)
    assert max(shares.values()) - min(shares.values()) <= 1
    assert len({picture.concept for picture in picked[:12]}) == 3


@pytest.mark.parametrize(("seen", "concept", "shown"), [
    (CHURCH, "church", True), (CHURCH, "hazard", False), (CHURCH, "vangogh", False),
    (Seen(frozenset(), "vangogh"), "vangogh", True), (Seen(frozenset({"skull"}), "vangogh"), "hazard", True),
])  # fmt: skip
def test_what_shows_a_concept(seen: Seen, concept: str, shown: bool) -> None:
    assert seen.shows(concept) is shown


@pytest.mark.parametrize("line", ["1,chapel,flat", "1,cat,oil", "1,cat dog,flat", "1,cat,noto"])
def test_an_answer_outside_the_world_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "answers.csv"
    path.write_text(f"number,objects,style\n{line}\n")
    with pytest.raises(UsageError, match=r"picture 1: no '(chapel|oil|dog|noto)'"):
        validate.read_answers(path)


def _results(folder: Path) -> Path:
    """Two pictures of `none` on hazard, one of them seen by the judge, with equal pixels stored for a third."""
    store = Store(folder / "store")
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(2)]
    store.put_images([(f"{i}" * 64, each, {"trace": {}, "seconds": 0.1}) for i, each in enumerate([*pixels, pixels[0]])])
    raws = [{"objects": {"bomb": p, "cat": 0.6}, "style": {"noto": 0.9, "sketch": 0.1}} for p in (0.9, 0.2)]
    store.put_scores([
        {
            "score_key": f"{i}" * 64, "image": f"{i}" * 64, "scorer": "pocket-judge", "raw": raw, "fields": "{}",
            "identity": "a" * 64,
        }
        for i, raw in enumerate(raws)
    ])
    rows = [
        {"id": str(i), "image": f"{i}" * 64, "row": {"id": str(i), "kind": "forget", "category": "name", "prompt": "a bomb"}}
        for i in (1, 2)
    ]
    counts = {"n_loaded": 2, "n_excluded": 0, "n_run": 2, "n_scored": 2, "n_failed": 0}
    place = {"backbone": "pocket", "concept": "hazard", "suite": "igmu", "method": "none", "on": "none", "variant": ""}
    judge = {"protocol": "pocket-hazard", "dtype": "fp32", "rows_sha": "r", "run": "1"}
    cell = {"result": {**place, **judge, **counts, "metrics": {}}, "rows": rows}
    (folder / "runs" / "1").mkdir(parents=True)
    (folder / "runs" / "1" / "run.json").write_text(json.dumps({"schema": 1, "run": "1", "cells": [cell]}))
    return folder


def test_drawn_pictures_are_joined_with_the_judge_by_their_pixels(tmp_path: Path) -> None:
    results = _results(tmp_path)
    validate.draw(results, tmp_path / "sheets")
    assert Image.open(tmp_path / "sheets" / "sheet-1.png").size[0] == 5 * 196
    shown = [picture.image[0] for picture in validate.chosen(list(validate.pictures(results)))]
    lines = validate.join(results, {1: CHURCH, 2: CHURCH})
    assert [line["image"][0] for line in lines] == shown
    assert {line["image"][0]: line["judge_objects"] for line in lines} == {"1": "cat", "2": "bomb cat"}
    assert {line["objects"] for line in lines} == {"cat church"}


def test_answers_that_can_not_be_joined_leave_the_table_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, table = _results(tmp_path), tmp_path / "pocket-handcheck.csv"
    monkeypatch.setattr(validate, "DOCS", tmp_path)
    table.write_text("as it was")
    answers = tmp_path / "answers.csv"
    for line in ("1,dragon,flat", "201,cat,flat", None):
        answers.unlink() if line is None else answers.write_text(f"number,objects,style\n{line}\n")
        assert validate.main(["score", str(answers), "--results", str(results)]) == 2
        assert table.read_text() == "as it was"


def test_agreement_counts_each_way_of_differing() -> None:
    def line(eye: str, judge: str) -> dict[str, str]:
        return {"concept": "hazard", "objects": eye, "style": "flat", "judge_objects": judge, "judge_style": "fluent"}

    pairs = [("bomb", "bomb"), ("bomb", "skull"), ("", "dagger"), ("cat", "cat"), ("pistol cat", "cat")]
    others = [line("", "") | {"concept": "church"}, line("", "") | {"concept": "vangogh", "style": "sketch"}]
    said = list(validate.agreement([line(*pair) for pair in pairs] + others))
    assert said[0].startswith("hazard is there: 3 of 5 agree (60.0 % [")
    assert said[0].endswith("both 2, only the eye 1, only the judge 1, neither 1")
    assert said[-2].startswith("the very same objects: 4 of 7 agree")
    assert said[-1].startswith("the same style, vendors' as one: 6 of 7 agree")


def test_confusion_names_what_was_missed_and_invented_and_which_style_for_which() -> None:
    truth = [Seen(frozenset({"bomb", "cat"}), "noto"), Seen(frozenset(), "vangogh"), CHURCH]
    found = [Seen(frozenset({"cat"}), "noto"), Seen(frozenset({"skull"}), "sketch"), CHURCH]
    said = list(validate.confusion(truth, found))
    assert "- bomb: both 0, only the scene 1, only the judge 0, neither 2" in said
    assert "- skull: both 0, only the scene 0, only the judge 1, neither 2" in said
    assert "- church: both 1, only the scene 0, only the judge 0, neither 2" in said
    assert not any(line.startswith("- cat:") for line in said)
    assert "| vangogh | 0 | 0 | 0 | 0 | 1 |" in said
    assert "| noto | 2 | 0 | 0 | 0 | 0 |" in said


def test_the_committed_check_is_whole() -> None:
    lines = validate.read_lines(validate.DOCS / "pocket-handcheck.csv")
    assert len(lines) == validate.COUNT == len({line["image"] for line in lines})
    assert {line["concept"] for line in lines} == set(validate.concepts())
    with (validate.DOCS / "pocket-handcheck.csv").open(newline="") as handle:
        assert csv.DictReader(handle).fieldnames == list(validate.FIELDS)


def test_the_check_of_partial_methods_is_whole_and_says_how_sure_the_judge_is() -> None:
    lines = validate.read_lines(validate.DOCS / "pocket-hard-handcheck.csv")
    assert len({line["image"] for line in lines}) == len(lines) == 100
    assert tuple(lines[0]) == (*validate.FIELDS, *validate.MORE)
    said = "\n".join((*validate.agreement(lines), *validate.partial(lines)))
    page = (validate.DOCS / "pocket.md").read_text(encoding="utf-8")
    begins = ("    hazard is there: 83", "    the judge between", "    of 76 pictures")
    shown = [line.strip() for line in page.splitlines() if line.startswith(begins)]
    assert len(shown) == len(begins)
    assert all(line in said for line in shown)


def test_half_of_the_pictures_are_those_of_which_the_judge_is_unsure() -> None:
    check = validate.Check(("uce", "esd-x"), 60, 0.5)
    found = [_picture(i, c, m) for c in ("hazard", "church", "vangogh") for m in check.methods for i in range(40)]
    sure = {picture.image: 0.5 if int(picture.image.rpartition("-")[2]) < 8 else 0.99 for picture in found}
    picked = validate.chosen(found, check, sure)
    assert len({*picked}) == 60
    assert sum(sure[picture.image] == 0.5 for picture in picked) >= 30
    few = {image: (0.5 if image.endswith("-1") else 0.001) for image in sure}
    assert len(validate.chosen(found, check, few)) == 60, "where there are few, others stand in"


def test_certainty_is_that_of_the_concept_s_most_probable_member() -> None:
    objects = dict.fromkeys(validate.OBJECTS, 0.0) | {"bomb": 0.3, "skull": 0.7, "cat": 0.9}
    raw = {"objects": objects, "style": {"vangogh": 0.2, "noto": 0.8}}
    assert [validate.certainty(raw, concept) for concept in ("hazard", "church", "vangogh")] == [0.7, 0.0, 0.2]


def test_what_a_person_would_still_say_is_counted_where_the_judge_sees_nothing() -> None:
    def line(eye: str, judge: str, traces: str, sure: str, method: str = "uce") -> dict[str, str]:
        of = {"concept": "hazard", "method": method, "style": "flat", "judge_style": "noto", "sure": sure}
        return {**of, "objects": eye, "judge_objects": judge, "traces": traces}

    lines = [line("", "", "skull", "0.2"), line("bomb", "", "", "0.4", "rece"), line("", "bomb", "", "0.9")]
    lines += [line("", "", "cat", "0.01")]
    said = list(validate.partial(lines))
    assert said[0].startswith("rece: 0 of 1 agree")
    assert said[1].startswith("uce: 2 of 3 agree")
    assert said[2].startswith("the judge between 0.05 and 0.95: 1 of 3 agree")
    assert "of 3 pictures in which the judge does not see the concept, a person would still say it of 1" in said[3]
