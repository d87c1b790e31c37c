"""Works out what the golden files hold: keys without sampling anything, and the output of commands on the committed results."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

from srbench import errors
from srbench.backbones.checkpoint import Checkpoint, Passport
from srbench.backbones.choose import chosen
from srbench.backbones.deployed import Changes
from srbench.backbones.loader import Backbone, encoder_sha, open_backbone
from srbench.catalog import load, plugins
from srbench.catalog.specs import Row
from srbench.engine import plan, prepare
from srbench.engine.checkpoints import UNTOUCHED, Checkpoints, OnConcept, job_of
from srbench.engine.request import RunRequest
from srbench.hashing import canonical, digest, folder_sha
from srbench.methods.base import Artifact
from srbench.results import keys
from srbench.results.keys import ImageSpec, score_key
from srbench.scoring import scoring

REPOSITORY = Path(__file__).resolve().parents[2]
PIXELS, BESIDE = "0" * 64, "1" * 64
"""Pixel hashes that no picture has."""
STAND_IN = "c" * 64
"""The sha256 of a checkpoint that is not there."""
ROW = Row(
    id="golden", kind="forget", category="seen", prompt="a dagger in the snow", seed=7, reference="the snow", target="a knife",
    objects=("dagger",), style="pencil", background="snow",
)  # fmt: skip
SPEC = ImageSpec(
    backbone_sha="b", checkpoint_sha="", method="none", method_version=1, options="{}", artifact_sha="", concept_sha="",
    prompt="a house", negative_prompt="", seed=1, steps=20, guidance=5.0, eta=0.0, guidance_rescale=0.0, clip_skip=None,
    scheduler="{}", width=64, height=64, dtype="fp32",
)  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {}, "prompt": {"prompt": "ein Häuschen \u2028 \U0001f3e0"}, "seed": {"seed": 2**64 - 1},
    "flux": {"true_guidance": 3.5},
    "clip skip": {"clip_skip": 2}, "guidance": {"guidance": 7.5, "guidance_rescale": 0.7},
    "approximate": {"approximations": ("x",)},
    "negative": {"negative_prompt": "rain"}, "size": {"width": 512, "height": 768}, "bf16": {"dtype": "bf16"},
}  # fmt: skip
PINNED = ("name", "version", "presets", "fitted", "kind", "base")
"""What a plug-in's metadata must keep: it is part of keys."""
SET = ("saferedir.cooldown=2", "sld.scale=7", "sld.threshold=0.5")


def request(methods: tuple[str, ...], on: tuple[str, ...] = ("none",), **more: Any) -> RunRequest:
    """What `srbench run` asks for by default on pocket, one row of each kind."""
    asked: dict[str, Any] = {
        "backbone": "pocket", "methods": methods, "on": on, "suites": ("igmu",), "concepts": ("hazard", "vangogh", "church"),
        "part": "test", "limit": 1, "seed": 0, "batch_size": 16, "dtype": "fp32", "settings": (), "protocol": None, "scorers": (),
        "out": Path("nowhere"), **more,
    }  # fmt: skip
    return RunRequest(**asked)


def pocket(dtype: str = "fp32") -> Backbone:
    """The bundled backbone; its weights are not read."""
    return open_backbone(chosen("pocket"), dtype, "cpu")


def inference_presets() -> tuple[str, ...]:
    """Every preset that acts while sampling on pocket."""
    return tuple(name for name in plugins.presets() if not prepare.is_weight(name))


@contextlib.contextmanager
def nothing_made() -> Iterator[None]:
    """Methods that make their artifact through the backbone (minutes) get a stand-in: its sha is pinned by no key here."""
    with contextlib.ExitStack() as stack:
        for name, plugin in plugins.plugins("methods").items():
            if plugin.meta.get("prepare") == "make":
                made = staticmethod(lambda backbone, concept, options: Artifact(None, "a" * 64))
                stack.enter_context(mock.patch.object(plugins.load("methods", name), "prepare", made))
        stack.enter_context(mock.patch.object(Backbone, "pipeline", None))
        for name in ("laid_over", "kept_as_it_was"):
            stack.enter_context(mock.patch.object(prepare, name, return_value=contextlib.nullcontext()))
        yield


def _stand_in(name: str) -> OnConcept:
    passport = Passport(STAND_IN, "safetensors", "srbench", 1, 1, 1, 0.1)
    return OnConcept(name, Checkpoint(name, {}, passport)) if name != "none" else UNTOUCHED


# --- keys -------------------------------------------------------------------------------------------------------------


