"""An attack may fail on a target: its group is left out, the others are searched, and the search goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from srbench.attacks import search
from srbench.attacks.base import Adversarial, Settings
from srbench.catalog import plugins
from srbench.catalog.specs import Row
from srbench.errors import ForeignError, UsageError

ROWS = [Row(id=f"t{i}", kind="forget", category="noun", prompt=f"a box {i}", seed=i) for i in range(6)]


class Search(Settings):
    seed: int = 0
    parallel: int = 2


def found(row: Row, number: int) -> Adversarial:
    """What the attack finds."""
    return Adversarial(row.prompt, f"found {row.prompt}", 0.5, number, 1.0, (0.0, 1.0))


class Attack:
    """Raises `error` at the targets named in `bad`; counts the targets it was given."""

    bad: Any = ()
    error: BaseException = ZeroDivisionError("no")

    @staticmethod
    def attack(victim: Any, targets: Any, settings: Any, progress: Any = None, first: int = 0) -> Iterator[Any]:
        for number, row in enumerate(targets, first):
            if row.id in Attack.bad:
                raise Attack.error
            yield found(row, number)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """Runs the search without a model."""
    Attack.bad, Attack.error = (), ZeroDivisionError("no")
    monkeypatch.setattr(plugins, "load", lambda kind, name: Attack)
    monkeypatch.setattr(search.code, "source_of", lambda kind, name: "")
    monkeypatch.setattr(search, "identity", lambda *a: {"attack": "evil", "output": "prompt"})
    monkeypatch.setattr(search, "victim_of", lambda made: __import__("contextlib").nullcontext())
    request = SimpleNamespace(name="evil", out=tmp_path / "rows.json", settings=Search(), plain=False)
    return lambda: search.search(request, None, ROWS, "test"), request.out  # type: ignore[arg-type]


def test_the_group_of_a_failing_target_is_left_out_and_the_others_stay(searched: Any) -> None:
    search, out = searched
    Attack.bad = ("t3",)
    done = search()
    assert [each.target for each in done.found] == ["a box 0", "a box 1", "a box 2", "a box 4", "a box 5"]
    assert len(done.failed) == 1
    assert done.failed[0].startswith("ZeroDivisionError: no (")
    saved = json.loads(out.read_text())
    assert saved["meta"]["failed"] == 1
    assert [row["id"] for row in saved["rows"]] == ["evil-t0", "evil-t1", "evil-t2", "evil-t4", "evil-t5"]
    assert not out.with_name("rows.json.part").exists()


def test_where_nothing_fails_the_file_says_nothing_of_failures(searched: Any) -> None:
    search, out = searched
    assert search().failed == ()
    assert "failed" not in json.loads(out.read_text())["meta"]


@pytest.mark.parametrize("error", [SystemExit(1), MemoryError(), KeyError("x")])
def test_an_attack_that_fails_on_all_is_one_error(searched: Any, error: BaseException) -> None:
    search, out = searched
    Attack.bad, Attack.error = tuple(row.id for row in ROWS), error
    with pytest.raises(ForeignError, match=type(error).__name__):
        search()
    assert not out.exists()


def test_an_interrupt_keeps_what_was_found_and_the_search_goes_on(searched: Any) -> None:
    search, out = searched
    Attack.bad, Attack.error = ("t4",), KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        search()
    assert len(out.with_name("rows.json.part").read_text().splitlines()) == 5
    Attack.bad = ()
    done = search()
    assert (done.resumed, len(done.found)) == (4, 6)


def test_failed_targets_are_remembered_by_an_interrupted_search(searched: Any) -> None:
    search, _ = searched
    Attack.bad, real = ("t1", "t4"), Attack.attack

    def attack(victim: Any, targets: Any, settings: Any, progress: Any = None, first: int = 0) -> Iterator[Any]:
        for number, each in enumerate(real(victim, targets, settings, progress, first), first):
            if number == 3:
                raise KeyboardInterrupt
            yield each

    Attack.attack = staticmethod(attack)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        search()
    Attack.attack = staticmethod(real)  # type: ignore[assignment]
    done = search()
    assert (done.resumed, len(done.failed)) == (3, 3)  # t1 with nobody else, t4 and t5


@pytest.mark.parametrize("given", [None, 3, Adversarial("a", "b", float("nan"), 0, 1.0), Adversarial("a", "b", 0.1, 0)])
def test_what_is_no_result_is_a_failure(searched: Any, monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    search, _ = searched
    monkeypatch.setattr(Attack, "attack", staticmethod(lambda *a, **k: iter([given] * 6)))
    with pytest.raises(ForeignError):
        search()


def test_a_full_disk_is_one_error(searched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    search, out = searched
    real = type(out).open

    def full(self: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        if mode == "ab":
            raise OSError(28, "No space left on device")
        return real(self, mode, *more, **named)

    monkeypatch.setattr(type(out), "open", full)
    with pytest.raises(UsageError, match="No space left on device"):
        search()
