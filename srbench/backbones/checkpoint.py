"""Checkpoints: weights loaded into a backbone for a while, and the passport that describes them.

A local checkpoint, written by `srbench erase`, is a folder with one safetensors file per pipeline component, under the names
of its state dict, and a card that is written last: a folder without a card is not a checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srbench.backbones import weights
from srbench.errors import UsageError
from srbench.files import file_sha, kind_of_path, read_json
from srbench.hashing import digest
from srbench.rules import AMOUNT, HASH, TABLE, TEXT, Misfit, Rule, check, list_of

CARD = "card.json"
MAX_CARD = 2**26
"""Bytes of a card at most."""
_FILE = re.compile(r"[\w-]+\.safetensors")


def _is_files(value: Any) -> bool:
    """Names of files in the folder itself, each with a sha256."""
    return type(value) is dict and bool(value) and all(_FILE.fullmatch(name) and HASH.fits(sha) for name, sha in value.items())


OF_CARD = {"files": Rule(_is_files, "names of safetensors files with a sha256 each")}
MORE_OF_CARD = {
    "preset": TEXT, "method": TEXT, "concept": TEXT, "backbone": TEXT, "backbone_sha256": TEXT, "key": TEXT, "seconds": AMOUNT,
    "passport": TABLE, "measured": TABLE, "machine": TABLE, "options": TABLE, "concepts": list_of(TEXT),
}
Tensors = Mapping[str, Mapping[str, Tensor]]
"""Pipeline component (`unet`, `transformer`, `text_encoder`, `vae`) -> name in its state dict -> value."""


@dataclass(frozen=True)
class Passport:
    """What a checkpoint is, and how much of the backbone it changes."""

    sha256: str
    """Of the weight files."""
    format: str
    """How the weights were stored: `safetensors`, `pickle (weights only)`, ..."""
    kind: str
    """`pipeline`, `unet`, `text_encoder`, `lora`, or `srbench` for a folder made by `srbench erase`."""
    matched: int
    """Tensors of the checkpoint that the backbone has."""
    expected: int
    """Tensors that the backbone has in the checkpoint's components."""
    changed: int
    """Matched tensors whose values differ from the backbone's."""
    relative_change: float
    """||dW|| / ||W|| over the matched tensors (Frobenius)."""

    def line(self) -> str:
        """One line for people."""
        return (
            f"{self.kind} ({self.format}) {self.sha256[:12]}: {self.matched} of {self.expected} tensors, "
            f"{self.changed} changed, |dW|/|W| = {self.relative_change:.3g}"
        )


@dataclass(frozen=True)
class Checkpoint:
    """Weights that can be loaded into a backbone."""

    name: str
    """As given to `--on`."""
    tensors: Tensors
    passport: Passport
    card: dict[str, Any] = field(default_factory=dict)
    """The contents of its `card.json`; empty for an external checkpoint."""

    @property
    def sha256(self) -> str:
        return self.passport.sha256


def _component(pipeline: Any, name: str, where: str) -> dict[str, Tensor]:
    module = getattr(pipeline, name, None)
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{where}: this backbone has no {name}", "The checkpoint belongs to another family of models.")
    return module.state_dict()


def examine(
    pipeline: Any, tensors: Tensors, *, where: str, sha256: str, kind: str, form: str, partial: bool
) -> Passport:
    """Compare a checkpoint's weights with the backbone's.

    where: its name in messages. partial: whether it may lack tensors of a component.
    Raises `UsageError` for unexpected or missing tensors, other shapes or kinds of number, values that are not finite, and for
    a checkpoint that changes nothing but the rounding.
    """
    matched = expected = changed = 0
    moved = size = 0.0
    for component, state in tensors.items():
        base = _component(pipeline, component, where)
        _check_names(base, state, component, where, partial)
        expected += len(base)
        for name, value in state.items():
            _check_tensor(base[name], value, f"{component}.{name}", where)
            delta = _difference(base[name], value)
            matched += 1
            changed += bool(delta.any())
            moved += float(delta.double().square().sum())
            size += float(base[name].double().square().sum())
    if not matched:
        raise UsageError(f"{where}: none of its weights belongs to this backbone", "Give a checkpoint of this backbone.")
    if not changed:
        raise UsageError(f"{where}: this checkpoint equals the backbone", "Give the unlearned weights, or use --on none.")
    return Passport(sha256, form, kind, matched, expected, changed, (moved / size) ** 0.5 if size else float(moved > 0))


def _check_names(base: Mapping[str, Tensor], state: Mapping[str, Tensor], component: str, where: str, partial: bool) -> None:
    unexpected = sorted(set(state) - set(base))
    if unexpected:
        raise UsageError(
            f"{where}: {len(unexpected)} of {len(state)} tensors are not in this backbone's {component} ({unexpected[0]}, ...)",
            "The checkpoint belongs to another model, or is stored in a form that srbench does not know.",
        )
    missing = sorted(set(base) - set(state))
    if missing and not partial:
        raise UsageError(
            f"{where}: {len(missing)} of {len(base)} tensors of {component} are missing ({missing[0]}, ...)",
            "A file of changed U-Net tensors alone must say so: partial: true in its baseline file. Nothing else may.",
        )


