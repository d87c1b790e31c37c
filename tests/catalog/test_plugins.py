"""`srbench list` reads literal metadata; it must say what the imported plug-in says. A broken plug-in costs nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import srbench
from srbench.analysis.metrics import METRICS
from srbench.catalog import contracts, load, plugins
from srbench.errors import ForeignError, UsageError
from srbench.methods.none import NoMethod
from tests.plug_ins import ATTACK, METHOD, SCORER, Install, installing

CASES = Path(__file__).parent.parent / "data" / "cases" / "plugins"
GIVEN = {"methods": ("METHOD", METHOD), "scorers": ("SCORER", SCORER), "attacks": ("ATTACK", ATTACK)}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    with installing(tmp_path, monkeypatch) as doing:
        yield doing


def declared(room: str, /, **changes: Any) -> str:
    """A module that declares metadata and nothing else; a change to `...` takes a key away."""
    name, meta = GIVEN[room]
    return f"{name} = { {key: value for key, value in {**meta, **changes}.items() if value is not ...} !r}\n"


def lines_of(kind: str) -> list[str]:
    """What is said of plug-ins that are left out."""
    known = plugins.plugins(kind)
    assert {"methods": "none", "scorers": "pocket-judge", "attacks": "mma"}[kind] in known
    assert "evil" not in known
    return plugins.left_out()


@pytest.mark.parametrize("kind", ["methods", "scorers", "attacks"])
def test_literal_metadata_equals_the_imported_objects(kind: str) -> None:
    found = plugins.plugins(kind)
    assert found
    for name, plugin in found.items():
        assert plugins.load(kind, name).meta == plugin.meta


def test_presets_parse_with_their_defaults() -> None:
    for preset, (name, values) in plugins.presets().items():
        options = plugins.load("methods", name).Options(**values)
        assert all(getattr(options, k) == v for k, v in values.items()), preset


def test_unknown_method_gets_the_closest_name() -> None:
    with pytest.raises(UsageError) as caught:
        plugins.preset("safredir")
    assert "Did you mean 'saferedir'?" in caught.value.hint


def test_the_families_of_shipped_backbones_are_known() -> None:
    assert {spec.family for spec in load.backbones().values()} == set(contracts.FAMILIES)


def test_srbench_s_own_metrics_cannot_be_taken() -> None:
    assert {name for name in METRICS if "@" not in name} == contracts.TAKEN


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "what"),
    [
        ("methods", {"name": "none"}, "name 'none'"),
        ("methods", {"presets": {"none": {}}}, "preset 'none'"),
        ("methods", {"presets": {"evil": {}, "sld-max": {}}}, "preset 'sld-max'"),
        ("scorers", {"name": "pocket-judge"}, "name 'pocket-judge'"),
        ("scorers", {"metrics": {"lpips": {"field": "value", "better": "lower"}}}, "metric 'lpips'"),
        ("attacks", {"name": "mma"}, "name 'mma'"),
    ],
)
def test_a_name_that_is_taken_is_refused_with_both_modules(install: Install, kind: str, changes: Any, what: str) -> None:
    """Whoever uses it gets an error, also where srbench's own is meant; the others go on, and a line says it."""
    install(kind, "taker", declared(kind, **changes))
    (line,) = lines_of(kind)
    name = what.split("'")[1]
    use = plugins.preset if kind == "methods" else lambda each: plugins.load(kind, each)
    for each in {name, *(["evil"] if changes.get("name") is None else [])}:
        with pytest.raises(UsageError) as caught:
            use(each)
        assert line == f"left out: {caught.value.line}"
    assert what in line
    assert "taker" in line
    assert f"srbench.{kind}." in line


def test_two_plug_ins_of_one_name_are_both_left_out(install: Install) -> None:
    install("methods", "first_one", declared("methods"))
    install("methods", "second_one", declared("methods", presets={"other": {}}), "y")
    (line,) = lines_of("methods")
    assert "name 'evil' is declared by first_one and second_one" in line
    for name in ("evil", "other"):
        with pytest.raises(UsageError, match="'evil' is declared by first_one and second_one"):
            plugins.preset(name)
    assert plugins.preset("saferedir") == ("saferedir", {})


def test_a_class_of_this_process_cannot_take_a_contested_name(install: Install) -> None:
    install("methods", "first_one", declared("methods"))
    install("methods", "second_one", declared("methods"), "y")
    with pytest.raises(UsageError, match="'evil' is declared by first_one and second_one"):
        srbench.method(METHOD)(type("Mine", (NoMethod,), {}))


