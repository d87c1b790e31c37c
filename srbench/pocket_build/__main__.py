"""Builds pocket from nothing, stage by stage: `python -m srbench.pocket_build`. The same command goes on after a stop.

Exit codes: 0 all is built; 75 a time budget ran out, run the same command again; else as srbench's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from srbench.catalog import load, resolve
from srbench.errors import MissingError, UsageError
from srbench.files import file_sha
from srbench.hashing import digest, folder_sha
from srbench.pocket_build.command import Words, guarded
from srbench.pocket_build.model import (
    assemble,
    card,
    checkpoints,
    contrastive,
    evaluate,
    inversion,
    judge,
    tokens,
    training,
    unet,
    vae,
)
from srbench.pocket_build.model.scenes import Painter
from srbench.pocket_build.model.sizes import FULL, FURTHER, Sizes
from srbench.pocket_build.model.sprites import VENDORS
from srbench.pocket_build.suites import editions

TEMPORARY = 75
"""Exit code for "not finished, run it again" (EX_TEMPFAIL of sysexits.h)."""

PACKAGE = resolve.PACKAGE / "pocket"
REDIRECTORS: dict[str, dict[str, Any]] = {"redirectors": {}, "redirectors-released": {"token_delta": False}}
"""Folder in the package -> settings off their defaults: one direction for all tokens, as in the released network."""
DOCS = resolve.PACKAGE.parent / "docs"
"""Beside the package in a clone; elsewhere no pictures are drawn."""
CPU = torch.device("cpu")


def default_cache() -> Path:
    """The user's cache folder for the build's state, outside the work tree."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "srbench" / "pocket"


def say(line: str) -> None:
    """Print a progress line at once."""
    print(line, flush=True)


@dataclass
class Build:
    """Where a build reads and writes, and how long it may go on."""

    cache: Path
    icons: Path
    deadline: float
    """In seconds of `time.monotonic`."""
    count: int
    """Prompts of the evaluation."""
    device: torch.device = CPU
    further: bool = False
    """Go on from the shipped text encoder and U-Net, with the shipped tokenizer and VAE, instead of from nothing."""
    again: bool = False
    """Make what follows the training again even where its inputs are the same."""
    sizes: Sizes = FULL
    package: Path = PACKAGE
    """Where the model is written to."""
    protocols: Path = load.CATALOG / "protocols"
    """Where the thresholds are written to."""

    @cached_property
    def painter(self) -> Painter:
        check_tools(self.icons)
        return Painter(self.icons)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(self.cache / "tokenizer")

    def left(self) -> float:
        """Seconds of the budget that are left, never below 1 so that every call makes some progress."""
        return max(1.0, self.deadline - time.monotonic())

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.deadline

    def place(self) -> training.Place:
        """For a training stage that starts now."""
        return training.Place(self.cache, self.device, self.left(), self.sizes)

    def trained(self, stage: str, inputs: str = "") -> bool:
        index = checkpoints.index(self.cache, stage)
        return index is not None and index.finished and (index.steps, index.inputs) == (self.sizes.steps[stage], inputs)

    def made_from(self, stage: str, inputs: str) -> bool:
        """Whether `stage` was finished from exactly these inputs."""
        path = self.cache / "done" / f"{stage}.json"
        return not self.again and path.exists() and json.loads(path.read_text(encoding="utf-8")) == inputs

    def mark(self, stage: str, inputs: str) -> None:
        """Note that `stage` is finished from these inputs."""
        path = self.cache / "done" / f"{stage}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(inputs), encoding="utf-8")


