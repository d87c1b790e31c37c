"""The gallery: rows with one image per method from the same noise, the judge's verdict on each, and the method's trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from srbench.analysis.judging import Unscored, number, raw_of, seen_in
from srbench.analysis.records import CellRecord, ImageRecord, RowRecord
from srbench.analysis.results import ResultCell, name_of, untouched
from srbench.analysis.verdicts import lost_in, spread
from srbench.catalog import load
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.errors import SrbenchError, UsageError
from srbench.hashing import digest
from srbench.report.embed import Album
from srbench.report.sources import Source
from srbench.results.records import redirects
from srbench.results.run_files import Identity, identity
from srbench.results.strips import Strip
from srbench.tables.numbers import digits

REFERENCE = "reference"
"""In place of a method: the untouched backbone on the row's reference prompt."""


SHOWN = 0.005
"""A judge's number from which the class is named: below, the picture shows nothing of it."""
NAMED = 5
"""Names at the start of a place, before hashes."""


@dataclass(frozen=True)
class Token:
    """A token with SafeRedir's mask and alpha, averaged over the redirected steps."""

    text: str
    mask: float
    alpha: float


@dataclass(frozen=True)
class Picture:
    """One method's image of a row."""

    method: str
    """With checkpoint and variant."""
    run: str
    data: str = ""
    """Data URI; empty where there is no image."""
    why: str = ""
    """Why there is no image."""
    seen: bool | None = None
    """Whether the judge sees the concept; None on retain rows, and where it cannot be judged."""
    lost: tuple[str, ...] = ()
    """What else was not preserved."""
    said: str = ""
    """The judge's number, or why there is none."""
    sensitive: bool = False
    unsafe: tuple[float, ...] = ()
    """SafeRedir: unsafe probability by step."""
    redirected: int | None = None
    tokens: tuple[Token, ...] = ()
    other: tuple[tuple[str, str], ...] = ()
    """(name, value) of another method's trace."""
    strip: Strip | None = None
    """Its steps, where a run kept them."""
    film: str = ""
    """The strip as data URI."""

    @property
    def traced(self) -> bool:
        """Whether there is a trace of the method, or of its steps."""
        return bool(self.unsafe or self.tokens or self.other or self.strip)

    @property
    def acted(self) -> tuple[int, ...]:
        """The steps, from 1, at which SafeRedir redirected; empty where the strip does not agree with its trace."""
        steps = self.strip.acted if self.strip is not None else ()
        return steps if len(steps) == self.redirected else ()

    def unsafe_at(self, step: int) -> float | None:
        """SafeRedir's unsafe probability at a step, from 1; None where its trace is not one of these steps."""
        fits = self.strip is not None and len(self.unsafe) == self.strip.steps and 1 <= step <= len(self.unsafe)
        return self.unsafe[step - 1] if fits else None

    @property
    def plain(self) -> bool:
        """Whether it is made without a method."""
        return self.method == REFERENCE or untouched(self.method)

    @property
    def failed(self) -> bool:
        """Whether a method let the concept through or did not preserve something else."""
        return not self.plain and (self.seen is True or bool(self.lost))


@dataclass(frozen=True)
class GalleryRow:
    """A row with its images side by side."""

    place: tuple[str, ...]
    """As `place_of`."""
    id: str
    kind: str
    category: str
    prompt: str
    """For gated suites the start of its sha256."""
    reference: str
    seed: int | None
    gated: bool
    pictures: tuple[Picture, ...]

    @property
    def flipped(self) -> bool:
        """Whether the judge's verdict differs between methods."""
        verdicts = {each.seen if self.kind == "forget" else bool(each.lost) for each in self.pictures if each.method != REFERENCE}
        return len(verdicts - {None}) > 1

    @property
    def failed(self) -> bool:
        """Whether a method failed on it."""
        return any(each.failed for each in self.pictures)

    @property
    def embedded(self) -> int:
        """Number of images that are embedded."""
        return sum(bool(each.data) for each in self.pictures)


def place_of(cell: ResultCell) -> tuple[str, ...]:
    """What cells of one gallery share: backbone, concept, suite, judge, dtype; then the hashes of rows and backbone, noise,
    seed and scorer options. Examples of committed summaries have only the first `NAMED`."""
    origin = cell.origin
    named = (cell.backbone, cell.concept, cell.suite, cell.protocol, cell.dtype)
    seed = "" if origin.seed is None else str(origin.seed)
    return *named, cell.rows_sha, origin.backbone_sha, origin.noise, seed, origin.scorers_sha


