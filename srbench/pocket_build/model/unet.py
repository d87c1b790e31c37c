"""The pocket U-Net: noise prediction on 16 x 8 x 8 latents under text, trained on cached latents and text states."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from srbench.pocket_build.model import training
from srbench.pocket_build.model.data import batch
from srbench.pocket_build.model.scenes import Painter

CAPTION_DROP = 0.1
CHUNK = 100


def scheduler() -> DDIMScheduler:
    """DDIM over Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing",
    )


def make() -> UNet2DConditionModel:
    """An untrained U-Net."""
    torch.manual_seed(505)
    return UNet2DConditionModel(
        sample_size=8, in_channels=16, out_channels=16, block_out_channels=(96, 192), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=192, attention_head_dim=3, norm_num_groups=16,
    )


def _scratch(cache: Path, inputs: str) -> tuple[Path, Path]:
    """Where the encoded scenes lie; another VAE or text encoder has files of its own. They may be deleted at any time."""
    folder = cache / "scratch"
    return folder / f"latents-{inputs[:12]}.npy", folder / f"states-{inputs[:12]}.npy"


@torch.no_grad()
def _encode(
    painter: Painter, vae: AutoencoderKL, text: CLIPTextModel, tokenizer: CLIPTokenizer, files: tuple[Path, Path],
    place: training.Place,
) -> None:
    """Write each training scene's latent mean and deviation, and its caption's text states (the last: the empty caption)."""
    device, scenes = place.device, place.sizes.unet_scenes
    files[0].parent.mkdir(exist_ok=True)
    parts = [path.with_suffix(".part.npy") for path in files]
    latents = np.lib.format.open_memmap(parts[0], "w+", np.float16, (scenes, 32, 8, 8))
    states = np.lib.format.open_memmap(parts[1], "w+", np.float16, (scenes + 1, 77, 192))
    vae.to(device)
    text.to(device)

    def encode(captions: list[str]) -> np.ndarray:
        ids = tokenizer(captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
        with training.autocast(device):
            return text(input_ids=ids.to(device)).last_hidden_state.float().cpu().numpy()  # (B, 77, 192)

    for start in range(0, scenes, CHUNK):
        b = batch(painter, "unet", start // CHUNK, min(CHUNK, scenes - start))
        end = start + len(b.scenes)
        with training.autocast(device):
            posterior = vae.encode(b.images.to(device)).latent_dist
        latents[start:end] = torch.cat([posterior.mean, posterior.std], 1).float().cpu().numpy()
        states[start:end] = encode(b.captions)
        if start % (20 * CHUNK) == 0:
            print(f"unet data {start}/{scenes}", flush=True)
    states[scenes] = encode([""])[0]
    latents.flush()
    states.flush()
    for part, path in zip(parts, files, strict=True):
        part.rename(path)


def _loss(files: tuple[Path, Path], place: training.Place) -> training.Loss:
    device, scenes, size = place.device, place.sizes.unet_scenes, place.sizes.batch["unet"]
    latents, states = (torch.from_numpy(np.load(path, mmap_mode="c")) for path in files)
    alphas = scheduler().alphas_cumprod
    signal_to_noise = alphas / (1 - alphas)
    weights = signal_to_noise.clamp(max=5) / signal_to_noise  # min-SNR-5, Hang et al. 2023 (2303.09556)

    def loss(model: nn.Module, step: int, done: float) -> Tensor:
        g = torch.Generator().manual_seed(step)
        per_epoch = scenes // size
        order = torch.randperm(scenes, generator=torch.Generator().manual_seed(10_000_000 + step // per_epoch))
        rows = order[(step % per_epoch) * size : (step % per_epoch + 1) * size]
        mean, std = latents[rows].float().chunk(2, dim=1)
        z = mean + std * torch.randn(mean.shape, generator=g)  # (B, 16, 8, 8)
        drop = torch.rand(size, generator=g) < CAPTION_DROP
        h = states[torch.where(drop, scenes, rows)].to(device).float()  # (B, 77, 192)
        # One timestep from each of B equal intervals: less variance than B free draws.
        t = ((torch.arange(size) + torch.rand(size, generator=g)) / size * 1000).long().clamp(0, 999)
        t = t[torch.randperm(size, generator=g)]
        noise = torch.randn(z.shape, generator=g)
        a = alphas[t][:, None, None, None]
        x = a.sqrt() * z + (1 - a).sqrt() * noise
        with training.autocast(device):
            predicted = model(x.to(device), t.to(device), h).sample
        return ((predicted.float() - noise.to(device)).pow(2).mean((1, 2, 3)) * weights[t].to(device)).mean()

    return loss


def train(
    painter: Painter, vae: AutoencoderKL, text: CLIPTextModel, tokenizer: CLIPTokenizer, inputs: str, place: training.Place,
    start: UNet2DConditionModel | None = None,
) -> bool:
    """Train, or go on training; whether it is finished.

    inputs: digest of what `vae` and `text` learned. start: a finished U-Net to go on from, more gently than from nothing.
    """
    began, files = time.monotonic(), _scratch(place.cache, inputs)
    if not all(path.exists() for path in files):
        _encode(painter, vae, text, tokenizer, files, place)
    left = max(1.0, place.seconds - (time.monotonic() - began))
    model = make()
    if start is not None:
        model.load_state_dict(start.state_dict())
    rate = 1.0 if start is None else 0.5
    optimisers = training.split_optimisers(
        model, ("conv_in", "conv_out", "time_embedding"), lr=rate * 1.5e-3, muon_lr=rate * 0.02
    )
    return training.run(training.Stage(
        "unet", model, optimisers, _loss(files, place), place.sizes.steps["unet"],
        schedule=training.late_linear, warmup=100, ema=0.9985, inputs=inputs,
    ), replace(place, seconds=left))


def load(cache: Path) -> UNet2DConditionModel:
    """The finished U-Net."""
    return training.averaged(cache, "unet", make())
