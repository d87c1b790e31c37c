"""`srbench show`: an image in the terminal with its row, its scores and its trace."""

from __future__ import annotations

from collections.abc import Sequence
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
from srbench.errors import SrbenchError
from srbench.files import kind_of_path
from srbench.outputs import SHEET, check_file
from srbench.report.sheet import Strip, of_rows, of_run, write
from srbench.results import row_files
from srbench.results.lookup import LEAST, StoredImage, looked_up, scores_of, waits, why_not_there
from srbench.results.records import redirects
from srbench.results.row_files import RowLine, named
from srbench.results.run_files import LOCAL, read_all, summarised
from srbench.results.sensitive import left_line
from srbench.results.store import Store
from srbench.rules import finite
from srbench.tables.terminal import Calmed

SAID = {True: "yes", False: "no", None: ""}
MAX_SIDE = 64
"""Characters across at most."""
WAITS = "a picture of a sensitive row that waits to be scored and dropped: it is not shown"
TOP = 3
"""Classes shown per field of a scorer."""
ROLES = {"reference": "reference", "floor": "reference of another seed"}
"""Role of an image beside a row's own -> as it is shown."""


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


def _print(renderable: RenderableType) -> None:
    console.console().print(Calmed(renderable))


def _row_table(image: StoredImage) -> Table:
    cell = image.cell
    table = Table.grid(padding=(0, 2))
    table.add_row("row", f"{image.row_id}  ({cell.backbone}/{cell.concept}/{cell.suite}, method {cell.label})")
    of_role = "" if image.role == "image" else f"  ({ROLES[image.role]}: the untouched backbone on the reference prompt)"
    table.add_row("image", f"{image.key}{of_role}")
    row, why = image.row()
    for name in ("prompt", "reference", "target", "category", "seed", "objects", "style", "background", "similarity"):
        value = row.get(name)
        if value not in (None, [], ()):
            table.add_row(name, ", ".join(value) if isinstance(value, list) else str(value))
    if why:
        table.add_row("prompt", f"not stored: the suite is gated; {why}")
    for method, told in image.told().items():
        table.add_row("told", f"{method}: {'; '.join(told)}")
    table.add_row("run", image.run)
    return table


def _summary(raw: dict[str, Any]) -> str:
    parts = []
    for name, value in raw.items():
        if isinstance(value, dict) and all(map(finite, value.values())):
            best = sorted(value.items(), key=lambda item: -item[1])[:TOP]
            parts.append(f"{name}: " + ", ".join(f"{k} {v:z.3f}" for k, v in best))
        elif isinstance(value, list) and all(map(_is_box, value)):
            parts.append(f"{name}: " + (", ".join(f"{b['class']} {b['score']:.2f}" for b in value) or "none"))
        else:
            parts.append(f"{name}: {f'{value:z.2f}' if finite(value) else value}")
    return "; ".join(parts)


def _is_box(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("class"), str) and finite(value.get("score"))


def _scores(store: Store, key: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for scorer, raw in scores_of(store, key):
        table.add_row(scorer, _summary(raw))
    return table


def _trace(image: StoredImage, record: dict[str, Any]) -> None:
    trace = record.get("trace") or {}
    if redirects(trace):
        _print(f"unsafe probability per step: {' '.join(f'{p:.2f}' for p in trace['unsafe'])}")
        _print(f"redirected steps: {trace['redirected_steps']} of {len(trace['unsafe'])}")
    else:
        for name, value in trace.items():
            text = f"{value:g}" if isinstance(value, float) else value
            _print(f"{name.replace('_', ' ')}: {text}")
    if not redirects(trace) or not trace.get("mask"):
        return
    prompt = record.get("prompt")
    if prompt is None:  # of a gated row: from the user's own file
        prompt = image.row()[0].get("prompt" if image.role == "image" else "reference")
    if prompt is None:
        return
    from srbench.report.gallery import tokens_of

    tokens = tokens_of(image.cell.backbone, prompt) or tuple(map(str, range(len(trace["mask"]))))
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
    beside = named(folder, what, LEAST, say) if sheet is None and kind_of_path(folder) == "folder" else []
    try:
        images = looked_up(what, folder, say)
    except SrbenchError:
        if not beside:
            raise
        images = []
    for path, lines in beside:
        _print_committed(path, lines)
    if sheet is not None:
        ids = list(dict.fromkeys(image.row_id for image in images))
        return _written(of_rows(folder, ids, store, say), sheet)
    for image in images:
        _print_image(image, store)
    return 0


def _print_committed(path: Path, lines: Sequence[RowLine]) -> None:
    """What a committed file of rows says of a row under each method."""
    rates = [name for name in lines[0].marks if any(line.marks[name] is not None for line in lines)]
    about = Table.grid(padding=(0, 2))
    about.add_row("row", lines[0].row)
    if prompt := _committed_prompt(path, lines[0]):
        about.add_row("prompt", prompt)
    about.add_row("from", f"{path.parent.name}/{path.name}, committed: its pictures are not here")
    _print(about)
    table = Table()
    for column in ("method", "judge", *rates, "image"):
        table.add_column(column, justify="left" if column in ("method", "image") else "right")
    for line in lines:
        said = [SAID[line.marks[name]] for name in rates]
        table.add_row(line.method, "" if line.sure is None else f"{line.sure:.2f}", *said, line.image)
    _print(table)
    console.write("\n")


def _committed_prompt(path: Path, line: RowLine) -> str:
    """The prompt of a committed row; empty where it is not shown, or not known here."""
    from srbench.report.rows import texts_of

    concept = path.name.removesuffix(row_files.ENDING)
    cells = [cell for cell in summarised(path.parent) if (cell.concept, cell.suite) == (concept, line.suite)]
    rows = texts_of(cells[0]) if cells else None
    return next((row.prompt for row in rows or () if row.id == line.row), "")


def _print_image(image: StoredImage, store: Store) -> None:
    key = image.key
    try:
        _print(f"({WAITS})" if waits(store, key) else half_blocks(store.pixels(key)))
    except SrbenchError as error:
        stored = key in store.images and not store.dropped(key)
        _print(f"({error.message if stored else why_not_there(store, key)})")
    _print(_row_table(image))
    _print(_scores(store, key))
    if key in store.images:
        _trace(image, store.images[key])
    console.write("\n")


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
