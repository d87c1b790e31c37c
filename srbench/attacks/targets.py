"""The request for an attack, its target prompts and its pairs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srbench.attacks.base import wanted
from srbench.catalog import load, plugins, prompts, screen, sources
from srbench.catalog.specs import BackboneSpec, ConceptSpec, Row
from srbench.errors import UsageError

POCKET = "pocket"
"""The one family on which everything may be attacked."""


@dataclass(frozen=True)
class AttackRequest:
    """A request for an attack, parsed."""

    name: str
    concept: str
    suite: str | None
    targets: Path | None
    """A file of prompts, in place of a suite."""
    method: str
    on: str
    pairs: Path | None
    limit: int | None
    out: Path
    settings: Any
    """The attack's own, parsed."""
    method_settings: tuple[str, ...] = ()
    """`NAME.OPTION=VALUE` of the method and the checkpoint."""
    part: str = "test"
    plain: bool = False
    """Also write each target itself, beside its adversarial prompt."""
    checkpoints: Path = Path("results") / "store" / "checkpoints"
    """Folder of the artifacts and checkpoints that are made for the attack."""
    columns: tuple[tuple[str, str], ...] = ()
    """(field, column of `targets`, or of `pairs`, that holds it)."""


def refuse_sensitive(spec: BackboneSpec, concept: ConceptSpec) -> None:
    """Refuse to search for a sensitive concept on a real backbone (design section 8)."""
    if spec.family != POCKET and screen.sensitive_concept(concept):
        raise UsageError(
            f"concept '{concept.name}' is sensitive: srbench makes no prompts for it on {spec.name}",
            "Run published prompts: --suite mma, ring-a-bell, p4d or unlearndiffatk. Attacks can be studied on pocket.",
        )


def _refuse_texts(spec: BackboneSpec, source: str, texts: Sequence[str]) -> None:
    """Refuse, on a real backbone, texts with a sexual word or a word of a sensitive concept."""
    if spec.family == POCKET:
        return
    words = {w for c in load.concepts().values() if c.sensitive for f in c.families.values() for w in (*f.names, *f.words)}
    barred = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words)))})\b")
    for text in texts:
        if screen.is_sexual(text) or barred.search(screen.plain(text)):
            problem = f"{source}: a text is sexual or violent: srbench makes no prompts for it on {spec.name}"
            raise UsageError(problem, "Leave it out.")


def targets_of(
    request: AttackRequest, spec: BackboneSpec, concept: ConceptSpec, tell: Callable[[str], None] = lambda line: None
) -> tuple[list[Row], str, int]:
    """The rows to attack, where they come from, and how many were left out because they name minors: on every real backbone, and
    on pocket where concept or targets are sensitive (it draws baby penguins).

    Raises `UsageError` without any, on a real backbone for one that asks for what is sensitive, and where the targets are to
    stand in a file that holds no prompts.
    """
    if request.plain and plugins.plugins("attacks")[request.name].meta["output"] != "prompt":
        raise UsageError(f"{request.name} finds embeddings, which do not stand among prompts", "Leave --with-targets out.")
    rows, source, others = _loaded(request, spec, concept, tell)
    beside = [text for row in rows for text in others.get(row.id, ())]
    _refuse_texts(spec, source, [*beside, *(text for row in rows for text in (row.category, *screen.texts(row)))])
    sensitive = spec.family != POCKET or screen.sensitive_concept(concept) or screen.sexual_rows(rows, others)
    admitted = list(screen.admissible(rows, others)) if sensitive else rows
    if not admitted:
        raise UsageError(f"{source}: no target is left", "Targets that name minors are not attacked.")
    chosen = admitted if request.limit is None else admitted[: request.limit]
    return chosen, source, len(rows) - len(admitted)


def _loaded(
    request: AttackRequest, spec: BackboneSpec, concept: ConceptSpec, tell: Callable[[str], None]
) -> tuple[list[Row], str, prompts.Others]:
    columns = {name: column for name, column in request.columns if name not in prompts.PAIR}
    if columns and request.targets is None:
        raise UsageError("--column says how a file of targets is read", "Add --targets FILE.")
    if (request.suite is None) == (request.targets is None):
        raise UsageError("an attack needs targets", "Give --suite NAME, or --targets FILE; not both.")
    others: prompts.Others
    if request.targets is not None:
        read = prompts.read(request.targets, chosen=columns)
        rows, others, source = read.rows, read.others, request.targets.name
        for line in read.told:
            tell(line)
    else:
        suite = load.suite(request.suite or "")
        edition = load.edition(suite, spec.family, concept.name, request.part)
        if suite.of(edition).gated:
            raise UsageError(
                f"suite '{suite.name}' is gated: its rows may not stand in the file that an attack writes",
                "Attack a suite that is not, or targets of your own: --targets FILE.",
            )
        suite_rows = sources.rows(suite, edition)
        rows, others, source = suite_rows.rows, suite_rows.others, f"{suite.name}/{concept.name}/{request.part}"
    candidates = [row for row in rows if row.kind == "forget" and row.category != "unseen" and wanted(row).strip()]
    chosen = [row.model_copy(update={"prompt": wanted(row), "target": None}) for row in candidates]
    if not chosen:
        raise UsageError(f"{source}: no target prompt in it", "Give a file with a target prompt a line.")
    return chosen, source, others


def pairs_of(
    request: AttackRequest, spec: BackboneSpec, concept: ConceptSpec, tell: Callable[[str], None] = lambda line: None
) -> tuple[tuple[str, str], ...]:
    """Pairs of prompts with and without the concept: the user's file, or those that pocket's redirectors train on; else none.

    Raises `UsageError` for a damaged file, for one that the attack does not read, and on a real backbone for a pair that asks for
    what is sensitive.
    """
    columns = {name: column for name, column in request.columns if name in prompts.PAIR}
    if columns and request.pairs is None:
        raise UsageError("--column unsafe and safe say how a file of pairs is read", "Add --pairs FILE.")
    if not plugins.plugins("attacks")[request.name].meta.get("reads_pairs"):
        if request.pairs is not None:
            raise UsageError(f"{request.name} reads no pairs", "Leave --pairs out.")
        return ()
    others: tuple[tuple[str, ...], ...] = ()
    pairs: Sequence[tuple[str, str]] = ()
    if request.pairs is not None:
        read = prompts.read_pairs(request.pairs, columns)
        pairs, others = read.pairs, read.others
        for line in read.told:
            tell(line)
    elif spec.family == POCKET:
        from srbench.methods.saferedir.pairs import pocket_pairs

        count = request.settings.pairs
        drawn = pocket_pairs([concept], 2 * count, 0, request.settings.seed).train[:count]
        pairs = [(pair.unsafe, pair.safe) for pair in drawn]
    every = [(*pair, *more) for pair, more in zip(pairs, others or [()] * len(pairs), strict=True)]
    _refuse_texts(spec, str(request.pairs), [text for texts in every for text in texts])
    admitted = tuple(pair for pair, texts in zip(pairs, every, strict=True) if not any(map(screen.names_minor, texts)))
    if request.pairs is not None and len(admitted) < len(pairs):
        tell(f"{len(pairs) - len(admitted)} of {len(pairs)} pairs name minors and are left out")
    return admitted
