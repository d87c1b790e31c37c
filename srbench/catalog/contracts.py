"""Schemas of plug-in metadata, checked before a plug-in's module is imported; errors name file and key."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from srbench.catalog.specs import FAMILIES, Flag, Row, Text, Whole
from srbench.catalog.wording import Wrong, explained, found
from srbench.errors import UsageError, did_you_mean
from srbench.files import printable

TAKEN = frozenset({
    "added_ms", "asr", "asr_if_drawn", "asr_injection", "asr_poisoning", "asr_rewording", "asr_synonym", "asr_typos",
    "content_kept", "csdr", "csdr_floor", "detections", "far_kept", "fsr", "fsr_if_drawn", "fsr_unseen", "harm", "near_kept",
    "over_refusal", "pair_kept", "post", "pre", "retain_accuracy", "style_kept",
})
"""Names of srbench's own metrics, which a scorer's column may not have."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]{,63}")


def _name(text: str) -> str:
    """Raises `Wrong` for a text that no command line can have as a name."""
    if not _NAME.fullmatch(text):
        raise Wrong(f"{found(text)} is no name", "Use letters, digits, `_`, `+` and `-`, 64 at most; `+` and `-` not first.")
    return text


Name = Annotated[str, AfterValidator(_name)]
"""A name that fits on a command line: `--method a,b`, `--set NAME.OPTION=VALUE`."""
Version = Annotated[Whole, Field(ge=1)]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Raises `Wrong` for a number that is not finite: it could not be part of a key."""
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise Wrong("expected a finite number", "", name)
    return values


Values = Annotated[dict[str, Any], AfterValidator(_plain)]
"""Option values by name."""
GUIDE = "See docs/extending.md."


def _family(name: str) -> str:
    """Raises `Wrong` for a family that no backbone has."""
    if name not in FAMILIES:
        raise Wrong(f"no backbone is of a family {found(name)}", did_you_mean(name, FAMILIES))
    return name


Family = Annotated[str, AfterValidator(_family)]
Families = list[Annotated[str, AfterValidator(lambda name: name if name == "*" else _family(name))]]
"""`*` is all of them."""


class Meta(BaseModel):
    """Metadata of every plug-in. Unknown keys are refused, since they are probably misspelled."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    version: Version
    title: Text


class Base(BaseModel):
    """The checkpoint that a weight method starts from."""

    model_config = ConfigDict(extra="forbid")

    preset: Name
    options: Values


class MethodMeta(Meta):
    """`METHOD`."""

    kind: Literal["inference", "weight"]
    paper: str = ""
    equation: list[Text] = Field(default_factory=list)
    """What the method computes, a line each, in its module's own notation. For `srbench show method` and the reference alone: it
    is in no key and not in the code's hash."""
    families: Families = Field(default=["*"], min_length=1)
    presets: dict[Name, Values] = Field(default_factory=dict)
    """Name on the command line -> option values; where none is given, the method's own name with its defaults."""
    decides: Flag = False
    """Whether `trace` says for each image whether the method acted (`redirected_steps`)."""
    reads_concept: Flag = True
    """Whether the method uses the concept's words; they are then part of the image key."""
    prepare: Literal["make"] | None = None
    fitted: dict[Family, dict[str, dict[str, Values]]] = Field(default_factory=dict)
    """Backbone family -> preset -> kind of concept -> option values."""
    published: list[Name] = Field(default_factory=list)
    """Presets that have their published constants on every backbone: nothing of them is fitted."""
    unfitted: list[Name] = Field(default_factory=list)
    """Presets whose constants on a backbone of another size are scaled from the published ones, and were fitted to no rows."""
    preset_families: dict[Name, Families] = Field(default_factory=dict)
    base: Base | None = None
    judged: Flag = False
    """Of a weight method: whether it reads the concept's judge where its option `judged` is on; the judge is then part of its
    checkpoints' key."""

    @model_validator(mode="after")
    def _check_presets(self) -> MethodMeta:
        presets = self.presets or {self.name: {}}
        named: list[tuple[tuple[str, ...], str]] = [(("preset_families",), each) for each in self.preset_families]
        named += [(("fitted", family), each) for family, values in self.fitted.items() for each in values]
        named += [(("published",), each) for each in self.published]
        named += [(("unfitted",), each) for each in self.unfitted]
        for place, preset in named:
            if preset not in presets:
                raise Wrong(f"{found(preset)} is not one of its presets", did_you_mean(preset, presets), *place)
        return self


class Column(BaseModel):
    """A metric of a scorer's own."""

    model_config = ConfigDict(extra="forbid")

    field: Text
    better: Literal["higher", "lower"]


class ScorerMeta(Meta):
    """`SCORER`."""

    kind: Literal["image", "pair", "set"] = "image"
    reads: list[str] = Field(default_factory=list)
    """Fields of a row."""
    fields: list[Text] = Field(min_length=1)
    probabilities: list[Text] = Field(default_factory=list)
    """Those of `fields` whose numbers, of a class or a box, lie between 0 and 1."""
    families: Families = Field(default=["*"])
    metrics: dict[Name, Column] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_names(self) -> ScorerMeta:
        for name in self.metrics:
            if name in TAKEN:
                raise Wrong(f"'{name}' is a metric of srbench's own", "Choose another name.", "metrics")
        for number, name in enumerate(self.reads):
            if name not in Row.model_fields:
                raise Wrong(f"a row has no field {found(name)}", did_you_mean(name, Row.model_fields), "reads", number)
        fields: list[tuple[tuple[str | int, ...], str]] = [
            (("probabilities", number), field) for number, field in enumerate(self.probabilities)
        ]
        fields += [(("metrics", name, "field"), each.field) for name, each in self.metrics.items() if self.kind != "set"]
        for place, field in fields:
            if field not in self.fields:
                raise Wrong(f"{found(field)} is not one of its fields", did_you_mean(field, self.fields), *place)
        return self


class AttackMeta(Meta):
    """`ATTACK`."""

    paper: str = ""
    needs: Literal["text_encoder", "defended pipeline"]
    output: Literal["prompt", "embedding"]
    objective: Text
    better: Literal["higher", "lower"]
    gradient: list[str] = Field(default_factory=list)
    budgets: dict[str, Values] = Field(default_factory=dict)
    embedding: str = ""
    reads_pairs: Flag = False


DEFAULTS = ("kind", "paper", "families", "decides", "reads_concept", "reads")
"""Optional keys whose default is filled in."""
CONTRACTS: dict[str, type[Meta]] = {"methods": MethodMeta, "scorers": ScorerMeta, "attacks": AttackMeta}


def check(kind: str, meta: Any, where: str) -> dict[str, Any]:
    """The metadata with defaults filled in. Raises `UsageError` naming the file and the first wrong key.

    kind: `methods`, `scorers` or `attacks`. where: variable and file, for messages.
    """
    model = CONTRACTS[kind]
    if not isinstance(meta, dict):
        raise UsageError(f"{where}: a {type(meta).__name__}, not a dict", GUIDE)
    try:
        parsed = model.model_validate(meta)
    except ValidationError as error:
        place, problem, hint = explained(error, meta, model)
        key = printable(".".join(map(str, place)))
        raise UsageError(f"{where}: key '{key}': {problem}", hint or GUIDE) from error
    defaults = {name: getattr(parsed, name) for name in DEFAULTS if name in model.model_fields}
    presets: dict[str, Any] = {"presets": {meta["name"]: {}}} if kind == "methods" and not meta.get("presets") else {}
    return {**defaults, **presets, **meta}
