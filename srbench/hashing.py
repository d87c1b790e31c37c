"""Digests: of values as canonical JSON, and of the files of a model's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from srbench.files import file_sha


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN. Raises `ValueError` on non-finite numbers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


MODEL_FILES = (".safetensors", ".bin", ".json", ".txt")
"""Endings of a model's files."""


VOCABULARY, MADE_OF_IT = ".model", "tokenizer.json"
"""Ending of T5's vocabularies, which were added later, and the file that tokenizers are read from instead where there is one."""


def folder_sha(folder: Path, suffixes: tuple[str, ...] = MODEL_FILES) -> str:
    """sha256 over relative paths and contents of a model folder's files; its own path does not matter.

    Linked folders count, since linked components determine pixels, too. A vocabulary counts only where the tokenizer is
    made from it, so that all other folders keep the hash that they had.
    """
    files = sorted(p for p in _below(folder) if (p.suffix in suffixes or _is_read(p)) and not p.name.startswith("card"))
    return digest([[p.relative_to(folder).as_posix(), file_sha(p)] for p in files])


def _is_read(path: Path) -> bool:
    return path.suffix == VOCABULARY and not (path.parent / MADE_OF_IT).is_file()


def _below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Every file below a folder; a link that leads back to a folder above it is not followed."""
    above = (*above, folder.resolve())
    for path in folder.iterdir():
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:
            yield from _below(path, above)
