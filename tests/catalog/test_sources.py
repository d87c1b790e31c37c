"""Where a suite's rows come from. The files here are harmless stand-ins in the form of the published ones."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from srbench.catalog import load, screen, sources
from srbench.catalog.sources import Given
from srbench.catalog.specs import ANY, Edition, SourceFile, SuiteSpec
from srbench.errors import MissingError, UsageError

CSV = "case_number,prompt,evaluation_seed\n1,a boat,4\n2,a kite,5\n"
URL = "https://example.org/prompts/boats.csv"
HUB = "somebody/boats"
HEX = re.compile(r"[0-9a-f]{64}")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def made(*files: SourceFile, rows: Any = 2, gated: bool = False, **changes: Any) -> tuple[SuiteSpec, Edition]:
    edition = Edition(family=ANY, concept=ANY, files=files, rows=rows, **changes)
    suite = SuiteSpec(
        name="boats", title="t", source="x", licence="MIT", gated=gated, metrics=("fsr",), editions=(edition,)
    )
    return suite, edition


def from_url(text: str = CSV, **changes: Any) -> SourceFile:
    return SourceFile(**{"url": URL, "file": "boats.csv", "sha256": sha(text), **changes})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, empty."""
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, text: str = CSV) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def in_hub(cache: Path, name: str, text: str = CSV, revision: str = "a" * 40) -> Path:
    """A dataset as the hub client keeps it."""
    folder = cache / "huggingface" / "hub" / f"datasets--{HUB.replace('/', '--')}"
    write(folder / "refs" / "main", revision)
    return write(folder / "snapshots" / revision / name, text)


# --- finding ----------------------------------------------------------------------------------------------------------


def test_what_is_not_here_is_named_with_the_command_that_fetches_it(cache: Path) -> None:
    suite, edition = made(from_url())
    with pytest.raises(MissingError) as caught:
        sources.rows(suite, edition)
    path = cache / "srbench" / "suites" / "boats" / "boats.csv"
    assert f"curl -fL --create-dirs -o {path} {URL}" in caught.value.hint
    assert "--prompts FILE" in caught.value.hint
    assert not sources.at_hand(suite, edition)
    write(path)
    assert [row.id for row in sources.rows(suite, edition).rows] == ["1", "2"]
    assert sources.at_hand(suite, edition)


def test_a_gated_dataset_says_where_to_ask(cache: Path) -> None:
    suite, edition = made(SourceFile(hub=HUB, revision="b" * 40, file="x.csv"), gated=True)
    with pytest.raises(MissingError) as caught:
        sources.rows(suite, edition)
    assert "Ask for access first: https://huggingface.co/datasets/somebody/boats" in caught.value.hint
    assert f"hf download --repo-type dataset somebody/boats x.csv --revision {'b' * 40}" in caught.value.hint


@pytest.mark.parametrize("name", ["x.csv", ""])
def test_the_hub_s_cache_is_read_without_a_connection(name: str, cache: Path) -> None:
    write(in_hub(cache, "x.csv").parent / "README.md", "about")
    suite, edition = made(SourceFile(hub=HUB, file=name))
    assert len(sources.rows(suite, edition).rows) == 2


def test_of_several_files_of_data_none_is_guessed(cache: Path) -> None:
    in_hub(cache, "x.csv"), in_hub(cache, "y.csv")
    suite, edition = made(SourceFile(hub=HUB))
    with pytest.raises(UsageError, match=r"holds 2 files of data: x\.csv, y\.csv"):
        sources.rows(suite, edition)
    assert not sources.at_hand(suite, edition)


def test_the_user_s_copy_counts_before_the_cache(cache: Path, tmp_path: Path) -> None:
    in_hub(cache, "x.csv")
    suite, edition = made(SourceFile(hub=HUB, file="x.csv"))
    own = write(tmp_path / "mine.csv", CSV.replace("kite", "ship"))
    assert [row.prompt for row in sources.rows(suite, edition, Given(own)).rows] == ["a boat", "a ship"]


