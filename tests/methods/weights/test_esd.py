"""ESD: its target and loss, which weights it trains, where x_t comes from, and that it fails aloud."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, PNDMScheduler, UNet2DConditionModel

from srbench.catalog import plugins
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError
from srbench.methods import esd, finetune
from srbench.methods.base import BackboneInfo, quiet

PRESETS = tuple(esd.METHOD["presets"])


def options(preset: str = "esd-x", **changes: Any) -> esd.Options:
    quick = {"iterations": 2, "steps": 3} | changes
    return esd.Options(**(plugins.preset(preset)[1] | quick))


def erase(on: BackboneInfo, concept: ConceptSpec, chosen: esd.Options) -> dict[str, torch.Tensor]:
    return esd.Esd.erase(on, concept, chosen, quiet).tensors["unet"]


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("guidance", [2.0, 3.5])
def test_target_is_the_refreshed_recipes_too(guidance: float) -> None:
    """With a prompt that is erased from: its prediction, less the concept's direction times the negative guidance."""
    source, empty, concept = (random(seed, 2, 4, 4, 4) for seed in range(3))
    refreshed = source - guidance * (concept - empty)
    assert torch.allclose(esd.target(source, empty, concept, guidance - 1), refreshed, atol=1e-5)


@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0])
def test_target_from_the_concept_alone_is_the_papers(eta: float) -> None:
    empty, concept = random(0, 2, 4, 4, 4), random(1, 2, 4, 4, 4)
    assert torch.allclose(esd.target(concept, empty, concept, eta), empty - eta * (concept - empty), atol=1e-5)


def test_target_lies_beyond_the_empty_prompt() -> None:
    empty, concept = torch.tensor(1.0), torch.tensor(3.0)
    assert [float(esd.target(concept, empty, concept, eta)) for eta in (0.5, 1.0, 2.0)] == [0.0, -1.0, -3.0]


def test_refreshed_code_at_two_is_twice_the_empty_prompt_less_the_concept() -> None:
    empty, concept = random(0, 2, 4, 4, 4), random(1, 2, 4, 4, 4)
    assert torch.allclose(esd.target(concept, empty, concept, 1.0), 2 * empty - concept, atol=1e-6)


def test_loss_reads_what_is_erased_from_and_what_is_erased(toy: Any) -> None:
    """Frozen on the target's side, edited on the other; the edited model sees the whole prompt only."""
    nets = finetune.copies(toy, "x", "esd")
    for value in nets.parameters.values():
        value.data.mul_(1.5)
    x, t = random(0, 2, 4, 4, 4), torch.tensor(400)
    sources, concepts = finetune.encode(toy, ["a red box", "a red crate"]), finetune.encode(toy, ["a box", "a crate"])
    empty = finetune.encode(toy, [""])
    with torch.no_grad():
        source, concept, nothing = (
            toy.unet(x, t, encoder_hidden_states=prompts).sample for prompts in (sources, concepts, empty.repeat(2, 1, 1))
        )
        said = nets.edited(x, t, encoder_hidden_states=sources).sample
    expected = (said - (source - 2 * (concept - nothing))).square().mean()
    assert torch.allclose(esd.loss(nets, x, t, sources, concepts, empty, 1.0), expected, rtol=1e-4)


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_loss_is_the_papers(toy: Any, eta: float) -> None:
    """Frozen on the target's side, edited on the other; each side's prompts in their place."""
    nets = finetune.copies(toy, "x", "esd")
    for value in nets.parameters.values():
        value.data.mul_(1.5)
    x, t = random(0, 2, 4, 4, 4), torch.tensor(400)
    prompts, empty = finetune.encode(toy, ["a box", "a crate"]), finetune.encode(toy, [""])
    with torch.no_grad():
        away = toy.unet(x, t, encoder_hidden_states=empty.repeat(2, 1, 1)).sample
        toward = toy.unet(x, t, encoder_hidden_states=prompts).sample
        said = nets.edited(x, t, encoder_hidden_states=prompts).sample
    expected = (said - (away - eta * (toward - away))).square().mean()
    assert torch.allclose(esd.loss(nets, x, t, prompts, prompts, empty, eta), expected, rtol=1e-4)


