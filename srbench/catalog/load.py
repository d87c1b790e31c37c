"""Reads spec files into typed specs; an error names the file, the key, and the closest valid name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from srbench.catalog import resolve
from srbench.catalog.specs import (
    ANY,
    UNVERIFIED,
    BackboneSpec,
    BaselineSpec,
    ConceptSpec,
    Edition,
    LayoutSpec,
    ProtocolSpec,
    Row,
    RowFile,
    Spec,
    SuiteSpec,
)
from srbench.errors import UsageError, did_you_mean
from srbench.files import parse_json, printable, read_bytes

S = TypeVar("S", bound=Spec)
T = TypeVar("T")
CATALOG = Path(__file__).parent / "data"
MAX_SPEC_BYTES = 10**7


# libyaml's parser where the wheel has it: `srbench list` reads many files.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Loader):  # type: ignore[misc, valid-type]  # the same interface, whichever it is
    """YAML that refuses duplicate keys: the second would silently win."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' appears twice", key_node.start_mark)
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _fields(model: type[Spec], location: tuple[Any, ...]) -> list[str]:
    """Field names of the nested spec that holds the last part of `location`."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(part, int) or not hasattr(current, "model_fields"):
            continue
        annotation = current.model_fields[part].annotation if part in current.model_fields else None
        models = [a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")]
        current = models[0] if models else current
    return list(getattr(current, "model_fields", {}))


def _explain(path: Path, model: type[Spec], error: ValidationError) -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "(file)"
    if first["type"] == "extra_forbidden":
        return UsageError(f"{path}: unknown key '{key}'", did_you_mean(str(first["loc"][-1]), _fields(model, first["loc"])))
    return UsageError(f"{path}: key '{key}': {first['msg'][0].lower()}{first['msg'][1:]}", "Mend the file.")


def parse_yaml(path: Path, model: type[S]) -> S:
    """One YAML file as a spec. Raises `UsageError` naming file and key."""
    return _validate(path, _read(path, _text(path), lambda loader: loader.get_single_data()), model)


def _text(path: Path) -> str:
    try:
        return read_bytes(path, "Mend the file.", MAX_SPEC_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start + 1})", "Save it as UTF-8.") from error


def _read(path: Path, text: str, read: Callable[[_StrictLoader], T], kind: type[_StrictLoader] = _StrictLoader) -> T:
    """The result of `read` on a YAML text. Raises `UsageError` naming file and line where the text is not YAML."""
    loader = None
    try:
        loader = kind(text)
        return read(loader)
    except yaml.YAMLError as error:
        line = max(getattr(getattr(error, "problem_mark", None), "line", 0), 0) + 1
        why = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise UsageError(f"{path}:{line}: {printable(str(why))}", "Mend the file.") from error
    except (ValueError, TypeError, RecursionError) as error:  # an invalid date, a key that is a list, endless nesting
        why = printable(str(error).split("\n")[0])
        raise UsageError(f"{path}: not YAML that can be read ({why})", "Mend the file.") from error
    finally:
        if loader is not None:
            loader.dispose()


Place = tuple[str | int, ...]
"""Path of a value in a file: keys of tables and indices of lists."""


@dataclass(frozen=True)
class Lined:
    """A YAML file's data, with the line on which each key and each list entry begins."""

    path: Path
    text: str
    data: Any
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int:
        """The line of a place, or of its nearest parent that is in the file."""
        return next(self.lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self.lines)

    def error(self, place: Place, problem: str, hint: str = "Mend the file.") -> UsageError:
        """A `UsageError` that names file, line and key."""
        key = f"key '{printable('.'.join(map(str, place)))}': " if place else ""
        return UsageError(f"{printable(str(self.path))}:{self.line(place)}: {key}{printable(problem)}", hint)


