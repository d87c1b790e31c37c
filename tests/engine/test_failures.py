"""One failure costs its own image, cell or column: whatever foreign code does, the others' numbers stay what they were."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from srbench.analysis import measure
from srbench.catalog.specs import Row, RowFile
from srbench.engine import batches, run, sampling
from srbench.engine.plan import plan
from srbench.engine.untouched import Untouched
from srbench.errors import OK, SOME_FAILED, SrbenchError, UsageError
from srbench.methods import base
from srbench.results.run_files import RunResult
from srbench.results.store import Store
from srbench.scorers import base as scorers

META = {
    "name": "evil", "version": 1, "kind": "inference", "title": "t", "paper": "", "families": ["*"], "presets": {"evil": {}},
    "decides": False, "reads_concept": False,
}
Hand = Callable[[Any, base.Call], Any]
"""What a method does with a pipeline and a call; what it returns is in force."""


def method(hand: Hand | None = None, prepare: Callable[..., Any] | None = None, **meta: Any) -> type:
    """A method that does `hand` while it is applied, or `prepare` before."""

    class Evil:
        class Options(base.Options):
            pass

        @staticmethod
        @contextmanager
        def applied(pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[Any]:
            yield hand(pipeline, call) if hand else base.Applied()

    Evil.meta = {**META, **meta}  # type: ignore[attr-defined]
    Evil.prepare = staticmethod(prepare or (lambda *a: None))  # type: ignore[attr-defined]
    return Evil


@pytest.fixture
def evil(world: Any) -> Callable[[type], None]:
    """Puts a method or scorer called `evil` into the toy catalog."""

    def install(cls: type) -> None:
        known = world.scorers if "reads" in cls.meta else world.methods  # type: ignore[attr-defined]  # one of the two below
        known["evil"] = cls

    return install


_PLAIN: dict[str, Any] = {}


def plain(world: Any) -> Any:
    """Cell and pixels of `none` in a run without anything evil."""
    if not _PLAIN:
        out = world.out.parent / "plain"
        cell = world.run(methods=("none",), out=out, limit=2).cells[0]
        _PLAIN["metrics"] = {name: each.value for name, each in cell.metrics.items()}
        _PLAIN["pixels"] = {key: r["pixel_sha"] for key, r in Store(out / "store").images.items()}
    return _PLAIN


def unharmed(world: Any, done: RunResult, method: str = "none") -> None:
    """The run has its record, ends with 1, and what `none` gives is what it gives alone."""
    assert done.exit_code == SOME_FAILED
    saved = json.loads((world.out / "runs" / done.run / "run.json").read_text())
    assert len(saved["cells"]) == len(done.cells)
    cell = next(each for each in done.cells if each.method == method)
    for name, value in plain(world)["metrics"].items():
        assert cell.metrics[name].value == pytest.approx(value), name
    pixels = {key: r["pixel_sha"] for key, r in world.store().images.items()}
    assert plain(world)["pixels"].items() <= pixels.items()


def cell_of(done: RunResult) -> Any:
    """The evil method's."""
    return next(each for each in done.cells if each.method == "evil")


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


# --- methods ----------------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Hand:
    def hand(pipeline: Any, call: base.Call) -> Any:
        raise error

    return hand


class Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Says(base.Applied):
    """A trace, or conditioning, of the test's choice."""

    def __init__(self, trace: Any = (), change: Callable[[Any], Any] | None = None) -> None:
        self.said, self.change = trace, change

    def trace(self) -> Any:
        return self.said

    def prompts(self, positive: Any, negative: Any) -> Any:
        return (self.change(positive), negative) if self.change else (positive, negative)


class Pair(base.Applied):
    """Prompt embeddings of the test's choice."""

    def __init__(self, pair: Callable[[Any, Any], Any]) -> None:
        self.pair = pair

    def prompts(self, positive: Any, negative: Any) -> Any:
        return self.pair(positive, negative)


def hooked(result: Any) -> Hand:
    """A hook on the denoiser that gives `result`, taken off by nobody."""

    def hand(pipeline: Any, call: base.Call) -> Any:
        pipeline.unet.register_forward_hook(lambda module, args, out: result(out))
        return base.Applied()

    return hand


