"""`srbench verify`: what is right is counted, every fault is named, nothing is changed; a run makes again what was spoilt."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.errors import UsageError
from srbench.results.store import CHUNK, Store
from srbench.scoring.verify import Report, verify
from tests.worlds import World


def checked(out: Path, scores: int = 1000) -> Report:
    return verify(out, scores, 0, lambda done, of: None)


def line(report: Report, what: str) -> Any:
    return next(each for each in report.lines if each.what == what)


def first_picture(out: Path) -> Path:
    return min((out / "store" / "images").glob("*/*.png"))


def planted(path: Path, own_hash: bool = False) -> None:
    """Other pixels in a picture's place, of the same size in bytes; its record is kept, or made to fit them."""
    from srbench.results.store import pixel_sha

    size, before = path.stat().st_size, path.stat().st_mtime_ns
    with Image.open(path) as image:
        image.load()
        text, pixels = image.text[CHUNK], np.asarray(image.convert("RGB")).copy()  # type: ignore[attr-defined]
    pixels[:] = pixels[::-1, ::-1]
    if own_hash:
        text = json.dumps({**json.loads(text), "pixel_sha": pixel_sha(pixels)})
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text(CHUNK, text)
    Image.fromarray(pixels).save(path, "PNG", pnginfo=chunk, compress_level=1)
    path.write_bytes(path.read_bytes()[:size].ljust(size, b"\0"))
    os.utime(path, ns=(before, before))


def test_a_sound_folder_is_sound_and_stays_as_it_is(compared: World) -> None:
    compared.run(scorers=("gap", "cloud"), on=("none", "shift"))
    before = sorted((path, path.stat().st_mtime_ns) for path in compared.out.rglob("*"))
    found = checked(compared.out)
    assert found.faults == []
    assert line(found, "pictures").sound == len(list((compared.out / "store" / "images").glob("*/*.png")))
    assert line(found, "scores").sound == len(Store.peek(compared.out / "store").scores)
    assert line(found, "checkpoints").sound == 1
    assert line(found, "features").sound > 0
    assert line(found, "metrics").sound > 10
    assert sorted((path, path.stat().st_mtime_ns) for path in compared.out.rglob("*")) == before


def test_every_fault_is_named(compared: World) -> None:
    compared.run(scorers=("gap", "cloud"), on=("none", "shift"))
    store = compared.out / "store"
    pictures = sorted((store / "images").glob("*/*.png"))
    planted(pictures[0])
    pictures[1].write_bytes(bytes(pictures[1].stat().st_size))
    pictures[2].unlink()
    weights = next((store / "checkpoints").glob("*/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    feature = next((store / "features").rglob("*.npy"))
    np.save(feature, np.array([np.nan], np.float32))
    (run,) = (compared.out / "runs").glob("*/run.json")
    data = json.loads(run.read_text())
    metric = data["cells"][0]["result"]["metrics"]["fsr"]
    metric["value"] = (metric["value"] + metric["low"]) / 2 or 1.0
    run.write_text(json.dumps(data))
    faults = "\n".join(checked(compared.out).faults)
    for what in (
        f"{pictures[0].stem}.png: holds other pixels than its record says", f"{pictures[1].stem}.png: is damaged",
        f"{pictures[2].stem}: is in the ledger and not on disk", weights.name, "not a vector of finite numbers", "fsr is",
    ):  # fmt: skip
        assert what in faults


def test_a_score_that_was_changed_is_found(world: World) -> None:
    world.run()
    ledger = next((world.out / "store" / "ledger").glob("scores-*"))
    lines = [json.loads(each) for each in ledger.read_text().splitlines()]
    spoilt = next(each for each in lines if each["scorer"] == "brightness")
    spoilt["raw"]["objects"]["box"] += 0.01
    ledger.write_text("".join(json.dumps(each) + "\n" for each in lines))
    (fault,) = line(checked(world.out), "scores").faults
    assert spoilt["score_key"][:12] in fault
    assert line(checked(world.out, 0), "scores").faults == []


def test_a_scorer_that_is_another_one_here_is_said(world: World) -> None:
    world.run()
    identity = {"library": "none", "library_version": "1", "weights_sha256": ""}
    world.alter("closeness", identity=lambda self: identity)
    found = line(checked(world.out), "scores")
    assert not found.faults
    assert any("closeness' is another one here" in why for why in found.unsaid)


def test_the_command_and_its_exit_codes(world: World, tmp_path: Path) -> None:
    world.run()
    done = CliRunner().invoke(app, ["verify", str(world.out), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["sound"] is True
    first_picture(world.out).write_bytes(b"")
    done = CliRunner().invoke(app, ["verify", str(world.out)])
    assert done.exit_code == 1
    assert f"fault: store/images/{first_picture(world.out).parent.name}/" in done.stdout
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "absent")]).exit_code == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="neither a store nor runs"):
        checked(tmp_path / "empty")


# --- the same command makes it again ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["pixels", "pixels and hash", "zeros", "cut", "gone", "another's", "a folder"])
def test_a_spoilt_picture_is_said_and_made_again(spoil: str, world: World) -> None:
    first = world.run()
    path = first_picture(world.out)
    good = path.read_bytes()
    if spoil.startswith("pixels"):
        planted(path, own_hash="hash" in spoil)
        os.utime(path)
    elif spoil == "zeros":
        path.write_bytes(bytes(len(good)))
    elif spoil == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif spoil == "another's":
        path.write_bytes(max((world.out / "store" / "images").glob("*/*.png")).read_bytes())
    else:
        path.unlink()
    if spoil == "a folder":
        path.mkdir()
    world.lines.clear()
    again = world.run()
    assert any(path.stem[:12] in said and "sampled again" in said for said in world.lines)
    assert [cell.metrics["fsr"] for cell in again.cells] == [cell.metrics["fsr"] for cell in first.cells]
    assert line(checked(world.out), "pictures").faults == []
    assert line(checked(world.out), "scores").faults == []


def test_planted_pixels_are_never_scored(world: World) -> None:
    first = world.run(score=False)
    path = first_picture(world.out)
    planted(path)  # no younger and no larger than it was: only its pixels tell
    second = world.run()
    fresh = world.out.with_name("fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    third = world.run(out=fresh)
    assert first.exit_code == second.exit_code == 0
    assert [cell.metrics["csdr"].value for cell in second.cells] == [cell.metrics["csdr"].value for cell in third.cells]
    assert line(checked(world.out), "scores").faults == []
    assert (world.out / "store" / "damaged" / path.name).exists()
