"""Reports stored images and checkpoints whose method's code has changed since they were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from srbench.catalog import code, plugins
from srbench.engine.request import Cell
from srbench.results.store import Store


def stale(cells: Sequence[Cell], store: Store) -> list[str]:
    """A line for each method whose stored checkpoints, or images, were made by other code of the same version."""
    cards = {cell.checkpoint.sha256: cell.checkpoint.card for cell in cells if cell.checkpoint is not None}
    made_by = [(str(card.get("method")), card.get("source")) for card in cards.values()]
    methods = plugins.plugins("methods")
    checkpoints = Counter(name for name, source in made_by if name in methods and code.differs("methods", name, source))
    stored = {image.key: image.method.name for cell in cells for image in cell.images() if image.key in store.images}
    images = Counter(name for key, name in stored.items() if code.differs("methods", name, store.images[key].get("source")))
    return [
        *(code.changed("methods", name, count, "checkpoint") for name, count in checkpoints.items()),
        *(code.changed("methods", name, count, "image") for name, count in images.items()),
    ]