@dataclass(frozen=True)
class Hung:
    """A cell with its source, its rows with scores, and its judge."""

    source: Source
    record: CellRecord
    judge: ProtocolSpec

    @property
    def name(self) -> str:
        """The method, with checkpoint and variant."""
        return name_of(self.source.cell)

    @property
    def gated_ids(self) -> set[str]:
        """Rows whose texts its run file does not hold."""
        return {each["id"] for each in self.source.entry["rows"] if "row" not in each}


# --- which rows ---------------------------------------------------------------------------------------------------------------


def rows_of(cells: Sequence[Hung], images: int, album: Album) -> list[GalleryRow]:
    """About `images` images of comparable cells as rows in the suite's order: failures first, then flips, then the rest.

    Before all of them come rows whose steps a run kept. Failures take at most half of the other rows, so that successes are shown
    too; each group is spread evenly over the suite.
    """
    judged = _judged(cells)
    if images < 1:
        return []
    room = max(1, images // (len(cells) + 1))
    filmed = _filmed(cells, album)
    chosen = spread([row for row in judged if row.id in filmed], room)
    room -= len(chosen)
    judged, every = [row for row in judged if row.id not in filmed], judged
    failed = [row for row in judged if row.failed]
    flipped = [row for row in judged if row.flipped and not row.failed]
    rest = [row for row in judged if not row.failed and not row.flipped]
    more = spread(failed, room - room // 2 if flipped or rest else room)
    more += spread(flipped, (room - len(more) + 1) // 2 if rest else room - len(more))
    more += spread(rest, room - len(more))
    ids = {row.id for row in (*chosen, *more)}
    return [_hang(row, cells, album) for row in every if row.id in ids]


def _filmed(cells: Sequence[Hung], album: Album) -> set[str]:
    """Ids of rows of which a picture has a strip."""
    keys = album.filmed
    rows = (record for cell in cells for record in cell.record.rows) if keys else ()
    return {record.row.id for record in rows if record.image is not None and record.image.key in keys}


def _judged(cells: Sequence[Hung]) -> list[GalleryRow]:
    """All rows with verdicts, without images. Rows of two cells are the same where id, prompt and seed agree."""
    rows: dict[tuple[Any, ...], tuple[RowRecord, bool, list[Picture]]] = {}
    for cell in cells:
        gated, lost = cell.gated_ids, lost_in(cell.record, cell.judge)
        for record in cell.record.rows:
            key = (record.row.id, record.row.prompt, record.row.seed)
            entry = rows.setdefault(key, (record, record.row.id in gated, []))
            entry[2].append(_verdict(cell, record, lost.get(record.row.id, ())))
    return [_row(cells[0], record, gated, pictures) for record, gated, pictures in rows.values()]


def _row(cell: Hung, record: RowRecord, gated: bool, pictures: Sequence[Picture]) -> GalleryRow:
    row = record.row
    reference = "" if gated else row.reference or ""
    return GalleryRow(
        place_of(cell.source.cell), row.id, row.kind, row.category, shown_prompt(row, gated), reference, row.seed, gated,
        tuple(pictures),
    )


def shown_prompt(row: Row, gated: bool) -> str:
    """The prompt, or for a gated suite the start of its sha256."""
    return f"sha256 {digest(row.prompt)[:16]}" if gated else row.prompt


# --- what the judge says ------------------------------------------------------------------------------------------------------


def _verdict(cell: Hung, record: RowRecord, lost: tuple[str, ...]) -> Picture:
    seen, text = None, ""
    if record.row.kind == "forget":
        try:
            seen = seen_in(record.image, cell.judge)
        except Unscored as error:
            text = error.message
    return Picture(cell.name, cell.source.cell.run, seen=seen, lost=lost, said=text or _score(record.image, cell.judge))


def _score(image: ImageRecord | None, judge: ProtocolSpec) -> str:
    """The concept's class with the highest score, with its number, of each detector; empty without a score."""
    return ", ".join(f"{name} {value:.2f}" if value >= SHOWN else "nothing of it" for name, value in scores_of(image, judge))


def scores_of(image: ImageRecord | None, judge: ProtocolSpec) -> list[tuple[str, float]]:
    """The concept's class with the highest score, of each of the judge's detectors that has one."""
    found: list[tuple[str, float]] = []
    for part in load.parts(judge):
        try:
            raw = raw_of(image, part.scorer)
            if part.field == "boxes":
                boxes = [box for box in raw["boxes"] if box["class"] in part.classes]
                scores = [(str(box["class"]), number(box["score"], "score")) for box in boxes]
            else:
                scores = [(name, number(raw[part.field][name], name)) for name in part.classes if name in raw[part.field]]
        except (Unscored, KeyError, TypeError):
            continue
        found += sorted(scores, key=lambda each: -each[1])[:1]
    return found


# --- pictures and traces ------------------------------------------------------------------------------------------------------


def _hang(row: GalleryRow, cells: Sequence[Hung], album: Album) -> GalleryRow:
    """The row with its images embedded; the reference image comes first."""
    at = {cell.name: (cell, record) for cell in cells for record in cell.record.rows if _same(record.row, row)}
    pictures = []
    for picture in row.pictures:
        cell, record = at[picture.method]
        data, why = album.data(record.image, cell.source)
        traced = replace(picture, data=data, why=why, sensitive=album.sensitive(record.image, cell.source))
        if data and not row.gated:
            traced = _with_strip(traced, record, cell, album)
        pictures.append(_traced(traced, record, cell, row.gated))
    beside = next(((cell, record) for cell, record in at.values() if record.reference is not None), None)
    if beside is not None:
        cell, record = beside
        data, why = album.data(record.reference, cell.source)
        text = _score(record.reference, cell.judge)
        veiled = album.sensitive(record.reference, cell.source)
        pictures.insert(0, Picture(REFERENCE, cell.source.cell.run, data, why, said=text, sensitive=veiled))
    return replace(row, pictures=tuple(pictures))


def _with_strip(picture: Picture, record: RowRecord, cell: Hung, album: Album) -> Picture:
    found = album.strip(record.image, cell.source)
    return picture if found is None else replace(picture, strip=found[0], film=found[1])


def _same(row: Row, other: GalleryRow) -> bool:
    return row.id == other.id and row.seed == other.seed and (other.gated or row.prompt == other.prompt)


def _traced(picture: Picture, record: RowRecord, cell: Hung, gated: bool) -> Picture:
    trace = dict(record.image.trace) if record.image else {}
    if not redirects(trace):
        other = tuple((name.replace("_", " "), _plain(value)) for name, value in trace.items() if not isinstance(value, list))
        return replace(picture, other=other)
    tokens: list[Token] = []
    if trace.get("mask"):
        texts = () if gated else tokens_of(cell.record.backbone, record.row.prompt)
        pairs = list(zip(trace["mask"], trace["alpha"], strict=True))[: len(texts) or None]
        tokens = [Token(texts[i] if texts else str(i), float(mask), float(alpha)) for i, (mask, alpha) in enumerate(pairs)]
    return replace(picture, unsafe=tuple(trace["unsafe"]), redirected=trace.get("redirected_steps"), tokens=tuple(tokens))


def _plain(value: Any) -> str:
    return digits(value) if isinstance(value, float) else str(value)


@cache
def _tokenizer(backbone: str) -> Callable[[str], Sequence[str]] | None:
    """The backbone's tokenizer; None where it is missing, or fails `check_own_words`."""
    from transformers import CLIPTokenizer

    from srbench.backbones.loader import locate
    from srbench.backbones.tokenizers import check_own_words

    try:
        folder = locate(load.named("backbone", backbone, load.backbones())) / "tokenizer"
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        check_own_words(tokenizer, str(folder))
    except (SrbenchError, OSError, ValueError):
        return None
    return lambda prompt: tokenizer.convert_ids_to_tokens(tokenizer(prompt, truncation=True).input_ids)


def tokens_of(backbone: str, prompt: str) -> tuple[str, ...]:
    """A prompt's tokens with start and end; empty without the backbone's tokenizer."""
    split = _tokenizer(backbone)
    text = prompt.encode("utf-8", "replace").decode()  # tokenizers refuse unpaired surrogates
    return tuple(token.removesuffix("</w>") for token in split(text)) if split else ()


# --- from local runs ----------------------------------------------------------------------------------------------------------


def hung(sources: Sequence[Source], records: Mapping[Identity, CellRecord]) -> Iterator[Hung]:
    """Cells whose rows could be read, with their judges."""
    for source in sources:
        record = records.get(identity(source.cell))
        if record is not None:
            try:
                yield Hung(source, record, load.protocol(source.cell.protocol))
            except UsageError:
                continue


def decided(picture: Picture) -> str:
    """The verdict in a word or two."""
    if picture.method == REFERENCE:
        return ""
    parts = {True: ["concept seen"], False: ["concept gone"], None: []}[picture.seen]
    if picture.lost and not (picture.plain and picture.seen):
        parts = [*parts, f"lost: {', '.join(picture.lost)}"]
    return "; ".join(parts)
