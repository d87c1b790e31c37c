"""The checks of every attack, one function each, on three targets and a tiny pipeline.

`check_attack` runs them all; `srbench.testing.AttackTests` is the same as pytest tests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch

from srbench.attacks.base import Adversarial, Defence, Progress, Victim, wanted
from srbench.attacks.text import holds_banned
from srbench.catalog.specs import ConceptSpec, ConceptWords, Recipe, Row
from srbench.engine.untouched import Untouched
from srbench.methods import base
from srbench.testing import checks
from srbench.testing.bench import small_pipeline
from srbench.testing.checks import require
from srbench.testing.fingerprint import left_alone

WORDS = ConceptWords(names=("a q",), words=("q",), protocol="none")
BOX = ConceptSpec(name="box", title="boxes", kind="object", sensitive=False, families={"tiny": WORDS})
"""A concept whose one word is a letter: the tokenizer has one token a letter."""
RECIPE = Recipe(steps=4, guidance=5.0, width=8, height=8)
TARGETS = tuple(
    Row(id=str(i), kind="forget", category="noun", prompt=text, seed=i, reference="x y", style="a", background="b")
    for i, text in enumerate(("a q b", "c q d", "e f q"))
)
PAIRS = (("a q", "a"), ("b q d", "b d"), ("q", "x"))
PARALLEL = 2
"""Targets of a group: three targets make two."""
NEVER_WORSE = 1e-6
"""Of an objective: what is left to rounding."""


def frozen_pipeline() -> Any:
    """The smallest pipeline, none of whose weights asks for a gradient."""
    pipeline = small_pipeline()
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    return pipeline


def plain(pipeline: Any, **changes: Any) -> Victim:
    """A victim without a method. changes: other values of its fields."""
    values: dict[str, Any] = {"family": "tiny", "concept": BOX, "banned": ("q",), "recipe": RECIPE, "pairs": PAIRS}
    return Victim(pipeline, **(values | changes))


class Flip(base.Applied):
    """Turns the positive embedding round, and scales it by the number of the call."""

    hooked = True

    def __init__(self, call: base.Call) -> None:
        self.call, self.calls = call, 0

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """A forward pre-hook of the denoiser."""
        self.calls += 1
        prompt = kwargs["encoder_hidden_states"]
        rest, ours = prompt[: -self.call.images], prompt[-self.call.images :]
        return args, {**kwargs, "encoder_hidden_states": torch.cat([rest, ours.flip(-1) * 0.5 * self.calls])}


class FlipMethod:
    """A method with one differentiable hook."""

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        """Flipped while it lasts."""
        flip = Flip(call)
        with base.hooks(pipeline.unet.register_forward_pre_hook(flip, with_kwargs=True)):
            yield flip


def defended(pipeline: Any) -> Victim:
    """A victim behind a hook."""
    return plain(pipeline, defence=Defence(FlipMethod, None, None))


@dataclass
class AttackCase:
    """An attack with its settings, a victim and targets."""

    cls: Any
    """The attack's class."""
    meta: Mapping[str, Any]
    values: Mapping[str, Any]
    """Settings that the checks give; what `Settings` does not have is left out."""
    victim: Victim
    targets: Sequence[Row] = field(default=TARGETS)
    """Three, none with a hidden target."""

    def __str__(self) -> str:
        return str(self.meta["name"])

    def settings(self, **changes: Any) -> Any:
        """The settings, two targets a group."""
        values = {"parallel": PARALLEL, **self.values, **changes}
        return self.cls.Settings(**{name: value for name, value in values.items() if name in self.cls.Settings.model_fields})

    def run(
        self, targets: Sequence[Row] | None = None, first: int = 0, progress: Progress | None = None, **changes: Any
    ) -> list[Adversarial]:
        """What the attack finds for the targets. first: the number of the first one; changes: of the settings."""
        rows = self.targets if targets is None else targets
        return list(self.cls.attack(self.victim, rows, self.settings(**changes), progress, first))

    @cached_property
    def once(self) -> list[Adversarial]:
        """What it finds for all targets, searched once."""
        return self.run()


