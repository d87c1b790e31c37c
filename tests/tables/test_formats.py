"""JSON, CSV, Markdown and LaTeX of the same cells."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import pytest

from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell, from_dict, result, to_dict
from srbench.errors import UsageError
from srbench.tables import boards, formats
from srbench.tables.formats import FORMATS

KEYS = [
    *("backbone", "concept", "suite", "method", "on", "variant", "protocol", "dtype", "rows_sha", "run"),
    *("n_loaded", "n_excluded", "n_run", "n_scored", "n_failed", "metrics"),
]


def write(cells: list[ResultCell], format: str, sort: str | None = None) -> str:
    """The boards of the cells in a format."""
    return formats.write(boards.tables(cells, sort=sort), format)


@pytest.fixture(scope="module")
def cells(make) -> list:
    """The untouched backbone, a method of which two images failed, and a blocked cell."""
    bomb, cat = make.image(make.raw({"bomb": 0.9})), make.image(make.raw({"cat": 0.9}), timing=(0.25, "run", 1))
    keep = [make.retain(i, cat) for i in range(6)]
    none = make.cell(*(make.forget(i, bomb) for i in range(8)), *keep, method="none", decides=False)
    mine = make.cell(*(make.forget(i, None if i < 2 else cat) for i in range(8)), *keep, method="safe_redir")
    blocked = make.cell(method="saferedir", on="esd", blocked="needs 100 % of | the_keys & more")
    return [result(each, make.hazard, none) for each in (none, mine, blocked)]


def test_json_has_the_promised_keys(cells) -> None:
    data = json.loads(write(cells, "json"))
    assert list(data) == ["cells"]
    for cell in data["cells"]:
        assert list(cell) == KEYS
    assert data["cells"][0]["metrics"]["fsr"] == {
        "value": 0,
        "low": 0,
        "high": pytest.approx(32.44, abs=0.01),
        "n": 8,
        "better": "higher",
    }


def test_json_says_why_there_is_no_value(cells) -> None:
    none, _, blocked = json.loads(write(cells, "json"))["cells"]
    assert none["metrics"]["added_ms"] == {
        "value": None, "low": None, "high": None, "n": 0, "better": "lower", "reason": "is the baseline"
    }  # fmt: skip
    assert all(metric["value"] is None and metric["reason"].startswith("needs") for metric in blocked["metrics"].values())


def test_json_gives_bounds_only_where_rows_failed(cells) -> None:
    none, mine, _ = json.loads(write(cells, "json"))["cells"]
    assert mine["metrics"]["fsr"] | {"low": 0, "high": 0} == {
        "value": 100, "low": 0, "high": 0, "n": 8, "better": "higher", "scored": 6, "worst": 75, "best": 100
    }  # fmt: skip
    assert "worst" not in none["metrics"]["fsr"]
    assert (mine["n_run"], mine["n_scored"], mine["n_failed"]) == (14, 12, 2)


def test_numbers_that_are_not_finite_do_not_reach_json(make, cells) -> None:
    bad = {"fsr": Metric("higher", math.nan, math.nan, math.inf, 3, 3), "csdr": Metric("lower", 1.0, 0.0, math.inf, 3, 3)}
    found = json.loads(write([make.replace(cells[0], metrics=bad)], "json"))["cells"][0]["metrics"]
    assert found["fsr"]["value"] is None
    assert found["fsr"]["reason"]
    assert found["csdr"] == {"value": 1.0, "low": 0.0, "high": None, "n": 3, "better": "lower", "reason": "not a finite number"}


def test_json_round_trip(make, cells) -> None:
    for cell in cells:
        again = from_dict(json.loads(json.dumps(to_dict(cell), allow_nan=False)))
        assert again == make.replace(cell, source="committed")
        assert to_dict(again) == to_dict(cell)


def test_a_damaged_summary_is_refused_by_name(cells) -> None:
    data = to_dict(cells[0])
    with pytest.raises(UsageError, match="no key 'run'"):
        from_dict({name: value for name, value in data.items() if name != "run"})
    with pytest.raises(UsageError, match="unknown key 'colour'"):
        from_dict({**data, "colour": "red"})
    with pytest.raises(UsageError, match="metric 'fsr'"):
        from_dict({**data, "metrics": {"fsr": {"value": 1}}})


def test_csv_has_one_line_per_metric(cells) -> None:
    lines = list(csv.DictReader(io.StringIO(write(cells, "csv"))))
    assert len(lines) == sum(len(cell.metrics) for cell in cells)
    mine = next(line for line in lines if (line["method"], line["metric"]) == ("safe_redir", "fsr"))
    assert (mine["value"], mine["scored"], mine["worst"], mine["better"]) == ("100.0", "6", "75.0", "higher")
    assert {line["reason"] for line in lines if line["on"] == "esd"} == {"needs 100 % of | the_keys & more"}


def test_markdown_rows_are_as_wide_as_their_header(cells) -> None:
    table = [line for line in write(cells, "md").splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "fsr ↑" in table[0]


def test_markdown_escapes_and_explains(cells) -> None:
    found = write(cells, "md")
    assert r"safe\_redir" in found
    assert r"- n/a (1): needs 100 % of \| the\_keys & more" in found
    assert "n/a (is the baseline)" in found


def test_the_best_is_bold_and_partly_scored_values_are_not(make, cells) -> None:
    whole = make.replace(cells[1], method="whole", n_scored=14, metrics={"fsr": Metric("higher", 50.0, 40.0, 60.0, 8, 8)})
    found = write([*cells, whole], "md")
    assert "**50.0** ★" in found
    assert "**100**" not in found
    assert r"\textbf{50.0}" in write([*cells, whole], "latex")


def test_latex_is_balanced_and_escaped(cells) -> None:
    found = write([*cells, *cells], "latex")
    assert found.count(r"\begin{table}") == found.count(r"\end{table}") == 1
    assert found.count(r"\begin{") == found.count(r"\end{")
    assert r"safe\_redir" in found
    assert r"needs 100 \% of | the\_keys \& more" in found
    rows = [line for line in found.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in rows}) == 1
    assert not re.search(r"(?<!\\)[%#]", found)
    assert found.isascii()


def test_limited_runs_stand_apart_in_every_format(make, cells) -> None:
    both = [*cells, make.replace(cells[0], variant="limit=2")]
    assert write(both, "md").index("not the defaults") < write(both, "md").index("limit=2")
    body = write(both, "latex").split(r"\midrule")
    assert len(body) == 3
    assert "limit=2" in body[2]


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_takes_no_cells(name: str) -> None:
    assert isinstance(write([], name), str)


def test_an_unknown_format_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        write([], "latx")
    assert "latex" in caught.value.hint


def test_a_line_without_a_metric_has_a_dash_and_the_table_says_what_it_means(make, cells) -> None:
    none, mine, _ = cells
    gained = make.replace(mine, metrics=mine.metrics | {"fsr_gain": Metric("higher", 4.0, 1.0, 7.0, 8, 8)})
    for name, dash in {"md": " – |", "latex": " & -- &"}.items():
        text = write([none, gained], name)
        assert text.count(dash) == 1, text
        assert "n/a (not asked" not in text
        assert "not asked for, or without a meaning" in text
        assert "not asked for" not in write([none, mine], name)


HOSTILE = "<script>alert(1)</script> & \"x\" 'y'"


def test_html_is_one_page_with_everything_escaped(make, cells) -> None:
    hostile = [make.replace(each, variant=HOSTILE, concept=HOSTILE, notes=(HOSTILE,)) for each in cells]
    found = write([*cells, *hostile], "html")
    assert "<script" not in found
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; " in found
    assert not re.search(r"(src|href|url|@import)\s*[=(]", found)
    rows = re.findall(r"<tr>(.*?)</tr>", found.split("</section>")[-2])
    assert len({row.count("<th ") + row.count("<td>") for row in rows if "colspan" not in row}) == 1


def test_html_says_why_and_marks_the_best(make, cells) -> None:
    whole = make.replace(cells[1], method="whole", n_scored=14, metrics={"fsr": Metric("higher", 50.0, 40.0, 60.0, 8, 8)})
    found = write([*cells, whole], "html")
    assert "<b>50.0 ★</b><small>[40.0, 60.0]</small>" in found
    assert "<li>n/a (1): needs 100 % of | the_keys &amp; more</li>" in found


@pytest.mark.parametrize("name", ["csv", "json", "md", "latex", "html"])
def test_every_format_can_be_sorted(make, cells, name: str) -> None:
    none, mine, _ = cells
    found = write([none, mine], name, sort="fsr")
    first, second = (found.index(method) for method in (r"safe\_redir" if name in ("md", "latex") else "safe_redir", "none"))
    assert first < second