def left(change: Callable[[Any], Any]) -> Hand:
    """Changes the pipeline and leaves it so."""

    def hand(pipeline: Any, call: base.Call) -> Any:
        change(pipeline)
        return base.Applied()

    return hand


def _nan_out(out: Any) -> Any:
    return (out[0] * float("nan"),)


def _no_return(pipeline: Any, call: base.Call) -> Any:
    return None


METHODS: dict[str, tuple[Hand, str]] = {
    "TypeError": (raising(TypeError("forward() got an unexpected argument\nsecond line")), "TypeError: forward() got an unex"),
    "KeyError": (raising(KeyError("unet")), "KeyError: 'unet'"),
    "RuntimeError": (raising(RuntimeError("shapes do not match")), "RuntimeError: shapes"),
    "AssertionError": (raising(AssertionError()), "AssertionError"),
    "MemoryError": (raising(MemoryError()), "MemoryError"),
    "SystemExit": (raising(SystemExit(0)), "SystemExit: 0"),
    "StopIteration": (raising(StopIteration()), "RuntimeError"),
    "RecursionError": (raising(RecursionError("too deep")), "RecursionError"),
    "OSError": (raising(OSError(28, "No space left")), "OSError"),
    "unreadable": (raising(Unreadable()), "Unreadable: (its message cannot be read)"),
    "escapes": (raising(ValueError("\x1b[31mred")), r"ValueError: \x1b[31mred"),
    "yields nothing": (_no_return, "evil: `applied` yielded NoneType, not a base.Applied (tests.engine.test_failures, line "),
    "a pair of one": (lambda p, c: Pair(lambda a, b: a), "`prompts` returned Tensor in place of two prompt embeddings (tests."),
    "a pair of three": (lambda p, c: Pair(lambda a, b: (a, b, b)), "`prompts` returned 3 values in place of two prompt"),
    "another width": (lambda p, c: Pair(lambda a, b: (a[..., 1:], b[..., 1:])), "it returned prompt embeddings of shape"),
    "another number of tokens": (lambda p, c: Pair(lambda a, b: (a[:, 1:], b)), "prompt embeddings of two shapes"),
    "a misspelled method": (lambda p, c: type("Typo", (base.Applied,), {"prompt": Pair.prompts}), "base.Applied has no `prompt`"),
    "trace too short": (lambda p, c: Says([{}]), "is 1 for 4 images"),
    "trace too long": (lambda p, c: Says([{}] * 9), "is 9 for 4 images"),
    "trace a text": (lambda p, c: Says("abcd"), "is str for 4 images"),
    "trace NaN": (lambda p, c: Says([{"a": float("nan")}] * 4), "cannot be stored: nan"),
    "trace too large": (lambda p, c: Says([{"a": 1e30}] * 4), "cannot be stored: a number is not finite, or too large"),
    "trace too deep": (lambda p, c: Says([{"a": nested(200)}] * 4), "cannot be stored: nested more than 100"),
    "trace of objects": (lambda p, c: Says([{"a": object()}] * 4), "cannot be stored: object is not JSON"),
    "trace of numbers": (lambda p, c: Says([1] * 4), "not a dict for each image"),
    "prompts NaN": (lambda p, c: Says(change=lambda e: e * float("nan")), "prompt embeddings that are not numbers"),
    "one prompt": (lambda p, c: Says(change=lambda e: e[:1]), "prompt embeddings of shape"),
    "no prompts": (lambda p, c: Says(change=lambda e: None), "NoneType in place of prompt embeddings"),
    "NaN pixels": (hooked(_nan_out), "values that are not numbers"),
    "leaves a hook": (hooked(lambda out: out), "it left something behind on the pipeline (a hook on unet)"),
    "leaves training mode": (left(lambda p: p.unet.train()), "it left something behind"),
    "leaves a forward": (left(lambda p: setattr(p.unet.conv_in, "forward", p.unet.conv_in.forward)), "it left something behind"),
    "leaves a decode": (left(lambda p: setattr(p.vae, "decode", p.vae.decode)), "vae's decode"),
    "leaves a step": (left(lambda p: setattr(p.scheduler, "step", p.scheduler.step)), "scheduler's step"),
    "leaves a value": (left(lambda p: setattr(p.tokenizer, "padding_side", "left")), "tokenizer's padding_side"),
    "leaves a stride": (left(lambda p: setattr(p.unet.conv_in, "padding_mode", "circular")), "unet.conv_in's padding_mode"),
    "changes the schedule": (left(lambda p: p.scheduler.alphas_cumprod.mul_(0.5)), "scheduler.alphas_cumprod"),
    "goes elsewhere": (left(lambda p: os.chdir("/")), "another working directory"),
    "GeneratorExit": (raising(GeneratorExit()), "GeneratorExit"),
    "leaves a processor": (left(lambda p: p.unet.set_default_attn_processor()), "it left something behind"),
    "zeroes weights": (left(lambda p: p.unet.conv_in.weight.data.zero_()), "it changed the model's weights"),
    "adds to a weight": (left(lambda p: p.vae.decoder.conv_in.weight.data.mul_(1.5)), "it changed the model's weights"),
    "another module": (left(lambda p: setattr(p.unet, "conv_in", torch.nn.Conv2d(4, 4, 1))), "FAILS"),
    "another denoiser": (left(lambda p: setattr(p, "unet", torch.nn.Linear(1, 1))), "FAILS"),
    "another dtype": (left(lambda p: torch.set_default_dtype(torch.float64)), "FAILS"),
}  # fmt: skip


