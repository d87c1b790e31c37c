"""Carries out an attack: the victim, a search that can be resumed, and the file that it writes.

Finished targets are kept in `FILE.part`, a line each, so that the finished file is the same however often the search was
interrupted. Nothing in it depends on when, where or how fast it was made.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from srbench.engine.checkpoints import Checkpoints, OnConcept, check_on
from srbench.engine.prepare import MethodOnConcept, is_weight, prepare_method
from srbench.errors import CellError, ForeignError, SrbenchError, UsageError
from srbench.faults import at, contained
from srbench.files import kind_of_path, parse_json, read_bytes, read_json
from srbench.hashing import canonical, digest
from srbench.methods.base import Tell, quiet
from srbench.outputs import CARD_LIMIT, OutputFile, check_file, write_file
from srbench.progress import span
from srbench.rules import COUNT, LIST, NUMBER, TEXT, list_of, or_null
from srbench.rules import check as check_form

EXECUTION = ("device",)
"""Settings that decide only where the search runs."""
TOLD_FROM_S = 5.0
"""Searches that are done sooner do not say how long they take."""
GIVE_UP = 20
"""Targets in a row on which an attack may fail for one reason before the others are not tried any more."""
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Attacked:
    """The result of an attack."""

    found: tuple[Adversarial, ...]
    resumed: int
    """How many of them were read from `FILE.part`."""
    failed: tuple[str, ...] = ()
    """Why targets have none, one reason for each."""


@dataclass(frozen=True)
class Failed:
    """A target for which nothing was found because the attack failed on it, or on one of its group."""

    target: str
    why: str


class Lost(Failed):
    """One of a group at which actors died, which says nothing of the attack."""


Result = Adversarial | Failed


# --- the victim -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A victim's parts before the checkpoint is loaded into the pipeline."""

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
    request: AttackRequest, backbone: Backbone, concept: ConceptSpec, pairs: tuple[tuple[str, str], ...], tell: Tell = quiet,
    make: bool = True,
) -> Prepared:
    """Method and checkpoint, made where they are not there. Weight methods given as the method count as the checkpoint.

    make: whether they may be made now; else `Unmade` is raised.

    Raises `UsageError` for unknown names, and for a black-box attack on a method that it would never see.
    """
    method, on = check_victim(request.name, request.method, request.on, str(request.out))
    check_on(on)
    presets = [name for name in (method, on) if name in plugins.presets()]
    check(request.method_settings, {*presets, *(plugins.preset(name)[0] for name in presets)})
    folder = request.checkpoints
    under = Checkpoints(backbone, request.method_settings, folder, tell, make).get(on, concept)
    ready = prepare_method(method, backbone, concept, request.method_settings, under.checkpoint, folder, tell, make)
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
def victim_of(setup: Prepared) -> Iterator[Victim]:
    """The victim; its checkpoint is loaded into the pipeline inside the context."""
    pipeline, spec, checkpoint = setup.backbone.pipeline, setup.backbone.spec, setup.on.checkpoint
    original = _before(pipeline, checkpoint) if checkpoint else None
    active = setup.method.active
    defence = None if setup.undefended else Defence(active.method, active.artifact, active.options)
    with laid_over(pipeline, checkpoint):
        banned = tuple(banned_words(setup.concept, spec.family))
        yield Victim(pipeline, spec.family, setup.concept, banned, spec.recipe, defence, original, setup.pairs)


def _before(pipeline: Any, checkpoint: Checkpoint) -> Checkpoint:
    """The backbone's own weights that the checkpoint will replace."""
    tensors = {}
    for component, changed in checkpoint.tensors.items():
        state = getattr(pipeline, component).state_dict()
        tensors[component] = {name: state[name].clone() for name in changed}
    return replace(checkpoint, name="none", tensors=tensors)


# --- the search -------------------------------------------------------------------------------------------------------------


