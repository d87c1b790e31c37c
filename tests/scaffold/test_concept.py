"""`srbench new concept`: what it writes can be read, planned and run, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import srbench
from srbench.catalog import load, prompts, screen
from srbench.catalog.judges import with_settings
from srbench.catalog.specs import ConceptSpec, ProtocolSpec, RowFile, bare
from srbench.cli.main import app
from srbench.errors import UsageError
from srbench.pocket import world as pocket
from srbench.results import stored
from srbench.scaffold import concept as scaffold
from srbench.scaffold.judge import JudgeRequest
from tests.spec_files import forget, reading

WORDS = ("--words", "sailboat,sailing boat", "--neighbours", "car,tent,umbrella")
RUN = {"concept": "sailboat", "suite": "sailboat", "limit": 1, "batch_size": 1, "progress": False}
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose specs are read."""
    with reading(tmp_path, monkeypatch) as own:
        yield own


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and what people are told."""
    result = CliRunner().invoke(app, list(arguments))
    forget()
    return result.exit_code, result.stdout + result.stderr


def new(*arguments: str, name: str = "sailboat") -> tuple[int, str]:
    return command("new", "concept", name, *(arguments or WORDS))


def request(**given: object) -> scaffold.ConceptRequest:
    values = {"name": "sailboat", "words": ("sailboat", "sailing boat"), "neighbours": ("car", "tent")}
    return scaffold.ConceptRequest(**{**values, **given})  # type: ignore[arg-type]  # the test's own keywords


def rows_of(files: dict[str, str], name: str) -> RowFile:
    return RowFile.model_validate(json.loads(files[name]))


# --- what is written ----------------------------------------------------------------------------------------------------------


def test_what_is_written_can_be_read(folder: Path) -> None:
    code, told = new()
    assert code == 0, told
    concept, judge, suite = load.concepts()["sailboat"], load.protocols()["sailboat-seen"], load.suites()["sailboat"]
    assert concept.families["pocket"].counterparts == {"sailboat": "car", "sailing boat": "car"}
    assert (judge.scorer, judge.classes) == ("pocket-judge", ("sailboat",))
    rows = load.rows(suite, load.edition(suite, "pocket", "sailboat")).rows
    dev = load.rows(suite, load.edition(suite, "pocket", "sailboat", "dev")).rows
    assert {row.category for row in rows} == {"noun", "pair", "unseen", "neighbour", "object", "background"}
    assert not {row.prompt for row in rows} & {row.prompt for row in dev}
    assert len(prompts.read_pairs(folder / "pairs" / "sailboat.csv").pairs) >= 20


def test_what_is_written_can_be_planned_as_a_suite_and_as_a_file_of_prompts(folder: Path) -> None:
    new()
    for prompts_of in (("--suite", "sailboat"), ("--prompts", "suites/sailboat/pocket.json")):
        code, told = command("run", "--concept", "sailboat", "--method", "none", *prompts_of, "--dry-run")
        assert code == 0, told
        assert "240 rows loaded, 0 excluded, 240 to run" in told


@pytest.mark.parametrize("kind", ["object", "style"])
@pytest.mark.parametrize("family", ["pocket", "sd"])
def test_pairs_and_prompts_share_no_sentence_and_no_form(folder: Path, kind: str, family: str) -> None:
    words = {"object": ("sailboat",), "style": ("pencil sketch",)}[kind]
    near = {"object": ("car", "tent"), "style": ("noto style", "fluent style")}[kind]
    unseen = ("canoe",) if family == "sd" else ()
    files = scaffold.files(request(words=words, neighbours=near, kind=kind, backbones=(family,), unseen=unseen))
    suite = [rows_of(files, name) for name in files if name.endswith(".json")]
    assert len(suite) == 2
    written = {text for file in suite for row in file.rows for text in (row.prompt, row.reference) if text}
    (folder / "pairs.csv").write_text(files["pairs/sailboat.csv"])
    pairs = prompts.read_pairs(folder / "pairs.csv").pairs
    assert not written & {text for pair in pairs for text in pair}
    assert not set(str(suite[0].meta["forms"]).split(" | ")) & set(str(suite[0].meta["forms_of_pairs"]).split(" | "))
    assert all(any(word in unsafe for word in words) and not any(word in safe for word in words) for unsafe, safe in pairs)
    trained = {text for pair in pairs for text in pair}
    assert not any("canoe" in text or "hull with white sails" in text for text in trained), "unseen words are kept from training"


def test_every_word_and_every_neighbour_has_prompts(folder: Path) -> None:
    rows = rows_of(scaffold.files(request()), "suites/sailboat/pocket.json").rows
    words = ("sailboat", "sailing boat")
    assert all(any(word in row.prompt for row in rows[:5]) for word in words), "--limit keeps every word"
    assert {row.category for row in [row for row in rows if row.kind == "retain"][:5]} == {"neighbour", "object", "background"}, (
        "--limit keeps every kind"
    )


def test_a_family_of_real_backbones_is_judged_by_clip_among_words_and_neighbours(folder: Path) -> None:
    code, told = new(*WORDS, "--backbone", "pocket,sd14,sdxl")
    assert code == 0, told
    judge = load.protocols()["sailboat-seen"]
    assert judge.scorer == "clip-object"
    assert judge.settings["labels"] == "sailboat,sailing boat,car,tent,umbrella,landscape"
    assert load.concepts()["sailboat"].families["sd"].protocol == "sailboat-seen"
    assert load.concepts()["sailboat"].families["pocket"].protocol == "sailboat-seen-pocket"
    suite = load.suites()["sailboat"]
    assert load.edition(suite, "sd", "sailboat").file == load.edition(suite, "sdxl", "sailboat").file != ""


def test_a_scorer_of_the_users_choice_judges(folder: Path) -> None:
    new(*WORDS, "--backbone", "sd14", "--judge", "resnet50-v2", "--classes", "yawl,schooner", "--threshold", "0.3")
    judge = load.protocols()["sailboat-seen"]
    assert (judge.scorer, judge.field, judge.classes, judge.threshold) == ("resnet50-v2", "objects", ("yawl", "schooner"), 0.3)


def test_a_field_that_is_one_number_judges_without_classes_above_any_number(folder: Path) -> None:
    code, told = new(*WORDS, "--judge", "resnet50-v2", "--field", "rest", "--threshold", "0.3", "--backbone", "sd14")
    assert code == 0, told
    judge = load.protocols()["sailboat-seen"]
    assert (judge.scorer, judge.field, judge.classes, judge.threshold) == ("resnet50-v2", "rest", (), 0.3)


def test_what_an_object_looks_like_is_not_unseen_where_it_is_among_the_words(folder: Path) -> None:
    look = pocket.OBJECTS["sailboat"].description
    assert new("--words", f"sailboat,{bare(look)}", "--neighbours", "car,tent")[0] == 0
    assert load.concepts()["sailboat"].families["pocket"].reserved == ()


def test_the_pocket_judge_takes_a_threshold(folder: Path) -> None:
    assert new(*WORDS, "--judge", "pocket-judge", "--threshold", "0.3")[0] == 0
    assert load.protocols()["sailboat-seen"].threshold == 0.3


# --- what is refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"name": "church"}, "the name 'church' is taken"),
        ({"name": "igmu"}, "the name 'igmu' is taken"),
        ({"name": "any"}, "'any' cannot be the name"),
        ({"name": "../sail"}, "cannot be the name of a concept"),
        ({"name": "Sailboat"}, "cannot be the name of a concept"),
        ({"words": ()}, "a concept needs words"),
        ({"words": ("???",)}, "is no word"),
        ({"words": ("a sailboat",)}, "words go without article"),
        ({"words": ("boat {}",)}, "is no word"),
        ({"neighbours": ("car",)}, "needs 2 neighbours at least, and has 1"),
        ({"neighbours": ("car", "sailboats")}, "they overlap"),
        ({"neighbours": ("car", "boat")}, "they overlap"),
        ({"anchor": "red sailboat"}, "they overlap"),
        ({"words": ("sailboat", "Sailboat")}, "--words: 'Sailboat' is there twice"),
        ({"unseen": ("a sailboat",)}, "--unseen: 'a sailboat' is there twice"),
        ({"neighbours": ("car", "a car")}, "--neighbours: 'a car' is there twice"),
        ({"kind": "thing"}, "unknown --kind 'thing'"),
        ({"kind": "content"}, "pocket draws objects and styles"),
        ({"backbones": ("sd99",)}, "unknown backbone 'sd99'"),
        ({"words": ("submarine",)}, "pocket draws no submarine"),
        ({"neighbours": ("bicycle", "airplane")}, "pocket draws none of the neighbours"),
        ({"judge": JudgeRequest("nudenet")}, "unknown scorer 'nudenet'"),
        ({"judge": JudgeRequest("resnet50-v2")}, "'objects' of scorer 'resnet50-v2' holds a number for each class"),
        ({"judge": JudgeRequest("resnet50-v2", classes=("schoner",))}, "has no class 'schoner' in 'objects'"),
        ({"judge": JudgeRequest("resnet50-v2", "rest", ("yawl",))}, "is one number and has no classes"),
        ({"judge": JudgeRequest("resnet50-v2", "rest")}, "above which number of 'rest' of resnet50-v2 is the concept seen?"),
        ({"judge": JudgeRequest("resnet50-v2", "rest", threshold=float("nan"))}, "not a finite number"),
        ({"judge": JudgeRequest("pocket-judge", threshold=5)}, "no picture exceeds a threshold of 5: 'objects'"),
        ({"judge": JudgeRequest("resnet50-v2", "rest", threshold=0)}, "every picture reaches a threshold of 0: 'rest'"),
        ({"judge": JudgeRequest("nudenet320n-rgb", threshold=0.5)}, "'boxes' of scorer 'nudenet320n-rgb' holds a number"),
        ({"judge": JudgeRequest("pocket-judge", "style")}, "which of its classes are the concept?"),
        ({"judge": JudgeRequest(threshold=0.3)}, "--threshold is that of a scorer"),
        ({"judge": JudgeRequest("resnet50-v2", "boxes", ("yawl",))}, "has no field 'boxes'"),
        ({"judge": JudgeRequest("lpips", classes=("x",))}, "compares pictures"),
        ({"judge": JudgeRequest("pocket-judge"), "backbones": ("sd14",)}, "reads pocket's pictures alone"),
        ({"backbones": ("sd14",), "words": ("toddler",)}, "'toddler' names a minor"),
        ({"sensitive": True, "neighbours": ("car", "baby penguin")}, "'baby penguin' names a minor"),
    ],
)
def test_what_cannot_be_a_concept_is_one_clear_line(folder: Path, given: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError) as refused:
        scaffold.files(request(**given))
    assert why in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.hint


def test_nothing_is_overwritten(folder: Path) -> None:
    (folder / "pairs").mkdir()
    (folder / "pairs" / "sailboat.csv").write_text("mine")
    code, told = new()
    assert code == 2
    assert "pairs/sailboat.csv: is there already" in told
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["sailboat.csv"]
    assert (folder / "pairs" / "sailboat.csv").read_text() == "mine"


@pytest.mark.parametrize("text", ["name: sailboat\n", "name: [", None])
def test_the_file_that_has_a_name_already_is_said_be_it_whole_or_not(folder: Path, text: str | None) -> None:
    whole = scaffold.files(request())["concepts/sailboat.yaml"]
    (folder / "concepts").mkdir()
    (folder / "concepts" / "sailboat.yaml").write_text(text or whole)
    forget()
    code, told = new()
    assert code == 2
    assert "the name 'sailboat' is taken: there is such a concept already, in concepts/sailboat.yaml" in told


def test_a_concept_of_ones_own_cannot_be_written_twice(folder: Path) -> None:
    new()
    code, told = new()
    assert (code, "the name 'sailboat' is taken" in told) == (2, True)


# --- sensitive ----------------------------------------------------------------------------------------------------------------


def test_the_user_can_make_a_concept_sensitive(folder: Path) -> None:
    code, told = new(*WORDS, "--sensitive")
    assert code == 0
    assert "sailboat is sensitive: its images are dropped once they are scored" in told
    assert load.concepts()["sailboat"].sensitive
    assert load.suites()["sailboat"].sensitive
    _, planned = command("run", "--concept", "sailboat", "--suite", "sailboat", "--method", "none", "--dry-run")
    assert "sensitive: images are dropped once scored" in planned


@pytest.mark.parametrize("words", [("lingerie",), ("fist fight",), ("violence",)])
def test_words_that_the_screen_or_a_sensitive_concept_knows_make_it_sensitive(folder: Path, words: tuple[str, ...]) -> None:
    """And no prompt of it is written for a real backbone."""
    asked = request(name="mine", words=words, backbones=("sd14",))
    files = scaffold.files(asked)
    assert set(files) == {"protocols/mine-seen.yaml", "concepts/mine.yaml"}
    (folder / "concept.yaml").write_text(files["concepts/mine.yaml"])
    assert screen.sensitive_concept(load.parse_yaml(folder / "concept.yaml", ConceptSpec))
    assert any("no prompts and pairs are written" in line for line in scaffold.remarks(asked))


# --- judges with settings of their own ----------------------------------------------------------------------------------------


def zero_shot(name: str, labels: str) -> ProtocolSpec:
    return ProtocolSpec(
        name=name, title="t", source="s", scorer="clip-object", field="objects", classes=("sailboat",), top1=True,
        settings={"labels": labels},
    )  # fmt: skip


def test_a_judges_settings_stand_behind_the_users() -> None:
    judge = zero_shot("one", "sailboat,car")
    assert with_settings(("uce.steps=1",), [judge]) == ("uce.steps=1", "clip-object.labels=sailboat,car")
    assert with_settings(("clip-object.labels=sailboat,car",), [judge]) == ("clip-object.labels=sailboat,car",)
    with pytest.raises(UsageError, match="the judge one has another value"):
        with_settings(("clip-object.labels=sailboat,tent",), [judge])
    with pytest.raises(UsageError, match="the judges one and two give clip-object"):
        with_settings((), [judge, zero_shot("two", "sailboat,tent")])


def test_settings_need_a_scorer() -> None:
    with pytest.raises(ValueError, match="they are a scorer's"):
        ProtocolSpec(name="p", title="t", source="s", any_of=("a",), settings={"labels": "a,b"})


def test_labels_are_said_once_and_hold_in_every_command(folder: Path) -> None:
    """Zero-shot by pocket's own CLIP; and numbers among other labels are never taken for the judge's."""
    new(*WORDS, "--judge", "zero-shot")
    found = srbench.run("none", out="r", **RUN)  # type: ignore[arg-type]  # the test's own keywords
    assert found.exit_code == 0
    table = found.metrics()
    assert table[table.metric == "fsr"].value.iloc[0] == 0, "the untouched model draws it, and CLIP sees it"
    run = json.loads(next(Path("r/runs").glob("*/run.json")).read_text())
    assert run["scorers"]["clip-object"]["labels"] == ["sailboat", "sailing boat", "car", "tent", "umbrella", "empty scene"]
    text = Path("protocols/sailboat-seen.yaml").read_text()
    Path("protocols/other.yaml").write_text(text.replace("sailboat-seen", "other").replace(",car,", ",house,"))
    forget()
    (same,) = stored.rejudge(Path("r"), ["sailboat-seen"], print)
    (other,) = stored.rejudge(Path("r"), ["other"], print)
    assert same.metrics["fsr"].value == 0
    assert other.metrics["fsr"].value is None


# --- the whole way ------------------------------------------------------------------------------------------------------------


def test_from_words_to_a_comparison(folder: Path) -> None:
    new()
    found = srbench.run("none,uce", out="r", **RUN)  # type: ignore[arg-type]  # the test's own keywords
    assert found.exit_code == 0
    rows = found.rows()
    assert set(rows[rows.on == "uce"].category) == {"noun", "unseen", "neighbour"}
    code, told = command("compare", "r", "--concept", "sailboat")
    assert code == 0
    assert "sailboat × sailboat on pocket" in told
    assert "judge sailboat-seen" in told
