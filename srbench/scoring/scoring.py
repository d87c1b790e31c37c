"""Scores images: which numbers are missing, and how they are made, one scorer failing without the others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from srbench.analysis.records import WEIGHTS, ImageRecord
from srbench.catalog import code, load, plugins
from srbench.catalog.settings import overrides, parsed, split
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.errors import CellError, ForeignError, MissingError, SrbenchError
from srbench.faults import contained, module_of, plain
from srbench.hashing import canonical, digest
from srbench.results import records
from srbench.results.gated import fields_kept
from srbench.results.keys import score_key
from srbench.results.marks import GATED
from srbench.results.store import Store
from srbench.results.stored import from_store
from srbench.scorers.base import FEATURE, PAIR, SET, fields_of, kind_named

BATCH = 64
GIVE_UP = 20
"""Images in a row on which a scorer may fail for one reason before the others are not tried any more."""
NAMED = ("library", "library_version")
"""What every scorer's identity has to say, beside what its own numbers depend on."""
COMPLETE = "See identity() in srbench.scorers.base."


@dataclass(frozen=True)
class Wanted:
    """One scorer's numbers on one image under given row fields."""

    scorer: str
    image_key: str
    fields: str
    """Canonical JSON of the row fields that the scorer reads."""
    reference_key: str = ""
    """The image to compare with, for a scorer of pairs."""


Readable = tuple[Wanted, list[np.ndarray]]
"""What is wanted, and its pictures: the image, and the reference where there is one."""


def check_scorers(settings: Sequence[str]) -> None:
    """Try the options of every scorer that a `--set` names, before anything is made. Raises `UsageError` for a bad one."""
    for name in dict.fromkeys(split(setting)[0] for setting in settings):
        if name in plugins.plugins("scorers"):
            with suppress(ForeignError):  # it will cost its own column
                _options(name, plugins.load("scorers", name), settings)


def _options(name: str, cls: Any, settings: Sequence[str]) -> Any:
    with contained(f"scorer {name}, its options", module_of(cls)):
        return parsed(cls.Options, name, {}, overrides(settings, (name,)))


