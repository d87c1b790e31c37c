"""Loads a suite's rows for a backbone and concept: shipped ones, the user's own file, or a download on this machine.

Nothing here uses the network: for a missing file the error names the command that fetches it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from srbench.catalog import load, prompts
from srbench.catalog.specs import ANY, UNVERIFIED, Edition, Row, SourceFile, SuiteSpec
from srbench.downloads import Download
from srbench.errors import MissingError, UsageError

DATA = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx", ".txt")
HIGH_GUIDANCE = 30.0
"""Guidance above this is flagged: I2P's rows go up to 255, while nearly all have 7 (facts 5.1)."""
PUBLISHED_SIZE = 512
"""Other image sizes are flagged, in px: every published suite is made for this one."""


@dataclass(frozen=True)
class Given:
    """The user's options for a suite's rows."""

    prompts: Path | None = None
    """The user's copy of the suite: its file, or a folder with its files."""
    accept: bool = False
    """Whether a copy that differs from the published one is accepted."""
    categories: tuple[str, ...] = ()
    """Only rows of these categories; all where empty."""
    columns: tuple[tuple[str, str], ...] = ()
    """(row field, column of the user's file that holds it)."""


NOTHING = Given()


@dataclass(frozen=True)
class Found:
    """An edition's rows, with the notes and flags about them."""

    rows: tuple[Row, ...]
    meta: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    sha256: tuple[str, ...] = ()
    """Of the files that they were read from; empty where srbench ships them."""
    notes: tuple[str, ...] = ()
    """Printed below every table of them."""
    flags: tuple[str, ...] = ()
    """Unusual values that were kept as they are."""
    variant: tuple[str, ...] = ()
    """How they differ from the suite's own rows."""
    told: tuple[str, ...] = ()
    """Lines to print: which columns of each file were read as what, and which were not read."""
    others: prompts.Others = field(default_factory=dict)
    """Row id -> texts of the row's line that are in no field of it; the content filter reads them too."""


def rows(suite: SuiteSpec, which: Edition, options: Given = NOTHING) -> Found:
    """An edition's rows.

    Raises `MissingError` with the command that fetches a missing file. Raises `UsageError` for a git-lfs pointer, a damaged
    file, a category that no row has, and, unless `options.accept`, a sha256 or row count other than the published one.
    """
    if which.file and options.prompts:
        raise UsageError(
            f"suite '{suite.name}' ships its prompts for {which.family}; --prompts has no place in it",
            "Leave --suite out: the file is then a suite of its own.",
        )
    if options.columns and not options.prompts:
        raise UsageError("--column says how a file of yours is read", "Add --prompts FILE.")
    if which.file:
        file = load.rows(suite, which)
        loaded = Found(file.rows, file.meta)
    else:
        loaded = _read(suite, which, options)
    chosen = prompts.of_categories(loaded.rows, options.categories)
    only = (f"category={'+'.join(options.categories)}",) if options.categories else ()
    return replace(loaded, rows=chosen, flags=_flags(chosen), variant=(*loaded.variant, *only))


def own(path: Path, columns: prompts.Columns | None = None) -> SuiteSpec:
    """A suite made from the user's own file, named after it. Raises `UsageError` for a file without prompts.

    columns: row field -> the file's column, as the user chose it.

    Rows with a target make it an attack suite; rows whose prompt is their target add the metrics `pre` and `post`. It fits any
    family and concept.
    """
    if path.stem in load.suites():
        hint = f"--suite {path.stem} if it is your copy of that suite; else give the file another name."
        raise UsageError(f"--prompts {path.name}: '{path.stem}' is a suite's name", hint)
    rows = prompts.read(path, chosen=columns).rows
    attack, metrics = asked_of(rows)
    edition = Edition(family=ANY, concept=ANY, files=(SourceFile(file=str(path)),), rows=len(rows), hidden=attack)
    return SuiteSpec(
        name=path.stem, title="the user's own prompts", source=str(path), licence="the user's own", attack=attack,
        metrics=metrics, editions=(edition,),
    )  # fmt: skip


def asked_of(rows: Sequence[Row]) -> tuple[bool, tuple[str, ...]]:
    """Whether rows of a user's own file are attacks, and the metrics that they are for."""
    attack = any(row.target for row in rows)
    kinds = {row.kind for row in rows}
    forgetting = ("asr" if attack else "fsr",) if "forget" in kinds else ()
    around = ("pre", "post") if attack and any(row.target == row.prompt for row in rows) else ()
    compared = ("csdr",) if any(row.reference for row in rows) else ()
    refusals = ("over_refusal",) if "retain" in kinds else ()
    return attack, (*forgetting, *around, *compared, *refusals, "added_ms")


