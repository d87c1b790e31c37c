"""From what the user asked for to cells, and from cells to the images and scores they need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from srbench.backbones.loader import Backbone
from srbench.catalog import load, plugins, screen
from srbench.catalog.specs import ConceptSpec, ProtocolSpec, Row, RowFile, SuiteSpec
from srbench.engine.keys import ImageSpec, canonical, digest, file_sha
from srbench.errors import CellError, SrbenchError, UsageError, did_you_mean

REFERENCE_METRICS = {"content_kept", "csdr"}
FLOOR_METRICS = {"csdr_floor"}
ENCODER_SHA = "text_encoder_sha256"
"""Key in a row file's `meta`: the text encoder that its prompts were made against."""
FLOOR_SEED_OFFSET = 1_000_003
"""Added to a row's seed for its floor image."""


@dataclass(frozen=True)
class RunRequest:
    """What a user asked for. Everything here is resolved before planning; none of it enters a key as such."""

    backbone: str
    methods: tuple[str, ...]
    on: tuple[str, ...]
    suites: tuple[str, ...]
    concepts: tuple[str, ...]
    part: str
    limit: int | None
    seed: int
    batch_size: int
    dtype: str
    settings: tuple[str, ...]
    """`METHOD.OPTION=VALUE`."""
    protocol: str | None
    scorers: tuple[str, ...]
    out: Path
    score: bool = True
    keep_images: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class MethodOnConcept:
    """A preset with its options and artifact, ready to be applied: `active` is what the sampler needs."""

    preset: str
    name: str
    version: int
    options: Any
    active: Any
    artifact_sha: str
    concept_sha: str
    variant: str
    decides: bool


@dataclass(frozen=True)
class Planned:
    """One image to have: what it is, and the method that makes it."""

    spec: ImageSpec
    method: MethodOnConcept

    @cached_property
    def key(self) -> str:
        """The image key."""
        return self.spec.key()


@dataclass(frozen=True)
class PlannedRow:
    """A row and its images."""

    row: Row
    image: Planned
    reference: Planned | None = None
    floor: Planned | None = None


@dataclass
class Cell:
    """One cell of the grid, planned. `blocked` holds the error where it can not run."""

    method: str
    on: str
    suite: SuiteSpec
    concept: ConceptSpec
    protocol: ProtocolSpec
    variant: str
    n_loaded: int = 0
    n_excluded: int = 0
    rows: list[PlannedRow] = field(default_factory=list)
    scorers: tuple[str, ...] = ()
    sensitive: bool = False
    rows_sha: str = ""
    blocked: SrbenchError | None = None
    decides: bool = False

    @property
    def title(self) -> str:
        """Short name for progress lines."""
        over = "" if self.on == "none" else f" on {self.on}"
        return f"{self.suite.name}/{self.concept.name}/{self.method}{over}"

    def images(self) -> Iterable[Planned]:
        """Every image the cell needs, rows first."""
        for planned in self.rows:
            yield planned.image
        for planned in self.rows:
            yield from (s for s in (planned.reference, planned.floor) if s is not None)


def _overrides(settings: Sequence[str], names: tuple[str, str]) -> dict[str, str]:
    """Option values for a preset or its method. Raises `UsageError` on a bad form."""
    chosen = {}
    for setting in settings:
        match = re.fullmatch(r"([\w-]+)\.([\w-]+)=(.*)", setting)
        if match is None:
            raise UsageError(f"--set {setting}: expected METHOD.OPTION=VALUE", "Example: --set saferedir.cooldown=2")
        if match[1] in names:
            chosen[match[2]] = match[3]
    return chosen


def check_settings(request: RunRequest) -> None:
    """Refuse a `--set` for a method that was not asked for."""
    known = {n for preset in request.methods for n in (preset, plugins.preset(preset)[0])}
    for setting in request.settings:
        name = setting.partition(".")[0]
        if name not in known:
            raise UsageError(f"--set {setting}: method '{name}' is not part of this run", did_you_mean(name, known))