def images() -> dict[str, str]:
    """Image keys: every inference preset x concept x a row of each kind with its reference images, and what changes them."""
    with nothing_made():
        found = _planned("", request(inference_presets()), pocket())
        few = ("none", "saferedir")
        found |= _planned("seed 9, bf16: ", request(few, seed=9, dtype="bf16"), pocket("bf16"))
        found |= _planned("set: ", request(("saferedir", "sld-max"), settings=SET), pocket())
        found |= _planned("dev: ", request(few, part="dev"), pocket())
        other = mock.patch.object(Checkpoints, "get", lambda self, name, concept: _stand_in(name))
        with other:
            found |= _planned("", request(few, on=("none", "esd-x", "uce")), pocket())
    return found | {f"spec: {name}": replace(SPEC, **changed).key() for name, changed in VARIATIONS.items()} | _own_rows()


def _planned(what: str, asked: RunRequest, backbone: Backbone) -> dict[str, str]:
    found = {}
    for cell in plan.plan(asked, backbone, make=False):
        if cell.blocked is not None:
            raise AssertionError(f"{cell.title}: {cell.blocked.line}")
        for row in cell.rows:
            for role in ("image", "reference", "floor"):
                if (planned := getattr(row, role)) is not None:
                    found[f"{what}{cell.title} {row.row.id} {role}"] = planned.key
    return found


def _own_rows() -> dict[str, str]:
    """Rows that bring a guidance, a size and a negative prompt of their own, or no seed."""
    backbone, (concept,) = pocket(), load.concepts_of(chosen("pocket"), ["hazard"])
    suite = load.suites()["igmu"]
    rows = {
        "bare": Row(id="0", kind="forget", category="", prompt="a dagger"),
        "whole": Row(id="1", kind="forget", category="", prompt="a dagger", seed=3, guidance=9.0, width=32, height=48,
                     negative_prompt="rain", reference="a beach"),
    }  # fmt: skip
    method = prepare.prepare_method("none", backbone, concept, ())
    drawn = plan.Drawn(backbone, Changes(), backbone.spec.recipe, backbone.scheduler, 5)
    planned = {
        name: plan._planned(row, suite, method, UNTOUCHED, method, drawn) for name, row in rows.items()
    }
    return {
        f"row: {name} {role}": getattr(row, role).key for name, row in planned.items() for role in ("image", "reference", "floor")
        if getattr(row, role) is not None
    }  # fmt: skip


def checkpoints() -> dict[str, str]:
    """Keys of the checkpoints that `srbench erase` keeps: every weight preset x concept, by default and with an option set."""
    backbone, found = pocket(), {}
    for preset in prepare.weight_presets():
        for concept in load.concepts_of(backbone.spec, ("hazard", "vangogh", "church")):
            job = job_of(preset, backbone, concept, ())
            found[f"{preset} {concept.name}"] = digest(job.identity(backbone.sha256))
    (hazard,) = load.concepts_of(backbone.spec, ["hazard"])
    other = job_of("esd-x", backbone, hazard, ("esd-x.iterations=3",))
    return found | {"esd-x.iterations=3 hazard": digest(other.identity(backbone.sha256))}


def scores() -> dict[str, str]:
    """Score keys: every scorer's on pixels of one hash. Libraries' versions, which are part of them, are left out."""
    found = {}
    for name, plugin in plugins.plugins("scorers").items():
        if not plugin.module.startswith("srbench."):
            continue
        opened = scoring.Scoring(store=None)  # type: ignore[arg-type]  # nothing is stored
        with contextlib.suppress(errors.UsageError):  # a scorer that needs an option says so
            opened.open([name])
        identity = opened.identities.get(name, {"name": name, "version": plugin.meta["version"], "not": "here"})
        reads = scoring.fields_of(name, ROW)
        pair = (BESIDE,) if scoring.kind_named(name) == "pair" else ()
        found[name] = score_key(PIXELS, _versionless(identity), {"fields": reads}, *pair)
        found[f"{name}: reads"] = reads
    return found


def _versionless(identity: dict[str, Any]) -> dict[str, Any]:
    return {key: "any" if "version" in key and key != "version" else value for key, value in identity.items()}


def rows() -> dict[str, str]:
    """`rows_sha` of every edition that srbench ships."""
    return {
        f"{suite.name} {edition.family} {edition.concept} {edition.part}": load.rows_sha(load.rows(suite, edition).rows)
        for suite in load.suites().values() for edition in suite.editions if edition.file
    }  # fmt: skip


