"""Chunks of work and the actors that ask for them, without Ray: who gets what, and what becomes of it when an actor ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from srbench.engine import spread
from srbench.engine.spread import Answer, Chunk, DiedError, Facts, Spread, Task, chunks_of
from srbench.errors import MISSING, MissingError

VERSIONS = {"srbench": "1"}


@dataclass
class Fake:
    """Actors that answer one ref a turn, the oldest first; `acts` says what becomes of a chunk."""

    acts: Callable[[int, tuple[str, ...]], Answer | DiedError] = lambda actor, keys: Answer(done=keys)
    facts: Callable[[int], Facts | DiedError] = lambda seat: Facts(f"node-{seat}", "card", VERSIONS)
    slow: Collection[int] = ()
    """Actors that answer only where nobody else has anything."""
    seats: dict[int, int] = field(default_factory=dict)
    """Actor -> its seat, in the order of their starts."""
    asked: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    most: int = 0
    """Chunks that one actor had at once."""
    _queue: deque[tuple[int, int, str, tuple[str, ...]]] = field(default_factory=deque)
    _refs: int = 0

    def start(self, seat: int) -> int:
        self.seats[len(self.seats)] = seat
        return len(self.seats) - 1

    def ask(self, handle: int, call: str, *given: Any) -> int:
        assert handle not in self.ended, "an actor that has ended was asked"
        self._refs += 1
        self._queue.append((self._refs, handle, call, given[-1] if given else ()))
        if call != "ready":
            self.asked.append((handle, given[-1]))
        self.most = max(self.most, sum(actor == handle for _, actor, _, _ in self._queue))
        return self._refs

    def first(self, refs: Sequence[int]) -> list[int]:
        known = [each for each in self._queue if each[0] in refs]
        quick = [each for each in known if each[1] not in self.slow]
        return [(quick or known)[0][0]]

    def answer(self, ref: int) -> Any:
        (found,) = (each for each in self._queue if each[0] == ref)
        self._queue.remove(found)
        _, actor, call, keys = found
        heard = self.facts(self.seats[actor]) if call == "ready" else self.acts(actor, keys)
        if isinstance(heard, DiedError):
            raise heard
        return heard

    def end(self, handle: int) -> None:
        self.ended.append(handle)
        self._queue = deque(each for each in self._queue if each[1] != handle)


@dataclass
class Desk:
    """A driver's side: what it took, what failed, what it said."""

    stored: set[str] = field(default_factory=set)
    """Keys that are in the store, whoever heard of it."""
    taken: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def task(self, chunks: Sequence[Chunk], batch: int = 2) -> Task:
        return Task(chunks, self._took, self._still, self._fail, batch)

    def _took(self, facts: Facts, chunk: Chunk, answer: Answer) -> None:
        self.taken += answer.done
        self.stored.update(answer.done)
        self.failed.update(answer.failed)

    def _still(self, keys: Collection[str]) -> list[str]:
        return [key for key in keys if key not in self.stored]

    def _fail(self, key: str, why: str) -> None:
        assert key not in self.failed
        self.failed[key] = why


def chunks(*groups: str) -> list[Chunk]:
    return [Chunk("make", tuple(group)) for group in groups]


def carried_out(fake: Fake, work: list[Chunk], seats: int = 2, desk: Desk | None = None, **more: Any) -> Desk:
    desk = desk or Desk()
    Spread.of(fake, seats, desk.said.append, lambda facts: ("", "")).carry_out(desk.task(work, **more))
    return desk


def test_every_chunk_is_asked_for_once() -> None:
    fake = Fake()
    desk = carried_out(fake, chunks("abcd", "efgh", "ij", "kl", "m"))
    assert sorted(desk.taken) == list("abcdefghijklm")
    assert len(fake.asked) == 5
    assert {actor for actor, _ in fake.asked} == {0, 1}
    assert not desk.said


def test_an_actor_has_two_chunks_at_most_and_a_slow_one_takes_less() -> None:
    fake = Fake(slow={1})
    carried_out(fake, [Chunk("make", (str(number),)) for number in range(20)])
    assert fake.most == spread.IN_FLIGHT == 2
    by_actor = [sum(actor == each for actor, _ in fake.asked) for each in (0, 1)]
    assert by_actor[1] <= 2 < by_actor[0], by_actor


