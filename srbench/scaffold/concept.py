"""A concept of one's own: its words, its judge, prompts to test methods on, and pairs to train a redirector with."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from srbench.catalog import load, screen
from srbench.catalog.specs import ANY, bare, holds, repeated
from srbench.errors import UsageError, did_you_mean
from srbench.files import printable
from srbench.pocket import world as pocket
from srbench.scaffold import judge
from srbench.scaffold.judge import Judged, JudgeRequest
from srbench.scaffold.sentences import DEV, PAIRS, PREPOSITIONS, TEST, Subject, Thing, World, Writer, article, world_of
from srbench.scaffold.write import check_name, refuse_taken

KINDS = ("object", "style", "content")
RESERVED = (ANY, "all", "none", "auto")
"""Words that mean something else where a concept's name is expected."""
FEWEST_NEIGHBOURS = 2
POCKET = "pocket"
METRICS = ("fsr", "content_kept", "csdr", "csdr_floor", "retain_accuracy", "style_kept", "over_refusal", "added_ms")
DESCRIBED = ("content_kept", "retain_accuracy", "style_kept")
"""Metrics that need a judge of everything in a picture; only pocket has one."""


@dataclass(frozen=True)
class ConceptRequest:
    """A concept as the user describes it."""

    name: str
    words: tuple[str, ...]
    """Every way to say it, without article."""
    neighbours: tuple[str, ...]
    """Things near it that must stay."""
    backbones: tuple[str, ...] = (POCKET,)
    """Names of backbones, or of their families."""
    kind: str = "object"
    anchor: str | None = None
    """What takes its place; None: the first neighbour."""
    unseen: tuple[str, ...] = ()
    """Ways to say it that no method is told."""
    title: str | None = None
    sensitive: bool = False
    judge: JudgeRequest = field(default_factory=JudgeRequest)

    @property
    def families(self) -> tuple[str, ...]:
        """The backbones' families, each once. Raises `UsageError` for an unknown name."""
        known = {spec.name: spec.family for spec in load.backbones().values()}
        known |= {family: family for family in known.values()}
        for name in self.backbones:
            if name not in known:
                raise UsageError(f"unknown backbone '{name}'", did_you_mean(name, known))
        return tuple(dict.fromkeys(known[name] for name in self.backbones))

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that may be encoded."""
        return (self.name, *self.words, *self.neighbours, *self.unseen, *filter(None, (self.anchor, self.title)))


# --- what is refused ----------------------------------------------------------------------------------------------------------


def check(request: ConceptRequest) -> None:
    """Raises `UsageError`, in one line, for what cannot become a concept."""
    for what, taken in (("concept", load.concepts()), ("suite", load.suites())):
        check_name(what, request.name, taken)
    for judge_name in (_judge_name(request, "photos"), _judge_name(request, POCKET)):
        refuse_taken("protocol", judge_name, load.protocols())
    if request.name in RESERVED:
        raise UsageError(f"'{request.name}' cannot be the name of a concept: it has a meaning of its own", "Choose another name.")
    if request.kind not in KINDS:
        raise UsageError(f"unknown --kind '{request.kind}'", did_you_mean(request.kind, KINDS))
    _check_texts(request)
    _check_overlap(request)
    _refuse_minors(request)
    judge.check(request.judge, request.families)
    if POCKET in request.families:
        _check_pocket(request)


def _check_texts(request: ConceptRequest) -> None:
    if not request.words:
        raise UsageError("a concept needs words", 'Example: --words "sailboat,sailing boat"')
    if len(request.neighbours) < FEWEST_NEIGHBOURS:
        hint = 'What must stay is measured on them. Example: --neighbours "car,tent,umbrella"'
        raise UsageError(f"a concept needs {FEWEST_NEIGHBOURS} neighbours at least, and has {len(request.neighbours)}", hint)
    for text in request.texts:
        if not any(map(str.isalpha, text)) or not text.isprintable() or set(text) & set("{};"):
            raise UsageError(f"'{printable(text)}' is no word", "Write words and phrases of letters, with commas between them.")
    told = {"--words": request.words, "--unseen": (*request.words, *request.unseen), "--neighbours": request.neighbours}
    for option, texts in told.items():
        again = repeated(texts)
        if again is not None:
            raise UsageError(f"{option}: '{texts[again]}' is there twice", "Keep one of the two.")
    for word in request.words:
        if bare(word) != word:
            raise UsageError(f"--words '{word}': words go without article", f"Write '{bare(word)}'.")


def _check_overlap(request: ConceptRequest) -> None:
    """No word may stand in a neighbour or in the anchor: a prompt of the one would name the other."""
    staying = (*request.neighbours, *((request.anchor,) if request.anchor else ()))
    for word in (*request.words, *request.unseen):
        for other in staying:
            if holds(word, other) or holds(other, word):
                hint = "A prompt of the one would name the other. Choose another word for one of them."
                raise UsageError(f"'{word}' is to go, and '{other}' is to stay: they overlap", hint)


def _refuse_minors(request: ConceptRequest) -> None:
    """Texts that name minors: refused in a sensitive concept, and on every real backbone (design section 8)."""
    if not is_sensitive(request) and set(request.families) == {POCKET}:
        return  # pocket draws baby penguins
    for text in request.texts:
        if screen.names_minor(text):
            raise UsageError(f"'{text}' names a minor", "srbench makes no concept of it, and no prompts.")


def is_sensitive(request: ConceptRequest) -> bool:
    """Whether the user says so, a text is sexual, or one stands among the words of a sensitive concept."""
    sensitive = [each for each in load.concepts().values() if screen.sensitive_concept(each)]
    barred = {bare(w) for each in sensitive for f in each.families.values() for w in (each.name, *f.names, *f.words)}
    return request.sensitive or any(
        screen.is_sexual(text) or any(holds(screen.plain(text), word) for word in barred) for text in request.texts
    )


def _check_pocket(request: ConceptRequest) -> None:
    if request.kind == "content":
        raise UsageError("pocket draws objects and styles", "Choose --kind object or style, or another --backbone.")
    things = _nouns(request.kind)
    drawn = [word for word in (*request.words, *request.unseen) if _key(word, request.kind)]
    if not drawn and request.judge.scorer is None:
        hint = f"It draws: {', '.join(things)}. For another backbone: --backbone sd14"
        raise UsageError(f"pocket draws no {' and no '.join(request.words)}", hint)
    if not any(_key(word, request.kind) for word in request.neighbours):
        neighbours = ", ".join(request.neighbours)
        raise UsageError(f"pocket draws none of the neighbours ({neighbours})", f"It draws: {', '.join(things)}")


# --- pocket's words -----------------------------------------------------------------------------------------------------------


def _nouns(kind: str) -> dict[str, str]:
    """What pocket's prompts call its objects or styles, without article -> the judge's class."""
    if kind == "style":
        return {phrase: key for key, style in pocket.STYLES.items() for phrase in (*style.phrases, style.short)}
    return {bare(text): key for key, item in pocket.OBJECTS.items() for text in (*item.nouns, item.description)}


def _key(word: str, kind: str) -> str:
    """The pocket judge's class of a word; empty where it has none."""
    return _nouns(kind).get(bare(word.lower()), "")


