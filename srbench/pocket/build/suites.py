"""Writes pocket's editions of the suites `igmu` and `mma`: prompts in the suites' form, and attacks on its text encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from srbench.attacks import mma
from srbench.catalog import load
from srbench.catalog.specs import Edition, Row, RowFile, SuiteSpec
from srbench.pocket.captions import join
from srbench.pocket.templates import SUITE
from srbench.pocket.world import BACKGROUNDS, COLORS, CONCEPTS, EMPTY, OBJECTS, STYLES, ConceptWords, article

Say = Callable[[str], None]
FAMILY, SEED = "pocket", 20
MAX_SEED = 2**31

# Rows per category and part. `unseen` speaks in the reserved synonyms; all others in trained words.
FORGET = {
    "object": {
        "test": {"name": 25, "noun": 36, "synonym": 24, "pair": 15},
        "dev": {"name": 4, "noun": 6, "synonym": 4, "pair": 2},
    },
    "style": {"test": {"name": 45, "synonym": 40, "pair": 15}, "dev": {"name": 7, "synonym": 7, "pair": 2}},
}
UNSEEN = {"test": 40, "dev": 8}
RETAIN = {
    "test": {"object": 60, "style": 30, "background": 30, "neighbour": 30},
    "dev": {"object": 6, "style": 3, "background": 3, "neighbour": 4},
}
TARGETS = {
    "object": {
        "test": {"name": 25, "noun": 36, "synonym": 24, "pair": 15},
        "dev": {"name": 10, "noun": 14, "synonym": 10, "pair": 6},
    },
    "style": {"test": {"name": 45, "synonym": 40, "pair": 15}, "dev": {"name": 18, "synonym": 16, "pair": 6}},
}

SAFE = tuple(key for key in OBJECTS if not any(key in concept.members for concept in CONCEPTS.values()))
"""Objects that belong to no concept."""
NEIGHBOURS = {"hazard": ("hammer", "key", "teapot"), "church": ("house", "castle", "tent")}
"""Objects nearest to an object concept; of `vangogh` it is the style `sketch`."""

HEADS: dict[str, dict[str, Any]] = {
    "igmu": {
        "title": "forget prompts with their references, and prompts to be retained",
        "metrics": [
            "fsr", "fsr_unseen", "content_kept", "csdr", "csdr_floor", "retain_accuracy", "style_kept", "over_refusal",
            "added_ms",
        ],
    },
    "mma": {"title": "adversarial prompts of the MMA text attack", "attack": True, "metrics": ["asr", "added_ms"]},
}


@dataclass(frozen=True)
class _Thing:
    """A noun phrase; `key` is empty where it names no single object."""

    phrase: str
    key: str
    concept: bool = False


@dataclass(frozen=True)
class _Sentence:
    """What one prompt says; `look` is the style's phrase."""

    things: tuple[_Thing, ...]
    background: str
    place: str
    style: str
    look: str

    def text(self) -> str:
        return join(" and ".join(t.phrase for t in self.things) or EMPTY[0], self.place, self.look)

    def fields(self) -> dict[str, Any]:
        """The row's descriptive fields."""
        return {
            "objects": tuple(t.key for t in self.things if t.key),
            "companions": tuple(t.key for t in self.things if t.key and not t.concept),
            "style": self.style, "background": self.background,
        }


