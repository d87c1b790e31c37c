"""`srbench train`: a redirector for one concept, or several at once, on one backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from srbench.backbones.loader import open_backbone
from srbench.catalog import load, plugins, screen
from srbench.cli.attack import options
from srbench.cli.main import say
from srbench.errors import UsageError, did_you_mean

TRAINED = ("saferedir",)


def train(
    method: str, backbone_name: str, concept_names: tuple[str, ...], out: Path | None, pairs: Path | None, seed: int,
    settings: Sequence[str],
) -> int:
    """Train, write weights and card, and print what the card measured."""
    if method not in TRAINED:
        plugins.preset(method)
        raise UsageError(f"'{method}' is not trained", did_you_mean(method, TRAINED))
    spec = load.named("backbone", backbone_name, load.backbones())
    concepts = load.concepts_of(spec, dict.fromkeys(concept_names))
    from srbench.methods.base import BackboneInfo
    from srbench.methods.saferedir import train as room

    chosen = options(room.Settings, settings, **room.recipe_settings(spec.recipe), seed=seed, pairs_file=pairs)
    backbone = open_backbone(spec, "fp32", "cpu")
    title = "+".join(concept.name for concept in concepts)
    folder = out or Path("redirectors") / spec.name / title
    info = BackboneInfo(spec.name, spec.family, backbone.sha256, backbone.pipeline, backbone.redirectors)
    said = [word for concept in concepts for word in (concept.name, *concept.families[spec.family].words)]
    sensitive = any(concept.sensitive for concept in concepts) or any(map(screen.is_sexual, said))

    def allowed(text: str) -> bool:
        return not (sensitive and screen.names_minor(text))

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{method}/{title}")

        def tell(stage: str, done: int, total: int, note: str) -> None:
            bar.update(task, description=f"{title}: {stage} {note}", completed=done, total=total)

        card = room.train(info, concepts, chosen, folder, tell, allowed)
    if card["excluded"]:
        say(f"{card['excluded']} sentences were excluded")
    for name, value in card["held_out"].items():
        say(f"{name}: {value}")
    say(f"written: {folder}; use it with --set {method}.redirector={folder}")
    return 0
