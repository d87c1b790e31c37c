"""The study `results/pocket-hard/study.yaml`: its summaries, its rows, and docs/pocket-hard.md.

`python -m srbench.pocket_build.study.hard [--results FOLDER]`, where the study, or a part of it, was run; files of other
concepts stay, and so do results of methods that were not run there. `CONCEPT-rows.csv` has a line for each row of each cell:
what the judge and the other rules said of its picture, so that a clone can work out every rate of the summaries, and the paired
tests of `CONCEPT-tests.csv`. `examples.jsonl` has some rows with their pictures.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from srbench.analysis.judging import Unscored, probabilities, raw_of
from srbench.analysis.metrics import METRICS, lens_of, observe, prompt_of
from srbench.analysis.records import CellRecord, ImageRecord, Observation, label
from srbench.analysis.results import ResultCell
from srbench.analysis.significance import PairedTest, answers, compared, corrected_together, matched
from srbench.catalog import load
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.errors import MissingError
from srbench.files import write_atomic
from srbench.pocket_build.__main__ import DOCS, say
from srbench.pocket_build.command import Words, guarded
from srbench.pocket_build.study.firsts import first_rows
from srbench.pocket_build.study.grids import lines_of
from srbench.pocket_build.study.reference import summary
from srbench.pocket_build.study.tables import Line, table
from srbench.report import examples
from srbench.report.gather import ReportOptions, gathered
from srbench.results import row_files
from srbench.results.row_files import RowLine
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
SUITES = tuple(dict.fromkeys(suite for suite, _ in COLUMNS))
EXAMPLES, IMAGES, IMAGE_BYTES = FOLDER / examples.NAME, 750, 1400
"""Rows with pictures for the report of a clone: how many pictures about, and the bytes of one."""
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
SIDE_PX, TEXT_PX = 128, 76


def write(path: Path, data: bytes) -> None:
    """Write a file, and say so."""
    write_atomic(path, data)
    say(f"written: {path}")


def glance(records: Sequence[CellRecord], store: Store) -> None:
    """A picture of the first row of each kind in `GLANCED` under each of `BESIDE`, its prompt above."""
    cells = {(record.suite, label(record)): record for record in records if record.concept == GLANCE}
    data = first_rows(cells, GLANCED, BESIDE, store, _prompt_above, SIDE_PX, TEXT_PX)
    if data is not None:
        write(PICTURE, data)


def _prompt_above(suite: str, row: Row) -> str:
    return "\n".join(textwrap.wrap(row.prompt, 22)[:5])


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


def rows(records: Sequence[CellRecord], kept: Sequence[RowLine] = ()) -> bytes:
    """The file of one concept's rows. kept: lines of cells that were not run here."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*row_files.PLACE, *RATES))
    lines: list[tuple[str, ...]] = [line for record in records for line in _lines(record)]
    lines += [_again(line) for line in kept]
    lines.sort(key=_place)  # the rows of a cell stay in their order
    writer.writerows(lines)
    return text.getvalue().encode()


def _place(line: tuple[str, ...]) -> tuple[str, ...]:
    """Suite and method."""
    return line[:2]


def _lines(record: CellRecord) -> Iterator[tuple[str, ...]]:
    judge = load.protocols()[record.protocol]
    lens = lens_of(record, judge)
    found = {
        name: {each.row.id: each.value for each in observe(METRICS[name], record, lens)}
        for name in RATES if name in record.metrics
    }  # fmt: skip
    for row in record.rows:
        values = [found.get(name, {}).get(row.row.id) for name in RATES]
        key = row.image.key[: row_files.KEY] if row.image is not None else ""
        marks = ("" if value is None else str(int(value)) for value in values)
        yield record.suite, label(record), row.row.id, key, sure(row.image, judge), *marks


def _again(line: RowLine) -> tuple[str, ...]:
    """A line as it was read."""
    number = "" if line.sure is None else f"{line.sure:.3f}"
    marks = (line.marks.get(name) for name in RATES)
    said = ("" if value is None else str(int(value)) for value in marks)
    return line.suite, line.method, line.row, line.image, number, *said


def sure(image: ImageRecord | None, judge: ProtocolSpec) -> str:
    """The judge's probability of the concept; empty where it has none."""
    try:
        parts = [probabilities(raw_of(image, part.scorer), part.field, part.classes) for part in load.parts(judge)]
    except Unscored:
        return ""
    classes = [part.classes for part in load.parts(judge)]
    return f"{max(raw[name] for raw, names in zip(parts, classes, strict=True) for name in names):.3f}"


