"""Images per second and memory on a GPU, on a model of Stable Diffusion 1.4's shape with random weights: nothing is downloaded.

512 px, DDIM 50 steps, guidance 7.5, as the suites ask for. One process; each figure is the median of several calls after one to
warm up. Rows: the loop of the field's scripts (one prompt a call, fp32), plain diffusers in bf16 with a batch, srbench without
a method, under SafeRedir, and compiled. `--tiny` runs the same code on a toy model, on a CPU too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import string
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from srbench.backbones.loader import tuned
from srbench.catalog.specs import ConceptSpec
from srbench.engine.sample import PromptCache, sample
from srbench.methods.base import Active, BackboneInfo
from srbench.methods.none import NoMethod
from srbench.methods.saferedir import CARD, WEIGHTS, SafeRedirMethod
from srbench.methods.saferedir.module import SafeRedir, Sizes
from srbench.results.keys import ImageSpec

TARGETS = {"times the loop": 10.0, "times diffusers": 1.3, "added %": 3.0}
FULL = {"width": 768, "heads": 12, "layers": 12, "inner": 3072, "blocks": (320, 640, 1280, 1280), "vae": (128, 256, 512, 512)}
TINY = {"width": 32, "heads": 2, "layers": 2, "inner": 64, "blocks": (32, 64, 64, 64), "vae": (8, 8, 8, 8)}


@dataclass
class Asked:
    """The command's options."""

    tiny: bool
    batch: int
    calls: int
    steps: int
    device: str

    @property
    def side_px(self) -> int:
        return 64 if self.tiny else 512


# --- the model ---------------------------------------------------------------------------------------------------------------


def tokenizer() -> CLIPTokenizer:
    """A token a letter, 77 places: texts mean nothing here, their length is what costs time."""
    ends = [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
    vocab = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *ends])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77, pad_token="<|endoftext|>")


def unet(shape: dict[str, Any], side_px: int) -> UNet2DConditionModel:
    """Stable Diffusion 1.4's U-Net (its unet/config.json), 860 M parameters."""
    down, up = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    return UNet2DConditionModel(
        sample_size=side_px // 8, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=shape["blocks"],
        down_block_types=down, up_block_types=up, cross_attention_dim=shape["width"], attention_head_dim=8,
    )


def pipeline(asked: Asked, dtype: torch.dtype) -> StableDiffusionPipeline:
    """The pipeline with seeded random weights."""
    shape = TINY if asked.tiny else FULL
    torch.manual_seed(0)
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=54, hidden_size=shape["width"], intermediate_size=shape["inner"], num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"], max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    ))  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=shape["vae"], latent_channels=4, layers_per_block=2, sample_size=asked.side_px,
        norm_num_groups=8, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    )
    made = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer(), unet=unet(shape, asked.side_px), safety_checker=None,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
            steps_offset=1,
        ),
        feature_extractor=None, requires_safety_checker=False,
    ).to(asked.device, dtype)
    made.set_progress_bar_config(disable=True)
    for part in (made.unet, made.vae, made.text_encoder):
        part.eval().requires_grad_(False)
    return made


def redirector(made: StableDiffusionPipeline, folder: Path) -> Path:
    """A random redirector of the released sizes, in the form that `srbench train` writes."""
    sizes = Sizes(prompt_width=made.unet.config.cross_attention_dim)
    torch.manual_seed(1)
    save_file(SafeRedir(sizes).state_dict(), folder / WEIGHTS)
    card = {"backbone_sha256": "random", "concepts": ["none"], "sizes": sizes.model_dump(mode="json")}
    (folder / CARD).write_text(json.dumps(card))
    return folder


# --- measuring ---------------------------------------------------------------------------------------------------------------


@dataclass
class Figure:
    """One row of the table."""

    name: str
    images_per_second: float
    peak_gb: float


def synchronized(device: str) -> float:
    """The clock, once the device has nothing left to do."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measured(name: str, asked: Asked, images: int, call: Callable[[], object]) -> Figure:
    """The median of several calls that make `images` images each."""
    call()
    if asked.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = []
    for _ in range(asked.calls):
        began = synchronized(asked.device)
        call()
        taken.append(synchronized(asked.device) - began)
    peak = torch.cuda.max_memory_allocated() / 1e9 if asked.device == "cuda" else float("nan")
    figure = Figure(name, images / statistics.median(taken), peak)
    print(f"{figure.name:<36}{figure.images_per_second:>10.3f} images/s{figure.peak_gb:>8.1f} GB", flush=True)
    return figure


def specs(asked: Asked) -> list[ImageSpec]:
    """A batch of images as srbench plans them."""
    return [
        ImageSpec(
            backbone_sha="", checkpoint_sha="", method="none", method_version=1, options="", artifact_sha="", concept_sha="",
            prompt=f"{'a boat on a lake '}{chr(97 + i % 26)}", negative_prompt="", seed=i, steps=asked.steps, guidance=7.5,
            eta=0.0, guidance_rescale=0.0, clip_skip=None, scheduler="", width=asked.side_px, height=asked.side_px, dtype="bf16",
        )
        for i in range(asked.batch)
    ]


def loop(asked: Asked, made: StableDiffusionPipeline, batch: int) -> Callable[[], object]:
    """diffusers as the field's scripts call it."""
    texts = [spec.prompt for spec in specs(asked)[:batch]]

    def call() -> object:
        generators = [torch.Generator("cpu").manual_seed(i) for i in range(batch)]
        return made(
            texts, num_inference_steps=asked.steps, guidance_scale=7.5, height=asked.side_px, width=asked.side_px,
            generator=generators, output_type="np",
        )

    return call


