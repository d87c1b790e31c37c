"""Ray: reaching a cluster or starting one on this machine, the places for actors on it, and what has to be the same on its nodes.

This is the only file that imports Ray, and only inside of its functions: it is an extra.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srbench.catalog.specs import BackboneSpec
from srbench.engine.actor import Actor, look
from srbench.engine.devices import Runtime, cards_here, is_cuda
from srbench.engine.spread import READY, DiedError
from srbench.engine.worker import DIFFERS, SHARE, Given, versions
from srbench.errors import MissingError, SrbenchError, UsageError
from srbench.files import printable

LOCAL, AUTO = "local", "auto"
"""Addresses: a Ray of this command's own on this machine; the cluster that this machine belongs to."""
INSTALL = "pip install 'srbench[ray]'"
ANSWERS_WITHIN_SECONDS = 5.0
"""How long an address is tried."""
STARTS = 3
"""Times that a Ray of our own is started: it gives its agents 15 s, and a busy machine may need longer."""
LOOKS_WITHIN_SECONDS = 300.0
"""How long nodes may take to say what they are: they import torch, and hash the backbone."""
SEEN_WITHIN_SECONDS = 60.0
"""How long a file of another machine may stay unseen on a shared folder, as network folders cache what a folder holds."""
OBJECTS_BYTES = 100 * 2**20
"""Of the object store of a Ray of our own; only keys and numbers go through it."""
PASSED_ON = ("HF_", "XDG_CACHE_HOME", "CUBLAS_WORKSPACE_CONFIG", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS")
"""Beginnings of names of environment variables that actors get from the driver; no token is."""
WITHOUT_BF16 = ("K80", "P4", "P40", "P100", "T4", "V100", "T4G")
"""Cards, as Ray calls them, that have no bf16."""
ACCELERATOR = "accelerator_type:"
"""Begins the name of a node's resource that says which card it has."""


@dataclass(frozen=True)
class Place:
    """What one actor takes."""

    device: str
    gpus: float
    cpus: float
    threads: int
    """Of a CPU actor; 0 for one with a card."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    host: str
    cpus: float
    gpus: float
    card: str = ""


@dataclass(frozen=True)
class Seats:
    """The places for a command's actors."""

    each: tuple[Place, ...]
    nodes: tuple[Node, ...] = ()
    cards: tuple[str, ...] = ()
    """Of this machine, `cuda:0`, ...: where no cluster is used."""
    line: str = ""
    """For people; empty for cards of this machine."""


# --- reaching it ------------------------------------------------------------------------------------------------------


_ours: list[None] = []
"""Not empty while a connection of ours is open."""


def _ray(option: str) -> Any:
    """The library. Raises `MissingError` with the command that installs it."""
    if importlib.util.find_spec("ray") is None:
        raise MissingError(f"{option} needs Ray, which is not installed", INSTALL)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    return ray


def check_installed(option: str) -> None:
    """Raises `MissingError` with the command that installs Ray where it is not there."""
    if importlib.util.find_spec("ray") is None:
        raise MissingError(f"{option} needs Ray, which is not installed", INSTALL)


def reach(address: str) -> None:
    """Connect to a cluster; nothing where this process is connected already.

    Raises `MissingError` where nobody answers, within some seconds.
    """
    ray = _ray("--ray")
    if ray.is_initialized():
        return
    _try(address)
    mend = "Start one (ray start --head), give the address of one that runs, or leave --ray out."
    with _handlers_kept():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises many kinds
            raise MissingError(f"--ray {printable(address)}: nobody answers ({_first(error)})", mend) from error
    _ours.append(None)


def start_here(cpus: int, cards: Sequence[str] = ()) -> None:
    """Start a Ray of our own on this machine, which ends with this process. cards: `cuda:1`, ... that it may use."""
    ray = _ray("--gpus with several devices")
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray says that this will be so
    os.environ.setdefault("RAY_worker_niceness", "0")  # else actors wait for everything else on the machine
    with _handlers_kept(), _visible(cards):
        for attempt in range(1, STARTS + 1):
            try:
                ray.init(
                    address=LOCAL, num_cpus=cpus, num_gpus=len(cards), include_dashboard=False, log_to_driver=False,
                    logging_level=logging.ERROR, object_store_memory=OBJECTS_BYTES,
                )  # fmt: skip
                break
            except Exception as error:  # Ray raises many kinds
                ray.shutdown()
                if attempt == STARTS:
                    what = f"Ray cannot be started here: {_first(error)}"
                    raise MissingError(what, "Free some memory or processors, or use one device.") from error
    _ours.append(None)


def leave() -> None:
    """End the connection, if it is ours; a Ray that was started here ends with it."""
    if _ours and "ray" in sys.modules:
        _ours.clear()
        with _handlers_kept():
            sys.modules["ray"].shutdown()


def _try(address: str) -> None:
    """Raises `MissingError` where nobody listens at an address; those without a host are left to Ray."""
    asked = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    host, colon, port = asked.removeprefix("ray://").rpartition(":")
    if asked in (AUTO, LOCAL):
        return
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--ray {printable(asked)}: expected auto, local, HOST:PORT or ray://HOST:PORT", "Example: --ray auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS_WITHIN_SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        hint = "Start one there (ray start --head), or give the address of one that runs."
        raise MissingError(f"--ray {printable(asked)}: nobody answers ({why})", hint) from error


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put handlers of signals back that Ray replaces: the command ends in its own way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    before = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names if hasattr(signal, name)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def _visible(cards: Sequence[str]) -> Iterator[None]:
    """Let what is started inside see these cards alone."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [int(card.partition(":")[2] or 0) for card in cards]
    known = before.split(",") if before else []
    shown = [known[number] if number < len(known) else str(number) for number in numbers]
    try:
        if cards:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(shown)
        yield
    finally:
        if cards:
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            os.environ |= {"CUDA_VISIBLE_DEVICES": before} if before is not None else {}


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0])[:200] if lines else type(error).__name__


# --- its places -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resources:
    """What actors take, and where."""

    device: str
    gpus: float
    cpus: float
    bf16: bool
    """Whether all cards have it, as far as Ray names them."""


def check_shares(gpus: float | None, cpus: float | None) -> None:
    """Raises `UsageError` for a share of a card or a number of cores that no actor can have."""
    if gpus is not None and not (math.isfinite(gpus) and gpus >= 0 and (gpus <= 1 or gpus == int(gpus))):
        raise UsageError(f"--ray-gpus {gpus:g}: expected a share of a card, or a whole number of cards", "Example: 0.25, 1, 2")
    if cpus is not None and not (math.isfinite(cpus) and cpus > 0):
        raise UsageError(f"--ray-cpus {cpus:g}: expected more than 0", "Example: --ray-cpus 2")


def nodes() -> list[Node]:
    """The machines of the cluster that this process is connected to."""
    return [
        Node(
            each["NodeID"], each.get("NodeManagerHostname") or each["NodeManagerAddress"],
            each["Resources"].get("CPU", 0.0), each["Resources"].get("GPU", 0.0),
            next((name.removeprefix(ACCELERATOR) for name in each["Resources"] if name.startswith(ACCELERATOR)), ""),
        )
        for each in sys.modules["ray"].nodes() if each["Alive"]
    ]  # fmt: skip


def resources_of(found: Sequence[Node], gpus: float | None, cpus: float | None, device: str) -> Resources:
    """What each actor takes: a card where there are any, else a core. Raises `MissingError` where no node has that."""
    cards = [node for node in found if node.gpus > 0]
    if gpus is None:
        gpus = 0.0 if device == "cpu" or not cards else 1.0
    if device == "cuda" and gpus == 0:
        raise UsageError("--device cuda: --ray-gpus 0 gives actors no card", "Leave one of them out.")
    if device == "cpu" and gpus > 0:
        raise UsageError("--device cpu: --ray-gpus gives actors a card", "Leave one of them out.")
    taken = Resources(
        "cuda" if gpus else "cpu", gpus, 1.0 if cpus is None else cpus, all(node.card not in WITHOUT_BF16 for node in cards)
    )
    if not any(_fit(node, taken) for node in found):
        what = f"{gpus:g} cards and " if gpus else ""
        cores, most = (max((getattr(node, name) for node in found), default=0.0) for name in ("cpus", "gpus"))
        there = f"the most are {most:g} cards, {cores:g} cores"
        hint = "Ask for less by --ray-gpus and --ray-cpus."
        raise MissingError(f"no node has {what}{taken.cpus:g} cores for an actor: {there}", hint)
    return taken


def _fit(node: Node, taken: Resources) -> int:
    """How many actors a node has room for."""
    by_cpu = math.floor(node.cpus / taken.cpus + 1e-6)
    if not taken.gpus:
        return by_cpu
    by_card = node.gpus // taken.gpus if taken.gpus >= 1 else node.gpus * math.floor(1 / taken.gpus + 1e-6)
    return min(by_cpu, int(by_card))


def places_of(found: Sequence[Node], taken: Resources) -> Seats:
    """A place for every actor that the nodes have room for."""
    used = [node for node in found if _fit(node, taken)]
    place = Place(taken.device, taken.gpus, taken.cpus, 0 if taken.gpus else max(1, int(taken.cpus)))
    count = sum(_fit(node, taken) for node in used)
    each = f"{taken.gpus:g} of a card" if taken.gpus and taken.gpus < 1 else f"{taken.gpus:g} cards" if taken.gpus else ""
    each = ", ".join(filter(None, [each, f"{taken.cpus:g} cores"]))
    cards = sorted({node.card for node in used if node.card}) if taken.gpus else []
    mixed = f"; mixed cards: {', '.join(cards)}" if len(cards) > 1 else ""
    return Seats((place,) * count, tuple(used), line=f"ray: room for {count} actors on {len(used)} nodes, {each} each{mixed}")


@contextmanager
def connected(how: Runtime) -> Iterator[Seats]:
    """The places for actors. The Ray of `--gpus` is started when it is first needed, and ends with the block."""
    try:
        if how.devices:
            yield _places_here(how.devices)
        else:
            start_here(os.cpu_count() or 1, cards_here()) if how.ray == LOCAL else reach(how.ray)
            found = nodes()
            yield places_of(found, resources_of(found, how.ray_gpus, how.ray_cpus, "auto"))
    finally:
        leave()


def _places_here(devices: Sequence[str]) -> Seats:
    import torch

    threads = max(1, torch.get_num_threads() // len(devices))
    places = (Place("cuda", 1.0, 1.0, 0) if is_cuda(device) else Place("cpu", 0.0, 1.0, threads) for device in devices)
    return Seats(tuple(places), cards=tuple(filter(is_cuda, devices)))


# --- its nodes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What a node says of itself before work."""

    host: str
    versions: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    probe: str = ""
    """Name of a file that it wrote into the results' store."""
    problem: str = ""
    hint: str = ""


def strangers(
    looks: Iterable[Look], own: Mapping[str, str], name: str, sha256: str, unseen: Iterable[str], out: Path
) -> SrbenchError | None:
    """Why a cluster's nodes cannot work together; None where they can.

    own: versions here. unseen: probes that nobody sees here.
    """
    looks, unseen = list(looks), set(unseen)
    for each in looks:
        if each.problem:
            return MissingError(f"{each.host}: {each.problem}", each.hint)
    apart = sorted({each.host for each in looks if each.probe in unseen})
    if apart:
        return MissingError(f"{out} is not a shared folder: nodes {', '.join(apart)}", SHARE)
    for each in looks:
        for what, version in own.items():
            if each.versions.get(what) != version:
                return MissingError(f"{what} {each.versions.get(what, 'none')} on {each.host}, {version} here", DIFFERS)
        if each.sha256 != sha256:
            weights = f"other weights of '{name}' on {each.host} ({each.sha256[:12]}, here {sha256[:12]})"
            return MissingError(weights, "Fetch the same revision on every node.")
    return None


def refuse_strangers(how: Runtime, seats: Seats, spec: BackboneSpec, sha256: str, out: Path) -> None:
    """Let every node write a probe into the results folder and say what it has.

    Raises `MissingError` where a node does not answer, does not share the folder, or has other versions or weights.
    """
    if how.ray == LOCAL:
        return
    (out / "store").mkdir(parents=True, exist_ok=True)
    ray = sys.modules["ray"]
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task, given = ray.remote(look), pickle.dumps((spec, out))
    asked = {}
    for node in seats.nodes:
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        on_it = task.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        asked[on_it.remote(_environment(), os.getcwd(), given)] = node
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=LOOKS_WITHIN_SECONDS)
    if late:
        hosts = ", ".join(sorted(asked[ref].host for ref in late))
        late_by = f"within {LOOKS_WITHIN_SECONDS:.0f} s"
        raise MissingError(f"nodes that do not answer {late_by}: {hosts}", "Take them from the cluster.")
    looks = []
    for ref in ready:
        try:
            looks.append(Look(**ray.get(ref)))
        except Exception as error:  # noqa: BLE001 - whatever happened on the node
            looks.append(Look(asked[ref].host, problem=_reason(error), hint="Is srbench installed there?"))
    unseen = _unseen([each.probe for each in looks if each.probe], out)
    refusal = strangers(looks, versions(), spec.name, sha256, unseen, out)
    if refusal is not None:
        raise refusal