@pytest.mark.parametrize("what", METHODS)
def test_a_method_may_do_anything_and_costs_its_own_cell(world: Any, evil: Any, what: str) -> None:
    hand, message = METHODS[what]
    working_folder = os.getcwd()
    evil(method(hand))
    done = world.run(methods=("none", "evil"), limit=2)
    unharmed(world, done)
    assert cell_of(done).metrics["fsr"].value is None
    assert cell_of(done).n_failed == cell_of(done).n_run
    reason = cell_of(done).metrics["fsr"].reason
    assert message == "FAILS" or message in reason
    assert "\n" not in reason
    assert "\x1b" not in reason
    assert torch.get_default_dtype() == torch.float32
    assert os.getcwd() == working_folder


def test_afterwards_the_pipeline_is_what_it_was_bit_for_bit(world: Any, evil: Any) -> None:
    """A second recipe is sampled after the evil one: with `none` in between it would show."""
    evil(method(hooked(_nan_out)))
    backbone = world.backbone()
    before = Untouched(backbone.pipeline)
    request = world.request(methods=("none", "evil"), limit=1, batch_size=1)
    done = run.execute(request, backbone, plan(request, backbone), Store(world.out / "store"), world)
    assert done.exit_code == SOME_FAILED
    before.check("the run")


@pytest.mark.parametrize(
    "error", [TypeError("no"), KeyError("unet"), SystemExit(0), SystemExit("bye"), MemoryError(), AssertionError("never")]
)
def test_a_method_that_cannot_be_prepared_blocks_its_cell(world: Any, evil: Any, error: BaseException) -> None:
    def prepare(*args: Any) -> Any:
        raise error

    evil(method(prepare=prepare))
    done = world.run(methods=("none", "evil"), limit=2)
    unharmed(world, done)
    assert type(error).__name__ in cell_of(done).metrics["fsr"].reason


@pytest.mark.parametrize(
    "given", [3, base.Artifact(None, "no hash"), base.Artifact(None, "a" * 64, card={"a": float("nan")}),
              base.Artifact(None, "a" * 64, prepare_seconds=float("inf"))]
)  # fmt: skip
def test_a_method_that_prepares_nonsense_blocks_its_cell(world: Any, evil: Any, given: Any) -> None:
    evil(method(prepare=lambda *a: given))
    done = world.run(methods=("none", "evil"), limit=2)
    unharmed(world, done)
    assert cell_of(done).metrics["fsr"].value is None


