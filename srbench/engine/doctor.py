"""Checks that everything a run needs is here and works, and says what fetches the rest: `srbench doctor` for Python."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from srbench.backbones.choose import chosen
from srbench.catalog import load, plugins, sources
from srbench.catalog.judges import with_settings
from srbench.catalog.settings import overrides, parsed
from srbench.catalog.specs import BackboneSpec, BaselineSpec, Edition, SuiteSpec
from srbench.engine import auto, machine
from srbench.engine.onnames import check_settings_of_run
from srbench.engine.request import RunOptions
from srbench.errors import MissingError, SrbenchError
from srbench.faults import contained
from srbench.files import is_system_name, printable
from srbench.scorers.base import Scorer
from srbench.scoring.pictures import read

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "open_clip_torch", "nudenet", "onnxruntime", "scipy", "pandas")

DETECTOR = "nudenet320n-rgb"
"""The default detector, which is part of the package."""
DRAWN_UP_TO_PX = 128 * 128
"""Backbones of larger images are not tried on a CPU: one image takes minutes."""


@dataclass(frozen=True)
class DoctorOptions:
    """What is checked, in the command line's words: the backbone, and a run where one is described."""

    backbone: str = "pocket"
    methods: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    everything: bool = False
    """Also open every scorer and sample an image, which takes longer."""
    out: Path = Path("results")
    known: Path | None = None
    """Folder with images in `with/` and `without/` the concept, to test the labels of igmu-head."""

    @property
    def run(self) -> bool:
        """Whether a run is described."""
        return bool(self.methods or self.suites or self.concepts)


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool
    needed: bool
    """Whether a run needs it; others may be missing."""
    detail: str
    """The details, or what is wrong and what mends it."""


Check = Callable[[], str]


@dataclass
class Checks:
    """Checks in order: name -> check, which returns its details or raises `SrbenchError`."""

    needed: dict[str, Check] = field(default_factory=dict)
    beside: dict[str, Check] = field(default_factory=dict)
    """Those that a run does not need."""


# --- the machine --------------------------------------------------------------------------------------------------------------


def _catalog() -> str:
    counts = {
        "methods": len(plugins.presets()), "suites": len(load.suites()), "concepts": len(load.concepts()),
        "backbones": len(load.backbones()), "scorers": len(plugins.plugins("scorers")), "protocols": len(load.protocols()),
        "attacks": len(plugins.plugins("attacks")),
    }
    return ", ".join(f"{n} {name}" for name, n in counts.items())


def _suite_files() -> str:
    editions = [(suite, e) for suite in load.suites().values() for e in suite.editions]
    shipped = [(suite, e) for suite, e in editions if e.file]
    rows = sum(len(load.rows(suite, e).rows) for suite, e in shipped)
    here = sum(sources.at_hand(suite, e) for suite, e in editions if not e.file)
    text = f"{len(shipped)} shipped editions, {rows} rows, every sha256 as stated"
    return f"{text}; {here} of {len(editions) - len(shipped)} others are here"


def _packages() -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)


def _hub() -> str:
    reached, text = machine.hub()
    if not reached:
        raise SrbenchError(text)
    return text


def _token() -> str:
    if not machine.token():
        raise SrbenchError("none is set", "Gated models and suites need one: hf auth login")
    return "one is set"


