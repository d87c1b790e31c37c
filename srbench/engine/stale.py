"""What is served from the store although the code that made it was changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from srbench.catalog import code, plugins
from srbench.engine.request import Cell
from srbench.results.store import Store


def stale(cells: Sequence[Cell], store: Store) -> list[str]:
    """A line for each method whose stored images, or checkpoints, were made by other code of the same version."""
    return [*_checkpoints(cells), *_images(cells, store)]


def _images(cells: Sequence[Cell], store: Store) -> list[str]:
    planned = {image.key: image for cell in cells for image in cell.images() if image.key in store.images}
    counts = Counter(
        image.method.name
        for key, image in planned.items() if code.differs("methods", image.method.name, store.images[key].get("source"))
    )  # fmt: skip
    return [code.changed("methods", name, count, "image") for name, count in counts.items()]


def _checkpoints(cells: Sequence[Cell]) -> list[str]:
    cards = {cell.checkpoint.sha256: cell.checkpoint.card for cell in cells if cell.checkpoint is not None}
    made_by = [(str(card.get("method")), card.get("source")) for card in cards.values()]
    known = plugins.plugins("methods")
    counts = Counter(name for name, source in made_by if name in known and code.differs("methods", name, source))
    return [code.changed("methods", name, count, "checkpoint") for name, count in counts.items()]
