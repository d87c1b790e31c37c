"""One of several processes that carry out a run, each its part of the images: what it refuses, and what it says at its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from srbench.engine.request import Cell, RunRequest
from srbench.engine.sampling import Work
from srbench.errors import MissingError, Unmade
from srbench.results.marks import DROPPED, KEPT, SENSITIVE
from srbench.results.store import Record, Store
from srbench.scoring.scoring import Scoring
from srbench.shards import Shard


def refuse_unmade(cells: Sequence[Cell], shard: Shard | None) -> None:
    """Raises `MissingError` where a shard needs something that is not made yet, with the commands that make it.

    Shards run side by side: each of them would make it once more.
    """
    unmade = {cell.blocked.message: cell.blocked for cell in cells if isinstance(cell.blocked, Unmade)}
    if shard is None or not unmade:
        return
    commands = list(dict.fromkeys(error.command for error in unmade.values()))
    first = "Make it before the shards start:"
    once = "the same command without --shard, with --limit 1, does."
    raise MissingError(f"shard {shard}: {'; '.join(unmade)}", f"{first} {' && '.join(commands) if all(commands) else once}")


def lying(store: Store, run: str) -> list[Record]:
    """Records of the pictures of sensitive rows that a run has stored and that nobody has dropped."""
    marked = (store.images[key] for key in store.images.flagged(SENSITIVE))
    return [record for record in marked if record.get("run") == run and not record.get(DROPPED)]


def lines(
    request: RunRequest, todo: Work, failed: Mapping[str, str], scoring: Scoring, waiting: Iterable[Record]
) -> Iterator[str]:
    """What a shard says at its end: what it did, what is left of it, and what comes next."""
    left = [planned for planned in todo.missing if planned.key not in scoring.store.images]
    made = len(todo.missing) - len(left)
    done = f"shard {request.shard}: {made} images sampled, {todo.cached} were in the store"
    yield f"{done}, {len(failed)} failed" if failed else done
    unscored = len(scoring.errors) + len(scoring.missing(todo.all_wanted))
    if unscored:
        yield f"shard {request.shard}: {unscored} scores could not be made"
    if pictures := sum(not record.get(KEPT) for record in waiting):
        yield f"{pictures} pictures of sensitive rows stay until the run without --shard has scored them: it drops them"
    yield "when all shards are done, the same command without --shard and --sample-only scores what is left and writes the run"
