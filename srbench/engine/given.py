"""The user's own diffusers pipeline, patched in any way, as a method beside the others.

While an image is sampled, the run's pipeline has the class and the attributes of the user's, so that hooks, attention
processors, adapters and changed weights all act. Seeds, noise, sampler and prompts stay those of the run.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srbench.backbones.loader import locate
from srbench.backbones.pipelines import Conditioning, kind_of
from srbench.catalog import load
from srbench.catalog.specs import BackboneSpec
from srbench.engine.sample import PromptCache
from srbench.engine.untouched import HOOKS
from srbench.errors import SrbenchError, UsageError
from srbench.hashing import digest
from srbench.methods import base

LIBRARIES = ("torch", "diffusers", "transformers", "peft")
"""Libraries whose classes are identified by name and settings; the code of other classes is not known."""
UNHASHED = "its code cannot be hashed and it has no version: its images are sampled anew in each call"
"""Below every table of a pipeline that is patched and was given no `version`."""


def method_of(pipeline: Any, name: str, version: str | None) -> type:
    """A method class that samples with `pipeline`, for `plugins.register`.

    version: the user's name for the state of the code that acts on it; None where there is none.
    Raises `UsageError` for what is no diffusers pipeline.
    """
    if not hasattr(pipeline, "components") or not hasattr(pipeline, "vae"):
        raise UsageError(f"{type(pipeline).__name__}: not a diffusers pipeline", "Give one that draws pictures from texts.")
    sha, note = identity(pipeline, version)
    meta = {"name": name, "version": 1, "kind": "inference", "title": f"a pipeline of yours ({type(pipeline).__name__})",
            "reads_concept": False}  # fmt: skip
    card = {"pipeline": type(pipeline).__name__, "version": version, "patched": patches(pipeline), "note": note}

    class Given(base.Applied):
        """Texts are encoded by the user's own encoder, which may be another than the run's."""

        def __init__(self, call: base.Call, texts: PromptCache) -> None:
            self.call, self.texts = call, texts

        def conditioning(self, positive: Conditioning, negative: Conditioning) -> tuple[Conditioning, Conditioning]:
            skip = self.call.clip_skip
            return self.texts.encode(self.call.prompts, skip), self.texts.encode(self.call.negatives, skip, negative=True)

    class Method:
        """Takes the place of the run's pipeline for one call."""

        Options = base.Options

        @staticmethod
        def prepare(backbone: base.BackboneInfo, concept: Any, options: Any) -> base.Artifact:
            return base.Artifact(PromptCache(pipeline), sha, card=card)

        @staticmethod
        @contextmanager
        def applied(ours: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[base.Applied]:
            with worn(ours, pipeline):
                yield Given(call, artifact.payload)

    Method.meta = meta  # type: ignore[attr-defined]  # as a decorator sets it
    Method.__module__ = __name__
    return Method


@contextmanager
def worn(ours: Any, theirs: Any) -> Iterator[None]:
    """Inside, `ours` has the class and the attributes of `theirs`; attributes that are set there are dropped afterwards."""
    cls, attributes = ours.__class__, ours.__dict__
    quiet = {name: attributes[name] for name in ("_progress_bar_config",) if name in attributes}
    ours.__class__ = type(theirs)
    ours.__dict__ = {**theirs.__dict__, **quiet, **({"safety_checker": None} if hasattr(theirs, "safety_checker") else {})}
    try:
        yield
    finally:
        ours.__class__, ours.__dict__ = cls, attributes


# --- what it is -------------------------------------------------------------------------------------------------------


def identity(pipeline: Any, version: str | None) -> tuple[str, str]:
    """(digest of everything that determines its images, note for tables).

    Weights, modules with their settings, tokenizers and the version are hashed. Where code acts that cannot be hashed (see
    `patches`) and there is no version, the digest is a new one each time.
    """
    unhashed = bool(patches(pipeline)) and version is None
    salt = secrets.token_hex(16) if unhashed else version or ""
    return digest([type(pipeline).__name__, _content(pipeline), salt]), UNHASHED if unhashed else ""


def patches(pipeline: Any) -> list[str]:
    """Descriptions of what acts on a pipeline beside its weights; empty for an unpatched diffusers pipeline."""
    patched = [] if _is_known(pipeline) else [f"class {type(pipeline).__name__}"]
    patched += [f"its {name}" for name, value in vars(pipeline).items() if callable(value) and name not in pipeline.components]
    for component, whole in pipeline.components.items():
        if isinstance(whole, nn.Module):
            for name, module in whole.named_modules():
                patched += [f"{what} on {component}.{name}".removesuffix(".") for what in _patches_of(module)]
        elif whole is not None and not _is_known(whole):
            patched.append(f"class {type(whole).__name__}")
    return list(dict.fromkeys(patched))


def _patches_of(module: nn.Module) -> Iterator[str]:
    if any(getattr(module, kind, None) for kind in HOOKS):
        yield "a hook"
    if not _is_known(module):
        yield f"class {type(module).__name__}"
    processor = getattr(module, "processor", None)
    if processor is not None and not _is_known(processor):
        yield f"processor {type(processor).__name__}"
    yield from (f"its own {name}" for name, value in vars(module).items() if callable(value) and name != "processor")


def _is_known(value: Any) -> bool:
    return type(value).__module__.split(".")[0] in LIBRARIES


def _content(pipeline: Any) -> dict[str, Any]:
    """Component -> its content: hashes of tensors, the printed structure with its settings, a tokenizer's vocabulary."""
    content: dict[str, Any] = {}
    for name, whole in sorted(pipeline.components.items()):
        if isinstance(whole, nn.Module) and name != "safety_checker":
            tensors = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
            processors = sorted(f"{n}: {type(m.processor).__name__}" for n, m in whole.named_modules() if hasattr(m, "processor"))
            content[name] = [str(whole), processors, {n: _sha(value) for n, value in sorted(tensors.items())}]
        elif hasattr(whole, "get_vocab"):
            plain = ((key, value) for key, value in sorted(whole.init_kwargs.items()) if isinstance(value, str | int | bool))
            settings = {key: str(value) for key, value in plain if "path" not in key}
            content[name] = [type(whole).__name__, digest(whole.get_vocab()), settings]
    return content


def _sha(value: torch.Tensor) -> str:
    raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(f"{value.dtype}{tuple(value.shape)}".encode() + raw.tobytes()).hexdigest()


# --- where it belongs -------------------------------------------------------------------------------------------------


def backbone_of(pipeline: Any, named: str | None) -> str:
    """The name or path of the untouched model that a pipeline was made from; `named` where the user gives it.

    Raises `UsageError` where it is not known.
    """
    if named is not None:
        return named
    origin = str(getattr(pipeline, "name_or_path", "") or pipeline.config.get("_name_or_path") or "")
    for name, spec in load.backbones().items():
        if origin and origin in (spec.source, name):
            return name
        if origin and _is_at(spec, Path(origin)):
            return name
    if origin and Path(origin).expanduser().is_dir():
        return origin
    hint = f"Say it: backbone=, one of {', '.join(load.backbones())}, a folder or a hub id."
    raise UsageError("the model that this pipeline was made of cannot be told", hint)


def _is_at(spec: BackboneSpec, folder: Path) -> bool:
    """Whether a backbone's files are in that folder."""
    try:
        return locate(spec).resolve() == folder.expanduser().resolve()
    except SrbenchError:
        return False


def check_fits(pipeline: Any, backbone: Any) -> None:
    """Raises `UsageError` where a pipeline is of another family than the backbone, or samples with another scheduler."""
    if kind_of(pipeline) is not kind_of(backbone.pipeline):
        raise UsageError(f"{type(pipeline).__name__}: not a pipeline of {backbone.spec.name}", "Name its own: backbone=")
    ours, theirs = (_schedule(pipe.scheduler) for pipe in (backbone.pipeline, pipeline))
    if ours != theirs:
        differ = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        raise UsageError(
            f"its scheduler is not {backbone.spec.name}'s ({', '.join(differ[:3])}): results would not be comparable",
            "Give it the scheduler that the model comes with.",
        )


def _schedule(scheduler: Any) -> Mapping[str, Any]:
    config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    return json.loads(json.dumps({"class": type(scheduler).__name__, **config}, default=str))