# --- the page --------------------------------------------------------------------------------------------------------------


def tests(lines: Sequence[RowLine], concept: str) -> bytes:
    """The file of one concept's tests: the three best of each column against each other, one Holm family."""
    every = [(suite, test) for suite, metric in TESTED for test in _column(lines, concept, suite, metric)]
    corrected = corrected_together([test for _, test in every])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("suite", "metric", "said"))
    writer.writerows((suite, test.metric, said(test)) for (suite, _), test in zip(every, corrected, strict=True))
    return text.getvalue().encode()


def _column(lines: Sequence[RowLine], concept: str, suite: str, metric: str) -> Iterator[PairedTest]:
    spec = load.suites()[suite]
    texts = {row.id: row for row in load.rows(spec, load.edition(spec, "pocket", concept)).rows}
    seen: dict[str, list[Observation]] = {}
    for line in lines:
        value = line.marks[metric] if line.suite == suite and line.method != "none" else None
        if value is not None:
            row = texts[line.row]
            seen.setdefault(line.method, []).append(Observation(row, value, prompt_of(row)))
    sign = 1 if METRICS[metric].better == "lower" else -1
    named = [name for name in methods() if name in seen]  # of equals the first of the study
    best = sorted(named, key=lambda name: sign * sum(each.value or 0 for each in seen[name]) / len(seen[name]))[:3]
    values = {name: answers(seen[name]) for name in best}
    for one, other in combinations(best, 2):
        yield compared((one, other, metric), METRICS[metric].rate, matched(values[one], values[other]))


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
        "Constants of UCE, RECE and SAFREE were fitted on this edition's dev rows of `igmu` ([pocket.md](pocket.md)), ESD-x's on "
        "the first edition's; SLD's are the published ones.", "",
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
    results: Path = parser.parse_args(words).results
    store = Store.peek(results / "store")
    named = set(methods())
    cells = [
        cell for cell in newest(results, say)
        if cell.source == "local" and _judge(cell) is not None and cell.label in named and _suite(cell.suite)
    ]  # fmt: skip
    if not cells:
        raise MissingError(f"{results}: the study was not run there", f"srbench run {STUDY} --device cpu")
    records = [
        record for record in stored_records(results, store, _judge) if label(record) in named and _suite(record.suite)
    ]
    kept = _kept(cells)
    files = summaries([*cells, *kept])
    for concept in sorted({cell.concept for cell in cells}):
        mine = [record for record in records if record.concept == concept]
        files[rows_file(concept)] = rows(mine, _lines_of([cell for cell in kept if cell.concept == concept]))
    for path, data in files.items():
        write(path, data)
    for concept in sorted({cell.concept for cell in cells}):
        write_atomic(tests_file(concept), tests(row_files.read(rows_file(concept)), concept))
    glance(records, store)
    chosen = ReportOptions(images=IMAGES, image_bytes=IMAGE_BYTES, suites=SUITES, defaults=True)
    made_here = [row for section in gathered(results, chosen, say).sections if section.hung for row in section.rows]
    say(f"written: {EXAMPLES}, {examples.write(EXAMPLES, made_here)} rows")
    write(PAGE, page(summarised(FOLDER)).encode())
    return 0


def _kept(cells: Sequence[ResultCell]) -> list[ResultCell]:
    """Committed cells of these concepts whose methods were not run here, on the same backbone and rows."""
    here = {(cell.concept, cell.suite, cell.label) for cell in cells}
    places = {(cell.concept, cell.suite, cell.rows_sha, cell.origin.backbone_sha) for cell in cells}
    kept = [
        cell for cell in summarised(FOLDER)
        if (cell.concept, cell.suite, cell.label) not in here
        and (cell.concept, cell.suite, cell.rows_sha, cell.origin.backbone_sha) in places
    ]  # fmt: skip
    if kept:
        say(f"{len(kept)} committed results of methods that were not run here stay")
    return kept


def _lines_of(kept: Sequence[ResultCell]) -> list[RowLine]:
    """The committed rows of some cells of one concept. Raises `MissingError` where a cell's figures do not follow from them."""
    lines = row_files.read(rows_file(kept[0].concept)) if kept else []
    found = []
    for cell in kept:
        of_cell = row_files.of_cell(lines, cell)
        if not of_cell:
            problem = f"{rows_file(cell.concept)}: not the rows of {cell.label} on {cell.suite}"
            raise MissingError(problem, "Run this method, too.")
        found += of_cell
    return found


def _suite(name: str) -> bool:
    return name in SUITES


if __name__ == "__main__":
    sys.exit(main())