def undecorated(cls: type) -> type:
    """Without `@contextmanager`."""
    cls.applied = staticmethod(cls.applied.__wrapped__)  # type: ignore[attr-defined]  # as `method` made it
    return cls


def returning(cls: type) -> type:
    """With `return` in place of `yield`."""
    cls.applied = staticmethod(contextmanager(lambda *a: base.Applied()))  # type: ignore[attr-defined, arg-type]  # so broken
    return cls


def with_others(cls: type) -> type:
    """With other arguments."""
    cls.applied = staticmethod(lambda pipeline: None)  # type: ignore[attr-defined]  # as `method` made it
    return cls


@pytest.mark.parametrize(("change", "said"), [
    (undecorated, "evil: `applied` returned generator, not a context manager (tests.engine.test_failures, line "),
    (returning, "evil: `applied` returns what it has to yield (tests.engine.test_failures, line "),
    (with_others, "positional argument but 4 were given (tests.engine.test_failures)"),
])  # fmt: skip
def test_what_is_no_context_manager_names_the_method_s_own_file(world: Any, evil: Any, change: Any, said: str) -> None:
    evil(change(method()))
    done = world.run(methods=("none", "evil"), limit=2)
    unharmed(world, done)
    assert said in cell_of(done).metrics["fsr"].reason


def test_a_method_that_reads_none_cannot_read_the_concept(world: Any, evil: Any) -> None:
    """Else it would be part of the image and not of its key."""
    for read in (lambda concept: concept.name, lambda concept: f"{concept}"):
        evil(method(prepare=lambda backbone, concept, options, read=read: read(concept)))
        done = world.run(methods=("none", "evil"), limit=2)
        unharmed(world, done)
        reason = cell_of(done).metrics["fsr"].reason
        assert 'it reads the concept, and METHOD says "reads_concept": False. Take that key out of METHOD.' in reason


