"""The checks of every method that changes weights, one function each, on one preset.

`check_weight_method` runs them all; `srbench.testing.WeightMethodTests` is the same as pytest tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from srbench.backbones.checkpoint import Checkpoint, Passport, examine, laid_over
from srbench.catalog import plugins
from srbench.engine.sample import PromptCache
from srbench.engine.untouched import Untouched
from srbench.methods.base import BackboneInfo, Edit, Tell, Unread, quiet
from srbench.testing import checks
from srbench.testing.bench import PROMPTS, Bench, bench
from srbench.testing.checks import require
from srbench.testing.fingerprint import left_alone, same
from srbench.testing.methods import families_of, presets_of

A, *_ = PROMPTS


@dataclass
class WeightCase:
    """A preset of a weight method on a tiny pipeline."""

    cls: Any
    """The method's class."""
    meta: Mapping[str, Any]
    preset: str
    values: Mapping[str, Any]
    """Options that the checks give, over those of the preset; what `Options` does not have is left out."""
    bench: Bench
    preset_options: Mapping[str, Any] = field(default_factory=dict)
    """The preset's own options."""

    def __str__(self) -> str:
        return f"{self.preset} on {self.bench.family}"

    def options(self, cls: Any, preset_options: Mapping[str, Any]) -> Any:
        """Options of a method with those that the checks give."""
        fitting = {name: value for name, value in self.values.items() if name in cls.Options.model_fields}
        return cls.Options(**{**preset_options, **fitting})

    @contextmanager
    def based(self) -> Iterator[BackboneInfo]:
        """The backbone as the engine hands it to the method: with the checkpoint that it declares as its base."""
        on, base = self.bench.info(), self.meta.get("base")
        if base is None:
            yield on
            return
        name, values = plugins.preset(base["preset"])
        cls = plugins.load("methods", name)
        under = cls.erase(on, self.bench.concept, self.options(cls, {**values, **base["options"]}), quiet)
        state = {part: getattr(on.pipeline, part).state_dict() for part in under.tensors}
        original = {part: {name: state[part][name].clone() for name in tensors} for part, tensors in under.tensors.items()}
        with laid_over(on.pipeline, Checkpoint(base["preset"], under.tensors, passport(on.pipeline, under))):
            yield replace(on, original=original)

    def erase(self, tell: Tell = quiet, concept: Any = None) -> Edit:
        """The edit that the method returns."""
        with self.based() as info:
            edit: Edit = self.cls.erase(info, concept or self.bench.concept, self.options(self.cls, self.preset_options), tell)
        mend = "Return base.Edit({component: {name in its state dict: new value}})."
        require(isinstance(edit, Edit), f"`erase` returns {type(edit).__name__}", mend)
        return edit


def passport(pipeline: Any, edit: Edit) -> Passport:
    """The checkpoint's passport. Raises `UsageError` where the checkpoint does not fit the pipeline."""
    return examine(pipeline, edit.tensors, where="here", sha256="sha", kind="srbench", form="safetensors", partial=True)


# --- the checks -------------------------------------------------------------------------------------------------------


def options_survive_json(case: WeightCase) -> None:
    """Options are part of a checkpoint's key: JSON gives the same options again."""
    options = case.cls.Options(**case.preset_options)
    again = case.cls.Options(**json.loads(json.dumps(options.model_dump(mode="json"), allow_nan=False)))
    require(again == options, "its options are others when they are read from JSON", "Use numbers, texts and flags as options.")


def erasing_twice_gives_equal_weights(case: WeightCase) -> None:
    """The same weights and card, whatever is drawn from the global generators in between."""
    edits = []
    for seed in (1, 2):
        with checks.other_noise(seed):
            edits.append(case.erase())
    first, second = edits
    mend = "Draw from torch.Generator().manual_seed(...) with a seed that is an option."
    problem = "it gives other weights each time: it draws random numbers without a seed"
    require(same(first.tensors, second.tensors), problem, mend)
    require(first.card == second.card, "its card is another one each time", "Leave times and paths out of `Edit.card`.")


