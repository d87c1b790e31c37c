"""Whether pocket ranks methods as published tables of Stable Diffusion do: `python -m srbench.pocket_build.study.agreement`.

Prints Kendall's tau-b between both rankings, with the exact two-sided p of all pairings and the number of methods. Published
figures are those of `results/published`, pocket's those of `results/pocket`. `docs/validity.md` holds what it prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, permutation_test

from srbench.analysis.metrics import METRICS
from srbench.analysis.results import ResultCell
from srbench.catalog import resolve
from srbench.errors import MissingError
from srbench.pocket_build.command import Words, guarded
from srbench.results.run_files import summarised
from srbench.tables.papers.spec import published

RESULTS = resolve.PACKAGE.parent / "results" / "pocket"
FEWEST = 3
"""Methods; of two, a tau is always 1 or -1."""
Subject = tuple[str, str]
"""Method, and the checkpoint that it acts on."""
WEIGHTS: dict[str, Subject] = {
    "ESD": ("none", "esd-x"), "UCE": ("none", "uce"), "RECE": ("none", "rece"), "AC": ("none", "ablation"),
}
STEERED: dict[str, Subject] = {
    "SAFREE": ("safree", "none"), "SLD": ("sld-max", "none"), "SLD max": ("sld-max", "none"),
    "Stable Diffusion with negative prompt": ("negative-prompt", "none"),
}
LEVELS: dict[str, Subject] = {
    "Stable Diffusion 1.4, sexual": ("none", "none"), "SLD medium, sexual": ("sld-medium", "none"),
    "SLD strong, sexual": ("sld-strong", "none"), "SLD max, sexual": ("sld-max", "none"),
}
OLD_UCE = {"UCE": ("none", "uce-old")}
"""The board's UCE is the paper's code."""


@dataclass(frozen=True)
class Pairing:
    """A published column and the metric of pocket's that stands for it."""

    title: str
    table: str
    """Name of a file of `results/published`."""
    column: str
    concept: str
    suite: str
    """`unlearndiffatk@own`: the prompts that this attack made against each method itself."""
    metric: str
    subjects: Mapping[str, Subject]
    """Label in the published table -> what it is on pocket."""


BOARD = {**WEIGHTS, **STEERED}
PAIRINGS = (
    Pairing("nudity, no attack", "unlearndiffatk-nudity", "pre", "hazard", "igmu", "fsr", BOARD),
    Pairing("nudity, no attack", "unlearndiffatk-nudity", "pre", "hazard", "i2p", "fsr", BOARD),
    Pairing("nudity, UnlearnDiffAtk", "unlearndiffatk-nudity", "post", "hazard", "unlearndiffatk@own", "post", BOARD),
    Pairing("nudity, FID", "unlearndiffatk-nudity", "fid", "hazard", "igmu", "retain_accuracy", BOARD),
    Pairing("nudity, P4D", "p4d-nudity", "asr", "hazard", "p4d@own", "post", BOARD),
    Pairing("SLD's levels on I2P", "sld-i2p", "inappropriate", "hazard", "igmu", "fsr", LEVELS),
    Pairing("SLD's levels on I2P", "sld-i2p", "inappropriate", "hazard", "i2p", "fsr", LEVELS),
    Pairing("Van Gogh, no attack", "unlearndiffatk-vangogh", "pre", "vangogh", "igmu", "fsr", BOARD),
    Pairing("the same, UCE's old code", "unlearndiffatk-vangogh", "pre", "vangogh", "igmu", "fsr", {**BOARD, **OLD_UCE}),
    Pairing("Van Gogh, UnlearnDiffAtk", "unlearndiffatk-vangogh", "post", "vangogh", "unlearndiffatk@own", "post", BOARD),
    Pairing("Van Gogh, FID", "unlearndiffatk-vangogh", "fid", "vangogh", "igmu", "retain_accuracy", BOARD),
)


@dataclass(frozen=True)
class Agreement:
    """Of one pairing: the methods that both have, and how their rankings agree."""

    pairing: Pairing
    methods: tuple[str, ...]
    tau: float
    """Kendall's tau-b of how good both say that each method is: 1 the same order, -1 the opposite. nan where all are equal."""
    p: float
    """Two-sided, over all pairings of the values; nan with tau."""


def goodness(values: Sequence[float], better: str) -> np.ndarray:
    """Values of which more is better, (n,)."""
    return np.array(values, float) * (1 if better == "higher" else -1)


def rank_agreement(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Kendall's tau-b of two rankings of the same methods, (n,) each, and its exact two-sided p over all n! pairings."""
    tau = float(kendalltau(first, second).statistic)
    if np.isnan(tau):
        return tau, tau
    test = permutation_test(
        (first,), lambda paired: kendalltau(paired, second).statistic, permutation_type="pairings", n_resamples=np.inf
    )
    return tau, float(test.pvalue)


def measured(cells: Iterable[ResultCell], pairing: Pairing) -> dict[Subject, float]:
    """Pocket's values of the pairing's metric; of an attack, of the prompts that were made against each method itself."""
    found = {}
    for cell in cells:
        subject = (cell.method, cell.on)
        victim = cell.on if cell.method == "none" and cell.on != "none" else cell.method
        suite = pairing.suite.replace("@own", f"-{victim}")
        if (cell.concept, cell.suite, cell.variant) != (pairing.concept, suite, "") or pairing.metric not in cell.metrics:
            continue
        value = cell.metrics[pairing.metric].value
        if value is not None:
            found[subject] = value
    return found


def agreement(cells: Sequence[ResultCell], pairing: Pairing) -> Agreement:
    """Raises `MissingError` where fewer than `FEWEST` methods have both figures."""
    table = published()[pairing.table]
    figures = {
        row.label: float(figure.value) for row in table.rows for figure in row.figures
        if figure.column == pairing.column and row.label in pairing.subjects
    }  # fmt: skip
    values = measured(cells, pairing)
    methods = tuple(label for label in figures if pairing.subjects[label] in values)
    if len(methods) < FEWEST:
        what = f"{pairing.title}: only {len(methods)} methods have a published figure and one of pocket's"
        raise MissingError(what, "Run `make pocket-results`.")
    theirs = goodness([figures[label] for label in methods], table.column(pairing.column).better)
    ours = goodness([values[pairing.subjects[label]] for label in methods], METRICS[pairing.metric].better)
    return Agreement(pairing, methods, *rank_agreement(theirs, ours))


def lines(found: Sequence[Agreement]) -> list[str]:
    """A Markdown table."""
    rows = ["| published | pocket | methods | n | tau | p |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for each in found:
        pairing = each.pairing
        pocket = f"{pairing.concept}, {pairing.suite}, `{pairing.metric}`"
        names = ", ".join(name.removesuffix(", sexual") for name in each.methods)
        figures = "n/a | n/a" if np.isnan(each.tau) else f"{each.tau:+.2f} | {each.p:.2f}"
        rows.append(f"| {pairing.title} | {pocket} | {names} | {len(each.methods)} | {figures} |")
    return rows


def committed() -> list[ResultCell]:
    """The cells of `results/pocket`. Raises `MissingError` where there are none."""
    cells = summarised(RESULTS)
    if not cells:
        raise MissingError(f"{RESULTS} holds no results", "Run this in a clone, or run `make pocket-results`.")
    return cells


@guarded
def main(words: Words = None) -> int:
    """The command; returns its exit code."""
    cells = committed()
    print("\n".join(lines([agreement(cells, pairing) for pairing in PAIRINGS])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
