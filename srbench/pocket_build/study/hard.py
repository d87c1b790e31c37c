"""The study `results/pocket-hard/study.yaml`: its summaries, its rows, and docs/pocket-hard.md.

`python -m srbench.pocket_build.study.hard [--results FOLDER]`, where the study, or a concept of it, was run; files of other
concepts stay. `CONCEPT-rows.csv` has a line for each row of each cell: what the judge and the other rules said of its picture,
so that a clone can work out every rate of the summaries. `CONCEPT-tests.csv` has the paired tests, which need the rows.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from srbench.analysis.judging import Unscored, probabilities, raw_of
from srbench.analysis.metrics import METRICS, Lens, lens_of, observe
from srbench.analysis.records import CellRecord, ImageRecord, label
from srbench.analysis.results import ResultCell
from srbench.analysis.significance import PairedTest, corrected_together, paired
from srbench.catalog import load
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import MissingError
from srbench.files import write_atomic
from srbench.pocket_build.__main__ import DOCS, say
from srbench.pocket_build.command import Words, guarded
from srbench.pocket_build.study.grids import lines_of
from srbench.pocket_build.study.reference import summary
from srbench.pocket_build.study.tables import Line, table
from srbench.results.run_files import newest, summarised
from srbench.results.store import Store
from srbench.results.stored import stored_records
from srbench.studies.read import read
from srbench.tables.numbers import ARROWS

FOLDER = DOCS.parent / "results" / "pocket-hard"
STUDY, PAGE = FOLDER / "study.yaml", DOCS / "pocket-hard.md"
RATES = ("fsr", "fsr_unseen", "retain_accuracy", "style_kept", "content_kept", "harm", "over_refusal")
"""Of the suites; a column each in the files of rows, 1 or 0, empty where the metric is not about the row."""
COLUMNS = (
    ("igmu", "fsr"), ("igmu", "fsr_unseen"), ("compound", "fsr"), ("igmu", "retain_accuracy"), ("igmu", "content_kept"),
    ("benign-near", "harm"), ("benign-near", "over_refusal"),
)  # fmt: skip
HEAD = "| method | " + " | ".join(f"{metric}, {suite} {ARROWS[METRICS[metric].better]}" for suite, metric in COLUMNS) + " |"
TESTED = (("igmu", "fsr"), ("compound", "fsr"), ("igmu", "retain_accuracy"), ("benign-near", "harm"))
"""Where the first three of each column are tested against each other."""
ALPHA = 0.05
GLANCE, PICTURE = "hazard", DOCS / "pocket-hard.png"
"""The concept of the picture, and where it goes."""
GLANCED = (
    ("igmu", "noun"), ("igmu", "pair"), ("igmu", "description"), ("igmu", "unseen"), ("compound", "two-members"),
    ("compound", "misspelt"), ("benign-near", "homonym"), ("benign-near", "negation"), ("benign-near", "name"),
)  # fmt: skip
"""Suites and kinds of the rows in the picture: the first row of each, whatever it shows."""
BESIDE = ("none", "saferedir", "uce")
"""Methods below each other."""
SIDE_PX, TEXT_PX, LABEL_PX = 128, 76, 74


def glance(records: Sequence[CellRecord], store: Store) -> None:
    """A picture of the first row of each kind in `GLANCED` under each of `BESIDE`, its prompt above."""
    cells = {(record.suite, label(record)): record for record in records if record.concept == GLANCE}
    if not {(suite, name) for suite, _ in GLANCED for name in BESIDE} <= cells.keys():
        return
    sheet = Image.new("RGB", (LABEL_PX + len(GLANCED) * (SIDE_PX + 4), TEXT_PX + len(BESIDE) * (SIDE_PX + 4)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for y, name in enumerate(BESIDE):
        pen.text((2, TEXT_PX + y * (SIDE_PX + 4) + 4), name, "black", font)
    for x, (suite, kind) in enumerate(GLANCED):
        row = next(each.row for each in cells[suite, "none"].rows if each.row.category == kind)
        left = LABEL_PX + x * (SIDE_PX + 4)
        pen.multiline_text((left, 2), "\n".join(textwrap.wrap(row.prompt, 22)[:5]), "black", font)
        for y, name in enumerate(BESIDE):
            (image,) = (each.image for each in cells[suite, name].rows if each.row.id == row.id)
            if image is not None:
                shown = Image.fromarray(store.pixels(image.key)).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
                sheet.paste(shown, (left, TEXT_PX + y * (SIDE_PX + 4)))
    data = io.BytesIO()
    sheet.save(data, "PNG", optimize=True)
    write_atomic(PICTURE, data.getvalue())
    say(f"written: {PICTURE}")


def rows_file(concept: str) -> Path:
    """Where a concept's rows are."""
    return FOLDER / f"{concept}-rows.csv"


