"""Walks between noise and image, on Stable Diffusion and SDXL: as the pipelines themselves draw, and image to image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from srbench.errors import UsageError
from srbench.methods import denoising
from srbench.testing.bench import Bench
from srbench.testing.bench import bench as bench_of


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_walk_is_the_pipelines(bench: Bench) -> None:
    draws, texts = denoising.Denoising(bench.pipeline, 3, 6.0), ["a box", "cd"]
    found = draws.walk(bench.pipeline.unet, denoising.encoded(bench.pipeline, texts), rng())
    noise = torch.randn((2, 4, 4, 4), generator=rng())
    options: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 6.0, "height": 8, "width": 8}
    expected = bench.pipeline(texts, latents=noise, output_type="latent", **options).images
    assert torch.allclose(found, expected, atol=1e-4)
    pixels = bench.pipeline(texts, latents=noise, output_type="np", **options).images
    shown = denoising.pixels_of(bench.pipeline, found)
    assert np.abs(shown.astype(int) - (pixels * 255).round().astype(int)).max() <= 1


def test_sdxl_reads_its_pooled_embedding_and_size() -> None:
    bench = bench_of("sdxl")
    draws, texts = denoising.Denoising(bench.pipeline, 3, 5.0), ["box", "cd"]
    found = draws.walk(bench.pipeline.unet, denoising.encoded(bench.pipeline, texts), rng())
    noise = torch.randn((2, 4, 8, 8), generator=rng())
    expected = bench.pipeline(
        texts, latents=noise, num_inference_steps=3, guidance_scale=5.0, height=16, width=16, output_type="latent"
    ).images
    assert torch.allclose(found, expected, atol=1e-3)


def test_the_pipelines_scheduler_is_left_alone(bench: Bench) -> None:
    bench.pipeline.scheduler.set_timesteps(7)
    draws = denoising.Denoising(bench.pipeline, 3, 5.0)
    draws.noisy(bench.pipeline.unet, denoising.encoded(bench.pipeline, ["a box"]), rng())
    assert len(bench.pipeline.scheduler.timesteps) == 7


def test_image_to_image_runs_its_share_of_the_steps(bench: Bench) -> None:
    """From the image noised to step k, the rest under the new prompt, written out."""
    unet, draws = bench.pipeline.unet, denoising.Denoising(bench.pipeline, 4, 5.0)
    safe, unsafe = denoising.encoded(bench.pipeline, ["cup"]), denoising.encoded(bench.pipeline, ["a box"])
    clean = torch.randn((1, 4, 4, 4), generator=rng(3))
    found = draws.redrawn(unet, clean, safe, unsafe, 0.5, rng(1))
    scheduler = draws.schedule()
    noise = torch.randn((1, 4, 4, 4), generator=rng(1))
    x = scheduler.add_noise(clean, noise, scheduler.timesteps[2:3])
    with torch.no_grad():
        for t in scheduler.timesteps[2:]:
            away, towards = (unet(x, t, encoder_hidden_states=prompt.embeds).sample for prompt in (unsafe, safe))
            x = scheduler.step(away + 5.0 * (towards - away), t, x).prev_sample
    assert torch.allclose(found, x, atol=1e-5)
    assert torch.equal(draws.redrawn(unet, clean, safe, unsafe, 0.0, rng()), clean)
    other = torch.randn((1, 4, 4, 4), generator=rng(8))
    whole = [draws.redrawn(unet, each, safe, unsafe, 1.0, rng(1)) for each in (clean, other)]
    assert torch.equal(*whole)  # nothing is left of the image


def test_steps_are_told_before_they_run(bench: Bench) -> None:
    told: list[int] = []
    draws, prompts = denoising.Denoising(bench.pipeline, 5, 5.0), denoising.encoded(bench.pipeline, ["a box"])
    draws.walk(bench.pipeline.unet, prompts, rng(), stop=3, visit=told.append)
    assert told == [0, 1, 2]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_and_target_are_the_schedulers(bench: Bench, kind: str) -> None:
    scheduler = DDPMScheduler.from_config(bench.pipeline.scheduler.config, prediction_type=kind)
    clean, noise, t = torch.randn(3, 4, 4, 4), torch.randn(3, 4, 4, 4), torch.tensor([0, 500, 999])
    assert torch.allclose(denoising.added_noise(scheduler, clean, noise, t), scheduler.add_noise(clean, noise, t), atol=1e-6)
    expected = noise if kind == "epsilon" else scheduler.get_velocity(clean, noise, t)
    assert torch.allclose(denoising.wanted(scheduler, clean, noise, t), expected, atol=1e-6)


def test_another_kind_of_prediction_is_refused(bench: Bench) -> None:
    scheduler = DDPMScheduler.from_config(bench.pipeline.scheduler.config, prediction_type="sample")
    with pytest.raises(UsageError, match="'sample'"):
        denoising.wanted(scheduler, torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.tensor([0]))
