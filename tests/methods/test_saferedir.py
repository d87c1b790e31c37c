"""SafeRedir on a tiny Stable Diffusion pipeline: what the hook does, what it leaves behind, loading, and training."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from pydantic import ValidationError
from safetensors.torch import save_file

from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.errors import CellError, MissingError, UsageError
from srbench.methods import base
from srbench.methods.saferedir import CARD, METHOD, WEIGHTS, Options, Redirect, SafeRedirMethod
from srbench.methods.saferedir.module import SafeRedir, Sizes, shift
from srbench.methods.saferedir.tokens import align
from srbench.methods.saferedir.train import Settings, fit_tau, share, train
from srbench.testing.tiny import WIDTH, tiny_pipeline

TOKENS, STEPS = 12, 4
PRESETS = ("saferedir", "saferedir-upstream")
CONCEPT = ConceptSpec(
    name="box", title="boxes", kind="object", sensitive=False,
    families={"tiny": ConceptWords(names=("a box",), words=("box",), protocol="none")},
)
SIZES = Sizes(
    prompt_width=WIDTH, tokens=TOKENS, latent_channels=4, latent_widths=(4, 8), latent_feature=6, timestep_width=8,
    timestep_feature=4, token_hidden=16, rank=4, classifier_hidden=8, alpha_hidden=8, mask_hidden=8, heads=2, token_delta=True,
)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return tiny_pipeline(TOKENS)


def network(verdict: float | None = None, mask: float | None = None) -> SafeRedir:
    """A random redirector. `verdict` fixes the detector (positive: unsafe), `mask` the mask's logit."""
    torch.manual_seed(1)
    module = SafeRedir(SIZES).eval().requires_grad_(False)
    if verdict is not None:
        module.classifier[3].weight.zero_()
        module.classifier[3].bias.copy_(torch.tensor([0.0, verdict]))
    if mask is not None:
        module.mask_predictor.predictor[3].weight.zero_()
        module.mask_predictor.predictor[3].bias.fill_(mask)
    return module


def artifact(module: SafeRedir) -> base.Artifact:
    return base.Artifact(module, "sha")


def options(preset: str = "saferedir", **changes: Any) -> Options:
    return Options(**(METHOD["presets"][preset] | changes))


def noise(seeds: Sequence[int]) -> torch.Tensor:
    return torch.stack([torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(s)) for s in seeds])


def draw(
    pipeline: Any, prompts: Sequence[str], module: SafeRedir | None, chosen: Options | None = None, guidance: float = 7.0
) -> tuple[np.ndarray, Redirect | None]:
    """Images of `prompts` (the seed is the prompt's length), padded to two, and the method that was active."""
    padded = [*prompts, prompts[-1]][:2]
    kwargs: dict[str, Any] = {
        "prompt": padded, "latents": noise([len(p) for p in padded]), "num_inference_steps": STEPS, "guidance_scale": guidance,
        "height": 8, "width": 8, "output_type": "np",
    }
    if module is None:
        return pipeline(**kwargs).images, None
    call = base.Call(images=len(padded), steps=STEPS, guided=guidance > 1)
    with SafeRedirMethod.applied(pipeline, artifact(module), chosen or options(), call) as active:
        return pipeline(**kwargs).images, active


class Recorder:
    """Keeps the prompt embedding of every denoiser call, as it is after all other hooks."""

    def __init__(self) -> None:
        self.prompts: list[torch.Tensor] = []

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.prompts.append(kwargs["encoder_hidden_states"].clone())


def recorded(pipeline: Any, module: SafeRedir, chosen: Options, guidance: float = 7.0) -> list[torch.Tensor]:
    """The prompt embedding that each denoiser call really got, (2B, T, D) or (B, T, D)."""
    seen, call = Recorder(), base.Call(images=2, steps=STEPS, guided=guidance > 1)
    with SafeRedirMethod.applied(pipeline, artifact(module), chosen, call):
        handle = pipeline.unet.register_forward_pre_hook(seen, with_kwargs=True)
        pipeline(
            ["ab", "cd"], latents=noise([1, 2]), num_inference_steps=STEPS, guidance_scale=guidance, height=8, width=8,
            output_type="latent",
        )
        handle.remove()
    return seen.prompts


