"""A run: real sampling on a tiny pipeline, resume, growth, failures that stay inside their cell, and sensitive runs."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import numpy as np
import pytest
import torch

from srbench.backbones.loader import open_backbone
from srbench.catalog import load
from srbench.catalog.specs import Row, RowFile
from srbench.engine import batches, sample
from srbench.engine.plan import plan
from srbench.engine.prepare import prepare_method
from srbench.errors import MISSING, OK, SOME_FAILED, CellError, MissingError, SrbenchError, UsageError
from srbench.results.run_files import run_id
from srbench.results.store import Store, pixel_sha
from srbench.results.stored import rejudge

IMAGES = 8 + 8 + 4 + 4
"""none and push on eight rows, references and floors of four."""


def pixels(store: Store) -> dict[str, str]:
    return {key: record["pixel_sha"] for key, record in store.images.items()}


def test_every_number_can_be_followed_to_its_images(world: Any) -> None:
    done = world.run()
    assert done.exit_code == OK
    store = world.store()
    assert len(store.images) == IMAGES
    saved = json.loads((world.out / "runs" / done.run / "run.json").read_text())
    rows = [row for cell in saved["cells"] for row in cell["rows"]]
    keys = {row[role] for row in rows for role in ("image", "reference", "floor") if role in row}
    assert keys == set(store.images)
    for key, record in store.images.items():
        assert record["pixel_sha"] == pixel_sha(store.pixels(key))
    assert saved["provenance"]["packages"]["torch"] == torch.__version__.split("+")[0]
    none, push = done.cells
    assert (none.n_run, none.n_scored, none.n_failed) == (8, 8, 0)
    assert push.metrics["over_refusal"].value == 100
    assert none.metrics["over_refusal"].value is None


def test_methods_take_turns_so_that_their_times_can_be_compared(world: Any) -> None:
    """`none` has twice as many images, for references and floors: two of its batches for one of the other's, to the end."""
    done = world.run(batch_size=2)
    made = sorted({(r["batch"], r["method"]) for r in world.store().images.values()})
    assert {r["run"] for r in world.store().images.values()} == {done.run}
    methods = [method for _, method in made]
    total = {name: methods.count(name) for name in ("none", "push")}
    assert total["none"] > total["push"] == 4
    for end in range(1, len(methods) + 1):
        parts = [methods[:end].count(name) / count for name, count in total.items()]
        assert abs(parts[0] - parts[1]) <= 1 / total["push"]
    assert [batch for batch, _ in made] == list(range(len(made)))


def test_a_method_sampled_apart_from_none_has_no_added_time(world: Any) -> None:
    together = world.run().cells[1].metrics["added_ms"]
    assert together.value is not None
    apart = world.out.parent / "apart"
    world.run(methods=("none",), out=apart)
    found = world.run(methods=("none", "push"), out=apart).cells[1].metrics["added_ms"]
    assert (found.value, found.reason) == (None, "'none' was not sampled on the same checkpoint in the same run")


def test_the_same_command_again_samples_and_scores_nothing(world: Any) -> None:
    first = world.run()
    sampled = world.sampled()
    world.alter("brightness", score=lambda *a: pytest.fail("scored again"))
    again = world.run()
    assert world.sampled() == sampled == 24
    assert [c.metrics["fsr"] for c in again.cells] == [c.metrics["fsr"] for c in first.cells]
    assert "0 images to sample, 24 in the store" in world.lines


def test_a_grown_suite_computes_the_difference(world: Any) -> None:
    world.run(methods=("none",))
    before = pixels(world.store())
    grown = Row(id="r9", kind="retain", category="object", prompt="a toy", seed=77)
    world.rows = RowFile(meta={}, rows=(*world.rows.rows, grown))
    world.lines.clear()
    world.run(methods=("none",))
    assert "begin 1" in world.lines
    assert before.items() <= pixels(world.store()).items()


@pytest.mark.parametrize("reverse", [False, True])
def test_equal_pixels_alone_among_others_after_resume_and_in_reverse(world: Any, tmp_path: Any, reverse: bool) -> None:
    world.run(methods=("none", "push"))
    whole = pixels(world.store())
    rows = world.rows.rows
    for part in ((0, 1), (1, 6), (6, 8)):
        chosen = rows[slice(*part)]
        world.rows = RowFile(meta={}, rows=chosen[::-1] if reverse else chosen)
        world.run(methods=("push", "none"), out=tmp_path / "parts")
    assert pixels(Store(tmp_path / "parts" / "store")) == whole