def content() -> dict[str, str]:
    """What keys are made of: hashes of the bundled model, of its parts and of concepts' texts, and the hashing itself."""
    backbone = pocket()
    redirectors = sorted(path for path in (backbone.redirectors or Path()).iterdir() if path.is_dir())
    concepts = {
        f"concept {name} {family}": prepare.concept_sha(concept, family)
        for name, concept in load.concepts().items() for family in concept.families
    }  # fmt: skip
    return {
        "key version": str(keys.KEY_VERSION), "noise": keys.NOISE, "backbone": backbone.sha256, "scheduler": backbone.scheduler,
        "text encoder": encoder_sha(backbone), "floor": str(plan.FLOOR_SEED_OFFSET),
        **{f"redirector {path.name}": folder_sha(path) for path in redirectors}, **concepts,
        "canonical": canonical({"b": [1, 2.5, None, True], "a": "é\u2028"}), "later": canonical(keys.LATER),
        "identity": canonical({name: sorted(members) for name, members in keys.IDENTITY.items()}),
        "image spec": canonical([each.name for each in fields(ImageSpec)]), "spec": canonical(asdict(SPEC)),
        "score key": score_key("p", {"name": "x", "version": 1}, {"fields": "{}"}, "r"),
    }  # fmt: skip


def metadata() -> dict[str, str]:
    """Names, versions, presets and defaults of what srbench brings; exit codes."""
    found = {}
    for kind in ("methods", "scorers", "attacks"):
        for name, plugin in plugins.plugins(kind).items():
            if not plugin.module.startswith("srbench."):
                continue
            cls = plugins.load(kind, name)
            options = cls.Settings if kind == "attacks" else cls.Options
            found[f"{kind} {name}"] = canonical({key: value for key, value in plugin.meta.items() if key in PINNED})
            defaults = {key: repr(each.default) for key, each in options.model_fields.items()}
            found[f"{kind} {name} defaults"] = canonical(defaults)
    codes = (errors.OK, errors.SOME_FAILED, errors.USAGE, errors.MISSING, errors.INTERRUPTED)
    return found | {"exit codes": canonical(codes)}


SECTIONS = {
    "images": images, "checkpoints": checkpoints, "scores": scores, "rows": rows, "content": content, "metadata": metadata,
}  # fmt: skip


# --- texts ------------------------------------------------------------------------------------------------------------

COMMANDS = ("run", "compare", "tables", "report", "score", "list", "show", "doctor", "fetch", "train", "erase", "attack")
NEW = ("method", "scorer", "attack", "suite")
TEXTS: dict[str, list[str]] = {
    "help": ["--help"], **{f"help-{name}": [name, "--help"] for name in COMMANDS}, "list": ["list", "--json"],
    "help-new": ["new", "--help"], **{f"help-new-{kind}": ["new", kind, "--help"] for kind in NEW},
    "compare": ["compare", "results"],
    **{f"compare-{form}": ["compare", "results", "--format", form] for form in ("md", "csv", "latex", "html", "json")},
    "compare-all": ["compare", "results", "--all", "--suite", "igmu"], "compare-attacks": ["compare", "results", "--attacks"],
    "compare-attacks-md": ["compare", "results", "--attacks", "--format", "md"],
    "compare-costs": ["compare", "results", "--costs"],
    "compare-two": ["compare", "results", "none", "saferedir"], "compare-sorted": ["compare", "results", "--sort", "fsr"],
    "compare-baseline": ["compare", "results", "--baseline", "none", "--suite", "mma"],
    **{
        f"compare-two-{form}": ["compare", "results", "none", "saferedir", "--suite", "igmu", "--format", form]
        for form in ("md", "csv", "latex", "html", "json")
    },
    "compare-baseline-md": ["compare", "results", "--baseline", "none", "--suite", "mma", "--format", "md"],
    "compare-attacks-json": ["compare", "results", "--attacks", "--json"],
    "compare-costs-json": ["compare", "results", "--costs", "--json"],
    "tables": ["tables"], "tables-pocket": ["tables", "--pocket"],
    **{f"tables-{form}": ["tables", "--format", form] for form in ("md", "csv", "latex", "html")},
    **{f"tables-pocket-{form}": ["tables", "--pocket", "--format", form] for form in ("md", "csv", "latex", "html")},
}  # fmt: skip


def committed(folder: Path) -> None:
    """Copy the results that travel with the repository into `folder`, without what runs in this checkout have added."""
    listed = subprocess.run(["git", "-C", str(REPOSITORY), "ls-files", "results"], capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / name)


def text(arguments: list[str]) -> str:
    """Standard output of a command in the working directory, as in a pipe."""
    from typer.testing import CliRunner

    from srbench.cli.main import app

    # An empty cache: what is on this machine shows in some of them.
    places = dict.fromkeys(("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "TORCH_HOME"), str(Path.cwd() / "cache"))
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", **places})
    if done.exit_code != 0:
        raise AssertionError(f"srbench {' '.join(arguments)}: exit code {done.exit_code}: {done.stderr[-300:]}")
    return done.stdout.replace(str(Path.cwd()), ".")


