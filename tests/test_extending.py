"""docs/extending.md: every example runs as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import srbench
from srbench.catalog import load, plugins, resolve
from srbench.cli.main import app
from srbench.errors import USAGE, UsageError
from tests.plug_ins import Install, installing
from tests.spec_files import forget, reading

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"
BLOCK = re.compile(r"^```\w+\n# (?P<name>[\w./-]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"METHOD": "methods", "SCORER": "scorers", "ATTACK": "attacks"}
TABLE = re.compile(r"`(?P<name>[\w-]+\.csv)`[^`]*(?:`\w+`[^`]*)*```csv\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
"""A table holds no comment: the sentence before it names it."""
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = {found["name"]: found["text"] for pattern in (BLOCK, TABLE) for found in pattern.finditer(TEXT)}
ASKED: dict[str, Any] = {"suite": "mma", "concept": "church", "limit": 1, "batch_size": 1, "progress": False}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs the example of that file's name."""
    with installing(tmp_path, monkeypatch) as install:

        def named(name: str) -> Path:
            text = EXAMPLES[name]
            kind = next(kind for variable, kind in KINDS.items() if f"\n{variable} = " in text)
            return install(kind, name.removesuffix(".py"), text)

        yield named


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose specs are read."""
    with reading(tmp_path, monkeypatch) as own:
        yield own


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    forget()


def value(found: srbench.Results, method: str, metric: str, on: str = "none") -> float:
    table = found.metrics()
    return float(table[(table.method == method) & (table.on == on) & (table.metric == metric)].iloc[0].value)


def test_a_method_that_acts_while_sampling(example: Any, tmp_path: Path) -> None:
    example("quiet_text.py")
    found = srbench.run("none,quiet-text", set={"quiet-text.factor": 0.0}, out=tmp_path / "r", **ASKED)
    keys = found.rows()
    store = found._store
    names = ("none", "quiet-text")
    shas = {name: {store.images[key]["pixel_sha"] for key in keys[keys.method == name].key} for name in names}
    assert not shas["none"] & shas["quiet-text"]
    with pytest.raises(UsageError, match=r"quiet-text\.factor"):
        srbench.run("quiet-text", set={"quiet-text.factor": -1}, out=tmp_path / "r", **ASKED)


def test_presets_are_the_names_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (presets,) = re.findall(r'`("presets": \{.*?\}\})`', TEXT)
    with installing(tmp_path, monkeypatch) as install:
        source = EXAMPLES["quiet_text.py"].replace('"version": 1,', f'"version": 1, {presets},', 1)
        install("methods", "quiet_text", source, "other")
        assert plugins.preset("quiet-text") == ("quiet-text", {})
        assert plugins.preset("quiet-text-half") == ("quiet-text", {"factor": 0.25})
        assert plugins.load("methods", "quiet-text").Options(factor=0.25)
        with pytest.raises(UsageError, match="unknown method 'other'"):
            plugins.preset("other")


def test_a_method_that_changes_weights(example: Any, tmp_path: Path) -> None:
    example("forgetful.py")
    found = srbench.run("none", on="none,forgetful", out=tmp_path / "r", **ASKED)
    assert found.exit_code == 0
    assert set(found.metrics().on) == {"none", "forgetful"}


def test_a_scorer(example: Any, tmp_path: Path) -> None:
    example("redness.py")
    found = srbench.run("none", scorers="redness", out=tmp_path / "r", **ASKED)
    assert 0 < value(found, "none", "redness") < 255


def test_an_attack(example: Any, tmp_path: Path) -> None:
    example("shouting.py")
    found = srbench.attack("shouting", "church", suite="mma", limit=1, out=tmp_path / "a.json", progress=False)
    assert list(found.prompt) == [found.target[0].upper()]
    done = srbench.run("none", concept="church", prompts=tmp_path / "a.json", out=tmp_path / "r", progress=False)
    assert set(done.rows().prompt) == set(found.prompt)


def test_the_example_of_a_test(example: Any) -> None:
    """It has the checks, and its method passes them; the others' examples pass theirs."""
    example("quiet_text.py")
    made: dict[str, Any] = {"__name__": "test_quiet_text"}
    exec(EXAMPLES["test_quiet_text.py"], made)
    (case, *_) = made["TestQuietText"].cases()
    made["TestQuietText"]().test_company_changes_no_bit(case)
    srbench.testing.check_method("quiet-text", families=["sd"])


def test_the_examples_pass_what_is_asked_of_all(example: Any) -> None:
    for name in ("forgetful.py", "redness.py", "shouting.py"):
        example(name)
    srbench.testing.check_scorer("redness")
    srbench.testing.check_attack("shouting")
    srbench.testing.check_weight_method("forgetful")


