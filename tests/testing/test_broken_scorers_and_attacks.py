"""Scorers and attacks that are broken in one way each: the battery names the check that it fails, and how to mend it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field

from srbench.attacks import base as attacks
from srbench.scorers import base as scorers
from srbench.testing import check_attack, check_scorer

SCORER: dict[str, Any] = {
    "name": "mine", "version": 1, "title": "for tests", "fields": ["red"],
    "metrics": {"redness": {"field": "red", "better": "lower"}},
}  # fmt: skip


class Whole:
    """Nothing is broken; the others are made of it."""

    meta = SCORER
    Options = scorers.Options

    def __init__(self, options: Any) -> None:
        """Has nothing to load."""

    def identity(self) -> dict[str, Any]:
        return {"library": "numpy", "library_version": np.__version__}

    def score(self, images: Any, rows: Any) -> list[dict[str, Any]]:
        checked = [scorers.check_rgb(image, "mine") for image, _ in zip(images, rows, strict=True)]
        return [{"red": self.number(image, checked)} for image in checked]

    def number(self, image: Any, images: Any) -> Any:
        return float(image[..., 0].mean())


class NeedsAnOption(Whole):
    class Options(scorers.Options):
        scale: float


class OtherMetadata(Whole):
    def __init__(self, options: Any) -> None:
        self.meta = {**SCORER, "version": 2}


class WrongField(Whole):
    def score(self, images: Any, rows: Any) -> list[dict[str, Any]]:
        return [{"read": each["red"]} for each in super().score(images, rows)]


class OneTooFew(Whole):
    def score(self, images: Any, rows: Any) -> list[dict[str, Any]]:
        return super().score(images, rows)[1:]


class FirstIsSpecial(Whole):
    def number(self, image: Any, images: Any) -> Any:
        return float(image.mean() + images[0].mean())


class MeanOfTheBatch(Whole):
    def number(self, image: Any, images: Any) -> Any:
        return float(image.mean() / max(each.mean() for each in images))


class TakesAllThreads(Whole):
    def number(self, image: Any, images: Any) -> Any:
        torch.set_num_threads(1)
        return super().number(image, images)


class NoSeed(Whole):
    def __init__(self, options: Any) -> None:
        self.weight = np.random.rand()  # noqa: NPY002 - which is what is wrong with it

    def number(self, image: Any, images: Any) -> Any:
        return self.weight * super().number(image, images)


class NotANumber(Whole):
    def number(self, image: Any, images: Any) -> Any:
        with np.errstate(all="ignore"):
            return float(np.float64(image.min()) / np.float64(image.min())) if image.min() == 0 else 1.0


class OfNumpy(Whole):
    def number(self, image: Any, images: Any) -> Any:
        return np.float32(image.mean())


class ChangesPixels(Whole):
    def number(self, image: Any, images: Any) -> Any:
        number = super().number(image, images)
        image |= 1
        return number


class ReadsMemory(Whole):
    """As it lies there, whatever its strides."""

    def number(self, image: Any, images: Any) -> Any:
        return 0.0 if not image.flags.c_contiguous else super().number(image, images)


class TakesAnything(Whole):
    def score(self, images: Any, rows: Any) -> list[dict[str, Any]]:
        return [{"red": float(np.asarray(image, np.float32).sum() if not isinstance(image, str) else 0)}
                for image, _ in zip(images, rows, strict=True)]


class NotStrict(Whole):
    def score(self, images: Any, rows: Any) -> list[dict[str, Any]]:
        return [{"red": float(scorers.check_rgb(image, "mine").mean())} for image, _ in zip(images, rows, strict=False)]


class NoVersion(Whole):
    def identity(self) -> dict[str, Any]:
        return {"library": "numpy"}


class HidesItsWeights(Whole):
    class Options(scorers.Options):
        weights: Path | None = Field(None, exclude=True)


class AnotherEachTime(Whole):
    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "at": random.random()}


class Pairs(Whole):
    meta = {**SCORER, "kind": "pair"}  # noqa: RUF012 - a literal

    def score(self, images: Any, references: Any, rows: Any) -> list[dict[str, Any]]:  # type: ignore[override]  # of pairs
        both = [(scorers.check_rgb(a, "mine"), b) for a, b, _ in zip(images, references, rows, strict=True)]
        return [{"red": float(abs(a.mean() - b.mean()))} for a, b in both]


class Sets(Whole):
    meta = {**SCORER, "kind": "set"}  # noqa: RUF012 - a literal

    def features(self, images: Any) -> np.ndarray:
        return np.array([scorers.check_rgb(image, "mine").mean((0, 1)) for image in images], np.float32).reshape(-1, 3)

    @staticmethod
    def reduce(images: Any, references: Any) -> dict[str, float]:
        return {"distance": 0.0}


BROKEN: dict[type, str] = {
    OtherMetadata: "its_class_carries_its_metadata: its class carries other metadata than its file declares",
    WrongField: "one_result_with_the_declared_fields_per_image: a result has the fields .'read'., and SCORER declares .'red'.",
    OneTooFew: "one_result_with_the_declared_fields_per_image: it gives 3 results for 4 images",
    FirstIsSpecial: "order_does_not_matter: an image's numbers depend on its place",
    MeanOfTheBatch: "company_does_not_matter: an image has other numbers alone",
    TakesAllThreads: "the_number_of_threads_does_not_matter: it changes torch's number of threads",
    NoSeed: "a_second_scorer_gives_the_same: opened again it gives other numbers: it draws random numbers without a seed",
    NotANumber: "numbers_are_finite_and_survive_json: it gives a number that is not finite",
    OfNumpy: "numbers_are_finite_and_survive_json: its numbers are not JSON",
    ChangesPixels: "pictures_are_not_changed: it changes the pictures",
    ReadsMemory: "a_read_only_or_strided_picture_scores_the_same: a strided picture gets other numbers",
    TakesAnything: "what_is_no_rgb_picture_is_refused: it gives numbers for a picture without channels",
    NotStrict: "rows_must_match_images: it takes two images with one row",
    NoVersion: "identity_is_complete: its identity does not say library_version",
    HidesItsWeights: "identity_is_complete: its identity does not say what is in 'weights'",
    AnotherEachTime: "identity_is_complete: its identity is another one each time",
    Pairs: "a_pair_of_two_sizes_is_refused: it compares pictures of two sizes",
    Sets: "a_set_has_vectors_and_what_the_metrics_read: `reduce` does not give 'red', which a metric reads",
}


@pytest.mark.parametrize("scorer", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_scorer_is_caught_by_name(scorer: type) -> None:
    before = torch.get_num_threads()
    with pytest.raises(AssertionError, match=f"^mine, {BROKEN[scorer]}"):
        check_scorer(scorer)
    assert torch.get_num_threads() == before


def test_a_whole_scorer_passes() -> None:
    check_scorer(Whole)


@pytest.mark.parametrize(("scorer", "said"), [
    (NeedsAnOption, r"attacks.py, line \d+: option 'scale' of 'mine' has no default. Give every option"),
    (type("Loose", (Whole,), {"Options": type("Options", (), {})}), "Options of 'mine' does not derive from base.Options"),
])  # fmt: skip
def test_a_scorer_with_wrong_options_is_refused(scorer: type, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_scorer(scorer)


# --- attacks ----------------------------------------------------------------------------------------------------------

ATTACK: dict[str, Any] = {
    "name": "mine", "version": 1, "title": "for tests", "needs": "text_encoder", "output": "prompt", "objective": "a number",
    "better": "higher",
}  # fmt: skip


class Shouts:
    """Nothing is broken; the others are made of it."""

    meta = ATTACK

    class Settings(attacks.Settings):
        seed: int = 0
        parallel: int = 16

    @classmethod
    def attack(cls, victim: Any, targets: Any, settings: Any, progress: Any = None, first: int = 0) -> Iterator[Any]:
        for number, row in enumerate(targets):
            yield cls.found(attacks.wanted(row), attacks.seed_of(settings.seed, first + number), number, victim)
            if progress is not None:
                progress(number + 1, len(targets))

    @staticmethod
    def found(target: str, seed: int, number: int, victim: Any) -> Any:
        return attacks.Adversarial(target, target.upper(), 1.0, seed, 1.0, (0.0, 1.0))


class NoParallel(Shouts):
    class Settings(attacks.Settings):
        seed: int = 0


class HasATuple(Shouts):
    class Settings(Shouts.Settings):
        sizes: Any = (1, 2)


class LeavesOneOut(Shouts):
    @classmethod
    def attack(cls, victim: Any, targets: Any, settings: Any, progress: Any = None, first: int = 0) -> Iterator[Any]:
        yield from list(super().attack(victim, targets, settings, progress, first))[1:]


class NaN(Shouts):
    @staticmethod
    def found(target: str, seed: int, number: int, victim: Any) -> Any:
        return attacks.Adversarial(target, target.upper(), 1.0, seed)


class IgnoresTheHiddenTarget(Shouts):
    @classmethod
    def attack(cls, victim: Any, targets: Any, settings: Any, progress: Any = None, first: int = 0) -> Iterator[Any]:
        rows = [row.model_copy(update={"target": row.prompt}) for row in targets]
        return super().attack(victim, rows, settings, progress, first)


class GetsWorse(Shouts):
    @staticmethod
    def found(target: str, seed: int, number: int, victim: Any) -> Any:
        return attacks.Adversarial(target, target.upper(), 1.0, seed, 1.0, (2.0, 1.0))


class Unseeded(Shouts):
    @staticmethod
    def found(target: str, seed: int, number: int, victim: Any) -> Any:
        return attacks.Adversarial(target, random.choice("xyzw") + str(random.random()), 1.0, seed, 1.0, (0.0, 1.0))


class IgnoresTheSeed(Shouts):
    @staticmethod
    def found(target: str, seed: int, number: int, victim: Any) -> Any:
        return attacks.Adversarial(target, target, 1.0, number, 1.0, (0.0, 1.0))


class CountsFromZero(Shouts):
    @staticmethod
    def found(target: str, seed: int, number: int, victim: Any) -> Any:
        return attacks.Adversarial(target, f"{target} {number}", 1.0, seed, 1.0, (0.0, 1.0))


class SaysWhatIsBanned(Shouts):
    @staticmethod
    def found(target: str, seed: int, number: int, victim: Any) -> Any:
        return attacks.Adversarial(target, f"{target} xqx", 1.0, seed, 1.0, (0.0, 1.0))


class LeavesAHook(Shouts):
    @staticmethod
    def found(target: str, seed: int, number: int, victim: Any) -> Any:
        victim.pipeline.text_encoder.register_forward_hook(lambda *_: None)
        return Shouts.found(target, seed, number, victim)


class Silent(Shouts):
    @classmethod
    def attack(cls, victim: Any, targets: Any, settings: Any, progress: Any = None, first: int = 0) -> Iterator[Any]:
        return super().attack(victim, targets, settings, None, first)


BROKEN_ATTACKS: dict[type, str] = {
    HasATuple: "settings_survive_json: its settings are others when they are read from JSON",
    LeavesOneOut: "one_result_per_target_in_order: it finds 2 results for 3 targets",
    NaN: "one_result_per_target_in_order: a similarity, objective or history is not a finite number",
    IgnoresTheHiddenTarget: "a_hidden_target_counts_before_the_prompt: it attacks the prompt of a row that has a hidden target",
    GetsWorse: "the_history_never_gets_worse: the best objective gets worse on the way, where higher is better",
    Unseeded: "the_same_seed_gives_the_same: it finds something else each time: it draws random numbers without a seed",
    IgnoresTheSeed: "the_same_seed_gives_the_same: tokens_seed does not depend on the seed",
    CountsFromZero: "a_group_can_be_searched_alone: a search that goes on at its second group finds something else",
    SaysWhatIsBanned: "nothing_banned_is_added: it adds a banned word .'a q b xqx'",
    LeavesAHook: "the_victim_is_left_as_it_was: it leaves the pipeline changed .hooks and modes of text_encoder.",
    Silent: "progress_counts_to_its_end: it says nothing of its progress",
}


@pytest.mark.parametrize("attack", BROKEN_ATTACKS, ids=lambda cls: cls.__name__)
def test_a_broken_attack_is_caught_by_name(attack: type) -> None:
    with pytest.raises(AssertionError, match=f"^mine, {BROKEN_ATTACKS[attack]}"):
        check_attack(attack)


def test_an_attack_without_its_settings_is_refused() -> None:
    with pytest.raises(AssertionError, match="Settings of 'mine' has no `parallel`"):
        check_attack(NoParallel)


def test_a_whole_attack_passes() -> None:
    check_attack(Shouts)


def test_every_check_is_failed_by_somebody() -> None:
    from srbench.testing import attacks as of_attacks
    from srbench.testing import scorers as of_scorers

    for every, broken in ((of_scorers.CHECKS, BROKEN), (of_attacks.CHECKS, BROKEN_ATTACKS)):
        caught = " ".join(broken.values())
        assert [check.__name__ for check in every if check.__name__ not in caught] == []
