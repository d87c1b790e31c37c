"""What steps look like: frames that are the steps' own, on every family of pipelines, and not a bit of the picture changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from srbench.catalog import plugins
from srbench.engine.film import Film, FilmedScheduler, chosen, small
from srbench.engine.sample import PromptCache, sample
from srbench.engine.starts import Starts, key_of
from srbench.methods.base import Active, Artifact
from srbench.results.keys import ImageSpec
from srbench.results.strips import MOST_FRAMES, SIDE_PX
from srbench.testing import families
from srbench.testing.tiny import tiny_pipeline

TEXTS = ("a box", "a ball")


def none() -> Active:
    cls = plugins.load("methods", "none")
    return Active(cls, None, cls.Options())


def specs(side: int, steps: int, true: float = 1.0, start: str = "") -> list[ImageSpec]:
    return [
        ImageSpec(
            backbone_sha="", checkpoint_sha="", method="none", method_version=1, options="", artifact_sha="", concept_sha="",
            prompt=text, negative_prompt="", seed=seed, steps=steps, guidance=3.0, eta=0.0, guidance_rescale=0.0, clip_skip=None,
            scheduler="", width=side, height=side, dtype="fp32", true_guidance=true,
            start=key_of(start, text, seed, None) if start else "",
        )
        for seed, text in enumerate(TEXTS)
    ]


def filmed(pipeline: Any, side: int, steps: int = 3, true: float = 1.0, start: str = "") -> tuple[np.ndarray, list[Any]]:
    """Pixels with a film, after a comparison with those without one, and the strips."""
    asked, prompts, film = specs(side, steps, true, start), PromptCache(pipeline), Film()
    own, starts = pipeline.scheduler, Starts(pipeline)
    starts.make(asked)
    begun = starts.of(asked) if start else []
    plain, _, _ = sample(pipeline, prompts, none(), asked, begun)
    pixels, _, _ = sample(pipeline, prompts, none(), asked, begun, film)
    assert np.array_equal(plain, pixels), "a film changed the picture"
    assert pipeline.scheduler is own
    return pixels, film.strips(pipeline, len(asked))


def last(strip: np.ndarray, frames: int) -> np.ndarray:
    """The last of frames that stand side by side."""
    return strip[:, -(strip.shape[1] // frames) :].astype(int)


@pytest.mark.parametrize("family", sorted(families.MADE))
def test_the_last_frame_is_the_picture_on_every_family(family: str) -> None:
    """DDIM, Euler and flow matching; latents that are packed; guidance by two calls."""
    pixels, strips = filmed(families.tiny(family), families.SIDE_PX, true=3.0 if family == "flux" else 1.0)
    for picture, (strip, shown) in zip(pixels, strips, strict=True):
        assert (strip.frames, strip.steps, strip.acted) == ((1, 2, 3), 3, ())
        assert shown.shape == (families.SIDE_PX, 3 * families.SIDE_PX, 3)
        assert np.abs(last(shown, 3) - picture).max() <= 1


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_a_frame_is_the_clean_picture_that_the_step_predicts(scheduler: Any) -> None:
    """A denoiser that knows the noise: each step predicts the very picture that the noise was put over."""
    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    own = scheduler.from_config(DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False).config)
    film = Film()
    front = FilmedScheduler(own, film)
    front.set_timesteps(5)
    t = front.timesteps[2]
    if hasattr(own, "set_begin_index"):
        own.set_begin_index(2)
    x = own.add_noise(clean, noise, t[None])
    stepped = front.step(noise, t, x, return_dict=False)
    assert isinstance(stepped, tuple)
    assert torch.allclose(film.clean[0], clean, atol=1e-3)


def test_flow_matching_shows_what_its_velocity_leads_to() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    own, film = FlowMatchEulerDiscreteScheduler(), Film()
    front = FilmedScheduler(own, film)
    front.set_timesteps(4)
    own.set_begin_index(1)
    sigma = own.sigmas[1]
    front.step(noise - clean, front.timesteps[1], (1 - sigma) * clean + sigma * noise, return_dict=False)
    assert torch.allclose(film.clean[0], clean, atol=1e-4)


def test_at_most_so_many_frames_first_and_last_among_them_evenly() -> None:
    for steps in (1, 2, MOST_FRAMES, MOST_FRAMES + 1, 50, 1000):
        shown = chosen(steps)
        assert len(shown) == min(steps, MOST_FRAMES)
        assert (shown[0], shown[-1]) == (0, steps - 1)
        gaps = set(np.diff(shown).tolist())
        assert not gaps or max(gaps) - min(gaps) <= 1
        assert 0 not in gaps


def test_many_steps_say_which_ones_are_shown() -> None:
    pixels, strips = filmed(tiny_pipeline(), 8, steps=30)
    strip, shown = strips[1]
    assert strip.steps == 30
    assert (len(strip.frames), strip.frames[0], strip.frames[-1]) == (MOST_FRAMES, 1, 30)
    assert np.abs(last(shown, MOST_FRAMES) - pixels[1]).max() <= 1


@pytest.mark.parametrize(("start", "run"), [("half:3", 2), ("inpaint", 5)])
def test_other_beginnings_have_the_steps_that_are_run(start: str, run: int) -> None:
    """Around a hole the picture is put back after each step: the last frame shows it, too."""
    pixels, strips = filmed(tiny_pipeline(spread=20.0), 8, steps=5, start=start)
    for picture, (strip, shown) in zip(pixels, strips, strict=True):
        assert strip.steps == run
        assert np.abs(last(shown, run) - picture).max() <= 1


def test_a_frame_is_small_and_keeps_its_shape() -> None:
    assert small(np.zeros((512, 256, 3), np.uint8)).shape == (SIDE_PX, SIDE_PX // 2, 3)
    assert small(np.zeros((8, 8, 3), np.uint8)).shape == (8, 8, 3)


def test_a_method_with_a_scheduler_of_its_own_is_filmed_as_it_steps() -> None:
    """TraSCE moves the latents before each step: what the pipeline decodes is what comes after that."""
    cls = plugins.load("methods", "trasce")
    pipeline = tiny_pipeline(spread=20.0)
    prompts, asked, film = PromptCache(pipeline), specs(8, 3), Film()
    payload = {"concept": prompts.encode(["a box"], None).embeds}
    active = Active(cls, Artifact(payload, ""), cls.Options(move=50.0))
    plain, _, _ = sample(pipeline, prompts, none(), asked)
    moved, _, _ = sample(pipeline, prompts, active, asked)
    pixels, _, _ = sample(pipeline, prompts, active, asked, (), film)
    assert np.array_equal(moved, pixels)
    assert not np.array_equal(moved, plain)
    for picture, (strip, shown) in zip(pixels, film.strips(pipeline, 2), strict=True):
        assert strip.steps == 3
        assert np.abs(last(shown, 3) - picture).max() <= 1
