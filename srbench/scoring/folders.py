"""`srbench score FOLDER`: external images, scored and judged like those of a run. They are read and never copied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from srbench import stopping
from srbench.analysis.metrics import REFERENCE_METRICS, SAMPLE, metrics_of, uncompared
from srbench.analysis.origin import Origin
from srbench.analysis.records import CellRecord, RowRecord
from srbench.analysis.results import measured, to_dict, unjudged
from srbench.catalog import load, plugins, prompts, screen, sources
from srbench.catalog.judges import check_judges, with_settings
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
from srbench.shards import Shard, shard_of

BACKBONE = "elsewhere"
"""Backbone name of external images in tables."""
BATCH_BYTES = 2**28
"""Bytes of pixels in memory at once, whatever the number of images."""
UNTIMED = ("added_ms", "over_refusal", "csdr_floor")
"""Metrics that need to know how an image was sampled."""


@dataclass(frozen=True)
class Task:
    """What the images are scored by: rows where they are known, the judge, the scorers."""

    suite: str
    concept: str
    concept_kind: str
    attack: bool
    judge: ProtocolSpec
    rows: tuple[Row, ...]
    """Empty where only the images' names are known."""
    metrics: tuple[str, ...]
    scorers: tuple[str, ...]
    described_by: tuple[str, str]
    """The scorers that describe images, and compare them with text; empty where there are none."""
    sensitive: bool
    """Whether prompts that name minors are left out, as they also are where the concept is not known."""
    gated: bool = False
    """Whether the rows' texts stay out of the run's file."""
    notes: tuple[str, ...] = ()
    """Notes on the rows, for tables."""
    read: dict[str, Any] = field(default_factory=dict)
    """Where a suite's rows were read, for the run's file."""
    variant: str = ""
    """How the rows differ from the suite's own."""
    beside: Path | None = None
    """The file of prompts that was found beside the pictures."""
    told: tuple[str, ...] = ()
    """Lines that say which column of the file was read as which field."""
    others: prompts.Others = field(default_factory=dict)
    """Texts beside the rows, by id, which the content filter reads too."""


@dataclass
class Item:
    """One row of one method: its image, its reference, and why either is missing."""

    placed: RowAndPlace
    image: str = ""
    """Key; empty where the image is missing or cannot be read."""
    reference: str = ""
    why: str = ""
    """Why there is no image, or no reference where one is needed."""

    @property
    def compared(self) -> bool:
        """Whether the image's row is of a kind that has a reference image."""
        row = self.placed.row
        return row.kind == "forget" and row.category != "unseen"


@dataclass
class Cell:
    """One method's pictures."""

    folder: Folder
    items: list[Item]
    matched: str = ""
    """The rule by which images were matched to rows; empty where no rows are known."""
    remarks: Counter[str] = field(default_factory=Counter)
    """How images were converted when they were read -> how many."""

    @property
    def failures(self) -> Counter[str]:
        """Why rows have no picture -> how many."""
        return Counter(item.why for item in self.items if item.why)


# --- the task -----------------------------------------------------------------------------------------------------------------


