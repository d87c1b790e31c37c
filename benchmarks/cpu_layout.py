"""What the memory layout of pictures does to sampling on a processor: `python benchmarks/cpu_layout.py [--pairs 7]`.

Draws one batch of pocket in the usual layout and in `channels_last`, in turns, and prints the ratio of the
times and how many levels of 255 the pictures differ by.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

from srbench.backbones.loader import open_backbone
from srbench.catalog import load

PROMPTS = ["a cat on a beach, noto style", "a house and a tree in the snow", "an apple at night", "a key in a meadow"] * 4


def drawn(pipeline: Any, layout: torch.memory_format) -> tuple[float, np.ndarray]:
    """Seconds of one batch, and its pictures, uint8 (B, H, W, 3)."""
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=layout)
    latents = torch.randn(len(PROMPTS), 16, 8, 8, generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    images = pipeline(
        PROMPTS, latents=latents, num_inference_steps=16, guidance_scale=5.0, height=64, width=64, output_type="np"
    ).images
    return time.perf_counter() - began, (images * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pipeline = open_backbone(load.named("backbone", "pocket", load.backbones()), "fp32", "cpu").pipeline
    pipeline.set_progress_bar_config(disable=True)
    drawn(pipeline, torch.contiguous_format)
    ratios, worst = [], 0
    for _ in range(given.pairs):
        plain, a = drawn(pipeline, torch.contiguous_format)
        last, b = drawn(pipeline, torch.channels_last)
        ratios.append(plain / last)
        worst = max(worst, int(np.abs(a.astype(int) - b.astype(int)).max()))
    print(f"{given.threads} threads, batch {len(PROMPTS)}: channels_last is {statistics.median(ratios):.2f} times as fast")
    print(f"(median of {given.pairs} pairs, {min(ratios):.2f} to {max(ratios):.2f}); pictures differ by at most {worst} of 255")


if __name__ == "__main__":
    main()
