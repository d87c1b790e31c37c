"""The wheel and the editable install: both complete, both alike, wherever they are run from."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import srbench

BUILD = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d"]
DATA = ("suites", "baselines", "results/published")
SLOW_IMPORTS = ("torch", "transformers", "diffusers", "pandas", "scipy", "onnxruntime")

HEADER_BYTES = 1 << 16
MOST_BYTES = 60_000_000

# Absolute paths below a machine's own folders, and hosts of package registries. Split, so that this file passes.
_FOLDERS = "|".join(("root", "work", "home", "Users", "mnt", "opt", "scratch", "private"))
_HOSTS = "|".join(("py" + "pi", "python" + "hosted", "npm" + "js", "registry" + r"\.yarn" + "pkg"))
PRIVATE = re.compile(rb"(?<![\w.:/~)}>-])/(?:%b)/[\w.]|\b(?:%b)\.(?:org|com)\b" % (_FOLDERS.encode(), _HOSTS.encode()))


def _environment() -> dict[str, str]:
    """Ours, without anything that points Python or pip somewhere."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))}


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _tracked(repository: Path) -> list[str]:
    """Files that git has or would take; all of them where this is no git work tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (repository / ".git").exists():
        names = _run(command, repository).split("\0")
        return sorted({name for name in names if name and (repository / name).is_file()})
    skipped = {".venv", "__pycache__", ".pytest_cache"}
    paths = [p.relative_to(repository) for p in repository.rglob("*") if p.is_file()]
    return sorted(p.as_posix() for p in paths if not skipped & set(p.parts))


def _environment_with(folder: Path, *install: str) -> Path:
    """A virtual environment of its own that sees our dependencies but not our srbench; returns its `bin`."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
    bin_folder = folder / "bin"
    (site,) = folder.glob("lib/python*/site-packages")
    ours = [p for p in sys.path if p.endswith("site-packages")]
    # A path named in a .pth file is searched, but .pth files inside it are not read: no editable srbench leaks in.
    (site / "dependencies.pth").write_text("\n".join(ours) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(bin_folder / "python"), "install", "--quiet", "--no-deps", "--no-index"]
    _run([*pip, "--no-build-isolation", *install], folder.parent)
    return bin_folder


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the work tree."""
    folder = tmp_path_factory.mktemp("wheel")
    _run([*BUILD, str(folder)], repository)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment with the wheel."""
    return _environment_with(tmp_path_factory.mktemp("installed") / "env", str(wheel))


@pytest.fixture(scope="module")
def editable(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment with an editable install of the repository."""
    return _environment_with(tmp_path_factory.mktemp("editable") / "env", "--editable", str(repository))


def _home(bin_folder: Path, folder: Path) -> Path:
    return Path(_run([str(bin_folder / "python"), "-c", "import srbench; print(srbench.__file__)"], folder).strip())


def _listed(bin_folder: Path, folder: Path) -> dict:
    return json.loads(_run([str(bin_folder / "srbench"), "list", "--json"], folder))


NOT_IN_WHEEL = ("srbench/pocket_build/", "srbench/pocket/build/")
"""What builds the bundled model: only a clone has it."""


def test_wheel_holds_all_data_and_the_whole_package(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    names = _tracked(repository)
    package = {name for name in names if name.startswith("srbench/") and not name.startswith(NOT_IN_WHEEL)}
    data = {f"srbench/_data/{name}" for name in names if name.startswith(tuple(f"{kind}/" for kind in DATA))}
    assert package
    assert data
    assert package | data <= held
    assert not {name for name in held if name.startswith(NOT_IN_WHEEL)}


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == {"srbench", f"srbench-{srbench.__version__}.dist-info"}
    assert srbench.__version__ in wheel.name


def test_wheel_stays_small(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES


def test_wheel_and_editable_install_list_the_same(installed: Path, editable: Path, repository: Path, tmp_path: Path) -> None:
    assert installed.parent in _home(installed, tmp_path).parents
    assert _home(editable, tmp_path) == repository / "srbench" / "__init__.py"
    from_wheel = _listed(installed, tmp_path)
    assert from_wheel == _listed(editable, tmp_path)
    assert {"igmu", "mma"} <= {entry if isinstance(entry, str) else entry["name"] for entry in from_wheel["suites"]}


def test_wheel_in_the_repository_sees_no_duplicates(installed: Path, repository: Path, tmp_path: Path) -> None:
    assert _listed(installed, repository) == _listed(installed, tmp_path)


def test_a_suite_in_the_working_directory_is_added(installed: Path, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "suites").mkdir()
    text = (repository / "suites" / "igmu.yaml").read_text()
    (tmp_path / "suites" / "mine.yaml").write_text(re.sub(r"(?m)^name:.*$", "name: mine", text))
    known = {entry if isinstance(entry, str) else entry["name"] for entry in _listed(installed, tmp_path)["suites"]}
    assert {"igmu", "mma", "mine"} <= known


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--json"], ["run", "--help"]], ids=" ".join)
def test_nothing_slow_is_imported(arguments: list[str], repository: Path) -> None:
    code = (
        "import sys\n"
        "from srbench.cli.main import main\n"
        f"sys.argv = ['srbench', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('imported:', *[m for m in {SLOW_IMPORTS!r} if m in sys.modules])\n"
    )
    assert _run([sys.executable, "-c", code], repository).splitlines()[-1].strip() == "imported:"


def _readable(path: Path) -> bytes:
    """All of a text file; the head of a binary one, where headers and metadata stand."""
    data = path.read_bytes()
    return data[:HEADER_BYTES] if b"\0" in data[:HEADER_BYTES] else data


def test_no_tracked_file_names_a_machine(repository: Path) -> None:
    names = _tracked(repository)
    found = [f"{name}: {match[0]!r}" for name in names for match in PRIVATE.finditer(_readable(repository / name))]
    assert not found


@pytest.mark.parametrize("text", [b'"/ro' + b'ot/venv"', b"see /wor" + b"k/main", b"=/ho" + b"me/me", b"//py" + b"pi.org"])
def test_the_pattern_sees_machines(text: bytes) -> None:
    assert PRIVATE.search(text)


@pytest.mark.parametrize("text", [b"results/home/x", b"https://example.com/home/x", b"a/work/b", b"../root/x"])
def test_the_pattern_leaves_others_alone(text: bytes) -> None:
    assert not PRIVATE.search(text)
