"""The checks of every method that acts while sampling, one function each, on one preset.

`check_method` runs them all; `srbench.testing.MethodTests` is the same as pytest tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from srbench.engine.untouched import Untouched
from srbench.errors import CellError
from srbench.faults import plain
from srbench.methods.base import Active, Artifact, Call, Unread
from srbench.methods.none import NoMethod
from srbench.testing import checks
from srbench.testing.bench import FAMILIES, PROMPTS, Bench, bench
from srbench.testing.checks import require

A, B, C, D = PROMPTS
SHOWING = ("pocket", "sd", "sdxl", "tiny")
"""Families whose random pipeline shows what a method does to a text; a random transformer's image hardly depends on it."""


@dataclass
class MethodCase:
    """A preset of a method on a tiny pipeline."""

    cls: Any
    """The method's class."""
    meta: Mapping[str, Any]
    preset: str
    values: Mapping[str, Any]
    """Options that the checks give, over those of the preset."""
    bench: Bench
    preset_options: Mapping[str, Any] = field(default_factory=dict)
    """The preset's own options."""
    shows: bool = True
    """Whether the image depends on the text enough for a method's effect to show."""

    def __str__(self) -> str:
        return f"{self.preset} on {self.bench.family}"

    @property
    def options(self) -> Any:
        """The preset's options with those that the checks give."""
        return self.cls.Options(**{**self.preset_options, **self.values})

    def active(self, **more: Any) -> Active:
        """The method made ready. more: as for `Bench.active`."""
        return self.bench.active(self.cls, self.options, **more)

    @property
    def plain(self) -> Active:
        """The pipeline without a method."""
        return self.bench.active(NoMethod, NoMethod.Options())

    @property
    def acts(self) -> bool:
        """Whether it has to change the image: every method but `none`, where the pipeline shows it."""
        return self.shows and self.cls is not NoMethod

    @property
    def guidances(self) -> tuple[float, ...]:
        """The guidance values that it draws with; a method that acts through guidance refuses 1."""
        try:
            self.bench.draw(self.active(), [A], guidance=1.0)
        except CellError:
            return (5.0,)
        return (5.0, 1.0)

    def call(self) -> Call:
        """The `Call` of a guided pipeline call with two images."""
        kind, side = self.bench.prompts.kind, self.bench.side_px // 2
        packed = (self.bench.pipeline.vae.config.latent_channels, side, side) if kind.packed else None
        return Call(2, self.bench.steps, True, (A, B), kind.layout, packed, kind.timesteps, ("", ""))

    def draw(self, active: Active, *texts: str, **recipe: Any) -> np.ndarray:
        """Pixels, uint8 (B, side, side, 3)."""
        return self.bench.draw(active, texts, **recipe)[0]


# --- the checks -------------------------------------------------------------------------------------------------------


def options_survive_json(case: MethodCase) -> None:
    """Options are part of an image's key: JSON gives the same options again."""
    options = case.cls.Options(**case.preset_options)
    others = [name for name, value in case.preset_options.items() if getattr(options, name) != value]
    problem = f"the preset's '{checks.names_of(others)}' is not what `Options` makes of it"
    require(not others, problem, "Write the value as it is read.")
    again = case.cls.Options(**json.loads(options.model_dump_json()))
    same = again.model_dump() == options.model_dump()  # without those that are no part of a key, such as a file's path
    require(same, "its options are others when they are read from JSON", "Use numbers, texts and flags as options.")


def acts_and_leaves_nothing(case: MethodCase) -> None:
    """It changes the image, and afterwards the pipeline is bit for bit what it was."""
    for guidance in case.guidances:
        before = case.draw(case.plain, A, B, guidance=guidance)
        active = case.active()
        with _left_as_it_was(case):
            changed = case.draw(active, A, B, guidance=guidance)
        after = case.draw(case.plain, A, B, guidance=guidance)
        require(
            np.array_equal(before, after), "the pipeline draws another image after the method than before it",
            "Undo in `applied`, after its `yield`, everything that it changed.",
        )
        if case.acts:
            require(
                checks.worst(changed, before) > 1, f"it changes no image (guidance {guidance:g})",
                "Let `applied` act, or give the check options under which it does: options={...}.",
            )


