"""UCE: the closed form is the paper's minimum, which tokens it edits, what it keeps, and that it fails aloud."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from srbench.catalog import plugins
from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.errors import CellError, UsageError
from srbench.methods import denoising, finetune, uce
from srbench.methods.base import BackboneInfo, quiet
from srbench.testing.families import tiny

TOKENS = 12
NOUN = {"a box": 4, "a crate": 6, "a cup": 4, "a bowl": 5, "a jar": 4}
"""Position of each text's last letter: the start token, "a", then a token a letter."""


def options(preset: str = "uce", **changes: Any) -> uce.Options:
    return uce.Options(**(plugins.preset(preset)[1] | changes))


def erase(on: BackboneInfo, concept: ConceptSpec, chosen: uce.Options) -> dict[str, torch.Tensor]:
    return uce.Uce.erase(on, concept, chosen, quiet).tensors["unet"]


def concept(
    names: tuple[str, ...], words: tuple[str, ...], counterparts: dict[str, str], sensitive: bool = False
) -> ConceptSpec:
    told = ConceptWords(names=names, words=words, counterparts=counterparts, protocol="none")
    return ConceptSpec(name="box", title="boxes", kind="object", sensitive=sensitive, families={"tiny": told})


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some() -> uce.Directions:
    return uce.Directions(random(1, 3, 8), random(2, 3, 8), random(3, 2, 8))


# --- the closed form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lam", "erase_scale", "preserve_scale"), [(0.5, 1.0, 1.0), (0.1, 0.3, 2.0), (2.0, 1.0, 0.0)])
def test_edit_is_the_least_squares_minimum(lam: float, erase_scale: float, preserve_scale: float) -> None:
    """W' minimises s_e |W' c - W g|^2 + s_p |W' p - W p|^2 + lam |W' - W|^2; numpy solves the stacked system."""
    found, weight = some(), random(0, 5, 8)
    w, c, g, p = weight.numpy(), found.erased.numpy(), found.guides.numpy(), found.kept.numpy()
    sides = np.concatenate([erase_scale**0.5 * c, preserve_scale**0.5 * p, lam**0.5 * np.eye(8)])  # (3 + 2 + 8, 8)
    wanted = np.concatenate([erase_scale**0.5 * g @ w.T, preserve_scale**0.5 * p @ w.T, lam**0.5 * w.T])
    expected = np.linalg.lstsq(sides, wanted, rcond=None)[0].T
    edited = uce.edited({"w": weight}, uce.mixing(found, lam, erase_scale, preserve_scale))["w"]
    assert np.abs(edited.numpy() - expected).max() < 1e-6


def test_small_lambda_maps_exactly_and_keeps() -> None:
    found, weight = some(), random(0, 5, 8)
    edited = weight @ uce.mixing(found, 1e-9, 1.0, 1.0)
    assert torch.allclose(edited @ found.erased.T, weight @ found.guides.T, atol=1e-5)
    assert torch.allclose(edited @ found.kept.T, weight @ found.kept.T, atol=1e-5)


def test_small_lambda_leaves_other_directions() -> None:
    found, weight = some(), random(0, 5, 8)
    other = torch.linalg.qr(torch.cat([found.erased, found.kept]).T, mode="complete").Q[:, 5:]  # (8, 3)
    edited = weight @ uce.mixing(found, 1e-9, 1.0, 1.0)
    assert torch.allclose(edited @ other, weight @ other, atol=1e-5)


def test_large_lambda_leaves_the_weights() -> None:
    assert torch.allclose(uce.mixing(some(), 1e9, 1.0, 1.0), torch.eye(8, dtype=torch.float64), atol=1e-6)


# --- tokens --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "last"), [("a", 1), ("box", 3), ("a box", 4), ("", 0), (" ", 0)])
def test_last_subject_token_stands_before_the_end_of_text(toy: Any, text: str, last: int) -> None:
    ids = finetune.token_ids(toy, [text])[0]
    assert len(ids) == TOKENS
    assert uce.last_token(ids, toy.tokenizer.eos_token_id) == last


def test_last_token_is_read_from_ids_where_a_word_has_many(toy: Any) -> None:
    """A text cut to the model's length ends before the end-of-text all the same."""
    ids = finetune.token_ids(toy, ["an unusually long description"])[0]
    assert uce.last_token(ids, toy.tokenizer.eos_token_id) == TOKENS - 2


@torch.no_grad()
def states(toy: Any, text: str) -> torch.Tensor:
    return toy.encode_prompt(text, "cpu", 1, False)[0][0].double()  # (T, D)


def test_last_edits_one_token_a_phrase(toy: Any, box: ConceptSpec) -> None:
    chosen = options(preserve="neighbours")
    found = uce.directions(toy, uce.plan(box, "tiny", chosen), chosen.tokens)
    assert torch.allclose(found.erased, torch.stack([states(toy, t)[NOUN[t]] for t in ("a box", "a crate")]))
    assert torch.allclose(found.guides, torch.stack([states(toy, t)[NOUN[t]] for t in ("a cup", "a bowl")]))
    assert torch.allclose(found.kept[0], states(toy, "a jar")[NOUN["a jar"]])
    assert found.kept.shape == (2, 16)


def test_last_and_after_edits_the_padding_too(toy: Any, box: ConceptSpec) -> None:
    """Aligned at the last subject token, cut to the shorter side; an empty guide begins at the start token."""
    chosen = options("uce-old")
    found = uce.directions(toy, uce.plan(box, "tiny", chosen), chosen.tokens)
    first, second = states(toy, "a box")[4:], states(toy, "a crate")[6:]  # (8, D), (6, D)
    empty = states(toy, "")
    assert torch.allclose(found.erased, torch.cat([first, second]))
    assert torch.allclose(found.guides, torch.cat([empty[:8], empty[:6]]))
    assert torch.allclose(found.kept, empty)


def test_every_token_of_what_is_kept_counts_where_more_than_the_last_is_edited(toy: Any, box: ConceptSpec) -> None:
    chosen = options("uce-old", preserve="neighbours")
    found = uce.directions(toy, uce.plan(box, "tiny", chosen), chosen.tokens)
    assert torch.allclose(found.kept, torch.cat([states(toy, text) for text in ("", "a jar", "a tin")]))


def test_all_maps_every_token_to_the_guides_of_the_same_place(toy: Any, box: ConceptSpec) -> None:
    found = uce.directions(toy, uce.plan(box, "tiny", options("uce-old", tokens="all")), "all")
    assert torch.allclose(found.erased, torch.cat([states(toy, "a box"), states(toy, "a crate")]))
    assert torch.allclose(found.guides, torch.cat([states(toy, "")] * 2))


def test_longer_guide_is_the_one_that_is_cut_to(toy: Any) -> None:
    long = concept(("a box",), ("box",), {"box": "basin"})
    chosen = options(tokens="last-and-after")
    found = uce.directions(toy, uce.plan(long, "tiny", chosen), chosen.tokens)
    assert torch.allclose(found.guides, states(toy, "a basin")[6:])
    assert torch.allclose(found.erased, states(toy, "a box")[4:10])


# --- the official loops, worked out a second time ------------------------------------------------------------------------


def rows_of(toy: Any, text: str, preset: str, cut: int = 0) -> np.ndarray:
    """Rows (n, D) of a phrase or a guide, from the tokenizer's attention mask as both official codes take them.

    cut: how many rows a longer partner leaves out at the end.
    """
    read = toy.tokenizer(text, padding="max_length", max_length=TOKENS, truncation=True)
    last = sum(read.attention_mask) - 2
    rows = states(toy, text).numpy()
    return rows[last : last + 1] if preset == "uce" else rows[last : len(rows) - cut]


def subject_length(toy: Any, text: str) -> int:
    return sum(toy.tokenizer(text, padding="max_length", max_length=TOKENS, truncation=True).attention_mask) - 2


def official(toy: Any, preset: str, pairs: dict[str, str], kept: list[str], weight: np.ndarray, lam: float) -> np.ndarray:
    """W' by sums over tokens, float64: erase 1, preserve 1 (`uce`) or max(0.1, 1 / number kept) (`uce-old`)."""
    scale = 1.0 if preset == "uce" else max(0.1, 1 / len(kept))
    left, right = lam * weight, lam * np.eye(weight.shape[1])
    for phrase, guide in pairs.items():
        long = max(subject_length(toy, phrase), subject_length(toy, guide))
        old, new = (rows_of(toy, text, preset, long - subject_length(toy, text)) for text in (phrase, guide))
        for c, g in zip(old, new, strict=True):
            left, right = left + np.outer(weight @ g, c), right + np.outer(c, c)
    for text in kept:
        for p in rows_of(toy, text, preset) if preset == "uce" else states(toy, text).numpy():
            left, right = left + scale * np.outer(weight @ p, p), right + scale * np.outer(p, p)
    return left @ np.linalg.inv(right)


@pytest.mark.parametrize("preset", ["uce", "uce-old"])
@pytest.mark.parametrize("guide", ["", " ", "a long basin", None])
@pytest.mark.parametrize("preserve", ["none", "neighbours"])
def test_weights_are_those_of_the_official_loops(
    toy: Any, box: ConceptSpec, preset: str, guide: str | None, preserve: str
) -> None:
    chosen = options(preset, guide=guide, preserve=preserve)
    todo = uce.plan(box, "tiny", chosen)
    mix = uce.mixing(uce.directions(toy, todo, chosen.tokens), 0.5, 1.0, todo.preserve_scale(chosen.preserve_scale))
    pairs = {"a box": "a cup", "a crate": "a bowl"} if guide is None else dict.fromkeys(("a box", "a crate"), guide)
    kept = ([""] if preset == "uce-old" else []) + (["a jar", "a tin"] if preserve == "neighbours" else [])
    for weight in finetune.keys_and_values(toy.unet).values():
        expected = official(toy, preset, pairs, kept, weight.numpy(), 0.5)
        found = (weight @ mix).numpy()
        assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()
        assert np.abs(expected - weight.numpy()).max() > 1e-3 * np.abs(expected).max()


# --- guides and kept texts -----------------------------------------------------------------------------------------------


def test_the_first_anchor_is_every_phrase_s_when_asked(box: ConceptSpec) -> None:
    assert uce.plan(box, "tiny", options()).guides == {"a box": "a cup", "a crate": "a bowl"}
    assert uce.plan(box, "tiny", options(anchors="first")).guides == {"a box": "a cup", "a crate": "a cup"}


def test_listed_texts_are_kept_unless_they_hold_the_concept(box: ConceptSpec) -> None:
    """Neighbours first; a text that is listed twice is kept once; a word inside another word is no phrase."""
    listed = " a jar; a crate on a table;a boxer ; a box;; a plate"
    kept = uce.plan(box, "tiny", options(preserve="neighbours", preserve_texts=listed)).kept
    near = uce.plan(box, "tiny", options(preserve="neighbours")).kept
    assert "a jar" in near
    assert kept == [*near, "a boxer", "a plate"]


@pytest.mark.parametrize("listed", ["", " ; ;"])
def test_a_list_without_texts_is_refused(listed: str) -> None:
    with pytest.raises(ValidationError):
        options(preserve_texts=listed)


def test_official_recipes() -> None:
    """facts 4.2: the refreshed code and the paper's."""
    new, old = options(), options("uce-old")
    assert (new.tokens, new.lam, new.erase_scale, new.preserve_scale, new.retain_empty) == ("last", 0.5, 1.0, 1.0, False)
    assert (old.tokens, old.lam, old.erase_scale, old.guide, old.retain_empty) == ("last-and-after", 0.5, 1.0, " ", True)


@pytest.mark.parametrize(("kept", "scale"), [(1, 1.0), (4, 0.25), (25, 0.1)])
def test_old_recipe_weighs_kept_texts_by_their_number(kept: int, scale: float) -> None:
    assert uce.Plan({}, [""] * kept).preserve_scale(options("uce-old").preserve_scale) == scale
    assert uce.Plan({}, [""] * kept).preserve_scale(0.7) == 0.7


def test_old_recipe_reports_its_scale(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    cards = [uce.Uce.erase(on_toy, box, options("uce-old", preserve=which), quiet).card for which in ("none", "neighbours")]
    assert [card["preserve_scale"] for card in cards] == [1.0, 1 / 3]
    assert [card["kept"] for card in cards] == [[""], ["", "a jar", "a tin"]]


def test_guides_are_anchors_unless_a_text_is_given(box: ConceptSpec) -> None:
    assert uce.plan(box, "tiny", options()).guides == {"a box": "a cup", "a crate": "a bowl"}
    assert uce.plan(box, "tiny", options(guide="art")).guides == {"a box": "art", "a crate": "art"}
    assert uce.plan(box, "tiny", options(guide="")).guides == {"a box": "", "a crate": ""}


def test_name_takes_the_anchor_of_its_longest_word() -> None:
    named = concept(("a heavy tin box",), ("box", "tin box"), {"box": "cup", "tin box": "bowl"})
    assert finetune.anchored(named, "tiny")["a heavy tin box"] == "a bowl"


def test_name_without_a_word_has_no_anchor() -> None:
    """Parts of words do not count: 'boxer' holds no box."""
    with pytest.raises(UsageError, match="no anchor for 'a boxer'"):
        finetune.anchored(concept(("a boxer",), ("box",), {"box": "cup"}), "tiny")


def test_needs_anchors_only_where_they_are_the_guides(on_toy: BackboneInfo, without_anchors: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="no anchor"):
        erase(on_toy, without_anchors, options())
    assert erase(on_toy, without_anchors, options(guide=""))
    assert erase(on_toy, without_anchors, options("uce-old"))


def test_sensitive_texts_that_name_minors_are_not_encoded(on_toy: BackboneInfo) -> None:
    trees = {"box": "young tree"}
    with pytest.raises(UsageError, match="names a minor"):
        erase(on_toy, concept(("a box",), ("box",), trees, sensitive=True), options())
    assert erase(on_toy, concept(("a box",), ("box",), trees), options())


# --- on a pipeline -------------------------------------------------------------------------------------------------------


def test_edits_every_key_and_value_matrix(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    every = set(on_toy.pipeline.unet.state_dict())
    expected = {name for name in every if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    assert set(erase(on_toy, box, options())) == expected
    assert len(expected) == 8


def test_keys_and_values_of_a_phrase_become_its_guides(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    tensors, toy = erase(on_toy, box, options(lam=1e-6)), on_toy.pipeline
    own = toy.unet.state_dict()
    for phrase, guide in (("a box", "a cup"), ("a crate", "a bowl")):
        c, g = states(toy, phrase)[NOUN[phrase]].float(), states(toy, guide)[NOUN[guide]].float()
        for name, new in tensors.items():
            assert torch.allclose(new @ c, own[name] @ g, atol=1e-2)
            assert not torch.allclose(own[name] @ c, own[name] @ g, atol=1e-1)


def test_neighbours_are_kept_better_when_asked(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    own, jar = on_toy.pipeline.unet.state_dict(), states(on_toy.pipeline, "a jar")[NOUN["a jar"]].float()

    def harm(preserve: str) -> float:
        tensors = erase(on_toy, box, options(preserve=preserve, preserve_scale=100.0))
        return sum(float(((new - own[name]) @ jar).norm()) for name, new in tensors.items())

    assert harm("neighbours") < 0.2 * harm("none")


@pytest.mark.parametrize("tokens", ["last", "last-and-after"])
def test_guide_that_is_the_concept_is_refused(on_toy: BackboneInfo, tokens: str) -> None:
    one = concept(("a box",), ("box",), {})
    with pytest.raises(CellError, match="nothing changed"):
        erase(on_toy, one, options(guide="a box", tokens=tokens))


def test_layers_without_cross_attention_are_refused(on_toy: BackboneInfo) -> None:
    with pytest.raises(UsageError, match="no weights under the rule 'kv'"):
        finetune.chosen(on_toy.pipeline.vae, "kv")


def test_sdxl_changes_for_the_concept_and_not_for_what_is_kept() -> None:
    """Where the closed form promises it: a kept text that weighs more than all else, by every token of it."""
    pipeline = tiny("sdxl")
    for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
        for value in encoder.parameters():  # the tiny one's states are so large that rounding to float32 shows
            value.data.mul_(0.1 if value.ndim > 1 else 1.0)
    words = ConceptWords(names=("box",), words=("box",), counterparts={"box": "cup"}, protocol="none")
    concept = ConceptSpec(name="box", title="boxes", kind="content", sensitive=False, families={"sdxl": words})
    chosen = uce.Options(tokens="last-and-after", preserve_texts="tin", preserve_scale=1e6, lam=0.01)
    tensors = uce.Uce.erase(BackboneInfo("toy", "sdxl", "sha", pipeline), concept, chosen, quiet).tensors["unet"]
    assert all(value.shape[1] == pipeline.unet.config.cross_attention_dim for value in tensors.values())
    draws, x = denoising.Denoising(pipeline, 3, 5.0), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    edited = denoising.trainable(pipeline.unet)
    edited.load_state_dict(tensors, strict=False)

    def moved(text: str) -> float:
        prompts = denoising.encoded(pipeline, [text])
        with torch.no_grad():
            before, after = (draws.predict(unet, x, torch.tensor(500), prompts) for unet in (pipeline.unet, edited))
        return float((before - after).abs().max())

    kept, gone = moved("tin"), moved("box")
    assert (kept < 1e-4, gone > 10 * kept, gone > 1e-4) == (True, True, True), (kept, gone)
