"""The methods that fit every family of pipelines, on a tiny one of each: the battery's promises hold there too."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from srbench.backbones.loader import Backbone
from srbench.backbones.pipelines import pack, prompt_width, unpack
from srbench.catalog import load, plugins
from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.engine.prepare import prepare_method
from srbench.engine.sample import PromptCache, sample
from srbench.errors import CellError, UsageError
from srbench.methods import base, safree
from srbench.methods.base import Active
from srbench.methods.saferedir import CARD, WEIGHTS
from srbench.methods.saferedir.module import SafeRedir, Sizes
from srbench.results.keys import ImageSpec
from srbench.testing import checks
from srbench.testing.bench import Bench as SharedBench
from srbench.testing.bench import concept_of
from srbench.testing.checks import worst as difference
from srbench.testing.families import MADE, SIDE_PX, tiny
from srbench.testing.methods import CHECKS, A, B, MethodCase

TRUE = {"flux": 3.0}
"""Family -> the true guidance under which it has a negative side at all."""
STRENGTH = {"sd": 2.0, "sdxl": 2.0, "sd3": 50.0, "flux": 50.0, "pixart": 500.0}
"""Family -> the scale of a redirect that shows: a random transformer's gates let little of the text through."""
WORDS = ConceptWords(names=("a box", "bin"), words=("box", "bin"), protocol="none")


@dataclass
class Bench:
    """A family's tiny pipeline with everything that a method asks for."""

    family: str
    pipeline: Any
    prompts: PromptCache
    redirector: Path

    def case(self, preset: str, **more: Any) -> MethodCase:
        cls, meta = checks.plugin_of("methods", preset)
        files = {"redirector": str(self.redirector)} if "redirector" in cls.Options.model_fields else {}
        strong = {"alpha_scale": STRENGTH[self.family]} if "alpha_scale" in cls.Options.model_fields else {}
        short = {"text": "box"} if meta["name"] in ("sld", "safree") else {}  # the encoders read twelve letters
        shared = SharedBench(self.family, self.pipeline, self.prompts, concept_of(WORDS, self.family), SIDE_PX, 3)
        return MethodCase(cls, meta, preset, {**files, **strong, **short, **more}, shared, meta["presets"][preset])

    def active(self, preset: str, **more: Any) -> Active:
        return self.case(preset, **more).active()

    def draw(self, active: Active, texts: Sequence[str], guided: bool = True) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Pixels uint8 (B, 16, 16, 3) and traces."""
        true = TRUE.get(self.family, 1.0) if guided else 1.0
        specs = [
            ImageSpec(
                backbone_sha="", checkpoint_sha="", method="m", method_version=1, options="", artifact_sha="", concept_sha="",
                prompt=text, negative_prompt="", seed=seed_of(text), steps=3, guidance=5.0 if guided else 1.0, eta=0.0,
                guidance_rescale=0.0, clip_skip=None, scheduler="", width=SIDE_PX, height=SIDE_PX, dtype="fp32",
                true_guidance=true,
            )
            for text in texts
        ]
        pixels, traces, _ = sample(self.pipeline, self.prompts, active, specs)
        return pixels, traces


def seed_of(text: str) -> int:
    return sum(map(ord, text))


def redirector(pipeline: Any, tokens: int, folder: Path) -> Path:
    """A random SafeRedir network of the pipeline's widths whose detector finds something in most prompts, on disk."""
    sizes = Sizes(
        prompt_width=prompt_width(pipeline), tokens=tokens, latent_channels=pipeline.vae.config.latent_channels,
        latent_widths=(4, 8), latent_feature=6, timestep_width=8, timestep_feature=4, token_hidden=16, rank=4,
        classifier_hidden=8, alpha_hidden=8, mask_hidden=8, heads=2, token_delta=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = SafeRedir(sizes)
    module.classifier[3].bias.data.copy_(torch.tensor([0.0, 2.0]))
    save_file(module.state_dict(), folder / WEIGHTS)
    card = {"backbone_sha256": "sha", "concepts": ["box"], "sizes": sizes.model_dump(mode="json")}
    (folder / CARD).write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="module", params=sorted(MADE))
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    pipeline = tiny(request.param)
    prompts = PromptCache(pipeline)
    tokens = prompts.encode([A], None).embeds.shape[1]
    return Bench(request.param, pipeline, prompts, redirector(pipeline, tokens, tmp_path_factory.mktemp(request.param)))


