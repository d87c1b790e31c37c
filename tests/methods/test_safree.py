"""SAFREE: triggers, projection, the steps that the prompt calls for, and the filter on skip features."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import fourier_filter
from pydantic import ValidationError
from torch import Tensor

from srbench.engine.prepare import options_of
from srbench.errors import CellError, UsageError
from srbench.methods import base, safree
from srbench.methods.base import Active
from srbench.methods.inversion import Inversion
from srbench.methods.none import NoMethod
from srbench.methods.safree import METHOD, Options, SafreeMethod
from srbench.testing.bench import TOKENS
from srbench.testing.tiny import WIDTH

TEXTS = ["ab box", "cd", "zyxw", "box ef"]
PLAIN = Active(NoMethod, None, NoMethod.Options())


def options(preset: str = "safree", **changes: Any) -> Options:
    return Options(**(METHOD["presets"][preset] | changes))


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw(bench: Any, chosen: Options, texts: list[str] = TEXTS, **recipe: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
    return bench.draw(bench.active(SafreeMethod, chosen), texts, **recipe)


def concept_rows(bench: Any, chosen: Options | None = None) -> Tensor:
    return bench.active(SafreeMethod, chosen or options()).artifact.payload["concept"]


# --- projections ---------------------------------------------------------------------------------------------------------


def gram_schmidt(rows: np.ndarray) -> np.ndarray:
    basis: list[np.ndarray] = []
    for row in rows:
        left = row - sum((b * (b @ row) for b in basis), np.zeros_like(row))
        if np.linalg.norm(left) > 1e-6 * np.linalg.norm(row):
            basis.append(left / np.linalg.norm(left))
    return np.stack(basis, 1)


def projected(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x's nearest point in the span of `rows`, by least squares in float64."""
    return rows.T @ np.linalg.lstsq(rows.T, x, rcond=1e-6)[0]


@pytest.mark.parametrize("kind", ["independent", "repeated", "dependent", "one", "too many"])
def test_projection_is_its_definition(kind: str) -> None:
    rows = random(0, {"one": 1, "too many": 9}.get(kind, 4), 6)
    if kind == "repeated":
        rows[2:] = rows[:2]
    if kind == "dependent":  # to float32's rounding, which a cut at float64's would take for directions
        rows[3] = 0.3 * rows[0] - 1.7 * rows[1] + 0.9 * rows[2]
    x, basis = random(1, 3, 6).double(), safree.span(rows)
    on = np.stack([projected(rows.double().numpy(), one) for one in x.numpy()])
    schmidt = gram_schmidt(rows.double().numpy())
    assert basis.shape[1] == schmidt.shape[1] == {"repeated": 2, "dependent": 3, "one": 1, "too many": 6}.get(kind, 4)
    # Rows in float32 span their plane to 1e-6 only.
    assert np.allclose(safree.onto(x, basis).numpy(), on, atol=1e-5)
    assert np.allclose(safree.onto(x, basis).numpy(), x.numpy() @ schmidt @ schmidt.T, atol=1e-5)
    assert np.allclose(safree.off(x, basis).numpy(), x.numpy() - on, atol=1e-5)


@pytest.mark.parametrize(
    ("distances", "alpha", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.02], 0.01, [0, 0, 0, 1]),
        ([1.0, 1.0, 1.012], 0.01, [0, 0, 1]),  # 1.012 < 1.01 times the mean of all three
        ([1.0, 1.0, 1.012], 0.02, [0, 0, 0]),
        ([1.0, 1.0, 1.0], 0.0, [1, 1, 1]),  # at least, not more than
        ([2.0, 4.0, 6.0], 0.01, [0, 0, 1]),
        ([0.3], 0.01, [1]),
        ([], 0.01, []),
    ],
)
def test_trigger_rule(distances: list[float], alpha: float, expected: list[int]) -> None:
    assert safree.triggers(torch.tensor(distances, dtype=torch.float64), alpha).int().tolist() == expected


