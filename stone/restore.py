"""Adds the differences to the first edition's weights, in place."""

import lzma
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
MODEL = HERE.parent / "srbench" / "pocket" / "model"

for part, name in (("unet", "diffusion_pytorch_model.safetensors"), ("text_encoder", "model.safetensors")):
    with lzma.open(HERE / f"{part}.npz.xz") as packed:
        held = np.load(packed)
        state = load_file(MODEL / part / name)
        for key in state:
            scale, delta = held[f"{key}|scale"], held[f"{key}|delta"].astype(np.float32)
            delta = torch.from_numpy(delta * scale.reshape(-1, *[1] * (delta.ndim - 1))).reshape(state[key].shape)
            state[key] = (state[key].float() + delta).half()
        save_file(state, MODEL / part / name, metadata={"format": "pt"})