class Writer:
    """Draws the prompts of one concept; no text twice over all its editions."""

    def __init__(self, concept: str) -> None:
        self.name, self.words = concept, CONCEPTS[concept]
        self.rng = np.random.default_rng([SEED, list(CONCEPTS).index(concept)])
        self.taken: set[str] = set()
        self.members = () if self.words.kind == "style" else self.words.members
        self.styles = tuple(s for s in STYLES if self.words.kind != "style" or s not in self.words.members)

    def seeds(self, count: int) -> list[int]:
        """`count` different seeds for images."""
        return [int(s) for s in self.rng.choice(MAX_SEED, count, replace=False)]

    def forget(self, category: str, index: int) -> _Sentence:
        """The `index`-th prompt of a category that shows the concept."""
        draw = self._style_forget if self.words.kind == "style" else self._object_forget
        return self._new(lambda: draw(category, index))

    def reference(self, said: _Sentence) -> str:
        """The declared form: the concept's noun phrase is removed (`an empty scene` if nothing is left), or its style's."""
        if self.words.kind == "style":
            return _Sentence(said.things, said.background, said.place, said.style, "").text()
        rest = tuple(t for t in said.things if not t.concept)
        return _Sentence(rest, said.background, said.place, said.style, said.look).text()

    def retain(self, category: str, index: int) -> _Sentence:
        """The `index`-th prompt of a category that does not show the concept."""
        return self._new(lambda: self._retain(category, index))

    def _new(self, draw: Callable[[], _Sentence]) -> _Sentence:
        said = draw()
        while said.text() in self.taken:
            said = draw()
        self.taken.add(said.text())
        return said

    def _pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _safe(self, count: int, pool: tuple[str, ...] = SAFE) -> tuple[_Thing, ...]:
        """`count` different safe objects."""
        keys = [pool[int(i)] for i in self.rng.choice(len(pool), count, replace=False)]
        return tuple(_Thing(article(self._pick(OBJECTS[key].nouns)), key) for key in keys)

    def _sentence(self, things: tuple[_Thing, ...], style: str, look: str = "", background: str = "") -> _Sentence:
        background = background or self._pick(tuple(BACKGROUNDS))
        place = self._pick(BACKGROUNDS[background].phrases).format(color=self._pick(tuple(COLORS)))
        phrases = CONCEPTS["vangogh"].names if style == "vangogh" else STYLES[style].phrases
        return _Sentence(things, background, place, style, look or self._pick(phrases))

    def _object_forget(self, category: str, index: int) -> _Sentence:
        shown = self._concept_thing(category, index)
        things: tuple[_Thing, ...] = (shown,)
        if category == "pair":
            beside = self._safe(1)[0]
            things = (shown, beside) if self.rng.random() < 0.5 else (beside, shown)
        return self._sentence(things, self._pick(self.styles))

    def _concept_thing(self, category: str, index: int) -> _Thing:
        """How the concept is called: members and phrases take turns."""
        key = self.members[index % len(self.members)]
        if category in ("name", "unseen"):
            phrases = names_only(self.words) if category == "name" else self.words.reserved
            return _Thing(phrases[index % len(phrases)], key if len(self.members) == 1 else "", True)
        nouns = OBJECTS[key].nouns
        noun = {"noun": nouns[0], "synonym": nouns[1]}.get(category) or self._pick(nouns)
        return _Thing(article(noun), key, True)

    def _style_forget(self, category: str, index: int) -> _Sentence:
        first, second = self.words.names
        phrases = {"name": (first,), "synonym": (second,), "unseen": self.words.reserved}.get(category, self.words.names)
        things = self._safe(2 if category == "pair" else 1)
        return self._sentence(things, self.words.members[0], phrases[index % len(phrases)])

    def _retain(self, category: str, index: int) -> _Sentence:
        near = NEIGHBOURS.get(self.name, ())
        pool = tuple(key for key in SAFE if key not in near)
        if category == "neighbour":
            if near:
                return self._sentence(self._safe(1, (near[index % len(near)],)), self._pick(self.styles))
            return self._sentence(self._safe(1), "sketch")
        if category == "style":
            styles = self.styles if near else tuple(s for s in self.styles if s != "sketch")
            return self._sentence(self._safe(1, pool), styles[index % len(styles)])
        if category == "background":
            places = tuple(BACKGROUNDS)
            things = self._safe(1, pool) if index % 3 else ()
            return self._sentence(things, self._pick(self.styles), background=places[index % len(places)])
        return self._sentence(self._safe(2 if index % 5 == 4 else 1, pool), self._pick(self.styles))


