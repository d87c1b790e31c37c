"""Typed specs of everything that is data: concepts, protocols, backbones, suites, rows, baselines.

Unknown keys are errors. `engine/keys.py` decides which fields are part of a result's identity.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from srbench.catalog.wording import Wrong

Better = Literal["higher", "lower"]
UNVERIFIED = "unverified"
"""In place of a hash or a number that was never computed."""
ANY = "any"
"""Matches every family or concept."""
FAMILIES = ("pocket", "sd", "sdxl", "sd3", "flux", "pixart")
"""Families of backbones that srbench can sample with, as files name them."""


# --- values of a spec that become part of a path or a command ------------------------------------------------------------
# Specs may come from somebody else's working directory: no path built from one may leave its folder, and no command printed
# from one may do more than fetch one file.

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)
_COMMAND = re.compile(r"(srbench|python -m srbench[\w.]*) [\w ./,:=@+-]+", re.ASCII)


def _hub_id(text: str) -> str:
    if text and (not _HUB_ID.fullmatch(text) or ".." in text):
        raise ValueError("no id of the hub: expected OWNER/NAME")
    return text


def _revision(text: str | None) -> str | None:
    if text and (not _REVISION.fullmatch(text) or ".." in text):
        raise ValueError("no revision: expected a commit, branch or tag")
    return text


def _inner(text: str) -> str:
    """A path inside a folder, or nothing."""
    parts = PurePosixPath(text).parts
    if text and (text.startswith(("/", "-", "~")) or ".." in parts or "\\" in text or not text.isprintable()):
        raise ValueError("no path inside its source: write it without '..', and not as an absolute one")
    return text


def _url(text: str) -> str:
    if not text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError("no URL") from error
    last = unquote(parts.path).rsplit("/", 1)[-1]
    plain = text.isascii() and text.isprintable() and " " not in text
    if parts.scheme != "https" or not parts.hostname or parts.username or not plain:
        raise ValueError("no URL that is fetched: expected https://HOST/PATH")
    if last in (".", "..") or not last.isprintable():
        raise ValueError("no URL of a file: its path ends in no name")
    return text


def _made_by(text: str) -> str:
    if text and not _COMMAND.fullmatch(text):
        raise ValueError("no command of srbench: expected `srbench ...`, without quotes and signs of the shell")
    return text


def _pattern(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise Wrong(f"'{text}' is no regular expression ({error})", "Mend it, in single quotes.") from error


def _name(text: str) -> str:
    """A name that is part of paths."""
    if not text or "/" in text or text in (".", ".."):
        raise ValueError("no name: expected letters, digits and - _ .")
    return text


HubId = Annotated[str, AfterValidator(_hub_id)]
Revision = Annotated[str | None, AfterValidator(_revision)]
InnerPath = Annotated[str, AfterValidator(_inner)]
Url = Annotated[str, AfterValidator(_url)]
Command = Annotated[str, AfterValidator(_made_by)]
PathName = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, Field(min_length=1)]
# In a file a number or a truth value is one: 'no' and "0.5" are texts, and taking them for what they look like is a guess.
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
"""Also a whole one."""


class Spec(BaseModel):
    """Base of all specs: frozen, strict about unknown keys; every number is finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


ARTICLES = ("a ", "an ", "the ")


def bare(noun: str) -> str:
    """`noun` without its article."""
    return next((noun.removeprefix(each) for each in ARTICLES if noun.startswith(each)), noun)


def holds(whole: str, part: str) -> bool:
    """Whether `part`, or its plural, stands in `whole` as a word."""
    return bool(re.search(rf"\b{re.escape(bare(part.lower()))}(e?s)?\b", whole.lower()))


def repeated(texts: Sequence[str]) -> int | None:
    """Index of the first text that is an earlier one again, with or without its article."""
    plain = [bare(text.lower()) for text in texts]
    return next((number for number, text in enumerate(plain) if text in plain[:number]), None)


