"""What the attacks' tests attack, beside what `srbench.testing` has: a method without its hook, and a random redirector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from srbench.attacks.base import Defence, Victim
from srbench.methods import base
from srbench.methods.saferedir import SafeRedirMethod
from srbench.methods.saferedir.module import SafeRedir, Sizes
from srbench.testing.attacks import TARGETS as TARGETS
from srbench.testing.attacks import Flip
from srbench.testing.attacks import plain as plain


class SilentMethod:
    """Says that it acts through a hook, and installs none."""

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        yield Flip(call)


def redirected(pipeline: Any) -> Victim:
    """Behind a random redirector that always redirects."""
    sizes = Sizes(
        prompt_width=16, tokens=16, latent_channels=4, latent_widths=(8,), latent_feature=8, timestep_width=8,
        timestep_feature=8, token_hidden=16, rank=4, classifier_hidden=8, alpha_hidden=8, mask_hidden=8, heads=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = SafeRedir(sizes).eval().requires_grad_(False)
    options = SafeRedirMethod.Options(threshold=0.0)
    return plain(pipeline, defence=Defence(SafeRedirMethod, base.Artifact(module, "sha"), options))
