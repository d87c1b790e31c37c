"""Progress of calls from Python: a script's bars, and a notebook's one output."""

from __future__ import annotations

import re
from typing import Any

import pytest

from srbench import progress
from srbench.cli import progress as lines


class Drawn(progress.Page):
    """Keeps what it would display."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[str] = []

    def _draw(self, at_once: bool = True) -> None:
        self.pages.append(self._html())


def test_outside_of_a_notebook_there_is_no_page() -> None:
    assert type(progress.reporter(False)) is progress.Quiet
    assert type(progress.reporter(True)) is progress.Bars


def test_a_notebook_s_shell_is_told_by_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    ipython = pytest.importorskip("IPython")
    for kernel, kind in ((None, progress.Bars), (object(), progress.Page)):
        shell = type("Shell", (), {"kernel": kernel})()
        monkeypatch.setattr(ipython, "get_ipython", lambda shell=shell: shell)
        assert type(progress.reporter(True)) is kind


def run(shown: Any, images: int, done: int) -> None:
    shown.line("first")
    with shown.telling("making ready") as tell:
        for phase in ("a", "b"):
            for i in range(201):
                tell(phase, i, 200, f"loss {i}")
    shown.begin(2, images)
    for _ in range(done):
        shown.images(1)
        shown.cell("a <b>cell</b>")
    shown.line("between")
    shown.end()
    shown.line("last")


def test_a_log_is_not_flooded(capsys: pytest.CaptureFixture[str]) -> None:
    run(progress.Bars(), 500, 500)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.replace("\r", "\n").splitlines()
    assert [line for line in lines if line in ("first", "between", "last")] == ["first", "between", "last"]
    assert "500/500" in said.err
    assert len(lines) < 30


def test_a_page_ends_with_lines_alone_and_escapes_them() -> None:
    page = Drawn()
    run(page, 5, 5)
    page.line("<img src=x>\x1b[31m")
    assert any("making ready: b 200/200" in each for each in page.pages)
    assert any('<progress value="3" max="5">' in each and "&lt;b&gt;cell" in each for each in page.pages)
    end = page.pages[-1]
    assert "<progress" not in end
    assert re.search(r"first\nbetween\nimages 5/5, in \d+ s\nlast\n&lt;img src=x&gt;", end)
    assert "\x1b" not in end
    assert not any("<img" in each or "<b>cell" in each for each in page.pages)


def test_a_page_of_a_run_that_was_interrupted_says_how_far_it_was() -> None:
    page = Drawn()
    run(page, 5, 2)
    assert re.search(r"images 2/5, in \d+ s, stopped\n", page.pages[-1])


def test_a_slow_pace_is_seconds_an_image_and_none_is_told_before_the_first() -> None:
    assert progress.pace(0, 5.0) == ""
    assert progress.pace(30, 10.0) == "3.0 images/s"
    assert progress.pace(1, 20.0) == "20.0 s an image"


def test_lines_for_pipes_never_say_that_there_is_no_pace(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines.Plain()
    shown.begin(1, 2)
    shown.began -= 40
    for count in (0, 1, 1):
        shown.printed_at = -100.0
        shown.images(count)
    assert capsys.readouterr().err.splitlines() == [
        "0/2 images", "1/2 images, 40.0 s an image, 40 s left", "2/2 images, 20.0 s an image, 0 s left",
    ]  # fmt: skip
