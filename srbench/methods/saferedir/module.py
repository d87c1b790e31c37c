"""SafeRedir's network: a detector and a token-level redirector over (latent, prompt embedding, timestep).

Blocks, sizes and parameter names are those of the authors' release (github.com/ryliu68/SafeRedir at a920535, model.py, MIT),
so its checkpoints load; every size is an argument, so that it trains on other backbones.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class Sizes(BaseModel):
    """Sizes of a redirector; the defaults are the released ones (Stable Diffusion 1.x)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_width: int = Field(768, gt=0)
    tokens: int = Field(77, gt=0)
    latent_channels: int = Field(4, gt=0)
    latent_widths: tuple[int, ...] = (64, 128, 256)
    latent_feature: int = Field(512, gt=0)
    timestep_width: int = Field(320, gt=1, multiple_of=2)
    timestep_feature: int = Field(64, gt=0)
    token_hidden: int = Field(512, gt=0)
    rank: int = Field(16, gt=0)
    classifier_hidden: int = Field(256, gt=0)
    alpha_hidden: int = Field(256, gt=0)
    mask_hidden: int = Field(128, gt=0)
    heads: int = Field(4, gt=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    token_delta: bool = False
    """Feed `token_proj` with each token in place of the fused prompt feature, so that tokens get different directions."""

    @property
    def joint(self) -> int:
        return self.latent_feature + self.timestep_feature


def steady_sigmoid(x: Tensor) -> Tensor:
    """Sigmoid whose value does not depend on where in the tensor an element lies.

    On a CPU the last few elements take another code path than the rest, 1 ulp apart: enough to change a pixel with the
    image's place in the batch. In float64 the paths agree once rounded back.
    """
    return x.double().sigmoid().to(x.dtype)


class SteadySigmoid(nn.Module):
    """`steady_sigmoid` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return steady_sigmoid(x)


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut. (B, C, h, w) -> (B, out, h, w)."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inside, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1), nn.BatchNorm2d(out),
        )
        self.downsample = nn.Identity() if inside == out else nn.Conv2d(inside, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + self.downsample(x))


class QueryHead(nn.Module):
    """One attention query of the joint feature over the prompt's tokens. (B, J), keys and values (B, T, D) -> (B, D)."""

    def __init__(self, joint: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(joint, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def about(self, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens, (B, T, D) each."""
        return self.key(prompt), self.value(prompt)

    def forward(self, joint: Tensor, about: tuple[Tensor, Tensor]) -> Tensor:
        key, value = about
        scores = torch.einsum("bd,btd->bt", self.query(joint), key) / math.sqrt(key.shape[-1])
        answer = torch.einsum("bt,btd->bd", scores.softmax(-1), value)
        return self.norm(answer + value.mean(1))


class Fusion(nn.Module):
    """Several query heads side by side, then one linear layer. The paper's multi-scale attention."""

    def __init__(self, joint: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(QueryHead(joint, width) for _ in range(heads))
        self.fuse = nn.Sequential(nn.Linear(heads * width, width), nn.LayerNorm(width))

    def about(self, prompt: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values a head."""
        return [cast(QueryHead, head).about(prompt) for head in self.heads]

    def forward(self, joint: Tensor, about: list[tuple[Tensor, Tensor]]) -> Tensor:
        answers = [head(joint, keys_values) for head, keys_values in zip(self.heads, about, strict=True)]
        return self.fuse(torch.cat(answers, -1))  # (B, D)


class LowRank(nn.Module):
    """A low-rank linear map with a learned scale. (..., D) -> (..., D)."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x)) * self.scale


class MaskPredictor(nn.Module):
    """Which tokens carry the concept: (B, T, D) -> (B, T) in (0, 1)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.predictor = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.LayerNorm(hidden), nn.Linear(hidden, 1))

    def forward(self, prompt: Tensor) -> Tensor:
        mixed, _ = self.attn(prompt, prompt, prompt, need_weights=False)
        return steady_sigmoid(self.predictor(mixed).squeeze(-1))


class AlphaPredictor(nn.Module):
    """How far each token is moved: (B, T, D) -> (B, T) in (0, 1)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1), SteadySigmoid())

    def forward(self, prompt: Tensor) -> Tensor:
        return self.net(prompt).squeeze(-1)


def timestep_embedding(t: Tensor, width: int, period: float = 10_000.0) -> Tensor:
    """Sine then cosine of `t` at geometric frequencies. (B,) -> (B, width)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * (-math.log(period) / half))
    angles = t.float()[:, None] * rates  # (B, width / 2)
    return torch.cat([angles.sin(), angles.cos()], -1)


def _latent_encoder(sizes: Sizes) -> nn.Sequential:
    widths = (sizes.latent_channels, *sizes.latent_widths)
    blocks = [ConvBlock(a, b) for a, b in itertools.pairwise(widths)]
    tail = (nn.Linear(widths[-1], sizes.latent_feature), nn.ReLU(), nn.Dropout(sizes.dropout))
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *tail)


class About(NamedTuple):
    """All that depends on the prompt alone: while sampling it is computed once, not at every step."""

    prompt: Tensor  # (B, T, D)
    heads: list[tuple[Tensor, Tensor]]
    """Keys and values of the query heads."""
    gate: Tensor  # (B, T, 1)
    mask: Tensor  # (B, T)
    alpha: Tensor  # (B, T)


class SafeRedir(nn.Module):
    """Detector and redirector. Without arguments: the released sizes, 14,573,574 parameters."""

    def __init__(self, sizes: Sizes | None = None, **changes: Any) -> None:
        super().__init__()
        self.sizes = s = (sizes or Sizes()).model_copy(update=changes)
        joint, width = s.joint, s.prompt_width
        self.latent_encoder = _latent_encoder(s)
        self.t_encoder = nn.Sequential(
            nn.Linear(s.timestep_width, s.timestep_feature), nn.SiLU(), nn.LayerNorm(s.timestep_feature)
        )
        self.cross_attn = Fusion(joint, width, s.heads)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, s.tokens, width))
        self.classifier = nn.Sequential(
            nn.Linear(joint + 2 * width, s.classifier_hidden), nn.ReLU(), nn.Dropout(s.dropout),
            nn.Linear(s.classifier_hidden, 2),
        )
        self.token_proj = nn.Sequential(nn.Linear(joint + width, s.token_hidden), nn.ReLU(), nn.Linear(s.token_hidden, width))
        self.delta_head = LowRank(width, s.rank)
        self.gate_linear = nn.Linear(width, 1)
        self.mask_predictor = MaskPredictor(width, s.heads, s.mask_hidden)
        self.alpha_predictor = AlphaPredictor(width, s.alpha_hidden)

    def joint_feature(self, latent: Tensor | None, t: Tensor | None, images: int) -> Tensor:
        """Latent and timestep as one vector, (B, J). An input that is None counts as zeros, as in training's input dropout."""
        like = self.pos_embed
        seen = like.new_zeros(images, self.sizes.latent_feature) if latent is None else self.latent_encoder(latent)
        if t is None:
            when = like.new_zeros(images, self.sizes.timestep_feature)
        else:
            when = self.t_encoder(timestep_embedding(t, self.sizes.timestep_width))
        return torch.cat([seen, when], -1)

    def about(self, prompt: Tensor) -> About:
        """What depends on the prompt (B, T, D) alone."""
        gate = steady_sigmoid(self.gate_linear(prompt + self.pos_embed))  # (B, T, 1)
        return About(prompt, self.cross_attn.about(prompt), gate, self.mask_predictor(prompt), self.alpha_predictor(prompt))

    def read(self, joint: Tensor, about: About) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All outputs from the joint feature (B, J) and the prompt's part; shapes as `forward`."""
        fused = self.cross_attn(joint, about.heads)  # (B, D)
        logits = self.classifier(torch.cat([joint, about.prompt.mean(1), fused], -1))
        return logits, self._delta(joint, fused, about) * about.mask[..., None], about.mask, about.alpha

    def _delta(self, joint: Tensor, fused: Tensor, about: About) -> Tensor:
        tokens = about.prompt.shape[1]
        read = about.prompt if self.sizes.token_delta else fused[:, None].expand(-1, tokens, -1)
        hidden = torch.cat([joint[:, None].expand(-1, tokens, -1), read], -1)  # (B, T, J + D)
        return self.delta_head(self.token_proj(hidden)) * about.gate

    def forward(
        self, latent: Tensor | None, prompt: Tensor | About, t: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (B, 2; 1 = unsafe), delta (B, T, D), mask (B, T), alpha (B, T).

        latent: x_t (B, C, h, w), prompt: (B, T, D) or its `About`, t: raw timestep in 0-999 (B,). latent or t
        None: that input is left out.
        """
        about = prompt if isinstance(prompt, About) else self.about(prompt)
        return self.read(self.joint_feature(latent, t, len(about.prompt)), about)


def shift(prompt: Tensor, delta: Tensor, mask: Tensor | None, alpha: Tensor, scale: float) -> Tensor:
    """What is added to the prompt: scale * alpha_i * mask_i * delta_i / |delta_i| * |e_i|, (B, T, D).

    The mask acts after the normalisation; None leaves it out, as the release does (it cancels there). 2601.08623.
    """
    strength = scale * alpha * prompt.norm(dim=-1)  # (B, T)
    strength = strength if mask is None else strength * mask
    return strength[..., None] * F.normalize(delta, dim=-1)