def by_hand(bench: Any, text: str, concept: np.ndarray, alpha: float) -> tuple[np.ndarray, list[bool], list[float]]:
    """Section 3 for one prompt, token by token in float64: embedding, triggers, and every row's cosine with its projection."""
    pipeline, e = bench.pipeline, bench.embeddings([text])[0].double().numpy()
    ids = pipeline.tokenizer(text, padding="max_length", max_length=TOKENS).input_ids
    count, m = ids.index(1) - 1, []
    for i in range(count):
        masked = [*ids[: i + 1], 0, *ids[i + 2 :]]
        with torch.no_grad():
            last = pipeline.text_encoder(torch.tensor([masked])).last_hidden_state[0]
        m.append(last[count + 1].double().numpy())  # at the end-of-text token
    d = [np.linalg.norm(one - projected(concept, one)) for one in m]
    hit = [d[i] >= (1 + alpha) * np.mean(d[:i] + d[i + 1 :]) for i in range(count)]
    safe, cosines = e.copy(), []
    for i in range(len(e)):
        row = projected(np.stack(m), e[i])
        row = row - projected(concept, row)
        cosines.append(float(row @ e[i] / np.linalg.norm(row) / np.linalg.norm(e[i])))
        safe[i] = row if 0 < i <= count and hit[i - 1] else e[i]
    return safe, hit, cosines


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_projected_prompt_is_its_definition(bench: Any, text: str, alpha: float) -> None:
    rows, e = concept_rows(bench), bench.embeddings([text])[0]
    got = safree.project(bench.pipeline, text, e, safree.span(rows), options(alpha=alpha))
    safe, hit, _ = by_hand(bench, text, rows.double().numpy(), alpha)
    assert got.triggers == sum(hit)
    assert 0 < sum(hit) < len(hit)
    assert np.allclose(got.safe.numpy(), safe, atol=1e-4)
    kept = [0, *(i + 1 for i, trigger in enumerate(hit) if not trigger), *range(len(hit) + 1, TOKENS)]
    assert torch.equal(got.safe[kept], e[kept])
    assert len(kept) == TOKENS - got.triggers


@pytest.mark.parametrize("text", TEXTS)
def test_beta_is_over_every_token_that_the_attention_mask_holds(bench: Any, text: str) -> None:
    """As in the released code: start, words and end, no padding. Or, when asked, the words alone."""
    rows, e = concept_rows(bench), bench.embeddings([text])[0]
    mask = bench.pipeline.tokenizer(text, padding="max_length", max_length=TOKENS).attention_mask
    cosines = by_hand(bench, text, rows.double().numpy(), 0.01)[2][: sum(mask)]
    for over, expected in (("text", cosines), ("words", cosines[1:-1])):
        got = safree.project(bench.pipeline, text, e, safree.span(rows), options(beta_over=over))
        assert got.beta == pytest.approx(1 - float(np.mean(expected)), abs=1e-5)
    assert abs(np.mean(cosines) - np.mean(cosines[1:-1])) > 1e-3


def test_what_follows_the_prompt_is_projected_when_asked(bench: Any) -> None:
    """Whatever decides (triggers, beta) still reads the prompt alone."""
    rows, e, text = safree.span(concept_rows(bench)), bench.embeddings(["ab c"])[0], "ab c"
    usual, all_of_it = (safree.project(bench.pipeline, text, e, rows, options(tokens=tokens)) for tokens in ("prompt", "all"))
    assert (all_of_it.triggers, all_of_it.beta) == (usual.triggers, usual.beta)
    assert torch.equal(all_of_it.safe[:4], usual.safe[:4])
    rest = all_of_it.safe[4:].double()
    assert torch.equal(usual.safe[4:], e[4:])
    assert not torch.allclose(rest, e[4:].double())
    assert torch.allclose(safree.onto(rest, rows), torch.zeros_like(rest), atol=1e-5)


def test_only_token_is_a_trigger_and_an_empty_prompt_stays(bench: Any) -> None:
    basis, (one, none) = safree.span(concept_rows(bench)), bench.embeddings(["a", ""])
    single = safree.project(bench.pipeline, "a", one, basis, options())
    assert single.triggers == 1
    assert [i for i in range(TOKENS) if not torch.equal(single.safe[i], one[i])] == [1]
    empty = safree.project(bench.pipeline, "", none, basis, options())
    assert torch.equal(empty.safe, none)
    assert (empty.triggers, empty.beta) == (0, 0.0)


