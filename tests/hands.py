"""Actors as Ray starts them, in this process: tests say after how much work one is killed."""

from __future__ import annotations

import importlib.util
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from srbench.engine.spread import DiedError
from srbench.engine.worker import Given, Worker

HAS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
Ends = Callable[[int, str, tuple[str, ...]], int | None]
"""Actor's number from 1, function, keys -> after how many keys it is killed; None where it is not."""


@dataclass
class Here:
    """`Hands` whose actors are in this process, and do what is asked of them one after the other."""

    given: Callable[[int], Given[Any]]
    ends: Ends = lambda actor, call, keys: None
    actors: list[Any] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    """Bytes of each request and answer."""
    interrupt_after: int = 10**9
    """Answers after which the driver is interrupted."""
    _queue: deque[tuple[int, Worker[Any], str, tuple[Any, ...]]] = field(default_factory=deque)
    _refs: int = 0

    def start(self, seat: int) -> Worker[Any]:
        given = pickle.dumps(self.given(seat))
        self.sent.append(len(given))
        made_of = pickle.loads(given)
        self.actors.append(made_of.worker(made_of))
        return self.actors[-1]

    def ask(self, handle: Worker[Any], call: str, *given: Any) -> int:
        self._refs += 1
        self.sent.append(len(pickle.dumps(given)))
        self._queue.append((self._refs, handle, call, given))
        return self._refs

    def first(self, refs: Sequence[int]) -> list[int]:
        self.interrupt_after -= 1
        if self.interrupt_after < 0:
            raise KeyboardInterrupt
        return [next(ref for ref, *_ in self._queue if ref in refs)]

    def answer(self, ref: int) -> Any:
        (found,) = (each for each in self._queue if each[0] == ref)
        self._queue.remove(found)
        _, actor, call, given = found
        if call == "ready":
            return actor.facts
        *more, keys = given
        killed_after = self.ends(self.actors.index(actor) + 1, call, keys)
        if killed_after is not None:
            getattr(actor, call)(*more, keys[:killed_after])
            raise DiedError("killed")
        answer = getattr(actor, call)(*more, keys)
        self.sent.append(len(pickle.dumps(answer)))
        return answer

    def end(self, handle: Worker[Any]) -> None:
        self._queue = deque(each for each in self._queue if each[1] is not handle)


def search_here(monkeypatch: Any, ends: Ends = lambda actor, call, keys: None, interrupt_after: int = 10**9) -> list[Here]:
    """Lets the actors of searches be in this process, one after the other, without Ray; returns their hands, as they come."""
    from srbench.attacks import command, searcher
    from srbench.attacks.party import Party
    from srbench.engine import cluster

    made: list[Here] = []

    def start(given: Callable[[int], Given[Any]], seats: Any) -> Here:
        made.append(Here(given, ends, interrupt_after=interrupt_after))
        return made[-1]

    monkeypatch.setattr(cluster, "check_installed", lambda option: None)
    monkeypatch.setattr(command, "Party", partial(Party, start=start))
    monkeypatch.setattr(searcher, "AGAIN_SECONDS", ())
    return made


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra is not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *given: None if name == "ray" else real(name, *given))
