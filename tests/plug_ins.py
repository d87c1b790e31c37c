"""Plug-ins for tests: written to a folder with their entry points, as pip installs them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from srbench.attacks import base as attacks
from srbench.catalog import plugins
from srbench.methods import base as methods
from srbench.scorers import base as scorers

METHOD = {
    "name": "evil", "version": 1, "kind": "inference", "title": "for tests", "paper": "", "families": ["*"],
    "presets": {"evil": {}}, "decides": False, "reads_concept": False,
}
SCORER = {
    "name": "evil", "version": 1, "kind": "image", "title": "for tests", "reads": [], "fields": ["value"],
    "metrics": {"value": {"field": "value", "better": "higher"}}, "families": [],
}
ATTACK = {
    "name": "evil", "version": 1, "title": "for tests", "paper": "", "needs": "text_encoder", "output": "prompt",
    "objective": "a number", "better": "higher",
}
Install = Callable[..., Path]
"""(kind, module, source, entry="x") -> the module's file."""


def wheel(folder: Path, kind: str, module: str, source: str | bytes, entry: str = "x") -> Path:
    """Write a module and what pip would write beside it."""
    info = folder / f"{module}_{entry}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}-{entry}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[srbench.{kind}]\n{entry} = {module}\n")
    path = folder / f"{module}.py"
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    return path


@contextmanager
def installing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install plug-ins into `folder`, which is looked through like site-packages; afterwards all is as before."""
    kept = [dict(each.REGISTRY) for each in (methods, scorers, attacks)]
    modules = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    plugins.forget()

    def install(kind: str, module: str, source: str | bytes, entry: str = "x") -> Path:
        path = wheel(folder, kind, module, source, entry)
        plugins.forget()
        return path

    try:
        yield install
    finally:
        for each, before in zip((methods, scorers, attacks), kept, strict=True):
            # What srbench registered meanwhile stays: its modules are not imported a second time.
            own = {name: cls for name, cls in each.REGISTRY.items() if cls.__module__.startswith("srbench.")}
            each.REGISTRY.clear()
            each.REGISTRY.update({**own, **before})
        for name in set(sys.modules) - modules:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(folder):
                del sys.modules[name]
        plugins.forget()
