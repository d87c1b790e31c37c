"""Reads spec files into typed specs; an error names the file, the key, and the closest valid name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from srbench.catalog import plugins, resolve
from srbench.catalog.contracts import TAKEN
from srbench.catalog.specs import (
    ANY,
    FAMILIES,
    UNVERIFIED,
    BackboneSpec,
    BaselineSpec,
    ConceptSpec,
    ConceptWords,
    Edition,
    LayoutSpec,
    ProtocolSpec,
    Row,
    RowFile,
    Spec,
    SuiteSpec,
)
from srbench.catalog.wording import explained
from srbench.errors import UsageError, did_you_mean
from srbench.files import parse_json, printable, read_bytes

S = TypeVar("S", bound=Spec)
T = TypeVar("T")
CATALOG = Path(__file__).parent / "data"
MAX_SPEC_BYTES = 10**7


# libyaml's parser where the wheel has it: `srbench list` reads many files.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Loader):  # type: ignore[misc, valid-type]  # the same interface, whichever it is
    """YAML that refuses duplicate keys: the second would silently win. Only `true` and `false` are booleans, as in YAML 1.2."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' appears twice", key_node.start_mark)
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_BOOL = "tag:yaml.org,2002:bool"
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != _BOOL] for first, rules in _Loader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(_BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))

Place = tuple[str | int, ...]
"""Path of a value in a file: keys of tables and indices of lists."""


def parse_yaml(path: Path, model: type[S]) -> S:
    """One YAML file as a spec. Raises `UsageError` naming file, line and key."""
    file = parse_lined(path)
    try:
        spec = model.model_validate(file.data)
    except ValidationError as error:
        raise file.error(*explained(error, file.data, model)) from error
    for place, kind, name in _named_in(spec):
        if kind == FAMILY and name not in FAMILIES:
            raise file.error(place, f"unknown family '{name}'", did_you_mean(name, FAMILIES))
    for family, words in spec.families.items() if isinstance(spec, ConceptSpec) else ():
        _check_counterparts(file, ("families", family, "counterparts"), words)
    return spec


def _check_counterparts(file: Lined, place: Place, words: ConceptWords) -> None:
    """Raises `UsageError` for counterparts of some words or descriptions only, and for those of other texts. None at all are
    allowed, and names may have one."""
    needed = (*words.words, *words.descriptions)
    for word in words.counterparts:
        if word not in (*needed, *words.names):
            raise file.error((*place, word), "is not one of the words", did_you_mean(word, needed))
    for word in needed if words.counterparts else ():
        if word not in words.counterparts:
            raise file.error(place, f"the word '{word}' has none", f"Add a line: {word}: what takes its place")


def _text(path: Path) -> str:
    try:
        return read_bytes(path, "Mend the file.", MAX_SPEC_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start + 1})", "Save it as UTF-8.") from error


HINTS = {
    "mapping values are not allowed": "Write a text that holds ': ' in quotes.",
    "cannot start any token": "Indent with spaces, and write a text that begins with a sign in quotes.",
    "appears twice": "Remove one of the two.",
    "undefined alias": "Write the value out, or in quotes where it begins with '*'.",
}
"""Part of what the YAML parser says -> what mends it."""


def _read(path: Path, text: str, read: Callable[[_StrictLoader], T]) -> T:
    """The result of `read` on a YAML text. Raises `UsageError` naming file and line where the text is not YAML."""
    loader = None
    try:
        loader = _StrictLoader(text)
        return read(loader)
    except yaml.YAMLError as error:
        line = max(getattr(getattr(error, "problem_mark", None), "line", 0), 0) + 1
        why = getattr(error, "problem", None) or str(error).split("\n")[0]
        hint = next((hint for part, hint in HINTS.items() if part in why), "Mend the file.")
        raise UsageError(f"{path}:{line}: {printable(str(why))}", hint) from error
    except (ValueError, TypeError, RecursionError) as error:  # a number of too many digits, endless nesting
        why = printable(str(error).split("\n")[0])
        raise UsageError(f"{path}: not YAML that can be read ({why})", "Mend the file.") from error
    finally:
        if loader is not None:
            loader.dispose()


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
        return UsageError(f"{printable(str(self.path))}:{self.line(place)}: {key}{printable(problem)}", hint or "Mend the file.")


