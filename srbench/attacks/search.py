"""Carries out an attack: targets, the victim, a search that goes on where it was stopped, and the file it makes.

Finished targets are kept in `FILE.part`, a line each, so that the finished file is the same however often the search was
interrupted. Nothing in it depends on when, where or how fast it was made.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from srbench.attacks.base import Adversarial, Defence, Progress, Victim
from srbench.attacks.targets import AttackRequest
from srbench.attacks.text import banned_words
from srbench.backbones.checkpoint import Checkpoint, laid_over
from srbench.backbones.loader import ENCODER_SHA, Backbone, encoder_sha
from srbench.catalog import code, load, plugins
from srbench.catalog.settings import check
from srbench.catalog.specs import ConceptSpec, Row, RowFile
from srbench.engine.checkpoints import UNTOUCHED, Checkpoints, OnConcept, check_on
from srbench.engine.prepare import MethodOnConcept, is_weight, prepare_method
from srbench.errors import CellError, ForeignError, SrbenchError, UsageError
from srbench.faults import contained
from srbench.files import kind_of_path, parse_json, read_bytes, read_json
from srbench.hashing import canonical, digest
from srbench.methods.base import Tell, quiet
from srbench.outputs import CARD_LIMIT, OutputFile, check_file, write_file
from srbench.rules import COUNT, LIST, NUMBER, TEXT, list_of, or_null
from srbench.rules import check as check_form

EXECUTION = ("device",)
"""Settings that say where the search runs."""
GIVE_UP = 20
"""Targets in a row on which an attack may fail for one reason before the others are not tried any more."""
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Attacked:
    """What came of it."""

    found: tuple[Adversarial, ...]
    resumed: int
    """How many of them were there before."""
    failed: tuple[str, ...] = ()
    """Why targets have none, one reason for each."""


@dataclass(frozen=True)
class Failed:
    """A target for which nothing was found because the attack failed on it, or on one of its group."""

    target: str
    why: str


Result = Adversarial | Failed


# --- targets ----------------------------------------------------------------------------------------------------------------


# --- pairs ------------------------------------------------------------------------------------------------------------------


# --- the victim -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A victim's parts before the checkpoint is laid over."""

    backbone: Backbone
    concept: ConceptSpec
    method: MethodOnConcept
    on: OnConcept
    pairs: tuple[tuple[str, str], ...]

    @property
    def undefended(self) -> bool:
        """Whether there is no method."""
        return self.method.name == "none"


def prepared(
    request: AttackRequest, backbone: Backbone, concept: ConceptSpec, pairs: tuple[tuple[str, str], ...], tell: Tell = quiet
) -> Prepared:
    """Method and checkpoint, made where they are not there. Weight methods given as the method count as the checkpoint.

    Raises `UsageError` for unknown names, and for a black-box attack on a method that it would never see.
    """
    method, on = check_victim(request.name, request.method, request.on, str(request.out))
    check_on(on)
    known = [name for name in (method, on) if name in plugins.presets()]
    check(request.method_settings, {*known, *(plugins.preset(name)[0] for name in known)})
    folder = request.checkpoints
    under = Checkpoints(backbone, request.method_settings, folder, tell).get(on, concept) if on != "none" else UNTOUCHED
    ready = prepare_method(method, backbone, concept, request.method_settings, under.checkpoint, folder, tell)
    return Prepared(backbone, concept, ready, under, pairs)


def check_victim(name: str, method: str, on: str, out: str = "FILE") -> tuple[str, str]:
    """Method and checkpoint of a victim; a weight method that is given as the method is the checkpoint.

    out: the attack's file, for the hint. Raises as `prepared` does.
    """
    if is_weight(method):
        if on != "none":
            raise UsageError(f"'{method}' changes weights and cannot be stacked on '{on}'", f"Give it to --on: --on {method}")
        method, on = "none", method
    needs = plugins.plugins("attacks")[name].meta["needs"]
    if needs == "text_encoder" and method != "none":
        run = ("srbench", "run", "--method", method, "--prompts", out)
        raise UsageError(
            f"{name} reads the text encoder alone and never sees {method}",
            f"Leave --method out, and run the prompts against it: {shlex.join(run)}",
        )
    return method, on


@contextmanager
def victim_of(made: Prepared) -> Iterator[Victim]:
    """The victim, with its checkpoint laid over the pipeline while it lasts."""
    pipeline, spec, checkpoint = made.backbone.pipeline, made.backbone.spec, made.on.checkpoint
    original = _before(pipeline, checkpoint) if checkpoint else None
    active = made.method.active
    defence = None if made.undefended else Defence(active.method, active.artifact, active.options)
    with laid_over(pipeline, checkpoint):
        banned = tuple(banned_words(made.concept, spec.family))
        yield Victim(pipeline, spec.family, made.concept, banned, spec.recipe, defence, original, made.pairs)