def test_the_hijacker_of_none_and_saferedir_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CASES / "method_hijacks_none"))
    plugins.forget()
    with pytest.raises(UsageError, match=r"preset 'none' is declared by .* and fault_hijack"):
        plugins.preset("none")
    plugins.forget()


def test_what_registers_itself_as_another_method_is_refused(install: Install) -> None:
    """The metadata that is read says one thing, the decorator another."""
    source = declared("methods") + (
        "from srbench.methods import base\n@base.method({**METHOD, 'name': 'none'})\nclass Evil: pass\n"
    )
    install("methods", "two_faced", source)
    with pytest.raises(ForeignError, match=r"two_faced.py: nothing is registered under its name 'evil'") as caught:
        plugins.load("methods", "evil")
    assert caught.value.hint == "Put `@base.method(METHOD)` above its class."
    with pytest.raises(ForeignError, match=r"'none' of srbench\.methods\.none: a class of two_faced is"):
        plugins.load("methods", "none")


def test_other_metadata_than_the_file_s_is_refused(install: Install) -> None:
    source = declared("methods") + (
        "from srbench.methods import base\n@base.method({**METHOD, 'version': 2})\nclass Evil: pass\n"
    )
    install("methods", "changing", source)
    said = "changing.py, line 3: what it registers as 'evil' is not what its file declares .key 'version' is 2, and 1 in METHOD"
    with pytest.raises(ForeignError, match=said):
        plugins.load("methods", "evil")


def test_an_entry_point_for_a_file_of_srbench_changes_nothing(install: Install, tmp_path: Path) -> None:
    install("methods", "unused", declared("methods"))
    for entry in tmp_path.glob("*.dist-info/entry_points.txt"):
        entry.write_text("[srbench.methods]\nx = srbench.methods.none\ny = srbench.methods.base\n")
    plugins.forget()
    assert plugins.plugins("methods")["none"].module == "srbench.methods.none"
    assert len(plugins.left_out()) == 1  # base declares nothing


def test_an_annotated_assignment_is_read(install: Install) -> None:
    install("methods", "typed", "from typing import Any\n" + declared("methods").replace("METHOD =", "METHOD: dict[str, Any] ="))
    assert plugins.preset("evil") == ("evil", {})


def test_a_byte_order_mark_is_read(install: Install) -> None:
    install("methods", "marked", b"\xef\xbb\xbf" + declared("methods").encode())
    assert plugins.preset("evil") == ("evil", {})


# --- broken ones ------------------------------------------------------------------------------------------------------

SOURCES = {
    "no Python": ("METHOD = {", "not Python"),
    "NUL": ("METHOD = {}\0", "not Python"),
    "not UTF-8": (b"METHOD = {'name': '\xff'}", "not Python"),
    "deep": ("METHOD = " + "[" * 5000 + "]" * 5000, "not Python"),
    "empty": ("", "no METHOD in it"),
    "a call": ("METHOD = dict(name='evil')", "not a literal"),
    "a name": ("N = 'evil'\nMETHOD = {'name': N}", "not a literal"),
    "unhashable": ("METHOD = {[]: 1}", "not a literal"),
    "a list": ("METHOD = []", "a list, not a dict"),
    "nothing": ("METHOD = {}", "key 'name': is missing"),
    "twice": (declared("methods") + declared("methods", version=2), "it is assigned twice (lines 1 and 2)"),
    "a key twice": ("METHOD = {'name': 'evil',\n'version': 1, 'version': 2}", "(line 2): key 'version' is there twice"),
    "an inner key twice": ("METHOD = {'presets': {'evil': {'a': 1, 'a': 2}}}", "(line 1): key 'a' is there twice"),
}  # fmt: skip


@pytest.mark.parametrize("what", SOURCES)
def test_a_file_that_cannot_be_read_is_named_and_left_out(install: Install, what: str) -> None:
    source, message = SOURCES[what]
    path = install("methods", "broken", source, "evil")
    (line,) = lines_of("methods")
    assert message in line
    assert str(path) in line
    assert "plug-in 'evil'" in line
    assert "\n" not in line
    with pytest.raises(UsageError, match="plug-in 'evil'"):  # asked for, it says why it is not there
        plugins.preset("evil")


