"""Expands a step into jobs: lists become products, and the name of an earlier step becomes what that step makes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from srbench.analysis.records import label
from srbench.backbones.choose import chosen
from srbench.catalog import load, plugins
from srbench.catalog.load import Lined, Place
from srbench.catalog.prompts import chosen_columns
from srbench.catalog.settings import NULL
from srbench.catalog.specs import BackboneSpec
from srbench.catalog.wording import explained
from srbench.engine.prepare import is_weight
from srbench.errors import UsageError, did_you_mean
from srbench.studies.checks import check
from srbench.studies.spec import KINDS, REDIRECTOR, WORDS, Choice, Job, Kind, Made, Settings, Step

MOST_OF_STEP = 1000
"""Jobs of one step."""
MADE_BY = {
    "prompts": "attack", "targets": "attack", "adversarial": "attack", REDIRECTOR: "train", "set": "train", "on": "erase",
    "grid": "grid", "folders": "run",
}  # fmt: skip
"""Word whose value may name an earlier step -> the kind of that step."""
WILD = "*?["
ADAPTERS: dict[str, TypeAdapter[Any]] = {verb: TypeAdapter(kind.options) for verb, kind in KINDS.items()}
TYPES: dict[str, dict[str, Any]] = {verb: get_type_hints(kind.options) for verb, kind in KINDS.items()}
"""Both are built once, at import: building one takes far longer than using it."""


class FileValue(NamedTuple):
    """A value in the study's file, and its place there."""

    value: Any
    place: Place


@dataclass
class Source:
    """The file, and the steps that were read so far."""

    file: Lined
    names: tuple[str, ...]
    """Of all steps."""
    earlier: dict[str, Step] = field(default_factory=dict)


class Pick(NamedTuple):
    """One choice for a word: values of option fields, and a suffix of the job's name where there are several choices."""

    values: Mapping[str, Any]
    suffix: str = ""


@dataclass(frozen=True)
class Draft:
    """A step that is being expanded."""

    source: Source
    name: str
    kind: Kind
    subject: FileValue
    words: Mapping[str, FileValue]

    def place(self, field_name: str) -> Place:
        """Where a field of the options was given."""
        word = WORDS.get(field_name, field_name)
        at = self.words.get(word) or (self.words.get(REDIRECTOR) if word == "set" else None)
        return at.place if at else self.subject.place if field_name in (self.kind.subject, "on", "method") else self.at

    @property
    def at(self) -> Place:
        """The step's place in the file."""
        return ("steps", self.name)

    def error(self, place: Place, problem: str, hint: str = "Mend the file.") -> UsageError:
        return self.source.file.error(place, problem, hint)


def _is_list(kind: Kind, name: str) -> bool:
    return get_origin(TYPES[kind.verb][name]) is tuple


def _is_path(kind: Kind, name: str) -> bool:
    hint = TYPES[kind.verb][name]
    return Path in (hint, *get_args(hint))


def jobs_of(
    source: Source, name: str, kind: Kind, subject: FileValue, words: Mapping[str, FileValue], shared: Mapping[str, FileValue]
) -> tuple[Job, ...]:
    """The jobs of a step, in order. words: the step's own; shared: those of the whole study that its kind has too.

    Raises `UsageError` naming file, line and key.
    """
    draft = Draft(source, name, kind, subject, {**shared, **words})
    if kind.verb == "score" and isinstance(subject.value, dict) and set(subject.value) <= set(KINDS):
        return tuple(_scored_again(draft, words))
    if kind.verb == "score":
        return (_scored(draft),)
    spec = _backbone(draft)
    groups = _groups(draft, _concepts(draft, spec))
    drafts = [(concepts, _axes(draft, concepts)) for concepts in groups]
    size = sum(prod(len(axis) for axis in axes) for _, axes in drafts)
    if size > MOST_OF_STEP:
        raise draft.error(draft.at, f"the lists of this step come to {size} jobs, {MOST_OF_STEP} are the most", "Write less.")
    jobs = tuple(_job(draft, concepts, axes, picks) for concepts, axes in drafts for picks in product(*axes))
    for job in jobs:
        _validate(draft, job)
        check(job, spec, lambda field_name, error: draft.error(draft.place(field_name), error.message, error.hint))
    return jobs


# --- concepts ---------------------------------------------------------------------------------------------------------


