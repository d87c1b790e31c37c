"""SPEED (2503.07392): cross-attention's values are edited in closed form inside the null space of what is kept.

With c_t, c_a the states of the concept's and its anchors' tokens, T = mean c_t c_t^T, A = mean c_a c_t^T, and P the projection
onto the null space of the kept states,

    dW = W (A - T) P (I - M K (K^T P M K + l I)^-1 K^T P) M,   M = (T P + s I)^-1.

K holds what no edit may move at all: the start token and centres of the empty prompt's states. Kept are those texts that an edit
without constraints would move more than the mean of them (the influence filter), and copies of them with noise along the
direction that W sees least, filtered in the same way. The rank of P is in the card: where the kept texts span nearly all of
the width, there is no room for an edit.

That the cut of P is on the mean of the kept states' outer products, and the noise has a deviation of 1, is srbench's reading
(unverified).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from scipy.cluster.vq import kmeans2
from torch import Tensor

from srbench.catalog.specs import ConceptSpec
from srbench.methods import base, finetune, texts, uce
from srbench.methods.phrases import listed_texts

METHOD = {
    "name": "speed",
    "version": 1,
    "kind": "weight",
    "title": "SPEED: closed-form edit of cross-attention's values in the null space of what is kept",
    "equation": [
        "dW = W (A - T) P (I - M K (K^T P M K + l I)^-1 K^T P) M, M = (T P + s I)^-1",
        "T = mean c_t c_t^T, A = mean c_a c_t^T, P: onto the null space of what is kept",
    ],
    "paper": "2503.07392",
    "families": ["pocket", "sd"],
    "presets": {"speed": {}},
    # Not fitted on `dev` rows: a ridge between those that forgot all and nearly nothing in a pilot on pocket (1 and 30).
    "fitted": {
        "pocket": {
            "speed": {
                "object": {"ridge": 10.0, "retain_texts": "@pocket-world"},
                "style": {"ridge": 10.0, "retain_texts": "@pocket-world"},
            },
        },
    },
    "unfitted": ["speed"],
    "decides": False,
    "reads_concept": True,
}


class Options(base.Options):
    """Options; the defaults are the published ones for few concepts."""

    ridge: float = Field(1.0, gt=0, allow_inf_nan=False)
    """s. Published for ten celebrities and more: .05, without the filter."""
    invariant_ridge: float = Field(0.0, ge=0, allow_inf_nan=False)
    """l; 0: what must not move does not."""
    cut: float = Field(0.1, gt=0, allow_inf_nan=False)
    """Singular values of the kept states' second moment below this belong to the null space."""
    retain_texts: Annotated[str | None, AfterValidator(listed_texts)] = Field(None, pattern=r"[^;\s]")
    """Texts that are kept beside the concept's neighbours, separated by semicolons, or `@NAME`; those that hold a phrase of the
    concept are left out. None: srbench's own objects."""
    influence_filter: bool = True
    """Whether only those texts are kept that an edit without constraints would move more than the mean of them."""
    augmented: int = Field(10, ge=0)
    """Noisy copies of each kept state."""
    centres: int = Field(3, ge=0)
    """Of the empty prompt's states."""
    tokens: Literal["last", "all"] = "last"
    """Of phrases and anchors: the last subject token, or all of them (nudity)."""
    prompts: Literal["names", "all"] = "all"
    """Phrases that are erased: the concept's names, or those of its members too."""
    seed: int = 0
    """Of the noise of the copies: equal seeds make equal weights."""


def unconstrained(weight: Tensor, target: Tensor, anchor: Tensor, ridge: float) -> Tensor:
    """dW of the same edit with P = I and without K: W (A - T) (T + s I)^-1. All float64, W (out, D), A and T (D, D)."""
    return torch.linalg.solve(target + ridge * torch.eye(len(target), dtype=target.dtype), weight @ (anchor - target), left=False)


def change(
    weight: Tensor, target: Tensor, anchor: Tensor, null: Tensor, invariant: Tensor, ridge: float, invariant_ridge: float
) -> Tensor:
    """dW (out, D). target and anchor: T and A (D, D); null: P (D, D); invariant: K (D, n); float64."""
    eye = torch.eye(len(target), dtype=target.dtype)
    m = torch.linalg.inv(target @ null + ridge * eye)
    inner = eye
    if invariant.shape[1]:
        middle = invariant.T @ null @ m @ invariant  # (n, n)
        solved = torch.linalg.pinv(middle + invariant_ridge * torch.eye(len(middle), dtype=middle.dtype))
        inner = eye - m @ invariant @ solved @ invariant.T @ null
    return weight @ (anchor - target) @ null @ inner @ m


def null_space(kept: Tensor, cut: float) -> tuple[Tensor, int]:
    """P (D, D) onto the null space of states (n, D), and its rank."""
    width = kept.shape[1]
    moment = kept.T @ kept / max(len(kept), 1)
    vectors, values, _ = torch.linalg.svd(moment)
    free = vectors[:, values < cut]  # (D, rank)
    return (free @ free.T if len(kept) else torch.eye(width, dtype=kept.dtype)), free.shape[1] if len(kept) else width


