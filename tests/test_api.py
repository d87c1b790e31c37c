"""srbench from Python: a patched pipeline beside the others, results as tables, plug-ins of a notebook's cell."""

from __future__ import annotations

import asyncio
import linecache
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler
from peft import LoraConfig

import srbench
from srbench import api
from srbench.attacks.base import Adversarial
from srbench.catalog import load, plugins
from srbench.catalog.resolve import PACKAGE
from srbench.engine import given
from srbench.errors import MissingError, UsageError
from srbench.methods import base
from srbench.results.store import Store
from srbench.testing.families import tiny

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
    plugins.forget()


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
    with pytest.raises(UsageError, match="there is no row 'mma-church-t999'") as absent:
        found.image("mma-church-t999", method="none")
    assert absent.value.hint.startswith(f"Did you mean '{forget.id}'?")
    with pytest.raises(UsageError, match=f"2 pictures of row '{forget.id}'"):
        found.image(forget.id)
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


@pytest.mark.parametrize("name", ["uce", "none", "saferedir-upstream", "esd"])
def test_a_name_that_is_taken_is_refused(pipe: Any, name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is declared by") as raised:
        srbench.evaluate(pipe, name, out=tmp_path, **ASKED)
    assert "name=" in raised.value.hint


def test_arguments_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no argument 'limits'"):
        srbench.run("none", limits=3, out=tmp_path)


@pytest.mark.parametrize(("call", "message", "hint"), [
    (lambda out: srbench.run("none", limit=-1, out=out), "limit=-1: expected 1 or more", "Leave it out for the default."),
    (lambda out: srbench.run("none", batch_size=0, out=out), "batch_size=0: expected 1 or more", "Leave it out"),
    (lambda out: srbench.run("none", set={"safered.x": 1}, out=out), "set='safered.x=1': 'safered' is not part", "Known: "),
    (lambda out: srbench.run("none", column="id=x", out=out), "column= says how a file of yours is read", "Add prompts=FILE."),
    (lambda out: srbench.run("none", compile="on", device="cpu", limit=1, out=out), "compile='on': only CUDA", "Leave it out."),
    (lambda out: srbench.attack("mma", "church"), "an attack needs targets", "Give suite=NAME, or targets=FILE; not both."),
    (lambda out: srbench.attack("mma", "church", suites="mma"), "there is no argument 'suites'", "Did you mean 'suite'?"),
    (lambda out: srbench.compare(out, suit="mma"), "there is no argument 'suit'", "Did you mean 'suite'?"),
    (lambda out: srbench.score(out, prompts="p.csv"), "prompts= and column= go with", "Add layout=LAYOUT"),
    (lambda out: srbench.Results(out, ()).rows(methods="none"), "there is no argument 'methods'", "Did you mean 'method'?"),
    (lambda out: srbench.compare(out), "no results yet", "srbench run --method none,saferedir --suite igmu,mma --out"),
])  # fmt: skip
def test_errors_speak_of_arguments(call: Any, message: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, MissingError)) as caught:
        call(tmp_path)
    assert message in caught.value.message == str(caught.value)
    assert hint in caught.value.hint
    assert "--" not in caught.value.line or "srbench run --" in caught.value.hint


@pytest.mark.parametrize(("said", "now"), [
    ("Leave --gpus out, or name cards that are there.", "Leave gpus= out, or name cards that are there."),
    ("--gpus and --device both say what to run on", "gpus= and device= both say what to run on"),
    ("Add --keep-images, or leave --sheet out.", "Add keep_images=True, or leave --sheet out."),
    ("Give it to --on: --on esd-x,uce", "Give it to on=: on='esd-x,uce'"),
    ("Use --dtype fp32, or bf16.", "Use dtype='fp32', or bf16."),
    ("--set 'a b': expected NAME.OPTION=VALUE", "set='a b': expected NAME.OPTION=VALUE"),
    ("Add --scorer; `srbench list scorers --suite x` shows them, or --on none.",
     "Add scorers=; `srbench list scorers --suite x` shows them, or on='none'."),
    ("Fetch it: hf download a/b --revision 1; or --backbone FILE", "Fetch it: hf download a/b --revision 1; or backbone=FILE"),
    ("srbench run --suite igmu --limit 1", "srbench run --suite igmu --limit 1"),
])  # fmt: skip
def test_options_of_the_command_line_become_arguments(said: str, now: str) -> None:
    known = {"gpus", "device", "keep_images", "on", "dtype", "set", "scorers", "backbone", "suite", "limit"}
    assert api._as_arguments(said, known) == now


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