def parse_lined(path: Path) -> Lined:
    """A YAML file of plain values (null, truth values, numbers, texts, lists and tables with texts as keys), with its lines.

    Raises `UsageError` naming file and line for anything else, for a duplicate key, for an anchor that contains itself, and
    for more than `MAX_VALUES` values once aliases are expanded.
    """
    text = _text(path)

    def read(loader: _StrictLoader) -> Lined:
        node = loader.get_single_node()
        if node is None:
            raise UsageError(f"{path}:1: the file is empty", "Write it, or remove it.")
        _check_size(path, node, {}, ())
        lines: dict[Place, int] = {}
        _collect(path, node, (), lines)
        return Lined(path, text, loader.construct_document(node), lines)

    return _read(path, text, read)


MAX_VALUES, MAX_LEVELS = 100_000, 50
_MERGE, _DATE = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:timestamp"
_PLAIN = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))


def _check_size(path: Path, node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Number of values in a node with aliases expanded; `sizes` caches it by node."""
    where = f"{path}:{node.start_mark.line + 1}"
    if id(node) in above or len(above) > MAX_LEVELS:
        what = "an anchor that holds itself" if id(node) in above else f"nested more than {MAX_LEVELS} levels deep"
        raise UsageError(f"{where}: {what}", "Mend the file.")
    if id(node) not in sizes:
        if node.tag == _MERGE:
            hint = "Write these keys out. An alias may stand for a whole value: `sdxl: *sd`."
            raise UsageError(f"{where}: '<<' takes keys over from another place, which is not read here", hint)
        if node.tag == _DATE:
            raise UsageError(f"{where}: {printable(node.value)} is read as a date", "Write it in quotes.")
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


# --- all files of a kind --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeftOut:
    """A file that cannot be used, and why; the others still work."""

    names: frozenset[str]
    """Names that a user may type for what it should hold: its own without the suffix, and the one in it."""
    file: Path
    error: UsageError


class Specs(dict[str, S]):
    """Specs by name, each with its file, and the files that are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, Path] = {}
        self.left_out: list[LeftOut] = []
        self.contested: dict[str, UsageError] = {}
        """Names that several files give, and the error for whatever uses them: which is meant cannot be known."""

    def file_of(self, name: str) -> Path | None:
        """The file that has a name, be it whole or left out."""
        broken = (each.file for each in self.left_out if name in each.names)
        return self.files.get(name) or next(broken, None)


def _all(paths: Iterable[Path], model: type[S]) -> Specs[S]:
    """Specs by name, in order. Where two files give the same name, the second is left out, and the name is contested."""
    read: Specs[S] = Specs()
    for path in paths:
        try:
            spec = parse_yaml(path, model)
        except UsageError as error:
            read.left_out.append(LeftOut(frozenset((path.stem, _name_in(path))), path, error))
            continue
        name: str = spec.name  # type: ignore[attr-defined]  # each of these kinds has one
        if name in read:
            taken = UsageError(f"{path}: the name '{name}' is taken by {read.files[name]}", "Give it another name.")
            read.left_out.append(LeftOut(frozenset((path.stem, name)), path, taken))
            read.contested.setdefault(name, taken)
            continue
        read[name], read.files[name] = spec, path
    in_order = sorted(read.items())
    read.clear()
    read.update(in_order)
    return read


def _name_in(path: Path) -> str:
    """The name that a file gives itself, as far as it can be read."""
    try:
        data = parse_lined(path).data
    except UsageError:
        return path.stem
    return str(data.get("name", path.stem)) if isinstance(data, dict) else path.stem


def _shipped_and_own(kind: str) -> list[Path]:
    """srbench's own spec files, those of installed packages, and those of the working directory."""
    return [*sorted((CATALOG / kind).glob("*.yaml")), *resolve.own_files(kind)]


@cache
def concepts() -> Specs[ConceptSpec]:
    """Concepts by name."""
    return _all(_shipped_and_own("concepts"), ConceptSpec)


@cache
def protocols() -> Specs[ProtocolSpec]:
    """Protocols by name."""
    return _all(_shipped_and_own("protocols"), ProtocolSpec)


def protocol(name: str) -> ProtocolSpec:
    """A protocol by name. Raises `UsageError` for an unknown one, and for one that cannot be applied, with the reason."""
    spec = named("protocol", name, protocols())
    if spec.cannot:
        raise UsageError(f"protocol '{name}' cannot be applied: {spec.cannot}", "`srbench list protocols` shows those that can.")
    return spec


