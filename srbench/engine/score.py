"""Scores images: which numbers are missing, and how they are made, one scorer failing without the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from srbench.catalog import load, plugins
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.engine.keys import canonical, digest, score_key
from srbench.engine.settings import overrides, parsed
from srbench.engine.store import Store
from srbench.errors import CellError, SrbenchError
from srbench.results.gated import GATED, fields_kept
from srbench.scorers.base import PAIR, SET, kind_of

BATCH = 64
FEATURE = "feature"
"""The raw field that holds a set scorer's vector."""


@dataclass(frozen=True)
class Wanted:
    """One scorer's numbers on one image under given row fields."""

    scorer: str
    image_key: str
    fields: str
    """Canonical JSON of the row fields that the scorer reads."""
    reference_key: str = ""
    """The image to compare with, for a scorer of pairs."""


def kind_named(scorer: str) -> str:
    """What a scorer reads: `image`, `pair` or `set`."""
    return kind_of(plugins.plugins("scorers")[scorer].meta)


def fields_of(scorer: str, row: Row) -> str:
    """Canonical JSON of the row fields that a scorer declares to read."""
    values = row.model_dump(mode="json")
    return canonical({name: values[name] for name in plugins.plugins("scorers")[scorer].meta["reads"]})


Readable = tuple[Wanted, list[np.ndarray]]
"""What is wanted, and its pictures: the image, and the reference where there is one."""


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

    def open(self, names: Sequence[str], settings: Sequence[str] = ()) -> None:
        """Load scorers with their options; one whose weights are missing is noted, not raised.

        Raises `UsageError` for an option that a scorer does not have.
        """
        self.opened = True
        for name in names:
            if name in self.scorers or name in self.broken:
                continue
            cls = plugins.load("scorers", name)
            options = parsed(cls.Options, name, {}, overrides(settings, (name,)))
            try:
                scorer = cls(options)
            except SrbenchError as error:
                self.broken[name] = error
                continue
            meta = {"name": name, "version": scorer.meta["version"]}
            chosen = options.model_dump(mode="json")
            meta |= {"options": chosen} if chosen else {}
            self.identities[name] = json.loads(canonical({**meta, **scorer.identity()}))
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

    def run(self, wanted: Sequence[Wanted], pixels: dict[str, np.ndarray]) -> None:
        """Score what is missing; images not in `pixels` (uint8 RGB (H, W, 3) by key) are read from the store."""
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
        try:
            return list(self._called(name, given))
        # A detector is foreign code and may raise anything; its failure must cost its own numbers and nothing else.
        except Exception as error:  # noqa: BLE001 - see above
            if len(given) == 1:
                self.errors[given[0][0]] = f"{type(error).__name__}: {error}".splitlines()[0]
                return [None]
        return [self._raws(name, [each])[0] for each in given]

    def _called(self, name: str, given: list[Readable]) -> list[dict[str, Any]]:
        columns = [list(column) for column in zip(*(pictures for _, pictures in given), strict=True)]
        if kind_named(name) == SET:
            return [{FEATURE: vector} for vector in _vectors(self.scorers[name].features(*columns), len(given))]
        return list(self.scorers[name].score(*columns, [json.loads(w.fields) for w, _ in given]))


def _vectors(found: np.ndarray, count: int) -> np.ndarray:
    """`found`, (N, D), if it holds a vector of finite numbers for each of `count` images. Raises `CellError`."""
    if found.ndim != 2 or len(found) != count or not np.isfinite(found).all():
        raise CellError(f"features of shape {found.shape} for {count} images, or numbers that are not finite", "")
    return found
