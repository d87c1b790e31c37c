"""The hash of a plug-in's code: what changes it, and what does not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from srbench.catalog import code, plugins

MODULE = '''"""A method."""

from helping.numbers import factor  # its own package

METHOD = {"name": "helped", "version": 1, "kind": "inference", "title": "helped"}


def scaled(value):
    return factor() * value
'''
HELPER = "def factor():\n    return 2\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `helping` with a method in `helping.way` that imports `helping.numbers`."""
    folder = tmp_path / "helping"
    folder.mkdir()
    for name, text in {"__init__": "", "way": MODULE, "numbers": HELPER, "other": "x = 1\n"}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    code._of_module.cache_clear()
    assert "helping" not in sys.modules  # nothing was imported for it


def hashed() -> str:
    code._of_module.cache_clear()
    return code._of_module("methods", "helping.way")


def changed(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_code_and_what_it_imports_of_its_own_package_count(package: Path) -> None:
    first = hashed()
    assert len(first) == code.DIGITS
    changed(package / "way.py", "factor() * value", "factor() + value")
    second = hashed()
    changed(package / "numbers.py", "return 2", "return 50")
    assert len({first, second, hashed()}) == 3


def test_prose_and_files_that_are_not_imported_do_not_count(package: Path) -> None:
    first = hashed()
    changed(package / "way.py", '"""A method."""', '"""A method that is described\n\nin several lines."""\n')
    changed(package / "way.py", "# its own package", "#  of its own")
    changed(package / "way.py", "    return factor", "    # multiplied\n\n    return factor")
    (package / "other.py").write_text("x = 2\n")
    assert hashed() == first


def test_an_equation_on_lines_of_its_own_does_not_count(package: Path) -> None:
    first = hashed()
    meta = 'METHOD = {"name": "helped", "version": 1, "kind": "inference", "title": "helped"}'
    split = 'METHOD = {\n%s    "name": "helped", "version": 1, "kind": "inference", "title": "helped"\n}'
    changed(package / "way.py", meta, split % "")
    second = hashed()
    changed(package / "way.py", split % "", split % '    "equation": [\n        "y = 2 x",\n    ],\n')
    assert hashed() == second != first
    changed(package / "way.py", '"equation": [', '"presets": {}, "equation": [')
    assert hashed() != second


@pytest.mark.parametrize("line", ['x = 1; "a text"', 'x = "# no comment"', 'def f(): "one line"'])
def test_a_line_that_only_looks_like_prose_counts(package: Path, line: str) -> None:
    first = hashed()
    (package / "numbers.py").write_text(f"{HELPER}{line}\n")
    assert hashed() != first


def test_code_that_cannot_be_read_has_no_hash_and_is_never_said_to_differ(package: Path) -> None:
    (package / "numbers.py").write_text("def (:\n")
    assert hashed() == code.UNKNOWN
    assert not code.differs("methods", "none", code.UNKNOWN)
    assert not code.differs("methods", "none", None)
    assert code.differs("methods", "none", "0" * code.DIGITS)


def test_every_plug_in_of_srbench_has_a_hash() -> None:
    assert all(code.source_of(kind, name) for kind in plugins.KINDS for name in plugins.plugins(kind))


def test_a_folder_of_modules_counts_as_one_method() -> None:
    files = code._closure("srbench.methods.saferedir", "srbench.methods", "srbench.methods.base")
    assert "srbench.methods.saferedir.module" in files
    assert "srbench.methods.base" not in files
