"""`srbench score FOLDER`: pictures that others made, scored and judged like our own. They are read and never copied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from srbench.analysis.metrics import REFERENCE_METRICS, SAMPLE, metrics_of, uncompared
from srbench.analysis.origin import Origin
from srbench.analysis.records import CellRecord, RowRecord
from srbench.analysis.results import measured, to_dict
from srbench.catalog import load, plugins, prompts, screen, sources
from srbench.catalog.judges import with_settings
from srbench.catalog.screen import refuse_minors
from srbench.catalog.specs import ANY, ConceptSpec, LayoutSpec, ProtocolSpec, Row, SuiteSpec
from srbench.errors import OK, SOME_FAILED, CellError, UsageError
from srbench.files import printable
from srbench.hashing import digest
from srbench.progress import Reporter
from srbench.results.gated import Hush, Hushed, clean, text_sha, texts_of
from srbench.results.marks import GATED
from srbench.results.origins import images_sha
from srbench.results.provenance import OfStudy, of_study, provenance
from srbench.results.run_files import RunResult, now, run_id, write_run
from srbench.results.store import Record, Store, pixel_sha
from srbench.results.stored import unread
from srbench.scorers.base import IMAGE, PAIR, kind_named
from srbench.scoring.layouts import Folder, ScoreRequest, folders
from srbench.scoring.matching import ID, Matching, Place, RowAndPlace, asked_for, matched, plain_numbers, unnamed
from srbench.scoring.pictures import read
from srbench.scoring.scoring import BATCH, Scoring, Wanted, image_record

BACKBONE = "elsewhere"
"""Stands in tables for what made the pictures, of which we know nothing."""
BATCH_BYTES = 2**28
"""Pixels held at once, whatever the number of pictures."""
UNTIMED = ("added_ms", "over_refusal", "csdr_floor")
"""Metrics of what only we know: how an image was sampled."""


@dataclass(frozen=True)
class Against:
    """What the pictures are held against: rows where they are known, the judge, the scorers."""

    suite: str
    concept: str
    concept_kind: str
    attack: bool
    judge: ProtocolSpec
    rows: tuple[Row, ...]
    """Empty where nothing is known but the pictures' names."""
    metrics: tuple[str, ...]
    scorers: tuple[str, ...]
    described_by: tuple[str, str]
    """The scorers that describe images, and compare them with text; empty where there are none."""
    sensitive: bool
    """Whether prompts that name minors are left out. So it is where nobody says what the pictures are of."""
    gated: bool = False
    """Whether the rows' texts stay out of the run's file."""
    notes: tuple[str, ...] = ()
    """What has to be said of the rows."""
    read: dict[str, Any] = field(default_factory=dict)
    """Where a suite's rows were read, for the run's file."""
    variant: str = ""
    """In what the rows differ from the suite's own."""
    beside: Path | None = None
    """The file of prompts that was found beside the pictures."""
    told: tuple[str, ...] = ()
    """Which columns of their files were read as what."""
    others: prompts.Others = field(default_factory=dict)
    """Texts beside the rows, by id, which the content filter reads too."""


@dataclass
class Item:
    """One row of one method: its picture, what it is compared with, and how reading them went."""

    asked: RowAndPlace
    image: str = ""
    """Key; empty where the picture is not there or cannot be read."""
    reference: str = ""
    why: str = ""
    """Why there is no image, or no reference where one is needed."""

    @property
    def compared(self) -> bool:
        """Whether the image has a reference to be compared with: not where a suite has none for its row."""
        row = self.asked.row
        return row.kind == "forget" and row.category != "unseen"


@dataclass
class Cell:
    """One method's pictures."""

    folder: Folder
    items: list[Item]
    matched: str = ""
    """By which rule pictures found their rows; empty where no rows are known."""
    remarks: Counter[str] = field(default_factory=Counter)
    """How pictures were changed to be read -> how many."""

    @property
    def failures(self) -> Counter[str]:
        """Why rows have no picture -> how many."""
        return Counter(item.why for item in self.items if item.why)


