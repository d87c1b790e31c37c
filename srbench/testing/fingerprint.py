"""Whether a pipeline is bit for bit what it was: weights, gradients' flags, modes, hooks, scheduler, and the global noise."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from srbench.testing.checks import names_of, require


def fingerprint(pipeline: Any) -> dict[str, Any]:
    """Everything of a pipeline that foreign code could leave changed, by what it is."""
    parts: dict[str, Any] = {"scheduler": copy.deepcopy(vars(pipeline.scheduler)), "global noise": torch.get_rng_state()}
    parts["components"] = {name: id(part) for name, part in pipeline.components.items()}
    for part, module in pipeline.components.items():
        if isinstance(module, nn.Module):
            parts[f"weights of {part}"] = {name: value.clone() for name, value in module.state_dict().items()}
            parts[f"gradients of {part}"] = [(name, p.requires_grad, p.grad is None) for name, p in module.named_parameters()]
            parts[f"hooks and modes of {part}"] = [
                (name, submodule.training, len(submodule._forward_hooks), len(submodule._forward_pre_hooks))
                for name, submodule in module.named_modules()
            ]
    return parts


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, tensors and arrays in them bit for bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    return bool(first == second)


@contextmanager
def left_alone(pipeline: Any, but: Sequence[str] = ()) -> Iterator[None]:
    """Raises `AssertionError` naming what of a pipeline is not as before. but: parts of `fingerprint` that may change."""
    __tracebackhide__ = True
    before = fingerprint(pipeline)
    yield
    after = fingerprint(pipeline)
    changed = [key for key in before.keys() | after.keys() if key not in but and not same(before.get(key), after.get(key))]
    require(not changed, f"it leaves the pipeline changed ({names_of(changed)})", "Work on copies, or put back what was there.")