def the_pipeline_is_left_alone(case: WeightCase) -> None:
    """The pipeline that it is given is bit for bit as before: weights, modes, gradients, scheduler, global noise."""
    pipeline = case.bench.pipeline
    pipeline.scheduler.set_timesteps(7)
    with case.based() as info:
        untouched = Untouched(pipeline)
        with left_alone(pipeline):
            case.cls.erase(info, case.bench.concept, case.options(case.cls, case.preset_options), quiet)
        with checks.as_assertion():
            untouched.check(case.preset)


def it_returns_what_it_changed_and_nothing_else(case: WeightCase) -> None:
    """Tensors named and shaped as the backbone's, float32 on the CPU, detached, in memory of their own, and other values."""
    edit, pipeline = case.erase(), case.bench.pipeline
    require(edit.tensors and all(edit.tensors.values()), "it returns no weights", "Return the weights that it changes.")
    for part, tensors in edit.tensors.items():
        module = getattr(pipeline, part, None)
        require(module is not None, f"the pipeline has no component '{part}'", "Name `unet`, `transformer` or `text_encoder`.")
        _check_tensors(part, module.state_dict(), tensors)  # type: ignore[union-attr]  # is not None, as required above
    examined = passport(pipeline, edit)
    count = sum(len(tensors) for tensors in edit.tensors.values())
    problem = "some weights have no place in the backbone, or do not change"
    require(examined.changed == examined.matched == count, problem, "Leave them out.")
    require(examined.relative_change > 0, "it changes nothing", "Return other values than the backbone's.")


