"""Concept inversion: learned from images, kept by content, and refused where it does not belong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from srbench.errors import MissingError, Unmade, UsageError
from srbench.methods import inversion
from srbench.methods.inversion import CARD, VECTOR, Settings
from srbench.methods.safree import Options as SafreeOptions
from srbench.methods.safree import SafreeMethod
from srbench.methods.sld import Options as SldOptions
from srbench.methods.sld import SldMethod
from srbench.testing.bench import TOKENS
from srbench.testing.tiny import WIDTH

QUICK = Settings(iterations=30, batch=4, learning_rate=0.05)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight pictures of one colour each."""
    folder = tmp_path / "scenes" / "box"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(np.full((8, 8, 3), rng.integers(0, 255, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def made(bench: Any, images: Path, out: Path, **changes: Any) -> dict[str, Any]:
    settings = QUICK.model_copy(update=changes)
    return inversion.make(bench.info(), bench.concept, images, settings, out, (8, 8), lambda *a: None)


def test_the_loss_falls_below_that_of_the_start(bench: Any, images: Path) -> None:
    """On the same noise: the learned vector against the embedding that it began from."""
    pixels = inversion.read_images(images, 8, 8)
    longer = QUICK.model_copy(update={"iterations": 120})
    learned, _ = inversion.learn(bench.pipeline, bench.concept, "tiny", pixels, longer, quiet)
    start = inversion._start(bench.pipeline, "a box")
    latents = inversion.latents_of(bench.pipeline, pixels)

    def loss(vector: torch.Tensor) -> float:
        rng = torch.Generator().manual_seed(99)
        with torch.no_grad():
            each = [
                float(inversion._loss(bench.pipeline.unet, bench.pipeline.scheduler, latents, vector, 8, rng)) for _ in range(40)
            ]
        return float(np.mean(each))

    assert loss(learned) < loss(start)


def quiet(*a: Any) -> None:
    """Says nothing."""


def test_a_repeated_token_says_what_one_token_says(bench: Any) -> None:
    """SLD and SAFREE need as many tokens as a prompt has; attention over equal tokens is attention over one."""
    latent, t = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(500)
    vector = torch.randn(1, 1, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, many = (
            bench.pipeline.unet(latent, t, encoder_hidden_states=vector.expand(1, n, -1)).sample for n in (1, TOKENS)
        )
    assert torch.allclose(one, many, atol=1e-5)


INPUT = QUICK.model_copy(update={"placement": "input", "sentence": "ab <c>"})


def test_a_token_s_own_embedding_in_a_sentence_says_what_the_token_says(bench: Any) -> None:
    """Encoded as the pipeline encodes the sentence; nothing is left on the encoder."""
    encoder, ids = bench.pipeline.text_encoder, bench.pipeline.tokenizer("ab c de").input_ids
    table = encoder.get_input_embeddings().weight.detach()
    with torch.no_grad():
        said = inversion.spoken(bench.pipeline, table[ids[3:4]], "ab <c> de")
        plain = encoder(torch.tensor([ids + [1] * (TOKENS - len(ids))]))
    assert torch.equal(said.last_hidden_state, bench.embeddings(["ab c de"]))
    assert torch.equal(said.pooler_output, plain.pooler_output)
    assert not encoder.get_input_embeddings()._forward_hooks


def test_a_token_is_learned_at_the_encoder_s_input(bench: Any, images: Path) -> None:
    """On the same noise its sentence draws the images better than with the word that it began from."""
    pixels, latents = (found := inversion.read_images(images, 8, 8)), inversion.latents_of(bench.pipeline, found)
    longer = INPUT.model_copy(update={"iterations": 120})
    learned, curve = inversion.learn(bench.pipeline, bench.concept, "tiny", pixels, longer, quiet)
    word = bench.pipeline.tokenizer("a box").input_ids[-2]
    start = bench.pipeline.text_encoder.get_input_embeddings().weight[[word]].detach()

    def loss(vector: torch.Tensor) -> float:
        rng = torch.Generator().manual_seed(99)
        with torch.no_grad():
            rows = inversion.spoken(bench.pipeline, vector, "ab <c>").last_hidden_state[0]
            net, scheduler = bench.pipeline.unet, bench.pipeline.scheduler
            return float(np.mean([float(inversion._loss(net, scheduler, latents, rows, 8, rng)) for _ in range(40)]))

    assert learned.shape == start.shape == (1, WIDTH)
    assert loss(learned) < loss(start)
    assert len(curve) == 20


def test_an_artifact_says_where_c_stands_and_the_presets_use_it_there(bench: Any, images: Path, tmp_path: Path) -> None:
    shas = {}
    for name, settings in (("output", QUICK), ("input", INPUT)):
        inversion.make(bench.info(), bench.concept, images, settings, tmp_path / name, (8, 8), quiet)
        found = inversion.load(bench.info(), bench.concept, str(tmp_path / name))
        shas[name] = found.sha256
        assert found.sentence == ("ab <c>" if name == "input" else "")
        rows, pooled = found.rows(bench.pipeline), found.pooled(bench.pipeline)
        assert (rows.shape, pooled.shape) == ((TOKENS if name == "input" else 1, WIDTH), (1, WIDTH))
        chosen: Any = {"concept": "inversion", "inversion": str(tmp_path / name)}
        sld = SldMethod.prepare(bench.info(), bench.concept, SldOptions(**chosen))
        assert torch.equal(sld.payload["safety"], rows[None])
        safree = SafreeMethod.prepare(bench.info(), bench.concept, SafreeOptions(**chosen))
        assert torch.equal(safree.payload["concept"], pooled)
        assert sld.sha256 == safree.sha256
    assert len(set(shas.values())) == 2


def test_the_sentence_is_part_of_the_artifact_s_identity(bench: Any, tmp_path: Path) -> None:
    shas = set()
    for sentence in ("ab <c>", "<c> ab"):
        save_file({"vector": torch.ones(1, WIDTH)}, tmp_path / VECTOR, {"sentence": sentence})
        found = inversion.load(bench.info(), bench.concept, str(tmp_path))
        assert found.sentence == sentence
        shas.add(found.sha256)
    assert len(shas) == 2


def test_artifacts_of_before_stand_for_the_encoder_s_output(bench: Any, images: Path, tmp_path: Path) -> None:
    """A file without metadata, a card without a placement, and the same place in the cache."""
    save_file({"vector": torch.ones(1, WIDTH)}, tmp_path / VECTOR)
    card = {"backbone_sha256": bench.info().sha256, "concept": "box", "settings": {"seed": 0, "iterations": 3}}
    (tmp_path / CARD).write_text(json.dumps(card))
    found = inversion.load(bench.info(), bench.concept, str(tmp_path))
    assert found.sentence == ""
    assert torch.equal(found.rows(bench.pipeline), torch.ones(1, WIDTH))
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in inversion.image_files(images)]
    names = bench.concept.families["tiny"].names
    before = {"seed": 0, "iterations": 30, "batch": 4, "learning_rate": 0.05}
    parts = [bench.info().sha256, "", files, names, before]
    expected = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    assert inversion._key(bench.info(), bench.concept, images, QUICK) == expected
    assert inversion._key(bench.info(), bench.concept, images, INPUT) != expected


@pytest.mark.parametrize("sentence", ["a picture", "<c> and <c>", "<x> <c>"])
def test_a_sentence_holds_the_token_once(sentence: str, bench: Any, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings(sentence=sentence)
    if sentence.count("<c>") != 1:
        save_file({"vector": torch.ones(1, WIDTH)}, tmp_path / VECTOR, {"sentence": sentence})
        with pytest.raises(UsageError, match="does not hold <c> once"):
            inversion.load(bench.info(), bench.concept, str(tmp_path))


@pytest.mark.parametrize(
    ("sentence", "message"),
    [("a long picture of <c>", "17 tokens and the text encoder reads 16"), ("a girl <c>", "names minors")],
)
def test_a_sentence_that_cannot_be_encoded_is_refused(bench: Any, sentence: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        inversion.spoken(bench.pipeline, torch.zeros(1, WIDTH), sentence)


def test_the_paper_s_recipe_is_the_default() -> None:
    """2511.04834: 3,000 steps of batch 1 at 5e-3."""
    found = Settings(placement="input")
    assert (found.iterations, found.batch, found.learning_rate, found.sentence) == (3000, 1, 5e-3, "a picture of <c>")


def test_learning_repeats_itself_and_leaves_the_pipeline_alone(bench: Any, images: Path, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in bench.pipeline.unet.state_dict().items()}
    flags = [p.requires_grad for p in bench.pipeline.unet.parameters()]
    cards = [made(bench, images, tmp_path / name) for name in ("a", "b")]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"]
    assert made(bench, images, tmp_path / "c", seed=1)["weights_sha256"] != cards[0]["weights_sha256"]
    assert all(torch.equal(value, before[name]) for name, value in bench.pipeline.unet.state_dict().items())
    assert [p.requires_grad for p in bench.pipeline.unet.parameters()] == flags
    assert all(p.grad is None for p in bench.pipeline.unet.parameters())


def test_what_was_made_is_read_back(bench: Any, images: Path, tmp_path: Path) -> None:
    card = made(bench, images, tmp_path / "out")
    found = inversion.load(bench.info(), bench.concept, str(tmp_path / "out"))
    assert found.vector.shape == (1, WIDTH)
    assert found.sha256 == card["weights_sha256"]
    assert found.seconds == card["seconds"]
    assert (card["images"], card["concept"], card["checkpoint_sha256"]) == (8, "box", "")


def test_it_is_learned_once_for_each_checkpoint_and_never_in_a_forecast(
    bench: Any, images: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(inversion, "FITTED", {"tiny": QUICK.model_dump()})
    info = bench.info(scenes=images.parent, cache=tmp_path / "cache")
    first = inversion.load(info, bench.concept, None)
    assert inversion.load(replace(info, make=False), bench.concept, None).sha256 == first.sha256
    other = replace(info, checkpoint_sha="other")
    with pytest.raises(Unmade, match="is learned yet"):
        inversion.load(replace(other, make=False), bench.concept, None)
    inversion.load(other, bench.concept, None)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_without_images_the_command_is_named(bench: Any) -> None:
    with pytest.raises(MissingError) as caught:
        inversion.load(bench.info(), bench.concept, None)
    assert "srbench train concept-inversion --backbone tiny --concept box --images FOLDER" in caught.value.hint


def test_nothing_is_learned_of_a_sensitive_concept_but_a_file_is_read(bench: Any, images: Path, tmp_path: Path) -> None:
    made(bench, images, tmp_path / "out")
    secret = bench.concept.model_copy(update={"sensitive": True})
    with pytest.raises(UsageError, match="sensitive"):
        inversion.make(bench.info(), secret, images, QUICK, tmp_path / "no", (8, 8), quiet)
    assert not (tmp_path / "no").exists()
    assert inversion.load(bench.info(), secret, str(tmp_path / "out")).vector.shape == (1, WIDTH)


@pytest.mark.parametrize(("changes", "message"), [
    ({"backbone_sha256": "other"}, "learned on another backbone"), ({"concept": "ball"}, "learned for concept 'ball'"),
])
def test_a_foreign_embedding_is_refused(bench: Any, images: Path, tmp_path: Path, changes: Any, message: str) -> None:
    made(bench, images, tmp_path / "out")
    card = json.loads((tmp_path / "out" / CARD).read_text())
    (tmp_path / "out" / CARD).write_text(json.dumps(card | changes))
    with pytest.raises(UsageError, match=message):
        inversion.load(bench.info(), bench.concept, str(tmp_path / "out"))


@pytest.mark.parametrize("tensors", [
    {"a": torch.zeros(1, 4), "b": torch.zeros(1, 4)}, {"a": torch.zeros(2, 4)}, {"a": torch.full((1, 4), float("nan"))},
])
def test_a_file_that_holds_something_else_is_refused(bench: Any, tmp_path: Path, tensors: Any) -> None:
    save_file(tensors, tmp_path / VECTOR)
    with pytest.raises(UsageError, match="expected one vector"):
        inversion.load(bench.info(), bench.concept, str(tmp_path))
    (tmp_path / VECTOR).write_bytes(b"no weights")
    with pytest.raises(UsageError, match="not an embedding file"):
        inversion.load(bench.info(), bench.concept, str(tmp_path))


def test_images_that_cannot_be_read(bench: Any, images: Path, tmp_path: Path) -> None:
    (images / "9.png").write_text("no picture")
    with pytest.raises(UsageError, match="cannot be read as an image"):
        made(bench, images, tmp_path / "out")
    with pytest.raises(UsageError, match="no images in it"):
        made(bench, tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interruption_leaves_nothing(bench: Any, images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(inversion.json, "dumps", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made(bench, images, tmp_path / "kept" / "out")
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize("text", [
    b"[]", b"null", b"{", b"\xff", b'{"seconds": "x"}', b'{"seconds": NaN}', b"[" * 99_999, b'{"concept": 1}',
])  # fmt: skip
def test_a_card_of_any_content_is_one_line_and_never_no_card(text: bytes, tmp_path: Path) -> None:
    from srbench.methods.inversion import CARD, _card

    assert _card(tmp_path / CARD) == {}, "a single file of somebody else has none"
    (tmp_path / CARD).write_bytes(text)
    with pytest.raises(UsageError, match="damaged card") as caught:
        _card(tmp_path / CARD)
    assert caught.value.line.isprintable()