STEERING = ("sld-max", "safree", "safree-official")
"""Presets of methods that fit some of the families. Of SLD the one whose threshold no element comes near: at the threshold mu
jumps, and there the last bit, which the batch size decides, is more than one level (3 were seen with sld-medium on SD3)."""
every_method = pytest.mark.parametrize("preset", ["saferedir", "saferedir-upstream", "negative-prompt", *STEERING])


def meta_of(preset: str) -> dict[str, Any]:
    return plugins.plugins("methods")[plugins.preset(preset)[0]].meta


def skip_unfit(family: str, preset: str) -> None:
    families = meta_of(preset)["families"]
    if "*" not in families and family not in families:
        pytest.skip(f"{preset} does not fit {family}, and says so")


def test_none_is_the_plain_pipeline(bench: Bench) -> None:
    """As a user calls it, with texts; the noise is ours."""
    noise = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed_of(text))) for text in (A, B)])
    more = {"flux": {"true_cfg_scale": 3.0, "negative_prompt": ["", ""], "max_sequence_length": 12}, "pixart": {
        "max_sequence_length": 12, "use_resolution_binning": False, "clean_caption": False,
    }}.get(bench.family, {})
    plain = bench.pipeline(
        [A, B], latents=bench.prompts.kind.latents(noise), num_inference_steps=3, guidance_scale=5.0, height=SIDE_PX,
        width=SIDE_PX, output_type="np", **more,
    ).images
    pixels, _ = bench.draw(bench.active("none"), [A, B])
    assert difference(pixels, (plain * 255).round().astype(np.uint8)) <= 1
    assert difference(pixels[:1], pixels[1:]) > 8


def test_texts_matter(bench: Bench) -> None:
    rows = bench.prompts.encode([A, B], None)
    assert not torch.equal(rows.embeds[0], rows.embeds[1])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@every_method
def test_battery(bench: Bench, preset: str, check: checks.Check[MethodCase]) -> None:
    skip_unfit(bench.family, preset)
    checks.run([check], bench.case(preset))


@pytest.mark.parametrize("preset", ["saferedir", "saferedir-upstream"])
def test_without_guidance(bench: Bench, preset: str) -> None:
    before, _ = bench.draw(bench.active("none"), [A, B], guided=False)
    changed, traces = bench.draw(bench.active(preset), [A, B], guided=False)
    assert difference(changed, before) > 1
    assert all(len(trace["unsafe"]) == 3 for trace in traces)


def test_the_detector_is_asked_once_a_step(bench: Bench) -> None:
    _, traces = bench.draw(bench.active("saferedir"), [A, B])
    assert all(len(trace["unsafe"]) == 3 for trace in traces)
    assert any(trace["redirected_steps"] for trace in traces)


def test_a_negative_prompt_needs_guidance(bench: Bench) -> None:
    with pytest.raises(CellError, match="acts through guidance"):
        bench.draw(bench.active("negative-prompt"), [A, B], guided=False)


def test_the_negative_half_is_left_as_it_is(bench: Bench) -> None:
    """In the paper's mode only what is asked for is redirected, whatever the layout of guidance."""
    denoiser, seen = base.denoiser(bench.pipeline), []

    def watch(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["encoder_hidden_states"].clone())

    active = bench.active("saferedir")
    kind = bench.prompts.kind
    call = base.Call(2, 3, True, (), kind.layout, (4, 8, 8) if kind.packed else None, kind.timesteps)
    negative = bench.prompts.encode(["", ""], None, negative=True).embeds
    with active.method.applied(bench.pipeline, active.artifact, active.options, call):
        handle = denoiser.register_forward_pre_hook(watch, with_kwargs=True)  # behind the method's own
        try:
            bench.draw(bench.active("none"), [A, B])
        finally:
            handle.remove()
    halves = [each[:2] for each in seen] if len(seen[0]) == 4 else seen[1::2]
    assert halves
    assert all(torch.equal(half, negative) for half in halves)


# --- methods that fit some of the families ---------------------------------------------------------------------------------


def test_sld_away_from_the_prompt_itself_changes_nothing(bench: Bench) -> None:
    """Its third branch then is the positive one again: whatever of the text or the picture it lacked would show."""
    skip_unfit(bench.family, "sld-weak")
    plain, _ = bench.draw(bench.active("none"), [A, A])
    same, traces = bench.draw(bench.active("sld-weak", text=A, warmup=0, scale=1.0), [A, A])
    assert difference(same, plain) <= 1
    assert len(traces[0]) == 2
    other, _ = bench.draw(bench.active("sld-max", text="zyxw", warmup=0), [A, A])
    assert difference(other, plain) > 1