def at_hand(suite: SuiteSpec, which: Edition) -> bool:
    """Whether the edition's prompts are on this machine."""
    try:
        return bool(which.file) or all(_find(suite, file) for file in which.files)
    except (UsageError, OSError):
        return False


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(suite: SuiteSpec, which: Edition, options: Given) -> Found:
    if options.prompts and options.prompts.is_file() and len(which.files) > 1:
        names = ", ".join(file.file for file in which.files)
        raise UsageError(f"suite '{suite.name}' has {len(which.files)} files", f"Give --prompts their folder: {names}")
    read = [_file(suite, which, file, options) for file in which.files]
    together = tuple(row for each in read for row in each.rows)
    notes = [note for each in read for note in each.notes]
    variant = list(dict.fromkeys(part for each in read for part in each.variant))
    if which.rows not in (UNVERIFIED, len(together)):
        problem = f"{suite.name}: expected {which.rows} rows, found {len(together)}"
        _refuse_unless(options.accept, problem)
        notes.append(f"Not the published prompts: {problem}. Taken with --accept-prompts.")
        variant = variant or [f"prompts={read[0].sha256[0][:8]}"]
    paired = tuple(_paired(together, which.misfits)) if which.paired else together
    _refuse_doubled(suite, paired)
    return Found(
        rows=paired, meta={name: value for each in read for name, value in each.meta.items()},
        sha256=tuple(sha for each in read for sha in each.sha256), notes=tuple(dict.fromkeys(notes)),
        variant=(*variant, *map(said_column, options.columns)),
        told=tuple(dict.fromkeys(line for each in read for line in each.told)),
        others={name: texts for each in read for name, texts in each.others.items()},
    )  # fmt: skip


def _file(suite: SuiteSpec, which: Edition, file: SourceFile, options: Given) -> Found:
    """The rows of one file, with the suite's kind and category; where the suite has several files, ids get a prefix."""
    path = _copy(suite, file, options.prompts) if options.prompts else locate(suite, which, file)
    if file.task and options.columns:
        raise UsageError(f"{path}: --column: prompts by category have no columns", "Leave --column out.")
    read = prompts.tasks(path, file.task) if file.task else prompts.read(path, file.columns, dict(options.columns))
    notes, variant = list(read.notes), []
    if problem := _other(suite, file, path, read.sha256):
        _refuse_unless(options.accept, problem)
        notes.append(f"Not the published prompts: {problem}. Taken with --accept-prompts.")
        variant.append(f"prompts={read.sha256[:8]}")
    elif file.sha256 == UNVERIFIED and (file.hub or file.url):
        notes.append(f"Unverified source: {suite.name} (sha256 {read.sha256[:12]}..., computed here, compared with no other).")
    alone = len(which.files) == 1
    prefix = "" if alone else "".join(f"{part}-" for part in ("retain" * (file.kind == "retain"), file.category) if part)
    changes: dict[str, str] = {"kind": file.kind} if file.hub or file.url or "kind" in file.model_fields_set else {}
    changes |= {"category": file.category} if file.category else {}
    rows = tuple(row.model_copy(update={**changes, "id": prefix + row.id}) for row in read.rows)
    others = {prefix + name: texts for name, texts in read.others.items()}
    if file.category:  # it replaces the file's own category, which must still be screened
        more = {prefix + row.id: (row.category,) for row in read.rows if row.category}
        others = {name: (*others.get(name, ()), *more.get(name, ())) for name in {**others, **more}}
    return Found(rows, read.meta, (read.sha256,), tuple(notes), (), tuple(variant), read.told, others)


def said_column(column: tuple[str, str]) -> str:
    """A column that the user chose, as part of a variant's name."""
    return f"column.{column[0]}={re.sub('[^0-9A-Za-z_.-]+', '_', column[1])}"


def _refuse_doubled(suite: SuiteSpec, rows: Sequence[Row]) -> None:
    """Raise `UsageError` where ids of several files clash."""
    doubled = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if doubled:
        shown = ", ".join(map(prompts.shown, doubled[:3]))
        raise UsageError(f"suite '{suite.name}': ids stand in several of its files: {shown}", "Number the prompts anew.")


def _other(suite: SuiteSpec, file: SourceFile, path: Path, sha: str) -> str:
    """How a file differs from the published one; empty where it is the same, or where no sha256 is known."""
    if file.sha256 in (UNVERIFIED, sha):
        return ""
    return f"{suite.name}: {path.name} has sha256 {sha[:12]}..., expected {file.sha256[:12]}..."


def _refuse_unless(accepted: bool, problem: str) -> None:
    if not accepted:
        raise UsageError(problem, "Give the published file; or --accept-prompts, and every table says so.")


def _paired(rows: Sequence[Row], misfits: Sequence[str]) -> Iterator[Row]:
    """The rows; forget rows get the prompt of the n-th retain row of their category as reference."""
    retain: dict[str, list[str]] = {}
    for row in rows:
        if row.kind == "retain":
            retain.setdefault(row.category, []).append(row.prompt)
    placed: dict[str, int] = {}
    for row in rows:
        place = placed.get(row.category, 0)
        partners = retain.get(row.category, [])
        if row.kind == "forget":
            placed[row.category] = place + 1
        fits = row.kind == "forget" and place < len(partners) and row.id not in misfits
        yield row.model_copy(update={"reference": partners[place]}) if fits else row