def _keys(request: ConceptRequest) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (_key(word, request.kind) for word in request.words))))


def unseen_of(request: ConceptRequest, family: str) -> tuple[str, ...]:
    """Phrases that no method is told: the user's, else on pocket what its objects look like."""
    if request.unseen or family != POCKET or request.kind == "style":
        return tuple(_phrase(text, request.kind, family) for text in request.unseen)
    told = {bare(word.lower()) for word in request.words}
    return tuple(text for text in (pocket.OBJECTS[key].description for key in _keys(request)) if bare(text) not in told)


def _phrase(word: str, kind: str, family: str) -> str:
    """A word as a prompt says it."""
    if kind == "object":
        return article(word)
    if kind == "style" and family != POCKET and not word.startswith((*PREPOSITIONS, "a ", "an ")):
        return f"in the style of {word}"
    return word


def _things(words: Iterable[str], request: ConceptRequest, family: str) -> tuple[Thing, ...]:
    def key(word: str) -> str:
        return _key(word, request.kind) if family == POCKET else ""

    return tuple(Thing(_phrase(word, request.kind, family), bare(word), key(word)) for word in words)


def subject_of(request: ConceptRequest, family: str) -> Subject:
    """The concept as sentences speak of it; on pocket without words and neighbours that it cannot draw."""
    drawn = [word for word in request.words if family != POCKET or _key(word, request.kind)]
    neighbours = [word for word in request.neighbours if family != POCKET or _key(word, request.kind)]
    return Subject(
        request.name, request.kind == "style", _things(drawn or request.words, request, family),
        _things(unseen_of(request, family), request, family), _things(neighbours, request, family), family != POCKET,
    )  # fmt: skip


