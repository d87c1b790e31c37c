"""Pairs of unsafe and safe prompts for training a redirector, and prompts that must stay as they are.

Pocket's pairs are written here in the training forms of `pocket/templates.py`; other backbones take them from IGMU's prompts
(`published.py`), or any backbone from the user's own file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from pydantic import BaseModel, ConfigDict

from srbench.catalog import load, prompts
from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods.phrases import phrases
from srbench.methods.saferedir import variety
from srbench.pocket.templates import TRAINING
from srbench.pocket.world import BACKGROUNDS, COLORS, CONCEPTS, EMPTY, OBJECTS, SPLITS, STYLE_PREPOSITIONS, STYLES, article

HELD_OUT_ONE_IN = 7
_OF_PAINTING = "a van gogh painting of "


class Pair(BaseModel):
    """One line of a pairs file: the same sentence with and without the concept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unsafe: str
    safe: str


@dataclass(frozen=True)
class Used:
    """Prompts that training used and that a test suite may contain."""

    suite: str
    """Empty for the user's own file."""
    files: tuple[str, ...]
    """sha256 of the files."""
    train: tuple[str, ...] = ()
    """Ids of the suite's rows that trained."""
    held: tuple[str, ...] = ()
    """Ids of the rows that chose the best state."""
    prompts: tuple[str, ...] = ()
    """`load.fingerprint` of every text, sorted: it identifies a row in any file."""


@dataclass
class PairSet:
    """Pairs and concept-free prompts, split by whole combination of what is in the sentence."""

    train: list[Pair] = field(default_factory=list)
    held: list[Pair] = field(default_factory=list)
    benign_train: list[str] = field(default_factory=list)
    benign_held: list[str] = field(default_factory=list)
    used: Used = Used("", ())
    """Empty for generated sentences: no suite contains them."""
    dropped: int = 0
    """Sentences, or rows, that were dropped before the pairs were made."""
    beside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Sentence -> the other texts of its row in the file, which are screened with it."""
    told: tuple[str, ...] = ()
    """Notes on how files were read."""

    def put_beside(self, sentences: Iterable[str], texts: Iterable[str]) -> None:
        """Remember other texts of a row."""
        if texts := tuple(text for text in texts if text):
            for sentence in sentences:
                self.beside[sentence] = tuple(dict.fromkeys((*self.beside.get(sentence, ()), *texts)))

    def prompts(self) -> set[str]:
        """Every sentence in the set."""
        pairs = [*self.train, *self.held]
        return {p.unsafe for p in pairs} | {p.safe for p in pairs} | {*self.benign_train, *self.benign_held}

    def sha256(self) -> str:
        """Of all sentences, sorted."""
        return hashlib.sha256("\n".join(sorted(self.prompts())).encode()).hexdigest()


@dataclass(frozen=True)
class _Sentence:
    """The parts of one sentence. Noun phrases carry their article; an empty style is left out."""

    things: tuple[str, ...]
    place: str
    spot: str
    style: str
    look: str
    form: str

    def text(self) -> str:
        if not self.style and _is_painting(self.form):
            return _fill(self, "a picture of " + self.form.removeprefix(_OF_PAINTING))
        return _fill(self, self.form)

    def combination(self) -> tuple[str, ...]:
        """The sentence's content, without its form and the wording of the place."""
        place = self.spot if "{place}" in self.form or "{spot}" in self.form else ""
        if "{look}" in self.form or (_is_painting(self.form) and self.style):
            return (*self.things, place, self.look)
        return (*self.things, place, self.style if "{style}" in self.form or "{lead}" in self.form else "")


def _is_painting(form: str) -> bool:
    return form.startswith(_OF_PAINTING)


def _bare(noun: str) -> str:
    return noun.removeprefix("an ").removeprefix("a ")


def _fill(sentence: _Sentence, form: str) -> str:
    if "{thing}" in form:
        slots = {"{thing}": ", ".join(_bare(t) for t in sentence.things), "{spot}": sentence.spot, "{look}": sentence.look}
        return ", ".join(slots[part] for part in form.split(", ") if slots[part])
    things = " and ".join(sentence.things) or EMPTY[0]
    if "{lead}" in form:
        return variety.filled(form, things, sentence.place, sentence.style)
    style = sentence.style and (" " if sentence.style.startswith(STYLE_PREPOSITIONS) else ", ") + sentence.style
    return form.format(things=things, place=sentence.place, style=style)


def _told(concept: ConceptSpec) -> list[str]:
    """What stands for the concept in a sentence: all that every method is told. A style's bare words are in the forms."""
    words = concept.families["pocket"]
    return phrases(concept, "pocket") if concept.kind == "object" else [*words.names, *words.descriptions]


def _spare(concept: ConceptSpec) -> tuple[str, ...]:
    words = concept.families["pocket"]
    if concept.kind == "style":
        return variety.spare_of_styles((*words.names, *words.descriptions))
    return variety.spare_of_nouns((*words.names, *words.words), words.descriptions)