def parse_lined(path: Path) -> Lined:
    """A YAML file of plain values (null, truth values, numbers, texts, lists and tables with texts as keys), with its lines.

    Raises `UsageError` naming file and line for anything else, for a duplicate key, for an anchor that contains itself, and
    for more than `MAX_VALUES` values once aliases are expanded.
    """
    text = _text(path)

    def read(loader: _StrictLoader) -> Lined:
        node = loader.get_single_node()
        if node is None:
            raise UsageError(f"{path}:1: the file is empty", "Write a study: docs/studies.md.")
        _check_size(path, node, {}, ())
        lines: dict[Place, int] = {}
        _collect(path, node, (), lines)
        return Lined(path, text, loader.construct_document(node), lines)

    return _read(path, text, read, _PlainLoader)


class _PlainLoader(_StrictLoader):
    """Only `true` and `false` are booleans, as in YAML 1.2: `on` is a string."""


_BOOL = "tag:yaml.org,2002:bool"
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != _BOOL] for first, rules in _Loader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver(_BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


MAX_VALUES, MAX_LEVELS = 100_000, 50
_PLAIN = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))


def _check_size(path: Path, node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Number of values in a node with aliases expanded; `sizes` caches it by node."""
    where = f"{path}:{node.start_mark.line + 1}"
    if id(node) in above or len(above) > MAX_LEVELS:
        what = "an anchor that holds itself" if id(node) in above else f"nested more than {MAX_LEVELS} levels deep"
        raise UsageError(f"{where}: {what}", "Mend the file.")
    if id(node) not in sizes:
        if node.tag not in _PLAIN:
            what = printable(node.tag.removeprefix("tag:yaml.org,2002:"))
            raise UsageError(f"{where}: '{what}' is no plain value", "Write texts in quotes; tags are not read.")
        parts = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = [] if isinstance(node, yaml.ScalarNode) else parts
        sizes[id(node)] = 1 + sum(_check_size(path, each, sizes, (*above, id(node))) for each in inner)
    if sizes[id(node)] > MAX_VALUES:
        raise UsageError(f"{where}: more than {MAX_VALUES} values, anchors written out", "Write less.")
    return sizes[id(node)]


def _collect(path: Path, node: yaml.Node, place: Place, lines: dict[Place, int]) -> None:
    """Add the line of every key and entry to `lines`; values behind an alias have the lines of the anchor."""
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                what = f"'{printable(key.value)}'" if isinstance(key, yaml.ScalarNode) else "that is a list or a table"
                raise UsageError(f"{path}:{key.start_mark.line + 1}: the key {what} is no text", "Write it in quotes.")
            lines[*place, key.value] = key.start_mark.line + 1
            _collect(path, value, (*place, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, each in enumerate(node.value):
            _collect(path, each, (*place, number), lines)


def _validate(path: Path, data: Any, model: type[S]) -> S:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explain(path, model, error) from error


def _all(paths: Iterable[Path], model: type[S]) -> dict[str, S]:
    """Specs by name. Raises `UsageError` where two files give the same name."""
    specs: dict[str, S] = {}
    for path in paths:
        spec = parse_yaml(path, model)
        name: str = spec.name  # type: ignore[attr-defined]
        if name in specs:
            raise UsageError(f"{path}: the name '{name}' is taken by another file", "Give it another name.")
        specs[name] = spec
    return dict(sorted(specs.items()))


def _shipped_and_own(kind: str) -> list[Path]:
    """srbench's own spec files, those of installed packages, and those of the working directory."""
    return [*sorted((CATALOG / kind).glob("*.yaml")), *resolve.own_files(kind)]


@cache
def concepts() -> dict[str, ConceptSpec]:
    """Concepts by name."""
    return _all(_shipped_and_own("concepts"), ConceptSpec)


@cache
def protocols() -> dict[str, ProtocolSpec]:
    """Protocols by name."""
    return _all(_shipped_and_own("protocols"), ProtocolSpec)


def protocol(name: str) -> ProtocolSpec:
    """A protocol by name. Raises `UsageError` for an unknown one, and for one that cannot be applied, with the reason."""
    spec = named("protocol", name, protocols())
    if spec.cannot:
        raise UsageError(f"protocol '{name}' cannot be applied: {spec.cannot}", "`srbench list protocols` shows those that can.")
    return spec


def parts(judge: ProtocolSpec) -> tuple[ProtocolSpec, ...]:
    """The protocols that read scores: the members of a union, else the protocol itself."""
    return tuple(part for name in judge.any_of for part in parts(protocol(name))) or (judge,)


@cache
def backbones() -> dict[str, BackboneSpec]:
    """Backbones by name."""
    return _all(_shipped_and_own("backbones"), BackboneSpec)


@cache
def suites() -> dict[str, SuiteSpec]:
    """Suites by name."""
    return _all(sorted(resolve.files("suites", "*.yaml").values()), SuiteSpec)


@cache
def baselines() -> dict[str, BaselineSpec]:
    """Baselines by name."""
    return _all(sorted(resolve.files("baselines", "*.yaml").values()), BaselineSpec)


@cache
def layouts() -> dict[str, LayoutSpec]:
    """Layouts of image folders written by other tools, by name."""
    return _all(_shipped_and_own("layouts"), LayoutSpec)


def named(kind: str, name: str, known: dict[str, T]) -> T:
    """`known[name]`, or a `UsageError` with the closest name."""
    if name not in known:
        raise UsageError(f"unknown {kind} '{name}'", did_you_mean(name, known))
    return known[name]


def concepts_of(backbone: BackboneSpec, names: Iterable[str]) -> list[ConceptSpec]:
    """Concepts by name. Raises `UsageError` for an unknown one, or for one that the backbone does not know."""
    specs = [named("concept", name, concepts()) for name in names]
    for concept in specs:
        if backbone.family not in concept.families:
            hint = f"It knows: {', '.join(backbone.concepts)}"
            raise UsageError(f"backbone '{backbone.name}' does not know concept '{concept.name}'", hint)
    return specs


def edition(suite: SuiteSpec, family: str, concept: str, part: str = "test", copy: bool = False) -> Edition:
    """The suite's prompts for a backbone family and concept. Raises `UsageError` where there are none.

    copy: whether the user gives a copy of the published prompts; editions that srbench ships then come last.
    """
    places = ((family, concept), (family, ANY), (ANY, concept), (ANY, ANY))
    fitting = [e for at in places for e in suite.editions if (e.family, e.concept, e.part) == (*at, part)]
    for chosen in sorted(fitting, key=lambda each: copy and bool(each.file)):
        return chosen
    names = sorted({e.concept for e in suite.editions if e.family in (family, ANY)})
    having = [each.name for each in suites().values() if any((e.family, e.concept) == (family, concept) for e in each.editions)]
    elsewhere = f" Suites of {concept}: {', '.join(having)}" if having else ""
    raise UsageError(
        f"suite '{suite.name}' has no {part} edition for {concept} on {family}",
        (f"It has: {', '.join(names)}." if names else f"It has none for {family}.") + elsewhere,
    )


def rows(suite: SuiteSpec, which: Edition) -> RowFile:
    """A shipped edition's rows, checked against its sha256 and row count. Raises `UsageError` on any difference."""
    path = resolve.find("suites", which.file)
    raw = read_bytes(path, "Restore the file.")
    sha = hashlib.sha256(raw).hexdigest()
    if which.sha256 not in (UNVERIFIED, sha):
        raise UsageError(f"{path}: expected sha256 {which.sha256[:12]}..., found {sha[:12]}...", "Restore the file.")
    file = _validate(path, parse_json(raw, str(path), "Restore the file.", unique=True), RowFile)
    if len(file.rows) != which.rows:
        hint = f"Restore the file, or write `rows: {len(file.rows)}` into the suite's file." if which.sha256 == UNVERIFIED else ""
        raise UsageError(f"{path}: expected {which.rows} rows, found {len(file.rows)}", hint or "Restore the file.")
    return file


def rows_sha(chosen: tuple[Row, ...]) -> str:
    """Short sha256 of rows, in order: cells with the same one ran the same prompts."""
    text = "\n".join(row.model_dump_json() for row in chosen)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(text: str) -> str:
    """Short digest of a text, 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
