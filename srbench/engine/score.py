"""Scores images: which numbers are missing, and how they are made, one scorer failing without the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from srbench.catalog import plugins
from srbench.catalog.specs import Row
from srbench.engine.keys import canonical, digest, score_key
from srbench.engine.settings import overrides, parsed
from srbench.engine.store import Store
from srbench.errors import SrbenchError

BATCH = 64


@dataclass(frozen=True)
class Wanted:
    """One scorer's numbers on one image under given row fields."""

    scorer: str
    image_key: str
    fields: str
    """Canonical JSON of the row fields that the scorer reads."""


def fields_of(scorer: str, row: Row) -> str:
    """Canonical JSON of the row fields that a scorer declares to read."""
    values = row.model_dump(mode="json")
    return canonical({name: values[name] for name in plugins.plugins("scorers")[scorer].meta["reads"]})


@dataclass
class Scoring:
    """Loaded scorers by name, their identities, and what went wrong."""

    store: Store
    scorers: dict[str, Any] = field(default_factory=dict)
    identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """Scorer -> why it can not be used at all."""
    errors: dict[Wanted, str] = field(default_factory=dict)

    def open(self, names: Sequence[str], settings: Sequence[str] = ()) -> None:
        """Load scorers with their options; one whose weights are missing is noted, not raised.

        Raises `UsageError` for an option that a scorer does not have.
        """
        for name in names:
            if name in self.scorers or name in self.broken:
                continue
            cls = plugins.load("scorers", name)
            options = parsed(cls.Options, name, {}, overrides(settings, (name,)))
            try:
                scorer = cls(options)
            except SrbenchError as error:
                self.broken[name] = f"{error.message} {error.hint}".strip()
                continue
            meta = {"name": name, "version": scorer.meta["version"]}
            chosen = options.model_dump(mode="json")
            meta |= {"options": chosen} if chosen else {}
            self.identities[name] = json.loads(canonical({**meta, **scorer.identity()}))
            self.scorers[name] = scorer

    def want(self, scorer: str, image_key: str, row: Row) -> Wanted:
        """What `scorer` has to say of an image of `row`."""
        return Wanted(scorer, image_key, fields_of(scorer, row))

    def key(self, wanted: Wanted) -> str | None:
        """Its score key, or None while the image or the scorer is not at hand."""
        record = self.store.images.get(wanted.image_key)
        identity = self.identities.get(wanted.scorer)
        if record is None or identity is None:
            return None
        return score_key(record["pixel_sha"], identity, {"fields": wanted.fields})

    def known(self, wanted: Wanted) -> dict[str, Any] | None:
        """The stored raw numbers, or None."""
        key = self.key(wanted)
        record = self.store.scores.get(key) if key else None
        return None if record is None else record["raw"]

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
        readable, images = [], []
        for w in wanted:
            try:
                images.append(pixels[w.image_key] if w.image_key in pixels else self._pixels(w.image_key))
                readable.append(w)
            except SrbenchError as error:
                self.errors[w] = error.message
        raws = self._raws(name, readable, images)
        self.store.put_scores([
            {
                "score_key": self.key(w), "image": w.image_key, "scorer": name, "fields": w.fields,
                "identity": digest(self.identities[name]), "raw": raw,
            }
            for w, raw in zip(readable, raws, strict=True) if raw is not None
        ])

    def _pixels(self, key: str) -> np.ndarray:
        if self.store.dropped(key):
            raise SrbenchError("images dropped", "Sample again with --keep-images into a new folder.")
        return self.store.pixels(key)

    def _raws(self, name: str, wanted: list[Wanted], images: list[np.ndarray]) -> list[dict[str, Any] | None]:
        """Raw numbers, None where the scorer failed; after a failed batch each image is tried alone."""
        if not wanted:
            return []
        rows = [json.loads(w.fields) for w in wanted]
        try:
            return list(self.scorers[name].score(images, rows))
        # A detector is foreign code and may raise anything; its failure must cost its own numbers and nothing else.
        except Exception as error:  # noqa: BLE001 - see above
            if len(wanted) == 1:
                self.errors[wanted[0]] = f"{type(error).__name__}: {error}".splitlines()[0]
                return [None]
        return [self._raws(name, [w], [image])[0] for w, image in zip(wanted, images, strict=True)]
