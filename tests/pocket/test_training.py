"""The build's training loop and its checkpoints: what resumes, what starts afresh, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from srbench.errors import SrbenchError
from srbench.pocket_build.model import checkpoints, training
from srbench.pocket_build.model.training import Place, Stage

CPU = torch.device("cpu")


def _stage(steps: int = 30, inputs: str = "", seconds_of: list[int] | None = None) -> Stage:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))

    def loss(m: nn.Module, step: int, done: float) -> Tensor:
        x = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(step))
        if seconds_of is not None:
            seconds_of.append(step)
        return (m(x) - x.mean((1, 2, 3))[:, None]).pow(2).mean() * (1 + done)

    return Stage("tiny", model, training.split_optimisers(model, ("0.",), lr=1e-2), loss, steps, warmup=3, inputs=inputs)


def _weights(cache: Path) -> dict[str, Tensor]:
    return checkpoints.read(cache, "tiny")["average"]


def _train_in_pieces(cache: Path, **options) -> int:
    """Train with no time at all, so that each call makes one step; how many calls it took."""
    calls = 1
    while not training.run(_stage(**options), Place(cache, CPU, seconds=-1.0)):
        calls += 1
    return calls


def test_training_in_pieces_gives_the_same_weights_as_in_one_go(tmp_path: Path) -> None:
    assert training.run(_stage(), Place(tmp_path / "one", CPU))
    assert _train_in_pieces(tmp_path / "pieces") == 30
    one, pieces = _weights(tmp_path / "one"), _weights(tmp_path / "pieces")
    assert one.keys() == pieces.keys()
    assert all(torch.equal(one[name], pieces[name]) for name in one)


def test_a_finished_stage_trains_no_further_and_keeps_its_average_alone(tmp_path: Path) -> None:
    seen: list[int] = []
    assert training.run(_stage(seconds_of=seen), Place(tmp_path, CPU))
    assert training.run(_stage(seconds_of=seen), Place(tmp_path, CPU))
    assert seen == list(range(30))
    assert checkpoints.read(tmp_path, "tiny").keys() == {"average"}


@pytest.mark.parametrize("other", [{"steps": 40}, {"inputs": "another vae"}])
def test_a_checkpoint_of_another_recipe_is_not_gone_on_with(
    other: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not training.run(_stage(), Place(tmp_path, CPU, seconds=-1.0))
    seen: list[int] = []
    training.run(_stage(**other, seconds_of=seen), Place(tmp_path, CPU))
    assert seen[0] == 0
    assert "training starts afresh" in capsys.readouterr().out


def test_parts_are_small_and_only_the_newest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PART_BYTES", 1000)
    state = {"average": {"w": torch.randn(1200)}}
    checkpoints.write(tmp_path, "tiny", {"average": {"w": torch.zeros(900)}}, step=1, steps=3)
    checkpoints.write(tmp_path, "tiny", state, step=2, steps=3)
    files = list((tmp_path / "stages" / "tiny").iterdir())
    parts = [path for path in files if path.suffix == ".part"]
    assert all(path.name.startswith("000002") and path.stat().st_size <= 1000 for path in parts)
    assert len(parts) >= 5
    assert len(files) == len(parts) + 1
    assert torch.equal(checkpoints.read(tmp_path, "tiny")["average"]["w"], state["average"]["w"])


def test_a_stop_between_the_parts_and_the_index_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.write(tmp_path, "tiny", {"w": torch.ones(3)}, step=1, steps=3)
    put = checkpoints.write_atomic

    def stop_at_index(path: Path, raw: bytes) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        put(path, raw)

    monkeypatch.setattr(checkpoints, "write_atomic", stop_at_index)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(tmp_path, "tiny", {"w": torch.zeros(3)}, step=2, steps=3)
    found = checkpoints.index(tmp_path, "tiny")
    assert found is not None
    assert found.step == 1
    assert torch.equal(checkpoints.read(tmp_path, "tiny")["w"], torch.ones(3))


def test_a_damaged_or_missing_part_is_one_line_and_not_loaded(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, "tiny", {"w": torch.ones(3)}, step=1, steps=3)
    part = next((tmp_path / "stages" / "tiny").glob("*.part"))
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 2] ^= 1
    part.write_bytes(raw)
    with pytest.raises(SrbenchError, match="stage tiny is damaged"):
        checkpoints.read(tmp_path, "tiny")
    part.unlink()
    with pytest.raises(SrbenchError, match=r"lacks 000001-00\.part"):
        checkpoints.read(tmp_path, "tiny")
    with pytest.raises(SrbenchError, match="no checkpoint"):
        checkpoints.read(tmp_path, "other")


def test_muon_s_steps_do_not_depend_on_which_shapes_stand_beside_each_other() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(6, 10), torch.randn(10, 6), torch.randn(6, 10)]
    grads = [torch.randn_like(w) for w in weights]

    def moved(order: list[int]) -> dict[int, Tensor]:
        parameters = {i: nn.Parameter(weights[i].clone()) for i in order}
        for i, p in parameters.items():
            p.grad = grads[i].clone()
        training.Muon(parameters.values(), lr=0.1).step()
        return {i: p.detach() for i, p in parameters.items()}

    together = moved([0, 1, 2])
    for i in range(3):
        assert torch.allclose(together[i], moved([i])[i], atol=2e-3)
        assert not torch.allclose(together[i], weights[i], atol=1e-2)


def test_orthogonalised_updates_have_singular_values_near_one() -> None:
    for shape in ((2, 20, 50), (2, 50, 20)):
        values = torch.linalg.svdvals(training._orthogonal(torch.randn(*shape, generator=torch.Generator().manual_seed(1))))
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.3
