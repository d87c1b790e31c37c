"""AdaVD (training-free): what a prompt's values have in common with the concept's is taken out of cross-attention.

In each cross-attention, at every place but the start token's,

    v <- v - w (<v, v_t> / <v_t, v_t>) v_t,

with v_t the value that the concept's text has at the same place; head by head. Several phrases are made orthogonal one after
another (Gram-Schmidt), so that none is taken out twice. The strength follows how alike the two are,
w = 2 sigmoid(100 (cos(v, v_t) - .93)); the preset `adavd-plain` has w = 1 everywhere. That only the prompt's half of a guided
batch is changed, and that the cosine is the layer's own value's and not that of what is left of it, are srbench's readings
(unverified).
The released code takes the number of heads for 16 on every backbone; here it is the layer's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError
from srbench.methods import base, denoising, finetune, guidance

METHOD = {
    "name": "adavd",
    "version": 1,
    "kind": "inference",
    "title": "AdaVD: the concept's part is taken out of cross-attention's values",
    "equation": [
        "v <- v - w (<v, v_t> / <v_t, v_t>) v_t, v_t the value of the concept's text at the same place",
        "w = weight scale sigmoid(100 (cos(v, v_t) - .93)) with the gate, else weight",
    ],
    "paper": "2412.06143",
    "families": ["pocket", "sd", "sdxl"],
    "presets": {"adavd": {}, "adavd-plain": {"gate": False}},
    "published": ["adavd-plain"],
    "unfitted": ["adavd"],
    "decides": False,
    "reads_concept": True,
    "prepare": "make",
}

SLOPE, AT = 100.0, 0.93
"""Of the gate: its steepness, and the cosine at which it is half open."""
SMALL = 1e-4
"""A direction of which less than this share is left once those before it are taken out adds nothing."""


class Options(base.Options):
    """Options of both presets."""

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """w without the gate; with it, what it is multiplied with."""
    gate: bool = True
    """Whether the strength follows the cosine of a value and the concept's."""
    scale: float = Field(2.0, ge=0, allow_inf_nan=False)
    """The strength of a gate that is open."""
    prompts: Literal["names", "all"] = "all"
    """Phrases that are taken out: the concept's names, or those of its members too."""


# --- directions ------------------------------------------------------------------------------------------------------------


def by_head(values: Tensor, heads: int) -> Tensor:
    """(B, T, heads * d) -> (B, heads, T, d)."""
    return values.unflatten(-1, (heads, -1)).transpose(1, 2)


def orthogonal(values: Tensor) -> Tensor:
    """Unit directions (n, heads, T, d) that span at each place what the values do; zero where one adds nothing."""
    kept: list[Tensor] = []
    for value in values.double():
        rest = value  # (heads, T, d)
        for _ in range(2):  # a second pass takes out what rounding left
            for unit in kept:
                rest = rest - (rest * unit).sum(-1, keepdim=True) * unit
        size = rest.norm(dim=-1, keepdim=True)
        enough = size > SMALL * value.norm(dim=-1, keepdim=True)
        kept.append(torch.where(enough, rest / size.clamp(min=torch.finfo(size.dtype).tiny), torch.zeros_like(rest)))
    return torch.stack(kept)


def strengths(values: Tensor, concept: Tensor, options: Options) -> Tensor | float:
    """w: one number, or the gate's value times it, (B, heads, T, 1). values (B, heads, T, d), concept (heads, T, d)."""
    if not options.gate:
        return options.weight
    alike = torch.cosine_similarity(values, concept.expand_as(values), dim=-1)  # (B, heads, T)
    return options.weight * options.scale * torch.sigmoid(SLOPE * (alike - AT))[..., None]


def without(values: Tensor, units: Tensor, concepts: Tensor, options: Options) -> Tensor:
    """Values (B, heads, T, d) less their parts along the units (n, heads, T, d); the first place stays."""
    left = values
    for unit, concept in zip(units, concepts, strict=True):
        left = left - strengths(values, concept, options) * (values * unit).sum(-1, keepdim=True) * unit
    return torch.cat([values[:, :, :1], left[:, :, 1:]], dim=2)


