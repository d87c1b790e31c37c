"""Scores images: finds out which scores are missing and makes them; a scorer that fails does not stop the others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from srbench import stopping
from srbench.analysis.records import WEIGHTS, ImageRecord
from srbench.catalog import code, load, plugins
from srbench.catalog.contracts import GUIDE
from srbench.catalog.settings import overrides, parsed, split
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.errors import CellError, ForeignError, MissingError, SrbenchError
from srbench.faults import at, contained, module_of, plain
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
"""Consecutive images on which a scorer may fail for one reason before the remaining ones are skipped."""
NAMED = ("library", "library_version")
"""Keys that every scorer's identity needs, beside what its own numbers depend on."""
COMPLETE = GUIDE


@dataclass(frozen=True)
class Wanted:
    """A score to have: one scorer on one image with given row fields."""

    scorer: str
    image_key: str
    fields: str
    """Canonical JSON of the row fields that the scorer reads."""
    reference_key: str = ""
    """The image to compare with, for a scorer of pairs."""


Readable = tuple[Wanted, list[np.ndarray]]
"""A wanted score and its pixels: the image, and the reference where there is one."""


def check_scorers(settings: Sequence[str]) -> None:
    """Check the options of every scorer that a `--set` names, before anything is made. Raises `UsageError` for a bad one."""
    for name in dict.fromkeys(split(setting)[0] for setting in settings):
        if name in plugins.plugins("scorers"):
            with suppress(ForeignError):  # a scorer that cannot be loaded loses only its own column
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
    """Scorer -> why it cannot be used at all."""
    errors: dict[Wanted, str] = field(default_factory=dict)
    opened: bool = False
    """Whether scorers were opened at all; not where images are only sampled."""
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
        """Why a protocol cannot judge, since one of its scorers is broken; None where it can."""
        for part in load.parts(judge):
            if part.scorer in self.broken:
                error = self.broken[part.scorer]
                return type(error)(f"judge {judge.name}: {error.message}", error.hint)
        return None

    def want(self, scorer: str, image_key: str, row: Row, reference_key: str = "") -> Wanted:
        """The score of `scorer` on an image of `row`, with the reference where it compares pairs."""
        return Wanted(scorer, image_key, fields_of(scorer, row), reference_key if kind_named(scorer) == PAIR else "")

    def key(self, wanted: Wanted) -> str | None:
        """Its score key, or None while an image or the scorer is missing."""
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
        """Those that are not stored and could be made now."""
        return [w for w in dict.fromkeys(wanted) if self.key(w) is not None and self.known(w) is None]

    def stale(self, wanted: Sequence[Wanted]) -> list[str]:
        """A line for each scorer with stored scores that other code than its present one made."""
        records = ((w.scorer, self.store.scores.get(self.key(w) or "")) for w in dict.fromkeys(wanted))
        made = ((name, record.get("source")) for name, record in records if record is not None)
        counts = Counter(name for name, source in made if code.differs("scorers", name, source))
        return [code.changed("scorers", name, count, "score") for name, count in counts.items()]

    def run(self, wanted: Sequence[Wanted], pixels: dict[str, np.ndarray]) -> None:
        """Score what is missing; images not in `pixels` (uint8 RGB (H, W, 3) by key) are read from the store.

        A scorer that failed on `GIVE_UP` images in a row for one reason skips the others.
        """
        for name in self.scorers:
            mine = [w for w in self.missing(wanted) if w.scorer == name]
            for start in range(0, len(mine), BATCH):
                self._batch(name, mine[start : start + BATCH], pixels)
                stopping.check()

    def _batch(self, name: str, wanted: list[Wanted], pixels: dict[str, np.ndarray]) -> None:
        readable: list[Readable] = []
        for w in wanted:
            keys = [key for key in (w.image_key, w.reference_key) if key]
            try:
                readable.append((w, [pixels[key] if key in pixels else self._pixels(key) for key in keys]))
            except SrbenchError as error:
                self.errors[w] = error.message
        raws = self._raws(name, readable)
        scored = [(w, raw) for (w, _), raw in zip(readable, raws, strict=True) if raw is not None]
        if kind_named(name) == SET:
            for w, raw in scored:
                self.store.put_feature(digest(self.identities[name]), self._pixel_sha(w), raw[FEATURE])
            return
        self.store.put_scores([self._record(w, raw) for w, raw in scored])

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

    def _raws(self, name: str, readable: list[Readable]) -> list[dict[str, Any] | None]:
        """Raw numbers, None where the scorer failed; after a failed batch each image is tried alone."""
        if not readable:
            return []
        streak = self._streaks.setdefault(name, Streak())
        if streak.over:
            self.errors.update({w: f"{streak.why} (not tried: {GIVE_UP} images before it failed so)" for w, _ in readable})
            return [None] * len(readable)
        try:
            # A detector is foreign code and may raise anything; its failure must lose its own scores and nothing else.
            with contained(name, module_of(type(self.scorers[name]))):
                raws = self._called(name, readable)
        except SrbenchError as error:
            if len(readable) > 1:
                return [self._raws(name, [one])[0] for one in readable]
            why = error.message.removeprefix(f"{name}: ")
            self.errors[readable[0][0]] = why
            streak.failed(why)
            return [None]
        streak.ended()
        return list(raws)

    def fresh(self, wanted: Wanted, pictures: list[np.ndarray]) -> dict[str, Any]:
        """The raw numbers of an open scorer on images, made now and not stored. Raises `CellError` where it fails.

        pictures: uint8 RGB (H, W, 3), the image and its reference where there is one.
        """
        errors, self.errors = self.errors, {}
        try:
            (raw,) = self._raws(wanted.scorer, [(wanted, pictures)])
            if raw is None:
                raise CellError(self.errors[wanted], "")
            return raw
        finally:
            self.errors = errors

    def _called(self, name: str, readable: list[Readable]) -> list[dict[str, Any]]:
        """The scorer's raw numbers. Raises `CellError` where they are not what its metadata says, and what it raises itself."""
        scorer, pictures = self.scorers[name], zip(*(images for _, images in readable), strict=True)
        columns = [[np.array(picture) for picture in column] for column in pictures]  # copies, which the scorer may change
        a_set = kind_named(name) == SET
        rows = [] if a_set else [[json.loads(w.fields) for w, _ in readable]]
        function = scorer.features if a_set else scorer.score
        returned = function(*columns, *rows)
        try:
            if a_set:
                return [{FEATURE: vector} for vector in _vectors(returned, len(readable))]
            return _checked(name, returned, len(readable))
        except CellError as error:
            raise CellError(f"{error.message}{at(function)}", GUIDE) from error


