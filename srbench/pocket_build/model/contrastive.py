"""Contrastive training of the two text towers: the backbone's own, and the CLIP scorer's.

Neither loss knows an object, style or background label: a redirector's detector must find the concept by itself.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from srbench.pocket_build.model import training
from srbench.pocket_build.model.data import batch
from srbench.pocket_build.model.scenes import Painter

WIDTH = 192

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {
        "context_length": 77, "width": 128, "heads": 4, "layers": 3, "hf_tokenizer_name": "srbench-pocket", "pool_type": "eos",
        "tokenizer_kwargs": {"clean": "whitespace"},
    },
}


def _convolution(inside: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.SiLU())


class ImageTower(nn.Module):
    """A plain convolutional image encoder, thrown away after training. (B, 3, 64, 64) -> (B, 192)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w = width
        self.features = nn.Sequential(
            _convolution(3, w, 2), _convolution(w, 2 * w, 2), _convolution(2 * w, 2 * w), _convolution(2 * w, 4 * w, 2),
            _convolution(4 * w, 4 * w), _convolution(4 * w, 6 * w, 2), _convolution(6 * w, 6 * w), nn.Flatten(),
            nn.Dropout(0.1), nn.Linear(6 * w * 16, WIDTH),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)


class TextPair(nn.Module):
    """The backbone's text encoder with a projection and the image tower beside it."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=4,
            num_attention_heads=4, max_position_embeddings=77, projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        ))
        self.project = nn.Linear(WIDTH, WIDTH, bias=False)
        self.image = ImageTower()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(14.0)))

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(images), self.project(self.text(input_ids=ids).pooler_output), self.logit_scale.exp()


def _contrast(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over the batch (Radford et al. 2021, 2103.00020, figure 3)."""
    logits = F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T * scale.clamp(max=50)  # (B, B)
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def _ids(tokenizer: CLIPTokenizer, captions: list[str], length: int | None = None) -> Tensor:
    encoded = tokenizer(
        captions, padding="max_length" if length else True, truncation=True, max_length=length or 77, return_tensors="pt"
    )
    return encoded.input_ids  # (B, L)


@torch.no_grad()
def _recall(model: nn.Module, painter: Painter, tokenizer: CLIPTokenizer, device: torch.device, full: bool) -> str:
    heldout = batch(painter, "validate", 2, 128, "all")
    ids = _ids(tokenizer, heldout.captions, 77 if full else None)
    image, text, _ = model(heldout.images.to(device), ids.to(device))[:3]
    scores = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    right = scores.argmax(1).cpu() == torch.arange(128)
    return f"R@1 of 128 {float(right.float().mean()):.3f}"


def train_text(painter: Painter, tokenizer: CLIPTokenizer, place: training.Place) -> bool:
    """Train the backbone's text encoder, or go on; whether it is finished."""
    torch.manual_seed(202)
    model = TextPair(tokenizer)

    def loss(m: nn.Module, step: int, done: float) -> Tensor:
        torch.manual_seed(step)  # dropout
        # Swapped pairs beside each other: only an encoder that keeps the order of two things tells them apart.
        b = batch(painter, "text", step, place.sizes.batch["text"], swaps=True)
        with training.autocast(place.device):
            image, text, scale = m(b.images.to(place.device), _ids(tokenizer, b.captions).to(place.device))
        return _contrast(image, text, scale)

    return training.run(training.Stage(
        "text", model, training.adam(model.parameters(), 1.2e-3), loss, place.sizes.steps["text"],
        validate=lambda m: _recall(m, painter, tokenizer, place.device, full=False),
    ), place)


def load_text(tokenizer: CLIPTokenizer, cache: Path) -> CLIPTextModel:
    """The finished text encoder."""
    return training.averaged(cache, "text", TextPair(tokenizer)).text


def make_clip(tokenizer: CLIPTokenizer) -> nn.Module:
    """An untrained open_clip model for 64 x 64 pictures with pocket's vocabulary."""
    text = {k: v for k, v in CLIP_CONFIG["text_cfg"].items() if k not in ("hf_tokenizer_name", "tokenizer_kwargs")}  # type: ignore[attr-defined]
    text |= {"vocab_size": len(tokenizer), "eos_id": tokenizer.eos_token_id}
    return open_clip.CLIP(embed_dim=CLIP_CONFIG["embed_dim"], vision_cfg=dict(CLIP_CONFIG["vision_cfg"]), text_cfg=text)  # type: ignore[arg-type]


def train_clip(painter: Painter, tokenizer: CLIPTokenizer, place: training.Place) -> bool:
    """Train the CLIP scorer (open_clip), or go on; whether it is finished. It sees every combination of the world."""
    torch.manual_seed(303)
    model = make_clip(tokenizer)

    def loss(m: nn.Module, step: int, done: float) -> Tensor:
        b = batch(painter, "clip", step, place.sizes.batch["clip"], "all")
        images = b.images + 0.05 * torch.randn(b.images.shape, generator=torch.Generator().manual_seed(step))
        with training.autocast(place.device):
            image, text, scale = m(images.to(place.device), _ids(tokenizer, b.captions, 77).to(place.device))[:3]
        return _contrast(image, text, scale)

    return training.run(training.Stage(
        "clip", model, training.adam(model.parameters(), 1.2e-3), loss, place.sizes.steps["clip"],
        validate=lambda m: _recall(m, painter, tokenizer, place.device, full=True),
    ), place)


def load_clip(tokenizer: CLIPTokenizer, cache: Path) -> Any:
    """The finished CLIP scorer."""
    return training.averaged(cache, "clip", make_clip(tokenizer))