def _check_tensor(base: Tensor, value: Tensor, name: str, where: str) -> None:
    if base.shape != value.shape:
        raise UsageError(
            f"{where}: {name} is {tuple(value.shape)}, in this backbone {tuple(base.shape)}", "It belongs to another backbone."
        )
    if base.is_floating_point() != value.is_floating_point():
        raise UsageError(f"{where}: {name} is {value.dtype}, in this backbone {base.dtype}", "It belongs to another backbone.")
    # After the cast: a value that overflows the pipeline's dtype is as useless as one that never was a number.
    if not bool(value.to(base.dtype).isfinite().all()):
        raise UsageError(f"{where}: {name} has values that are not numbers", "Make or fetch the checkpoint again.")


def _difference(base: Tensor, value: Tensor) -> Tensor:
    """`value - own` in float32, zero wherever it is only rounding: to the pipeline's dtype, or to the file's."""
    here = value.to(base.device)
    delta = here.to(base.dtype).float() - base.float()
    # Else a half precision copy of the backbone itself would pass for an unlearned model.
    return delta if here.dtype == base.dtype else delta.masked_fill(base.to(here.dtype) == here, 0)


@contextmanager
def laid_over(pipeline: Any, checkpoint: Checkpoint | None) -> Iterator[None]:
    """The checkpoint's weights in place of the backbone's; afterwards the pipeline is as before, bit for bit."""
    replaced: list[tuple[Tensor, Tensor]] = []
    try:
        for component, tensors in (checkpoint.tensors if checkpoint else {}).items():
            state = getattr(pipeline, component).state_dict()  # shares memory with the parameters
            for name, value in tensors.items():
                replaced.append((state[name], state[name].clone()))
                state[name].copy_(value)
        yield
    finally:
        # Backwards: of two names for one tensor, the second clone already holds the checkpoint's value.
        for target, before in reversed(replaced):
            target.copy_(before)


# --- local checkpoints ---------------------------------------------------------------------------------------------------


def files_sha(shas: Mapping[str, str]) -> str:
    """One sha256 for a checkpoint of several files: their names and contents."""
    return digest(sorted(shas.items()))


def is_home_made(path: Path) -> bool:
    """Whether `path` is a folder that `srbench erase` wrote."""
    return (path / CARD).is_file() and any(path.glob("*.safetensors"))


def read_card(folder: Path) -> dict[str, Any]:
    """The card. Raises `UsageError` where there is none or it is damaged."""
    path, again = folder / CARD, f"Remove {folder}, and make the checkpoint again."
    if kind_of_path(path) == "nothing":
        raise UsageError(f"{folder}: not a checkpoint (no {CARD})", "Make one with `srbench erase`.")
    try:
        card = read_json(path, again, MAX_CARD, unique=True)
        check(card, OF_CARD, MORE_OF_CARD)
    except UsageError as error:
        raise UsageError(f"{path}: damaged card ({error.message.removeprefix(f'{path}: ')})", again) from error
    except Misfit as error:
        raise UsageError(f"{path}: not a checkpoint's card ({error})", again) from error
    return dict(card)


def open_home_made(folder: Path, name: str, backbone_sha: str, concept: str, pipeline: Any) -> Checkpoint:
    """Read a folder that `srbench erase` wrote, for one backbone and concept.

    Raises `UsageError` where it belongs to another backbone or concept, where a file differs from its card, or where it
    changes nothing.
    """
    card = read_card(folder)
    if card.get("backbone_sha256") != backbone_sha:
        raise UsageError(f"{folder}: belongs to another backbone ({card.get('backbone', 'unknown')})", "Erase on this one.")
    if concept not in (card.get("concepts") or [card.get("concept")]):
        raise UsageError(f"{folder}: was made for concept '{card.get('concept')}', not '{concept}'", "Erase this concept.")
    tensors, shas = {}, {}
    for file, expected in sorted(card["files"].items()):
        path = folder / file
        shas[file] = file_sha(path) if path.is_file() else ""
        if shas[file] != expected:
            raise UsageError(f"{path}: missing or changed since it was made", f"Remove {folder}, and make the checkpoint again.")
        tensors[path.stem] = weights.tensors(path)  # mapped, not read: a plan holds all its checkpoints
    sha = files_sha(shas)
    passport = examine(pipeline, tensors, where=str(folder), sha256=sha, kind="srbench", form="safetensors", partial=True)
    return Checkpoint(name, tensors, passport, card | {"passport": asdict(passport)})
