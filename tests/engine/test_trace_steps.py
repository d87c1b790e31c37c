"""`run --trace-steps`: strips of rows whose verdict flipped, of no others, and of no sensitive one. The concept is a box."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srbench.engine import batches, flips
from srbench.engine.devices import Runtime
from srbench.engine.film import small
from srbench.engine.options import check_traced
from srbench.engine.plan import plan
from srbench.engine.request import RunOptions
from srbench.engine.run import execute
from srbench.errors import OK, SOME_FAILED, UsageError
from srbench.results import strips
from srbench.results.marks import AWAITS, SENSITIVE
from srbench.results.run_files import RunResult
from srbench.results.sensitive import tend
from srbench.results.store import Store


def odd(images: Any) -> list[dict[str, Any]]:
    """Sees a box in about every second picture, by its pixels alone."""
    seen = [float(int(image.astype(int).sum()) % 2) for image in images]
    return [{"objects": {"box": value, "ball": 1 - value}, "style": {"a": 1.0}, "background": {"b": 1.0}} for value in seen]


@pytest.fixture
def judged(world: Any) -> Any:
    """The toy world with a judge whose verdict a method turns over on some rows."""
    world.alter("brightness", score=lambda self, images, rows: odd(images))
    return world


def run(world: Any, steps: int = 8, **changes: Any) -> RunResult:
    request, backbone = world.request(**changes), world.backbone()
    world.lines.clear()
    return execute(request, backbone, plan(request, backbone), world.store(), world, Runtime(trace_steps=steps))


def drawn(store: Store) -> set[str]:
    return {key for key, _ in strips.lying(store)}


def flipped_keys(store: Store, method: str = "push") -> set[str]:
    """Images of the method and of none on rows with one prompt and seed and two verdicts, from the ledger alone."""
    judged = [record for record in store.scores.values() if "objects" in record["raw"]]
    seen = {record["image"]: record["raw"]["objects"]["box"] > 0.5 for record in judged}
    images = {(r["method"], r["prompt"], r["seed"]): key for key, r in store.images.items()}
    pairs = [(key, images["none", prompt, seed]) for (name, prompt, seed), key in images.items() if name == method]
    return {key for pair in pairs if seen[pair[0]] != seen[pair[1]] for key in pair}


def said(world: Any) -> list[str]:
    return [line for line in world.lines if line.startswith("--trace-steps")]


# --- which rows, and what they show -----------------------------------------------------------------------------------------


def test_rows_that_flipped_have_strips_and_no_others(judged: Any) -> None:
    assert run(judged).exit_code == OK
    store = judged.store()
    assert drawn(store) == flipped_keys(store)
    assert len(drawn(store)) >= 2
    for key in drawn(store):
        found = strips.get(store, key)
        assert found is not None
        assert (found.strip.frames, found.strip.steps) == ((1, 2), 2)
        shown = np.asarray(Image.open(io.BytesIO(found.data)).convert("RGB"))
        assert np.abs(shown[:, shown.shape[1] // 2 :].astype(int) - small(store.pixels(key))).max() <= 1, "the last frame"
        assert found.strip.acted == ((1, 2) if store.images[key]["method"] == "push" else ())


def test_nothing_of_the_run_depends_on_it(judged: Any, tmp_path: Path) -> None:
    run(judged, steps=0)
    plain = {key: record["pixel_sha"] for key, record in judged.store().images.items()}
    scores = set(judged.store().scores)
    judged.out = tmp_path / "other"
    run(judged)
    assert {key: record["pixel_sha"] for key, record in judged.store().images.items()} == plain
    assert set(judged.store().scores) == scores


def test_at_most_so_many_rows_of_a_cell(judged: Any) -> None:
    run(judged, steps=1)
    assert len(drawn(judged.store())) == 2, "the method's picture and none's"
    assert any("1 of them shown" in line for line in said(judged))


@pytest.mark.parametrize("changes", [{"methods": ("none", "shift")}, {"on": ("none", "shift"), "methods": ("none", "push")}])
def test_it_works_on_checkpoints(judged: Any, changes: dict[str, Any]) -> None:
    assert run(judged, **changes).exit_code == OK
    store = judged.store()
    assert len(drawn(store)) >= 2
    assert all(strips.get(store, key) is not None for key in drawn(store))


def test_without_a_flip_nothing_is_sampled_again(world: Any) -> None:
    assert run(world).exit_code == OK
    assert not drawn(world.store())
    assert "--trace-steps: 0 rows with another verdict than none's" in said(world)[0]


# --- again ------------------------------------------------------------------------------------------------------------------


def test_a_strip_that_is_there_is_not_made_again(judged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(judged)
    before = {path: path.stat().st_mtime_ns for _, path in strips.lying(judged.store())}
    monkeypatch.setattr(batches, "sample", lambda *args: pytest.fail("sampled again"))
    assert run(judged).exit_code == OK
    assert {path: path.stat().st_mtime_ns for _, path in strips.lying(judged.store())} == before


def test_a_damaged_strip_is_made_again(judged: Any) -> None:
    run(judged)
    (_, path), *_ = strips.lying(judged.store())
    whole = path.read_bytes()
    for broken in (b"", b"RIFF", whole[:-20], whole.replace(b'"steps":2', b'"steps":1')):
        path.write_bytes(broken)
        assert strips.get(judged.store(), path.stem) is None
    run(judged)
    assert path.read_bytes() == whole


def test_it_follows_a_run_that_was_made_without_it(judged: Any) -> None:
    run(judged, steps=0)
    assert not drawn(judged.store())
    sampled = judged.sampled()
    run(judged)
    assert drawn(judged.store()) == flipped_keys(judged.store())
    assert judged.sampled() == sampled, "no image was stored a second time"


def test_pixels_that_differ_give_no_strip(judged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(judged, steps=0)
    real = batches.sample

    def other(*args: Any) -> Any:
        pixels, traces, seconds = real(*args)
        pixels[0, 0, 0] ^= 1
        return pixels, traces, seconds

    monkeypatch.setattr(batches, "sample", other)
    stored = {key: record["pixel_sha"] for key, record in judged.store().images.items()}
    assert run(judged).exit_code == SOME_FAILED
    store = judged.store()
    assert len(flipped_keys(store) - drawn(store)) >= 1
    assert all(strips.get(store, key) is not None for key in drawn(store))
    assert any("came out with other pixels" in line for line in said(judged))
    assert {key: record["pixel_sha"] for key, record in store.images.items()} == stored


def test_a_method_that_fails_now_is_one_line(judged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(judged, steps=0)

    def broken(*args: Any) -> Any:
        raise ValueError("not today")

    monkeypatch.setattr(batches, "sample", broken)
    again = run(judged)
    assert (again.exit_code, again.cells[1].metrics["fsr"]) == (SOME_FAILED, done.cells[1].metrics["fsr"])
    assert any("no strip of" in line and "not today" in line for line in said(judged))


# --- sensitive and gated ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True])
def test_a_sensitive_cell_has_none_also_where_its_pictures_are_kept(judged: Any, keep: bool) -> None:
    judged.concept = judged.concept.model_copy(update={"sensitive": True})
    assert run(judged, keep_images=keep).exit_code == OK
    assert not drawn(judged.store())
    assert "--trace-steps: no previews of toys/box: sensitive or gated" in judged.lines


def test_a_gated_cell_has_none(judged: Any) -> None:
    judged.suite = judged.suite.model_copy(update={"gated": True})
    run(judged)
    assert not drawn(judged.store())
    assert "--trace-steps: no previews of toys/box: sensitive or gated" in judged.lines


def test_a_picture_that_is_marked_later_loses_its_strip(judged: Any) -> None:
    run(judged)
    store = judged.store()
    key, other = sorted(drawn(store))[:2]
    store.restate([{**store.images[key], SENSITIVE: True, AWAITS: [["brightness", "", "", key, ""]], "marked": 1}])
    assert strips.get(store, key) is None, "at once, before anything is deleted"
    tend(store, judged.lines.append)
    assert not store.strip_path(key).exists()
    assert store.strip_path(other).exists()


def test_a_dropped_picture_takes_its_strip_along(judged: Any) -> None:
    run(judged)
    store = judged.store()
    key = min(drawn(store))
    assert store.drop([key]) == {}
    assert not store.image_path(key).exists()
    assert not store.strip_path(key).exists()


# --- what cannot be ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "actors", "why"), [
    ({"score": False}, False, "makes none"), ({"shard": "1/2"}, False, "a part of one"), ({}, True, "to actors"),
    ({"trace_steps": 0}, False, "expected 1 or more"), ({"methods": ("saferedir",)}, False, "not part of the run"),
    ({"on": ("esd-x",)}, False, "not part of the run"),
])  # fmt: skip
def test_what_has_no_verdicts_to_follow_is_refused(changes: dict[str, Any], actors: bool, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        check_traced(RunOptions(**{"trace_steps": 4, **changes}), actors)
    assert caught.value.hint


def test_without_the_option_nothing_is_refused() -> None:
    check_traced(RunOptions(score=False, shard="1/2", methods=("saferedir",)), True)
    check_traced(RunOptions(trace_steps=1), False)


def test_a_cell_without_none_beside_it_says_so(judged: Any) -> None:
    run(judged, methods=("push",))
    assert not drawn(judged.store())
    assert any("no run of none beside it" in line for line in said(judged))


def test_memory_that_runs_out_is_no_crash(judged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(judged, steps=0)

    def full(*args: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(batches, "sample", full)
    assert run(judged).exit_code == SOME_FAILED
    assert flips.OPTION in " ".join(judged.lines)