def test_tokens_are_masked_one_by_one_in_batches_of_one_shape(bench: Any) -> None:
    """Also where the prompt fills the encoder: its last token gives way to the end of the text."""
    for text, count in (("ab c", 3), ("abcdefghijklmnopqrst", TOKENS - 2)):
        seen: list[Tensor] = []
        handle = bench.pipeline.text_encoder.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].clone()))
        safree.project(bench.pipeline, text, bench.embeddings([text])[0], safree.span(concept_rows(bench)), options(mask_id=55))
        handle.remove()
        batch, words = seen[-1], bench.pipeline.tokenizer
        ids = torch.tensor(words(text, padding="max_length", max_length=TOKENS, truncation=True).input_ids)
        assert {tuple(one.shape) for one in seen} == {(16, TOKENS)}
        for i in range(count):
            assert 55 not in ids
            assert (batch[i] != ids).nonzero().flatten().tolist() == [i + 1]
            assert batch[i][i + 1] == 55


def test_company_does_not_change_an_embedding(bench: Any) -> None:
    """Not one bit, whatever stands beside it and wherever."""
    active = bench.active(SafreeMethod, options())
    made = {}
    for texts in (TEXTS, TEXTS[::-1], ["box ef"] * 4, ["cd", "cd", "box ef", "ab box"]):
        guard = safree.Guard(bench.pipeline, active.artifact.payload, options(), base.Call(4, 4, True, tuple(texts)))
        guard.prompts(bench.embeddings(texts), bench.embeddings([""] * 4))
        for text, safe in zip(texts, guard.safe, strict=True):
            assert torch.equal(made.setdefault(text, safe), safe)
    assert len(made) == 4


# --- which steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beta", "steps", "how", "expected"),
    [
        (0.0, 50, "scaled", 0), (1.0, 50, "scaled", 10), (0.5333, 50, "scaled", 5), (0.0, 16, "scaled", 0),
        (1.0, 16, "scaled", 3), (1.0, 16, "absolute", 10), (1.0, 100, "scaled", 20), (2.0, 4, "scaled", 1),
    ],
)
def test_last_safe_step(beta: float, steps: int, how: str, expected: int) -> None:
    assert safree.safe_until(beta, options(steps=how), steps) == expected


def test_last_safe_step_is_the_formula_and_bears_any_constants() -> None:
    for beta in np.linspace(0.4, 0.7, 20):
        expected = round(10 / (1 + np.exp(-2 * 2.5 * (10 * beta - 5.333))))
        assert safree.safe_until(float(beta), options(), 50) == expected
    assert [safree.safe_until(0.5, options(m=m, k=1e6), 50) for m in (9.0, 1.0)] == [0, 10]


class Seen:
    """What the denoiser and its up blocks really get, call by call."""

    def __init__(self, pipeline: Any) -> None:
        self.unet, self.prompts, self.latents, self.skips, self.handles = pipeline.unet, [], [], [], []

    def watch(self) -> None:
        """Call inside the method's context: these hooks then run after the method's own."""
        self.handles = [self.unet.register_forward_pre_hook(self.denoiser, with_kwargs=True)]
        self.handles += [b.register_forward_pre_hook(self.block, with_kwargs=True) for b in self.unet.up_blocks]

    def denoiser(self, module: Any, args: Any, kwargs: Any) -> None:
        self.latents.append(args[0].clone())
        self.prompts.append(kwargs["encoder_hidden_states"].clone())

    def block(self, module: Any, args: Any, kwargs: Any) -> None:
        self.skips.append([skip.clone() for skip in kwargs["res_hidden_states_tuple"]])

    def stop(self) -> None:
        for handle in self.handles:
            handle.remove()


def watched(bench: Any, chosen: Options, texts: list[str], steps: int = 6, guided: bool = True) -> tuple[Seen, list[Any]]:
    active, seen = bench.active(SafreeMethod, chosen), Seen(bench.pipeline)
    call = base.Call(len(texts), steps, guided, tuple(texts))
    positive, negative = bench.embeddings(texts), bench.embeddings([""] * len(texts))
    with SafreeMethod.applied(bench.pipeline, active.artifact, chosen, call) as guard:
        seen.watch()
        positive, negative = guard.prompts(positive, negative)
        bench.pipeline(
            prompt_embeds=positive, negative_prompt_embeds=negative, latents=random(0, len(texts), 4, 4, 4),
            num_inference_steps=steps, guidance_scale=6.0 if guided else 1.0, height=8, width=8, output_type="latent",
        )
        seen.stop()
        return seen, guard.trace()


