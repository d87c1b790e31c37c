"""A search by actors writes what one process writes, byte for byte, whatever becomes of an actor or of the driver.

The actors are in this process: `tests/engine/test_ray.py` has the same with Ray.
"""

from __future__ import annotations

import importlib.util
import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from typer.testing import CliRunner

from srbench.attacks import base, command, search, searcher
from srbench.attacks.base import Adversarial, groups, seed_of
from srbench.attacks.command import AttackOptions
from srbench.catalog import load, plugins
from srbench.catalog.contracts import check
from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.cli.main import app
from srbench.engine import worker
from srbench.errors import MISSING, USAGE, MissingError, UsageError
from srbench.hashing import digest
from srbench.methods.base import quiet
from tests.hands import HAS_RAY, Ends, Here, search_here, without_ray

COUNT, GROUP = 22, 4


class Hum:
    """An attack whose results hang on the target, its number, its group, the seed and the victim's weights."""

    meta: ClassVar[dict[str, Any]] = {
        "name": "hum", "version": 1, "title": "t", "needs": "defended pipeline", "output": "prompt", "objective": "o",
        "better": "higher",
    }  # fmt: skip
    bad: ClassVar[dict[str, Exception]] = {}
    """Target -> what is raised at it."""
    searched: ClassVar[list[int]] = []
    """Numbers of the first targets of groups, as they were searched."""

    class Settings(base.Settings):
        seed: int = 0
        parallel: int = GROUP

    @classmethod
    def attack(
        cls, victim: Any, targets: Sequence[Any], settings: Any, progress: Any = None, first: int = 0
    ) -> Iterator[Adversarial]:
        state = victim.pipeline.unet.state_dict()
        weights = next(float(state[name].sum()) for name in state if name.endswith("attn2.to_out.0.bias"))
        for part in groups(len(targets), settings.parallel):
            cls.searched.append(first + part.start)
            together = [row.prompt for row in targets[part]]
            for number, row in enumerate(targets[part], first + part.start):
                if row.prompt in cls.bad:
                    raise cls.bad[row.prompt]
                seed = seed_of(settings.seed, number)
                drawn = torch.rand(3, generator=torch.Generator().manual_seed(seed))
                vector = drawn[None] if cls.meta["output"] == "embedding" else None
                word = digest([together, row.prompt, weights, victim.defence is not None])[:12]
                yield Adversarial(row.prompt, word, float(drawn[0]), seed, float(drawn[1]), tuple(drawn.tolist()), vector)


class Hymn(Hum):
    """The same, with an embedding for each target."""

    meta: ClassVar[dict[str, Any]] = {**Hum.meta, "name": "hymn", "output": "embedding"}


@dataclass
class Hunt:
    """Searches in the toy world, alone and by two actors."""

    world: Any
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    said: list[str] = field(default_factory=list)
    hands: list[Here] = field(default_factory=list)

    def alone(self, name: str = "alone", **changes: Any) -> search.Attacked:
        """A search by one process; it writes `NAME.json`."""
        return self._search(name, **changes)

    def spread(
        self, name: str, ends: Ends = lambda *given: None, interrupt_after: int = 10**9, **changes: Any
    ) -> search.Attacked:
        """By two actors."""
        Hum.searched.clear()
        self.hands = search_here(self.monkeypatch, ends, interrupt_after)
        return self._search(name, gpus="cpu,cpu", **changes)

    def _search(self, name: str, attack: str = "hum", **changes: Any) -> search.Attacked:
        values = {"name": attack, "targets": self.folder / "targets.txt", "out": self.folder / f"{name}.json", **changes}
        asked = AttackOptions(concept="box", backbone="toy", checkpoints=self.folder / "store" / "checkpoints", **values)
        backbone = self.world.backbone()
        return command.attack(asked, self.said.append, lambda what: nullcontext(quiet), lambda *given: backbone)

    def bytes_of(self, name: str) -> bytes:
        return (self.folder / f"{name}.json").read_bytes()

    def part(self, name: str) -> list[str]:
        """Targets in `FILE.part`, in order."""
        path = self.folder / f"{name}.json.part"
        return [json.loads(line)["target"] for line in path.read_text().splitlines()[1:]] if path.exists() else []