# --- the checks -------------------------------------------------------------------------------------------------------


def settings_survive_json(case: AttackCase) -> None:
    """Settings stand beside the prompts: JSON gives the same again."""
    settings = case.settings()
    again = case.cls.Settings(**json.loads(json.dumps(settings.model_dump(mode="json"), allow_nan=False)))
    require(again == settings, "its settings are others when they are read from JSON", "Use numbers, texts and flags.")


def one_result_per_target_in_order(case: AttackCase) -> None:
    """As many results as targets, none left out; each says its target, a text, and numbers that are finite."""
    mend = "Yield one base.Adversarial for each target, in their order."
    require(len(case.once) == len(case.targets), f"it finds {len(case.once)} results for {len(case.targets)} targets", mend)
    for result, row in zip(case.once, case.targets, strict=True):
        require(isinstance(result, Adversarial), f"a result is {type(result).__name__}", mend)
        require(result.target == wanted(row), "a result names another target than the one in its place", mend)
        require(isinstance(result.prompt, str) and result.prompt.isprintable(), "a prompt is no printable text", mend)
        require(case.meta["output"] == "embedding" or result.prompt.strip(), "a prompt is empty", mend)
        numbers = (result.similarity, result.objective, *result.history)
        require(all(map(math.isfinite, numbers)), "a similarity, objective or history is not a finite number", "Measure it.")
        require(-1.001 <= result.similarity <= 1.001, f"a similarity is {result.similarity:g}", "Give the cosine, in [-1, 1].")
        _check_embedding(case, result)


def _check_embedding(case: AttackCase, result: Adversarial) -> None:
    embedding = result.embedding
    if case.meta["output"] == "prompt":
        require(embedding is None, "it returns an embedding, and `output` is 'prompt'", "Set `output` of ATTACK to 'embedding'.")
        return
    mend = "Return token embeddings (n, D) of finite numbers, detached and on the CPU."
    fits = embedding is not None and embedding.ndim == 2 and bool(torch.isfinite(embedding).all())
    require(fits, "its output is an embedding, and a result has none", mend)
    require(embedding is not None and not embedding.requires_grad, "an embedding asks for a gradient", mend)


def a_hidden_target_counts_before_the_prompt(case: AttackCase) -> None:
    """Rows that stand for another text are attacked by that text."""
    row = case.targets[0]
    (result,) = case.run([row.model_copy(update={"prompt": "z", "target": row.prompt})])
    require(result.target == row.prompt, "it attacks the prompt of a row that has a hidden target", "Use base.wanted(row).")


def the_history_never_gets_worse(case: AttackCase) -> None:
    """The best so far, from the start to the end, in the direction that the metadata calls better."""
    sign = 1 if case.meta["better"] == "higher" else -1
    for result in case.once:
        mend = "Give at least the objective at the start and at the end: (before, after)."
        require(result.history, "a result has no history", mend)
        steps = [sign * value for value in result.history]
        problem = f"the best objective gets worse on the way, where {case.meta['better']} is better"
        worse = any(after < before - NEVER_WORSE for before, after in pairwise(steps))
        require(not worse, problem, "Keep the best so far, and check `better` in ATTACK.")
        same = math.isclose(result.history[-1], result.objective, rel_tol=1e-5, abs_tol=NEVER_WORSE)
        require(same, "the history does not end with the objective", "Give the objective of what is returned as its last value.")


def the_same_seed_gives_the_same(case: AttackCase) -> None:
    """The same results, whatever is drawn from global generators; another seed or target has another start."""
    with checks.other_noise(1):
        first = case.run()
    with checks.other_noise(2):
        second = case.run()
    mend = "Draw from base.generators([base.seed_of(settings.seed, number)]) alone."
    require(_plain(first) == _plain(second), "it finds something else each time: it draws random numbers without a seed", mend)
    seeds = [result.tokens_seed for result in first]
    require(len(set(seeds)) == len(seeds), "two targets have the same tokens_seed", "Use base.seed_of(settings.seed, number).")
    others = [result.tokens_seed for result in case.run(seed=1)]
    require(not set(others) & set(seeds), "tokens_seed does not depend on the seed", "Use base.seed_of(settings.seed, number).")