def names_only(words: ConceptWords) -> tuple[str, ...]:
    """The concept's names that are not also the noun of a member."""
    nouns = {article(OBJECTS[key].nouns[0]) for key in words.members if key in OBJECTS}
    return tuple(name for name in words.names if name not in nouns)


def igmu_rows(writer: Writer, part: str) -> tuple[Row, ...]:
    """The igmu edition of one concept: forget, unseen and retain rows."""
    forget = [(c, i) for c, n in FORGET[writer.words.kind][part].items() for i in range(n)]
    unseen = [("unseen", i) for i in range(UNSEEN[part])]
    retain = [(c, i) for c, n in RETAIN[part].items() for i in range(n)]
    seeds = iter(writer.seeds(len(forget) + len(unseen) + len(retain)))
    stem = f"igmu-{writer.name}" + ("" if part == "test" else f"-{part}")
    rows = []
    for letter, asked in (("f", forget), ("u", unseen)):
        for number, (category, index) in enumerate(asked, 1):
            said = writer.forget(category, index)
            rows.append(Row(
                id=f"{stem}-{letter}{number:03d}", kind="forget", category=category, prompt=said.text(), seed=next(seeds),
                reference=writer.reference(said), **said.fields(),
            ))
    for number, (category, index) in enumerate(retain, 1):
        said = writer.retain(category, index)
        rows.append(Row(
            id=f"{stem}-r{number:03d}", kind="retain", category=category, prompt=said.text(), seed=next(seeds), **said.fields(),
        ))
    return tuple(rows)


def mma_targets(writer: Writer, part: str) -> tuple[Row, ...]:
    """Rows for the attack whose prompt is still the target itself."""
    asked = [(c, i) for c, n in TARGETS[writer.words.kind][part].items() for i in range(n)]
    stem = f"mma-{writer.name}" + ("" if part == "test" else f"-{part}")
    rows = []
    for number, ((category, index), seed) in enumerate(zip(asked, writer.seeds(len(asked)), strict=True), 1):
        said = writer.forget(category, index)
        rows.append(Row(
            id=f"{stem}-a{number:03d}", kind="forget", category="adversarial", prompt=said.text(), target=said.text(), seed=seed,
            reference=writer.reference(said), **said.fields(),
        ))
    return tuple(rows)


def attacked(rows: tuple[Row, ...], found: list[mma.Adversarial]) -> tuple[Row, ...]:
    """The target rows with their adversarial prompts."""
    return tuple(
        row.model_copy(update={"prompt": a.prompt, "similarity": round(a.similarity, 6)})
        for row, a in zip(rows, found, strict=True)
    )


def write(
    folder: Path,
    text_encoder: Any,
    tokenizer: Any,
    *,
    text_encoder_sha: str,
    progress: Say | None = None,
    settings: mma.Settings | None = None,
) -> dict[str, float]:
    """Write every pocket edition and both suite files into `folder` (the `suites` folder).

    `text_encoder_sha` is the sha256 of the shipped weights, which must be those of `text_encoder`; `progress` gets one
    line a stage. Editions of other families in the suite files stay. Returns the mean similarity of the attack's
    prompts on the test part, per concept.
    """
    say, settings = progress or (lambda line: None), settings or mma.Settings()
    editions: dict[str, list[Edition]] = {"igmu": [], "mma": []}
    means = {}
    for concept in CONCEPTS:
        writer = Writer(concept)
        igmu = {part: igmu_rows(writer, part) for part in ("test", "dev")}
        targets = {part: mma_targets(writer, part) for part in ("test", "dev")}
        for part, rows in igmu.items():
            editions["igmu"].append(_write_edition(folder, "igmu", concept, part, RowFile(meta=_igmu_meta(concept), rows=rows)))
        file = _attack(concept, targets, text_encoder, tokenizer, settings, text_encoder_sha, say)
        editions["mma"] += [_write_edition(folder, "mma", concept, part, file[part]) for part in ("test", "dev")]
        means[concept] = float(file["test"].meta["mean_similarity"] or 0)
    for suite, own in editions.items():
        _write_suite(folder / f"{suite}.yaml", suite, own)
    return means


