"""Shards of a run on one results folder: the same images as one process makes, each once, joined by the same command."""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from srbench import files, stopping
from srbench.engine import erasing
from srbench.engine.devices import Runtime
from srbench.engine.parts import refuse_unmade
from srbench.engine.plan import plan
from srbench.engine.run import execute
from srbench.errors import MISSING, OK, SOME_FAILED, CellError, MissingError
from srbench.hashing import canonical
from srbench.results.run_files import RunResult
from srbench.results.sensitive import left_line, scoring_command
from srbench.results.store import Store
from srbench.scoring.runs import score_runs
from srbench.shards import Shard


def parts(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(1, count + 1)]


def pixels(out: Path) -> dict[str, str]:
    return {key: record["pixel_sha"] for key, record in Store.peek(out / "store").images.items()}


def lines(out: Path, kind: str) -> list[str]:
    """What every line of a ledger is about."""
    name = "key" if kind == "images" else "score_key"
    ledgers = (out / "store" / "ledger").glob(f"{kind}-*")
    return [json.loads(line)[name] for path in ledgers for line in path.read_text().splitlines()]


def numbers(done: RunResult) -> str:
    """All metrics but times."""
    return canonical([{name: repr(m) for name, m in sorted(c.metrics.items()) if name != "added_ms"} for c in done.cells])


@pytest.mark.parametrize("score", [True, False], ids=["scored", "sampled only"])
def test_shards_and_the_join_make_what_one_process_makes(score: bool, world: Any, tmp_path: Path) -> None:
    alone = world.run(out=tmp_path / "alone")
    for shard in parts(3):
        done = world.run(shard=shard, score=score)
        assert (done.run, done.cells, done.exit_code) == ("", [], OK)
    assert not list(world.out.glob("runs/*")), "a part is no run: a table of it would stand for the whole"
    stored = lines(world.out, "images")
    world.lines.clear()
    joined = world.run()
    assert world.drew_nothing()
    assert sorted(lines(world.out, "images")) == sorted(stored) == sorted(pixels(tmp_path / "alone")), "an image was made twice"
    assert pixels(world.out) == pixels(tmp_path / "alone")
    assert numbers(joined) == numbers(alone)
    assert joined.exit_code == alone.exit_code
    assert sorted(lines(world.out, "scores")) == sorted(lines(tmp_path / "alone", "scores")), "a score was made twice"
    assert len(list(world.out.glob("runs/*/run.json"))) == 1


def test_a_shard_takes_its_own_images_whatever_is_stored(world: Any) -> None:
    """The part of an image is its key's: with images there already, and with more rows, the others do not move."""
    first, second = parts(2)
    cells = plan(world.request(), world.backbone())
    own = {image.key for cell in cells for image in cell.images() if first.has(image.key)}
    world.run(limit=1, score=False)
    before = set(pixels(world.out))
    world.run(shard=first, score=False)
    assert set(pixels(world.out)) == before | own
    world.lines.clear()
    world.run(shard=first, score=False)
    assert world.drew_nothing(), "the same command again does nothing"
    world.run(shard=second, score=False)
    assert set(pixels(world.out)) == {image.key for cell in cells for image in cell.images()}


def test_a_part_lays_each_checkpoint_over_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from srbench.engine import batches

    plan(world.request(**WEIGHTS), world.backbone())  # makes the checkpoint, as an earlier `srbench erase` does
    laid: list[str] = []
    real = batches.laid_over

    def counted(pipeline: Any, checkpoint: Any) -> Any:
        laid.append(checkpoint.name if checkpoint else "none")
        return real(pipeline, checkpoint)

    monkeypatch.setattr(batches, "laid_over", counted)
    world.run(**WEIGHTS, batch_size=1, shard=Shard(1, 2), score=False)
    assert sorted(laid) == ["none", "shift"]


WEIGHTS = {"methods": ("none", "push"), "on": ("none", "shift")}


