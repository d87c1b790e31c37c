"""The partition: every key in exactly one part, whatever else there is; and what a scheduler's variables come to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench import stopping
from srbench.errors import UsageError
from srbench.shards import Shard, part_of, shard_of

KEYS = st.lists(st.binary(max_size=8).map(lambda data: hashlib.sha256(data).hexdigest()), unique=True, max_size=60)
COUNTS = st.integers(1, 40)


@settings(deadline=None)
@given(keys=KEYS, count=COUNTS)
def test_every_key_is_in_exactly_one_part(keys: list[str], count: int) -> None:
    parts = [{key for key in keys if Shard(index, count).has(key)} for index in range(1, count + 1)]
    assert sum(map(len, parts)) == len(keys)
    assert set().union(*parts) == set(keys)


@settings(deadline=None)
@given(keys=KEYS, more=KEYS, count=COUNTS, data=st.data())
def test_a_part_depends_neither_on_order_nor_on_what_else_there_is(
    keys: list[str], more: list[str], count: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(1, count))
    shuffled = data.draw(st.permutations([*keys, *more]))
    alone = {key for key in keys if Shard(index, count).has(key)}
    assert {key for key in shuffled if Shard(index, count).has(key)} & set(keys) == alone


def test_parts_are_of_nearly_equal_size() -> None:
    keys = [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(8000)]
    sizes = [sum(Shard(index, 16).has(key) for key in keys) for index in range(1, 17)]
    assert min(sizes) > 400, "500 are expected in each"
    assert max(sizes) < 600


def test_the_part_of_a_key_is_pinned() -> None:
    """A shard that is started again, by a later version too, must find its own images."""
    keys = [hashlib.sha256(bytes([i])).hexdigest() for i in range(6)]
    assert [part_of(key, 4) for key in keys] == [1, 2, 1, 4, 4, 4]
    assert {part_of(key, 1) for key in keys} == {1}


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "part"), [(None, None), ("1/1", Shard(1, 1)), ("3/16", Shard(3, 16))])
def test_a_part_by_its_number(text: str | None, part: Shard | None) -> None:
    assert shard_of(text, {}) == part


@pytest.mark.parametrize(("text", "problem"), [
    ("3/2", "there is no part 3 of 2"), ("0/0", "a run has 1 to"), ("0/4", "there is no part 0 of 4"),
    ("1/9999999", "a run has 1 to"),
    ("1", "expected I/N or auto"), ("", "expected I/N or auto"), ("-1/2", "expected"), ("1/2/3", "expected"), ("a/b", "expected"),
    ("Auto", "expected"), ("1/2\x1b[31m", "expected"), ("9" * 5000 + "/2", "expected"),
])  # fmt: skip
def test_anything_else_is_one_line_with_a_hint(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        shard_of(text, {})
    assert caught.value.hint
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 120


ARRAY = {"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_MAX": "13"}


@pytest.mark.parametrize(("variables", "part"), [
    (ARRAY, "3/4"),
    ({**ARRAY, "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_MAX": "16"}, "2/4"),
    ({**ARRAY, "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "RANK": "5", "WORLD_SIZE": "8"}, "3/4"),  # the array counts first
    ({**ARRAY, "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}, "6/8"),  # two processes in each task
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "RANK": "1", "WORLD_SIZE": "2"}, "1/8"),
    ({"RANK": "1", "WORLD_SIZE": "2"}, "2/2"),
])  # fmt: skip
def test_auto_reads_the_array_else_the_process_else_torch(variables: dict[str, str], part: str) -> None:
    assert str(shard_of("auto", variables)) == part


@pytest.mark.parametrize(("variables", "problem"), [
    ({}, "none of SLURM_ARRAY_TASK_ID, SLURM_PROCID and RANK is set"),
    ({"RANK": "1"}, "WORLD_SIZE is not set"),
    ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK is x"),
    ({"RANK": "2", "WORLD_SIZE": "2"}, "there is no part 3 of 2"),
    ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT is not set"),
    ({**ARRAY, "SLURM_ARRAY_TASK_MAX": "19"}, "not evenly spaced"),  # --array=10,12,13,19: the place of 12 is not known
    ({**ARRAY, "SLURM_ARRAY_TASK_STEP": "3", "SLURM_ARRAY_TASK_MAX": "19"}, "not evenly spaced"),
])  # fmt: skip
def test_auto_without_what_it_needs_says_so(variables: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        shard_of("auto", variables)
    assert caught.value.message.startswith("--shard auto")
    assert caught.value.hint


@settings(deadline=None)
@given(count=st.integers(1, 30), processes=st.integers(1, 4), first=st.integers(0, 9))
def test_the_tasks_of_an_array_come_to_every_part_once(count: int, processes: int, first: int) -> None:
    parts = [
        shard_of("auto", {
            "SLURM_ARRAY_TASK_ID": str(first + task), "SLURM_ARRAY_TASK_COUNT": str(count), "SLURM_ARRAY_TASK_MIN": str(first),
            "SLURM_PROCID": str(number), "SLURM_STEP_NUM_TASKS": str(processes),
        })
        for task in range(count) for number in range(processes)
    ]  # fmt: skip
    assert [str(part) for part in parts] == [f"{i}/{count * processes}" for i in range(1, count * processes + 1)]


# --- ending between two batches ---------------------------------------------------------------------------------------


def _ended(*steps: Callable[[], None]) -> list[int]:
    """The steps that were taken before the work ended, as a run would take them."""
    taken = []
    try:
        with stopping.patient():
            for number, step in enumerate(steps):
                step()
                taken.append(number)
    except KeyboardInterrupt:
        return taken
    return [*taken, -1]


def _nothing() -> None:
    assert stopping.waits()


def test_an_end_that_is_asked_for_waits_for_the_next_check() -> None:
    assert _ended(_nothing, stopping.ask, _nothing, stopping.check, _nothing) == [0, 1, 2]
    assert not stopping.waits()
    assert _ended(_nothing, stopping.check) == [0, 1, -1], "it was heard, once"


def test_what_came_after_the_last_check_is_heard_at_the_end() -> None:
    assert _ended(stopping.check, stopping.ask) == [0, 1]


def test_an_error_is_not_hidden_by_an_end_that_was_asked_for() -> None:
    def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        _ended(stopping.ask, broken)
    assert _ended(stopping.check) == []


def test_other_threads_go_on() -> None:
    ended = list[None]()

    def beside() -> None:
        thread = threading.Thread(target=lambda: ended.append(stopping.check()))
        thread.start()
        thread.join()

    assert _ended(stopping.ask, beside, stopping.check) == [0, 1]
    assert ended == [None]
