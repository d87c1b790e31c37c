"""Downloads against a server on this machine: cut off, wrong, moved, refused, gone, slow, no room, two at once."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from srbench import fetching
from srbench.downloads import Download
from srbench.errors import MissingError, UsageError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """What the paths answer, and what was asked for."""

    daemon_threads = True
    asked: list[tuple[str, str, str | None]]
    cuts: int
    """How many answers are cut off in the middle."""
    tag: str


class Answers(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, body: bool) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.command, self.path, asked))
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/file.bin")
            self.end_headers()
            return
        if self.path.strip("/").isdigit():
            self.send_error(int(self.path.strip("/")))
            return
        start = 0
        if asked and self.headers.get("If-Range") == self.server.tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        if body and self.server.cuts > 0:
            self.server.cuts -= 1
            self.wfile.write(CONTENT[start : start + 300_000])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        elif body:
            self.wfile.write(CONTENT[start:])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "WAIT_S", 0.01)
    monkeypatch.setenv("no_proxy", "*")
    serving = Server(("127.0.0.1", 0), Answers)
    serving.asked, serving.cuts, serving.tag = [], 0, '"one"'
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()


def download(server: Server, folder: Path, path: str = "file.bin", sha: str = SHA) -> Download:
    return Download(url=f"http://127.0.0.1:{server.server_port}/{path}", path=folder / "cache" / "file.bin", sha256=sha)


def quiet(phase: str, done: int, total: int, note: str) -> None:
    """Nothing."""


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache").glob("*") if path.suffix != ".lock")


def test_a_file_arrives_and_is_told_of_as_it_comes(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = fetching.fetch(download(server, tmp_path), lambda phase, done, total, note: told.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert left(tmp_path) == ["file.bin"]


def test_what_is_there_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    fetching.fetch(download(server, tmp_path), quiet)
    server.asked.clear()
    fetching.fetch(download(server, tmp_path), quiet)
    assert not server.asked


def test_a_connection_that_is_cut_off_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.cuts = 2
    assert fetching.fetch(download(server, tmp_path), quiet).read_bytes() == CONTENT
    assert [asked for _, _, asked in server.asked] == [None, "bytes=300000-", "bytes=600000-"]


def test_one_that_is_cut_off_again_and_again_is_given_up_and_gone_on_with_later(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TRIES", 2)
    server.cuts = 2
    with pytest.raises(MissingError, match="no connection"):
        fetching.fetch(download(server, tmp_path), quiet)
    assert left(tmp_path) == ["file.bin.part", "file.bin.part.json"]
    assert fetching.sized(download(server, tmp_path)).size == len(CONTENT) - 600_000
    assert fetching.fetch(download(server, tmp_path), quiet).read_bytes() == CONTENT
    assert server.asked[-1][2] == "bytes=600000-"


def test_the_begun_part_of_another_version_is_no_beginning(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "cache" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    part.with_name("file.bin.part.json").write_text(json.dumps({"mark": '"older"'}))
    assert fetching.fetch(download(server, tmp_path), quiet).read_bytes() == CONTENT


@pytest.mark.parametrize("mark", ["", "[]", "{", '{"mark": "\\"one\\""}'])
def test_a_damaged_beginning_is_found_by_the_hash_or_begun_anew(server: Server, tmp_path: Path, mark: str) -> None:
    part = tmp_path / "cache" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * (len(CONTENT) + 5))
    part.with_name("file.bin.part.json").write_text(mark)
    assert fetching.fetch(download(server, tmp_path), quiet).read_bytes() == CONTENT


def test_a_file_with_another_hash_is_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"its sha256 is {SHA[:12]}"):
        fetching.fetch(download(server, tmp_path, sha="0" * 64), quiet)
    assert left(tmp_path) == []


def test_the_first_digits_of_a_hash_are_enough(server: Server, tmp_path: Path) -> None:
    fetching.fetch(download(server, tmp_path, sha=SHA[:8]), quiet)
    with pytest.raises(UsageError, match="sha256"):
        fetching.fetch(download(server, tmp_path / "other", sha="00000000"), quiet)


def test_a_moved_file_is_followed(server: Server, tmp_path: Path) -> None:
    assert fetching.fetch(download(server, tmp_path, "moved"), quiet).read_bytes() == CONTENT


@pytest.mark.parametrize(("code", "why"), [(403, "refuses access"), (401, "refuses access"), (404, "not there any more"),
                                           (418, "answered 418"), (503, "answered 503")])  # fmt: skip
def test_a_refusal_is_one_line(server: Server, tmp_path: Path, code: int, why: str) -> None:
    with pytest.raises(MissingError, match=why) as caught:
        fetching.fetch(download(server, tmp_path, str(code)), quiet)
    assert "\n" not in caught.value.line
    assert caught.value.downloads
    assert left(tmp_path) == []


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "WAIT_S", 0.01)
    lost = Download(url="http://127.0.0.1:9/x", path=tmp_path / "x")
    for call in (lambda: fetching.sized(lost), lambda: fetching.fetch(lost, quiet)):
        with pytest.raises(MissingError, match="no connection") as caught:
            call()
        assert "curl -fL" in caught.value.hint


def test_one_that_falls_silent_is_given_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(fetching, "TRIES", 1)
    silent = threading.Event()
    monkeypatch.setattr(Answers, "do_GET", lambda self: silent.wait(5))
    with pytest.raises(MissingError, match="no connection"):
        fetching.fetch(download(server, tmp_path), quiet)
    silent.set()


def test_no_room_is_said_before_anything_is_fetched(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    sizes = [fetching.sized(download(server, tmp_path))]
    with pytest.raises(UsageError, match=r"1.0 kB are free, and 1.0 MB are to be fetched"):
        fetching.check_space(sizes)


def test_a_full_disk_keeps_what_has_come(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(phase: str, done: int, total: int, note: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "file.bin.part")

    with pytest.raises(UsageError, match="No space left"):
        fetching.fetch(download(server, tmp_path), full)
    assert "file.bin.part" in left(tmp_path)
    assert fetching.fetch(download(server, tmp_path), quiet).read_bytes() == CONTENT


def test_two_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(fetching.fetch(download(server, tmp_path), quiet))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 3
    assert paths[0].read_bytes() == CONTENT
    assert len(server.asked) == 1


@pytest.mark.parametrize(("size", "text"), [(5, "5 bytes"), (1500, "1.5 kB"), (4_300_000_000, "4.3 GB")])
def test_sizes_for_people(size: int, text: str) -> None:
    assert fetching.in_bytes(size) == text


@pytest.mark.parametrize("wrong", [{}, {"hub": "a/b", "url": "https://x", "path": Path("x")}, {"url": "https://x"}])
def test_a_download_is_of_one_place(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a repository, or of an address"):
        Download(**wrong)


# --- a hub --------------------------------------------------------------------------------------------------------------

COMMIT = "c" * 40
FILES = {
    "config.json": b'{"a": 1}', "unet/weights.bin": b"weights" * 999, "unet/config.json": b"{}", "text/weights.bin": b"words",
}
LARGE = "weights.bin"
"""Files of that name are kept beside git, with their sha256."""


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that downloads use: a repository's tree, and its files."""

    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, body: bool) -> None:
        self.server.asked.append((self.command, self.path, None))
        _, _, rest = self.path.partition("/resolve/")
        if "/gated" in self.path:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif "/nobody" in self.path:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/down" in self.path:
            self._send(418, b"", {})
        elif "/api/" in self.path and "/tree/" in self.path:
            self._send(200, json.dumps([_entry(name, data) for name, data in FILES.items()]).encode(), {}, body)
        elif rest:
            name = rest.partition("/")[2]
            data = FILES[name]
            tag = hashlib.sha256(data).hexdigest() if name.endswith(LARGE) else hashlib.sha1(data).hexdigest()
            sent = data if self.server.tag != "damaged" or not name.endswith(LARGE) else data[::-1]
            self._send(200, sent, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data))}, body)
        else:
            self._send(404, b"", {})

    def _send(self, code: int, data: bytes, headers: dict[str, str], body: bool = True) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    serving = Server(("127.0.0.1", 0), Hub)
    serving.asked, serving.cuts, serving.tag = [], 0, ""
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{serving.server_port}")
    monkeypatch.setenv("no_proxy", "*")
    for name, value in (("HF_HUB_OFFLINE", False), ("HF_HUB_CACHE", str(tmp_path / "hub"))):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()


