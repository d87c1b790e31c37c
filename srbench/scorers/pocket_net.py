"""The pocket judges' network: objects (multi-label), style and background from one 64 x 64 image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut (He et al. 2015, 1512.03385)."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        same = stride == 1 and inside == out
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class JudgeNet(nn.Module):
    """Residual convolutions, then per-place evidence for objects and pooled features for style and background."""

    def __init__(self, objects: int = 24, styles: int = 5, backgrounds: int = 7, width: int = 24) -> None:
        super().__init__()
        w = width
        self.styles = styles
        self.stem = nn.Sequential(nn.Conv2d(3, w, 5, 2, 2, bias=False), nn.BatchNorm2d(w), nn.ReLU())
        self.body = nn.Sequential(ResidualBlock(w, 2 * w, 2), ResidualBlock(2 * w, 4 * w, 2), ResidualBlock(4 * w, 8 * w, 1))
        self.evidence = nn.Conv2d(8 * w, objects, 1)
        self.look = nn.Linear(16 * w, styles + backgrounds)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images in [-1, 1] (B, 3, 64, 64) -> logits: objects (B, O), styles (B, S), backgrounds (B, G)."""
        x = self.body(self.stem(images))  # (B, 8w, 8, 8)
        # A soft maximum over places: an object counts wherever it stands.
        objects = torch.logsumexp(2 * self.evidence(x).flatten(2), -1) / 2 - 2  # (B, O)
        look = self.look(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))  # (B, S + G)
        return objects, look[:, : self.styles], look[:, self.styles :]