@pytest.fixture
def hunt(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hunt]:
    own = {"hum": Hum, "hymn": Hymn}
    known, found = plugins.plugins, plugins.load
    metas = {name: plugins.Plugin("", check("attacks", cls.meta, name)) for name, cls in own.items()}
    monkeypatch.setattr(plugins, "plugins", lambda kind: {**known(kind), **(metas if kind == "attacks" else {})})
    monkeypatch.setattr(plugins, "load", lambda kind, name: own[name] if name in own else found(kind, name))
    # On a real backbone no prompt may be made for what is sensitive: there has to be such a concept to compare with.
    words = ConceptWords(names=("peril",), words=("peril",), protocol="bright")
    barred = ConceptSpec(name="barred", title="t", kind="object", sensitive=True, families={"toy": words})
    monkeypatch.setattr(load, "concepts", lambda: {"box": world.concept, "barred": barred})
    monkeypatch.setattr(worker, "open_backbone", lambda spec, dtype, device: world.backbone(dtype))
    monkeypatch.setattr(Hum, "bad", {})
    (tmp_path / "targets.txt").write_text("\n".join(f"a box number {number}" for number in range(COUNT)))
    threads = torch.get_num_threads()
    yield Hunt(world, tmp_path, monkeypatch)
    torch.set_num_threads(threads)


def killed(*starts: int, actor: int | None = None) -> Ends:
    """Ends an actor at a group that begins with one of these targets: each time, or only that actor."""
    return lambda who, call, keys: (
        0 if call == "search" and set(keys) & set(map(str, starts)) and actor in (None, who) else None
    )


# --- the same file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {}, {"method": "push"}, {"on": "shift"}, {"settings": ("parallel=3",), "seed": 5, "with_targets": True}, {"limit": 3},
])  # fmt: skip
def test_two_actors_write_what_one_process_writes(hunt: Hunt, changes: dict[str, Any]) -> None:
    alone = hunt.alone(**changes)
    done = hunt.spread("spread", **changes)
    assert hunt.bytes_of("spread") == hunt.bytes_of("alone")
    assert done.found == alone.found
    assert not list(hunt.folder.glob("*.part"))
    (hands,) = hunt.hands
    assert len(hands.actors) == (1 if "limit" in changes else 2)
    size = 3 if "settings" in changes else GROUP
    assert sorted(Hum.searched) == list(range(0, changes.get("limit", COUNT), size)), "the driver has searched, or one was twice"


def test_the_victim_matters(hunt: Hunt) -> None:
    """Else the tests above would say nothing of it."""
    hunt.alone("plain")
    hunt.alone("defended", method="push")
    hunt.alone("shifted", on="shift")
    rows = [json.loads(hunt.bytes_of(name))["rows"][0]["prompt"] for name in ("plain", "defended", "shifted")]
    assert len(set(rows)) == 3


def test_embeddings_come_back_bit_by_bit(hunt: Hunt) -> None:
    hunt.alone(attack="hymn")
    hunt.spread("spread", attack="hymn")
    one, two = (json.loads(hunt.bytes_of(name)) for name in ("alone", "spread"))
    assert one.pop("meta") | {"embeddings": ""} == two.pop("meta") | {"embeddings": ""}
    assert one == two
    tensors = [(hunt.folder / f"{name}.safetensors").read_bytes() for name in ("alone", "spread")]
    assert tensors[0] == tensors[1]


def test_only_names_numbers_and_what_was_found_are_sent(hunt: Hunt) -> None:
    """The weights have 100 thousand bytes."""
    hunt.spread("spread", method="push", on="shift")
    (hands,) = hunt.hands
    assert len(hands.sent) > 6
    assert max(hands.sent) < 5000, hands.sent


