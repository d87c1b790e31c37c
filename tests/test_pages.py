"""Every command in a block of README.md and docs/ is run here, or says in a comment why not (`tests.pages.MARKS`).

The slow test runs a page's commands in their order, in a folder that looks like a clone to them. Words that a command has stay as
they are; `smaller` adds limits, so that a page takes minutes. `BEFORE` holds what a page takes for granted: files that it names,
and runs that its reader has made.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.pages import ALIKE, MARKS, PAGES, ROOT, Command, all_commands, commands_of, marked
from tests.plug_ins import wheel

BY_CI = ("make test",)
"""Run by .github/workflows/ci.yml on every change."""
COPIED = ("results", "examples", "benchmarks", "Makefile")
"""What a page's folder has of a clone, beside the tables in docs/. Copies of suites/ and baselines/ would take shipped names."""
RUN = ("srbench", "run", "--method", "none,saferedir", "--suite", "igmu", "--limit", "1")
"""A run of one's own, where a page takes one for granted."""
SECONDS = 1800
"""Of one command, on a busy machine."""
RUN_NAME = re.compile(r"^\d{8}T\d{6}-[\w-]+$")
FAST = {
    "esd-x": ("esd-x.iterations=2",),
    "mace": ("mace.images=2", "mace.iterations=2"),
    "saferedir": ("train_steps=20", "trajectories=8", "held_trajectories=4"),
}
"""Settings with which a method learns in seconds, and too little."""
PARTLY = (
    "srbench run --method none,saferedir --concept church --prompts coco_sizes.csv", "srbench verify results",
    "srbench score made", "srbench score results/ --scorer pocket-perceptual,fd-pocket",
)  # fmt: skip
"""What ends with exit code 1: something is missing or damaged, as the page says, and still is when it is scored again."""


# --- what every command says of itself ----------------------------------------------------------------------------------------