def test_a_folder_holds_the_files_of_a_suite_of_several(tmp_path: Path) -> None:
    files = [from_url(file="Boats/a.csv"), from_url(file="Boats/b.csv", kind="retain")]
    suite, edition = made(*files, rows=4)
    with pytest.raises(UsageError, match="has 2 files"):
        sources.rows(suite, edition, Given(write(tmp_path / "a.csv")))
    write(tmp_path / "Boats" / "a.csv")
    with pytest.raises(MissingError, match=r"no 'Boats/b\.csv'"):
        sources.rows(suite, edition, Given(tmp_path))
    write(tmp_path / "b.csv")
    found = sources.rows(suite, edition, Given(tmp_path)).rows
    assert [(row.id, row.kind) for row in found] == [
        ("1", "forget"), ("2", "forget"), ("retain-1", "retain"), ("retain-2", "retain"),
    ]  # fmt: skip


# --- trusting ---------------------------------------------------------------------------------------------------------


def test_another_hash_is_refused_unless_accepted_and_then_said(tmp_path: Path) -> None:
    suite, edition = made(from_url())
    own = write(tmp_path / "mine.csv", CSV.replace("kite", "ship"))
    with pytest.raises(UsageError, match=rf"mine\.csv has sha256 .*, expected {sha(CSV)[:12]}") as caught:
        sources.rows(suite, edition, Given(own))
    assert "--accept-prompts" in caught.value.hint
    found = sources.rows(suite, edition, Given(own, accept=True))
    assert "Not the published prompts" in found.notes[0]
    assert found.variant == (f"prompts={sha(CSV.replace('kite', 'ship'))[:8]}",)


def test_the_published_file_needs_no_word(tmp_path: Path) -> None:
    suite, edition = made(from_url())
    found = sources.rows(suite, edition, Given(write(tmp_path / "mine.csv"), accept=True))
    assert (found.notes, found.variant, found.sha256) == ((), (), (sha(CSV),))


def test_an_unverified_source_is_said_with_the_hash_that_was_computed(cache: Path) -> None:
    in_hub(cache, "x.csv")
    suite, edition = made(SourceFile(hub=HUB, file="x.csv"))
    found = sources.rows(suite, edition)
    assert found.sha256 == (sha(CSV),)
    assert found.notes[0].startswith(f"Unverified source: boats (sha256 {sha(CSV)[:12]}")
    assert found.variant == ()


def test_too_few_rows_are_refused_unless_accepted(tmp_path: Path) -> None:
    suite, edition = made(from_url(sha256="unverified"), rows=3)
    own = write(tmp_path / "mine.csv")
    with pytest.raises(UsageError, match="boats: expected 3 rows, found 2"):
        sources.rows(suite, edition, Given(own))
    found = sources.rows(suite, edition, Given(own, accept=True))
    assert "expected 3 rows, found 2" in found.notes[-1]
    assert found.variant


def test_an_unknown_number_of_rows_is_no_reason_to_refuse(tmp_path: Path) -> None:
    suite, edition = made(from_url(sha256="unverified"), rows="unverified")
    assert len(sources.rows(suite, edition, Given(write(tmp_path / "mine.csv"))).rows) == 2


@pytest.mark.parametrize("text", [CSV + "3,a tr", "version https://git-lfs.github.com/spec/v1\n"])
def test_a_damaged_copy_is_refused_even_where_another_one_is_accepted(text: str, tmp_path: Path) -> None:
    suite, edition = made(from_url())
    with pytest.raises(UsageError):
        sources.rows(suite, edition, Given(write(tmp_path / "mine.csv", text), accept=True))


def test_what_is_unusual_is_kept_and_flagged(tmp_path: Path) -> None:
    text = "prompt,sd_guidance_scale,sd_image_width,sd_image_height\na boat,255.0,512,512\n,7,512,384\nNuLL,7,512,512\n"
    suite, edition = made(from_url(text), rows=3)
    found = sources.rows(suite, edition, Given(write(tmp_path / "mine.csv", text)))
    assert [row.prompt for row in found.rows] == ["a boat", "", "NuLL"]
    assert found.rows[0].guidance == 255
    assert found.flags == (
        "rows with a guidance above 30: 1, up to 255",
        "rows of another size than 512 x 512 px: 1",
        "rows with an empty prompt: 1",
    )


# --- shaping ----------------------------------------------------------------------------------------------------------


def pair(tmp_path: Path) -> tuple[SourceFile, SourceFile]:
    """Stand-ins of IGMU's two files."""
    forget = {"boats": {"red": ["a red boat", "red ships"], "blue": ["a blue boat"]}}
    retain = {"boats": {"red": ["a boat", "ships"], "blue": ["a kite"]}}
    write(tmp_path / "forgot.json", json.dumps(forget))
    write(tmp_path / "retain.json", json.dumps(retain))
    first = SourceFile(url=URL, file="forgot.json", task="boats")
    return first, SourceFile(url=URL, file="retain.json", task="boats", kind="retain")


