"""Files of weights: recognised by their first bytes, not by their names; nothing but tensors is read.

Messages name the cause: a git-lfs pointer, a web page, an empty file, a download that was cut off, a pickle that would run
code. Pickles are read with `weights_only`, and there is no switch for anything else.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from srbench.backbones.folder import LFS_PULL, TEXTS
from srbench.errors import SrbenchError, UsageError
from srbench.files import kind_of_path, printable

AGAIN = "Fetch it again."
SAFETENSORS, PICKLE = "safetensors", "pickle (weights only)"
NO_SWITCH = "Convert it to safetensors where you trust its maker; srbench has no switch that runs a pickle's code."
REPORTS = ("missing_keys", "unexpected_keys", "mismatched_keys")
POSITIONS = "position_ids"
"""transformers before 4.31 stored 0, 1, 2, ... under this name; it is no weight, and now nowhere in a state dict."""
COUNTER = "num_batches_tracked"
"""Batch normalisation's counter of training steps; files from before torch 0.4.1 lack it, and no output depends on it."""
FEW = 256
"""A matrix with fewer numbers than these may be all zeros on purpose."""
BROKEN_OFF = " (a download that broke off?)"
_MOST_HEADER = 100_000_000
"""Bytes of a safetensors header, the format's own limit."""
_OTHERS = {
    b"GGUF": "a GGUF file", b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture", b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive", b"7z\xbc\xaf": "a 7-zip archive", b"Rar!": "a rar archive", b"\xfd7zXZ": "an xz archive",
    b"\x93NUMPY": "a numpy array", b"\x08\x07\x12": "an ONNX file", b"\x28\xb5\x2f\xfd": "a zstd archive",
}  # fmt: skip
"""First bytes -> what such a file is; srbench reads none of them as weights."""


def named(path: Path) -> tuple[dict[str, Any], str]:
    """The contents of a file of weights by name, and its form. Raises `UsageError` with the cause."""
    form = form_of(path)
    content = _mapped(path) if form == SAFETENSORS else unpickled(path)
    if not isinstance(content, Mapping):
        raise UsageError(f"{path}: holds no tensors by name, but a {type(content).__name__}", "Give a plain state dict.")
    return dict(content), form


def tensors(path: Path) -> dict[str, Tensor]:
    """Named tensors of a file. Raises `UsageError` where it holds anything else."""
    state, _ = named(path)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UsageError(f"{path}: '{printable(str(name))[:80]}' is no tensor", "Give a plain state dict.")
    return {name: value.detach() for name, value in state.items()}


def names(path: Path) -> list[str]:
    """The tensors' names in a file. Raises `UsageError` with the cause where it is no file of weights."""
    if form_of(path) != SAFETENSORS:
        return [name for name, value in named(path)[0].items() if isinstance(value, Tensor)]
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    return [name for name in _header(path, length) if name != "__metadata__"]


def _refusal(path: Path, cause: str, hint: str = AGAIN) -> UsageError:
    return UsageError(f"{path}: not a file of weights ({cause})", hint)


# --- forms ------------------------------------------------------------------------------------------------------------------