def test_there_are_commands_and_some_are_marked() -> None:
    found = all_commands()
    assert len(found) > 120
    assert {command.mark for command in found} == {"", *MARKS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_is_run_or_says_why_not(page: Path) -> None:
    assert [str(command) for command in commands_of(page) if not command.mark and not can_be_run(command)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_mark_is_one_of_the_known(page: Path) -> None:
    comments = [(command, comment) for command in commands_of(page) for comment in (command.comment, command.block)]
    assert [f"{command}  # {comment}" for command, comment in comments if ALIKE.match(comment) and not marked(comment)] == []


def test_what_ci_is_said_to_run_stands_there() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert [command for command in BY_CI if f"- run: {command}\n" not in workflow] == []


def test_limits_stand_behind_a_commands_own_words() -> None:
    found = [command.words[1:] for command in all_commands() if command.words[0] == "srbench"]
    assert [words for words in found if smaller(words)[: len(words)] != words] == []
    assert smaller(["run", "--on", "none,esd-x#0..2"])[3:] == ["--limit", "1", "--set", "esd-x.iterations=2"]
    assert smaller(["run", "--prompts", "two.csv"]) == ["run", "--prompts", "two.csv"]


@pytest.mark.parametrize(
    ("comment", "mark"),
    [("hours", "hours"), ("your files: a table", "your files"), ("needs a network, once", "needs a network"), ("hourly", ""),
     ("needs a GPU of 80 GB", ""), ("only some categories", "")],
)  # fmt: skip
def test_a_mark_is_the_beginning_of_a_comment(comment: str, mark: str) -> None:
    assert marked(comment) == mark


def test_blocks_files_and_output_are_told_apart(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "    srbench list suites\n\n    # hours\n    srbench run --suite mma\n    make pocket\n\n"
        "    $ srbench compare results    # your files\n    srbench is said\n    error: no\n\n"
        "```\n    srbench in a file\n```\n\n- A list:\n\n      srbench show \\\n          uce\n\n"
        "    #!/bin/sh\n    srbench doctor\n"
    )
    found = commands_of(page)
    assert [(command.text, command.mark) for command in found] == [
        ("srbench list suites", ""), ("srbench run --suite mma", "hours"), ("make pocket", "hours"),
        ("srbench compare results", "your files"), ("srbench show uce", ""),
    ]  # fmt: skip
    assert found[3].shown == ("srbench is said", "error: no")


# --- how one is run -----------------------------------------------------------------------------------------------------------


def can_be_run(command: Command) -> bool:
    """Whether the slow test, or the CI, runs it as it stands: it holds nothing that a reader has to put in."""
    if command.text in BY_CI:
        return True
    whole = "..." not in command.text and "<" not in command.text
    return whole and command.words[0] in ("srbench", "python", "make")


def chosen(words: Sequence[str], option: str) -> list[str]:
    """What stands behind an option, cut at commas."""
    return words[words.index(option) + 1].split(",") if option in words else []


def smaller(words: Sequence[str]) -> list[str]:
    """The words of a srbench command, with limits where it has none: a study and a file of prompts are small as they are."""
    name, more = words[0], list[str]()
    if name == "run" and not words[1].endswith(".yaml") and not {"--limit", "--prompts", "--dry-run"} & set(words):
        more += ["--limit", "1"]
    if name == "attack" and "--limit" not in words:
        more += ["--limit", "1"]
    if name in ("run", "attack"):
        learns = {each.partition("#")[0].partition("~")[0] for each in chosen(words, "--on")}
        more += [word for each in sorted(learns & set(FAST)) for setting in FAST[each] for word in ("--set", setting)]
    elif name in ("erase", "train") and words[1] in FAST and "--set" not in words:
        more += [word for setting in FAST[words[1]] for word in ("--set", setting.removeprefix(f"{words[1]}."))]
    return [*words, *more]


def as_process(words: Sequence[str], folder: Path) -> list[str]:
    """What is started for the words of a command line in `folder`."""
    program, rest = words[0], list(words[1:])
    if program == "make":
        tools = Path(sys.executable).parent
        return ["make", "-o", f"{tools.parent}/.setup-done", f"VENV={tools.parent}", *rest]
    if program == "python":
        return [sys.executable, *rest]
    runs = sorted(each.name for each in (folder / "results" / "runs").glob("*"))
    named = [runs[-1] if RUN_NAME.match(word) else word for word in rest]
    return [sys.executable, "-m", "srbench", *smaller(named)]


def expected(command: Command) -> int:
    """The exit code that the page shows."""
    if command.text.startswith(PARTLY):
        return 1
    if "wandb" in command.words and not importlib.util.find_spec("wandb"):
        return 3
    if "mlflow" in command.words and not importlib.util.find_spec("mlflow"):
        return 3
    if not any(line.startswith(("error: ", "blocked: ")) for line in command.shown):
        return 0
    return 3 if any(line.startswith("hint: Fetch them") for line in command.shown) else 2


def refusal(command: Command) -> list[str]:
    """The lines of a refusal that a page shows, whole."""
    return [line for line in command.shown if line.startswith("error: ") and "..." not in line]


# --- what a page takes for granted --------------------------------------------------------------------------------------------


def own_run(out: str = "results") -> Callable[[Scratch], None]:
    return lambda scratch: scratch.must([*RUN, "--out", out])


def file(name: str, text: str) -> Callable[[Scratch], None]:
    return lambda scratch: scratch.write(name, text)


def made_elsewhere(scratch: Scratch) -> None:
    """Pictures named after the rows of a suite: one is missing, and one is a text."""
    rows = json.loads((ROOT / "suites" / "igmu" / "pocket-hazard.json").read_text(encoding="utf-8"))["rows"]
    ids = [row["id"] for row in rows]
    for method in ("none", "saferedir"):
        folder = scratch.folder / "made" / method
        folder.mkdir(parents=True)
        for number, each in enumerate(ids):
            Image.new("RGB", (64, 64), (number % 256, 90, 160)).save(folder / f"{each}.png")
    (scratch.folder / "made" / "none" / f"{ids[0]}.png").unlink()
    (scratch.folder / "made" / "none" / f"{ids[1]}.png").write_text("no picture")


def one_damaged(scratch: Scratch) -> None:
    own_run()(scratch)
    next((scratch.folder / "results" / "store" / "images").rglob("*.png")).write_bytes(b"damaged")


def renamed(scratch: Scratch) -> None:
    """Pocket with a text encoder whose tensors have other names."""
    from safetensors.torch import load_file, save_file

    from srbench.catalog.resolve import PACKAGE

    shutil.copytree(PACKAGE / "pocket" / "model", scratch.folder / "renamed")
    path = next((scratch.folder / "renamed" / "text_encoder").glob("*.safetensors"))
    save_file({f"x.{name}": value for name, value in load_file(path).items()}, path, metadata={"format": "pt"})


BEFORE: dict[str, tuple[Callable[[Scratch], None], ...]] = {
    "backbones.md": (renamed, file("ch2.csv", "prompt\na church on a beach\n")),
    "different-figures.md": (own_run(),),
    "elsewhere.md": (made_elsewhere, own_run()),
    "failures.md": (
        file("coco_sizes.csv", "prompt,width,height\na church on a beach,64,64\na church in the snow,60,44\na house,64,64\n"),
    ),
    "judging.md": (own_run(),),
    "report.md": (own_run(),),
    "store.md": (own_run("mine"), own_run("theirs"), one_damaged),
    "suites.md": (
        file("two.csv", "prompt,adv_prompt\na church,a chxrch\n"),
        file("merged.csv", "prompt,prompt\na church,a house\n"),
        file("both.csv", "sensitive prompt,normal prompt\na church,a house\n"),
    ),
}
NAMED = re.compile(r"^```\w+\n# (?P<name>[\w./-]+\.\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"`(?P<name>[\w-]+\.csv)`[^`]*(?:`\w+`[^`]*)*```csv\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
"""A table holds no comment: the sentence before it names it."""
PRESETS = re.compile(r"`(?P<presets>\"presets\": \{[^`]*\})`\s+in METHOD")
"""What a sentence adds to the METHOD of the file before it."""
KINDS = {"METHOD": "methods", "SCORER": "scorers", "ATTACK": "attacks"}


def files_of(page: Path) -> list[tuple[int, str, str]]:
    """The files that a page shows: the line that each ends at, its name, its text."""
    text = page.read_text(encoding="utf-8")
    found = [each for pattern in (NAMED, TABLE) for each in pattern.finditer(text)]
    files = [(text.count("\n", 0, each.end()) + 1, each["name"], each["text"]) for each in found]
    for added in PRESETS.finditer(text):
        line = text.count("\n", 0, added.end()) + 1
        _, name, before = max(each for each in files if each[0] < line)
        files.append((line, name, before.replace("METHOD = {", f"METHOD = {{{added['presets']}, ", 1)))
    return sorted(files)


class Scratch:
    """A folder that looks like a clone, in which a page's commands are run one after the other."""

    def __init__(self, tmp_path: Path, page: Path) -> None:
        self.folder, self.installed = tmp_path / "clone", tmp_path / "installed"
        self.log = tmp_path / "said.txt"
        self.files = files_of(page)
        for place in (self.folder / "docs", self.installed, tmp_path / "home"):
            place.mkdir(parents=True)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.folder / name)
        for table in (ROOT / "docs").glob("*.csv"):
            shutil.copy(table, self.folder / "docs")
        for name in ("runs", "store", "studies"):  # of who works in this clone
            shutil.rmtree(self.folder / "results" / name, ignore_errors=True)
        paths = os.pathsep.join([str(self.installed), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.environment = os.environ | {
            "PYTHONPATH": paths, "HOME": str(tmp_path / "home"), "MPLCONFIGDIR": str(tmp_path.parent / "matplotlib"),
            "COLUMNS": "100",
        }  # fmt: skip

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def show(self, line: int) -> None:
        """Write the files that the page shows before a line; install what is a plug-in."""
        for end, name, text in [each for each in self.files if each[0] < line]:
            kind = next((kind for variable, kind in KINDS.items() if f"\n{variable} = " in text), "")
            if kind:
                module = name.removesuffix(".py")
                shutil.rmtree(self.installed / f"{module}_{module}-1.0.dist-info", ignore_errors=True)
                wheel(self.installed, kind, module, text, module)
            else:
                self.write(name, text)
            self.files.remove((end, name, text))

    def run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        process = as_process(words, self.folder)
        done = subprocess.run(
            process, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=SECONDS
        )
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(words)}\n{done.stderr}{done.stdout}[exit code {done.returncode}]\n\n")
        return done

    def must(self, words: Sequence[str]) -> None:
        done = self.run(words)
        assert done.returncode == 0, done.stderr


def of_page(page: Path) -> list[Command]:
    return [command for command in commands_of(page) if not command.mark and command.text not in BY_CI]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if of_page(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, page)
    for prepare in BEFORE.get(page.name, ()):
        prepare(scratch)
    failed = []
    for command in of_page(page):
        scratch.show(command.line)
        done = scratch.run(command.words)
        said = done.stdout + done.stderr
        if done.returncode != expected(command):
            failed.append(f"{command}\nexit code {done.returncode}, not {expected(command)}\n{said[-3000:]}")
        failed += [f"{command}\ndid not say: {line}\n{said[-3000:]}" for line in refusal(command) if line not in said]
    assert not failed, "\n\n".join(failed)