def identity(request: AttackRequest, setup: Prepared, rows: Sequence[Row], source: str) -> dict[str, Scalar]:
    """Everything that decides the results, as the file's `meta` states it."""
    plugin = plugins.plugins("attacks")[request.name].meta
    chosen = {name: value for name, value in request.settings.model_dump().items() if name not in EXECUTION}
    backbone, method, on = setup.backbone, setup.method, setup.on
    meta: dict[str, Scalar] = {
        "attack": request.name, "attack_version": plugin["version"], "paper": plugin["paper"], "needs": plugin["needs"],
        "output": plugin["output"], "objective": plugin["objective"], "better": plugin["better"], "concept": setup.concept.name,
        "backbone": backbone.spec.name, "backbone_sha256": backbone.sha256, ENCODER_SHA: encoder_sha(backbone),
        "method": method.preset, "method_version": method.version, "method_options": canonical(method.options.model_dump()),
        "artifact_sha256": method.artifact_sha, "on": on.name, "checkpoint_sha256": on.checkpoint.sha256 if on.checkpoint else "",
        "steps_recipe": backbone.spec.recipe.steps, "guidance_recipe": backbone.spec.recipe.guidance,
        "banned": ", ".join(banned_words(setup.concept, backbone.spec.family)), "targets": source,
        "targets_sha256": load.rows_sha(tuple(rows)), "pairs_used": len(setup.pairs), "pairs_sha256": digest(setup.pairs),
    }  # fmt: skip
    return meta | chosen


@dataclass
class Kept:
    """The results so far, in the order of their targets. Each is in `FILE.part` before the next one comes."""

    rows: Sequence[Row]
    part: Part
    done: list[Result]
    resumed: int
    """How many of them `FILE.part` had already."""

    def add(self, result: Result) -> None:
        """One more. Raises `EnoughError` where the attack fails for one reason on target after target: all others have failed."""
        self.done.append(result)
        self.part.add(result)
        last = self.done[max(self.resumed, len(self.done) - GIVE_UP) :]
        whys = {each.why if type(each) is Failed else "" for each in last}
        if len(last) == GIVE_UP and len(whys) == 1 and type(result) is Failed:
            for row in self.rows[len(self.done) :]:
                self.done.append(Failed(row.prompt, *whys))
                self.part.add(self.done[-1])
            raise EnoughError

    def forget_lost(self) -> None:
        """Search the last groups again at which actors died, where the same command goes on."""
        while self.done and isinstance(self.done[-1], Lost):
            del self.done[-1]
        self.part.begin(self.done)


class EnoughError(Exception):
    """Nothing more has to be searched."""


Spread = Callable[[Mapping[str, Scalar], Kept], None]
"""Has the rest of a search done by others. Given what decides its results, as `identity` says it."""


def search(
    request: AttackRequest, setup: Prepared, rows: Sequence[Row], source: str, progress: Progress | None = None,
    say: Callable[[str], None] | None = None, spread: Spread | None = None,
) -> Attacked:
    """Attack every row, those of `FILE.part` left out, and write the file. A target on which the attack fails is left out of it.

    say: gets a line on how long the search will take, before it begins. spread: who searches; None for this process.

    Raises `UsageError` where `FILE.part` belongs to another search, the file cannot be written, or the attack failed on all.
    """
    meta = identity(request, setup, rows, source)
    part = Part(part_of(request.out), digest(meta), code.source_of("attacks", request.name))
    done = part.read(len(rows))
    kept = Kept(rows, part, done, len(done))
    if len(done) < len(rows):
        part.begin(done)
        with suppress(EnoughError):
            if spread is None:
                _alone(request, setup, kept, progress, say)
            else:
                spread(meta, kept)
    results = {number: entry for number, entry in enumerate(done) if isinstance(entry, Adversarial)}
    failed = tuple(entry.why for entry in done if isinstance(entry, Failed))
    if not results:
        part.remove()
        raise ForeignError(f"{request.name} failed on every target: {failed[0]}", "")
    meta |= {"failed": len(failed)} if failed else {}
    write(request, meta, [rows[number] for number in results], list(results.values()))
    part.remove()
    return Attacked(tuple(results.values()), kept.resumed, failed)


