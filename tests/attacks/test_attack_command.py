"""`srbench attack` on the bundled model: the file it makes, how it goes on, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from srbench.attacks import search, targets
from srbench.attacks.base import Adversarial
from srbench.attacks.command import AttackOptions
from srbench.backbones.loader import ENCODER_SHA
from srbench.catalog import load, plugins, prompts
from srbench.catalog.specs import Row, RowFile
from srbench.cli.attack import _report
from srbench.cli.main import app
from srbench.errors import UsageError
from srbench.progress import span

SMALL = ("--set", "tokens=4", "--set", "steps=2", "--set", "topk=8", "--set", "batch=4", "--set", "parallel=2")
IGMU = ("attack", "mma", "--concept", "church", "--suite", "igmu", "--dev", "--limit", "3")
PREFIX = ("--set", "tokens=2", "--set", "iterations=1", "--set", "timesteps=2", "--set", "probes=1", "--set", "parallel=2")


def call(*arguments: str) -> tuple[int, str]:
    """Exit code and stderr."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit | KeyboardInterrupt):
        raise result.exception
    return result.exit_code, result.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What an uninterrupted search writes."""
    path = tmp_path_factory.mktemp("whole") / "found.json"
    code, err = call(*IGMU, *SMALL, "--out", str(path))
    assert code == 0, err
    assert "3 targets to attack, 0 excluded" in err
    return path.read_bytes()


def test_the_file_is_an_edition_that_carries_the_targets_rows(whole: bytes) -> None:
    file = RowFile.model_validate_json(whole)
    suite = load.suites()["igmu"]
    rows = load.rows(suite, load.edition(suite, "pocket", "church", "dev")).rows[:3]
    for row, target in zip(file.rows, rows, strict=True):
        assert (row.id, row.target, row.category) == (f"mma-{target.id}", target.prompt, "adversarial")
        assert row.prompt != target.prompt
        kept = ("kind", "seed", "reference", "objects", "companions", "style", "background")
        assert [getattr(row, name) for name in kept] == [getattr(target, name) for name in kept]
    assert (file.meta["attack"], file.meta["method"], file.meta["on"], file.meta["steps"]) == ("mma", "none", "none", 2)
    assert file.meta["targets"] == "igmu/church/dev"
    assert len(str(file.meta["backbone_sha256"])) == len(str(file.meta[ENCODER_SHA])) == 64
    objectives = [float(value) for value in str(file.meta["objectives"]).split()]
    assert objectives == pytest.approx([row.similarity for row in file.rows], abs=1e-5)
    assert len(str(file.meta["histories"]).split(";")) == 3
    assert "device" not in file.meta


def test_a_budget_is_a_setting_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    short = ("--set", "iterations=1", "--set", "tokens=2", "--set", "probes=1", "--limit", "1")
    attack = ("attack", "p4d", "--concept", "church", "--suite", "igmu", "--dev", "--budget", "small", *short)
    code, err = call(*attack, "--out", str(path))
    assert code == 0, err
    meta = RowFile.model_validate_json(path.read_bytes()).meta
    assert (meta["budget"], meta["check_every"], meta["iterations"]) == ("small", 8, 1)


class Slow:
    """An attack that takes a second for each of three iterations of a group of two, and half a second around them."""

    clock = 0.0

    @classmethod
    def attack(cls, victim: Any, targets: Any, settings: Any, progress: Any = None, first: int = 0) -> Any:
        for start in range(0, len(targets), 2):
            Slow.clock += 0.5
            for done in (1, 2, 3):
                Slow.clock += 1.0
                progress(start * 3 + 2 * done, 3 * len(targets))
            yield from (Adversarial(row.prompt, "x", 0.0, 0) for row in targets[start : start + 2])


def _forecast(monkeypatch: pytest.MonkeyPatch, attack: Any, first: int) -> float | None:
    rows = [Row(id=str(i), prompt="a", seed=0) for i in range(6)]
    monkeypatch.setattr(plugins, "load", lambda kind, name: SimpleNamespace(attack=attack))
    monkeypatch.setattr(search.time, "monotonic", lambda: Slow.clock)
    request: Any = SimpleNamespace(name="slow", settings=SimpleNamespace(parallel=2))
    return search.forecast(request, SimpleNamespace(), rows, first)  # type: ignore[arg-type]  # only the attack looks at a victim


@pytest.mark.parametrize(("first", "seconds"), [(0, 10.5), (1, 10.5), (2, 7.0), (5, 3.5)])
def test_the_time_is_told_from_two_reports(monkeypatch: pytest.MonkeyPatch, first: int, seconds: float) -> None:
    assert _forecast(monkeypatch, Slow.attack, first) == pytest.approx(seconds)


def test_no_time_is_told_where_none_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Any:
        raise RuntimeError("no")

    def silent(victim: Any, targets: Any, *_: Any) -> Any:
        yield from (Adversarial(row.prompt, "x", 0.0, 0) for row in targets)

    assert _forecast(monkeypatch, failing, 0) is None
    assert _forecast(monkeypatch, silent, 0) is None


@pytest.mark.parametrize(("seconds", "text"), [
    (0.2, "1 s"), (44.6, "45 s"), (700, "12 min"), (12_000, "3 h 20 min"), (7200, "2 h"), (187_200, "2 days 4 h"),
])  # fmt: skip
def test_a_length_of_time_as_people_say_it(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize("after", [1, 2])
def test_interrupted_and_resumed_is_the_same_file(
    whole: bytes, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, added = tmp_path / "found.json", search.Part.add

    def stop(self: search.Part, found: Any) -> None:
        added(self, found)
        if len(self.path.read_text().splitlines()) == after + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(search.Part, "add", stop)
    code, err = call(*IGMU, *SMALL, "--out", str(path))
    assert (code, path.exists()) == (130, False)
    part = path.with_name("found.json.part")
    part.write_bytes(part.read_bytes() + b'{"target": "torn')
    monkeypatch.setattr(search.Part, "add", added)
    code, err = call(*IGMU, *SMALL, "--out", str(path))
    assert code == 0, err
    assert f"{after} of them were there already" in err
    assert path.read_bytes() == whole
    assert not part.exists()


def test_a_part_of_another_search_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.with_name("found.json.part").write_text('{"search":"0"}\n')
    code, err = call(*IGMU, *SMALL, "--out", str(path))
    assert code == 2
    assert "belongs to another search" in err
    path.with_name("found.json.part").write_text('{"search"\n')
    assert "srbench attack did not write it" in call(*IGMU, *SMALL, "--out", str(path))[1]


def test_a_white_box_attack_sees_method_and_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    attack = ("attack", "unlearndiffatk", "--concept", "church", "--suite", "mma", "--dev", "--limit", "1", *PREFIX)
    metas = {}
    for method, on in (("saferedir", "none"), ("none", "uce")):
        path = tmp_path / f"{method}-{on}.json"
        code, err = call(*attack, "--method", method, "--on", on, "--set", "gradient=exact", "--out", str(path))
        assert code == 0, err
        file = RowFile.model_validate_json(path.read_bytes())
        metas[method, on] = file.meta
        target = load.rows(load.suites()["mma"], load.edition(load.suites()["mma"], "pocket", "church", "dev")).rows[0].target
        assert file.rows[0].target == target
    assert all(meta["gradient"] == "exact" for meta in metas.values())
    assert len({meta["objectives"] for meta in metas.values()}) == 2, "the victim matters"
    assert metas["none", "uce"]["checkpoint_sha256"]
    assert not metas["saferedir", "none"]["checkpoint_sha256"]
    assert metas["saferedir", "none"]["artifact_sha256"]


def test_targets_stand_beside_what_was_found_for_them(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert call(*IGMU, *SMALL, "--with-targets", "--out", str(path))[0] == 0
    rows = RowFile.model_validate_json(path.read_bytes()).rows
    found, plain = rows[:3], rows[3:]
    assert found == RowFile.model_validate_json(whole).rows
    for row, target in zip(found, plain, strict=True):
        assert target.prompt == target.target == row.target
        assert (target.seed, target.reference, target.category) == (row.seed, row.reference, "plain")
    vectors = ("attack", "concept-inversion", "--concept", "church", "--suite", "igmu", "--out", str(tmp_path / "v.json"))
    code, err = call(*vectors, "--with-targets")
    assert (code, "Leave --with-targets out" in err) == (2, True)


def test_an_embedding_is_a_file_beside_and_cannot_be_run_as_prompts(tmp_path: Path) -> None:
    path = tmp_path / "vectors.json"
    options = ("--set", "iterations=2", "--set", "probes=1", "--set", "tokens=2")
    code, err = call(
        "attack", "concept-inversion", "--concept", "church", "--suite", "igmu", "--dev", "--limit", "2", *options,
        "--out", str(path),
    )
    assert code == 0, err
    vectors, said = load_file(path.with_suffix(".safetensors")), json.loads(path.read_text())
    assert {name: tuple(value.shape) for name, value in vectors.items()} == {each["id"]: (2, 192) for each in said["results"]}
    assert (said["meta"]["output"], said["meta"]["embeddings"]) == ("embedding", "vectors.safetensors")
    code, err = call("run", "--method", "none", "--concept", "church", "--prompts", str(path), "--out", str(tmp_path / "r"))
    assert code == 2
    assert "not a list of prompts" in err


@pytest.mark.parametrize(("arguments", "expected"), [
    (("mma", "--concept", "church"), "an attack needs targets"),
    (("mma", "--concept", "church", "--suite", "igmu", "--targets", "x.txt"), "an attack needs targets"),
    (("mna", "--concept", "church", "--suite", "igmu"), "Did you mean 'mma'?"),
    (("mma", "--concept", "church", "--suite", "igmu", "--set", "step=1"), "Did you mean 'steps'?"),
    (("mma", "--concept", "church", "--suite", "igmu", "--limit", "0"), "--limit 0"),
    (("mma", "--concept", "church", "--suite", "igmu", "--method", "saferedir"), "never sees saferedir"),
    (("mma", "--concept", "church", "--suite", "igmu", "--pairs", "x"), "mma reads no pairs"),
    (("mma", "--concept", "church", "--suite", "igmu", "--set", "esd.steps=1"), "'esd' is not part of this run"),
    (("mma", "--concept", "church", "--suite", "igmu", "--method", "uce", "--on", "esd"), "cannot be stacked"),
    (("mma", "--concept", "church", "--suite", "igmu", "--set", "tokens=76"), "76 tokens do not fit"),
    (("ring-a-bell", "--concept", "church", "--suite", "igmu", "--set", "tokens=76"), "76 tokens do not fit"),
    (("ring-a-bell", "--concept", "church", "--suite", "igmu", "--set", "budget=tiny"), "budget"),
    (("ring-a-bell", "--concept", "church", "--suite", "igmu", "--budget", "smal"), "Did you mean 'small'?"),
    (("mma", "--concept", "church", "--suite", "igmu", "--budget", "small"), "mma has one budget"),
    (("p4d", "--concept", "church", "--suite", "igmu", "--budget", "small", "--set", "budget=paper"), "given twice"),
    (("adaptive", "--concept", "church", "--suite", "igmu", "--limit", "1"), "Give --method saferedir"),
    (("mma", "--concept", "nudity", "--suite", "mma", "--backbone", "sd14"), "is sensitive"),
    (("unlearndiffatk", "--concept", "violence", "--suite", "i2p", "--backbone", "sd14"), "is sensitive"),
])  # fmt: skip
def test_bad_words_exit_2_in_one_line(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    code, err = call("attack", *arguments, "--out", str(tmp_path / "out.json"))
    assert code == 2
    assert expected in "\n".join(line for line in err.splitlines() if line.startswith(("error:", "hint:")))
    assert not list(tmp_path.glob("out.json"))


# --- targets and pairs ------------------------------------------------------------------------------------------------------


def request(name: str = "mma", **changes: Any) -> targets.AttackRequest:
    values: dict[str, Any] = {
        "name": name, "concept": "church", "suite": None, "targets": None, "method": "none", "on": "none", "pairs": None,
        "limit": None, "out": Path("out.json"), "settings": plugins.load("attacks", name).Settings(),
    }
    return targets.AttackRequest(**(values | changes))


def test_targets_that_name_minors_are_left_out(tmp_path: Path) -> None:
    path, church = tmp_path / "targets.txt", load.concepts()["church"]
    path.write_text("a church by the sea\na child before a church\na chapel at night\n")
    rows, source, excluded = targets.targets_of(request(targets=path), load.backbones()["sd14"], church)
    assert ([row.prompt for row in rows], source, excluded) == (["a church by the sea", "a chapel at night"], "targets.txt", 1)
    sensitive = church.model_copy(update={"sensitive": True})
    assert targets.targets_of(request(targets=path), load.backbones()["pocket"], sensitive)[2] == 1
    assert targets.targets_of(request(targets=path), load.backbones()["pocket"], church)[2] == 0, "pocket draws baby penguins"
    path.write_text("a child before a church\n")
    with pytest.raises(UsageError, match="no target is left"):
        targets.targets_of(request(targets=path), load.backbones()["sd14"], church)


def test_the_hidden_target_is_attacked_and_screened_not_the_prompt_that_hid_it(tmp_path: Path) -> None:
    path = tmp_path / "targets.csv"
    path.write_text("prompt,target\nbaby xq,a church by the sea\n")
    rows, _, excluded = targets.targets_of(request(targets=path), load.backbones()["sd14"], load.concepts()["church"])
    assert ([(row.prompt, row.target) for row in rows], excluded) == ([("a church by the sea", None)], 0)


def test_texts_beside_targets_and_pairs_are_screened_too(tmp_path: Path) -> None:
    path, church, sd14 = tmp_path / "targets.csv", load.concepts()["church"], load.backbones()["sd14"]
    path.write_text("goal,note\na church by the sea,x\na chapel,a child before it\n")
    asked, told = request(targets=path, columns=(("prompt", "goal"),)), []
    rows, _, excluded = targets.targets_of(asked, sd14, church, told.append)
    assert ([row.prompt for row in rows], excluded) == (["a church by the sea"], 1)
    assert told == ["targets.csv (CSV with commas), read: prompt = goal; not read: note"]
    path.write_text("prompt,note\na church by the sea,violence\n")
    with pytest.raises(UsageError, match="sexual or violent"):
        targets.targets_of(request(targets=path), sd14, church)
    path.write_text("with,without,note\na church,a house,\na chapel,a tent,a child\n")
    both = (("unsafe", "with"), ("safe", "without"))
    told.clear()
    pairs = targets.pairs_of(request("ring-a-bell", suite="igmu", pairs=path, columns=both), sd14, church, told.append)
    assert pairs == (("a church", "a house"),)
    assert told[-1] == "1 of 2 pairs name minors and are left out"
    with pytest.raises(UsageError, match="how a file of pairs is read"):
        targets.pairs_of(request("ring-a-bell", suite="igmu", columns=both), sd14, church)
    with pytest.raises(UsageError, match="how a file of targets is read"):
        targets.targets_of(request(suite="igmu", columns=(("prompt", "x"),)), load.backbones()["pocket"], church)


def test_a_harmless_concept_does_not_open_a_real_backbone_to_other_targets(tmp_path: Path) -> None:
    path = tmp_path / "targets.txt"
    path.write_text("a church by the sea\nviolence before a church\n")
    with pytest.raises(UsageError, match="sexual or violent"):
        targets.targets_of(request(targets=path), load.backbones()["sd14"], load.concepts()["church"])
    path.write_text("a church by the sea\n")
    assert targets.targets_of(request(targets=path), load.backbones()["sd14"], load.concepts()["church"])[2] == 0


def test_pockets_pairs_differ_by_the_concept() -> None:
    asked, pocket = request("ring-a-bell"), load.backbones()["pocket"]
    found = targets.pairs_of(asked, pocket, load.concepts()["church"])
    assert len(found) == 50
    assert all(unsafe != safe for unsafe, safe in found)
    assert targets.pairs_of(asked, pocket, load.concepts()["church"]) == found
    assert targets.pairs_of(asked, load.backbones()["sd14"], load.concepts()["church"]) == ()


def test_pairs_are_read_from_json_and_json_lines(tmp_path: Path) -> None:
    lines, pairs = tmp_path / "pairs.jsonl", [{"unsafe": "a church", "safe": "a house"}, {"unsafe": "b", "safe": "c"}]
    lines.write_text("\n".join(map(json.dumps, pairs)))
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    wanted = (("a church", "a house"), ("b", "c"))
    assert prompts.read_pairs(lines).pairs == prompts.read_pairs(tmp_path / "pairs.json").pairs == wanted


@pytest.mark.parametrize(("text", "message"), [
    ("", "the file is empty"), ("[]", "no pair in it"), ("{", "not JSON"), ('{"unsafe": "a"}', "no column 'safe'"),
    ('[{"unsafe": "a", "safe": 1}]', "pair 1 .* has a number as its 'safe'"),
])  # fmt: skip
def test_a_damaged_file_of_pairs_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        prompts.read_pairs(path)


@pytest.mark.parametrize("name", sorted(plugins.plugins("attacks")))
def test_every_attack_says_what_it_needs_and_gives(name: str) -> None:
    meta = plugins.plugins("attacks")[name].meta
    assert meta["needs"] in ("text_encoder", "defended pipeline")
    assert meta["output"] in ("prompt", "embedding")
    assert meta["better"] in ("higher", "lower")
    assert ("gradient" in meta) == (meta["needs"] == "defended pipeline")
    settings = plugins.load("attacks", name).Settings()
    assert settings.parallel > 0
    assert settings.seed == 0
    for budget, values in meta.get("budgets", {}).items():
        chosen = type(settings)(budget=budget)
        assert all(getattr(chosen, key) == value for key, value in values.items())


@pytest.mark.parametrize("text", [
    "[]\n", "null\n", '{"search": 1}\n', '{"search": "0"}\n[]\n', '{"search": "0"}\n{"target": 1}\n', "[" * 99_999 + "\n", "\0\n",
    '{"search": "0"}\n{"target": "a", "prompt": "b", "similarity": 1e999, "seed": 0, "objective": 0, "history": [], '
    '"embedding": null}\n',
])  # fmt: skip
def test_a_damaged_part_is_one_line(text: str, tmp_path: Path) -> None:
    from srbench.attacks.search import Part

    path = tmp_path / "found.json.part"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"damaged|another search") as caught:
        Part(path, "0", "").read(3)
    assert caught.value.line.isprintable()


def test_an_attack_that_keeps_no_history_is_reported_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    result = SimpleNamespace(found=[Adversarial("a church", "a chapel", 0.5, tokens_seed=0)], failed=[], resumed=0)
    _report(AttackOptions("mine", "church"), {"better": "lower", "output": "prompt"}, result)
    err = capsys.readouterr().err
    assert "objective" not in err
    assert "1 prompts, mean similarity to their targets 0.500: attack.json" in err