def test_the_last_chunks_are_left_for_those_that_have_none() -> None:
    """With two chunks and two actors the first one that is ready must not take both."""
    fake = Fake()
    carried_out(fake, chunks("ab", "cd"))
    assert sorted(fake.asked) == [(0, tuple("ab")), (1, tuple("cd"))]


def test_no_more_actors_are_started_than_there_are_chunks() -> None:
    fake = Fake()
    carried_out(fake, chunks("ab"), seats=8)
    assert len(fake.seats) == 1


def test_what_a_dead_actor_had_is_asked_for_again_but_for_what_it_has_stored() -> None:
    """It died after its second image: that one is in the store, whoever heard of it."""
    desk = Desk()

    def acts(actor: int, keys: tuple[str, ...]) -> Answer | DiedError:
        if actor == 0:
            desk.stored.update(keys[:2])
            return DiedError("killed")
        return Answer(done=keys)

    fake = Fake(acts)
    carried_out(fake, chunks("abcdef", "gh", "ij", "kl", "mn"), desk=desk)
    assert desk.stored == set("abcdefghijklmn")
    again = [key for _, keys in fake.asked for key in keys if key in "ab"]
    assert sorted(again) == ["a", "b"], "an image in the store was asked for again"
    assert not desk.failed
    assert desk.said == ["actor 1 on node-0 has died (killed)"]
    assert len(set(desk.taken)) == len(desk.taken), "an image was made twice"


def test_only_the_chunk_it_was_at_is_blamed() -> None:
    """The waiting one goes to another actor as it is."""
    died: list[int] = []

    def acts(actor: int, keys: tuple[str, ...]) -> Answer | DiedError:
        if not died:
            died.append(actor)
            return DiedError("killed")
        return Answer(done=keys)

    fake = Fake(acts)
    carried_out(fake, chunks("abcd", "efgh", "ijkl", "mnop"), seats=1)
    sizes = sorted(len(keys) for actor, keys in fake.asked if actor == 1)
    assert sizes == [2, 2, 4, 4, 4], "the chunk that it died at comes by batches, the others as they were"


def test_a_key_that_kills_is_found_and_its_neighbours_are_made() -> None:
    def acts(actor: int, keys: tuple[str, ...]) -> Answer | DiedError:
        return DiedError("segmentation fault") if "c" in keys else Answer(done=keys)

    desk = carried_out(Fake(acts), chunks("abcdef", "gh", "ij", "kl"))
    assert set(desk.failed) == {"c"}
    assert sorted(desk.taken) == sorted(set("abcdefghijkl") - {"c"})
    assert "actors died at it" in desk.failed["c"]
    assert "segmentation fault" in desk.failed["c"]


def test_a_key_alone_has_failed_when_it_killed_two_actors() -> None:
    fake = Fake(lambda actor, keys: DiedError("killed") if keys == ("x",) else Answer(done=keys))
    desk = carried_out(fake, chunks("x", "a", "b", "c", "d"))
    assert desk.failed == {"x": "2 actors died at it, the last one so: killed"}
    assert sum(keys == ("x",) for _, keys in fake.asked) == 2


def test_a_broken_context_is_a_death_and_its_process_is_asked_no_more() -> None:
    def acts(actor: int, keys: tuple[str, ...]) -> Answer | DiedError:
        if actor == 0:
            return Answer(done=keys[:1], broken="its CUDA context is broken")
        return Answer(done=keys)

    fake = Fake(acts)
    desk = carried_out(fake, chunks("abcd", "efgh", "ijkl"), seats=1)
    assert sorted(desk.taken) == list("abcdefghijkl")
    assert fake.ended == [0]
    assert fake.asked[0][0] == 0
    assert all(actor == 1 for actor, keys in fake.asked[2:])
    assert "CUDA context is broken" in desk.said[0]


def test_an_unfit_place_gets_nothing_more_and_others_do_its_work() -> None:
    """A full disk on one node."""

    def acts(actor: int, keys: tuple[str, ...]) -> Answer | DiedError:
        return Answer(unfit="cannot write", hint="Free some space") if actor == 0 else Answer(done=keys)

    fake = Fake(acts)
    desk = carried_out(fake, chunks("ab", "cd", "ef"))
    assert sorted(desk.taken) == list("abcdef")
    assert desk.said == ["actor 1 on node-0: cannot write. Free some space"]
    assert 0 in fake.ended
    assert list(fake.seats.values()) == [0, 1], "no actor is started again where nothing can be written"


