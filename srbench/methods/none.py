"""The untouched backbone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from srbench.catalog.specs import ConceptSpec
from srbench.methods import base

METHOD = {
    "name": "none",
    "version": 1,
    "kind": "inference",
    "title": "the untouched backbone",
    "equation": ["e = e_0 + g (e_c - e_0), the backbone's own guidance"],
    "paper": "",
    "families": ["*"],
    "presets": {"none": {}},
    "decides": False,
    "reads_concept": False,
}


@base.method(METHOD)
class NoMethod:
    """Changes nothing."""

    class Options(base.Options):
        """No options."""

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: base.Options) -> None:
        """Nothing to prepare."""

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: None, options: base.Options, call: base.Call) -> Iterator[base.Applied]:
        """Install nothing."""
        yield base.Applied()
