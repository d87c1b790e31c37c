"""A training from what was asked for to its folder: a redirector, or an inverted concept. `srbench train` for Python."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srbench.backbones.choose import chosen
from srbench.backbones.loader import Backbone, Opener, open_backbone
from srbench.catalog import load, plugins, prompts
from srbench.catalog.settings import check_seed, options
from srbench.catalog.specs import ConceptSpec
from srbench.engine.command import Telling
from srbench.engine.devices import device_of, dtype_of
from srbench.engine.options import Say
from srbench.errors import UsageError, did_you_mean
from srbench.methods.base import Tell
from srbench.outputs import check_folder

REDIRECTOR, INVERSION = "saferedir", "concept-inversion"
TRAINED = (REDIRECTOR, INVERSION)


@dataclass(frozen=True)
class TrainOptions:
    """What a training is asked for, in the command line's words."""

    method: str
    """`saferedir` or `concept-inversion`."""
    concepts: tuple[str, ...]
    """Of a redirector one, or several at once."""
    backbone: str = "pocket"
    on: str = "none"
    """The checkpoint below."""
    out: Path | None = None
    """None: a folder of its name."""
    pairs: Path | None = None
    adversarial: Path | None = None
    images: Path | None = None
    seed: int = 0
    settings: tuple[str, ...] = ()
    """`OPTION=VALUE` each."""
    accept_prompts: bool = False
    device: str = "auto"
    dtype: str = "auto"
    columns: tuple[str, ...] = ()
    """`FIELD=COLUMN` each."""
    checkpoints: Path = Path("results") / "store" / "checkpoints"
    """Where checkpoints below are kept."""


def train(asked: TrainOptions, say: Say, telling: Telling, opener: Opener = open_backbone) -> Path:
    """Train, write weights and card, and say what the card measured; returns the folder. Goes on where it was interrupted.

    Raises `SrbenchError` where the request is wrong or something is missing.
    """
    if asked.method not in TRAINED:
        hint = did_you_mean(asked.method, TRAINED)
        if asked.method not in plugins.presets():
            raise UsageError(f"unknown method '{asked.method}'", hint)
        raise UsageError(f"'{asked.method}' is not trained", hint)
    check_seed(asked.seed)
    spec = chosen(asked.backbone)
    concepts = load.concepts_of(spec, dict.fromkeys(asked.concepts))
    if len(concepts) > 1 and (asked.method == INVERSION or asked.on != "none"):
        raise UsageError(f"{asked.method}: several concepts at once do not go with this", "Give one --concept.")
    title = "+".join(concept.name for concept in concepts)
    folder = asked.out or Path("redirectors" if asked.method == REDIRECTOR else "inversions") / spec.name / title
    _check_out(asked.method, folder)
    device = device_of(asked.device)
    # An inversion is learned through the denoiser: in fp32 whatever the device.
    backbone = opener(spec, dtype_of(asked.dtype, device) if asked.method == REDIRECTOR else "fp32", device)
    work = _redirector if asked.method == REDIRECTOR else _inversion
    work(asked, backbone, concepts, folder, say, telling)
    return folder


def _check_out(method: str, folder: Path) -> None:
    """Raises `UsageError` where the folder holds something else, before any work."""
    if method == INVERSION:
        from srbench.methods.inversion import INVERSION as KIND
    else:
        from srbench.methods.saferedir.partial import check
        from srbench.methods.saferedir.train import REDIRECTOR as KIND

        check(folder)
    check_folder(folder, KIND)


def _info(
    asked: TrainOptions, backbone: Backbone, concept: ConceptSpec, say: Say, tell: Tell
) -> tuple[Any, AbstractContextManager[None]]:
    """What the method may know of the backbone, and the checkpoint to work on."""
    from srbench.backbones.checkpoint import laid_over
    from srbench.engine.checkpoints import Checkpoints, check_on
    from srbench.methods.base import info_of

    check_on(asked.on)
    under = Checkpoints(backbone, (), asked.checkpoints, tell).get(asked.on, concept).checkpoint
    if under is not None:
        say(f"checkpoint {asked.on}: {under.passport.line()}")
    return info_of(backbone, under, tell=tell), laid_over(backbone.pipeline, under) if under else nullcontext()


def _columns(asked: TrainOptions) -> tuple[tuple[str, str], ...]:
    """(field, column) of the files of pairs and of attacks. Raises `UsageError` for one whose file is not given."""
    found = prompts.chosen_columns(asked.columns, (*prompts.COLUMNS, *prompts.PAIR))
    for name in found:
        option, file = ("--pairs", asked.pairs) if name in prompts.PAIR else ("--adversarial", asked.adversarial)
        if file is None or file.is_dir():
            raise UsageError(f"--column {name} says how a file is read", f"Add {option} FILE.")
    return tuple(found.items())


def _redirector(
    asked: TrainOptions, backbone: Backbone, concepts: list[ConceptSpec], folder: Path, say: Say, telling: Telling
) -> None:
    from srbench.methods.saferedir import train as room

    if asked.images is not None:
        raise UsageError("--images goes with concept-inversion only", "Leave it out.")
    spec = backbone.spec
    fixed = {
        "seed": asked.seed, "pairs_file": asked.pairs, "adversarial": asked.adversarial, "accept_prompts": asked.accept_prompts,
        "columns": _columns(asked),
    }  # fmt: skip
    chosen = options(room.Settings, asked.settings, **room.recipe_settings(spec.recipe, spec.family), **fixed)
    with telling("+".join(concept.name for concept in concepts)) as tell:
        info, under = _info(asked, backbone, concepts[0], say, tell)
        with under:
            card = room.train(info, concepts, chosen, folder, tell)
    for line in card.get("read", ()):
        say(line)
    if card["excluded"]:
        say(f"{card['excluded']} sentences were excluded")
    if used := card.get("used"):
        train, held = len(used["train"]), len(used["held"])
        rows = f"; rows of a suite: {train} to train, {held} to choose the best state" if train or held else ""
        say(f"{len(used['prompts'])} prompts were used{rows}")
    for name, value in card["held_out"].items():
        say(f"{name}: {value}")
    say(f"written: {folder}; use it with {shlex.join(['--set', f'{REDIRECTOR}.redirector={folder}'])}")


def _inversion(
    asked: TrainOptions, backbone: Backbone, concepts: list[ConceptSpec], folder: Path, say: Say, telling: Telling
) -> None:
    from srbench.methods import inversion as room

    for option, given in (("--pairs", asked.pairs), ("--adversarial", asked.adversarial), ("--column", asked.columns or None)):
        if given is not None:
            raise UsageError(f"{option} goes with saferedir only", "Leave it out.")
    spec, (concept,) = backbone.spec, concepts
    shipped = backbone.scenes / concept.name if backbone.scenes else None
    images = asked.images or shipped
    if images is None or not images.is_dir():
        raise UsageError(f"there are no images of '{concept.name}' to learn from", "Give --images FOLDER.")
    chosen = options(room.Settings, asked.settings, **room.FITTED.get(spec.family, {}), seed=asked.seed)
    with telling(concept.name) as tell:
        info, under = _info(asked, backbone, concept, say, tell)
        with under:
            card = room.make(info, concept, images, chosen, folder, (spec.recipe.height, spec.recipe.width), tell)
    say(f"loss: {card['curve'][0]} -> {card['curve'][-1]} in {card['seconds']} s on {card['images']} images")
    say(f"written: {folder}; use it with {shlex.join(['--set', f'sld-max+ci.inversion={folder}'])}")
