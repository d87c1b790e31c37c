"""The study `results/pocket-durability/study.yaml`: its summaries and docs/pocket-durability.md.

`python -m srbench.pocket_build.study.durable [--results FOLDER]`, where the study was run. What `results/pocket-hard` has of the
same pictures is not repeated: the page, and `srbench compare results/ --durability` in a clone, put both together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from srbench.analysis.durability import durabilities
from srbench.analysis.lineage import lineage
from srbench.analysis.records import label
from srbench.analysis.results import ResultCell
from srbench.catalog import load
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.errors import MissingError
from srbench.pocket_build.__main__ import DOCS, say
from srbench.pocket_build.command import Words, guarded
from srbench.pocket_build.study import hard
from srbench.pocket_build.study.firsts import first_rows
from srbench.pocket_build.study.reference import summary
from srbench.results.run_files import identity, newest, summarised
from srbench.results.store import Store
from srbench.results.stored import stored_records
from srbench.studies.read import read
from srbench.tables.durability import tables
from srbench.tables.formats import as_markdown

FOLDER = DOCS.parent / "results" / "pocket-durability"
STUDY, PAGE, PICTURE = FOLDER / "study.yaml", DOCS / "pocket-durability.md", DOCS / "pocket-durability.png"
VARIANTS = ("", "backbone.bits=4")
SHOWN = (
    ("image-to-image", "own-image-0.5"), ("image-to-image", "neutral-image-0.5"), ("half-denoised", "own-half-8"),
    ("half-denoised", "neutral-half-8"), ("inverted", "own-inverted"), ("inverted", "neutral-inverted"),
    ("inpaint", "own-inpaint"), ("inpaint", "neutral-inpaint"),
)  # fmt: skip
"""Suites and kinds of the rows in the picture: the first row of each, whatever it shows."""
BESIDE = ("none", "saferedir", "uce", "rece", "sld-max")
"""Methods below each other."""
SIDE_PX, TEXT_PX = 112, 34


@cache
def suites() -> frozenset[str]:
    """Of the study."""
    return frozenset(suite for step in read(STUDY).steps for job in step.jobs for suite in job.values["suites"])


@cache
def methods() -> tuple[str, ...]:
    """The study's methods, in its order."""
    return tuple(read(STUDY).steps[0].jobs[0].values["methods"])


def _is_ours(cell: ResultCell) -> bool:
    name = cell.label.removesuffix(cell.on) + lineage(cell.on).before if cell.on != "none" else cell.label
    return cell.backbone == "pocket" and cell.variant in VARIANTS and cell.suite in suites() and name in methods()


def _judge(cell: ResultCell) -> ProtocolSpec | None:
    return load.protocols()[cell.protocol] if _is_ours(cell) and not cell.variant else None


def measured() -> list[ResultCell]:
    """What is committed of this study, with what `results/pocket-hard` has of it."""
    return [cell for cell in (*summarised(FOLDER), *summarised(hard.FOLDER)) if _is_ours(cell)]


def summaries(cells: Sequence[ResultCell], there: Sequence[ResultCell]) -> dict[Path, bytes]:
    """A summary a concept, as tables read it. there: what is committed elsewhere, and left out."""
    known = {(identity(cell), cell.origin.images_sha) for cell in there}
    new = [cell for cell in cells if (identity(cell), cell.origin.images_sha) not in known]
    files = {}
    for concept in sorted({cell.concept for cell in new}):
        mine = sorted((cell for cell in new if cell.concept == concept), key=_order)
        files[FOLDER / f"{concept}.json"] = summary(f"pocket-durability-{concept}", mine)
    return files


def _order(cell: ResultCell) -> tuple[str, ...]:
    return cell.suite, cell.method, cell.on, cell.variant


def _heading(suite: str, row: Row) -> str:
    return f"{suite}\n{'own prompt' if row.category.startswith('own') else 'neutral prompt'}"


def page(cells: Sequence[ResultCell]) -> str:
    """docs/pocket-durability.md."""
    (sha,) = {cell.origin.backbone_sha[:8] for cell in cells}
    text = [
        "# Does it stay gone, on pocket?", "",
        f"`results/pocket-durability/study.yaml` on `pocket@{sha}`, all rows of each suite: plain prompts, attacks in text, "
        "pictures to begin from, checkpoints taught the concept again for 32 steps, weights rounded to 4 bits. What the axes "
        "are: [durability.md](durability.md). In a clone `srbench compare results/ --durability` prints this table.", "",
        "    # hours", "    srbench run results/pocket-durability/study.yaml --device cpu",
        "    python -m srbench.pocket_build.study.durable", "",
        as_markdown(tables(durabilities(cells))),
        "The attacks in text are prompts made without looking at any method. Attacks that search against a method itself, more "
        "steps of teaching, other samplers and training seeds are not in this table.", "",
        "![the first row of eight kinds of beginnings under five methods](pocket-durability.png)",
    ]  # fmt: skip
    return "\n".join([*text, ""])


@guarded
def main(words: Words = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket_build.study.durable", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the study was run (default: %(default)s)")
    results: Path = parser.parse_args(words).results
    cells = [cell for cell in newest(results, say) if cell.source == "local" and _is_ours(cell)]
    if not cells:
        raise MissingError(f"{results}: the study was not run there", f"srbench run {STUDY} --device cpu")
    files = summaries(cells, summarised(hard.FOLDER))
    store = Store.peek(results / "store")
    begun = {(record.suite, label(record)): record for record in stored_records(results, store, _judge)}
    drawn = first_rows(begun, SHOWN, BESIDE, store, _heading, SIDE_PX, TEXT_PX)
    files |= {PICTURE: drawn} if drawn is not None else {}
    for path, data in files.items():
        hard.write(path, data)
    hard.write(PAGE, page(measured()).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
