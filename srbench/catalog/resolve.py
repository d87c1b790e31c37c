"""Finds data files: those shipped with srbench, in installed packages, and in the working directory."""

from __future__ import annotations

import filecmp
import importlib.metadata
import importlib.util
import sys
from functools import cache
from pathlib import Path, PurePosixPath

from srbench.errors import UsageError, did_you_mean

KINDS = ("suites", "baselines", "results/published")
"""Data shipped with srbench; a folder of the same name in the working directory adds to it."""
OWN_KINDS = ("concepts", "protocols", "layouts", "backbones")
"""Specs inside the package; folders of these names in the working directory or in an installed package add to them."""
GROUP = "srbench.data"
"""Entry points of packages that have such folders, including `suites` and `baselines`."""

PACKAGE = Path(__file__).resolve().parent.parent
_SCHEME = "package:"


def data_folder(kind: str) -> list[Path]:
    """The existing folders that hold `kind`, the shipped one first, without duplicates.

    Raises `UsageError` for a kind that srbench does not know.
    """
    if kind not in KINDS:
        raise UsageError(f"There is no data of kind '{kind}'", did_you_mean(kind, KINDS))
    candidates = (_shipped(kind), *_packaged(kind), _local(kind))
    folders = [folder.resolve() for folder in candidates if folder and folder.is_dir()]
    return list(dict.fromkeys(folders))


def own_files(kind: str) -> list[Path]:
    """Spec files of installed packages, then of the working directory, without duplicates."""
    folders = dict.fromkeys(folder.resolve() for folder in (*_packaged(kind), _local(kind)) if folder and folder.is_dir())
    return [path for folder in folders for path in sorted(folder.glob("*.yaml"))]


def spec_files(kind: str) -> list[Path]:
    """The spec files of `suites` or `baselines`, the shipped ones first; of files with the same bytes and name one."""
    paths: list[Path] = []
    for folder in data_folder(kind):
        for path in sorted(folder.glob("*.yaml")):
            if not any(path.name == each.name and filecmp.cmp(path, each, shallow=False) for each in paths):
                paths.append(path)
    return paths


def entry_points(group: str) -> importlib.metadata.EntryPoints:
    """Installed entry points of a group. Packages' metadata is read once for it, and again where a folder of the path changed."""
    return _entry_points(group, tuple((place, _changed_ns(place)) for place in sys.path))


@cache
def _entry_points(group: str, path: tuple[tuple[str, int], ...]) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=group)


def _changed_ns(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns
    except (OSError, ValueError):
        return 0


def _packaged(kind: str) -> list[Path]:
    """The folder `kind` of every package named by an entry point of `GROUP`; the package is not imported."""
    folders = []
    for entry in sorted(entry_points(GROUP), key=lambda each: (each.name, each.value)):
        name = entry.value.split(":")[0].strip()
        try:
            spec = importlib.util.find_spec(name.partition(".")[0])
        except (ImportError, ValueError):
            spec = None
        places = (spec.submodule_search_locations or ()) if spec is not None else ()
        if not places:
            raise UsageError(f"entry point '{entry.name}' of {GROUP}: no package '{name}'", "Reinstall or remove it.")
        folders += [Path(place, *name.split(".")[1:]) / kind for place in places]
    return folders


def files(kind: str, pattern: str = "*.yaml") -> dict[str, Path]:
    """Every file of `kind` that matches the glob `pattern`, by its path inside the folder, sorted.

    Raises `UsageError` where two folders hold different bytes under one name.
    """
    paths: dict[str, Path] = {}
    for folder in data_folder(kind):
        for path in folder.glob(pattern):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                paths[name] = _one_of(name, paths.get(name), path)
    return dict(sorted(paths.items()))


def find(kind: str, name: str) -> Path:
    """The file `name` (a path inside the folder) of `kind`.

    Raises `UsageError` where there is none, where `name` leaves the folder, or where two folders hold different
    bytes under it.
    """
    _refuse_escape(name)
    path: Path | None = None
    for folder in data_folder(kind):
        if (folder / name).is_file():
            path = _one_of(name, path, folder / name)
    if path is None:
        pattern = (PurePosixPath(name).parent / f"*{PurePosixPath(name).suffix}").as_posix()
        raise UsageError(f"There is no {name} in {kind}/", did_you_mean(name, files(kind, pattern)))
    return path


def package_path(source: str) -> Path:
    """`package:pocket/model` -> that folder inside the installed package, whether it exists or not.

    Raises `UsageError` for anything that is not a path inside the package.
    """
    if not source.startswith(_SCHEME):
        raise UsageError(f"'{source}' is not a path inside the package", f"Write it as {_SCHEME}<folder>.")
    inner = source.removeprefix(_SCHEME)
    _refuse_escape(inner)
    return PACKAGE / inner


def _shipped(kind: str) -> Path | None:
    """The packaged folder, else the repository's: an editable install does not see force-included files."""
    packaged = PACKAGE / "_data" / kind
    if packaged.is_dir():
        return packaged
    root = PACKAGE.parent
    return root / kind if (root / "pyproject.toml").is_file() else None


def _local(kind: str) -> Path | None:
    try:
        return Path.cwd() / kind
    except FileNotFoundError:  # the working directory was removed under us
        return None


def _one_of(name: str, shipped: Path | None, other: Path) -> Path:
    if shipped is None or shipped.samefile(other) or filecmp.cmp(shipped, other, shallow=False):
        return shipped or other
    raise UsageError(
        f"{name} exists twice with different contents: {shipped} and {other}",
        "Rename or remove the one in the working directory, or run srbench elsewhere.",
    )


def _refuse_escape(name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise UsageError(f"'{name}' is not a path inside a data folder", "Write it relative to the folder, without '..'.")
