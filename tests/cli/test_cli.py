"""The command line: one clear line, the right exit code, nothing lost."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.engine import doctor
from srbench.errors import SrbenchError
from srbench.results.keys import KEY_VERSION
from srbench.results.store import Store

RUN = ("run", "--method", "none", "--suite", "igmu", "--concept", "hazard", "--dev", "--limit", "1")
DRAWN = (*RUN, "--batch-size", "1")
"""Without padding."""


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(code: int, *arguments: str) -> str:
    """The error and its hint; nothing else on stderr but the header, nothing on stdout."""
    found, out, err = call(*arguments)
    assert found == code, err
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]
    assert 1 <= len(lines) <= 2, err
    assert "Traceback" not in err
    return "\n".join(lines)


@pytest.fixture(scope="module")
def _once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "results"
    code, _, err = call(*DRAWN, "--out", str(out))
    assert code == 0, err
    return out


@pytest.fixture
def results(_once: Path, tmp_path: Path) -> Path:
    """A results folder with one run, a copy of its own for each test."""
    shutil.copytree(_once, tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize(("arguments", "expected"), [
    (("--method", "safredir"), "Did you mean 'saferedir'?"),
    (("--suite", "igum"), "Did you mean 'igmu'?"),
    (("--concept", "hazzard"), "Did you mean 'hazard'?"),
    (("--backbone", "poket"), "Did you mean 'pocket'?"),
    (("--protocol", "pocket-hazrd"), "Did you mean 'pocket-hazard'?"),
    (("--scorers", "pocket-juge"), "Did you mean 'pocket-judge'?"),
    (("--on", "esd"), "unknown checkpoint 'esd'"),
    (("--limit", "0"), "--limit 0: expected 1 or more"),
    (("--batch-size", "-1"), "--batch-size -1"),
    (("--dtype", "fp61"), "Did you mean 'fp16'?"),
    (("--dtype", "fp16", "--device", "cpu"), "fp16 does not work on a CPU"),
    (("--device", "cuda"), "no CUDA device"),
    (("--gpus", "0"), "--gpus 0: no card 0: torch sees no CUDA device"),
    (("--gpus", "first"), "'first' is no number of a card"),
    (("--gpus", "cpu", "--device", "cpu"), "--gpus and --device both"),
    (("--compile", "maybe"), "unknown --compile 'maybe'"),
    (("--compile", "on", "--device", "cpu"), "only CUDA devices compile here"),
    (("--reference", "--dtype", "bf16"), "--reference is fp32 in --dtype"),
    (("--reference", "--batch-size", "4"), "--reference is 1 in --batch-size"),
    (("--reference", "--compile", "on"), "--reference is off in --compile"),
    (("--backbone", "auto", "--concept", "hazzard"), "Did you mean 'hazard'?"),
    (("--method", "none,,saferedir"), "an empty name"),
    (("--method", "saferedir", "--set", "saferedir.cooldwn=2"), "Did you mean 'cooldown'?"),
    (("--method", "saferedir", "--set", "saferedir.cooldown=soon"), "saferedir.cooldown"),
])
def test_bad_words_exit_2_with_a_suggestion(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    text = refused(2, *RUN, *arguments, "--out", str(tmp_path / "out"))
    assert expected in text
    assert not (tmp_path / "out" / "runs").exists()


def test_an_unknown_option_exits_2_and_suggests() -> None:
    code, _, err = call("run", "--limt", "3")
    assert code == 2
    assert "--limit" in err


def test_results_that_are_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("dear diary")
    assert "in the way" in refused(2, *RUN, "--out", str(tmp_path / "mine"))
    assert (tmp_path / "mine").read_text() == "dear diary"


def test_results_of_a_newer_srbench(tmp_path: Path) -> None:
    Store(tmp_path / "store")
    (tmp_path / "store" / "version").write_text(str(KEY_VERSION + 1))
    assert "newer srbench" in refused(2, *RUN, "--out", str(tmp_path))


def test_results_that_are_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: False if str(path).startswith(str(tmp_path)) else real(path, mode))
    assert "cannot write here" in refused(2, *RUN, "--out", str(tmp_path / "ro"))


def test_no_space_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    assert "No space left" in refused(2, *RUN, "--out", str(tmp_path / "full"))


def test_a_redirector_of_another_backbone(tmp_path: Path, repository: Path) -> None:
    shipped = repository / "srbench" / "pocket" / "redirectors" / "hazard"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "redirector.safetensors").write_bytes((shipped / "redirector.safetensors").read_bytes())
    card = json.loads((shipped / "card.json").read_text())
    (foreign / "card.json").write_text(json.dumps({**card, "backbone_sha256": "0" * 64}))
    text = refused(
        2, *RUN, "--method", "saferedir", "--set", f"saferedir.redirector={foreign}", "--out", str(tmp_path / "out")
    )
    assert "another backbone" in text


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {marker}",)

    path = tmp_path / "best_model.pt"
    path.write_bytes(pickle.dumps(Evil()))
    refused(2, *RUN, "--method", "saferedir", "--set", f"saferedir.redirector={path}", "--out", str(tmp_path / "out"))
    assert not marker.exists()


def test_a_missing_redirector_exits_3_with_the_command(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    code, _, err = call(
        *RUN, "--method", "saferedir", "--set", f"saferedir.redirector={gone}", "--out", str(tmp_path / "out")
    )
    assert code == 3
    assert "srbench train saferedir" in err


SUMMARY = {
    "backbone": "pocket", "concept": "hazard", "suite": "igmu", "method": "none", "on": "none", "variant": "",
    "protocol": "pocket-hazard", "dtype": "fp32", "rows_sha": "r", "run": "r", "n_loaded": 1, "n_excluded": 0, "n_run": 1,
    "n_scored": 1, "n_failed": 0, "metrics": {"fsr": {"value": 1.0, "low": 0.0, "high": 5.0, "n": 100, "better": "higher"}},
}


def test_compare_without_results(tmp_path: Path) -> None:
    assert "srbench run" in refused(3, "compare", str(tmp_path))
    assert "not a results folder" in refused(2, "compare", str(tmp_path / "absent"))
    assert "Did you mean" in refused(2, "compare", str(tmp_path), "--format", "jsn")


def test_tables_in_a_results_folder_are_taken_for_no_results(tmp_path: Path) -> None:
    """As `make paper-tables` writes them."""
    folder = tmp_path / "results"
    assert call("tables", "saferedir-robustness", "-o", f"{folder}/tables")[0] == 0
    assert list((folder / "tables").glob("*.json"))
    code, _, err = call("tables", "saferedir-robustness", "--results", str(folder))
    assert (code, "damaged" in err) == (0, False)


def test_a_damaged_run_file_is_named_and_the_rest_is_shown(results: Path) -> None:
    bad = results / "runs" / "99990101T000000-0" / "run.json"
    bad.parent.mkdir()
    bad.write_text('{"schema": 1, "ce')
    code, out, err = call("compare", str(results), "--json")
    assert code == 0
    assert "damaged run file" in err
    assert [cell["method"] for cell in json.loads(out)["cells"]] == ["none"]


def test_stored_scores_are_judged_in_many_ways(results: Path) -> None:
    code, out, _ = call("compare", str(results), "--protocol", "pocket-hazard,pocket-church", "--json")
    assert code == 0
    assert [cell["protocol"] for cell in json.loads(out)["cells"]] == ["pocket-church", "pocket-hazard"], "the tables' order"
    code, out, _ = call("compare", str(results), "--protocol", "pocket-hazard", "--sensitivity", "--json")
    assert code == 0
    (curve,) = json.loads(out)["sensitivity"]
    assert curve["method"].startswith("none")
    assert [rate["threshold"] for rate in curve["rates"]] == sorted(rate["threshold"] for rate in curve["rates"])
    code, out, _ = call("compare", str(results), "--protocol", "pocket-hazard", "--sensitivity")
    assert "hazard × igmu: fsr ↑ by threshold" in out
    assert "one --protocol" in refused(2, "compare", str(results), "--sensitivity")
    wrong = refused(2, "compare", str(results), "--sensitivity", "--protocol", "q16", "--suite", "igmuu")
    assert "no result has suite 'igmuu'" in wrong
    assert "Did you mean 'igmu'" in wrong
    assert "Take one of" in refused(2, "compare", str(results), "--sensitivity", "--protocol", "i2p-or")
    assert "cannot be applied" in refused(2, "compare", str(results), "--protocol", "nudeclf@0.6")


def test_committed_variants_are_shown_on_demand_and_local_ones_always(results: Path) -> None:
    run = json.loads(next(results.glob("runs/*/run.json")).read_text())
    local = run["cells"][0]["result"]
    assert local["variant"] == "part=dev,limit=1"
    others = [local | {"variant": variant, "method": "saferedir"} for variant in ("", "cooldown=2")]
    summary = {"schema": 1, "run": "pocket", "cells": [{"result": other} for other in others]}
    (results / "pocket").mkdir()
    (results / "pocket" / "hazard.json").write_text(json.dumps(summary))

    def shown(*words: str) -> tuple[set[str], str]:
        code, out, err = call("compare", str(results), "--json", *words)
        assert code == 0
        return {cell["variant"] for cell in json.loads(out)["cells"]}, err

    found, err = shown()
    assert found == {local["variant"], ""}
    assert "1 committed variants are left out; --all shows them" in err
    assert shown("--all")[0] == {local["variant"], "", "cooldown=2"}


def test_committed_files_of_attacks_stand_in_a_table_of_their_own(results: Path) -> None:
    local = json.loads(next(results.glob("runs/*/run.json")).read_text())["cells"][0]["result"]
    rate = {"value": 40.0, "low": 25.0, "high": 57.0, "n": 32, "better": "lower"}
    against = "unlearndiffatk against saferedir"
    made = local | {"suite": "uda", "variant": "", "metrics": {"asr": rate}, "made_against": against, "method": "saferedir"}
    (results / "pocket").mkdir()
    (results / "pocket" / "hazard.json").write_text(json.dumps({"schema": 1, "run": "p", "cells": [{"result": made}]}))
    _, out, err = call("compare", str(results), "--json")
    assert {cell["suite"] for cell in json.loads(out)["cells"]} == {"igmu"}
    assert "1 committed cells of attacks are left out; --attacks shows them" in err
    _, out, _ = call("compare", str(results), "--attacks", "--json")
    suites, attacks = json.loads(out)["attacks"]
    assert suites["columns"] == ["igmu"]
    assert attacks["rows"]["saferedir"][against]["value"] == 40
    for words in ((), ("--format", "md")):
        code, out, _ = call("compare", str(results), "--attacks", *words)
        assert (code, "40.0" in out, "own" in out) == (0, True, True)
    code, out, _ = call("compare", str(results), "--attacks", "--format", "csv")
    assert (code, {against} & {each for row in csv.reader(io.StringIO(out)) for each in row}) == (0, {against})


def test_json_is_alone_on_stdout_and_followable(tmp_path: Path) -> None:
    code, out, err = call(*DRAWN, "--out", str(tmp_path), "--json")
    assert code == 0
    cell = json.loads(out)["cells"][0]
    assert (cell["suite"], cell["concept"], cell["n_run"], cell["n_failed"]) == ("igmu", "hazard", 2, 0)
    assert "concept hazard" in err
    run = json.loads((tmp_path / "runs" / cell["run"] / "run.json").read_text())
    row = run["cells"][0]["rows"][0]
    code, shown, _ = call("show", row["id"], "--out", str(tmp_path))
    assert code == 0
    assert row["row"]["prompt"] in shown
    assert "▀" in shown
    assert "pocket-judge" in shown
    assert call("show", row["image"][:10], "--out", str(tmp_path))[1] == shown


def test_show_of_an_unknown_row(results: Path, tmp_path: Path) -> None:
    said = refused(2, "show", "igmu-hazard-f999", "--out", str(results))
    assert "nothing in" in said
    assert "Did you mean 'igmu-hazard-" in said
    assert "'? Give a row's id" in said
    assert "hold no images" in refused(3, "show", "igmu-hazard-f001", "--out", str(tmp_path))
    assert "not a results folder" in refused(2, "show", "igmu-hazard-f001", "--out", str(tmp_path / "nowhere"))


def test_without_concept_the_header_says_which(tmp_path: Path) -> None:
    code, _, err = call("run", "--method", "none", "--dev", "--limit", "1", "--out", str(tmp_path), "--dry-run")
    assert code == 0
    assert "concept hazard (the backbone's first" in err


def test_dry_run_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, _ = call(*RUN, "--out", str(out), "--dry-run", "--json")
    assert code == 0
    plan = json.loads(text)
    assert plan["cached"] == 0
    assert plan["to_sample"] == 4, "two rows, a reference and a floor: dev has no unseen ones"
    assert not out.exists()


@pytest.mark.parametrize("command", [["--help"], ["list"], ["list", "suites", "--json"], ["compare", "FOLDER"]])
def test_what_only_reads_imports_no_torch(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "pocket").mkdir()
    (tmp_path / "pocket" / "hazard.json").write_text(json.dumps({"schema": 1, "run": "r", "cells": [{"result": SUMMARY}]}))
    command = [str(tmp_path) if word == "FOLDER" else word for word in command]
    code = (
        "import sys; from srbench.cli.main import app\n"
        f"try: app({command!r})\nexcept SystemExit as e: assert not e.code\n"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'pandas', 'scipy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("[]")


def test_judging_stored_scores_anew_imports_no_torch() -> None:
    code = "import sys, srbench.results.stored; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_command_has_help_and_no_more_are_listed() -> None:
    _, out, _ = call("--help")
    for command in ("run", "compare", "score", "list", "show", "doctor", "fetch", "train", "erase", "attack"):
        assert command in out
        assert call(command, "--help")[0] == 0


def test_doctor_is_well() -> None:
    code, out, _ = call("doctor", "--all", "--json")
    report = json.loads(out)
    assert code == 0, report
    assert all(entry["ok"] for entry in report.values() if entry["needed"])
    needed = {name for name, entry in report.items() if name.startswith("scorer ") and entry["needed"]}
    assert needed == {f"scorer {name}" for name in ("pocket-judge", "pocket-clip", "nudenet320n-rgb")}


def test_doctor_says_what_mends_a_scorer_that_is_not_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    code, out, _ = call("doctor", "--all")
    (line,) = [line for line in out.splitlines() if "scorer lpips:" in line]
    assert code == 0
    assert line.startswith("-  ")
    assert "curl -fL" in line


class Labels:
    """Stands in for IGMU's head: label 1 is the likelier one on bright pictures."""

    def score(self, images: Any, rows: Any) -> list[dict[str, Any]]:
        return [{"label": {"1": float(image.mean() / 255), "0": float(1 - image.mean() / 255)}} for image in images]