def test_an_interrupt_stays_an_interrupt(world: Any, evil: Any) -> None:
    evil(method(raising(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        world.run(methods=("evil",), limit=1)


def test_one_bad_row_costs_its_own_image(world: Any, evil: Any) -> None:
    """It is found among the others; they are made, with the pixels that they have without it."""

    class Picky(base.Applied):
        def __init__(self, call: base.Call) -> None:
            if "a box blue" in call.prompts:
                raise ValueError("I do not like blue")

    evil(method(lambda p, c: Picky(c)))
    done = world.run(methods=("none", "evil"))
    assert done.exit_code == SOME_FAILED
    assert (cell_of(done).n_run, cell_of(done).n_failed) == (8, 1)
    store, saved = world.store(), json.loads((world.out / "runs" / done.run / "run.json").read_text())
    rows = saved["cells"][1]["rows"]
    assert [row["id"] for row in rows if "failed" in row] == ["f1"]
    assert "ValueError: I do not like blue" in rows[1]["failed"]
    assert all(row["image"] in store.images for row in rows if row["id"] != "f1")
    twins = {row["id"]: store.images[row["image"]]["pixel_sha"] for row in saved["cells"][0]["rows"]}  # it changes nothing
    assert all(store.images[row["image"]]["pixel_sha"] == twins[row["id"]] for row in rows if row["id"] != "f1")


def test_the_same_command_again_tries_what_failed_and_nothing_else(world: Any, evil: Any) -> None:
    broken = [True]

    def hand(pipeline: Any, call: base.Call) -> Any:
        if broken[0]:
            raise TypeError("not today")
        return base.Applied()

    evil(method(hand))
    assert world.run(methods=("none", "evil"), limit=1).exit_code == SOME_FAILED
    assert world.run(methods=("none", "evil"), limit=1).exit_code == SOME_FAILED
    broken[0] = False
    done = world.run(methods=("none", "evil"), limit=1)
    assert done.exit_code == OK
    assert sum("3 images to sample" in line for line in world.lines) == 2


def test_a_method_that_always_fails_is_not_tried_for_ever(world: Any, evil: Any) -> None:
    tried = []

    def hand(pipeline: Any, call: base.Call) -> Any:
        tried.append(call.images)
        raise TypeError("never")

    world.rows = RowFile(meta={}, rows=tuple(
        Row(id=f"r{i}", kind="retain", category="object", prompt=f"a ball {i}", seed=i, objects=("ball",)) for i in range(60)
    ))  # fmt: skip
    evil(method(hand))
    done = world.run(methods=("evil",))
    assert done.exit_code == SOME_FAILED
    assert cell_of(done).n_failed == 60
    assert len(tried) < batches.GIVE_UP + 5
    assert sum("TypeError: never" in line for line in world.lines) == 2  # once, and once for those that were not tried


SIZES = {"60 x 44": (60, 44), "65 x 64": (65, 64), "1 x 8": (1, 8), "huge": (2**20, 2**20), "beyond": (8 * 10**12, 8)}


@pytest.mark.parametrize("what", SIZES)
def test_a_size_that_cannot_be_drawn_costs_its_own_row(world: Any, what: str) -> None:
    width, height = SIZES[what]
    rows = [row.model_copy(update={"width": width, "height": height} if row.id == "r1" else {}) for row in world.rows.rows]
    world.rows = RowFile(meta={}, rows=tuple(rows))
    done = world.run(methods=("none",))
    assert done.exit_code == SOME_FAILED
    assert (done.cells[0].n_run, done.cells[0].n_failed) == (8, 1)
    saved = json.loads((world.out / "runs" / done.run / "run.json").read_text())
    (failed,) = [row["failed"] for row in saved["cells"][0]["rows"] if "failed" in row]
    assert f"{width} x {height}" in failed
    again = world.run(methods=("none",))
    assert "1 images to sample, 15 in the store" in world.lines
    assert again.cells[0].metrics["fsr"] == done.cells[0].metrics["fsr"]


def test_a_cell_without_any_image_says_what_most_rows_failed_for(world: Any, evil: Any) -> None:
    def hand(pipeline: Any, call: base.Call) -> Any:
        raise TypeError("never")

    rows = [row.model_copy(update={"width": 65, "height": 64} if row.id == "r1" else {}) for row in world.rows.rows]
    world.rows = RowFile(meta={}, rows=tuple(rows))
    evil(method(hand))
    reason = cell_of(world.run(methods=("evil",))).metrics["fsr"].reason
    assert reason.startswith("evil: TypeError: never"), "not the size of one row, which comes first by letters"
    assert reason.endswith("(7 of 8 rows)")


class Spoiler:
    """A weight method that does what it is told."""

    meta: ClassVar[dict[str, Any]] = {**META, "kind": "weight"}
    erasing: ClassVar[Any] = None

    class Options(base.Options):
        pass

    @staticmethod
    def erase(backbone: Any, concept: Any, options: Any, tell: Any) -> Any:
        return Spoiler.erasing(backbone.pipeline)


def _spoilt(pipeline: Any) -> Any:
    pipeline.unet.conv_in.weight.data.zero_()
    return base.Edit({"unet": {"conv_in.bias": pipeline.unet.conv_in.bias + 1}})


def _exits(pipeline: Any) -> Any:
    sys.exit(3)


def _fails(pipeline: Any) -> Any:
    raise IndexError("list index out of range")


EDITS: dict[str, tuple[Any, str]] = {
    "raises": (_fails, "IndexError: list index"),
    "exits": (_exits, "SystemExit: 3"),
    "nothing": (lambda p: None, "`erase` returned no tensors"),
    "numbers": (lambda p: base.Edit({"unet": {"conv_in.bias": 3}}), "`erase` returned no tensors"),  # type: ignore[dict-item]  # so broken
    "another shape": (lambda p: base.Edit({"unet": {"conv_in.bias": torch.zeros(1)}}), "conv_in.bias is (1,)"),
    "another name": (lambda p: base.Edit({"unet": {"nobody": torch.zeros(1)}}), "1 of 1 tensors are not in this backbone's unet"),
    "another component": (lambda p: base.Edit({"brain": {"x": torch.zeros(1)}}), "this backbone has no brain"),
    "NaN": (lambda p: base.Edit({"unet": {"conv_in.bias": p.unet.conv_in.bias * float("nan")}}), "not numbers"),
    "no change": (lambda p: base.Edit({"unet": {"conv_in.bias": p.unet.conv_in.bias.clone()}}), "equals the backbone"),
    "a card of NaN": (lambda p: base.Edit({"unet": {"conv_in.bias": p.unet.conv_in.bias + 1}}, {"a": float("nan")}), "nan"),
    "spoils the backbone": (_spoilt, "it changed the model's weights"),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_a_weight_method_may_do_anything_and_costs_its_own_cell(world: Any, evil: Any, what: str) -> None:
    Spoiler.erasing, message = EDITS[what]
    evil(Spoiler)
    done = world.run(methods=("none", "evil"), limit=2)
    assert done.exit_code == SOME_FAILED
    plain_cell, weights = done.cells
    for name, value in plain(world)["metrics"].items():
        assert plain_cell.metrics[name].value == pytest.approx(value), name
    assert message in weights.metrics["fsr"].reason


# --- scorers ----------------------------------------------------------------------------------------------------------


def scorer(score: Any = None, identity: Any = None, init: Any = None, kind: str = "image", **parts: Any) -> type:
    """A scorer of one field, `value`."""

    class Evil:
        meta: ClassVar[dict[str, Any]] = {
            "name": "evil", "version": 1, "kind": kind, "title": "t", "reads": [], "fields": ["value"],
            "metrics": {"evil": {"field": "value", "better": "higher"}},
        }  # fmt: skip
        Options: ClassVar[Any] = parts.get("options", scorers.Options)

        def __init__(self, options: Any) -> None:
            if init:
                init()

        def identity(self) -> Any:
            return identity() if identity else {"library": "none", "library_version": "0"}

        def score(self, images: Any, *more: Any) -> Any:
            return score(images) if score else [{"value": 1.0} for _ in images]

        features: ClassVar[Any] = staticmethod(parts.get("features", lambda images: np.ones((len(images), 2))))
        reduce: ClassVar[Any] = staticmethod(parts.get("reduce", lambda ours, theirs: {"value": 1.0}))

    return Evil


def doing(error: BaseException) -> Callable[..., Any]:
    def raised(*args: Any) -> Any:
        raise error

    return raised


def each(value: Any) -> Callable[[Any], Any]:
    return lambda images: [value for _ in images]


class Picky(scorers.Options):
    """Options whose validation breaks."""

    def __init__(self, **values: Any) -> None:
        raise ZeroDivisionError("in the options")


ENTROPY = iter(range(10**6))
SCORERS: dict[str, tuple[type, str]] = {
    "raises": (scorer(doing(TypeError("no"))), "TypeError: no"),
    "exits": (scorer(doing(SystemExit(1))), "SystemExit: 1"),
    "MemoryError": (scorer(doing(MemoryError())), "MemoryError"),
    "NaN": (scorer(each({"value": float("nan")})), "nan is not a finite number"),
    "infinity": (scorer(each({"value": float("-inf")})), "-inf is not a finite number"),
    "NaN of numpy": (scorer(each({"value": np.float32("nan")})), "nan is not a finite number"),
    "NaN deep inside": (scorer(each({"value": 1.0, "boxes": [{"score": float("nan")}]})), "nan is not a finite number"),
    "None": (scorer(lambda images: None), "it returned NoneType, not a list"),
    "one too few": (scorer(lambda images: [{"value": 1.0}] * (len(images) - 1)), "for 1 images"),
    "one too many": (scorer(lambda images: [{"value": 1.0}] * (len(images) + 1)), "for 1 images"),
    "numbers": (scorer(each(1.0)), "it returned float for an image, not a dict"),
    "no field": (scorer(each({"other": 1.0})), "it declares a field 'value'"),
    "a text": (scorer(each({"value": "1.0"})), "'value' is str, not a number"),
    "a truth": (scorer(each({"value": True})), "'value' is bool, not a number"),
    "an array": (scorer(each({"value": np.ones(3)})), "ndarray is not JSON"),
    "more than a record holds": (scorer(each({"value": 10**30})), "not finite, or too large"),
    "more digits than Python writes": (scorer(each({"value": 10**5000})), "digits"),
    "deeper than a record is": (scorer(each({"value": 1.0, "a": nested(200)})), "nested more than 100 levels"),
    "longer than a line is": (scorer(each({"value": 1.0, "a": "a" * 2**24})), "bytes"),
    "a set": (scorer(each({"value": {1}})), "set is not JSON"),
    "keys of numbers": (scorer(each({1: 1.0, "value": 1.0})), "a key is of type int"),
    "half a character": (scorer(each({"value": 1.0, "a": "\ud800"})), "half a character"),
    "cannot be opened": (scorer(init=doing(KeyError("weights"))), "KeyError: 'weights'"),
    "exits when opened": (scorer(init=doing(SystemExit(2))), "SystemExit: 2"),
    "identity a text": (scorer(identity=lambda: "me"), "its identity is str"),
    "identity empty": (scorer(identity=dict), "does not say library and library_version"),
    "identity incomplete": (scorer(identity=lambda: {"library": "x"}), "does not say library_version"),
    "identity raises": (scorer(identity=doing(AttributeError("x"))), "AttributeError: x"),
    "identity NaN": (scorer(identity=lambda: {"library": "x", "library_version": "1", "a": float("nan")}), "nan"),
    "identity of objects": (scorer(identity=lambda: {"library": "x", "library_version": "1", "a": object()}), "object is not"),
    "identity another": (scorer(identity=lambda: {"library": "x", "library_version": str(next(ENTROPY))}), "each time"),
    "options": (scorer(options=Picky), "ZeroDivisionError: in the options"),
    "features raise": (scorer(kind="set", features=doing(TypeError("no"))), "TypeError: no"),
    "features None": (scorer(kind="set", features=lambda images: None), "features of type NoneType"),
    "features of texts": (scorer(kind="set", features=lambda images: np.array([["a"]] * len(images))), "features of shape"),
    "reduce raises": (scorer(kind="set", reduce=doing(ZeroDivisionError("no"))), "ZeroDivisionError: no"),
    "reduce exits": (scorer(kind="set", reduce=doing(SystemExit(1))), "SystemExit: 1"),
    "reduce NaN": (scorer(kind="set", reduce=lambda a, b: {"value": float("nan")}), "not a finite number"),
    "reduce nothing": (scorer(kind="set", reduce=lambda a, b: None), "TypeError"),
    "reduce another": (scorer(kind="set", reduce=lambda a, b: {"other": 1.0}), "KeyError: 'value'"),
}  # fmt: skip


@pytest.mark.parametrize("what", SCORERS)
def test_a_scorer_may_do_anything_and_costs_its_own_column(world: Any, evil: Any, what: str) -> None:
    cls, message = SCORERS[what]
    evil(cls)
    measure._reduced.cache_clear()
    done = world.run(methods=("none",), scorers=("evil",), limit=2)
    column = done.cells[0].metrics["evil"]
    assert column.value is None
    assert message in column.reason
    assert "\n" not in column.reason
    unharmed(world, done)
    ledgers = [path.read_text() for path in (world.out / "store" / "ledger").glob("scores-*.jsonl")]
    assert not any("NaN" in text or "Infinity" in text or '"scorer":"evil"' in text for text in ledgers)


def test_one_image_that_is_not_a_number_costs_its_own_score(world: Any, evil: Any) -> None:
    """As one that is NaN for every second image: the others have theirs."""
    evil(scorer(lambda images: [{"value": float("nan") if image.mean() > 127 else np.float32(2)} for image in images]))
    done = world.run(methods=("none",), scorers=("evil",))
    column = done.cells[0].metrics["evil"]
    assert done.exit_code == (OK if column.scored == column.n else SOME_FAILED)
    assert column.value in (None, 2.0)
    assert type(next(iter(world.store().scores.values()))["raw"]) is dict


def test_a_scorer_cannot_change_what_the_next_one_sees(world: Any, evil: Any) -> None:
    def score(images: Any) -> Any:
        for image in images:
            image[:] = 0
        return [{"value": 1.0} for _ in images]

    evil(scorer(score))
    done = world.run(methods=("none",), scorers=("evil",), limit=2)
    assert done.exit_code == OK
    assert done.cells[0].metrics["fsr"].value == pytest.approx(plain(world)["metrics"]["fsr"])
    assert {k: r["pixel_sha"] for k, r in world.store().images.items()} == plain(world)["pixels"]


def test_a_scorer_that_always_fails_is_not_tried_for_ever(world: Any, evil: Any) -> None:
    calls = []

    def score(images: Any) -> Any:
        calls.append(len(images))
        raise ValueError("never")

    world.rows = RowFile(meta={}, rows=tuple(
        Row(id=f"r{i}", kind="retain", category="object", prompt=f"a ball {i}", seed=i, objects=("ball",)) for i in range(40)
    ))  # fmt: skip
    evil(scorer(score))
    done = world.run(methods=("none",), scorers=("evil",))
    assert done.exit_code == SOME_FAILED
    assert sum(calls) < 60  # twenty alone, and the batches that they came in
    assert done.cells[0].metrics["evil"].scored == 0
    assert done.cells[0].metrics["retain_accuracy"].scored == 40


def test_a_broken_judge_blocks_its_cells_in_one_line(world: Any) -> None:
    world.alter("brightness", __init__=doing(RuntimeError("protobuf\nparsing failed")))
    done = world.run(limit=1)
    assert done.exit_code == SOME_FAILED
    reason = done.cells[0].metrics["fsr"].reason
    assert reason.startswith("judge bright: scorer brightness cannot be opened: RuntimeError: protobuf")
    assert "\n" not in reason
    assert not world.store().images


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_full_disk_at_the_record_is_one_error_and_loses_nothing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def full(source: Any, target: Any) -> None:
        if str(target).endswith("run.json"):
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(SrbenchError, match="images and scores are stored") as caught:
            world.run(limit=1)
    assert "No space left on device" in caught.value.message
    world.run(limit=1)
    assert any(line.startswith("0 images to sample") for line in world.lines)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError("pixels")])
def test_what_goes_wrong_in_the_background_is_one_error(world: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(Store, "_put", doing(error))
    with pytest.raises(SrbenchError) as caught:
        world.run(limit=1)
    assert "\n" not in caught.value.message


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("push.strength=nan",), "nan is not a finite number"),
        (("push.strength=inf",), "inf is not a finite number"),
        (("push.strength=1e999",), "inf is not a finite number"),
        (("push.strength=",), "--set push.strength"),
        (("push.strength=one",), "--set push.strength"),
        (("push.strength=1\x1b[31m",), "--set push.strength"),
        (("push.strength=1", "push.strength=2"), "two values for it, 1 and 2"),
        (("push.nobody=1",), "push has no option 'nobody'"),
        (("push=1",), "expected NAME.OPTION=VALUE"),
        (("=",), "expected NAME.OPTION=VALUE"),
        (("\x1b[31m.a=1",), "expected NAME.OPTION=VALUE"),
        (("shift.size=1",), "'shift' is not part of this run"),
        (("brightness.scale=" + "9" * 5000,), "--set brightness.scale"),
        (("brightness.scale=nan",), "nan is not a finite number"),
    ],
)
def test_a_bad_setting_is_one_line_before_anything_is_made(world: Any, settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        world.run(settings=settings, on=("none", "twice"), methods=("push",)) if "shift" not in settings[0] else world.run(
            settings=settings
        )
    assert message in caught.value.message
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 400
    assert not world.shift.made


def test_the_same_setting_twice_is_once(world: Any) -> None:
    cells = plan(world.request(settings=("push.strength=2", "push.strength=2")), world.backbone())
    assert cells[1].variant == "strength=2.0"


def test_a_huge_batch_is_not_padded_to_its_size(world: Any) -> None:
    found = sampling.Sampling(world.request(batch_size=10**9), world.backbone(), "r", replace(run.PLAIN, fit_batch=False))
    missing = plan(world.request(), world.backbone())[0].rows
    assert found.batch_size([row.image for row in missing]) == sampling.LARGEST_BATCH