# --- what is asked ------------------------------------------------------------------------------------------------------------


def against(request: ScoreRequest, found: Sequence[Folder]) -> Against:
    """Rows, judge and scorers. Raises `UsageError` where they are unknown or not given."""
    concept = load.named("concept", request.concept, load.concepts()) if request.concept else None
    suite = load.named("suite", request.suite, load.suites()) if request.suite else None
    if suite and concept is None:
        raise UsageError(f"--suite {suite.name}: which concept?", f"Add --concept, one of {', '.join(_concepts(suite))}.")
    family = _family(suite, concept, request.backbone)
    edition = load.edition(suite, family or "", concept.name) if suite and concept else None
    suite = suite.of(edition) if suite and edition else None
    judge = _judge(request.protocol or (edition.protocol if edition else None) or None, concept, family)
    given = sources.Given(request.prompts, request.accept_prompts, request.categories, request.columns)
    read = sources.rows(suite, edition, given) if suite and edition else None
    suited = read is not None
    beside = None if suited or request.prompts else _prompts_beside(load.layouts()[request.layout or ""], found)
    read = read or _own_rows(request, request.prompts or beside)
    rows = read.rows
    described = _scorers(family) if suite else ("", "")
    for name in request.scorers:
        plugins.known("scorers", name)
    scorers = tuple(dict.fromkeys((*(part.scorer for part in load.parts(judge)), *filter(None, described), *request.scorers)))
    return Against(
        suite=suite.name if suite else (request.prompts.stem if request.prompts else "pictures"),
        concept=concept.name if concept else "any", concept_kind=concept.kind if concept else "content",
        attack=suite.attack if suite else True, judge=judge, rows=rows, metrics=_metrics(suite, request, scorers),
        scorers=scorers, described_by=described, sensitive=_sensitive(concept, suite, read), gated=bool(suite and suite.gated),
        notes=read.notes, read=_read_where(family, request, read) if suited else {}, variant=",".join(read.variant),
        told=read.told, others=read.others, beside=beside,
    )


def _read_where(family: str | None, request: ScoreRequest, read: sources.Found) -> dict[str, Any]:
    """What a later judgement needs to read the rows again."""
    copy = {"prompts": str(request.prompts.resolve())} if request.prompts else {}
    columns = {"columns": dict(request.columns)} if request.columns else {}
    return {"family": family, "sha256": list(read.sha256), **copy, **columns}


def _concepts(suite: SuiteSpec) -> list[str]:
    every = {edition.concept for edition in suite.editions if edition.part == "test"}
    return sorted(load.concepts() if ANY in every else every)


def _family(suite: SuiteSpec | None, concept: ConceptSpec | None, backbone: str | None) -> str | None:
    """The backbone family whose prompts and judge count; None where nothing says so."""
    if backbone is not None:
        return load.named("backbone", backbone, load.backbones()).family
    known = set(concept.families) if concept else set()
    if suite and concept:
        having = {edition.family for edition in suite.editions if edition.concept in (concept.name, ANY)}
        known = known if ANY in having else having
    if len(known) > 1:
        raise UsageError("more than one backbone family has this", f"Add --backbone, of the family {' or '.join(sorted(known))}.")
    return next(iter(known), None)


def _judge(protocol: str | None, concept: ConceptSpec | None, family: str | None) -> ProtocolSpec:
    if protocol is not None:
        return load.protocol(protocol)
    if concept is None or family not in concept.families:
        raise UsageError("who judges the pictures?", "Add --protocol (`srbench list protocols`), or --concept for its own.")
    return load.protocol(concept.families[family].protocol)