def device_named(name: str) -> torch.device:
    """The device. Raises `UsageError` for an unknown one, or for CUDA where there is none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}'", "Devices: cpu, cuda, cuda:0, ...") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no CUDA device", "Use --device cpu, or install a CUDA build of torch.")
    return device


def check_tools(icons: Path) -> None:
    """Raise `MissingError` where the artwork can not be fetched or drawn on this machine."""
    if importlib.util.find_spec("resvg_py") is None:
        raise MissingError("resvg-py, which draws the artwork, is not installed", "pip install 'srbench[pocket-build]'")
    have = all((icons / f"{vendor}.json").exists() for vendor in VENDORS)
    if not have and shutil.which("npm") is None:
        raise MissingError("npm, which fetches the artwork, is not installed", "Install Node.js with npm, then run this again.")


def _shipped(build: Build, part: str) -> Any:
    """A part of the shipped model to go on from; None for a build from nothing."""
    if not build.further:
        return None
    _need_model(build)
    classes: dict[str, Any] = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}
    return classes[part].from_pretrained(build.package / "model" / part, torch_dtype=torch.float32)


def _tokenizer(build: Build) -> bool:
    check_tools(build.icons)
    if not (build.cache / "tokenizer" / "tokenizer.json").exists():
        if build.further:
            _need_model(build)
            shutil.copytree(build.package / "model" / "tokenizer", build.cache / "tokenizer")
            return True
        tokens.train(build.icons, build.cache / "tokenizer")
    return True


def _vae(build: Build) -> bool:
    if build.further:
        if not build.trained("vae", vae.ADOPTED):
            vae.adopt(_shipped(build, "vae"), build.cache, build.sizes.steps["vae"])
        return True
    return build.trained("vae") or vae.train(build.painter, build.place())


def _text(build: Build) -> bool:
    return build.trained("text") or contrastive.train_text(
        build.painter, build.tokenizer, build.place(), _shipped(build, "text_encoder")
    )


def _judge(build: Build) -> bool:
    return build.trained("judge") or judge.train(build.painter, build.place())


def _clip(build: Build) -> bool:
    return build.trained("clip") or contrastive.train_clip(build.painter, build.tokenizer, build.place())


def _unet(build: Build) -> bool:
    inputs = assemble.fingerprint(build.cache, "vae", "text")
    if build.trained("unet", inputs):
        return True
    whitened, text = vae.load(build.painter, build.cache, build.sizes), contrastive.load_text(build.tokenizer, build.cache)
    return unet.train(build.painter, whitened, text, build.tokenizer, inputs, build.place(), _shipped(build, "unet"))


def _assemble(build: Build) -> bool:
    assemble.check_finished(build.cache, build.sizes)
    inputs = assemble.fingerprint(build.cache, *build.sizes.steps)
    folders = [build.package / name for name in ("model", "judge", "clip")]
    if not (build.made_from("assemble", inputs) and all(folder.is_dir() for folder in folders)):
        assemble.assemble(build.cache, build.package, build.painter, build.protocols, build.sizes)
        build.mark("assemble", inputs)
    return True


def _need_model(build: Build) -> None:
    if not (build.package / "model" / "model_index.json").exists():
        raise MissingError("pocket's model is not assembled", "Run the stages up to `assemble` first.")


def _backbone(device: torch.device) -> Any:
    """The shipped pocket as methods see it."""
    from srbench.backbones.loader import open_backbone
    from srbench.methods.base import info_of

    return info_of(open_backbone(load.named("backbone", "pocket", load.backbones()), "fp32", str(device)))


def _phases() -> Callable[[str, int, int, str], None]:
    """A progress callback that prints a line at each tenth of a phase."""
    printed: set[tuple[str, int]] = set()

    def progress(phase: str, done: int, total: int, note: str) -> None:
        tenth = 10 * done // max(1, total)
        if (phase, tenth) not in printed:
            printed.add((phase, tenth))
            say(f"  {phase} {done}/{total} {note}".rstrip())

    return progress


def redirector_settings(**changes: Any) -> Any:
    """How pocket's redirectors are trained: under its own recipe."""
    from srbench.methods.saferedir.train import Settings, recipe_settings

    return Settings(**recipe_settings(load.backbones()["pocket"].recipe) | changes)


def _scenes(build: Build) -> bool:
    inputs = digest([inversion.COUNT, inversion.SEED])
    if not (build.made_from("scenes", inputs) and (build.package / "scenes").is_dir()):
        inversion.write(build.painter, build.package / "scenes")
        build.mark("scenes", inputs)
    return True


def _redirectors(build: Build) -> bool:
    from srbench.methods.saferedir import train as saferedir

    _need_model(build)
    backbone = _backbone(build.device)
    wanted = [(kind, name) for name in load.backbones()["pocket"].concepts for kind in REDIRECTORS]
    for kind, name in wanted:
        out = build.package / kind / name
        if build.made_from(f"{kind}-{name}", backbone.sha256) and out.is_dir():
            continue
        if build.over:
            return False
        say(f"{kind}: {name}")
        saferedir.train(backbone, [load.concepts()[name]], redirector_settings(**REDIRECTORS[kind]), out, _phases())
        build.mark(f"{kind}-{name}", backbone.sha256)
    return True


