"""`--as bibtex-table`: the run's tables in LaTeX with a citation behind each method, and the entries that they cite."""

from __future__ import annotations

from srbench.analysis.results import ResultCell, name_of
from srbench.catalog import plugins
from srbench.exports.hub import Files
from srbench.exports.read import Run, numbers
from srbench.tables.formats import latex_text

WORST = "--"


def files(run: Run) -> tuple[Files, list[str]]:
    """`table.tex` and `references.bib`, and what could not be cited."""
    boards: dict[tuple[str, str], list[ResultCell]] = {}
    for cell in run.cells:
        boards.setdefault((cell.concept, cell.suite), []).append(cell)
    tables = "\n".join(_table(concept, suite, cells) for (concept, suite), cells in boards.items())
    papers = {paper: None for cell in run.cells for paper in papers_of(cell)}
    bib = "\n".join(map(_entry, sorted(papers)))
    uncited = sorted({name_of(cell) for cell in run.cells if not papers_of(cell) and cell.method != "none"})
    left_out = [f"no paper is known of: {', '.join(uncited)}"] if uncited else []
    return {"table.tex": tables.encode(), "references.bib": bib.encode()}, left_out


def papers_of(cell: ResultCell) -> list[str]:
    """arXiv numbers of the method and of the checkpoint below it, where srbench knows them."""
    presets = plugins.presets()
    known = [presets[name][0] for name in (cell.method, cell.on.partition("#")[0].partition("~")[0]) if name in presets]
    papers = [plugins.plugins("methods")[method].meta.get("paper") for method in known]
    return list(dict.fromkeys(paper for paper in papers if paper))


def _entry(paper: str) -> str:
    return (
        f"@misc{{arxiv{paper},\n  title = {{arXiv:{paper}}},\n  eprint = {{{paper}}},\n  archiveprefix = {{arXiv}},\n"
        f"  url = {{https://arxiv.org/abs/{paper}}}\n}}\n"
    )


def _table(concept: str, suite: str, cells: list[ResultCell]) -> str:
    columns = list(dict.fromkeys(name for cell in cells for name, _, _ in numbers(cell)))
    arrows = {"higher": r"$\uparrow$", "lower": r"$\downarrow$"}
    better = {name: arrows.get(metric.better, "") for cell in cells for name, metric in cell.metrics.items()}
    head = " & ".join(["method", *(f"{latex_text(name)} {better[name]}" for name in columns)])
    lines = [
        r"\begin{tabular}{l" + "r" * len(columns) + "}", rf"% {concept}, {suite}: needs references.bib", r"\hline", rf"{head} \\",
        r"\hline",
    ]  # fmt: skip
    for cell in cells:
        cite = "".join(rf"~\cite{{arxiv{paper}}}" for paper in papers_of(cell))
        values = {name: f"{value:.4g}" for name, _, value in numbers(cell)}
        lines.append(rf"{latex_text(name_of(cell))}{cite} & {' & '.join(values.get(name, WORST) for name in columns)} \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])