def test_a_concept(folder: Path) -> None:
    for name in ("concepts/sailboat.yaml", "protocols/sailboat-seen.yaml"):
        write(folder, name, EXAMPLES[name])
    (folder / "prompts.csv").write_text(EXAMPLES["prompts.csv"])
    found = srbench.run("none", concept="sailboat", on="none,uce", prompts="prompts.csv", out="r", batch_size=1, progress=False)
    assert found.exit_code == 0
    assert {cell.protocol for cell in found.cells} == {"sailboat-seen"}
    assert 0 <= value(found, "none", "fsr", "uce") <= 100
    assert not set(found.rows(method="none").key[:3]) & set(found.rows(method="none").key[3:])


@pytest.mark.parametrize(("kind", "name"), [("concepts", "church"), ("protocols", "pocket-church"), ("backbones", "pocket")])
def test_the_name_of_a_shipped_spec_cannot_be_taken(folder: Path, kind: str, name: str) -> None:
    """Else a file beside the prompts could make a sensitive concept a harmless one."""
    write(folder, f"{kind}/mine.yaml", (load.CATALOG / kind / f"{name}.yaml").read_text())
    known = getattr(load, kind)()
    assert known.files[name].is_relative_to(load.CATALOG)
    with pytest.raises(UsageError, match=f"mine.yaml: the name '{name}' is taken"):
        load.named(kind.removesuffix("s"), name, known)
    with pytest.raises(UsageError, match=f"mine.yaml: the name '{name}' is taken"):
        load.check_named(kind, name)
    (line,) = load.left_out()
    assert f"mine.yaml: the name '{name}' is taken" in line


def test_a_taken_name_costs_what_uses_it_and_nothing_else(folder: Path) -> None:
    """A concept, a protocol and a suite of shipped names, each in a file of the user's."""
    write(folder, "concepts/mine.yaml", (load.CATALOG / "concepts" / "church.yaml").read_text())
    write(folder, "protocols/mine.yaml", (load.CATALOG / "protocols" / "pocket-church.yaml").read_text())
    write(folder, "suites/mma.yaml", (resolve.find("suites", "mma.yaml")).read_text() + "\n")
    plan = ("run", "--method", "none", "--limit", "1", "--dry-run")
    fine = CliRunner().invoke(app, [*plan, "--concept", "hazard", "--suite", "igmu"])
    assert fine.exit_code == 0
    assert fine.stderr.count("is taken by") == 3
    for words, file in (
        (["--concept", "church"], "concepts/mine.yaml"), (["--concept", "hazard", "--suite", "mma"], "suites/mma.yaml"),
        (["--concept", "hazard", "--protocol", "pocket-church"], "protocols/mine.yaml"),
    ):  # fmt: skip
        taken = CliRunner().invoke(app, [*plan, *words])
        assert taken.exit_code == USAGE
        assert f"{file}: the name" in taken.stderr.splitlines()[0]
        assert taken.stderr.count(f"{file}: the name") == 1, "it is said once"
    assert CliRunner().invoke(app, ["list"]).exit_code == 0


def test_a_spec_that_is_wrong_is_one_line_with_its_file(folder: Path) -> None:
    write(folder, "concepts/a.yaml", EXAMPLES["concepts/sailboat.yaml"].replace("kind: object", "kind: thing"))
    with pytest.raises(UsageError, match=r"concepts/a\.yaml:3: key 'kind': unknown value 'thing'"):
        load.named("concept", "sailboat", load.concepts())


def test_a_package_brings_specs_and_is_not_imported(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path, "site/mine/concepts/sailboat.yaml", EXAMPLES["concepts/sailboat.yaml"])
    (tmp_path / "site/mine/__init__.py").write_text("raise RuntimeError('imported')\n")
    info = tmp_path / "site" / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{resolve.GROUP}]\nmine = mine\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    load.concepts.cache_clear()
    assert load.concepts()["sailboat"].title == "sailing boats"


def test_a_concept_with_sexual_words_is_sensitive_whatever_its_file_says(folder: Path) -> None:
    from srbench.catalog import screen

    shipped = (load.CATALOG / "concepts" / "nudity.yaml").read_text()
    text = shipped.replace("name: nudity", "name: mine").replace("sensitive: true", "sensitive: false")
    write(folder, "concepts/mine.yaml", text)
    assert not load.concepts()["mine"].sensitive
    assert screen.sensitive_concept(load.concepts()["mine"])


def test_every_example_is_tried_here() -> None:
    tried = Path(__file__).read_text(encoding="utf-8")
    assert len(EXAMPLES) == 8
    assert all(name in tried for name in EXAMPLES)
    assert plugins.plugins("methods")