def parts(judge: ProtocolSpec, above: tuple[str, ...] = ()) -> tuple[ProtocolSpec, ...]:
    """The protocols that read scores: the members of a union, else the protocol itself.

    above: names of the unions that hold it. Raises `UsageError` for a union that holds itself, and as `protocol` does.
    """
    if judge.name in above:
        raise UsageError(f"protocol '{judge.name}' holds itself: {', '.join((*above, judge.name))}", "Leave it out of any_of.")
    return tuple(part for name in judge.any_of for part in parts(protocol(name), (*above, judge.name))) or (judge,)


@cache
def backbones() -> Specs[BackboneSpec]:
    """Backbones by name."""
    return _all(_shipped_and_own("backbones"), BackboneSpec)


@cache
def suites() -> Specs[SuiteSpec]:
    """Suites by name."""
    return _all(resolve.spec_files("suites"), SuiteSpec)


@cache
def baselines() -> Specs[BaselineSpec]:
    """Baselines by name."""
    return _all(resolve.spec_files("baselines"), BaselineSpec)


@cache
def layouts() -> Specs[LayoutSpec]:
    """Layouts of image folders written by other tools, by name."""
    return _all(_shipped_and_own("layouts"), LayoutSpec)


KINDS: dict[str, Any] = {
    "concepts": concepts, "protocols": protocols, "backbones": backbones, "suites": suites, "baselines": baselines,
    "layouts": layouts,
}  # fmt: skip
"""Kind of spec -> what reads all files of it, once."""


def left_out() -> list[str]:
    """A line for each file left out, of the kinds read so far."""
    files = [each for read in KINDS.values() if read.cache_info().currsize for each in read().left_out]
    return [f"left out: {each.error.line}" for each in files]


def _contested(known: Mapping[str, Any]) -> Mapping[str, UsageError]:
    """Names that several files give, and their errors; specs that are in no file have none."""
    return known.contested if isinstance(known, Specs) else {}


def named(kind: str, name: str, known: Mapping[str, T]) -> T:
    """`known[name]`, or a `UsageError` as `unknown` gives it, and for a name that several files give."""
    if name in _contested(known):
        raise _contested(known)[name]
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def unknown(kind: str, name: str, known: Mapping[str, Any], others: Iterable[str] = (), hint: str = "") -> UsageError:
    """The error for an unknown name: why its file was left out, else the closest of the known names and `others`."""
    for each in known.left_out if isinstance(known, Specs) else ():
        if name in each.names:
            return each.error
    return UsageError(f"unknown {kind} '{name}'", did_you_mean(name, (*others, *known)) + hint)


# --- names of other files in a file ---------------------------------------------------------------------------------------------

FAMILY = "family"
AT_METRICS = frozenset({"asr@1", "asr@any-of-2", "asr@any-of-3", "asr@any-of-5", "asr@any-of-10"})
"""srbench's own metrics that are not among `contracts.TAKEN`, since no scorer's metric can have such a name."""


def _named_in(spec: Spec) -> Iterator[tuple[Place, str, str]]:
    """What a spec names: the place in its file, the kind, and the name."""
    if isinstance(spec, ConceptSpec):
        for family, words in spec.families.items():
            yield ("families", family), FAMILY, family
            yield ("families", family, "protocol"), "protocol", words.protocol
    elif isinstance(spec, ProtocolSpec):
        yield from ((("any_of", i), "protocol", name) for i, name in enumerate(spec.any_of))
        if spec.scorer:
            yield ("scorer",), "scorer", spec.scorer
    elif isinstance(spec, SuiteSpec):
        yield from ((("metrics", i), "metric", name) for i, name in enumerate(spec.metrics))
        for i, edition in enumerate(spec.editions):
            yield from _named_in_edition(("editions", i), edition)
    elif isinstance(spec, BackboneSpec):
        yield ("family",), FAMILY, spec.family
        yield from ((("concepts", i), "concept", name) for i, name in enumerate(spec.concepts))
        yield from ((("scorers", i), "scorer", name) for i, name in enumerate(spec.scorers) if name)
    elif isinstance(spec, BaselineSpec):
        yield ("name",), "new name", spec.name
        yield ("family",), FAMILY, spec.family
        yield ("concept",), "concept", spec.concept


def _named_in_edition(place: Place, edition: Edition) -> Iterator[tuple[Place, str, str]]:
    if edition.family != ANY:
        yield (*place, "family"), FAMILY, edition.family
    if edition.concept != ANY:
        yield (*place, "concept"), "concept", edition.concept
    if edition.protocol:
        yield (*place, "protocol"), "protocol", edition.protocol
    yield from (((*place, "metrics", i), "metric", name) for i, name in enumerate(edition.metrics))


