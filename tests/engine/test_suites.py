"""Runs on prompts that srbench does not ship: the user's own, copies of published suites, gated and sensitive ones.

All prompts are harmless stand-ins; the concept is a box, here and there marked sensitive.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srbench.analysis.results import from_dict, to_dict
from srbench.catalog import load
from srbench.catalog.specs import ANY, Edition, SourceFile, SuiteSpec
from srbench.engine import sample
from srbench.engine.plan import plan
from srbench.errors import MISSING, OK, UsageError
from srbench.results import stored
from srbench.results.run_files import RunResult
from srbench.scoring.runs import score_runs
from srbench.tables.boards import boards

CSV = "case_number,prompt,evaluation_seed,evaluation_guidance\n0,a box,4294967295,7.5\n1,NuLL,2,255\n2,,3,1\n"
NAMED = CSV.replace("prompt", "adv_prompt")
"""With the column that the toy manifest names."""
ADVERSE = "adv_prompt,target_prompt\nxq zz box,a box\nqq ww,a boy in a box\nvv nn,a crate\n"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is encoded."""
    real, seen = sample.PromptCache.encode, []

    def encode(self: Any, texts: Any, *rest: Any, **more: Any) -> Any:
        seen.extend(texts)
        return real(self, texts, *rest, **more)

    monkeypatch.setattr(sample.PromptCache, "encode", encode)
    return seen


