"""Data resolution: packaged folder, else repository, plus the working directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from srbench.catalog import resolve
from srbench.errors import UsageError


def _write(path: Path, text: str = "name: x\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder of its own inside a root of its own, and a working directory beside it."""
    folder = tmp_path / "root" / "srbench"
    folder.mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(resolve, "PACKAGE", folder.resolve())
    monkeypatch.chdir(tmp_path / "work")
    return folder.resolve()


def _as_repository(package: Path) -> Path:
    _write(package.parent / "pyproject.toml", "")
    return package.parent


def test_nothing_at_hand_gives_no_folders(package: Path) -> None:
    assert resolve.data_folder("suites") == []
    assert resolve.files("suites") == {}


def test_packaged_folder_wins_over_repository(package: Path) -> None:
    root = _as_repository(package)
    _write(root / "suites" / "old.yaml")
    held = _write(package / "_data" / "suites" / "igmu.yaml")
    assert resolve.files("suites") == {"igmu.yaml": held}


def test_repository_is_used_only_where_there_is_one(package: Path) -> None:
    held = _write(package.parent / "suites" / "igmu.yaml")
    assert resolve.files("suites") == {}
    _as_repository(package)
    assert resolve.files("suites") == {"igmu.yaml": held}


@pytest.mark.parametrize("kind", resolve.KINDS)
def test_working_directory_adds(package: Path, kind: str) -> None:
    shipped = _write(package / "_data" / kind / "a.yaml")
    mine = _write(Path.cwd() / kind / "b.yaml")
    assert resolve.data_folder(kind) == [package / "_data" / kind, Path.cwd() / kind]
    assert resolve.files(kind) == {"a.yaml": shipped, "b.yaml": mine}
    assert resolve.find(kind, "b.yaml") == mine


def test_inside_the_repository_nothing_is_a_duplicate(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _as_repository(package)
    held = _write(root / "suites" / "igmu.yaml")
    monkeypatch.chdir(root)
    assert resolve.data_folder("suites") == [root / "suites"]
    assert resolve.files("suites") == {"igmu.yaml": held}


def test_a_link_to_the_shipped_folder_is_no_duplicate(package: Path) -> None:
    held = _write(package / "_data" / "suites" / "igmu.yaml")
    (Path.cwd() / "suites").symlink_to(held.parent, target_is_directory=True)
    assert resolve.data_folder("suites") == [held.parent]


def test_same_bytes_are_no_duplicate(package: Path) -> None:
    held = _write(package / "_data" / "suites" / "igmu" / "rows.json", "[]")
    _write(Path.cwd() / "suites" / "igmu" / "rows.json", "[]")
    assert resolve.find("suites", "igmu/rows.json") == held
    assert resolve.files("suites", "*/*.json") == {"igmu/rows.json": held}


@pytest.mark.parametrize("text", ["name: y\n", "name: other\n"], ids=["same size", "other size"])
def test_differing_bytes_name_both_files(package: Path, text: str) -> None:
    held = _write(package / "_data" / "suites" / "igmu.yaml", "name: x\n")
    mine = _write(Path.cwd() / "suites" / "igmu.yaml", text)
    for ask in (lambda: resolve.find("suites", "igmu.yaml"), lambda: resolve.files("suites")):
        with pytest.raises(UsageError) as caught:
            ask()
        assert str(held) in caught.value.message
        assert str(mine) in caught.value.message
        assert caught.value.exit_code == 2
        assert caught.value.hint


def test_a_conflict_elsewhere_does_not_block_a_file(package: Path) -> None:
    _write(package / "_data" / "suites" / "igmu.yaml", "name: x\n")
    _write(Path.cwd() / "suites" / "igmu.yaml", "name: y\n")
    held = _write(package / "_data" / "suites" / "mma.yaml")
    assert resolve.find("suites", "mma.yaml") == held


def test_a_missing_file_gets_a_suggestion(package: Path) -> None:
    _write(package / "_data" / "suites" / "igmu.yaml")
    with pytest.raises(UsageError) as caught:
        resolve.find("suites", "imgu.yaml")
    assert "imgu.yaml" in caught.value.message
    assert "'igmu.yaml'" in caught.value.hint


def test_an_unknown_kind_gets_a_suggestion(package: Path) -> None:
    with pytest.raises(UsageError, match="suite"):
        resolve.data_folder("suite")


@pytest.mark.parametrize("name", ["", "../secret.yaml", "a/../../b.yaml", "/etc/passwd", "..\\b.yaml"])
def test_names_stay_inside(package: Path, name: str) -> None:
    with pytest.raises(UsageError):
        resolve.find("suites", name)
    with pytest.raises(UsageError):
        resolve.package_path(f"package:{name}")


def test_a_removed_working_directory_is_survived(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = _write(package / "_data" / "suites" / "igmu.yaml")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert resolve.find("suites", "igmu.yaml") == held


def test_package_path(package: Path) -> None:
    assert resolve.package_path("package:pocket/model") == package / "pocket" / "model"


def test_package_path_wants_its_scheme(package: Path) -> None:
    with pytest.raises(UsageError, match="pocket/model"):
        resolve.package_path("pocket/model")


def test_the_real_repository_has_suites(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"igmu.yaml", "mma.yaml"} <= set(resolve.files("suites"))
