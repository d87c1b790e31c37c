"""A package with a method."""

from __future__ import annotations

from srbench.scaffold.package import package

INFERENCE = '''\
"""$name: scales the prompt's embeddings while an image is sampled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field
from torch import Tensor

from srbench.methods import base

METHOD = {
    "name": "$name",
    "version": 1,  # part of every image's key: raise it when the code changes what is drawn
    "kind": "inference",
    "title": "scales the prompt's embeddings",
    "reads_concept": False,  # leave it out where `concept` is read: its words are then part of the key
}


class Scaled(base.Applied):
    """What is active during one call of the pipeline."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def prompts(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """New embeddings, (B, tokens, width) each."""
        return self.factor * positive, negative


@base.method(METHOD)
class $cls:
    """Scales the prompt's embeddings."""

    class Options(base.Options):
        """Every option has a default and a range, and is part of the image's key."""

        factor: float = Field(0.5, ge=0)

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: Any, options: Any) -> base.Artifact | None:
        """Load or make what is needed once: `base.Artifact(payload, sha256)`. This method needs nothing."""

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact | None, options: Any, call: base.Call) -> Iterator[base.Applied]:
        """Act during one call; hooks that are put on the pipeline are taken off again (`with base.hooks(handle): yield`)."""
        yield Scaled(options.factor)
'''
WEIGHT = '''\
"""$name: shrinks the values of the U-Net's cross-attention."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from srbench.methods import base

METHOD = {
    "name": "$name",
    "version": 1,  # part of every checkpoint's key: raise it when the code changes the weights
    "kind": "weight",
    "title": "shrinks the cross-attention's values",
    "families": ["pocket", "sd", "sdxl"],  # of backbones that it fits: those with a U-Net
}


@base.method(METHOD)
class $cls:
    """Shrinks the cross-attention's values."""

    class Options(base.Options):
        """Every option has a default and a range, and is part of the checkpoint's key. Seeds are options, too."""

        factor: float = Field(0.8, ge=0)

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: Any, options: Any, tell: base.Tell) -> base.Edit:
        """New weights, float32, and only those that change. The pipeline stays as it was."""
        state = backbone.pipeline.unet.state_dict()
        names = [name for name in state if name.endswith("attn2.to_v.weight")]
        tell("shrink", len(names), len(names), "")
        return base.Edit({"unet": {name: options.factor * state[name].float() for name in names}})
'''
TEST = '''\
"""What srbench asks of every method; `srbench.testing` says what each test means. Add your own below."""

from srbench.testing import $tests


class Test$cls($tests):
    method = "$name"
'''


def files(name: str, weights: bool = False) -> dict[str, str]:
    """Path below the package's folder -> text.

    weights: a method that changes weights in place of one that acts while sampling.
    """
    tests = "WeightMethodTests" if weights else "MethodTests"
    return package("methods", name, WEIGHT if weights else INFERENCE, TEST.replace("$tests", tests))
