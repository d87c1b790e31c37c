"""Methods that are broken in one way each: the battery names the check that it fails, and how to mend it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import srbench
from srbench.catalog import plugins
from srbench.methods import base
from srbench.testing import check_method, check_weight_method

META: dict[str, Any] = {"name": "mine", "version": 1, "kind": "inference", "title": "for tests", "reads_concept": False}
WEIGHT: dict[str, Any] = {**META, "kind": "weight", "families": ["sd"]}


class Applied(base.Applied):
    """Scales the text's embeddings by what the method's class says."""

    def __init__(self, method: Any, call: base.Call, concept: Any = None) -> None:
        self.method, self.call, self.concept = method, call, concept

    def prompts(self, positive: Any, negative: Any) -> Any:
        return self.method.scaled(positive, self), negative


class Whole:
    """Nothing is broken; the others are made of it."""

    meta = META

    class Options(base.Options):
        factor: float = 0.5

    @staticmethod
    def prepare(backbone: Any, concept: Any, options: Any) -> base.Artifact | None:
        return None

    @classmethod
    @contextmanager
    def applied(cls, pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        yield Applied(cls, call, artifact)

    @staticmethod
    def scaled(positive: Any, applied: Applied) -> Any:
        return 0.5 * positive


class LeavesAHook(Whole):
    @classmethod
    @contextmanager
    def applied(cls, pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        pipeline.unet.conv_in.register_forward_hook(lambda module, args, output: 0.5 * output)
        yield Applied(cls, call)


class LeavesAHookAfterAnError(Whole):
    @classmethod
    @contextmanager
    def applied(cls, pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        handle = pipeline.unet.conv_in.register_forward_hook(lambda module, args, output: 0.5 * output)
        applied = Applied(cls, call)
        applied.hooked, applied.calls = True, 99
        yield applied
        handle.remove()


class HidesItsHook(Whole):
    @classmethod
    @contextmanager
    def applied(cls, pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        with base.hooks(pipeline.unet.conv_in.register_forward_hook(lambda module, args, output: 0.5 * output)):
            yield Applied(cls, call)


class SwallowsAnInterrupt(Whole):
    @classmethod
    @contextmanager
    def applied(cls, pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        try:
            yield Applied(cls, call)
        except BaseException:  # noqa: BLE001 - which is what is wrong with it
            return


class ChangesWeights(Whole):
    @classmethod
    @contextmanager
    def applied(cls, pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        pipeline.unet.conv_in.bias.data += 1e-3
        yield Applied(cls, call)


class DoesNothing(Whole):
    @staticmethod
    def scaled(positive: Any, applied: Applied) -> Any:
        return positive


class DependsOnTheBatch(Whole):
    @staticmethod
    def scaled(positive: Any, applied: Applied) -> Any:
        return 0.5 * positive + positive.mean(0, keepdim=True)


class DependsOnTheBatchSize(Whole):
    @staticmethod
    def scaled(positive: Any, applied: Applied) -> Any:
        return positive * 0.5**applied.call.images


class Remembers(Whole):
    drawn = 0

    @staticmethod
    def scaled(positive: Any, applied: Applied) -> Any:
        Remembers.drawn += applied.call.images == 2
        return positive * (0.5 if Remembers.drawn % 2 else 0.2)


class DrawsWithoutASeed(Whole):
    """The same within a call, since it draws one number for all; the numbers are such that both show."""

    drawn = itertools.cycle((0.0, 0.5))

    @classmethod
    def prepare(cls, backbone: Any, concept: Any, options: Any) -> base.Artifact | None:
        return base.Artifact(next(cls.drawn), "0" * 64)

    @staticmethod
    def scaled(positive: Any, applied: Applied) -> Any:
        return applied.concept.payload * positive


class AnotherSha(DrawsWithoutASeed):
    @staticmethod
    def prepare(backbone: Any, concept: Any, options: Any) -> base.Artifact | None:
        return base.Artifact(0.5, f"{random.getrandbits(256):064x}")


class NoSha(DrawsWithoutASeed):
    @staticmethod
    def prepare(backbone: Any, concept: Any, options: Any) -> base.Artifact | None:
        return base.Artifact(0.5, "")


class ReadsTheConceptInSecret(DrawsWithoutASeed):
    @staticmethod
    def prepare(backbone: Any, concept: Any, options: Any) -> base.Artifact | None:
        return base.Artifact(0.5 if "box" in concept.name else 0.2, "0" * 64)


class DecidesWithoutSaying(Whole):
    meta = {**META, "decides": True}  # noqa: RUF012 - the contract's literal


class NeedsAnOption(Whole):
    class Options(base.Options):
        factor: float


class HasATuple(Whole):
    class Options(base.Options):
        factors: Any = (1, 2)


class RefusesWithoutAWord(Whole):
    @classmethod
    @contextmanager
    def applied(cls, pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        if not call.guided:
            raise srbench.errors.CellError("no", "")
        yield Applied(cls, call)


BROKEN: dict[type, str] = {
    HasATuple: "options_survive_json: its options are others when they are read from JSON",
    LeavesAHook: "acts_and_leaves_nothing: mine: it left something behind on the pipeline .a hook on unet.conv_in",
    ChangesWeights: "acts_and_leaves_nothing: mine: it changed the model's weights",
    DoesNothing: r"acts_and_leaves_nothing: it changes no image .guidance 5.\. Let `applied` act",
    LeavesAHookAfterAnError: "leaves_nothing_after_an_error: mine: it left something behind",
    HidesItsHook: "leaves_nothing_after_an_error: it has hooks on the pipeline, and `hooked` is False",
    SwallowsAnInterrupt: "leaves_nothing_after_an_error: it swallows an interrupt",
    DependsOnTheBatch: "company_changes_no_bit: an image depends on the others of its batch",
    DependsOnTheBatchSize: "batch_size_changes_one_level_at_most: an image drawn alone differs by",
    Remembers: "no_state_survives: an image depends on what was drawn before it",
    DrawsWithoutASeed: "the_same_bits_whatever_else_is_drawn: it gives another image each time: it draws random numbers",
    RefusesWithoutAWord: "guidance_one_draws_or_is_refused: at guidance 1 it fails .no.",
    DecidesWithoutSaying: "trace_is_json_for_each_image: it decides, and its trace has no `redirected_steps`",
    AnotherSha: "artifact_is_the_same_twice: `prepare` gives another sha256 each time",
    NoSha: "artifact_is_the_same_twice: the artifact's sha256 is no sha256",
    ReadsTheConceptInSecret: r'what_it_reads_is_in_the_key: \S*test_broken_methods, line \d+: it reads the concept, and METHOD',
}


@pytest.mark.parametrize("method", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_method_is_caught_by_name(method: type) -> None:
    with pytest.raises(AssertionError, match=f"^mine on sd, {BROKEN[method]}"):
        check_method(method, families=["sd"])


def test_every_check_is_failed_by_somebody() -> None:
    from srbench.testing import methods, weights

    caught = " ".join(BROKEN.values())
    assert [check.__name__ for check in methods.CHECKS if check.__name__ not in caught] == []
    caught = " ".join(BROKEN_WEIGHTS.values())
    assert [check.__name__ for check in weights.CHECKS if check.__name__ not in caught] == []


def test_a_whole_method_passes_on_every_family() -> None:
    check_method(Whole)


def test_a_method_of_this_process_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    srbench.method({**META, "name": "of-a-cell"})(type("OfACell", (Whole,), {}))
    try:
        check_method("of-a-cell", families=["sd"])
    finally:
        plugins._SESSION["methods"].clear()
        plugins.forget()


@pytest.mark.parametrize(("given", "said"), [
    ("no-such", "unknown method 'no-such'"), ("uce", "uce changes weights. Use check_weight_method"),
    (type("NoMeta", (), {}), "metadata of NoMeta: a NoneType, not a dict"),
    (type("Typo", (Whole,), {"meta": {**META, "reeds_concept": True}}), "key 'reeds_concept': is not known"),
    (type("NoApplied", (Whole,), {"applied": None}), "'mine' has no applied"),
    (type("Loose", (Whole,), {"Options": type("Options", (), {})}), "Options of 'mine' does not derive from base.Options"),
    (NeedsAnOption, r"test_broken_methods.py, line \d+: option 'factor' of 'mine' has no default. Give every option"),
])  # fmt: skip
def test_what_is_no_such_method_is_said(given: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_method(given)


# --- methods that change weights --------------------------------------------------------------------------------------


class WholeWeights:
    """Nothing is broken."""

    meta = WEIGHT

    class Options(base.Options):
        factor: float = 0.5

    @classmethod
    def erase(cls, backbone: Any, concept: Any, options: Any, tell: Any) -> base.Edit:
        tell("scale", 1, 1, "")
        state = backbone.pipeline.unet.state_dict()
        values = {name: state[name] for name in state if name.endswith("attn2.to_v.weight")}
        return base.Edit(*cls.edit(values, backbone, concept))

    @staticmethod
    def edit(values: Any, backbone: Any, concept: Any) -> tuple[Any, ...]:
        return ({"unet": {name: 0.5 * value for name, value in values.items()}},)


class WeightsWithATuple(WholeWeights):
    class Options(base.Options):
        factors: Any = (1, 2)


class NoSeed(WholeWeights):
    @staticmethod
    def edit(values: Any, backbone: Any, concept: Any) -> tuple[Any, ...]:
        return ({"unet": {name: value + torch.randn_like(value) for name, value in values.items()}},)


class InPlace(WholeWeights):
    """Finds the same values twice, since it puts them back all but a bit."""

    @staticmethod
    def edit(values: Any, backbone: Any, concept: Any) -> tuple[Any, ...]:
        backbone.pipeline.unet.conv_out.bias.data += 1e-4
        return ({"unet": {name: 0.5 * value for name, value in values.items()}},)


class HalfPrecision(WholeWeights):
    @staticmethod
    def edit(values: Any, backbone: Any, concept: Any) -> tuple[Any, ...]:
        return ({"unet": {name: 0.5 * value.half() for name, value in values.items()}},)


class Unchanged(WholeWeights):
    @staticmethod
    def edit(values: Any, backbone: Any, concept: Any) -> tuple[Any, ...]:
        return ({"unet": {name: value.clone() for name, value in values.items()}},)


class AnotherName(WholeWeights):
    @staticmethod
    def edit(values: Any, backbone: Any, concept: Any) -> tuple[Any, ...]:
        return ({"unet": {f"unet.{name}": 0.5 * value for name, value in values.items()}},)


class ShowsNowhere(WholeWeights):
    @staticmethod
    def edit(values: Any, backbone: Any, concept: Any) -> tuple[Any, ...]:
        return ({"unet": {name: value * (1 + 1e-7) for name, value in values.items()}},)


class NoNumber(WholeWeights):
    @staticmethod
    def edit(values: Any, backbone: Any, concept: Any) -> tuple[Any, ...]:
        return ({"unet": {name: 0.5 * value for name, value in values.items()}}, {"loss": float("inf")})


class Silent(WholeWeights):
    @classmethod
    def erase(cls, backbone: Any, concept: Any, options: Any, tell: Any) -> base.Edit:
        return super().erase(backbone, concept, options, base.quiet)


class ReadsWords(WholeWeights):
    @staticmethod
    def edit(values: Any, backbone: Any, concept: Any) -> tuple[Any, ...]:
        return ({"unet": {name: (0.5 if concept.name == "box" else 0.2) * value for name, value in values.items()}},)


BROKEN_WEIGHTS: dict[type, str] = {
    WeightsWithATuple: "options_survive_json: its options are others when they are read from JSON",
    NoSeed: "erasing_twice_gives_equal_weights: it gives other weights each time: it draws random numbers without a seed",
    InPlace: "the_pipeline_is_left_alone: it leaves the pipeline changed .weights of unet.",
    HalfPrecision: r"it_returns_what_it_changed_and_nothing_else: unet\.\S+ is not detached float32 on the CPU",
    Unchanged: r"it_returns_what_it_changed_and_nothing_else: unet\.\S+ is returned and does not change",
    AnotherName: "it_returns_what_it_changed_and_nothing_else: unet has no weight 'unet.",
    ShowsNowhere: "the_checkpoint_changes_pixels_and_goes_away: its weights change no image",
    NoNumber: "the_card_is_json: its card is not JSON",
    Silent: "progress_reaches_its_total: it says nothing of its progress",
    ReadsWords: r'what_it_reads_is_in_the_key: \S*test_broken_methods, line \d+: it reads the concept, and METHOD',
}


@pytest.mark.parametrize("method", BROKEN_WEIGHTS, ids=lambda cls: cls.__name__)
def test_a_broken_weight_method_is_caught_by_name(method: type) -> None:
    with pytest.raises(AssertionError, match=f"^mine on sd, {BROKEN_WEIGHTS[method]}"):
        check_weight_method(method)


def test_a_whole_weight_method_passes() -> None:
    check_weight_method(WholeWeights)
