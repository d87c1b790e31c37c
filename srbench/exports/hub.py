"""`--as hub`: a model card for each method with a `model-index`, and a folder of pictures that `datasets` loads.

The cards are `huggingface_hub`'s; the pictures lie as an `imagefolder` has them, a configuration a method, with a line for each
in `metadata.jsonl`. Pictures of sensitive and of gated rows are left out, and counted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import Any

from srbench.analysis.results import ResultCell, name_of
from srbench.errors import SrbenchError
from srbench.exports.read import Run, by_method, numbers, title
from srbench.progress import counted
from srbench.results.marks import ELSEWHERE
from srbench.results.store import Store
from srbench.version import __version__

TASK = "text-to-image"
LONGEST = 80
"""Characters of a name in a file's name."""
Files = dict[str, bytes]


def files(run: Run) -> tuple[Files, list[str]]:
    """Path -> content, and lines on what was left out."""
    cards = {f"cards/{slug(name)}.md": _card(run, name, cells) for name, cells in by_method(run).items()}
    pictures, left_out = _pictures(run)
    return {**cards, **pictures}, left_out


def slug(name: str) -> str:
    """A name for files: letters, digits, `.`, `-` and `_`; where that is another one, with the start of its hash, so that no two
    names become one."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:LONGEST]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


# --- cards -----------------------------------------------------------------------------------------------------------------


def _card(run: Run, name: str, cells: list[ResultCell]) -> bytes:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=TASK, dataset_type=f"srbench/{cell.suite}", dataset_name=title(cell), dataset_config=cell.concept,
            metric_type=metric, metric_name=metric, metric_value=value,
            metric_args={
                "n": found.n, "scored": found.scored, "low": found.low, "high": found.high, "better": found.better,
            },
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
    why: Counter[str] = Counter()
    for entry in run.entries:
        cell = entry["result"]
        name = slug(name_of(cell))
        for row in entry.get("rows", []):
            reason, data = _picture(store, entry, row)
            if data is None:
                why[reason] += 1
                continue
            file = f"{slug(cell.suite)}-{slug(cell.concept)}-{slug(row['id'])}.png"
            made[f"dataset/{name}/{file}"] = data
            lines.setdefault(name, []).append(json.dumps(_line(file, cell, row, row["image"]), ensure_ascii=False))
    made |= {f"dataset/{name}/metadata.jsonl": ("\n".join(each) + "\n").encode() for name, each in lines.items()}
    if lines:
        made["dataset/README.md"] = _dataset_card(run, sorted(lines))
    return made, [f"{counted(count, 'picture')} left out: {reason}" for reason, count in why.most_common()]


def _picture(store: Store, entry: dict[str, Any], row: dict[str, Any]) -> tuple[str, bytes | None]:
    """A row's PNG, or why it is left out. Only what the ledger knows to be harmless is let out."""
    key = row.get("image")
    if key is None:
        return "failed", None
    if entry.get("suite", {}).get("sensitive") or "row" not in row:
        return "sensitive or gated rows", None
    record = store.images.get(key)
    if record is None:
        return "not in the ledger, which says what is harmless", None
    if record.get(ELSEWHERE):
        return "made elsewhere, and not kept here", None
    if not store.harmless(key):
        return "sensitive or gated rows", None
    try:
        store.pixels(key)
        return "", store.image_path(key).read_bytes()
    except (SrbenchError, OSError):
        return "damaged, or no more on this disk", None


def _line(file: str, cell: ResultCell, row: dict[str, Any], key: str) -> dict[str, Any]:
    said = row["row"]
    return {
        "file_name": file, "key": key, "suite": cell.suite, "concept": cell.concept, "method": name_of(cell), "id": row["id"],
        "kind": said["kind"], "prompt": said["prompt"], "seed": said.get("seed"),
    }  # fmt: skip


def _dataset_card(run: Run, names: list[str]) -> bytes:
    from huggingface_hub import DatasetCardData

    # One split, named: left to itself, `datasets` takes splits from words such as "dev" and "test" in the names of rows.
    configs = [{"config_name": name, "data_files": [{"split": "train", "path": f"{name}/**"}]} for name in names]
    data = DatasetCardData(task_categories=[TASK], tags=["concept-unlearning", "srbench"], configs=configs)
    text = (
        f"# Pictures of srbench run `{run.name}`\n\nA configuration a method, all its pictures in the one split `train`; "
        "`key` is the picture's key in the store.\n"
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}".encode()
