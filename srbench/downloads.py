"""What is not on this machine and where it comes from: the command that fetches it.

Every place that misses a file describes it as a `Download`: its error's hint is the download's command, and `srbench fetch`
carries the same description out (`fetching`).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

UNKNOWN_SHA = ""


@dataclass(frozen=True)
class Download:
    """A hub repository, some of its files, or the file of an address."""

    hub: str = ""
    """`owner/name`; empty for an address."""
    kind: Literal["model", "dataset"] = "model"
    files: tuple[str, ...] = ()
    """Of the repository; none: all of it, or what `include` matches."""
    include: tuple[str, ...] = ()
    """Patterns of the repository's files."""
    revision: str | None = None
    url: str = ""
    path: Path | None = None
    """Where the file of an address goes."""
    sha256: str = UNKNOWN_SHA
    """Of the one file, or its first digits; empty where it is not known."""
    folder: Path | None = None
    """Where a repository's files go, in place of the hub's cache."""

    def __post_init__(self) -> None:
        if bool(self.hub) == bool(self.url) or bool(self.url) != bool(self.path):
            raise ValueError("a download is of a repository, or of an address to a path")

    @property
    def name(self) -> str:
        """For people: the repository with its files, or the address."""
        inner = ", ".join((*self.files, *self.include))
        return self.url or (f"{self.hub} ({inner})" if inner else self.hub)

    @property
    def page(self) -> str:
        """Where a person reads of it, and asks for access where it is gated."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.hub}" if self.hub else self.url

    def command(self) -> str:
        """The shell command that fetches it without srbench."""
        if self.url:
            return shlex.join(["curl", "-fL", "--create-dirs", "-o", str(self.path), self.url])
        words = ["hf", "download", *(["--repo-type", "dataset"] if self.kind == "dataset" else []), self.hub, *self.files]
        words += ["--revision", self.revision] if self.revision else []
        words += [word for pattern in self.include for word in ("--include", pattern)]
        return shlex.join(words + (["--local-dir", str(self.folder)] if self.folder else []))