@dataclass
class Scoring:
    """Loaded scorers by name, their identities, and what went wrong."""

    store: Store
    scorers: dict[str, Any] = field(default_factory=dict)
    identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: dict[str, SrbenchError] = field(default_factory=dict)
    """Scorer -> why it can not be used at all."""
    errors: dict[Wanted, str] = field(default_factory=dict)
    opened: bool = False
    """Whether scorers were asked for at all; not where images are only sampled."""
    _streaks: dict[str, Streak] = field(default_factory=dict)

    def open(self, names: Sequence[str], settings: Sequence[str] = ()) -> None:
        """Load scorers with their options; one that cannot be used, for whatever reason, is noted, not raised.

        Raises `UsageError` for an option that a scorer does not have.
        """
        self.opened = True
        check_scorers([setting for setting in settings if split(setting)[0] in names])
        for name in names:
            if name in self.scorers or name in self.broken:
                continue
            try:
                cls = plugins.load("scorers", name)
                options = _options(name, cls, settings)
            except ForeignError as error:
                self.broken[name] = error
                continue
            self._open(name, cls, options)

    def _open(self, name: str, cls: Any, options: Any) -> None:
        module = module_of(cls)
        try:
            with contained(f"scorer {name} cannot be opened", module):
                scorer = cls(options)
            with contained(f"scorer {name}, its identity", module):
                meta = {"name": name, "version": scorer.meta["version"]}
                chosen = options.model_dump(mode="json")
                meta |= {"options": chosen} if chosen else {}
                self.identities[name] = json.loads(canonical({**meta, **_identity(name, scorer)}))
        except SrbenchError as error:
            self.broken[name] = error
            return
        self.scorers[name] = scorer

    def blocked(self, judge: ProtocolSpec) -> SrbenchError | None:
        """Why a protocol can say nothing, or None: each of its scorers has to be there."""
        for part in load.parts(judge):
            if part.scorer in self.broken:
                error = self.broken[part.scorer]
                return type(error)(f"judge {judge.name}: {error.message}", error.hint)
        return None

    def want(self, scorer: str, image_key: str, row: Row, reference_key: str = "") -> Wanted:
        """What `scorer` has to say of an image of `row`, beside another one where it compares two."""
        return Wanted(scorer, image_key, fields_of(scorer, row), reference_key if kind_named(scorer) == PAIR else "")

    def key(self, wanted: Wanted) -> str | None:
        """Its score key, or None while an image or the scorer is not at hand."""
        records = [self.store.images.get(key) for key in (wanted.image_key, wanted.reference_key) if key]
        identity = self.identities.get(wanted.scorer)
        if identity is None:
            return None
        shas = [record["pixel_sha"] for record in records if record is not None]
        return score_key(shas[0], identity, {"fields": wanted.fields}, *shas[1:]) if len(shas) == len(records) else None

    def known(self, wanted: Wanted) -> dict[str, Any] | None:
        """The stored raw numbers, or None."""
        key = self.key(wanted)
        if key is None:
            return None
        if kind_named(wanted.scorer) == SET:
            vector = self.store.feature(digest(self.identities[wanted.scorer]), self._pixel_sha(wanted))
            return None if vector is None else {FEATURE: vector}
        record = self.store.scores.get(key)
        return None if record is None else record["raw"]

    def _pixel_sha(self, wanted: Wanted) -> str:
        return str(self.store.images[wanted.image_key]["pixel_sha"])

    def missing(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Those that have no numbers yet and could get them."""
        return [w for w in dict.fromkeys(wanted) if self.key(w) is not None and self.known(w) is None]

    def stale(self, wanted: Sequence[Wanted]) -> list[str]:
        """A line for each scorer some of whose stored scores were made by other code than it has now."""
        counts: Counter[str] = Counter()
        for each in dict.fromkeys(wanted):
            record = self.store.scores.get(self.key(each) or "")
            if record is not None and code.differs("scorers", each.scorer, record.get("source")):
                counts[each.scorer] += 1
        return [code.changed("scorers", name, count, "score") for name, count in counts.items()]

    def run(self, wanted: Sequence[Wanted], pixels: dict[str, np.ndarray]) -> None:
        """Score what is missing; images not in `pixels` (uint8 RGB (H, W, 3) by key) are read from the store.

        A scorer that failed on `GIVE_UP` images in a row for one reason is not tried on the others.
        """
        for name in self.scorers:
            mine = [w for w in self.missing(wanted) if w.scorer == name]
            for start in range(0, len(mine), BATCH):
                self._batch(name, mine[start : start + BATCH], pixels)

    def _batch(self, name: str, wanted: list[Wanted], pixels: dict[str, np.ndarray]) -> None:
        readable: list[Readable] = []
        for w in wanted:
            keys = [key for key in (w.image_key, w.reference_key) if key]
            try:
                readable.append((w, [pixels[key] if key in pixels else self._pixels(key) for key in keys]))
            except SrbenchError as error:
                self.errors[w] = error.message
        raws = self._raws(name, readable)
        made = [(w, raw) for (w, _), raw in zip(readable, raws, strict=True) if raw is not None]
        if kind_named(name) == SET:
            for w, raw in made:
                self.store.put_feature(digest(self.identities[name]), self._pixel_sha(w), raw[FEATURE])
            return
        self.store.put_scores([self._record(w, raw) for w, raw in made])

    def _record(self, wanted: Wanted, raw: dict[str, Any]) -> dict[str, Any]:
        record = {
            "score_key": self.key(wanted), "image": wanted.image_key, "scorer": wanted.scorer,
            "identity": digest(self.identities[wanted.scorer]), "raw": raw,
            **fields_kept(wanted.fields, bool(self.store.images[wanted.image_key].get(GATED))),
        }
        source = code.source_of("scorers", wanted.scorer)
        record |= {"source": source} if source else {}
        return record | ({"reference": wanted.reference_key} if wanted.reference_key else {})

    def _pixels(self, key: str) -> np.ndarray:
        if self.store.images[key].get("elsewhere"):
            raise SrbenchError("the picture lies elsewhere", "Score its folder again, with this scorer.")
        if self.store.dropped(key):
            raise SrbenchError("images dropped", "Sample again with --keep-images into a new folder.")
        return self.store.pixels(key)

    def _raws(self, name: str, given: list[Readable]) -> list[dict[str, Any] | None]:
        """Raw numbers, None where the scorer failed; after a failed batch each image is tried alone."""
        if not given:
            return []
        streak = self._streaks.setdefault(name, Streak())
        if streak.over:
            self.errors.update({w: f"{streak.why} (not tried: {GIVE_UP} images before it failed so)" for w, _ in given})
            return [None] * len(given)
        try:
            # A detector is foreign code and may raise anything; its failure must cost its own numbers and nothing else.
            with contained(name, module_of(type(self.scorers[name]))):
                raws = self._called(name, given)
        except SrbenchError as error:
            if len(given) > 1:
                return [self._raws(name, [each])[0] for each in given]
            why = error.message.removeprefix(f"{name}: ")
            self.errors[given[0][0]] = why
            streak.failed(why)
            return [None]
        streak.ended()
        return list(raws)

    def fresh(self, wanted: Wanted, pictures: list[np.ndarray]) -> dict[str, Any]:
        """The numbers of an open scorer on some pictures, made now and not stored. Raises `CellError` where it fails."""
        errors, self.errors = self.errors, {}
        try:
            (raw,) = self._raws(wanted.scorer, [(wanted, pictures)])
            if raw is None:
                raise CellError(self.errors[wanted], "")
            return raw
        finally:
            self.errors = errors

    def _called(self, name: str, given: list[Readable]) -> list[dict[str, Any]]:
        """The scorer's raw numbers. Raises `CellError` where they are not what its metadata says, and what it raises itself."""
        columns = [[np.array(picture) for picture in column] for column in zip(*(each for _, each in given), strict=True)]
        scorer = self.scorers[name]  # which gets copies: what it does to them must not reach the next one
        if kind_named(name) == SET:
            return [{FEATURE: vector} for vector in _vectors(scorer.features(*columns), len(given))]
        return _checked(name, scorer.score(*columns, [json.loads(w.fields) for w, _ in given]), len(given))


@dataclass
class Streak:
    """How many images in a row a scorer failed on for one reason."""

    why: str = ""
    length: int = 0

    @property
    def over(self) -> bool:
        """Whether it is not worth trying more."""
        return self.length >= GIVE_UP

    def failed(self, why: str) -> None:
        """One more."""
        self.length = self.length + 1 if why == self.why else 1
        self.why = why

    def ended(self) -> None:
        """An image could be scored."""
        self.length = 0


def _identity(name: str, scorer: Any) -> dict[str, Any]:
    """What a scorer says it is. Raises `CellError` where that is incomplete, not JSON, or another one when it is asked again."""
    found = scorer.identity()
    if not isinstance(found, dict):
        raise CellError(f"scorer {name}: its identity is {type(found).__name__}, not a dict", COMPLETE)
    lacking = [key for key in NAMED if not isinstance(found.get(key), str) or not found[key]]
    if lacking:
        raise CellError(f"scorer {name}: its identity does not say {' and '.join(lacking)}", COMPLETE)
    try:
        said = records.storable(found)
    except (ValueError, RecursionError) as error:
        raise CellError(f"scorer {name}: its identity cannot be stored: {error}", COMPLETE) from error
    if said != plain(scorer.identity()):
        raise CellError(f"scorer {name}: its identity is another one each time it is asked", COMPLETE)
    return dict(said)


def _checked(name: str, found: Any, count: int) -> list[dict[str, Any]]:
    """A dict of finite, JSON-ready numbers for each image, with every field that the scorer declares. Raises `CellError`."""
    if not isinstance(found, list | tuple):
        raise CellError(f"{name}: it returned {type(found).__name__}, not a list", "")
    if len(found) != count:
        raise CellError(f"{name}: it returned {len(found)} for {count} images", "")
    return [_raw(name, each) for each in found]


def _raw(name: str, raw: Any) -> dict[str, Any]:
    meta = plugins.plugins("scorers")[name].meta
    if not isinstance(raw, dict):
        raise CellError(f"{name}: it returned {type(raw).__name__} for an image, not a dict", "")
    try:
        said = dict(records.storable(raw))
    except (ValueError, RecursionError) as error:
        raise CellError(f"{name}: its numbers cannot be stored: {error}", "") from error
    lacking = [field for field in meta.get("fields", ()) if field not in said]
    if lacking:
        raise CellError(f"{name}: it declares a field '{lacking[0]}' and returned none", "")
    for read in {rule["field"] for rule in meta.get("metrics", {}).values()}:
        if isinstance(said.get(read), bool) or not isinstance(said.get(read), int | float | None):  # None: nothing to say
            raise CellError(f"{name}: '{read}' is {type(said.get(read)).__name__}, not a number", "")
    return said


def _vectors(found: Any, count: int) -> np.ndarray:
    """`found`, (N, D), if it holds a vector of finite numbers for each of `count` images. Raises `CellError`."""
    if not isinstance(found, np.ndarray):
        raise CellError(f"features of type {type(found).__name__}, not a numpy array", "")
    numbers = np.issubdtype(found.dtype, np.floating) or np.issubdtype(found.dtype, np.integer)
    if not numbers or found.ndim != 2 or len(found) != count or not found.shape[1] or not np.isfinite(found).all():
        raise CellError(f"features of shape {found.shape} for {count} images, or numbers that are not finite", "")
    return found


def image_record(key: str, reference: str, row: Row, scorers: Sequence[str], scoring: Scoring) -> ImageRecord:
    """A stored image with what some scorers have said of it. reference: key of the image beside it, or empty."""
    scores, errors = {}, {}
    for name in scorers:
        if name in scoring.broken:
            error = scoring.broken[name]
            errors[name] = WEIGHTS if isinstance(error, MissingError) else error.line
            continue
        wanted = scoring.want(name, key, row, reference)
        raw = scoring.known(wanted)
        if raw is not None:
            scores[name] = raw
        elif wanted in scoring.errors:
            errors[name] = scoring.errors[wanted]
    return from_store(key, scoring.store.images[key], scores, errors)
