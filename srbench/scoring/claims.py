"""Judges claimed results again, from the pictures in a results folder of somebody else, with the judge that is at hand here.

Nothing is written, no path of a run file is followed, and a scorer's options come from the judge alone. A result is verified only
where all of it was made again; everything else has a reason. That a method made these pictures is not shown by that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from srbench import stopping
from srbench.analysis.judging import Unscored, seen_in
from srbench.analysis.measure import measure
from srbench.analysis.metrics import HEADLINES, KEPT, definition, lens_of, observe
from srbench.analysis.records import CellRecord, Metric
from srbench.analysis.results import ResultCell
from srbench.catalog import load, plugins
from srbench.catalog.judges import with_settings
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.errors import CellError, SrbenchError
from srbench.files import kind_of_path
from srbench.hashing import digest
from srbench.results.gated import text_sha
from srbench.results.marks import DROPPED, SENSITIVE
from srbench.results.origins import ROLES, images_sha
from srbench.results.records import Warn
from srbench.results.run_files import UNREAD
from srbench.results.store import Store
from srbench.results.stored import Raws, Stored, identities, raws_of, reread
from srbench.rules import finite
from srbench.scorers.base import IMAGE, fields_of, kind_named
from srbench.tables.numbers import digits

if TYPE_CHECKING:
    from srbench.scoring.scoring import Scoring

FIGURES = (*HEADLINES, *KEPT)
"""Metrics that are made again; each reads the judge, or the scorer that describes the backbone's pictures."""
VERIFIED, DIFFERS, UNVERIFIED, UNCHECKED = "verified", "differs", "not verified", "not checked"
SAME = 1e-6
"""Tolerance of a figure, absolute and relative: intervals of other versions of numpy and scipy round differently."""
FAR = 0.05
"""Difference of a raw number, absolute below 1 and relative above, from which it is not rounding: the pictures are others."""
COUNTED = ("n", "scored", "value", "low", "high")
"""Fields of a metric that have to be the claimed ones."""
VERSIONS = ("library",)
"""Keys of a scorer's identity that may differ, beside those that end in `_version`: its verdicts are compared anyway."""


class Refused(CellError):
    """A claim that cannot be verified; the message says why."""


class Contradicted(CellError):
    """A claim that its own pictures or rows contradict; the message says how."""


@dataclass(frozen=True)
class Checked:
    """What judging a claimed result again came to."""

    state: str
    """`VERIFIED`, `DIFFERS`, `UNVERIFIED` or `UNCHECKED`."""
    why: str = ""
    """Why it is not verified, or what differs."""
    rows: int = 0
    apart: float = 0.0
    """Greatest difference of a raw number from the claimed one, absolute below 1 and relative above."""
    figures: tuple[str, ...] = ()
    """Metrics that were computed again and are the claimed ones."""
    unsaid: tuple[str, ...] = ()
    """Metrics that could not be, each with the reason."""
    versions: tuple[str, ...] = ()
    """Scorers whose library has another version here."""


class Claim(NamedTuple):
    """A cell as a run file has it."""

    cell: ResultCell
    entry: Mapping[str, Any]
    header: Mapping[str, Any]

    @property
    def local(self) -> bool:
        """Whether it has its rows, as runs have and summaries have not."""
        return "rows" in self.entry


@dataclass
class Shelf:
    """A contributor's folder, open for reading, and what was made anew of its pictures."""

    folder: Path
    store: Store
    raws: Raws
    """The claimed raw numbers."""
    sound: set[str] = field(default_factory=set)
    """Keys of pictures that were read and are as the ledger says."""
    fresh: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    """(scorer's identity, image key, sha256 of the fields) -> raw numbers."""

    @classmethod
    def of(cls, folder: Path, warn: Warn) -> Shelf:
        """Every line of the ledgers is read: an index that came with the folder is not relied on."""
        store = Store.peek(folder / "store", warn, indexed=False)
        return cls(folder, store, raws_of(store))


