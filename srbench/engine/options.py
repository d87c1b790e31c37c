"""Resolves a run's options from the command line's words: values of `auto`, and defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from srbench.backbones.choose import chosen
from srbench.backbones.loader import Backbone, Opener, open_backbone
from srbench.catalog import plugins
from srbench.catalog.prompts import chosen_columns
from srbench.catalog.settings import check_count, check_seed
from srbench.catalog.specs import BackboneSpec
from srbench.engine import auto, cluster
from srbench.engine.devices import COMPILE, DEVICES, DTYPES, Runtime, cards_here, device_of, devices_of, dtype_of, is_cuda
from srbench.engine.memory import DEFAULT_BATCH
from srbench.engine.onnames import expanded
from srbench.engine.request import RunOptions, RunRequest
from srbench.errors import UsageError, did_you_mean
from srbench.results.store import DURABLE
from srbench.shards import shard_of

Say = Callable[[str], None]


REFERENCE = {"dtype": "fp32", "batch_size": 1, "compile": "off"}
"""Options that `--reference` sets, beside deterministic kernels."""


def _referenced(options: RunOptions) -> RunOptions:
    """The options with those of `--reference`. Raises `UsageError` where another value was given for one of them."""
    if not options.reference:
        return options
    for name, value in REFERENCE.items():
        if getattr(options, name) not in (None, "auto", value):
            raise UsageError(f"--reference is {value} in --{name.replace('_', '-')}", "Leave one of the two out.")
    return replace(options, dtype="fp32", batch_size=1, compile="off")


def check_spread(
    gpus: str | None, device: str, ray: str | None, shares: tuple[float | None, float | None], shard: str | None
) -> None:
    """Raises `UsageError` where two options say what to run on, or how a run is divided."""
    if gpus is not None and device != "auto":
        raise UsageError("--gpus and --device both say what to run on", "Give one of them.")
    if ray is not None and gpus is not None:
        raise UsageError("--ray and --gpus both say what to run on", "Give one of them; --ray-gpus is an actor's share.")
    if ray is not None and shard is not None:
        raise UsageError("--ray and --shard both divide a run", "Leave --shard out: actors ask for work by themselves.")
    if ray is None and shares != (None, None):
        raise UsageError("--ray-gpus and --ray-cpus say what an actor of Ray takes", "Add --ray auto, or another address.")
    cluster.check_shares(*shares)


def check_traced(options: RunOptions, actors: bool) -> None:
    """Raises `UsageError` for a `--trace-steps` that has no verdicts of a whole run to follow. actors: whether they sample."""
    if options.trace_steps is None:
        return
    check_count(options.trace_steps, "--trace-steps")
    if not options.score:
        raise UsageError("--trace-steps follows the judge's verdicts, and --sample-only makes none", "Leave one of the two out.")
    if options.shard is not None:
        joined = "Give it to the run without --shard, which joins the parts."
        raise UsageError("--trace-steps compares a whole run, and a shard is a part of one", joined)
    if actors:
        alone = "Run it so first, then the same command without --ray and --gpus, with --trace-steps: it samples nothing else."
        raise UsageError("--trace-steps samples in this process, and --ray and several --gpus leave that to actors", alone)
    if "none" not in options.methods or "none" not in options.on:
        raise UsageError("--trace-steps compares with the untouched backbone, which is not part of the run", _WITH_NONE)


_WITH_NONE = "Add none to --method, and where --on is given to that, too."


def _runtime(options: RunOptions, devices: tuple[str, ...], device: str, taken: cluster.Resources | None) -> Runtime:
    if options.compile not in COMPILE:
        raise UsageError(f"unknown --compile '{options.compile}'", did_you_mean(options.compile, COMPILE))
    if options.durable not in DURABLE:
        raise UsageError(f"unknown --durable '{options.durable}'", did_you_mean(options.durable, DURABLE))
    if options.compile == "on" and not is_cuda(device):
        raise UsageError("--compile on: only CUDA devices compile here", "Leave it out.")
    return replace(
        runtime_of(options, devices, taken), compile=options.compile, reference=options.reference,
        fit_batch=options.batch_size is None, durable=options.durable, trace_steps=options.trace_steps or 0,
    )


class Placing(Protocol):
    """Options that say what work is done on: those of a run, and of a search."""

    @property
    def device(self) -> str: ...

    @property
    def gpus(self) -> str | None: ...

    @property
    def ray(self) -> str | None: ...

    @property
    def ray_gpus(self) -> float | None: ...

    @property
    def ray_cpus(self) -> float | None: ...


def by_actors(options: Placing, devices: Sequence[str], plug_ins: Iterable[tuple[str, str]]) -> bool:
    """Whether actors do the work. devices: of `--gpus`. plug_ins: kind and name of those that they would import.

    Raises `MissingError` where Ray is needed and not installed, `UsageError` where an actor could not import a plug-in.
    """
    if len(devices) <= 1 and options.ray is None:
        return False
    cluster.check_installed("--gpus with several devices" if options.ray is None else "--ray")
    _refuse_of_session(plug_ins)
    return True


def reached(options: Placing, address: str) -> cluster.Resources:
    """What actors take; the cluster is reached for it. Raises `MissingError` where nobody answers."""
    if options.device not in DEVICES:
        device_of(options.device)  # which says what is wrong
    if address == cluster.LOCAL:
        cluster.start_here(os.cpu_count() or 1, cards_here() if options.device != "cpu" else ())
    else:
        cluster.reach(address)
    return cluster.resources_of(cluster.nodes(), options.ray_gpus, options.ray_cpus, options.device)


def runtime_of(options: Placing, devices: tuple[str, ...], taken: cluster.Resources | None) -> Runtime:
    """What work is done on. taken: by an actor of the cluster."""
    where = options.ray or (cluster.LOCAL if len(devices) > 1 else "")
    return Runtime(devices, ray=where, ray_gpus=taken.gpus if taken else 0.0, ray_cpus=taken.cpus if taken else 0.0)


def _dtype_on(taken: cluster.Resources, dtype: str) -> str:
    """The dtype of actors of a cluster."""
    if dtype == "auto" and is_cuda(taken.device):
        return "bf16" if taken.bf16 else "fp16"
    return dtype_of(dtype, "cpu") if taken.device == "cpu" else dtype


def _refuse_of_session(plug_ins: Iterable[tuple[str, str]]) -> None:
    """Refuse plug-ins that were registered in this process alone: actors import what they use."""
    for kind, name in plug_ins:
        if plugins.plugins(kind)[name].module == plugins.SESSION:
            problem = f"gpus: '{name}' was registered in this process, and its workers cannot import it"
            raise UsageError(problem, "Put it into a package (docs/extending.md), or leave gpus out.")


def _named(options: RunOptions, say: Say) -> BackboneSpec:
    """The backbone's spec; for `auto` the one on which the run is possible, with the reason printed."""
    if options.backbone != auto.AUTO:
        return chosen(options.backbone)
    cuda = is_cuda(device_of(options.device))
    choice = auto.choose(options, cuda)
    for line in choice.lines:
        say(line)
    return chosen(choice.name)


