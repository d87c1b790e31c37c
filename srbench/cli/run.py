"""`srbench run` and `--dry-run`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srbench.analysis.results import ResultCell
from srbench.backbones.choose import chosen
from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog.prompts import chosen_columns
from srbench.catalog.settings import check_seed
from srbench.catalog.specs import BackboneSpec
from srbench.cli import console
from srbench.cli.console import say
from srbench.cli.progress import reporter, telling
from srbench.engine.devices import COMPILE, Runtime, device_of, devices_of, dtype_of, is_cuda
from srbench.engine.memory import DEFAULT_BATCH
from srbench.engine.plan import plan
from srbench.engine.request import Cell, RunRequest
from srbench.errors import UsageError, did_you_mean
from srbench.outputs import check_results
from srbench.results.sensitive import left_line, tend
from srbench.results.store import Store


@dataclass(frozen=True)
class Asked:
    """The command's options as typed."""

    backbone: str
    methods: tuple[str, ...]
    on: tuple[str, ...]
    suites: tuple[str, ...]
    concepts: tuple[str, ...]
    dev: bool
    limit: int | None
    seed: int
    batch_size: int | None
    dtype: str
    device: str
    settings: tuple[str, ...]
    protocol: str | None
    scorers: tuple[str, ...]
    out: Path
    score: bool
    keep_images: bool
    prompts: Path | None
    accept_prompts: bool
    categories: tuple[str, ...]
    reference: bool = False
    compile: str = "auto"
    gpus: str | None = None
    sheet: bool = False
    sweep: str | None = None
    columns: tuple[str, ...] = ()


REFERENCE = {"dtype": "fp32", "batch_size": 1, "compile": "off"}
"""What `--reference` stands for, beside deterministic kernels."""


def _referenced(asked: Asked) -> Asked:
    """With the options that `--reference` stands for. Raises `UsageError` where another value was asked for."""
    if not asked.reference:
        return asked
    for name, value in REFERENCE.items():
        if getattr(asked, name) not in (None, "auto", value):
            raise UsageError(f"--reference is {value} in --{name.replace('_', '-')}", "Leave one of the two out.")
    return replace(asked, dtype="fp32", batch_size=1, compile="off")


def _runtime(asked: Asked, devices: tuple[str, ...], device: str) -> Runtime:
    if asked.compile not in COMPILE:
        raise UsageError(f"unknown --compile '{asked.compile}'", did_you_mean(asked.compile, COMPILE))
    if asked.compile == "on" and not is_cuda(device):
        raise UsageError("--compile on: only CUDA devices compile here", "Leave it out.")
    return Runtime(devices, asked.compile, asked.reference, fit_batch=asked.batch_size is None)


def _named(asked: Asked) -> BackboneSpec:
    """The backbone's spec; of `auto` the one that can carry the run, with what there is to say of it."""
    from srbench.engine import auto

    if asked.backbone != auto.AUTO:
        return chosen(asked.backbone)
    cuda = is_cuda(device_of(asked.device))
    choice = auto.choose(auto.Asked(
        asked.methods, asked.suites, asked.concepts, "dev" if asked.dev else "test", asked.settings, asked.prompts, cuda
    ))  # fmt: skip
    for line in choice.lines:
        say(line)
    return chosen(choice.name)


