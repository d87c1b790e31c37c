"""A toy world for the engine: a tiny random pipeline on disk, a suite of eight rows, a method with a hook, two scorers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from srbench.backbones.loader import Backbone, load_pipeline, open_backbone
from srbench.catalog import load, plugins
from srbench.catalog.specs import (
    BackboneSpec,
    ConceptSpec,
    ConceptWords,
    Edition,
    ProtocolSpec,
    Recipe,
    Row,
    RowFile,
    SuiteSpec,
)
from srbench.engine.plan import plan
from srbench.engine.request import RunRequest
from srbench.engine.run import execute
from srbench.errors import CellError
from srbench.methods import base
from srbench.results.run_files import RunResult
from srbench.results.store import Store
from srbench.scorers import base as scorers
from srbench.testing.tiny import tiny_pipeline


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline in the hub's folder format."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_pipeline().save_pretrained(folder)
    return folder


class Push(base.Applied):
    """Adds a constant to the conditional half, and says so."""

    hooked = True

    def __init__(self, strength: float, call: base.Call) -> None:
        self.strength, self.call = strength, call

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.calls += 1
        prompt = kwargs["encoder_hidden_states"].clone()
        prompt[-self.call.images :] += self.strength
        return args, {**kwargs, "encoder_hidden_states": prompt}

    def trace(self) -> list[dict[str, Any]]:
        return [{"redirected_steps": self.call.steps} for _ in range(self.call.images)]


class PushMethod:
    """A method with one hook; `broken` options make it fail in ways the engine must notice."""

    meta = {  # noqa: RUF012 - the contract's literal
        "name": "push", "version": 1, "kind": "inference", "title": "pushes", "paper": "", "families": ["toy"],
        "presets": {"push": {}}, "decides": True, "reads_concept": True,
    }

    class Options(base.Options):
        strength: float = 1.0
        silent: bool = False

    @staticmethod
    def prepare(backbone: Any, concept: Any, options: Any) -> None:
        """Nothing."""

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: Any, options: Any, call: base.Call) -> Iterator[base.Applied]:
        push = Push(options.strength, call)
        if options.silent:
            yield push
            return
        with base.hooks(pipeline.unet.register_forward_pre_hook(push, with_kwargs=True)):
            yield push


class ShiftMethod:
    """A weight method: adds a constant to the output biases of cross-attention. Counts how often it was run."""

    meta = {  # noqa: RUF012 - the contract's literal
        "name": "shift", "version": 1, "kind": "weight", "title": "shifts", "paper": "", "families": ["toy"],
        "presets": {"shift": {}, "shift-more": {"size": 2.0}}, "decides": False, "reads_concept": True,
        "fitted": {"toy": {"shift": {"object": {"size": 5.0}, "style": {"size": 7.0}}}},
    }
    made: ClassVar[list[str]] = []

    class Options(base.Options):
        size: float = 1.0

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: Any, options: Any, tell: base.Tell) -> base.Edit:
        """Shifted weights."""
        tell("shift", 1, 1, "")
        ShiftMethod.made.append(concept.name)
        own = backbone.pipeline.unet.state_dict()
        names = [name for name in own if name.endswith("attn2.to_out.0.bias")]
        assert all(own[name].dtype == torch.float32 for name in names)
        return base.Edit({"unet": {name: own[name] + options.size for name in names}}, {"names": len(names)})


class TwiceMethod(ShiftMethod):
    """A weight method that begins from another one's checkpoint."""

    meta = {  # noqa: RUF012 - the contract's literal
        **ShiftMethod.meta, "name": "twice", "presets": {"twice": {}}, "fitted": {},
        "base": {"preset": "shift-more", "options": {"size": 3.0}},
    }

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: Any, options: Any, tell: base.Tell) -> base.Edit:
        """One more than the base; checks that the base lies over the backbone, and what it replaced."""
        own, before = backbone.pipeline.unet.state_dict(), backbone.original["unet"]
        assert all(torch.allclose(own[name] - value, torch.tensor(3.0)) for name, value in before.items())
        return base.Edit({"unet": {name: own[name] + 1 for name in before}})


class Brightness:
    """Presence of the concept is brightness."""

    meta = {"name": "brightness", "version": 1, "title": "brightness", "reads": []}  # noqa: RUF012 - the contract's literal

    class Options(scorers.Options):
        scale: float = 1.0
        label: str = ""

    def __init__(self, options: Options) -> None:
        self.scale = options.scale

    def identity(self) -> dict[str, Any]:
        return {"library": "none", "library_version": "0", "weights_sha256": ""}

    def score(self, images: Any, rows: Any) -> list[dict[str, Any]]:
        level = [self.scale * float(np.mean(i)) / 255 for i in images]
        return [{"objects": {"box": v, "ball": 1 - v}, "style": {"a": 1.0}, "background": {"b": 1.0}} for v in level]


