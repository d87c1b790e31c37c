"""A tiny random Stable Diffusion, in memory: 8 x 8 px."""

from __future__ import annotations

import string

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WIDTH = 16


def tiny_pipeline(
    tokens: int = 12, *, seed: int = 0, letters: str = string.ascii_lowercase, spread: float = 1.0
) -> StableDiffusionPipeline:
    """8 x 8 px, latents (4, 4, 4), prompts of `tokens` tokens of width 16, one token a letter; the global noise is left alone.

    spread: of the text encoder's initial weights; at 20 the text matters to the picture.
    """
    ends = [letter + end for letter in letters for end in ("", "</w>")]
    vocab = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *ends])}
    words = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=tokens, pad_token="<|endoftext|>")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=tokens, bos_token_id=0, eos_token_id=1, pad_token_id=1, initializer_factor=spread,
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
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(), text_encoder=text.eval(), tokenizer=words, unet=unet.eval(),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
