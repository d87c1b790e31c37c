"""A redirector trained on every family of pipelines, and run there: dims follow the backbone, and the battery's promises hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import T5Config, T5EncoderModel

from srbench.backbones.pipelines import Conditioning, prompt_width
from srbench.catalog.specs import ConceptSpec
from srbench.engine.sample import PromptCache
from srbench.errors import CellError, UsageError
from srbench.methods import base
from srbench.methods.base import Active
from srbench.methods.saferedir import CARD, METHOD, WEIGHTS, Options, SafeRedirMethod
from srbench.methods.saferedir.pairs import Pair
from srbench.methods.saferedir.partial import FOLDER
from srbench.methods.saferedir.tokens import partners, stretches
from srbench.methods.saferedir.train import Settings, encode_pairs, fit_tau, train
from srbench.methods.saferedir.trajectories import Sampling, encode, sample
from srbench.testing.families import LETTERS, MADE, SIDE_PX, t5_tokenizer, tiny
from tests.methods.test_families import STRENGTH, WORDS, Bench, difference

A, B, C, D = "ab box", "cd", "zyxw", "box ef"
TRUE = {"flux": 3.0}
"""Family -> the true guidance under which it has a negative side at all."""
QUICK = Settings(
    steps=3, guidance=5.0, height=SIDE_PX, width=SIDE_PX, trajectories=5, held_trajectories=3, train_steps=4, batch=12,
    evaluate_every=2, sampling_batch=2,
)


def pairs_file(folder: Path) -> Path:
    rest = [a + b for a in "klmno" for b in "pqrst"]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"unsafe": f"box {r}", "safe": r}) for r in rest))
    return path


def concept(family: str) -> ConceptSpec:
    return ConceptSpec(name="box", title="boxes", kind="object", sensitive=False, families={family: WORDS})


def info(family: str, pipeline: Any) -> base.BackboneInfo:
    return base.BackboneInfo(name="tiny", family=family, sha256="sha", pipeline=pipeline)


def settings(folder: Path, family: str, **changes: Any) -> Settings:
    return QUICK.model_copy(update={"pairs_file": pairs_file(folder), "true_guidance": TRUE.get(family, 1.0)} | changes)


class Trained(Bench):
    """A family's tiny pipeline with a redirector that was trained on it."""

    def active(self, preset: str) -> Active:
        if preset == "none":
            return super().active(preset)
        # After four steps the network knows next to nothing: at threshold 0 it redirects everything, by a strength that shows.
        strong = {"threshold": 0, "alpha": 1.0, "use_mask": False, "alpha_scale": STRENGTH[self.family]}
        options = Options(redirector=str(self.redirector), **{**METHOD["presets"][preset], **strong})
        return Active(SafeRedirMethod, SafeRedirMethod.prepare(info(self.family, None), concept(self.family), options), options)


@pytest.fixture(scope="module", params=sorted(MADE))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    pipeline = tiny(family)
    train(info(family, pipeline), [concept(family)], settings(folder, family), folder / "out")
    return Trained(family, pipeline, PromptCache(pipeline), folder / "out")


def test_dims_follow_the_backbone(trained: Trained) -> None:
    card = json.loads((trained.redirector / CARD).read_text())
    embeds = trained.prompts.encode([A], None).embeds
    assert card["sizes"]["prompt_width"] == embeds.shape[2] == prompt_width(trained.pipeline)
    assert card["sizes"]["tokens"] == embeds.shape[1]
    assert card["sizes"]["latent_channels"] == 4
    assert card["tau"] == 0.2 if trained.family == "sd" else card["tau"] >= 0.05
    assert 0 < card["marked_share"] < 1
    assert all(np.isfinite(value) for value in card["held_out"].values())
    assert not (trained.redirector / FOLDER).exists()


@pytest.mark.parametrize("preset", ["saferedir", "saferedir-upstream"])
def test_it_runs_where_it_was_trained(trained: Trained, preset: str) -> None:
    before, _ = trained.draw(trained.active("none"), [A, B])
    active = trained.active(preset)
    changed, traces = trained.draw(active, [A, B])
    after, _ = trained.draw(trained.active("none"), [A, B])
    assert np.array_equal(before, after)
    assert difference(changed, before) > 1
    assert all(len(trace["unsafe"]) == 3 and trace["redirected_steps"] for trace in traces)


def test_company_and_state_change_no_bit(trained: Trained) -> None:
    active = trained.active("saferedir")
    whole, said = trained.draw(active, [A, B, C, D])
    turned, again = trained.draw(active, [D, C, B, A])
    assert np.array_equal(turned, whole[::-1])
    assert again == said[::-1]
    assert np.array_equal(trained.draw(active, [A, A, A, A])[0][0], whole[0])
    for i, text in enumerate([A, B, C, D]):
        assert difference(trained.draw(active, [text])[0][0], whole[i]) <= 1


