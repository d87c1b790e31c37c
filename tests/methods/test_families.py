"""The methods that fit every family of pipelines, on a tiny one of each: the battery's promises hold there too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from srbench.backbones.pipelines import pack, prompt_width, unpack
from srbench.catalog import plugins
from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.engine.keys import ImageSpec
from srbench.engine.sample import Active, PromptCache, sample
from srbench.errors import CellError
from srbench.methods import base
from srbench.methods.saferedir import CARD, WEIGHTS
from srbench.methods.saferedir.module import SafeRedir, Sizes
from tests.families import MADE, SIDE_PX, tiny

A, B, C, D = "ab box", "cd", "zyxw", "box ef"
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

    def active(self, preset: str) -> Active:
        method, values = plugins.preset(preset)
        cls = plugins.load("methods", method)
        files = {"redirector": str(self.redirector)} if "redirector" in cls.Options.model_fields else {}
        strong = {"alpha_scale": STRENGTH[self.family]} if "alpha_scale" in cls.Options.model_fields else {}
        options = cls.Options(**(values | files | strong))
        concept = ConceptSpec(name="box", title="boxes", kind="object", sensitive=False, families={self.family: WORDS})
        info = base.BackboneInfo(name="tiny", family=self.family, sha256="sha", pipeline=self.pipeline)
        return Active(cls, cls.prepare(info, concept, options), options)

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


every_method = pytest.mark.parametrize("preset", ["saferedir", "saferedir-upstream", "negative-prompt"])


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


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


@every_method
def test_acts_and_leaves_nothing(bench: Bench, preset: str) -> None:
    before, _ = bench.draw(bench.active("none"), [A, B])
    changed, _ = bench.draw(bench.active(preset), [A, B])
    after, _ = bench.draw(bench.active("none"), [A, B])
    assert np.array_equal(before, after)
    assert difference(changed, before) > 1


@every_method
def test_company_and_state_change_no_bit(bench: Bench, preset: str) -> None:
    active = bench.active(preset)
    whole, said = bench.draw(active, [A, B, C, D])
    turned, again = bench.draw(active, [D, C, B, A])
    assert np.array_equal(turned, whole[::-1])
    assert again == said[::-1]
    assert np.array_equal(bench.draw(active, [A, A, A, A])[0][0], whole[0])


@every_method
def test_batch_sizes_differ_by_one_level(bench: Bench, preset: str) -> None:
    active = bench.active(preset)
    whole, _ = bench.draw(active, [A, B, C, D])
    for i, text in enumerate([A, B, C, D]):
        assert difference(bench.draw(active, [text])[0][0], whole[i]) <= 1


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


def test_latents_are_packed_as_flux_packs_them() -> None:
    x = torch.randn(2, 4, 8, 6)
    packed = pack(x)
    assert torch.equal(packed, tiny("flux")._pack_latents(x, 2, 4, 8, 6))
    assert torch.equal(unpack(packed, (4, 8, 6)), x)