def form_of(path: Path) -> str:
    """`SAFETENSORS` or `PICKLE`, by the first bytes. Raises `UsageError` that says what the file is instead."""
    kind = kind_of_path(path)
    if kind != "file":
        what = "there is no such file" if kind == "nothing" else f"a {kind}, not a file"
        raise UsageError(f"{path}: {what}", "Check the path.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
        size = path.stat().st_size
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", "Check its permissions.") from error
    other = _other(head)
    if other:
        hint = LFS_PULL if "git-lfs" in other else AGAIN
        raise _refusal(path, other, hint)
    if head.startswith(b"PK"):
        _check_zip(path)
        return PICKLE
    if head[:1] == b"\x80" and head[8:9] != b"{":
        return PICKLE
    if _is_safetensors(path, head, size):
        return SAFETENSORS
    return PICKLE  # torch's oldest form and Python's first pickles have no mark


def _other(head: bytes) -> str:
    """What a file is if it holds no weights; empty where it may hold some."""
    if not head:
        return "an empty file"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    text = next((what for mark, what in TEXTS.items() if start.startswith(mark)), "")
    if text:
        return text
    other = next((what for mark, what in _OTHERS.items() if head.startswith(mark)), "")
    if other:
        return other
    if not head.strip(b"\0"):
        return "zeros from its start on (a download that did not begin)"
    if start[:1] in (b"{", b"[") and head[8:9] != b"{":
        return "JSON"
    return "a text" if _is_text(head) and b"\n" in head else ""


def _is_text(head: bytes) -> bool:
    """Whether the bytes are plain text, but not Python's oldest pickle format, which is text, too."""
    readable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return len(head) > 16 and readable and not head.startswith((b"(", b"c", b"]"))


def _is_safetensors(path: Path, head: bytes, size: int) -> bool:
    """Whether a file begins as safetensors do. Raises `UsageError` where it is cut off or damaged."""
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or not 2 <= length <= _MOST_HEADER:
        if path.suffix == ".safetensors":
            raise _refusal(path, "damaged, it does not begin as a safetensors file does")
        return False
    if size < 8 + length:
        raise _refusal(path, f"cut off, its list of tensors has {length} bytes and the file {size}")
    end = 8 + length + _last_byte(path, length)
    if size != end:
        what = "cut off" if size < end else "longer than its list of tensors says"
        raise _refusal(path, f"{what}, {end} bytes are expected and {size} are there")
    _check_end(path, length)
    return True


def _check_end(path: Path, length: int) -> None:
    """Raises `UsageError` where all is zero from the middle of the last matrix on, unless that is an adapter's."""
    matrices = {
        name: entry["data_offsets"] for name, entry in _header(path, length).items()
        if name != "__metadata__" and len(entry.get("shape") or ()) > 1
    }  # fmt: skip
    name, (start, end) = max(matrices.items(), key=lambda item: item[1][1], default=("", (0, 0)))
    if end - start < FEW or "lora" in name.lower():
        return
    with path.open("rb") as file:
        file.seek(8 + length + (start + end) // 2)
        if not any(block.strip(b"\0") for block in iter(lambda: file.read(1 << 20), b"")):
            raise _refusal(path, f"zeros from {printable(name)[:100]} on{BROKEN_OFF}")


def _last_byte(path: Path, length: int) -> int:
    """Where the last tensor ends, counted from the end of the list. Raises `UsageError` for a list that is damaged."""
    header = _header(path, length)
    places = [entry.get("data_offsets") for name, entry in header.items() if name != "__metadata__" and isinstance(entry, dict)]
    ends = [span[1] for span in places if isinstance(span, list) and len(span) == 2 and isinstance(span[1], int)]
    if len(ends) != len(places):
        raise _refusal(path, "damaged, its list of tensors gives no places")
    return max(ends, default=0)


def _header(path: Path, length: int) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(8)
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, "damaged, its list of tensors is not JSON") from error
    if not isinstance(header, dict):
        raise _refusal(path, "damaged, its list of tensors is none")
    return header


def _check_zip(path: Path) -> None:
    """Raises `UsageError` for a zip file that is cut off, or that torch did not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _refusal(path, "cut off or damaged, a zip file without its table of contents") from error
    if not any(name.endswith("data.pkl") for name in names):
        inside = f" (it holds {printable(names[0])[:60]}, ...)" if names else ""
        raise _refusal(path, f"a zip archive that torch did not write{inside}", "Unpack it, and name the file in it.")


# --- reading ----------------------------------------------------------------------------------------------------------------


def _mapped(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise _refusal(path, f"damaged: {first_line(error)}") from error


def unpickled(path: Path) -> Any:
    """The tensors and plain containers that torch saved. Raises `UsageError`; nothing in the file is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile stream makes the reader raise
        foreign = re.search(r"(?:GLOBAL|global|class|function):? `?([\w.]+\.[\w.]+)`? (?:was not|is not|that|whose)", str(error))
        what = f"a pickle that holds more than tensors: {foreign[1]}" if foreign else "damaged, or holds more than tensors"
        raise _refusal(path, f"{what}; it was not opened", NO_SWITCH) from error


# --- what a library made of it ------------------------------------------------------------------------------------------------


def difference(missing: Iterable[str] = (), unexpected: Iterable[str] = (), mismatched: Iterable[str] = ()) -> str:
    """What a library's report of loading says, as part of a message; empty where it found everything."""
    kinds = {"missing": missing, "not known": unexpected, "of another shape": mismatched}
    by_kind = {what: sorted(map(str, names)) for what, names in kinds.items()}
    return ", ".join(f"{_tensors(len(names))} {what} ({_some(names)})" for what, names in by_kind.items() if names)


def _tensors(count: int) -> str:
    return "1 tensor is" if count == 1 else f"{count} tensors are"


def of_report(report: Mapping[str, Any]) -> str:
    """What a library's report of loading says is wrong, for a message; empty where it found everything.

    report: as `output_loading_info=True` gives it. Position buffers of old versions are no weights.
    """
    missing, unexpected, mismatched = (list(report.get(kind) or ()) for kind in REPORTS)
    names = [entry[0] if isinstance(entry, tuple) else entry for entry in mismatched]
    wrong = difference(missing, [name for name in unexpected if not str(name).endswith(POSITIONS)], names)
    errors = report.get("error_msgs")
    return wrong or (first_line(Exception(errors[0])) if errors else "")


def _some(names: list[str]) -> str:
    return printable(names[0])[:100] + (", ..." if len(names) > 1 else "")


def not_finite(state: Mapping[str, Any]) -> list[str]:
    """Names of tensors with values that are not numbers."""
    return [
        name for name, value in state.items()
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all())
    ]  # fmt: skip