class ConceptWords(Spec):
    """The words of a concept for one backbone family."""

    names: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Phrases that cover the whole concept, article included; redirectors may read them."""
    words: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Every trained word or phrase that names the concept or one of its members, without article."""
    descriptions: tuple[Text, ...] = ()
    """What it looks like, without its name, as it stands in a prompt. With names and words it is all that methods are told."""
    reserved: tuple[Text, ...] = ()
    """Synonyms that the backbone knows and no method is ever told."""
    counterparts: dict[str, Text] = Field(default_factory=dict)
    """Word or description of the concept, or a name that holds no word -> a safe thing in its place, without article; of every
    word and description, or left out."""
    neighbours: tuple[Text, ...] = ()
    """Similar things that must be kept; methods that take a preserve set may read them."""
    protocol: str
    """The judge: name of a protocol."""

    @model_validator(mode="after")
    def _each_once(self) -> ConceptWords:
        for key, before, texts in (
            ("names", (), self.names), ("words", (), self.words), ("reserved", self.words, self.reserved),
            ("descriptions", self.words, self.descriptions), ("neighbours", (), self.neighbours),
        ):  # fmt: skip
            again = repeated((*before, *texts))
            if again is not None:
                number = again - len(before)
                raise Wrong(f"'{texts[number]}' is there twice", "Keep one of the two.", key, number)
        return self

    @model_validator(mode="after")
    def _stays_apart(self) -> ConceptWords:
        """What stays does not name the concept. The other way round it may: a nude person is one."""
        staying: list[tuple[str, str | int, str]] = [("neighbours", number, text) for number, text in enumerate(self.neighbours)]
        staying += [("counterparts", word, text) for word, text in self.counterparts.items()]
        for key, place, text in staying:
            for word in (*self.words, *self.names, *self.reserved):
                if holds(text, word):
                    raise Wrong(f"'{text}' is to stay, and '{word}' in it is to go", "Choose another word.", key, place)
        return self


class ConceptSpec(Spec):
    """A concept to unlearn."""

    name: PathName
    title: str
    kind: Literal["object", "style", "content"]
    sensitive: Flag
    families: Annotated[dict[str, ConceptWords], Field(min_length=1)]

    @property
    def parts(self) -> tuple[ConceptSpec, ...]:
        """The concepts that a joint one is made of; none of any other."""
        return ()


class ProtocolSpec(Spec):
    """A judge: a named rule (scorer, classes, threshold) over a scorer's raw numbers."""

    name: str
    title: str
    scorer: str = ""
    settings: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Scorer options that belong to the rule, such as a zero-shot scorer's labels; `package:` begins a path inside srbench."""
    field: str = ""
    """The raw field that is read: `objects`, `style`, `boxes`."""
    classes: tuple[Text, ...] = ()
    """The classes that count, of a field that holds a number for each; empty where the field is one number."""
    threshold: Number = 1.0
    """Present if the field's number, or that of one of the classes (a probability, a box's score), exceeds this."""
    rule: Literal["above", "at-least"] = "above"
    """Whether the threshold itself counts."""
    top1: Flag = False
    """Also present if one of the classes is the arg-max of the field."""
    top_k: Whole = Field(0, ge=0)
    """Also present if one of the classes is among the k highest of the field."""
    unit: Literal["image", "detections"] = "image"
    """`detections`: boxes are counted in addition to the share of images."""
    any_of: tuple[str, ...] = ()
    """Names of other protocols: the concept is present where any of them finds it. Such a union has no scorer of its own."""
    cannot: str = ""
    """Why a published rule cannot be applied here; such a protocol is listed, but refused when chosen."""
    note: str = ""
    """A caveat for readers, printed below every table of this judge."""
    source: str
    """Where classes and threshold come from."""

    @model_validator(mode="after")
    def _one_kind(self) -> ProtocolSpec:
        reads_scorer = bool(self.scorer and self.field)
        if reads_scorer + bool(self.any_of) + bool(self.cannot) != 1:
            raise Wrong("give a scorer with a field of it, or any_of, or cannot: one of the three", "See docs/extending.md.")
        if reads_scorer and not self.classes and (self.field == "boxes" or self.top1 or self.top_k):
            raise Wrong("name the classes that count", "Add a line: classes: [one, another]")
        if self.field == "boxes" and (self.top1 or self.top_k):
            raise Wrong("boxes have no highest class", "Leave it out, and write a threshold.", "top1" if self.top1 else "top_k")
        if self.settings and not reads_scorer:
            raise Wrong("they are a scorer's, and there is none", "Add scorer and field, or leave settings out.", "settings")
        if reads_scorer and not (self.top1 or self.top_k) and "threshold" not in self.model_fields_set:
            raise Wrong("a threshold is missing", "Add a line: threshold: 0.5")
        if self.unit == "detections" and self.field != "boxes":
            raise Wrong("detections are boxes, and the field is another", "Write field: boxes, or leave unit out.", "unit")
        return self


