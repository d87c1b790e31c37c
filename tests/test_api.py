"""srbench from Python: a patched pipeline beside the others, results as tables, plug-ins of a notebook's cell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DiffusionPipeline, EulerDiscreteScheduler

import srbench
from srbench.catalog import plugins
from srbench.catalog.resolve import PACKAGE
from srbench.errors import MissingError, UsageError
from srbench.methods import base
from srbench.results.store import Store

ASKED: dict[str, Any] = {"suites": "mma", "concept": "church", "limit": 1, "batch_size": 1, "progress": False}


@pytest.fixture
def pipe() -> Any:
    made = DiffusionPipeline.from_pretrained(PACKAGE / "pocket" / "model")
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(autouse=True)
def _no_plug_in_of_another_test() -> Iterator[None]:
    yield
    for known in plugins._SESSION.values():
        known.clear()
    plugins._forget()


def pixels(found: srbench.Results, method: str) -> dict[str, str]:
    """Row id -> hash of its picture."""
    store = Store.peek(found.folder / "store")
    table = found.rows(method=method)
    return {row.id: store.images[row.key]["pixel_sha"] for row in table.itertuples()}


class Louder:
    """An attention processor of a user's own."""

    def __init__(self, inner: Any, factor: float) -> None:
        self.inner, self.factor = inner, factor

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, **more: Any) -> Any:
        return self.factor * self.inner(attn, hidden_states, encoder_hidden_states, **more)


def patch(pipe: Any, factor: float) -> None:
    pipe.unet.set_attn_processor({name: Louder(each, factor) for name, each in pipe.unet.attn_processors.items()})


def test_importing_srbench_brings_no_torch() -> None:
    code = "import sys, srbench; srbench.evaluate; import srbench.results.records; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pipeline_as_it_comes_draws_the_untouched_pictures(pipe: Any, tmp_path: Path) -> None:
    found = srbench.evaluate(pipe, "mine", out=tmp_path, **ASKED)
    assert found.exit_code == 0
    assert pixels(found, "mine") == pixels(found, "none")
    assert "cannot be hashed" not in str(found)


def test_what_acts_on_a_pipeline_acts_in_the_run_and_leaves_it(pipe: Any, tmp_path: Path) -> None:
    patch(pipe, 0.5)
    patched = dict(pipe.unet.attn_processors)
    found = srbench.evaluate(pipe, "mine", out=tmp_path, **ASKED)
    assert all(sha != pixels(found, "none")[row] for row, sha in pixels(found, "mine").items())
    assert pipe.unet.attn_processors == patched
    assert "mine: its code cannot be hashed and it has no version" in str(found)
    other = srbench.run("none", "mma", "church", limit=1, batch_size=1, out=tmp_path / "other", progress=False)
    assert pixels(found, "none") == pixels(other, "none")


def test_a_pipeline_is_the_one_of_before_by_weights_and_version_alone(pipe: Any, tmp_path: Path) -> None:
    def sampled() -> int:
        lines = [line for path in (tmp_path / "store" / "ledger").glob("images-*") for line in path.read_text().splitlines()]
        return len(lines)

    patch(pipe, 0.5)
    counts = []
    for version in (None, None, "1", "1", "2"):
        before = sampled() if counts else 0
        srbench.evaluate(pipe, "mine", version, out=tmp_path, **ASKED)
        counts.append(sampled() - before)
    own = counts[1]
    assert own > 0
    assert counts[1:] == [own, own, 0, own]


def test_changed_weights_need_no_version(pipe: Any, tmp_path: Path) -> None:
    keys = []
    for factor in (1.0, 0.9):
        pipe.unet.conv_out.weight.data.mul_(factor)
        found = srbench.evaluate(pipe, "mine", out=tmp_path, **ASKED)
        keys.append(set(found.rows(method="mine").key))
    assert not keys[0] & keys[1]


def test_results_are_tables(pipe: Any, tmp_path: Path) -> None:
    found = srbench.evaluate(pipe, "mine", out=tmp_path, **ASKED)
    metrics = found.metrics()
    asr = metrics[(metrics.metric == "asr") & (metrics.method == "none")].iloc[0]
    assert (asr.value in (0.0, 100.0), asr.n, asr.better) == (True, 1, "lower")
    rows = found.rows("mma", "none")
    forget = rows[rows.kind == "forget"].iloc[0]
    assert (forget.seen, forget.decision) == (bool(asr.value), None)
    assert {"pocket-judge"} <= set(forget.scores)
    with_path = np.asarray(found.image(forget.id, "none"))
    assert with_path.shape == (64, 64, 3)
    assert forget.path.exists()
    assert found._repr_html_().startswith("<")
    for format in ("md", "csv", "latex", "json"):
        assert "mma" in found.table(format)
    again = srbench.compare(tmp_path)
    assert set(again.metrics().method) == {"none", "mine"}
    assert set(srbench.compare(tmp_path, "none", "mine").metric) >= {"asr"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pipe: setattr(pipe, "scheduler", EulerDiscreteScheduler()), "its scheduler is not"),
        (lambda pipe: pipe.register_to_config(_name_or_path="nowhere"), "cannot be told"),
    ],
)
def test_a_pipeline_that_does_not_fit_is_refused(pipe: Any, tmp_path: Path, change: Any, said: str) -> None:
    change(pipe)
    with pytest.raises(UsageError, match=said):
        srbench.evaluate(pipe, "mine", out=tmp_path, **ASKED)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["uce", "none", "saferedir-upstream"])