def at_once(world: Any, shards: list[Shard], say: Path, do: Callable[[Shard], object]) -> list[int]:
    """Exit codes of one process a shard, all at work at the same time; as on other machines their process ids may be equal."""
    children = []
    for shard in shards:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 99
            try:
                os.getpid = lambda: 4711  # type: ignore[method-assign]
                files._HOST = f"node-{shard.index}"
                do(shard)
                code = 0
            except BaseException as error:  # noqa: BLE001 - the child must never go on as a second test process
                say.with_name(f"{shard.index}.txt").write_text(repr(error))
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_two_shards_at_once_do_not_hurt_each_other(compared: Any, tmp_path: Path) -> None:
    """Two processes of two hosts with one process id, on one folder, with scores of pairs whose reference the other one makes."""
    alone = compared.run(out=tmp_path / "alone", scorers=("gap", "cloud"))
    codes = at_once(compared, parts(2), tmp_path, lambda shard: compared.run(shard=shard, scorers=("gap", "cloud")))
    assert codes == [0, 0], [path.read_text() for path in tmp_path.glob("*.txt")]
    assert sorted(lines(compared.out, "images")) == sorted(pixels(tmp_path / "alone")), "lost, or made twice"
    assert len(list((compared.out / "store/ledger").glob("images-*"))) == 2
    compared.lines.clear()
    joined = compared.run(scorers=("gap", "cloud"))
    assert compared.drew_nothing()
    assert pixels(compared.out) == pixels(tmp_path / "alone")
    assert numbers(joined) == numbers(alone)
    assert not list(compared.out.rglob("*.tmp"))
    assert not (compared.out / "store" / "damaged").exists()


def test_the_same_shard_twice_at_once_loses_nothing(world: Any, tmp_path: Path) -> None:
    """A task that was started again while the first one is still there: work is done twice, and nothing else happens."""
    world.run(out=tmp_path / "alone", score=False)
    codes = at_once(world, [Shard(1, 1), Shard(1, 1)], tmp_path, lambda shard: world.run(shard=shard, score=False))
    assert codes == [0, 0]
    assert pixels(world.out) == pixels(tmp_path / "alone")
    world.lines.clear()
    world.run()
    assert world.drew_nothing()


# --- what has to be there first ---------------------------------------------------------------------------------------


def commanded(world: Any, **changes: Any) -> RunResult:
    """A run as the command carries it out."""
    from srbench.engine.command import carried_out
    from srbench.engine.request import RunOptions

    request = world.request(**changes)
    return carried_out(
        RunOptions(), request, world.backbone(), Runtime(), world.lines.append, lambda: world,
        lambda what: nullcontext(lambda *told: None),
    )  # fmt: skip


@pytest.mark.parametrize(("on", "settings"), [("shift", ()), ("shift", ("shift.size=3.5",)), ("twice", ())])
def test_a_shard_names_the_command_that_makes_its_checkpoint(
    on: str, settings: tuple[str, ...], world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"methods": ("none",), "on": ("none", on), "settings": settings, "limit": 1, "score": False, "shard": Shard(1, 2)}
    with pytest.raises(MissingError) as caught:
        commanded(world, **asked)
    assert caught.value.exit_code == MISSING
    assert caught.value.message == f"shard 1/2: {on} is not made yet for box"
    assert world.shift.made == [], "sixteen shards would train it sixteen times"
    assert pixels(world.out) == {}
    words = shlex.split(caught.value.hint.removeprefix("Make it before the shards start: "))
    assert words[:3] == ["srbench", "erase", on]
    out = Path(words[words.index("--out") + 1])
    erased = erasing.EraseOptions(on, "box", "toy", out, "cpu", tuple(s.partition(".")[2] for s in settings))
    assert all(f"--set={setting}" in words for setting in erased.settings)
    monkeypatch.setattr(erasing, "Preview", lambda *given: type("None_", (), {"begin": lambda self: None, "shots": []})())
    erasing.erase(erased, world.lines.append, lambda what: nullcontext(lambda *told: None))
    assert commanded(world, **asked).exit_code == OK


def test_two_checkpoints_are_two_commands(world: Any) -> None:
    request = world.request(methods=("none",), on=("shift", "shift-more"), shard=Shard(2, 2))
    with pytest.raises(MissingError) as caught:
        refuse_unmade(plan(request, world.backbone()), request.shard)
    assert caught.value.hint.count("srbench erase ") == 2


