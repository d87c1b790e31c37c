"""The rows of a suite for a backbone and concept, wherever they lie: shipped, the user's own file, or a download on this machine.

Nothing here opens a connection: what is not on the machine is named with the command that fetches it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from srbench.catalog import load, prompts
from srbench.catalog.specs import ANY, UNVERIFIED, Edition, Row, SourceFile, SuiteSpec
from srbench.errors import MissingError, UsageError

DATA = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx", ".txt")
HIGH_GUIDANCE = 30.0
"""Guidance above this is flagged: I2P's rows go up to 255, where nearly all lie at 7 (facts 5.1)."""
PUBLISHED_SIZE = 512
"""Sizes other than this are flagged, in px: every published suite is made for it."""


@dataclass(frozen=True)
class Given:
    """What the user says of a suite's rows."""

    prompts: Path | None = None
    """The user's copy of the suite: a file, or a folder with its files."""
    accept: bool = False
    """Whether a copy that is not the published one is taken."""
    categories: tuple[str, ...] = ()
    """Only rows of these; all where empty."""
    columns: tuple[tuple[str, str], ...] = ()
    """(row field, column of the user's file that holds it)."""


NOTHING = Given()


@dataclass(frozen=True)
class Found:
    """An edition's rows, and what has to be said of them."""

    rows: tuple[Row, ...]
    meta: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    sha256: tuple[str, ...] = ()
    """Of the files that they were read from, computed here; empty where srbench ships them."""
    notes: tuple[str, ...] = ()
    """Stand below every table of them."""
    flags: tuple[str, ...] = ()
    """What is unusual and was kept."""
    variant: tuple[str, ...] = ()
    """In what they differ from the suite's own."""
    told: tuple[str, ...] = ()
    """Which columns of each file were read as what, and which were not."""
    others: prompts.Others = field(default_factory=dict)
    """Row id -> texts of the file that stand beside the row and in no field of it: the content filter reads them too."""


def rows(suite: SuiteSpec, which: Edition, given: Given = NOTHING) -> Found:
    """An edition's rows.

    Raises `MissingError` with the command that fetches a file that is not here. Raises `UsageError` for a git-lfs pointer, a
    damaged file, a category that no row has, and, unless `given.accept`, another sha256 or row count than the published.
    """
    if which.file and given.prompts:
        raise UsageError(
            f"suite '{suite.name}' ships its prompts for {which.family}; --prompts has no place in it",
            "Leave --suite out: the file is then a suite of its own.",
        )
    if given.columns and not given.prompts:
        raise UsageError("--column says how a file of yours is read", "Add --prompts FILE.")
    if which.file:
        file = load.rows(suite, which)
        found = Found(file.rows, file.meta)
    else:
        found = _read(suite, which, given)
    chosen = prompts.of_categories(found.rows, given.categories)
    only = (f"category={'+'.join(given.categories)}",) if given.categories else ()
    return replace(found, rows=chosen, flags=_flags(chosen), variant=(*found.variant, *only))


def own(path: Path, columns: prompts.Columns | None = None) -> SuiteSpec:
    """A suite made of the user's own file, named after it. Raises `UsageError` for what is no file of prompts.

    columns: row field -> the file's column, where the user says so.

    Rows with a hidden target make it a suite of attacks, and targets as they are among them tell what no attack was needed for.
    It stands for any family and concept.
    """
    if path.stem in load.suites():
        hint = f"--suite {path.stem} if it is your copy of that suite; else give the file another name."
        raise UsageError(f"--prompts {path.name}: '{path.stem}' is a suite's name", hint)
    found = prompts.read(path, chosen=columns).rows
    attack = any(row.target for row in found)
    kinds = {row.kind for row in found}
    asked = ("asr" if attack else "fsr",) if "forget" in kinds else ()
    around = ("pre", "post") if attack and any(row.target == row.prompt for row in found) else ()
    compared = ("csdr",) if any(row.reference for row in found) else ()
    kept = ("over_refusal",) if "retain" in kinds else ()
    edition = Edition(family=ANY, concept=ANY, files=(SourceFile(file=str(path)),), rows=len(found), hidden=attack)
    return SuiteSpec(
        name=path.stem, title="the user's own prompts", source=str(path), licence="the user's own", attack=attack,
        metrics=(*asked, *around, *compared, *kept, "added_ms"), editions=(edition,),
    )  # fmt: skip