def engine(asked: Asked, made: StableDiffusionPipeline, active: Active) -> Callable[[], object]:
    """srbench's own call; prompts are encoded once, as in a run."""
    prompts, batch = PromptCache(made), specs(asked)
    return lambda: sample(made, prompts, active, batch)


def bf16_peak_tflops(device: str) -> float:
    """What the card reaches in bf16 on a large product of matrices; nan without a card."""
    if device != "cuda":
        return float("nan")
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        began = synchronized(device)
        for _ in range(10):
            a @ b
        best = min(best, (synchronized(device) - began) / 10)
    return 2 * 8192**3 / best / 1e12


def unet_tflops(made: StableDiffusionPipeline, asked: Asked) -> float:
    """What the denoiser computes for one image at guidance, in 1e12 operations, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    parameter = next(made.unet.parameters())
    x = torch.randn(2, 4, asked.side_px // 8, asked.side_px // 8, device=parameter.device, dtype=parameter.dtype)
    prompt = torch.randn(2, 77, made.unet.config.cross_attention_dim, device=parameter.device, dtype=parameter.dtype)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        made.unet(x, 1, encoder_hidden_states=prompt)
    return counter.get_total_flops() * asked.steps / 1e12


def figures(asked: Asked, folder: Path) -> dict[str, Figure]:
    """Every row, the slowest first."""
    found = {"loop": measured("script's loop, fp32, one a call", asked, 1, loop(asked, pipeline(asked, torch.float32), 1))}
    made = pipeline(asked, torch.bfloat16)
    found["diffusers"] = measured(f"diffusers, bf16, batch {asked.batch}", asked, asked.batch, loop(asked, made, asked.batch))
    none = Active(NoMethod, None, NoMethod.Options())
    made = tuned(made)
    found["none"] = measured("srbench none, bf16", asked, asked.batch, engine(asked, made, none))
    options = SafeRedirMethod.Options(redirector=str(redirector(made, folder)))
    info = BackboneInfo(name="random", family="sd", sha256="random", pipeline=made)
    concept = ConceptSpec(name="none", title="", kind="object", sensitive=False, families={})
    active = Active(SafeRedirMethod, SafeRedirMethod.prepare(info, concept, options), options)
    found["saferedir"] = measured("srbench saferedir, bf16", asked, asked.batch, engine(asked, made, active))
    made.unet.compile_repeated_blocks(fullgraph=True)
    found["compiled"] = measured("srbench none, compiled", asked, asked.batch, engine(asked, made, none))
    found["compiled saferedir"] = measured("srbench saferedir, compiled", asked, asked.batch, engine(asked, made, active))
    return found


def main() -> None:
    """Measure and print."""
    diffusers_logging.set_verbosity_error()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a toy model; says that the code runs, and nothing else")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_args()
    asked = Asked(given.tiny, given.batch, given.calls, given.steps, "cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name(0) if asked.device == "cuda" else "no GPU"
    print(f"{card}; torch {torch.__version__}; {asked.side_px} px, DDIM {asked.steps} steps, guidance 7.5")
    with tempfile.TemporaryDirectory() as folder:
        found = figures(asked, Path(folder))
    speed = {name: figure.images_per_second for name, figure in found.items()}
    added = 100 * (speed["none"] / speed["saferedir"] - 1)
    best = max(speed["none"], speed["compiled"])
    print(f"times the loop        {best / speed['loop']:8.2f}  (target {TARGETS['times the loop']})")
    print(f"times diffusers       {best / speed['diffusers']:8.2f}  (target {TARGETS['times diffusers']})")
    print(f"SafeRedir adds %      {added:8.2f}  (target at most {TARGETS['added %']})")
    if asked.device == "cuda":
        peak, work = bf16_peak_tflops(asked.device), unet_tflops(pipeline(asked, torch.bfloat16), asked)
        print(f"measured bf16 peak {peak:.0f} TFLOP/s; an image takes {work:.1f} TFLOP in the denoiser: ", end="")
        print(f"{100 * work * best / peak:.1f} % of the peak")


if __name__ == "__main__":
    main()