def _before(pipeline: Any, checkpoint: Checkpoint) -> Checkpoint:
    """The backbone's own weights that the checkpoint will replace."""
    tensors = {}
    for component, given in checkpoint.tensors.items():
        own = getattr(pipeline, component).state_dict()
        tensors[component] = {name: own[name].clone() for name in given}
    return replace(checkpoint, name="none", tensors=tensors)


# --- the search -------------------------------------------------------------------------------------------------------------


def identity(request: AttackRequest, made: Prepared, rows: Sequence[Row], source: str) -> dict[str, Scalar]:
    """Everything that decides what is found, as the file's `meta` states it."""
    meta = plugins.plugins("attacks")[request.name].meta
    chosen = {name: value for name, value in request.settings.model_dump().items() if name not in EXECUTION}
    backbone, method, on = made.backbone, made.method, made.on
    said: dict[str, Scalar] = {
        "attack": request.name, "attack_version": meta["version"], "paper": meta["paper"], "needs": meta["needs"],
        "output": meta["output"], "objective": meta["objective"], "better": meta["better"], "concept": made.concept.name,
        "backbone": backbone.spec.name, "backbone_sha256": backbone.sha256, ENCODER_SHA: encoder_sha(backbone),
        "method": method.preset, "method_version": method.version, "method_options": canonical(method.options.model_dump()),
        "artifact_sha256": method.artifact_sha, "on": on.name, "checkpoint_sha256": on.checkpoint.sha256 if on.checkpoint else "",
        "steps_recipe": backbone.spec.recipe.steps, "guidance_recipe": backbone.spec.recipe.guidance,
        "banned": ", ".join(banned_words(made.concept, backbone.spec.family)), "targets": source,
        "targets_sha256": load.rows_sha(tuple(rows)), "pairs_used": len(made.pairs), "pairs_sha256": digest(made.pairs),
    }  # fmt: skip
    return said | chosen


def search(
    request: AttackRequest, made: Prepared, rows: Sequence[Row], source: str, progress: Progress | None = None
) -> Attacked:
    """Attack every row, those of `FILE.part` left out, and write the file. A target on which the attack fails is left out of it.

    Raises `UsageError` where `FILE.part` belongs to another search, the file cannot be written, or the attack failed on all.
    """
    said = identity(request, made, rows, source)
    part = Part(part_of(request.out), digest(said), code.source_of("attacks", request.name))
    done = part.read(len(rows))
    resumed = len(done)
    if resumed < len(rows):
        part.begin(done)
        with victim_of(made) as victim:
            for result in _searched(request, victim, rows, resumed, progress):
                done.append(result)
                part.add(result)
    found = {number: each for number, each in enumerate(done) if isinstance(each, Adversarial)}
    failed = tuple(each.why for each in done if isinstance(each, Failed))
    if not found:
        part.remove()
        raise ForeignError(f"{request.name} failed on every target: {failed[0]}", "")
    said |= {"failed": len(failed)} if failed else {}
    write(request, said, [rows[number] for number in found], list(found.values()))
    part.remove()
    return Attacked(tuple(found.values()), resumed, failed)


