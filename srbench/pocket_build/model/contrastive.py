"""Contrastive training of the two text towers: the backbone's own, and the CLIP scorer's.

Neither loss knows an object, style or background label: a redirector's detector must find the concept by itself. The backbone's
encoder also learns to keep any two phrases apart: pictures alone would make one point of all synonyms, which no encoder of a
real model does.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from srbench.pocket.captions import background_phrase, join
from srbench.pocket.world import CONCEPTS, EMPTY, OBJECTS, STYLES, article, reserved
from srbench.pocket_build.model import training
from srbench.pocket_build.model.data import STREAM, batch
from srbench.pocket_build.model.scenes import Painter, sample_scene

WIDTH = 192
APART_WEIGHT = 3.0
"""Of the phrases' loss beside the contrastive one."""
APART_AT = {"alone": 0.8, "in a sentence": 0.93}
"""The cosine of two phrases' states above which they count as too near each other."""
PHRASES_DRAWN = 48
"""Of things, and of styles, in each step."""
GROUPS = 4
"""Into which a batch's captions are sorted by length."""
TOWER_STEPS = 100
"""Of a training that goes on from a finished text encoder: so long only what is new beside it learns."""

_OBJECT_CONCEPTS = [name for name, words in CONCEPTS.items() if words.kind == "object"]
_STYLE_CONCEPTS = [words for words in CONCEPTS.values() if words.kind == "style"]
NOUNS = list(dict.fromkeys((
    *(text for item in OBJECTS.values() for text in (*map(article, item.nouns), item.description)),
    *(text for name in _OBJECT_CONCEPTS for text in (*CONCEPTS[name].names, *CONCEPTS[name].descriptions)),
    *(text for name in _OBJECT_CONCEPTS for text, _ in reserved(name)),
)))  # fmt: skip
LOOKS = list(dict.fromkeys((
    *(text for style in STYLES.values() for text in style.phrases),
    *(text for words in _STYLE_CONCEPTS for text in (*words.names, *words.reserved, *words.descriptions)),
)))  # fmt: skip
"""Every phrase for a thing, and for a style."""

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    "text_cfg": {
        "context_length": 77, "width": 96, "heads": 4, "layers": 2, "hf_tokenizer_name": "srbench-pocket", "pool_type": "eos",
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

    def pooled(self, ids: Tensor) -> Tensor:
        """The captions' states at their ends, (B, L) -> (B, 192): in groups of like length, since few captions are long."""
        length = (ids != self.text.config.eos_token_id).sum(1) + 1
        order = length.argsort()
        groups = order.chunk(GROUPS)
        states = [self.text(input_ids=ids[group, : int(length[group].max())]).pooler_output for group in groups]
        return torch.cat(states)[order.argsort()]

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(images), self.project(self.pooled(ids)), self.logit_scale.exp()


def _contrast(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over the batch (Radford et al. 2021, 2103.00020, figure 3)."""
    logits = F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T * scale.clamp(max=50)  # (B, B)
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def _drawn_phrases(rng: np.random.Generator) -> dict[str, list[list[str]]]:
    """Phrases for things and for styles, each group different phrases: alone, and all of a group in one sentence."""
    scene = sample_scene(rng)
    place, thing = background_phrase(scene, rng), article(OBJECTS[scene.objects[0]].nouns[0]) if scene.objects else EMPTY[0]
    nouns, looks = ([str(text) for text in rng.choice(texts, min(len(texts), PHRASES_DRAWN), False)] for texts in (NOUNS, LOOKS))
    sentences = [[join(noun, place, "") for noun in nouns], [join(thing, place, look) for look in looks]]
    return {"alone": [nouns, looks], "in a sentence": sentences}


def _apart(model: Any, tokenizer: CLIPTokenizer, step: int, device: torch.device) -> Tensor:
    """How much nearer than `APART_AT` any two phrases lie, mean over pairs. No label: that two texts differ is all it knows."""
    drawn = _drawn_phrases(np.random.default_rng([STREAM["text"], step, 1]))
    texts = [text for groups in drawn.values() for group in groups for text in group]
    states = F.normalize(model.pooled(_ids(tokenizer, texts).to(device)).float(), dim=-1)
    excess, start = [], 0
    for kind, groups in drawn.items():
        for group in groups:
            own = states[start : start + len(group)]
            near = F.relu(own @ own.T - APART_AT[kind])
            excess.append((near.sum() - near.diagonal().sum()) / (len(group) * (len(group) - 1)))
            start += len(group)
    return torch.stack(excess).sum()


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


def train_text(painter: Painter, tokenizer: CLIPTokenizer, place: training.Place, start: CLIPTextModel | None = None) -> bool:
    """Train the backbone's text encoder, or go on; whether it is finished. start: a finished one to go on from."""
    torch.manual_seed(202)
    model = TextPair(tokenizer)
    if start is not None:
        model.text.load_state_dict(start.state_dict())

    def loss(m: Any, step: int, done: float) -> Tensor:
        torch.manual_seed(step)  # dropout
        m.text.requires_grad_(start is None or step >= TOWER_STEPS)
        # Swapped pairs beside each other: only an encoder that keeps the order of two things tells them apart.
        b = batch(painter, "text", step, place.sizes.batch["text"], swaps=True)
        with training.autocast(place.device):
            image, text, scale = m(b.images.to(place.device), _ids(tokenizer, b.captions).to(place.device))
            return _contrast(image, text, scale) + APART_WEIGHT * _apart(m, tokenizer, step, place.device)

    rate = 1.2e-3 if start is None else 6e-4
    return training.run(training.Stage(
        "text", model, training.adam(model.parameters(), rate), loss, place.sizes.steps["text"],
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