def task_of(request: ScoreRequest, method_folders: Sequence[Folder]) -> Task:
    """Rows, judge and scorers. Raises `UsageError` where they are unknown or not given."""
    concept = load.named("concept", request.concept, load.concepts()) if request.concept else None
    suite = load.suite(request.suite) if request.suite else None
    if suite and concept is None:
        raise UsageError(f"--suite {suite.name}: which concept?", f"Add --concept, one of {', '.join(_concepts(suite))}.")
    family = _family(suite, concept, request.backbone)
    edition = load.edition(suite, family or "", concept.name) if suite and concept else None
    suite = suite.of(edition) if suite and edition else None
    judge = _judge(request.protocol or (edition.protocol if edition else None) or None, concept, family)
    check_judges([judge], request.settings)
    selection = sources.Given(request.prompts, request.accept_prompts, request.categories, request.columns)
    read = sources.rows(suite, edition, selection) if suite and edition else None
    suited = read is not None
    beside = None if suited or request.prompts else _prompts_beside(load.layouts()[request.layout or ""], method_folders)
    read = read or _own_rows(request, request.prompts or beside)
    rows = read.rows
    attack, asked = (suite.attack, suite.metrics) if suite else sources.asked_of(rows) if rows else (True, ("asr",))
    described = _scorers(family) if suite else ("", "")
    for name in request.scorers:
        plugins.known("scorers", name)
    scorers = tuple(dict.fromkeys((*(part.scorer for part in load.parts(judge)), *filter(None, described), *request.scorers)))
    return Task(
        suite=suite.name if suite else (request.prompts.stem if request.prompts else "pictures"),
        concept=concept.name if concept else "any", concept_kind=concept.kind if concept else "content",
        attack=attack, judge=judge, rows=rows, metrics=_metrics(asked, request, scorers),
        scorers=scorers, described_by=described, sensitive=_sensitive(concept, suite, read), gated=bool(suite and suite.gated),
        notes=read.notes, read=_read_where(family, request, read) if suited else {}, variant=",".join(read.variant),
        told=read.told, others=read.others, beside=beside,
    )


def _read_where(family: str | None, request: ScoreRequest, read: sources.Found) -> dict[str, Any]:
    """What a run file needs so that the rows can be read again, to apply another protocol."""
    copy = {"prompts": str(request.prompts.resolve())} if request.prompts else {}
    columns = {"columns": dict(request.columns)} if request.columns else {}
    return {"family": family, "sha256": list(read.sha256), **copy, **columns}


def _concepts(suite: SuiteSpec) -> list[str]:
    every = {edition.concept for edition in suite.editions if edition.part == "test"}
    return sorted(load.concepts() if ANY in every else every)


def _family(suite: SuiteSpec | None, concept: ConceptSpec | None, backbone: str | None) -> str | None:
    """The backbone family whose prompts and judge are used; None where it does not follow from the request."""
    if backbone is not None:
        return load.named("backbone", backbone, load.backbones()).family
    families = set(concept.families) if concept else set()
    if suite and concept:
        having = {edition.family for edition in suite.editions if edition.concept in (concept.name, ANY)}
        families = families if ANY in having else having
    if len(families) > 1:
        hint = f"Add --backbone, of the family {' or '.join(sorted(families))}."
        named = f"suite '{suite.name}'" if suite else f"concept '{concept.name}'" if concept else "it"
        raise UsageError(f"{named} is there for several families of backbones", hint)
    return next(iter(families), None)


def _judge(protocol: str | None, concept: ConceptSpec | None, family: str | None) -> ProtocolSpec:
    if protocol is not None:
        return load.protocol(protocol)
    if concept is None or family not in concept.families:
        raise UsageError("who judges the pictures?", "Add --protocol (`srbench list protocols`), or --concept for its own.")
    return load.protocol(concept.families[family].protocol)


def _own_rows(request: ScoreRequest, path: Path | None) -> sources.Found:
    """The rows of a file of prompts; none where `path` is None."""
    if path is None:
        if request.columns:
            raise UsageError("--column says how a file of prompts is read", "Add --prompts FILE.")
        return sources.Found(())
    read = prompts.read(path, chosen=dict(request.columns))
    rows = prompts.of_categories(read.rows, request.categories)
    variant = tuple(map(sources.said_column, request.columns))
    return sources.Found(rows, read.meta, (read.sha256,), read.notes, variant=variant, told=read.told, others=read.others)


