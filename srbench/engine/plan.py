"""Plans a request: its cells, and the images and scores that they need."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from srbench.analysis.metrics import FLOOR_METRICS, REFERENCE_METRICS, RETAIN_METRICS
from srbench.backbones import lengths
from srbench.backbones.deployed import Changes, changes_of, scheduler_of
from srbench.backbones.loader import ENCODER_SHA, Backbone, encoder_sha
from srbench.catalog import load, plugins, screen, sources
from srbench.catalog.joint import joint
from srbench.catalog.judges import check_judges, with_settings
from srbench.catalog.screen import refuse_minors
from srbench.catalog.specs import ConceptSpec, Edition, ProtocolSpec, Recipe, Row, SuiteSpec
from srbench.engine.checkpoints import UNTOUCHED, Checkpoints, OnConcept, check_on
from srbench.engine.onnames import check_settings_of_run, with_seeds
from srbench.engine.prepare import MethodOnConcept, check_options, is_weight, prepare_method
from srbench.engine.request import Cell, Planned, PlannedRow, RunRequest
from srbench.engine.starts import key_of, start_of
from srbench.engine.sweep import check_values, is_of, parsed
from srbench.errors import CellError, ForeignError, MissingError, SrbenchError, UsageError
from srbench.faults import contained
from srbench.files import printable
from srbench.hashing import canonical
from srbench.methods.base import Artifact, Tell, quiet
from srbench.results.keys import ImageSpec
from srbench.scoring.scoring import check_scorers

TEXT_FIELDS = {
    "prompt": "prompts", "negative_prompt": "negative prompts", "reference": "references", "pictured": "prompts of pictures",
}  # fmt: skip
"""A row's fields that are encoded -> their plural in messages."""
SHOWN_IDS = 5
FLOOR_SEED_OFFSET = 1_000_003
"""Added to a row's seed for its floor image."""


