"""`srbench train`: a redirector for one concept or several at once, or an inverted concept, on one backbone."""

from __future__ import annotations

from srbench.cli.console import say
from srbench.cli.progress import telling
from srbench.engine import training
from srbench.engine.training import TrainOptions


def train(options: TrainOptions) -> int:
    """Train, write weights and card, and print what the card measured."""
    training.train(options, say, telling)
    return 0
