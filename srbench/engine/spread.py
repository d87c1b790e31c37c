"""Hands work to actors in chunks. They pull: who is done gets the next chunk, and what a dead one had is handed out again.

Knows nothing of Ray: `Hands` is what it needs of it, so that every way in which an actor can end is tested without a cluster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from srbench.engine.request import Planned
from srbench.errors import MissingError

READY = "ready"
"""What an actor is asked first: its answer is `Facts`."""
IN_FLIGHT = 2
"""Chunks that an actor may have: one at work and one waiting, so that it is never idle and the end is balanced."""
CHUNK_BATCHES = 6
"""Batches of a chunk."""
DEATHS = 3
"""Actors in a row that may die in one place before it is given up."""
DEADLY = 2
"""Actors that a key may kill before it has failed."""
NO_MORE = "Run the same command again: nothing that was made is lost."


class DiedError(Exception):
    """An actor's process has ended. Its text is the reason."""


@dataclass(frozen=True)
class Facts:
    """What an actor says of itself before it works."""

    host: str
    card: str
    """Name of its card; of a CPU actor its processor."""
    versions: Mapping[str, str]
    problem: str = ""
    """Why it cannot work; empty where it can."""
    hint: str = ""


@dataclass(frozen=True)
class Answer:
    """What comes back of a chunk: keys, seconds and failures, and what searches found. No picture and no weight."""

    done: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    """Key -> why it could not be done."""
    seconds: float = 0.0
    """Of the whole chunk."""
    sampling_seconds: float = 0.0
    """Of these, in the pipeline; of a search without the opening of its victim."""
    said: tuple[str, ...] = ()
    unscored: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    """(scorer, image key, reference key) -> why the score could not be made."""
    found: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Key of a group of targets -> what a search found for each of them, as a line of its file."""
    refused: str = ""
    """Why this would not work anywhere: the request is wrong."""
    broken: str = ""
    """Why nothing more may be done in this process; it is leaving."""
    unfit: str = ""
    """Why nothing more can be done in this place."""
    hint: str = ""


@dataclass(frozen=True)
class Chunk:
    """Keys that are asked for at once."""

    call: str
    """The actor's function."""
    keys: tuple[str, ...]
    deaths: int = 0
    """Actors that died while they were at these keys."""


class Hands(Protocol):
    """What is needed of Ray. A handle is an actor's, a ref an answer's that is awaited."""

    def start(self, seat: int) -> Any:
        """Start an actor in a place; returns its handle at once."""

    def ask(self, handle: Any, call: str, *given: Any) -> Any:
        """Ask for something; returns a ref at once."""

    def first(self, refs: Sequence[Any]) -> Sequence[Any]:
        """Wait until at least one ref has its answer or its actor has died; returns these."""

    def answer(self, ref: Any) -> Any:
        """The answer. Raises `DiedError` where the actor has died."""

    def end(self, handle: Any) -> None:
        """End an actor's process."""


@dataclass
class Task:
    """What is done with chunks: who hears of answers, what is still to do when an actor has died, and who hears of the lost."""

    chunks: Iterable[Chunk]
    taken: Callable[[Facts, Chunk, Answer], None]
    still: Callable[[Collection[str]], list[str]]
    """Those of some keys that are not done: the store is read anew, since a dead actor may have done them."""
    fail: Callable[[str, str], None]
    """A key and why it has failed."""
    batch: int = 1
    """Keys of a chunk that are worked on at once."""
    given: tuple[Any, ...] = ()
    """Further arguments of the actor's function."""


@dataclass(eq=False)
class Seat:
    """A place for an actor; when one dies the next one takes it."""

    number: int
    handle: Any = None
    facts: Facts | None = None
    """None until the actor is ready."""
    flying: dict[Any, Chunk | None] = field(default_factory=dict)
    """Ref -> its chunk, in the order in which they were asked for; None while it is asked whether it is ready."""
    died: int = 0
    """Actors that died here since the last chunk that was done."""
    closed: str = ""
    """Why no actor is started here any more."""
    hint: str = ""

    @property
    def name(self) -> str:
        """For messages."""
        return f"actor {self.number + 1}{f' on {self.facts.host}' if self.facts else ''}"


