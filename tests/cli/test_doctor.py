"""`srbench doctor`: what is here, what is not with the command that fetches it, and nothing that waits or tells secrets."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.engine import machine


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of their own, empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_what_is_not_here_comes_with_its_command_and_does_no_harm() -> None:
    code, out, _ = call("--json")
    lines = {name: entry["detail"] for name, entry in json.loads(out).items()}
    assert code == 0
    assert lines["backbone sd14"].startswith("not here. Fetch it: hf download CompVis/stable-diffusion-v1-4 --revision 133a221b")
    assert "hf download --repo-type dataset AIML-TUDA/i2p i2p_benchmark.csv" in lines["suite i2p/any"]
    assert "Ask for access first" in lines["suite mma/nudity"]
    assert lines["baseline rece-church"] == "not here. Fetch it: hf download ChaoGong/RECE Church_ep0.pt"
    assert "sha256" in lines["backbone pocket"]
    assert "GB of memory" in lines["machine"]
    assert "offline, as HF_HUB_OFFLINE says" in lines["hub"]


def test_it_is_one_screen_and_counts_what_nothing_needs() -> None:
    code, out, _ = call()
    assert code == 0
    assert len(out.splitlines()) <= 24
    (counted,) = [line for line in out.splitlines() if "not on this machine" in line]
    assert re.search(r"\d+ backbones, \d+ suites, \d+ baselines", counted)
    assert "srbench doctor --all" in counted
    assert "backbone pocket" in out
    assert "backbone sd14" not in out


def test_one_command_fetches_what_a_run_lacks() -> None:
    code, out, _ = call("--backbone", "sd14", "--method", "none", "--suite", "i2p", "--concept", "nudity")
    assert code == 3
    command = "srbench fetch --backbone sd14 --method none --suite i2p --concept nudity"
    assert out.splitlines()[-1] == f"what can be fetched of it: {command}"


def test_a_run_that_lacks_everything_is_exit_3_with_every_command() -> None:
    asked = ("--method", "saferedir", "--suite", "igmu", "--concept", "church", "--json")
    code, out, _ = call("--backbone", "sd14", *asked)
    missing = [entry["detail"] for name, entry in json.loads(out).items() if name.startswith("run ") and not entry["ok"]]
    assert code == 3
    said = "\n".join(missing)
    for part in (
        "hf download CompVis/stable-diffusion-v1-4", "forgot.json", "srbench train saferedir --backbone sd14 --concept church",
        "resnet50-11ad3fa6.pth",
    ):
        assert part in said, part


def test_a_run_that_can_be_is_told_so() -> None:
    code, out, _ = call("--method", "none,saferedir", "--suite", "igmu,mma", "--concept", "hazard")
    assert code == 0
    assert "ok   run: nothing is missing" in out


@pytest.mark.parametrize(("arguments", "message"), [
    (("--suite", "igum"), "Did you mean 'igmu'?"), (("--method", "safredir"), "Did you mean 'saferedir'?"),
    (("--concept", "hazzard"), "Did you mean 'hazard'?"), (("--backbone", "poket"), "Did you mean 'pocket'?"),
    (("--concept", "nudity"), "does not know concept 'nudity'"), (("--suite", "igmu", "--set", "nothing.x=1"), "nothing"),
])  # fmt: skip
def test_what_does_not_fit_is_exit_2(arguments: tuple[str, ...], message: str) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_token_is_told_of_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    _, out, err = call("--json")
    assert json.loads(out)["hub's token"] == {"ok": True, "needed": False, "detail": "one is set"}
    assert "hf_abcdefgh" not in out + err


def slow(*given: object, **how: object) -> socket.socket:
    """As looking up a name may be where there is no network."""
    time.sleep(1)
    raise OSError


def test_the_hub_s_port_is_tried_and_no_longer_than_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(machine, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert machine.hub() == (True, "127.0.0.1 can be reached")
    assert machine.hub()[0] is False, "nobody listens there any more"
    monkeypatch.setattr(machine, "CONNECT_SECONDS", 0.01)
    monkeypatch.setattr(socket, "create_connection", slow)
    assert machine.reachable("nowhere", 1) is False
    monkeypatch.setattr(machine, "getproxies", lambda: {"http": "x"})
    assert "through a proxy" in machine.hub()[1]


def test_nothing_slow_is_imported() -> None:
    """It has to answer in seconds: the pipelines and the scorers' libraries take longer than that."""
    code = (
        "import sys; from srbench.cli.main import app\n"
        "try: app(['doctor'])\nexcept SystemExit as end: assert not end.code\n"
        "print([m for m in ('diffusers', 'transformers', 'open_clip', 'timm', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
