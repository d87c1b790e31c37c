"""SLD: its formula, its warm-up and momentum, the widened batch, and parity with diffusers' own pipeline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.pipelines.deprecated.stable_diffusion_safe import SafetyConfig, StableDiffusionPipelineSafe
from torch import Tensor

from srbench.backbones.pipelines import Conditioning
from srbench.errors import CellError, UsageError
from srbench.methods import base
from srbench.methods.inversion import Inversion
from srbench.methods.sld import METHOD, Options, SldMethod, Steer, steered
from srbench.testing.bench import TOKENS
from srbench.testing.tiny import WIDTH

LEVELS = ("weak", "medium", "strong", "max")
SIZE = {"guidance_scale": 6.0, "height": 8, "width": 8}
TEXTS = ["ab box", "cd"]


def options(preset: str = "sld-medium", **changes: Any) -> Options:
    return Options(**(METHOD["presets"][preset] | changes))


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def final(pipeline: Any, steps: int) -> Tensor:
    return pipeline(
        TEXTS, latents=random(1, 2, 4, 4, 4), num_inference_steps=steps, output_type="latent", **SIZE
    ).images  # (2, 4, 4, 4)


def steered_final(bench: Any, chosen: Options, steps: int) -> tuple[Tensor, list[dict[str, Any]]]:
    active, call = bench.active(SldMethod, chosen), base.Call(2, steps, True, tuple(TEXTS))
    with SldMethod.applied(bench.pipeline, active.artifact, chosen, call) as steer:
        return final(bench.pipeline, steps), steer.trace()


def diffusers_final(bench: Any, concept: str, steps: int, **config: Any) -> Tensor:
    parts = {n: getattr(bench.pipeline, n) for n in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    pipeline = StableDiffusionPipelineSafe(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.safety_concept = concept
    kept: list[Tensor] = []
    pipeline(
        TEXTS, latents=random(1, 2, 4, 4, 4), num_inference_steps=steps, output_type="np",
        callback=lambda step, t, latents: kept.append(latents), callback_steps=1, **SIZE, **config,
    )
    return kept[-1]


# --- parity --------------------------------------------------------------------------------------------------------------


def test_presets_are_diffusers_levels() -> None:
    for level in LEVELS:
        theirs, ours = getattr(SafetyConfig, level.upper()), options(f"sld-{level}")
        assert ours.warmup == theirs["sld_warmup_steps"]
        assert ours.scale == theirs["sld_guidance_scale"]
        assert ours.threshold == theirs["sld_threshold"]
        assert ours.momentum_scale == theirs["sld_momentum_scale"]
        assert ours.momentum_beta == theirs["sld_mom_beta"]
    assert options("sld-weak-200") == options("sld-weak", scale=200)
    for level in ("medium", "max"):
        assert options(f"sld-{level}+ci") == options(f"sld-{level}", concept="inversion")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("steps", [20, 6])
def test_final_latents_are_diffusers(bench: Any, level: str, steps: int) -> None:
    """To 1e-5 of the largest. With 6 steps the warm-up of weak, medium and strong is longer than the sampling."""
    chosen = options(f"sld-{level}", steps="absolute", text="a box")
    got, trace = steered_final(bench, chosen, steps)
    expected = diffusers_final(bench, "a box", steps, **getattr(SafetyConfig, level.upper()))
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()
    assert [t["guided_steps"] for t in trace] == [max(steps - chosen.warmup, 0)] * 2
    moved = (got - final(bench.pipeline, steps)).abs().max()
    assert moved > 1e-3 if steps > chosen.warmup else moved < 1e-5


# --- formula -------------------------------------------------------------------------------------------------------------


def by_element(e0: float, ec: float, es: float, nu: float, o: Options) -> tuple[float, float, float]:
    """2211.05105, equations 4 to 8, for one number."""
    mu = 0.0 if ec - es >= o.threshold else min(1.0, o.scale * abs(ec - es))
    gamma = mu * (es - e0) + o.momentum_scale * nu
    return gamma, o.momentum_beta * nu + (1 - o.momentum_beta) * gamma, mu


@pytest.mark.parametrize("preset", ["sld-weak", "sld-medium", "sld-strong", "sld-max"])
def test_formula_on_random_tensors(preset: str) -> None:
    chosen = options(preset, scale=1.5)  # small, so that mu lies between 0 and 1 as well
    columns = [random(seed, 200) for seed in range(4)]
    columns[1][:20] = columns[2][:20] + chosen.threshold  # on the threshold: e_c - e_s >= lambda counts as there
    got = steered(*columns, chosen)
    expected = torch.tensor([by_element(*numbers, chosen) for numbers in zip(*(c.tolist() for c in columns), strict=True)])
    share = ((got[2] > 0) & (got[2] < 1)).float().mean()
    assert share > 0.05
    assert torch.allclose(torch.stack(got, 1)[20:], expected[20:], atol=1e-5)


def test_threshold_itself_is_left_alone() -> None:
    mu = steered(torch.zeros(3), torch.tensor([0.5, 0.25, 0.75]), torch.zeros(3), torch.zeros(3), options(threshold=0.5))[2]
    assert mu.tolist() == [0.0, 1.0, 0.0]


# --- warm-up and momentum ------------------------------------------------------------------------------------------------


def concept_embedding() -> Tensor:
    return random(9, 1, 3, 5)


def steer(images: int = 2, steps: int = 50, chosen: Options | None = None) -> Steer:
    return Steer(Conditioning(concept_embedding()), chosen or options(), base.Call(images, steps, True))


def through(active: Steer, e: Tensor) -> Tensor:
    """One call: the hooks before and after a denoiser that predicts `e` (3B, C, h, w)."""
    b = active.call.images
    active.before(None, (torch.zeros(2 * b, *e.shape[1:]), torch.tensor(7), torch.zeros(2 * b, 3, 5)), {})
    return active.after(None, (), (e,))[0]


@pytest.mark.parametrize(
    ("preset", "how", "steps", "warmup"),
    [
        ("sld-weak", "scaled", 16, 5), ("sld-medium", "scaled", 16, 3), ("sld-strong", "scaled", 16, 2),
        ("sld-max", "scaled", 16, 0), ("sld-weak", "scaled", 50, 15), ("sld-weak", "absolute", 16, 15),
    ],
)
def test_warmup_scales_with_the_steps(preset: str, how: str, steps: int, warmup: int) -> None:
    assert steer(steps=steps, chosen=options(preset, steps=how)).warmup == warmup


def test_guides_from_the_step_with_the_warmups_number() -> None:
    """Steps are counted from 0, and by calls: the timestep is 7 at every one of them."""
    active, e = steer(chosen=options(warmup=2)), random(0, 6, 1, 2, 2)
    changed = [not torch.equal(through(active, e), e[:4]) for _ in range(4)]
    assert changed == [False, False, True, True]
    assert [t["guided_steps"] for t in active.trace()] == [2, 2]


def test_momentum_grows_in_the_warmup_and_is_subtracted_after() -> None:
    chosen = options(warmup=2, scale=1.5, momentum_scale=0.5, momentum_beta=0.7)
    active, nu = steer(chosen=chosen), torch.zeros(2, 1, 2, 2)
    for step in range(4):
        e = random(step, 6, 1, 2, 2)
        e0, ec, es = e.chunk(3)
        mu = torch.where(ec - es >= chosen.threshold, 0, (1.5 * (ec - es).abs()).clamp(max=1))
        gamma = mu * (es - e0) + 0.5 * nu
        nu = 0.7 * nu + 0.3 * gamma
        got = through(active, e)
        assert torch.allclose(got, torch.cat([e0, ec - gamma if step >= 2 else ec]), atol=1e-6)
    assert nu.abs().max() > 0.01


def test_pipelines_guidance_of_what_it_returns_is_the_papers() -> None:
    chosen, e = options(warmup=0, momentum_scale=0.0), random(3, 6, 1, 2, 2)
    e0, ec, es = e.chunk(3)
    first, second = through(steer(chosen=chosen), e).chunk(2)
    gamma = steered(e0, ec, es, torch.zeros(2, 1, 2, 2), chosen)[0]
    assert torch.allclose(first + 6 * (second - first), e0 + 6 * ((ec - e0) - gamma), atol=1e-5)


def test_trace_is_each_images_own() -> None:
    """The first image's prompt is far from the concept at every element, the second's at three of four."""
    active = steer(chosen=options(warmup=1, momentum_scale=0.0))
    ec = torch.tensor([[5.0, 5, 5, 5], [5, -5, -5, -5]]).reshape(2, 1, 2, 2)
    for _ in range(3):
        through(active, torch.cat([torch.ones(2, 1, 2, 2), ec, torch.zeros(2, 1, 2, 2)]))
    assert active.trace() == [{"guided_steps": 0, "share": 0.0}, {"guided_steps": 2, "share": 0.75}]


def test_momentum_is_kept_in_float32() -> None:
    active = steer(chosen=options("sld-max"))
    out = through(active, random(0, 6, 1, 2, 2).bfloat16())
    assert out.dtype == torch.bfloat16
    assert active.momentum.dtype == torch.float32


# --- the batch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [torch.tensor(7), torch.tensor([7, 7, 8, 9]), 7, torch.tensor([7])])
def test_third_branch_has_the_positive_halfs_latents_and_the_concept(t: Any) -> None:
    x, prompt = random(0, 4, 1, 2, 2), random(1, 4, 3, 5)
    args, kwargs = steer().before(None, (x,), {"timestep": t, "encoder_hidden_states": prompt, "return_dict": False})
    assert torch.equal(args[0], torch.cat([x, x[2:]]))
    assert torch.equal(kwargs["encoder_hidden_states"], torch.cat([prompt, concept_embedding().expand(2, 3, 5)]))
    many = isinstance(t, Tensor) and t.numel() == 4
    assert torch.equal(torch.as_tensor(kwargs["timestep"]), torch.tensor([7, 7, 8, 9, 8, 9]) if many else torch.as_tensor(t))
    assert kwargs["return_dict"] is False


def test_output_keeps_its_kind() -> None:
    e = random(0, 6, 1, 2, 2)
    tupled = steer().after(None, (), (e, "more"))
    assert tupled[1] == "more"
    named = steer().after(None, (), UNet2DConditionOutput(sample=e))
    assert isinstance(named, UNet2DConditionOutput)
    assert torch.equal(named.sample, tupled[0])
    assert named[0] is named.sample
    assert len(named.sample) == 4


@pytest.mark.parametrize(
    "given",
    [
        {"added_cond_kwargs": {"text_embeds": torch.zeros(4, 5)}}, {"encoder_attention_mask": torch.ones(4, 3)},
        {"down_block_additional_residuals": (torch.zeros(4, 1),)}, {"pooled_projections": torch.zeros(4, 5)},
    ],
)
def test_other_tensors_are_refused(given: dict[str, Any]) -> None:
    known = (random(0, 4, 1, 2, 2), torch.tensor(7), random(1, 4, 3, 5))
    with pytest.raises(CellError, match=f"also given {next(iter(given))}"):
        steer().before(None, known, given)
    with pytest.raises(CellError, match="positional"):
        steer().before(None, (*known, next(iter(given.values()))), {})
    harmless = {"added_cond_kwargs": None, "cross_attention_kwargs": {"scale": 1.0}, "timestep_cond": None}
    assert len(steer().before(None, known, harmless)[0][0]) == 6


def test_what_belongs_to_the_text_or_the_picture_is_widened() -> None:
    """SDXL's, SD3's and PixArt's further tensors: the third branch has the concept's pooled embedding and mask, and the picture's
    size as the positive half has it."""
    concept = Conditioning(concept_embedding(), random(5, 1, 6), torch.tensor([[1, 1, 0]]))
    active = Steer(concept, options(), base.Call(2, 50, True))
    x, prompt, pooled, sizes = random(0, 4, 1, 2, 2), random(1, 4, 3, 5), random(2, 4, 6), torch.arange(8).reshape(4, 2)
    company = {
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes, "resolution": None}, "pooled_projections": pooled,
        "encoder_attention_mask": torch.ones(4, 3), "timestep": torch.tensor([7, 7, 8, 9]), "encoder_hidden_states": prompt,
    }
    _, kwargs = active.before(None, (x,), company)
    inside = kwargs["added_cond_kwargs"]
    assert concept.pooled is not None
    wide = torch.cat([pooled, concept.pooled.expand(2, 6)])
    assert torch.equal(inside["text_embeds"], wide)
    assert torch.equal(kwargs["pooled_projections"], wide)
    assert torch.equal(inside["time_ids"], torch.cat([sizes, sizes[2:]]))
    assert inside["resolution"] is None
    assert kwargs["encoder_attention_mask"].tolist() == [[1, 1, 1]] * 4 + [[1, 1, 0]] * 2
    assert torch.equal(company["pooled_projections"], pooled)  # the caller's own are left alone


def test_another_layout_is_refused() -> None:
    with pytest.raises(CellError, match="sld expects a denoiser batch of 4, not 2"):
        steer().before(None, (torch.zeros(2, 1, 2, 2), torch.tensor(7), torch.zeros(2, 3, 5)), {})
    with pytest.raises(CellError, match="without 'encoder_hidden_states'"):
        steer().before(None, (torch.zeros(4, 1, 2, 2), torch.tensor(7)), {})


def test_without_guidance_it_is_refused(bench: Any) -> None:
    active = bench.active(SldMethod, options())
    with pytest.raises(CellError, match="acts through guidance") as error:
        bench.draw(active, TEXTS, guidance=1.0)
    assert error.value.hint
    assert not bench.hooks()


# --- the concept ---------------------------------------------------------------------------------------------------------


def test_concept_is_every_phrase_or_the_given_text(bench: Any) -> None:
    for text, said in ((None, "a box, bin, a jar"), ("cup", "cup")):
        held = bench.active(SldMethod, options(text=text)).artifact
        assert torch.equal(held.payload["safety"], bench.embeddings([said]))
        assert held.parameters == TOKENS * WIDTH
    assert bench.active(SldMethod, options()).artifact.sha256 != held.sha256


def test_inversion_is_one_embedding_over_all_tokens(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vector, asked = random(5, 1, WIDTH), []

    def load(backbone: Any, concept: Any, given: Any) -> Inversion:
        asked.append((backbone.name, concept.name, given))
        return Inversion(vector, "sha", 12.5)

    monkeypatch.setattr("srbench.methods.inversion.load", load)
    chosen = options("sld-max+ci", inversion="somewhere")
    active = bench.active(SldMethod, chosen)
    assert asked == [("tiny", "box", "somewhere")]
    assert "inversion" not in chosen.model_dump()
    assert active.artifact.parameters == WIDTH
    assert active.artifact.prepare_seconds == 12.5
    steering = Steer(Conditioning(active.artifact.payload["safety"]), chosen, base.Call(1, 4, True))
    x, prompt = random(0, 2, 4, 4, 4), random(1, 2, TOKENS, WIDTH)
    args, _ = steering.before(None, (x, torch.tensor(7), prompt), {})
    assert torch.equal(args[2][2], vector.expand(TOKENS, -1))
    with torch.no_grad():
        repeated = bench.pipeline.unet(x[1:], 7, args[2][2:]).sample
        assert torch.allclose(repeated, bench.pipeline.unet(x[1:], 7, vector[None]).sample, atol=1e-5)


def test_inversion_of_another_width_is_refused(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srbench.methods.inversion.load", lambda *_: SimpleNamespace(vector=torch.zeros(1, 3), seconds=0.0))
    with pytest.raises(CellError, match=r"shape \(1, 3\), not \(1, 16\)"):
        bench.active(SldMethod, options("sld-max+ci"))


def test_concept_without_words_for_the_family_is_refused(bench: Any) -> None:
    with pytest.raises(UsageError, match="no words for elsewhere"):
        SldMethod.prepare(bench.info(family="elsewhere"), bench.concept, options())