def _prompts_beside(layout: LayoutSpec, method_folders: Sequence[Folder]) -> Path | None:
    """The prompts that the tool wrote beside its images, if every folder has the same."""
    if not layout.prompts:
        return None
    files = [path for folder in method_folders if (path := folder.root / layout.prompts).is_file()]
    if not files:
        return None
    if len(files) < len(method_folders) or len({path.read_bytes() for path in files}) > 1:
        raise UsageError(f"the folders do not have the same {layout.prompts}", "Say with --prompts which one counts.")
    return files[0]


def _scorers(family: str | None) -> tuple[str, str]:
    return next((spec.scorers for spec in load.backbones().values() if spec.family == family), ("", ""))


def _metrics(asked: Sequence[str], request: ScoreRequest, scorers: Sequence[str]) -> tuple[str, ...]:
    """The metrics of external images: those asked for, then the scorers'; those that compare need --reference."""
    left_out = {*UNTIMED, *(() if request.reference else REFERENCE_METRICS)}
    of_suite = [name for name in asked if name not in left_out]
    of_scorers = [name for scorer in scorers if request.reference or kind_named(scorer) == IMAGE for name in metrics_of(scorer)]
    return tuple(dict.fromkeys((*of_suite, *of_scorers)))


def _sensitive(concept: ConceptSpec | None, suite: SuiteSpec | None, read: sources.Found) -> bool:
    if concept is None or screen.sensitive_concept(concept) or (suite and suite.sensitive):
        return True
    return screen.sexual_rows(read.rows, read.others)


# --- reading and scoring ------------------------------------------------------------------------------------------------------


def score_folders(request: ScoreRequest, store: Store, reporter: Reporter, study: OfStudy | None = None) -> RunResult:
    """Score the images of one or more methods, judge them, write the run. Calling it again scores only what is new.

    Raises `UsageError` for folders or options that do not fit together, `MissingError` where the judge's weights are missing.
    """
    started = now()
    layout = load.named("layout", request.layout or "", load.layouts())
    method_folders = folders(request.folders, layout, request.categories, request.per_prompt)
    beside = folders([("", request.reference)], layout, request.categories, request.per_prompt) if request.reference else []
    if len(beside) > 1:
        raise UsageError(f"{request.reference}: holds pictures of several methods", "Give the folder of one of them.")
    shard = shard_of(request.shard)
    task = task_of(request, method_folders)
    if task.beside:
        reporter.line(f"prompts: {printable(str(task.beside))}, found beside the pictures")
    for line in task.told:
        reporter.line(line)
    reporter = cast(Reporter, Hushed(reporter, Hush(texts_of(task.rows)))) if task.gated else reporter
    if task.sensitive:
        refuse_minors(request.settings)
    scoring = _opened(store, task, request.settings, reporter)
    cells, n_loaded, n_excluded = _cells(method_folders, beside, task, layout, reporter)
    if shard is not None:
        _keep_part(cells, shard, reporter)
    reporter.begin(len(cells), sum(len(cell.items) for cell in cells))
    try:
        for cell in cells:
            _read_and_score(cell, beside[0] if beside else None, task, scoring, reporter)
            reporter.cell(cell.folder.method)
    finally:
        reporter.end()
    if shard is not None:
        failed = scoring.errors or scoring.broken or any(item.why for cell in cells for item in cell.items)
        return RunResult("", [], SOME_FAILED if failed else OK)
    for cell in cells:
        _tell(cell, task, layout, reporter)
    if task.gated:
        _hush(cells, task, scoring, reporter)
    return _written(request, cells, task, scoring, started, (n_loaded, n_excluded), study)


def _keep_part(cells: Sequence[Cell], shard: Shard, reporter: Reporter) -> None:
    """Keep the items of one shard: by method and row, since a picture's key is only known once it was read."""
    whole = sum(len(cell.items) for cell in cells)
    for cell in cells:
        cell.items = [item for item in cell.items if shard.has(f"{cell.folder.method}\n{item.placed.row.id}")]
    mine = sum(len(cell.items) for cell in cells)
    reporter.line(f"shard {shard}: {mine} of {whole} pictures; the same command without --shard writes the run")


