"""Checks a job before anything is made: its names, and its options of methods, attacks and trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from srbench.analysis.metrics import definition
from srbench.attacks.search import check_victim
from srbench.catalog import load, plugins
from srbench.catalog.settings import check_count, check_seed, options
from srbench.catalog.specs import BackboneSpec
from srbench.engine.checkpoints import check_on
from srbench.engine.onnames import check_settings_of_run
from srbench.engine.plan import grid
from srbench.engine.prepare import check_options, check_settings, is_weight, weight_presets
from srbench.engine.training import REDIRECTOR, TRAINED
from srbench.errors import ForeignError, UsageError, did_you_mean
from srbench.studies.spec import Job, Made, Settings

Fail = Callable[[str, UsageError], UsageError]
"""Field of the options and what is wrong with it -> the error with its place in the file."""


def check(job: Job, spec: BackboneSpec | None, fail: Fail) -> None:
    """Raises `fail(field, error)` for the first error of a job. spec: of its backbone; None for pictures made elsewhere."""
    for name, test in _tests(job, spec):
        try:
            test()
        except ForeignError:
            continue  # a plug-in that cannot be used costs its own cells
        except UsageError as error:
            raise fail(name, error) from error


Test = tuple[str, Callable[[], Any]]


def _tests(job: Job, spec: BackboneSpec | None) -> Iterator[Test]:
    values = job.values
    if spec is not None:
        yield "concepts", lambda: load.concepts_of(spec, job.concepts)
    for field in ("protocol", "layout"):
        if field in values:
            yield field, partial(load.named, field, values[field], getattr(load, f"{field}s")())
    for field in ("limit", "batch_size", "per_prompt"):
        yield field, partial(check_count, values.get(field), field)
    if "seed" in values:
        yield "seed", partial(check_seed, values["seed"], "seed")
    for scorer in values.get("scorers", ()):
        yield "scorers", partial(plugins.known, "scorers", scorer)
    of_verb = {"train": _train, "erase": _erase, "attack": _attack, "run": _run, "grid": _grid, "score": _score}
    yield from of_verb[job.verb](job, spec)


def _on(values: Any) -> tuple[str, ...]:
    """Names of the checkpoints; `none` for one that an earlier step makes."""
    on = values.get("on", ("none",))
    return tuple("none" if isinstance(each, Made) else each for each in (on if isinstance(on, tuple) else (on,)))


def _texts(settings: Settings) -> tuple[str, ...]:
    return tuple(f"{name}={'made' if isinstance(value, Made) else value}" for name, value in settings if name)


def _train(job: Job, spec: BackboneSpec | None) -> Iterator[Test]:
    from srbench.methods import inversion
    from srbench.methods.saferedir import train

    method, texts = job.values["method"], _texts(job.values.get("settings", ()))
    cls: Any = train.Settings if method == REDIRECTOR else inversion.Settings
    yield "method", lambda: _check_trained(method, TRAINED)
    for name in _on(job.values):
        yield "on", partial(check_on, name)
    yield "settings", lambda: options(cls, texts)


def _check_trained(name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UsageError(f"'{name}' is not trained", did_you_mean(name, known))


def _erase(job: Job, spec: BackboneSpec | None) -> Iterator[Test]:
    method = job.values["method"]
    texts = [f"{method}.{each}" for each in _texts(job.values.get("settings", ()))]

    def acts_on_weights() -> None:
        if not is_weight(method):
            raise UsageError(f"'{method}' acts while sampling: there is nothing to erase", did_you_mean(method, weight_presets()))

    yield "method", acts_on_weights
    yield "settings", lambda: _try_options(job, spec, (method,), texts)


def _try_options(job: Job, spec: BackboneSpec | None, presets: tuple[str, ...], texts: Any) -> None:
    if spec is not None:
        check_options(presets, texts, spec.family, [load.concepts()[name].kind for name in job.concepts])


def _attack(job: Job, spec: BackboneSpec | None) -> Iterator[Test]:
    values, (on,) = job.values, _on(job.values)
    name, method = values["name"], values["method"]
    texts = _texts(values.get("settings", ()))
    of_attack = [each for each in texts if "." not in each.partition("=")[0]]
    yield "name", lambda: plugins.known("attacks", name)
    yield "method", lambda: plugins.preset(method)
    yield "on", lambda: check_on(on)
    yield "method", lambda: check_victim(name, method, on)
    yield "settings", lambda: options(plugins.load("attacks", name).Settings, of_attack)
    presets = tuple(each for each in (method, on) if each in plugins.presets())
    of_method = [each for each in texts if each not in of_attack]
    yield "settings", lambda: check_settings(of_method, presets)
    yield "settings", lambda: _try_options(job, spec, presets, of_method)
    if ("suite" in values) == ("targets" in values):
        yield "name", lambda: _raise(UsageError("an attack needs targets", "Give suite, or targets; not both."))
    yield from _suites(job, spec, [values["suite"]] if "suite" in values else [], "suite")


def _raise(error: UsageError) -> None:
    raise error


def _suites(job: Job, spec: BackboneSpec | None, names: Any, field: str) -> Iterator[Test]:
    part, copy = "dev" if job.values.get("dev", job.verb == "grid") else "test", "prompts" in job.values
    for name in names:
        yield field, partial(load.suite, name)
        if spec is not None and name in load.suites():
            yield field, partial(load.edition, load.suites()[name], spec.family, job.concepts[0], part, copy=copy)


def _run(job: Job, spec: BackboneSpec | None) -> Iterator[Test]:
    values = job.values
    methods, on = values["methods"], _on(values)
    for name in methods:
        yield "methods", partial(plugins.preset, name)
    for name in on:
        yield "on", partial(check_on, name)
    yield "methods", lambda: grid(methods, on)
    presets, texts = [name for name in (*methods, *on) if name in plugins.presets()], _texts(values.get("settings", ()))
    yield "settings", lambda: check_settings_of_run(texts, methods, on)
    yield "settings", lambda: _try_options(job, spec, tuple(presets), texts)
    yield from _suites(job, spec, values.get("suites", ()), "suites")


def point_texts(point: Settings, concept: str) -> tuple[str, ...]:
    """A grid's point as values of `--set`, with the concept's name and kind for `{concept}` and `{kind}`."""
    kind = load.concepts()[concept].kind
    return tuple(f"{name}={value}".replace("{kind}", kind).replace("{concept}", concept) for name, value in point)


def _grid(job: Job, spec: BackboneSpec | None) -> Iterator[Test]:
    (*_, preset) = job.values["methods"]
    yield "methods", lambda: plugins.preset(preset)
    for metric in (name for names in (job.choice.by if job.choice else ()) for name in names):
        yield "by", partial(definition, metric)
    for point in job.points:
        yield "options", partial(_try_options, job, spec, (preset,), point_texts(point, job.concepts[0]))
    yield from _suites(job, spec, job.values.get("suites", ()), "suites")


def _score(job: Job, spec: BackboneSpec | None) -> Iterator[Test]:
    if "layout" not in job.values:
        yield "folders", lambda: _raise(UsageError("which layout have the pictures?", f"Add as: {', '.join(load.layouts())}."))
    yield from _suites(job, spec, [job.values["suite"]] if "suite" in job.values else [], "suite")
    if "concept" in job.values:
        yield "concept", lambda: load.named("concept", job.values["concept"], load.concepts())