def _unseen(probes: Sequence[str], out: Path) -> list[str]:
    """Probes that are not seen here; the others are removed."""
    until, left = time.monotonic() + SEEN_WITHIN_SECONDS, list(probes)
    while left:
        names = {entry.name for entry in os.scandir(out / "store")}  # a folder is listed afresh, a file's absence is remembered
        for probe in [probe for probe in left if probe in names]:
            with suppress(OSError):
                (out / "store" / probe).unlink()
            left.remove(probe)
        if not left or time.monotonic() > until:
            break
        time.sleep(1.0)
    return left


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON) and "TOKEN" not in name}


# --- its actors -------------------------------------------------------------------------------------------------------


class RayHands:
    """`Hands` of a cluster."""

    def __init__(self, given: Callable[[int], Given[Any]], seats: Seats) -> None:
        self.given, self.seats, self.ray = given, seats, sys.modules["ray"]
        self.kind = self.ray.remote(Actor)

    def start(self, seat: int) -> Any:
        place = self.seats.each[seat]
        kind = self.kind.options(num_cpus=place.cpus, num_gpus=place.gpus, max_restarts=0, max_task_retries=0)
        return kind.remote(_environment(), os.getcwd(), pickle.dumps(self.given(seat)))

    def ask(self, handle: Any, call: str, *given: Any) -> Any:
        return handle.ready.remote() if call == READY else handle.do.remote(call, *given)

    def first(self, refs: Sequence[Any]) -> Sequence[Any]:
        ready: list[Any] = []
        while not ready:  # so that a signal is heard within a second
            ready, _ = self.ray.wait(list(refs), num_returns=1, timeout=1.0)
        ready, _ = self.ray.wait(list(refs), num_returns=len(refs), timeout=0)
        return list(ready)

    def answer(self, ref: Any) -> Any:
        try:
            return self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            raise DiedError(_reason(error)) from error

    def end(self, handle: Any) -> None:
        with suppress(Exception):  # it has ended, or the cluster has
            self.ray.kill(handle, no_restart=True)


def hands_of(given: Callable[[int], Given[Any]], seats: Seats) -> RayHands:
    """Actors on the cluster that this process is connected to; for cards of this machine a Ray is started now."""
    if not seats.nodes:
        start_here(len(seats.each), seats.cards)
    return RayHands(given, seats)


def _reason(error: BaseException) -> str:
    """What Ray says of the end of an actor, on one line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {_first(cause)}"
    detail = str(error).partition("Worker exit detail: ")[2].partition(" Some common causes")[0]
    lines = (detail or str(error)).strip().splitlines()
    return printable(lines[0] if detail else lines[-1])[:300] if lines else type(error).__name__
