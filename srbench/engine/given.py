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
from types import FunctionType
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from srbench.backbones.loader import locate
from srbench.backbones.pipelines import Conditioning, kind_of
from srbench.catalog import load, plugins
from srbench.catalog.contracts import Name
from srbench.catalog.specs import BackboneSpec
from srbench.engine.sample import PromptCache
from srbench.engine.untouched import CALLED, HOOKS, PLAIN
from srbench.errors import SrbenchError, UsageError
from srbench.hashing import digest
from srbench.methods import base

LIBRARIES = ("torch", "diffusers", "transformers", "peft")
"""Whose classes say by their name and settings what they do; a class from elsewhere does not."""
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""Number formats, as `--dtype` calls them."""
TORCHS_OWN = frozenset(vars(nn.Module())) - {"training"}
"""Attributes of every module that are no settings of it: its parts, hooks and the like."""
ORIGIN = ("_internal_dict", "name_or_path")
"""Attributes that say where something came from: the same model may lie anywhere."""
UNHASHED = "its code cannot be hashed and it has no version: its images are sampled anew in each call"
"""Below every table of a pipeline that is patched and was given no `version`."""


def method_of(pipeline: Any, name: str, version: str | None) -> type:
    """A method class that samples with `pipeline`, for `plugins.register`.

    version: what the user calls the state of code that acts on it; None where there is none.
    Raises `UsageError` for what is no diffusers pipeline, and for a name that no command line can have.
    """
    if isinstance(pipeline, type) or not hasattr(pipeline, "components") or not hasattr(pipeline, "vae"):
        what = pipeline.__name__ if isinstance(pipeline, type) else type(pipeline).__name__
        raise UsageError(f"{what}: not a diffusers pipeline", "Give one that draws pictures from texts.")
    _check_name(name)
    version = None if version is None else str(version)
    if version == "":
        raise UsageError("version='' says nothing", "Name the state of your code, or leave version= out.")
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


def _check_name(name: Any) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        hint = "Use letters, digits, `_`, `+` and `-`, 64 at most, and begin with a letter, a digit or `_`."
        raise UsageError(f"name={name!r:.80}: not a name that a table or a command can have", hint) from error


@contextmanager
def known(method: type) -> Iterator[None]:
    """The method is known inside, and gone after: a pipeline may be changed then, and what was hashed is no longer what it is.

    Raises `UsageError` where its name is taken.
    """
    name = method.meta["name"]  # type: ignore[attr-defined]  # `method_of` sets it
    owner, _ = plugins.presets().get(name, (name, {}))
    if (taken := plugins.plugins("methods").get(owner)) is not None:
        raise UsageError(f"methods: name '{name}' is declared by {taken.module}", "Choose another name=.")
    plugins.register("methods", method)
    try:
        yield
    finally:
        plugins.unregister("methods", name)


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
    """What acts on a pipeline beside its weights, in words; empty for one as diffusers makes it."""
    found = [] if _is_known(pipeline) else [f"class {type(pipeline).__name__}"]
    found += [f"its {name}" for name in _functions(pipeline) if name not in pipeline.components]
    for component, whole in pipeline.components.items():
        if isinstance(whole, nn.Module):
            for name, module in whole.named_modules():
                found += [f"{what} on {component}.{name}".removesuffix(".") for what in _patches_of(module)]
        elif whole is not None:
            found += [] if _is_known(whole) else [f"class {type(whole).__name__}"]
            found += [f"its own {name} on {component}" for name in _functions(whole)]
    return list(dict.fromkeys(found))


def _patches_of(module: nn.Module) -> Iterator[str]:
    if any(getattr(module, kind, None) for kind in HOOKS):
        yield "a hook"
    if not _is_known(module):
        yield f"class {type(module).__name__}"
    processor = getattr(module, "processor", None)
    if processor is not None and not _is_known(processor):
        yield f"processor {type(processor).__name__}"
    yield from (f"its own {name}" for name in _functions(module) if name != "processor")


def _functions(owner: Any) -> list[str]:
    """Attributes of an object's own that can be called."""
    return [name for name, value in vars(owner).items() if callable(value)] if hasattr(owner, "__dict__") else []


def _is_known(value: Any) -> bool:
    """Whether a library's class is behind a value, and nobody has given that class another function to be called by."""
    called = (getattr(type(value), name, None) for name in CALLED)
    codes = [each for each in called if isinstance(each, FunctionType)]
    return all(_library(each.__module__) for each in (type(value), *codes))


def _library(module: str) -> bool:
    return module.split(".")[0] in LIBRARIES


def _content(pipeline: Any) -> dict[str, Any]:
    """Component -> what it is: tensors by content, the printed structure, modules' settings, a tokenizer's words."""
    found: dict[str, Any] = {}
    for name, whole in sorted(pipeline.components.items()):
        if isinstance(whole, nn.Module) and name != "safety_checker":
            tensors = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
            settings = {n: told for n, module in whole.named_modules() if (told := _settings(module))}
            found[name] = [str(whole), settings, {n: _sha(value) for n, value in sorted(tensors.items())}]
        elif hasattr(whole, "get_vocab"):
            plain = ((each, value) for each, value in sorted(whole.init_kwargs.items()) if isinstance(value, str | int | bool))
            kept = {each: str(value) for each, value in plain if "path" not in each}
            found[name] = [type(whole).__name__, digest(whole.get_vocab()), kept]
    return found


def _settings(module: nn.Module) -> dict[str, str]:
    """What a module is set to beside its tensors: an adapter's strength, a factor of FreeU, its processor with its own."""
    told = {name: value for name, value in vars(module).items() if name not in TORCHS_OWN and name not in ORIGIN}
    processor = getattr(module, "processor", None)
    if processor is not None:
        of_processor = vars(processor) if hasattr(processor, "__dict__") else {}
        told |= {"processor": type(processor).__name__, **{f"processor.{name}": value for name, value in of_processor.items()}}
    return {name: repr(value) for name, value in sorted(told.items()) if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    """Numbers and texts, and lists and dicts of them. A set is none: its order is another one in each process."""
    if isinstance(value, dict):
        return all(map(_is_plain, [*value.keys(), *value.values()]))
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, PLAIN)


def _sha(value: torch.Tensor) -> str:
    raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(f"{value.dtype}{tuple(value.shape)}".encode() + raw.tobytes()).hexdigest()


# --- where it belongs -------------------------------------------------------------------------------------------------


def dtype_of(pipeline: Any) -> str:
    """The number format of a pipeline, as `--dtype` calls it. Raises `UsageError` for another one, and where parts differ."""
    parts = ((name, part) for name, part in pipeline.components.items() if name != "safety_checker")
    modules: dict[str, Any] = {name: part for name, part in parts if isinstance(part, nn.Module)}
    dtypes = {name: str(DTYPES.get(module.dtype, module.dtype)) for name, module in modules.items()}
    hint = f"Convert all of it, as by pipe.to(torch.float32); possible: {', '.join(DTYPES.values())}."
    if len(set(dtypes.values())) > 1:
        named = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise UsageError(f"its parts differ in number format ({named})", hint)
    (dtype,) = set(dtypes.values())
    if dtype not in DTYPES.values():
        raise UsageError(f"a pipeline in {dtype}", hint)
    return dtype


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