def test_sld_counts_the_noise_alone(bench: Bench) -> None:
    """PixArt predicts a variance behind the noise, in channels of its own, that the sampler leaves out."""
    skip_unfit(bench.family, "sld-max")
    active, call = bench.active("sld-max"), base.Call(1, 3, True)
    with active.method.applied(bench.pipeline, active.artifact, active.options, call) as steer:
        steer.channels = 4
        e = torch.zeros(3, 8, 2, 2)
        e[1:, 4:] = torch.randn(2, 4, 2, 2)  # differs in the variance only
        steer.calls = 1
        steer.after(None, (), (e,))
        assert steer.trace() == [{"guided_steps": 0, "share": 0.0}]


@pytest.mark.parametrize("preset", [*STEERING, "sld-max+ci", "sld-medium+ci", "safree+ci"])
def test_what_does_not_fit_says_so_before_anything_is_loaded(bench: Bench, preset: str) -> None:
    meta = meta_of(preset)
    if bench.family in meta.get("preset_families", {}).get(preset, meta["families"]):
        pytest.skip("it fits")
    spec = load.backbones()[bench.family if bench.family != "sd" else "sd14"]
    nowhere = Backbone(spec, Path("nowhere"), "fp32", "cpu")
    with pytest.raises(UsageError, match=f"{re.escape(preset)} does not fit backbone '{spec.name}'") as error:
        prepare_method(preset, nowhere, load.concepts()["church"], [])
    assert "It fits: pocket, sd" in error.value.hint


def test_safree_on_sdxl_reads_a_text_where_its_embedding_ends() -> None:
    """The pooled embedding is the row of the end-of-text token, of both encoders, whatever stands in the padding."""
    pipeline = tiny("sdxl")
    pipeline.tokenizer_2.pad_token = "a"  # the second tokenizer of the real SDXL pads with another token than the first
    texts = ["a box", "cd"]
    ids, counts = safree.token_ids(pipeline, texts)
    embeds = PromptCache(pipeline).encode(texts, None).embeds
    wanted = torch.stack([embeds[i, count + 1] for i, count in enumerate(counts)])
    assert wanted.shape == (2, 32)
    assert torch.allclose(safree.pooled(pipeline, ids), wanted, atol=1e-4)


def test_safree_as_negative_prompt_brings_its_pooled_embedding() -> None:
    pipeline = tiny("sdxl")
    prompts, family = PromptCache(pipeline), "sdxl"
    concept = ConceptSpec(name="box", title="boxes", kind="object", sensitive=False, families={family: WORDS})
    options = safree.Options(negative=True, text="box, bin")
    artifact = safree.SafreeMethod.prepare(base.BackboneInfo("tiny", family, "sha", pipeline), concept, options)
    positive, negative = prompts.encode([A, B], None), prompts.encode(["", ""], None, negative=True)
    with safree.SafreeMethod.applied(pipeline, artifact, options, base.Call(2, 3, True, (A, B))) as guard:
        ours, theirs = guard.conditioning(positive, negative)
    wanted = prompts.encode(["box, bin"], None)
    assert torch.equal(ours.embeds, positive.embeds)
    assert torch.allclose(theirs.embeds, wanted.embeds.expand_as(theirs.embeds), atol=1e-5)
    assert theirs.pooled is not None
    assert wanted.pooled is not None
    assert torch.allclose(theirs.pooled, wanted.pooled.expand_as(theirs.pooled), atol=1e-5)


def test_an_inversion_is_refused_where_there_are_two_encoders(bench: Bench) -> None:
    if bench.family == "sd" or bench.family not in meta_of("sld-max")["families"]:
        pytest.skip("it fits, or the method does not")
    with pytest.raises(UsageError, match="Stable Diffusion's one encoder"):
        bench.active("sld-max+ci")


def test_latents_are_packed_as_flux_packs_them() -> None:
    x = torch.randn(2, 4, 8, 6)
    packed = pack(x)
    assert torch.equal(packed, tiny("flux")._pack_latents(x, 2, 4, 8, 6))
    assert torch.equal(unpack(packed, (4, 8, 6)), x)
