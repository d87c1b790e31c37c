"""The actors of one command: how they are started, checked and ended, and what is noted of them. `--ray`, and `--gpus`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from srbench.backbones.loader import Backbone
from srbench.engine.cluster import Seats, connected, hands_of, refuse_strangers
from srbench.engine.devices import Runtime
from srbench.engine.spread import Answer, Facts, Hands, Spread
from srbench.engine.worker import Asked, Given, Worker, same_versions
from srbench.errors import SrbenchError


class Start(Protocol):
    """Starts what actors run on; given to tests, too."""

    def __call__(self, given: Callable[[int], Given[Any]], seats: Seats) -> Hands: ...


@dataclass
class Team(ABC, Generic[Asked]):
    """Actors that work for one request. They are started when there is something to do for them."""

    worker: ClassVar[type[Worker[Any]]]
    """What an actor becomes."""
    what: ClassVar[str]
    """What they do together, for messages: a run, ..."""
    mixed: ClassVar[str]
    """What cards of several kinds come to."""

    request: Asked
    backbone: Backbone
    how: Runtime
    seats: Seats
    say: Callable[[str], None]
    start: Start = hands_of
    worked: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """(host, card) -> what was done there, for the record."""
    _spread: Spread | None = None
    _number: int = 0

    @property
    @abstractmethod
    def results(self) -> Path:
        """The results folder, which every node has to share."""

    @abstractmethod
    def on(self, device: str) -> Asked:
        """The request of an actor on a device."""

    @property
    def spread(self) -> Spread:
        """The places for actors; what they run on is started with the first call."""
        if self._spread is None:
            hands = self.start(self._given, self.seats)
            self._spread = Spread.of(hands, len(self.seats.each), lambda line: self.say(line), same_versions)
        return self._spread

    def end(self) -> None:
        """End all actors."""
        if self._spread is not None:
            self._spread.end()

    def _given(self, seat: int) -> Given[Asked]:
        place, backbone = self.seats.each[seat], self.backbone
        self._number += 1
        return Given(
            self.worker, backbone.spec, self.on(place.device), replace(self.how, devices=()), backbone.sha256, place.device,
            backbone.dtype, place.threads, self._number, min(1.0, place.gpus or 1.0),
        )  # fmt: skip

    def _took(self, facts: Facts, answer: Answer) -> None:
        """Note what an actor has done, and say its lines; the first card of another kind is said, too."""
        if (facts.host, facts.card) not in self.worked:
            others = {card for _, card in self.worked} - {facts.card}
            self.worked[facts.host, facts.card] = {"images": 0, "seconds": 0.0, "sampling_seconds": 0.0}
            if others:
                cards = ", ".join(sorted({*others, facts.card}))
                self.say(f"mixed cards in one {self.what} ({cards}): {self.mixed}")
        noted = self.worked[facts.host, facts.card]
        noted["seconds"] = round(noted["seconds"] + answer.seconds, 3)
        noted["sampling_seconds"] = round(noted["sampling_seconds"] + answer.sampling_seconds, 3)
        for line in answer.said:
            self.say(f"{facts.host}: {line}")


T = TypeVar("T", bound=Team[Any])


@contextmanager
def team_of(kind: type[T], request: Any, backbone: Backbone, how: Runtime, say: Callable[[str], None]) -> Iterator[T | None]:
    """The actors of a request; None where it has one device. They and what they run on end with the block."""
    if not how.ray:
        yield None
        return
    with connected(how) as seats:
        team = kind(request, backbone, how, seats, say)
        refuse_strangers(how, seats, backbone.spec, backbone.sha256, team.results)
        if seats.line:
            say(seats.line)
        try:
            yield team
        finally:
            with suppress(SrbenchError):
                team.end()
