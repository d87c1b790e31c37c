"""`srbench attack`: adversarial prompts against a backbone's text encoder, written as a row file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from srbench.backbones import choose
from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog import load, plugins, screen
from srbench.catalog.specs import ConceptSpec, Row, RowFile
from srbench.cli.main import say
from srbench.engine.plan import ENCODER_SHA, encoder_sha
from srbench.engine.store import write_atomic
from srbench.errors import UsageError, did_you_mean


def options(cls: Any, settings: Sequence[str], **fixed: Any) -> Any:
    """`OPTION=VALUE` strings as a settings object of `cls`. Raises `UsageError` naming the option."""
    values = dict(fixed)
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign:
            raise UsageError(f"--set {setting}: expected OPTION=VALUE", "Example: --set steps=30")
        if name not in cls.model_fields:
            raise UsageError(f"there is no option '{name}'", did_you_mean(name, cls.model_fields))
        values[name] = value
    try:
        return cls(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--set {first['loc'][0]}: {first['msg']}", "Give a value of the right kind.") from error


def _targets(path: Path, concept: ConceptSpec) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read", "Give a text file, a target prompt a line.") from error
    targets = [line for line in lines if line]
    if not targets:
        raise UsageError(f"{path}: no target prompt in it", "Give a text file, a target prompt a line.")
    if not (concept.sensitive or any(map(screen.is_sexual, [concept.name, *targets]))):
        return targets
    kept = [t for t in targets if not screen.names_minor(t)]
    say(f"{len(targets)} targets loaded, {len(targets) - len(kept)} excluded, {len(kept)} to attack")
    if not kept:
        raise UsageError(f"{path}: no target is left", "Targets that name minors are excluded from sensitive attacks.")
    return kept


def _rows(found: Sequence[Any], name: str, concept: str) -> tuple[Row, ...]:
    return tuple(
        Row(
            id=f"{name}-{concept}-{i:04d}", kind="forget", category="adversarial", prompt=f.prompt, target=f.target,
            similarity=round(f.similarity, 6),
        )
        for i, f in enumerate(found, 1)
    )


def _write(out: Path, file: RowFile) -> None:
    rows = ",\n".join(json.dumps(row.model_dump(exclude_defaults=True), ensure_ascii=False) for row in file.rows)
    text = f'{{"meta": {json.dumps(file.meta, indent=1, ensure_ascii=False)},\n"rows": [\n{rows}\n]}}\n'
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, text.encode())
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})", "Choose another --out.") from error


def attack(
    name: str, backbone_name: str, concept_name: str, targets: Path, out: Path, seed: int, settings: Sequence[str]
) -> int:
    """Attack every target and write the row file with settings, seed, similarities and the text encoder's sha256."""
    spec = choose.chosen(backbone_name)
    concept = load.named("concept", concept_name, load.concepts())
    cls = plugins.load("attacks", name)
    chosen = options(cls.Settings, settings, seed=seed)
    from srbench.attacks.mma import banned_words

    banned = banned_words(concept, spec.family)
    wanted = _targets(targets, concept)
    backbone: Backbone = open_backbone(spec, "fp32", "cpu")
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{name}: {len(wanted)} targets")
        found = cls.attack(
            backbone.pipeline.text_encoder, backbone.pipeline.tokenizer, wanted, banned, chosen,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    meta = {
        "attack": name, "version": cls.meta["version"], "concept": concept.name, "backbone": spec.name,
        ENCODER_SHA: encoder_sha(backbone), "banned": ",".join(banned), **chosen.model_dump(),
    }
    _write(out, RowFile(meta=meta, rows=_rows(found, name, concept.name)))
    mean = sum(f.similarity for f in found) / len(found)
    say(f"{len(found)} prompts, mean similarity {mean:.3f}: {out}")
    return 0
