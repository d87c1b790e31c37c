"""Where a baseline lies: paths, the hub's cache, the download folder, and the command for what is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from srbench.backbones import places
from srbench.catalog.specs import BaselineSpec
from srbench.errors import MissingError

HUB = "org/Name.x-1"
COMMIT = "c" * 40


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without caches, in an empty folder."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec(source: str = HUB, kind: str = "unet", **changes: str) -> BaselineSpec:
    fields = {"name": "b", "title": "t", "family": "sd", "concept": "church", "sha256": "unverified", "licence": "MIT"}
    return BaselineSpec.model_validate(fields | {"source": source, "kind": kind} | changes)


def cached(hub: Path, *files: str, revision: str = "main") -> Path:
    """A hub repository as huggingface_hub caches it."""
    model = hub / "models--org--Name.x-1"
    for file in files:
        path = model / "snapshots" / COMMIT / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (model / "refs").mkdir(parents=True, exist_ok=True)
    (model / "refs" / revision).write_text(COMMIT)
    return model / "snapshots" / COMMIT


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (spec(kind="pipeline"), f"hf download {HUB}"),
        (spec(file="nudity_ep2.pt"), f"hf download {HUB} nudity_ep2.pt"),
        (spec(subfolder="church", kind="text_encoder"), f"hf download {HUB} --include 'church/*'"),
        (spec(subfolder="models", file="a b.pt"), f"hf download {HUB} 'models/a b.pt'"),
        (spec(file="x.pt", revision=COMMIT), f"hf download {HUB} x.pt --revision {COMMIT}"),
    ],
)
def test_the_hubs_command(given: BaselineSpec, command: str) -> None:
    assert places.command(given) == command
    assert not places.at_hand(given)
    with pytest.raises(MissingError) as caught:
        places.locate(given)
    assert caught.value.hint == f"Fetch it: {command}"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("given", "files", "found"),
    [
        (spec(file="x.pt"), ["x.pt"], "x.pt"),
        (spec(subfolder="a", file="x.pt"), ["a/x.pt"], "a/x.pt"),
        (spec(subfolder="a", kind="text_encoder"), ["a/config.json", "a/pytorch_model.bin"], "a"),
        (spec(kind="pipeline"), ["model_index.json", "unet/diffusion_pytorch_model.safetensors"], "."),
        (spec(kind="lora"), ["pytorch_lora_weights.safetensors"], "."),
        (spec(kind="lora", file="y.safetensors"), ["y.safetensors"], "y.safetensors"),
    ],
)
def test_what_the_hubs_cache_holds(home: Path, given: BaselineSpec, files: list[str], found: str) -> None:
    snapshot = cached(home / ".cache/huggingface/hub", *files)
    assert places.locate(given) == snapshot / found
    assert places.at_hand(given)


@pytest.mark.parametrize("given", [
    spec(file="y.pt"), spec(subfolder="b", kind="text_encoder"), spec(file="x.pt", revision="other"), spec(kind="pipeline"),
    spec(subfolder="a", kind="text_encoder"),
])  # fmt: skip
def test_another_file_revision_or_half_a_repository_is_not_at_hand(home: Path, given: BaselineSpec) -> None:
    cached(home / ".cache/huggingface/hub", "x.pt", "a/config.json", "README.md")
    assert not places.at_hand(given)


def test_a_pinned_revision_is_found(home: Path) -> None:
    cached(home / ".cache/huggingface/hub", "x.pt", revision="v1")
    assert places.at_hand(spec(file="x.pt", revision="v1"))
    assert places.at_hand(spec(file="x.pt", revision=COMMIT))
    assert not places.at_hand(spec(file="x.pt"))


@pytest.mark.parametrize(("variable", "inner"), [
    ("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub"),
])  # fmt: skip
def test_the_hubs_variables_are_heard(home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, inner: str) -> None:
    monkeypatch.setenv(variable, str(home / "elsewhere"))
    cached(home / "elsewhere" / inner, "x.pt")
    assert places.at_hand(spec(file="x.pt"))


URL = "https://example.org/weights/art%20of/x-1.pt?download=true"


def test_a_url_is_looked_for_in_the_download_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = spec(URL)
    assert places.download_path(given) == home / ".cache/srbench/baselines/x-1.pt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "my cache"))
    path = home / "my cache/srbench/baselines/x-1.pt"
    assert places.command(given) == f"curl -fL --create-dirs -o '{path}' '{URL}'"
    assert not places.at_hand(given)
    path.parent.mkdir(parents=True)
    path.write_text("x")
    assert places.locate(given) == path


def test_a_path(home: Path) -> None:
    (home / "models").mkdir()
    (home / "models" / "x.pt").write_text("x")
    assert places.locate(spec("~/models/x.pt")) == home / "models/x.pt"
    assert places.locate(spec("~/models", file="x.pt")) == home / "models/x.pt"
    assert places.locate(spec("~/models")) == home / "models"
    with pytest.raises(MissingError) as caught:
        places.locate(spec("~/models/y.pt"))
    assert "source:" in caught.value.hint
    assert places.command(spec("~/models/y.pt")) == ""


def test_a_folder_of_that_name_goes_before_the_hub(home: Path) -> None:
    (home / HUB).mkdir(parents=True)
    (home / HUB / "x.pt").write_text("x")
    assert places.locate(spec(file="x.pt")) == Path(HUB) / "x.pt"


@pytest.mark.parametrize("changes", [{"file": "../x.pt"}, {"subfolder": "../a"}, {"file": "/etc/x.pt"}])
def test_nothing_outside_the_source_is_named(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="no path inside its source"):
        spec(**changes)


def test_looking_imports_neither_torch_nor_a_hub_client() -> None:
    code = (
        "import sys; from srbench.backbones import places; from srbench.catalog import load\n"
        "found = [places.at_hand(spec) for spec in load.baselines().values()]\n"
        "assert found\n"
        "assert not {'torch', 'huggingface_hub', 'diffusers'} & set(sys.modules), 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
