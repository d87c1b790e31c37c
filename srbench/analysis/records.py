"""Input and output of the analysis: the images of a cell with their raw scores, and metrics."""

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
    """`method`, `method on checkpoint`, or the checkpoint's name where the method is `none`."""
    if cell.on == "none":
        return cell.method
    return cell.on if cell.method == "none" else f"{cell.method} on {cell.on}"


class Timing(NamedTuple):
    """When an image was sampled, and how long it took."""

    seconds: float
    """Sampling time of its batch divided by the padded batch size."""
    run: str
    """The run that sampled it; empty where it is unknown."""
    batch: int
    """Number of its batch in that run."""
    recipe: str = ""
    """Digest of everything except the method that decides how long sampling takes: steps, size, sampler, ..."""


WEIGHTS = "weights"
"""In place of an error: the scorer's weights are not on this machine."""


@dataclass(frozen=True)
class ImageRecord:
    """One image from the store. `scores[scorer]` is absent where that scorer has not scored it."""

    key: str
    pixel_sha: str
    timing: Timing
    trace: Mapping[str, Any]
    scores: Mapping[str, dict[str, Any]]
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
    untouched: ImageRecord | None = None
    """The untouched backbone's image for the row's own prompt, same seed; only where `CellRecord.beside_none`."""


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
    """Names of the suite's metrics."""
    decides: bool
    """Whether the method has a decision per image (trace key `redirected_steps`)."""
    rows: tuple[RowRecord, ...]
    blocked: str = ""
    """Why no metric of the cell has a value, or an empty string."""
    cost: Mapping[str, float] = field(default_factory=dict)
    """What the method costs, where it is known: `prepare_seconds` to make checkpoint and artifact, `parameters` in addition to
    the backbone's, `peak_mb`, the peak memory while sampling."""
    notes: tuple[str, ...] = ()
    """Notes on its rows, printed below every table of them."""
    made_against: str = ""
    """`ATTACK against METHOD` for prompts that an attack made, else empty."""
    origin: Origin = UNKNOWN
    """Hashes, seed and noise that it was made with."""
    mark: str = ""
    """What distinguishes it from other cells of the same name; empty where there are none."""
    described_by: tuple[str, str] = ("", "")
    """The scorer that classifies objects, style and background, and the one that compares image and text; empty if none."""
    beside_none: bool = False
    """Whether the untouched backbone was run on the same rows, so that `RowRecord.untouched` means something."""


@dataclass(frozen=True)
class Metric:
    """A number with its interval, or the reason why there is none."""

    better: Better
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    """Number of rows; `scored` of them have a score."""
    scored: int = 0
    reason: str = ""
    worst: float | None = None
    """Value with every unscored row counted against the method; None where all are scored."""
    best: float | None = None
    """Value with every unscored row counted for the method."""
    test: str = ""
    """For a difference: the paired test, `mcnemar` or `permutation`, or `intervals` where rows are not stored."""
    p: float | None = None
    p_holm: float | None = None
    """Holm-corrected together with all other tests of the table."""
    trials: int = 0
    """Number of distinct prompts of a rate where rows share prompts, of a time the number of batches; 0 where every scored row is
    its own trial."""
    phrases: int = 0
    """Of a rate: number of phrases among its scored rows; 0 where rows name none."""
    phrase_low: float | None = None
    phrase_high: float | None = None
    """The rate's interval over phrases; None where they are too few, or some rows name none."""
    base: float | None = None
    """Of a difference in time: what it is a difference from, in the same unit."""


def resolved(value: float, low: float, high: float) -> bool:
    """Whether a difference is larger than its interval is wide: a smaller one may be the machine's other work alone."""
    return high - low <= abs(value)


def turned(rate: Metric) -> Metric:
    """A rate's complement: 100 - x, with the bounds swapped."""
    return replace(
        rate, better="lower" if rate.better == "higher" else "higher", value=_rest(rate.value), low=_rest(rate.high),
        high=_rest(rate.low), worst=_rest(rate.worst), best=_rest(rate.best),
        phrase_low=_rest(rate.phrase_high), phrase_high=_rest(rate.phrase_low),
    )  # fmt: skip


def _rest(value: float | None) -> float | None:
    return None if value is None else 100.0 - value


class Observation(NamedTuple):
    """One row's value: a bool for a rate, a number for a mean, None (and `why`) where it could not be judged."""

    row: Row
    value: float | None
    together: str
    """Rows with the same text here are not independent; the interval resamples them together."""
    why: str = ""