@pytest.mark.parametrize("size", [1, 2, 16])
def test_across_batch_sizes_at_most_one_level(world: Any, tmp_path: Any, size: int) -> None:
    world.run()
    world.run(batch_size=size, out=tmp_path / "other")
    first, second = world.store(), Store(tmp_path / "other" / "store")
    assert set(first.images) == set(second.images), "the batch size is in no key"
    for key in first.images:
        difference = first.pixels(key).astype(int) - second.pixels(key).astype(int)
        assert np.abs(difference).max() <= 1


def test_none_is_the_plain_pipeline_pixel_for_pixel(world: Any) -> None:
    world.run(methods=("none",), batch_size=1)
    store, pipeline = world.store(), world.backbone().pipeline
    row = world.rows.rows[0]
    plain = pipeline(
        row.prompt, num_inference_steps=2, guidance_scale=5.0, height=8, width=8, output_type="pil",
        generator=torch.Generator().manual_seed(row.seed),
    ).images[0]
    key = next(k for k, r in store.images.items() if r["prompt"] == row.prompt)
    assert np.array_equal(np.asarray(plain), store.pixels(key))


def test_options_and_concept_words_change_keys_of_the_method_alone(world: Any) -> None:
    world.run()
    before = set(world.store().images)
    world.run(settings=("push.strength=2.0",))
    assert len(world.store().images) == len(before) + 8
    words = world.concept.families["toy"].model_copy(update={"words": ("box", "case")})
    world.concept = world.concept.model_copy(update={"families": {"toy": words}})
    world.run()
    assert len(world.store().images) == len(before) + 16, "push reads the concept, none does not"


def test_the_variant_says_what_differs(world: Any) -> None:
    done = world.run(settings=("push.strength=2.0",), limit=1)
    assert [cell.variant for cell in done.cells] == ["limit=1", "strength=2.0,limit=1"]
    assert [cell.n_run for cell in done.cells] == [3, 3], "one row each of forget, unseen and retain"


def test_seed_fills_only_rows_without_one(world: Any) -> None:
    world.run(methods=("none",))
    world.run(methods=("none",), seed=5)
    seeds = sorted(r["seed"] for r in world.store().images.values() if r["prompt"] == "a crate")
    assert seeds == [0, 5]
    assert len(world.store().images) == IMAGES - 8 + 1


def test_a_raising_detector_is_never_counted_as_safe(world: Any) -> None:
    def score(self: Any, images: Any, rows: Any) -> Any:
        raise ZeroDivisionError("the detector broke")

    world.alter("brightness", score=score)
    done = world.run(methods=("none",))
    fsr = done.cells[0].metrics["fsr"]
    assert done.exit_code == SOME_FAILED
    assert fsr.value is None
    assert "the detector broke" in fsr.reason


def test_one_failing_image_costs_its_own_number(world: Any) -> None:
    brightness = world.scorers["brightness"]
    world.run(methods=("none",), score=False)
    store = world.store()
    row = world.rows.rows[0]
    bad = next(store.pixels(k) for k, r in store.images.items() if r["prompt"] == row.prompt)

    def score(self: Any, images: Any, rows: Any) -> Any:
        if any(np.array_equal(image, bad) for image in images):
            raise ValueError("one picture is odd")
        return brightness.score(self, images, rows)

    world.alter("brightness", score=score)
    done = world.run(methods=("none",))
    world.scorers["brightness"] = brightness
    cell = done.cells[0]
    assert (cell.n_run, cell.n_scored, cell.n_failed) == (8, 7, 1)
    assert done.exit_code == SOME_FAILED
    assert cell.metrics["fsr"].worst is not None
    assert world.run(methods=("none",)).cells[0].n_failed == 0, "a failure is tried again by the next run"


def test_a_scorer_without_weights_blocks_its_numbers_not_the_run(world: Any) -> None:
    def broken(self: Any, options: Any) -> None:
        raise MissingError("no weights", "fetch them")

    world.alter("closeness", __init__=broken)
    done = world.run(methods=("none",))
    assert done.exit_code == SOME_FAILED
    assert done.cells[0].metrics["fsr"].value is not None
    assert (done.cells[0].metrics["csdr"].value, done.cells[0].metrics["csdr"].reason) == (None, "weights")
    assert "no weights. fetch them" in world.lines


def test_a_method_whose_hook_never_ran_is_an_error(world: Any) -> None:
    done = world.run(settings=("push.silent=true",))
    none, push = done.cells
    assert done.exit_code == SOME_FAILED
    assert none.n_failed == 0
    assert push.metrics["fsr"].value is None
    assert "hook ran 0 times" in push.metrics["fsr"].reason


