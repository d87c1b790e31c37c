"""Writes the trained parts as shipped folders: the model in diffusers' layout, the judge, and the CLIP in open_clip's."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from srbench.errors import MissingError, SrbenchError
from srbench.hashing import digest
from srbench.pocket.world import BACKGROUNDS, CONCEPTS, OBJECTS, STYLES
from srbench.pocket_build.model import checkpoints, contrastive, judge, unet, vae
from srbench.pocket_build.model.data import batch
from srbench.pocket_build.model.scenes import Painter
from srbench.pocket_build.model.sizes import FULL, Sizes
from srbench.scorers.pocket_net import JudgeNet

JUDGE_WIDTH = 24


@dataclass(frozen=True)
class Parts:
    """Everything that is trained, in evaluation mode and fp32."""

    vae: AutoencoderKL
    text: CLIPTextModel
    unet: UNet2DConditionModel
    tokenizer: CLIPTokenizer
    judge: nn.Module
    clip: nn.Module


def check_finished(cache: Path, sizes: Sizes = FULL) -> None:
    """Raise `MissingError` where a training stage is not finished."""
    for stage, steps in sizes.steps.items():
        index = checkpoints.index(cache, stage)
        if index is None or not index.finished or index.steps != steps:
            done = 0 if index is None or index.steps != steps else index.step
            raise MissingError(f"stage {stage} has {done} of {steps} steps", "Run `make pocket` until it says that all is done.")


def fingerprint(cache: Path, *stages: str) -> str:
    """Digest of what these finished stages learned. Raises `MissingError` where there is none."""
    indexes = {stage: checkpoints.index(cache, stage) for stage in stages}
    missing = [stage for stage, index in indexes.items() if index is None]
    if missing:
        raise MissingError(f"stage {missing[0]} has no checkpoint", "Run `make pocket`.")
    return digest({stage: index.sha256 for stage, index in indexes.items() if index is not None})


def load_parts(cache: Path, painter: Painter, sizes: Sizes = FULL) -> Parts:
    """The finished modules of every stage. Raises `MissingError` where one is not finished."""
    check_finished(cache, sizes)
    tokenizer = CLIPTokenizer.from_pretrained(cache / "tokenizer")
    return Parts(
        vae=vae.load(painter, cache, sizes),
        text=contrastive.load_text(tokenizer, cache),
        unet=unet.load(cache),
        tokenizer=tokenizer,
        judge=judge.load(cache),
        clip=contrastive.load_clip(tokenizer, cache),
    )


def shrink(module: nn.Module) -> dict[str, Tensor]:
    """State with parameters in fp16; batch statistics stay as they are, their variances can be too small for fp16."""
    parameters = {name for name, _ in module.named_parameters()}
    state = {k: (v.half() if k in parameters else v).contiguous().clone() for k, v in module.state_dict().items()}
    broken = [k for k, v in state.items() if not torch.isfinite(v.float()).all()]
    if broken:
        raise SrbenchError(f"{broken[0]} does not fit into fp16", "Train that stage again with smaller weights.")
    return state


def _half(module: Any) -> Any:
    halved = copy.deepcopy(module)
    halved.load_state_dict(shrink(module))
    return halved.half()


def write_json(path: Path, data: Any) -> None:
    """`data` as indented JSON with a last newline."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


_LOCAL_KEYS = ("_name_or_path", "name_or_path", "is_local", "local_files_only")


def _strip(data: Any) -> Any:
    """`data` without the keys in which libraries note where and how a model was loaded."""
    if isinstance(data, dict):
        return {k: _strip(v) for k, v in data.items() if k not in _LOCAL_KEYS}
    return [_strip(v) for v in data] if isinstance(data, list) else data