def _opened(store: Store, task: Task, settings: Sequence[str], reporter: Reporter) -> Scoring:
    scoring = Scoring(store)
    scoring.open(task.scorers, with_settings(settings, [task.judge]))
    for error in scoring.broken.values():
        reporter.line(error.line)
    blocked = scoring.blocked(task.judge)
    if blocked is not None:
        raise blocked
    return scoring


def _cells(
    method_folders: list[Folder], beside: list[Folder], task: Task, layout: LayoutSpec, reporter: Reporter
) -> tuple[list[Cell], int, int]:
    """A cell for each method over the same rows, the number of rows, and how many of them were left out for safety."""
    how = _name_places(method_folders, beside, task, layout, reporter)
    places = {place for folder in method_folders for place in (*folder.pictures, *folder.doubled)}
    placed = asked_for(task.rows, places) if task.rows else unnamed(places, layout)
    allowed = _allowed([one.row for one in placed], task)
    cells = [Cell(folder, [_item(one, folder) for one in placed if one.row in allowed], how) for folder in method_folders]
    return cells, len(placed), len(placed) - sum(one.row in allowed for one in placed)


def _name_places(
    method_folders: list[Folder], beside: list[Folder], task: Task, layout: LayoutSpec, reporter: Reporter
) -> str:
    """Match the images of all folders to rows by one rule, and report the rule; images without a row are left out."""
    everywhere = [*method_folders, *beside]
    places = {place for folder in everywhere for place in (*folder.pictures, *folder.doubled)}
    if not task.rows:
        plain = plain_numbers(places)
        for folder in everywhere:
            folder.rename(plain)
        return ""
    matching = matched(task.rows, places, layout)
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


def _allowed(rows: list[Row], task: Task) -> set[Row]:
    """The rows that may be scored. A row with several images is in `rows` once for each, under ids of its own id and a sample."""
    if not task.sensitive:
        return set(rows)
    allowed = {row.id for row in screen.admissible(task.rows, task.others)}
    barred = {row.id for row in task.rows} - allowed
    return {row for row in screen.admissible(rows) if not {row.id, row.id.rpartition(SAMPLE)[0]} & barred}


def _item(placed: RowAndPlace, folder: Folder) -> Item:
    if placed.place in folder.doubled:
        return Item(placed, why=f"several files for one picture: {folder.doubled[placed.place]}")
    return Item(placed, why="" if placed.place in folder.pictures else "no picture")


def _read_and_score(cell: Cell, beside: Folder | None, task: Task, scoring: Scoring, reporter: Reporter) -> None:
    """Read and score a batch of images at a time, so that memory does not grow with the folder."""
    with stopping.patient():
        for items in _batches(cell, beside, scoring.store, task.gated):
            pixels = {key: picture for item, pictures in items for key, picture in pictures.items()}
            scoring.run([w for item, _ in items for w in _wanted(item, task, scoring)], pixels)
            reporter.images(len(items))
            stopping.check()


def _batches(cell: Cell, beside: Folder | None, store: Store, gated: bool) -> Iterator[list[tuple[Item, dict[str, np.ndarray]]]]:
    """Items with their images' pixels by key, in batches limited in number and in bytes."""
    batch: list[tuple[Item, dict[str, np.ndarray]]] = []
    size = 0
    for item in cell.items:
        pictures = _pictures(item, cell, beside, store, gated)
        batch.append((item, pictures))
        size += sum(picture.nbytes for picture in pictures.values())
        if len(batch) == BATCH or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pictures(item: Item, cell: Cell, beside: Folder | None, store: Store, gated: bool) -> dict[str, np.ndarray]:
    """Pixels of the item's image and reference by key; where one cannot be read, `item.why` says why."""
    read_here: dict[str, np.ndarray] = {}
    row = item.placed.row if gated else None
    if item.why or item.placed.place is None:
        return read_here
    try:
        item.image = _noted(cell.folder, item.placed.place, store, read_here, cell.remarks, row)
    except CellError as error:
        item.why = error.message
        return read_here
    if beside is not None and item.compared:
        try:
            item.reference = _noted(beside, item.placed.place, store, read_here, Counter(), row)
        except (CellError, KeyError) as error:
            item.why = f"its reference: {error.message if isinstance(error, CellError) else 'no picture'}"
    return read_here