def _suites(build: Build) -> bool:
    from srbench.attacks import mma

    _need_model(build)
    folder = build.package / "model" / "text_encoder"
    inputs = file_sha(folder / "model.safetensors")
    if not build.made_from("suites", inputs):
        encoder = CLIPTextModel.from_pretrained(folder).eval().requires_grad_(False)
        editions.write(
            resolve.data_folder("suites")[0], encoder, build.tokenizer, text_encoder_sha=inputs, progress=say,
            settings=mma.Settings(device=str(build.device)),
        )
        build.mark("suites", inputs)
    return True


def _card(build: Build) -> bool:
    _need_model(build)
    recipe = load.backbones()["pocket"].recipe
    inputs = digest([folder_sha(build.package / "model"), folder_sha(build.package / "judge"), build.count, recipe.model_dump()])
    path = build.cache / "measured.json"
    if not (build.made_from("evaluate", inputs) and path.exists()):
        load.protocols.cache_clear()
        sampler = evaluate.Sampler(_backbone(build.device).pipeline, recipe.steps, recipe.guidance)
        if DOCS.is_dir():
            evaluate.contact_sheet(sampler, DOCS / "pocket-contact-sheet.png")
        figures = evaluate.evaluate(sampler, evaluate.PocketJudge(), count=build.count, progress=say)
        figures["vae_psnr_db"] = evaluate.vae_psnr(sampler.pipeline.vae, build.painter)
        path.write_text(json.dumps(figures), encoding="utf-8")
        build.mark("evaluate", inputs)
    card.write(build.package, json.loads(path.read_text(encoding="utf-8")))
    return True


STAGES: dict[str, Callable[[Build], bool]] = {
    "tokenizer": _tokenizer, "vae": _vae, "text": _text, "judge": _judge, "clip": _clip, "unet": _unet,
    "assemble": _assemble, "scenes": _scenes, "redirectors": _redirectors, "suites": _suites, "card": _card,
}
"""In order. Each returns whether it is finished, and does nothing where it already is."""


def run(build: Build, stages: list[str]) -> bool:
    """Run stages until all are finished or the budget is spent; whether all are finished."""
    for number, name in enumerate(stages, 1):
        if build.over:
            return False
        began = time.monotonic()
        say(f"[{number}/{len(stages)}] {name}")
        if not STAGES[name](build):
            return False
        say(f"[{number}/{len(stages)}] {name} done ({time.monotonic() - began:.0f} s)")
    return True


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket_build", description="Build the pocket backbone from nothing.")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for checkpoints (default: %(default)s)")
    parser.add_argument("--icons", type=Path, help="folder for the artwork from npm (default: icons/ in the cache)")
    parser.add_argument("--budget-minutes", type=float, default=40.0, help="stop after about so long (default: %(default)s)")
    parser.add_argument("--only", help=f"stages, separated by commas, of: {', '.join(STAGES)}")
    parser.add_argument("--count", type=int, default=1000, help="prompts for the card's figures (default: %(default)s)")
    parser.add_argument(
        "--further", action="store_true",
        help="go on from the shipped text encoder and U-Net, and keep the shipped tokenizer and VAE, instead of from nothing",
    )
    parser.add_argument("--again", action="store_true", help="make the chosen stages after `unet` again, unchanged inputs or not")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--fp32", action="store_true", help="train in fp32: faster on processors without units for bf16 matrices")
    parser.add_argument("--threads", type=int, default=2, help="compute threads (default: %(default)s)")
    return parser.parse_args(words)


def _chosen(only: str | None) -> list[str]:
    chosen = only.split(",") if only else list(STAGES)
    for name in chosen:
        if name not in STAGES:
            raise UsageError(f"unknown stage '{name}'", f"Stages: {', '.join(STAGES)}")
    return [name for name in STAGES if name in chosen]


@guarded
def main(words: Words = None) -> int:
    """The command; returns its exit code."""
    options = _arguments(words)
    torch.set_num_threads(options.threads)
    training.compute_in(bf16=not options.fp32)
    options.cache.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.budget_minutes
    icons, device = options.icons or options.cache / "icons", device_named(options.device)
    build = Build(options.cache, icons, deadline, options.count, device, options.further, options.again)
    build.sizes = FURTHER if options.further else FULL
    finished = run(build, _chosen(options.only))
    say("pocket is built." if finished else "The time budget is spent; run the same command again to go on.")
    return 0 if finished else TEMPORARY


if __name__ == "__main__":
    sys.exit(main())