class Recipe(Spec):
    """Sampling settings that all methods share on one backbone family."""

    steps: Whole = Field(gt=0)
    guidance: Number
    true_guidance: Number = 1.0
    """Classifier-free guidance where `guidance` is an input of the denoiser (FLUX); 1 turns it off."""
    width: Whole = Field(gt=0)
    height: Whole = Field(gt=0)
    eta: Number = 0.0
    guidance_rescale: Number = 0.0
    clip_skip: Whole | None = None


class BackboneSpec(Spec):
    """The frozen text-to-image model."""

    name: str
    title: str
    family: str
    source: str
    """`package:<folder in srbench>`, a hub id, or a path."""
    revision: str | None = None
    licence: str
    recipe: Recipe
    concepts: tuple[str, ...]
    """Concepts that this backbone knows; the first is the default."""
    redirectors: str | None = None
    """`package:<folder>` with a subfolder of shipped redirectors for each concept."""
    scenes: str | None = None
    """`package:<folder>` with a subfolder of images for each concept that show it."""
    scorers: tuple[str, str]
    """The scorer that classifies its images (objects, style, background), and the one that compares them with text; either may
    be empty."""

    @property
    def describing(self) -> tuple[str, ...]:
        """The names in `scorers` that are not empty."""
        return tuple(name for name in self.scorers if name)


class SourceFile(Spec):
    """A file of prompts that srbench does not ship: its source and its columns."""

    hub: HubId = ""
    """Dataset of the Hugging Face hub."""
    revision: Revision = None
    url: Url = ""
    """Of the file itself."""
    file: str = ""
    """Path inside the dataset or the download folder; empty for a dataset's only data file. Without `hub` and `url` a path on
    this machine: the user's own file."""
    sha256: str = UNVERIFIED
    kind: Literal["forget", "retain"] = "forget"
    category: str = ""
    """Of all its rows; empty where a column holds it."""
    task: str = ""
    """Key in a JSON file of the form {task: {category: [prompts]}}."""
    made_by: Command = ""
    """The command that makes the file, where it is not published."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Row field -> its column, where `prompts.COLUMNS` does not list that name."""

    @model_validator(mode="after")
    def _one_place(self) -> SourceFile:
        if self.hub and self.url:
            raise ValueError("give hub or url, not both")
        if not self.hub and not self.file:
            raise ValueError("a file is missing")
        if self.hub or self.url:  # else it is the user's own, with any path
            _inner(self.file)
        return self


class Edition(Spec):
    """A suite's prompts for one backbone family and concept."""

    family: str
    """`any` for every family."""
    concept: str
    """`any` for every concept."""
    file: InnerPath = ""
    """Path inside the suite's data folder."""
    sha256: str = UNVERIFIED
    """Of the file; `unverified` where it was never computed."""
    files: tuple[SourceFile, ...] = ()
    """In place of `file`: prompts that srbench does not ship."""
    rows: Annotated[Whole, Field(gt=0)] | Literal["unverified"]
    """Of all files together."""
    part: Literal["test", "dev"] = "test"
    paired: Flag = False
    """The n-th retain row of a category is the reference of its n-th forget row."""
    misfits: tuple[str, ...] = ()
    """Ids of forget rows whose retain row is not the same prompt without the concept; they get no reference."""
    hidden: Flag = False
    """The prompts are adversarial and do not show what they ask for. A sensitive run needs every row's `target`."""
    protocol: str = ""
    """The judge, where it differs from the concept's."""
    licence: str = ""
    """This and the following override the suite's own where they are set."""
    gated: Flag = False
    sensitive: Flag = False
    metrics: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _file_or_files(self) -> Edition:
        if bool(self.file) == bool(self.files):
            raise Wrong("give file, or files", "file is a path below suites/, files a list of tables of prompts.")
        return self


class SuiteSpec(Spec):
    """A set of prompts with its judges and metrics."""

    name: PathName
    title: str
    source: str
    licence: str
    gated: Flag = False
    sensitive: Flag = False
    attack: Flag = False
    """Rows are adversarial prompts: `asr` instead of `fsr`."""
    metrics: tuple[str, ...]
    editions: Annotated[tuple[Edition, ...], Field(min_length=1)]

    def of(self, edition: Edition) -> SuiteSpec:
        """The suite with this edition's overrides."""
        texts = {"licence": edition.licence or self.licence, "metrics": edition.metrics or self.metrics}
        flags = {"gated": self.gated or edition.gated, "sensitive": self.sensitive or edition.sensitive}
        return self.model_copy(update={**texts, **flags})


