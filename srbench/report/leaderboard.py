"""A page of many people's results: one table for each set that may be compared, and which results were judged again.

What a folder says is a claim: texts are cut and escaped, no path in it is followed, and no picture or prompt is on the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from srbench.analysis.metrics import HEADLINES, KEPT, lens_of
from srbench.analysis.origin import SHOWN, Identity, in_order, place_of
from srbench.analysis.records import CellRecord, Metric
from srbench.analysis.results import ResultCell, name_of, title_of
from srbench.analysis.significance import corrected_together, paired
from srbench.catalog import load
from srbench.errors import MissingError, SrbenchError, UsageError
from srbench.files import printable
from srbench.hashing import digest
from srbench.report.answers import LEVEL, apart
from srbench.report.build import asset, environment
from srbench.report.sources import Source, only, sources
from srbench.report.words import meaning, rule
from srbench.results.origins import images_sha
from srbench.results.run_files import check_folder, no_results, read_run, run_files
from srbench.scoring.claims import (
    DIFFERS,
    FIGURES,
    UNCHECKED,
    UNVERIFIED,
    VERIFIED,
    Bench,
    Checked,
    Claim,
    Shelf,
    claimed_record,
    judged_again,
    unversioned,
)
from srbench.tables.boards import PHRASES, caption_of, coverage
from srbench.tables.numbers import ARROWS, named, p_text, shown_as
from srbench.version import __version__

TEXT = 120
"""Characters of a claimed text that are shown."""
LINE = 400
"""Characters of a reason or a remark that are shown."""
NOT_CHECKED = Checked(UNCHECKED)
NO_RESULTS, NO_TEXT = "no results", "a text in it is no Unicode"
Tell = Callable[[str, int, int], None]
"""Contributor, rows judged, and of how many."""


@dataclass(frozen=True)
class Asked:
    """Which results the page has, and whether they are judged again."""

    methods: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    verify: bool = True


@dataclass(frozen=True)
class Entry:
    """A contributor's result."""

    contributor: str
    source: Source
    record: CellRecord | None = None
    """Its rows with their claimed scores, where they are all at hand."""
    checked: Checked = NOT_CHECKED

    @property
    def cell(self) -> ResultCell:
        return self.source.cell

    @property
    def claim(self) -> Claim:
        return Claim(self.cell, self.source.entry, self.source.run)

    @property
    def pictures(self) -> str:
        """Short hash of its pictures' keys, as its rows have them; of a summary as it says; empty where neither does."""
        return images_sha(self.source.entry["rows"]) if self.claim.local else self.cell.origin.images_sha


@dataclass(frozen=True)
class Line:
    """An entry in its table."""

    entry: Entry
    standing: str
    """What can be said of it beside the best one."""
    others: tuple[str, ...]
    """What others have from the same picture keys."""


@dataclass(frozen=True)
class Contest:
    """One table: results that may be compared."""

    title: str
    caption: str
    headline: str
    """The metric of forgetting; empty where no cell has one."""
    figures: tuple[str, ...]
    lines: tuple[Line, ...]
    judge: tuple[str, ...]
    """The judge's rule in sentences, as it is known here."""

    def header(self, name: str) -> str:
        """A metric with its direction."""
        found = next(line.entry.cell.metrics[name] for line in self.lines if name in line.entry.cell.metrics)
        return f"{named(name)} {ARROWS[found.better]}"


@dataclass
class Contributed:
    """What was read of a folder."""

    name: str
    folder: Path
    sources: list[Source] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What could not be used, each with the reason."""
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Leaderboard:
    """The page's whole content."""

    contributors: tuple[Contributed, ...]
    contests: tuple[Contest, ...]
    verify: bool
    """Whether results were judged again."""

    @property
    def entries(self) -> list[Entry]:
        return [line.entry for contest in self.contests for line in contest.lines]

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """Contributor and reason."""
        return [(each.name, why) for each in self.contributors for why in each.left_out]

    @property
    def shared(self) -> list[Contest]:
        """Tables with something to compare."""
        return [contest for contest in self.contests if len(contest.lines) > 1]

    @property
    def alone(self) -> list[Contest]:
        """Results that nothing here may be compared with."""
        return [contest for contest in self.contests if len(contest.lines) == 1]

    def count(self, state: str) -> int:
        """How many results have a state."""
        return sum(entry.checked.state == state for entry in self.entries)


