"""The golden files: read, compared, and with `--write-golden` written."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.golden import collect

HERE = Path(__file__).parent
KEYS, TEXTS = HERE / "keys.json", HERE / "texts"
PACKED_ABOVE = 20_000
"""Characters from which a text is kept compressed."""


def kept_keys() -> dict[str, dict[str, str]]:
    """The golden keys by section; empty before they were first written."""
    return json.loads(KEYS.read_text(encoding="utf-8")) if KEYS.is_file() else {}


def moved(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Entries that are gone or other than they were."""
    return [f"{name}: {value} -> {now.get(name, 'gone')}" for name, value in before.items() if now.get(name) != value]


def write_keys() -> None:
    """Add entries that are new. Raises `AssertionError` that names the keys which moved; then nothing is written."""
    before = kept_keys()
    now = {name: section() for name, section in collect.SECTIONS.items()}
    lost = [f"{name}: {line}" for name, section in before.items() for line in moved(section, now[name])]
    assert not lost, "a key that moves orphans every store: " + "; ".join(lost)
    KEYS.write_text(json.dumps(now, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def kept_text(name: str) -> str:
    """A golden text. Raises `FileNotFoundError` where there is none."""
    packed = TEXTS / f"{name}.txt.gz"
    return (gzip.decompress(packed.read_bytes()) if packed.is_file() else (TEXTS / f"{name}.txt").read_bytes()).decode()


def texts_now() -> Iterator[tuple[str, str]]:
    """Name and output of every command, on the results that travel with the repository."""
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        collect.committed(Path(place))
        for name, arguments in collect.TEXTS.items():
            yield name, collect.text(arguments)


def write_texts() -> None:
    """Write every text anew, and say which changed."""
    TEXTS.mkdir(exist_ok=True)
    for name, text in texts_now():
        before = kept_text(name) if any(TEXTS.glob(f"{name}.txt*")) else None
        if text == before:
            continue
        print("new" if before is None else "changed", name)
        for path in TEXTS.glob(f"{name}.txt*"):
            path.unlink()
        if len(text) > PACKED_ABOVE:
            (TEXTS / f"{name}.txt.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        else:
            (TEXTS / f"{name}.txt").write_text(text, encoding="utf-8")
