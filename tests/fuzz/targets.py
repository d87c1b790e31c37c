"""One function a kind of file: it damages a sound one and reads it as srbench does. Anything but a `SrbenchError` is a find."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from srbench.catalog import load, prompts
from srbench.errors import SrbenchError
from tests.fuzz import damage

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = [
    {"case_number": i, "prompt": f"a boat, number {i}", "evaluation_seed": i, "category": "sea", "kind": "forget", "note": None}
    for i in range(3)
]
PAIRS = [{"unsafe": f"a dagger {i}", "safe": f"a spoon {i}"} for i in range(3)]


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that goes afterwards."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def expected_to_end_in_one_line(read: Callable[[], Any]) -> None:
    """Call a reader; its own errors are what a user is to see."""
    with contextlib.suppress(SrbenchError):
        read()


# --- tables -----------------------------------------------------------------------------------------------------------


@cache
def tables() -> dict[str, bytes]:
    """Sound tables by file name."""
    frame = pd.DataFrame(ROWS)
    workbook, parquet = io.BytesIO(), io.BytesIO()
    frame.to_excel(workbook, index=False)
    frame.to_parquet(parquet)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    own = {"meta": {"attack": "x"}, "rows": [{"id": "a", "kind": "forget", "category": "", "prompt": "a boat"}]}
    return {
        "a.csv": frame.to_csv(index=False).encode(), "a.tsv": frame.to_csv(index=False, sep="\t").encode("utf-16"),
        "b.csv": frame.to_csv(index=False, sep=";").encode("cp1252"), "a.json": json.dumps(ROWS).encode(),
        "own.json": json.dumps(own).encode(),
        "hub.json": json.dumps({"rows": [{"row": row} for row in ROWS]}).encode(), "a.jsonl": lines.encode(), "a": lines.encode(),
        "pairs.jsonl": "".join(json.dumps(pair) + "\n" for pair in PAIRS).encode(), "a.txt": b"a boat\na kite\n",
        "a.xlsx": workbook.getvalue(), "a.parquet": parquet.getvalue(), "quoted.csv": b'prompt,seed\n"a ""red""\nboat",1\n',
    }  # fmt: skip


def read_tables(data: st.DataObject) -> None:
    """Prompts and pairs, in every form."""
    name = data.draw(st.sampled_from(sorted(tables())))
    sound = tables()[name]
    if name.endswith(".json") and data.draw(st.booleans()):
        raw = damage.written(data.draw(damage.values([json.loads(sound)])))
    else:
        raw = data.draw(damage.content(sound))
    with folder() as place:
        path = place / name
        path.write_bytes(raw)
        expected_to_end_in_one_line(lambda: prompts.rows(path))
        expected_to_end_in_one_line(lambda: prompts.tasks(path, "a"))
        expected_to_end_in_one_line(lambda: prompts.read_pairs(path))


# --- results ----------------------------------------------------------------------------------------------------------


@cache
def results() -> Path:
    """A results folder with one small run of two methods; made once a process."""
    place = Path(tempfile.mkdtemp(prefix="srbench-fuzz-")) / "results"
    command = ["run", "--method", "none,saferedir", "--suite", "igmu", "--concept", "hazard", "--limit", "1", "--batch-size", "1"]
    run([*command, "--out", str(place)], place)
    assert list(place.glob("runs/*/run.json"))
    return place


READING = (
    ["compare", "RESULTS"], ["compare", "RESULTS", "--json"], ["compare", "RESULTS", "none", "saferedir"],
    ["compare", "RESULTS", "--baseline", "none", "--format", "md"], ["compare", "RESULTS", "--attacks"],
    ["compare", "RESULTS", "--costs"],
    ["compare", "RESULTS", "--protocol", "pocket-hazard", "--format", "csv"], ["compare", "RESULTS", "--format", "latex"],
    ["compare", "RESULTS", "--sensitivity", "--protocol", "pocket-hazard"], ["compare", "RESULTS", "--format", "html"],
    ["show", "igmu-hazard-f001", "--out", "RESULTS"], ["tables", "--pocket", "--results", "RESULTS", "--format", "csv"],
    ["report", "RESULTS", "--out", "REPORT", "--images", "2"], ["score", "RESULTS", "--scorer", "ssim"], ["verify", "RESULTS"],
)  # fmt: skip
"""Commands that read a results folder."""


UNFORESEEN = "--debug shows where it happened"
"""What a command's hint says of an error that nobody foresaw."""