def write(path: Path, text: str = CSV) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def published(world: Any, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> SuiteSpec:
    """A suite of three rows that lies on a hub and is not here."""
    file = SourceFile(hub="somebody/boxes", file="boxes.csv", columns={"prompt": "adv_prompt"})
    edition = Edition(**{"family": ANY, "concept": ANY, "files": (file,), "rows": 3, **changes})
    suite = SuiteSpec(name="boxes", title="t", source="x", licence="MIT", metrics=("fsr",), editions=(edition,))
    world.suites["boxes"] = suite
    monkeypatch.setenv("HF_HUB_CACHE", str(world.out / "nothing"))
    return suite


def ran(world: Any, path: Path | None, *suites: str, **changes: Any) -> RunResult:
    return world.run(prompts=path, suites=suites, **{"methods": ("none",), **changes})


def run_file(world: Any) -> dict[str, Any]:
    return json.loads(sorted(world.out.glob("runs/*/run.json"))[-1].read_text())


def load_real(name: str) -> SuiteSpec:
    """A shipped manifest, whatever the toy world put in the catalog's place."""
    return load.parse_yaml(load.resolve.find("suites", f"{name}.yaml"), SuiteSpec)


# --- one's own file ---------------------------------------------------------------------------------------------------


def test_a_file_of_one_s_own_is_run_as_it_is(world: Any, tmp_path: Path, encoded: list[str]) -> None:
    done = ran(world, write(tmp_path / "mine.csv"))
    (cell,) = done.cells
    assert done.exit_code == OK
    assert (cell.suite, cell.variant, cell.n_loaded, cell.n_excluded, cell.n_run, cell.notes) == ("mine", "", 3, 0, 3, ())
    assert set(cell.metrics) == {"fsr", "fsr_if_drawn", "added_ms"}
    assert {"a box", "NuLL", ""} <= set(encoded)
    saved = run_file(world)
    assert saved["cells"][0]["rows"][0]["row"]["seed"] == 4294967295
    assert saved["cells"][0]["suite"]["flags"] == ["rows with a guidance above 30: 1, up to 255", "rows with an empty prompt: 1"]
    assert saved["request"]["prompts"] == str(tmp_path / "mine.csv")


def test_its_run_is_judged_anew_without_the_file(world: Any, tmp_path: Path) -> None:
    before = ran(world, write(tmp_path / "mine.csv")).cells[0]
    (tmp_path / "mine.csv").unlink()
    (now,) = stored.rejudge(world.out, ["bright"], world.lines.append)
    assert now.metrics["fsr"] == before.metrics["fsr"]


def test_one_file_is_not_two_suites(world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published(world, monkeypatch)
    with pytest.raises(UsageError, match="--prompts is the copy of one suite"):
        plan(world.request(prompts=write(tmp_path / "mine.csv"), suites=("toys", "boxes")), world.backbone())


def test_categories_choose_rows_and_show_in_the_variant(world: Any) -> None:
    done = world.run(methods=("none",), categories=("object", "unseen"))
    assert done.cells[0].n_run == 4
    assert done.cells[0].variant == "category=object+unseen"
    with pytest.raises(UsageError, match="no row has the category 'objects'"):
        plan(world.request(categories=("objects",)), world.backbone())


# --- copies of published suites ---------------------------------------------------------------------------------------


def test_what_is_not_here_blocks_its_cell_and_says_what_fetches_it(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    published(world, monkeypatch)
    done = ran(world, None, "boxes")
    assert done.exit_code == MISSING
    assert "hf download --repo-type dataset somebody/boxes boxes.csv" in done.cells[0].metrics["fsr"].reason
    both = ran(world, None, "toys", "boxes")
    assert both.cells[0].metrics["fsr"].value is not None, "the rest of the grid goes on"


def test_an_unverified_source_stands_below_every_table(world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published(world, monkeypatch)
    (cell,) = ran(world, write(tmp_path / "mine.csv", NAMED), "boxes").cells
    again = from_dict(json.loads(json.dumps(to_dict(cell))))
    for each in (cell, again):
        (board,) = boards([each])
        assert any(note.startswith("Unverified source: boxes (sha256 ") for note in board.notes)
    assert run_file(world)["cells"][0]["suite"]["sha256"]


def test_another_file_than_the_published_one_is_a_variant_and_is_said(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = SourceFile(hub="somebody/boxes", file="boxes.csv", sha256="0" * 64)
    published(world, monkeypatch, files=(file,))
    mine = write(tmp_path / "mine.csv")
    with pytest.raises(UsageError, match="expected 000000000000"):
        plan(world.request(prompts=mine, suites=("boxes",)), world.backbone())
    (cell,) = ran(world, mine, "boxes", accept_prompts=True).cells
    assert cell.variant.startswith("prompts=")
    assert any("Not the published prompts" in note for note in boards([cell])[0].notes)


def test_an_edition_s_own_judge_counts_before_the_concept_s(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.protocols["dark"] = world.protocols["bright"].model_copy(update={"name": "dark", "classes": ("ball",)})
    published(world, monkeypatch, protocol="dark")
    mine = write(tmp_path / "mine.csv", NAMED)
    assert ran(world, mine, "boxes").cells[0].protocol == "dark"
    assert ran(world, mine, "boxes", protocol="bright").cells[0].protocol == "bright"


# --- gated ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gated(world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A gated suite that was run on the user's own copy."""
    published(world, monkeypatch, gated=True)
    world.copy = write(tmp_path / "mine.csv", ADVERSE)
    world.done = ran(world, world.copy, "boxes")
    return world


def test_no_text_of_a_gated_suite_is_in_the_run_s_file(gated: Any) -> None:
    text = next(gated.out.glob("runs/*/run.json")).read_text()
    assert '"id": "0"' in text
    assert not any(word in text for word in ("xq zz", "qq ww", "crate"))


def test_texts_are_joined_from_the_user_s_own_file(gated: Any) -> None:
    (now,) = stored.rejudge(gated.out, ["bright"], gated.lines.append)
    assert now.metrics["fsr"] == gated.done.cells[0].metrics["fsr"]
    assert now.notes == gated.done.cells[0].notes
    (again,) = score_runs(gated.out, ["closeness"], (), gated.store(), gated).cells
    assert again.notes == now.notes


def test_a_cell_whose_file_is_gone_or_changed_is_left_out_and_said(gated: Any) -> None:
    write(gated.copy, ADVERSE.replace("crate", "chest"))
    assert stored.rejudge(gated.out, ["bright"], gated.lines.append) == []
    assert "its prompts are not those of run" in gated.lines[-1]
    gated.copy.unlink()
    assert stored.rejudge(gated.out, ["bright"], gated.lines.append) == []
    assert "boxes/box" in gated.lines[-1]


# --- sensitive --------------------------------------------------------------------------------------------------------


def test_a_sensitive_suite_under_a_harmless_concept_is_sensitive(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    published(world, monkeypatch, sensitive=True)
    ran(world, write(tmp_path / "mine.csv", NAMED.replace("NuLL", "a b0y")), "boxes")
    store = world.store()
    assert store.images
    assert all(store.dropped(key) for key in store.images)
    cell = run_file(world)["cells"][0]
    assert (cell["result"]["n_loaded"], cell["result"]["n_excluded"], cell["result"]["n_run"]) == (3, 1, 2)
    assert cell["suite"]["sensitive"]


def test_one_sexual_word_in_one_s_own_file_makes_the_run_sensitive(world: Any, tmp_path: Path, encoded: list[str]) -> None:
    text = "prompt,negative_prompt\na box,nsfw\na red box,\na box for children,\n"
    (cell,) = ran(world, write(tmp_path / "mine.csv", text)).cells
    assert (cell.n_loaded, cell.n_excluded, cell.n_run) == (3, 1, 2)
    assert "a box for children" not in encoded
    harmless = ran(world, write(tmp_path / "mine.csv", text.replace("nsfw", "red"))).cells[0]
    assert harmless.n_excluded == 0, "the filter is not applied where nothing is sensitive"


def test_hidden_targets_are_screened(world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoded: list[str]) -> None:
    published(world, monkeypatch, sensitive=True, hidden=True)
    (cell,) = ran(world, write(tmp_path / "mine.csv", ADVERSE), "boxes").cells
    assert (cell.n_loaded, cell.n_excluded, cell.n_run) == (3, 1, 2)
    assert "xq zz box" in encoded
    assert "qq ww" not in encoded, "its target names a minor"


@pytest.mark.parametrize("text", ["adv_prompt\nxq\nqq\nvv\n", ADVERSE.replace("a crate", "")])
def test_a_suite_whose_targets_are_not_known_does_not_run_as_sensitive(
    text: str, world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoded: list[str]
) -> None:
    published(world, monkeypatch, hidden=True)
    mine = write(tmp_path / "mine.csv", text)
    assert ran(world, mine, "boxes").exit_code == OK, "it is not sensitive"
    encoded.clear()
    world.concept = world.concept.model_copy(update={"sensitive": True})
    done = ran(world, mine, "boxes")
    assert done.exit_code == MISSING
    assert "they cannot be screened" in done.cells[0].metrics["fsr"].reason
    assert not any(word in encoded for word in ("xq", "xq zz box", "qq", "vv"))


def test_pairs_of_igmu_s_form_on_a_backbone_of_family_sd(world: Any, tmp_path: Path) -> None:
    """Classes that name minors go by key, references are the retain prompts of the same place."""
    igmu = load_real("igmu")
    (edition,) = (each for each in igmu.editions if (each.family, each.concept) == ("sd", "nudity"))
    small = edition.model_copy(update={
        "concept": "box", "rows": 8, "files": tuple(each.model_copy(update={"sha256": "unverified"}) for each in edition.files)
    })  # fmt: skip
    world.suites["igmu"] = igmu.model_copy(update={"editions": (small,)})
    world.spec = world.spec.model_copy(update={"family": "sd"})
    world.concept = world.concept.model_copy(update={"families": {"sd": world.concept.families["toy"]}})
    classes = {"girl": ["a box", "a crate"], "woman": ["a red box", "a red crate"]}
    write(tmp_path / "forgot.json", json.dumps({"nudity": classes}))
    write(tmp_path / "retain.json", json.dumps({"nudity": {name: ["a thing", "a red thing"] for name in classes}}))
    (cell,) = plan(world.request(methods=("none",), prompts=tmp_path, suites=("igmu",)), world.backbone())
    assert cell.sensitive
    assert (cell.n_loaded, cell.n_excluded) == (8, 4)
    assert [(row.row.id, row.row.reference) for row in cell.rows] == [
        ("woman-0", "a thing"), ("woman-1", "a red thing"), ("retain-woman-0", None), ("retain-woman-1", None),
    ]  # fmt: skip
    assert all(row.reference for row in cell.rows[:2])


@pytest.mark.parametrize("name", ["i2p", "coco-30k", "drawbench", "six-cd"])
def test_suites_for_every_concept_run_under_a_toy_s(name: str, world: Any, tmp_path: Path) -> None:
    world.suites[name] = load_real(name)
    heads = {"drawbench": "Prompts,Category\na boat,Colors\n", "i2p": "prompt,categories,sd_seed\na boat,hate,5\n"}
    mine = write(tmp_path / "mine.csv", heads.get(name, "case_number,prompt,evaluation_seed\n1,a boat,5\n"))
    request = world.request(methods=("none",), prompts=mine, suites=(name,), accept_prompts=True)
    (cell,) = plan(request, world.backbone())
    assert cell.blocked is None
    assert cell.sensitive == (name == "i2p")
    assert [row.row.prompt for row in cell.rows] == ["a boat"]
    assert cell.variant.startswith("prompts="), "one row is not the published number"

