"""A tiny Stable Diffusion pipeline in memory, and the promise that no test changes a bit of it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from srbench.testing.tiny import tiny_pipeline

PARTS = ("unet", "text_encoder", "vae")


def build(seed: int = 0) -> Any:
    """The tests' tiny pipeline, frozen; the same architecture for every seed."""
    pipeline = tiny_pipeline(seed=seed)
    for part in PARTS:
        getattr(pipeline, part).requires_grad_(False)
    return pipeline


def states(pipeline: Any) -> dict[str, dict[str, Tensor]]:
    return {part: {n: v.clone() for n, v in getattr(pipeline, part).state_dict().items()} for part in PARTS}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def public(config: Any) -> dict[str, Any]:
    """Without what diffusers adds to a config whenever it is printed."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


@pytest.fixture(scope="session")
def _shared() -> Any:
    return build()


@pytest.fixture
def pipeline(_shared: Any) -> Iterator[Any]:
    """The backbone. Afterwards: the same modules, the same bits, the same config, no adapter."""
    before, config = states(_shared), public(_shared.config)
    modules = {part: getattr(_shared, part) for part in PARTS}
    yield _shared
    assert {part: getattr(_shared, part) for part in PARTS} == modules
    after = states(_shared)
    assert all(same(before[part], after[part]) for part in PARTS)
    assert public(_shared.config) == config
    assert not any(hasattr(module, "peft_config") for module in modules.values())
    assert not any(parameter.requires_grad for module in modules.values() for parameter in module.parameters())


@pytest.fixture(scope="session")
def other() -> Any:
    """Another model of the same architecture: what an unlearned one is to the loader."""
    return build(seed=1)


class Malicious:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(params=["zipped", "plain"])
def bait(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], Path]:
    """Writes a pickle with code to a path, and returns the folder that exists once the code has run."""

    def write(path: Path) -> Path:
        trace = tmp_path / "executed"
        if request.param == "zipped":
            torch.save({"conv_in.weight": torch.zeros(1), "x": Malicious(trace)}, path)
        else:
            path.write_bytes(pickle.dumps(Malicious(trace)))
        return trace

    return write
