"""What every test shares: no network, no terminal of ours, and where the repository is."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

# Before any test imports a hub client: these are read at import.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= {"COLUMNS": "160", "LINES": "50", "TERM": "dumb", "NO_COLOR": "1"}
os.environ.pop("FORCE_COLOR", None)
# Where bytecode is not written, every command that a test starts compiles torch anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

pytest_plugins = ("tests.worlds",)

REPOSITORY = Path(__file__).resolve().parent.parent
FIRST = (
    "pocket/test_pixels.py", "engine/test_failures.py", "backbones/test_components.py", "cli/test_signals.py", "test_api.py",
    "engine/test_ray.py", "engine/test_kill.py", "scorers/test_battery.py", "golden/test_golden.py", "test_extending.py",
    "report/test_page.py", "cli/test_cli.py", "attacks/test_whitebox.py", "engine/test_run.py", "cli/test_console.py",
    "fuzz/test_fuzz.py", "cli/test_end_to_end.py", "methods/test_saferedir_families.py", "cli/test_redirector.py",
    "pocket/test_stages.py",
)
"""The files below `tests` that take longest, longest first."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """See `tests/golden` and `tests/fuzz`."""
    parser.addoption("--write-golden", choices=("keys", "texts"), help="write the golden keys or texts instead of comparing")
    parser.addoption("--fuzz-seconds", type=int, default=60, help="how long the slow test of damaged files goes on")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, so that no process is left alone with one of them at the end."""
    places = {REPOSITORY / "tests" / name: number for number, name in enumerate(FIRST)}
    absent = [str(path) for path in places if not path.is_file()]
    assert not absent, f"FIRST in {__file__} names what is not there: {absent}"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to another machine is a failure, at once and by name."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if host and host != "localhost" and not host.startswith("127.") and host != "::1":
            pytest.fail(f"a test tried to reach {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