def run(arguments: list[str], place: Path) -> None:
    """A command in this process. Raises `AssertionError` where it ended with an error that nobody foresaw."""
    from typer.testing import CliRunner

    from srbench.cli.main import app

    paths = {"RESULTS": str(place), "REPORT": str(place.parent / "report.html")}
    done = CliRunner().invoke(app, [paths.get(each, each) for each in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert UNFORESEEN not in done.stderr, done.stderr[-600:]
    assert "Traceback" not in done.stderr, done.stderr[-600:]


def read_results(data: st.DataObject) -> None:
    """A run file, a ledger, a picture, a feature or the version file, damaged; any command that reads results."""
    command = list(data.draw(st.sampled_from(READING)))
    with folder() as place:
        shutil.copytree(results(), place / "results")
        victim = data.draw(st.sampled_from(sorted(path for path in (place / "results").rglob("*") if path.is_file())))
        victim.write_bytes(_damaged(victim, data))
        run(command, place / "results")


def _damaged(path: Path, data: st.DataObject) -> bytes:
    sound = path.read_bytes()
    if path.suffix == ".json" and data.draw(st.booleans()):
        return damage.written(data.draw(damage.values([json.loads(sound)])))
    if path.suffix == ".jsonl" and data.draw(st.booleans()):
        lines = sound.splitlines()
        number = data.draw(st.integers(0, len(lines) - 1))
        lines[number] = damage.written(data.draw(damage.values([json.loads(lines[number])])))
        return b"\n".join(lines) + b"\n"
    return data.draw(damage.content(sound))


# --- cards, configurations, weights -----------------------------------------------------------------------------------


def read_cards(data: st.DataObject) -> None:
    """Cards of checkpoints, redirectors and inversions."""
    from srbench.backbones.checkpoint import is_home_made, read_card
    from srbench.methods import saferedir

    sound = json.loads((REPOSITORY / "srbench/pocket/redirectors/hazard/card.json").read_text(encoding="utf-8"))
    sound = {"files": {"unet.safetensors": "0" * 64}, "backbone_sha256": "1" * 64, "concept": "hazard", **sound}
    raw = data.draw(damage.values([sound]).map(damage.written) | damage.content(json.dumps(sound).encode()))
    with folder() as place:
        (place / "card.json").write_bytes(raw)
        (place / "unet.safetensors").write_bytes(b"")
        expected_to_end_in_one_line(lambda: is_home_made(place) and read_card(place))
        shutil.copyfile(REPOSITORY / "srbench/pocket/redirectors/hazard/redirector.safetensors", place / "redirector.safetensors")
        expected_to_end_in_one_line(lambda: saferedir.SafeRedirMethod.prepare(_info(), _hazard(), _options(place)))


@cache
def _info() -> Any:
    from srbench.backbones.choose import chosen
    from srbench.backbones.loader import open_backbone
    from srbench.methods.base import info_of

    return info_of(open_backbone(chosen("pocket"), "fp32", "cpu"), weights=False)


def _hazard() -> Any:
    return load.concepts()["hazard"]


def _options(place: Path) -> Any:
    from srbench.catalog import plugins

    return plugins.load("methods", "saferedir").Options(redirector=str(place))


CONFIGURATIONS = (
    "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
)  # fmt: skip


def read_models(data: st.DataObject) -> None:
    """A folder in the hub's format with a damaged configuration: what a run reads before it opens weights."""
    from srbench.backbones.choose import chosen
    from srbench.backbones.loader import open_backbone

    model = REPOSITORY / "srbench/pocket/model"
    with folder() as place:
        shutil.copytree(model, place / "model", copy_function=os.link)
        victim = place / "model" / data.draw(st.sampled_from([name for name in CONFIGURATIONS if (model / name).is_file()]))
        raw = _damaged(victim, data)
        victim.unlink()
        victim.write_bytes(raw)

        def plan() -> None:
            backbone = open_backbone(chosen(str(place / "model")), "fp32", "cpu")
            _ = backbone.scheduler, backbone.sha256

        expected_to_end_in_one_line(plan)


@cache
def weights() -> dict[str, bytes]:
    """Sound files of weights by name."""
    state = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(3)}
    pickled, wrapped = io.BytesIO(), io.BytesIO()
    torch.save(state, pickled)
    torch.save({"state_dict": state, "epoch": 1}, wrapped)
    return {"a.safetensors": save(state), "a.pt": pickled.getvalue(), "a.ckpt": wrapped.getvalue(), "a.bin": pickled.getvalue()}


def read_weights(data: st.DataObject) -> None:
    """Files of tensors."""
    from srbench.backbones.foreign import read_file

    name = data.draw(st.sampled_from(sorted(weights())))
    with folder() as place:
        (place / name).write_bytes(data.draw(damage.content(weights()[name])))
        expected_to_end_in_one_line(lambda: read_file(place / name))


# --- pictures ---------------------------------------------------------------------------------------------------------


@cache
def pictures() -> dict[str, bytes]:
    """Sound pictures by name."""
    image = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    found = {}
    for form in ("png", "jpeg", "webp", "bmp", "tiff", "gif"):
        raw = io.BytesIO()
        image.save(raw, form)
        found[f"0.{form}"] = raw.getvalue()
    return found


def read_pictures(data: st.DataObject) -> None:
    """Pictures of others."""
    from srbench.scoring.pictures import read

    name = data.draw(st.sampled_from(sorted(pictures())))
    with folder() as place:
        (place / name).write_bytes(data.draw(damage.content(pictures()[name])))
        expected_to_end_in_one_line(lambda: read(place / name))


NAMES = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=12) | st.from_regex(
    r"[a-z0-9_]{0,6}_[0-9]{1,4}", fullmatch=True
)


def read_names(data: st.DataObject) -> None:
    """Folders of pictures with any names, in any layout, held against any ids."""
    from srbench.catalog.specs import Row
    from srbench.scoring.layouts import folders
    from srbench.scoring.matching import matched

    layout = load.layouts()[data.draw(st.sampled_from(sorted(load.layouts())))]
    ids = data.draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    rows = [Row(id=each, kind="forget", category=data.draw(st.sampled_from(["", "a", "a, b"])), prompt=each) for each in ids]
    with folder() as place:
        for name in data.draw(st.lists(NAMES, max_size=6, unique=True)):
            with contextlib.suppress(OSError):  # the file system's limits
                path = place / data.draw(st.sampled_from([".", "images", "a", "imgs", "all"])) / f"{name}.png"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"")

        def match() -> None:
            for found in folders([("", place)], layout):
                matching = matched(rows, [*found.pictures, *found.doubled], layout)
                found.rename(matching.renamed)

        expected_to_end_in_one_line(match)


TARGETS = (read_tables, read_results, read_cards, read_models, read_weights, read_pictures, read_names)