def options_of(preset: str, settings: Sequence[str]) -> tuple[Any, list[str]]:
    """The preset's options with overrides, and the names of those that are off their defaults."""
    name, values = plugins.preset(preset)
    cls = plugins.load("methods", name)
    default = cls.Options(**values)
    overrides = _overrides(settings, (preset, name))
    unknown = [key for key in overrides if key not in cls.Options.model_fields]
    if unknown:
        raise UsageError(f"{preset} has no option '{unknown[0]}'", did_you_mean(unknown[0], cls.Options.model_fields))
    try:
        options = cls.Options(**(values | overrides))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--set {preset}.{first['loc'][0]}: {first['msg']}", "Give a value of the right kind.") from error
    return options, sorted(k for k in overrides if getattr(options, k) != getattr(default, k))


def options_text(options: Any, names: Sequence[str], artifact_sha: str = "") -> str:
    """`name=value` with commas; of a file its last name and what it holds, since a path says nothing on another machine."""

    def said(name: str) -> str:
        value = getattr(options, name)
        file = type(options).model_fields[name].exclude
        return f"{name}={Path(value).name}@{artifact_sha[:8]}" if file else f"{name}={value}"

    return ",".join(map(said, names))


def _concept_sha(concept: ConceptSpec, family: str) -> str:
    words = concept.families[family]
    return digest({"names": words.names, "words": words.words, "counterparts": words.counterparts})


def prepare_method(preset: str, backbone: Backbone, concept: ConceptSpec, settings: Sequence[str]) -> MethodOnConcept:
    """Load a preset for a concept. Raises `CellError` where it does not fit the backbone, `MissingError` from it."""
    from srbench.engine.sample import Active
    from srbench.methods.base import BackboneInfo

    name, _ = plugins.preset(preset)
    cls = plugins.load("methods", name)
    meta = cls.meta
    family = backbone.spec.family
    if "*" not in meta["families"] and family not in meta["families"]:
        fits = f"It fits: {', '.join(meta['families'])}"
        raise UsageError(f"{preset} does not fit backbone '{backbone.spec.name}' (family {family})", fits)
    options, changed = options_of(preset, settings)
    pipeline = backbone.pipeline if meta.get("prepare") == "make" else None
    info = BackboneInfo(backbone.spec.name, family, backbone.sha256, pipeline, backbone.redirectors)
    artifact = cls.prepare(info, concept, options)
    sha = artifact.sha256 if artifact else ""
    return MethodOnConcept(
        preset=preset, name=name, version=meta["version"], options=options, active=Active(cls, artifact, options),
        artifact_sha=sha, variant=options_text(options, changed, sha), decides=bool(meta["decides"]),
        concept_sha=_concept_sha(concept, family) if meta["reads_concept"] else "",
    )


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


def _image(row: Row, method: MethodOnConcept, backbone: Backbone, default_seed: int) -> Planned:
    recipe = backbone.spec.recipe
    spec = ImageSpec(
        backbone_sha=backbone.sha256, checkpoint_sha="", method=method.name, method_version=method.version,
        options=canonical(method.options.model_dump()), artifact_sha=method.artifact_sha, concept_sha=method.concept_sha,
        prompt=row.prompt, negative_prompt=row.negative_prompt, seed=default_seed if row.seed is None else row.seed,
        steps=recipe.steps, guidance=recipe.guidance if row.guidance is None else row.guidance, eta=recipe.eta,
        guidance_rescale=recipe.guidance_rescale, clip_skip=recipe.clip_skip, scheduler=backbone.scheduler,
        width=row.width or recipe.width, height=row.height or recipe.height, dtype=backbone.dtype,
    )
    return Planned(spec, method)


def _planned(
    row: Row, suite: SuiteSpec, method: MethodOnConcept, plain: MethodOnConcept, backbone: Backbone, seed: int
) -> PlannedRow:
    image = _image(row, method, backbone, seed)
    if row.kind != "forget" or row.reference is None or row.category == "unseen":
        return PlannedRow(row, image)
    wanted = set(suite.metrics)
    same = row.model_copy(update={"prompt": row.reference})
    other = same.model_copy(update={"seed": (seed if row.seed is None else row.seed) + FLOOR_SEED_OFFSET})
    reference = _image(same, plain, backbone, seed) if (REFERENCE_METRICS | FLOOR_METRICS) & wanted else None
    floor = _image(other, plain, backbone, seed) if FLOOR_METRICS & wanted else None
    return PlannedRow(row, image, reference, floor)