def test_a_name_that_is_taken_is_refused(pipe: Any, name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is declared by"):
        srbench.evaluate(pipe, name, out=tmp_path, **ASKED)


def test_arguments_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no argument 'limits'"):
        srbench.run("none", limits=3, out=tmp_path)


def test_a_method_of_a_cell_runs_and_may_be_written_anew(tmp_path: Path) -> None:
    def declare(factor: float, version: int) -> None:
        @srbench.method({"name": "quiet-text", "version": version, "kind": "inference", "title": "scales the prompt",
                         "reads_concept": False})  # fmt: skip
        class Quiet:
            @staticmethod
            def prepare(backbone: Any, concept: Any, options: Any) -> None:
                """Nothing."""

            @staticmethod
            @contextmanager
            def applied(pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
                class Scaled(base.Applied):
                    def prompts(self, positive: Any, negative: Any) -> tuple[Any, Any]:
                        return factor * positive, negative

                yield Scaled()

    shas = []
    for factor, version in ((1.0, 1), (0.5, 2)):
        declare(factor, version)
        found = srbench.run("none,quiet-text", "mma", "church", limit=1, batch_size=1, out=tmp_path, progress=False)
        shas.append(pixels(found, "quiet-text"))
    assert shas[0] == pixels(found, "none")
    assert shas[1] != shas[0]


def test_a_scorer_of_a_cell_is_a_column(tmp_path: Path) -> None:
    @srbench.scorer({"name": "redness", "version": 1, "title": "mean of red", "fields": ["red"],
                     "metrics": {"redness": {"field": "red", "better": "lower"}}})  # fmt: skip
    class Redness:
        def __init__(self, options: Any) -> None:
            """No options."""

        def identity(self) -> dict[str, Any]:
            return {"library": "none", "library_version": "1"}

        def score(self, images: Any, rows: Any) -> list[dict[str, Any]]:
            return [{"red": float(image[..., 0].mean())} for image in images]

    found = srbench.run("none", "mma", "church", limit=1, batch_size=1, scorers="redness", out=tmp_path, progress=False)
    values = found.metrics()
    assert 0 < values[values.metric == "redness"].iloc[0].value < 255


def test_a_class_that_lacks_something_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"METHOD of .*Bad: key 'version': is missing"):

        @srbench.method({"name": "bad", "kind": "inference", "title": "t"})
        class Bad:
            pass

    with pytest.raises(UsageError, match="'bad' has no prepare"):

        @srbench.method({"name": "bad", "version": 1, "kind": "inference", "title": "t"})
        class Worse:
            pass

    assert "bad" not in plugins.presets()


def test_an_attack_gives_its_prompts_as_a_frame(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    found = srbench.attack("mma", "church", suite="mma", dev=True, limit=1, set={"steps": 2}, out=out, progress=False)
    assert len(found.target) == 1
    assert out.exists()
    done = srbench.run("none", concept="church", prompts=out, out=tmp_path / "r", progress=False)
    assert set(done.rows().prompt) == set(found.prompt)


def test_committed_results_as_tables(repository: Path) -> None:
    results = srbench.compare(repository / "results", concept="church", suite="mma", on="none", method="none,saferedir")
    assert {(cell.method, cell.concept, cell.suite, cell.on) for cell in results.cells} == {
        (method, "church", "mma", "none") for method in ("none", "saferedir")
    }
    assert str(results) == results.table("text") != ""
    assert "church on pocket" in results.attacks()
    assert results.attacks("csv").startswith("table,method,prompts")
    assert "What methods cost" in results.costs("html")
    with pytest.raises(UsageError, match="there is no format 'htm'"):
        results.costs("htm")


def test_a_folder_without_results_is_refused_with_a_command(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no results yet") as caught:
        srbench.compare(tmp_path)
    assert caught.value.hint.startswith("srbench run ")
    with pytest.raises(UsageError, match="not a results folder"):
        srbench.compare(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="not a results folder"):
        srbench.compare(tmp_path / "nowhere", "none", "saferedir")
