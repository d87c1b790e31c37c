"""Scorers that compare: pairs of an image and its reference image, and sets of images by a vector each."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from srbench.errors import OK, SOME_FAILED
from srbench.results.store import Store
from srbench.results.stored import rejudge
from tests.worlds import Cloud, Gap

FORGET = 4
"""Forget rows with a reference in the toy suite."""


pytestmark = pytest.mark.usefixtures("compared")


def pictures(world: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """The forget rows' images and references under `push`, from the store."""
    (path,) = world.out.glob("runs/*/run.json")
    (cell,) = [c for c in json.loads(path.read_text())["cells"] if c["result"]["method"] == "push"]
    store = world.store()
    return [(store.pixels(row["image"]), store.pixels(row["reference"])) for row in cell["rows"] if "reference" in row]


def test_pairs_are_images_with_their_own_references(world: Any) -> None:
    done = world.run(scorers=("gap",))
    assert done.exit_code == OK
    gaps = [float(np.abs(a.astype(float) - b).mean()) for a, b in pictures(world)]
    assert len(gaps) == FORGET
    found = done.cells[1].metrics["gap"]
    assert found.value == pytest.approx(np.mean(gaps))
    assert (found.better, found.n, found.scored) == ("lower", FORGET, FORGET)
    assert Gap.calls == 2 * FORGET  # of both methods; no retain row, no floor image, no reference with itself


def test_a_set_is_compared_as_a_whole(world: Any) -> None:
    done = world.run(scorers=("cloud",))
    ours, theirs = (np.mean([p.mean((0, 1)) for p in side], 0) for side in zip(*pictures(world), strict=True))
    found = done.cells[1].metrics["cloud"]
    assert found.value == pytest.approx(float(np.linalg.norm(ours - theirs)), rel=1e-5)
    assert (found.low, found.high, found.n, found.scored) == (None, None, FORGET, FORGET)


def test_the_same_command_again_compares_nothing(world: Any) -> None:
    first = world.run(scorers=("gap", "cloud"))
    counted = Gap.calls, Cloud.calls
    again = world.run(scorers=("gap", "cloud"))
    assert (Gap.calls, Cloud.calls) == counted
    assert [c.metrics["gap"] for c in again.cells] == [c.metrics["gap"] for c in first.cells]
    assert [c.metrics["cloud"] for c in again.cells] == [c.metrics["cloud"] for c in first.cells]


def test_judging_anew_reads_comparisons_from_the_store(world: Any) -> None:
    done = world.run(scorers=("gap", "cloud"))
    counted = Gap.calls, Cloud.calls
    again = {cell.method: cell for cell in rejudge(world.out, ["bright"], world.lines.append)}
    assert (Gap.calls, Cloud.calls) == counted
    for cell in done.cells:
        for metric in ("gap", "cloud", "fsr"):
            assert again[cell.method].metrics[metric].value == cell.metrics[metric].value


def test_a_pair_s_score_is_of_its_reference(world: Any) -> None:
    """The same picture beside another reference is another score."""
    world.run(scorers=("gap",))
    store = world.store()
    records = [record for record in store.scores.values() if record["scorer"] == "gap"]
    assert all(record["reference"] in store.images for record in records)
    assert len({record["score_key"] for record in records}) == len({(r["image"], r["reference"]) for r in records})


def test_a_broken_comparison_costs_its_own_number_only(world: Any) -> None:
    Gap.broken = True
    done = world.run(scorers=("gap",))
    assert done.exit_code == SOME_FAILED
    found = done.cells[1].metrics
    assert (found["gap"].value, found["gap"].reason) == (None, "gap failed on the image: broken")
    assert found["fsr"].value is not None


def test_features_that_are_no_numbers_are_refused(world: Any) -> None:
    Cloud.spoilt = True
    done = world.run(scorers=("cloud",))
    assert done.exit_code == SOME_FAILED
    assert done.cells[1].metrics["cloud"].value is None
    assert "not finite" in done.cells[1].metrics["cloud"].reason
    assert not list((world.out / "store" / "features").rglob("*.npy"))


def test_a_set_too_small_to_say_anything_says_so(world: Any) -> None:
    found = world.run(scorers=("cloud",), limit=1).cells[1].metrics["cloud"]
    assert (found.value, found.reason) == (None, "one image is no set")


def test_a_damaged_vector_is_made_again(world: Any) -> None:
    first = world.run(scorers=("cloud",))
    files = sorted((world.out / "store" / "features").rglob("*.npy"))
    files[0].write_bytes(files[0].read_bytes()[:-3])
    files[1].write_bytes(b"")
    counted = Cloud.calls
    again = world.run(scorers=("cloud",))
    assert Cloud.calls == counted + 2
    assert [c.metrics["cloud"].value for c in again.cells] == [c.metrics["cloud"].value for c in first.cells]


def test_a_pickle_is_no_vector(world: Any) -> None:
    store = Store(world.out / "store", world.lines.append)
    path = store.feature_path("a" * 64, "b" * 64)
    path.parent.mkdir(parents=True)
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    assert store.feature("a" * 64, "b" * 64) is None