def _folder(out: Path) -> Check:
    def check() -> str:
        place = next(p for p in (out, *out.resolve().parents) if p.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise SrbenchError(f"{out}: cannot write here", "Choose another --out.")
        return f"{out}: {machine.free_gb(out):.0f} GB free"

    return check


# --- what is at hand ----------------------------------------------------------------------------------------------------------


def _works(spec: BackboneSpec, draw: bool) -> Check:
    """The backbone is complete; with `draw` it also samples an image, where that does not take minutes.

    The pipeline of a bundled backbone is opened only to draw, so that the answer comes in seconds.
    """

    def check() -> str:
        from srbench.backbones.loader import open_backbone

        backbone, recipe = open_backbone(spec, "fp32", "cpu"), spec.recipe
        variants = f" ({backbone.variants})" if backbone.variants else ""
        text = f"{spec.name} sha256 {backbone.sha256[:12]}, {spec.licence}{variants}"
        if draw or not spec.source.startswith("package:"):
            backbone.check()
        if not draw or recipe.width * recipe.height > DRAWN_UP_TO_PX:
            return text
        import torch

        image = backbone.pipeline(
            "a house", num_inference_steps=2, guidance_scale=recipe.guidance, height=recipe.height, width=recipe.width,
            generator=torch.Generator().manual_seed(0),
        ).images[0]
        return f"{text}: a picture of {image.size[0]} x {image.size[1]} px"

    return check


def _found(locate: Callable[[], object]) -> None:
    """Raises `MissingError` with only the command, since the check's name says what is missing."""
    try:
        locate()
    except MissingError as error:
        raise MissingError("not here", error.hint, error.downloads) from error


def _here(spec: BackboneSpec) -> Check:
    """The backbone is on this machine; it is not hashed, which takes long for gigabytes."""

    def check() -> str:
        from srbench.backbones.loader import locate

        _found(lambda: locate(spec))
        return f"here, {'revision ' + spec.revision[:12] if spec.revision else 'no revision pinned'}, {spec.licence}"

    return check


def _baseline(spec: BaselineSpec) -> Check:
    def check() -> str:
        from srbench.backbones.places import locate

        _found(lambda: locate(spec))
        return f"here, {_sha(spec.sha256)}, {spec.licence}"

    return check


def _sha(sha: str) -> str:
    return f"sha256 {sha[:12]}" if sha != "unverified" else "sha256 unverified"


def _edition(suite: SuiteSpec, edition: Edition) -> Check:
    def check() -> str:
        _found(lambda: [sources.locate(suite, edition, file) for file in edition.files])
        shas = ", ".join(dict.fromkeys(_sha(file.sha256) for file in edition.files))
        return f"here, {edition.rows} rows, {shas}, {edition.licence or suite.licence}"

    return check


def opened(name: str, settings: Sequence[str]) -> Scorer:
    cls = plugins.load("scorers", name)
    return cls(parsed(cls.Options, name, {}, overrides(settings, (name,))))


def _unopened() -> str:
    return f"{len(plugins.plugins('scorers'))}, none of them opened: srbench doctor --all says which have their weights here"


def _scorer(name: str, settings: Sequence[str]) -> Check:
    def check() -> str:
        identity = opened(name, settings).identity()
        weights = str(identity.get("weights_sha256") or "none")[:12]
        return f"{identity['library']} {identity['library_version']}, weights {weights}"

    return check


# --- what was asked for -------------------------------------------------------------------------------------------------------


def _sha_of(spec: BackboneSpec) -> str:
    """The backbone's hash; empty where it is not here."""
    from srbench.backbones.loader import open_backbone

    try:
        return open_backbone(spec, "fp32", "cpu").sha256
    except MissingError:
        return ""


def _lacking(options: DoctorOptions, spec: BackboneSpec) -> Iterator[SrbenchError]:
    """What the described run lacks, each with a hint that mends it. Raises `UsageError` for an unknown name."""
    suites = options.suites or ("igmu",)
    planned = RunOptions(
        methods=options.methods or ("none",), suites=suites, concepts=options.concepts, settings=options.settings
    )
    yield from auto.lacking(planned, spec, sha256=_sha_of(spec))
    yield from lacking_judges(planned, spec)


def lacking_judges(planned: RunOptions, spec: BackboneSpec) -> Iterator[MissingError]:
    """What the run's judges lack, each with a hint that mends it."""
    for concept in load.concepts_of(spec, planned.concepts or spec.concepts[:1]):
        for suite in planned.suites:
            edition = load.edition(load.suites()[suite], spec.family, concept.name)
            judge = load.protocol(planned.protocol or edition.protocol or concept.families[spec.family].protocol)
            for part in load.parts(judge):
                try:
                    opened(part.scorer, with_settings(planned.settings, [judge]))
                except MissingError as error:
                    yield MissingError(f"judge {part.name}: {error.message}", error.hint, error.downloads)


# --- known images -------------------------------------------------------------------------------------------------------------


HEAD = "igmu-head"
SURE = 0.9
"""Share of known images on which a label must be right before it is believed."""


def _polarity(folder: Path, settings: Sequence[str]) -> Callable[[], str]:
    """Which label of IGMU's head means the concept, tested on images with a known answer."""

    def check() -> str:
        head = opened(HEAD, settings)
        ones = {name: _label_one(head, folder / name) for name in ("with", "without")}
        shares = {"1": (ones["with"], 1 - ones["without"]), "0": (1 - ones["with"], ones["without"])}
        text = ", ".join(f"label 1 on {100 * share:.0f} % {name} the concept" for name, share in ones.items())
        for label, right in shares.items():
            if min(right) >= SURE:
                return f"label {label} means the concept ({text})"
        raise SrbenchError(f"cannot be told: {text}", "Is it the head of this concept? Give more images, or others.")

    return check


def _label_one(head: Scorer, folder: Path) -> float:
    """Share of a folder's images on which label 1 is the likelier one."""
    pixels = [read(path).pixels for path in sorted(folder.glob("*")) if path.is_file() and not is_system_name(path.name)]
    if not pixels:
        raise SrbenchError(f"{folder}: no pictures", "Put known images into with/ and without/.")
    return sum(score["label"]["1"] > 0.5 for score in head.score(pixels, [{}] * len(pixels))) / len(pixels)


# --- all of it ----------------------------------------------------------------------------------------------------------------


def _needed(spec: BackboneSpec) -> set[str]:
    """Scorers that a run on the backbone needs: the backbone's own, its judges', and the default detector.

    For a family without bundled judges only the detector: the judge depends on the run.
    """
    if spec.family != "pocket":
        return {DETECTOR}
    judges = {load.concepts()[name].families[spec.family].protocol for name in spec.concepts}
    return {*spec.describing, *(part.scorer for name in judges for part in load.parts(load.protocol(name))), DETECTOR}


def _checks(options: DoctorOptions, spec: BackboneSpec) -> Checks:
    names = plugins.plugins("scorers") if options.everything else ()
    scorers = {f"scorer {name}": _scorer(name, options.settings) for name in names}
    checks = Checks()
    checks.needed |= {
        "machine": machine.processor, "cards": machine.cards, "packages": _packages, "results folder": _folder(options.out),
        "catalog": _catalog, "suites": _suite_files, f"backbone {spec.name}": _works(spec, options.everything),
    }
    checks.needed |= {name: check for name, check in scorers.items() if name.removeprefix("scorer ") in _needed(spec)}
    checks.needed |= {f"{HEAD} polarity": _polarity(options.known, options.settings)} if options.known else {}
    checks.needed |= _of_run(options, spec) if options.run else {}
    checks.beside |= {"hub": _hub, "hub's token": _token}
    checks.beside |= {name: check for name, check in scorers.items() if name not in checks.needed}
    checks.beside |= {} if options.everything else {"scorers": _unopened}
    checks.beside |= {f"backbone {name}": _here(backbone) for name, backbone in load.backbones().items() if name != spec.name}
    checks.beside |= {
        f"suite {suite.name}/{edition.concept}": _edition(suite, edition)
        for suite in load.suites().values() for edition in suite.editions if edition.files
    }  # fmt: skip
    checks.beside |= {f"baseline {name}": _baseline(baseline) for name, baseline in load.baselines().items()}
    return checks


def _of_run(options: DoctorOptions, spec: BackboneSpec) -> dict[str, Check]:
    """A failing check for each thing that the run lacks, or one that says that nothing is missing."""

    def lacks(error: SrbenchError) -> Check:
        def check() -> str:
            raise error

        return check

    missing = {error.line: error for error in _lacking(options, spec)}
    if not missing:
        return {"run": lambda: "nothing is missing"}
    return {f"run {number}": lacks(error) for number, error in enumerate(missing.values(), 1)}


def _verdict(check: Check) -> tuple[bool, str]:
    try:
        with contained("it cannot be checked", let=lambda error: isinstance(error, importlib.metadata.PackageNotFoundError)):
            return True, check().strip()
    except importlib.metadata.PackageNotFoundError as error:
        return False, f"package {error.name} is not installed. pip install {error.name}"
    except SrbenchError as error:
        return False, f"{error.message}. {error.hint}" if error.hint else error.message
    except Exception as error:  # noqa: BLE001  # a check that a library fails must not stop the others
        text = str(error).strip().splitlines()
        return False, f"{type(error).__name__}: {printable(text[0])[:200] if text else 'no reason given'}"


def examined(options: DoctorOptions) -> Iterator[Finding]:
    """Every finding as soon as it is made; what a run needs comes first.

    Raises `UsageError` for an unknown name or option before anything is checked.
    """
    check_settings_of_run(options.settings, options.methods, ())
    checks = _checks(options, chosen(options.backbone))
    for name, check in {**checks.needed, **checks.beside}.items():
        ok, detail = _verdict(check)
        yield Finding(name, ok, name in checks.needed, detail)