def _flags(rows: Sequence[Row]) -> tuple[str, ...]:
    """Unusual values in the rows, which are used as they are."""
    guidance = [row.guidance for row in rows if row.guidance is not None and row.guidance > HIGH_GUIDANCE]
    sizes = sum({row.width or PUBLISHED_SIZE, row.height or PUBLISHED_SIZE} != {PUBLISHED_SIZE} for row in rows)
    empty = sum(not row.prompt.strip() for row in rows)
    flags = [f"rows with a guidance above {HIGH_GUIDANCE:g}: {len(guidance)}, up to {max(guidance):g}"] if guidance else []
    flags += [f"rows of another size than {PUBLISHED_SIZE} x {PUBLISHED_SIZE} px: {sizes}"] if sizes else []
    return (*flags, *([f"rows with an empty prompt: {empty}"] if empty else []))


# --- places -----------------------------------------------------------------------------------------------------------


def locate(suite: SuiteSpec, which: Edition, file: SourceFile) -> Path:
    """An edition's file on this machine. Raises `MissingError` with the command that fetches it."""
    path = _find(suite, file)
    if path is None:
        ask = f"Ask for access first: https://huggingface.co/datasets/{file.hub}. " if which.gated or suite.gated else ""
        raise MissingError(
            f"the prompts of suite '{suite.name}' are not on this machine ({file.hub or file.url or file.file})",
            f"{ask}{'Make' if file.made_by else 'Fetch'} them: {command(suite, file)} (or give your own copy: --prompts FILE)",
            _downloads(suite, file),
        )
    return path


def command(suite: SuiteSpec, file: SourceFile) -> str:
    """The shell command that fetches a file."""
    return file.made_by or _downloads(suite, file)[0].command()


def _downloads(suite: SuiteSpec, file: SourceFile) -> tuple[Download, ...]:
    """What fetches a file; nothing does where a command makes it, or where it is the user's."""
    if file.made_by or not (file.url or file.hub):
        return ()
    sha = "" if file.sha256 == UNVERIFIED else file.sha256
    if file.url:
        return (Download(url=file.url, path=download_path(suite, file), sha256=sha),)
    only = (file.file,) if file.file else ()
    return (Download(hub=file.hub, kind="dataset", files=only, revision=file.revision, sha256=sha if only else ""),)


def download_path(suite: SuiteSpec, file: SourceFile) -> Path:
    """The path in the user's cache folder where the file of a URL is expected."""
    return _cache() / "srbench" / "suites" / suite.name / file.file


def _find(suite: SuiteSpec, file: SourceFile) -> Path | None:
    if file.hub:
        return _cached(file)
    path = download_path(suite, file) if file.url else Path(file.file)
    return path if path.is_file() else None


def _cached(file: SourceFile) -> Path | None:
    """A hub dataset's file in the hub's cache: the named one, or the only data file."""
    if not (_hub_cache() / f"datasets--{file.hub.replace('/', '--')}").is_dir():
        return None  # before the import: the hub client takes 0.1 s and more
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError

    if file.file:
        cached = try_to_load_from_cache(file.hub, file.file, _hub_cache(), file.revision, "dataset")
        return Path(cached) if isinstance(cached, str) else None  # else None, or a mark that the hub has no such file
    try:
        folder = Path(snapshot_download(
            file.hub, repo_type="dataset", revision=file.revision, cache_dir=_hub_cache(), local_files_only=True
        ))  # fmt: skip
    except LocalEntryNotFoundError:
        return None
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in DATA and path.is_file())
    if len(files) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in files[:3])
        raise UsageError(f"{file.hub} holds {len(files)} files of data: {names}", "Say which: --prompts FILE")
    return files[0] if files else None


def _copy(suite: SuiteSpec, file: SourceFile, user_path: Path) -> Path:
    """The user's copy of a file: `user_path` itself, or the file of that name in the folder `user_path`."""
    if not user_path.is_dir():
        return user_path
    inner = PurePosixPath(file.file).parts
    for start in range(len(inner)):  # the whole path first, then without its first folders
        path = user_path.joinpath(*inner[start:])
        if path.is_file():
            return path
    if not inner:
        raise UsageError(f"{user_path}: a folder, and suite '{suite.name}' is one file", "Give the file itself.")
    raise MissingError(f"{user_path}: no '{file.file}', which suite '{suite.name}' needs", f"Fetch it: {command(suite, file)}")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _hub_cache() -> Path:
    """As huggingface_hub documents it (package reference, environment variables)."""
    home = os.environ.get("HF_HOME") or _cache() / "huggingface"
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")).expanduser()
