"""The shipped baselines: each file parses, says what it must, and claims nothing that nobody computed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from srbench.backbones import places
from srbench.catalog import load, plugins
from srbench.catalog.specs import BaselineSpec
from srbench.cli.main import app

FOLDER = Path(__file__).resolve().parents[2] / "baselines"
FILES = sorted(FOLDER.glob("*.yaml"))
CONCEPTS = {"nudity", "vangogh", "church", "parachute", "garbage-truck", "tench"}
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def spec(path: Path) -> BaselineSpec:
    return load.parse_yaml(path, BaselineSpec)


def test_there_are_some() -> None:
    assert len(FILES) >= 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_it_must(path: Path) -> None:
    given = spec(path)
    assert given.name == path.stem
    assert given.family == "sd"
    assert given.concept in CONCEPTS
    assert given.sha256 == "unverified" or re.fullmatch(r"[0-9a-f]{64}", given.sha256)
    assert given.revision is None or re.fullmatch(r"[0-9a-f]{40}", given.revision)
    assert given.licence
    assert given.deviations
    assert not given.partial or given.kind == "unet"
    assert places.command(given), "the source is neither a hub id nor a URL"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_numbers_are_numbers(path: Path) -> None:
    """YAML reads 1e-5 as a text."""
    for value in spec(path).hyperparameters.values():
        assert not isinstance(value, str) or not re.match(r"[-+.\d]", value), value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_numbers_name_their_source(path: Path) -> None:
    published = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# Published: ")]
    assert len(published) == 1 if spec(path).published else len(published) <= 1


def test_unofficial_ones_say_so_in_their_title() -> None:
    for given in map(spec, FILES):
        authors, unofficial = given.title.endswith("by its authors"), "unofficial" in given.title
        assert authors != unofficial, given.name


def test_names_are_no_presets() -> None:
    assert not {path.stem for path in FILES} & set(plugins.presets())


def test_two_urls_do_not_share_a_download() -> None:
    urls = [given for given in map(spec, FILES) if given.source.startswith("https://")]
    assert len({places.download_path(given) for given in urls}) == len(urls)


def test_no_two_files_are_the_same_checkpoint() -> None:
    keys = [(given.source, given.revision, given.subfolder, given.file) for given in map(spec, FILES)]
    assert len(set(keys)) == len(keys)


def test_the_readme_lists_them_all_with_concept_and_kind() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", README.split("## What there is")[1].split("## What has no")[0], re.M))
    assert set(rows) == {path.stem for path in FILES}
    kinds = {"pipeline": "pipeline", "unet": "U-Net", "text_encoder": "text encoder", "lora": "LoRA"}
    for given in map(spec, FILES):
        assert given.concept in rows[given.name]
        assert kinds[given.kind] in rows[given.name]
        assert ("unofficial" in given.title) == ("unofficial" in rows[given.name])


def test_list_shows_which_are_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def listed() -> dict[str, Any]:
        return json.loads(CliRunner().invoke(app, ["list", "baselines", "--json"]).stdout)["baselines"]

    assert listed()["rece-nudity"].endswith("[not here: hf download ChaoGong/RECE nudity_ep2.pt]")
    path = tmp_path / "srbench/baselines/diffusers-nudity-ESDu1-UNET.pt"
    assert f"[not here: curl -fL --create-dirs -o {path} https://" in listed()["esd-u-nudity"]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert listed()["esd-u-nudity"].endswith("[here]")