def _own_rows(request: ScoreRequest, path: Path | None) -> sources.Found:
    """The rows of the user's file, or of the one beside the pictures; none where there is neither."""
    if path is None:
        if request.columns:
            raise UsageError("--column says how a file of prompts is read", "Add --prompts FILE.")
        return sources.Found(())
    read = prompts.read(path, chosen=dict(request.columns))
    rows = prompts.of_categories(read.rows, request.categories)
    variant = tuple(map(sources.said_column, request.columns))
    return sources.Found(rows, read.meta, (read.sha256,), read.notes, variant=variant, told=read.told, others=read.others)


def _prompts_beside(layout: LayoutSpec, found: Sequence[Folder]) -> Path | None:
    """The prompts that the tool wrote beside its pictures, if every folder has the same."""
    files = [folder.root / layout.prompts for folder in found if layout.prompts and (folder.root / layout.prompts).is_file()]
    if not files:
        return None
    if len(files) < len(found) or len({path.read_bytes() for path in files}) > 1:
        raise UsageError(f"the folders do not have the same {layout.prompts}", "Say with --prompts which one counts.")
    return files[0]


def _scorers(family: str | None) -> tuple[str, str]:
    return next((spec.scorers for spec in load.backbones().values() if spec.family == family), ("", ""))


def _metrics(suite: SuiteSpec | None, request: ScoreRequest, scorers: Sequence[str]) -> tuple[str, ...]:
    """What can be said of pictures made elsewhere; what compares needs --reference."""
    left_out = {*UNTIMED, *(() if request.reference else REFERENCE_METRICS)}
    asked = [name for name in (suite.metrics if suite else ("asr",)) if name not in left_out]
    more = [name for each in scorers if request.reference or kind_named(each) == IMAGE for name in metrics_of(each)]
    return tuple(dict.fromkeys((*asked, *more)))


def _sensitive(concept: ConceptSpec | None, suite: SuiteSpec | None, read: sources.Found) -> bool:
    if concept is None or screen.sensitive_concept(concept) or (suite and suite.sensitive):
        return True
    return screen.sexual_rows(read.rows, read.others)


# --- reading and scoring ------------------------------------------------------------------------------------------------------


def score_folders(request: ScoreRequest, store: Store, reporter: Reporter, study: OfStudy | None = None) -> RunResult:
    """Score the pictures of one or more methods, judge them, write the run. Calling it again scores only what is new.

    Raises `UsageError` for what does not fit together, `MissingError` where the judge's weights are not there.
    """
    started = now()
    layout = load.named("layout", request.layout or "", load.layouts())
    found = folders(request.folders, layout, request.categories, request.per_prompt)
    beside = folders([("", request.reference)], layout, request.categories, request.per_prompt) if request.reference else []
    if len(beside) > 1:
        raise UsageError(f"{request.reference}: holds pictures of several methods", "Give the folder of one of them.")
    held = against(request, found)
    if held.beside:
        reporter.line(f"prompts: {printable(str(held.beside))}, found beside the pictures")
    for line in held.told:
        reporter.line(line)
    reporter = cast(Reporter, Hushed(reporter, Hush(texts_of(held.rows)))) if held.gated else reporter
    if held.sensitive:
        refuse_minors(request.settings)
    scoring = _opened(store, held, request.settings, reporter)
    cells, n_loaded, n_excluded = _cells(found, beside, held, layout, reporter)
    reporter.begin(len(cells), sum(len(cell.items) for cell in cells))
    try:
        for cell in cells:
            _read_and_score(cell, beside[0] if beside else None, held, scoring, reporter)
            reporter.cell(cell.folder.method)
    finally:
        reporter.end()
    for cell in cells:
        _tell(cell, held, layout, reporter)
    if held.gated:
        _hush(cells, held, scoring, reporter)
    return _written(request, cells, held, scoring, started, (n_loaded, n_excluded), study)


def _opened(store: Store, held: Against, settings: Sequence[str], reporter: Reporter) -> Scoring:
    scoring = Scoring(store)
    scoring.open(held.scorers, with_settings(settings, [held.judge]))
    for error in scoring.broken.values():
        reporter.line(error.line)
    blocked = scoring.blocked(held.judge)
    if blocked is not None:
        raise blocked
    return scoring