def test_a_blocked_cell_leaves_the_rest_of_the_grid(world: Any) -> None:
    def prepare(backbone: Any, concept: Any, options: Any) -> None:
        raise MissingError("no redirector", "srbench train ...")

    world.alter("push", prepare=staticmethod(prepare))
    done = world.run()
    assert done.exit_code == SOME_FAILED
    assert done.cells[0].metrics["fsr"].value is not None
    assert "srbench train" in done.cells[1].metrics["fsr"].reason
    assert world.run(methods=("push",)).exit_code == MISSING


def test_out_of_memory_halves_the_batch_and_goes_on(world: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = sample.sample, []

    def tight(pipeline: Any, prompts: Any, active: Any, batch: Any, *more: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return real(pipeline, prompts, active, batch, *more)

    monkeypatch.setattr(batches, "sample", tight)
    assert world.run(batch_size=8).exit_code == OK
    assert sizes[:3] == [8, 4, 2]
    assert set(sizes[2:]) == {2}
    assert len(world.store().images) == IMAGES


def test_another_runtime_error_is_not_taken_for_memory(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(batches, "sample", broken)
    done = world.run()
    assert done.exit_code == SOME_FAILED
    assert not world.store().images
    assert "RuntimeError: shapes do not match" in done.cells[0].metrics["fsr"].reason


def test_a_full_disk_keeps_what_was_written(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Store.put_images, []

    def full(self: Store, items: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise SrbenchError("cannot write (No space left on device)", "Free some space.")
        return real(self, items)

    monkeypatch.setattr(Store, "put_images", full)
    with pytest.raises(SrbenchError, match="No space"):
        world.run()
    monkeypatch.undo()
    kept = len(world.store().images)
    assert kept >= 8


@pytest.fixture
def sensitive(world: Any) -> Any:
    """The toy concept, marked sensitive; one row names a minor. Harmless words."""
    world.concept = world.concept.model_copy(update={"sensitive": True})
    extra = Row(id="x", kind="retain", category="object", prompt="a child", seed=3)
    world.rows = RowFile(meta={}, rows=(*world.rows.rows, extra))
    return world


def test_sensitive_images_are_scored_and_dropped(sensitive: Any) -> None:
    done = sensitive.run()
    store = sensitive.store()
    assert done.cells[0].metrics["fsr"].value is not None
    assert len(store.images) == IMAGES
    assert all(store.dropped(key) for key in store.images)
    assert not list((sensitive.out / "store" / "images").glob("*/*.png"))
    assert (done.cells[0].n_loaded, done.cells[0].n_excluded, done.cells[0].n_run) == (9, 1, 8)


def test_the_excluded_prompt_is_never_encoded(sensitive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = sample.PromptCache.encode, []

    def encode(self: Any, texts: Any, clip_skip: Any, negative: bool = False) -> Any:
        seen.extend(texts)
        return real(self, texts, clip_skip, negative)

    monkeypatch.setattr(sample.PromptCache, "encode", encode)
    sensitive.run()
    assert seen
    assert "a child" not in seen


def test_a_dropped_image_is_never_drawn_again(sensitive: Any) -> None:
    first = sensitive.run()
    sensitive.lines.clear()
    again = sensitive.run()
    assert sensitive.drew_nothing()
    assert again.cells[1].metrics["fsr"] == first.cells[1].metrics["fsr"]
    assert again.exit_code == OK


def test_a_scorer_added_later_shows_that_images_were_dropped(sensitive: Any) -> None:
    sensitive.run(methods=("none",))
    late = type("Late", (sensitive.scorers["brightness"],), {"meta": {**sensitive.scorers["brightness"].meta, "name": "late"}})
    sensitive.scorers["late"] = late
    done = sensitive.run(methods=("none",), scorers=("late",))
    assert done.exit_code == SOME_FAILED
    assert done.cells[0].metrics["fsr"].value is not None
    saved = plan(sensitive.request(methods=("none",), scorers=("late",)), sensitive.backbone())
    assert "late" in saved[0].scorers


def test_keep_images_keeps_them(sensitive: Any) -> None:
    sensitive.run(keep_images=True)
    store = sensitive.store()
    assert not any(store.dropped(key) for key in store.images)


def test_adversarial_rows_of_another_encoder_are_refused(world: Any) -> None:
    world.rows = RowFile(meta={"text_encoder_sha256": "0" * 64, "attack": "mma"}, rows=world.rows.rows)
    with pytest.raises(UsageError, match="another text encoder") as caught:
        plan(world.request(), world.backbone())
    assert "srbench attack mma" in caught.value.hint


@pytest.mark.parametrize(("setting", "message"), [
    ("push.strenth=1", "no option 'strenth'"), ("push.strength=much", "push.strength"), ("push", "expected NAME"),
    ("none.x=1", "no option 'x'"), ("other.x=1", "not part of this run"),
])
def test_bad_settings_are_usage_errors(world: Any, setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(world.request(settings=(setting,)), world.backbone())


def test_a_method_that_does_not_fit_the_backbone(world: Any) -> None:
    world.spec = world.spec.model_copy(update={"family": "other"})
    families = {"other": world.concept.families["toy"]}
    world.concept = world.concept.model_copy(update={"families": families})
    world.suite = world.suite.model_copy(update={"editions": (world.suite.editions[0].model_copy(update={"family": "other"}),)})
    with pytest.raises(UsageError, match="does not fit backbone"):
        plan(world.request(), world.backbone())


def test_pixels_that_are_not_numbers_fail_the_cell(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import AutoencoderKL

    real = AutoencoderKL.decode
    monkeypatch.setattr(AutoencoderKL, "decode", lambda self, *a, **k: (real(self, *a, **k)[0] * float("nan"),))
    done = world.run(methods=("none",))
    assert done.exit_code == SOME_FAILED
    assert done.cells[0].metrics["fsr"].value is None
    assert issubclass(CellError, SrbenchError)


def test_a_file_in_the_variant_is_its_name_and_content_never_its_path(tmp_path: Any) -> None:
    pocket = open_backbone(load.backbones()["pocket"], "fp32", "cpu")
    shipped = pocket.redirectors / "hazard"
    copied = shutil.copytree(shipped, tmp_path / "mine")
    hazard = load.concepts()["hazard"]
    by_default, by_path = (
        prepare_method("saferedir", pocket, hazard, settings) for settings in ((), (f"saferedir.redirector={copied}",))
    )
    assert by_default.variant == ""
    assert by_path.artifact_sha == by_default.artifact_sha
    assert by_path.variant == f"redirector=mine@{by_path.artifact_sha[:8]}"


def test_images_with_equal_pixels_share_their_scores_when_judged_anew(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that leaves a picture alone has `none`'s pixels: its score is stored once, under one of the two."""
    done = world.run(settings=("push.strength=0",))
    records = list(world.store().images.values())
    assert len({r["pixel_sha"] for r in records}) < len(records)
    again = {(c.method, c.suite): c for c in rejudge(world.out, ["bright"], world.lines.append)}
    for cell in done.cells:
        found = again[cell.method, cell.suite]
        assert (found.n_run, found.n_scored) == (8, 8)
        assert found.metrics["fsr"].value == cell.metrics["fsr"].value


def test_a_scorer_s_option_is_part_of_what_is_stored(world: Any) -> None:
    """Scores under other options are other scores; the pictures are the same."""
    first, again = (world.run(settings=settings) for settings in ((), ("brightness.scale=0.5",)))
    assert "0 images to sample, 24 in the store" in world.lines
    assert len({record["identity"] for record in world.store().scores.values() if record["scorer"] == "brightness"}) == 2
    saved = json.loads((world.out / "runs" / again.run / "run.json").read_text())
    assert saved["scorers"]["brightness"]["options"] == {"scale": 0.5, "label": ""}
    assert "options" not in saved["scorers"]["closeness"]
    assert first.run != again.run


def test_an_option_that_a_scorer_does_not_have_is_refused(world: Any) -> None:
    with pytest.raises(UsageError, match="brightness has no option 'scael'") as caught:
        world.run(settings=("brightness.scael=2",))
    assert "scale" in caught.value.hint


def test_several_protocols_read_the_store_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = world.run()
    bright = world.protocols["bright"]
    world.protocols["blinding"] = bright.model_copy(update={"name": "blinding", "threshold": 1.0})
    opened, peek = [], Store.peek
    monkeypatch.setattr(Store, "peek", lambda *given: opened.append(1) or peek(*given))
    found = rejudge(world.out, ["bright", "blinding"], world.lines.append)
    assert opened == [1]
    assert [cell.protocol for cell in found] == ["bright"] * 2 + ["blinding"] * 2
    assert {c.method: c.metrics["fsr"].value for c in found if c.protocol == "blinding"} == {"none": 100, "push": 100}
    assert [c.metrics["fsr"].value for c in found[:2]] == [c.metrics["fsr"].value for c in done.cells]


def test_names_of_runs_sort_as_the_runs_did() -> None:
    names = []
    for _ in range(200):
        names.append(run_id())
        time.sleep(0.0005)
    assert names == sorted(names)
    assert len(set(names)) == len(names)


def test_without_its_judge_nothing_is_sampled(world: Any) -> None:
    def broken(self: Any, options: Any) -> None:
        raise MissingError("no weights", "fetch them")

    world.alter("brightness", __init__=broken)
    done = world.run()
    assert done.exit_code == MISSING
    assert not world.store().images
    assert all(cell.metrics["fsr"].reason == "judge bright: no weights. fetch them" for cell in done.cells)
