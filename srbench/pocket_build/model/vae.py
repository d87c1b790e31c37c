"""The pocket VAE: 64 x 64 pictures to 16 x 8 x 8 latents of unit variance and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from srbench.pocket_build.model import checkpoints, training
from srbench.pocket_build.model.data import batch
from srbench.pocket_build.model.scenes import Painter
from srbench.pocket_build.model.sizes import FULL, Sizes

KL_WEIGHT = 1e-4
ADOPTED = "shipped"
"""In place of the inputs' digest, where the VAE is another build's."""


def make() -> AutoencoderKL:
    """An untrained VAE."""
    torch.manual_seed(101)
    widths = (16, 32, 64, 128)
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=16, block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1, norm_num_groups=8, sample_size=64,
    )


def _edges(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[..., 1:, :] - images[..., :-1, :], images[..., :, 1:] - images[..., :, :-1]


def psnr(vae: Any, images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of reconstructions from the posterior's mode."""
    with torch.no_grad():
        rebuilt = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return 10 * math.log10(4 / float((rebuilt - images).pow(2).mean()))


def _loss(painter: Painter, place: training.Place) -> training.Loss:
    device, size = place.device, place.sizes.batch["vae"]

    def loss(vae: Any, step: int, done: float) -> Tensor:
        x = batch(painter, "vae", step, size).images.to(device)  # (B, 3, 64, 64)
        with training.autocast(device):
            posterior = vae.encode(x).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float().clamp(-20, 10)
        generator = torch.Generator().manual_seed(step)
        noise = torch.randn(mean.shape, generator=generator).to(device)
        z = mean + noise * torch.exp(0.5 * logvar)  # (B, 16, 8, 8)
        with training.autocast(device):
            y = vae.decode(z).sample
        y = y.float()
        # Edges are weighed in late: early they only slow the colours down.
        edge = max(0.0, done - 0.4) * sum((a - b).abs().mean() for a, b in zip(_edges(y), _edges(x), strict=True))
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        return (y - x).abs().mean() + (y - x).pow(2).mean() + edge + KL_WEIGHT * kl

    return loss


@torch.no_grad()
def whiten(vae: AutoencoderKL, images: Tensor) -> AutoencoderKL:
    """Fold each latent channel's mean and deviation into the 1 x 1 convolutions, so that latents are standard."""
    z = vae.encode(images).latent_dist.mode()
    mean, std, channels = z.mean((0, 2, 3)), z.std((0, 2, 3)), z.shape[1]
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:channels] /= std[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / std
    before.bias[channels:] -= 2 * std.log()
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= std[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)
    return vae


def train(painter: Painter, place: training.Place) -> bool:
    """Train, or go on training; whether it is finished."""
    probe = batch(painter, "validate", 0, place.sizes.vae_scenes).images.to(place.device)
    model = make()
    keep = ("conv_in", "conv_out", "quant_conv")
    return training.run(training.Stage(
        "vae", model, training.split_optimisers(model, keep, lr=3e-3), _loss(painter, place), place.sizes.steps["vae"],
        schedule=lambda done: 0.02 + 0.98 * (1 - max(0.0, done - 0.3) / 0.7),
        validate=lambda m: f"psnr {psnr(m, probe):.2f} dB",
    ), place)


def adopt(vae: AutoencoderKL, cache: Path, steps: int) -> None:
    """Make a finished, whitened VAE this build's own: nothing of it is trained."""
    checkpoints.write(cache, "vae", {"average": vae.state_dict()}, step=steps, steps=steps, inputs=ADOPTED)


def load(painter: Painter, cache: Path, sizes: Sizes = FULL) -> AutoencoderKL:
    """The finished VAE, whitened."""
    index = checkpoints.index(cache, "vae")
    if index is not None and index.inputs == ADOPTED:
        vae = training.averaged(cache, "vae", make())
        vae.register_to_config(scaling_factor=1.0)
        return vae
    return whiten(training.averaged(cache, "vae", make()), batch(painter, "validate", 1, sizes.whitening_scenes).images)