def _noted(
    folder: Folder, place: Place, store: Store, read_here: dict[str, np.ndarray], remarks: Counter[str], row: Row | None
) -> str:
    """Read an image, record it in the store, and return its key. row: for a gated suite, whose texts are not stored.

    Raises `CellError` where it cannot be read.
    """
    file = folder.pictures[place]
    pixels, remark = read(file.path)
    sha = pixel_sha(pixels)
    key = digest({"elsewhere": sha})
    record = _record(key, sha, f"{folder.method}/{shown_name(file.name, row)}", gated=row is not None)
    before = store.images.get(key)
    if before is None:
        store.note([record])
    elif row is not None and not before.get(GATED):
        store.restate([{**before, GATED: True}])
    read_here[key] = pixels
    remarks.update([remark] if remark else [])
    return key


def _record(key: str, sha: str, name: str, gated: bool) -> Record:
    record = {"key": key, "pixel_sha": sha, "seconds": 0.0, "trace": {}, "bytes": 0, "dropped": True, "elsewhere": name}
    return record | ({GATED: True} if gated else {})


def shown_name(name: str, row: Row | None) -> str:
    """An image's file name as it is stored: its hash where it shares a word with its gated row, as names made of prompts do."""
    if row is None:
        return name
    words = {word for text in texts_of([row]) for word in re.findall(r"\w{3,}", (text or "").casefold().replace("_", " "))}
    parts = set(re.findall(r"[^\W_]{3,}", name.casefold()))
    return f"sha256-{text_sha(name)[:16]}" if parts & words else name


def _wanted(item: Item, task: Task, scoring: Scoring) -> Iterator[Wanted]:
    """Each scorer on the image; scorers of single images and of sets also on its reference."""
    if not item.image:
        return
    for name in task.scorers:
        compares = kind_named(name) != IMAGE
        if item.reference or not compares:
            yield scoring.want(name, item.image, item.placed.row, item.reference)
        if item.reference and kind_named(name) != PAIR:
            yield scoring.want(name, item.reference, item.placed.row)


def _hush(cells: Sequence[Cell], task: Task, scoring: Scoring, reporter: Reporter) -> None:
    """Keep texts of gated rows, which images may be named after, out of what is stored."""
    hush = Hush(texts_of(task.rows))
    scoring.errors = {wanted: hush(why) for wanted, why in scoring.errors.items()}
    clean(scoring.store, {key for cell in cells for item in cell.items for key in (item.image, item.reference)}, reporter.line)
    for cell in cells:
        cell.folder.left_out = Counter({hush(why): count for why, count in cell.folder.left_out.items()})
        for item in cell.items:
            item.why = hush(item.why)


def _tell(cell: Cell, task: Task, layout: LayoutSpec, reporter: Reporter) -> None:
    """Report how many images were read, expected, failed and left out."""
    expected = f"{len(cell.items)} expected" if task.rows else "how many there should be is not known"
    n_read = sum(bool(item.image) for item in cell.items)
    reporter.line(f"{cell.folder.method}: {n_read} pictures read, {expected}")
    if not cell.folder.pictures:
        reporter.line(f"  no file is named as in layout '{layout.name}'; `srbench list layouts` shows the others")
    for what, counts in (("failed", cell.failures), ("left out", cell.folder.left_out), ("read with a change", cell.remarks)):
        for why, count in counts.most_common():
            reporter.line(f"  {what}: {count} ({why})")


