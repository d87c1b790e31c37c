"""A tiny random pipeline of every family that srbench samples with, in memory: 16 x 16 px."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

SIDE_PX, TOKENS, WIDTH = 16, 12, 16
LETTERS = string.ascii_lowercase + ","
SPREAD = 20.0
"""Of the text encoders' initial weights, so that the text matters to the picture."""


def _clip_tokenizer() -> CLIPTokenizer:
    ends = [letter + end for letter in LETTERS for end in ("", "</w>")]
    vocab = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *ends])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=TOKENS, pad_token="<|endoftext|>")


def _clip(cls: type[Any] = CLIPTextModel) -> Any:
    return cls(CLIPTextConfig(
        vocab_size=2 + 2 * len(LETTERS), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=WIDTH,
        initializer_factor=SPREAD,
    ))  # fmt: skip


def t5_tokenizer() -> PreTrainedTokenizerFast:
    vocab = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    ends = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=TOKENS, **ends)


def _t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(
        vocab_size=3 + len(LETTERS), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, initializer_factor=1.0,
    ))  # fmt: skip


def _vae(channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=channels, sample_size=SIDE_PX, shift_factor=0.1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )


def _unet(width: int, **more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE_PX // 2, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=width, attention_head_dim=4, **more,
    )


def _sd() -> Any:
    return StableDiffusionPipeline(
        vae=_vae(), text_encoder=_clip(), tokenizer=_clip_tokenizer(), unet=_unet(WIDTH),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )


def _sdxl() -> Any:
    return StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=_clip(), text_encoder_2=_clip(CLIPTextModelWithProjection), tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(), scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        unet=_unet(
            2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=WIDTH + 6 * 8,
        ),
        add_watermarker=False,
    )


def _sd3() -> Any:
    transformer = SD3Transformer2DModel(
        sample_size=SIDE_PX // 2, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=2 * WIDTH, out_channels=4,
    )
    for weight in transformer.parameters():  # its gates let next to nothing of the text through as they are made
        if weight.ndim > 1:
            weight.data.mul_(2)
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=_vae(),
        text_encoder=_clip(CLIPTextModelWithProjection), tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(CLIPTextModelWithProjection), tokenizer_2=_clip_tokenizer(), text_encoder_3=None, tokenizer_3=None,
    )


def _flux() -> Any:
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=[4, 4, 8], guidance_embeds=True,
    )
    return FluxPipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=_vae(), text_encoder=_clip(),
        tokenizer=_clip_tokenizer(), text_encoder_2=_t5(), tokenizer_2=t5_tokenizer(),
    )


def _pixart() -> Any:
    transformer = PixArtTransformer2DModel(
        sample_size=SIDE_PX // 2, patch_size=2, in_channels=4, out_channels=8, num_layers=1, attention_head_dim=8,
        num_attention_heads=3, caption_channels=WIDTH, cross_attention_dim=24, norm_num_groups=4, use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(
        transformer=transformer, scheduler=DPMSolverMultistepScheduler(), vae=_vae(), text_encoder=_t5(),
        tokenizer=t5_tokenizer(),
    )


MADE: dict[str, Callable[[], Any]] = {"sd": _sd, "sdxl": _sdxl, "sd3": _sd3, "flux": _flux, "pixart": _pixart}


def tiny(family: str) -> Any:
    """A pipeline of a family, in evaluation mode; the global noise is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = MADE[family]()
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipeline
