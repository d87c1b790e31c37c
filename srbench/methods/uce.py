"""UCE (2308.14761): cross-attention's keys and values are edited in closed form; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.errors import CellError
from srbench.methods import base, finetune
from srbench.methods.phrases import listed_texts, neighbours, phrases, split_texts, words_of

METHOD = {
    "name": "uce",
    "version": 2,
    "kind": "weight",
    "title": "UCE: closed-form edit of cross-attention's keys and values",
    "equation": [
        "W' = W (s_e S g c^T + s_p S p p^T + lam I) (s_e S c c^T + s_p S p p^T + lam I)^-1",
        "c: phrases, g: what they are mapped to, p: what is kept, S: sum",
    ],
    "paper": "2308.14761",
    "families": ["pocket", "sd", "sdxl"],
    "presets": {
        # The refreshed code (trainscripts/uce_sd_erase.py), whose guide is "" or "art" unless one is given: here the anchors.
        "uce": {},
        # The paper's code (train-scripts/train_erase.py at f7222e6): every token from the last subject token on, towards an
        # empty prompt; of what is kept, the empty prompt among it, every token.
        "uce-old": {"tokens": "last-and-after", "guide": " ", "retain_empty": True, "preserve_scale": None},
    },
    # On pocket's `dev` rows, by `srbench/pocket_build/study/fit.yaml`.
    "fitted": {
        "pocket": {
            "uce": {
                "object": {"lam": 50.0, "anchors": "first", "preserve_texts": "@pocket-world"},
                "style": {"lam": 0.5, "preserve_texts": "@pocket-world"},
            },
            "uce-old": {
                "object": {"lam": 10.0, "preserve_texts": "@pocket-world"},
                "style": {"lam": 10.0, "preserve_texts": "@pocket-world"},
            },
        },
    },
    "decides": False,
    "reads_concept": True,
}


class Editing(base.Options):
    """Which embeddings an edit maps where, and how much each weighs."""

    erase_scale: float = Field(1.0, gt=0)
    """s_e: the weight of the phrases that are mapped, without unit."""
    preserve_scale: float | None = Field(1.0, ge=0)
    """s_p; null: max(0.1, 1 / number of kept texts), as in the paper's code."""
    tokens: Literal["last", "last-and-after", "all"] = "last"
    """Of phrases and guides the last subject token, it and everything after it (end-of-text, padding), or every token. Of texts
    that are kept the last subject token, else every token."""
    guide: str | None = None
    """What phrases are mapped to: this text, or with null their anchors."""
    anchors: Literal["each", "first"] = "each"
    """Without a guide: each phrase's own anchor, or the first phrase's for all, as the code does with one guide. Phrases that
    are near each other and have anchors that are not make an edit that moves everything else too."""
    preserve: Literal["none", "neighbours"] = "none"
    """Texts that are kept: none, or the concept's neighbours."""
    preserve_texts: Annotated[str | None, AfterValidator(listed_texts)] = Field(None, pattern=r"[^;\s]")
    """Further texts that are kept, separated by semicolons, or `@NAME` for a list in srbench's catalog; those that hold a phrase
    of the concept are left out. Part of the key are the texts, not the name."""
    retain_empty: bool = False
    """Whether the empty prompt is kept too."""


class Options(Editing):
    """Options of both presets; the defaults are the refreshed code's recipe (rohitgandikota/unified-concept-editing)."""

    lam: float = Field(0.5, gt=0)
    """lambda, which ties W' to W in all directions."""


# --- tokens --------------------------------------------------------------------------------------------------------------


def last_token(ids: Sequence[int], end: int) -> int:
    """Position of the last token before the end-of-text token; of an empty text that is the start token, 0.

    Both official codes take the number of tokens that are no padding, less 2, for guides as for phrases.
    """
    return list(ids).index(end, 1) - 1


def _edited_rows(states: Tensor, last: int, tokens: str) -> Tensor:
    """The tokens (n, D) of a phrase's or a guide's embedding (T, D) that an edit maps; `last` is its last subject token."""
    if tokens == "all":
        return states
    return states[last : last + 1] if tokens == "last" else states[last:]


def _kept_rows(states: Tensor, last: int, tokens: str) -> Tensor:
    """The tokens (n, D) of a kept text's embedding (T, D): the last subject token, or all, the start token too.

    The paper's code slices phrases and guides only (train-scripts/train_erase.py, `edit_model`).
    """
    return states[last : last + 1] if tokens == "last" else states


# --- the edit ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Directions:
    """Embeddings of single tokens, float64 on the CPU."""

    erased: Tensor  # (E, D), c_e
    guides: Tensor  # (E, D), c_guide
    kept: Tensor  # (P, D), c_p