def resolve(options: RunOptions, say: Say, opener: Opener = open_backbone) -> tuple[RunRequest, Backbone, Runtime]:
    """Check the plain options and resolve what is `auto` or left out."""
    options = _referenced(options)
    check_count(options.limit, "--limit")
    check_count(options.batch_size, "--batch-size")
    check_seed(options.seed)
    if not (options.methods and options.on and (options.suites or options.prompts)):
        raise UsageError("nothing to run: no method, no checkpoint, or no suite", "`none` is the untouched backbone.")
    check_spread(options.gpus, options.device, options.ray, (options.ray_gpus, options.ray_cpus), options.shard)
    if options.columns and options.prompts is None:
        raise UsageError("--column says how a file of yours is read", "Add --prompts FILE.")
    shard = shard_of(options.shard)
    if shard is not None and options.sheet:
        raise UsageError("--sheet shows a whole run, and a shard writes none", "Leave it out; `srbench show --sheet` draws one.")
    devices = devices_of(options.gpus) if options.gpus is not None else ()
    taken: cluster.Resources | None = None
    check_traced(options, len(devices) > 1 or options.ray is not None)
    spread = by_actors(options, devices, (("methods", plugins.preset(preset)[0]) for preset in options.methods))
    spec = _named(options, say)
    if options.ray is not None:
        if options.dtype not in DTYPES:
            dtype_of(options.dtype, "cpu")  # which says what is wrong
        taken = reached(options, options.ray)
        device, dtype = taken.device, _dtype_on(taken, options.dtype)
    else:
        device = devices[0] if devices else device_of(options.device)
        dtype = dtype_of(options.dtype, device)
    how = _runtime(options, devices, device, taken)
    request = RunRequest(
        backbone=spec.name, methods=options.methods, on=expanded(options.on), suites=options.suites,
        concepts=options.concepts or spec.concepts[:1], part="dev" if options.dev else "test", limit=options.limit,
        seed=options.seed,
        batch_size=DEFAULT_BATCH if options.batch_size is None else options.batch_size, dtype=dtype, settings=options.settings,
        protocol=options.protocol, scorers=options.scorers, out=options.out, score=options.score, keep_images=options.keep_images,
        device=device, prompts=options.prompts, accept_prompts=options.accept_prompts, categories=options.categories,
        sweep=options.sweep, columns=tuple(chosen_columns(options.columns).items()),
        joint=options.joint, shard=shard,
    )
    backbone = opener(spec, dtype, "cpu" if spread else device)  # cards are the actors'
    if backbone.variants:
        say(f"weights of a variant, read as {dtype}: {backbone.variants}")
    return request, backbone, how
