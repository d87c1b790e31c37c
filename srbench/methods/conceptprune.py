"""ConceptPrune (2405.19237): weights of the feed-forward layers that work for the concept and not for its anchor become zero.

Written from the paper's score. Which half of a guided batch is measured is not said there: here the conditional one. Prompts are
srbench's own. That the places of the zeros give the concept away (2603.06640) holds for these checkpoints, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import base, denoising, finetune
from srbench.methods.phrases import listed_contexts, pairs_in_contexts

METHOD = {
    "name": "conceptprune",
    "version": 1,
    "kind": "weight",
    "title": "ConceptPrune: feed-forward weights that work for the concept alone become zero",
    "equation": [
        "S_ij = |W_ij| ||a_j||",
        "W_ij <- 0 where, at one of the first T steps, S_ij(concept) is among its row's highest r and above S_ij(anchor)",
    ],
    "paper": "2405.19237",
    "families": ["pocket", "sd", "sdxl"],
    "presets": {"conceptprune": {}},
    "fitted": {
        # Published, per kind (ruchikachavhan/concept-prune); objects are the defaults.
        "sd": {
            "conceptprune": {
                "style": {
                    "ratio": 0.01,
                    "contexts": "a cat, {}; a dog, {}; a house, {}; a bridge, {}; a tree, {}; a bowl of fruit, {}; a street, {}",
                },
                "content": {"ratio": 0.01, "first_steps": 9},
            },
        },
        # Not fitted on `dev` rows. At the published share (.01 to .05) a small model keeps its concepts; .2 took half of them.
        "pocket": {
            "conceptprune": {
                "object": {"steps": 16, "guidance": 5.0, "ratio": 0.3, "first_steps": 8, "contexts": "@pocket-objects"},
                "style": {"steps": 16, "guidance": 5.0, "ratio": 0.3, "first_steps": 8, "contexts": "@pocket-styles"},
            },
        },
    },
    "unfitted": ["conceptprune"],
    "decides": False,
    "reads_concept": True,
}

BATCH = 16
ENDING = ".ff.net.2"
"""diffusers' name of the second linear layer of a feed-forward."""


class Options(base.Options):
    """Options; the defaults are the published ones for objects."""

    ratio: float = Field(0.02, gt=0, le=1)
    """r: the share of a row's weights that can be skilled."""
    first_steps: int = Field(10, gt=0)
    """T: from how many steps, from the first on, skilled weights are gathered."""
    steps: int = Field(50, gt=0)
    """Inference steps of the sampling."""
    guidance: float = 7.5
    """Of the sampling; a factor without unit."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Texts with `{}` where a phrase, or for the base prompts its anchor, stands; separated by semicolons, or `@NAME`."""
    seed: int = 0
    """Of the noise that sampling begins with: equal seeds make equal weights."""


def layers_of(unet: nn.Module) -> dict[str, nn.Linear]:
    """The second linear layer of each feed-forward, by its path. Raises `UsageError` where there is none."""
    found = {path: layer for path, layer in unet.named_modules() if path.endswith(ENDING) and isinstance(layer, nn.Linear)}
    if not found:
        raise UsageError("this U-Net has no feed-forward layers to prune", "Give a Stable Diffusion backbone.")
    return found


def skilled(weight: Tensor, target: Tensor, base_norms: Tensor, ratio: float) -> Tensor:
    """Which weights (out, in) work for the target: Wanda's score |W_ij| ||a_j|| is among the row's highest `ratio`, and is
    higher than under the base prompts (2405.19237, section 3).

    target, base_norms: (in,), ||a_j|| over all tokens under the target and the base prompts.
    """
    score, other = weight.abs() * target, weight.abs() * base_norms  # (out, in)
    most = max(1, int(ratio * weight.shape[1]))
    top = torch.zeros_like(score, dtype=torch.bool).scatter(1, score.topk(most, dim=1).indices, True)
    return top & (score > other)