def resolve(asked: Asked) -> tuple[RunRequest, Backbone, Runtime]:
    """Check the plain options and resolve what is `auto` or left out."""
    asked = _referenced(asked)
    for name, value in (("--limit", asked.limit), ("--batch-size", asked.batch_size)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: expected 1 or more", "Leave it out for the default.")
    check_seed(asked.seed)
    if asked.gpus is not None and asked.device != "auto":
        raise UsageError("--gpus and --device both say what to run on", "Give one of them.")
    if asked.columns and asked.prompts is None:
        raise UsageError("--column says how a file of yours is read", "Add --prompts FILE.")
    devices = devices_of(asked.gpus) if asked.gpus is not None else ()
    device = devices[0] if devices else device_of(asked.device)
    how = _runtime(asked, devices, device)
    spec = _named(asked)
    dtype = dtype_of(asked.dtype, device)
    request = RunRequest(
        backbone=spec.name, methods=asked.methods, on=asked.on, suites=asked.suites,
        concepts=asked.concepts or spec.concepts[:1], part="dev" if asked.dev else "test", limit=asked.limit, seed=asked.seed,
        batch_size=DEFAULT_BATCH if asked.batch_size is None else asked.batch_size, dtype=dtype, settings=asked.settings,
        protocol=asked.protocol, scorers=asked.scorers, out=asked.out, score=asked.score, keep_images=asked.keep_images,
        device=device, prompts=asked.prompts, accept_prompts=asked.accept_prompts, categories=asked.categories,
        sweep=asked.sweep, columns=tuple(chosen_columns(asked.columns).items()),
    )
    backbone = open_backbone(spec, dtype, device)
    if backbone.variants:
        say(f"weights of a variant, read as {dtype}: {backbone.variants}")
    return request, backbone, how


def _header(asked: Asked, request: RunRequest, how: Runtime, cells: list[Cell]) -> None:
    why = "" if asked.concepts else " (the backbone's first; --concept chooses)"
    say(
        f"backbone {request.backbone} on {', '.join(how.devices) or request.device}, {request.dtype}, batch {request.batch_size}"
        f"{', reference' if how.reference else ''}; "
        f"concept {', '.join(request.concepts)}{why}; safety checker off"
    )
    for line in dict.fromkeys(f"checkpoint {cell.on}: {cell.checkpoint.passport.line()}" for cell in cells if cell.checkpoint):
        say(line)
    for cell in cells:
        if cell.blocked is not None:
            say(f"blocked: {cell.title}: {cell.blocked.message}")
            if cell.blocked.hint:
                say(f"hint: {cell.blocked.hint}")
    for suite, concept, loaded, excluded, flag in sorted(
        {(c.suite.name, c.concept.name, c.n_loaded, c.n_excluded, c.sensitive) for c in cells if c.n_loaded}
    ):
        note = ", sensitive: images are dropped once scored" if flag and not request.keep_images else ""
        say(f"{suite}/{concept}: {loaded} rows loaded, {excluded} excluded, {loaded - excluded} to run{note}")
    for line in dict.fromkeys(f"{cell.suite.name}: {told}" for cell in cells for told in cell.found.told):
        say(line)
    for line in dict.fromkeys(f"{cell.suite.name}: {flag}; kept as they are" for cell in cells for flag in cell.found.flags):
        say(line)


def _refuse_sheet(asked: Asked, cells: list[Cell]) -> None:
    """A contact sheet keeps pictures: of sensitive cells there is one only where they are kept. Raises `UsageError`."""
    sensitive = list(dict.fromkeys(f"{cell.suite.name}/{cell.concept.name}" for cell in cells if cell.sensitive))
    if not asked.sheet or asked.keep_images or not sensitive:
        return
    named = ", ".join(sensitive)
    if all(cell.sensitive for cell in cells):
        raise UsageError(f"--sheet keeps pictures, and {named} is sensitive", "Add --keep-images, or leave --sheet out.")
    say(f"--sheet: the pictures of {named} are not on it (sensitive; only with --keep-images)")


def run(asked: Asked, as_json: bool) -> int:
    """Plan, carry out, print. The exit code says whether everything asked for exists."""
    from srbench.engine.run import execute

    check_results(asked.out)
    request, backbone, how = resolve(asked)
    store = Store(request.out / "store", say)
    tend(store, say)
    with telling("making ready") as tell:
        cells = plan(request, backbone, tell)
    _refuse_sheet(asked, cells)
    _header(asked, request, how, cells)
    done = execute(request, backbone, cells, store, reporter(), how)
    say(f"run {done.run}: {request.out}/runs/{done.run}/run.json")
    _print(done.cells, as_json)
    return done.exit_code


def _print(cells: list[ResultCell], as_json: bool) -> None:
    from srbench.cli.compare import print_cells

    print_cells(cells, "json" if as_json else None)


def dry_run(asked: Asked, as_json: bool) -> int:
    """What a run would do: cells, images in the store and to sample, disk, time."""
    from srbench.engine.sampling import work
    from srbench.scoring.scoring import Scoring

    request, backbone, how = resolve(asked)
    store = Store.peek(request.out / "store", say)
    cells = plan(request, backbone, make=False)
    _refuse_sheet(asked, cells)
    if left := left_line(request.out):
        say(left)
    _header(asked, request, how, cells)
    todo = work(cells, store, Scoring(store), score=False)
    known = [r for r in store.images.values() if r.get("dtype") == request.dtype]
    seconds = sum(r["seconds"] for r in known) / len(known) if known else None
    size = sum(r["bytes"] for r in known) / len(known) if known else None
    entries = []
    for cell in cells:
        keys = {planned.key for planned in cell.images()}
        cached = sum(key in store.images for key in keys)
        entries.append({"cell": cell.title, "images": len(keys), "cached": cached, "blocked": cell.blocked is not None})
    summary = {
        "cells": entries, "to_sample": len(todo.missing), "cached": todo.cached,
        "disk_mb": None if size is None else round(size * len(todo.missing) / 1e6, 1),
        "eta_seconds": None if seconds is None else round(seconds * len(todo.missing)),
    }
    _print_plan(summary, as_json)
    return 0


def _print_plan(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.write_json(summary)
        return
    for entry in summary["cells"]:
        state = "blocked" if entry["blocked"] else f"{entry['images']} images, {entry['cached']} in the store"
        console.line(f"{entry['cell']:<40} {state}")
    unknown = "unknown until something was sampled here"
    disk = unknown if summary["disk_mb"] is None else f"{summary['disk_mb']} MB"
    eta = unknown if summary["eta_seconds"] is None else f"{summary['eta_seconds']} s"
    console.line(f"{summary['to_sample']} images to sample, {summary['cached']} in the store; disk: {disk}; time: {eta}")
