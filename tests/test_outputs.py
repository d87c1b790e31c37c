"""What commands write: nothing is replaced or removed that they have not made, and nothing of a result is half there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from srbench import outputs
from srbench.errors import UsageError
from srbench.outputs import MARKER, REPORT, OutputFolder, check_file, check_folder, write_file, write_into, written_folder

KIND = OutputFolder("srbench test")
PAGE = b'<meta name="generator" content="srbench 0.1.0">'


def written(folder: Path, **contents: bytes) -> None:
    """As a command writes a folder: weights and a card."""
    with written_folder(folder, KIND) as fresh:
        for name, data in contents.items():
            (fresh / name.replace("__", ".")).write_bytes(data)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_appears_whole_and_is_replaced_as_often_as_one_likes(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    written(out, w__bin=b"1", old__bin=b"2", card__json=b"{}")
    assert names(out) == [MARKER, "card.json", "old.bin", "w.bin"]
    written(out, w__bin=b"3", card__json=b"{ }")
    assert names(out) == [MARKER, "card.json", "w.bin"]  # what was ours and is none of the new ones is gone
    assert (out / "w.bin").read_bytes() == b"3"
    assert names(out.parent) == ["out"]


def note(out: Path) -> None:
    (out / "notes.txt").write_text("mine")


def weights(out: Path) -> None:
    (out / "other.safetensors").write_bytes(b"mine")


def card(out: Path) -> None:
    (out / "card.json").write_text('{"mine": 1}')


def link(out: Path) -> None:
    (out / "w.bin").unlink()
    (out / "w.bin").symlink_to(out / "card.json")


def inner(out: Path) -> None:
    (out / "sub").mkdir()


def another(out: Path) -> None:
    said = json.loads((out / MARKER).read_text())
    (out / MARKER).write_text(json.dumps(said | {"made_by": "srbench other"}))


def torn(out: Path) -> None:
    (out / MARKER).write_text('{"made_by": "srbench te')


def unmarked(out: Path) -> None:
    (out / MARKER).unlink()


@pytest.mark.parametrize("meddle", [note, weights, card, link, inner, another, torn, unmarked])
def test_a_folder_with_anything_else_in_it_stays_as_it_is(tmp_path: Path, meddle: Callable[[Path], None]) -> None:
    out = tmp_path / "out"
    written(out, w__bin=b"1", card__json=b"{}")
    meddle(out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(UsageError, match="srbench"):
        check_folder(out, KIND)
    with pytest.raises(UsageError):
        written(out, w__bin=b"2", card__json=b"{}")
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_what_comes_into_the_folder_during_the_work_stops_the_writing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="diary"), written_folder(out, KIND) as fresh:  # noqa: PT012
        (fresh / "card.json").write_bytes(b"{}")
        out.mkdir()
        (out / "diary").write_text("mine")
    assert names(out) == ["diary"]
    assert names(tmp_path) == ["out"]


def test_a_failed_work_leaves_what_was_there(tmp_path: Path) -> None:
    written(tmp_path / "out", w__bin=b"1", card__json=b"{}")
    with pytest.raises(ValueError, match="no"), written_folder(tmp_path / "out", KIND) as fresh:  # noqa: PT012
        (fresh / "w.bin").write_bytes(b"2")
        raise ValueError("no")
    assert (tmp_path / "out" / "w.bin").read_bytes() == b"1"
    check_folder(tmp_path / "out", KIND)


@pytest.mark.parametrize("stop", range(8))
def test_a_kill_while_files_are_moved_leaves_a_folder_that_is_still_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    out = tmp_path / "out"
    written(out, w__bin=b"1", old__bin=b"2", card__json=b"{}")
    steps = iter(range(99))

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **kwargs: object) -> object:
            if next(steps) == stop:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return step

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        written(out, w__bin=b"3", card__json=b"{ }")
        raise KeyboardInterrupt  # where there were fewer steps
    if (out / "card.json").exists():  # then all that it speaks of is there
        assert (out / "w.bin").read_bytes() == {b"{}": b"1", b"{ }": b"3"}[(out / "card.json").read_bytes()]
    written(out, w__bin=b"4", card__json=b"{  }")
    assert names(out) == [MARKER, "card.json", "w.bin"]


def test_links_and_special_files_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "gone", "file", "fifo"):
        with pytest.raises(UsageError, match=name):
            check_folder(tmp_path / name, KIND)
    check_folder(tmp_path / "link" / "below", KIND)  # a link above is somebody's way of keeping things


def test_an_earlier_version_is_known_by_a_card_with_hashes_and_by_nothing_less(tmp_path: Path) -> None:
    kind = OutputFolder("srbench test", earlier=lambda folder: json.loads((folder / "card.json").read_text())["files"])
    out = tmp_path / "out"
    out.mkdir()
    (out / "w.bin").write_bytes(b"1")
    (out / "card.json").write_text(json.dumps({"files": {"w.bin": hashlib.sha256(b"1").hexdigest()}}))
    with pytest.raises(UsageError, match=r"holds card\.json"):  # nothing vouches for the card itself
        check_folder(out, kind)
    for damaged in ("[]", "{}", "null", "\x00", '{"files": 3}', '{"files": {"w.bin": 3}}'):
        (out / "card.json").write_text(damaged)
        with pytest.raises(UsageError):
            check_folder(out, kind)


def test_the_first_to_make_what_is_kept_by_content_wins(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with written_folder(out, KIND, first_wins=True) as fresh:
        (fresh / "card.json").write_bytes(b"second")
        written(out, card__json=b"first")
    assert (out / "card.json").read_bytes() == b"first"
    assert names(tmp_path) == ["out"]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_with_our_mark_is_replaced_and_no_other(tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    write_file(page, PAGE, REPORT)
    write_file(page, PAGE + b"2", REPORT)
    assert page.read_bytes() == PAGE + b"2"
    for other in (b"", b"mine", b"<title>srbench report</title>"):
        page.write_bytes(other)
        with pytest.raises(UsageError, match="did not write it"):
            write_file(page, PAGE, REPORT)
        assert page.read_bytes() == other


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder", "device", "inside a file", "inside a device"])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "r.html"
    (tmp_path / "real").write_bytes(PAGE)
    if kind == "link":
        path.symlink_to(tmp_path / "real")
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        null = Path("/dev/null")
        path = {"device": null, "inside a file": tmp_path / "real" / "r", "inside a device": null / "r"}[kind]
    before = path.lstat() if os.path.lexists(path) else None
    with pytest.raises(UsageError) as error:
        check_file(path, REPORT)
    with pytest.raises(UsageError):
        write_file(path, PAGE, REPORT)
    assert "\n" not in error.value.line
    assert (path.lstat().st_mode if os.path.lexists(path) else None) == (before.st_mode if before else None)
    assert (tmp_path / "real").read_bytes() == PAGE


@pytest.mark.parametrize("kind", ["file", "fifo", "folder", "among others"])
def test_a_path_out_of_a_folder_that_is_not_there_is_refused(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "missing" / ".." / "mine"
    mine = tmp_path / "mine"
    if kind == "fifo":
        os.mkfifo(mine)
    elif kind == "file":
        mine.write_text("mine")
    else:
        mine.mkdir()
        (mine / "t.md").write_text("mine")
    before = mine.lstat()
    write = {
        "folder": lambda: written(out, card__json=b"{}"),
        "among others": lambda: write_into(out, {"t.md": b"ours"}, "srbench test", "-o"),
    }.get(kind, lambda: write_file(out, PAGE, REPORT))
    with pytest.raises(UsageError, match="missing is no folder"):
        write()
    assert (mine.lstat().st_mode, mine.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert names(tmp_path) == ["mine"]
    assert kind == "fifo" or (mine / "t.md" if mine.is_dir() else mine).read_text() == "mine"


def test_a_path_may_climb_out_of_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    write_file(tmp_path / "there" / ".." / "page.html", PAGE, REPORT)
    assert names(tmp_path) == ["page.html", "there"]


@pytest.mark.parametrize("name", ["n" * 250, "a" * 300, "a/" * 3000 + "b"])
def test_a_name_of_any_length_is_written_or_refused_before_the_work(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    try:
        check_file(path, REPORT)
    except UsageError:
        return
    write_file(path, PAGE, REPORT)
    assert path.read_bytes() == PAGE


def test_a_folder_that_cannot_be_written_is_refused_before_the_work() -> None:
    for folder in ("/proc/self", "/sys/kernel"):
        if Path(folder).is_dir():
            with pytest.raises(UsageError, match="cannot write here"):
                check_file(Path(folder) / "r.html", REPORT)
            with pytest.raises(UsageError, match="cannot write here"):
                check_folder(Path(folder) / "out", KIND)
            with pytest.raises(UsageError, match="cannot write here"):
                outputs.check_results(Path(folder) / "out")


# --- files among others -----------------------------------------------------------------------------------------------


def test_files_among_others_are_replaced_where_they_are_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("mine")
    write_into(tmp_path, {"a.md": b"1"}, "srbench tables", "-o")
    write_into(tmp_path, {"b.md": b"1"}, "srbench tables", "-o")
    write_into(tmp_path, {"a.md": b"2", "b.md": b"2"}, "srbench tables", "-o")
    assert (tmp_path / "a.md").read_bytes() == (tmp_path / "b.md").read_bytes() == b"2"
    (tmp_path / "b.md").write_text("edited")
    with pytest.raises(UsageError, match=r"b\.md: was changed"):
        write_into(tmp_path, {"a.md": b"3", "b.md": b"3"}, "srbench tables", "-o")
    with pytest.raises(UsageError, match=r"mine\.md: is there already"):
        write_into(tmp_path, {"a.md": b"3", "mine.md": b"3"}, "srbench tables", "-o")
    assert (tmp_path / "a.md").read_bytes() == b"2"  # nothing is written where one may not be
    write_into(tmp_path, {"mine.md": b"mine"}, "srbench tables", "-o")  # the same already: nothing is lost
    assert (tmp_path / "mine.md").read_text() == "mine"


def test_a_link_among_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("mine")
    (tmp_path / "a.md").symlink_to(tmp_path / "real")
    with pytest.raises(UsageError, match="link"):
        write_into(tmp_path, {"a.md": b"1"}, "srbench tables", "-o")
    assert (tmp_path / "real").read_text() == "mine"
