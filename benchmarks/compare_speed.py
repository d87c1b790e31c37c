"""How long a million judged images take to compare: rates with intervals, and every method tested against one.

Rows are made up (seeded). Two parts are timed apart: judging raw scores row by row, and comparing what was judged. The
bootstraps of means are left out: they are cached by content.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from srbench.analysis.measure import summarise
from srbench.analysis.metrics import METRICS, Lens, observe
from srbench.analysis.records import CellRecord, ImageRecord, RowRecord, Timing
from srbench.analysis.significance import Answers, answers, compared, corrected_together, matched, mcnemar
from srbench.catalog.specs import ProtocolSpec, Row

OBJECTS = 30
TARGET_SECONDS = 3.0
JUDGE = ProtocolSpec(
    name="judge", title="", scorer="judge", field="objects", classes=("object-0", "object-1"), threshold=0.5, top1=True,
    source="here",
)  # fmt: skip


def raws(rng: np.random.Generator) -> list[dict[str, dict[str, dict[str, float]]]]:
    """Some hundred different raw scores of a classifier."""
    found = rng.dirichlet(np.full(OBJECTS, 0.1), 500)
    return [{"judge": {"objects": {f"object-{i}": float(p) for i, p in enumerate(each)}}} for each in found]


def cells(methods: int, rows: int) -> list[CellRecord]:
    """Methods on the same rows."""
    rng = np.random.default_rng(0)
    known = [ImageRecord(str(i), str(i), Timing(0.0, "", 0), {}, scores) for i, scores in enumerate(raws(rng))]
    prompts = [Row(id=f"row-{i}", kind="forget", category="named", prompt=f"prompt {i}", seed=i) for i in range(rows)]
    picks = rng.integers(0, len(known), (methods, rows))
    return [
        CellRecord(
            backbone="b", concept="c", concept_kind="object", suite="s", attack=False, method=f"m{method}", on="none", variant="",
            protocol="judge", dtype="fp32", rows_sha="r", run="r", source="local", n_loaded=rows, n_excluded=0, metrics=("fsr",),
            decides=False, rows=tuple(RowRecord(row, known[pick]) for row, pick in zip(prompts, own, strict=True)),
        )
        for method, own in enumerate(picks.tolist())
    ]  # fmt: skip


def tested(found: list[Answers], pairs: list[tuple[int, int]]) -> int:
    """Every pair's test with its interval, corrected together; returns how many are below 0.05."""
    tests = [compared((str(a), str(b), "fsr"), True, matched(found[a], found[b])) for a, b in pairs]
    return sum(test.p_holm is not None and test.p_holm < 0.05 for test in corrected_together(tests))


class Clock:
    """Seconds since the last look: by the clock on the wall, and of this process alone."""

    def __init__(self) -> None:
        self.last = time.perf_counter(), time.process_time()

    def look(self) -> tuple[float, float]:
        """Both, and begin anew."""
        now = time.perf_counter(), time.process_time()
        wall, cpu = now[0] - self.last[0], now[1] - self.last[1]
        self.last = now
        return wall, cpu


def say(what: str, taken: tuple[float, float], more: str = "") -> None:
    """One line."""
    print(f"{what:<26}{taken[0]:>8.2f} s{taken[1]:>8.2f} s  {more}")


def main() -> None:
    """Time each part once, after a warm-up that imports what is needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", type=int, default=100)
    parser.add_argument("--rows", type=int, default=10_000)
    asked = parser.parse_args()
    made, lens, rule = cells(asked.methods, asked.rows), Lens(JUDGE, "object", "judge", "judge"), METRICS["fsr"]
    mcnemar([True], [False])
    print(f"{asked.methods} methods x {asked.rows:,} rows = {asked.methods * asked.rows:,} images{'':<4}wall       CPU")
    clock = Clock()
    seen = [observe(rule, cell, lens) for cell in made]
    say("judging raw scores", clock.look())
    rates = [summarise(rule, each) for each in seen]
    rated = clock.look()
    say("rates with intervals", rated, f"{rates[0].value:.1f} % and so on")
    found = [answers(each) for each in seen]
    below = tested(found, [(i, 0) for i in range(1, len(found))])
    against = clock.look()
    say("all against the first", against, f"{len(found) - 1} tests, {below} below 0.05")
    below = tested(found, [(a, b) for a in range(len(found)) for b in range(a)])
    say("all against each other", clock.look(), f"{len(found) * (len(found) - 1) // 2} tests, {below} below 0.05")
    wall, cpu = (a + b for a, b in zip(rated, against, strict=True))
    verdict = "reached" if wall <= TARGET_SECONDS else "missed"
    print(f"compared (rates, all against the first): {wall:.2f} s, {cpu:.2f} s of CPU; target {TARGET_SECONDS:g} s: {verdict}")


if __name__ == "__main__":
    main()
