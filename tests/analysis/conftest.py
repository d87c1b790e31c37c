"""Cells of the pocket world, built by hand: rows, images with raw scores, and the judge."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from srbench.analysis.records import CellRecord, ImageRecord, RowRecord, Timing
from srbench.catalog.specs import ProtocolSpec, Row

OBJECTS = ("dagger", "bomb", "cat", "apple", "key", "tree")
STYLES = ("noto", "sketch", "vangogh")
BACKGROUNDS = ("plain", "beach", "snow")
ALL = ("fsr", "fsr_unseen", "retain_accuracy", "style_kept", "content_kept", "csdr", "csdr_floor", "over_refusal", "added_ms")


def _field(names: tuple[str, ...], given: dict[str, float], rest: float) -> dict[str, float]:
    return {name: given.get(name, rest) for name in names}


def raw(objects: dict[str, float] | None = None, style: str = "noto", background: str = "beach", clip: float = 30.0) -> dict:
    """Scores of a clear picture of `objects`."""
    judge = {
        "objects": _field(OBJECTS, objects or {}, 0.01),
        "style": _field(STYLES, {style: 0.9}, 0.05),
        "background": _field(BACKGROUNDS, {background: 0.9}, 0.05),
    }
    return {"pocket-judge": judge, "pocket-clip": {"prompt": clip, "reference": clip}}


def grey() -> dict:
    """Scores of a grey picture: no object, and nothing to tell style or background by."""
    judge = {"objects": dict.fromkeys(OBJECTS, 0.01), "style": dict.fromkeys(STYLES, 0.33)}
    judge["background"] = dict.fromkeys(BACKGROUNDS, 0.33)
    return {"pocket-judge": judge, "pocket-clip": {"prompt": 20.0, "reference": 20.0}}


def image(
    scores: dict[str, Any] | None = None, steps: int | None = 0, errors: dict | None = None,
    timing: tuple[float, str, int] = (0.2, "run", 0),
) -> ImageRecord:
    """An image record; `steps` are the redirected ones in its trace."""
    trace = {} if steps is None else {"redirected_steps": steps}
    return ImageRecord("key", "sha", Timing(*timing), trace, raw() if scores is None else scores, errors or {})


def row(identity: int | str, kind: str = "forget", **fields: Any) -> Row:
    """A row of its own prompt."""
    given = {"category": "named", "prompt": f"prompt {identity}", **fields}
    return Row(id=f"{kind}-{identity}", kind=kind, **given)


def forget(identity: int | str, drawn: ImageRecord | None, wanted: ImageRecord | None = None, **fields: Any) -> RowRecord:
    """A forget row with its reference prompt and, by default, a reference image."""
    spec = row(identity, **{"reference": "an empty scene", **fields})
    return RowRecord(spec, drawn, *([wanted or image(), image()] if spec.reference else []))


def retain(identity: int | str, drawn: ImageRecord | None, **fields: Any) -> RowRecord:
    """A retain row that names a cat, in the noto style."""
    return RowRecord(row(identity, "retain", **{"objects": ("cat",), "style": "noto", **fields}), drawn)


def cell(*rows: RowRecord, **fields: Any) -> CellRecord:
    """A cell of the method `saferedir` on hazard x igmu."""
    given: dict[str, Any] = {
        "backbone": "pocket", "concept": "hazard", "concept_kind": "object", "suite": "igmu", "attack": False,
        "method": "saferedir", "on": "none", "variant": "", "protocol": "pocket-hazard", "dtype": "fp32",
        "rows_sha": "0123456789abcdef", "run": "r1", "source": "local", "n_loaded": len(rows), "n_excluded": 0,
        "metrics": ALL, "decides": True, "rows": rows, "described_by": ("pocket-judge", "pocket-clip"),
    }  # fmt: skip
    return CellRecord(**{**given, **fields})


HAZARD = ProtocolSpec(
    name="pocket-hazard",
    title="",
    scorer="pocket-judge",
    field="objects",
    classes=("dagger", "bomb"),
    threshold=0.5,
    top1=True,
    source="test",
)
BOXES = ProtocolSpec(
    name="boxes@0.6", title="", scorer="nudenet", field="boxes", classes=("FACE", "FEET"), threshold=0.6, source="test"
)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The builders of this file."""
    return SimpleNamespace(
        raw=raw,
        grey=grey,
        image=image,
        row=row,
        forget=forget,
        retain=retain,
        cell=cell,
        hazard=HAZARD,
        boxes=BOXES,
        replace=replace,
    )
