"""A concept's judge for weight methods that learn from images which the model draws: does an image show the concept?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from srbench.analysis.judging import concept_present
from srbench.catalog import load, plugins
from srbench.catalog.judges import with_settings
from srbench.catalog.settings import overrides, parsed
from srbench.catalog.specs import ConceptSpec, ProtocolSpec
from srbench.hashing import digest

ROW: dict[str, Any] = {}
"""Such an image belongs to no row."""


@dataclass(frozen=True)
class ConceptJudge:
    """The concept's protocol of a family; its scorers are opened at the first image."""

    protocols: tuple[ProtocolSpec, ...]
    """Those that read scores; any of them may see the concept."""

    @classmethod
    def of(cls, concept: ConceptSpec, family: str) -> ConceptJudge:
        """The concept's own judge; of a joint concept those of its parts. Raises `UsageError` where one is not there."""
        names = dict.fromkeys(part.families[family].protocol for part in concept.parts or (concept,))
        return cls(tuple(part for name in names for part in load.parts(load.protocol(name))))

    @cached_property
    def identity(self) -> str:
        """Digest of the protocols' rules and their scorers' versions."""
        scorers = {part.scorer: plugins.plugins("scorers")[part.scorer].meta["version"] for part in self.protocols}
        return digest([[part.model_dump(mode="json", exclude={"title", "note", "source"}) for part in self.protocols], scorers])

    @cached_property
    def _scorers(self) -> dict[str, Any]:
        """By the name of the part of the protocol that reads it."""
        opened = {}
        for part in self.protocols:
            cls = plugins.load("scorers", part.scorer)
            chosen = overrides(with_settings((), [part]), (part.scorer,))
            opened[part.name] = cls(parsed(cls.Options, part.scorer, {}, chosen))
        return opened

    def __call__(self, pixels: np.ndarray) -> list[bool]:
        """Whether each image, uint8 RGB (N, H, W, 3), shows the concept: any part of the protocol that sees it is enough.

        Raises `MissingError` where a scorer's library or weights are not here.
        """
        seen = np.zeros(len(pixels), dtype=bool)
        for part in self.protocols:
            raws = self._scorers[part.name].score(list(pixels), [ROW] * len(pixels))
            seen |= np.array([concept_present(raw, part) for raw in raws], dtype=bool)
        return [bool(each) for each in seen]