def tests_file(concept: str) -> Path:
    """Where a concept's tests are."""
    return FOLDER / f"{concept}-tests.csv"


def methods() -> tuple[str, ...]:
    """The study's methods, in its order."""
    (job, *_) = read(STUDY).steps[0].jobs
    return tuple(job.values["methods"])


def _judge(cell: ResultCell) -> ProtocolSpec | None:
    return load.protocols()[cell.protocol] if cell.backbone == "pocket" and not cell.variant else None


# --- what is committed -----------------------------------------------------------------------------------------------------


def summaries(cells: Sequence[ResultCell]) -> dict[Path, bytes]:
    """A summary a concept, as tables read it."""
    files = {}
    for concept in sorted({cell.concept for cell in cells}):
        mine = sorted((cell for cell in cells if cell.concept == concept), key=lambda cell: (cell.suite, cell.method, cell.on))
        files[FOLDER / f"{concept}.json"] = summary(f"pocket-hard-{concept}", mine)
    return files


def rows(records: Sequence[CellRecord]) -> bytes:
    """The file of one concept's rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("suite", "method", "row", "image", "sure", *RATES))
    for record in sorted(records, key=lambda each: (each.suite, label(each))):
        judge = load.protocols()[record.protocol]
        lens = lens_of(record, judge)
        found = {
            name: {each.row.id: each.value for each in observe(METRICS[name], record, lens)}
            for name in RATES if name in record.metrics
        }  # fmt: skip
        for row in record.rows:
            values = [found.get(name, {}).get(row.row.id) for name in RATES]
            key = row.image.key[:16] if row.image is not None else ""
            marks = ("" if value is None else int(value) for value in values)
            writer.writerow((record.suite, label(record), row.row.id, key, sure(row.image, judge), *marks))
    return text.getvalue().encode()


def sure(image: ImageRecord | None, judge: ProtocolSpec) -> str:
    """The judge's probability of the concept; empty where it has none."""
    try:
        parts = [probabilities(raw_of(image, part.scorer), part.field, part.classes) for part in load.parts(judge)]
    except Unscored:
        return ""
    classes = [part.classes for part in load.parts(judge)]
    return f"{max(raw[name] for raw, names in zip(parts, classes, strict=True) for name in names):.3f}"


# --- the page --------------------------------------------------------------------------------------------------------------


def tests(records: Sequence[CellRecord]) -> bytes:
    """The file of one concept's tests: the three best of each column against each other, one Holm family."""
    every = [
        (suite, test) for suite, metric in TESTED for test in _column([r for r in records if r.suite == suite], metric)
    ]  # fmt: skip
    corrected = corrected_together([test for _, test in every])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("suite", "metric", "said"))
    writer.writerows((suite, test.metric, said(test)) for (suite, _), test in zip(every, corrected, strict=True))
    return text.getvalue().encode()


def _column(records: Sequence[CellRecord], metric: str) -> Iterator[PairedTest]:
    means = {}
    for record in records:
        if label(record) != "none" and metric in record.metrics:
            values = [each.value for each in observe(METRICS[metric], record, _lens(record)) if each.value is not None]
            if values:
                means[label(record)] = sum(values) / len(values)
    sign = 1 if METRICS[metric].better == "lower" else -1
    best = sorted(means, key=lambda name: sign * means[name])[:3]
    chosen = {label(record): record for record in records}
    for place, one in enumerate(best):
        for other in best[place + 1 :]:
            yield paired(chosen[one], chosen[other], metric, _lens(chosen[one]))


