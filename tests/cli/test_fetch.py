"""`srbench fetch`: what it finds missing, what it says without a network, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from srbench import fetching
from srbench.catalog import load
from srbench.cli.main import app
from srbench.downloads import Download
from srbench.engine.fetch import FetchOptions, missing
from srbench.errors import UsageError

SD = ("--backbone", "sd14")


def call(*words: str) -> Any:
    return CliRunner().invoke(app, ["fetch", *words])


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def test_pocket_lacks_nothing() -> None:
    done = call("--method", "saferedir", "--suite", "igmu,mma", "--concept", "church")
    assert (done.exit_code, done.stderr.strip()) == (0, "nothing is missing")


def test_everything_that_a_run_lacks_is_found_with_its_download() -> None:
    checkpoints = ("rece-nudity", "esd-u-nudity")
    found = missing(FetchOptions("sd14", ("none",), ("i2p",), ("nudity",), on=checkpoints, scorers=("clip-l14",)))
    hubs = {each.hub: each for each in found.downloads if each.hub}
    assert {"CompVis/stable-diffusion-v1-4", "AIML-TUDA/i2p", "ChaoGong/RECE"} <= set(hubs)
    assert hubs["AIML-TUDA/i2p"].kind == "dataset"
    assert hubs["CompVis/stable-diffusion-v1-4"].revision == load.backbones()["sd14"].revision
    assert any(each.url for each in found.downloads)
    assert any("clip" in name for name in hubs)


def test_a_download_s_command_is_the_hint_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in missing(FetchOptions("sd14", on=tuple(load.baselines()))).downloads:
        assert each.command().startswith(("hf download ", "curl -fL "))


def test_without_a_network_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = call(*SD, "--dry-run")
    assert done.exit_code == 3
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]


def test_what_would_be_fetched_is_told_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "sized", lambda each: fetching.Sized(each, 4_300_000_000, 16))
    monkeypatch.setattr(fetching, "fetch", lambda *_: pytest.fail("nothing may be fetched"))
    done = call(*SD, "--dry-run")
    assert done.exit_code == 0
    assert "16 files, 4.3 GB  CompVis/stable-diffusion-v1-4" in done.stdout
    assert "4.3 GB in all" in done.stdout
    told = json.loads(call(*SD, "--dry-run", "--json").stdout)
    assert told["to_fetch"][0]["bytes"] == 4_300_000_000


def test_a_run_is_given_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[FetchOptions] = []
    monkeypatch.setattr("srbench.cli.fetch.missing", lambda options: asked.append(options) or missing(FetchOptions()))
    done = call("--for", "srbench run --method none,sld-max --backbone sd14 --suite i2p --on rece-nudity --set sld.warmup=3")
    assert done.exit_code == 0
    assert asked == [FetchOptions("sd14", ("none", "sld-max"), ("i2p",), (), ("rece-nudity",), (), ("sld.warmup=3",))]


@pytest.mark.parametrize(("words", "why"), [
    (("--on", "rece-nudit"), "Did you mean 'rece-nudity'"), (("--scorers", "clip-l1"), "Did you mean 'clip-l14'"),
    (("--suite", "i2q"), "Did you mean 'i2p'"), (("--for", "score"), "it has to begin with 'run'"),
    (("--for", "run --metod none"), "No such option"), (("--for", "run", "--suite", "mma"), "--for says all"),
    (("--for", "run --limit x"), "valid integer"),
    (("--for", "run 'x"), "No closing quotation"),
])  # fmt: skip
def test_bad_words_are_one_line(words: tuple[str, ...], why: str) -> None:
    done = call(*words)
    assert done.exit_code == 2
    assert why in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_what_a_person_has_to_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    done = call("--scorers", "q16", "--dry-run")
    assert done.exit_code == 3
    assert "nothing fetches it: q16" in done.stderr


def test_a_round_of_downloads_is_looked_at_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What shows only once another thing is there is fetched in the next round, and nothing twice."""
    first, second = (Download(url=f"https://nowhere/{name}", path=tmp_path / name) for name in ("a", "b"))
    fetched: list[str] = []

    def looked(options: Any) -> Any:
        from srbench.engine.fetch import Missing

        return Missing(tuple(each for each, there in ((first, "a"), (second, "b")) if there not in fetched and
                             (there == "a" or "a" in fetched)), ())  # fmt: skip

    monkeypatch.setattr("srbench.cli.fetch.missing", looked)
    monkeypatch.setattr(fetching, "sized", lambda each: fetching.Sized(each, 3, 1))
    monkeypatch.setattr(fetching, "fetch", lambda each, tell: fetched.append(each.path.name) or each.path)
    done = call()
    assert (done.exit_code, fetched) == (0, ["a", "b"])


