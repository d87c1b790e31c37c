"""Shared by methods with low-rank adapters: W + s B A beside linear and convolution layers, trained, then hooked on or fused.

A state dict stays a state dict: `deltas` gives what is added to each weight. peft would wrap the layers of a copy of the model;
here they stay as they are, and one network serves with its adapters and, without them, as the frozen one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.methods.base import BackboneInfo, hooks

Init = Literal["kaiming", "gaussian"]
"""Of A; B begins at zero, so that nothing changes at the start."""
Layer = nn.Linear | nn.Conv2d
Strength = Callable[[Tensor], Tensor | float]
"""What an adapter's output is multiplied with, given the layer's input: a number, or (batch,)."""


@dataclass
class Adapter:
    """One layer's factors."""

    down: Tensor
    """A: (rank, in), of a convolution (rank, in, kh, kw)."""
    up: Tensor
    """B: (out, rank)."""
    scale: float

    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        """s B A x, as the layer would be applied to x."""
        down, up = self.down.to(x), self.up.to(x)
        if isinstance(layer, nn.Linear):
            return self.scale * F.linear(F.linear(x, down), up)
        low = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
        return self.scale * F.conv2d(low, up[:, :, None, None])

    def delta(self) -> Tensor:
        """s B A in the shape of the layer's weight, float64 on the CPU."""
        return self.scale * torch.einsum("or,r...->o...", self.up.detach().double().cpu(), self.down.detach().double().cpu())


Adapters = Mapping[str, Adapter]
"""By the layer's path in the network."""


def transformer_layers(unet: nn.Module) -> dict[str, Layer]:
    """Every linear and convolution layer inside of the U-Net's transformers: projections, attentions, feed-forward."""
    inside = [path for path, module in unet.named_modules() if type(module).__name__ == "Transformer2DModel"]
    return _found(unet, lambda path: any(path.startswith(f"{each}.") for each in inside))


def attention_layers(unet: nn.Module, which: Literal["self", "cross", "all"]) -> dict[str, Layer]:
    """The q, k, v and output projections of self-attention, of cross-attention, or of both."""
    names = {"self": ("attn1",), "cross": ("attn2",), "all": ("attn1", "attn2")}[which]
    return _found(unet, lambda path: any(f".{name}." in f".{path}" for name in names))


def keys_and_values(unet: nn.Module) -> dict[str, Layer]:
    """The key and value projections of cross-attention."""
    return _found(unet, lambda path: path.endswith((".attn2.to_k", ".attn2.to_v")))


def _found(unet: nn.Module, fits: Callable[[str], bool]) -> dict[str, Layer]:
    """Layers whose path fits. Raises `UsageError` where there are none."""
    layers = {path: each for path, each in unet.named_modules() if isinstance(each, nn.Linear | nn.Conv2d) and fits(path)}
    if not layers:
        raise UsageError("this U-Net has no layers that the adapters go to", "Give a Stable Diffusion backbone.")
    return layers


def made(layers: Mapping[str, Layer], rank: int, alpha: float, init: Init, rng: torch.Generator) -> dict[str, Adapter]:
    """An adapter for each layer: A random, B zero, s = alpha / rank; both ask for gradients."""
    found = {}
    for path, layer in layers.items():
        shape = (rank, *layer.weight.shape[1:])
        fan_in = math.prod(shape[1:])
        if init == "kaiming":  # uniform, as torch's kaiming_uniform_ with a = 1
            down = (torch.rand(shape, generator=rng) * 2 - 1) * math.sqrt(3 / fan_in)
        else:
            down = torch.randn(shape, generator=rng) / rank
        place = layer.weight.device
        up = torch.zeros((layer.weight.shape[0], rank), device=place)
        found[path] = Adapter(down.to(place).requires_grad_(True), up.requires_grad_(True), alpha / rank)
    return found


def parameters(adapters: Adapters) -> list[Tensor]:
    """A and B of each."""
    return [factor for each in adapters.values() for factor in (each.down, each.up)]


@contextmanager
def attached(network: nn.Module, adapters: Adapters, strength: Strength = lambda x: 1.0) -> Iterator[None]:
    """The network with its adapters; afterwards no hook of them is left, whatever happened."""

    def hook(adapter: Adapter) -> Any:
        def after(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return output + _spread(strength(args[0]), output) * adapter(layer, args[0])

        return after

    with hooks(*(network.get_submodule(path).register_forward_hook(hook(each)) for path, each in adapters.items())):
        yield


def looking(backbone: BackboneInfo, network: nn.Module, own: Adapters, iterations: int) -> Callable[[int], None]:
    """What a training loop calls with the iterations done, so that the network is seen with its adapters."""

    def look(done: int) -> None:
        with attached(network, own):
            backbone.look(network, done, iterations)

    return look


def _spread(strength: Tensor | float, like: Tensor) -> Tensor | float:
    """(batch,) as (batch, 1, ...)."""
    return strength.to(like).view(-1, *[1] * (like.ndim - 1)) if isinstance(strength, Tensor) else strength


def deltas(*several: Adapters) -> dict[str, Tensor]:
    """What adapters add to each weight, by its name in the state dict, float64; of several sets the sum."""
    total: dict[str, Tensor] = {}
    for adapters in several:
        for path, each in adapters.items():
            name, delta = f"{path}.weight", each.delta()
            total[name] = total[name] + delta if name in total else delta
    return total


def fused(network: nn.Module, *several: Adapters) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after, float64 on the CPU, by name; the network itself is left alone."""
    state, added = network.state_dict(), deltas(*several)
    before = {name: state[name].detach().double().cpu() for name in added}
    return before, {name: before[name] + delta for name, delta in added.items()}


def packed(adapters: Adapters) -> dict[str, Tensor]:
    """As plain tensors for a file."""
    factors = {f"{path}|down": each.down for path, each in adapters.items()}
    factors |= {f"{path}|up": each.up for path, each in adapters.items()}
    return {name: value.detach().float().cpu().contiguous() for name, value in factors.items()}


def unpacked(tensors: Mapping[str, Tensor], alpha: float) -> dict[str, Adapter]:
    """The inverse of `packed`, without gradients."""
    paths = [name.removesuffix("|down") for name in tensors if name.endswith("|down")]
    return {
        path: Adapter(tensors[f"{path}|down"], tensors[f"{path}|up"], alpha / len(tensors[f"{path}|down"])) for path in paths
    }