@dataclass
class Bench:
    """Scorers that are open, by name and settings; None where one is not to be had, with the reason."""

    opened: dict[tuple[str, tuple[str, ...]], tuple[Scoring | None, str]] = field(default_factory=dict)

    def scorer(self, name: str, settings: tuple[str, ...], store: Store) -> Scoring:
        """A scorer with the judge's own settings. Raises `Refused` where it is not at hand."""
        if (name, settings) not in self.opened:
            self.opened[name, settings] = _opened(name, settings, store)
        scoring, why = self.opened[name, settings]
        if scoring is None:
            raise Refused(f"judge not installed here ({why})")
        return scoring

    def forget(self, name: str) -> None:
        """Open a scorer anew the next time: one that failed often tries no more, and the next folder is another one's."""
        self.opened = {key: value for key, value in self.opened.items() if key[0] != name}


def _opened(name: str, settings: tuple[str, ...], store: Store) -> tuple[Scoring | None, str]:
    from srbench.scoring.scoring import Scoring

    if name not in plugins.plugins("scorers"):
        return None, f"there is no scorer '{name}'"
    scoring = Scoring(store)
    try:
        scoring.open([name], [setting for setting in settings if setting.startswith(f"{name}.")])
    except SrbenchError as error:
        return None, error.message
    return (None, scoring.broken[name].message) if name in scoring.broken else (scoring, "")


Tell = Callable[[int, int], None]
"""Rows done, and of how many."""


def judged_again(claim: Claim, shelf: Shelf, bench: Bench, tell: Tell) -> Checked:
    """Judge a claimed cell again; never raises for what is wrong with the claim."""
    try:
        return _judged_again(claim, shelf, bench, tell)
    except Contradicted as error:
        return Checked(DIFFERS, error.message)
    except SrbenchError as error:
        return Checked(UNVERIFIED, error.message)


def claimed_record(claim: Claim, shelf: Shelf) -> CellRecord | None:
    """A claimed cell's rows with their claimed scores, for tests on the same rows; None where they are not all at hand."""
    try:
        judge = judge_of(claim)
        rows_in(claim)
        return _record(claim, judge, shelf, shelf.raws)
    except SrbenchError:
        return None


# --- what can be known before a picture is read -----------------------------------------------------------------------


def judge_of(claim: Claim) -> ProtocolSpec:
    """The claim's judge as it is here. Raises `Refused` where there is none of that name, or it cannot judge."""
    judge = load.protocols().get(claim.cell.protocol)
    if judge is None:
        raise Refused("judge not known here")
    if judge.cannot:
        raise Refused(f"judge cannot be asked: {judge.cannot}")
    return judge


def rows_in(claim: Claim) -> list[tuple[Mapping[str, Any], Row]]:
    """The claim's rows with what they hold. Raises `Refused` where they are not all in the run file, which names no other file
    that would be read, and `Contradicted` where they are not those that it names."""
    entry, cell = claim.entry, claim.cell
    if not claim.local:
        raise Refused("committed summary: it has no pictures")
    if UNREAD in entry:
        raise Refused("its rows are damaged")
    if "elsewhere" in entry:
        raise Refused("pictures made elsewhere are not kept")
    if not entry["rows"]:
        raise Refused("no rows")
    if any("row" not in row for row in entry["rows"]):
        raise Refused("gated suite: the texts of its rows are not in the run file")
    rows = [(row, Row.model_validate(row["row"])) for row in entry["rows"]]
    if load.rows_sha(tuple(row for _, row in rows)) != cell.rows_sha:
        raise Contradicted("its rows are not those that its hash names")
    if cell.origin.images_sha not in ("", images_sha(entry["rows"])):
        raise Contradicted("its pictures are not those that its hash names")
    return rows


def check_pictures(rows: Sequence[tuple[Mapping[str, Any], Row]], shelf: Shelf) -> None:
    """Raises `Refused` where a row's picture, or one that it is compared with, is not in the folder's store."""
    keys = {entry[role] for entry, _ in rows for role in ROLES if role in entry}
    lacking = {key for key in keys if _lacks(key, shelf)}
    none = sum("image" not in entry for entry, _ in rows)
    if not lacking and not none:
        return
    records = [shelf.store.images.get(key, {}) for key in lacking]
    if any(record.get(SENSITIVE) for record in records):
        raise Refused("sensitive: images were not kept")
    if len(lacking) == len(keys):
        raise Refused("no images")
    dropped = all(record.get(DROPPED) for record in records) and not none
    raise Refused(f"{len(lacking) + none} of {len(keys) + none} pictures {'were not kept' if dropped else 'missing'}")


def _lacks(key: str, shelf: Shelf) -> bool:
    record = shelf.store.images.get(key)
    return record is None or bool(record.get(DROPPED)) or kind_of_path(shelf.store.image_path(key)) != "file"


# --- the judging ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Asked:
    """A scorer to ask, and its identity in the claim's run."""

    name: str
    identity: str
    """Digest of it."""
    scoring: Scoring
    newer: str
    """Its library's version there and here, where these differ."""


def _judged_again(claim: Claim, shelf: Shelf, bench: Bench, tell: Tell) -> Checked:
    rows = rows_in(claim)
    judge = judge_of(claim)
    check_pictures(rows, shelf)
    claimed = _record(claim, judge, shelf, shelf.raws)
    figures = [name for name in FIGURES if name in claim.cell.metrics]
    if not figures:
        raise Refused("none of its figures is made again here")
    asked, unsaid = _asked(claim, claimed, judge, figures, shelf, bench)
    figures = [name for name in figures if name not in unsaid]
    raws = _fresh(rows, asked, shelf, bench, tell)
    fresh = _record(claim, judge, shelf, raws)
    _check_verdicts(claimed, fresh, judge, figures)
    _check_figures(claim.cell, fresh, judge, figures)
    return Checked(
        VERIFIED,
        rows=len(rows),
        apart=_greatest(raws, shelf.raws),
        figures=tuple(figures),
        unsaid=tuple(f"{name}: {why}" for name, why in unsaid.items()),
        versions=tuple(each.newer for each in asked if each.newer),
    )


def _record(claim: Claim, judge: ProtocolSpec, shelf: Shelf, raws: Raws) -> CellRecord:
    """The cell with its rows and some raw numbers. Of the method nothing is read: it may be one that is not known here."""
    suite = {name: claim.entry["suite"][name] for name in ("attack", "metrics", "family") if name in claim.entry.get("suite", {})}
    entry = {"rows": claim.entry["rows"], **({"suite": suite} if suite else {})}
    scorers = {name: each for name, each in claim.header.get("scorers", {}).items() if isinstance(each.get("options", {}), dict)}
    stored = Stored(shelf.store, identities({"scorers": scorers}), scorers, raws)
    cell = replace(claim.cell, method="none", origin=replace(claim.cell.origin, images_sha=images_sha(entry["rows"])))
    return replace(reread(cell, entry, judge, stored), method=claim.cell.method)


def _asked(
    claim: Claim, record: CellRecord, judge: ProtocolSpec, figures: Sequence[str], shelf: Shelf, bench: Bench
) -> tuple[list[Asked], dict[str, str]]:
    """The scorers to ask, and which figures cannot be made again for want of one. Raises `Refused` for want of the judge."""
    settings = with_settings((), [judge])
    parts = list(dict.fromkeys(part.scorer for part in load.parts(judge)))
    asked = {name: _ask(name, settings, claim, shelf, bench) for name in parts}
    describing, unsaid = record.described_by[0], {}
    kept = [name for name in figures if name in KEPT]
    if kept and describing not in asked:
        try:
            asked[describing] = _ask(describing, settings, claim, shelf, bench)
        except Refused as error:
            unsaid = dict.fromkeys(kept, error.message)
    if len(unsaid) == len(figures):
        raise Refused(next(iter(unsaid.values())))
    return list(asked.values()), unsaid