class Norms:
    """Sums of squares of the gated activations, per layer and step; the norm of activation j over all tokens is their root."""

    def __init__(self, layers: Mapping[str, nn.Linear], steps: int, count: int) -> None:
        self.squares = {path: torch.zeros(steps, layer.in_features, dtype=torch.float64) for path, layer in layers.items()}
        self.step, self.count = 0, count

    def at(self, step: int) -> None:
        """The step that is about to run."""
        self.step = step

    def hook(self, path: str) -> Any:
        """A forward pre-hook of a layer; its input is (2B, N, F), of which the conditional half counts."""

        def before(layer: nn.Module, args: tuple[Any, ...]) -> None:
            unit = F.normalize(args[0][-self.count :].double(), dim=-1)  # (B, N, F), each token of length 1
            self.squares[path][self.step] += unit.square().sum((0, 1)).cpu()

        return before


def measured(
    draws: denoising.Denoising, unet: Any, prompts: Conditioning, options: Options, tell: base.Tell, phase: str
) -> dict[str, Tensor]:
    """||a_j|| (steps, F) per layer over all prompts; prompt i has the same noise whatever it says."""
    layers, steps, total = layers_of(unet), min(options.first_steps, options.steps), len(prompts.embeds)
    squares = {path: torch.zeros(steps, layer.in_features, dtype=torch.float64) for path, layer in layers.items()}
    for start in range(0, total, BATCH):
        part = denoising.chosen(prompts, slice(start, start + BATCH))
        norms = Norms(layers, steps, len(part.embeds))
        rng = torch.Generator().manual_seed(options.seed + start)
        with base.hooks(*(layer.register_forward_pre_hook(norms.hook(path)) for path, layer in layers.items())):
            draws.walk(unet, part, rng, stop=steps, visit=norms.at)
        squares = {path: value + norms.squares[path] for path, value in squares.items()}
        tell(phase, min(start + BATCH, total), total, "")
    return {path: value.sqrt() for path, value in squares.items()}


def pruned(unet: nn.Module, target: Mapping[str, Tensor], base_norms: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """New weights by name: those that are skilled at any step are zero."""
    new = {}
    for path, layer in layers_of(unet).items():
        weight = layer.weight.detach().double().cpu()
        steps = zip(target[path], base_norms[path], strict=True)
        mask = torch.stack([skilled(weight, at, before, ratio) for at, before in steps]).any(0)  # (out, in)
        new[f"{path}.weight"] = weight.masked_fill(mask, 0)
    return new


def _pairs(concept: ConceptSpec, family: str, contexts: str | None) -> tuple[list[str], list[str], list[str]]:
    """The concept's phrases, and target and base prompts, aligned."""
    anchor_of = finetune.anchored(concept, family)
    target, other = map(list, zip(*pairs_in_contexts(anchor_of, contexts), strict=True))
    finetune.screened(concept, [*target, *other])
    return list(anchor_of), target, other


@base.method(METHOD)
class ConceptPrune:
    """Prunes; nothing is trained."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Set to zero what the feed-forward layers use for the concept's prompts and not for their anchors'.

        Raises `UsageError` for a backbone without a U-Net or without feed-forward layers and for a concept without anchors,
        `CellError` where no weight is skilled.
        """
        pipeline = backbone.pipeline
        unet = denoising.frozen(pipeline, "conceptprune")
        layers_of(unet)
        phrases, target, other = _pairs(concept, backbone.family, options.contexts)
        draws = denoising.Denoising(pipeline, options.steps, options.guidance)
        found = [
            measured(draws, unet, denoising.encoded(pipeline, texts), options, tell, phase)
            for phase, texts in (("target prompts", target), ("base prompts", other))
        ]
        new = pruned(unet, found[0], found[1], options.ratio)
        before = {name: value for name, value in unet.state_dict().items() if name in new}
        tensors = finetune.changed(before, new, "conceptprune")
        card: dict[str, Any] = {"names": len(phrases), "phrases": phrases, "prompts": len(target)}
        return base.Edit({"unet": tensors}, card | finetune.edit_card(before, tensors) | {"pruned": _share(before, tensors)})


def _share(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """The share of weights that became zero, over all layers that can be pruned."""
    zeros: Sequence[int] = [int(((after[name] == 0) & (before[name].cpu() != 0)).sum()) for name in after]
    return round(sum(zeros) / sum(value.numel() for value in before.values()), 6)
