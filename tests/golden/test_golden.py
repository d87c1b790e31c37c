"""Keys, rows, metadata and texts are what they were; and a mistake that moves one of them is seen."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

import pytest

from srbench import hashing
from srbench.catalog import load
from srbench.engine import checkpoints, plan
from srbench.results import keys
from srbench.scoring import scoring
from tests.golden import collect, kept


@pytest.fixture(scope="session", autouse=True)
def _written(request: pytest.FixtureRequest) -> None:
    what = request.config.getoption("--write-golden")
    if what is not None:
        {"keys": kept.write_keys, "texts": kept.write_texts}[what]()


@pytest.mark.parametrize("section", collect.SECTIONS)
def test_nothing_has_moved(section: str) -> None:
    now = collect.SECTIONS[section]()
    golden = kept.kept_keys()[section]
    assert kept.moved(golden, now) == []
    assert sorted(now.keys() - golden.keys()) == [], "new: pin it with --write-golden keys"


def test_texts_are_what_they_were() -> None:
    changed = {
        name: "\n".join(list(difflib.unified_diff(kept.kept_text(name).splitlines(), text.splitlines(), lineterm="", n=0))[:12])
        for name, text in kept.texts_now() if text != kept.kept_text(name)
    }  # fmt: skip
    assert not changed, "meant? then --write-golden texts\n" + "\n".join(f"{name}:\n{lines}" for name, lines in changed.items())


# --- the golden file sees mistakes ------------------------------------------------------------------------------------


def _preset_for_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """`plan._image` puts the preset's name where the method's belongs."""
    image = plan._image

    def mistaken(row: Any, method: Any, *rest: Any) -> Any:
        return image(row, dataclasses.replace(method, name=method.preset), *rest)

    monkeypatch.setattr(plan, "_image", mistaken)


def _wrapped_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options in one more dict."""
    image = plan._image

    def mistaken(*given: Any) -> Any:
        planned = image(*given)
        spec = dataclasses.replace(planned.spec, options=hashing.canonical({"options": planned.spec.options}))
        return dataclasses.replace(planned, spec=spec)

    monkeypatch.setattr(plan, "_image", mistaken)


def _default_seed_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows lose their own seed."""
    image = plan._image
    monkeypatch.setattr(plan, "_image", lambda row, *rest: image(row.model_copy(update={"seed": None}), *rest))


def _another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEY_VERSION", 2)
    monkeypatch.setattr("srbench.engine.checkpoints.KEY_VERSION", 2)


def _spaces_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """`canonical` writes spaces, as `json.dumps` does by default."""
    import json

    spaced: Callable[[Any], str] = lambda value: json.dumps(value, sort_keys=True, ensure_ascii=False)  # noqa: E731
    monkeypatch.setattr(hashing, "canonical", spaced)


def _one_field_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer's row fields enter its key without the first."""
    fields_of = scoring.fields_of
    monkeypatch.setattr(scoring, "fields_of", lambda name, row: fields_of(name, row.model_copy(update={"prompt": ""})))


def _rows_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_sha = load.rows_sha
    monkeypatch.setattr(load, "rows_sha", lambda chosen: rows_sha(tuple(sorted(chosen, key=lambda row: row.id))))


def _another_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight method's default changes."""
    options_of = checkpoints.options_of

    def mistaken(preset: str, settings: Any, *rest: Any) -> Any:
        more = ["esd.iterations=11"] if preset.startswith("esd") and not settings else []
        return options_of(preset, [*more, *settings], *rest)

    monkeypatch.setattr(checkpoints, "options_of", mistaken)


@pytest.mark.parametrize(
    ("mistake", "section"),
    [
        (_preset_for_method, "images"), (_wrapped_options, "images"), (_default_seed_for_all, "images"),
        (_another_version, "images"), (_another_version, "checkpoints"), (_another_version, "scores"),
        (_spaces_in_json, "scores"), (_one_field_less, "scores"),
        (_rows_in_another_order, "rows"), (_another_default, "checkpoints"),
    ],
    ids=lambda each: each.__name__.strip("_") if callable(each) else each,
)  # fmt: skip
def test_a_made_mistake_is_seen(
    mistake: Callable[[pytest.MonkeyPatch], None], section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    assert kept.moved(kept.kept_keys()[section], collect.SECTIONS[section]())


def test_the_writer_refuses_a_key_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    _another_version(monkeypatch)
    before = kept.KEYS.read_bytes()
    with pytest.raises(AssertionError, match="orphans every store"):
        kept.write_keys()
    assert kept.KEYS.read_bytes() == before