LEFT_OUT = {
    "methods": {"paper", "families", "presets", "decides", "reads_concept"},
    "scorers": {"kind", "reads", "families", "metrics"}, "attacks": {"paper"},
}  # fmt: skip
"""Keys that have a default."""
KEYS: list[tuple[str, str, Any, str]] = [
    *((kind, key, ..., "is missing") for kind, (_, meta) in GIVEN.items() for key in meta if key not in LEFT_OUT[kind]),
    *((kind, "version", value, "key 'version'") for kind in GIVEN for value in ("1", 1.5, True, None, -1, 0)),
    *((kind, "name", value, "key 'name'") for kind in GIVEN for value in ("a,b", "a.b", "", " ", 3, "\x1b[31m")),
    *((kind, "extra", 1, "key 'extra': is not known") for kind in GIVEN),
    ("methods", "presets", ["evil"], "key 'presets'"),
    ("methods", "presets", {"evil": 3}, "presets.evil"), ("methods", "presets", {"a,b": {}}, "presets"),
    ("methods", "kind", "both", "key 'kind'"), ("methods", "families", [], "key 'families'"),
    ("methods", "families", "*", "key 'families'"), ("methods", "families", ["sd", "sdx"], "Did you mean 'sdxl'?"),
    ("scorers", "families", ["sdx"], "key 'families.0': no backbone is of a family 'sdx'. Did you mean 'sdxl'?"),
    ("methods", "fitted", {"sdx": {"evil": {}}}, "Did you mean 'sdxl'?"),
    ("methods", "fitted", {"sd": {"evli": {}}}, "key 'fitted.sd': 'evli' is not one of its presets. Did you mean 'evil'?"),
    ("methods", "preset_families", {"evil": ["sdx"]}, "Did you mean 'sdxl'?"),
    ("methods", "preset_families", {"evli": ["sd"]}, "key 'preset_families': 'evli' is not one of its presets."),
    ("methods", "kind", "infernce", "key 'kind': unknown value 'infernce'. Did you mean 'inference'?"),
    ("methods", "titel", "x", "key 'titel': is not known. Did you mean 'title'?"),
    ("methods", "families", "pocket", "key 'families': expected a list, found 'pocket'"),
    ("methods", "families", [], "key 'families': is empty"),
    ("methods", "base", {"prest": "uce", "options": {}}, "key 'base.prest': is not known. Did you mean 'preset'? Known: options"),
    *((kind, "version", "1", "key 'version': expected a whole number, found '1'. Write it without quotes.") for kind in GIVEN),
    ("methods", "name", "a,b", "key 'name': 'a,b' is no name. Use letters"),
    ("methods", "decides", "yes", "key 'decides': expected true or false, found 'yes'"),
    ("attacks", "better", "smaller", "key 'better': unknown value 'smaller'"),
    ("scorers", "probabilities", ["valeu"], "key 'probabilities.0': 'valeu' is not one of its fields. Did you mean 'value'?"),
    ("methods", "prepare", "load", "key 'prepare'"), ("methods", "base", {"preset": "uce"}, "base.options"),
    ("methods", "fitted", {"sd": {"evil": 1}}, "fitted.sd.evil"),
    ("scorers", "kind", "video", "key 'kind'"), ("scorers", "reads", ["nonsense"], "no field 'nonsense'"),
    ("scorers", "fields", [], "key 'fields'"),
    ("scorers", "metrics", {"value": {"field": "other", "better": "higher"}}, "'other'"),
    ("scorers", "metrics", {"value": {"field": "value", "better": "sideways"}}, "metrics.value.better"),
    ("scorers", "metrics", {"fsr": {"field": "value", "better": "higher"}}, "'fsr' is a metric of srbench's own"),
    ("attacks", "needs", "luck", "key 'needs'"), ("attacks", "output", "", "key 'output'"),
    ("attacks", "better", "sideways", "key 'better'"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "key", "value", "message"), KEYS)
def test_a_wrong_key_is_named_with_its_file(install: Install, kind: str, key: str, value: Any, message: str) -> None:
    path = install(kind, "wrong", declared(kind, **{key: value}))
    (line,) = lines_of(kind)
    assert message in line
    assert str(path) in line
    assert "\n" not in line
    assert "\x1b" not in line


def test_a_module_that_is_not_there_is_left_out(install: Install) -> None:
    install("methods", "gone", declared("methods")).unlink()
    (line,) = lines_of("methods")
    assert "module gone cannot be found" in line


