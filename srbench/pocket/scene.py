"""A scene of the pocket world: what stands in a picture, and how it is painted."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Scene:
    """What a picture shows: no object, one in the middle, or two side by side, the first on the left."""

    objects: tuple[str, ...]
    style: str
    background: str
    color: str

    def swapped(self) -> Scene:
        """The same scene with its objects in the other order."""
        return replace(self, objects=self.objects[::-1])