def at_hand(suite: SuiteSpec, which: Edition) -> bool:
    """Whether the edition's prompts are on this machine."""
    try:
        return bool(which.file) or all(_find(suite, file) for file in which.files)
    except (UsageError, OSError):
        return False


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(suite: SuiteSpec, which: Edition, given: Given) -> Found:
    if given.prompts and given.prompts.is_file() and len(which.files) > 1:
        names = ", ".join(file.file for file in which.files)
        raise UsageError(f"suite '{suite.name}' has {len(which.files)} files", f"Give --prompts their folder: {names}")
    read = [_file(suite, which, file, given) for file in which.files]
    together = tuple(row for each in read for row in each.rows)
    notes = [note for each in read for note in each.notes]
    variant = list(dict.fromkeys(part for each in read for part in each.variant))
    if which.rows not in (UNVERIFIED, len(together)):
        problem = f"{suite.name}: expected {which.rows} rows, found {len(together)}"
        _refuse_unless(given.accept, problem)
        notes.append(f"Not the published prompts: {problem}. Taken with --accept-prompts.")
        variant = variant or [f"prompts={read[0].sha256[0][:8]}"]
    paired = tuple(_paired(together, which.misfits)) if which.paired else together
    _refuse_doubled(suite, paired)
    return Found(
        rows=paired, meta={name: value for each in read for name, value in each.meta.items()},
        sha256=tuple(sha for each in read for sha in each.sha256), notes=tuple(dict.fromkeys(notes)),
        variant=(*variant, *map(said_column, given.columns)),
        told=tuple(dict.fromkeys(line for each in read for line in each.told)),
        others={name: texts for each in read for name, texts in each.others.items()},
    )  # fmt: skip


def _file(suite: SuiteSpec, which: Edition, file: SourceFile, given: Given) -> Found:
    """The rows of one file, with the kind and category that its manifest gives them; ids of several files are told apart."""
    path = _copy(suite, file, given.prompts) if given.prompts else locate(suite, which, file)
    if file.task and given.columns:
        raise UsageError(f"{path}: --column: prompts by category have no columns", "Leave --column out.")
    read = prompts.tasks(path, file.task) if file.task else prompts.read(path, file.columns, dict(given.columns))
    notes, variant = list(read.notes), []
    if problem := _other(suite, file, path, read.sha256):
        _refuse_unless(given.accept, problem)
        notes.append(f"Not the published prompts: {problem}. Taken with --accept-prompts.")
        variant.append(f"prompts={read.sha256[:8]}")
    elif file.sha256 == UNVERIFIED and (file.hub or file.url):
        notes.append(f"Unverified source: {suite.name} (sha256 {read.sha256[:12]}..., computed here, compared with no other).")
    alone = len(which.files) == 1
    prefix = "" if alone else "".join(f"{part}-" for part in ("retain" * (file.kind == "retain"), file.category) if part)
    changes: dict[str, str] = {"kind": file.kind} if file.hub or file.url else {}
    changes |= {"category": file.category} if file.category else {}
    rows = tuple(row.model_copy(update={**changes, "id": prefix + row.id}) for row in read.rows)
    others = {prefix + name: texts for name, texts in read.others.items()}
    if file.category:  # what the file says itself is then in no field
        more = {prefix + row.id: (row.category,) for row in read.rows if row.category}
        others = {name: (*others.get(name, ()), *more.get(name, ())) for name in {**others, **more}}
    return Found(rows, read.meta, (read.sha256,), tuple(notes), (), tuple(variant), read.told, others)


def said_column(column: tuple[str, str]) -> str:
    """A column that the user named, as a variant says it."""
    return f"column.{column[0]}={re.sub('[^0-9A-Za-z_.-]+', '_', column[1])}"


def _refuse_doubled(suite: SuiteSpec, found: Sequence[Row]) -> None:
    """Ids of several files may clash."""
    doubled = [name for name, count in Counter(row.id for row in found).items() if count > 1]
    if doubled:
        shown = ", ".join(map(prompts.shown, doubled[:3]))
        raise UsageError(f"suite '{suite.name}': ids stand in several of its files: {shown}", "Number the prompts anew.")


def _other(suite: SuiteSpec, file: SourceFile, path: Path, sha: str) -> str:
    """How a file differs from the published one; empty where it is the same, or where nobody knows."""
    if file.sha256 in (UNVERIFIED, sha):
        return ""
    return f"{suite.name}: {path.name} has sha256 {sha[:12]}..., expected {file.sha256[:12]}..."


def _refuse_unless(accepted: bool, problem: str) -> None:
    if not accepted:
        raise UsageError(problem, "Give the published file; or --accept-prompts, and every table says so.")


def _paired(found: Sequence[Row], misfits: Sequence[str]) -> Iterator[Row]:
    """Forget rows with their reference: the retain row of the same category and place."""
    retain: dict[str, list[str]] = {}
    for row in found:
        if row.kind == "retain":
            retain.setdefault(row.category, []).append(row.prompt)
    placed: dict[str, int] = {}
    for row in found:
        place = placed.get(row.category, 0)
        partners = retain.get(row.category, [])
        if row.kind == "forget":
            placed[row.category] = place + 1
        fits = row.kind == "forget" and place < len(partners) and row.id not in misfits
        yield row.model_copy(update={"reference": partners[place]}) if fits else row