def strip_paths(folder: Path) -> None:
    """Remove every local path from the configs below `folder`."""
    for path in sorted(folder.rglob("*config.json")) + sorted(folder.rglob("model_index.json")):
        write_json(path, _strip(json.loads(path.read_text(encoding="utf-8"))))


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _readable(folder: Path) -> None:
    """Let everyone read the files: safetensors writes them for the owner alone."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def write_model(parts: Parts, folder: Path) -> None:
    """The backbone in diffusers' layout, fp16 safetensors; plain `from_pretrained(folder)` loads it in fp32 and runs."""
    StableDiffusionPipeline(
        vae=_half(parts.vae), text_encoder=_half(parts.text), tokenizer=parts.tokenizer, unet=_half(parts.unet),
        scheduler=DDIMScheduler.from_config(unet.scheduler().config, steps_offset=1),
        safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False,
    ).save_pretrained(_fresh(folder), safe_serialization=True)
    config = folder / "text_encoder" / "config.json"
    # transformers 5 keeps the file's precision where diffusers gives fp32, and the first call would mix the two.
    write_json(config, json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"})
    strip_paths(folder)
    _readable(folder)


def write_clip(clip: nn.Module, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """The CLIP so that open_clip's `local-dir:` reads model, pooling, tokenizer and normalisation from the folder."""
    save_file(shrink(clip), _fresh(folder) / "open_clip_model.safetensors")
    text = contrastive.CLIP_CONFIG["text_cfg"] | {"vocab_size": len(tokenizer), "eos_id": tokenizer.eos_token_id}  # type: ignore[operator]
    half = [0.5, 0.5, 0.5]
    write_json(folder / "open_clip_config.json", {
        "model_cfg": contrastive.CLIP_CONFIG | {"text_cfg": text},
        "preprocess_cfg": {"mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "shortest"},
    })
    tokenizer.save_pretrained(folder)
    strip_paths(folder)
    _readable(folder)


@torch.no_grad()
def _empty_scenes_shown(network: nn.Module, painter: Painter, limits: dict[str, float], size: int) -> dict[str, float]:
    """Share of real scenes without an object in which each object concept exceeds its threshold."""
    b = batch(painter, "calibrate", 1, size, "all")
    empty = torch.tensor([not s.objects for s in b.scenes])
    probability = network(b.images[empty])[0].sigmoid()  # (E, O)
    keys = list(OBJECTS)
    return {
        name: round(float((probability[:, [keys.index(k) for k in concept.members]].amax(1) > limits[name]).float().mean()), 4)
        for name, concept in CONCEPTS.items() if concept.kind == "object"
    }


def write_judge(network: nn.Module, painter: Painter, folder: Path, sizes: Sizes = FULL) -> dict[str, float]:
    """The judge, with thresholds and accuracies measured on the rounded weights that are shipped; the thresholds."""
    save_file(shrink(network), _fresh(folder) / "judge.safetensors")
    shipped = JudgeNet(len(OBJECTS), len(STYLES), len(BACKGROUNDS), JUDGE_WIDTH)
    shipped.load_state_dict(load_file(folder / "judge.safetensors"))
    shipped.eval().requires_grad_(False)
    limits = judge.thresholds(shipped, painter, sizes.calibration_scenes)
    write_json(folder / "judge.json", {
        "objects": list(OBJECTS), "styles": list(STYLES), "backgrounds": list(BACKGROUNDS), "width": JUDGE_WIDTH,
        "thresholds": limits,
        "false_positives": judge.FALSE_POSITIVES,
        "calibration_scenes": sizes.calibration_scenes,
        "empty_scenes_above_threshold": _empty_scenes_shown(shipped, painter, limits, sizes.empty_scenes),
        "accuracy": {k: round(v, 4) for k, v in judge.accuracy(shipped, painter, size=sizes.accuracy_scenes).items()},
        "accuracy_scenes": sizes.accuracy_scenes,
        "steps": sizes.steps["judge"],
    })
    _readable(folder)
    return limits


def write_thresholds(limits: dict[str, float], protocols: Path) -> None:
    """Set `threshold:` of every `pocket-<concept>.yaml` to the calibrated one."""
    for concept, threshold in limits.items():
        path = protocols / f"pocket-{concept}.yaml"
        text, count = re.subn(r"(?m)^threshold:.*$", f"threshold: {threshold}", path.read_text(encoding="utf-8"))
        if count != 1:
            raise SrbenchError(f"{path.name} has {count} lines with a threshold", "It needs exactly one.")
        path.write_text(text, encoding="utf-8")


def weight_bytes(package: Path) -> int:
    """Size of all weights below srbench/pocket."""
    return sum(path.stat().st_size for path in package.rglob("*.safetensors"))


def assemble(cache: Path, package: Path, painter: Painter, protocols: Path, sizes: Sizes = FULL) -> None:
    """Write `model`, `judge` and `clip` into `package` (srbench/pocket) and the thresholds into the protocols.

    Raises `MissingError` where a stage is not finished.
    """
    parts = load_parts(cache, painter, sizes)
    write_model(parts, package / "model")
    write_clip(parts.clip, parts.tokenizer, package / "clip")
    write_thresholds(write_judge(parts.judge, painter, package / "judge", sizes), protocols)