@dataclass
class Streak:
    """Consecutive failures of a scorer for one reason."""

    why: str = ""
    length: int = 0

    @property
    def over(self) -> bool:
        """Whether the remaining images are skipped."""
        return self.length >= GIVE_UP

    def failed(self, why: str) -> None:
        """Count a failure."""
        self.length = self.length + 1 if why == self.why else 1
        self.why = why

    def ended(self) -> None:
        """Reset the count: an image was scored."""
        self.length = 0


def _identity(name: str, scorer: Any) -> dict[str, Any]:
    """A scorer's identity. Raises `CellError` where it is incomplete, not JSON, or differs from call to call."""
    identity = scorer.identity()
    if not isinstance(identity, dict):
        raise CellError(f"scorer {name}: its identity is {type(identity).__name__}, not a dict", COMPLETE)
    lacking = [key for key in NAMED if not isinstance(identity.get(key), str) or not identity[key]]
    if lacking:
        raise CellError(f"scorer {name}: its identity does not say {' and '.join(lacking)}", COMPLETE)
    try:
        stored = records.storable(identity)
    except (ValueError, RecursionError) as error:
        raise CellError(f"scorer {name}: its identity cannot be stored: {error}", COMPLETE) from error
    if stored != plain(scorer.identity()):
        raise CellError(f"scorer {name}: its identity is another one each time it is asked", COMPLETE)
    return dict(stored)


def _checked(name: str, raws: Any, count: int) -> list[dict[str, Any]]:
    """A dict of finite, JSON-ready numbers for each image, with every field that the scorer declares. Raises `CellError`."""
    if not isinstance(raws, list | tuple):
        raise CellError(f"{name}: it returned {type(raws).__name__}, not a list", "")
    if len(raws) != count:
        raise CellError(f"{name}: it returned {len(raws)} for {count} images", "")
    return [_raw(name, raw) for raw in raws]


def _raw(name: str, raw: Any) -> dict[str, Any]:
    meta = plugins.plugins("scorers")[name].meta
    if not isinstance(raw, dict):
        raise CellError(f"{name}: it returned {type(raw).__name__} for an image, not a dict", "")
    try:
        numbers = dict(records.storable(raw))
    except (ValueError, RecursionError) as error:
        raise CellError(f"{name}: its numbers cannot be stored: {error}", "") from error
    lacking = [field for field in meta.get("fields", ()) if field not in numbers]
    if lacking:
        raise CellError(f"{name}: it declares a field '{lacking[0]}' and returned none", "")
    for read in {rule["field"] for rule in meta.get("metrics", {}).values()}:
        if isinstance(numbers.get(read), bool) or not isinstance(numbers.get(read), int | float | None):  # None: nothing to say
            raise CellError(f"{name}: '{read}' is {type(numbers.get(read)).__name__}, not a number", "")
    return numbers


def _vectors(features: Any, count: int) -> np.ndarray:
    """`features`, (N, D), if it holds a vector of finite numbers for each of `count` images. Raises `CellError`."""
    if not isinstance(features, np.ndarray):
        raise CellError(f"features of type {type(features).__name__}, not a numpy array", "")
    numbers = np.issubdtype(features.dtype, np.floating) or np.issubdtype(features.dtype, np.integer)
    if not numbers or features.ndim != 2 or len(features) != count or not features.shape[1] or not np.isfinite(features).all():
        raise CellError(f"features of shape {features.shape} for {count} images, or numbers that are not finite", "")
    return features


def image_record(key: str, reference: str, row: Row, scorers: Sequence[str], scoring: Scoring) -> ImageRecord:
    """A stored image with its scores by some scorers. reference: key of its reference image, or empty."""
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