@pytest.mark.parametrize("how", ["cannot begin", "dies"])
def test_where_no_actor_is_left_it_is_said_with_the_reason(how: str) -> None:
    bad: Facts | DiedError = DiedError("worker exit") if how == "dies" else Facts("node", "card", {}, "no weights", "Fetch them.")
    fake = Fake(facts=lambda seat: bad)
    with pytest.raises(MissingError) as caught:
        carried_out(fake, chunks("ab", "cd"))
    assert caught.value.exit_code == MISSING
    reason, hint = ("worker exit", spread.NO_MORE) if how == "dies" else ("no weights", "Fetch them.")
    assert caught.value.message == f"no actor is left: {reason}"
    assert caught.value.hint == hint
    assert len(fake.seats) == (2 * spread.DEATHS if how == "dies" else 2), "it must not start actors for ever"


def test_one_that_cannot_begin_does_not_stop_the_others() -> None:
    fake = Fake(facts=lambda seat: Facts(f"node-{seat}", "card", {}, "no weights" if seat == 0 else "", "Fetch them."))
    desk = carried_out(fake, chunks("ab", "cd", "ef"))
    assert sorted(desk.taken) == list("abcdef")
    assert {actor for actor, _ in fake.asked} == {1}


def test_an_actor_of_another_version_gets_no_work() -> None:
    fake, desk = Fake(), Desk()
    whole = Spread.of(fake, 1, desk.said.append, lambda facts: (f"torch 1 on {facts.host}, 2 here", "Install the same."))
    with pytest.raises(MissingError, match="no actor is left: torch 1 on node-0, 2 here"):
        whole.carry_out(desk.task(chunks("ab")))
    assert not fake.asked


def test_deaths_count_in_a_row_only() -> None:
    """An actor that has done something is followed by a new one however often that happens: nodes are taken away."""
    calls: list[int] = []

    def acts(actor: int, keys: tuple[str, ...]) -> Answer | DiedError:
        calls.append(actor)
        return DiedError("preempted") if len(calls) % 2 else Answer(done=keys)

    desk = carried_out(Fake(acts), [Chunk("make", (str(number), f"{number}b")) for number in range(9)], seats=1)
    assert len(desk.taken) == 18
    assert not desk.failed


def test_a_key_of_which_nothing_is_said_has_failed() -> None:
    desk = carried_out(Fake(lambda actor, keys: Answer(done=keys[1:])), chunks("abc"))
    assert desk.failed == {"a": "actor 1 on node-0 says nothing of it"}


def test_actors_stay_for_the_next_task() -> None:
    fake, desk = Fake(), Desk()
    whole = Spread.of(fake, 1, desk.said.append, lambda facts: ("", ""))
    whole.carry_out(desk.task(chunks("ab")))
    whole.carry_out(desk.task(chunks("cd")))
    assert len(fake.seats) == 1
    whole.end()
    assert fake.ended == [0]


# --- chunks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    key: str


def group(name: str, count: int) -> list[Any]:
    return [Image(f"{name}{number}") for number in range(count)]


def test_a_chunk_holds_whole_batches_of_each_recipe_in_turn() -> None:
    """A batch of a recipe is not cut: it would be padded twice. Methods stand beside each other: their times are compared."""
    made = chunks_of([group("a", 7), group("b", 7)], batch=2, batches=4)
    assert [key for chunk in made for key in chunk.keys] == [
        "a0", "a1", "b0", "b1", "a2", "a3", "b2", "b3", "a4", "a5", "b4", "b5", "a6", "b6",
    ]  # fmt: skip
    assert [len(chunk.keys) for chunk in made] == [8, 6]


def test_every_image_is_in_one_chunk() -> None:
    made = chunks_of([group("a", 100), group("b", 3), group("c", 31)], batch=16)
    keys = [key for chunk in made for key in chunk.keys]
    every = [image.key for name, count in (("a", 100), ("b", 3), ("c", 31)) for image in group(name, count)]
    assert sorted(keys) == sorted(every)
    assert all(len(chunk.keys) <= 16 * spread.CHUNK_BATCHES for chunk in made)