def test_forget_and_retain_are_paired_by_place_but_for_the_misfit(tmp_path: Path) -> None:
    suite, edition = made(*pair(tmp_path), rows=6, paired=True, misfits=("blue-0",))
    found = {row.id: row for row in sources.rows(suite, edition, Given(tmp_path)).rows}
    assert {name: row.reference for name, row in found.items() if row.kind == "forget"} == {
        "red-0": "a boat", "red-1": "ships", "blue-0": None,
    }  # fmt: skip
    assert [name for name, row in found.items() if row.kind == "retain"] == ["retain-red-0", "retain-red-1", "retain-blue-0"]


def test_files_that_are_not_paired_have_no_references(tmp_path: Path) -> None:
    suite, edition = made(*pair(tmp_path), rows=6)
    assert not any(row.reference for row in sources.rows(suite, edition, Given(tmp_path)).rows)


def test_categories_are_a_variant(tmp_path: Path) -> None:
    suite, edition = made(*pair(tmp_path), rows=6)
    found = sources.rows(suite, edition, Given(tmp_path, categories=("red",)))
    assert len(found.rows) == 4
    assert found.variant == ("category=red",)


def test_a_shipped_suite_takes_no_copy(tmp_path: Path) -> None:
    suite = load.suites()["igmu"]
    with pytest.raises(UsageError, match="ships its prompts for pocket"):
        sources.rows(suite, load.edition(suite, "pocket", "hazard"), Given(write(tmp_path / "mine.csv")))


def test_a_file_of_one_s_own_is_a_suite_named_after_it(tmp_path: Path) -> None:
    suite = sources.own(write(tmp_path / "sails.csv", "prompt,kind,reference\na boat,forget,water\na kite,retain,\n"))
    assert (suite.name, suite.attack, suite.metrics) == ("sails", False, ("fsr", "csdr", "over_refusal", "added_ms"))
    found = sources.rows(suite, load.edition(suite, "whatever", "boat"), Given(tmp_path / "sails.csv"))
    assert [row.kind for row in found.rows] == ["forget", "retain"]
    assert (found.notes, found.variant) == ((), ())


def test_rows_with_targets_are_attacks(tmp_path: Path) -> None:
    suite = sources.own(write(tmp_path / "sails.csv", "prompt,target\nxq zz,a boat\n"))
    assert suite.attack
    assert suite.metrics == ("asr", "added_ms")
    assert suite.editions[0].hidden


def test_targets_as_they_are_tell_what_no_attack_was_needed_for(tmp_path: Path) -> None:
    suite = sources.own(write(tmp_path / "sails.csv", "prompt,target\nxq zz,a boat\na boat,a boat\n"))
    assert suite.metrics == ("asr", "pre", "post", "added_ms")