def test_a_redirector_of_another_length_is_refused(trained: Trained) -> None:
    active = trained.active("saferedir")
    module = active.artifact.payload  # type: ignore[union-attr]
    short = base.Artifact(type(module)(module.sizes, tokens=module.sizes.tokens - 1).eval(), "sha")
    with pytest.raises(CellError, match=f"prompts of {module.sizes.tokens - 1} tokens"):
        trained.draw(Active(SafeRedirMethod, short, active.options), [A])


# --- trajectories ----------------------------------------------------------------------------------------------------------


def drawn(pipeline: Any, family: str, first: Conditioning, second: torch.Tensor, at: Sequence[int], batch: int = 2) -> Any:
    how = Sampling(3, 5.0, TRUE.get(family, 1.0), SIDE_PX, SIDE_PX, batch)
    return sample(pipeline, first, second, torch.tensor(at), how, 7, lambda done: None)


def test_trajectories_are_the_pipelines_own(trained: Trained) -> None:
    """x_t as the sampler has it: each is the pipeline's latent after the call before, whatever the scheduler scales."""
    kind, kept = trained.prompts.kind, []

    def keep(pipe: Any, step: int, t: Any, state: dict[str, Any]) -> dict[str, Any]:
        kept.append(state["latents"].clone())
        return state

    texts = [A, B]
    first = encode(trained.pipeline, texts)
    found = drawn(trained.pipeline, trained.family, first, first.embeds, [9, 9])
    noise = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(7))
    assert found.x.shape == (2, 3, 4, 8, 8)
    if trained.family != "pixart":  # its pipeline has an older callback
        negative = encode(trained.pipeline, ["", ""], negative=True)
        more = {"true_cfg_scale": 3.0} if trained.family == "flux" else {}
        trained.pipeline(
            **kind.arguments(first, negative), latents=kind.latents(noise), num_inference_steps=3, guidance_scale=5.0,
            height=SIDE_PX, width=SIDE_PX, output_type="latent", callback_on_step_end=keep, **more,
        )
        for step in (1, 2):
            wanted, close = kept[step - 1], 2e-3 * float(kept[step - 1].abs().max())
            assert torch.allclose(kind.latents(found.x[:, step].float()), wanted, rtol=2e-3, atol=close)
    scale = getattr(trained.pipeline.scheduler, "init_noise_sigma", 1.0)
    assert torch.allclose(found.x[:, 0].float(), noise * scale, rtol=2e-3, atol=1e-3)
    assert float(found.t[0]) > float(found.t[1]) > float(found.t[2]) >= 0
    assert 500 < float(found.t[0]) <= 1000


def test_a_switch_changes_what_comes_after_it(trained: Trained) -> None:
    first, other = encode(trained.pipeline, [A, A]), encode(trained.pipeline, [B, B])
    alone = drawn(trained.pipeline, trained.family, first, other.embeds, [9, 9]).x
    late = drawn(trained.pipeline, trained.family, first, other.embeds, [1, 9]).x
    assert torch.equal(alone[:, :2], late[:, :2])  # x_t of call 1 is made by call 0
    assert not torch.equal(alone[0, 2], late[0, 2])
    assert torch.equal(alone[1], late[1])


# --- tokens ----------------------------------------------------------------------------------------------------------------


def test_tokens_stand_where_the_embedding_has_them(trained: Trained) -> None:
    """A word that two prompts share at the end changes no row before it under a causal encoder, and its own row in all."""
    rows = trained.prompts.encode([A], None).embeds.shape[1]
    found = stretches(trained.pipeline, ["ab", "cd"], rows)
    assert [part.start for part in found] == [0]
    both = encode(trained.pipeline, ["ab", "ac"])
    (part,) = stretches(trained.pipeline, ["ab", "ac"], rows)
    where = int((part.ids[0] != part.ids[1]).nonzero()[0])
    apart = (both.embeds[0] - both.embeds[1]).norm(dim=-1)
    assert apart[where] > 1e-3
    if trained.family in ("sd", "sdxl", "sd3"):
        assert float(apart[:where].max()) < 1e-4 * float(apart[where])


def test_pairs_are_aligned_and_marked(trained: Trained) -> None:
    found = encode_pairs(trained.pipeline, [Pair(unsafe="box ab", safe="ab"), Pair(unsafe="ab", safe="ab")])
    assert found.safe.shape == found.unsafe.shape
    distance = found.distance()
    assert float(distance[1].abs().max()) < 1e-5
    assert float(distance[0][found.real[0]].max()) > 0.05
    assert 0.05 <= fit_tau(found) < 2


