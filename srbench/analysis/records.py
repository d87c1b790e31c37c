"""What analysis reads: the images of one cell with their raw scores, and what it gives back: metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from srbench.analysis.origin import UNKNOWN, Origin
from srbench.catalog.specs import Better, Row


class Named(Protocol):
    """A cell, planned or measured."""

    @property
    def method(self) -> str: ...

    @property
    def on(self) -> str: ...


def label(cell: Named) -> str:
    """`method`, `method on checkpoint`, or the checkpoint alone where no method acts on it."""
    if cell.on == "none":
        return cell.method
    return cell.on if cell.method == "none" else f"{cell.method} on {cell.on}"


class Timing(NamedTuple):
    """When an image was sampled, and how long it took."""

    seconds: float
    """Sampling time of its batch divided by the padded batch size."""
    run: str
    """The run that sampled it; empty where that is not known."""
    batch: int
    """Which batch of that run it was in."""
    recipe: str = ""
    """Digest of all that decides how long sampling takes apart from the method: steps, size, sampler, ..."""


WEIGHTS = "weights"
"""In place of an error: the scorer's weights are not on this machine."""


@dataclass(frozen=True)
class ImageRecord:
    """One image as the store knows it. `scores[scorer]` is absent where that scorer has not seen it."""

    key: str
    pixel_sha: str
    timing: Timing
    trace: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    errors: dict[str, str] = field(default_factory=dict)
    """Scorer -> why it failed on this image, or `WEIGHTS`."""


@dataclass(frozen=True)
class RowRecord:
    """One row of a cell: its image, and the untouched backbone's images for its reference prompt."""

    row: Row
    image: ImageRecord | None
    """None where sampling failed."""
    reference: ImageRecord | None = None
    """Same seed."""
    floor: ImageRecord | None = None
    """Another seed."""


@dataclass(frozen=True)
class CellRecord:
    """Method x on x suite x concept x backbone x variant, with all its rows."""

    backbone: str
    concept: str
    concept_kind: str
    suite: str
    attack: bool
    method: str
    on: str
    variant: str
    protocol: str
    dtype: str
    rows_sha: str
    run: str
    source: str
    """`local` or `committed`."""
    n_loaded: int
    n_excluded: int
    metrics: tuple[str, ...]
    """Names that the suite asks for."""
    decides: bool
    """Whether the method has a decision per image (trace key `redirected_steps`)."""
    rows: tuple[RowRecord, ...]
    blocked: str = ""
    """Why the whole cell has no value."""
    cost: Mapping[str, float] = field(default_factory=dict)
    """What the method costs, as far as it is known: `prepare_seconds` of making checkpoint and artifact, `parameters` beside
    the backbone's, `peak_mb`, the most memory while sampling."""
    notes: tuple[str, ...] = ()
    """What has to be said of its rows; stands below every table of them."""
    made_against: str = ""
    """`ATTACK against METHOD`, of prompts that an attack made."""
    origin: Origin = UNKNOWN
    """What made it, beside its names."""
    mark: str = ""
    """What tells it from others of its name, where there are some."""
    described_by: tuple[str, str] = ("", "")
    """The scorers that name objects, style and background, and that compare image and text; empty where there are none."""


@dataclass(frozen=True)
class Metric:
    """A number with its interval, or the reason why there is none."""

    better: Better
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    """Rows asked for; `scored` of them have a score."""
    scored: int = 0
    reason: str = ""
    worst: float | None = None
    """With every unscored row counted against the method; None where all are scored."""
    best: float | None = None
    """With every unscored row counted for the method."""
    test: str = ""
    """Of a difference: the paired test, `mcnemar` or `permutation`; `intervals` where no rows were at hand."""
    p: float | None = None
    p_holm: float | None = None
    """Corrected within one concept x suite x metric of the run."""
    trials: int = 0
    """Prompts behind a rate whose rows share them; 0 where every scored row is a trial of its own."""


def turned(rate: Metric) -> Metric:
    """A rate's complement: 100 - x, its bounds change places."""
    return replace(
        rate, better="lower" if rate.better == "higher" else "higher", value=_rest(rate.value), low=_rest(rate.high),
        high=_rest(rate.low), worst=_rest(rate.worst), best=_rest(rate.best),
    )  # fmt: skip


def _rest(value: float | None) -> float | None:
    return None if value is None else 100.0 - value


class Observation(NamedTuple):
    """What one row is worth: a bool for a rate, a number for a mean, None (and `why`) where it could not be judged."""

    row: Row
    value: float | None
    together: str
    """Rows with the same text here are not independent: they are drawn together when the interval is made."""
    why: str = ""
