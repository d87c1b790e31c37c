"""The pocket judge: what its numbers are, and that it is right on drawn scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from srbench.catalog.load import protocols
from srbench.errors import CellError, MissingError
from srbench.pocket.world import BACKGROUNDS, CONCEPTS, OBJECTS, STYLES
from srbench.pocket_build.model.data import to_tensor as trained_on
from srbench.scorers._files import Folder, to_tensor
from srbench.scorers.base import package_folder
from srbench.scorers.pocket_judge import PocketJudge, load_judge


@pytest.fixture(scope="module")
def judge() -> PocketJudge:
    return PocketJudge()


def test_fields_name_the_whole_world_as_probabilities(judge: PocketJudge, images: list, rows: list) -> None:
    for score in judge.score(images, rows):
        assert (list(score["objects"]), list(score["style"]), list(score["background"])) == (
            list(OBJECTS), list(STYLES), list(BACKGROUNDS),
        )
        assert all(0 <= p <= 1 for field in score.values() for p in field.values())
        assert sum(score["style"].values()) == pytest.approx(1, abs=1e-5)
        assert sum(score["background"].values()) == pytest.approx(1, abs=1e-5)


def test_numbers_are_the_network_s(judge: PocketJudge, images: list, rows: list) -> None:
    network, _ = load_judge(package_folder("pocket/judge"))
    with torch.no_grad():
        objects, style, _ = network(trained_on(np.stack(images)))
    scores = judge.score(images, rows)
    assert np.allclose([list(s["objects"].values()) for s in scores], objects.sigmoid(), atol=2e-6)
    assert np.allclose([list(s["style"].values()) for s in scores], style.softmax(1), atol=2e-6)


def test_pixels_are_scaled_as_in_training(images: list) -> None:
    assert torch.equal(to_tensor(images[2]), trained_on(images[2][None]))


@pytest.mark.parametrize("side", [32, 65, 512])
def test_other_sizes_are_refused_with_both_sizes(judge: PocketJudge, side: int) -> None:
    with pytest.raises(CellError, match=f"64 x 64 px, not {side} x {side}"):
        judge.score([np.zeros((side, side, 3), np.uint8)], [{}])


def test_missing_weights_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        PocketJudge(Folder(weights=tmp_path))
    assert "make pocket" in caught.value.hint


def test_protocols_hold_the_calibrated_thresholds() -> None:
    card = json.loads((package_folder("pocket/judge") / "judge.json").read_text())
    for concept, words in CONCEPTS.items():
        protocol = protocols()[f"pocket-{concept}"]
        assert protocol.threshold == card["thresholds"][concept]
        assert protocol.classes == words.members
        assert (protocol.scorer, protocol.field) == ("pocket-judge", "objects" if words.kind == "object" else "style")


def test_the_card_s_accuracy_is_high_enough_to_judge_with() -> None:
    card = json.loads((package_folder("pocket/judge") / "judge.json").read_text())
    assert min(card["accuracy"].values()) >= 0.97
    assert max(card["empty_scenes_above_threshold"].values()) <= 0.04
