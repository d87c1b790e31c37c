"""The old place of `srbench.pocket_build`, for one release: `python -m srbench.pocket.build.NAME` still runs."""

from pathlib import Path

_ROOT = Path(__file__).parents[2] / "pocket_build"
__path__ = [str(_ROOT), *(str(_ROOT / room) for room in ("model", "suites", "study"))]
