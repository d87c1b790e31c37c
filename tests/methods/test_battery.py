"""What holds for every inference method, whoever wrote it: one test each, over all presets of the kind (design section 14)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from srbench.catalog import plugins
from srbench.errors import CellError
from srbench.methods import base
from srbench.methods.base import Active
from srbench.methods.inversion import Inversion
from srbench.methods.saferedir import CARD, WEIGHTS
from srbench.methods.saferedir.module import SafeRedir, Sizes

META = {name: plugins.plugins("methods")[method].meta for name, (method, _) in plugins.presets().items()}
PRESETS = [name for name, meta in META.items() if meta["kind"] == "inference"]
THROUGH_GUIDANCE = {name for name in PRESETS if META[name]["name"] in ("negative-prompt", "sld")} | {"safree-official"}
"""Presets that have nothing to act through at guidance 1, and say so."""
A, B, C, D = "ab box", "cd", "zyxw", "box ef"
every_preset = pytest.mark.parametrize("preset", PRESETS)
every_method = pytest.mark.parametrize("preset", [name for name in PRESETS if name != "none"])


@pytest.fixture(scope="session")
def redirector(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SafeRedir network whose detector is undecided, on disk."""
    sizes = Sizes(
        prompt_width=bench.width, tokens=bench.tokens, latent_channels=4, latent_widths=(4, 8), latent_feature=6,
        timestep_width=8, timestep_feature=4, token_hidden=16, rank=4, classifier_hidden=8, alpha_hidden=8, mask_hidden=8,
        heads=2, token_delta=True,
    )
    torch.manual_seed(1)
    module, folder = SafeRedir(sizes), tmp_path_factory.mktemp("redirector")
    module.classifier[3].bias.data.copy_(torch.tensor([0.0, 0.1]))
    save_file(module.state_dict(), folder / WEIGHTS)
    card = {"backbone_sha256": "sha", "concepts": ["box"], "sizes": sizes.model_dump(mode="json")}
    (folder / CARD).write_text(json.dumps(card))
    return folder