def test_a_base_with_other_options_is_made_by_a_run(world: Any) -> None:
    """`srbench erase` has no options of a base: a command that makes another checkpoint would not help."""
    on = ("twice", "shift-more")
    request = world.request(methods=("none",), on=on, settings=("shift-more.size=4.0",), shard=Shard(2, 2))
    with pytest.raises(MissingError, match="twice is not made yet") as caught:
        refuse_unmade(plan(request, world.backbone()), request.shard)
    assert caught.value.hint == "Make it before the shards start: the same command without --shard, with --limit 1, does."


# --- the end of a shard -----------------------------------------------------------------------------------------------


def test_a_shard_is_complete_or_its_exit_code_is_not_0(world: Any) -> None:
    class Failing(world.methods["push"]):  # type: ignore[name-defined, misc]  # a class that is looked up
        @staticmethod
        def applied(*given: Any) -> Any:
            raise CellError("broken", "")

    world.methods["push"] = Failing
    done = world.run(shard=Shard(1, 1), score=False)
    assert done.exit_code == SOME_FAILED
    assert any("8 failed" in line for line in world.lines), world.lines
    assert not list(world.out.glob("runs/*"))


@pytest.mark.parametrize("shard", [None, Shard(1, 1)])
def test_an_end_that_is_asked_for_finishes_the_batch_and_its_scores(shard: Shard | None, world: Any) -> None:
    class Asking(type(world)):  # type: ignore[misc]  # a class that is looked up
        def images(self, count: int) -> None:
            super().images(count)
            if count:
                stopping.ask()

    asking = Asking(**vars(world))
    request = asking.request(batch_size=2, shard=shard)
    backbone = asking.backbone()
    with pytest.raises(KeyboardInterrupt):
        execute(request, backbone, plan(request, backbone), Store(request.out / "store"), asking)
    made = lines(world.out, "images")
    assert 0 < len(made) < 16
    assert sorted(made) == sorted(path.stem for path in world.out.glob("store/images/*/*.png"))
    assert len(lines(world.out, "scores")) == 2 * len(made), "what was sampled is scored, too"
    stopping._asked.clear()
    world.run(shard=shard)
    assert len(lines(world.out, "images")) == len(set(lines(world.out, "images"))), "the same command goes on"


def test_only_the_join_drops_pictures_of_sensitive_rows(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that dropped one could take it from another that is about to read it."""
    world.concept = world.concept.model_copy(update={"sensitive": True})
    monkeypatch.setattr("sys.argv", ["srbench", "run", "--shard", "1/2", "--sample-only", "--out", "mine"])
    for shard in parts(2):
        commanded(world, shard=shard, methods=("none",), limit=1)
    stored = pixels(world.out)
    assert len(list(world.out.glob("store/images/*/*.png"))) == len(stored) > 0
    assert any("stay until the run without --shard" in line for line in world.lines)
    assert "srbench run --out" in left_line(world.out)
    assert "--shard" not in left_line(world.out)
    world.lines.clear()
    joined = commanded(world, methods=("none",), limit=1)
    assert joined.exit_code == OK
    assert not list(world.out.rglob("*.png"))
    assert pixels(world.out) == stored
    world.lines.clear()
    for shard in parts(2):
        commanded(world, shard=shard, methods=("none",), limit=1)
    assert world.drew_nothing(), "what was scored and dropped is never drawn again"


@pytest.mark.parametrize("arguments", [
    ["run", "--shard", "1/2", "--no-score"], ["run", "--shard=auto", "--sample-only"],
    ["run", "--keep-images", "--shard", "auto"],
])  # fmt: skip
def test_the_command_that_scores_is_one_without_a_part(arguments: list[str]) -> None:
    assert scoring_command(arguments) == "srbench run"


def test_scoring_stored_runs_by_parts(compared: Any) -> None:
    """Each image's scores belong to its part; the join scores nothing more, and writes the new columns."""
    compared.run()
    for shard in parts(3):
        done = score_runs(compared.out, ["gap"], (), compared.store(), compared, shard)
        assert (done.run, done.exit_code) == ("", OK)
    assert len(list(compared.out.glob("runs/*"))) == 1
    made = lines(compared.out, "scores")
    assert len(made) == len(set(made))
    joined = score_runs(compared.out, ["gap"], (), compared.store(), compared)
    assert lines(compared.out, "scores") == made
    assert all("gap" in cell.metrics for cell in joined.cells)
