"""Where data lies: what travels with srbench, and what the working directory adds to it."""

from __future__ import annotations

import filecmp
from pathlib import Path, PurePosixPath

from srbench.errors import UsageError, did_you_mean

KINDS = ("suites", "baselines", "results/published")
"""Data that travels with srbench and that a folder of the same name in the working directory adds to."""

PACKAGE = Path(__file__).resolve().parent.parent
_SCHEME = "package:"


def data_folder(kind: str) -> list[Path]:
    """The folders that hold `kind`, shipped one first; each exists and none is named twice.

    Raises `UsageError` for a kind that srbench does not know.
    """
    if kind not in KINDS:
        raise UsageError(f"There is no data of kind '{kind}'", did_you_mean(kind, KINDS))
    folders = [folder.resolve() for folder in (_shipped(kind), _local(kind)) if folder and folder.is_dir()]
    return list(dict.fromkeys(folders))


def files(kind: str, pattern: str = "*.yaml") -> dict[str, Path]:
    """Every file of `kind` that matches the glob `pattern`, by its path inside the folder, sorted.

    Raises `UsageError` where two folders hold different bytes under one name.
    """
    found: dict[str, Path] = {}
    for folder in data_folder(kind):
        for path in folder.glob(pattern):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                found[name] = _one_of(name, found.get(name), path)
    return dict(sorted(found.items()))


def find(kind: str, name: str) -> Path:
    """The file `name` (a path inside the folder) of `kind`.

    Raises `UsageError` where there is none, where `name` leaves the folder, or where two folders hold different
    bytes under it.
    """
    _refuse_escape(name)
    held: Path | None = None
    for folder in data_folder(kind):
        if (folder / name).is_file():
            held = _one_of(name, held, folder / name)
    if held is None:
        pattern = (PurePosixPath(name).parent / f"*{PurePosixPath(name).suffix}").as_posix()
        raise UsageError(f"There is no {name} in {kind}/", did_you_mean(name, files(kind, pattern)))
    return held


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
