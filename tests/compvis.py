"""The tests' tiny Stable Diffusion as CompVis would store it: one file, and the names of `ldm` (models/autoencoder.py and
modules/diffusionmodules), counted by hand."""

from __future__ import annotations

from typing import Any

from torch import Tensor

U_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}
U_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}
V_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet(name: str) -> str:
    """A name of a U-Net with one layer a block."""
    for ours, theirs in U_ENDS.items():
        if name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    if name.startswith("mid_block."):
        _, what, number, rest = name.split(".", 3)
        return f"middle_block.1.{rest}" if what == "attentions" else f"middle_block.{2 * int(number)}.{_resnet(rest)}"
    side, block, what, number, rest = name.split(".", 4)
    if what == "downsamplers":
        return f"input_blocks.{2 * int(block) + 2}.0.op.{rest.removeprefix('conv.')}"
    if what == "upsamplers":  # in the last layer of a block without attention
        return f"output_blocks.{2 * int(block) + 1}.1.{rest}"
    place = f"input_blocks.{2 * int(block) + 1}" if side == "down_blocks" else f"output_blocks.{2 * int(block) + int(number)}"
    return f"{place}.1.{rest}" if what == "attentions" else f"{place}.0.{_resnet(rest)}"


def _resnet(rest: str) -> str:
    part, _, end = rest.partition(".")
    return f"{U_RESNET[part]}.{end}"


def vae(name: str, blocks: int) -> str:
    """A name of an autoencoder with that many blocks a side."""
    side, _, rest = name.partition(".")
    if side not in ("encoder", "decoder"):
        return name
    rest = rest.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    what, _, inner = rest.partition(".")
    if what == "mid_block":
        kind, number, end = inner.split(".", 2)
        if kind == "resnets":
            return f"{side}.mid.block_{int(number) + 1}.{end}"
        for ours, theirs in V_ATTENTION.items():
            if end.startswith(ours + "."):
                return f"{side}.mid.attn_1.{theirs}.{end.removeprefix(ours + '.')}"
        raise AssertionError(f"no such part of the attention: {name}")
    if what in ("down_blocks", "up_blocks"):
        block, kind, number, end = inner.split(".", 3)
        level, way = (block, "down") if what == "down_blocks" else (str(blocks - 1 - int(block)), "up")
        place = f"{side}.{way}.{level}"
        return f"{place}.block.{number}.{end}" if kind == "resnets" else f"{place}.{way}sample.{end}"
    return f"{side}.{rest}"


def whole(pipeline: Any) -> dict[str, Tensor]:
    """Every weight of a Stable Diffusion pipeline under CompVis' names."""
    blocks = len(pipeline.vae.config.block_out_channels)
    found = {f"model.diffusion_model.{unet(name)}": value for name, value in pipeline.unet.state_dict().items()}
    for name, value in pipeline.vae.state_dict().items():
        theirs = vae(name, blocks)
        linear = ".attn_1." in theirs and value.ndim == 2  # there a convolution of one pixel
        found[f"first_stage_model.{theirs}"] = value[:, :, None, None].contiguous() if linear else value
    for name, value in pipeline.text_encoder.state_dict().items():
        found[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    return {name: value.clone() for name, value in found.items()}