def _ask(name: str, settings: tuple[str, ...], claim: Claim, shelf: Shelf, bench: Bench) -> Asked:
    if not name:
        raise Refused("nothing is known here that describes its pictures")
    scoring = bench.scorer(name, settings, shelf.store)
    if kind_named(name) != IMAGE:
        raise Refused(f"scorer {name} compares pictures")
    there: Mapping[str, Any] | None = claim.header.get("scorers", {}).get(name)
    if there is None:
        raise Refused(f"its run does not say which {name} judged")
    here = scoring.identities[name]
    if unversioned(there) != unversioned(here):
        raise Refused(f"scorer {name} is another one here: its weights, options or version")
    versions = [str(each.get("library_version", "?"))[:40] for each in (there, here)]
    return Asked(name, digest(there), scoring, f"{name}: {versions[0]} there, {versions[1]} here" if there != here else "")


def unversioned(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A scorer's identity without the versions of its libraries."""
    return {key: value for key, value in identity.items() if key not in VERSIONS and not key.endswith("_version")}


def _fresh(rows: Sequence[tuple[Mapping[str, Any], Row]], asked: Sequence[Asked], shelf: Shelf, bench: Bench, tell: Tell) -> Raws:
    """Raw numbers of the rows' pictures, made now. Raises `Contradicted` where pictures are not those of ledger and rows."""
    _check_shared(rows)
    raws: Raws = {}
    wrong: dict[str, str] = {}
    for number, (entry, row) in enumerate(rows, 1):
        for role in (role for role in ROLES if role in entry):
            try:
                raws.update(_looked_at(entry[role], role, row, asked, shelf, bench))
            except Contradicted as error:
                wrong[entry[role]] = error.message
        tell(number, len(rows))
        stopping.check()
    if wrong:
        keys = {entry[role] for entry, _ in rows for role in ROLES if role in entry}
        raise Contradicted(f"{len(wrong)} of {len(keys)} pictures are not as recorded ({next(iter(wrong.values()))})")
    return raws


def _check_shared(rows: Sequence[tuple[Mapping[str, Any], Row]]) -> None:
    """Raises `Contradicted` where one picture is given for rows of several prompts or seeds."""
    shown: dict[str, tuple[str, int | None]] = {}
    for entry, row in rows:
        if "image" in entry and shown.setdefault(entry["image"], (row.prompt, row.seed)) != (row.prompt, row.seed):
            raise Contradicted("one picture is given for rows of several prompts")


def _looked_at(key: str, role: str, row: Row, asked: Sequence[Asked], shelf: Shelf, bench: Bench) -> Iterator[tuple[Any, Any]]:
    """Items of `Raws` of one picture, which is read where that was not yet done."""
    fields = {each.name: fields_of(each.name, row) for each in asked} if role != "floor" else {}
    places = {each: (each.identity, key, text_sha(fields[each.name])) for each in asked if each.name in fields}
    lacking = [each for each, place in places.items() if place not in shelf.fresh]
    if lacking or key not in shelf.sound or role == "image":  # a row's own picture has to be of its prompt
        pixels = _pixels(key, row if role == "image" else None, shelf)
        for each in lacking:
            shelf.fresh[places[each]] = _scored(each, key, fields[each.name], pixels, bench)
    sha = str(shelf.store.images[key]["pixel_sha"])
    for identity, _, of_fields in places.values():
        yield (identity, sha, of_fields, ""), shelf.fresh[identity, key, of_fields]


def _pixels(key: str, row: Row | None, shelf: Shelf) -> Any:
    """A picture, uint8 RGB (H, W, 3). row: the one whose prompt it was made for, where the ledger says so."""
    path = shelf.store.image_path(key)
    if not path.resolve().is_relative_to(shelf.folder.resolve()):
        raise Contradicted("a link leads out of the folder")
    try:
        pixels = shelf.store.pixels(key)
    except SrbenchError as error:
        raise Contradicted(error.message) from error
    made_for = shelf.store.images[key].get("prompt")
    if row is not None and made_for is not None and made_for != row.prompt:
        raise Contradicted("made for another prompt than its row's")
    shelf.sound.add(key)
    return pixels


def _scored(asked: Asked, key: str, fields: str, pixels: Any, bench: Bench) -> dict[str, Any]:
    from srbench.scoring.scoring import Wanted

    try:
        return asked.scoring.fresh(Wanted(asked.name, key, fields), [pixels])
    except SrbenchError as error:
        bench.forget(asked.name)
        raise Refused(f"{asked.name} fails on a picture: {error.message}") from error


# --- the comparison ---------------------------------------------------------------------------------------------------


def _check_verdicts(claimed: CellRecord, fresh: CellRecord, judge: ProtocolSpec, figures: Sequence[str]) -> None:
    """Raises `Contradicted` where a row has another verdict, or had none."""
    before, now = (_verdicts(record, judge, figures) for record in (claimed, fresh))
    differ = [row for row in now if before[row] != now[row]]
    if differ:
        raise Contradicted(f"verdicts differ on {len(differ)} of {len(now)} rows")


def _verdicts(record: CellRecord, judge: ProtocolSpec, figures: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Row id -> what the judge says of its picture, then the row's value in each figure; None where it has none."""
    values = {}
    for name in figures:
        values[name] = {each.row.id: each.value for each in observe(definition(name), record, lens_of(record, judge))}
    return {
        row.row.id: (_seen(row.image, judge), *(values[name].get(row.row.id) for name in figures)) for row in record.rows
    }  # fmt: skip


def _seen(image: Any, judge: ProtocolSpec) -> bool | None:
    try:
        return seen_in(image, judge)
    except Unscored:
        return None


def _check_figures(cell: ResultCell, fresh: CellRecord, judge: ProtocolSpec, figures: Sequence[str]) -> None:
    """Raises `Contradicted` where a claimed figure is not that of the rows."""
    now = measure(replace(fresh, metrics=tuple(figures)), judge, None)
    scored = sum(_seen(row.image, judge) is not None for row in fresh.rows)
    told = {name: pair for name in figures if (pair := _told(cell.metrics[name], now[name]))}
    texts = [f"{name}: claimed {before}, from its rows {again}" for name, (before, again) in told.items()]
    texts += [f"rows scored: claimed {cell.n_scored}, here {scored}"] if scored != cell.n_scored else []
    if texts:
        raise Contradicted(f"figures differ: {'; '.join(texts)}")


def _told(claimed: Metric, now: Metric) -> tuple[str, str] | None:
    """Both figures as text where a field differs, else None."""
    if all(_close(getattr(claimed, name), getattr(now, name)) for name in COUNTED):
        return None
    short = _close(claimed.value, now.value)
    return (_text(claimed, whole=short), _text(now, whole=short))


def _text(metric: Metric, whole: bool) -> str:
    value = "n/a" if metric.value is None else digits(metric.value)
    if not whole:
        return value
    ends = [] if metric.low is None or metric.high is None else [f"[{digits(metric.low)}, {digits(metric.high)}]"]
    return " ".join([value, *ends, f"n {metric.scored}/{metric.n}"])


def _close(a: Any, b: Any) -> bool:
    return math.isclose(a, b, rel_tol=SAME, abs_tol=SAME) if finite(a) and finite(b) else bool(a == b)


def _greatest(fresh: Raws, claimed: Raws) -> float:
    """Greatest difference between raw numbers. Raises `Contradicted` where they have another form, or are far apart."""
    apart = max((_apart(raw, claimed.get(place)) for place, raw in fresh.items()), default=0.0)
    if not math.isfinite(apart):
        raise Contradicted("raw scores of another form than those made here")
    if apart > FAR:
        raise Contradicted(f"raw scores are {apart:.2g} from those made here")
    return apart


def _apart(a: Any, b: Any) -> float:
    if isinstance(a, dict) and isinstance(b, dict):
        return max((_apart(a[key], b[key]) for key in a), default=0.0) if a.keys() == b.keys() else math.inf
    if isinstance(a, list) and isinstance(b, list):
        return max(map(_apart, a, b), default=0.0) if len(a) == len(b) else math.inf
    if finite(a) and finite(b):
        return abs(float(a) - float(b)) / max(1.0, abs(float(a)))
    return 0.0 if a == b else math.inf