def encoder_sha(backbone: Backbone) -> str:
    """sha256 of the backbone's text encoder weights, as adversarial row files state it."""
    files = sorted((backbone.folder / "text_encoder").glob("*.safetensors"))
    return file_sha(files[0]) if len(files) == 1 else digest([file_sha(path) for path in files])


def _check_encoder(suite: SuiteSpec, file: RowFile, backbone: Backbone) -> None:
    """Refuse adversarial rows that were made against another text encoder."""
    made_for = file.meta.get(ENCODER_SHA)
    if made_for is not None and made_for != encoder_sha(backbone):
        raise UsageError(
            f"suite '{suite.name}': its prompts were made against another text encoder ({str(made_for)[:12]}...)",
            f"Make them anew: srbench attack {file.meta.get('attack', 'mma')} --backbone {backbone.spec.name} ...",
        )


def variant_of(request: RunRequest, method: MethodOnConcept) -> str:
    """Options off their defaults, dtype and limit, as one short string; empty for the defaults."""
    parts = [method.variant] if method.variant else []
    parts += [f"dtype={request.dtype}"] if request.dtype != "fp32" else []
    parts += [f"part={request.part}"] if request.part != "test" else []
    parts += [f"limit={request.limit}"] if request.limit is not None else []
    return ",".join(parts)


def plan_cell(
    request: RunRequest, backbone: Backbone, preset: str, suite: SuiteSpec, concept: ConceptSpec, plain: MethodOnConcept
) -> Cell:
    """One cell with its rows. A missing prerequisite leaves it blocked; a usage error is raised."""
    family = backbone.spec.family
    protocol = load.named("protocol", request.protocol or concept.families[family].protocol, load.protocols())
    cell = Cell(preset, "none", suite, concept, protocol, "")
    edition = load.edition(suite, family, concept.name, request.part)
    file = load.rows(suite, edition)
    _check_encoder(suite, file, backbone)
    rows = limited(file.rows, request.limit)
    cell.sensitive = screen.sensitive(concept, suite, rows)
    kept = screen.admissible(rows) if cell.sensitive else tuple(rows)
    cell.n_loaded, cell.n_excluded = len(rows), len(rows) - len(kept)
    cell.rows_sha = load.rows_sha(tuple(kept))
    cell.scorers = tuple(dict.fromkeys((protocol.scorer, *backbone.spec.scorers, *request.scorers)))
    try:
        if not kept:
            raise CellError("no row is left to run", "The suite is empty, or every row was excluded.")
        method = prepare_method(preset, backbone, concept, request.settings)
    except UsageError:
        raise
    except SrbenchError as error:
        cell.blocked = error
        return cell
    cell.variant, cell.decides = variant_of(request, method), method.decides
    cell.rows = [_planned(row, suite, method, plain, backbone, request.seed) for row in kept]
    return cell


def plan(request: RunRequest, backbone: Backbone) -> list[Cell]:
    """All cells, `none` first so that others can be compared with it. Raises `UsageError` before anything is sampled."""
    check_settings(request)
    if any(name != "none" for name in request.on):
        name = next(name for name in request.on if name != "none")
        raise UsageError(f"unknown checkpoint '{name}'", did_you_mean(name, ("none", *load.baselines())))
    suites = [load.named("suite", name, load.suites()) for name in request.suites]
    concepts = load.concepts_of(backbone.spec, request.concepts)
    for name in request.methods:
        plugins.preset(name)
    for name in request.scorers:
        load.named("scorer", name, plugins.plugins("scorers"))
    ordered = sorted(dict.fromkeys(request.methods), key=lambda name: name != "none")
    cells = []
    for concept in concepts:
        plain = prepare_method("none", backbone, concept, ())
        for suite in suites:
            cells += [plan_cell(request, backbone, name, suite, concept, plain) for name in ordered]
    return cells