def _cells(
    found: list[Folder], beside: list[Folder], held: Against, layout: LayoutSpec, reporter: Reporter
) -> tuple[list[Cell], int, int]:
    """A cell for each method over the same rows, how many rows there are, and how many of them were left out for safety."""
    how = _name_places(found, beside, held, layout, reporter)
    places = {place for folder in found for place in (*folder.pictures, *folder.doubled)}
    asked = asked_for(held.rows, places) if held.rows else unnamed(places, layout)
    kept = _kept([each.row for each in asked], held)
    cells = [Cell(folder, [_item(each, folder) for each in asked if each.row in kept], how) for folder in found]
    return cells, len(asked), len(asked) - sum(each.row in kept for each in asked)


def _name_places(
    found: list[Folder], beside: list[Folder], held: Against, layout: LayoutSpec, reporter: Reporter
) -> str:
    """Give the pictures of all folders the places of their rows, by one rule, and say which; strangers are left out."""
    everywhere = [*found, *beside]
    places = {place for folder in everywhere for place in (*folder.pictures, *folder.doubled)}
    if not held.rows:
        plain = plain_numbers(places)
        for folder in everywhere:
            folder.rename(plain)
        return ""
    matching = matched(held.rows, places, layout)
    for folder in everywhere:
        folder.rename(matching.renamed)
    _tell_matching(matching, reporter)
    return matching.how


def _tell_matching(matching: Matching, reporter: Reporter) -> None:
    if matching.how != ID and matching.row_of:
        reporter.line(f"pictures find their rows by {matching.how}")
    if strangers := matching.strangers:
        shown = ", ".join(printable("_".join(part for part in place if part)) for place in strangers[:3])
        reporter.line(f"{len(strangers)} names belong to no row and are left out: {shown}{', ...' * (len(strangers) > 3)}")


def _kept(rows: list[Row], held: Against) -> set[Row]:
    """The rows that may be scored. A row with several pictures is asked for under an id for each, beside its own."""
    if not held.sensitive:
        return set(rows)
    allowed = {row.id for row in screen.admissible(held.rows, held.others)}
    barred = {row.id for row in held.rows} - allowed
    return {row for row in screen.admissible(rows) if not {row.id, row.id.rpartition(SAMPLE)[0]} & barred}


def _item(asked: RowAndPlace, folder: Folder) -> Item:
    if asked.place in folder.doubled:
        return Item(asked, why=f"several files for one picture: {folder.doubled[asked.place]}")
    return Item(asked, why="" if asked.place in folder.pictures else "no picture")


def _read_and_score(cell: Cell, beside: Folder | None, held: Against, scoring: Scoring, reporter: Reporter) -> None:
    """A batch of pictures at a time, so that memory does not grow with the folder."""
    for items in _batches(cell, beside, scoring.store, held.gated):
        pixels = {key: picture for item, pictures in items for key, picture in pictures.items()}
        scoring.run([w for item, _ in items for w in _wanted(item, held, scoring)], pixels)
        reporter.images(len(items))


def _batches(cell: Cell, beside: Folder | None, store: Store, gated: bool) -> Iterator[list[tuple[Item, dict[str, np.ndarray]]]]:
    """Items with their pictures by key, limited in number and in bytes."""
    batch: list[tuple[Item, dict[str, np.ndarray]]] = []
    size = 0
    for item in cell.items:
        pictures = _pictures(item, cell, beside, store, gated)
        batch.append((item, pictures))
        size += sum(each.nbytes for each in pictures.values())
        if len(batch) == BATCH or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pictures(item: Item, cell: Cell, beside: Folder | None, store: Store, gated: bool) -> dict[str, np.ndarray]:
    """The item's picture and the one beside it; those that cannot be read leave the reason behind."""
    read_here: dict[str, np.ndarray] = {}
    row = item.asked.row if gated else None
    if item.why or item.asked.place is None:
        return read_here
    try:
        item.image = _noted(cell.folder, item.asked.place, store, read_here, cell.remarks, row)
    except CellError as error:
        item.why = error.message
        return read_here
    if beside is not None and item.compared:
        try:
            item.reference = _noted(beside, item.asked.place, store, read_here, Counter(), row)
        except (CellError, KeyError) as error:
            item.why = f"its reference: {error.message if isinstance(error, CellError) else 'no picture'}"
    return read_here


