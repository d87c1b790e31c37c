"""Writes pocket's editions and the suite files that name them; what others wrote in a suite file stays, comments too."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml

from srbench.catalog import load
from srbench.catalog.specs import Edition, Row, RowFile, SuiteSpec

FAMILY = "pocket"
Part = Literal["test", "dev"]
PARTS: tuple[Part, ...] = ("test", "dev")
Parts = dict[Part, tuple[Row, ...]]
"""The rows of one concept's editions."""
Say = Callable[[str], None]
"""Gets a line of progress."""
_EDITIONS = "\neditions:\n"


def render(file: RowFile) -> str:
    """JSON with one row a line, without the fields that have their defaults."""
    meta = json.dumps(file.meta, ensure_ascii=False, indent=1)
    rows = ",\n".join(json.dumps(row.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False) for row in file.rows)
    return f'{{"meta": {meta},\n"rows": [\n{rows}\n]}}\n'


def stem(suite: str, concept: str, part: Part) -> str:
    """How ids of an edition's rows begin."""
    return f"{suite}-{concept}" + ("" if part == "test" else f"-{part}")


def file_name(suite: str, concept: str, part: Part) -> str:
    """An edition's path inside the `suites` folder."""
    return f"{suite}/{FAMILY}-{concept}" + ("" if part == "test" else f"-{part}") + ".json"


def write_edition(folder: Path, suite: str, concept: str, part: Part, file: RowFile, metrics: tuple[str, ...] = ()) -> Edition:
    """Write an edition's rows into `folder` (the `suites` folder); returns the edition for the suite file.

    metrics: where the suite's own are not those of this edition.
    """
    name = file_name(suite, concept, part)
    raw = render(file).encode()
    (folder / suite).mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(raw)
    sha = hashlib.sha256(raw).hexdigest()
    return Edition(
        family=FAMILY, concept=concept, file=name, sha256=sha, rows=len(file.rows), part=part, metrics=metrics
    )


def write_suite(path: Path, editions: list[Edition], head: dict[str, Any] | None = None) -> None:
    """Write the suite file with `editions` in place of pocket's.

    head: everything above the editions, written anew; a file that others began keeps its own. Editions of other families
    stay as they are written. Raises `UsageError` where the result is not a suite.
    """
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    above, _, below = written.partition(_EDITIONS)
    if head is not None:
        above = _dump(_head(head, editions)).removesuffix("\n")
    listed = _dump([each.model_dump(mode="json", exclude_defaults=True) for each in editions])
    path.write_text(above + _EDITIONS + listed + _of_others(below), encoding="utf-8")
    load.parse_yaml(path, SuiteSpec)


def _head(head: dict[str, Any], editions: list[Edition]) -> dict[str, Any]:
    spec = SuiteSpec.model_validate({**head, "editions": editions})
    return spec.model_dump(mode="json", exclude_defaults=True, exclude={"editions"})


def _dump(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, width=130, allow_unicode=True)


def _of_others(listed: str) -> str:
    """The items of a YAML list that are not of pocket's family, each with the comment lines above it."""
    items = re.findall(r"(?:^#.*\n)*^- .*\n(?:^ .*\n|^\n)*|(?:^#.*\n)+", listed, re.MULTILINE)
    return "".join(item for item in items if not _is_own(item))


def _is_own(item: str) -> bool:
    entries = yaml.safe_load(item)
    return bool(entries) and entries[0]["family"] == FAMILY