def _need(kind: str, name: str) -> None:
    """Raises `UsageError` for a name that nothing has, or that is not new. kind: one of those of `_named_in`."""
    if kind == "protocol":
        named(kind, name, KINDS["protocols"]())
    elif kind == "concept" and name not in KINDS["concepts"]():  # a list of concepts uses none of them yet
        raise unknown(kind, name, KINDS["concepts"]())
    elif kind == "scorer":
        plugins.known("scorers", name)
    elif kind == "new name" and name in plugins.presets():
        raise UsageError(f"the name '{name}' is taken by a method", "Choose another name.")
    elif kind == "metric":
        of_scorers = (metric for plugin in plugins.plugins("scorers").values() for metric in plugin.meta.get("metrics", ()))
        known = (*TAKEN, *AT_METRICS, *of_scorers)
        if name not in known:
            raise UsageError(f"unknown metric '{name}'", did_you_mean(name, known))


def dangling(kind: str, names: Iterable[str] | None = None) -> Iterator[UsageError]:
    """An error for each name in files of a kind that nothing has: a protocol, concept, scorer or metric.

    kind: one of `KINDS`. names: of the specs to look at; all where left out.
    """
    specs: Specs[Any] = KINDS[kind]()
    for spec_name in specs if names is None else [name for name in names if name in specs]:
        for place, what, name in _named_in(specs[spec_name]):
            try:
                _need(what, name)
            except UsageError as error:
                yield error if error in _contested(KINDS["protocols"]()).values() else error_in(kind, spec_name, place, error)


def error_in(kind: str, name: str, place: Place, error: UsageError) -> UsageError:
    """The error with file, line and key; with the kind and name of a spec that is in no file. kind: one of `KINDS`."""
    file = KINDS[kind]().files.get(name)
    if file is None:
        return type(error)(f"{kind.removesuffix('s')} {name}: {error.message}", error.hint)
    placed = parse_lined(file).error(place, error.message, error.hint)
    return type(error)(placed.message, placed.hint)


def check_named(kind: str, name: str) -> None:
    """Raises `UsageError` for a name that several files give, and for the first name in a spec's file that nothing has."""
    specs = KINDS[kind]()
    if name in specs:
        named(kind, name, specs)
    for error in dangling(kind, [name]):
        raise error


def suite(name: str) -> SuiteSpec:
    """A suite by name, to be run. Raises `UsageError` for an unknown one, and for one that names what is not there."""
    spec = named("suite", name, suites())
    check_named("suites", name)
    return spec


def concepts_of(backbone: BackboneSpec, names: Iterable[str]) -> list[ConceptSpec]:
    """Concepts by name.

    Raises `UsageError` for an unknown one, for one that the backbone does not know, and for one whose
    file names what is not there.
    """
    specs = [named("concept", name, concepts()) for name in names]
    for concept in specs:
        check_named("concepts", concept.name)
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
    file = row_file(path, parse_json(raw, str(path), "Restore the file.", unique=True))
    if len(file.rows) != which.rows:
        hint = f"Restore the file, or write `rows: {len(file.rows)}` into the suite's file." if which.sha256 == UNVERIFIED else ""
        raise UsageError(f"{path}: expected {which.rows} rows, found {len(file.rows)}", hint or "Restore the file.")
    return file


def row_file(path: Path, data: Any) -> RowFile:
    """Rows of srbench's own, as they were read from JSON. Raises `UsageError` naming file and key."""
    try:
        return RowFile.model_validate(data)
    except ValidationError as error:
        place, problem, hint = explained(error, data, RowFile)
        at = f"key '{printable('.'.join(map(str, place)))}': " if place else ""
        raise UsageError(f"{path}: {at}{problem}", hint or "Mend the file.") from error


LATER = {"start": "", "pictured": None, "picture": None}
"""Fields of rows that came later -> the value that older rows have: left out at it, so that their hashes stay."""


def _at_default(row: Row) -> list[str]:
    return [name for name, value in LATER.items() if getattr(row, name) == value]


def rows_sha(chosen: tuple[Row, ...]) -> str:
    """Short sha256 of rows, in order: cells with the same one ran the same prompts."""
    # Without `phrase`: it says something of a prompt that is in the sha already, and older results have none.
    text = "\n".join(row.model_dump_json(exclude={"phrase", *_at_default(row)}) for row in chosen)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(text: str) -> str:
    """Short digest of a text, 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
