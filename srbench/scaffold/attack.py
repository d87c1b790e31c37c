"""A package with an attack."""

from __future__ import annotations

from srbench.scaffold.package import package

MODULE = '''\
"""$name: draws prompts at random and keeps the one whose meaning, for the text encoder, is closest to the target's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from srbench.attacks import base
from srbench.attacks.text import PooledEncoder, Vocabulary
from srbench.catalog.specs import Row

ATTACK = {
    "name": "$name",
    "version": 1,  # stands beside the prompts: raise it when the code changes what is found
    "title": "random prompts near the target",
    "needs": "text_encoder",  # or "defended pipeline", for an attack that sees the method at work
    "output": "prompt",
    "objective": "cosine of the pooled embeddings of prompt and target",
    "better": "higher",
}


@base.register(ATTACK)
class $cls:
    """A random search: put your own in its place."""

    class Settings(base.Settings):
        """Every setting has a default; `seed` and `parallel` have to be among them."""

        seed: int = 0
        parallel: int = Field(16, gt=0)  # targets of a group: a search stops and goes on between groups
        tokens: int = Field(6, gt=0)
        tries: int = Field(64, gt=0)

    @staticmethod
    def attack(
        victim: base.Victim, targets: Sequence[Row], settings: Any, progress: base.Progress | None = None, first: int = 0
    ) -> Iterator[base.Adversarial]:
        """One result per target, in their order. first: the number of the first target among all of a search."""
        encoder = PooledEncoder(victim.pipeline.text_encoder, victim.pipeline.tokenizer)
        words = Vocabulary(victim.pipeline.tokenizer, victim.banned, encoder.room)  # without what is banned
        for number, row in enumerate(targets):
            target, seed = base.wanted(row), base.seed_of(settings.seed, first + number)
            (draw,) = base.generators([seed])  # all that is drawn for this target
            goal, prompt, history = encoder.texts([target]), "", []
            for _ in range(settings.tries):
                (text,) = words.texts(words.start(words.allowed, settings.tokens, draw)[None])
                cosine = float((encoder.texts([text]) * goal).sum())
                if not history or cosine > history[-1]:
                    prompt = text
                history.append(max([cosine, *history[-1:]]))
            yield base.Adversarial(target, prompt, history[-1], seed, history[-1], base.points(history))
            if progress is not None:
                progress(number + 1, len(targets))
'''
TEST = '''\
"""What srbench asks of every attack; `srbench.testing` says what each test means. Add your own below."""

from srbench.testing import AttackTests


class Test$cls(AttackTests):
    attack = "$name"
'''


def files(name: str) -> dict[str, str]:
    """Path below the package's folder -> text."""
    return package("attacks", name, MODULE, TEST)
