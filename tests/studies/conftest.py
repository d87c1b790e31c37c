"""A toy world for studies: beside the engine's, an attack, a method that reads what was trained, and a stand-in for training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field

from srbench.attacks import base as attacks
from srbench.attacks.base import Adversarial
from srbench.catalog import load, plugins
from srbench.catalog.contracts import check
from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.engine import training
from srbench.errors import CellError
from srbench.methods import base
from srbench.methods.base import quiet
from srbench.progress import Quiet
from srbench.studies import steps
from srbench.studies.read import read
from srbench.studies.spec import Job, Study
from srbench.studies.study import Done, StudyOptions, run
from tests.worlds import PushMethod, World


class Whisper:
    """An attack: the target with another word."""

    meta: ClassVar[dict[str, Any]] = {
        "name": "whisper", "version": 1, "title": "t", "needs": "text_encoder", "output": "prompt", "objective": "o",
        "better": "higher",
    }  # fmt: skip

    class Settings(attacks.Settings):
        word: str = "small"
        seed: int = 0
        parallel: int = 8
        broken: bool = False

    @staticmethod
    def attack(victim: Any, targets: Sequence[Any], settings: Any, progress: Any = None, first: int = 0) -> Iterator[Adversarial]:
        if settings.broken:
            raise CellError("the attack is broken", "Mend it.")
        for target in targets:
            yield Adversarial(target.prompt, f"{settings.word} {target.prompt}", 1.0, 0, 1.0, (0.0, 1.0))


class Shout(Whisper):
    """An attack that sees the method."""

    meta: ClassVar[dict[str, Any]] = {**Whisper.meta, "name": "shout", "needs": "defended pipeline"}


class Taught(PushMethod):
    """Pushes as strongly as the bytes of a file say."""

    meta: ClassVar[dict[str, Any]] = {**PushMethod.meta, "name": "taught", "presets": {"taught": {}}, "families": ["*"]}

    class Options(base.Options):
        strength: float = 1.0
        silent: bool = False
        file: str | None = Field(None, exclude=True)

    @staticmethod
    def prepare(backbone: Any, concept: Any, options: Any) -> base.Artifact:
        data = b"" if options.file is None else (Path(options.file) / "weights.bin").read_bytes()
        return base.Artifact(data, hashlib.sha256(data).hexdigest())


def teach(asked: training.TrainOptions, say: Any, telling: Any, opener: Any) -> Path:
    """In place of a training: writes what it was told."""
    assert asked.out is not None
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "weights.bin").write_bytes(f"{asked.concepts} {asked.seed} {asked.settings}".encode())
    return asked.out


@dataclass
class Desk:
    """Writes studies of the toy world and carries them out."""

    folder: Path
    out: Path
    said: list[str] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)
    """The jobs that were carried out, and not found done."""

    def study(self, text: str) -> Study:
        path = self.folder / "study.yaml"
        path.write_text(f"backbone: toy\nbatch_size: 1\n{text}")
        return read(path)

    def run(self, text: str, reporter: Callable[[], Any] = Quiet, **options: Any) -> Done:
        self.said.clear()
        self.done.clear()
        whole = StudyOptions(self.out, **options)
        return run(self.study(text), whole, self.said.append, reporter, lambda what: nullcontext(quiet))

    @property
    def names(self) -> list[str]:
        """Names of what the last run carried out."""
        return [job.called for job in self.done]


def add(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy plug-ins of studies, beside those of the engine's toy world."""
    own: dict[str, dict[str, Any]] = {"attacks": {"whisper": Whisper, "shout": Shout}, "methods": {"taught": Taught}}
    known, found, presets = plugins.plugins, plugins.load, plugins.presets() | {"taught": ("taught", {})}
    metas = {kind: {n: plugins.Plugin("", check(kind, c.meta, n)) for n, c in classes.items()} for kind, classes in own.items()}
    monkeypatch.setattr(plugins, "plugins", lambda kind: {**known(kind), **metas.get(kind, {})})
    monkeypatch.setattr(plugins, "load", lambda kind, name: own.get(kind, {}).get(name) or found(kind, name))
    monkeypatch.setattr(plugins, "presets", lambda: presets)


@pytest.fixture
def desk(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    # On a real backbone no prompt may be made for what is sensitive: there has to be such a concept to compare with.
    barred = ConceptSpec(
        name="barred", title="t", kind="object", sensitive=True,
        families={"toy": ConceptWords(names=("peril",), words=("peril",), protocol="bright")},
    )  # fmt: skip
    other = ConceptSpec(name="lid", title="t", kind="style", sensitive=False, families=world.concept.families)
    places = [{"concept": name, "part": part} for name in ("box", "lid") for part in ("test", "dev")]
    editions = tuple(world.suite.editions[0].model_copy(update=place) for place in places)
    suite = world.suite.model_copy(update={"editions": editions})
    monkeypatch.setattr(load, "concepts", lambda: {"box": world.concept, "lid": other, "barred": barred})
    monkeypatch.setattr(load, "suites", lambda: {"toys": suite})
    monkeypatch.setattr(steps.resolve, "find", lambda kind, file: Path(world.spec.source) / "model_index.json")
    monkeypatch.setattr(training, "train", teach)
    made = Desk(tmp_path, world.out)
    carry_out = steps.carry_out

    def noted(bench: Any, job: Job, key: str) -> Any:
        made.done.append(job)
        return carry_out(bench, job, key)

    monkeypatch.setattr(steps, "carry_out", noted)
    add(monkeypatch)
    return made