def test_a_checkpoint_that_is_not_there_is_made_by_an_actor(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = hunt.world.shift.erase

    def erase(info: Any, *more: Any) -> Any:
        made.append(info)
        return real(info, *more)

    monkeypatch.setattr(hunt.world.shift, "erase", staticmethod(erase))
    hunt.spread("spread", on="shift")
    (hands,) = hunt.hands
    assert len(made) == 1
    assert made[0].pipeline is hands.actors[0].backbone.pipeline, "the driver has trained"
    assert "to make first: shift is not made yet for box" in hunt.said
    hunt.alone(on="shift")
    assert hunt.bytes_of("spread") == hunt.bytes_of("alone")
    assert len(made) == 1


def test_a_checkpoint_that_cannot_be_made_is_one_error_with_the_reason(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any) -> Any:
        raise ZeroDivisionError("no such layer")

    monkeypatch.setattr(hunt.world.shift, "erase", staticmethod(failing))
    with pytest.raises(search.SrbenchError, match=r"its victim could not be made: .*no such layer"):
        hunt.spread("spread", on="shift")


def test_how_long_it_takes_is_said_after_the_first_group(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "TOLD_FROM_S", -1.0)
    hunt.spread("spread")
    assert sum(line.startswith("the search takes about") and "with 2 actors" in line for line in hunt.said) == 1


# --- actors that end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 8, 20])
def test_what_a_dead_actor_had_is_searched_by_another(hunt: Hunt, start: int) -> None:
    """Others are done before the first group: the file is in order all the same."""
    hunt.alone()
    died: list[int] = []

    def once(actor: int, call: str, keys: tuple[str, ...]) -> int | None:
        if call == "search" and str(start) in keys and not died:
            died.append(actor)
            return 0
        return None

    done = hunt.spread("spread", once)
    assert died
    assert "has died (killed)" in " ".join(hunt.said)
    assert not done.failed
    assert hunt.bytes_of("spread") == hunt.bytes_of("alone")
    assert sorted(set(Hum.searched)) == sorted(Hum.searched), "a group that was there was searched again"


def test_a_group_that_kills_two_actors_has_failed_with_the_reason(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    """That says nothing of the attack, which is not given up for it."""
    monkeypatch.setattr(search, "GIVE_UP", 3)
    hunt.alone()
    done = hunt.spread("spread", killed(8))
    assert done.failed == ("2 actors died at it, the last one so: killed",) * GROUP
    saved, alone = (json.loads(hunt.bytes_of(name)) for name in ("spread", "alone"))
    assert saved["meta"]["failed"] == GROUP
    assert saved["rows"] == alone["rows"][:8] + alone["rows"][12:]


def test_where_no_actor_is_left_it_is_said_and_what_was_found_stays(hunt: Hunt) -> None:
    hunt.alone()
    with pytest.raises(MissingError) as caught:
        hunt.spread("spread", lambda actor, call, keys: None if keys == ("0",) else 0)
    assert caught.value.exit_code == MISSING
    assert caught.value.line == "no actor is left: killed. Run the same command again: nothing that was made is lost."
    assert hunt.part("spread") == [f"a box number {number}" for number in range(GROUP)]
    assert not (hunt.folder / "spread.json").exists()
    assert any(line.startswith("actor 1 on ") and "no other is started in its place" in line for line in hunt.said)
    assert hunt.spread("spread").resumed == GROUP
    assert hunt.bytes_of("spread") == hunt.bytes_of("alone")


def test_a_group_of_a_broken_context_is_searched_by_another(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in it is not counted as failed."""
    hunt.alone()
    real, calls = Hum.attack, list[int]()

    def breaks(*given: Any, **more: Any) -> Any:
        calls.append(0)
        if len(calls) == 2:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return real(*given, **more)

    monkeypatch.setattr(Hum, "attack", staticmethod(breaks))
    monkeypatch.setattr(worker, "broken_context", lambda device: "its CUDA context is broken" if len(calls) == 2 else "")
    done = hunt.spread("spread")
    assert any("its CUDA context is broken" in line for line in hunt.said)
    assert not done.failed
    assert hunt.bytes_of("spread") == hunt.bytes_of("alone")
    answer = next(actor for actor in hunt.hands[0].actors if actor.broken).search("", {}, ("0",))
    assert (answer.done, answer.broken) == ((), "its CUDA context is broken")


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["actors", "one process"])
def test_an_interrupted_search_of_actors_goes_on(hunt: Hunt, by: str) -> None:
    hunt.alone()
    with pytest.raises(KeyboardInterrupt):
        hunt.spread("spread", interrupt_after=5)
    there = hunt.part("spread")
    assert there == [f"a box number {number}" for number in range(len(there))]
    assert 0 < len(there) < COUNT
    done = hunt.spread("spread") if by == "actors" else hunt.alone("spread")
    assert done.resumed == len(there)
    assert min(Hum.searched[-1:] if by != "actors" else Hum.searched) >= len(there) // GROUP * GROUP
    assert hunt.bytes_of("spread") == hunt.bytes_of("alone")


@pytest.mark.parametrize("after", [1, GROUP, 7])
def test_actors_go_on_where_one_process_was_interrupted(hunt: Hunt, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a group: it is searched whole, and what is there stays as it is."""
    hunt.alone()
    added = search.Part.add

    def stop(self: search.Part, found: Any) -> None:
        added(self, found)
        if len(hunt.part("spread")) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(search.Part, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        hunt.alone("spread")
    monkeypatch.setattr(search.Part, "add", added)
    assert hunt.spread("spread").resumed == after
    assert sorted(Hum.searched) == list(range(after // GROUP * GROUP, COUNT, GROUP))
    assert hunt.bytes_of("spread") == hunt.bytes_of("alone")


# --- attacks that fail ------------------------------------------------------------------------------------------------


def test_the_targets_that_an_attack_fails_on_are_those_of_one_process(hunt: Hunt) -> None:
    Hum.bad["a box number 9"] = ZeroDivisionError("no")
    alone, done = hunt.alone(), hunt.spread("spread")
    assert len(alone.failed) == 3, "those of its group that came before it stay"
    assert done.failed == alone.failed
    assert hunt.bytes_of("spread") == hunt.bytes_of("alone")


def test_an_attack_that_fails_again_and_again_is_given_up(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "GIVE_UP", 6)
    Hum.bad |= {f"a box number {number}": ZeroDivisionError("no") for number in (4, 8)}
    alone = hunt.alone()
    done = hunt.spread("spread")
    assert (len(alone.found), len(alone.failed)) == (4, COUNT - 4)
    assert done.failed == alone.failed
    assert hunt.bytes_of("spread") == hunt.bytes_of("alone")
    assert max(Hum.searched) < 20, "the last groups were searched in vain"


def test_an_attack_that_does_not_go_with_its_victim_is_a_usage_error(hunt: Hunt) -> None:
    Hum.bad["a box number 0"] = UsageError("hum does not go with toys", "Choose another.")
    with pytest.raises(UsageError) as alone:
        hunt.alone()
    with pytest.raises(UsageError) as spread:
        hunt.spread("spread")
    assert spread.value.exit_code == USAGE
    assert spread.value.line == alone.value.line == "hum does not go with toys. Choose another."


# --- nodes that differ ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_node_with_other_targets_searches_nothing(hunt: Hunt, monkeypatch: pytest.MonkeyPatch, everywhere: bool) -> None:
    hunt.alone()
    real, read = searcher.targets_of, list[int]()

    def other(*given: Any) -> Any:
        read.append(0)
        rows, *more = real(*given)
        return (rows[1:] if everywhere or len(read) == 1 else rows, *more)

    monkeypatch.setattr(searcher, "targets_of", other)
    problem = "this would be another search here: targets_sha256"
    if everywhere:
        with pytest.raises(MissingError, match=f"no actor is left: {problem}"):
            hunt.spread("spread")
        return
    hunt.spread("spread")
    assert any(problem in line for line in hunt.said)
    assert hunt.bytes_of("spread") == hunt.bytes_of("alone")


def test_a_node_with_other_code_of_the_attack_searches_nothing(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter(["driver", *["node"] * 4])
    monkeypatch.setattr(search.code, "source_of", lambda kind, name: next(codes) if kind == "attacks" else "")
    with pytest.raises(MissingError, match="no actor is left: this would be another search here: the attack's code"):
        hunt.spread("spread", limit=1)


def test_an_actor_without_the_backbone_says_why(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hunt.world.backbone

    class Other:
        sha256 = "0" * 64

    monkeypatch.setattr(worker, "open_backbone", lambda *given: Other())
    with pytest.raises(MissingError, match=f"no actor is left: other weights of 'toy' \\(000000000000, not {real().sha256[:12]}"):
        hunt.spread("spread")


# --- options ----------------------------------------------------------------------------------------------------------

MMA = ("attack", "mma", "--concept", "church", "--suite", "igmu", "--dev", "--limit", "1")


def nobody() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def refused(code: int, tmp_path: Path, *more: str) -> list[str]:
    """The lines on stderr from the error on."""
    done = CliRunner().invoke(app, [*MMA, *more, "--out", str(tmp_path / "x.json")])
    assert done.exit_code == code, done.stderr
    assert not list(tmp_path.glob("x.json*"))
    lines = done.stderr.splitlines()
    return lines[next(place for place, line in enumerate(lines) if line.startswith("error: ")) :]


@pytest.mark.parametrize(("more", "problem"), [
    (("--ray", "auto", "--gpus", "0"), "--ray and --gpus both say what to run on"),
    (("--gpus", "0", "--device", "cpu"), "--gpus and --device both say what to run on"),
    (("--gpus", "x"), "--gpus x: 'x' is no number of a card"),
    (("--gpus", "99"), "--gpus 99: no card 99"),
    (("--ray-gpus", "0.5"), "--ray-gpus and --ray-cpus say what an actor of Ray takes"),
    (("--ray", "auto", "--ray-gpus", "1.5"), "--ray-gpus 1.5: expected"),
    (("--ray", "auto", "--ray-cpus", "0"), "--ray-cpus 0: expected more than 0"),
    pytest.param(("--ray", "somewhere"), "--ray somewhere: expected auto, local, HOST:PORT", marks=HAS_RAY),
    pytest.param(("--ray", "auto", "--device", "tpu"), "unknown device 'tpu'", marks=HAS_RAY),
])  # fmt: skip
def test_options_that_do_not_go_together_are_one_line(more: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    said = refused(USAGE, tmp_path, *more)
    assert said[0].startswith(f"error: {problem}")
    assert said[1].startswith("hint: ")


@pytest.mark.parametrize("more", [("--ray", "auto"), ("--gpus", "cpu,cpu")])
def test_without_the_extra_the_command_that_installs_it_is_said(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_ray(monkeypatch)
    said = refused(MISSING, tmp_path, *more)
    assert "needs Ray, which is not installed" in said[0]
    assert said[1] == "hint: pip install 'srbench[ray]'"


@HAS_RAY
def test_an_address_where_nobody_answers_is_said_at_once(tmp_path: Path) -> None:
    address = nobody()
    said = refused(MISSING, tmp_path, "--ray", address)
    assert said[0].startswith(f"error: --ray {address}: nobody answers (")
    assert said[1].startswith("hint: Start one there (ray start --head)")


def test_one_device_needs_no_ray(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *given: None)
    hunt.alone(gpus="cpu", limit=1)
    assert len(json.loads(hunt.bytes_of("alone"))["rows"]) == 1


def test_an_attack_of_this_session_cannot_be_imported_by_actors(hunt: Hunt, monkeypatch: pytest.MonkeyPatch) -> None:
    real = plugins.plugins
    session = {"hum": plugins.Plugin(plugins.SESSION, real("attacks")["hum"].meta)}
    monkeypatch.setattr(plugins, "plugins", lambda kind: {**real(kind), **(session if kind == "attacks" else {})})
    with pytest.raises(UsageError, match="'hum' was registered in this process, and its workers cannot import it"):
        hunt.spread("spread")


def test_relearning_takes_them_to_its_run() -> None:
    from srbench.attacks.lessons import planned

    run = planned(AttackOptions("relearn", "church", on="uce", out=Path("r"), ray="auto", ray_gpus=0.5, ray_cpus=2), "0,8", False)
    assert (run.ray, run.ray_gpus, run.ray_cpus, run.gpus) == ("auto", 0.5, 2, None)
