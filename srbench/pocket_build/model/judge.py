"""Training of the pocket judges on scenes, and of their thresholds on other scenes. Generated images are never used."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srbench.pocket.world import CONCEPTS, OBJECTS, STYLES
from srbench.pocket_build.model import training
from srbench.pocket_build.model.data import batch
from srbench.pocket_build.model.scenes import Painter
from srbench.scorers.pocket_net import JudgeNet

FALSE_POSITIVES = 0.01
EVEN_ODDS = 0.5


def _disturb(images: Tensor, step: int) -> Tensor:
    """Every third batch noisy, every third blurred: judges meet soft and grainy pictures later."""
    generator = torch.Generator().manual_seed(step)
    if step % 3 == 1:
        return images + 0.06 * torch.randn(images.shape, generator=generator)
    if step % 3 == 2:
        share = 0.6 * float(torch.rand(1, generator=generator))
        soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return (1 - share) * images + share * soft
    return images


def _loss(painter: Painter, place: training.Place) -> training.Loss:
    device, size = place.device, place.sizes.batch["judge"]

    def loss(model: nn.Module, step: int, done: float) -> Tensor:
        b = batch(painter, "judge", step, size, "all")
        objects, styles, backgrounds = (target.to(device) for target in b.targets())
        with training.autocast(device):
            o, s, g = model(_disturb(b.images, step).to(device))
        return (
            12 * F.binary_cross_entropy_with_logits(o.float(), objects)
            + 0.5 * F.cross_entropy(s.float(), styles)
            + 0.5 * F.cross_entropy(g.float(), backgrounds)
        )

    return loss


@torch.no_grad()
def accuracy(model: nn.Module, painter: Painter, step: int = 10, size: int = 1000) -> dict[str, float]:
    """Share of held-out scenes with every object right, with the style right, with the background right."""
    b = batch(painter, "validate", step, size, "all")
    objects, styles, backgrounds = b.targets()
    device = next(model.parameters()).device
    o, s, g = (logits.cpu() for logits in model(b.images.to(device)))
    return {
        "exact": float(((o > 0) == objects.bool()).all(1).float().mean()),
        "style": float((s.argmax(1) == styles).float().mean()),
        "background": float((g.argmax(1) == backgrounds).float().mean()),
    }


@torch.no_grad()
def thresholds(model: nn.Module, painter: Painter, size: int = 4000) -> dict[str, float]:
    """Per concept the probability that at most 1 % of calibration scenes without it exceed (design 9), never below 0.5.

    On scenes the judges are so sure that 1 % lies near 0, where the softness of a generated picture alone is enough.
    """
    b = batch(painter, "calibrate", 0, size, "all")
    parts = [model(chunk)[:2] for chunk in b.images.split(500)]
    objects, styles = (torch.cat(p) for p in zip(*parts, strict=True))
    limits = {}
    for name, concept in CONCEPTS.items():
        if concept.kind == "object":
            index = [list(OBJECTS).index(k) for k in concept.members]
            probability = objects.sigmoid()[:, index].amax(1)
            shown = torch.tensor([bool(set(s.objects) & set(concept.members)) for s in b.scenes])
        else:
            index = [list(STYLES).index(k) for k in concept.members]
            probability = styles.softmax(1)[:, index].sum(1)
            shown = torch.tensor([s.style in concept.members for s in b.scenes])
        limits[name] = max(EVEN_ODDS, round(float(torch.quantile(probability[~shown], 1 - FALSE_POSITIVES)), 4))
    return limits


def make() -> JudgeNet:
    """An untrained network of the judges."""
    torch.manual_seed(404)
    return JudgeNet(len(OBJECTS), len(STYLES))


def train(painter: Painter, place: training.Place) -> bool:
    """Train, or go on training; whether it is finished."""
    model = make()
    return training.run(training.Stage(
        "judge", model, training.adam(model.parameters(), 2.5e-3), _loss(painter, place), place.sizes.steps["judge"], ema=0.99,
        validate=lambda m: str({k: round(v, 3) for k, v in accuracy(m, painter, size=place.sizes.held_scenes).items()}),
    ), place)


def load(cache: Path) -> JudgeNet:
    """The finished network of the judges."""
    return training.averaged(cache, "judge", make())