def original(pipeline: Any, guidance: float = 7.0) -> torch.Tensor:
    positive, negative = pipeline.encode_prompt(["ab", "cd"], "cpu", 1, guidance > 1)
    return torch.cat([negative, positive]) if guidance > 1 else positive


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("guidance", [1.0, 7.0])
def test_changes_the_image_and_leaves_nothing(pipeline: Any, preset: str, guidance: float) -> None:
    before, _ = draw(pipeline, ["ab", "cd"], None, guidance=guidance)
    changed, active = draw(pipeline, ["ab", "cd"], network(verdict=5.0), options(preset), guidance)
    after, _ = draw(pipeline, ["ab", "cd"], None, guidance=guidance)
    assert np.array_equal(before, after)
    assert np.abs(changed - before).max() > 1e-3
    assert active is not None
    assert active.hooked
    assert active.calls == STEPS
    assert not pipeline.unet._forward_pre_hooks


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("guidance", [1.0, 7.0])
def test_safe_verdict_changes_nothing(pipeline: Any, preset: str, guidance: float) -> None:
    plain, _ = draw(pipeline, ["ab", "cd"], None, guidance=guidance)
    same, active = draw(pipeline, ["ab", "cd"], network(verdict=-5.0), options(preset), guidance)
    assert np.array_equal(plain, same)
    assert [t["redirected_steps"] for t in active.trace()] == [0, 0]  # type: ignore[union-attr]


@pytest.mark.parametrize("preset", PRESETS)
def test_no_state_survives(pipeline: Any, preset: str) -> None:
    """[A], [B, A], [A, A] give the same A at one padded batch shape; the detector is a real, undecided one."""
    module = network()
    module.classifier[3].bias.copy_(torch.tensor([0.0, 0.1]))
    a, b = "ab", "zyxw"
    chosen = options(preset)
    alone = draw(pipeline, [a], module, chosen)[0][0]
    for batch, place in (([b, a], 1), ([a, a], 0), ([a, a], 1), ([a, b], 0)):
        assert np.array_equal(draw(pipeline, batch, module, chosen)[0][place], alone)


def test_hook_is_removed_after_an_error(pipeline: Any) -> None:
    call = base.Call(images=1, steps=STEPS, guided=True)
    with pytest.raises(KeyboardInterrupt), SafeRedirMethod.applied(pipeline, artifact(network()), options(), call):
        raise KeyboardInterrupt
    assert not pipeline.unet._forward_pre_hooks


def test_paper_acts_in_the_same_call_on_the_conditional_half(pipeline: Any) -> None:
    e0 = original(pipeline)
    for prompt in recorded(pipeline, network(verdict=5.0), options()):
        assert torch.equal(prompt[:2], e0[:2])
        assert (prompt[2:] - e0[2:]).abs().max() > 1e-2


def test_upstream_acts_from_the_next_call_on_both_halves(pipeline: Any) -> None:
    e0 = original(pipeline)
    first, *later = recorded(pipeline, network(verdict=5.0), options("saferedir-upstream"))
    assert torch.equal(first, e0)
    for prompt in later:
        assert (prompt[:2] - e0[:2]).abs().max() > 1e-2
        assert (prompt[2:] - e0[2:]).abs().max() > 1e-2


def test_paper_shift_is_the_formula(pipeline: Any) -> None:
    module, e0 = network(verdict=5.0), original(pipeline, 1.0)
    got = recorded(pipeline, module, options(alpha_scale=1.5), guidance=1.0)[0]
    pipeline.scheduler.set_timesteps(STEPS)
    _, delta, mask, alpha = module(noise([1, 2]), e0, pipeline.scheduler.timesteps[:1].float().expand(2))
    assert torch.allclose(got, e0 + shift(e0, delta, mask, alpha, 1.5), atol=1e-5)


def test_closed_mask_acts_in_paper_and_cancels_upstream(pipeline: Any) -> None:
    module, e0 = network(verdict=5.0, mask=-12.0), original(pipeline)
    assert all(torch.allclose(p, e0, atol=1e-4) for p in recorded(pipeline, module, options()))
    assert (recorded(pipeline, module, options("saferedir-upstream"))[1] - e0).abs().max() > 1e-2
    assert (recorded(pipeline, module, options(use_mask=False))[0] - e0).abs().max() > 1e-2


