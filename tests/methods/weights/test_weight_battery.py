"""The battery of `srbench.testing` over every weight method that srbench brings, and what only these promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from srbench.catalog import plugins
from srbench.catalog.specs import ConceptSpec
from srbench.engine.sample import PromptCache
from srbench.errors import UsageError
from srbench.methods.base import BackboneInfo, quiet
from srbench.testing import checks
from srbench.testing.bench import Bench
from srbench.testing.weights import CHECKS, WeightCase

QUICK = {
    "iterations": 3, "steps": 3, "images": 4, "batch": 2, "epochs": 2, "contexts": "{}", "warmup": 0, "judged": False,
    "attack_steps": 2, "retain_batch": 2, "rounds": 2, "search_iterations": 2, "sentence": "a",
    "inversion_iterations": 2, "first_steps": 2,
}  # fmt: skip
"""Taken where a method has such an option."""
PRESETS = [
    name for name, (method, _) in plugins.presets().items() if plugins.plugins("methods")[method].meta["kind"] == "weight"
]
every_preset = pytest.mark.parametrize("preset", PRESETS)
Make = Callable[[str], WeightCase]


@pytest.fixture
def case(toy: Any, box: ConceptSpec) -> Make:
    """A preset, made quick, on the tiny pipeline, some of whose weights ask for gradients."""

    def make(preset: str) -> WeightCase:
        cls, meta = checks.plugin_of("methods", preset)
        return WeightCase(cls, meta, preset, QUICK, Bench("tiny", toy, PromptCache(toy), box), meta["presets"][preset])

    return make


def test_the_projects_presets_are_here() -> None:
    assert set(PRESETS) >= {
        "esd-x", "esd-u", "esd-x-strict", "esd-x-old", "esd-u-old", "uce", "uce-old", "rece", "ablation", "conceptprune",
        "spm-fused", "duo", "duo-all", "mace", "mace-upstream", "advunlearn", "fmn", "fmn-ti", "doco",
        "speed", "salun", "salun-nudity", "race", "race-u", "stereo",
    }


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@every_preset
def test_battery(case: Make, preset: str, check: checks.Check[WeightCase]) -> None:
    checks.run([check], case(preset))


@every_preset
def test_card_says_what_was_erased(case: Make, preset: str) -> None:
    card = case(preset).erase().card
    assert card["phrases"]
    assert card["names"] == len(card["phrases"])
    assert card["changed_tensors"] > 0
    curve = card.get("loss_curve")
    assert curve is None or curve[-1][0] == QUICK["iterations"]


@every_preset
def test_family_without_words_is_refused(case: Make, preset: str) -> None:
    made = case(preset)
    with made.based() as info, pytest.raises(UsageError, match="no words for other"):
        made.cls.erase(replace(info, family="other"), made.bench.concept, made.options(made.cls, made.preset_options), quiet)


@every_preset
def test_backbone_without_a_unet_is_refused(case: Make, preset: str, on_toy: BackboneInfo) -> None:
    class Transformer:
        """A pipeline of another kind."""

    made = case(preset)
    options = made.options(made.cls, made.preset_options)
    with pytest.raises(UsageError, match="knows U-Nets only"):
        made.cls.erase(replace(on_toy, pipeline=Transformer()), made.bench.concept, options, quiet)