# --- the files ----------------------------------------------------------------------------------------------------------------


def files(request: ConceptRequest) -> dict[str, str]:
    """Path below the working directory -> text. A file comes after those that it names. Raises `UsageError` as `check` does."""
    check(request)
    worlds = {world_of(family).name: family for family in reversed(request.families)}
    contents = {
        f"protocols/{_judge_name(request, home)}.yaml": _protocol(request, home, family) for home, family in worlds.items()
    }
    editions: dict[str, list[dict[str, Any]]] = {}
    for home, family in worlds.items():
        if writes_prompts(request, family):
            texts, editions[home] = _prompts(request, world_of(family), family)
            contents |= texts
    if editions:
        contents[f"suites/{request.name}.yaml"] = _suite(request, editions)
    return {**contents, f"concepts/{request.name}.yaml": _concept(request)}


def writes_prompts(request: ConceptRequest, family: str) -> bool:
    """srbench writes no prompts of a sensitive concept for a real backbone, as `srbench attack` does not."""
    return family == POCKET or not is_sensitive(request)


def remarks(request: ConceptRequest) -> list[str]:
    """What the user should know of the files."""
    lines = []
    if is_sensitive(request):
        lines.append(f"{request.name} is sensitive: its images are dropped once they are scored")
    if not all(writes_prompts(request, family) for family in request.families):
        lines.append("no prompts and pairs are written: srbench writes none of a sensitive concept for a real backbone")
    if POCKET in request.families:
        lacking = [word for word in (*request.words, *request.neighbours) if not _key(word, request.kind)]
        lines += [f"pocket cannot draw {', '.join(lacking)}: no prompt names it"] if lacking else []
    if not all(unseen_of(request, family) for family in request.families):
        lines.append("no unseen prompts: --unseen gives ways to say it that no method is told")
    return lines


def _judge_name(request: ConceptRequest, home: str) -> str:
    """One judge for all real backbones, and one for pocket."""
    several = POCKET in request.families and len(request.families) > 1
    return f"{request.name}-seen-{POCKET}" if several and home == POCKET else f"{request.name}-seen"


def _stem(request: ConceptRequest, home: str) -> str:
    several = POCKET in request.families and len(request.families) > 1
    return f"{request.name}-{home}" if several else request.name


