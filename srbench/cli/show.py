"""`srbench show`: an image in the terminal with its row, its scores and its trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.color import Color
from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from srbench.cli import console
from srbench.cli.console import say
from srbench.errors import SrbenchError, UsageError
from srbench.files import kind_of_path
from srbench.outputs import SHEET, check_file
from srbench.report.sheet import Strip, of_rows, of_run, write
from srbench.results.marks import DROPPED, KEPT, SENSITIVE
from srbench.results.records import redirects
from srbench.results.run_files import LOCAL, read_all
from srbench.results.sensitive import left_line
from srbench.results.store import Store, picture
from srbench.results.stored import rows_of
from srbench.rules import Misfit, finite
from srbench.tables.terminal import Calmed

MAX_SIDE = 64
"""Characters across at most."""
WAITS = "a picture of a sensitive row that waits to be scored and dropped: it is not shown"
TOP = 3
"""Classes shown per field of a scorer."""


def half_blocks(pixels: np.ndarray) -> Text:
    """An uint8 RGB image (H, W, 3) as text, two pixels a character: upper half block over background."""
    image = Image.fromarray(pixels)
    if max(image.size) > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    array = np.asarray(image)
    if len(array) % 2:
        array = np.concatenate([array, array[-1:]])
    text = Text(no_wrap=True, end="")
    for upper, lower in zip(array[::2], array[1::2], strict=True):
        for top, bottom in zip(upper, lower, strict=True):
            style = Style(color=Color.from_rgb(*map(int, top)), bgcolor=Color.from_rgb(*map(int, bottom)))
            text.append("▀", style)
        text.append("\n")
    return text


def _places(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any], str, str]]:
    """(run, row entry, role, image key) of every image of every local run, newest run first."""
    for _, run in read_all(folder, say, committed=False):
        for cell in run["cells"]:
            for entry in cell["rows"]:
                for role in ("image", "reference", "floor"):
                    if role in entry:
                        yield {**run, "cell": cell["result"], "entry": {**cell, "rows": [entry]}}, entry, role, entry[role]


def _key_of_file(path: Path) -> str:
    try:
        return str(picture(path)[1]["key"])
    except Misfit as error:
        hint = "Give a PNG under results/store/images."
        raise UsageError(f"{path}: not an image of a srbench store: it {error}", hint) from error


def _matches(what: str, folder: Path) -> list[tuple[dict[str, Any], dict[str, Any], str, str]]:
    """Where `what` stands: a row's id, the start of an image key, or a PNG."""
    path = Path(what)
    key = _key_of_file(path) if path.suffix == ".png" and kind_of_path(path) != "nothing" else what
    found, seen = [], set()
    for place in _places(folder):
        run, entry, role, image = place
        hit = (image.startswith(key) and len(key) >= 6) or (entry["id"] == key and role == "image")
        name = (image, entry["id"], role, run["cell"].label)
        if hit and name not in seen:
            seen.add(name)
            found.append(place)
    return found