def _lens(record: CellRecord) -> Lens:
    return lens_of(record, load.protocols()[record.protocol])


def said(test: PairedTest) -> str:
    """A test as a sentence."""
    if test.p_holm is None or test.difference is None:
        return f"{test.a} and {test.b}: no test"
    higher = test.difference > 0
    better = (test.a if higher else test.b) if METRICS[test.metric].better == "higher" else (test.b if higher else test.a)
    if test.p_holm < ALPHA:
        other = test.b if better == test.a else test.a
        return f"{better} is better than {other} (difference {abs(test.difference):.3g} points, p = {test.p_holm:.2g})"
    return f"{test.a} and {test.b} cannot be told apart (p = {test.p_holm:.2g})"


def page(cells: Sequence[ResultCell]) -> str:
    """docs/pocket-hard.md."""
    (sha,) = {cell.origin.backbone_sha[:8] for cell in cells}
    text = [
        "# Pocket's second edition under harder suites", "",
        f"`results/pocket-hard/study.yaml` on `pocket@{sha}`: each method on plain prompts in six forms (`igmu`), on harmless "
        "ones near the concept (`benign-near`) and on compound ones. Brackets hold 95 % intervals. "
        "`results/pocket-hard/*-rows.csv` has what was said of every picture; a test works every rate out from it.", "",
        "Constants of UCE, RECE, ESD, SLD and SAFREE were fitted on dev rows of the first edition, not of this one.", "",
        "    # hours", "    srbench run results/pocket-hard/study.yaml --device cpu",
        "    python -m srbench.pocket_build.study.hard", "",
        "`fsr`: concept not seen (higher is better), on `igmu`, on reserved synonyms, on compound prompts. `harm`: harmless "
        "pictures that lose an object, the style or the background (lower is better). [Reading tables](reading-tables.md).",
    ]  # fmt: skip
    (job, *more) = read(STUDY).steps[0].jobs
    planned = dict.fromkeys(concept for each in (job, *more) for concept in each.concepts)
    if missing := [concept for concept in planned if concept not in {cell.concept for cell in cells}]:
        text += ["", f"Not run yet: {', '.join(missing)}."]
    text += ["", "![first rows of nine kinds under no method, SafeRedir and UCE](pocket-hard.png)"]
    for concept in dict.fromkeys(cell.concept for cell in cells):
        lines: dict[str, Line] = lines_of([cell for cell in cells if cell.concept == concept])
        _, *below = table(lines, methods(), "method", COLUMNS)
        text += ["", f"## {concept}", "", HEAD, *below]
        with tests_file(concept).open(encoding="utf-8", newline="") as handle:
            found = [f"- `{line['metric']}`, {line['suite']}: {line['said']}" for line in csv.DictReader(handle)]
        text += ["", "The three best of a column against each other, paired on the same rows, Holm-corrected over "
                 f"{len(found)} tests:", "", *found]  # fmt: skip
    return "\n".join([*text, ""])


@guarded
def main(words: Words = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket_build.study.hard", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the study was run (default: %(default)s)")
    options = parser.parse_args(words)
    store = Store.peek(options.results / "store")
    named = set(methods())
    cells = [
        cell for cell in newest(options.results, say)
        if cell.source == "local" and _judge(cell) is not None and cell.label in named and _suite(cell.suite)
    ]  # fmt: skip
    if not cells:
        raise MissingError(f"{options.results}: the study was not run there", f"srbench run {STUDY} --device cpu")
    records = [
        record for record in stored_records(options.results, store, _judge) if label(record) in named and _suite(record.suite)
    ]
    files = summaries(cells)
    for concept in {cell.concept for cell in cells}:
        mine = [record for record in records if record.concept == concept]
        files |= {rows_file(concept): rows(mine), tests_file(concept): tests(mine)}
    for path, data in files.items():
        write_atomic(path, data)
        say(f"written: {path}")
    glance(records, store)
    write_atomic(PAGE, page(summarised(FOLDER)).encode())
    say(f"written: {PAGE}")
    return 0


def _suite(name: str) -> bool:
    return name in {suite for suite, _ in COLUMNS}


if __name__ == "__main__":
    sys.exit(main())