def leaves_nothing_after_an_error(case: MethodCase) -> None:
    """`applied` undoes its changes, however the call ends; `hooked` says whether there are hooks."""
    active, pipeline, call = case.active(), case.bench.pipeline, case.call()
    case.draw(active, A, B)
    hooks = case.bench.hooks()
    with _left_as_it_was(case), active.method.applied(pipeline, active.artifact, active.options, call) as applied:
        more = case.bench.more_hooks(hooks)
    how = "hooks on the pipeline, and `hooked` is False" if more else "no hook on the pipeline, and `hooked` is True"
    require(
        bool(more) == applied.hooked, f"it has {how}",
        "Set `hooked` of what `applied` yields to whether it acts through hooks, and count their calls in `calls`.",
    )
    passed = False
    with _left_as_it_was(case):
        try:
            with active.method.applied(pipeline, active.artifact, active.options, call):
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            passed = True
    require(passed, "it swallows an interrupt", "Let errors pass in `applied`: use try ... finally, without except.")


def company_changes_no_bit(case: MethodCase) -> None:
    """At one batch size an image is the same alone, among others, and in any order."""
    active = case.active()
    mend = "Keep what belongs to one image apart from the others: no mean, maximum or state over the batch."
    for guidance in case.guidances:
        whole = case.draw(active, A, B, C, D, guidance=guidance)
        turned = case.draw(active, D, C, B, A, guidance=guidance)
        require(np.array_equal(turned, whole[::-1]), "an image depends on the order of its batch", mend)
        alone = case.draw(active, A, A, A, A, guidance=guidance)
        require(np.array_equal(alone[0], whole[0]), "an image depends on the others of its batch", mend)
        mixed = case.draw(active, C, A, D, D, guidance=guidance)[[1, 0, 2]]
        require(np.array_equal(mixed, whole[[0, 2, 3]]), "an image depends on the others of its batch", mend)


def batch_size_changes_one_level_at_most(case: MethodCase) -> None:
    """Kernels differ in the last bit at another batch size, and nothing else does."""
    active = case.active()
    whole = case.draw(active, A, B, C, D)
    most = max(checks.worst(case.draw(active, text)[0], whole[i]) for i, text in enumerate(PROMPTS))
    problem = f"an image drawn alone differs by {most} levels from the same one in a batch of four"
    require(most <= 1, problem, "Let nothing that it computes depend on `call.images`.")


def no_state_survives(case: MethodCase) -> None:
    """An image and its trace do not depend on what was drawn before."""
    active = case.active()
    mend = "Keep all state in what `applied` yields, which is new for each call, or keep none."
    (alone, *_), (trace, *_) = case.bench.draw(active, [A, A])
    for texts, place in (([B, A], 1), ([A, A], 1), ([A, B], 0)):
        pixels, traces = case.bench.draw(active, texts)
        require(np.array_equal(pixels[place], alone), "an image depends on what was drawn before it", mend)
        require(traces[place] == trace, "an image's trace depends on what was drawn before it", mend)


def the_same_bits_whatever_else_is_drawn(case: MethodCase) -> None:
    """A run that is resumed in another process gives the same images: nothing is drawn from global generators."""
    images = []
    for seed in (1, 2):
        with checks.other_noise(seed):
            images.append(case.draw(case.active(), A, B))
    require(
        np.array_equal(images[0], images[1]), "it gives another image each time: it draws random numbers without a seed",
        "Draw from torch.Generator().manual_seed(...) with a seed that is an option.",
    )


def guidance_one_draws_or_is_refused(case: MethodCase) -> None:
    """Without guidance there is no negative half: a method that needs it raises `CellError` with a hint."""
    active, hooks = case.active(), case.bench.hooks()
    try:
        pixels, traces = case.bench.draw(active, [A, B], guidance=1.0)
    except CellError as error:
        fits = "guidance" in error.message and error.hint
        require(fits, f"at guidance 1 it fails ({error.message})", "Raise CellError that names guidance, with a hint.")
        require(not case.bench.more_hooks(hooks), "it leaves a hook where it refuses", "Refuse before a hook is put on.")
        return
    require(len(pixels) == len(traces) == 2, "at guidance 1 it gives not one image a prompt", "See `Call.guided`.")
    require(not np.array_equal(pixels, case.draw(active, A, B)), "guidance makes no difference", "Let the pipeline guide.")


def trace_is_json_for_each_image(case: MethodCase) -> None:
    """One dict an image, which JSON can hold; of a method that decides, it says in how many steps it acted."""
    _, traces = case.bench.draw(case.active(), [A, B, C])
    require(len(traces) == 3, f"its trace has {len(traces)} entries for 3 images", "Return a dict for each image.")
    again = json.loads(json.dumps(traces, allow_nan=False))
    require(again == traces, "its trace is not JSON", "Use numbers, texts, lists and dicts.")
    if case.meta["decides"]:
        whole = all(isinstance(trace.get("redirected_steps"), int) for trace in traces)
        require(whole, "it decides, and its trace has no `redirected_steps`", "Say for each image in how many steps it acted.")