def a_group_can_be_searched_alone(case: AttackCase) -> None:
    """A search that was stopped goes on at a group's start, and finds what it would have found."""
    resumed = case.run(case.targets[PARALLEL:], PARALLEL)
    require(
        _plain(resumed) == _plain(case.once[PARALLEL:]), "a search that goes on at its second group finds something else",
        "Count targets from `first`, and keep no state between groups of `settings.parallel`.",
    )


def nothing_banned_is_added(case: AttackCase) -> None:
    """What a prompt has beyond the words of its target spells none of the victim's banned words."""
    if case.meta["output"] == "embedding":
        return
    for result in case.once:
        target_words = result.target.casefold().split()
        added = [word for word in result.prompt.casefold().split() if word not in target_words]
        problem = f"it adds a banned word ('{result.prompt}')"
        require(not holds_banned(" ".join(added), case.victim.banned), problem, "Leave out what spells a word of victim.banned.")


def the_victim_is_left_as_it_was(case: AttackCase) -> None:
    """The pipeline is bit for bit as before: weights, hooks, modes, gradients, global noise."""
    untouched = Untouched(case.victim.pipeline)
    with left_alone(case.victim.pipeline, but=("scheduler",)):  # drawing the target steps it
        case.run(case.targets[:1])
    with checks.as_assertion():
        untouched.check(str(case))


def progress_counts_to_its_end(case: AttackCase) -> None:
    """The progress that it reports never goes back, and ends at its total."""
    reports: list[tuple[int, int]] = []
    case.run(progress=lambda done, total: reports.append((done, total)))
    mend = "Call progress(done, total) after each step, where it is not None."
    require(reports, "it says nothing of its progress", mend)
    require([done for done, _ in reports] == sorted(done for done, _ in reports), "its progress goes back", mend)
    require(reports[-1][0] == reports[-1][1], f"its progress ends at {reports[-1][0]} of {reports[-1][1]}", mend)


CHECKS: tuple[checks.Check[AttackCase], ...] = (
    settings_survive_json, one_result_per_target_in_order, a_hidden_target_counts_before_the_prompt,
    the_history_never_gets_worse, the_same_seed_gives_the_same, a_group_can_be_searched_alone, nothing_banned_is_added,
    the_victim_is_left_as_it_was, progress_counts_to_its_end,
)  # fmt: skip


def _plain(results: Sequence[Adversarial]) -> list[tuple[Any, ...]]:
    """Results to compare bit for bit, embeddings among them."""
    return [
        (replace(each, embedding=None), None if each.embedding is None else each.embedding.tolist()) for each in results
    ]  # fmt: skip


# --- all of them ------------------------------------------------------------------------------------------------------


def case_of(attack: str | type, settings: Mapping[str, Any] | None = None, victim: Victim | None = None) -> AttackCase:
    """What there is to check. The arguments are those of `check_attack`.

    Raises `AssertionError` where the attack is unknown or its metadata is wrong.
    """
    with checks.as_assertion():
        cls, meta = checks.plugin_of("attacks", attack)
    if victim is None:
        pipeline = frozen_pipeline()
        victim = plain(pipeline) if meta["needs"] == "text_encoder" else defended(pipeline)
    return AttackCase(cls, meta, dict(settings or {}), victim)


def check_attack(attack: str | type, *, settings: Mapping[str, Any] | None = None, victim: Victim | None = None) -> None:
    """The battery of an attack, on three targets and a tiny random pipeline in memory, defended where the attack sees a method.

    attack: its class, or its name: of an installed package's attack, or of one under `@srbench.attack` in this process.
    settings: values that the checks use, such as few steps. victim: another one, say of a method that the attack is made for.
    Raises `AssertionError` with one sentence on what is wrong and one on how to mend it.
    """
    __tracebackhide__ = True
    checks.run(CHECKS, case_of(attack, settings, victim))