# --- reading ----------------------------------------------------------------------------------------------------------


def leaderboard(folders: Sequence[Path], asked: Asked, tell: Tell) -> Leaderboard:
    """Read results folders, judge their results again where that is asked for, and put them into tables. Writes nothing.

    Raises `UsageError` where a path is no folder, is given twice, or none has a run file that can be read; `MissingError`
    where none holds results.
    """
    contributors = [_read(name, folder) for name, folder in named_folders(folders).items()]
    every = [source for each in contributors for source in each.sources]
    if not every:
        raise _nothing(folders, contributors)
    wanted = set(map(id, only(every, asked.methods, asked.suites, asked.concepts)))
    for each in contributors:
        each.sources = [source for source in each.sources if id(source) in wanted]
    bench = Bench()
    entries = [entry for each in contributors for entry in _entries(each, asked.verify, bench, tell)]
    return Leaderboard(tuple(contributors), tuple(_contests(entries)), asked.verify)


def named_folders(folders: Sequence[Path]) -> dict[str, Path]:
    """Each folder by as many of its last parts as tell all of them apart.

    Raises `UsageError` where there is none, one is no folder, or one is given twice.
    """
    if not folders:
        hint = "Name them: srbench report --leaderboard ANA/results BEN/results"
        raise UsageError("--leaderboard: of which results folders?", hint)
    for folder in folders:
        check_folder(folder)
    places = [folder.resolve() for folder in folders]
    twice = [folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if twice:
        raise UsageError(f"{twice[0]}: given twice", "Each folder is one contributor: give it once.")
    for count in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-count:]) for place in places]
        if len(set(names)) == len(names):
            break
    return {brief(name): folder for name, folder in zip(names, folders, strict=True)}


def _nothing(folders: Sequence[Path], contributors: Sequence[Contributed]) -> SrbenchError:
    damaged = [(each, why) for each in contributors for why in each.left_out if why != NO_RESULTS]
    if damaged:
        first, why = damaged[0]
        what = f"none of these folders has a run file that can be read (first, {first.name}: {why})"
        return UsageError(what, "Mend it, or leave it out.")
    error = no_results(folders[0])
    return MissingError(error.message if len(folders) == 1 else "none of these folders holds results", error.hint)


def _read(name: str, folder: Path) -> Contributed:
    """A folder's newest results, with what of it could not be read."""
    read, lines = Contributed(name, folder), list[str]()
    try:
        files = run_files(folder)
        for path in files:
            read.left_out += _faults(path)
        read.sources = sources(folder, lines.append) if files else []
        read.left_out += [] if files else [NO_RESULTS]
    except SrbenchError as error:
        read.left_out = read.left_out or [error.message]
    except UnicodeError:
        read.left_out.append(NO_TEXT)
    odd = [source for source in read.sources if not _can_be_hashed(source)]
    read.left_out += [f"{source.cell.label} of run {source.cell.run}: {NO_TEXT}" for source in odd]
    read.sources = [source for source in read.sources if all(source is not each for each in odd)]
    read.remarks = [_within(line, folder) for line in lines if not any(line.startswith(fault) for fault in read.left_out)]
    read.left_out = [_within(fault, folder) for fault in read.left_out]
    return read


def _can_be_hashed(source: Source) -> bool:
    """Whether all texts are Unicode; JSON may hold halves of characters, which have no bytes."""
    parts = [source.run, {name: part for name, part in source.entry.items() if name != "result"}]
    try:
        json.dumps(parts, ensure_ascii=False).encode()
    except UnicodeError:
        return False
    return True


