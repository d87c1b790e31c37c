"""A search's actors: groups of targets are handed to them, and this process writes down what they find, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from srbench.attacks.base import Progress
from srbench.attacks.search import Kept, Lost, Prepared, Result, Scalar, entry_of, prepared, say_how_long
from srbench.attacks.searcher import Searcher
from srbench.attacks.targets import AttackRequest
from srbench.catalog.specs import ConceptSpec
from srbench.engine.spread import Answer, Chunk, Facts, Task
from srbench.engine.team import Team
from srbench.errors import CellError, MissingError, Unmade, UsageError
from srbench.files import parse_json
from srbench.methods.base import Tell


class Party(Team[AttackRequest]):
    """The actors of a search."""

    worker = Searcher
    what = "search"
    mixed = "what is found may differ from what one card finds"

    @property
    def results(self) -> Path:
        return self.request.checkpoints.parent.parent

    def on(self, device: str) -> AttackRequest:
        settings = self.request.settings
        changes = {"device": device} if "device" in type(settings).model_fields else {}
        return replace(self.request, settings=settings.model_copy(update=changes))

    def prepared(self, concept: ConceptSpec, pairs: tuple[tuple[str, str], ...], tell: Tell) -> Prepared:
        """As `search.prepared`; what is not there is made by an actor. Raises `CellError` where it could not be made."""
        try:
            return prepared(self.request, self.backbone, concept, pairs, tell, make=False)
        except Unmade as error:
            self.say(f"to make first: {error.message}")
        failed: dict[str, str] = {}

        def taken(facts: Facts, chunk: Chunk, answer: Answer) -> None:
            self._took(facts, answer)
            failed.update(answer.failed)

        self.spread.carry_out(Task([Chunk("prepare", (concept.name,))], taken, list, failed.__setitem__))
        for why in failed.values():
            raise CellError(f"{self.request.name}: its victim could not be made: {why}", "")
        return prepared(self.request, self.backbone, concept, pairs, tell)

    def search(self, meta: Mapping[str, Scalar], kept: Kept, progress: Progress) -> None:
        """Have the rest of the targets searched. Raises `UsageError` where the attack does not go with what it was given."""
        size, total = self.request.settings.parallel, len(kept.rows)
        chunks = [Chunk("search", (str(start),)) for start in range(len(kept.done) // size * size, total, size)]
        ready: dict[int, list[Result]] = {}
        timed = self._timed(len(chunks))

        def settle(key: str, results: list[Result]) -> None:
            """Write down what is next in order, as far as it is there."""
            ready[int(key)] = results
            while (start := len(kept.done) // size * size) in ready:
                for result in ready.pop(start)[len(kept.done) - start :]:
                    kept.add(result)
            progress(len(kept.done) + sum(map(len, ready.values())), total)

        def taken(facts: Facts, chunk: Chunk, answer: Answer) -> None:
            self._took(facts, answer)
            if answer.refused:
                raise UsageError(answer.refused, answer.hint)
            for key, lines in answer.found.items():
                timed(answer.sampling_seconds)
                settle(key, [entry_of(parse_json(line, facts.host)) for line in lines])

        def fail(key: str, why: str) -> None:
            settle(key, [Lost(row.prompt, why) for row in kept.rows[int(key) : int(key) + size]])

        try:
            self.spread.carry_out(Task(chunks, taken, list, fail, given=(kept.part.source, dict(meta))))
        except MissingError:  # all have died: what the last ones were at need not have killed them
            kept.forget_lost()
            raise

    def _timed(self, groups: int) -> Callable[[float], None]:
        """Given the seconds of each group: says after the first one how long all take."""
        heard: list[float] = []

        def timed(seconds: float) -> None:
            if not heard:
                actors = min(len(self.seats.each), groups)
                say_how_long(self.say, seconds * -(-groups // actors), f"with {actors} actors")
            heard.append(seconds)

        return timed