def _backbone(draft: Draft) -> BackboneSpec:
    entry = draft.words.get("backbone", FileValue("pocket", draft.at))
    name = entry.value[0] if isinstance(entry.value, list) else entry.value
    if not isinstance(name, str):
        raise draft.error(entry.place, "expected a name", "Example: backbone: pocket")
    try:
        return chosen(name)
    except UsageError as error:
        raise draft.error(entry.place, error.message, error.hint) from error


def _concepts(draft: Draft, spec: BackboneSpec) -> list[tuple[str, ...]]:
    """The concepts of each job; those of one training may be joined with `+`."""
    entry = draft.words.get("concept")
    if entry is None:
        return [spec.concepts[:1]]
    known, concepts = load.concepts(), []
    for number, value in enumerate(_listed(entry.value)):
        place = (*entry.place, number) if isinstance(entry.value, list) else entry.place
        names = tuple(str(value).split("+")) if draft.kind.verb == "train" and value not in known else (value,)
        for name in names:
            if not isinstance(name, str) or name not in known:
                error = load.unknown("concept", str(name), known)
                raise draft.error(place, error.message, error.hint)
        concepts.append(names)
    return concepts


def _groups(draft: Draft, concepts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The concepts of each job: one, or for a grid with `per: kind` all concepts of a kind."""
    if draft.kind.verb != "grid" or draft.words.get("per", FileValue("concept", ())).value != "kind":
        return concepts
    names = [name for each in concepts for name in each]
    kinds = dict.fromkeys(load.concepts()[name].kind for name in names)
    return [tuple(name for name in names if load.concepts()[name].kind == kind) for kind in kinds]


# --- axes -------------------------------------------------------------------------------------------------------------


def _axes(draft: Draft, concepts: tuple[str, ...]) -> list[list[Pick]]:
    """The choices for each word of the step."""
    axes = [_subjects(draft)]
    for word, entry in draft.words.items():
        if word in ("concept", "options", "by", "per") or (word == "method" and draft.kind.verb == "attack"):
            continue
        if word == "set":
            choices = _settings(draft, entry, concepts)
            axes.append([Pick({"settings": settings}, _settings_slug(settings)) for settings in choices])
        elif word == REDIRECTOR:
            redirectors = _values(draft, entry, concepts, REDIRECTOR, path=True)
            axes.append([Pick({REDIRECTOR: value}, f"{REDIRECTOR}-{_slug(value)}") for value in redirectors])
        else:
            axes.append(_of_field(draft, word, entry, concepts))
    return axes


def _of_field(draft: Draft, word: str, entry: FileValue, concepts: tuple[str, ...]) -> list[Pick]:
    name = draft.kind.words[word]
    values = _values(draft, entry, concepts, word, _is_path(draft.kind, name))
    if _is_list(draft.kind, name):
        return [Pick({name: tuple(values)})]
    return [Pick({name: value}, _slug(value) if word == "prompts" else f"{word}-{_slug(value)}") for value in values]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _values(draft: Draft, entry: FileValue, concepts: tuple[str, ...], word: str, path: bool) -> list[Any]:
    """The values of a word: as written, with the files that match for a pattern, and what a step makes for its name."""
    values: list[Any] = []
    for number, value in enumerate(_listed(entry.value) or [None]):
        place = (*entry.place, number) if isinstance(entry.value, list) else entry.place
        if value is None or value in ("", [], {}):
            raise draft.error(place, "is empty", "Give a value, or leave it out.")
        if isinstance(value, dict) or (word == REDIRECTOR and value in draft.source.names):
            named = value if isinstance(value, dict) else {MADE_BY[word]: value}
            values += _from_step(draft, FileValue(named, place), concepts, word)
        elif isinstance(value, list):
            raise draft.error(place, "a list in a list", "Write one list.")
        else:
            values += _paths(draft, FileValue(value, place), concepts) if path else [value]
    return values


def _paths(draft: Draft, entry: FileValue, concepts: tuple[str, ...]) -> list[str]:
    """The files that a path names, relative to the study's; `{concept}` in it is the job's concept."""
    if not isinstance(entry.value, str):
        raise draft.error(entry.place, "expected a path", "Write it in quotes.")
    path = draft.source.file.path.parent / Path(entry.value.replace("{concept}", "+".join(concepts))).expanduser()
    if not any(sign in entry.value for sign in WILD) or path.exists():
        return [str(path)]
    base = Path(path.anchor or ".")
    paths = sorted(str(each) for each in base.glob(str(path.relative_to(base)) if path.anchor else str(path)))
    if not paths:
        raise draft.error(entry.place, f"no file is called like {path}", "Check the path; it is relative to the study's file.")
    return paths


def _from_step(draft: Draft, entry: FileValue, concepts: tuple[str, ...], word: str) -> list[Made]:
    """What the jobs of an earlier step make for a concept. entry: `{VERB: NAME}`."""
    wanted, source = MADE_BY.get(word), draft.source
    if wanted is None:
        raise draft.error(entry.place, "expected a value, found a table", "Only what steps make is named by a table.")
    if list(entry.value) != [wanted]:
        raise draft.error(entry.place, f"expected {{{wanted}: NAME}}", f"NAME is a step that says '{wanted}'.")
    name, place = entry.value[wanted], (*entry.place, wanted)
    fitting = [step for step, each in source.earlier.items() if each.verb == wanted]
    if name not in source.names:
        raise draft.error(place, f"there is no step '{name}'", did_you_mean(str(name), fitting))
    if name not in source.earlier:
        problem = "names itself" if name == draft.name else f"step '{name}' comes later"
        raise draft.error(place, problem, "A step can only use what earlier ones make.")
    step = source.earlier[name]
    if step.verb != wanted:
        raise draft.error(place, f"step '{name}' is of kind '{step.verb}', not '{wanted}'", did_you_mean("", fitting))
    outputs = [Made(job) for job in step.jobs if not concepts or set(concepts) <= set(job.concepts)]
    if not outputs:
        raise draft.error(place, f"step '{name}' makes nothing for {'+'.join(concepts)}", "Give both the same concepts.")
    return outputs


def _slug(value: Any) -> str:
    """A value as part of a job's name."""
    text = value.job.called if isinstance(value, Made) else str(value)
    return "".join(each if each.isalnum() or each in "_.+" else "-" for each in Path(text).name or text)[:40]


# --- settings ---------------------------------------------------------------------------------------------------------


def _settings(draft: Draft, entry: FileValue, concepts: tuple[str, ...]) -> list[Settings]:
    """The choices of `set`: a table is a product over the lists in it, a list of tables is one choice after the other."""
    choices: list[Settings] = []
    for number, table in enumerate(_listed(entry.value)):
        place = (*entry.place, number) if isinstance(entry.value, list) else entry.place
        if not isinstance(table, dict) or not table:
            raise draft.error(place, "expected options by name", "Example: set: {saferedir.cooldown: 2}")
        axes = [_setting(draft, FileValue(value, (*place, name)), name, concepts) for name, value in table.items()]
        if prod(len(axis) for axis in axes) > MOST_OF_STEP:
            raise draft.error(place, f"the lists come to more than {MOST_OF_STEP} choices", "Write less.")
        choices += product(*axes)
    return choices


def _setting(draft: Draft, entry: FileValue, name: str, concepts: tuple[str, ...]) -> list[tuple[str, str | Made]]:
    if name == "grid":
        return [("", made) for made in _from_step(draft, FileValue({"grid": entry.value}, entry.place[:-1]), concepts, "grid")]
    values = _values(draft, entry, concepts, "set", path=False)
    return [(name, value if isinstance(value, Made) else _text(value, concepts)) for value in values]


def _text(value: Any, concepts: tuple[str, ...]) -> str:
    """A value as `--set` takes it; `{concept}` and `{kind}` in it are the job's."""
    kind = load.concepts()[concepts[0]].kind if concepts else ""
    return str(value).replace("{concept}", "+".join(concepts)).replace("{kind}", kind)


def _settings_slug(settings: Settings) -> str:
    return "-".join(f"{name.rpartition('.')[2]}-{_slug(value)}" for name, value in settings)


# --- what the verb names ----------------------------------------------------------------------------------------------


def _subjects(draft: Draft) -> list[Pick]:
    """The choices of what a step trains, erases, searches or runs."""
    names = _listed(draft.subject.value)
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise draft.error((*draft.subject.place, number)[: len(draft.subject.place) + (len(names) > 1)],
                              f"expected a name, found {name!r}", "Write it in quotes.")  # fmt: skip
    verb = draft.kind.verb
    if verb == "run":
        return _on_checkpoints(draft, names)
    if verb == "attack":
        return [Pick({"name": name, **victim}) for name in names for victim in _victims(draft)]
    if verb == "grid":
        return [Pick({"methods": tuple(dict.fromkeys(("none", name)))}, name) for name in names]
    return [Pick({draft.kind.subject: name}, name) for name in names]


def _on_checkpoints(draft: Draft, names: Sequence[str]) -> list[Pick]:
    """Methods grouped by checkpoint where they are `METHOD@CHECKPOINT`; else every method on every checkpoint of `on`."""
    if not any("@" in name for name in names):
        return [Pick({"methods": tuple(names)})]
    _refuse_on(draft)
    groups: dict[str, list[str]] = {}
    for name in names:
        method, _, on = name.partition("@")
        groups.setdefault(on or "none", []).append(method)
    return [Pick({"methods": tuple(methods), "on": (on,)}, f"on-{on}") for on, methods in groups.items()]


def _refuse_on(draft: Draft) -> None:
    if "on" in draft.words:
        raise draft.error(draft.words["on"].place, "the methods name their checkpoints already", "Leave one of the two out.")


def _victims(draft: Draft) -> Iterator[dict[str, Any]]:
    """What prompts are searched against: method and checkpoint, `METHOD@CHECKPOINT` or the name of a weight method."""
    entry = draft.words.get("method", FileValue("none", draft.at))
    for victim in _listed(entry.value):
        method, at, on = str(victim).partition("@")
        if method in plugins.presets() and not at and is_weight(method):
            method, on = "none", method
        if on:
            _refuse_on(draft)
        yield {"method": method} | ({"on": on} if on else {})


# --- jobs -------------------------------------------------------------------------------------------------------------


def _job(draft: Draft, concepts: tuple[str, ...], axes: Sequence[Sequence[Pick]], picks: Sequence[Pick]) -> Job:
    values: dict[str, Any] = {}
    for pick in picks:
        values |= {name: value for name, value in pick.values.items() if name != REDIRECTOR}
    extra = tuple(("saferedir.redirector", pick.values[REDIRECTOR]) for pick in picks if REDIRECTOR in pick.values)
    if extra:
        values["settings"] = (*values.get("settings", ()), *extra)
    suffixes = [pick.suffix for axis, pick in zip(axes, picks, strict=True) if len(axis) > 1 and pick.suffix]
    verb = draft.kind.verb
    if verb in ("run", "grid", "train"):
        values["concepts"] = concepts
    else:
        values["concept"] = concepts[0]
    if verb == "run" and "prompts" in values:
        values.setdefault("suites", ())  # the file is a suite of its own
    called = "-".join([draft.name, *suffixes])
    if verb == "attack":
        against = SimpleNamespace(method=values["method"], on=_on_name(values.get("on", "none")))
        called = "-".join([values["name"], label(against).replace(" ", "-"), *suffixes])
        title = f"{values['name']} against {label(against)}, {concepts[0]}"
    else:
        title = ", ".join(["+".join(concepts), *suffixes])
    job = Job(draft.name, verb, concepts, _free(draft, called, concepts), title, values)
    return _with_points(draft, job) if verb == "grid" else job


def _on_name(on: Any) -> str:
    return on.job.called if isinstance(on, Made) else on


def _free(draft: Draft, called: str, concepts: tuple[str, ...]) -> str:
    """`called`, or with the step's name before it where an earlier step of the concept uses it: tables show it as a suite."""
    taken = {job.called for step in draft.source.earlier.values() for job in step.jobs if set(concepts) & set(job.concepts)}
    return called if draft.kind.verb != "attack" or called not in taken else f"{draft.name}-{called}"


def _with_points(draft: Draft, job: Job) -> Job:
    raw = {word: draft.words[word].value for word in ("options", "by", "per") if word in draft.words}
    raw |= {word: _listed(value) for word, value in raw.items() if word != "per"}
    raw |= {"by": [_listed(each) for each in raw["by"]]} if "by" in raw else {}
    try:
        choice = Choice.model_validate(raw)
    except ValidationError as error:
        place, problem, hint = explained(error, raw)
        word, *inner = place
        at = draft.words[str(word)].place if word in draft.words else (*draft.at, word)
        raise draft.error((*at, *inner), problem, hint) from error
    preset = job.values["methods"][-1]
    points: list[Settings] = []
    for grid in choice.options:
        axes = [
            [(f"{preset}.{name}", NULL if value is None else str(value)) for value in _listed(values)]
            for name, values in grid.items()
        ]
        if prod(len(axis) for axis in axes) > MOST_OF_STEP or not all(axes):
            raise draft.error(draft.words["options"].place, f"more than {MOST_OF_STEP} points, or none", "Write less.")
        points += product(*axes)
    return Job(job.step, job.verb, job.concepts, job.called, job.title, job.values, choice, tuple(points))


# --- scoring ----------------------------------------------------------------------------------------------------------


def _scored(draft: Draft) -> Job:
    """Pictures made elsewhere: a folder, a list of them, or folders by the method's name."""
    raw = draft.subject.value
    named = list(raw.items()) if isinstance(raw, dict) else [("", each) for each in _listed(raw)]
    folders = tuple((name, path) for name, each in named for path in _paths(draft, FileValue(each, draft.subject.place), ()))
    values: dict[str, Any] = {"folders": folders}
    for word, entry in draft.words.items():
        (pick, *more) = (
            [Pick({"settings": settings}) for settings in _settings(draft, entry, ())] if word == "set"
            else _of_field(draft, word, entry, ())
        )  # fmt: skip
        if more:
            raise draft.error(entry.place, "one value is expected here", "Write a step for each.")
        values |= pick.values
    concept = (values["concept"],) if "concept" in values else ()
    job = Job(draft.name, "score", concept, draft.name, "pictures made elsewhere", values)
    _validate(draft, job)
    check(job, None, lambda field_name, error: draft.error(draft.place(field_name), error.message, error.hint))
    return job


def _scored_again(draft: Draft, words: Mapping[str, FileValue]) -> Iterator[Job]:
    """The jobs of a run with more scorers: their images are in the store."""
    if not set(words) <= {"scorers", "set"} or "scorers" not in words:
        word = next(iter(set(words) - {"scorers", "set"}), "scorers")
        place = words[word].place if word in words else draft.at
        raise draft.error(place, "images of a run are scored with `scorers` and their `set`", "Example: scorers: [fd-pocket]")
    more = [str(scorer) for scorer in _listed(words["scorers"].value)]
    for scorer in more:
        if scorer not in plugins.plugins("scorers"):
            place, hint = words["scorers"].place, did_you_mean(scorer, plugins.plugins("scorers"))
            raise draft.error(place, f"unknown scorer '{scorer}'", hint)
    for made in _from_step(draft, draft.subject, (), "folders"):
        job, values = made.job, dict(made.job.values)
        values["scorers"] = tuple(dict.fromkeys((*values.get("scorers", ()), *more)))
        if "set" in words:
            (settings, *_) = _settings(draft, words["set"], job.concepts)
            values["settings"] = (*values.get("settings", ()), *settings)
        yield Job(draft.name, "run", job.concepts, draft.name, job.title, values)


# --- their values -----------------------------------------------------------------------------------------------------


def plain(kind: Kind, values: Mapping[str, Any], path_of: Any) -> dict[str, Any]:
    """Values of a job as the options class takes them. path_of: `Made` -> its path or hash; of a grid a list of settings."""

    def one(value: Any) -> Any:
        return path_of(value) if isinstance(value, Made) else str(value) if isinstance(value, Path) else value

    options = {name: tuple(map(one, value)) if isinstance(value, tuple) else one(value) for name, value in values.items()}
    if "settings" in values:
        options["settings"] = tuple(_plain_settings(values["settings"], path_of))
    if kind.verb == "score":
        options["columns"] = tuple(chosen_columns(options.get("columns", ())).items())
    return options


def _plain_settings(settings: Iterable[tuple[str, str | Made]], path_of: Any) -> Iterator[str]:
    for name, value in settings:
        if isinstance(value, Made) and not name:
            yield from path_of(value)
        else:
            yield f"{name}={path_of(value) if isinstance(value, Made) else value}"


def options_of(kind: Kind, values: Mapping[str, Any]) -> Any:
    """The options object of these plain values. Raises `ValidationError` for a wrong type, `ValueError` for no JSON."""
    return ADAPTERS[kind.verb].validate_json(json.dumps(values, allow_nan=False), strict=True)


def _validate(draft: Draft, job: Job) -> None:
    """Raises `UsageError` naming the key where a value has the wrong type."""
    kind = KINDS[job.verb]
    try:
        options_of(kind, plain(kind, job.values, lambda made: [] if made.job.verb == "grid" else "made"))
    except ValidationError as error:
        place, problem, hint = explained(error, job.values)
        raise draft.error(draft.place(str(place[0])), problem, hint) from error
    except ValueError as error:
        raise draft.error(draft.at, f"a value that is no plain one ({error})", "Mend the file.") from error