def _faults(path: Path) -> list[str]:
    faults: list[str] = []
    try:
        read_run(path, faults.append)
    except SrbenchError as error:
        faults.append(error.message)
    except UnicodeError:
        faults.append(f"{path}: {NO_TEXT}")
    return faults


def _within(text: str, folder: Path) -> str:
    """A message without where the folder lies here."""
    return brief(text.replace(f"{folder}/", ""), LINE)


def _entries(read: Contributed, verify: bool, bench: Bench, tell: Tell) -> Iterator[Entry]:
    plain = [Entry(read.name, source) for source in read.sources]
    if not plain:
        return
    try:
        shelf = Shelf.of(read.folder, lambda line: read.remarks.append(_within(line, read.folder)))
    except SrbenchError as error:
        why = Checked(UNVERIFIED if verify else UNCHECKED, _within(error.message, read.folder))
        yield from (replace(entry, checked=why) for entry in plain)
        return
    total, done = sum(entry.cell.n_run for entry in plain if entry.claim.local), 0
    for entry in plain:
        checked = judged_again(entry.claim, shelf, bench, _telling(tell, read.name, done, total)) if verify else NOT_CHECKED
        done += entry.cell.n_run if entry.claim.local else 0
        yield replace(entry, record=claimed_record(entry.claim, shelf), checked=checked)


def _telling(tell: Tell, name: str, before: int, total: int) -> Callable[[int, int], None]:
    return lambda rows, of: tell(name, before + rows, total)


# --- tables -----------------------------------------------------------------------------------------------------------


def _contests(entries: Sequence[Entry]) -> Iterator[Contest]:
    """A table for each place and judge, those of one concept and suite beside each other; of summaries alone the last."""
    places: dict[Identity, list[Entry]] = {}
    for entry in entries:
        places.setdefault((*place_of(entry.cell), _judge_sha(entry)), []).append(entry)
    summaries = {place: not any(entry.claim.local for entry in of_place) for place, of_place in places.items()}
    for place in sorted(places, key=lambda place: (summaries[place], place[5], place[6], in_order(place))):
        yield _contest(places[place], str(place[-1]))


def _judge_sha(entry: Entry) -> str:
    """Short hash of the scorers that judged, without the versions of their libraries; empty where the file does not say.

    A protocol's name alone does not tell: two people may have given one name to two judges.
    """
    scorers: Mapping[str, Mapping[str, Any]] = entry.source.run.get("scorers", {})
    judge = load.protocols().get(entry.cell.protocol)
    try:
        names = sorted({part.scorer for part in load.parts(judge)}) if judge else sorted(scorers)
    except UsageError:
        names = sorted(scorers)
    found = {name: unversioned(scorers[name]) for name in names if name in scorers}
    return digest(found)[:SHOWN] if found else ""


def _contest(entries: Sequence[Entry], judge_sha: str) -> Contest:
    first = entries[0].cell
    figures = tuple(name for name in (*HEADLINES, *KEPT) if any(name in entry.cell.metrics for entry in entries))
    headline = next((name for name in HEADLINES if name in figures), "")
    ordered = sorted(entries, key=lambda entry: (*_rank(entry, headline), name_of(entry.cell), entry.contributor))
    standings = _standings(ordered, headline)
    judge = load.protocols().get(first.protocol)
    judged = f"scorers of the judge {judge_sha}" if judge_sha else "which scorer judged is not recorded"
    return Contest(
        brief(title_of(first), LINE),
        brief(f"{caption_of(first, noise=True)} · {judged}", LINE),
        headline,
        figures,
        tuple(Line(entry, standings[number], _others(entry, entries)) for number, entry in enumerate(ordered)),
        tuple(rule(judge)) if judge else (),
    )