@dataclass
class Spread:
    """Places for actors, and what they are at; kept from one task to the next."""

    hands: Hands
    seats: list[Seat]
    say: Callable[[str], None]
    check: Callable[[Facts], tuple[str, str]] = lambda facts: ("", "")
    """Why an actor may not work, with a hint; empty where it may."""

    @classmethod
    def of(cls, hands: Hands, count: int, say: Callable[[str], None], check: Callable[[Facts], tuple[str, str]]) -> Spread:
        """With places for `count` actors."""
        return cls(hands, [Seat(number) for number in range(count)], say, check)

    def carry_out(self, task: Task) -> None:
        """Until every chunk is done or has failed. Raises `MissingError` where no actor is left."""
        waiting = deque(chunk for chunk in task.chunks if chunk.keys)
        while waiting or any(chunk for seat in self.seats for chunk in seat.flying.values()):
            self._start(len(waiting))
            self._hand_out(task, waiting)
            by_ref = {ref: seat for seat in self.seats for ref in seat.flying}
            if not by_ref:
                raise self._none_left()
            for ref in self.hands.first(list(by_ref)):
                seat = by_ref[ref]
                if ref in seat.flying:  # its actor may have died meanwhile
                    self._hear(seat, ref, task, waiting)

    def end(self) -> None:
        """End all actors."""
        for seat in self.seats:
            self._leave(seat)

    # --- giving ---

    def _start(self, waiting: int) -> None:
        """Start actors, as many as there are chunks for."""
        starting = sum(seat.facts is None and seat.handle is not None for seat in self.seats)
        idle = sum(seat.facts is not None and not seat.flying for seat in self.seats)
        for seat in [seat for seat in self.seats if seat.handle is None and not seat.closed][: max(0, waiting - starting - idle)]:
            seat.handle = self.hands.start(seat.number)
            seat.flying[self.hands.ask(seat.handle, READY)] = None

    def _hand_out(self, task: Task, waiting: deque[Chunk]) -> None:
        """Give each ready actor a chunk, and a second one where nobody else is waiting for it."""
        if not waiting:
            return
        hungry = sum(not any(seat.flying.values()) for seat in self.seats if not seat.closed)
        for most in range(1, IN_FLIGHT + 1):
            for seat in self.seats:
                if seat.facts is None or len(seat.flying) >= most:
                    continue
                if len(waiting) <= (hungry if most > 1 else 0):
                    break
                chunk = waiting.popleft()
                seat.flying[self.hands.ask(seat.handle, chunk.call, *task.given, chunk.keys)] = chunk
                hungry -= most == 1

    # --- hearing ---

    def _hear(self, seat: Seat, ref: Any, task: Task, waiting: deque[Chunk]) -> None:
        try:
            heard = self.hands.answer(ref)
        except DiedError as error:
            self._died(seat, ref, str(error), task, waiting)
            return
        chunk = seat.flying.pop(ref)
        if isinstance(heard, Facts):
            problem, hint = (heard.problem, heard.hint) if heard.problem else self.check(heard)
            seat.facts = heard
            if problem:
                self._close(seat, problem, hint, waiting)
            return
        assert chunk is not None
        assert seat.facts is not None
        task.taken(seat.facts, chunk, heard)
        answered = {*heard.done, *heard.failed}
        left = tuple(key for key in chunk.keys if key not in answered)
        if heard.broken:
            seat.flying = {ref: replace(chunk, keys=left), **seat.flying}
            self._died(seat, ref, heard.broken, task, waiting)
        elif heard.unfit:
            waiting.extendleft([replace(chunk, keys=left)] if left else [])
            self._close(seat, heard.unfit, heard.hint, waiting)
        else:
            seat.died = 0
            for key in left:
                task.fail(key, f"{seat.name} says nothing of it")

    def _died(self, seat: Seat, ref: Any, why: str, task: Task, waiting: deque[Chunk]) -> None:
        """Hand out again what an actor had that has died: it was at the first of its chunks."""
        chunks = [chunk for chunk in seat.flying.values() if chunk is not None]
        seat.died += 1
        name = seat.name
        self._leave(seat)
        if seat.died >= DEATHS:
            seat.closed = why
        self.say(f"{name} has died ({why}){'; no other is started in its place' if seat.closed else ''}")
        undone = set(task.still([key for chunk in chunks for key in chunk.keys])) if chunks else set()
        again: list[Chunk] = []
        for place, chunk in enumerate(chunks):
            keys = tuple(key for key in chunk.keys if key in undone)
            again += self._blamed(replace(chunk, keys=keys), why, task) if place == 0 else [replace(chunk, keys=keys)]
        waiting.extendleft(reversed([chunk for chunk in again if chunk.keys]))

    def _blamed(self, chunk: Chunk, why: str, task: Task) -> list[Chunk]:
        """The chunk that an actor died at, in smaller pieces: one key may have killed it, and its neighbours have no part in it.

        A key that was alone, and has killed so many actors, has failed.
        """
        deaths = chunk.deaths + 1
        if len(chunk.keys) == 1 and deaths >= DEADLY:
            task.fail(chunk.keys[0], f"{deaths} actors died at it, the last one so: {why}")
            return []
        size = task.batch if chunk.deaths == 0 else 1  # one by one costs a padded batch each, and nodes are often taken away
        pieces = (chunk.keys[at : at + size] for at in range(0, len(chunk.keys), size))
        return [Chunk(chunk.call, piece, deaths) for piece in pieces]

    # --- ending ---

    def _close(self, seat: Seat, why: str, hint: str, waiting: deque[Chunk]) -> None:
        """Start no actor in this place again; what it had waiting goes to others."""
        self.say(f"{seat.name}: {why}{f'. {hint}' if hint else ''}")
        seat.closed, seat.hint = why, hint
        waiting.extendleft(reversed([chunk for chunk in seat.flying.values() if chunk is not None]))
        self._leave(seat)

    def _leave(self, seat: Seat) -> None:
        if seat.handle is not None:
            self.hands.end(seat.handle)
        seat.handle, seat.facts, seat.flying = None, None, {}

    def _none_left(self) -> MissingError:
        whys = list(dict.fromkeys(seat.closed for seat in self.seats))
        hints = list(dict.fromkeys(seat.hint for seat in self.seats if seat.hint))
        return MissingError(f"no actor is left: {'; '.join(whys)}", hints[0] if hints else NO_MORE)


# --- chunks -----------------------------------------------------------------------------------------------------------


def chunks_of(groups: Sequence[Sequence[Planned]], batch: int, batches: int = CHUNK_BATCHES) -> list[Chunk]:
    """Images on one checkpoint in chunks of whole batches. groups: by recipe.

    The recipes come in turn within a chunk, as they do in one process: what methods cost is told by neighbouring batches.
    """
    pieces = [
        (number / max(1, len(group)), [image.key for image in group[number : number + batch]])
        for group in groups for number in range(0, len(group), batch)
    ]  # fmt: skip
    in_turn = [keys for _, keys in sorted(pieces, key=lambda piece: piece[0])]
    return [
        Chunk("make", tuple(key for keys in in_turn[at : at + batches] for key in keys))
        for at in range(0, len(in_turn), batches)
    ]