class Closeness:
    """Stands in for a CLIP score; reads the prompt."""

    meta = {"name": "closeness", "version": 1, "title": "closeness", "reads": ["prompt", "reference"]}  # noqa: RUF012 - the contract's literal
    Options = scorers.Options

    def __init__(self, options: scorers.Options) -> None:
        """Has none."""

    def identity(self) -> dict[str, Any]:
        return {"library": "none", "library_version": "0", "weights_sha256": ""}

    def score(self, images: Any, rows: Any) -> list[dict[str, Any]]:
        pairs = zip(images, rows, strict=True)
        return [{"prompt": float(len(row["prompt"])), "reference": 1.0 + float(np.mean(image))} for image, row in pairs]


class Gap:
    """A scorer of pairs: the mean difference."""

    meta: ClassVar[dict[str, Any]] = {
        "name": "gap", "version": 1, "kind": "pair", "title": "gap", "reads": [],
        "metrics": {"gap": {"field": "mean", "better": "lower"}},
    }
    Options = scorers.Options
    calls: ClassVar[int] = 0
    broken: ClassVar[bool] = False

    def __init__(self, options: scorers.Options) -> None:
        """Has none."""

    def identity(self) -> dict[str, Any]:
        return {"library": "none", "library_version": "0", "weights_sha256": ""}

    def score(self, images: Any, references: Any, rows: Any) -> list[dict[str, Any]]:
        Gap.calls += len(images)
        if Gap.broken:
            raise CellError("broken", "")
        return [{"mean": float(np.abs(a.astype(float) - b).mean())} for a, b in zip(images, references, strict=True)]


