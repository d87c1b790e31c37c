"""Tiny random stand-ins for the scorers on CLIP, each file in its published form."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor

LABELS = "a cat, a house,an apple"


def model_config(width: int, *, quick_gelu: bool = True) -> dict[str, Any]:
    """open_clip's configuration of a CLIP with vectors of `width` numbers."""
    return {
        "embed_dim": width,
        "quick_gelu": quick_gelu,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }


def seeded_clip(width: int, seed: int = 0) -> Any:
    """A CLIP whose vectors differ by picture and by text; the global noise is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**model_config(width))
        for name, value in model.named_parameters():
            if "embedding" in name or name.endswith(("in_proj_weight", "c_fc.weight")):
                torch.nn.init.normal_(value, std=0.3)
    return model.eval().requires_grad_(False)


def clip_folder(folder: Path, width: int) -> Path:
    """A folder in open_clip's local-dir format."""
    made = folder / f"clip-{width}"
    if not made.exists():
        made.mkdir()
        scaling = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD, "interpolation": "bicubic"}
        config = {"model_cfg": model_config(width), "preprocess_cfg": {**scaling, "resize_mode": "shortest"}}
        (made / "open_clip_config.json").write_text(json.dumps(config))
        save_file(seeded_clip(width).state_dict(), made / "open_clip_model.safetensors")
    return made


def head_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Names and shapes of IGMU's heads, written out (`attention.{0,2}`, `classifier.{0,1,4,7}`)."""
    shapes = {
        "attention.0": (256, 512), "attention.2": (512, 256), "classifier.0": (512,), "classifier.1": (256, 512),
        "classifier.4": (128, 256), "classifier.7": (1, 128),
    }  # fmt: skip
    rng = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape, generator=rng) / 8
        state[f"{name}.bias"] = torch.randn(shape[0], generator=rng) / 8
    return state


def prompts(seed: int = 0) -> np.ndarray:
    """Two vectors of Q16's shape and kind, near each other so that no probability is 0 or 1."""
    rng = np.random.default_rng(seed)
    both = rng.normal(size=768)
    return np.stack([both + rng.normal(size=768) / 4 for _ in range(2)]).astype(np.float16)


def checker_folder(folder: Path) -> Path:
    """A tiny safety checker whose thresholds lie amid its cosines, in the layout of its published file."""
    made = folder / "checker"
    if not made.exists():
        made.mkdir()
        model = seeded_checker()
        nested = {name.replace("vision_model.", "vision_model.vision_model.", 1): v for name, v in model.state_dict().items()}
        nested["vision_model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
        save_file({name: value.contiguous() for name, value in nested.items()}, made / "model.safetensors", {"format": "pt"})
        model.config.save_pretrained(made)
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(made)
    return made


def seeded_checker() -> StableDiffusionSafetyChecker:
    """The checker as transformers 5 names its parts."""
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 8,
    }  # fmt: skip
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config=text, projection_dim=24))
        for value in model.parameters():
            if value.ndim > 1:
                torch.nn.init.normal_(value, std=0.3)
    model.special_care_embeds_weights.data.fill_(0.25)
    model.concept_embeds_weights.data.fill_(0.35)
    return model


def _head(folder: Path) -> dict[str, Any]:
    path = folder / "classifier_head.pth"
    torch.save(head_state(), path)
    return {"weights": path, "clip": clip_folder(folder, 512)}


def _q16(folder: Path) -> dict[str, Any]:
    path = folder / "prompts.p"
    path.write_bytes(pickle.dumps(prompts()))
    return {"weights": path, "clip": clip_folder(folder, 768)}


GIVEN: dict[str, Callable[[Path], dict[str, Any]]] = {
    "clip-b32": lambda folder: {"weights": clip_folder(folder, 512)},
    "clip-b16": lambda folder: {"weights": clip_folder(folder, 512)},
    "csdr-igmu": lambda folder: {"weights": clip_folder(folder, 512)},
    "clip-l14": lambda folder: {"weights": clip_folder(folder, 768)},
    "igmu-head": _head,
    "q16": _q16,
    "clip-style": lambda folder: {"weights": clip_folder(folder, 768), "labels": LABELS},
    "clip-object": lambda folder: {"weights": clip_folder(folder, 512), "labels": LABELS},
    "safety-checker": lambda folder: {"weights": checker_folder(folder)},
}
"""Scorer -> what writes its stand-ins into a folder, and the option values that name them."""
