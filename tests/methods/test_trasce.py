"""TraSCE: its potential and its slope, guidance, what is moved, and that an image does not depend on its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srbench.methods import trasce
from srbench.methods.base import Call
from srbench.testing.bench import Bench


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def options(**changes: Any) -> trasce.Options:
    return trasce.Options(**({"sigma": 5.0} | changes))


def test_the_potential_is_each_images_own() -> None:
    wanted, concept = drawn(3, 4, 2, 2), drawn(3, 4, 2, 2, seed=1)
    found = trasce.potential(wanted, concept, 1.5, 2.0)
    for i in range(3):
        norm = float((wanted[i] - concept[i]).float().double().norm())
        assert float(found[i]) == pytest.approx(-1.5 * np.exp(-norm / 2.0), rel=1e-5)


def test_where_both_predictions_are_equal_nothing_moves() -> None:
    x = drawn(1, 4, 2, 2).requires_grad_(True)
    (slope,) = torch.autograd.grad(trasce.potential(x, x.detach(), 1.0, 1.0).sum(), [x])
    assert torch.equal(slope, torch.zeros_like(slope))


def test_the_shift_is_down_the_potentials_slope(bench: Bench) -> None:
    """Against central differences of the whole U-Net, in a direction of each image's own."""
    unet, given = bench.pipeline.unet, options(move=0.5)
    x, t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2)), torch.tensor(400)
    said, concept = bench.embeddings(["ef", "zyw"]), bench.embeddings(["a box"])
    artifact = trasce.TraSce.prepare(bench.info(), bench.concept, options(text="a box"))
    with trasce.TraSce.applied(bench.pipeline, artifact, given, Call(2, 4, True, ("ef", "zyw"))) as moved, torch.no_grad():
        unet(torch.cat([x, x]), t, encoder_hidden_states=torch.cat([bench.embeddings(["", ""]), said]))
    assert moved.shift is not None

    def height(at: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            own = unet(at, t, encoder_hidden_states=said).sample
            other = unet(at, t, encoder_hidden_states=concept.expand_as(said)).sample
        return trasce.potential(own, other, given.eta, given.sigma)

    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    way = way / way.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    for image in range(2):
        mask = torch.zeros(2, 1, 1, 1)
        mask[image] = 1
        slope = (height(x + 0.02 * mask * way) - height(x - 0.02 * mask * way)) / 0.04
        assert float(slope[1 - image]) == 0.0  # the other image feels nothing of it
        along = float((moved.shift[image] * way[image]).sum())
        assert along == pytest.approx(-0.5 * float(slope[image]), rel=0.05, abs=1e-5)


def test_guidance_is_away_from_the_concept(bench: Bench) -> None:
    """With latents that stay: e_0 and e_0 + e_c - e_n, each prediction made on its own."""
    unet, given = bench.pipeline.unet, options(eta=0.0)
    x, t = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(2)), torch.tensor(400)
    negative, said, concept = (bench.embeddings([text]) for text in ("", "ef", "a box"))
    artifact = trasce.TraSce.prepare(bench.info(), bench.concept, options(text="a box"))
    with torch.no_grad():
        e0, ec, en = (unet(x, t, encoder_hidden_states=prompt).sample for prompt in (negative, said, concept))
        with trasce.TraSce.applied(bench.pipeline, artifact, given, Call(1, 4, True, ("ef",))):
            found = unet(torch.cat([x, x]), t, encoder_hidden_states=torch.cat([negative, said])).sample
    assert torch.allclose(found[0], e0[0], atol=1e-5)
    assert torch.allclose(found[1], (e0 + ec - en)[0], atol=1e-5)


def test_the_schedulers_step_begins_from_the_moved_latents(bench: Bench) -> None:
    seen: list[torch.Tensor] = []
    scheduler = bench.pipeline.scheduler
    own, artifact = type(scheduler).step, trasce.TraSce.prepare(bench.info(), bench.concept, options())
    with trasce.TraSce.applied(bench.pipeline, artifact, options(eta=50.0), Call(1, 4, True, ("ef",))) as moved:
        stepping = bench.pipeline.scheduler
        stepping.set_timesteps(4)
        assert stepping.config is scheduler.config
        x = stepping.scale_model_input(torch.randn(1, 4, 4, 4), stepping.timesteps[0])
        with torch.no_grad():
            prompts = torch.cat([bench.embeddings([""]), bench.embeddings(["ef"])])
            e = bench.pipeline.unet(torch.cat([x, x]), stepping.timesteps[0], encoder_hidden_states=prompts).sample
        assert moved.shift is not None
        assert float(moved.shift.abs().max()) > 0
        seen.append(stepping.step(e[1:], stepping.timesteps[0], x, eta=0.0).prev_sample)
        seen.append(own(scheduler, e[1:], stepping.timesteps[0], x + moved.shift, eta=0.0).prev_sample)
    assert torch.allclose(seen[0], seen[1], atol=1e-6)
    assert bench.pipeline.scheduler is scheduler


def test_an_image_does_not_depend_on_its_neighbours(bench: Bench) -> None:
    active = bench.active(trasce.TraSce, options(eta=50.0))
    together, traces = bench.draw(active, ["a box", "zyw", "ef"])
    for place, text in enumerate(["a box", "zyw", "ef"]):
        alone, own = bench.draw(active, [text])
        assert np.abs(alone[0].astype(int) - together[place].astype(int)).max() <= 1
        assert own[0]["moved"] == pytest.approx(traces[place]["moved"], rel=1e-2)
        assert own[0]["moved"] > 0