@pytest.mark.parametrize("value", ["no-such-file", "a b", "1+2:X", ":", "-", "x:y:z [e] !"])
def test_an_entry_point_that_is_not_well_formed_is_left_out(install: Install, tmp_path: Path, value: str) -> None:
    install("methods", "unused", declared("methods"))
    for entry in tmp_path.glob("*.dist-info/entry_points.txt"):
        entry.write_text(f"[srbench.methods]\nx = {value}\n")
    plugins.forget()
    assert "none" in plugins.plugins("methods")
    (line,) = plugins.left_out()
    assert line.startswith("left out: plug-in 'x': ")


def test_looking_for_a_module_imports_nothing(install: Install, tmp_path: Path) -> None:
    package = tmp_path / "outer"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "inner.py").write_text(declared("methods"))
    install("methods", "unused", declared("methods"))
    for entry in tmp_path.glob("*.dist-info/entry_points.txt"):
        entry.write_text("[srbench.methods]\nx = outer.inner\n")
    plugins.forget()
    assert plugins.plugins("methods")["evil"].module == "outer.inner"


@pytest.mark.parametrize("statement", ["1 / 0", "raise SystemExit(0)", "import nothing_of_that_name", "raise MemoryError"])
def test_a_module_that_cannot_be_imported_is_one_error(install: Install, statement: str) -> None:
    install("methods", "raising", declared("methods") + statement)
    assert "evil" in plugins.plugins("methods")  # its metadata can be read
    with pytest.raises(ForeignError, match=r"module raising cannot be imported: \w+.* \(raising, line 2\)") as caught:
        plugins.load("methods", "evil")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("part", ["Options", "prepare", "applied"])
def test_a_class_without_its_parts_is_refused(install: Install, part: str) -> None:
    parts = {"Options": "class Options(base.Options): pass"}
    parts |= {name: f"def {name}(*a): pass" for name in ("prepare", "applied")}
    body = "\n".join(f"    {each}" for name, each in parts.items() if name != part)
    source = f"from srbench.methods import base\n@base.method(METHOD)\nclass E:\n{body}\n"
    install("methods", "lacking", declared("methods") + source)
    with pytest.raises(ForeignError, match=f"lacking.py, line 3: 'evil' has no {part}"):
        plugins.load("methods", "evil")


OPTIONS = {
    "not derived": ("class Options: pass", "Options of 'evil' does not derive from base.Options"),
    "pydantic's": ("from pydantic import BaseModel as Options", "Options of 'evil' does not derive from base.Options"),
    "no default": ("class Options(base.Options): factor: float", "option 'factor' of 'evil' has no default"),
}


@pytest.mark.parametrize("what", OPTIONS)
@pytest.mark.parametrize("kind", list(GIVEN))
def test_options_that_do_not_fit_are_refused_with_the_file(install: Install, kind: str, what: str) -> None:
    options, said = OPTIONS[what]
    part, parts = "Settings" if kind == "attacks" else "Options", ("prepare", "applied", "identity", "score", "attack")
    body = "\n".join([f"    {options}", *(f"    def {name}(*a): pass" for name in parts)]).replace("Options", part)
    decorator = plugins.DECORATORS[kind]
    path = install(kind, "loose", declared(kind) + f"from srbench.{kind} import base\n{decorator}\nclass E:\n{body}\n")
    with pytest.raises(ForeignError) as caught:
        plugins.load(kind, "evil")
    assert said.replace("Options", part) in caught.value.message
    assert caught.value.message.startswith(f"{path}, line ")


def test_a_broken_plug_in_costs_no_command(install: Install, tmp_path: Path) -> None:
    """`list` shows the others, says in one line what it left out, and ends well."""
    path = install("methods", "broken", "METHOD = {'name': 'evil'}")
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from srbench.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), "list", "methods"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "saferedir" in done.stdout
    assert done.stderr.strip().splitlines() == [
        f"left out: plug-in 'x': METHOD in {path}: key 'version': is missing. Add it."
    ]


@pytest.mark.parametrize("kind", list(GIVEN))
def test_keys_that_are_left_out_have_defaults(install: Install, kind: str) -> None:
    install(kind, "short", declared(kind, **dict.fromkeys(LEFT_OUT[kind], ...)))
    meta = plugins.plugins(kind)["evil"].meta
    assert meta["name"] == "evil"
    if kind == "methods":
        assert (meta["families"], meta["presets"], meta["decides"], meta["reads_concept"]) == (["*"], {"evil": {}}, False, True)
        assert plugins.preset("evil") == ("evil", {})
    if kind == "scorers":
        assert (meta["kind"], meta["reads"], meta["families"]) == ("image", [], ["*"])