def all_zero(state: Mapping[str, Any]) -> list[str]:
    """Names of matrices that hold nothing but zeros, as downloads leave that reserve their space and then break off."""
    return [
        name for name, value in state.items()
        if isinstance(value, Tensor) and value.dim() > 1 and value.numel() >= FEW and not bool(value.any())
    ]  # fmt: skip


def check_loaded(network: torch.nn.Module, report: Mapping[str, Any], unfit: str, where: str, hint: str) -> None:
    """Refuse a network that its library did not load whole, or that has values that are not numbers.

    report: as for `of_report`. unfit, where: how the two messages begin. Raises `UsageError`.
    """
    if wrong := of_report(report):
        raise UsageError(f"{unfit}: {wrong}", hint)
    if bad := not_finite(network.state_dict()):
        raise UsageError(f"{where}: {bad[0]} has values that are not numbers", hint)
    if zero := all_zero(network.state_dict()):
        raise UsageError(f"{where}: {zero[0]} holds nothing but zeros{BROKEN_OFF}", hint)


def fill(network: torch.nn.Module, state: Mapping[str, Any], what: str, hint: str) -> None:
    """Load `state` into a network that it fits to the last name, shape and number.

    what: the file's name in messages. Raises `UsageError` with the names that do not fit.
    """
    expected = network.state_dict()
    same = expected.keys() & state.keys()
    shapes = [name for name in same if getattr(state[name], "shape", None) != expected[name].shape]
    missing = [name for name in expected.keys() - state.keys() if not name.endswith(COUNTER)]
    wrong = difference(missing, state.keys() - expected.keys(), shapes)
    if wrong:
        raise UsageError(f"{what}: {wrong}", hint)
    bad = not_finite(state)
    if bad:
        raise UsageError(f"{what}: values of {_some(sorted(bad))} are not numbers", hint)
    zero = all_zero(state)
    if zero:
        raise UsageError(f"{what}: {_some(sorted(zero))} holds nothing but zeros{BROKEN_OFF}", hint)
    network.load_state_dict({**{name: value for name, value in expected.items() if name.endswith(COUNTER)}, **state})


def first_line(error: BaseException) -> str:
    """The first line of a library's message, short; with the next one where it only announces it (torch's `Error(s) in ...:`)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return printable(" ".join(lines[: 2 if lines[0].endswith(":") else 1]))[:200]


@contextmanager
def one_line(what: str, hint: str = "") -> Iterator[None]:
    """Whatever a library raises inside is one `UsageError`: `what`, with the first line of its reason as the hint's start."""
    try:
        yield
    except SrbenchError:
        raise
    except Exception as error:  # the libraries index names and configurations without a check
        reason = first_line(error)
        raise UsageError(what, f"{reason} {hint}".strip()) from error