def mixing(directions: Directions, lam: float, erase_scale: float, preserve_scale: float) -> Tensor:
    """M (D, D) with W' = W M (2308.14761, section 4; W factors out as every target is W times an embedding).

    M = (s_e sum g c^T + s_p sum p p^T + lam I) (s_e sum c c^T + s_p sum p p^T + lam I)^-1. The bracket is symmetric and
    positive definite for lam > 0.
    """
    c, g, p = directions.erased, directions.guides, directions.kept
    preserved = preserve_scale * p.T @ p + lam * torch.eye(c.shape[1], dtype=c.dtype)  # (D, D)
    wanted, norm = erase_scale * g.T @ c + preserved, erase_scale * c.T @ c + preserved  # (D, D)
    try:
        return torch.linalg.solve(norm, wanted.T).T
    except torch.linalg.LinAlgError as error:
        raise CellError("the closed-form edit has no unique solution", "Raise lam.") from error


@dataclass(frozen=True)
class Plan:
    """The texts of an edit."""

    guides: dict[str, str]
    """Phrase -> the text it is mapped to."""
    kept: list[str]

    def card(self) -> dict[str, Any]:
        """The card's part on texts."""
        return {"names": len(self.guides), "phrases": list(self.guides), "guides": self.guides, "kept": self.kept}

    def preserve_scale(self, scale: float | None) -> float:
        """s_p: as given, or the paper's code's rule."""
        return max(0.1, 1 / max(len(self.kept), 1)) if scale is None else scale


def plan(concept: ConceptSpec, family: str, options: Editing) -> Plan:
    """Phrases with their guides, and the texts that are kept. Raises `UsageError` where an anchor is asked for and missing."""
    if options.guide is None:
        guides = finetune.anchored(concept, family)
        if options.anchors == "first":
            guides = dict.fromkeys(guides, next(iter(guides.values())))
    else:
        guides = dict.fromkeys(phrases(concept, family), options.guide)
    preserved = neighbours(concept, family) if options.preserve == "neighbours" else []
    preserved = list(dict.fromkeys([*preserved, *_listed(options.preserve_texts, words_of(concept, family))]))
    planned = Plan(guides, [*([""] if options.retain_empty else []), *preserved])
    finetune.screened(concept, [*guides, *guides.values(), *preserved])
    return planned


def _listed(texts: str | None, words: ConceptWords) -> list[str]:
    """The texts of a list that hold none of the concept's names, words and descriptions."""
    names = (*words.names, *words.words, *words.descriptions)
    return [text for text in split_texts(texts) if not any(f" {phrase} " in f" {text} " for phrase in names)]


def directions(pipeline: Any, plan: Plan, tokens: str) -> Directions:
    """Embeddings of the plan's tokens: phrases and guides aligned at their first chosen tokens, the kept texts after."""
    pairs = [_aligned(*(_tokens(pipeline, text, _edited_rows, tokens) for text in pair)) for pair in plan.guides.items()]
    preserved = [_tokens(pipeline, text, _kept_rows, tokens) for text in plan.kept]
    width = pairs[0][0].shape[1]
    return Directions(
        torch.cat([c for c, _ in pairs]), torch.cat([g for _, g in pairs]),
        torch.cat([torch.zeros(0, width, dtype=torch.float64), *preserved]),
    )


def _tokens(pipeline: Any, text: str, rows: Callable[[Tensor, int, str], Tensor], tokens: str) -> Tensor:
    """The chosen tokens of a text that is encoded alone, (n, D) float64."""
    ids = finetune.token_ids(pipeline, [text])[0]
    states = finetune.encode(pipeline, [text])[0].double().cpu()  # (T, D)
    return rows(states, last_token(ids, pipeline.tokenizer.eos_token_id), tokens)


def _aligned(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both cut to the shorter one's length: a longer text leaves less padding after it."""
    shorter = min(len(first), len(second))
    return first[:shorter], second[:shorter]


def edited(weights: Mapping[str, Tensor], mix: Tensor) -> dict[str, Tensor]:
    """W M for each weight (out, D)."""
    return {name: weight @ mix for name, weight in weights.items()}


@base.method(METHOD)
class Uce:
    """Solves for new keys and values."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Map the phrases' keys and values to their guides', with W kept elsewhere.

        Raises `UsageError` for a backbone without a U-Net or a concept without anchors where they are asked for,
        `CellError` where nothing changes.
        """
        weights = finetune.keys_and_values(finetune.unet_of(backbone.pipeline, "uce"))
        todo = plan(concept, backbone.family, options)
        tell("encoding", 0, 2, f"{len(todo.guides)} phrases")
        embeddings = directions(backbone.pipeline, todo, options.tokens)
        tell("solving", 1, 2, f"{len(weights)} matrices")
        scale = todo.preserve_scale(options.preserve_scale)
        new = edited(weights, mixing(embeddings, options.lam, options.erase_scale, scale))
        tensors = finetune.changed(weights, new, "uce")
        tell("solving", 2, 2, "")
        card = todo.card() | finetune.edit_card(weights, tensors) | {"preserve_scale": scale}
        return base.Edit({"unet": tensors}, card)