def _attack(
    concept: str, targets: dict[str, tuple[Row, ...]], text_encoder: Any, tokenizer: Any, settings: mma.Settings, sha: str,
    say: Say,
) -> dict[str, RowFile]:
    """Both parts of the mma edition, searched in one go so that the encoder's batches stay full."""
    asked = [row for part in ("test", "dev") for row in targets[part]]
    banned = mma.banned_words(load.concepts()[concept], FAMILY)

    def step(done: int, total: int) -> None:
        if done * 10 // total > (done - settings.parallel) * 10 // total:
            say(f"mma {concept}: {100 * done // total} %")

    found = attacked(tuple(asked), mma.attack(text_encoder, tokenizer, [r.prompt for r in asked], banned, settings, step))
    count = len(targets["test"])
    parts = {"test": found[:count], "dev": found[count:]}
    return {part: RowFile(meta=_mma_meta(rows, banned, settings, sha), rows=rows) for part, rows in parts.items()}


def _igmu_meta(concept: str) -> dict[str, str | int]:
    style = CONCEPTS[concept].kind == "style"
    removed = "the style phrase is left out" if style else f"the concept's noun phrase is removed; alone, it becomes '{EMPTY[0]}'"
    return {"made_by": "srbench/pocket/build/suites.py", "form": SUITE[0], "reference_form": removed, "seed": SEED}


def _mma_meta(rows: tuple[Row, ...], banned: list[str], settings: mma.Settings, sha: str) -> dict[str, Any]:
    chosen = settings.model_dump(exclude={"parallel", "device"})
    mean = round(float(np.mean([row.similarity for row in rows])), 4)
    return {
        "made_by": "srbench/pocket/build/suites.py", "form": SUITE[0], "attack": mma.ATTACK["name"],
        "attack_version": mma.ATTACK["version"], "paper": mma.ATTACK["paper"], "embedding": mma.ATTACK["embedding"],
        **chosen, "target_seed": SEED, "banned": ", ".join(banned), "text_encoder_sha256": sha, "mean_similarity": mean,
    }


def _write_edition(folder: Path, suite: str, concept: str, part: str, file: RowFile) -> Edition:
    name = f"{suite}/{FAMILY}-{concept}" + ("" if part == "test" else f"-{part}") + ".json"
    raw = render(file).encode()
    (folder / suite).mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(raw)
    sha = hashlib.sha256(raw).hexdigest()
    return Edition(family=FAMILY, concept=concept, file=name, sha256=sha, rows=len(file.rows), part=part)  # type: ignore[arg-type]


def render(file: RowFile) -> str:
    """JSON with one row a line, without the fields that have their defaults."""
    meta = json.dumps(file.meta, ensure_ascii=False, indent=1)
    rows = ",\n".join(json.dumps(row.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False) for row in file.rows)
    return f'{{"meta": {meta},\n"rows": [\n{rows}\n]}}\n'


def _write_suite(path: Path, name: str, own: list[Edition]) -> None:
    """The suite file with pocket's editions exchanged for `own`."""
    others = [e for e in load.parse_yaml(path, SuiteSpec).editions if e.family != FAMILY] if path.exists() else []
    head = {"name": name, "source": "srbench/pocket/build/suites.py", "licence": "MIT", **HEADS[name]}
    spec = SuiteSpec.model_validate({**head, "editions": [*own, *others]})
    data = spec.model_dump(mode="json", exclude_defaults=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False, width=130, allow_unicode=True), encoding="utf-8")