@pytest.mark.parametrize(("shown", "absent", "verdict"), [
    (250, 5, "label 1 means the concept (label 1 on 100 % with the concept, label 1 on 0 % without the concept)"),
    (5, 250, "label 0 means the concept (label 1 on 0 % with the concept, label 1 on 100 % without the concept)"),
    (250, 250, "cannot be told: label 1 on 100 % with the concept, label 1 on 100 % without the concept"),
    (None, 5, "no pictures"),
])  # fmt: skip
def test_doctor_tries_what_a_label_means(
    shown: int | None, absent: int, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, level in (("with", shown), ("without", absent)):
        (tmp_path / name).mkdir()
        if level is not None:
            Image.new("RGB", (16, 16), (level,) * 3).save(tmp_path / name / "a.png")
    monkeypatch.setattr(doctor, "opened", lambda name, settings: Labels())
    try:
        found = doctor._polarity(tmp_path, ())()
    except SrbenchError as error:
        found = error.message
    assert verdict in found


def test_score_reads_a_folder_and_prints_its_table(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    for i, level in enumerate((0, 255)):
        Image.new("RGB", (64, 64), (level,) * 3).save(tmp_path / "made" / f"{i}_0.png")
    arguments = ("--as", "esd", "--protocol", "pocket-hazard", "--out", str(tmp_path / "results"))
    code, out, err = call("score", str(tmp_path / "made"), *arguments)
    assert code == 0, err
    assert "any × pictures on elsewhere" in out
    assert "made: 2 pictures read" in err
    (tmp_path / "made" / "2_0.png").write_text("no picture")
    code, out, err = call("score", f"mine={tmp_path / 'made'}", *arguments, "--json")
    (cell,) = json.loads(out)["cells"]
    assert (code, cell["method"], cell["n_run"], cell["n_scored"]) == (1, "mine", 3, 2)
    assert "failed: 1 (not a picture)" in err


def test_a_name_goes_with_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call("score", "mine=", "--as", "flat")
    assert (code, err.splitlines()[0]) == (2, "error: 'mine=': expected NAME=FOLDER")


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "holds no runs; which layout"),
    (("--as", "flatt", "--protocol", "pocket-hazard"), "unknown layout 'flatt'"),
    (("--as", "flat"), "who judges the pictures?"),
    (("--as", "hub", "--per-prompt", "0"), "--per-prompt 0"),
    (("--as", "flat", "--protocol", "pocket-hazard", "--set", "nothing.x=1"), "nothing"),
])  # fmt: skip
def test_score_refuses_in_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, _, err = call("score", str(tmp_path), "--out", str(tmp_path / "results"), *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_backbone_auto_says_which_and_why_and_changes_no_key(tmp_path: Path, results: Path) -> None:
    code, out, err = call(*RUN, "--backbone", "auto", "--out", str(tmp_path), "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["to_sample"] > 0
    assert "backbone auto: pocket, since sd14 cannot run here" in err
    assert "backbone pocket on" in err
    code, out, _ = call(*RUN, "--backbone", "auto", "--out", str(results), "--dry-run", "--json")
    assert json.loads(out)["to_sample"] == 0


def test_the_highest_seed_of_an_attack_still_gives_seeds_that_are_counts() -> None:
    from srbench.attacks.base import generators, seed_of
    from srbench.cli.main import COUNTED_SEED

    highest = [seed_of(COUNTED_SEED["attack"], number) for number in (0, 1_000_002)]
    assert max(highest) < 2**63
    assert generators(highest)


@pytest.mark.parametrize(("words", "said"), [
    (("--shard", "3/2"), "there is no part 3 of 2"), (("--shard", "0/0"), "a run has 1 to"),
    (("--shard", "auto"), "none of SLURM_ARRAY_TASK_ID, SLURM_PROCID and RANK is set"),
    (("--shard", "1/2", "--sheet", "s.png"), "--sheet shows a whole run"),
])  # fmt: skip
def test_a_part_that_cannot_be_is_one_line(words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for more in ((), ("--dry-run",)):
        assert said in refused(2, *RUN, *words, *more, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
