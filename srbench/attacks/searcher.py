"""An actor's work for a search: it opens the same victim and targets, and searches for the groups that it is asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from srbench.attacks.search import Scalar, identity, line_of, prepared, searched, victim_of
from srbench.attacks.targets import AttackRequest, pairs_of, targets_of
from srbench.catalog import code, load
from srbench.engine.spread import Answer
from srbench.engine.worker import AGAIN_SECONDS, DIFFERS, Given, Worker
from srbench.errors import ForeignError, MissingError, Unmade, UsageError


class Searcher(Worker[AttackRequest]):
    """An actor of a search."""

    doing = "working for a search"

    def __init__(self, given: Given[AttackRequest]) -> None:
        self.opened = False
        super().__init__(given)

    def prepare(self, keys: tuple[str, ...]) -> Answer:
        """Make the victim's checkpoint, and what its method makes once. keys: the concept's name."""
        return self._each(keys, lambda name: prepared(self.request, self.backbone, load.concepts()[name], ()))

    def search(self, source: str, meta: Mapping[str, Scalar], keys: tuple[str, ...]) -> Answer:
        """Search for groups of targets, each named by the number of its first one.

        source: the hash of the attack's code. meta: what decides the results, as the driver has it.
        """
        if self.broken:
            return Answer(broken=self.broken)
        began, found, refused, searching = time.monotonic(), dict[str, tuple[str, ...]](), "", 0.0
        with self._answering() as why:
            self._open_search(source, meta)
            searching = time.monotonic()
            try:
                with victim_of(self.setup) as victim:
                    for key in keys:
                        start = int(key)
                        rows = self.rows[: start + self.request.settings.parallel]
                        found[key] = tuple(map(line_of, searched(self.request, victim, rows, start)))
            except UsageError as error:
                if isinstance(error, ForeignError):
                    raise
                refused, why["hint"] = error.message, error.hint
        seconds = round(time.monotonic() - searching, 3) if found else 0.0
        return self._answer(why, began, done=tuple(found), found=found, refused=refused, sampling_seconds=seconds)

    def _answer(self, why: dict[str, str], began: float, **more: Any) -> Answer:
        # What a broken process has left out of a group may be found in another one.
        more |= {"done": (), "found": {}, "refused": ""} if self.broken else {}
        return super()._answer(why, began, **more)

    def _open_search(self, source: str, meta: Mapping[str, Scalar]) -> None:
        """Open the victim and the targets; nothing is made. Raises `MissingError` where that is another search here."""
        if self.opened:
            return
        why = ""
        for pause in (0.0, *AGAIN_SECONDS):
            time.sleep(pause)
            try:
                why = self._differs(source, meta)
            except Unmade as error:
                why = error.message
            if not why:
                self.opened = True
                return
        raise MissingError(f"this would be another search here: {why}", DIFFERS)

    def _differs(self, source: str, meta: Mapping[str, Scalar]) -> str:
        """What is another one here than the driver has it, with commas."""
        request, spec, concept = self.request, self.backbone.spec, load.concepts()[self.request.concept]
        self.rows, name, _ = targets_of(request, spec, concept)
        self.setup = prepared(request, self.backbone, concept, pairs_of(request, spec, concept), make=False)
        own = identity(request, self.setup, self.rows, name)
        names = [each for each in {**meta, **own} if meta.get(each) != own.get(each)]
        if code.source_of("attacks", request.name) != source:
            names.append("the attack's code")
        return ", ".join(names)