def _check_tensors(part: str, state: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    strange = tensors.keys() - state.keys()
    require(not strange, f"{part} has no weight '{checks.names_of(strange)}'", "Use the names of its state dict.")
    for name, value in tensors.items():
        where, shape = f"{part}.{name}", tuple(state[name].shape)
        require(value.shape == shape, f"{where} has shape {tuple(value.shape)}", f"It has to be {shape}.")
        place = (value.dtype, value.device.type, value.requires_grad)
        mend = "Return value.detach().float().cpu().contiguous()."
        require(place == (torch.float32, "cpu", False), f"{where} is not detached float32 on the CPU", mend)
        require(value.is_contiguous(), f"{where} is not contiguous in memory", mend)
        shared = value.data_ptr() == state[name].data_ptr()
        require(not shared, f"{where} is the pipeline's own memory", "Return a copy: value.clone().")
        require(bool(torch.isfinite(value).all()), f"{where} holds values that are not numbers", "Check the arithmetic.")
        require(not torch.equal(value, state[name]), f"{where} is returned and does not change", "Return only what changes.")


def the_checkpoint_changes_pixels_and_goes_away(case: WeightCase) -> None:
    """With its weights in the pipeline the image changes; without them it is what it was."""
    edit, pipeline = case.erase(), case.bench.pipeline
    before = _first_image(case)
    with left_alone(pipeline, but=("scheduler",)):  # drawing steps it
        with laid_over(pipeline, Checkpoint(case.preset, edit.tensors, passport(pipeline, edit))):
            during = _first_image(case)
        after = _first_image(case)
    require(np.isfinite(during).all(), "its weights give images that are not numbers", "Check the arithmetic.")
    mend = "Give the check options under which it acts: options={...}."
    require(np.abs(during - before).max() > 1e-6, "its weights change no image", mend)
    require(np.array_equal(before, after), "the image stays changed without the checkpoint", "Change no weight in place.")


def _first_image(case: WeightCase) -> np.ndarray:
    """One image before it is rounded to 8 bits, float32."""
    bench, prompts = case.bench, PromptCache(case.bench.pipeline)  # encoded anew: the text encoder may have changed
    spec, kind = bench.spec(A), prompts.kind
    positive, negative = prompts.encode([A], None), prompts.encode([""], None, negative=True)
    channels, scale = bench.pipeline.vae.config.latent_channels, bench.pipeline.vae_scale_factor
    shape = (1, channels, spec.height // scale, spec.width // scale)
    latents = kind.latents(torch.randn(shape, generator=torch.Generator().manual_seed(spec.seed)))
    with torch.inference_mode():
        output = bench.pipeline(
            **kind.arguments(positive, negative), latents=latents, num_inference_steps=spec.steps, guidance_scale=spec.guidance,
            height=spec.height, width=spec.width, output_type="np", generator=torch.Generator().manual_seed(spec.seed),
        )
    return np.asarray(output.images[0])


def the_card_is_json(case: WeightCase) -> None:
    """Its card survives JSON."""
    card = case.erase().card
    try:
        again = json.loads(json.dumps(card, allow_nan=False))
    except (TypeError, ValueError) as error:
        mend = "Put finite numbers, texts, lists and dicts into `Edit.card`."
        raise AssertionError(f"its card is not JSON ({error}). {mend}") from error
    require(again == card, "its card is another one after JSON", "Use lists in place of tuples, and texts as keys.")


def progress_reaches_its_total(case: WeightCase) -> None:
    """The progress that it reports never goes back, and ends at its total."""
    reports: dict[str, list[tuple[int, int]]] = {}
    case.erase(lambda phase, done, total, note: reports.setdefault(phase, []).append((done, total)))
    mend = "Call tell(phase, done, total, note) with done from 1 to total."
    require(reports, "it says nothing of its progress", mend)
    for phase, steps in reports.items():
        require(steps == sorted(steps), f"its progress goes back ({phase})", mend)
        require(all(0 <= done <= total for done, total in steps), f"its progress is beyond the total ({phase})", mend)
    done, total = list(reports.values())[-1][-1]
    require(done == total, f"its progress ends at {done} of {total}", mend)


def what_it_reads_is_in_the_key(case: WeightCase) -> None:
    """A method that says `"reads_concept": False` reads nothing of it: in a run it would end there."""
    if not case.meta["reads_concept"]:
        case.erase(concept=Unread())


CHECKS: tuple[checks.Check[WeightCase], ...] = (
    options_survive_json, erasing_twice_gives_equal_weights, the_pipeline_is_left_alone,
    it_returns_what_it_changed_and_nothing_else, the_checkpoint_changes_pixels_and_goes_away, the_card_is_json,
    progress_reaches_its_total, what_it_reads_is_in_the_key,
)  # fmt: skip


# --- all of them ------------------------------------------------------------------------------------------------------


def cases_of(
    method: str | type, options: Mapping[str, Any] | None = None, families: Sequence[str] | None = None
) -> list[WeightCase]:
    """What there is to check: each preset of a method on each family of pipelines that it fits.

    method: its class; or its name, or one preset's. The other arguments are those of `check_weight_method`.
    Raises `AssertionError` where the method is unknown, its metadata is wrong, or it changes no weights.
    """
    with checks.as_assertion():
        cls, meta = checks.plugin_of("methods", method)
    require(meta["kind"] == "weight", f"{meta['name']} acts while sampling", "Use check_method, or MethodTests.")
    return [
        WeightCase(cls, meta, preset, dict(options or {}), bench(family), values)
        for preset, values in presets_of(meta, method)
        for family in families or families_of(meta, preset)
    ]


def check_weight_method(
    method: str | type, *, options: Mapping[str, Any] | None = None, families: Sequence[str] | None = None
) -> None:
    """The battery of a method that changes weights, on tiny random pipelines in memory.

    method: its class, or a name: of an installed package's method, of one under `@srbench.method` in this process, or of one
    preset. options: values that the checks use, such as few iterations of a method that trains. families: of
    `srbench.testing.FAMILIES`; those that the metadata names, where left out.
    Raises `AssertionError` with one sentence on what is wrong and one on how to mend it.
    """
    __tracebackhide__ = True
    for case in cases_of(method, options, families):
        checks.run(CHECKS, case)