def test_scale_zero_and_fixed_alpha(pipeline: Any) -> None:
    module, e0 = network(verdict=5.0), original(pipeline, 1.0)
    assert torch.equal(recorded(pipeline, module, options(alpha_scale=0), 1.0)[0], e0)
    got = recorded(pipeline, module, options(alpha=0.5, use_mask=False, alpha_scale=1.0), 1.0)[0]
    assert torch.allclose((got - e0).norm(dim=-1), 0.5 * e0.norm(dim=-1), rtol=1e-4)


class Verdicts(torch.nn.Module):
    """Says unsafe at the given reads, and shifts by the number of the read."""

    def __init__(self, unsafe: Sequence[int]) -> None:
        super().__init__()
        self.sizes, self.unsafe, self.reads, self.seen = SIZES, unsafe, 0, []

    def about(self, prompt: torch.Tensor) -> torch.Tensor:
        """The prompt itself, so that `seen` shows what was read."""
        return prompt

    def forward(self, latent: Any, prompt: torch.Tensor, t: Any) -> tuple[torch.Tensor, ...]:
        verdict = 9.0 if self.reads in self.unsafe else -9.0
        self.reads += 1
        self.seen.append((latent, prompt, t))
        b, tokens, _ = prompt.shape
        delta = torch.ones_like(prompt) * (1 if self.reads % 2 else -1)
        return torch.tensor([[0.0, verdict]]).expand(b, 2), delta, torch.ones(b, tokens), torch.ones(b, tokens)


@pytest.mark.parametrize(
    ("preset", "changes", "unsafe", "acted"),
    [
        ("saferedir", {}, [0, 2], [1, 0, 1, 0]),
        ("saferedir", {"cooldown": 1}, [0], [1, 1, 0, 0]),
        ("saferedir", {"cooldown": 2}, [0, 3], [1, 1, 1, 1]),
        ("saferedir-upstream", {}, [0], [0, 1, 1, 1]),
        ("saferedir-upstream", {}, [2], [0, 0, 0, 1]),
    ],
)
def test_when_it_acts(
    pipeline: Any, preset: str, changes: dict[str, Any], unsafe: list[int], acted: list[int]
) -> None:
    e0 = original(pipeline)
    prompts = recorded(pipeline, Verdicts(unsafe), options(preset, **changes))  # type: ignore[arg-type]
    assert [int(not torch.equal(p, e0)) for p in prompts] == acted


def test_cooldown_holds_one_redirect_and_upstream_waits_two_calls(pipeline: Any) -> None:
    always = range(STEPS)
    held = recorded(pipeline, Verdicts(always), options(cooldown=1))  # type: ignore[arg-type]
    assert torch.equal(held[0], held[1])
    assert torch.equal(held[2], held[3])
    upstream = recorded(pipeline, Verdicts(always), options("saferedir-upstream"))  # type: ignore[arg-type]
    assert torch.equal(upstream[1], upstream[2])
    assert torch.equal(upstream[2], upstream[3])


def test_what_the_detector_reads(pipeline: Any) -> None:
    e0 = original(pipeline)
    paper, upstream = Verdicts([0]), Verdicts([0])
    recorded(pipeline, paper, options())  # type: ignore[arg-type]
    used = recorded(pipeline, upstream, options("saferedir-upstream"))  # type: ignore[arg-type]
    assert all(torch.equal(prompt, e0[2:]) for _, prompt, _ in paper.seen)
    assert all(torch.equal(prompt, whole[2:]) for (_, prompt, _), whole in zip(upstream.seen, used, strict=True))
    assert torch.equal(paper.seen[0][0], noise([1, 2]))
    assert [float(t[0]) for _, _, t in paper.seen] == pipeline.scheduler.timesteps.tolist()


def test_detector_inputs_can_be_left_out(pipeline: Any) -> None:
    reader = Verdicts([])
    recorded(pipeline, reader, options(detector="text"))  # type: ignore[arg-type]
    assert reader.seen[0][0] is None
    assert reader.seen[0][2] is None
    reader = Verdicts([])
    recorded(pipeline, reader, options(detector="text+latent"))  # type: ignore[arg-type]
    assert reader.seen[0][0] is not None
    assert reader.seen[0][2] is None


