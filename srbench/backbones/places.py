"""Where a published checkpoint is on this machine, and the command that fetches it.

`srbench list` asks this for every baseline: nothing here imports torch, and a hub client only where there is something to ask.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from srbench.catalog.specs import UNVERIFIED, BaselineSpec
from srbench.downloads import Download
from srbench.errors import MissingError, UsageError

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers' `save_lora_weights` writes."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MARKERS = {"pipeline": "model_index.json", "unet": "config.json", "text_encoder": "config.json", "lora": LORA_FILE}
"""The file by which a folder of that kind is found in the hub's cache."""


def path_of(name: str) -> Path:
    """The path that a name means; `~` is the user's home, or a plain letter where no such user exists."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def is_path(name: str) -> bool:
    """Whether a name can only be meant as a path."""
    return "/" in name or Path(name).suffix in WEIGHTS


def locate(spec: BaselineSpec) -> Path:
    """The file or folder that holds the checkpoint.

    Raises `MissingError` with the command that fetches it, `UsageError` for a `subfolder` or `file` that leaves the source.
    """
    path = _find(spec)
    if path is None:
        message, found = f"baseline '{spec.name}' is not on this machine ({spec.source})", download(spec)
        raise MissingError(message, _mend(spec), [found] if found else [])
    return path


def at_hand(spec: BaselineSpec) -> bool:
    """Whether the checkpoint is on this machine."""
    try:
        return _find(spec) is not None
    except (UsageError, OSError):
        return False


def command(spec: BaselineSpec) -> str:
    """The shell command that fetches the checkpoint; empty where the source is a path."""
    found = download(spec)
    return found.command() if found else ""


def download(spec: BaselineSpec) -> Download | None:
    """What fetches the checkpoint; None where the source is a path."""
    sha = "" if spec.sha256 == UNVERIFIED else spec.sha256
    if _is_url(spec.source):
        return Download(url=spec.source, path=download_path(spec), sha256=sha)
    if not _is_hub_id(spec.source):
        return None
    inner = "/".join(part for part in (spec.subfolder, spec.file) if part)
    files, include = ((inner,), ()) if spec.file else ((), (f"{inner}/*",) if inner else ())
    return Download(hub=spec.source, files=files, include=include, revision=spec.revision, sha256=sha if spec.file else "")


def download_path(spec: BaselineSpec) -> Path:
    """Where the file of a URL is looked for: the user's cache folder, under the URL's file name."""
    name = unquote(urlsplit(spec.source).path).rsplit("/", 1)[-1]
    return _cache() / "srbench" / "baselines" / (name or spec.name)


def _mend(spec: BaselineSpec) -> str:
    fetch = command(spec)
    return f"Fetch it: {fetch}" if fetch else "Put it there, or mend `source:` in its baseline file."


def _find(spec: BaselineSpec) -> Path | None:
    _refuse_escape(spec)
    if _is_url(spec.source):
        return _usable(download_path(spec))
    path = Path(spec.source).expanduser()
    if path.exists() or not _is_hub_id(spec.source):
        return _usable(path / spec.subfolder / spec.file)
    return _cached(spec)


def _refuse_escape(spec: BaselineSpec) -> None:
    for part in (spec.subfolder, spec.file):
        if Path(part).is_absolute() or ".." in Path(part).parts:
            raise UsageError(f"baseline '{spec.name}': '{part}' is not a path inside its source", "Write it without '..'.")


def _is_url(source: str) -> bool:
    return source.startswith("https://")


def _is_hub_id(source: str) -> bool:
    return _HUB_ID.fullmatch(source) is not None


def _usable(path: Path) -> Path | None:
    """The path, if it is a file, or a folder with weights in it: half of a hub repository may be cached."""
    if path.is_file():
        return path
    return path if path.is_dir() and any(p.suffix in WEIGHTS for p in path.rglob("*")) else None


def _cached(spec: BaselineSpec) -> Path | None:
    """A hub repository's file or folder in the hub's cache."""
    cache = _hub_cache()
    if not (cache / f"models--{spec.source.replace('/', '--')}").is_dir():
        return None  # saves `srbench list` the import of the hub client: 0.1 s and more
    from huggingface_hub import try_to_load_from_cache

    name = (Path(spec.subfolder) / (spec.file or _MARKERS[spec.kind])).as_posix()
    cached = try_to_load_from_cache(spec.source, name, cache_dir=cache, revision=spec.revision)
    if not isinstance(cached, str):  # None, or a mark that the hub has no such file
        return None
    return _usable(Path(cached) if spec.file else Path(cached).parent)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _hub_cache() -> Path:
    """As huggingface_hub documents it (package reference, environment variables)."""
    home = os.environ.get("HF_HOME") or _cache() / "huggingface"
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")).expanduser()