def _flags(found: Sequence[Row]) -> tuple[str, ...]:
    """What is unusual in published rows. It is kept: the rows are used as they are."""
    guidance = [row.guidance for row in found if row.guidance is not None and row.guidance > HIGH_GUIDANCE]
    sizes = sum({row.width or PUBLISHED_SIZE, row.height or PUBLISHED_SIZE} != {PUBLISHED_SIZE} for row in found)
    empty = sum(not row.prompt.strip() for row in found)
    told = [f"rows with a guidance above {HIGH_GUIDANCE:g}: {len(guidance)}, up to {max(guidance):g}"] if guidance else []
    told += [f"rows of another size than {PUBLISHED_SIZE} x {PUBLISHED_SIZE} px: {sizes}"] if sizes else []
    return (*told, *([f"rows with an empty prompt: {empty}"] if empty else []))


# --- places -----------------------------------------------------------------------------------------------------------


def locate(suite: SuiteSpec, which: Edition, file: SourceFile) -> Path:
    """A file of an edition on this machine. Raises `MissingError` with the command that fetches it."""
    found = _find(suite, file)
    if found is None:
        ask = f"Ask for access first: https://huggingface.co/datasets/{file.hub}. " if which.gated or suite.gated else ""
        raise MissingError(
            f"the prompts of suite '{suite.name}' are not on this machine ({file.hub or file.url or file.file})",
            f"{ask}{'Make' if file.made_by else 'Fetch'} them: {command(suite, file)} (or give your own copy: --prompts FILE)",
        )
    return found


def command(suite: SuiteSpec, file: SourceFile) -> str:
    """The shell command that fetches a file."""
    if file.made_by:
        return file.made_by
    if file.url:
        return f"curl -fL --create-dirs -o {shlex.quote(str(download_path(suite, file)))} {shlex.quote(file.url)}"
    only = f" {shlex.quote(file.file)}" if file.file else ""
    revision = f" --revision {shlex.quote(file.revision)}" if file.revision else ""
    return f"hf download --repo-type dataset {shlex.quote(file.hub)}{only}{revision}"


def download_path(suite: SuiteSpec, file: SourceFile) -> Path:
    """Where the file of a URL is looked for: in the user's cache folder."""
    return _cache() / "srbench" / "suites" / suite.name / file.file


def _find(suite: SuiteSpec, file: SourceFile) -> Path | None:
    if file.hub:
        return _cached(file)
    path = download_path(suite, file) if file.url else Path(file.file)
    return path if path.is_file() else None


def _cached(file: SourceFile) -> Path | None:
    """A hub dataset's file in the hub's cache: the named one, or the only one with data."""
    if not (_hub_cache() / f"datasets--{file.hub.replace('/', '--')}").is_dir():
        return None  # saves `srbench list` the import of the hub client: 0.1 s and more
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError

    if file.file:
        found = try_to_load_from_cache(file.hub, file.file, _hub_cache(), file.revision, "dataset")
        return Path(found) if isinstance(found, str) else None  # else None, or a mark that the hub has no such file
    try:
        folder = Path(snapshot_download(
            file.hub, repo_type="dataset", revision=file.revision, cache_dir=_hub_cache(), local_files_only=True
        ))  # fmt: skip
    except LocalEntryNotFoundError:
        return None
    held = sorted(path for path in folder.rglob("*") if path.suffix.lower() in DATA and path.is_file())
    if len(held) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in held[:3])
        raise UsageError(f"{file.hub} holds {len(held)} files of data: {names}", "Say which: --prompts FILE")
    return held[0] if held else None


def _copy(suite: SuiteSpec, file: SourceFile, given: Path) -> Path:
    """The user's copy of a file: the one that was given, or the one of that name in the folder that was given."""
    if not given.is_dir():
        return given
    inner = PurePosixPath(file.file).parts
    for start in range(len(inner)):  # the whole path first, then ever shorter ends of it
        path = given.joinpath(*inner[start:])
        if path.is_file():
            return path
    if not inner:
        raise UsageError(f"{given}: a folder, and suite '{suite.name}' is one file", "Give the file itself.")
    raise MissingError(f"{given}: no '{file.file}', which suite '{suite.name}' needs", f"Fetch it: {command(suite, file)}")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _hub_cache() -> Path:
    """As huggingface_hub documents it (package reference, environment variables)."""
    home = os.environ.get("HF_HOME") or _cache() / "huggingface"
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")).expanduser()
