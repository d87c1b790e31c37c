"""`srbench new`: what it writes is installed, passes its own tests, is listed and runs; and nothing is ever overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srbench.catalog import load, prompts
from srbench.catalog.specs import SuiteSpec
from srbench.cli.main import app
from srbench.errors import UsageError
from srbench.scaffold import attack, method, scorer, suite, write
from srbench.scaffold.package import class_of, module_of
from tests.spec_files import forget, reading

PACKAGES = {
    "method": ["method", "quiet-text"], "weight method": ["method", "forgetful", "--weights"], "scorer": ["scorer", "redness"],
    "attack": ["attack", "by_chance"],
}  # fmt: skip


def new(*words: str) -> tuple[int, str, str]:
    """Exit code, and what is printed on both streams."""
    done = CliRunner().invoke(app, ["new", *words])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory whose specs are read."""
    with reading(tmp_path, monkeypatch) as own:
        yield own


def python(folder: Path, *words: str) -> str:
    """Python in a folder, with what is installed in its `site`; whatever fails is shown."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_packages_are_installed_and_pass_their_own_tests(folder: Path) -> None:
    """All of them in one environment, as pip installs them: with their entry points."""
    for words in PACKAGES.values():
        code, said, errors = new(*words)
        assert (code, errors) == (0, "")
        assert f"pip install -e './{words[1]}[test]'" in said
    names = [words[1] for words in PACKAGES.values()]
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", "site")
    python(folder, "-m", "pip", "install", *offline, *(f"./{name}" for name in names))
    listed = python(folder, "-m", "srbench", "list", "--json")
    assert all(f'"{name}"' in listed for name in names)
    tests = [str(path) for name in names for path in (folder / name).glob("test_*.py")]
    assert len(tests) == len(names)
    said = python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert int(said.split(" passed")[0].split()[-1]) > 30


def test_an_editable_install_finds_the_module(folder: Path) -> None:
    new("scorer", "redness")
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--prefix", "prefix")
    python(folder, "-m", "pip", "install", *offline, "-e", "./redness")
    (path,) = (folder / "prefix").rglob("*redness*.pth")
    assert path.read_text().strip() == str(folder / "redness")


def test_a_suite_is_listed_and_its_prompts_are_read(folder: Path) -> None:
    code, said, errors = new("suite", "mine")
    assert (code, errors) == (0, "")
    assert said.startswith("written: suites/mine.csv, suites/mine.yaml\nnext:\n  srbench run --suite mine")
    forget()
    spec = load.suites()["mine"]
    rows = prompts.read(Path(spec.editions[0].files[0].file)).rows
    assert [row.kind for row in rows] == ["forget"] * 4 + ["retain"] * 4
    assert all(row.reference and "church" in row.prompt and "church" not in row.reference for row in rows[:4])
    assert not any("church" in row.prompt for row in rows[4:])
    dry = ["run", "--suite", "mine", "--concept", "church", "--method", "none", "--dry-run"]
    assert CliRunner().invoke(app, dry).exit_code == 0
    assert new("suite", "mine")[0] == 2


@pytest.mark.parametrize("concept", [name for name, each in load.concepts().items() if not each.sensitive])
def test_a_suite_of_every_concept_asks_for_it(concept: str) -> None:
    """Its name is in every forget prompt, and no word of it in the others."""
    spec = load.concepts()[concept]
    words = next(iter(spec.families.values()))
    lines = suite.files("mine", spec)["suites/mine.csv"].splitlines()[1:]
    assert all(words.names[0] in line for line in lines if ",forget," in line)
    retain = [line for line in lines if ",retain," in line]
    assert len(retain) == 4
    assert not any(word in line for line in retain for word in (*words.names, *words.words))


def test_a_sensitive_concept_gets_no_prompts(folder: Path) -> None:
    code, _, errors = new("suite", "mine", "--concept", "nudity")
    assert code == 2
    assert errors.startswith("error: concept 'nudity' is sensitive")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("words", "said"), [
    (["method", "uce"], "the name 'uce' is taken: there is such a method already"),
    (["method", "esd-x-strict"], "the name 'esd-x-strict' is taken"),
    (["scorer", "pocket-judge"], "the name 'pocket-judge' is taken: there is such a scorer already"),
    (["attack", "mma"], "the name 'mma' is taken: there is such an attack already"),
    (["suite", "igmu"], "the name 'igmu' is taken: there is such a suite already"),
    (["method", "json"], "'json' cannot be the name of a package: Python has a module 'json'"),
    (["method", "class"], "'class' cannot be the name of a package"),
    (["scorer", "numpy"], "'numpy' cannot be the name of a package"),
    (["method", "../up"], "'../up' cannot be the name of a method"),
    (["method", "Caps"], "'Caps' cannot be the name of a method"),
    (["method", "a--b"], "'a--b' cannot be the name of a method"),
    (["method", "1st"], "'1st' cannot be the name of a method"),
    (["suite", "a" * 65], "cannot be the name of a suite"),
    (["suite", "mine", "--concept", "chursh"], "unknown concept 'chursh'"),
    (["suite", ""], "is empty"),
])  # fmt: skip
def test_a_name_that_cannot_be_used_is_one_line(folder: Path, words: list[str], said: str) -> None:
    code, printed, errors = new(*words)
    assert (code, printed) == (2, "")
    first, hint = errors.splitlines()
    assert said in first
    assert hint.startswith("hint: ")
    assert not list(folder.iterdir())


# --- writing ----------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(folder: Path) -> None:
    assert new("scorer", "redness")[0] == 0
    before = {path: path.read_bytes() for path in (folder / "redness").iterdir()}
    code, _, errors = new("scorer", "redness")
    assert (code, errors.splitlines()[0]) == (2, "error: redness: a folder of that name is there already")
    assert {path: path.read_bytes() for path in (folder / "redness").iterdir()} == before
    (folder / "there").write_text("mine")
    assert new("scorer", "other", "--out", "there")[0] == 2
    assert (folder / "there").read_text() == "mine"


def test_a_file_of_a_suite_that_is_there_stops_all_of_it(folder: Path) -> None:
    (folder / "suites").mkdir()
    (folder / "suites" / "mine.csv").write_text("mine")
    code, _, errors = new("suite", "mine")
    assert (code, errors.splitlines()[0]) == (2, "error: suites/mine.csv: is there already")
    assert [path.name for path in (folder / "suites").iterdir()] == ["mine.csv"]


def test_where_one_file_cannot_be_written_the_others_go_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link(source: Path, target: Path) -> None:
        if target.name == "b":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(UsageError, match="No space left on device"):
        write.write(folder, {"a": "1", "b": "2"})
    assert not list(folder.iterdir())


def test_a_folder_that_is_new_appears_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(13, "Permission denied")))
    with pytest.raises(UsageError, match=r"new: cannot write here \(Permission denied\)"):
        write.write(folder / "new", {"a": "1"})
    assert not list(folder.iterdir())


def test_names_of_modules_and_classes() -> None:
    assert (module_of("quiet-text"), class_of("quiet-text"), class_of("a_b2")) == ("quiet_text", "QuietText", "AB2")


def test_templates_name_the_plug_in_everywhere() -> None:
    for made in (method.files("my-name"), method.files("my-name", True), scorer.files("my-name"), attack.files("my-name")):
        assert set(made) == {"pyproject.toml", "my_name.py", "test_my_name.py"}
        assert not any("$" in text for text in made.values())
        assert all("my-name" in text for text in made.values())


@pytest.mark.parametrize("text", ["boats: big ones", "boats # all", "null", "true", "on", "3", "'boats'", "- boats"])
def test_a_suite_of_a_concept_with_any_title_can_be_read(text: str, tmp_path: Path) -> None:
    concept = load.concepts()["church"].model_copy(update={"title": text, "name": text})
    path = tmp_path / "suite.yaml"
    path.write_text(suite.files("null", concept)["suites/null.yaml"])
    spec = load.parse_yaml(path, SuiteSpec)
    assert (spec.name, spec.editions[0].concept) == ("null", text)
    assert text in spec.title