def limited(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """The first `limit` rows of each kind; reserved synonyms (`unseen`) count as a kind of their own."""
    if limit is None:
        return list(rows)
    taken: dict[tuple[str, bool], int] = {}
    chosen = []
    for row in rows:
        kind = (row.kind, row.category == "unseen")
        taken[kind] = taken.get(kind, 0) + 1
        if taken[kind] <= limit:
            chosen.append(row)
    return chosen


@dataclass(frozen=True)
class Drawn:
    """A backbone as a run draws with it."""

    backbone: Backbone
    changes: Changes
    recipe: Recipe
    scheduler: str
    """Canonical JSON."""
    seed: int
    """Of rows that bring none."""


def drawn_as(backbone: Backbone, request: RunRequest) -> Drawn:
    """The backbone under the request's `--set backbone.*`. Raises `UsageError` for a bad one."""
    changes = changes_of(request.settings, backbone.spec.family)
    recipe, scheduler = changes.recipe(backbone.spec.recipe), scheduler_of(backbone.scheduler, changes)
    return Drawn(backbone, changes, recipe, scheduler, request.seed)


def _image(row: Row, method: MethodOnConcept, on: OnConcept, drawn: Drawn) -> Planned:
    recipe, backbone = drawn.recipe, drawn.backbone
    spec = ImageSpec(
        backbone_sha=backbone.sha256, checkpoint_sha=on.checkpoint.sha256 if on.checkpoint else "", method=method.name,
        method_version=method.version, options=canonical(method.options.model_dump()), artifact_sha=method.artifact_sha,
        concept_sha=method.concept_sha,
        prompt=row.prompt, negative_prompt=row.negative_prompt, seed=drawn.seed if row.seed is None else row.seed,
        steps=recipe.steps, guidance=recipe.guidance if row.guidance is None else row.guidance, eta=recipe.eta,
        true_guidance=recipe.true_guidance,
        guidance_rescale=recipe.guidance_rescale, clip_skip=recipe.clip_skip, scheduler=drawn.scheduler,
        width=row.width or recipe.width, height=row.height or recipe.height, dtype=backbone.dtype,
        approximations=drawn.changes.approximations, start=_start(row, drawn),
    )
    return Planned(spec, method, on.checkpoint, _picture(row))


def _picture(row: Row) -> Path | None:
    return Path(row.picture).expanduser() if row.start and row.picture else None


def _start(row: Row, drawn: Drawn) -> str:
    """What the key says of a row's beginning; empty for noise. Raises `UsageError` for what is none."""
    if not row.start:
        return ""
    start_of(row.start).first(drawn.recipe.steps)
    seed = drawn.seed if row.seed is None else row.seed
    return key_of(row.start, row.pictured or row.prompt, seed, _picture(row))


def _planned(
    row: Row, suite: SuiteSpec, method: MethodOnConcept, on: OnConcept, plain: MethodOnConcept, drawn: Drawn
) -> PlannedRow:
    image = _image(row, method, on, drawn)
    wanted = set(suite.metrics)
    compared = row.kind == "forget" or RETAIN_METRICS & wanted
    if not compared or row.reference is None or row.category == "unseen":
        return PlannedRow(row, image)
    same = row.model_copy(update={"prompt": row.reference})
    other = same.model_copy(update={"seed": (drawn.seed if row.seed is None else row.seed) + FLOOR_SEED_OFFSET})
    reference = _image(same, plain, UNTOUCHED, drawn) if (REFERENCE_METRICS | FLOOR_METRICS) & wanted else None
    floor = _image(other, plain, UNTOUCHED, drawn) if FLOOR_METRICS & wanted and row.kind == "forget" else None
    return PlannedRow(row, image, reference, floor)


def _check_encoder(suite: SuiteSpec, loaded: sources.Found, backbone: Backbone) -> None:
    """Refuse adversarial rows that were made against another text encoder."""
    made_for = loaded.meta.get(ENCODER_SHA)
    if made_for is not None and made_for != encoder_sha(backbone):
        anew = ("srbench", "attack", str(loaded.meta.get("attack", "mma")), "--backbone", backbone.spec.name)
        raise UsageError(
            f"suite '{suite.name}': its prompts were made against another text encoder ({str(made_for)[:12]}...)",
            f"Make them anew: {shlex.join(anew)} ...",
        )


def variant_of(request: RunRequest, *parts: str) -> str:
    """Changed options, dtype, part and limit as one short string; empty for the defaults."""
    changes = [part for part in parts if part]
    changes += [f"dtype={request.dtype}"] if request.dtype != "fp32" else []
    changes += [f"part={request.part}"] if request.part != "test" else []
    changes += [f"limit={request.limit}"] if request.limit is not None else []
    return ",".join(changes)


@dataclass
class Ready:
    """What the cells of one plan share; each method, checkpoint and split is prepared once."""

    request: RunRequest
    backbone: Backbone
    checkpoints: Checkpoints
    tell: Tell
    drawn: Drawn
    _methods: dict[tuple[str, str, str], MethodOnConcept] = field(default_factory=dict)
    _loaded: dict[tuple[str, str], sources.Found] = field(default_factory=dict)
    _lengths: dict[tuple[Row, ...], tuple[str, ...]] = field(default_factory=dict)

    def method(self, preset: str, concept: ConceptSpec, on: OnConcept) -> MethodOnConcept:
        """A preset, prepared for a concept on a checkpoint."""
        key = (preset, concept.name, on.name)
        if key not in self._methods:
            self._methods[key] = prepare_method(
                preset, self.backbone, concept, self.request.settings, on.checkpoint, self.checkpoints.folder, self.tell,
                self.checkpoints.make,
            )
        return self._methods[key]

    def trained(self, concept: ConceptSpec) -> frozenset[str]:
        """Fingerprints of the prompts that a method of this run was trained with, as the methods' cards list them.

        Only methods that load a trained artifact have such cards. One that cannot be loaded blocks its own cell.
        """
        used: set[str] = set()
        for preset in self.request.methods:
            meta = plugins.plugins("methods")[plugins.preset(preset)[0]].meta
            if meta["kind"] != "inference" or meta.get("prepare") == "make":
                continue
            with suppress(SrbenchError):
                used |= set(_card(self.method(preset, concept, UNTOUCHED)).get("used", {}).get("prompts", ()))
        return frozenset(used)

    def rows(self, suite: SuiteSpec, edition: Edition, concept: ConceptSpec) -> sources.Found:
        """The rows of a split, read once for all methods."""
        key = (suite.name, concept.name)
        if key not in self._loaded:
            self._loaded[key] = sources.rows(suite, edition, self.request.given)
        return self._loaded[key]

    def lengths(self, rows: tuple[Row, ...]) -> tuple[str, ...]:
        """Flags of texts that the text encoders truncate, or have no token for; worked out once for all methods."""
        if rows in self._lengths:
            return self._lengths[rows]
        flags, reader = [], self.backbone.reader
        for name, kind in TEXT_FIELDS.items():
            texts = {row.id: getattr(row, name) or "" for row in rows}
            for tokenizer, (limit, beyond) in lengths.cut(reader, texts.values()).items():
                where = f" of {tokenizer}" if len(lengths.limits(reader)) > 1 else ""
                flags.append(f"{kind} longer than {limit} tokens{where}, cut there by the encoder: {_ids(texts, beyond)}")
            nothing = lengths.unread(reader, texts.values())
            flags += [f"{kind} in which a tokenizer knows no word: {_ids(texts, nothing)}"] if nothing else []
        self._lengths[rows] = tuple(flags)
        return self._lengths[rows]


def _ids(texts: Mapping[str, str], of: frozenset[str]) -> str:
    """The number of rows whose text is in `of`, and the ids of the first few."""
    ids = [name for name, text in texts.items() if text in of]
    return f"{len(ids)} ({', '.join(map(printable, ids[:SHOWN_IDS]))}{', ...' if len(ids) > SHOWN_IDS else ''})"


def _card(method: MethodOnConcept) -> dict[str, Any]:
    artifact: Artifact | None = method.active.artifact
    return artifact.card if artifact else {}


def _untrained(cell: Cell, rows: Sequence[Row], used: frozenset[str]) -> tuple[Row, ...]:
    """The rows that no method of the run was trained with; all its cells leave out the others, to stay comparable."""
    left = tuple(row for row in rows if load.fingerprint(row.prompt) not in used)
    if len(left) < len(rows):
        dropped = Counter(row.kind for row in rows) - Counter(row.kind for row in left)
        counts = " and ".join(f"{count} {kind}" for kind, count in sorted(dropped.items()))
        note = f"{cell.suite.name}/{cell.concept.name}: {counts} rows are left out: a method of this run was trained with them."
        cell.found = replace(cell.found, notes=(*cell.found.notes, note), variant=(*cell.found.variant, "untrained"))
        cell.n_excluded += len(rows) - len(left)
        cell.rows_sha = load.rows_sha(left)
    return left


def _check_pictures(concept: ConceptSpec, rows: Sequence[Row]) -> None:
    """Raises `MissingError` where a picture of a sensitive concept would be drawn to begin from."""
    if screen.sensitive_concept(concept) and any(row.start and not row.picture for row in rows):
        problem = f"concept '{concept.name}' is sensitive: no pictures of it are drawn to begin from"
        raise MissingError(problem, "Bring your own: --prompts FILE with the columns begin_from and begin_picture.")


def _screened(cell: Cell, edition: Edition, rows: Sequence[Row], settings: Sequence[str]) -> tuple[Row, ...]:
    """The rows that pass the content filter; sets the cell's counts.

    Raises `MissingError` where hidden targets cannot be screened, `UsageError` as `refuse_minors` does.
    """
    cell.sensitive = screen.sensitive(cell.concept, cell.suite, rows, cell.found.others)
    lacking = screen.untargeted(rows) if cell.sensitive and edition.hidden else 0
    if lacking:
        raise MissingError(
            f"{lacking} rows of suite '{cell.suite.name}' hide what they stand for, and it is not known: they cannot be screened",
            "Sensitive runs need it: give --prompts a copy with a column 'target', and --accept-prompts.",
        )
    if cell.sensitive:
        refuse_minors(settings)
    admitted = screen.admissible(rows, cell.found.others) if cell.sensitive else tuple(rows)
    cell.n_loaded, cell.n_excluded = len(rows), len(rows) - len(admitted)
    cell.rows_sha = load.rows_sha(admitted)
    return admitted


def edition_of(request: RunRequest, suite: SuiteSpec, family: str, concept: ConceptSpec) -> Edition:
    """The suite's rows for the concept. Raises `UsageError` where there are none."""
    return load.edition(suite, family, concept.name, request.part, copy=request.prompts is not None)


def judge_of(request: RunRequest, edition: Edition, family: str, concept: ConceptSpec) -> ProtocolSpec:
    """Who decides: the judge that was asked for, else the edition's, else the concept's. Raises `UsageError`."""
    return load.protocol(request.protocol or edition.protocol or concept.families[family].protocol)


def plan_cell(ready: Ready, preset: str, on: str, suite: SuiteSpec, concept: ConceptSpec) -> Cell:
    """One cell with its rows. A missing prerequisite blocks the cell; a usage error is raised."""
    request, backbone, family = ready.request, ready.backbone, ready.backbone.spec.family
    edition = edition_of(request, suite, family, concept)
    suite = suite.of(edition)
    protocol = judge_of(request, edition, family, concept)
    cell = Cell(preset, on, suite, concept, protocol, "", family, prompts=request.prompts, columns=request.columns)
    cell.sensitive = screen.sensitive(concept, suite, ())
    judges = [part.scorer for part in load.parts(protocol)]
    cell.scorers = tuple(dict.fromkeys((*judges, *backbone.spec.describing, *request.scorers)))
    try:
        cell.found = ready.rows(suite, edition, concept)
        _check_encoder(suite, cell.found, backbone)
        rows = _screened(cell, edition, limited(cell.found.rows, request.limit), request.settings)
        rows = _untrained(cell, rows, ready.trained(concept))
        cell.found = replace(cell.found, flags=(*cell.found.flags, *ready.lengths(tuple(rows))))
        _check_pictures(concept, rows)
        if not rows:
            raise CellError("no row is left to run", "The suite is empty, or every row was excluded.")
        with contained(f"making {preset} on {on} ready for {concept.name}"):
            under = ready.checkpoints.get(on, concept)
            method = ready.method(preset, concept, under)
    except ForeignError as error:
        cell.blocked = error
        return cell
    except UsageError:
        raise
    except SrbenchError as error:
        cell.blocked = error
        return cell
    plain = ready.method("none", concept, UNTOUCHED)
    cell.found = replace(cell.found, notes=(*cell.found.notes, *_card(method).get("notes", ())))
    cell.on, cell.checkpoint, cell.applied = under.name, under.checkpoint, method
    cell.variant, cell.decides = variant_of(
        request, method.variant, under.variant, ready.drawn.changes.said, *cell.found.variant
    ), method.decides
    cell.rows = [_planned(row, suite, method, under, plain, ready.drawn) for row in rows]
    return cell


def _based_on(weight: str, on: str) -> bool:
    """Whether a weight method declares the checkpoint `on` as its base."""
    name, _ = plugins.preset(weight)
    base = plugins.plugins("methods")[name].meta.get("base")
    return base is not None and on in plugins.presets() and plugins.preset(on)[0] == plugins.preset(base["preset"])[0]


def grid(methods: Sequence[str], on: Sequence[str]) -> list[tuple[str, str]]:
    """(method, checkpoint) of every cell, the untouched backbone first. A weight method W becomes method `none` on W.

    Raises `UsageError` for an unknown name, and for a weight method on a checkpoint that is not its base.
    """
    for name in on:
        check_on(name)
    pairs: dict[tuple[str, str], None] = {}
    for method in methods:
        for under in on:
            if not is_weight(method):
                pairs[method, under] = None
            elif under == "none" or _based_on(method, under):
                pairs["none", method] = None
            else:
                raise UsageError(
                    f"'{method}' changes weights and cannot be stacked on '{under}'", f"Give it to --on: --on {under},{method}"
                )
    return sorted(pairs, key=lambda pair: pair != ("none", "none"))


def _suites(request: RunRequest) -> list[SuiteSpec]:
    """The suites by name, or the user's own file as one. Raises `UsageError` where one file is given for several suites."""
    if request.prompts and not request.suites:
        return [sources.own(request.prompts, dict(request.columns))]
    if request.prompts and len(request.suites) > 1:
        raise UsageError("--prompts is the copy of one suite", "Name one, or none: the file is then a suite of its own.")
    return [load.suite(name) for name in request.suites]


def plan(request: RunRequest, backbone: Backbone, tell: Tell = quiet, make: bool = True) -> list[Cell]:
    """All cells, `none` first as the baseline. Raises `UsageError` before anything is sampled.

    make: whether a missing checkpoint or inversion may be made now; else its cells are blocked by `Unmade`. A shard makes none.
    """
    make = make and request.shard is None
    if request.sweep is not None:
        return plan_sweep(replace(request, sweep=None), request.sweep, backbone, tell, make)
    pairs = grid(request.methods, request.on)
    presets = check_settings_of_run(request.settings, request.methods, request.on)
    with_seeds(request.settings, request.on)
    drawn = drawn_as(backbone, request)
    suites = _suites(request)
    concepts = load.concepts_of(backbone.spec, request.concepts)
    for name in request.scorers:
        plugins.known("scorers", name)
    check_options(presets, request.settings, backbone.spec.family, [concept.kind for concept in concepts])
    family = backbone.spec.family
    chosen = [(edition_of(request, suite, family, concept), concept) for suite in suites for concept in concepts]
    judges = [judge_of(request, edition, family, concept) for edition, concept in chosen]
    check_judges(judges, request.settings)
    check_scorers(with_settings(request.settings, judges))
    if request.joint:
        _check_joint(request, presets, concepts, family)
    whole = tuple(concepts) if request.joint else ()
    kept = Checkpoints(backbone, request.settings, request.out / "store" / "checkpoints", tell, make, whole)
    ready = Ready(request, backbone, kept, tell, drawn)
    return [
        plan_cell(ready, method, on, suite, concept) for concept in concepts for suite in suites for method, on in pairs
    ]


def _check_joint(request: RunRequest, presets: Sequence[str], concepts: Sequence[ConceptSpec], family: str) -> None:
    """Raises `UsageError` where there is nothing to unlearn at once, or the concepts contradict each other."""
    if len(concepts) < 2:
        raise UsageError("--joint makes one checkpoint for several concepts, and there is one", "Give more: --concept A,B")
    if not any(map(is_weight, presets)):
        raise UsageError("--joint is for weight methods, and there is none", "Give one to --on, or leave --joint out.")
    joint(concepts, family)


NONE = ("none", "none")
"""Method and checkpoint of the untouched backbone."""


def plan_sweep(request: RunRequest, text: str, backbone: Backbone, tell: Tell = quiet, make: bool = True) -> list[Cell]:
    """The cells of every value of a sweep; cells that the option does not change, or that are equal, come once.

    Raises `UsageError` before anything is made or sampled, as `plan` does.
    """
    sweep = parsed(text)
    check_values(request, sweep, backbone)
    cells: dict[tuple[str, ...], Cell] = {}
    for setting in sweep.settings:
        for cell in plan(replace(request, settings=(*request.settings, setting)), backbone, tell, make):
            place = (cell.concept.name, cell.suite.name, cell.method, cell.on)
            blocked = cell.blocked is not None and any(is_of(name, sweep.method) for name in (cell.method, cell.on))
            cells.setdefault((*place, setting if blocked else cell.variant), cell)
    return _in_order(list(cells.values()))


def _in_order(cells: Sequence[Cell]) -> list[Cell]:
    """In the order of `plan`: by concept and suite, the untouched backbone first."""
    places = list(dict.fromkeys((cell.concept.name, cell.suite.name) for cell in cells))
    return sorted(cells, key=lambda cell: (places.index((cell.concept.name, cell.suite.name)), (cell.method, cell.on) != NONE))