def test_a_run_fetches_first_and_says_itself_what_is_still_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[FetchOptions] = []
    began: list[Any] = []

    def fetched(options: FetchOptions, dry_run: bool, as_json: bool, line: Any) -> int:
        asked.append(options)
        return 3

    def run(options: Any, as_json: bool) -> int:
        began.append(options)
        return 1

    monkeypatch.setattr("srbench.cli.fetch.fetch", fetched)
    monkeypatch.setattr("srbench.cli.run.run", run)
    words = ("--method", "none,sld-max", "--suite", "i2p", "--concept", "nudity", "--on", "rece-nudity", "--scorers", "clip-l14")
    done = CliRunner().invoke(app, ["run", *SD, *words, "--protocol", "q16", "--dev", "--fetch"])
    assert (done.exit_code, len(began)) == (1, 1)
    parts = {"on": ("rece-nudity",), "scorers": ("clip-l14",), "protocol": "q16", "dev": True}
    assert asked == [FetchOptions("sd14", ("none", "sld-max"), ("i2p",), ("nudity",), **parts)]


@pytest.mark.parametrize("on", ["esd-x#0..2", "uce~8", "esd-x#1~8:other", "none"])
def test_what_a_run_makes_itself_is_skipped(on: str) -> None:
    assert missing(FetchOptions("pocket", ("none",), ("igmu",), ("church",), on=(on,))).downloads == ()


def test_a_path_is_skipped_and_an_unknown_name_is_not(tmp_path: Path) -> None:
    assert missing(FetchOptions("pocket", on=(str(tmp_path),))).downloads == ()
    with pytest.raises(UsageError, match="unknown checkpoint 'nothing'"):
        missing(FetchOptions("pocket", on=("nothing",)))


def test_auto_is_stable_diffusion() -> None:
    assert any(each.hub == "CompVis/stable-diffusion-v1-4" for each in missing(FetchOptions("auto")).downloads)


def test_the_judge_that_is_asked_for_is_looked_for() -> None:
    options = FetchOptions("pocket", ("none",), ("igmu",), ("church",), protocol="igmu-church")
    assert any("head" in line for line in missing(options).by_hand)


def test_a_study_is_fetched_for_run_by_run(tmp_path: Path) -> None:
    for words in (("fetch", "--for", "run x.yaml"), ("run", "x.yaml", "--fetch")):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2
        assert "Fetch for each of its runs" in done.stderr


def test_with_a_dry_run_stdout_stays_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "sized", lambda each: fetching.Sized(each, 1000, 1))
    words = ("--suite", "igmu", "--concept", "church", "--scorers", "lpips", "--fetch", "--dry-run", "--json")
    done = CliRunner().invoke(app, ["run", *words])
    assert "cells" in json.loads(done.stdout)


def test_a_run_goes_on_once_all_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srbench.cli.run.run", lambda options, as_json: 0)
    done = CliRunner().invoke(app, ["run", "--suite", "igmu", "--concept", "church", "--fetch"])
    assert (done.exit_code, done.stderr.strip()) == (0, "nothing is missing")
