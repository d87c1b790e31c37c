"""A tiny random Stable Diffusion in memory, a harmless concept, and short ways to prepare, apply and sample a method on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.engine.keys import ImageSpec
from srbench.engine.sample import Active, PromptCache, sample
from srbench.methods import base

TOKENS, WIDTH = 16, 16


def tiny_pipeline() -> StableDiffusionPipeline:
    """8 x 8 px, latents (4, 4, 4), 16 tokens of width 16, one token a letter; the text matters to its U-Net."""
    torch.manual_seed(0)
    letters = [c + end for c in "abcdefghijklmnopqrstuvwxyz," for end in ("", "</w>")]
    vocab = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    words = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=TOKENS, pad_token="<|endoftext|>")
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=1, pad_token_id=1, initializer_factor=20.0,
    ))
    unet = UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(), text_encoder=text.eval(), tokenizer=words, unet=unet.eval(), scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@dataclass
class Bench:
    """The tiny pipeline with everything that a method asks for."""

    pipeline: StableDiffusionPipeline
    prompts: PromptCache
    concept: ConceptSpec
    tokens: int = TOKENS
    width: int = WIDTH

    def info(self, **changes: Any) -> base.BackboneInfo:
        return base.BackboneInfo(**({"name": "tiny", "family": "tiny", "sha256": "sha", "pipeline": self.pipeline} | changes))

    def active(self, method: Any, options: Any) -> Active:
        """The method, prepared for the concept."""
        return Active(method, method.prepare(self.info(), self.concept, options), options)

    def spec(self, prompt: str, steps: int = 4, guidance: float = 5.0, negative: str = "") -> ImageSpec:
        """One image; its seed is made of its prompt's letters."""
        return ImageSpec(
            backbone_sha="", checkpoint_sha="", method="m", method_version=1, options="", artifact_sha="", concept_sha="",
            prompt=prompt, negative_prompt=negative, seed=sum(map(ord, prompt)), steps=steps, guidance=guidance, eta=0.0,
            guidance_rescale=0.0, clip_skip=None, scheduler="", width=8, height=8, dtype="fp32",
        )

    def draw(self, active: Active, texts: Sequence[str], **recipe: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Pixels uint8 (B, 8, 8, 3) and traces, as the engine samples them."""
        pixels, traces, _ = sample(self.pipeline, self.prompts, active, [self.spec(text, **recipe) for text in texts])
        return pixels, traces

    def embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, T, D), as the sampler encodes them."""
        return self.prompts.encode(texts, None)

    def hooks_left(self) -> list[str]:
        """Modules of the pipeline that still have a forward hook."""
        parts = (self.pipeline.unet, self.pipeline.vae, self.pipeline.text_encoder)
        found = [(name, module) for part in parts for name, module in part.named_modules()]
        return [name for name, module in found if module._forward_pre_hooks or module._forward_hooks]


@pytest.fixture(scope="session")
def bench() -> Bench:
    pipeline = tiny_pipeline()
    words = ConceptWords(names=("a box", "bin"), words=("box", "jar"), protocol="none")
    concept = ConceptSpec(name="box", title="boxes", kind="object", sensitive=False, families={"tiny": words})
    return Bench(pipeline, PromptCache(pipeline), concept)