def layers_of(unet: nn.Module) -> dict[str, Any]:
    """Every cross-attention, by path. Raises `UsageError` where there is none."""
    found = {path: module for path, module in unet.named_modules() if path.endswith("attn2") and hasattr(module, "to_v")}
    if not found:
        raise UsageError("this U-Net has no cross-attention named attn2", "Give a Stable Diffusion backbone.")
    return found


@torch.no_grad()
def recorded(unet: nn.Module, states: Tensor) -> dict[str, Tensor]:
    """The concept's values in each layer, (n, heads, T, d), of its phrases' states (n, T, D)."""
    return {
        path: by_head(layer.to_v(states.to(layer.to_v.weight)).float(), layer.heads) for path, layer in layers_of(unet).items()
    }


# --- one call --------------------------------------------------------------------------------------------------------------


class Taken(base.Applied):
    """Hooks on the U-Net and on its value layers during one call. B images."""

    hooked = True

    def __init__(self, tensors: Mapping[str, Tensor], options: Options, call: base.Call) -> None:
        self.tensors, self.options, self.call = tensors, options, call
        self.calls = 0
        self.shares: list[Tensor] = []

    def before(self, denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Counts the call, whose batch has to be the one that is known."""
        x, prompt = guidance.argument(args, kwargs, guidance.LATENTS), guidance.argument(args, kwargs, guidance.PROMPT)
        guidance.check_batch("adavd", self.call, x, prompt)
        self.calls += 1

    def on(self, path: str, heads: int) -> Any:
        """A hook for a value layer: the prompt's half without the concept."""
        units, concepts = self.tensors[f"{path}.units"], self.tensors[f"{path}.values"]  # (n, heads, T, d) each

        def after(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
            values = by_head(output[-self.call.images :].float(), heads)  # (B, heads, T, d)
            if values.shape[2] != units.shape[2]:
                problem = f"adavd: a prompt of {values.shape[2]} tokens meets a concept of {units.shape[2]}"
                raise CellError(problem, "It does not go with methods that change the number of tokens.")
            left = without(values, units.to(values), concepts.to(values), self.options)
            self.shares.append(_share(values, left))
            new = left.transpose(1, 2).flatten(2).to(output)  # (B, T, heads * d)
            return torch.cat([output[: -self.call.images], new])

        return after

    def trace(self) -> list[dict[str, Any]]:
        """Per image: the square norm of what was taken out, as a share of its values', mean over layers and steps."""
        if not self.shares:
            return [{} for _ in range(self.call.images)]
        return [{"taken": round(share, 4)} for share in torch.stack(self.shares).mean(0).tolist()]


def _share(values: Tensor, left: Tensor) -> Tensor:
    """(B,): the square norm of what was taken out as a share of the values'; an open gate takes a part out twice, up to 4."""
    gone, whole = (each.square().flatten(1).sum(1) for each in (values - left, values))
    return (gone / whole.clamp(min=torch.finfo(whole.dtype).tiny)).detach().cpu()


@base.method(METHOD)
class AdaVd:
    """Takes the concept's values out of the prompt's."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any) -> base.Artifact:
        """The concept's values and directions in every layer.

        Raises `UsageError` for a backbone without a U-Net and a concept without words for the family.
        """
        began = time.perf_counter()
        unet = finetune.unet_of(backbone.pipeline, "adavd")
        texts = finetune.texts_of(concept, backbone.family, options.prompts)
        finetune.screened(concept, texts)
        values = recorded(unet, denoising.encoded(backbone.pipeline, texts).embeds)
        units = {path: orthogonal(value).float() for path, value in values.items()}
        tensors = {f"{path}.values": value for path, value in values.items()}
        tensors |= {f"{path}.units": value for path, value in units.items()}
        kept = sum(float((unit.norm(dim=-1) > 0).float().sum(0)[:, 1:].mean()) for unit in units.values()) / len(units)
        card = {"phrases": texts, "directions": round(kept, 2)}
        return guidance.artifact_of(backbone, tensors, "\0".join(texts), began, card=card)

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[Taken]:
        """Hooks on the U-Net and its value layers; nothing of them is left afterwards."""
        unet, taken = base.denoiser(pipeline), Taken(artifact.payload, options, call)
        handles = [unet.register_forward_pre_hook(taken.before, with_kwargs=True)]
        handles += [
            layer.to_v.register_forward_hook(taken.on(path, layer.heads)) for path, layer in layers_of(unet).items()
        ]
        with base.hooks(*handles):
            yield taken