@pytest.mark.parametrize(
    ("changes", "safe_steps"),
    [
        ({"m": 99.0, "steps": "absolute"}, 1),  # t' = 0: step 0 still has it
        ({"m": -99.0, "steps": "absolute"}, 6),  # t' = 10
        ({"m": -99.0}, 2),  # t' = round(10 * 6 / 50) = 1
        ({"self_validate": False, "m": 99.0}, 6),
    ],
)
@pytest.mark.parametrize("guided", [True, False])
def test_safe_embedding_until_the_last_safe_step(bench: Any, changes: dict[str, Any], safe_steps: int, guided: bool) -> None:
    chosen = options(reattend=False, **changes)
    seen, trace = watched(bench, chosen, ["ab box", "cd"], guided=guided)
    original, basis = bench.embeddings(["ab box", "cd"]), safree.span(concept_rows(bench))
    safe = torch.stack([
        safree.project(bench.pipeline, text, e, basis, chosen).safe for text, e in zip(["ab box", "cd"], original, strict=True)
    ])
    assert not torch.equal(safe, original)
    for step, prompt in enumerate(seen.prompts):
        assert torch.equal(prompt[-2:], safe if step < safe_steps else original)
        assert len(prompt) == 4 if guided else 2
        assert not guided or torch.equal(prompt[:2], bench.embeddings(["", ""]))
    assert [t["safe_steps"] for t in trace] == [t["redirected_steps"] for t in trace] == [safe_steps] * 2


def test_each_image_has_its_own_last_step(bench: Any) -> None:
    texts, basis = ["ab box", "cd"], safree.span(concept_rows(bench))
    betas = [safree.project(bench.pipeline, t, bench.embeddings([t])[0], basis, options()).beta for t in texts]
    middle = sum(betas) / 2
    _, trace = watched(bench, options(reattend=False, k=500.0, m=10 * middle, steps="absolute"), texts)
    assert [t["safe_steps"] for t in trace] == [6 if beta > middle else 1 for beta in betas]
    assert {t["safe_steps"] for t in trace} == {1, 6}


# --- latent re-attention -------------------------------------------------------------------------------------------------

ALL = torch.tensor([True, True])


@pytest.mark.parametrize(("size", "radius"), [((8, 8), 1), ((8, 8), 2), ((4, 4), 2), ((6, 10), 2), ((2, 2), 1), ((5, 7), 1)])
def test_filter_is_freeus_where_every_low_frequency_grew(size: tuple[int, int], radius: int) -> None:
    """Parity with diffusers' `fourier_filter`, whose window and inverse these are."""
    x = random(0, 2, 3, *size)
    got, hit, low = safree.attenuate(x, torch.zeros_like(x), 0.2, radius, ALL)
    assert torch.allclose(got, fourier_filter(x, radius, 0.2), atol=1e-5)
    assert hit.tolist() == [low, low] == [3 * (2 * radius) ** 2] * 2