def test_euler_scaling_is_undone() -> None:
    pipeline = tiny_pipeline(TOKENS)
    pipeline.scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear")
    plain: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, t: Any, state: dict[str, Any]) -> dict[str, Any]:
        plain.append(state["latents"].clone())
        return state

    reader, call = Verdicts([]), base.Call(images=1, steps=STEPS, guided=True)
    with SafeRedirMethod.applied(pipeline, artifact(reader), options(), call):  # type: ignore[arg-type]
        pipeline("ab", num_inference_steps=STEPS, height=8, width=8, output_type="latent", callback_on_step_end=keep)
    for (latent, _, _), x in zip(reader.seen[1:], plain[:-1], strict=True):
        assert torch.allclose(latent, x, rtol=1e-4, atol=1e-5)


def test_prompt_may_be_positional(pipeline: Any) -> None:
    e0, call = original(pipeline), base.Call(images=2, steps=1, guided=True)
    active = Redirect(pipeline, network(verdict=5.0), options(), call)
    pipeline.scheduler.set_timesteps(STEPS)
    x, t = torch.cat([noise([1, 2])] * 2), pipeline.scheduler.timesteps[0]
    args, kwargs = active(None, (x, t, e0, "more"), {})
    assert args[3] == "more"
    assert not kwargs
    assert not torch.equal(args[2], e0)


def test_another_batch_layout_is_refused(pipeline: Any) -> None:
    active = Redirect(pipeline, network(), options(), base.Call(images=2, steps=1, guided=True))
    three = torch.zeros(6, 4, 4, 4)
    with pytest.raises(CellError, match="batch of 4, not 6"):
        active(None, (three, torch.tensor(1), torch.zeros(6, TOKENS, WIDTH)), {})


def test_trace(pipeline: Any) -> None:
    _, active = draw(pipeline, ["ab", "cd"], network(verdict=5.0))
    first, second = active.trace()  # type: ignore[union-attr]
    assert json.loads(json.dumps(first)) == first
    assert first["unsafe"] == [pytest.approx(0.9933, abs=1e-4)] * STEPS
    assert first["redirected_steps"] == STEPS
    assert len(first["mask"]) == len(first["alpha"]) == TOKENS
    assert first["mask"] != second["mask"]
    _, active = draw(pipeline, ["ab", "cd"], network(verdict=-5.0))
    assert active.trace()[0]["mask"] == []  # type: ignore[union-attr]


def test_options() -> None:
    assert options() == Options()
    assert options("saferedir-upstream").cooldown == 2
    assert "redirector" not in options(redirector="somewhere").model_dump()
    for wrong in ({"cooldown": -1}, {"alpha_scale": float("nan")}, {"mode": "x"}, {"scale": 1}):
        with pytest.raises(ValidationError):
            Options(**wrong)  # type: ignore[arg-type]


# --- loading -------------------------------------------------------------------------------------------------------------


def info(pipeline: Any = None, redirectors: Path | None = None) -> base.BackboneInfo:
    return base.BackboneInfo("tiny", "tiny", "backbone-sha", pipeline, redirectors)


