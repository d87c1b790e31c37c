"""`srbench export`: every number and every harmless picture of a run arrives in the other tool's form, and no other picture."""

from __future__ import annotations

import json
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import DatasetCard, ModelCard
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.errors import UsageError
from srbench.exports import bibtex, hub, trackers
from srbench.exports.read import Run, by_method, numbers, run_of
from srbench.results.store import Store
from srbench.tables import formats
from srbench.tables.compare import CompareOptions, compared
from tests.report.conftest import Made, rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one small run."""
    out = tmp_path_factory.mktemp("export") / "results"
    words = ("--method", "none,negative-prompt", "--on", "none,uce", "--suite", "igmu", "--concept", "church")
    done = CliRunner().invoke(app, ["run", *words, "--dev", "--limit", "1", "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    return out


@pytest.fixture
def run(folder: Path) -> Run:
    return run_of(folder, None, lambda line: None)


def export(*words: str) -> Any:
    return CliRunner().invoke(app, ["export", *words])


def test_a_card_holds_every_number_of_its_method(run: Run) -> None:
    made, _ = hub.files(run)
    cards = [ModelCard(text.decode()) for name, text in made.items() if name.startswith("cards/")]
    assert len(cards) == len(run.cells) == 4
    given = {(card.data.model_name, each.metric_type): each.metric_value for card in cards for each in card.data.eval_results}
    assert given == {
        (name, metric): value for name, cells in by_method(run).items() for cell in cells for metric, _, value in numbers(cell)
    }
    assert all("church" in each.dataset_name for card in cards for each in card.data.eval_results)


def test_pictures_lie_as_an_imagefolder(run: Run) -> None:
    made, left_out = hub.files(run)
    assert left_out == []
    configs = DatasetCard(made["dataset/README.md"].decode()).data.to_dict()["configs"]
    store, count = Store.peek(run.folder / "store"), 0
    for config in configs:
        name = config["config_name"]
        for line in map(json.loads, made[f"dataset/{name}/metadata.jsonl"].decode().splitlines()):
            count += 1
            assert made[f"dataset/{name}/{line['file_name']}"] == store.image_path(line["key"]).read_bytes()
    assert count == sum(len(entry["rows"]) for entry in run.entries)


def test_what_is_exported_is_what_datasets_loads(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    for name, content in hub.files(run)[0].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    folder, cache = tmp_path / "dataset", str(tmp_path / "cache")
    store, keys = Store.peek(run.folder / "store"), list[str]()
    for name in datasets.get_dataset_config_names(str(folder)):
        loaded = datasets.load_dataset(str(folder), name, split="train", cache_dir=cache)
        lines = [json.loads(line) for line in (folder / name / "metadata.jsonl").read_text().splitlines()]
        assert [{**row, "image": None} for row in loaded] == [
            {key: value for key, value in line.items() if key != "file_name"} | {"image": None} for line in lines
        ]
        assert all(np.array_equal(np.asarray(row["image"]), store.pixels(row["key"])) for row in loaded)
        keys += loaded["key"]
    assert sorted(keys) == sorted(row["image"] for entry in run.entries for row in entry["rows"])


@pytest.mark.parametrize("mark", ["sensitive", "gated"])
def test_a_picture_that_is_not_harmless_stays(folder: Path, mark: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    store = Store(copy / "store")
    own = run_of(copy, None, lambda line: None)
    key = own.entries[0]["rows"][0]["image"]
    data = store.image_path(key).read_bytes()
    store.restate([{**store.images[key], mark: True, **({"awaits": [], "kept": True} if mark == "sensitive" else {})}])
    made, left_out = hub.files(own)
    assert data not in made.values()
    assert left_out == ["1 picture left out: sensitive or gated rows"]


def test_a_row_whose_text_is_gated_is_left_out(run: Run) -> None:
    del run.entries[0]["rows"][0]["row"]
    made, left_out = hub.files(run)
    assert left_out == ["1 picture left out: sensitive or gated rows"]
    assert len([name for name in made if name.endswith(".png")]) == sum(len(entry["rows"]) for entry in run.entries) - 1


def test_a_table_cites_what_it_names(run: Run) -> None:
    made, left_out = bibtex.files(run)
    table, references = made["table.tex"].decode(), made["references.bib"].decode()
    assert r"uce (part=dev,limit=1)~\cite{arxiv2308.14761}" in table
    assert "eprint = {2308.14761}" in references
    assert left_out == ["no paper is known of: negative-prompt"]
    for cell in run.cells:
        if (low := cell.metrics["fsr"].low) is not None:
            assert f"{low:.3g}" in table
    assert "pocket-church" in table


def test_a_table_is_the_one_that_compare_writes(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    Made(tmp_path / "results").run(rows(20))
    made, _ = bibtex.files(run_of(tmp_path / "results", None, lambda line: None))
    table = re.sub(r"~\\cite{\w+\.\w+}", "", made["table.tex"].decode().removeprefix(bibtex.NEEDS))
    assert table == formats.as_latex(compared(CompareOptions(tmp_path / "results"), lambda line: None))
    assert r"\textbf{95.0}" in table
    assert "paired on the same rows" in table
    assert table.count("& local") == 2
    assert "committed" not in table


@pytest.mark.parametrize("count", [4, 20])
def test_a_table_s_best_value_is_bold_only_where_a_test_tells_it_from_the_next(tmp_path: Path, count: int) -> None:
    (tmp_path / "results").mkdir()
    Made(tmp_path / "results").run(rows(count))
    table = bibtex.files(run_of(tmp_path / "results", None, lambda line: None))[0]["table.tex"].decode()
    assert ("as if independent" in table, "paired on the same rows" in table) == (False, count == 20)
    assert (r"\textbf{95.0}" in table or r"\textbf{75.0}" in table) == (count == 20)


def test_files_are_written_and_nothing_of_the_user_s_is_replaced(folder: Path, tmp_path: Path) -> None:
    words = ("--as", "bibtex-table", "--results", str(folder), "-o", str(tmp_path))
    assert export(*words).exit_code == 0
    assert export(*words).exit_code == 0
    (tmp_path / "table.tex").write_text("mine")
    done = export(*words)
    assert (done.exit_code, (tmp_path / "table.tex").read_text()) == (2, "mine")


def test_wandb_gets_settings_and_figures(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    @contextmanager
    def init(**given: Any) -> Any:
        seen.update(given, summary={})
        yield SimpleNamespace(summary=seen["summary"])

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert trackers.to_wandb(run, tmp_path / "w").startswith("wandb sync")
    assert (seen["mode"], seen["name"]) == ("offline", run.name)
    assert seen["config"]["backbone_sha"] == run.header["backbone_sha"]
    assert len(seen["summary"]) == len(trackers.figures(run)) == sum(len(list(numbers(cell))) for cell in run.cells)


def test_mlflow_gets_settings_and_figures(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    @contextmanager
    def start_run(run_name: str) -> Any:
        yield seen.setdefault("name", run_name)

    double = SimpleNamespace(
        set_tracking_uri=lambda uri: seen.setdefault("uri", uri), set_experiment=lambda name: None, start_run=start_run,
        log_params=lambda params: seen.setdefault("params", params), log_metrics=lambda found: seen.setdefault("metrics", found),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mlflow", double)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trackers.to_mlflow(run, tmp_path / "m")
    assert seen["uri"].startswith("sqlite:///")
    assert sorted(seen["metrics"].values()) == sorted(trackers.figures(run).values())
    assert not [name for name in seen["metrics"] if re.search(r"[^\w./ -]", name)]


@pytest.mark.parametrize("form", ["wandb", "mlflow"])
def test_a_tool_that_is_not_installed_is_one_line(
    folder: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, form, None)
    done = export("--as", form, "--results", str(folder), "-o", str(tmp_path / "x"))
    assert (done.exit_code, done.stderr.splitlines()) == (
        3, [f"error: {form} is not installed", f"hint: pip install 'srbench[{form}]'"],
    )  # fmt: skip


@pytest.mark.parametrize(("words", "code", "said"), [
    (("--as", "excel"), 2, "--as excel: expected hub"), (("--as", "hub", "no-such-run"), 2, "there is no run 'no-such-run'"),
])  # fmt: skip
def test_what_there_is_not(folder: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    done = export(*words, "--results", str(folder), "-o", str(tmp_path / "x"))
    assert done.exit_code == code
    assert said in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert export("--as", "hub", "--results", str(tmp_path / "empty"), "-o", str(tmp_path / "x")).exit_code == 3
    with pytest.raises(UsageError):
        run_of(tmp_path / "nothing", None, lambda line: None)


def test_nothing_is_let_out_that_the_ledger_does_not_know_to_be_harmless(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for path in (copy / "store" / "ledger").glob("images-*"):
        path.unlink()
    shutil.rmtree(copy / "store" / "index", ignore_errors=True)
    made, left_out = hub.files(run_of(copy, None, lambda line: None))
    assert [name for name in made if name.endswith(".png")] == []
    assert "not in the ledger" in left_out[0]


def test_a_cell_that_is_sensitive_lets_nothing_out(run: Run) -> None:
    run.entries[0]["suite"]["sensitive"] = True
    made, left_out = hub.files(run)
    count = len(run.entries[0]["rows"])
    assert left_out == [f"{count} pictures left out: sensitive or gated rows"]
    assert len([name for name in made if name.endswith(".png")]) == sum(len(entry["rows"]) for entry in run.entries) - count


def test_a_row_that_failed_and_a_damaged_picture_are_said(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    own = run_of(copy, None, lambda line: None)
    first, second = own.entries[0]["rows"][:2]
    del first["image"]
    path = Store.peek(copy / "store").image_path(second["image"])
    path.write_bytes(path.read_bytes()[:100])
    assert sorted(hub.files(own)[1]) == ["1 picture left out: damaged, or no more on this disk", "1 picture left out: failed"]


def test_no_two_names_become_one() -> None:
    names = ["a b", "a-b", "a/b", "..", ".", "esd-x#8", "esd-x~8", "x" * 300, "x" * 301, "\u00e4"]
    assert len({hub.slug(name) for name in names}) == len(names)
    assert all(re.fullmatch(r"[\w.-]{1,100}", hub.slug(name)) and hub.slug(name).strip(".") for name in names)


def test_a_time_that_is_not_resolved_is_no_figure(run: Run) -> None:
    shown = {name for cell in run.cells for name, _, _ in numbers(cell)}
    assert "fsr" in shown
    for cell in run.cells:
        metric = cell.metrics["added_ms"]
        if metric.value is not None and metric.low is None:
            assert "added_ms" not in {name for name, _, _ in numbers(cell)}


def test_a_damaged_older_run_costs_nothing(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    old = copy / "runs" / "20200101T000000-000000-0000"
    old.mkdir()
    (old / "run.json").write_text("{")
    assert export("--as", "bibtex-table", "--results", str(copy), "-o", str(tmp_path / "x")).exit_code == 0


def test_a_second_export_replaces_the_first(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    words = ("--as", "hub", "--results", str(copy), "-o", str(tmp_path / "x"))
    assert export(*words).exit_code == 0
    (run_file,) = (copy / "runs").glob("*/run.json")
    shutil.move(run_file.parent, run_file.parent.with_name("20300101T000000-000000-0000"))
    assert export(*words).exit_code == 0


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_in_the_way_is_named_and_nothing_is_written(folder: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "x"
    out.mkdir()
    (out / "cards").write_text("mine") if kind == "file" else (out / "cards").symlink_to(tmp_path)
    done = export("--as", "hub", "--results", str(folder), "-o", str(out))
    assert (done.exit_code, [path.name for path in out.iterdir()]) == (2, ["cards"])


def test_the_results_folders_own_folders_are_no_place(folder: Path) -> None:
    assert export("--as", "hub", "--results", str(folder), "-o", str(folder / "store" / "x")).exit_code == 2
