"""What a run asks of a Ray cluster, and what it refuses, without starting one."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.engine import actor, cluster
from srbench.engine.cluster import Look, Node, Resources, places_of, resources_of, strangers
from srbench.engine.devices import Runtime
from srbench.engine.spread import Facts
from srbench.engine.worker import same_versions, versions
from srbench.errors import MISSING, USAGE, MissingError, UsageError
from tests.hands import HAS_RAY, without_ray


def ran(*more: str) -> Any:
    return CliRunner().invoke(app, ["run", "--method", "none", "--suite", "igmu", "--concept", "church", "--limit", "1", *more])


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "problem"), [
    (("--ray", "auto", "--shard", "1/2"), "--ray and --shard both divide a run"),
    (("--ray", "auto", "--gpus", "0"), "--ray and --gpus both say what to run on"),
    (("--ray-gpus", "0.5"), "--ray-gpus and --ray-cpus say what an actor of Ray takes"),
    (("--ray-cpus", "2"), "--ray-gpus and --ray-cpus say what an actor of Ray takes"),
    (("--ray", "auto", "--ray-gpus", "-1"), "--ray-gpus -1: expected a share of a card, or a whole number"),
    (("--ray", "auto", "--ray-gpus", "1.5"), "--ray-gpus 1.5: expected"),
    (("--ray", "auto", "--ray-gpus", "nan"), "--ray-gpus nan: expected"),
    (("--ray", "auto", "--ray-cpus", "0"), "--ray-cpus 0: expected more than 0"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_one_line(more: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    done = ran(*more, "--out", str(tmp_path / "out"))
    assert done.exit_code == USAGE
    said = done.stderr.splitlines()
    assert said[0].startswith(f"error: {problem}"), done.stderr
    assert said[1].startswith("hint: ")
    assert not (tmp_path / "out" / "store").exists()


@pytest.mark.parametrize("more", [("--ray", "auto"), ("--gpus", "cpu,cpu")])
def test_without_the_extra_the_command_that_installs_it_is_said(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_ray(monkeypatch)
    done = ran(*more, "--out", str(tmp_path))
    assert done.exit_code == MISSING
    assert "needs Ray, which is not installed" in done.stderr
    assert "hint: pip install 'srbench[ray]'" in done.stderr


def test_one_device_needs_no_ray(monkeypatch: pytest.MonkeyPatch, world: Any) -> None:
    without_ray(monkeypatch)
    assert Runtime(devices=("cuda:0",)).ray == ""
    assert world.run(limit=1, methods=("none",)).exit_code == 0


# --- an address -------------------------------------------------------------------------------------------------------


def nobody() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@HAS_RAY
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_answers_is_said_at_once(scheme: str, tmp_path: Path) -> None:
    address = f"{scheme}{nobody()}"
    done = ran("--ray", address, "--out", str(tmp_path))
    assert done.exit_code == MISSING
    assert done.stderr.splitlines()[0].startswith(f"error: --ray {address}: nobody answers (")
    assert "hint: Start one there (ray start --head)" in done.stderr


@HAS_RAY
@pytest.mark.parametrize("address", ["somewhere", "node:", ":6379", "node:0", "node:99999", "ray://node"])
def test_what_is_no_address_is_a_usage_error(address: str, tmp_path: Path) -> None:
    done = ran("--ray", address, "--out", str(tmp_path))
    assert done.exit_code == USAGE
    assert f"--ray {address}: expected auto, local, HOST:PORT" in done.stderr


# --- places -----------------------------------------------------------------------------------------------------------

CPU, SMALL, LARGE = Node("1", "head", 4, 0), Node("2", "a", 8, 2, "A100"), Node("3", "b", 64, 8, "H100")


def test_actors_take_a_card_where_there_are_any_and_a_core_where_not() -> None:
    assert resources_of([CPU], None, None, "auto") == Resources("cpu", 0.0, 1.0, True)
    assert resources_of([CPU, SMALL], None, None, "auto") == Resources("cuda", 1.0, 1.0, True)
    assert resources_of([CPU, SMALL], None, 2.0, "cpu") == Resources("cpu", 0.0, 2.0, True)
    assert not resources_of([Node("4", "old", 8, 1, "T4"), SMALL], None, None, "auto").bf16


@pytest.mark.parametrize(("gpus", "cpus", "count"), [
    (1.0, 1.0, 10), (0.25, 1.0, 8 + 32), (0.3, 1.0, 6 + 24), (2.0, 1.0, 5), (0.0, 1.0, 76), (0.0, 3.0, 1 + 2 + 21),
    (1.0, 8.0, 1 + 8),
])  # fmt: skip
def test_places_are_what_the_nodes_have_room_for(gpus: float, cpus: float, count: int) -> None:
    seats = places_of([CPU, SMALL, LARGE], Resources("cuda" if gpus else "cpu", gpus, cpus, True))
    assert len(seats.each) == count
    assert f"room for {count} actors" in seats.line
    assert ("mixed cards: A100, H100" in seats.line) == bool(gpus)
    assert all(place.threads == (0 if gpus else max(1, int(cpus))) for place in seats.each)


@pytest.mark.parametrize(("gpus", "cpus"), [(1.0, None), (0.0, 5.0)])
def test_more_than_any_node_has_is_missing(gpus: float, cpus: float | None) -> None:
    with pytest.raises(MissingError, match="no node has") as caught:
        resources_of([CPU], gpus, cpus, "auto")
    assert "the most are 0 cards, 4 cores" in caught.value.message


@pytest.mark.parametrize(("gpus", "device"), [(0.0, "cuda"), (1.0, "cpu")])
def test_a_device_that_the_actors_do_not_have_is_a_usage_error(gpus: float, device: str) -> None:
    with pytest.raises(UsageError, match=f"--device {device}"):
        resources_of([SMALL], gpus, None, device)


def test_the_cards_that_were_named_are_the_ones_that_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    with cluster._visible(["cuda:0", "cuda:2"]):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,7"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with cluster._visible(["cuda:1"]):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_no_token_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_HUB_TOKEN_X", "HF_HOME", "SECRET"):
        monkeypatch.setenv(name, "x")
    passed = cluster._environment()
    assert passed["HF_HOME"] == "x"
    assert not [name for name in passed if "TOKEN" in name or name == "SECRET"]


def test_signals_stay_ours_whatever_a_library_does_with_them() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with cluster._handlers_kept():
        signal.signal(signal.SIGTERM, lambda *given: None)
    assert signal.getsignal(signal.SIGTERM) is before


# --- nodes ------------------------------------------------------------------------------------------------------------

SAME = {"probe": "p", "sha256": "ab", "versions": {"torch": "2"}}


@pytest.mark.parametrize(("look", "unseen", "problem"), [
    (Look("b", **SAME), (), ""),
    (Look("b", **SAME), ("p",), "out is not a shared folder: nodes b"),
    (Look("b", **{**SAME, "versions": {"torch": "1"}}), (), "torch 1 on b, 2 here"),
    (Look("b", **{**SAME, "versions": {}}), (), "torch none on b, 2 here"),
    (Look("b", **{**SAME, "sha256": "cd"}), (), "other weights of 'toy' on b (cd, here ab)"),
    (Look("b", problem="/x is not there", hint="Start in a shared folder."), (), "b: /x is not there"),
])  # fmt: skip
def test_nodes_that_cannot_work_on_one_run(look: Look, unseen: tuple[str, ...], problem: str) -> None:
    refusal = strangers([Look("a", {"torch": "2"}, "ab", "q"), look], {"torch": "2"}, "toy", "ab", unseen, Path("out"))
    assert (refusal.message if refusal else "") == problem
    assert refusal is None or (refusal.exit_code == MISSING and refusal.hint)


def test_a_node_looks_at_itself(world: Any) -> None:
    """Its probe is in the store; the driver finds it there and takes it away."""
    import pickle

    store = world.out / "store"
    store.mkdir(parents=True)
    told = Look(**actor.look({}, os.getcwd(), pickle.dumps((world.spec, world.out))))
    assert told.sha256 == world.backbone().sha256
    assert told.versions == versions()
    assert [path.name for path in store.iterdir()] == [told.probe]
    assert cluster._unseen([told.probe], world.out) == []
    assert not list(store.iterdir())


def test_a_node_without_the_folder_says_so(world: Any, tmp_path: Path) -> None:
    import pickle

    given = pickle.dumps((world.spec, tmp_path / "nowhere"))
    assert "cannot write to" in Look(**actor.look({}, os.getcwd(), given)).problem
    assert not (tmp_path / "nowhere").exists(), "a folder of its own would hide that it is not shared"
    assert "is not there" in Look(**actor.look({}, str(tmp_path / "gone"), given)).problem
    gone = actor.Actor({}, str(tmp_path / "gone"), b"")
    assert "has to be a shared one" in gone.ready().problem


def test_a_probe_of_another_machine_may_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        (tmp_path / "store" / "late").touch()

    monkeypatch.setattr(time, "sleep", sleep)
    assert cluster._unseen(["late"], tmp_path) == []
    monkeypatch.setattr(cluster, "SEEN_WITHIN_SECONDS", 0.0)
    assert cluster._unseen(["never"], tmp_path) == ["never"]
    assert naps


def test_an_actor_of_other_versions_may_not_work() -> None:
    own = versions()
    assert same_versions(Facts("b", "card", own)) == ("", "")
    assert same_versions(Facts("b", "card", {**own, "torch": "1.0"}))[0] == f"torch 1.0 on b, {own['torch']} here"


@pytest.mark.parametrize(("text", "said"), [
    ("It is dead. Worker exit type: X Worker exit detail: End of file. Some common causes include: (1)", "End of file."),
    ("Traceback:\n  File\nValueError: no", "ValueError: no"), ("", "RuntimeError"),
])  # fmt: skip
def test_why_an_actor_has_died_is_one_short_line(text: str, said: str) -> None:
    assert cluster._reason(RuntimeError(text)) == said


def test_the_process_of_a_broken_context_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer goes out first. Ray would go on to send it chunks."""
    from srbench.engine.spread import Answer

    ended, left = list[int](), threading.Event()

    def leave(code: int) -> None:
        ended.append(code)
        left.set()

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(actor, "LEAVES_AFTER_SECONDS", 0.0)
    told = actor.Actor.__new__(actor.Actor)
    assert told._left(Answer(done=("a",))).done == ("a",)
    assert not ended
    assert told._left(Answer(broken="its CUDA context is broken")).broken
    assert left.wait(60)
    assert ended == [1]
