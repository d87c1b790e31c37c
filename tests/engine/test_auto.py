"""`--backbone auto`: Stable Diffusion only where all of it is at hand, and otherwise every reason with what mends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srbench.catalog import plugins, sources
from srbench.engine import auto
from srbench.engine.auto import choose
from srbench.engine.request import RunOptions
from srbench.errors import MissingError, UsageError


def options(**changes: Any) -> RunOptions:
    chosen: dict[str, Any] = {
        "methods": ("none", "saferedir"), "suites": ("igmu", "unlearndiffatk"), "concepts": ("church",),
    }
    return RunOptions(**(chosen | changes))


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with the weights, the prompts and a redirector."""
    monkeypatch.setattr(auto, "locate", lambda spec: Path("here"))
    monkeypatch.setattr(sources, "locate", lambda suite, edition, file: Path("here"))
    monkeypatch.setattr(plugins.load("methods", "saferedir"), "prepare", staticmethod(lambda *given: None))
    return monkeypatch


def lacks(message: str) -> Any:
    def missing(*given: Any) -> Any:
        raise MissingError(message, f"fetch {message}")

    return missing


@pytest.mark.parametrize("concepts", [("church",), ()])
def test_with_everything_at_hand_it_is_stable_diffusion(everything: Any, concepts: tuple[str, ...]) -> None:
    choice = choose(options(concepts=concepts), cuda=True)
    assert choice.name == "sd14"
    assert len(choice.lines) == 1


def test_one_thing_missing_is_enough_for_pocket(everything: Any) -> None:
    reasons = {"cuda": "no CUDA device", "weights": "no weights", "prompts": "no prompts", "redirector": "no redirector"}
    for thing, reason in reasons.items():
        with everything.context() as patched:
            if thing == "weights":
                patched.setattr(auto, "locate", lacks(reason))
            if thing == "prompts":
                patched.setattr(sources, "locate", lacks(reason))
            if thing == "redirector":
                patched.setattr(plugins.load("methods", "saferedir"), "prepare", staticmethod(lacks(reason)))
            choice = choose(options(), cuda=thing != "cuda")
        assert choice.name == "pocket", thing
        others = set(reasons.values()) - {reason}
        assert reason in choice.lines[0]
        assert not any(other in choice.lines[0] for other in others)
        assert any(line.startswith("hint: ") for line in choice.lines[1:])


def test_the_user_s_own_copy_is_enough_for_a_suite(everything: Any) -> None:
    everything.setattr(sources, "locate", lacks("no prompts"))
    assert choose(options(suites=("i2p",), prompts=Path("mine.csv")), cuda=True).name == "sd14"


def test_on_a_bare_machine_every_reason_has_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choice = choose(options(), cuda=False)
    said = "\n".join(choice.lines)
    assert choice.name == "pocket"
    for part in (
        "no CUDA device", "hf download CompVis/stable-diffusion-v1-4 --revision 133a221b", "forgot.json", "church.csv",
        "srbench train saferedir --backbone sd14 --concept church",
    ):
        assert part in said, part


def test_a_concept_of_pocket_alone_is_a_reason(everything: Any) -> None:
    choice = choose(options(concepts=("hazard",)), cuda=True)
    assert (choice.name, "does not know concept 'hazard'" in choice.lines[0]) == ("pocket", True)


@pytest.mark.parametrize(("changes", "message"), [
    ({"concepts": ("hazzard",)}, "unknown concept"), ({"suites": ("igum",)}, "unknown suite"),
    ({"methods": ("safredir",)}, "unknown method"),
])  # fmt: skip
def test_unknown_names_are_refused(everything: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(options(**changes), cuda=True)