def _rank(entry: Entry, headline: str) -> tuple[bool, bool, float]:
    """The best first; behind them those without a value, and those whose pictures or rows contradict them."""
    metric = entry.cell.metrics.get(headline)
    if metric is None or metric.value is None:
        return entry.checked.state == DIFFERS, True, 0.0
    return entry.checked.state == DIFFERS, False, metric.value if metric.better == "lower" else -metric.value


def _standings(ordered: Sequence[Entry], headline: str) -> dict[int, str]:
    """What can be said of each entry beside the best: no entry is called worse without a test or intervals that say so."""
    texts = {}
    ranked = {}
    for number, entry in enumerate(ordered):
        if entry.checked.state == DIFFERS:
            texts[number] = "not ranked: its figures do not hold"
        elif not headline or entry.cell.metrics.get(headline) is None or entry.cell.metrics[headline].value is None:
            texts[number] = "not ranked: no figure"
        else:
            ranked[number] = entry
    best = next(iter(ranked), None)
    if best is None:
        return texts
    others = {number: entry for number, entry in ranked.items() if number != best}
    p_values = _p_values(ranked[best], others, headline)
    held = "" if ranked[best].checked.state == VERIFIED else ", as claimed"
    texts[best] = f"best value{held}" if others else "alone"
    for number, entry in others.items():
        texts[number] = _beside(ranked[best].cell.metrics[headline], entry.cell.metrics[headline], p_values.get(number))
    return texts


def _p_values(best: Entry, others: Mapping[int, Entry], headline: str) -> dict[int, float]:
    """p of the paired tests on the same rows, where both have theirs, Holm-corrected over the table.

    Results of the same pictures with the same p are one test: a table does not get less sharp by being repeated.
    """
    judge = load.protocols().get(best.cell.protocol)
    if judge is None or best.record is None:
        return {}
    value, lens = best.cell.metrics[headline].value, lens_of(best.record, judge)
    tested = {}
    for number, entry in others.items():
        if entry.record is not None and entry.cell.metrics[headline].value != value:
            tested[number] = paired(best.record, entry.record, headline, lens)
    families = {number: (others[number].pictures, test.p, test.n) for number, test in tested.items()}
    unique = {family: tested[number] for number, family in families.items()}
    corrected = dict(zip(unique, corrected_together(list(unique.values())), strict=True))
    return {number: p for number, family in families.items() if (p := corrected[family].p_holm) is not None}


def _beside(best: Metric, metric: Metric, p: float | None) -> str:
    if best.value == metric.value:
        return "the same value"
    if p is not None:
        return f"worse ({p_text(p)})" if p < LEVEL else f"not told from the best ({p_text(p)})"
    differ = apart(best, metric)
    if differ is None:
        return "no interval: cannot be told"
    return "worse (intervals apart)" if differ else "not told from the best (intervals overlap)"


def _others(entry: Entry, entries: Sequence[Entry]) -> tuple[str, ...]:
    """What other contributors have from the same picture keys: the same figures, or which other ones."""
    if not entry.pictures:
        return ()
    texts: dict[str, list[str]] = {}
    for each in entries:
        if each.contributor != entry.contributor and each.pictures == entry.pictures:
            texts.setdefault(_other(entry, each), []).append(each.contributor)
    return tuple(text.format(names=", ".join(names)) for text, names in texts.items())


def _other(entry: Entry, other: Entry) -> str:
    """A sentence with a place for who has it."""
    ours, theirs = entry.cell.metrics, other.cell.metrics
    differ = [name for name in FIGURES if _figure(ours.get(name)) != _figure(theirs.get(name))]
    if differ:
        texts = [f"{name} {_value(name, ours)} here, {_value(name, theirs)} there" for name in differ]
        return f"differs from {{names}}: {'; '.join(texts)}"
    if entry.cell.run == other.cell.run or (_drawn(entry) and _drawn(entry) == _drawn(other)):
        return "the same run as {names}: a copy"
    return "reproduced by {names}: same figures"