DRAWS = """
import srbench
from contextlib import contextmanager
from srbench.methods import base

@srbench.method({{"name": "quiet-text", "version": {version}, "kind": "inference", "title": "t", "reads_concept": False}})
class Quiet:
    class Options(base.Options):
        pass

    @staticmethod
    def prepare(backbone, concept, options):
        return None

    @staticmethod
    @contextmanager
    def applied(pipeline, artifact, options, call):
        class Scaled(base.Applied):
            def prompts(self, positive, negative):
                return {factor} * positive, negative
        yield Scaled()
"""


def cell(text: str, number: int) -> None:
    """Run a text as a notebook runs a cell: `inspect` finds its lines."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), {"__name__": "__main__"})


def test_pictures_of_code_that_was_changed_since_are_served_and_said_until_the_version_is_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sampled(number: int, **code: float) -> str:
        cell(DRAWS.format(**code), number)
        table = srbench.run("quiet-text", "mma", "church", limit=1, batch_size=1, out=tmp_path).table()
        assert ("1 of 1 images are of earlier code of its version 1" in table) is (number == 3)
        return capsys.readouterr().err

    said = "quiet-text: the code was changed since it made"
    assert said not in sampled(1, version=1, factor=0.5)
    assert said not in sampled(2, version=1, factor=0.5)
    changed = sampled(3, version=1, factor=0.9)
    assert f"{said} 1 stored image, and its version (1) was not" in changed
    assert "0 images to sample" in changed
    raised = sampled(4, version=2, factor=0.9)
    assert said not in raised
    assert "0 images to sample" not in raised


# --- what a pipeline is told apart by ---------------------------------------------------------------------------------


def sha(pipe: Any, version: str | None = None) -> str:
    return given.identity(pipe, version)[0]


def with_lora(pipe: Any) -> None:
    torch.manual_seed(0)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_v"], init_lora_weights=False), "one")


def test_an_adapter_needs_no_version_and_its_strength_counts(pipe: Any) -> None:
    with_lora(pipe)
    assert given.patches(pipe) == []
    shas = [sha(pipe)]
    pipe.unet.set_adapters(["one"], [0.5])
    shas.append(sha(pipe))
    pipe.unet.disable_adapters()
    shas.append(sha(pipe))
    assert len(set(shas)) == 3
    pipe.unet.enable_adapters()
    assert sha(pipe) == shas[1]


def test_settings_that_are_no_weights_count(pipe: Any) -> None:
    plain = sha(pipe)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    free = sha(pipe)
    pipe.unet.train()
    assert len({plain, free, sha(pipe)}) == 3


def test_where_a_pipeline_lies_does_not_count(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "copy")
    assert sha(DiffusionPipeline.from_pretrained(tmp_path / "copy")) == sha(pipe)


def test_sampling_changes_nothing_that_counts(pipe: Any) -> None:
    before = sha(pipe)
    pipe("a church", num_inference_steps=1)
    assert sha(pipe) == before


class Stranger(DDIMScheduler):
    """A scheduler of a user's own."""