class Cloud:
    """A scorer of sets: the distance of mean colours."""

    meta: ClassVar[dict[str, Any]] = {
        "name": "cloud", "version": 1, "kind": "set", "title": "cloud", "reads": [],
        "metrics": {"cloud": {"field": "distance", "better": "lower"}},
    }
    Options = scorers.Options
    calls: ClassVar[int] = 0
    spoilt: ClassVar[bool] = False

    def __init__(self, options: scorers.Options) -> None:
        """Has none."""

    def identity(self) -> dict[str, Any]:
        return {"library": "none", "library_version": "0", "weights_sha256": ""}

    def features(self, images: Any) -> np.ndarray:
        Cloud.calls += len(images)
        found = np.stack([image.mean((0, 1)) for image in images]).astype(np.float32)
        return np.full_like(found, np.nan) if Cloud.spoilt else found

    @staticmethod
    def reduce(images: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if len(images) < 2:
            raise CellError("one image is no set", "")
        return {"distance": float(np.linalg.norm(images.mean(0) - references.mean(0)))}


ROWS = tuple(
    Row(
        id=f"f{i}", kind="forget", category="noun", prompt=f"a box {word}", reference=f"a {word}", seed=i, objects=("box",),
        style="a", background="b",
    )
    for i, word in enumerate(("red", "blue", "old", "wet"))
) + tuple(
    Row(id=f"r{i}", kind="retain", category="object", prompt=f"a ball {word}", seed=10 + i, objects=("ball",), style="a")
    for i, word in enumerate(("red", "blue", "old"))
) + (Row(id="u0", kind="forget", category="unseen", prompt="a crate", reference="a", objects=("box",)),)
METRICS = ("fsr", "fsr_unseen", "content_kept", "csdr", "csdr_floor", "retain_accuracy", "style_kept", "over_refusal", "added_ms")


@cache
def _opened(folder: Path, dtype: str) -> Any:
    """The tiny pipeline as it comes from disk; nobody samples with it."""
    return load_pipeline(folder, dtype, "cpu")


class Copied(Backbone):
    """A backbone whose pipeline is a copy of an opened one: opening the folder again takes three times as long."""

    @cached_property
    def pipeline(self) -> Any:
        return copy.deepcopy(_opened(self.folder, self.dtype))


@dataclass
class World:
    """The toy catalog and shortcuts to plan and run in it."""

    spec: BackboneSpec
    concept: ConceptSpec
    suite: SuiteSpec
    out: Path
    rows: RowFile
    scorers: dict[str, type]
    methods: dict[str, type]
    suites: dict[str, SuiteSpec]
    """Those beside `suite`; one of its name stands in its place."""
    protocols: dict[str, ProtocolSpec]
    model: str
    """The session's folder of the tiny pipeline, which no test changes."""
    shift: type = ShiftMethod
    lines: list[str] = field(default_factory=list)

    def request(self, **changes: Any) -> RunRequest:
        values: dict[str, Any] = {
            "backbone": "toy", "methods": ("none", "push"), "on": ("none",), "suites": ("toys",), "concepts": ("box",),
            "part": "test", "limit": None, "seed": 0, "batch_size": 4, "dtype": "fp32", "settings": (), "protocol": None,
            "scorers": (), "out": self.out,
        }
        return RunRequest(**(values | changes))

    def backbone(self, dtype: str = "fp32") -> Backbone:
        """A backbone with a pipeline of its own."""
        found = open_backbone(self.spec, dtype, "cpu")
        return Copied(found.spec, found.folder, found.dtype, found.device) if self.spec.source == self.model else found

    def run(self, **changes: Any) -> RunResult:
        request = self.request(**changes)
        backbone = self.backbone(request.dtype)
        store = Store(request.out / "store", self.lines.append)
        return execute(request, backbone, plan(request, backbone), store, self)

    def store(self) -> Store:
        return Store(self.out / "store", self.lines.append)

    def alter(self, plugin: str, **members: Any) -> None:
        """Put a subclass with other members in the place of a method or scorer."""
        known = self.methods if plugin in self.methods else self.scorers
        known[plugin] = type(known[plugin].__name__, (known[plugin],), members)

    def drew_nothing(self) -> bool:
        """Whether the runs since `lines` was emptied planned no image, and reported none."""
        planned = [line for line in self.lines if " images to sample, " in line]
        return bool(planned) and all(line.startswith("0 images ") for line in planned) and not any(
            line.startswith(("begin ", "images ")) for line in self.lines
        )

    def sampled(self) -> int:
        """How many images were sampled so far, where none is sensitive: lines in the store's ledgers."""
        ledgers = (self.out / "store" / "ledger").glob("images-*")
        return sum(len(path.read_text().splitlines()) for path in ledgers)

    def begin(self, cells: int, images: int) -> None:
        self.lines.append(f"begin {images}")

    def images(self, count: int) -> None:
        self.lines.append(f"images {count}")

    def cell(self, title: str) -> None:
        self.lines.append(f"cell {title}")

    def line(self, text: str) -> None:
        self.lines.append(text)

    def end(self) -> None:
        self.lines.append("end")


def _catalog(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "backbones", lambda: {"toy": world.spec})
    monkeypatch.setattr(load, "concepts", lambda: {"box": world.concept})
    monkeypatch.setattr(load, "suites", lambda: {"toys": world.suite, **world.suites})
    monkeypatch.setattr(load, "protocols", lambda: dict(world.protocols))
    monkeypatch.setattr(load, "rows", lambda suite, edition: world.rows)
    real_plugins, real_load = plugins.plugins, plugins.load
    extra: dict[str, dict[str, Any]] = {"methods": world.methods, "scorers": world.scorers, "attacks": {}}

    def known(kind: str) -> dict[str, plugins.Plugin]:
        return {**real_plugins(kind), **{n: plugins.Plugin("", c.meta) for n, c in extra[kind].items()}}

    def presets() -> dict[str, tuple[str, dict[str, Any]]]:
        own = {p: (c.meta["name"], v) for c in extra["methods"].values() for p, v in c.meta["presets"].items()}
        return {"none": ("none", {}), **own}

    monkeypatch.setattr(plugins, "plugins", known)
    monkeypatch.setattr(plugins, "presets", presets)
    ShiftMethod.made.clear()
    monkeypatch.setattr(plugins, "load", lambda kind, name: extra[kind].get(name) or real_load(kind, name))


@pytest.fixture
def world(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The toy world, installed in place of the real catalog."""
    words = ConceptWords(names=("a box",), words=("box",), reserved=("crate",), protocol="bright")
    bright = ProtocolSpec(
        name="bright", title="t", scorer="brightness", field="objects", classes=("box",), threshold=0.5, source="test"
    )
    made = World(
        spec=BackboneSpec(
            name="toy", title="t", family="toy", source=str(tiny_folder), licence="MIT", concepts=("box",),
            recipe=Recipe(steps=2, guidance=5.0, width=8, height=8), scorers=("brightness", "closeness"),
        ),
        concept=ConceptSpec(name="box", title="t", kind="object", sensitive=False, families={"toy": words}),
        suite=SuiteSpec(
            name="toys", title="t", source="test", licence="MIT", metrics=METRICS,
            editions=(Edition(family="toy", concept="box", file="x", sha256="unverified", rows=len(ROWS)),),
        ),
        out=tmp_path / "results",
        rows=RowFile(meta={}, rows=ROWS),
        scorers={"brightness": Brightness, "closeness": Closeness},
        methods={"push": PushMethod, "shift": ShiftMethod, "twice": TwiceMethod}, suites={}, protocols={"bright": bright},
        model=str(tiny_folder),
    )
    _catalog(made, monkeypatch)
    return made


@pytest.fixture
def compared(world: World) -> World:
    """The toy world with a scorer of pairs and one of sets."""
    Gap.calls, Cloud.calls, Gap.broken, Cloud.spoilt = 0, 0, False, False
    world.scorers |= {"gap": Gap, "cloud": Cloud}
    return world
