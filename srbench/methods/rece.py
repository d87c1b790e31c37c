"""RECE (2407.12383): after UCE, find the embeddings that still bring the concept back, and edit those away too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import base, finetune, uce

METHOD = {
    "name": "rece",
    "version": 2,
    "kind": "weight",
    "title": "RECE: closed-form erasure of what still produces the concept after UCE",
    "equation": [
        "c' = (lam I + sum W'^T W')^-1 (sum W'^T W) c, W untouched and W' edited",
        "W' <- UCE's edit of W' with c' in place of c, epochs times",
    ],
    "paper": "2407.12383",
    "families": ["pocket", "sd"],
    "presets": {"rece": {}},
    # On Stable Diffusion as train_object.py and train_artists.py have it by default (easy objects, such as parachutes, were
    # given a lam of 0.1). On pocket by `srbench/pocket_build/study/fit.yaml`, on `dev` rows, over `uce-old` as fitted there.
    "fitted": {
        "sd": {"rece": {"object": {"lam": 1e-3, "epochs": 1}, "style": {"lam": 1e-3, "epochs": 1}}},
        "pocket": {
            "rece": {
                "object": {"lam": 0.1, "epochs": 1, "edit_lam": 0.5, "preserve_texts": "@pocket-world"},
                "style": {"lam": 0.1, "epochs": 1, "edit_lam": 0.1, "preserve_texts": "@pocket-world"},
            },
        },
    },
    "decides": False,
    "reads_concept": True,
    # The official base is called `...method_replace-1-1.0`: erase 1 and preserve 1, which UCE's own rule gives where the empty
    # prompt alone is kept. For styles, where hundreds of artists are kept, it gives the official 0.1.
    "base": {"preset": "uce-old", "options": {}},
}


class Options(uce.Editing):
    """Options; the defaults are the official recipe for nudity (CharlesGong12/RECE: scripts/nudity.sh and the defaults of
    train.py). Its coefficients "lambda_1 = lambda_2 = 0.1" are the edit's lambda and the weight of what is kept."""

    lam: float = Field(0.1, gt=0)
    """lambda of the search for c' (`regular_scale`). Official: 0.1; for styles and hard objects (church, garbage truck) 1e-3."""
    epochs: int = Field(3, gt=0)
    """Rounds of search and edit. Official: nudity 3, other unsafe concepts 2, styles and objects 1."""
    edit_lam: float = Field(0.1, gt=0)
    """lambda of the edit (`lamb`)."""
    erase_scale: float = Field(1.0, gt=0)
    preserve_scale: float | None = Field(0.1, ge=0)
    tokens: Literal["last", "last-and-after", "all"] = "all"
    """Official: all of them, the start token too (utils/embedding_calculation/close_form_emb.py; its slice is commented out)."""
    guide: str | None = " "
    retain_empty: bool = True


def rediscovered(edited: Mapping[str, Tensor], original: Mapping[str, Tensor], c: Tensor, lam: float) -> Tensor:
    """c' (n, D): what the edited matrices turn into the keys and values that the original ones make of c (n, D).

    c' = (lam I + sum W'^T W')^-1 (sum W'^T W) c over all key and value matrices (2407.12383, section 3), the minimum of
    sum || W' c' - W c ||^2 + lam || c' ||^2.
    """
    norm = lam * torch.eye(c.shape[1], dtype=c.dtype) + sum(new.T @ new for new in edited.values())  # (D, D)
    cross = sum((new.T @ original[name] for name, new in edited.items()), torch.zeros_like(norm))  # (D, D)
    return torch.linalg.solve(norm, cross @ c.T).T


def _original(backbone: base.BackboneInfo, current: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The untouched backbone's matrices; those that the base left alone are the current ones."""
    untouched = backbone.original.get("unet", {})
    if not any(name in untouched for name in current):
        raise UsageError("rece begins from UCE's weights, and none are laid over this backbone", "Run it as the preset 'rece'.")
    return {name: untouched[name].detach().double().cpu() if name in untouched else weight for name, weight in current.items()}


@base.method(METHOD)
class Rece:
    """Solves, searches, and solves again."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Edit the pipeline's weights (UCE's) for the embeddings that still produce the concept, round by round.

        The result holds every key and value matrix that differs from the untouched backbone's, so it stands alone.
        Raises `UsageError` without a U-Net or without a base, `CellError` where nothing changes.
        """
        pipeline = backbone.pipeline
        current = finetune.keys_and_values(finetune.unet_of(pipeline, "rece"))
        original = _original(backbone, current)
        todo = uce.plan(concept, backbone.family, options)
        directions = uce.directions(pipeline, todo, options.tokens)
        scale, sizes = todo.preserve_scale(options.preserve_scale), []
        start = current
        for epoch in range(options.epochs):
            again = rediscovered(current, original, directions.erased, options.lam)  # (E, D)
            sizes.append(float(again.norm() / directions.erased.norm()))
            edits = uce.Directions(again, directions.guides, directions.kept)
            mix = uce.mixing(edits, options.edit_lam, options.erase_scale, scale)
            current = uce.edited(current, mix)
            tell("rounds", epoch + 1, options.epochs, f"|c'|/|c| {sizes[-1]:.3g}")
        finetune.changed(start, current, "rece")  # the rounds themselves must do something
        tensors = finetune.changed(original, current, "rece")
        card = todo.card() | finetune.edit_card(original, tensors) | {"preserve_scale": scale, "rediscovered_norms": sizes}
        return base.Edit({"unet": tensors}, card)
