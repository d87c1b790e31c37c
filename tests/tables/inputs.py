"""Numbers for every table, with names that are markup somewhere, values without a number, failed rows and several backbones."""

from __future__ import annotations

from typing import Any

from srbench.analysis.costs import Cost
from srbench.analysis.differences import Change, Comparison, Entry
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.analysis.robustness import Matrix
from srbench.analysis.sensitivity import Curve

EVIL = (
    "[red]x", "[/foo]", "\x1b[31mx", "a\x9b2Jb", "a|b", "<script>", "=1+1", "&lt;b&gt;", "\\", ":smile:", "a\nb", "![x](http://h/)",
    "$x_1$ 5%", "\u202egnp", "`c`", "@SUM(1)", "-2+3", "[0.5]x", "\ud800", "}{", "~^#", "*x*", "a -->", "]]>",
)  # fmt: skip
"""Names that mean something to a terminal, Markdown, LaTeX, HTML, a spreadsheet or rich."""
HOSTILE = "".join(EVIL)


def rate(value: float | None, **fields: Any) -> Metric:
    """A rate of 40 rows with an interval of ten points."""
    ends = {} if value is None else {"low": max(0.0, value - 5), "high": min(100.0, value + 5)}
    return Metric(**{"better": "higher", "value": value, "n": 40, "scored": 40, **ends, **fields})


def cell(method: str = "saferedir", **fields: Any) -> ResultCell:
    """A finished cell of hazard x igmu."""
    given = {
        "backbone": "pocket", "concept": "hazard", "suite": "igmu", "method": method, "on": "none", "variant": "",
        "protocol": "pocket-hazard", "dtype": "fp32", "rows_sha": "0123456789abcdef", "run": "r1", "source": "local",
        "n_loaded": 40, "n_excluded": 0, "n_run": 40, "n_scored": 40, "n_failed": 0, "metrics": {"fsr": rate(50)},
    }  # fmt: skip
    return ResultCell(**{**given, **fields})


LONG, LONGER = "checkpoint esd.safetensors does not load: 3 keys are missing", "needs 100 % of | the_keys & more than there are"


def cells() -> list[ResultCell]:
    """Two boards: with a star, reasons short and long in an order that differs by row and by column, failures and variants."""
    tested = rate(12.0, test="mcnemar", p=0.00004, p_holm=0.00008)
    none = {"fsr": rate(0), "fsr_unseen": rate(4.25), "added_ms": Metric("lower", reason="is the baseline")}
    mine = {
        "fsr": rate(75, scored=36, worst=67.5, best=77.5), "fsr_unseen": Metric("higher", reason=LONG), "added_ms": rate(-3.5),
        "fsr_diff": tested, "over_refusal": rate(2.5, better="lower"),
    }  # fmt: skip
    blocked = {"fsr": Metric("higher", reason=LONGER), "fsr_unseen": Metric("higher", reason=LONG)}
    return [
        cell("none", metrics=none), cell("safree", metrics={"fsr": rate(98.25), "fsr_unseen": rate(97)}),
        cell(metrics=mine, n_scored=36, n_failed=4, n_excluded=3), cell("saferedir", on="esd-x", metrics=blocked),
        cell(variant="alpha_scale=0.5", metrics={"fsr": rate(99.5)}), cell(variant="limit=2,rows=alone", source="committed"),
        cell("none", suite="mma", metrics={"asr": rate(80, better="lower", low=None, high=None)}),
        cell("saferedir-upstream", suite="mma", metrics={"asr": rate(3, better="lower")}),
    ]  # fmt: skip


def evil_cells() -> list[ResultCell]:
    """A method of each evil name, and everything that is text in one."""
    named = [cell(name, run=f"r{number}") for number, name in enumerate(EVIL)]
    return [*named, cell(
        "none", concept=HOSTILE, suite=HOSTILE, protocol=HOSTILE, variant=HOSTILE, notes=(HOSTILE,),
        metrics={"fsr": Metric("higher", reason=HOSTILE), HOSTILE: rate(40)},
    )]  # fmt: skip


