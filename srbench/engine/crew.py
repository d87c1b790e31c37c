"""A run's actors: what is not made yet, images and scores are handed to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from srbench.engine.batches import by_checkpoint, groups
from srbench.engine.ready import ToMake, unmade
from srbench.engine.request import Cell, RunRequest
from srbench.engine.sampler import Sampler
from srbench.engine.sampling import LARGEST_BATCH, CellsDone, Work
from srbench.engine.spread import Answer, Chunk, Facts, Task, chunks_of
from srbench.engine.team import Team
from srbench.errors import CellError, Unmade
from srbench.files import printable
from srbench.progress import Reporter
from srbench.results.store import Store
from srbench.scoring.scoring import Scoring, Wanted

SEEN_WITHIN_SECONDS = 90.0
"""How long lines of another machine's ledger are waited for: network folders cache attributes of files up to a minute."""
SCORED_AT_ONCE = 64
"""Images of a chunk that is only scored."""


class Crew(Team[RunRequest]):
    """The actors of a run."""

    worker = Sampler
    what = "run"
    mixed = "low bits of pixels may differ; --dtype fp32 differs least"

    @property
    def results(self) -> Path:
        return self.request.out

    def on(self, device: str) -> RunRequest:
        return replace(self.request, device=device)

    # --- before the plan ---

    def make_ready(self, tell: Callable[[str], None]) -> dict[ToMake, str]:
        """Make what is not made yet, side by side; returns what could not be made, with the reason."""
        lacking: dict[ToMake, str] = {}
        for stage in unmade(self.request, self.backbone):
            if not stage:
                continue
            tell(f"{len(stage)} to make first: {', '.join(each.title for each in stage)}")

            def taken(facts: Facts, chunk: Chunk, answer: Answer) -> None:
                self._took(facts, answer)
                for name in answer.done:
                    tell(f"{ToMake.of(name).title}: made on {facts.host} in {answer.seconds:.0f} s")
                for name, why in answer.failed.items():
                    fail(name, why)

            def fail(name: str, why: str) -> None:
                lacking[ToMake.of(name)] = why
                tell(f"{ToMake.of(name).title}: {why}")

            self.spread.carry_out(Task([Chunk("prepare", (each.name,)) for each in stage], taken, list, fail))
        return lacking

    # --- images ---

    def sample(self, run: str, todo: Work, cells: Sequence[Cell], scoring: Scoring, reporter: Reporter) -> dict[str, str]:
        """Have every missing image sampled, then read the store again; image key -> reason for those that failed."""
        store = scoring.store
        failed: dict[str, str] = {}
        made: set[str] = set()
        wanted = _by_name(todo.all_wanted)
        self.say = reporter.line
        reporter.begin(len(cells), len(todo.missing))
        progress = CellsDone(cells, todo.missing, reporter)

        def taken(facts: Facts, chunk: Chunk, answer: Answer) -> None:
            self._took(facts, answer)
            new = [key for key in answer.done if key not in made]
            made.update(new)
            failed.update(answer.failed)
            self.worked[facts.host, facts.card]["images"] += len(new)
            scoring.errors.update(_wanted(answer, wanted))
            reporter.images(len(new))
            progress.done({*new, *answer.failed})

        def fail(key: str, why: str) -> None:
            failed[key] = why
            reporter.line(f"image {key[:12]}: {why}")
            progress.done({key})

        def still(keys: Collection[str]) -> list[str]:
            store.refresh()
            found = [key for key in keys if key in store.images and key not in made]
            made.update(found)
            reporter.images(len(found))
            progress.done(set(found))
            return [key for key in keys if key not in made and key not in failed]

        given = run, self.how.compiles(self.request.device, len(todo.missing))
        try:
            self.spread.carry_out(Task(self._chunks(todo), taken, still, fail, self.request.batch_size, given))
        finally:
            reporter.end()
        return failed | _unseen(store, made)

    def _chunks(self, todo: Work) -> Iterator[Chunk]:
        most = min(self.request.batch_size, LARGEST_BATCH)
        for _, images in by_checkpoint(todo.missing):
            yield from chunks_of(groups(images), most)

    # --- scores ---

    def score(self, wanted: Sequence[Wanted], scoring: Scoring, reporter: Reporter) -> None:
        """Have missing scores of stored images made; why one could not be made is in `scoring.errors`."""
        keys = list(dict.fromkeys(each.image_key for each in wanted))
        by_name = _by_name(wanted)
        self.say = reporter.line

        def taken(facts: Facts, chunk: Chunk, answer: Answer) -> None:
            self._took(facts, answer)
            scoring.errors.update(_wanted(answer, by_name))

        def fail(key: str, why: str) -> None:
            scoring.errors.update({each: why for each in wanted if each.image_key == key})

        chunks = [Chunk("score", tuple(keys[at : at + SCORED_AT_ONCE])) for at in range(0, len(keys), SCORED_AT_ONCE)]
        self.spread.carry_out(Task(chunks, taken, list, fail, SCORED_AT_ONCE // 8))
        scoring.store.refresh()

    def record(self) -> list[dict[str, Any]]:
        """Who did what, for the run's file."""
        return [{"host": host, "card": card, **done} for (host, card), done in sorted(self.worked.items())]


def _by_name(wanted: Iterable[Wanted]) -> dict[tuple[str, str, str], list[Wanted]]:
    named: dict[tuple[str, str, str], list[Wanted]] = {}
    for each in wanted:
        named.setdefault((each.scorer, each.image_key, each.reference_key), []).append(each)
    return named


def _wanted(answer: Answer, by_name: Mapping[tuple[str, str, str], list[Wanted]]) -> dict[Wanted, str]:
    return {each: why for name, why in answer.unscored.items() for each in by_name.get(name, ())}


def _unseen(store: Store, made: Collection[str]) -> dict[str, str]:
    """Read the store until it has every image that was made; those that never come have failed."""
    until, pause = time.monotonic() + SEEN_WITHIN_SECONDS, 1.0
    while True:
        store.refresh()
        unseen = [key for key in made if key not in store.images]
        if not unseen or time.monotonic() > until:
            return dict.fromkeys(unseen, "an actor has made it, and it is not in the results folder: is that a shared one?")
        time.sleep(pause)
        pause = min(2 * pause, 15.0)


def tell_unmade(cells: Sequence[Cell], lacking: Mapping[ToMake, str]) -> None:
    """Put the reason into cells that wait for something that the actors could not make."""
    for cell in cells:
        if not isinstance(cell.blocked, Unmade):
            continue
        for to_make, why in lacking.items():
            if cell.concept.name in to_make.concept.split(",") and {to_make.method or to_make.on} & {cell.method, cell.on}:
                cell.blocked = CellError(f"{to_make.title}: {printable(why)}")
                break