def _row(run: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The row; of a gated suite from the user's own file, or why it cannot be had."""
    try:
        ((_, row),) = rows_of(run["cell"], run["entry"])
    except SrbenchError as error:
        return {}, error.message
    return row.model_dump(mode="json", exclude_defaults=True), ""


def _print(made: RenderableType) -> None:
    console.console().print(Calmed(made))


def _row_table(run: dict[str, Any], entry: dict[str, Any], role: str, key: str) -> Table:
    cell = run["cell"]
    table = Table.grid(padding=(0, 2))
    asked = f"{cell.backbone}/{cell.concept}/{cell.suite}, method {cell.label}"
    table.add_row("row", f"{entry['id']}  ({asked})")
    table.add_row("image", f"{key}" + ("" if role == "image" else f"  ({role}: the untouched backbone on the reference prompt)"))
    row, why = _row(run)
    for name in ("prompt", "reference", "target", "category", "seed", "objects", "style", "background", "similarity"):
        value = row.get(name)
        if value not in (None, [], ()):
            table.add_row(name, ", ".join(value) if isinstance(value, list) else str(value))
    if why:
        table.add_row("prompt", f"not stored: the suite is gated; {why}")
    table.add_row("run", run["run"])
    return table


def _summary(raw: dict[str, Any]) -> str:
    parts = []
    for name, value in raw.items():
        if isinstance(value, dict) and all(map(finite, value.values())):
            best = sorted(value.items(), key=lambda item: -item[1])[:TOP]
            parts.append(f"{name}: " + ", ".join(f"{k} {v:.3f}" for k, v in best))
        elif isinstance(value, list) and all(map(_is_box, value)):
            parts.append(f"{name}: " + (", ".join(f"{b['class']} {b['score']:.2f}" for b in value) or "none"))
        else:
            parts.append(f"{name}: {f'{value:.2f}' if finite(value) else value}")
    return "; ".join(parts)


def _is_box(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("class"), str) and finite(value.get("score"))


def _waits(store: Store, key: str) -> bool:
    """Whether a picture is of a sensitive row and its user did not ask to keep it."""
    record = store.images.get(key, {})
    return bool(record.get(SENSITIVE) and not record.get(KEPT) and not record.get(DROPPED))


def _where(store: Store, key: str) -> str:
    """Why an image cannot be shown."""
    if store.images.get(key, {}).get("elsewhere"):
        return f"made elsewhere: {store.images[key]['elsewhere']}"
    return "the image was scored and dropped" if store.dropped(key) else "the image is not in the store"


def _scores(store: Store, key: str) -> Table:
    table = Table.grid(padding=(0, 2))
    # Images with equal pixels share their scores, which are stored under the first of them.
    sha = store.images[key]["pixel_sha"] if key in store.images else ""
    same = {other for other, image in store.images.items() if image["pixel_sha"] == sha}
    for record in store.scores.values():
        if record["image"] in same:
            table.add_row(record["scorer"], _summary(record["raw"]))
    return table


def _trace(run: dict[str, Any], record: dict[str, Any], role: str) -> None:
    trace = record.get("trace") or {}
    if redirects(trace):
        _print(f"unsafe probability per step: {' '.join(f'{p:.2f}' for p in trace['unsafe'])}")
        _print(f"redirected steps: {trace['redirected_steps']} of {len(trace['unsafe'])}")
    else:
        for name, value in trace.items():
            said = f"{value:g}" if isinstance(value, float) else value
            _print(f"{name.replace('_', ' ')}: {said}")
    if not redirects(trace) or not trace.get("mask"):
        return
    prompt = record.get("prompt")
    if prompt is None:  # of a gated row: from the user's own file
        prompt = _row(run)[0].get("prompt" if role == "image" else "reference")
    if prompt is None:
        return
    from srbench.report.gallery import tokens_of

    tokens = tokens_of(run["cell"].backbone, prompt) or tuple(map(str, range(len(trace["mask"]))))
    table = Table(title="per token, mean over redirected steps", title_justify="left")
    for column in ("token", "mask", "alpha"):
        table.add_column(column, justify="left" if column == "token" else "right")
    for token, mask, alpha in zip(tokens, trace["mask"], trace["alpha"], strict=False):
        table.add_row(token, f"{mask:.2f}", f"{alpha:.2f}")
    _print(table)


def show(what: str, folder: Path, sheet: Path | None = None) -> int:
    """Print every image that `what` names, several methods on one row below each other; or draw them on one sheet."""
    if sheet is not None:
        check_file(sheet, SHEET)
    store = Store.peek(folder / "store", say)
    if left := left_line(folder):
        say(left)
    if sheet is not None and "/" not in what and kind_of_path(folder / "runs" / what / LOCAL) != "nothing":
        return write_sheet(folder, what, store, sheet)
    found = _matches(what, folder) if folder.is_dir() else []
    if found and sheet is not None:
        ids = list(dict.fromkeys(entry["id"] for _, entry, _, _ in found))
        return _written(of_rows(folder, ids, store, say), sheet)
    if not found:
        hint = "Give a row's id, six or more letters of an image key, or a PNG; with --sheet also a run."
        raise UsageError(f"nothing in {folder} is named '{what}'", hint)
    for run, entry, role, key in found:
        record = store.images.get(key)
        try:
            _print(f"({WAITS})" if _waits(store, key) else half_blocks(store.pixels(key)))
        except SrbenchError as error:
            there = key in store.images and not store.dropped(key)
            _print(f"({error.message if there else _where(store, key)})")
        _print(_row_table(run, entry, role, key))
        _print(_scores(store, key))
        if record is not None:
            _trace(run, record, role)
        console.write("\n")
    return 0


def write_sheet(folder: Path, run: str, store: Store, path: Path) -> int:
    """Draw a run's contact sheet."""
    return _written(of_run(folder, run, store), path)


def sheet_of_newest(folder: Path, path: Path) -> int:
    """Draw the contact sheet of the newest local run."""
    newest, _ = read_all(folder, say, committed=False)[0]
    return write_sheet(folder, newest.parent.name, Store.peek(folder / "store", say), path)


def _written(strips: list[Strip], path: Path) -> int:
    shown = write(strips, path)
    say(f"{path}: {len(strips)} rows, {shown} pictures")
    return 0
