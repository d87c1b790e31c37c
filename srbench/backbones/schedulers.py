"""A scheduler in front of a pipeline's own."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor


class InFront:
    """Stands in the place of a scheduler; what it does not define is that scheduler's own. A subclass defines `stepped`."""

    def __init__(self, own: Any) -> None:
        self._own = own

        @functools.wraps(own.step)  # the pipeline looks at its parameters
        def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            return self.stepped(model_output, timestep, sample, *args, **kwargs)

        self.step = step

    def __getattr__(self, name: str) -> Any:
        if name == "_own":  # a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self._own, name)

    def stepped(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """One step from latents `sample` (B, C, h, w)."""
        return self._own.step(model_output, timestep, sample, *args, **kwargs)