def _pick(rng: np.random.Generator, options: list[str] | tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _place(rng: np.random.Generator) -> tuple[str, str]:
    """A background's phrase and its short word."""
    background = BACKGROUNDS[_pick(rng, list(BACKGROUNDS))]
    color = _pick(rng, list(COLORS))
    return _pick(rng, background.phrases).format(color=color), background.short.format(color=color)


def _style(rng: np.random.Generator, keys: list[str], vangogh: list[str]) -> tuple[str, str]:
    """A style's phrase and its short word; `vangogh` says how that style is phrased."""
    key = _pick(rng, keys)
    return _pick(rng, vangogh if key == "vangogh" else STYLES[key].phrases), STYLES[key].short


def _neutral(rng: np.random.Generator, keys: list[str]) -> list[str]:
    noun = _pick(rng, keys)
    return [OBJECTS[noun].description if rng.random() < 0.1 else article(_pick(rng, OBJECTS[noun].nouns))]


def is_held(*parts: str) -> bool:
    """Whether the combination of these texts is held out: one in seven."""
    return hashlib.sha256("|".join(parts).encode()).digest()[0] % HELD_OUT_ONE_IN == 0


def has_sentences(concept: ConceptSpec, family: str) -> bool:
    """Whether a redirector can be trained without a file of pairs: on pocket's own concepts, elsewhere on IGMU's."""
    if family == "pocket":
        return concept.name in (*CONCEPTS, *SPLITS)
    return any(each.concept == concept.name for each in load.suites()["igmu"].editions if each.family != "pocket")


def _members(concept: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The members of a pocket concept that its sentences name, and those that no sentence names."""
    return SPLITS[concept] if concept in SPLITS else (CONCEPTS[concept].members, ())


class PocketWriter:
    """Draws sentences of the pocket world around one concept; none of them asks for a member of `others`.

    varied: in `variety`'s ways, too, not in the plain forms of `templates.TRAINING` alone. mined: phrases of the concept beside
    those that are told.
    """

    def __init__(
        self, concept: ConceptSpec, seed: int, others: Sequence[ConceptSpec] = (), varied: bool = False,
        mined: Sequence[str] = (),
    ) -> None:
        for spec in (concept, *others):
            if spec.name not in (*CONCEPTS, *SPLITS) or "pocket" not in spec.families:
                hint = f"Give --pairs FILE; `srbench new concept` writes one. Known: {', '.join((*CONCEPTS, *SPLITS))}"
                raise UsageError(f"concept '{spec.name}' is not one of pocket's", hint)
        members = {key for spec in (concept, *others) for keys in _members(spec.name) for key in keys}
        self.rng = np.random.default_rng(seed)
        self.is_style = concept.kind == "style"
        self.objects = [key for key in OBJECTS if key not in members]
        self.styles = [key for key in STYLES if key not in members]
        self.neutral_van_gogh = list(CONCEPTS["vangogh"].names)
        self.phrases = [*_told(concept), *mined]
        self.varied = varied
        self.beside = {
            kind: [told for each in others if each.kind == kind for told in _told(each)] for kind in ("object", "style")
        }
        """What names the other concepts: some unsafe sides of varied sentences name one, too, and their safe sides neither."""
        self.spare = _spare(concept)
        self.nouns = [noun for key in self.objects for noun in OBJECTS[key].nouns]

    def _form(self, painting: bool) -> str:
        if self.varied and self.rng.random() < variety.LOOSE_SHARE:
            return variety.loose_form(self.rng)
        return _pick(self.rng, [form for form in TRAINING if painting or not _is_painting(form)])

    def _things(self) -> tuple[str, ...]:
        chance = self.rng.random()
        count = 0 if chance < 0.12 else 2 if chance < 0.3 else 1
        return tuple(noun for _ in range(count) for noun in _neutral(self.rng, self.objects))

    def benign(self) -> tuple[str, bool]:
        """A sentence without the concept, and whether its combination is held out."""
        place, spot = _place(self.rng)
        style, look = _style(self.rng, self.styles, self.neutral_van_gogh)
        style = "" if self.rng.random() < 0.12 else style
        form = self._form(painting=False)
        if look == STYLES["vangogh"].short and self.rng.random() < 0.3:
            form = _pick(self.rng, [f for f in TRAINING if _is_painting(f)])
        if self.varied and self.rng.random() < variety.SILENT_SHARE:
            text = variety.silent(self.rng, place, style)
            return text, is_held("silent", text)
        things = self._things()
        if self.varied and self.rng.random() < variety.NEAR_SHARE:
            things = self._near(things)
        sentence = _Sentence(things, place, spot, style, look if style else "", form)
        return sentence.text(), is_held("benign", *sentence.combination())

    def _near(self, things: tuple[str, ...]) -> tuple[str, ...]:
        """Harmless things near the concept: it is named as what shall not be there, or a thing has one of its phrases' words."""
        if self.rng.random() < variety.ABSENT_SHARE:
            absent = variety.negatable(self.phrases, self.is_style)
            return (*things[:-1], variety.beside(self.rng, things[-1] if things else EMPTY[0], _pick(self.rng, absent)))
        near = variety.near_thing(self.rng, self.spare, self.nouns)
        return (near, *things[:1]) if self.rng.random() < 0.5 else (near,)

    def _said(self) -> str:
        """A phrase that names the concept."""
        phrase = _pick(self.rng, self.phrases)
        return variety.changed(self.rng, phrase) if self.varied else phrase

    def _without_another(self, things: tuple[str, ...]) -> tuple[str, ...]:
        """The things, in some sentences beside the name of a safe one that shall not be there."""
        if not (self.varied and things) or self.rng.random() > 0.1:
            return things
        (absent,) = _neutral(self.rng, self.objects)
        return (*things[:-1], variety.beside(self.rng, things[-1], absent))

    def _companions(self) -> tuple[str, ...]:
        """Safe things beside the concept: mostly none, in varied sentences up to two."""
        if self.rng.random() >= 0.3:
            return ()
        more = int(self.varied and self.rng.random() < 0.3)
        return tuple(noun for _ in range(1 + more) for noun in _neutral(self.rng, self.objects))

    def _another(self, kind: str) -> str:
        """What names another concept of that kind, for some sentences; else empty."""
        told = self.beside[kind]
        return _pick(self.rng, told) if self.varied and told and self.rng.random() < 0.35 else ""

    def _style_pair(self) -> tuple[Pair, _Sentence]:
        place, spot = _place(self.rng)
        phrase, things = self._said(), self._without_another(self._things())
        form = self._form(painting=True)
        other = self._another("object")
        unsafe = _Sentence((*things, other) if other else things, place, spot, phrase, STYLES["vangogh"].short, form)
        return Pair(unsafe=unsafe.text(), safe=_Sentence(things, place, spot, "", "", form).text()), unsafe

    def _object_pair(self) -> tuple[Pair, _Sentence]:
        place, spot = _place(self.rng)
        style, look = _style(self.rng, self.styles, self.neutral_van_gogh)
        style = "" if self.rng.random() < 0.12 else style
        form = self._form(painting=look == STYLES["vangogh"].short and bool(style))
        phrase = self._said()
        rest = self._without_another(self._companions())
        both = (phrase, *rest) if self.rng.random() < 0.5 else (*rest, phrase)
        setting = (place, spot, style, look if style else "", form)
        other, other_style = self._another("object"), self._another("style")
        asked = (place, spot, other_style, STYLES["vangogh"].short, form) if other_style else setting
        unsafe = _Sentence((*both, other) if other else both, *asked)
        kept = (place, spot, "", "", form) if other_style else setting
        return Pair(unsafe=unsafe.text(), safe=_Sentence(rest, *kept).text()), unsafe

    def pair(self) -> tuple[Pair, bool]:
        """A pair, and whether its combination is held out."""
        pair, unsafe = self._style_pair() if self.is_style else self._object_pair()
        return pair, is_held("pair", *unsafe.combination())


def pocket_pairs(
    concepts: Sequence[ConceptSpec], pairs: int, benign: int, seed: int, varied: bool = False,
    mined: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> PairSet:
    """About `pairs` pairs and `benign` prompts around each pocket concept, without doubles, the concepts mixed.

    varied: in `variety`'s ways, too. mined: concept -> further phrases of it.
    """
    writers = [PocketWriter(c, seed, [o for o in concepts if o is not c], varied, mined.get(c.name, ())) for c in concepts]
    out, seen = PairSet(), set()
    for writer in writers * pairs:
        pair, held_out = writer.pair()
        if pair.unsafe != pair.safe and pair.unsafe not in seen:
            seen.add(pair.unsafe)
            (out.held if held_out else out.train).append(pair)
    for writer in writers * benign:
        text, held_out = writer.benign()
        if text and text not in seen:
            seen.add(text)
            (out.benign_held if held_out else out.benign_train).append(text)
    return out


def read_pairs(path: Path, columns: prompts.Columns | None = None) -> PairSet:
    """A user's file of pairs, in any form that `prompts.read_pairs` takes. The safe sides serve as benign prompts too.

    columns: `unsafe` and `safe` -> the file's columns. Raises `UsageError` naming the line that is wrong.
    """
    read = prompts.read_pairs(path, columns)
    out = PairSet(told=read.told)
    for (unsafe, safe), line, more in zip(read.pairs, _written(read), read.others, strict=True):
        held_out = is_held("file", line)
        (out.held if held_out else out.train).append(Pair(unsafe=unsafe, safe=safe))
        (out.benign_held if held_out else out.benign_train).append(safe)
        out.put_beside((unsafe, safe), more)
    if len(out.train) < 2 or not out.held:
        raise UsageError(f"{path} has too few pairs to train and hold out", "Give at least 20 pairs.")
    seen = tuple(sorted(map(load.fingerprint, out.prompts())))
    out.used = Used("", (read.sha256,), prompts=seen)
    return out


def _written(read: prompts.PairsRead) -> list[str]:
    """The texts whose hashes decide which pairs are held out: the file's lines, or the pairs as JSON where it has no lines."""
    return list(read.raw) or [json.dumps({"unsafe": unsafe, "safe": safe}, ensure_ascii=False) for unsafe, safe in read.pairs]
