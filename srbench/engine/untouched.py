"""A pipeline's state before foreign code is called, and what that code left on it afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from zlib import crc32

import torch
from torch import Tensor, nn

from srbench.errors import ForeignError

if TYPE_CHECKING:
    from srbench.backbones.loader import Backbone

HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks",
)
"""Where torch keeps a module's hooks."""
CALLED = ("forward", "__call__")
"""Functions of a module, a pipeline or a scheduler that may be overridden on the object or on its class."""
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of an element -> integer type of that size, whose sums are exact."""
SCHEDULE = ("betas", "alphas", "alphas_cumprod", "final_alpha_cumprod")
"""Tensors of a scheduler that sampling reads and never sets."""
PLAIN = (bool, int, float, str, type(None))
"""Types of attributes that are compared; attributes that begin with an underscore change in the libraries' own code."""
ABSENT = object()


class SpoiltError(ForeignError):
    """Weights were changed; the pipeline must be loaded again."""


class Untouched:
    """A snapshot of a pipeline's hooks, overridden functions, processors, components and weights, to compare and restore.

    Weights are compared by a checksum of their bits, since a change through `.data` leaves no other trace.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.components = dict(pipeline.components)
        self.modules = dict(_modules(pipeline))
        self.hooks = {name: _hooks(module) for name, module in self.modules.items()}
        self.marks = {name: _marks(module) for name, module in self.modules.items()}
        self.classes = _classes(pipeline, self.modules.values())
        owners = {"": pipeline, "image_processor": getattr(pipeline, "image_processor", None), **self.components, **self.modules}
        self.patched = [(owner, of, _patched(owner, of)) for of, owner in owners.items() if hasattr(owner, "__dict__")]
        of_value = {of: owner for of, owner in owners.items() if of != "scheduler" and hasattr(owner, "__dict__")}
        self.values = [(owner, of, _values(owner)) for of, owner in of_value.items()]
        self.configs = {name: getattr(component, "_internal_dict", None) for name, component in self.components.items()}
        self.tensors = dict(_tensors(pipeline, self.modules))
        self.sums = _sums(self.tensors)
        self.torch = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled())
        self.folder = _working_folder()

    def check(self, whose: str) -> None:
        """Restore what can be restored. Raises `ForeignError` naming what was left, `SpoiltError` where weights changed."""
        left = [
            *self._components(), *self._classes(), *self._functions(), *self._values(), *self._torch(), *self._folder(),
        ]  # fmt: skip
        now = dict(_modules(self.pipeline))
        same = {name for name, module in self.modules.items() if now.get(name) is module}
        for name in sorted(same):
            left += self._module(name)
        tensors = dict(_tensors(self.pipeline, now))
        spoilt = sorted((self.modules.keys() | now.keys()) - same) or self._changed(tensors)
        if spoilt:
            raise SpoiltError(f"{whose}: it changed the model's weights or modules ({_few(spoilt)}) and left them so", _HINT)
        if left:
            raise ForeignError(f"{whose}: it left something behind on the pipeline ({_few(left)})", _HINT)

    def _changed(self, tensors: dict[str, Tensor]) -> list[str]:
        """Names of weights and buffers that have changed."""
        others = [name for name in self.tensors.keys() | tensors.keys() if self.tensors.get(name) is not tensors.get(name)]
        if others:
            return sorted(others)
        sums = _sums(tensors)
        return sorted(name for name, value in self.sums.items() if sums[name] != value)

    def _components(self) -> Iterator[str]:
        for name, component in self.components.items():
            if getattr(self.pipeline, name, None) is not component:
                setattr(self.pipeline, name, component)
                yield name
            config = getattr(component, "_internal_dict", None)
            if config != self.configs[name]:
                component._internal_dict = self.configs[name]
                yield f"{name}'s configuration"

    def _classes(self) -> Iterator[str]:
        for (cls, name), before in self.classes.items():
            if cls.__dict__.get(name, ABSENT) is not before:
                _restore(cls, name, before)
                yield f"{cls.__name__}.{name}"

    def _functions(self) -> Iterator[str]:
        """Functions that were set on the pipeline itself, on a component or on a module (`scheduler.step`, `vae.decode`)."""
        for owner, of, before in self.patched:
            now = _patched(owner, of)
            for name in sorted(now.keys() | before.keys()):
                if now.get(name, ABSENT) is not before.get(name, ABSENT):
                    _restore(owner, name, before.get(name, ABSENT))
                    yield f"{of or 'the pipeline'}'s {name}"

    def _values(self) -> Iterator[str]:
        """Numbers and texts on objects (`tokenizer.model_max_length`, a convolution's `padding_mode`)."""
        for owner, of, before in self.values:
            now = _values(owner)
            for name in sorted(now.keys() | before.keys()):
                if now.get(name, ABSENT) != before.get(name, ABSENT):
                    _restore(owner, name, before.get(name, ABSENT))
                    yield f"{of or 'the pipeline'}'s {name}"

    def _folder(self) -> Iterator[str]:
        """The working directory, on which relative paths depend."""
        if self.folder is not None and _working_folder() != self.folder:
            os.chdir(self.folder)
            yield "another working directory"

    def _module(self, name: str) -> Iterator[str]:
        module = self.modules[name]
        if _hooks(module) != self.hooks[name]:
            for kind, before in self.hooks[name].items():
                hooks = getattr(module, kind)
                hooks.clear()
                hooks.update(before)
            yield f"a hook on {name}"
        if _marks(module) != self.marks[name]:
            forward, processor, training = self.marks[name]
            _restore(module, "forward", forward)
            module.training = training
            if processor is not None and getattr(module, "processor", None) is not processor:
                module._modules.pop("processor", None)
                module.processor = processor
            yield f"another forward, mode or processor on {name}"

    def _torch(self) -> Iterator[str]:
        dtype, grad, deterministic = self.torch
        if self.torch == (torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()):
            return
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.use_deterministic_algorithms(deterministic)
        yield "a setting of torch"


@contextmanager
def kept_as_it_was(backbone: Backbone, whose: str) -> Iterator[None]:
    """Raises `ForeignError` where the body left something on the backbone's pipeline; changed weights are loaded again."""
    before = Untouched(backbone.pipeline)
    failed = True
    try:
        yield
        failed = False
    finally:
        try:
            before.check(whose)
        except SpoiltError:
            backbone.release()
            raise
        except ForeignError:
            if not failed:  # else the error of the body says more
                raise


_HINT = "A method has to leave the pipeline as it found it."


def _few(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _modules(pipeline: Any) -> Iterator[tuple[str, nn.Module]]:
    for component, whole in pipeline.components.items():
        if isinstance(whole, nn.Module):
            for name, module in whole.named_modules():
                if name.split(".")[-1] != "processor":  # processors that are modules are compared as processors
                    yield f"{component}.{name}".removesuffix("."), module


def _hooks(module: nn.Module) -> dict[str, dict[Any, Any]]:
    return {kind: dict(hooks) for kind in HOOKS if isinstance(hooks := getattr(module, kind, None), dict)}


def _marks(module: nn.Module) -> tuple[Any, Any, bool]:
    """A module's own forward in place of its class's, its attention processor, and whether it is in training mode."""
    return module.__dict__.get("forward", ABSENT), getattr(module, "processor", None), module.training


def _classes(pipeline: Any, modules: Any) -> dict[tuple[type, str], Any]:
    kinds = {type(pipeline), *map(type, pipeline.components.values()), *map(type, modules)}
    return {(cls, name): cls.__dict__.get(name, ABSENT) for cls in kinds for name in CALLED if cls.__module__ != "builtins"}


def _patched(owner: Any, of: str) -> dict[str, Any]:
    """Functions in an object's own dict, without the pipeline's components (`of` is empty) and what `_marks` compares."""
    aside = owner.components if not of else ("forward", "processor")
    return {name: value for name, value in vars(owner).items() if callable(value) and name not in aside}


def _values(owner: Any) -> dict[str, Any]:
    """Plain values in an object's own dict, and tuples of them."""
    public = ((name, value) for name, value in vars(owner).items() if not name.startswith("_") and name != "training")
    return {
        name: value for name, value in public
        if isinstance(value, PLAIN) or (isinstance(value, tuple) and all(isinstance(item, PLAIN) for item in value))
    }  # fmt: skip


def _working_folder() -> str | None:
    """None where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _restore(owner: Any, name: str, before: Any) -> None:
    if before is not ABSENT:
        setattr(owner, name, before)
    elif name in vars(owner):
        delattr(owner, name)


def _tensors(pipeline: Any, modules: dict[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """Weights and buffers of modules, and the scheduler's tables of noise."""
    for table in SCHEDULE:
        if isinstance(value := getattr(pipeline.components.get("scheduler"), table, None), Tensor):
            yield f"scheduler.{table}", value
    for name, module in modules.items():
        for tensor, value in (*module._parameters.items(), *module._buffers.items()):
            if value is not None:
                yield f"{name}.{tensor}", value


def _sums(tensors: dict[str, Tensor]) -> dict[str, int]:
    """A checksum of each tensor's bits. On a CPU by one thread: torch's threads would wait for each other on a busy machine."""
    with torch.no_grad():
        bits = {name: _bits(value.detach()) for name, value in tensors.items()}
        on_card = [name for name, value in bits.items() if value.device.type != "cpu"]
        totals = torch.stack([bits[name].sum(dtype=torch.int64) for name in on_card]).tolist() if on_card else []
        sums = dict(zip(on_card, totals, strict=True))
        for name in bits.keys() - sums.keys():
            sums[name] = crc32(bits[name].contiguous().reshape(-1).numpy().data)
        return sums


def _bits(value: Tensor) -> Tensor:
    if value.is_complex():
        value = torch.view_as_real(value)
    return value.view(BITS[value.element_size()]) if value.is_floating_point() else value