def test_loss_goes_down(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """On latents and steps that training did not see, over every phrase."""
    tensors = erase(on_toy, box, options(lr=3e-3, iterations=60, batch=2))
    toy = on_toy.pipeline
    prompts, empty = finetune.encode(toy, ["a box", "a crate"]), finetune.encode(toy, [""])

    def measured(new: dict[str, torch.Tensor]) -> float:
        nets = finetune.copies(toy, "x", "esd")
        nets.edited.load_state_dict(new, strict=False)  # changed tensors only; the battery checks that every name fits
        sampler, rng = finetune.Sampler(toy, empty, 3, 3.0), torch.Generator().manual_seed(99)
        drawn = [sampler.noisy(toy.unet, prompts, rng) for _ in range(12)]
        return sum(float(esd.loss(nets, x, t, prompts, prompts, empty, 1.0).detach()) for x, t in drawn)

    assert measured(tensors) < 0.5 * measured({})


def test_official_recipes() -> None:
    """facts 4.1: the refreshed code and the paper's."""
    read = {name: esd.Options(**plugins.preset(name)[1]) for name in PRESETS}
    assert {(o.iterations, o.lr, o.x_t_from) for name, o in read.items() if name.endswith("old")} == {(1000, 1e-5, "edited")}
    assert {(o.iterations, o.lr, o.x_t_from) for name, o in read.items() if "old" not in name} == {(200, 5e-5, "frozen")}
    assert {(o.eta, o.start_guidance, o.batch, o.steps) for o in read.values()} == {(1.0, 3.0, 1, 50)}
    assert {name: o.parameters for name, o in read.items()} == {
        "esd-x": "x", "esd-u": "u", "esd-x-strict": "x-strict", "esd-x-old": "x", "esd-u-old": "noxattn",
    }


def is_norm(name: str) -> bool:
    return "norm" in name.rsplit(".", 2)[-2]


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_trains_its_own_weights(on_toy: BackboneInfo, box: ConceptSpec, preset: str) -> None:
    names, every = set(erase(on_toy, box, options(preset))), set(on_toy.pipeline.unet.state_dict())
    cross = {name for name in every if ".attn2." in name}
    expected = {
        "x": cross, "u": {name for name in every - cross if not is_norm(name)},
        "noxattn": {n for n in every - cross if n.split(".")[0] not in ("conv_norm_out", "conv_out", "time_embedding")},
        "x-strict": {name for name in cross if name.split(".attn2.")[1] in ("to_k.weight", "to_v.weight")},
    }[options(preset).parameters]
    assert names <= expected
    # Adam moves every weight that has a gradient; a bias before a normalisation has none.
    assert len(names) > 0.7 * len(expected)
    assert any(map(is_norm, names)) is (preset == "esd-u-old")


def test_all_trains_both_sides_and_no_norm(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    names = erase(on_toy, box, options(parameters="all"))
    assert {".attn2." in name for name in names} == {True, False}
    assert not any(map(is_norm, names))


@pytest.fixture(scope="module")
def sd14() -> UNet2DConditionModel:
    """A U-Net of SD 1.4's structure, without weights: diffusers' defaults are its config, but for the text's width."""
    with torch.device("meta"):
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


@pytest.mark.parametrize(
    ("parameters", "count"), [("x", 80), ("x-strict", 32), ("u", 388), ("all", 468), ("noxattn", 598)]
)
def test_stable_diffusion_trains_as_many_tensors_as_officially(sd14: Any, parameters: str, count: int) -> None:
    """esd_sd.py's and train-esd.py's rules, applied to SD 1.4's U-Net of 686 tensors."""
    assert len(sd14.state_dict()) == len(finetune.chosen(sd14, "all")) == 686
    assert len(finetune.chosen(sd14, esd.RULES[parameters])) == count


def refreshed_rule(unet: torch.nn.Module, keep: Callable[[str], bool]) -> set[str]:
    """esd_sd.py's way: modules by the name of their class, then all that they hold."""
    named = [(path, module) for path, module in unet.named_modules() if type(module).__name__ in ("Linear", "Conv2d")]
    return {f"{path}.{name}" for path, module in named if keep(path) for name, _ in module.named_parameters()}


def test_stable_diffusion_trains_the_very_tensors(sd14: Any) -> None:
    assert finetune.chosen(sd14, "u").keys() == refreshed_rule(sd14, lambda path: "attn2" not in path)
    assert finetune.chosen(sd14, "x").keys() == refreshed_rule(sd14, lambda path: "attn2" in path)
    assert finetune.chosen(sd14, "layers").keys() == refreshed_rule(sd14, lambda path: True)
    left_out = sd14.state_dict().keys() - finetune.chosen(sd14, "noxattn").keys()
    assert {name.split(".")[0] for name in left_out if "attn2" not in name} == {"conv_norm_out", "conv_out", "time_embedding"}


@pytest.mark.parametrize("preset", ["esd-x", "esd-x-old"])
def test_x_t_comes_from_the_recipes_model(
    on_toy: BackboneInfo, box: ConceptSpec, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, noisy = [], finetune.Sampler.noisy

    def spied(self: Any, unet: Any, prompts: Any, rng: Any) -> Any:
        asked.append(unet is on_toy.pipeline.unet)
        return noisy(self, unet, prompts, rng)

    monkeypatch.setattr(finetune.Sampler, "noisy", spied)
    erase(on_toy, box, options(preset))
    assert asked == [preset == "esd-x"] * 2


def test_x_t_source_matters(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """From the second iteration on, the edited model is another one."""
    frozen, edited = (erase(on_toy, box, options(x_t_from=which, iterations=3, lr=1e-2)) for which in ("frozen", "edited"))
    assert any(not torch.equal(frozen[name], edited[name]) for name in frozen)


def test_each_sample_has_a_phrase_of_its_own(on_toy: BackboneInfo, box: ConceptSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, noisy = [], finetune.Sampler.noisy

    def spied(self: Any, unet: Any, prompts: torch.Tensor, rng: Any) -> Any:
        seen.append(prompts)
        return noisy(self, unet, prompts, rng)

    monkeypatch.setattr(finetune.Sampler, "noisy", spied)
    erase(on_toy, box, options(iterations=6, batch=2))
    known = finetune.encode(on_toy.pipeline, ["a box", "a crate"])
    said = [[int((known - one).abs().amax((1, 2)).argmin()) for one in prompts] for prompts in seen]
    assert {len(batch) for batch in said} == {2}
    assert {which for batch in said for which in batch} == {0, 1}
    assert any(len(set(batch)) == 2 for batch in said)


def test_phrases_stand_in_contexts_when_asked(on_toy: BackboneInfo, box: ConceptSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, encode = [], finetune.encode
    monkeypatch.setattr(finetune, "encode", lambda pipeline, texts: asked.append(list(texts)) or encode(pipeline, texts))
    card = esd.Esd.erase(on_toy, box, options(contexts="{}; {} red"), quiet).card
    assert asked[:2] == [["a box", "a box red", "a crate", "a crate red"], ["a box", "a box", "a crate", "a crate"]]
    assert (card["phrases"], card["prompts"]) == (["a box", "a crate"], 4)


def test_names_only(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    cards = {which: esd.Esd.erase(on_toy, box, options(prompts=which), quiet).card for which in ("names", "all")}
    assert cards["names"]["phrases"] == ["a box"]
    assert cards["all"]["phrases"] == ["a box", "a crate"]


def test_seed_decides(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    first, second = erase(on_toy, box, options(seed=0)), erase(on_toy, box, options(seed=1))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_works_without_anchors(on_toy: BackboneInfo, without_anchors: ConceptSpec) -> None:
    assert erase(on_toy, without_anchors, options())


def test_loss_that_is_not_finite_fails_at_once(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    said: list[int] = []
    with pytest.raises(CellError, match="iteration 2 is not finite") as error:
        esd.Esd.erase(on_toy, box, options(lr=1e30, iterations=50), lambda phase, done, total, note: said.append(done))
    assert "Lower the rate" in error.value.hint
    assert said == [1]


def test_edit_that_changes_nothing_is_refused(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(CellError, match="nothing changed"):
        erase(on_toy, box, options(lr=1e-30))


def test_pipeline_of_another_kind_is_refused(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    on_toy.pipeline.unet.register_to_config(addition_embed_type="text_time")
    with pytest.raises(UsageError, match="read a prompt only"):
        erase(on_toy, box, options())


# --- sampling, which the training methods share --------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [None, EulerDiscreteScheduler, PNDMScheduler])
def test_sampler_draws_what_the_pipeline_draws(toy: Any, solver: Any) -> None:
    if solver is not None:
        toy.scheduler = solver.from_config(toy.scheduler.config)
    rng, size = torch.Generator().manual_seed(5), (2, 4, 4, 4)
    prompts, empty = finetune.encode(toy, ["a box", "a cup"]), finetune.encode(toy, [""])
    drawn = finetune.Sampler(toy, empty, 4, 6.0).clean(toy.unet, prompts, rng)
    expected = toy(
        ["a box", "a cup"], latents=torch.randn(size, generator=torch.Generator().manual_seed(5)), num_inference_steps=4,
        guidance_scale=6.0, height=8, width=8, output_type="latent",
    ).images
    assert torch.allclose(drawn, expected, atol=1e-4)


def on_the_way(toy: Any, noise: torch.Tensor) -> tuple[list[torch.Tensor], list[int]]:
    """The pipeline's own latents before each of four steps, and the steps' timesteps."""
    seen = [noise]

    def keep(pipeline: Any, step: int, t: torch.Tensor, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(tensors["latents"].clone())
        return {}

    size = {"height": 8, "width": 8, "output_type": "latent"}
    toy("a box", latents=noise, num_inference_steps=4, guidance_scale=3.0, callback_on_step_end=keep, **size)
    return seen, toy.scheduler.timesteps.tolist()


def test_noisy_stops_at_a_random_step_on_the_way(toy: Any) -> None:
    prompts, empty = finetune.encode(toy, ["a box"]), finetune.encode(toy, [""])
    sampler, steps = finetune.Sampler(toy, empty, 4, 3.0), set()
    for seed in range(12):
        rng = torch.Generator().manual_seed(seed)
        step, noise = int(torch.randint(4, (), generator=rng)), torch.randn((1, 4, 4, 4), generator=rng)
        x, t = sampler.noisy(toy.unet, prompts, torch.Generator().manual_seed(seed))
        latents, times = on_the_way(toy, noise)
        assert int(t) == times[step]
        assert torch.allclose(x, latents[step], atol=1e-4)
        steps.add(step)
    assert steps == {0, 1, 2, 3}


def test_curve_is_the_means_of_its_spans() -> None:
    assert finetune.curve([1.0, 3.0, 5.0, 7.0], points=2) == [[2, 2.0], [4, 6.0]]
    assert finetune.curve([1.0, 2.0], points=20) == [[1, 1.0], [2, 2.0]]
    assert len(finetune.curve([0.5] * 1000)) == finetune.CURVE_POINTS


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CellError, match="not finite"):
        finetune.changed({"w": torch.ones(2)}, {"w": torch.tensor([1.0, float("nan")])}, "esd")


def test_rounding_is_not_an_edit() -> None:
    """One unit in the last place of a few weights is what solving for 'no change' leaves behind."""
    before, after = torch.ones(100), torch.ones(100)
    after[:10] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    with pytest.raises(CellError, match="nothing changed"):
        finetune.changed({"w": before}, {"w": after}, "esd")


def test_original_values_are_left_out() -> None:
    before = {"same": torch.ones(2), "other": torch.ones(2)}
    assert set(finetune.changed(before, {"same": torch.ones(2), "other": torch.zeros(2)}, "esd")) == {"other"}


def test_half_precision_pipeline_gives_float32(build_toy: Callable[[], Any], box: ConceptSpec, on_toy: BackboneInfo) -> None:
    half = build_toy().to(dtype=torch.bfloat16)
    tensors = erase(replace(on_toy, pipeline=half), box, options())
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    assert half.unet.dtype == torch.bfloat16