def artifact_is_the_same_twice(case: MethodCase) -> None:
    """Its sha256 is part of the image's key: another one would draw everything again."""
    with checks.other_noise(1):
        first = case.active().artifact
    with checks.other_noise(2):
        second = case.active().artifact
    if first is None and second is None:
        return
    mend = "Return base.Artifact(payload, sha256), with the digest of what the payload was made from."
    if not isinstance(first, Artifact) or not isinstance(second, Artifact):
        raise AssertionError(f"`prepare` returns no Artifact. {mend}")
    require(first.sha256 == second.sha256, "`prepare` gives another sha256 each time", mend)
    digits = len(first.sha256) == 64 and set(first.sha256) <= set("0123456789abcdef")
    require(digits, f"the artifact's sha256 is no sha256 ('{first.sha256[:12]}')", mend)
    require(first.parameters >= 0, "its number of parameters is negative", "Count them, or leave it out.")
    plain(first.card)


def what_it_reads_is_in_the_key(case: MethodCase) -> None:
    """A method that says `"reads_concept": False` reads nothing of it: in a run it would end there."""
    if not case.meta["reads_concept"]:
        case.draw(case.active(concept=Unread()), A)


CHECKS: tuple[checks.Check[MethodCase], ...] = (
    options_survive_json, acts_and_leaves_nothing, leaves_nothing_after_an_error, company_changes_no_bit,
    batch_size_changes_one_level_at_most, no_state_survives, the_same_bits_whatever_else_is_drawn,
    guidance_one_draws_or_is_refused, trace_is_json_for_each_image, artifact_is_the_same_twice, what_it_reads_is_in_the_key,
)  # fmt: skip


@contextmanager
def _left_as_it_was(case: MethodCase) -> Iterator[None]:
    """Raises `AssertionError` naming what of the pipeline is left changed: hooks, processors, functions, modes, weights."""
    __tracebackhide__ = True
    hooks, before = case.bench.hooks(), Untouched(case.bench.pipeline)
    yield
    left = case.bench.more_hooks(hooks)
    with checks.as_assertion():
        before.check(case.preset)  # which puts back what it finds
    require(not left, f"it leaves a hook on {checks.names_of(left)}", "Use `with base.hooks(handle): yield`.")


# --- all of them ------------------------------------------------------------------------------------------------------


def cases_of(
    method: str | type, options: Mapping[str, Any] | None = None, families: Sequence[str] | None = None
) -> list[MethodCase]:
    """What there is to check: each preset of a method on each family of pipelines that it fits.

    method: its class; or its name, or one preset's. The other arguments are those of `check_method`.
    Raises `AssertionError` where the method is unknown, its metadata is wrong, or it is none that acts while sampling.
    """
    with checks.as_assertion():
        cls, meta = checks.plugin_of("methods", method)
    require(meta["kind"] == "inference", f"{meta['name']} changes weights", "Use check_weight_method, or WeightMethodTests.")
    return [
        MethodCase(cls, meta, preset, dict(options or {}), bench(family), values, family in SHOWING)
        for preset, values in presets_of(meta, method)
        for family in families or families_of(meta, preset)
    ]


def presets_of(meta: Mapping[str, Any], method: str | type) -> list[tuple[str, dict[str, Any]]]:
    """The presets that are meant, with their options: one where it was named, else all."""
    every = list(meta["presets"].items())
    return [(name, values) for name, values in every if name == method] or every


def families_of(meta: Mapping[str, Any], preset: str) -> list[str]:
    """Families that a preset fits and that there is a tiny pipeline of; `sd` stands for `pocket`, too."""
    fitting = meta.get("preset_families", {}).get(preset, meta["families"])
    chosen = [family for family in FAMILIES if family in fitting or "*" in fitting]
    return [family for family in chosen if family != "pocket" or "sd" not in chosen]


def check_method(method: str | type, *, options: Mapping[str, Any] | None = None, families: Sequence[str] | None = None) -> None:
    """The battery of a method that acts while sampling, on tiny random pipelines in memory.

    method: its class, or a name: of an installed package's method, of one under `@srbench.method` in this process, or of one
    preset. options: values that the checks use, such as the path of a small stand-in for a file that it loads, or a strength
    that shows on a random pipeline. families: of `srbench.testing.FAMILIES`; those that the metadata names, where left out.
    Raises `AssertionError` with one sentence on what is wrong and one on how to mend it.
    """
    __tracebackhide__ = True
    for case in cases_of(method, options, families):
        checks.run(CHECKS, case)