# --- the run ------------------------------------------------------------------------------------------------------------------


def _written(
    request: ScoreRequest, cells: list[Cell], task: Task, scoring: Scoring, started: str, counts: tuple[int, int],
    study: OfStudy | None,
) -> RunResult:
    run = run_id()
    records = [_cell_record(cell, task, scoring, run, *counts) for cell in cells]
    results = measured([(record, task.judge) for record in records])
    entries = [
        {
            "result": to_dict(value), "elsewhere": _facts(cell, task), **({"suite": task.read} if task.read else {}),
            "rows": [_entry(item, task.gated) for item in cell.items],
        }
        for cell, value in zip(cells, results, strict=True)
    ]
    header = {
        "started": started, "finished": now(), "provenance": provenance(), "request": _plain(request), "backbone_sha": "",
        "scorers": scoring.identities, "safety_checker": "not known", **of_study(study),
    }
    write_run(request.out, run, header, entries)
    failed = scoring.errors or scoring.broken or any(item.why for cell in cells for item in cell.items)
    failed = failed or any(uncompared(cell.metrics) or unjudged(cell) for cell in results)
    whole = not failed and all(cell.items for cell in cells)
    return RunResult(run, results, OK if whole else SOME_FAILED)


def _plain(request: ScoreRequest) -> dict[str, Any]:
    """JSON-ready."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(request).items()}
    return values | {"folders": [str(path) for _, path in request.folders]}


def _facts(cell: Cell, task: Task) -> dict[str, Any]:
    counts = {"failed": dict(cell.failures), "left_out": dict(cell.folder.left_out), "changed": dict(cell.remarks)}
    facts = {
        "attack": task.attack, "concept_kind": task.concept_kind, "sensitive": task.sensitive, "matched": cell.matched,
        "described_by": list(task.described_by),
    }  # fmt: skip
    columns = {"read": list(task.told)} if task.told else {}
    return {"folder": str(cell.folder.root), **facts, **columns, **counts}


def _entry(item: Item, gated: bool) -> dict[str, Any]:
    keys = {name: key for name, key in (("image", item.image), ("reference", item.reference)) if key}
    why = {"failed": item.why} if item.why else {}
    row = {} if gated else {"row": item.placed.row.model_dump(mode="json", exclude_defaults=True)}
    return {"id": item.placed.row.id, **keys, **why, **row}


def _cell_record(cell: Cell, task: Task, scoring: Scoring, run: str, n_loaded: int, n_excluded: int) -> CellRecord:
    return CellRecord(
        backbone=BACKBONE, concept=task.concept, concept_kind=task.concept_kind, suite=task.suite, attack=task.attack,
        method=cell.folder.method, on="none", variant=task.variant, protocol=task.judge.name, dtype="as made",
        rows_sha=load.rows_sha(tuple(item.placed.row for item in cell.items)), run=run, source="local", n_loaded=n_loaded,
        n_excluded=n_excluded, metrics=task.metrics, decides=False, blocked="" if cell.items else "no picture", notes=task.notes,
        rows=tuple(_row_record(item, task, scoring) for item in cell.items), origin=_origin(cell),
        described_by=task.described_by,
    )


def _origin(cell: Cell) -> Origin:
    """The origin of external images: their folder, and what was read."""
    read_here = images_sha(_entry(item, gated=True) for item in cell.items)
    return Origin(folder=str(cell.folder.root.resolve()), images_sha=read_here)


def _row_record(item: Item, task: Task, scoring: Scoring) -> RowRecord:
    row, nothing = item.placed.row, unread(item.why, task.scorers)
    image = image_record(item.image, item.reference, row, task.scorers, scoring) if item.image else nothing
    reference = image_record(item.reference, "", row, task.scorers, scoring) if item.reference else None
    return RowRecord(row, image, nothing if item.image and item.why else reference)
