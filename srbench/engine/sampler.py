"""An actor's work for a run: it plans the same run, samples and scores the images that it is asked for."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property
from typing import Any

from srbench.engine.marks import marks_of
from srbench.engine.plan import plan
from srbench.engine.ready import make_ready
from srbench.engine.request import Planned, RunRequest
from srbench.engine.sampling import Background, Sampling, Work, needs, opened, sample_all
from srbench.engine.spread import Answer
from srbench.engine.worker import AGAIN_SECONDS, DIFFERS, Given, Worker
from srbench.errors import MissingError
from srbench.results.store import Store
from srbench.scoring.scoring import Scoring, Wanted

APART = 1_000_000
"""Between the batch numbers of two actors: what methods cost is told by batches of one actor alone."""


class Sampler(Worker[RunRequest]):
    """An actor of a run."""

    doing = "working for a run"

    def __init__(self, given: Given[RunRequest]) -> None:
        self.batches = given.number * APART
        self.size: int | None = None
        """Images of a batch, as the first chunk found that they fit."""
        super().__init__(given)

    # --- the plan ---

    def _plan(self) -> None:
        """Plan the whole run, as the driver did; nothing is made."""
        cells = plan(self.request, self.backbone, make=False)
        self.store = Store(self.request.out / "store", self.heard.line, tidy=False, durable=self.given.how.durable)
        self.scoring = opened(self.request, cells, self.store, self.heard)
        self.marks = marks_of(cells, self.scoring, self.request.keep_images)
        self.needed, self.wanted = needs(cells, self.scoring, self.request.score, self.request.shard)
        self.blocked = [cell.blocked.line for cell in cells if cell.blocked is not None]

    def _planned(self, keys: tuple[str, ...]) -> list[Planned]:
        """The images of some keys. Raises `SrbenchError` where the plan of this node lacks one."""
        for pause in (0.0, *AGAIN_SECONDS):
            if "needed" not in self.__dict__ or any(key not in self.needed for key in keys):
                time.sleep(pause)
                self._plan()
            if all(key in self.needed for key in keys):
                return [self.needed[key] for key in keys]
        why = self.blocked[0] if self.blocked else "its suites, plug-ins or checkpoints are others"
        raise MissingError(f"images of this run are not planned here: {why}", DIFFERS)

    # --- what is asked for ---

    def make(self, run: str, compiled: bool, keys: tuple[str, ...]) -> Answer:
        """Sample images, write them, and score what can be scored. compiled: whether the denoiser is compiled for it."""
        if self.broken:
            return Answer(broken=self.broken)
        began = time.monotonic()
        failed: dict[str, str] = {}
        with self._answering() as why:
            images = self._planned(keys)
            todo = Work(images, 0, {key: self.wanted[key] for key in keys if key in self.wanted})
            meanwhile = Work(images, 0) if self.given.how.reference else todo
            sampling = self._sampling(run, compiled)
            background = Background(self.store, self.scoring, meanwhile, self.heard, self.marks)
            failed = sample_all(sampling, todo, [], background)
        store = self.__dict__.get("store")
        done = tuple(key for key in keys if store is not None and key in store.images)
        records = [store.images[key] for key in done] if store is not None else []
        self.batches = max([self.batches, *(record["batch"] + 1 for record in records)])
        self.size = min([record["batch_size"] for record in records], default=self.size)
        return self._answer(
            why, began, done=done, failed=failed, sampling_seconds=sum(record["seconds"] for record in records)
        )

    def _sampling(self, run: str, compiled: bool) -> Sampling:
        fit = self.given.how.fit_batch and self.size is None
        how = replace(self.given.how, compile="on" if compiled else "off", fit_batch=fit)
        request = self.request if self.size is None else replace(self.request, batch_size=self.size)
        return Sampling(request, self.backbone, run, how, self.batches, self._marks)

    def score(self, keys: tuple[str, ...]) -> Answer:
        """Make the missing scores of stored images, also where another actor has made one of a pair."""
        if self.broken:
            return Answer(broken=self.broken)
        began = time.monotonic()
        with self._answering() as why:
            self._planned(keys)
            wanted = [each for key in keys for each in self.wanted.get(key, ())]
            if any(key not in self.store.images for each in wanted for key in (each.image_key, each.reference_key) if key):
                self.store.refresh()  # other actors have made them
            self.scoring.run(wanted, {})
        return self._answer(why, began, done=() if why else keys)

    def prepare(self, keys: tuple[str, ...]) -> Answer:
        """Make checkpoints, and what methods make once for a concept."""
        return self._each(keys, lambda key: make_ready(key, self.request, self.backbone))

    @cached_property
    def _marks(self) -> dict[str, Any]:
        return {"host": self.facts.host, "card": self.facts.card}

    def _answer(self, why: dict[str, str], began: float, **more: Any) -> Answer:
        scoring: Scoring | None = self.__dict__.get("scoring")
        unscored = {_name(wanted): reason for wanted, reason in scoring.errors.items()} if scoring is not None else {}
        if scoring is not None:
            scoring.errors = {}
        return super()._answer(why, began, unscored=unscored, **more)


def _name(wanted: Wanted) -> tuple[str, str, str]:
    return wanted.scorer, wanted.image_key, wanted.reference_key
