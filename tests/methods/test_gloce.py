"""GLoCE: its statistics, the replacement and the gate against their definitions, and that no state survives a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import gloce
from srbench.methods.base import Active, Artifact, Call
from srbench.methods.none import NoMethod
from srbench.testing.bench import Bench

QUICK: dict[str, Any] = {"steps": 3, "images": 4, "first": 0, "last": 50, "neutral": "ef; gh"}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def options(**changes: Any) -> gloce.Options:
    return gloce.Options(**(QUICK | changes))


def test_moments_are_those_of_all_rows_together() -> None:
    rows, moments = drawn(40, 3), gloce.Moments.of(3)
    for part in rows.split(7):
        moments.add(part)
    centre = drawn(3, seed=1)
    assert torch.allclose(moments.mean, rows.mean(0), atol=1e-12)
    expected = torch.stack([torch.outer(row - centre, row - centre) for row in rows]).mean(0)
    assert torch.allclose(moments.about(centre), expected, atol=1e-12)


def test_leading_directions_are_those_of_the_largest_eigenvalues() -> None:
    basis = torch.linalg.qr(drawn(4, 4)).Q
    matrix = basis @ torch.diag(torch.tensor([1.0, 5.0, 2.0, 3.0]).double()) @ basis.T
    found = gloce.leading(matrix, 2)
    assert torch.allclose((found.T @ basis[:, [1, 3]]).abs(), torch.eye(2).double(), atol=1e-9)


def held(seed: int = 0, width: int = 6) -> dict[str, torch.Tensor]:
    def base(rank: int, number: int) -> torch.Tensor:
        return torch.linalg.qr(drawn(width, rank, seed=seed + number)).Q

    return {
        "target_mean": drawn(width, seed=seed + 1), "target": base(2, 2), "surrogate_mean": drawn(width, seed=seed + 3),
        "surrogate": base(3, 4), "neutral_mean": drawn(width, seed=seed + 5), "gate": base(1, 6),
        "centre": torch.tensor(0.2, dtype=torch.float64), "slope": torch.tensor(9.0).double(),
    }


def test_replacement_and_gate_are_the_papers() -> None:
    """Each place on its own, with projections written out."""
    own, x = held(), drawn(2, 5, 6, seed=9)
    y, g = gloce.replaced(x, own), gloce.opened(x, own)
    for b in range(2):
        for place in range(5):
            away = x[b, place] - own["target_mean"]
            rest = (torch.eye(6).double() - own["target"] @ own["target"].T) @ away
            expected = own["surrogate_mean"] + own["surrogate"] @ (own["surrogate"].T @ rest)
            assert torch.allclose(y[b, place], expected, atol=1e-12)
            u = (x[b, place] - own["neutral_mean"]) / (x[b, place] - own["neutral_mean"]).norm()
            near = float((own["gate"].T @ u).square().sum())
            assert float(g[b, place]) == pytest.approx(1 / (1 + np.exp(-9.0 * (near - 0.2))), abs=1e-12)


def test_the_gate_is_nearly_a_step() -> None:
    k = gloce.slope_of(2.5)
    assert 1 / (1 + np.exp(-k * 0.001 * 2.5)) == pytest.approx(0.99)


def artifact(bench: Bench, centre: float) -> Artifact:
    """Random directions in every layer, with a gate that opens at a projection."""
    layers = gloce.layers_of(bench.pipeline.unet)
    own = {path: held(10 * i, layer.out_features) for i, (path, layer) in enumerate(layers.items())}
    return Artifact({
        path: {name: value.float() for name, value in each.items()} | {"centre": torch.tensor(centre), "slope": torch.tensor(1e5)}
        for path, each in own.items()
    }, "a" * 64, 1)  # fmt: skip


def test_a_closed_gate_leaves_the_picture_bit_for_bit(bench: Bench) -> None:
    closed, traces = bench.draw(Active(gloce.GLoCe, artifact(bench, 2.0), options()), ["a box", "zyw"])
    opened, other = bench.draw(Active(gloce.GLoCe, artifact(bench, -1.0), options()), ["a box", "zyw"])
    plain, _ = bench.draw(bench.active(NoMethod, NoMethod.Options()), ["a box", "zyw"])
    assert np.array_equal(closed, plain)
    assert not np.array_equal(opened, plain)
    assert [trace["gate"] for trace in traces] == [0.0, 0.0]
    assert [trace["gate"] for trace in other] == [1.0, 1.0]


@pytest.mark.parametrize("steps", [3, 5, 8])
def test_no_state_is_left_for_the_next_image(bench: Bench, steps: int) -> None:
    """The released code counts on in the layer."""
    active = Active(gloce.GLoCe, artifact(bench, -1.0), options(first=20))
    first, _ = bench.draw(active, ["a box"], steps=steps)
    again, _ = bench.draw(active, ["a box"], steps=steps)
    assert np.array_equal(first, again)


def test_the_gate_stays_closed_in_the_first_steps(bench: Bench) -> None:
    """20 of 50 steps are 2 of 5."""
    seen: list[bool] = []
    active = Active(gloce.GLoCe, artifact(bench, -1.0), options(first=20))
    path, layer = next(iter(gloce.layers_of(bench.pipeline.unet).items()))

    def watch(module: Any, args: Any, output: torch.Tensor) -> None:
        seen.append(bool(torch.equal(output, module.forward(*args))))

    call = Call(1, 5, True, ("a box",))
    with gloce.GLoCe.applied(bench.pipeline, active.artifact, active.options, call):
        handle = layer.register_forward_hook(watch)
        prompts = torch.cat([bench.embeddings([""]), bench.embeddings(["a box"])])
        with torch.no_grad():
            for _ in range(5):
                bench.pipeline.unet(torch.randn(2, 4, 4, 4), torch.tensor(10), encoder_hidden_states=prompts)
        handle.remove()
    assert path
    assert seen == [True, True, False, False, False]


def test_statistics_are_of_the_prompts_half_in_the_windows_steps(bench: Bench) -> None:
    looking = gloce.Statistics(bench.pipeline, options(steps=5, first=20, last=40), lambda *_: None)
    assert list(looking.window) == [2, 3]
    counts: dict[str, int] = {}

    def take(path: str, rows: torch.Tensor) -> None:
        counts[path] = counts.get(path, 0) + len(rows)

    looking.look(["a box"], take, "concept")
    finest = max(counts.values())
    assert finest == 4 * 2 * 16  # images, steps, places of 4 x 4 latents


def test_what_is_measured_opens_for_the_concept_and_not_for_its_anchors(bench: Bench) -> None:
    """On the very pictures of the statistics: the anchors' projections lie below c by construction of c."""
    given = options(images=8, steps=4)
    said = gloce.texts_of(bench.concept, "tiny", given)
    flat = gloce.measured(bench.pipeline, said, given, lambda *_: None)
    own = gloce._by_layer(flat)
    looking = gloce.Statistics(bench.pipeline, given, lambda *_: None)
    double = {path: {name: value.double() for name, value in each.items()} for path, each in own.items()}
    anchors, concept = (looking.projections(texts, double, "") for texts in (said.anchors, said.concept))
    for path, each in double.items():
        assert float(anchors[path].mean[0]) < float(each["centre"])
        assert float(concept[path].mean[0]) >= 0


def test_a_concept_without_anchors_is_refused(bench: Bench) -> None:
    words = bench.concept.families["tiny"].model_copy(update={"counterparts": {}})
    bare: ConceptSpec = bench.concept.model_copy(update={"families": {"tiny": words}})
    with pytest.raises(UsageError, match="anchor"):
        gloce.GLoCe.prepare(bench.info(), bare, options())