def _searched(
    request: AttackRequest, victim: Victim, rows: Sequence[Row], first: int, progress: Progress | None
) -> Iterator[Result]:
    """A result for each row from number `first` on. Where the attack fails, its group is left out, and the next one is searched.

    A group cannot be searched without one of its targets: the results of the others depend on it.
    """
    size = request.settings.parallel
    attack = plugins.load("attacks", request.name).attack
    why, in_a_row = "", 0
    while first < len(rows):
        start = first // size * size  # a group is searched whole
        try:
            with contained(request.name, attack.__module__):
                for number, found in enumerate(attack(victim, rows[start:], request.settings, progress, start), start):
                    if number >= first:
                        yield _checked(found, rows[number])
                        first, in_a_row = number + 1, 0
            if first < len(rows):
                raise ForeignError(f"{request.name}: it found something for {first} of {len(rows)} targets", "")
        except SrbenchError as error:
            if isinstance(error, UsageError) and not isinstance(error, ForeignError):
                raise  # it does not go with this method, concept or setting, whatever the target
            reason = error.message.removeprefix(f"{request.name}: ")
            end = min((first // size + 1) * size, len(rows))
            in_a_row = in_a_row + end - first if reason == why else end - first
            end, why = len(rows) if in_a_row >= GIVE_UP else end, reason
            yield from (Failed(row.prompt, reason) for row in rows[first:end])
            first = end


def _checked(found: Any, row: Row) -> Adversarial:
    if not isinstance(found, Adversarial):
        raise CellError(f"{row.id}: the attack returned {type(found).__name__}", "See srbench.attacks.base.")
    if not (math.isfinite(found.objective) and math.isfinite(found.similarity)):
        raise CellError(f"{row.id}: the attack's objective is not a number", "Check its settings.")
    return found


class Part:
    """Finished targets of a search that goes on: a head with its digest, then a line for each."""

    def __init__(self, path: Path, search: str, source: str) -> None:
        self.path, self.search, self.source = path, search, source

    def read(self, count: int) -> list[Result]:
        """What is finished; a torn last line is not. Raises `UsageError` where the file belongs to another search."""
        if kind_of_path(self.path) == "nothing":
            return []
        check_file(self.path, PART)
        lines = read_bytes(self.path, "Choose another --out.").split(b"\n")[:-1]  # what follows the last line end is torn
        again = "Remove it, and the search begins anew."
        head: dict[str, Any] = {}
        found = []
        for number, line in enumerate(lines, 1):
            value = parse_json(line, f"{self.path}: damaged (line {number})", again, unique=True)
            try:
                if number == 1:
                    check_form(value, {"search": TEXT}, {"source": TEXT})
                    head = value
                else:
                    found.append(_entry(value))
            except (ValueError, TypeError, RuntimeError, OverflowError) as error:  # Misfit is one; torch raises the others
                raise UsageError(f"{self.path}: damaged (line {number}: {error})", again) from error
        if (lines and head.get("search") != self.search) or len(found) > count:
            raise UsageError(f"{self.path}: belongs to another search", "Remove it, or choose another --out.")
        if head.get("source", self.source) != self.source:
            raise UsageError(f"{self.path}: the attack's code was changed since this search began", again)
        return found

    def begin(self, done: Sequence[Result]) -> None:
        """Write head and finished lines anew, without a torn one."""
        lines = [canonical({"search": self.search, "source": self.source}), *map(_line, done)]
        write_file(self.path, "".join(f"{line}\n" for line in lines).encode(), PART)

    def add(self, found: Result) -> None:
        """Keep one more. Raises `UsageError` where the disk is full; what was kept before stays."""
        try:
            with self.path.open("ab") as file:
                file.write(f"{_line(found)}\n".encode())
        except OSError as error:
            hint = "Mend that, then run the same command again: it goes on."
            raise UsageError(f"{self.path}: cannot be written ({error.strerror})", hint) from error

    def remove(self) -> None:
        """The search is finished."""
        self.path.unlink(missing_ok=True)


def _line(found: Result) -> str:
    if isinstance(found, Failed):
        return canonical({"target": found.target, "failed": found.why})
    vectors = None if found.embedding is None else found.embedding.tolist()
    return canonical({
        "target": found.target, "prompt": found.prompt, "similarity": found.similarity, "seed": found.tokens_seed,
        "objective": found.objective, "history": list(found.history), "embedding": vectors,
    })  # fmt: skip


OF_ENTRY = {
    "target": TEXT, "prompt": TEXT, "similarity": NUMBER, "seed": or_null(COUNT), "objective": NUMBER, "history": list_of(NUMBER),
    "embedding": or_null(LIST),
}


def _entry(entry: Mapping[str, Any]) -> Result:
    """Raises `Misfit` or `ValueError` where it is not what `_line` writes."""
    if "failed" in entry:
        check_form(entry, {"target": TEXT, "failed": TEXT}, {})
        return Failed(entry["target"], entry["failed"])
    check_form(entry, OF_ENTRY, {})
    vectors = None if entry["embedding"] is None else torch.tensor(entry["embedding"], dtype=torch.float32)
    return Adversarial(
        entry["target"], entry["prompt"], entry["similarity"], entry["seed"], entry["objective"], tuple(entry["history"]), vectors
    )


# --- the file ---------------------------------------------------------------------------------------------------------------

MAKER, EMBEDDING = "srbench attack", "embedding"
_SEARCH = re.compile(r"[0-9a-f]{64}")


def _is_search(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("search"), str) and bool(_SEARCH.fullmatch(found["search"]))


def _content(path: Path) -> Any:
    return read_json(path, limit=CARD_LIMIT)


def _is_rows(path: Path) -> bool:
    """Whether a JSON file says which attack wrote it, in the words that `write` uses."""
    found = _content(path)
    meta = found.get("meta") if isinstance(found, dict) else None
    return isinstance(meta, dict) and _is_search(meta) and "attack" in meta


def _is_vectors(path: Path) -> bool:
    """Whether a file of embeddings has our mark, or the attack's file beside it names it: earlier versions set no mark."""
    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get("made_by") == MAKER:
            return True
        names = set(file.keys())
    rows = path.with_suffix(".json")
    said = _content(rows) if _is_rows(rows) else {}
    entries = said.get("results", []) if said.get("meta", {}).get("embeddings") == path.name else []
    return bool(names) and names == {entry["id"] for entry in entries}


def _is_part(path: Path) -> bool:
    with path.open("rb") as file:
        head = json.loads(file.readline(CARD_LIMIT) or b"null")
    return isinstance(head, dict) and {"search"} <= set(head) <= {"search", "source"}


ROWS = OutputFile(MAKER, "--out", is_own=_is_rows)
VECTORS = OutputFile(MAKER, "--out", is_own=_is_vectors)
PART = OutputFile(MAKER, "--out", is_own=_is_part)


def _beside(out: Path) -> Path:
    """Where the embeddings lie."""
    return out.with_suffix(".safetensors")


def part_of(out: Path) -> Path:
    """What an interrupted search keeps."""
    return out.with_name(f"{out.name}.part")


def check_out(name: str, out: Path) -> None:
    """Raises `UsageError` unless all that the attack writes can be written without harm. Ask before the search."""
    embedding = plugins.plugins("attacks")[name].meta["output"] == EMBEDDING
    if embedding and _beside(out) == out:
        raise UsageError(f"{out}: the embeddings themselves go there", "Give --out a name that ends in .json.")
    check_file(out, ROWS)
    check_file(part_of(out), PART)
    if embedding:
        check_file(_beside(out), VECTORS)


def write(request: AttackRequest, said: dict[str, Scalar], rows: Sequence[Row], found: Sequence[Adversarial]) -> None:
    """The row file of an attack that finds prompts; of one that finds embeddings a safetensors file and what they are.

    Objectives and histories stand in `meta`, in the rows' order. Raises `UsageError` where it cannot be written.
    """
    made = [_row(request, row, each) for row, each in zip(rows, found, strict=True)]
    meta = said | {
        "search": digest(said), "source_code": code.source_of("attacks", request.name),
        "mean_objective": _mean([each.objective for each in found]),
        "mean_similarity": _mean([each.similarity for each in found]),
        "objectives": " ".join(f"{each.objective:.6g}" for each in found),
        "histories": "; ".join(" ".join(f"{value:.4g}" for value in each.history) for each in found),
    }
    if said["output"] == EMBEDDING:
        _write_embeddings(request.out, meta, made, found)
    else:
        plain = [_plain(row, request) for row in rows] if request.plain else []
        write_file(request.out, rendered(RowFile(meta=meta, rows=(*made, *plain))).encode(), ROWS)


def _mean(values: Sequence[float]) -> float:
    return float(f"{sum(values) / len(values):.6g}")


def _row(request: AttackRequest, row: Row, found: Adversarial) -> Row:
    """The target's row with the prompt that was found; seed, reference, objects, style and background stay."""
    changes = {
        "id": f"{request.name}-{row.id}", "category": "adversarial", "prompt": found.prompt, "target": found.target,
        "similarity": round(found.similarity, 6),
        "seed": _seed(row, request),
    }
    return row.model_copy(update=changes)


def _plain(row: Row, request: AttackRequest) -> Row:
    """The target as it is."""
    changes = {"id": f"plain-{row.id}", "category": "plain", "target": row.prompt, "seed": _seed(row, request)}
    return row.model_copy(update=changes)


def _seed(row: Row, request: AttackRequest) -> int:
    """Of the target image."""
    seed: int = request.settings.seed if row.seed is None else row.seed
    return seed


def rendered(file: RowFile) -> str:
    """JSON with one row a line, without the fields that have their defaults."""
    rows = ",\n".join(json.dumps(row.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False) for row in file.rows)
    return f'{{"meta": {json.dumps(file.meta, indent=1, ensure_ascii=False, allow_nan=False)},\n"rows": [\n{rows}\n]}}\n'


def _write_embeddings(out: Path, meta: Mapping[str, Scalar], rows: Sequence[Row], found: Sequence[Adversarial]) -> None:
    """`FILE` says what they are, and has no `rows`: it cannot be run as prompts. The embeddings lie beside it."""
    tensors = {row.id: each.embedding.contiguous() for row, each in zip(rows, found, strict=True) if each.embedding is not None}
    beside = _beside(out)
    write_file(beside, save(tensors, {"made_by": MAKER}), VECTORS)
    entries = [row.model_dump(mode="json", exclude_defaults=True, exclude={"prompt"}) | {"nearest": row.prompt} for row in rows]
    data = {"meta": {**meta, "embeddings": beside.name}, "results": entries}
    write_file(out, (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(), ROWS)