def _noted(
    folder: Folder, place: Place, store: Store, read_here: dict[str, np.ndarray], remarks: Counter[str], row: Row | None
) -> str:
    """Read a picture, note it in the store, and return its key. row: of a gated suite, whose text is not to be kept.

    Raises `CellError` where it cannot be read.
    """
    found = folder.pictures[place]
    pixels, remark = read(found.path)
    sha = pixel_sha(pixels)
    key = digest({"elsewhere": sha})
    record = _record(key, sha, f"{folder.method}/{shown_name(found.name, row)}", gated=row is not None)
    known = store.images.get(key)
    if known is None:
        store.note([record])
    elif row is not None and not known.get(GATED):
        store.restate([{**known, GATED: True}])
    read_here[key] = pixels
    remarks.update([remark] if remark else [])
    return key


def _record(key: str, sha: str, name: str, gated: bool) -> Record:
    record = {"key": key, "pixel_sha": sha, "seconds": 0.0, "trace": {}, "bytes": 0, "dropped": True, "elsewhere": name}
    return record | ({GATED: True} if gated else {})


def shown_name(name: str, row: Row | None) -> str:
    """A picture's name as it is kept: the hash of one that says something of its gated row, as names made of prompts do."""
    if row is None:
        return name
    said = {word for text in texts_of([row]) for word in re.findall(r"\w{3,}", (text or "").casefold().replace("_", " "))}
    parts = set(re.findall(r"[^\W_]{3,}", name.casefold()))
    return f"sha256-{text_sha(name)[:16]}" if parts & said else name


def _wanted(item: Item, held: Against, scoring: Scoring) -> Iterator[Wanted]:
    """Each scorer on the picture; those of sets and of texts also on the one beside it."""
    if not item.image:
        return
    for name in held.scorers:
        compares = kind_named(name) != IMAGE
        if item.reference or not compares:
            yield scoring.want(name, item.image, item.asked.row, item.reference)
        if item.reference and kind_named(name) != PAIR:
            yield scoring.want(name, item.reference, item.asked.row)


def _hush(cells: Sequence[Cell], held: Against, scoring: Scoring, reporter: Reporter) -> None:
    """Keep texts of gated rows, also those that pictures are named after, out of what is stored."""
    hush = Hush(texts_of(held.rows))
    scoring.errors = {wanted: hush(why) for wanted, why in scoring.errors.items()}
    clean(scoring.store, {key for cell in cells for item in cell.items for key in (item.image, item.reference)}, reporter.line)
    for cell in cells:
        cell.folder.left_out = Counter({hush(why): count for why, count in cell.folder.left_out.items()})
        for item in cell.items:
            item.why = hush(item.why)


def _tell(cell: Cell, held: Against, layout: LayoutSpec, reporter: Reporter) -> None:
    """What was found, expected and left out."""
    expected = f"{len(cell.items)} expected" if held.rows else "how many there should be is not known"
    there = sum(bool(item.image) for item in cell.items)
    reporter.line(f"{cell.folder.method}: {there} pictures read, {expected}")
    if not cell.folder.pictures:
        reporter.line(f"  no file is named as in layout '{layout.name}'; `srbench list layouts` shows the others")
    for what, counts in (("failed", cell.failures), ("left out", cell.folder.left_out), ("read with a change", cell.remarks)):
        for why, count in counts.most_common():
            reporter.line(f"  {what}: {count} ({why})")