@pytest.fixture
def ready(bench: Any, redirector: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a preset ready on the tiny pipeline; what it would load from a file is made here."""
    vector = bench.embeddings(["a box"])[:, 5]  # (1, D), at the end of the text
    monkeypatch.setattr("srbench.methods.inversion.load", lambda *_: Inversion(vector, "sha"))

    def make(preset: str) -> Active:
        method, values = plugins.preset(preset)
        cls = plugins.load("methods", method)
        files = {"redirector": str(redirector)} if "redirector" in cls.Options.model_fields else {}
        return bench.active(cls, cls.Options(**(values | files)))

    return make


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def guidances(preset: str) -> tuple[float, ...]:
    return (5.0,) if preset in THROUGH_GUIDANCE else (5.0, 1.0)


@every_preset
def test_options_parse_with_their_defaults(preset: str) -> None:
    """And say what the preset says, in words of JSON."""
    method, values = plugins.preset(preset)
    options = plugins.load("methods", method).Options(**values)
    assert all(getattr(options, key) == value for key, value in values.items())
    assert type(options)(**json.loads(options.model_dump_json())) == options


@every_method
def test_acts_and_leaves_nothing(bench: Any, ready: Any, preset: str) -> None:
    for guidance in guidances(preset):
        before, _ = bench.draw(ready("none"), [A, B], guidance=guidance)
        changed, _ = bench.draw(ready(preset), [A, B], guidance=guidance)
        assert not bench.hooks_left()
        after, _ = bench.draw(ready("none"), [A, B], guidance=guidance)
        assert np.array_equal(before, after)
        assert difference(changed, before) > 1


@every_method
def test_leaves_nothing_after_an_error(bench: Any, ready: Any, preset: str) -> None:
    active = ready(preset)
    call = base.Call(2, 4, True, (A, B))
    with active.method.applied(bench.pipeline, active.artifact, active.options, call) as made:
        assert bool(bench.hooks_left()) == made.hooked
    assert not bench.hooks_left()
    with pytest.raises(KeyboardInterrupt), active.method.applied(bench.pipeline, active.artifact, active.options, call):
        raise KeyboardInterrupt
    assert not bench.hooks_left()


@every_preset
def test_company_changes_no_bit(bench: Any, ready: Any, preset: str) -> None:
    """At one batch shape: alone, among others, in reverse order."""
    active = ready(preset)
    for guidance in guidances(preset):
        whole, _ = bench.draw(active, [A, B, C, D], guidance=guidance)
        assert np.array_equal(bench.draw(active, [D, C, B, A], guidance=guidance)[0], whole[::-1])
        assert np.array_equal(bench.draw(active, [A, A, A, A], guidance=guidance)[0][0], whole[0])
        assert np.array_equal(bench.draw(active, [C, A, D, D], guidance=guidance)[0][[1, 0, 2]], whole[[0, 2, 3]])


@every_preset
def test_batch_sizes_differ_by_one_level(bench: Any, ready: Any, preset: str) -> None:
    active = ready(preset)
    whole, _ = bench.draw(active, [A, B, C, D])
    for i, text in enumerate([A, B, C, D]):
        assert difference(bench.draw(active, [text])[0][0], whole[i]) <= 1


@every_preset
def test_no_state_survives(bench: Any, ready: Any, preset: str) -> None:
    """[A], [B, A], [A, A] give the same A at one padded batch shape, and the same trace."""
    active = ready(preset)
    (alone, *_), (said, *_) = bench.draw(active, [A, A])
    for texts, place in (([B, A], 1), ([A, A], 1), ([A, B], 0)):
        pixels, traces = bench.draw(active, texts)
        assert np.array_equal(pixels[place], alone)
        assert traces[place] == said


@every_preset
def test_guidance_one(bench: Any, ready: Any, preset: str) -> None:
    active = ready(preset)
    if preset in THROUGH_GUIDANCE:
        with pytest.raises(CellError, match="guidance") as error:
            bench.draw(active, [A, B], guidance=1.0)
        assert error.value.hint
        assert not bench.hooks_left()
        return
    pixels, traces = bench.draw(active, [A, B], guidance=1.0)
    assert len(pixels) == len(traces) == 2
    assert not np.array_equal(pixels, bench.draw(active, [A, B])[0])


@every_preset
def test_trace_is_there_and_json(bench: Any, ready: Any, preset: str) -> None:
    _, traces = bench.draw(ready(preset), [A, B, C])
    assert len(traces) == 3
    assert json.loads(json.dumps(traces, allow_nan=False)) == traces
    hooked = preset not in ("none", "negative-prompt")
    assert all(bool(trace) == hooked for trace in traces)
    if META[preset]["decides"]:
        assert all(isinstance(trace["redirected_steps"], int) for trace in traces)


@every_preset
def test_artifact_is_the_same_twice(ready: Any, preset: str) -> None:
    """Its sha256 is part of the image key: another one would draw everything again."""
    first, second = ready(preset).artifact, ready(preset).artifact
    assert (first is None) == (second is None)
    assert first is None or (first.sha256 == second.sha256 and len(first.sha256) == 64 and first.parameters > 0)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_none_is_the_plain_pipeline(bench: Any, ready: Any, guidance: float) -> None:
    texts = [A, B]
    pixels, traces = bench.draw(ready("none"), texts, guidance=guidance)
    latents = torch.stack([
        torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(bench.spec(text).seed)) for text in texts
    ])
    plain = bench.pipeline(
        prompt_embeds=bench.embeddings(texts), negative_prompt_embeds=bench.embeddings(["", ""]), latents=latents,
        num_inference_steps=4, guidance_scale=guidance, height=8, width=8, output_type="np",
    ).images
    assert np.array_equal(pixels, (plain * 255).round().astype(np.uint8))
    assert traces == [{}, {}]