def influenced(moved: Tensor, states: Tensor) -> Tensor:
    """Those states (n, D) that an edit dW (out, D) moves more than the mean of them."""
    far = (states @ moved.T).norm(dim=1)
    return states[far > far.mean()]


def noisy(weight: Tensor, states: Tensor, copies: int, rng: torch.Generator) -> Tensor:
    """Copies of states (n, D), each moved along the direction that W (out, D) sees least, (n * copies, D)."""
    least = torch.linalg.svd(weight, full_matrices=True).Vh[-1]  # (D,)
    far = torch.randn(len(states) * copies, 1, generator=rng, dtype=states.dtype)
    return states.repeat_interleave(copies, 0) + far * least


def retained(weight: Tensor, moved: Tensor, states: Tensor, options: Options, rng: torch.Generator) -> Tensor:
    """The states that span what is kept for one matrix, (n, D)."""
    kept = influenced(moved, states) if options.influence_filter else states
    if not options.augmented or not len(kept):
        return kept
    more = noisy(weight, kept, options.augmented, rng)
    return torch.cat([kept, influenced(moved, more) if options.influence_filter else more])


# --- texts -----------------------------------------------------------------------------------------------------------------


def _subject(pipeline: Any, text: str, tokens: str) -> Tensor:
    """The states of a text's last subject token, or of all its subject tokens, (n, D) float64."""
    ids = finetune.token_ids(pipeline, [text])[0]
    states = finetune.encode(pipeline, [text])[0].double().cpu()  # (T, D)
    last = uce.last_token(ids, pipeline.tokenizer.eos_token_id)
    return states[last : last + 1] if tokens == "last" else states[1 : last + 1]


def moments(pipeline: Any, anchor_of: dict[str, str], tokens: str) -> tuple[Tensor, Tensor]:
    """T and A (D, D), means over phrases and aligned tokens."""
    said, safe = [], []
    for phrase, anchor in anchor_of.items():
        own, other = _subject(pipeline, phrase, tokens), _subject(pipeline, anchor, tokens)
        count = min(len(own), len(other))
        said.append(own[-count:])  # aligned at their ends, where the subject is
        safe.append(other[-count:])
    c_t, c_a = torch.cat(said), torch.cat(safe)  # (n, D) each
    return c_t.T @ c_t / len(c_t), c_a.T @ c_t / len(c_t)


def invariant(pipeline: Any, centres: int, seed: int) -> Tensor:
    """K (D, 1 + centres): the start token's state, and centres of the empty prompt's other states."""
    states = finetune.encode(pipeline, [""])[0].double().cpu()  # (T, D)
    columns = [states[:1]]
    if centres:
        found, _ = kmeans2(states[1:].numpy(), min(centres, len(states) - 1), minit="++", seed=seed)
        columns.append(torch.from_numpy(found))
    return torch.cat(columns).T


@base.method(METHOD)
class Speed:
    """Solves for new values, matrix by matrix."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Map the phrases' values to their anchors', where what is kept does not reach.

        Raises `UsageError` for a backbone without a U-Net, a concept without anchors or nothing to keep, `CellError` where
        nothing changes.
        """
        pipeline = backbone.pipeline
        every = finetune.keys_and_values(finetune.unet_of(pipeline, "speed"))
        weights = {name: weight for name, weight in every.items() if name.endswith(".to_v.weight")}
        anchor_of = finetune.anchored(concept, backbone.family, options.prompts)
        kept = texts.kept_texts(concept, backbone.family, options.retain_texts, "speed")
        finetune.screened(concept, [*anchor_of, *anchor_of.values(), *kept])
        target, anchor = moments(pipeline, anchor_of, options.tokens)
        states = torch.cat([_subject(pipeline, text, "last") for text in kept])  # (n, D)
        stays = invariant(pipeline, options.centres, options.seed)
        rng = torch.Generator().manual_seed(options.seed)
        new, ranks, counts = {}, [], []
        for done, (name, weight) in enumerate(weights.items(), 1):
            moved = unconstrained(weight, target, anchor, options.ridge)
            own = retained(weight, moved, states, options, rng)
            null, rank = null_space(own, options.cut)
            new[name] = weight + change(weight, target, anchor, null, stays, options.ridge, options.invariant_ridge)
            ranks.append(rank)
            counts.append(len(own))
            tell("solving", done, len(weights), f"null space {rank} of {len(null)}")
        tensors = finetune.changed(weights, new, "speed")
        card: dict[str, Any] = {
            "names": len(anchor_of), "phrases": list(anchor_of), "anchors": anchor_of, "kept": kept, "null_space": ranks,
            "width": states.shape[1], "retained_states": counts,
        }  # fmt: skip
        return base.Edit({"unet": tensors}, card | finetune.edit_card(weights, tensors))