def cells_of_papers() -> list[ResultCell]:
    """For the table of `conftest`: what stands beside its figures, and pocket's edition with reasons short and long."""
    church = {"concept": "church", "protocol": "pocket-church"}
    mine = {"fsr": rate(88.5), "fsr_gain": rate(12.0, test="mcnemar", p=0.00001, p_holm=0.00002), "fd_pocket": rate(7.25)}
    return [
        cell("saferedir", backbone="sd14", concept="church", protocol="igmu-church", metrics={
            "fsr": rate(97.25, scored=38), "asr": Metric("lower", reason=LONG),
        }),
        cell("none", **church, metrics={"fsr": Metric("higher", reason=LONGER), "over_refusal": Metric("lower", reason=LONG)}),
        cell("none", on="esd-x", **church, metrics={"fsr": rate(40), "fd_pocket": Metric("lower", reason="is the baseline")}),
        cell("saferedir", on="esd-x", **church, metrics=mine | {"fsr": rate(75, scored=36, worst=67.5, best=77.5)}),
        cell("saferedir", on="esd-x", variant="redirector=on-esd-x@1", **church, metrics={"fsr": rate(0, n=20, scored=20)}),
    ]


def matrices(name: str = "saferedir") -> list[Matrix]:
    """Methods by suites, and by prompts made against a method."""
    asr = {"better": "lower"}
    against = f"unlearndiffatk against {name}"
    by_suite = {
        "none": {"igmu": rate(95, **asr), "mma": rate(85, scored=36, worst=90, best=80, **asr)}, name: {"igmu": rate(0, **asr)},
    }  # fmt: skip
    by_file = {name: {against: rate(40, **asr)}, "sld-max": {against: Metric("lower", reason="no rows")}}
    judge = "judge pocket-hazard"
    return [
        Matrix("hazard on pocket: how often it is drawn, by suite", f"{judge} · fp32", ("igmu", "mma"), by_suite),
        Matrix("hazard on pocket: prompts made against one, on others", judge, (against, f"mma against {name}"), by_file),
    ]


def costs(name: str = "saferedir", backbone: str = "pocket@1f5af377") -> list[Cost]:
    """A method that costs, and one of which nothing is known, on two backbones."""
    return [
        Cost(backbone, name, 3, 271.44, -9.26, -15.0, 14.04, 666182, 1781.6),
        Cost("sd14@00000000", "none", 1, None, None, None, None, None, None),
        Cost("sd14@00000000", "uce", 1, 1.0, 2.0, 2.0, 2.0, 0, 9.4),
    ]  # fmt: skip


def curves(name: str = "saferedir") -> list[Curve]:
    """Two methods at three thresholds, and one of them under a second list of classes."""
    rates = ((0.1, rate(10)), (0.5, rate(50, scored=38, worst=45, best=52)), (0.9, Metric("higher", reason=LONG)))
    made = [(name, ("dagger", "bomb")), ("none", ("dagger", "bomb")), (name, ("dagger",))]
    return [
        Curve("hazard", "igmu", method, "fsr", classes, rates, "pocket@1f5af377, seed 1", "fp32", "0123456789abcdef")
        for method, classes in made
    ]


def comparisons(name: str = "saferedir") -> list[Comparison]:
    """One comparison with everything: better, worse, not shown, without a value; and rows that flip, more than are named."""
    def change(metric: str, value: float | None, **fields: Any) -> Change:
        ends = {} if value is None else {"low": value - 5, "high": value + 5}
        gained, lost = fields.pop("gained", ()), fields.pop("lost", ())
        better = fields.pop("better", "higher")
        difference = Metric(**{"better": better, "value": value, "n": 40, "scored": 40, **ends, **fields})
        return Change(metric, rate(30, better=better), rate(30 + (value or 0), better=better), difference, gained, lost)

    test = {"test": "mcnemar"}
    changes = (
        change("fsr", 50.0, p=0.00001, p_holm=0.00002, gained=tuple(f"f {i}" for i in range(7)), lost=("l'1",), **test),
        change("over_refusal", 20.0, better="lower", p=0.01, p_holm=0.02, **test),
        change("fsr_unseen", 2.0, p=0.4, p_holm=0.8, **test),
        change("content_kept", None, reason=f"{name}: {LONG}"), change("csdr", -3.0, better="lower", test="intervals"),
    )  # fmt: skip
    return [Comparison(Entry(cell("none")), Entry(cell(name)), changes)]