def with_t5() -> Any:
    """SD3 with its third encoder."""
    pipeline = tiny("sd3")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        third = T5EncoderModel(T5Config(vocab_size=3 + len(LETTERS), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    pipeline.register_modules(text_encoder_3=third.eval(), tokenizer_3=t5_tokenizer())
    return pipeline


def test_sd3_has_two_stretches_and_each_is_aligned_by_its_own_tokenizer() -> None:
    pipeline = with_t5()
    rows = encode(pipeline, [A]).embeds.shape[1]
    clip, t5 = stretches(pipeline, ["box ab", "ab"], rows)
    assert (clip.start, clip.ids.shape[1], t5.start, t5.start + t5.ids.shape[1]) == (0, 12, 12, rows)
    partner, real = partners(pipeline, ["box ab"], ["ab"], rows)
    assert partner[0, :12].max() < 12 <= int(partner[0, 12:].min())
    assert real[0, :12].sum() == 7  # start, b, o, x, a, b, end
    assert real[0, 12:].sum() == len(pipeline.tokenizer_3("box ab").input_ids)
    assert int(partner[0, 12]) == 12  # T5 has no start token: b goes to a, which stands in its place


def test_rows_of_an_encoder_that_is_left_out_are_neither_marked_nor_moved() -> None:
    found = encode_pairs(tiny("sd3"), [Pair(unsafe=f"box {c}", safe=c) for c in "abcd"])
    assert not found.present[:, 12:].any()
    assert not found.real[:, 12:].any()
    assert float(found.distance()[:, 12:].abs().max()) == 0


# --- interruption ----------------------------------------------------------------------------------------------------------


class Stop:
    """Interrupts at the n-th word of progress in a phase."""

    def __init__(self, phase: str, at: int) -> None:
        self.phase, self.left = phase, at
        self.said = 0

    def __call__(self, phase: str, done: int, total: int, note: str) -> None:
        if phase == self.phase:
            self.said += 1
            if self.said == self.left:
                raise KeyboardInterrupt


@pytest.mark.parametrize(("phase", "at"), [("trajectories", 2), ("trajectories", 12), ("training", 3)])
def test_an_interrupted_training_ends_at_the_same_weights(tmp_path: Path, phase: str, at: int) -> None:
    pipeline, chosen = tiny("sd"), settings(tmp_path, "sd", train_steps=8)
    whole = train(info("sd", pipeline), [concept("sd")], chosen, tmp_path / "whole")
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train(info("sd", pipeline), [concept("sd")], chosen, out, Stop(phase, at))
    assert not (out / WEIGHTS).exists()
    torch.manual_seed(12345)  # another state of the global noise
    sampled = []

    def watch(module: Any, args: Any) -> None:
        sampled.append(1)

    with base.hooks(pipeline.unet.register_forward_pre_hook(watch)):
        again = train(info("sd", pipeline), [concept("sd")], chosen, out)
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert again["curve"] == whole["curve"]
    calls = 3 * (3 * 3 + 3 * 2)  # steps x (three kinds of 5 in twos, of 3 in twos)
    assert len(sampled) == (calls - 3 * at if phase == "trajectories" else 0)  # each of the `at` finished batches was kept
    assert not (out / FOLDER).exists()


def test_what_other_settings_left_behind_is_not_taken_up(tmp_path: Path) -> None:
    pipeline, chosen = tiny("sd"), settings(tmp_path, "sd")
    with pytest.raises(KeyboardInterrupt):
        train(info("sd", pipeline), [concept("sd")], chosen, tmp_path / "cut", Stop("training", 1))
    other = chosen.model_copy(update={"guidance": 2.0})
    wanted = train(info("sd", pipeline), [concept("sd")], other, tmp_path / "whole")
    assert train(info("sd", pipeline), [concept("sd")], other, tmp_path / "cut")["weights_sha256"] == wanted["weights_sha256"]


def test_half_precision_trains_too(tmp_path: Path) -> None:
    pipeline = tiny("sd").to(torch.bfloat16)
    card = train(info("sd", pipeline), [concept("sd")], settings(tmp_path, "sd"), tmp_path / "out")
    assert card["dtype"] == "bfloat16"
    assert all(np.isfinite(value) for value in card["held_out"].values())


def test_a_denoiser_that_hides_its_width_is_refused(tmp_path: Path) -> None:
    pipeline = tiny("sd")
    pipeline.unet.register_to_config(cross_attention_dim=[16, 16])
    with pytest.raises(UsageError, match="does not say how wide"):
        train(info("sd", pipeline), [concept("sd")], settings(tmp_path, "sd"), tmp_path / "out")
