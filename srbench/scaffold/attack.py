"""A package with an attack."""

from __future__ import annotations

from srbench.scaffold.package import package

MODULE = '''\
"""$name: tries endings at random and keeps the one whose text stays closest to the target."""
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