def test_a_repository_arrives_in_the_hub_s_own_cache(hub: Server, tmp_path: Path) -> None:
    whole = Download(hub="somebody/model", revision=COMMIT)
    assert fetching.sized(whole) == fetching.Sized(whole, sum(map(len, FILES.values())), len(FILES))
    folder = fetching.fetch(whole, quiet)
    assert folder.name == COMMIT
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == FILES
    assert fetching.sized(whole).size == 0


def test_only_the_files_that_are_asked_for_come(hub: Server) -> None:
    path = fetching.fetch(Download(hub="somebody/model", files=("config.json",), revision=COMMIT), quiet)
    assert path.read_bytes() == FILES["config.json"]
    folder = fetching.fetch(Download(hub="somebody/model", include=("unet/*",), revision=COMMIT), quiet)
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "config.json", "unet/config.json", "unet/weights.bin"
    ]  # fmt: skip


@pytest.mark.parametrize(("repository", "why", "hint"), [
    ("gated/model", "given on request", "hf auth login"), ("nobody/model", "no such repository", "hf auth login"),
    ("down/model", "answered 418", "Try again later"),
])  # fmt: skip
def test_a_hub_that_refuses_is_one_line(hub: Server, repository: str, why: str, hint: str) -> None:
    for call in (fetching.sized, lambda each: fetching.fetch(each, quiet)):
        with pytest.raises(MissingError, match=why) as caught:
            call(Download(hub=repository, revision=COMMIT))
        assert hint in caught.value.hint
        assert "\n" not in caught.value.line


@pytest.mark.parametrize("wanted", [{"files": ("weights.pt",)}, {"include": ("vae/*",)}])
def test_a_repository_without_the_files_is_one_line(hub: Server, wanted: dict[str, Any]) -> None:
    with pytest.raises(MissingError, match=r"it has no weights\.pt|it holds no such files"):
        fetching.fetch(Download(hub="somebody/model", revision=COMMIT, **wanted), quiet)


def test_a_large_file_with_another_hash_than_the_hub_states_is_removed(hub: Server, tmp_path: Path) -> None:
    hub.tag = "damaged"
    wanted = Download(hub="somebody/model", files=("unet/weights.bin",), revision=COMMIT)
    with pytest.raises(UsageError, match="it was removed"):
        fetching.fetch(wanted, quiet)
    hub.tag = ""
    assert fetching.fetch(wanted, quiet).read_bytes() == FILES["unet/weights.bin"]


def test_without_a_network_the_hub_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MissingError, match="no connection") as caught:
        fetching.sized(Download(hub="somebody/model", revision=COMMIT))
    assert "hf download somebody/model" in caught.value.hint
    assert caplog.records == [], "the library asks again and again, and says each time"