class Row(Spec):
    """One prompt of a suite. Tables of texts are read as rows, too: a number may be written as text."""

    id: str
    kind: Literal["forget", "retain"]
    category: str
    prompt: str
    seed: int | None = Field(None, ge=0, lt=2**64)
    guidance: float | None = Field(None, allow_inf_nan=False)
    width: int | None = Field(None, gt=0)
    height: int | None = Field(None, gt=0)
    negative_prompt: str = ""
    reference: str | None = None
    """The same prompt with the concept's words removed."""
    target: str | None = None
    """The prompt that an adversarial prompt replaces."""
    objects: tuple[str, ...] = ()
    """Objects named in the prompt, by the judge's class names."""
    companions: tuple[str, ...] = ()
    """Named objects that do not belong to the concept."""
    style: str | None = None
    background: str | None = None
    similarity: float | None = None
    """Of adversarial rows: cosine similarity of prompt and target in the attacked text encoder."""
    start: str = ""
    """What the image begins from in place of noise: `image:0.6`, `half:8`, `inverted`, `inpaint` (`engine/starts.py`)."""
    pictured: str | None = None
    """With a `start`: the prompt of the picture that it begins from; None: the row's own."""
    picture: str | None = None
    """With a `start`: a file of the user's in place of a picture that the untouched backbone draws."""
    phrase: str = ""
    """The words that name the concept in this prompt; rows of one phrase are no independent evidence on other phrases."""


class LayoutSpec(Spec):
    """How a tool names the images that it writes."""

    name: str
    title: str
    patterns: tuple[str, ...]
    """Regular expressions of an image's path below its method's folder, with the groups `case` (which prompt) and, where the
    name has them, `index` (which image of the prompt) and `category`."""
    numbered: Literal["all", "category"] = "all"
    """Whether `case` numbers all prompts, or those of the image's category."""
    named: Literal["case", "prompt"] = "case"
    """Whether `case` is a row's id or number, or its prompt; then `index` is the seed."""
    prompts: str = ""
    """Name of a CSV file with the prompts, which the method's folder may contain."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Regular expression of a path -> why such a file does not count as an image."""
    source: str
    """Repository and file that the names are taken from."""

    @field_validator("patterns")
    @classmethod
    def _has_case(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if not patterns or any("(?P<case>" not in pattern for pattern in patterns):
            raise Wrong("each pattern needs the group 'case'", "Example: '(?P<case>[0-9]+)[.]png'")
        for pattern in patterns:
            _pattern(pattern)
        return patterns

    @field_validator("left_out")
    @classmethod
    def _patterns(cls, left_out: dict[str, str]) -> dict[str, str]:
        for pattern in left_out:
            _pattern(pattern)
        return left_out


class RowFile(Spec):
    """A shipped edition: how it was made, and its rows."""

    meta: dict[str, str | int | float | bool | None]
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _unique(self) -> RowFile:
        ids = [row.id for row in self.rows]
        doubled = {i for i in ids if ids.count(i) > 1} if len(set(ids)) < len(ids) else set()
        if doubled:
            raise ValueError(f"row ids appear twice: {', '.join(sorted(doubled)[:3])}")
        return self


class BaselineSpec(Spec):
    """A published or local checkpoint whose weights replace a backbone's."""

    name: PathName
    title: str
    kind: Literal["pipeline", "unet", "text_encoder", "lora"]
    family: str
    concept: str
    source: str
    """A hub id, a URL of one file, or a path."""
    revision: Revision = None
    subfolder: InnerPath = ""
    """Folder inside the source that holds the checkpoint; empty for the source itself."""
    file: InnerPath = ""
    """File inside the source (and `subfolder`); empty where the checkpoint is a folder, or the source is the file."""
    sha256: str
    """Of the file, or over the folder; `unverified` where it was never computed."""
    licence: str
    partial: Flag = False
    """Whether the file may lack tensors of the U-Net. Every name in it must still belong to the backbone."""
    hyperparameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    published: dict[str, Number] = Field(default_factory=dict)
    deviations: str = ""

    @field_validator("source")
    @classmethod
    def _fetchable(cls, source: str) -> str:
        if "://" in source:
            _url(source)
        if not source or not source.isprintable() or source.startswith("-"):
            raise ValueError("no source: expected a hub id, a URL or a path")
        return source