def store(folder: Path, **changes: Any) -> Path:
    """A redirector on disk, with a card."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in network().half().state_dict().items()}, folder / WEIGHTS)
    card = {"backbone_sha256": "backbone-sha", "concepts": ["box"], "sizes": SIZES.model_dump(mode="json")} | changes
    (folder / CARD).write_text(json.dumps(card))
    return folder


def test_shipped_redirector_is_found_and_identified(tmp_path: Path) -> None:
    store(tmp_path / "box")
    got = SafeRedirMethod.prepare(info(redirectors=tmp_path), CONCEPT, Options())
    assert got.parameters == sum(p.numel() for p in network().parameters())
    assert got.card["concepts"] == ["box"]
    assert next(got.payload.parameters()).dtype == torch.float32
    given = SafeRedirMethod.prepare(info(), CONCEPT, Options(redirector=str(tmp_path / "box" / WEIGHTS)))
    assert given.sha256 == got.sha256
    store(tmp_path / "other", sizes=SIZES.model_copy(update={"token_delta": False}).model_dump(mode="json"))
    assert SafeRedirMethod.prepare(info(), CONCEPT, Options(redirector=str(tmp_path / "other"))).sha256 != got.sha256


@pytest.mark.parametrize("redirectors", [True, False])
def test_missing_redirector_names_the_command(tmp_path: Path, redirectors: bool) -> None:
    with pytest.raises(MissingError) as error:
        SafeRedirMethod.prepare(info(redirectors=tmp_path if redirectors else None), CONCEPT, Options())
    assert error.value.hint == "srbench train saferedir --backbone tiny --concept box --pairs pairs/box.csv"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone_sha256": "another"}, "belongs to another backbone"),
        ({"concepts": ["tree", "bush"]}, "was trained for tree, bush"),
        ({"sizes": {"prompt_width": 24}}, "do not fit"),
        ({"sizes": {"breadth": 24}}, "do not fit"),
    ],
)
def test_foreign_redirector_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = store(tmp_path, **changes)
    with pytest.raises(UsageError, match=message) as error:
        SafeRedirMethod.prepare(info(), CONCEPT, Options(redirector=str(folder)))
    assert error.value.hint
    assert "\n" not in error.value.message


def test_broken_files_are_refused(tmp_path: Path) -> None:
    folder = store(tmp_path)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100])
    with pytest.raises(UsageError, match="not a file of weights"):
        SafeRedirMethod.prepare(info(), CONCEPT, Options(redirector=str(folder)))
    (folder / CARD).write_text("{")
    with pytest.raises(UsageError, match="card"):
        SafeRedirMethod.prepare(info(), CONCEPT, Options(redirector=str(folder)))
    (folder / CARD).unlink()
    with pytest.raises(UsageError, match="card"):
        SafeRedirMethod.prepare(info(), CONCEPT, Options(redirector=str(folder)))


class Malicious:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickle_is_never_executed(tmp_path: Path, zipped: bool) -> None:
    bait, path = tmp_path / "executed", tmp_path / "redirector.pt"
    if zipped:
        torch.save({"x": Malicious(bait)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(bait)))
    with pytest.raises(UsageError, match="was not opened") as error:
        SafeRedirMethod.prepare(info(), CONCEPT, Options(redirector=str(path)))
    assert "\n" not in error.value.message
    assert not bait.exists()


def test_released_checkpoint_form_loads_without_card_but_not_on_a_foreign_width(tmp_path: Path, pipeline: Any) -> None:
    path = tmp_path / "best_model.pt"
    torch.save(SafeRedir().state_dict(), path)
    got = SafeRedirMethod.prepare(info(), CONCEPT, Options(redirector=str(path)))
    assert got.parameters == 14_573_574
    assert got.payload.sizes.token_delta is False
    call = base.Call(images=1, steps=1, guided=True)
    with pytest.raises(UsageError, match="768-wide"), SafeRedirMethod.applied(pipeline, got, Options(), call):
        pass


# --- training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unsafe", "safe", "partners"),
    [
        # start, a, b | c d | e, end, padding against start, a, b | e, end, padding: c and d go to b
        ([0, 2, 3, 4, 5, 6, 1, 1, 1], [0, 2, 3, 6, 1, 1, 1, 1, 1], [0, 1, 2, 2, 2, 3, 4, 5, 6]),
        # start, a | b c d | e against start, a | x y | e: b to x, c and d to y
        ([0, 2, 3, 4, 5, 6, 1, 1, 1], [0, 2, 8, 9, 6, 1, 1, 1, 1], [0, 1, 2, 3, 3, 4, 5, 6, 7]),
        # a longer safe side
        ([0, 3, 6, 1, 1, 1], [0, 7, 8, 6, 1, 1], [0, 1, 3, 4, 5, 5]),
        # nothing before the concept but the start token
        ([0, 4, 6, 1, 1], [0, 6, 1, 1, 1], [0, 0, 1, 2, 3]),
        ([0, 4, 1, 1], [0, 4, 1, 1], [0, 1, 2, 3]),
        ([0, 5, 1, 1], [0, 1, 1, 1], [0, 0, 1, 2]),
    ],
)
def test_align(unsafe: list[int], safe: list[int], partners: list[int]) -> None:
    assert align(unsafe, safe, end=1) == partners


def write_pairs(path: Path) -> Path:
    rest = [a + b for a in "klmno" for b in "pqrst"]
    lines = [json.dumps({"unsafe": f"{word} {r}", "safe": r}) for r in rest for word in ("box", "bo")]
    path.write_text("\n".join(lines))
    return path


QUICK = Settings(
    steps=STEPS, guidance=7.0, height=8, width=8, trajectories=4, held_trajectories=3, train_steps=60, batch=12,
    evaluate_every=20, learning_rate=1e-2, sampling_batch=4,
)


def test_training_learns_and_its_redirector_runs(tmp_path: Path, pipeline: Any) -> None:
    settings = QUICK.model_copy(update={"pairs_file": write_pairs(tmp_path / "pairs.jsonl")})
    said: list[tuple[str, int, int, str]] = []
    card = train(info(pipeline), [CONCEPT], settings, tmp_path / "out", lambda *a: said.append(a))
    assert json.loads((tmp_path / "out" / CARD).read_text()) == card
    held = card["held_out"]
    assert held["cos_real"] > held["cos_before_real"]
    assert held["recall"] > 0.9
    assert held["false_positives"] < 0.1
    assert card["token_delta"] is True
    assert card["backbone_sha256"] == "backbone-sha"
    assert card["concepts"] == ["box"]
    assert 0 < card["marked_share"] <= 0.5
    assert share(torch.zeros(0)) == 0, "prompts that fill all tokens have no padding, and a card holds no NaN"
    assert set(card["detector_accuracy"]) == {"text", "text+latent", "text+latent+t", "latent+t"}
    assert {phase for phase, *_ in said} == {"trajectories", "training"}
    got = SafeRedirMethod.prepare(info(pipeline), CONCEPT, Options(redirector=str(tmp_path / "out")))
    _, active = draw(pipeline, ["box kp", "kp"], got.payload)
    unsafe, safe = active.trace()  # type: ignore[union-attr]
    assert unsafe["redirected_steps"] > safe["redirected_steps"]


def test_training_repeats_itself_and_screens_sentences(tmp_path: Path, pipeline: Any) -> None:
    settings = QUICK.model_copy(update={"pairs_file": write_pairs(tmp_path / "pairs.jsonl"), "train_steps": 4})
    cards = [
        train(info(pipeline), [CONCEPT], settings, tmp_path / name, allowed=lambda text: "kp" not in text) for name in ("a", "b")
    ]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"]
    assert cards[0]["excluded"] == 3
    whole = train(info(pipeline), [CONCEPT], settings, tmp_path / "c")
    assert whole["excluded"] == 0
    assert whole["pairs_sha256"] != cards[0]["pairs_sha256"]


def test_other_backbones_need_a_pairs_file(tmp_path: Path, pipeline: Any) -> None:
    with pytest.raises(UsageError, match="needs a pairs file"):
        train(info(pipeline), [CONCEPT], QUICK, tmp_path)
    assert not (tmp_path / WEIGHTS).exists()


def test_tau_marks_at_most_half(pipeline: Any) -> None:
    from srbench.methods.saferedir.pairs import Pair
    from srbench.methods.saferedir.train import encode_pairs

    dev = encode_pairs(pipeline, [Pair(unsafe=f"ab box {c}", safe=f"ab {c}") for c in "cdefgh"])
    tau = fit_tau(dev)
    assert 0.05 <= float((dev.distance()[dev.real] > tau).float().mean()) <= 0.5
    assert fit_tau(replace(dev, safe=dev.unsafe)) == 0.05


@pytest.mark.parametrize("text", [
    b"[]", b"null", b"{", b"\xff", b'{"seconds": "x"}', b'{"concepts": "church"}', b"[" * 99_999, b'{"sizes": []}',
])  # fmt: skip
def test_a_card_of_any_content_is_one_line(text: bytes, tmp_path: Path) -> None:
    from srbench.methods.saferedir import CARD, _read_card

    (tmp_path / CARD).write_bytes(text)
    with pytest.raises(UsageError, match="not a redirector's card") as caught:
        _read_card(tmp_path / "weights.safetensors")
    assert caught.value.line.isprintable()
