"""`--backbone auto`: Stable Diffusion 1.4 where everything that the run needs for it is here, else pocket, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from srbench.backbones.loader import locate
from srbench.catalog import load, plugins, resolve, sources
from srbench.catalog.specs import BackboneSpec, ConceptSpec, SuiteSpec
from srbench.engine.prepare import is_weight, options_of
from srbench.engine.request import RunOptions
from srbench.errors import ForeignError, MissingError, SrbenchError, UsageError
from srbench.faults import contained, module_of
from srbench.methods.base import BackboneInfo, shown_to

AUTO, WANTED, ELSE = "auto", "sd14", "pocket"


@dataclass(frozen=True)
class Choice:
    """A backbone's name, and the lines that say why."""

    name: str
    lines: tuple[str, ...]


def choose(options: RunOptions, cuda: bool) -> Choice:
    """The backbone for a run. Raises `UsageError` for an unknown method, suite or concept."""
    spec = load.backbones()[WANTED]
    missing = list(lacking(options, spec, cuda))
    if not missing:
        return Choice(WANTED, (f"backbone auto: {WANTED}: a CUDA device, its weights, the prompts and the redirector are here",))
    why = "; ".join(error.message for error in missing)
    hints = dict.fromkeys(f"hint: {error.hint}" for error in missing if error.hint)
    return Choice(ELSE, (f"backbone auto: {ELSE}, since {WANTED} cannot run here: {why}", *hints))


def lacking(options: RunOptions, spec: BackboneSpec, cuda: bool = True, sha256: str = "") -> Iterator[SrbenchError]:
    """What the run lacks on this backbone, each with a hint that mends it.

    cuda: whether there is a CUDA device. sha256: of the backbone, where it is known; then redirectors of another backbone count
    as missing. Raises `UsageError` for an unknown method, suite or concept.
    """
    if not cuda:
        yield MissingError("no CUDA device", f"Name it to run it on a CPU, for hours: --backbone {WANTED}")
    try:
        locate(spec)
    except MissingError as error:
        yield error
    try:
        concepts = load.concepts_of(spec, options.concepts or spec.concepts[:1])
    except UsageError as error:
        if any(name not in load.concepts() for name in options.concepts):
            raise
        yield UsageError(error.message)
        return
    suites = [load.suite(name) for name in options.suites]
    for concept in concepts:
        for suite in suites:
            yield from _prompts(suite, concept, spec, options)
        for method in options.methods:
            yield from _made_ready(method, concept, spec, options, sha256)


def _prompts(suite: SuiteSpec, concept: ConceptSpec, spec: BackboneSpec, options: RunOptions) -> Iterator[SrbenchError]:
    try:
        edition = load.edition(suite, spec.family, concept.name, "dev" if options.dev else "test")
        for file in () if options.prompts or edition.file else edition.files:
            sources.locate(suite, edition, file)
    except UsageError as error:
        yield UsageError(error.message)
    except MissingError as error:
        yield error


def _made_ready(
    preset: str, concept: ConceptSpec, spec: BackboneSpec, options: RunOptions, sha256: str
) -> Iterator[SrbenchError]:
    """What an inference method needs and cannot make by itself, such as a redirector."""
    name, _ = plugins.preset(preset)
    if is_weight(preset) or plugins.plugins("methods")[name].meta.get("prepare") == "make":
        return
    try:
        cls = plugins.load("methods", name)
        chosen, _ = options_of(preset, options.settings, spec.family, concept.kind)
    except ForeignError as error:
        yield error
        return
    shipped = resolve.package_path(spec.redirectors) if spec.redirectors else None
    info = BackboneInfo(name=spec.name, family=spec.family, sha256=sha256, pipeline=None, redirectors=shipped)
    try:
        with contained(preset, module_of(cls)):
            cls.prepare(info, shown_to(cls.meta, concept), chosen)
    except (MissingError, ForeignError) as error:
        yield error
    except UsageError as error:
        if sha256:  # without a hash, only the run itself can tell whether the redirector fits
            yield error
