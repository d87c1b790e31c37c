"""Shared by methods that read cross-attention's probabilities: an eager processor for a while, maps, masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srbench.errors import UsageError


class Recorder:
    """Computes attention eagerly and keeps its probabilities, since the fused kernels return none. One per layer."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        """Per call (batch, heads, positions, tokens), with their graph."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: Tensor | None = None,
        temb: Tensor | None = None, *args: Any, **kwargs: Any,
    ) -> Tensor:
        """diffusers' own attention of (batch, positions, width), in the same order of operations."""
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attn.norm_cross and encoder_hidden_states is not None:
            text = attn.norm_encoder_hidden_states(text)
        query, key, value = (
            attn.head_to_batch_dim(projected) for projected in (attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text))
        )  # (batch * heads, positions or tokens, d)
        probabilities = attn.get_attention_scores(query, key, attention_mask)  # (batch * heads, positions, tokens)
        self.seen.append(probabilities.unflatten(0, (len(hidden_states), attn.heads)))
        mixed = attn.batch_to_head_dim(torch.bmm(probabilities, value))  # (batch, positions, width)
        output = attn.to_out[1](attn.to_out[0](mixed))
        output = output + hidden_states if attn.residual_connection else output
        return output / attn.rescale_output_factor


@contextmanager
def recorded(unet: nn.Module) -> Iterator[dict[str, Recorder]]:
    """Every cross-attention with a recorder, by path; its own processor is put back afterwards, whatever happened.

    Raises `UsageError` where there is none.
    """
    layers = {path: module for path, module in unet.named_modules() if path.endswith("attn2") and hasattr(module, "processor")}
    if not layers:
        raise UsageError("this U-Net has no cross-attention named attn2", "Give a Stable Diffusion backbone.")
    before = {path: layer.processor for path, layer in layers.items()}
    recorders = {path: Recorder() for path in layers}
    try:
        for path, layer in layers.items():
            layer.processor = recorders[path]
        yield recorders
    finally:
        for path, layer in layers.items():
            layer.processor = before[path]


def last(recorders: Mapping[str, Recorder]) -> list[Tensor]:
    """The probabilities of each layer's last call, (batch, heads, positions, tokens)."""
    return [each.seen[-1] for each in recorders.values()]


# --- maps ------------------------------------------------------------------------------------------------------------------


def side_of(positions: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a layer with that many positions, in a U-Net that halves latents of `height` x `width`."""
    while height * width > positions and max(height, width) > 1:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    if height * width != positions:
        raise UsageError(f"a layer has {positions} positions, which halving does not give", "Give a Stable Diffusion backbone.")
    return height, width


def word_map(layers: Sequence[Tensor], tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, h, w): how much the finest layers attend to the words, mean over layers, heads and the words, of maximum 1 an image.

    layers: probabilities (B, heads, positions, T); tokens: (B, T) bool.
    """
    finest = max(each.shape[2] for each in layers)
    stacked = torch.stack([each.mean(1) for each in layers if each.shape[2] == finest]).mean(0)  # (B, positions, T)
    share = tokens.to(stacked) / tokens.sum(1, keepdim=True).clamp(min=1)  # (B, T)
    maps = torch.einsum("bpt,bt->bp", stacked, share)
    maps = maps / maps.amax(1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return maps.unflatten(1, side_of(finest, height, width))


def resized(mask: Tensor, positions: int, height: int, width: int) -> Tensor:
    """A mask (B, h, w) for a layer, (B, positions): a place counts where any of what it covers does."""
    return F.adaptive_max_pool2d(mask[:, None].float(), side_of(positions, height, width)).flatten(1) > 0


def attended(layers: Sequence[Tensor], tokens: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
    """Sum over layers of the Frobenius norm of the probabilities at the words and, with masks, at the masked positions.

    layers: (B, heads, positions, T); tokens: (B, T) bool; masks: per layer (B, positions) bool.
    """
    total = torch.zeros((), device=layers[0].device)
    for i, each in enumerate(layers):
        kept = each * tokens.to(each)[:, None, None, :]
        if masks is not None:
            kept = kept * masks[i].to(each)[:, None, :, None]
        total = total + _norm(kept)
    return total


def _norm(value: Tensor) -> Tensor:
    """The Frobenius norm, whose gradient at 0 is 0."""
    squares = value.square().sum()
    return torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt() * (squares > 0)
