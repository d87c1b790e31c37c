"""A run whose images are sampled and scored by actors: the same as one process makes, each once, whatever becomes of an actor.

The actors are those that Ray starts, in this process: `tests/engine/test_ray.py` has the same with Ray.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from srbench.engine import crew as crews
from srbench.engine import sampler as samplers
from srbench.engine import worker as workers
from srbench.engine.cluster import Place, Seats
from srbench.engine.command import _planned
from srbench.engine.crew import Crew
from srbench.engine.devices import Runtime
from srbench.engine.run import execute
from srbench.engine.sampler import Sampler
from srbench.engine.spread import Facts
from srbench.engine.worker import Given
from srbench.errors import MISSING, OK, SOME_FAILED, CellError, MissingError, SrbenchError
from srbench.hashing import canonical
from srbench.results.run_files import RunResult
from srbench.results.store import Store
from tests.hands import Ends, Here


@dataclass
class Cluster:
    """Runs of the toy world by two actors."""

    world: Any
    hands: list[Here] = field(default_factory=list)

    def run(self, ends: Ends = lambda actor, call, keys: None, interrupt_after: int = 10**9, **changes: Any) -> RunResult:
        request = self.world.request(**changes)
        backbone, how = self.world.backbone(), Runtime(ray="auto")

        def start(given: Callable[[int], Given[Any]], seats: Seats) -> Here:
            self.hands.append(Here(given, ends, interrupt_after=interrupt_after))
            return self.hands[-1]

        crew = Crew(request, backbone, how, Seats((Place("cpu", 0, 1, 0),) * 2), self.world.lines.append, start)
        store = Store(request.out / "store", self.world.lines.append)
        cells = _planned(request, backbone, crew, self.world.lines.append, lambda what: nullcontext(lambda *told: None))
        try:
            return execute(request, backbone, cells, store, self.world, how, crew=crew)
        finally:
            crew.end()

    @property
    def actors(self) -> list[Any]:
        return [actor for hands in self.hands for actor in hands.actors]


@pytest.fixture
def cluster(world: Any, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(workers, "open_backbone", lambda spec, dtype, device: world.backbone(dtype))
    monkeypatch.setattr(samplers, "AGAIN_SECONDS", ())
    monkeypatch.setattr(crews, "SEEN_WITHIN_SECONDS", 0.0)
    return Cluster(world)


def pixels(out: Path) -> dict[str, str]:
    return {key: record["pixel_sha"] for key, record in Store.peek(out / "store").images.items()}


def lines(out: Path, kind: str) -> list[str]:
    """What every line of a ledger is about."""
    name = "key" if kind == "images" else "score_key"
    ledgers = (out / "store" / "ledger").glob(f"{kind}-*")
    return sorted(json.loads(line)[name] for path in ledgers for line in path.read_text().splitlines())


def numbers(done: RunResult) -> str:
    """All metrics but times."""
    return canonical([{name: repr(m) for name, m in sorted(c.metrics.items()) if name != "added_ms"} for c in done.cells])


def saved(out: Path) -> dict[str, Any]:
    (path,) = out.glob("runs/*/run.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def once(out: Path) -> bool:
    """Whether every image and score was made once."""
    return all(len(found) == len(set(found)) for found in (lines(out, "images"), lines(out, "scores")))


def test_actors_make_what_one_process_makes(cluster: Cluster, tmp_path: Path) -> None:
    alone = cluster.world.run(out=tmp_path / "alone", batch_size=2)
    done = cluster.run(batch_size=2)
    out = cluster.world.out
    assert pixels(out) == pixels(tmp_path / "alone")
    assert lines(out, "scores") == lines(tmp_path / "alone", "scores")
    assert once(out)
    assert numbers(done) == numbers(alone)
    assert done.exit_code == alone.exit_code == OK
    records = Store.peek(out / "store").images.values()
    assert {record["batch"] // samplers.APART for record in records} == {1, 2}, "one of the two did nothing"
    assert len({record["run"] for record in records}) == 1
    assert all(record["host"] for record in records)
    (actors,) = saved(out)["actors"]
    assert actors["images"] == len(pixels(out))
    assert saved(out)["runtime"]["ray"] == "auto"
    cluster.world.lines.clear()
    cluster.run(batch_size=2)
    assert cluster.world.drew_nothing()
    assert len(cluster.hands) == 1, "actors were started for nothing"


def test_only_keys_numbers_and_reasons_are_sent(cluster: Cluster) -> None:
    """Ray's object store spills what is large; the smallest picture here has 192 bytes, the weights 100 thousand."""
    cluster.run(batch_size=2)
    (hands,) = cluster.hands
    assert len(hands.sent) > 6
    assert max(hands.sent) < 5000, hands.sent