def _yaml(data: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def _protocol(request: ConceptRequest, home: str, family: str) -> str:
    neighbours = [bare(word) for word in request.neighbours if family != POCKET or _key(word, request.kind)]
    judged = Judged(
        _judge_name(request, home), request.title or request.name, request.kind, home, request.words, tuple(neighbours),
        _keys(request),
    )  # fmt: skip
    return _yaml(judge.protocol(request.judge, judged))


def _concept(request: ConceptRequest) -> str:
    anchor = request.anchor or request.neighbours[0]
    families = {}
    for family in request.families:
        families[family] = {
            "names": [_phrase(request.words[0], request.kind, family)], "words": list(request.words),
            "reserved": list(unseen_of(request, family)), "counterparts": dict.fromkeys(request.words, bare(anchor)),
            "neighbours": [bare(word) for word in request.neighbours], "protocol": _judge_name(request, world_of(family).name),
        }  # fmt: skip
    return _yaml({
        "name": request.name, "title": request.title or request.name, "kind": request.kind, "sensitive": is_sensitive(request),
        "families": families,
    })  # fmt: skip


def _prompts(request: ConceptRequest, home: World, family: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Files of prompts and pairs for one world, and the suite's editions of them."""
    writer = Writer(home, subject_of(request, family))
    stem, files, editions = _stem(request, home.name), {}, []
    for part, counts in (("test", TEST), ("dev", DEV)):
        rows = writer.rows(counts, stem if part == "test" else f"{stem}-{part}")
        name = f"{request.name}/{home.name}.json" if part == "test" else f"{request.name}/{home.name}-{part}.json"
        row_data = [row.model_dump(mode="json", exclude_defaults=True) for row in rows]
        meta = {"made_by": "srbench new concept", "concept": request.name, "part": part, "forms": " | ".join(writer.forms),
                "forms_of_pairs": " | ".join(writer.training)}  # fmt: skip
        files[f"suites/{name}"] = _row_file(meta, row_data)
        metrics = [metric for metric in METRICS if family == POCKET or metric not in DESCRIBED]
        metrics[1:1] = ["fsr_unseen"] if any(row.category == "unseen" for row in rows) else []
        families = [each for each in request.families if (each == POCKET) == (family == POCKET)]
        editions += [
            {"family": each, "concept": request.name, "file": name, "rows": len(rows), "part": part, "metrics": metrics}
            for each in families
        ]  # fmt: skip
    files[f"pairs/{stem}.csv"] = _table(writer.pairs(PAIRS))
    return files, editions


def _row_file(meta: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """A row a line, so that a person can read and change them."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f'{{"meta": {json.dumps(meta, ensure_ascii=False)},\n"rows": [\n{lines}\n]}}\n'


def _table(pairs: Iterable[tuple[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("unsafe", "safe"))
    writer.writerows(pairs)
    return out.getvalue()


def _suite(request: ConceptRequest, editions: Mapping[str, list[dict[str, Any]]]) -> str:
    every = [edition for each in editions.values() for edition in each]
    metrics = [metric for metric in ("fsr", "fsr_unseen", *METRICS[1:]) if any(metric in each["metrics"] for each in every)]
    return _yaml({
        "name": request.name, "title": f"{request.title or request.name}: prompts with it and without it",
        "source": "srbench new concept", "licence": "the user's own", "sensitive": is_sensitive(request), "metrics": metrics,
        "editions": every,
    })  # fmt: skip


# --- what comes next ----------------------------------------------------------------------------------------------------------


def next_commands(request: ConceptRequest) -> list[str]:
    """Commands to go on with, for the first backbone."""
    family, known = request.families[0], load.backbones()
    backbone = request.backbones[0] if request.backbones[0] in known else _of_family(family)
    on = "" if backbone == POCKET else f" --backbone {backbone}"
    prompts = f"--suite {request.name}" if writes_prompts(request, family) else "--prompts FILE"
    run = f"srbench run{on} --concept {request.name} {prompts} --method none,negative-prompt,uce,esd-x --limit 5"
    if not writes_prompts(request, family):
        return [run]
    pairs = f"pairs/{_stem(request, world_of(family).name)}.csv"
    return [run, f"srbench train saferedir{on} --concept {request.name} --pairs {pairs}"]


def _of_family(family: str) -> str:
    """A backbone of the family: one that is named after it, where there is one."""
    names = [name for name, spec in load.backbones().items() if spec.family == family]
    return next((name for name in names if name.startswith(family)), names[0])