def test_filter_scales_low_frequencies_that_grew_and_nothing_else() -> None:
    """The inverse's real part couples a frequency with its negative, so the window's reach is one on either side."""
    safe, original = random(0, 2, 3, 8, 8), random(1, 2, 3, 8, 8)
    got, hit, low = safree.attenuate(safe, original, 0.2, 1, ALL)
    f, g, after = (torch.fft.fft2(x) for x in (safe, original, got))
    near = torch.tensor([0, 1, 7])
    reach = torch.zeros(8, 8, dtype=torch.bool)
    reach[near[:, None], near] = True
    assert torch.allclose(after[..., ~reach], f[..., ~reach], atol=1e-4)
    zero_f, zero_g, zero = (x[..., 0, 0].real for x in (f, g, after))
    grew = zero_f.abs() > zero_g.abs()
    assert grew.any()
    assert not grew.all()
    assert torch.allclose(zero, torch.where(grew, 0.2 * zero_f, zero_f), atol=1e-4)
    window = (f.abs() > g.abs())[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    assert hit.tolist() == window.flatten(1).sum(1).tolist()
    assert low == 12


def test_filter_leaves_images_alone_where_it_does_not_act() -> None:
    x = random(0, 2, 3, 8, 8)
    got, hit, _ = safree.attenuate(x, torch.zeros_like(x), 0.2, 1, torch.tensor([False, True]))
    assert torch.equal(got[0], x[0])
    assert not torch.allclose(got[1], x[1], atol=1e-2)
    assert hit[0] == 0
    larger, hit, _ = safree.attenuate(x, 3 * x, 0.2, 1, ALL)
    assert torch.allclose(larger, x, atol=1e-5)
    assert hit.tolist() == [0, 0]


def test_filter_keeps_half_precision() -> None:
    x = random(0, 2, 3, 8, 8).bfloat16()
    assert safree.attenuate(x, torch.zeros_like(x), 0.2, 1, ALL)[0].dtype == torch.bfloat16


def test_released_scales_go_to_the_blocks_with_most_channels() -> None:
    """1.0-1.0-0.9-0.2 on Stable Diffusion's shape: 1280 twice, then 640; 320 is left alone."""
    sd = SimpleNamespace(up_blocks=list("abcd"), config=SimpleNamespace(block_out_channels=[320, 640, 1280, 1280]))
    assert safree.scaled_blocks(sd, options()) == [("a", 0.9), ("b", 0.9), ("c", 0.2)]
    small = SimpleNamespace(up_blocks=list("ab"), config=SimpleNamespace(block_out_channels=[96, 192]))
    assert safree.scaled_blocks(small, options(s1=0.5, s2=0.4)) == [("a", 0.5), ("b", 0.4)]


def test_released_constants() -> None:
    chosen = options()
    assert (chosen.alpha, chosen.m, chosen.k, chosen.s1, chosen.s2, chosen.mask_id) == (0.01, 5.333, 2.5, 0.9, 0.2, 0)
    assert (chosen.project, chosen.self_validate, chosen.reattend, chosen.negative) == (True, True, True, False)
    assert options("safree-official") == options(negative=True, reattend=False)
    assert options().beta_over == "text"
    assert options("safree+ci") == options(concept="inversion")


@pytest.mark.parametrize("preset", ["safree", "safree-official", "safree+ci"])
def test_artists_have_constants_of_their_own_on_stable_diffusion(preset: str) -> None:
    """`f_beta` of the released code: artists 5.5 and 3.5, everything else 5.333 and 2.5."""
    by_kind = {kind: options_of(preset, (), "sd", kind)[0] for kind in ("style", "object", "content")}
    assert {kind: (o.m, o.k) for kind, o in by_kind.items()} == {
        "style": (5.5, 3.5), "object": (5.333, 2.5), "content": (5.333, 2.5),
    }


@pytest.mark.parametrize("guided", [True, False])
def test_only_the_safe_branch_is_filtered(bench: Any, guided: bool) -> None:
    """Of the batch [negative; safe; original]. With scale 1 the filter leaves everything as it was."""
    texts = ["ab box", "cd"]
    seen, trace = watched(bench, options(self_validate=False), texts, 1, guided)
    same, _ = watched(bench, options(self_validate=False, s1=1.0, s2=1.0), texts, 1, guided)
    prompt, latents = seen.prompts[0], seen.latents[0]
    assert len(prompt) == len(latents) == (6 if guided else 4)
    assert torch.equal(prompt[-2:], bench.embeddings(texts))
    assert torch.equal(latents[-2:], latents[-4:-2])
    first, before = seen.skips[0], same.skips[0]  # the first up block's: what it gets does not depend on another filter
    for skip, unfiltered in zip(first, before, strict=True):
        assert torch.equal(skip[:-4], unfiltered[:-4])
        assert torch.equal(skip[-2:], unfiltered[-2:])
        assert (skip[-4:-2] - unfiltered[-4:-2]).abs().max() > 1e-3
    assert all(0 < t["reattended"] < 1 for t in trace)


def test_reattention_changes_pixels_and_scale_one_does_not(bench: Any) -> None:
    off, _ = draw(bench, options(self_validate=False, reattend=False))
    on, trace = draw(bench, options(self_validate=False, s1=0.5))
    idle, _ = draw(bench, options(self_validate=False, s1=1.0, s2=1.0))
    assert np.abs(on.astype(int) - off).max() > 1
    assert np.abs(idle.astype(int) - off).max() <= 1
    assert all(t["reattended"] > 0 for t in trace)


def test_reattention_needs_up_blocks(bench: Any) -> None:
    pipeline = copy.copy(bench.pipeline)
    pipeline.unet = torch.nn.Linear(1, 1)
    active, call = bench.active(SafreeMethod, options()), base.Call(1, 4, True, ("ab",))
    with pytest.raises(CellError, match="needs a U-Net with up blocks") as error:
        SafreeMethod.applied(pipeline, active.artifact, options(), call).__enter__()
    assert "safree.reattend=false" in error.value.hint
    assert not pipeline.unet._forward_pre_hooks
    with SafreeMethod.applied(pipeline, active.artifact, options(reattend=False), call):
        pass


def test_other_tensors_are_refused_with_reattention(bench: Any) -> None:
    active, call = bench.active(SafreeMethod, options()), base.Call(1, 4, True, ("ab",))
    e = bench.embeddings(["ab", "ab"])
    for chosen in (options(), options(reattend=False)):
        guard = safree.Guard(bench.pipeline, active.artifact.payload, chosen, call)
        guard.prompts(e[:1], e[1:])
        known = (torch.zeros(2, 4, 4, 4), torch.tensor(7), e)
        if not chosen.reattend:
            assert guard.before(None, known, {"down_block_additional_residuals": (e,)})[0][0].shape[0] == 2
            continue
        with pytest.raises(CellError, match="down_block_additional_residuals"):
            guard.before(None, known, {"down_block_additional_residuals": (e,)})


# --- the parts together --------------------------------------------------------------------------------------------------


def test_parts_switched_off(bench: Any) -> None:
    plain, _ = bench.draw(PLAIN, TEXTS)
    nothing, trace = draw(bench, options(project=False, reattend=False))
    assert np.array_equal(nothing, plain)
    assert trace == [{"trigger_tokens": 0, "beta": 0.0, "safe_steps": 0, "redirected_steps": 0, "reattended": 0.0}] * 4
    unprojected, trace = draw(bench, options(project=False))
    assert np.abs(unprojected.astype(int) - plain).max() <= 1
    assert [t["reattended"] for t in trace] == [0.0] * 4
    short, some = draw(bench, options(reattend=False, m=99.0))
    whole, every = draw(bench, options(reattend=False, m=99.0, self_validate=False))
    assert [t["safe_steps"] for t in some] == [1] * 4
    assert [t["safe_steps"] for t in every] == [4] * 4
    assert not np.array_equal(short, whole)
    assert not np.array_equal(short, plain)


def test_prompts_without_a_trigger_are_left_alone(bench: Any) -> None:
    """And count as not redirected; the safe steps are what their prompt would call for."""
    plain, _ = bench.draw(PLAIN, TEXTS)
    pixels, trace = draw(bench, options(alpha=50.0, self_validate=False, reattend=False))
    assert np.array_equal(pixels, plain)
    assert [(t["trigger_tokens"], t["safe_steps"], t["redirected_steps"]) for t in trace] == [(0, 4, 0)] * 4
    attended, trace = draw(bench, options(alpha=50.0, self_validate=False, s1=0.0, s2=0.0))
    assert np.abs(attended.astype(int) - plain).max() <= 1
    assert [t["reattended"] for t in trace] == [0.0] * 4


def test_official_preset_adds_the_phrases_as_negative_prompt(bench: Any) -> None:
    official = bench.active(SafreeMethod, options("safree-official", project=False, reattend=False))
    expected, _ = bench.draw(PLAIN, TEXTS, negative="a box, bin, a jar")
    assert np.array_equal(bench.draw(official, TEXTS)[0], expected)
    assert not np.array_equal(expected, bench.draw(PLAIN, TEXTS)[0])
    ours = bench.active(SafreeMethod, options(project=False, reattend=False))
    assert np.array_equal(bench.draw(ours, TEXTS)[0], bench.draw(PLAIN, TEXTS)[0])
    with pytest.raises(CellError, match="acts through guidance"):
        bench.draw(official, TEXTS, guidance=1.0)


def test_the_card_lists_what_spans_the_subspace_and_what_is_the_negative_prompt(bench: Any) -> None:
    words = bench.concept.families["tiny"].model_copy(update={"descriptions": ("square",)})
    told = bench.concept.model_copy(update={"families": {"tiny": words}})
    for preset, negative in (("safree", {}), ("safree-official", {"negative": ["a box", "bin", "a jar"]})):
        artifact = SafreeMethod.prepare(bench.info(), told, options(preset))
        assert artifact.card == {"phrases": ["a box", "bin", "a jar", "square"]} | negative
        assert len(artifact.payload["concept"]) == 4


def test_trace(bench: Any) -> None:
    _, trace = draw(bench, options())
    assert json.loads(json.dumps(trace, allow_nan=False)) == trace
    assert {tuple(t) for t in trace} == {("trigger_tokens", "beta", "safe_steps", "redirected_steps", "reattended")}
    assert len({t["beta"] for t in trace}) == 4


def test_texts_must_be_known(bench: Any) -> None:
    active = bench.active(SafreeMethod, options())
    with SafreeMethod.applied(bench.pipeline, active.artifact, options(), base.Call(2, 4, True)) as guard:
        with pytest.raises(CellError, match="0 texts for 2 prompts"):
            guard.prompts(bench.embeddings(["ab", "cd"]), bench.embeddings(["", ""]))
        with pytest.raises(CellError, match="were not made"):
            bench.pipeline("ab", num_inference_steps=1, height=8, width=8, output_type="latent")


def test_another_width_is_refused(bench: Any) -> None:
    wide = bench.embeddings(["ab"]).repeat(1, 1, 2)
    guard = safree.Guard(bench.pipeline, {"concept": concept_rows(bench)}, options(), base.Call(1, 4, True, ("ab",)))
    with pytest.raises(CellError, match="one width"):
        guard.prompts(wide, wide)


# --- the concept ---------------------------------------------------------------------------------------------------------


def test_concept_is_spanned_by_its_phrases_pooled(bench: Any) -> None:
    for chosen, said in ((options(), ["a box", "bin", "a jar"]), (options(text="cup, a mug ,"), ["cup", "a mug"])):
        e = bench.embeddings(said)
        ends = [len(bench.pipeline.tokenizer(text).input_ids) - 1 for text in said]
        expected = torch.stack([e[i, end] for i, end in enumerate(ends)])
        assert torch.allclose(concept_rows(bench, chosen), expected, atol=1e-5)
    with pytest.raises(ValidationError):
        options(text=" , ")


def test_artifact_is_identified_by_what_it_was_made_from(bench: Any) -> None:
    """Not by its bytes: another machine has other last bits, and must find the same images."""
    made = [bench.active(SafreeMethod, chosen).artifact for chosen in (options(), options(negative=True), options(text="cup"))]
    assert made[0].sha256 == made[1].sha256 != made[2].sha256
    assert [m.parameters for m in made[:2]] == [3 * WIDTH, (3 + TOKENS) * WIDTH]
    elsewhere = SafreeMethod.prepare(bench.info(checkpoint_sha="another"), bench.concept, options())
    assert elsewhere.sha256 != made[0].sha256


def test_inversion_spans_the_concept(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = random(5, 1, WIDTH)
    monkeypatch.setattr("srbench.methods.inversion.load", lambda *_: Inversion(vector, "sha", 12.5))
    artifact = bench.active(SafreeMethod, options("safree+ci")).artifact
    assert set(artifact.payload) == {"concept"}
    assert torch.equal(artifact.payload["concept"], vector)
    assert artifact.prepare_seconds == 12.5
    e, chosen = bench.embeddings(["ab box"])[0], options("safree+ci", alpha=0.0)
    got = safree.project(bench.pipeline, "ab box", e, safree.span(vector), chosen)
    safe, hit, _ = by_hand(bench, "ab box", vector.double().numpy(), 0.0)
    assert got.triggers == sum(hit) > 0
    assert np.allclose(got.safe.numpy(), safe, atol=1e-4)
    with pytest.raises(UsageError, match="no text for a negative prompt"):
        bench.active(SafreeMethod, options("safree+ci", negative=True))


def test_what_can_not_be_prepared_is_refused(bench: Any) -> None:
    with pytest.raises(UsageError, match="end of the text"):
        bench.active(SafreeMethod, options(mask_id=1))
    with pytest.raises(UsageError, match="names minors"):
        bench.active(SafreeMethod, options(text="a young oak"))
    blind = SimpleNamespace(tokenizer=bench.pipeline.tokenizer, text_encoder=torch.nn.Embedding(80, 16), device="cpu")
    with pytest.raises(CellError, match="pooled embedding"):
        SafreeMethod.prepare(bench.info(pipeline=blind), bench.concept, options())
