"""What the attacks' tests attack: the tiny pipeline without a method, behind a hook, and behind a random redirector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from srbench.attacks.base import Defence, Victim
from srbench.catalog.specs import ConceptSpec, ConceptWords, Recipe, Row
from srbench.methods import base
from srbench.methods.saferedir import SafeRedirMethod
from srbench.methods.saferedir.module import SafeRedir, Sizes

WORDS = ConceptWords(names=("a q",), words=("q",), protocol="none")
BOX = ConceptSpec(name="box", title="boxes", kind="object", sensitive=False, families={"tiny": WORDS})
RECIPE = Recipe(steps=4, guidance=5.0, width=8, height=8)
TARGETS = tuple(
    Row(id=str(i), kind="forget", category="noun", prompt=text, seed=i, reference="x y", style="a", background="b")
    for i, text in enumerate(("a q b", "c q d", "e f q"))
)
PAIRS = (("a q", "a"), ("b q d", "b d"), ("q", "x"))


def plain(pipeline: Any, **changes: Any) -> Victim:
    """Without a method."""
    values: dict[str, Any] = {"family": "tiny", "concept": BOX, "banned": ("q",), "recipe": RECIPE, "pairs": PAIRS}
    return Victim(pipeline, **(values | changes))


class Flip(base.Applied):
    """Turns the positive embedding round, and scales it by the number of the call."""

    hooked = True

    def __init__(self, call: base.Call) -> None:
        self.call, self.calls = call, 0

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.calls += 1
        prompt = kwargs["encoder_hidden_states"]
        rest, ours = prompt[: -self.call.images], prompt[-self.call.images :]
        return args, {**kwargs, "encoder_hidden_states": torch.cat([rest, ours.flip(-1) * 0.5 * self.calls])}


class FlipMethod:
    """A method with one differentiable hook."""

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        made = Flip(call)
        with base.hooks(pipeline.unet.register_forward_pre_hook(made, with_kwargs=True)):
            yield made


class SilentMethod:
    """Says that it acts through a hook, and installs none."""

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        yield Flip(call)


def pushed(pipeline: Any) -> Victim:
    """Behind a hook."""
    return plain(pipeline, defence=Defence(FlipMethod, None, None))


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