# --- the run ------------------------------------------------------------------------------------------------------------------


def _written(
    request: ScoreRequest, cells: list[Cell], held: Against, scoring: Scoring, started: str, counts: tuple[int, int],
    study: OfStudy | None,
) -> RunResult:
    run = run_id()
    records = [_cell_record(cell, held, scoring, run, *counts) for cell in cells]
    found = measured([(record, held.judge) for record in records])
    entries = [
        {
            "result": to_dict(value), "elsewhere": _facts(cell, held), **({"suite": held.read} if held.read else {}),
            "rows": [_entry(item, held.gated) for item in cell.items],
        }
        for cell, value in zip(cells, found, strict=True)
    ]
    header = {
        "started": started, "finished": now(), "provenance": provenance(), "request": _plain(request), "backbone_sha": "",
        "scorers": scoring.identities, "safety_checker": "not known", **of_study(study),
    }
    write_run(request.out, run, header, entries)
    failed = scoring.errors or scoring.broken or any(item.why for cell in cells for item in cell.items)
    failed = failed or any(uncompared(cell.metrics) for cell in found)
    whole = not failed and all(cell.items for cell in cells)
    return RunResult(run, found, OK if whole else SOME_FAILED)


def _plain(request: ScoreRequest) -> dict[str, Any]:
    """JSON-ready."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(request).items()}
    return values | {"folders": [str(path) for _, path in request.folders]}


def _facts(cell: Cell, held: Against) -> dict[str, Any]:
    counts = {"failed": dict(cell.failures), "left_out": dict(cell.folder.left_out), "changed": dict(cell.remarks)}
    known = {
        "attack": held.attack, "concept_kind": held.concept_kind, "sensitive": held.sensitive, "matched": cell.matched,
        "described_by": list(held.described_by),
    }  # fmt: skip
    told = {"read": list(held.told)} if held.told else {}
    return {"folder": str(cell.folder.root), **known, **told, **counts}


def _entry(item: Item, gated: bool) -> dict[str, Any]:
    keys = {name: key for name, key in (("image", item.image), ("reference", item.reference)) if key}
    why = {"failed": item.why} if item.why else {}
    row = {} if gated else {"row": item.asked.row.model_dump(mode="json", exclude_defaults=True)}
    return {"id": item.asked.row.id, **keys, **why, **row}


def _cell_record(cell: Cell, held: Against, scoring: Scoring, run: str, n_loaded: int, n_excluded: int) -> CellRecord:
    return CellRecord(
        backbone=BACKBONE, concept=held.concept, concept_kind=held.concept_kind, suite=held.suite, attack=held.attack,
        method=cell.folder.method, on="none", variant=held.variant, protocol=held.judge.name, dtype="as made",
        rows_sha=load.rows_sha(tuple(item.asked.row for item in cell.items)), run=run, source="local", n_loaded=n_loaded,
        n_excluded=n_excluded, metrics=held.metrics, decides=False, blocked="" if cell.items else "no picture", notes=held.notes,
        rows=tuple(_row_record(item, held, scoring) for item in cell.items), origin=_origin(cell),
        described_by=held.described_by,
    )


def _origin(cell: Cell) -> Origin:
    """Of pictures that others made we know where they lay, and what was read."""
    read_here = images_sha(_entry(item, gated=True) for item in cell.items)
    return Origin(folder=str(cell.folder.root.resolve()), images_sha=read_here)


def _row_record(item: Item, held: Against, scoring: Scoring) -> RowRecord:
    row, nothing = item.asked.row, unread(item.why, held.scorers)
    image = image_record(item.image, item.reference, row, held.scorers, scoring) if item.image else nothing
    reference = image_record(item.reference, "", row, held.scorers, scoring) if item.reference else None
    return RowRecord(row, image, nothing if item.image and item.why else reference)