def test_an_actor_that_is_killed_in_mid_chunk_costs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    alone = cluster.world.run(out=tmp_path / "alone", batch_size=2)
    done = cluster.run(lambda actor, call, keys: 2 if actor == 1 and call == "make" else None, batch_size=2)
    out = cluster.world.out
    assert "has died (killed)" in " ".join(cluster.world.lines)
    assert pixels(out) == pixels(tmp_path / "alone")
    assert once(out), "the store was not read before the dead actor's keys were asked for again"
    assert numbers(done) == numbers(alone)
    assert done.exit_code == OK
    assert len(cluster.actors) >= 2


def test_a_driver_that_is_interrupted_goes_on_with_the_same_command(cluster: Cluster, tmp_path: Path) -> None:
    alone = cluster.world.run(out=tmp_path / "alone", batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        cluster.run(interrupt_after=3, batch_size=2)
    out = cluster.world.out
    stored = lines(out, "images")
    assert 0 < len(stored) < len(pixels(tmp_path / "alone"))
    assert not list(out.glob("runs/*/run.json"))
    done = cluster.run(batch_size=2)
    assert pixels(out) == pixels(tmp_path / "alone")
    assert once(out)
    assert numbers(done) == numbers(alone)


def test_an_image_that_kills_is_recorded_as_failed_with_the_reason(cluster: Cluster) -> None:
    poison = sorted(_keys(cluster))[3]
    done = cluster.run(lambda actor, call, keys: 0 if call == "make" and poison in keys else None, batch_size=2)
    assert set(pixels(cluster.world.out)) == _keys(cluster) - {poison}
    assert done.exit_code == SOME_FAILED
    assert "actors died at it, the last one so: killed" in canonical(saved(cluster.world.out))


def _keys(cluster: Cluster, **changes: Any) -> set[str]:
    from srbench.engine.plan import plan

    cells = plan(cluster.world.request(**changes), cluster.world.backbone())
    return {image.key for cell in cells for image in cell.images()}


def test_scores_of_pairs_that_two_actors_made(compared: Any, cluster: Cluster, tmp_path: Path) -> None:
    alone = compared.run(out=tmp_path / "alone", scorers=("gap", "cloud"), batch_size=2)
    done = cluster.run(scorers=("gap", "cloud"), batch_size=2)
    assert numbers(done) == numbers(alone)
    assert lines(compared.out, "scores") == lines(tmp_path / "alone", "scores")
    assert done.exit_code == OK


def test_scores_that_cannot_be_made_are_not_tried_again_by_the_driver(compared: Any, cluster: Cluster) -> None:
    type(compared).broken = False
    compared.scorers["gap"].broken = True
    done = cluster.run(scorers=("gap",), batch_size=2, methods=("none",))
    assert done.exit_code == SOME_FAILED
    tried = compared.scorers["gap"].calls
    pairs = sum(row.reference is not None for cell in done.cells for row in compared.rows.rows if row.kind == "forget")
    assert 0 < tried <= 4 * pairs, "each pair is tried in its batch and alone, by one actor"


def test_checkpoints_are_made_by_actors_the_one_below_first(cluster: Cluster, tmp_path: Path) -> None:
    asked = {"methods": ("none",), "on": ("none", "shift", "shift-more", "twice")}
    alone = cluster.world.run(out=tmp_path / "alone", **asked)
    cluster.world.shift.made.clear()
    done = cluster.run(**asked)
    assert len(cluster.world.shift.made) == 3, "shift, shift-more, and shift-more with the base's options; each once"
    assert pixels(cluster.world.out) == pixels(tmp_path / "alone")
    assert numbers(done) == numbers(alone)
    order = [line.partition(": made on")[0] for line in cluster.world.lines if ": made on" in line]
    assert order[0] == "what is below twice for box"
    assert sorted(order[1:]) == ["shift for box", "shift-more for box", "twice for box"]


def test_a_checkpoint_that_cannot_be_made_blocks_its_cells_with_the_reason(cluster: Cluster) -> None:
    tried: list[str] = []

    class Failing(cluster.world.methods["shift"]):  # type: ignore[name-defined, misc]  # a class that is looked up
        @staticmethod
        def erase(*given: Any) -> Any:
            tried.append("")
            raise CellError("no such layer", "")

    cluster.world.methods["shift"] = Failing
    done = cluster.run(methods=("none",), on=("none", "shift"))
    assert tried == [""], "training for hours is not tried again by the driver"
    assert done.exit_code == SOME_FAILED
    assert "no such layer" in canonical(saved(cluster.world.out))
    assert len(pixels(cluster.world.out)) == len(_keys(cluster, methods=("none",)))


def test_only_the_driver_drops_sensitive_pictures(cluster: Cluster) -> None:
    cluster.world.concept = cluster.world.concept.model_copy(update={"sensitive": True})
    done = cluster.run(methods=("none",), batch_size=2)
    assert done.exit_code == OK
    assert not list(cluster.world.out.rglob("*.png"))
    cluster.world.lines.clear()
    cluster.run(methods=("none",), batch_size=2)
    assert cluster.world.drew_nothing(), "what was scored and dropped is never drawn again"


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_full_disk_on_one_node(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.world.run(out=tmp_path / "alone", batch_size=2)
    real, full = Store.put_images, list[Store]()

    def put(self: Store, items: Any) -> Any:
        if self is (full or [full.append(self) or self])[0]:
            raise SrbenchError(f"cannot write to {self.root} (No space left on device)", "Free some space.")
        return real(self, items)

    monkeypatch.setattr(Store, "put_images", put)
    done = cluster.run(batch_size=2)
    assert done.exit_code == OK
    assert pixels(cluster.world.out) == pixels(tmp_path / "alone")
    told = [line for line in cluster.world.lines if "No space left" in line]
    assert len(told) == 1
    assert told[0].endswith("Free some space.")


def test_a_full_disk_everywhere_is_one_line_and_nothing_is_lost(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = Store.put_images, [1]

    def put(self: Store, items: Any) -> Any:
        if not room:
            raise SrbenchError("cannot write to the store (No space left on device)", "Free some space.")
        room.pop()
        return real(self, items)

    monkeypatch.setattr(Store, "put_images", put)
    with pytest.raises(MissingError) as caught:
        cluster.run(batch_size=2)
    assert caught.value.exit_code == MISSING
    assert caught.value.line == "no actor is left: cannot write to the store (No space left on device). Free some space."
    stored = lines(cluster.world.out, "images")
    assert len(stored) == 2
    monkeypatch.setattr(Store, "put_images", real)
    assert cluster.run(batch_size=2).exit_code == OK
    assert once(cluster.world.out)


def test_a_broken_context_fails_no_image(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images that failed in the broken process are made by another one."""
    cluster.world.run(out=tmp_path / "alone", batch_size=2)

    class Breaks(cluster.world.methods["push"]):  # type: ignore[name-defined, misc]  # a class that is looked up
        calls = 0

        @staticmethod
        def applied(*given: Any) -> Any:
            Breaks.calls += 1
            if 2 <= Breaks.calls <= 5:
                raise RuntimeError("CUDA error: device-side assert triggered")
            return cluster.world.methods["push"].__mro__[1].applied(*given)

    cluster.world.methods["push"] = Breaks
    monkeypatch.setattr(
        workers, "broken_context", lambda device: "its CUDA context is broken" if 2 <= Breaks.calls <= 5 else ""
    )
    done = cluster.run(batch_size=2)
    assert any("its CUDA context is broken" in line for line in cluster.world.lines)
    assert done.exit_code == OK, saved(cluster.world.out)
    assert set(pixels(cluster.world.out)) == set(pixels(tmp_path / "alone"))


def test_an_actor_with_a_broken_context_does_nothing_more(cluster: Cluster) -> None:
    cluster.run(methods=("none",), limit=1)
    actor = cluster.actors[0]
    actor.broken = "its CUDA context is broken"
    for answer in (actor.make("run", False, ("x",)), actor.score(("x",)), actor.prepare(("x",))):
        assert (answer.done, answer.broken) == ((), "its CUDA context is broken")


def facts(cluster: Cluster, **changes: Any) -> Facts:
    world = cluster.world
    values = {
        "spec": world.spec, "request": world.request(), "how": Runtime(ray="auto"), "sha256": world.backbone().sha256,
        "worker": Sampler, "device": "cpu", "dtype": "fp32",
    }  # fmt: skip
    return Sampler(Given(**{**values, "threads": 0, "number": 1, **changes})).facts


def test_an_actor_that_cannot_load_the_backbone_says_why(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert facts(cluster).problem == ""
    assert "other weights of 'toy'" in facts(cluster, sha256="0" * 64).problem
    assert facts(cluster, sha256="0" * 64).hint == "Fetch the same revision on every node."

    def missing(*given: Any) -> Any:
        raise MissingError("backbone 'toy' is not on this machine", "Fetch it: hf download nobody/nothing")

    monkeypatch.setattr(workers, "open_backbone", missing)
    told = facts(cluster)
    assert (told.problem, told.hint) == ("backbone 'toy' is not on this machine", "Fetch it: hf download nobody/nothing")
    with pytest.raises(MissingError, match="no actor is left: backbone 'toy' is not on this machine"):
        cluster.run()


def test_a_node_that_plans_other_images_does_not_fail_them(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its suites or plug-ins differ: its work goes to the others."""
    real, planned = samplers.plan, list[int]()

    def other(*given: Any, **more: Any) -> Any:
        planned.append(0)
        return [] if len(planned) <= 1 else real(*given, **more)

    monkeypatch.setattr(samplers, "plan", other)
    done = cluster.run(batch_size=2)
    assert done.exit_code == OK
    assert any("images of this run are not planned here" in line for line in cluster.world.lines)


def test_images_that_never_come_to_the_results_folder_have_failed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A node whose results folder is another one: what it made is not here, whatever it says."""
    real = samplers.Store
    monkeypatch.setattr(samplers, "Store", lambda root, say, **more: real(tmp_path / "elsewhere", say, **more))
    done = cluster.run(methods=("none",), limit=1)
    assert done.exit_code == SOME_FAILED
    assert "is that a shared one?" in canonical(saved(cluster.world.out))


def test_mixed_cards_are_said_once_and_recorded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = iter(["A100", "H100", "H100", "H100"])
    real = workers.here
    monkeypatch.setattr(workers, "here", lambda *given: Facts("node", next(cards), real().versions))
    cluster.run(batch_size=2)
    told = [line for line in cluster.world.lines if line.startswith("mixed cards")]
    assert len(told) == 1
    assert "A100, H100" in told[0]
    assert [each["card"] for each in saved(cluster.world.out)["actors"]] == ["A100", "H100"]