def _value(name: str, metrics: Mapping[str, Metric]) -> str:
    return shown_as(name, metrics.get(name)).value


def _drawn(entry: Entry) -> list[tuple[str, str, float]]:
    """Key, run and seconds of each picture; nothing where no run is recorded."""
    images = [row.image for row in entry.record.rows if row.image is not None] if entry.record else []
    return [(image.key, image.timing.run, image.timing.seconds) for image in images if image.timing.run]


def _figure(metric: Metric | None) -> tuple[float | None, int, int] | None:
    """A metric's value to nine digits behind the point, and its rows."""
    return None if metric is None else (None if metric.value is None else round(metric.value, 9), metric.scored, metric.n)


# --- the page ---------------------------------------------------------------------------------------------------------


def brief(value: Any, most: int = TEXT) -> str:
    """A claimed text or number on one line, cut where it is long; a question mark for anything else."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return "?"
    text = printable(str(value)[: most + 1])
    return text if len(text) <= most else f"{text[: most - 1]}…"


@dataclass(frozen=True)
class Made:
    """What an entry was made with, as its file says."""

    version: str
    commit: str
    method: str
    """The method's version."""
    passport: str
    """Of the checkpoint; empty where there is none."""
    when: str
    machine: str
    run: str


def made(entry: Entry) -> Made:
    """What an entry was made with."""
    header, origin = entry.source.run, entry.cell.origin
    provenance = _table(header, "provenance")
    dirty = ", with changes" if provenance.get("dirty") is True else ""
    machine = brief(provenance.get("gpu") or provenance.get("processor") or "?")
    cores = provenance.get("cores")
    return Made(
        version=brief(provenance.get("srbench", "?"), 20), commit=f"{brief(provenance.get('commit') or '?')[:12]}{dirty}",
        method=str(origin.method_version) if origin.method_version else "", passport=_passport(entry),
        when=brief(header.get("started") or header.get("finished") or "?", 30),
        machine=f"{machine}, {cores} cores" if isinstance(cores, int) and 0 < cores < 10**6 else machine,
        run=brief(entry.cell.run),
    )  # fmt: skip


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = data.get(name)
    return part if isinstance(part, Mapping) else {}


def _passport(entry: Entry) -> str:
    """The checkpoint's source and hash, and how much of the backbone it changes."""
    if entry.cell.on == "none":
        return ""
    under = _table(entry.source.entry, "checkpoint")
    passport, card = _table(under, "passport"), _table(under, "card")
    sha = passport.get("sha256") or entry.cell.origin.checkpoint_sha or "?"
    known = load.baselines().get(entry.cell.on)
    source = known.source if known else ("made by srbench" if card.get("srbench") else "given as a file")
    form = f"{brief(passport['kind'], 20)} ({brief(passport.get('format'), 40)})" if "kind" in passport else "no passport"
    parts = [f"{brief(entry.cell.on)}: {brief(source)}", form, f"sha256 {brief(sha)[:12]}"]
    if isinstance(passport.get("changed"), int) and isinstance(passport.get("expected"), int):
        parts.append(f"{brief(passport['changed'], 12)} of {brief(passport['expected'], 12)} tensors changed")
    return ", ".join(parts)


def page(content: Leaderboard) -> str:
    """The whole file."""
    html = environment().get_template("leaderboard.html.jinja").render(
        version=__version__, content=content, style=Markup(asset("page.css")), made=made, brief=brief, meaning=meaning,
        PHRASES=PHRASES, coverage=coverage, name_of=name_of, shown_as=shown_as, named=named, DIFFERS=DIFFERS, VERIFIED=VERIFIED,
        LINE=LINE,
        figures=[name for name in FIGURES if any(name in each.figures for each in content.contests)],
    )  # fmt: skip
    return html.lstrip()
