"""Nothing that a user, a plug-in, a file or the environment says lowers a flag or the filter. Harmless words throughout."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from srbench.catalog import load, prompts, resolve, screen
from srbench.catalog.specs import ANY, Edition, Row, RowFile, SourceFile, SuiteSpec
from srbench.engine import sample
from srbench.engine.plan import plan
from srbench.errors import OK, UsageError
from srbench.scoring import folders
from srbench.scoring.layouts import Folder, ScoreRequest

MINOR = Row(id="x", kind="retain", category="object", prompt="a child", seed=3)


@pytest.fixture
def secret(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The toy concept, marked sensitive; one row names a minor; every encoded text is noted."""
    world.concept = world.concept.model_copy(update={"sensitive": True})
    world.rows = RowFile(meta={}, rows=(*world.rows.rows, MINOR))
    world.encoded = []
    real = sample.PromptCache.encode

    def encode(self: Any, texts: Any, *rest: Any, **more: Any) -> Any:
        world.encoded.extend(texts)
        return real(self, texts, *rest, **more)

    monkeypatch.setattr(sample.PromptCache, "encode", encode)
    return world


def holds(world: Any, **changes: Any) -> None:
    """Run, and see that the cell is sensitive, its row was left out, and its pictures are gone."""
    request = world.request(**{"methods": ("none",), **changes})
    (cell, *_) = plan(request, world.backbone())
    assert cell.sensitive
    assert cell.n_excluded >= 1
    world.run(**{"methods": ("none",), **changes})
    assert world.encoded
    assert not any("child" in text for text in world.encoded)
    assert not list((world.out / "store" / "images").glob("*/*.png"))


def test_the_environment_lowers_nothing(secret: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SENSITIVE", "UNSAFE", "NO_FILTER", "KEEP_IMAGES", "ALLOW_MINORS", "SCREEN", "DEBUG"):
        monkeypatch.setenv(f"SRBENCH_{name}", "0")
        monkeypatch.setenv(name, "0")
    holds(secret)
    for module in (screen, prompts, resolve, load):
        nodes = ast.walk(ast.parse(Path(str(module.__file__)).read_text()))
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not names & {"environ", "getenv"}, module.__name__


def test_a_local_suite_of_a_shipped_name_takes_no_flag_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = resolve.find("suites", "i2p.yaml").read_text()
    assert "sensitive: true" in text
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "i2p.yaml").write_text(text.replace("sensitive: true", "sensitive: false"))
    monkeypatch.chdir(tmp_path)
    load.suites.cache_clear()
    with pytest.raises(UsageError, match=r"i2p\.yaml: the name 'i2p' is taken"):
        load.suite("i2p")
    load.suites.cache_clear()


def test_a_local_suite_that_says_it_is_harmless_is_screened_row_by_row(secret: Any, tmp_path: Path) -> None:
    secret.concept = secret.concept.model_copy(update={"sensitive": False})
    edition = Edition(family=ANY, concept=ANY, files=(SourceFile(file="mine.csv"),), rows="unverified", sensitive=False)
    mine = SuiteSpec(name="mine", title="t", source="x", licence="MIT", metrics=("fsr",), editions=(edition,), sensitive=False)
    secret.suites["mine"] = mine
    (tmp_path / "mine.csv").write_text(f"prompt,categories\na box,{screen.SEXUAL_WORDS[0]}\na box for a child,other\n")
    holds(secret, suites=("mine",), prompts=tmp_path / "mine.csv")


def test_an_edition_lowers_no_flag_of_its_suite() -> None:
    edition = Edition(family=ANY, concept=ANY, files=(SourceFile(file="x"),), rows=1, sensitive=False, gated=False)
    suite = SuiteSpec(
        name="s", title="t", source="x", licence="MIT", metrics=("fsr",), editions=(edition,), sensitive=True, gated=True
    )  # fmt: skip
    assert (suite.of(edition).sensitive, suite.of(edition).gated) == (True, True)


@pytest.mark.parametrize("changes", [
    {"seed": 7}, {"limit": 9}, {"categories": ("object", "noun")}, {"accept_prompts": True},
    {"settings": ("brightness.scale=2",)},
    {"protocol": "bright"}, {"dtype": "fp32"}, {"batch_size": 1}, {"scorers": ("closeness",)}, {"methods": ("push",)},
], ids=lambda changes: next(iter(changes)))  # fmt: skip
def test_no_option_of_a_run_lowers_it(secret: Any, changes: dict[str, Any]) -> None:
    holds(secret, **changes)


@pytest.mark.parametrize("claim", [{"sensitive": False}, {"screened": False}, {"safe": True}, {"keep_images": True}])
def test_what_a_plug_in_claims_lowers_nothing(secret: Any, claim: dict[str, bool]) -> None:
    for name in ("brightness", "closeness"):
        secret.alter(name, meta={**secret.scorers[name].meta, **claim})
    holds(secret, methods=("push",))


def test_a_text_of_an_option_that_names_a_minor_is_refused_where_the_run_is_sensitive(world: Any) -> None:
    """Whatever it is for: a negative prompt, a phrase of a method, a label of a scorer. In a harmless run it is harmless."""
    asked = {"methods": ("push",), "settings": ("push.strength=2", "brightness.label=twelve years old")}
    assert plan(world.request(**asked), world.backbone())
    world.concept = world.concept.model_copy(update={"sensitive": True})
    with pytest.raises(UsageError, match=r"--set brightness\.label: its text names a minor"):
        plan(world.request(**asked), world.backbone())


def test_sweeps_are_screened_as_settings_are(world: Any) -> None:
    world.concept = world.concept.model_copy(update={"sensitive": True})
    with pytest.raises(UsageError):
        plan(world.request(methods=("push",), sweep="push.strength=1,a child"), world.backbone())


def test_pictures_made_elsewhere_of_who_knows_what_are_screened(tmp_path: Path) -> None:
    """Without a concept nobody says that they are harmless."""
    (tmp_path / "p.csv").write_text("prompt\na box\na box for a child\n")
    asked = ScoreRequest(
        folders=(("", tmp_path),), layout="flat", suite=None, concept=None, backbone=None, prompts=tmp_path / "p.csv",
        reference=None, categories=(), per_prompt=1, protocol="pocket-church", scorers=(), settings=(), out=tmp_path,
    )  # fmt: skip
    task = folders.task_of(asked, [Folder("mine", tmp_path)])
    assert task.sensitive
    assert [row.prompt for row in screen.admissible(task.rows)] == ["a box"]


def test_what_a_run_was_it_stays_in_reports(world: Any) -> None:
    """A catalog that calls the concept harmless afterwards shows no picture."""
    from srbench.report.sources import sources

    world.concept = world.concept.model_copy(update={"sensitive": True})
    assert world.run(methods=("none",)).exit_code == OK
    world.concept = world.concept.model_copy(update={"sensitive": False})
    assert all(source.sensitive for source in sources(world.out, world.lines.append))