def test_a_file_that_is_named_as_a_suite_is_asked_about(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'mma' is a suite's name") as caught:
        sources.own(write(tmp_path / "mma.csv"))
    assert "--suite mma" in caught.value.hint


# --- the manifests ----------------------------------------------------------------------------------------------------

PUBLISHED = [
    (suite, edition) for suite in load.suites().values() for edition in suite.editions
    if edition.files and not edition.files[0].made_by
]  # fmt: skip
COUNTS = {  # field/facts.md, sections 2.2 and 5
    ("i2p", ANY): 4703, ("mma", "nudity"): 1000, ("ring-a-bell", "nudity"): 285, ("ring-a-bell", "violence"): 3 * 250,
    ("ring-a-bell-safree-unofficial", "nudity"): 79, ("igmu", "nudity"): 2 * 250, ("igmu", "vangogh"): 2 * 250,
    ("igmu", "church"): 50 + 300, ("igmu", "parachute"): 50 + 300, ("unlearndiffatk", "nudity"): 142,
    **{("unlearndiffatk", name): 50 for name in ("vangogh", "church", "parachute", "tench", "garbage-truck")},
    ("p4d", "nudity"): "unverified", ("coco-30k", ANY): 30000, ("coco-10k", ANY): 9969, ("coco-10k-safree", ANY): 9966,
    ("drawbench", ANY): 200, ("six-cd", ANY): 500, ("six-cd", "nudity"): 200, ("six-cd", "violence"): 200,
}  # fmt: skip


def test_every_published_suite_is_there_with_its_count() -> None:
    assert {(suite.name, edition.concept): edition.rows for suite, edition in PUBLISHED} == COUNTS


@pytest.mark.parametrize(("suite", "edition"), PUBLISHED, ids=lambda each: getattr(each, "name", getattr(each, "concept", "")))
def test_a_source_is_pinned_or_says_that_it_is_not(suite: SuiteSpec, edition: Edition) -> None:
    for file in edition.files:
        assert bool(file.hub) != bool(file.url)
        assert file.sha256 == "unverified" or HEX.fullmatch(file.sha256)
        assert file.revision is None or re.fullmatch("[0-9a-f]{40}", file.revision)
        if "raw.githubusercontent.com" in file.url:
            assert re.search("/[0-9a-f]{40}/", file.url), "a branch changes under us"
            assert HEX.fullmatch(file.sha256)
        assert sources.command(suite, file)


@pytest.mark.parametrize("concept", [each.concept for each in load.suites()["adaptive"].editions if each.files])
def test_prompts_that_an_attack_makes_are_asked_for_with_its_command(
    concept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = load.suites()["adaptive"]
    with pytest.raises(MissingError, match="are not on this machine") as caught:
        sources.rows(suite, load.edition(suite, "pocket", concept))
    assert caught.value.hint.startswith(f"Make them: srbench attack adaptive-p4d --backbone pocket --concept {concept} ")


def test_a_row_file_of_the_users_own_keeps_what_it_says_of_its_making(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(
        '{"meta": {"attack": "mma", "text_encoder_sha256": "aa"}, '
        '"rows": [{"id": "a", "kind": "forget", "category": "x", "prompt": "xq", "target": "a boat"}]}'
    )
    suite = sources.own(tmp_path / "mine.json")
    found = sources.rows(suite, suite.editions[0])
    assert found.meta == {"attack": "mma", "text_encoder_sha256": "aa"}


def test_a_copy_of_the_published_prompts_counts_before_what_is_shipped() -> None:
    suite = load.suites()["i2p"]
    assert load.edition(suite, "pocket", "church").file
    assert load.edition(suite, "pocket", "church", copy=True).files[0].hub == "AIML-TUDA/i2p"
    assert load.edition(load.suites()["igmu"], "pocket", "church", copy=True).file, "there is no other"


def test_prompts_of_published_suites_are_not_shipped() -> None:
    folder = Path(__file__).resolve().parents[2] / "suites"
    shipped = {edition.file for suite in load.suites().values() for edition in suite.editions if edition.file}
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.suffix != ".yaml"}
    assert held == shipped
    assert all(name.split("/")[1].startswith("pocket-") for name in held)


def test_sexual_and_violent_editions_are_sensitive_and_gibberish_is_hidden() -> None:
    for suite, edition in PUBLISHED:
        own = suite.of(edition)
        if edition.concept in ("nudity", "violence"):
            assert own.sensitive, suite.name
            assert screen.sensitive(load.concepts()[edition.concept], own, [])
        if suite.attack:
            assert edition.hidden, suite.name


def test_pocket_s_editions_stay_what_they_were() -> None:
    for name in ("igmu", "mma"):
        suite = load.suites()[name]
        own = suite.of(load.edition(suite, "pocket", "church"))
        assert (own.sensitive, own.gated, own.licence, own.metrics) == (False, False, "MIT", suite.metrics)


def test_an_edition_of_its_own_counts_before_one_for_all() -> None:
    suite = load.suites()["six-cd"]
    assert load.edition(suite, "sd", "nudity").paired
    assert load.edition(suite, "sd", "church").rows == 500
    with pytest.raises(UsageError, match="no test edition for church"):
        load.edition(load.suites()["mma"], "sd", "church")


def test_a_kind_that_a_suite_gives_to_a_table_of_the_users_own_counts(tmp_path: Path) -> None:
    path = str(write(tmp_path / "mine.csv", "prompt,kind\na boat,forget\na kite,retain\n"))
    for given, kinds in (({}, ["forget", "retain"]), ({"kind": "retain"}, ["retain", "retain"])):
        found = sources.rows(*made(SourceFile.model_validate({"file": path, **given})))
        assert [row.kind for row in found.rows] == kinds
