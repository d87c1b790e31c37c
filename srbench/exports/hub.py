"""`--as hub`: a model card for each method with a `model-index`, and a folder of pictures that `datasets` loads.

The cards are `huggingface_hub`'s; the pictures lie as an `imagefolder` has them, a configuration a method, with a line for each
in `metadata.jsonl`. Pictures of sensitive and of gated rows are left out, and counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from srbench.analysis.results import ResultCell, name_of
from srbench.exports.read import Run, by_method, numbers, title
from srbench.results.store import Store
from srbench.version import __version__

TASK = "text-to-image"
Files = dict[str, bytes]


def files(run: Run) -> tuple[Files, list[str]]:
    """Path -> content, and lines on what was left out."""
    cards = {f"cards/{slug(name)}.md": _card(run, name, cells) for name, cells in by_method(run).items()}
    pictures, left_out = _pictures(run)
    return {**cards, **pictures}, left_out


def slug(name: str) -> str:
    """A name for files: letters, digits, `.`, `-` and `_`."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


# --- cards -----------------------------------------------------------------------------------------------------------------


def _card(run: Run, name: str, cells: list[ResultCell]) -> bytes:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=TASK, dataset_type=f"srbench/{cell.suite}", dataset_name=title(cell), dataset_config=cell.concept,
            metric_type=metric, metric_name=metric, metric_value=value,
            metric_args={"n": found.n, "low": found.low, "high": found.high, "better": found.better},
        )
        for cell in cells for metric, found, value in numbers(cell)
    ]  # fmt: skip
    data = ModelCardData(
        model_name=name, eval_results=results or None, library_name="srbench", pipeline_tag=TASK,
        tags=["concept-unlearning", "safety", "srbench"],
    )  # fmt: skip
    return f"---\n{data.to_yaml()}\n---\n\n{_text(run, name, cells)}".encode()


def _text(run: Run, name: str, cells: list[ResultCell]) -> str:
    lines = [
        f"# {name}", "", f"Figures of srbench {__version__}, run `{run.name}`. Each is of the rows, backbone and judge that "
        "stand with it, and compares with no other.", "",
        "| suite | metric | better | value | 95 % interval | n |", "|---|---|---|--:|---|--:|",
    ]  # fmt: skip
    for cell in cells:
        for metric, found, value in numbers(cell):
            interval = "" if found.low is None or found.high is None else f"{found.low:.4g} to {found.high:.4g}"
            lines.append(f"| {title(cell)} | `{metric}` | {found.better} | {value:.4g} | {interval} | {found.n or ''} |")
    return "\n".join([*lines, ""])


# --- pictures --------------------------------------------------------------------------------------------------------------


def _pictures(run: Run) -> tuple[Files, list[str]]:
    """PNGs by method, their `metadata.jsonl`, and the dataset's card."""
    store = Store.peek(run.folder / "store")
    made: Files = {}
    lines: dict[str, list[str]] = {}
    secret = gone = 0
    for entry in run.entries:
        cell = entry["result"]
        name = slug(name_of(cell))
        for row in entry["rows"]:
            key = row["image"]
            if "row" not in row or (key in store.images and not store.harmless(key)):
                secret += 1
                continue
            path = store.image_path(key)
            if not path.is_file():
                gone += 1
                continue
            file = f"{slug(cell.suite)}-{slug(cell.concept)}-{slug(row['id'])}.png"
            made[f"dataset/{name}/{file}"] = path.read_bytes()
            lines.setdefault(name, []).append(json.dumps(_line(file, cell, row, key), ensure_ascii=False))
    made |= {f"dataset/{name}/metadata.jsonl": ("\n".join(each) + "\n").encode() for name, each in lines.items()}
    if lines:
        made["dataset/README.md"] = _dataset_card(run, sorted(lines))
    return made, list(_left_out(secret, gone))


def _line(file: str, cell: ResultCell, row: dict[str, Any], key: str) -> dict[str, Any]:
    said = row["row"]
    return {
        "file_name": file, "key": key, "suite": cell.suite, "concept": cell.concept, "method": name_of(cell), "id": row["id"],
        "kind": said["kind"], "prompt": said["prompt"], "seed": said.get("seed"),
    }  # fmt: skip


def _dataset_card(run: Run, names: list[str]) -> bytes:
    from huggingface_hub import DatasetCardData

    configs = [{"config_name": name, "data_dir": name} for name in names]
    data = DatasetCardData(task_categories=[TASK], tags=["concept-unlearning", "srbench"], configs=configs)
    text = f"# Pictures of srbench run `{run.name}`\n\nA configuration a method; `key` is the picture's key in the store.\n"
    return f"---\n{data.to_yaml()}\n---\n\n{text}".encode()


def _left_out(secret: int, gone: int) -> Iterator[str]:
    if secret:
        yield f"{secret} pictures of sensitive or gated rows are left out"
    if gone:
        yield f"{gone} pictures are not on this disk"
