"""`--as bibtex-table`: tables of a run as `srbench compare --format latex` writes them, with a citation behind each method."""

from __future__ import annotations

from srbench.analysis.results import ResultCell, name_of
from srbench.catalog import load, plugins
from srbench.exports.hub import Files
from srbench.exports.read import Run
from srbench.tables import formats
from srbench.tables.compare import results_of

NEEDS = "% needs the packages booktabs and graphicx, and references.bib\n"


def files(run: Run) -> tuple[Files, list[str]]:
    """`table.tex` and `references.bib`, and lines on what could not be read or cited."""
    said: list[str] = []
    text = formats.as_latex(results_of(run.folder, run.cells, said.append))
    for name, papers in {name_of(cell): papers_of(cell) for cell in run.cells}.items():
        begins = formats.latex_first(name)
        cites = "".join(rf"~\cite{{arxiv{paper}}}" for paper in papers)
        text = text.replace(f"\n{begins} & ", f"\n{begins}{cites} & ")
    papers = sorted({paper for cell in run.cells for paper in papers_of(cell)})
    uncited = sorted({part for cell in run.cells for part in parts_of(cell) if not _paper(part)})
    left_out = [f"no paper is known of: {', '.join(uncited)}"] if uncited else []
    files = {"table.tex": (NEEDS + text).encode(), "references.bib": "\n".join(map(_entry, papers)).encode()}
    return files, [*said, *left_out]


def parts_of(cell: ResultCell) -> tuple[str, ...]:
    """The method and the checkpoint below it, without what is done to a checkpoint; not the untouched backbone."""
    return tuple(name for name in (cell.method, cell.on.partition("#")[0].partition("~")[0]) if name != "none")


def papers_of(cell: ResultCell) -> list[str]:
    """arXiv numbers of the method and of the checkpoint below it, where srbench knows them."""
    return list(dict.fromkeys(filter(None, map(_paper, parts_of(cell)))))


def _paper(name: str) -> str:
    """A preset's or a published checkpoint's paper; empty where none is known."""
    presets, baselines = plugins.presets(), load.baselines()
    if name in presets:
        return str(plugins.plugins("methods")[presets[name][0]].meta.get("paper") or "")
    return str(getattr(baselines[name], "paper", "") or "") if name in baselines else ""


def _entry(paper: str) -> str:
    return (
        f"@misc{{arxiv{paper},\n  title = {{arXiv:{paper}}},\n  eprint = {{{paper}}},\n  archiveprefix = {{arXiv}},\n"
        f"  url = {{https://arxiv.org/abs/{paper}}}\n}}\n"
    )