@pytest.mark.parametrize(
    "change",
    [
        lambda pipe, patch: pipe.unet.register_forward_hook(lambda module, given, out: out),
        lambda pipe, patch: patch.setattr(pipe.unet, "forward", lambda *given, **more: None),
        lambda pipe, patch: patch.setattr(type(pipe.unet), "forward", lambda *given, **more: None),
        lambda pipe, patch: patch.setattr(type(pipe), "__call__", lambda *given, **more: None),
        lambda pipe, patch: patch.setattr(pipe.scheduler, "step", lambda *given, **more: None),
        lambda pipe, patch: patch.setattr(pipe, "encode_prompt", lambda *given, **more: None),
        lambda pipe, patch: setattr(pipe, "scheduler", Stranger.from_config(pipe.scheduler.config)),
        lambda pipe, patch: globals()["patch"](pipe, 0.5),
    ],
)
def test_code_that_has_no_hash_is_found(pipe: Any, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    assert given.patches(pipe) == []
    change(pipe, monkeypatch)
    assert given.patches(pipe) != []
    assert sha(pipe) != sha(pipe)
    assert sha(pipe, "1") == sha(pipe, "1")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b", "", "a,b", "-a", "ü", "<b>", "../x", "a" * 65, None, 3, "a\n"])
def test_a_name_that_no_table_can_have_is_refused(pipe: Any, name: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^name=.*: not a name"):
        srbench.evaluate(pipe, name, out=tmp_path, **ASKED)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": ""}, "version='' says nothing"),
        ({"on": "uce"}, "on= does not go with"),
        ({"gpus": "all"}, "gpus= does not go with"),
        ({"limit": 1.5}, "limit=1.5: expected a whole number"),
        ({"limit": "3"}, "limit='3': expected a whole number"),
        ({"limit": 0}, "limit=0: expected 1 or more"),
        ({"suites": ["mma", 3]}, "expected a name, got 3"),
        ({"suites": 3}, "expected a name, got 3"),
        ({"concept": Path("church")}, "expected a name, got"),
        ({"prompts": pd.DataFrame({"prompt": ["a cat"]})}, "a DataFrame in place of a path"),
        ({"methods": "uce"}, "there is no argument 'methods'"),
        ({"settings": "uce"}, "there is no argument 'settings'"),
        ({"suite": "mma"}, "there is no argument 'suite'"),
        ({"beside": "nobody"}, "nobody"),
    ],
)
def test_an_argument_that_is_wrong_is_named_and_the_name_stays_free(
    pipe: Any, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        srbench.evaluate(pipe, "mine", out=tmp_path / "out", **{**ASKED, **changed})
    assert not (tmp_path / "out" / "runs").exists()
    assert "mine" not in plugins.presets()


@pytest.mark.parametrize("thing", ["a/path", None, 3, DiffusionPipeline])
def test_what_is_no_pipeline_is_refused(thing: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a diffusers pipeline"):
        srbench.evaluate(thing, "mine", out=tmp_path, **ASKED)


def test_a_pipeline_of_another_family_or_format_is_refused(pipe: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a pipeline of pocket"):
        srbench.evaluate(tiny("sdxl"), "mine", backbone="pocket", out=tmp_path, **ASKED)
    with pytest.raises(UsageError, match="dtype='fp16' does not work on a CPU"):
        srbench.evaluate(pipe.to(torch.float16), "mine", out=tmp_path, **ASKED)
    pipe.unet.to(torch.float32)
    with pytest.raises(UsageError, match="its parts differ in number format"):
        srbench.evaluate(pipe, "mine", out=tmp_path, **ASKED)
    with pytest.raises(UsageError, match=r"a pipeline in torch\.float64"):
        srbench.evaluate(pipe.to(torch.float64), "mine", out=tmp_path, **ASKED)


def test_results_in_place_of_which_a_file_lies_are_refused_before_anything_is_loaded(pipe: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match="in the way of the results folder"):
        srbench.evaluate(pipe, "mine", out=tmp_path / "file", **ASKED)
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(UsageError, match="not a results folder"):
        srbench.compare(tmp_path / "file")


def test_a_name_of_a_cell_s_method_is_taken(pipe: Any, tmp_path: Path) -> None:
    @srbench.method({"name": "mine", "version": 1, "kind": "inference", "title": "t"})
    class Mine:
        prepare = staticmethod(lambda backbone, concept, options: None)
        applied = staticmethod(lambda pipeline, artifact, options, call: None)

    with pytest.raises(UsageError, match="'mine' is declared by this session"):
        srbench.evaluate(pipe, "mine", out=tmp_path, **ASKED)
    assert plugins.load("methods", "mine") is Mine
    with pytest.raises(UsageError, match="'mine' was registered in this process, and its workers cannot import it"):
        srbench.run("mine", gpus="cpu,cpu", out=tmp_path)
    assert not (tmp_path / "store").exists()


# --- as notebooks use it ----------------------------------------------------------------------------------------------


def test_an_interrupt_leaves_everything_as_it_was_and_the_next_call_resumes(
    pipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    def stop(module: Any, given: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    hook = pipe.unet.register_forward_pre_hook(stop)
    more = {**ASKED, "progress": True}
    with pytest.raises(KeyboardInterrupt):
        srbench.evaluate(pipe, "mine", "1", out=tmp_path, **more)
    assert "mine" not in plugins.presets()
    assert pipe.unet._forward_pre_hooks == {hook.id: stop}
    capsys.readouterr()
    done = srbench.evaluate(pipe, "mine", "1", out=tmp_path, **more)
    assert "1 images to sample, 1 in the store" in capsys.readouterr().err
    assert done.exit_code == 0


def test_a_call_in_a_thread_and_in_a_running_event_loop(tmp_path: Path) -> None:
    more = {"limit": 1, "batch_size": 1, "out": tmp_path, "progress": False}

    async def cell() -> list[int]:
        here = srbench.run("none", "mma", "church", **more)
        there = await asyncio.to_thread(srbench.run, "none", "mma", "church", **more)
        return [here.exit_code, there.exit_code]

    assert asyncio.run(cell()) == [0, 0]


def test_pandas_and_numpy_values_are_taken(tmp_path: Path) -> None:
    suites, limit = pd.Series(["mma"]), pd.Series([1]).iloc[0]
    done = srbench.run(np.array(["none"]), suites, pd.Index(["church"]), limit=limit, batch_size=np.int64(1), out=tmp_path,
                       progress=False)  # fmt: skip
    assert done.exit_code == 0
    assert len(done.rows("mma")) == 1


def test_settings_are_a_text_or_several() -> None:
    texts = [api._options("none", "mma", (), "r", {"set": each}).settings for each in ("a.b=1", ["a.b=1"], {"a.b": 1})]
    assert texts == [("a.b=1",)] * 3


def test_prompts_of_one_s_own_take_the_place_of_the_suite_that_is_run_otherwise() -> None:
    def suites(suite: Any) -> tuple[str, ...]:
        return api._options("none", suite, (), "r", {"prompts": "p.csv"}).suites

    assert suites(api.IGMU) == ()
    assert suites("igmu") == ("igmu",)


def test_no_rows_are_a_frame_with_columns(tmp_path: Path) -> None:
    empty = srbench.Results(tmp_path, ())
    assert list(empty.rows().columns) == list(api.ROW_COLUMNS)
    assert list(empty.metrics().columns) == list(api.METRIC_COLUMNS)
    assert "no results" in empty._repr_html_()
    with pytest.raises(UsageError, match="there are no rows here"):
        empty.image("x")


def test_a_gated_edition_s_texts_stay_out_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = load.suites()["mma"]
    gated = [each.model_copy(update={"gated": each.concept == "church"}) for each in suite.editions]
    monkeypatch.setattr(load, "suites", lambda: {"mma": suite.model_copy(update={"editions": tuple(gated)})})
    assert api._is_gated("mma", "church")
    assert not api._is_gated("mma", "hazard")
    assert not api._is_gated("a-file", "church")


def test_a_table_in_a_notebook_is_a_part_of_its_page_and_escapes_everything(repository: Path) -> None:
    cell = srbench.compare(repository / "results").cells[0]
    hostile = replace(cell, method="<script>x</script>", notes=("<img src=x>",))
    shown = srbench.Results(Path("r"), (hostile,))._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;" in shown
    assert not re.search(r"<(html|body|head|!doctype|title)", shown)
    rules = shown.partition("<style>")[2].partition("</style>")[0]
    selectors = [each for rule in re.findall(r"([^{}]+)\{", rules) for each in rule.split(",")]
    assert all(each.strip().startswith("div.srbench ") for each in selectors)
    assert not re.search(r"(?<!-)\b(color|background)\s*:(?!\s*inherit)", rules)


def test_committed_results_as_tables(repository: Path) -> None:
    results = srbench.compare(repository / "results", concept="church", suite="mma", on="none", method="none,saferedir")
    assert {(cell.method, cell.concept, cell.suite, cell.on) for cell in results.cells} == {
        (method, "church", "mma", "none") for method in ("none", "saferedir")
    }
    assert str(results) == results.table("text") != ""
    assert "church on pocket" in results.attacks()
    assert results.attacks("csv").startswith("table,method,prompts")
    assert "What methods cost" in results.costs("html")
    for wrong in ("htm", 3, None, ["md"]):
        for shown in (results.table, results.attacks, results.costs):
            with pytest.raises(UsageError, match="there is no format") as caught:
                shown(wrong)
            assert caught.value.hint.endswith("Known: csv, html, json, latex, md, text")


@pytest.mark.parametrize(("call", "said"), [
    (lambda found: found.table(sort=3), "expected a name, got 3"),
    (lambda found: found.table(sort="asrr"), "no result has metric 'asrr'"),
    (lambda found: found.rows(suite=3), "expected a name, got 3"),
    (lambda found: found.rows(method=["none", None]), "expected a name, got null"),
    (lambda found: found.rows(suite=""), "empty name"),
    (lambda found: found.image(3), "expected a name, got 3"),
    (lambda found: found.image(["a", "b"]), "expected a name, got a list of 2"),
    (lambda found: found.image("nothing"), "there are no rows here"),
    (lambda found: srbench.compare(found.folder, 3, 4), "expected a name, got 3"),
    (lambda found: srbench.compare(found.folder, method={"none": 1, 3: 2}), "expected a name, got 3"),
])  # fmt: skip
def test_arguments_of_another_type_are_one_line(repository: Path, call: Any, said: str) -> None:
    results = srbench.compare(repository / "results", concept="church", suite="mma", on="none", method="none,saferedir")
    with pytest.raises(UsageError, match=said):
        call(results)


def test_an_attack_that_keeps_no_history_has_no_objective_of_before() -> None:
    found = SimpleNamespace(found=[Adversarial("a church", "a chapel", 0.5, tokens_seed=0, objective=1.0)])
    assert api._frame_of(found).objective_before.isna().all()


def test_a_folder_without_results_is_refused_with_a_command(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no results yet") as caught:
        srbench.compare(tmp_path)
    assert caught.value.hint.startswith("srbench run ")
    with pytest.raises(UsageError, match="not a results folder"):
        srbench.compare(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="not a results folder"):
        srbench.compare(tmp_path / "nowhere", "none", "saferedir")


@pytest.mark.parametrize("names", [{"method": ""}, {"method": []}, {"suite": ""}, {"concept": "", "method": "none"}, {"on": []}])
def test_an_empty_name_is_refused(names: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"empty name|nothing to run"):
        srbench.run(**names, limit=1, out=tmp_path / "results", progress=False)


def test_rows_of_a_name_that_no_result_has_are_refused(tmp_path: Path) -> None:
    found = srbench.run("none", "mma", "church", limit=1, batch_size=1, out=tmp_path, progress=False)
    assert len(found.rows("mma", "none")) == 1
    for wrong in ({"suite": "mmma"}, {"method": "nome"}):
        with pytest.raises(UsageError, match="no result has") as error:
            found.rows(**wrong)
        assert "Did you mean" in error.value.hint
    assert len(found.rows(["mma"], "none")) == 1


# --- shards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shard", "problem"), [
    ("3/2", "shard='3/2': there is no part 3 of 2"), ("0/0", "shard='0/0': a run has 1 to"), (2, "shard="),
])  # fmt: skip
def test_a_part_that_there_is_not_is_said_as_an_argument(shard: Any, problem: str, tmp_path: Path) -> None:
    for call in (srbench.run, srbench.score):
        given = {"folder": tmp_path, "layout": "flat"} if call is srbench.score else {}
        with pytest.raises(UsageError) as caught:
            call(**given, shard=shard, out=tmp_path / "out", progress=False)
        assert caught.value.message.startswith(problem), caught.value.message


def test_a_pipeline_without_a_version_has_no_parts(pipe: Any, tmp_path: Path) -> None:
    """Nothing of it is served from the store, so that nothing could be joined."""
    with pytest.raises(UsageError, match="has a version"):
        srbench.evaluate(pipe, suites="mma", concept="church", shard="1/2", out=tmp_path)