def _alone(
    request: AttackRequest, setup: Prepared, kept: Kept, progress: Progress | None, say: Callable[[str], None] | None
) -> None:
    """Search in this process."""
    with victim_of(setup) as victim:
        if say:
            say_how_long(say, forecast(request, victim, kept.rows, kept.resumed))
        try:
            for result in searched(request, victim, kept.rows, kept.resumed, progress):
                kept.add(result)
        except UsageError:
            if len(kept.done) >= len(kept.rows):  # one result too many: which belongs to which target cannot be known
                kept.part.remove()
            raise


def forecast(request: AttackRequest, victim: Victim, rows: Sequence[Row], first: int) -> float | None:
    """Seconds that the search of the rows from number `first` on will take: it is begun, and stopped at its second report.

    None where that cannot be told: the attack reports nothing before its first result, or it fails, which the search will say.
    """
    size, seen = request.settings.parallel, list[tuple[float, int, int]]()
    start = first // size * size
    attack = plugins.load("attacks", request.name).attack

    def look(done: int, total: int) -> None:
        seen.append((time.monotonic(), done, total))
        if len(seen) == 2:
            raise EnoughError

    began = time.monotonic()
    try:
        next(iter(attack(victim, rows[start:], request.settings, look, start)), None)
    except EnoughError:
        pass
    except Exception:  # noqa: BLE001 - whatever a plug-in raises; the search meets it again and reports it
        return None
    if len(seen) < 2 or seen[1][1] <= seen[0][1]:
        return None
    (one, before, _), (other, after, total) = seen
    each = (other - one) / (after - before)
    around = max(0.0, one - began - each * before)  # what a group costs beside its iterations
    return each * total + around * -(-(len(rows) - start) // size)


def say_how_long(say: Callable[[str], None], seconds: float | None, where: str = "on this machine") -> None:
    """Unless it is done at once, or cannot be told."""
    if seconds is not None and seconds > TOLD_FROM_S:
        say(f"the search takes about {span(seconds)} {where}; it goes on where it is interrupted")


def searched(
    request: AttackRequest, victim: Victim, rows: Sequence[Row], first: int, progress: Progress | None = None
) -> Iterator[Result]:
    """A result for each row from number `first` on. Where the attack fails, its group is left out, and the next one is searched.

    A group cannot be searched without one of its targets: the results of the others depend on it.
    """
    size = request.settings.parallel
    attack = plugins.load("attacks", request.name).attack
    while first < len(rows):
        start = first // size * size  # a group is searched whole
        try:
            with contained(request.name, attack.__module__):
                for number, result in enumerate(attack(victim, rows[start:], request.settings, progress, start), start):
                    if number >= first:
                        if number == len(rows):
                            problem = f"{request.name}: it found more than {len(rows) - start} results for as many targets"
                            raise UsageError(f"{problem}{at(attack)}", "Yield one result for each target, in order.")
                        yield _checked(result, rows[number], at(attack))
                        first = number + 1
            if first < len(rows):
                problem = f"{request.name}: it found something for {first} of {len(rows)} targets{at(attack)}"
                raise ForeignError(problem, "Yield one result for each target.")
        except SrbenchError as error:
            if isinstance(error, UsageError) and not isinstance(error, ForeignError):
                raise  # it does not go with this method, concept or setting, whatever the target
            reason = error.message.removeprefix(f"{request.name}: ")
            end = min((first // size + 1) * size, len(rows))
            yield from (Failed(row.prompt, reason) for row in rows[first:end])
            first = end


def _checked(result: Any, row: Row, where: str) -> Adversarial:
    """A target's result. Raises `CellError` for what is none. where: the attack's module and line."""
    if not isinstance(result, Adversarial):
        raise CellError(f"{row.id}: the attack returned {type(result).__name__}{where}", "Yield base.Adversarial(...).")
    if not (math.isfinite(result.objective) and math.isfinite(result.similarity)):
        raise CellError(f"{row.id}: the attack's objective is not a number{where}", "Check its settings.")
    return result


class Part:
    """File of a search's finished targets: a head with the search's digest, then a line for each."""

    def __init__(self, path: Path, search: str, source: str) -> None:
        self.path, self.search, self.source = path, search, source

    def read(self, count: int) -> list[Result]:
        """The finished results; a torn last line is ignored. Raises `UsageError` where the file belongs to another search."""
        if kind_of_path(self.path) == "nothing":
            return []
        check_file(self.path, PART)
        lines = read_bytes(self.path, "Choose another --out.").split(b"\n")[:-1]  # what follows the last line end is torn
        again = "Remove it, and the search begins anew."
        head: dict[str, Any] = {}
        results = []
        for number, line in enumerate(lines, 1):
            value = parse_json(line, f"{self.path}: damaged (line {number})", again, unique=True)
            try:
                if number == 1:
                    check_form(value, {"search": TEXT}, {"source": TEXT})
                    head = value
                else:
                    results.append(entry_of(value))
            except (ValueError, TypeError, RuntimeError, OverflowError) as error:  # Misfit is one; torch raises the others
                raise UsageError(f"{self.path}: damaged (line {number}: {error})", again) from error
        if (lines and head.get("search") != self.search) or len(results) > count:
            raise UsageError(f"{self.path}: belongs to another search", "Remove it, or choose another --out.")
        if head.get("source", self.source) != self.source:
            raise UsageError(f"{self.path}: the attack's code was changed since this search began", again)
        return results

    def begin(self, done: Sequence[Result]) -> None:
        """Write head and finished lines anew, without a torn one."""
        lines = [canonical({"search": self.search, "source": self.source}), *map(line_of, done)]
        write_file(self.path, "".join(f"{line}\n" for line in lines).encode(), PART)

    def add(self, result: Result) -> None:
        """Append one result. Raises `UsageError` where the disk is full; earlier results stay."""
        try:
            with self.path.open("ab") as file:
                file.write(f"{line_of(result)}\n".encode())
        except OSError as error:
            hint = "Mend that, then run the same command again: it goes on."
            raise UsageError(f"{self.path}: cannot be written ({error.strerror})", hint) from error

    def remove(self) -> None:
        """Delete the file of a finished search."""
        self.path.unlink(missing_ok=True)


def line_of(result: Result) -> str:
    """A result as a line of `FILE.part`."""
    if isinstance(result, Failed):
        return canonical({"target": result.target, "failed": result.why})
    vectors = None if result.embedding is None else result.embedding.tolist()
    return canonical({
        "target": result.target, "prompt": result.prompt, "similarity": result.similarity, "seed": result.tokens_seed,
        "objective": result.objective, "history": list(result.history), "embedding": vectors,
    })  # fmt: skip


OF_ENTRY = {
    "target": TEXT, "prompt": TEXT, "similarity": NUMBER, "seed": or_null(COUNT), "objective": NUMBER, "history": list_of(NUMBER),
    "embedding": or_null(LIST),
}


def entry_of(entry: Mapping[str, Any]) -> Result:
    """The result of a line. Raises `Misfit` or `ValueError` where `line_of` did not write it."""
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


def _is_search(meta: Any) -> bool:
    return isinstance(meta, dict) and isinstance(meta.get("search"), str) and bool(_SEARCH.fullmatch(meta["search"]))


def _content(path: Path) -> Any:
    return read_json(path, limit=CARD_LIMIT)


def _is_rows(path: Path) -> bool:
    """Whether a JSON file says which attack wrote it, in the words that `write` uses."""
    content = _content(path)
    meta = content.get("meta") if isinstance(content, dict) else None
    return isinstance(meta, dict) and _is_search(meta) and "attack" in meta


def _is_vectors(path: Path) -> bool:
    """Whether a file of embeddings has our mark, or the attack's file beside it names it: earlier versions set no mark."""
    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get("made_by") == MAKER:
            return True
        names = set(file.keys())
    rows = path.with_suffix(".json")
    content = _content(rows) if _is_rows(rows) else {}
    entries = content.get("results", []) if content.get("meta", {}).get("embeddings") == path.name else []
    return bool(names) and names == {entry["id"] for entry in entries}


def _is_part(path: Path) -> bool:
    with path.open("rb") as file:
        head = json.loads(file.readline(CARD_LIMIT) or b"null")
    return isinstance(head, dict) and {"search"} <= set(head) <= {"search", "source"}


ROWS = OutputFile(MAKER, "--out", is_own=_is_rows)
VECTORS = OutputFile(MAKER, "--out", is_own=_is_vectors)
PART = OutputFile(MAKER, "--out", is_own=_is_part)


def _beside(out: Path) -> Path:
    """Path of the embeddings' file."""
    return out.with_suffix(".safetensors")


def part_of(out: Path) -> Path:
    """Path of an unfinished search's finished targets."""
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


def write(request: AttackRequest, meta: dict[str, Scalar], rows: Sequence[Row], results: Sequence[Adversarial]) -> None:
    """Write the row file of an attack, or for embeddings a safetensors file and their description.

    Objectives and histories are in `meta`, in the rows' order. Raises `UsageError` where it cannot be written.
    """
    attacked = [_row(request, row, result) for row, result in zip(rows, results, strict=True)]
    full_meta = meta | {
        "search": digest(meta), "source_code": code.source_of("attacks", request.name),
        "mean_objective": _mean([result.objective for result in results]),
        "mean_similarity": _mean([result.similarity for result in results]),
        "objectives": " ".join(f"{result.objective:.6g}" for result in results),
        "histories": "; ".join(" ".join(f"{value:.4g}" for value in result.history) for result in results),
    }
    if meta["output"] == EMBEDDING:
        _write_embeddings(request.out, full_meta, attacked, results)
    else:
        plain = [_plain(row, request) for row in rows] if request.plain else []
        write_file(request.out, rendered(RowFile(meta=full_meta, rows=(*attacked, *plain))).encode(), ROWS)


def _mean(values: Sequence[float]) -> float:
    return float(f"{sum(values) / len(values):.6g}")


def _row(request: AttackRequest, row: Row, result: Adversarial) -> Row:
    """The target's row with the prompt that was found; seed, reference, objects, style and background stay."""
    changes = {
        "id": f"{request.name}-{row.id}", "category": "adversarial", "prompt": result.prompt, "target": result.target,
        "similarity": round(result.similarity, 6),
        "seed": _seed(row, request),
    }
    return row.model_copy(update=changes)


def _plain(row: Row, request: AttackRequest) -> Row:
    """The target as it is."""
    changes = {"id": f"plain-{row.id}", "category": "plain", "target": row.prompt, "seed": _seed(row, request)}
    return row.model_copy(update=changes)


def _seed(row: Row, request: AttackRequest) -> int:
    """The seed of the target image."""
    seed: int = request.settings.seed if row.seed is None else row.seed
    return seed


def rendered(file: RowFile) -> str:
    """JSON with one row a line, without the fields that have their defaults."""
    rows = ",\n".join(json.dumps(row.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False) for row in file.rows)
    return f'{{"meta": {json.dumps(file.meta, indent=1, ensure_ascii=False, allow_nan=False)},\n"rows": [\n{rows}\n]}}\n'


def _write_embeddings(out: Path, meta: Mapping[str, Scalar], rows: Sequence[Row], results: Sequence[Adversarial]) -> None:
    """`FILE` describes them, without `rows`: it cannot be run as prompts. The embeddings are in a file beside it."""
    pairs = zip(rows, results, strict=True)
    tensors = {row.id: result.embedding.contiguous() for row, result in pairs if result.embedding is not None}
    beside = _beside(out)
    write_file(beside, save(tensors, {"made_by": MAKER}), VECTORS)
    entries = [row.model_dump(mode="json", exclude_defaults=True, exclude={"prompt"}) | {"nearest": row.prompt} for row in rows]
    data = {"meta": {**meta, "embeddings": beside.name}, "results": entries}
    write_file(out, (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(), ROWS)
