"""The scorers on CLIP: open_clip's own numbers, by the weights that were asked for and no others."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from srbench.catalog.settings import parsed
from srbench.errors import CellError, MissingError, UsageError
from srbench.scorers import _clip
from srbench.scorers.clip_b16 import ClipB16, ClipB16Options
from srbench.scorers.clip_b32 import ClipB32, ClipB32Options
from srbench.scorers.clip_l14 import ClipL14, ClipL14Options
from srbench.scorers.csdr_igmu import CsdrIgmu, CsdrIgmuOptions, text_of
from srbench.scorers.object_zero_shot import ClipObject, ClipObjectOptions
from srbench.scorers.style_zero_shot import ClipStyle, ClipStyleOptions
from tests.scorers.clip_stand_ins import clip_folder, model_config, seeded_clip

Pictures = Callable[[int], list[np.ndarray]]
TEXTS = ["a cat on a beach", "a red apple", "an empty scene", "a house in the snow " * 40]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip"), 512)


@pytest.fixture
def b32(opened: Callable[[str], Any]) -> ClipB32:
    return opened("clip-b32")


@torch.inference_mode()
def by_open_clip(name: str, pretrained: str | None, images: list[np.ndarray], texts: list[str]) -> np.ndarray:
    """100 x cosine of all pictures with all texts as a user of the library gets them, each kind in one batch."""
    model, transform = open_clip.create_model_from_pretrained(name, pretrained)
    model.eval()
    x = torch.stack([transform(Image.fromarray(image)) for image in images])
    features = model.encode_image(x, normalize=True)
    return (100 * features @ model.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True).T).numpy()


# --- the numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("side", [32, 75])
def test_scores_are_open_clip_s(count: int, side: int, b32: ClipB32, folder: Path, pictures: Pictures) -> None:
    images, texts = pictures(side)[:count], TEXTS[:count]
    theirs = by_open_clip(f"local-dir:{folder}", None, images, texts)
    ours = b32.score(images, [{"prompt": text, "reference": texts[0]} for text in texts])
    assert [score["prompt"] for score in ours] == pytest.approx(theirs.diagonal().tolist(), abs=1e-4)
    assert [score["reference"] for score in ours] == pytest.approx(theirs[:, 0].tolist(), abs=1e-4)


def test_pictures_and_texts_matter(b32: ClipB32, images: list) -> None:
    scores = [s["prompt"] for text in TEXTS for s in b32.score(images, [{"prompt": text, "reference": None}] * len(images))]
    assert len(set(scores)) == len(scores)


def test_pictures_need_not_be_square(b32: ClipB32, folder: Path, images: list) -> None:
    image = np.concatenate(images[:2])[:, :50]
    theirs = by_open_clip(f"local-dir:{folder}", None, [image], TEXTS[:1])
    assert b32.score([image], [{"prompt": TEXTS[0]}])[0]["prompt"] == pytest.approx(float(theirs[0, 0]), abs=1e-4)


def test_reference_is_null_without_one(b32: ClipB32, images: list, rows: list) -> None:
    for score, row in zip(b32.score(images, rows), rows, strict=True):
        assert (score["reference"] is None) == (row["reference"] is None)


def test_a_text_is_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = ClipB32(ClipB32Options(weights=folder))._clip
    first = clip.text("an owl in the snow")

    def never(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("encoded twice")

    monkeypatch.setattr(clip._model, "encode_text", never)
    assert torch.equal(clip.text("an owl in the snow"), first)
    assert float(first.norm()) == pytest.approx(1, abs=1e-5)


def test_the_image_vector_is_as_the_network_gives_it(b32: ClipB32, images: list) -> None:
    vector, unit = b32._clip.image(images[1]), b32._clip.unit(images[1])
    assert vector.shape == (512,)
    assert abs(float(vector.norm()) - 1) > 0.05
    assert torch.allclose(unit, vector / vector.norm(), atol=1e-6)
    with pytest.raises(CellError, match="clip-b32"):
        b32._clip.image(images[1][..., :1])


# --- which weights -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An architecture `tiny-quickgelu` whose tag `openai` has its own mean and is on the hub; the hub cache is empty."""
    entry = {
        "hf_hub": "someone/tiny/", "quick_gelu": True, "mean": (0.2, 0.3, 0.4), "std": (0.5, 0.6, 0.7),
        "interpolation": "bilinear", "resize_mode": "squash",
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-quickgelu", model_config(16))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", model_config(16, quick_gelu=False))
    for name in ("tiny-quickgelu", "tiny"):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {"openai": entry})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return entry


def options(**given: Any) -> ClipB32Options:
    return ClipB32Options(model="tiny-quickgelu", **given)


def in_cache(cache: Path, repo: str, name: str) -> Path:
    """Where the hub's client keeps a file of a repository, which is made known."""
    base = cache / f"models--{repo.replace('/', '--')}"
    (base / "refs").mkdir(parents=True, exist_ok=True)
    (base / "refs" / "main").write_text("0" * 40)
    path = base / "snapshots" / ("0" * 40) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_tag_s_file_is_found_in_the_hub_cache_and_read_as_the_tag_says(
    name: str, tiny: dict[str, Any], tmp_path: Path, images: list
) -> None:
    path = in_cache(tmp_path / "hub", "someone/tiny", name)
    state = seeded_clip(16).state_dict()
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    scorer = ClipB32(options())
    tiny["file"] = str(path)  # so that the library does not look for it on the network
    wide = [image[:, :40] for image in images]
    theirs = by_open_clip("tiny-quickgelu", "openai", wide, TEXTS)
    ours = scorer.score(wide, [{"prompt": text} for text in TEXTS])
    assert [score["prompt"] for score in ours] == pytest.approx(theirs.diagonal().tolist(), abs=1e-4)
    assert scorer.identity()["weights"] == "CLIP tiny-quickgelu openai"
    assert "squash, bilinear" in scorer.identity()["resize"]
    assert ClipB32(options(weights=path)).score(wide[:1], [{"prompt": TEXTS[0]}]) == ours[:1]


def test_both_in_the_cache_the_safe_one_is_read(tiny: dict[str, Any], tmp_path: Path) -> None:
    for i, name in enumerate(("open_clip_pytorch_model.bin", "open_clip_model.safetensors")):
        in_cache(tmp_path / "hub", "someone/tiny", name).write_bytes(b"%d" % i)
    assert _clip.source("tiny-quickgelu", "openai", None, "x").file.name == "open_clip_model.safetensors"


@pytest.mark.parametrize(("cls", "repo"), [
    (ClipB32, "timm/vit_base_patch32_clip_224.openai"), (ClipB16, "timm/vit_base_patch16_clip_224.openai"),
    (ClipL14, "timm/vit_large_patch14_clip_224.openai"),
])
def test_missing_weights_say_what_fetches_them(cls: type, repo: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        cls()
    assert "is not on this machine" in caught.value.message
    assert caught.value.hint == f"Fetch it: hf download {repo} open_clip_model.safetensors"
    with pytest.raises(MissingError, match=r"nothing\.bin does not exist") as caught:
        cls(cls.Options(weights=tmp_path / "nothing.bin"))
    assert repo in caught.value.hint


def test_a_tag_that_names_its_file_is_fetched_by_that_name(tiny: dict[str, Any]) -> None:
    tiny["hf_hub"] = "someone/tiny/weights.bin"
    assert _clip.hub_files(tiny) == ("someone/tiny", "weights.bin", ("weights.safetensors", "weights.bin"))
    with pytest.raises(MissingError) as caught:
        ClipB32(options())
    assert caught.value.hint.endswith("hf download someone/tiny weights.bin")
    tiny["hf_hub"] = ""
    with pytest.raises(MissingError) as caught:
        ClipB32(options())
    assert "Give a file" in caught.value.hint


@pytest.mark.parametrize(("model", "tag", "fits"), [
    ("ViT-B-32", "openai", "ViT-B-32-quickgelu"), ("ViT-L-14", "openai", "ViT-L-14-quickgelu"),
    ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "ViT-B-32"), ("ViT-B-23-quickgelu", "openai", "ViT-B-32-quickgelu"),
])
def test_a_model_that_does_not_fit_its_tag_is_an_error(model: str, tag: str, fits: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError) as caught:
            ClipB32(ClipB32Options(model=model, tag=tag))
    assert f"Did you mean '{fits}'?" in caught.value.hint


def test_an_unknown_tag_is_an_error() -> None:
    with pytest.raises(UsageError, match="no weights 'unheard'"):
        ClipB32(ClipB32Options(tag="unheard"))


def test_the_defaults_belong_together() -> None:
    for kind in (ClipB32Options, ClipB16Options, ClipL14Options, ClipStyleOptions, ClipObjectOptions):
        assert _clip.pretrained(kind().model, kind().tag, "x")["quick_gelu"]


def test_paths_are_no_part_of_the_identity(folder: Path) -> None:
    chosen = parsed(ClipB32Options, "clip-b32", {}, {"weights": str(folder), "tag": "laion400m_e32"})
    assert chosen.model_dump(mode="json") == {"model": "ViT-B-32-quickgelu", "tag": "laion400m_e32"}
    assert str(folder) not in json.dumps(ClipB32(chosen).identity())


# --- files that are not what they should be ----------------------------------------------------------------------------------


def test_weights_of_another_architecture_are_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    for width, name in ((24, "a.safetensors"), (24, "a.bin")):
        path = tmp_path / name
        state = seeded_clip(width).state_dict()
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        with pytest.raises(UsageError, match="not the weights of CLIP tiny-quickgelu openai"):
            ClipB32(options(weights=path))


def test_weights_with_a_name_too_few_are_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    state = seeded_clip(16).state_dict()
    del state["ln_final.weight"]
    torch.save(state, tmp_path / "a.bin")
    torch.save({}, tmp_path / "b.bin")
    for name in ("a.bin", "b.bin"):
        with pytest.raises(UsageError, match="not the weights of"):
            ClipB32(options(weights=tmp_path / name))


@pytest.mark.parametrize("name", ["a.bin", "a.safetensors", "a.pt", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04"])
def test_a_damaged_file_is_refused(content: bytes, name: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="not a file of weights"):
        ClipB32(options(weights=tmp_path / name))


class Malicious:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('ran')",))


def test_a_malicious_pickle_is_never_executed(tiny: dict[str, Any], tmp_path: Path, folder: Path) -> None:
    bad = clip_folder(tmp_path, 512)
    (bad / "open_clip_model.safetensors").unlink()
    torch.save({"logit_scale": Malicious()}, bad / "open_clip_pytorch_model.bin")
    for chosen in (options(weights=bad / "open_clip_pytorch_model.bin"), options(weights=bad)):
        with pytest.raises(UsageError, match="not a file of weights"):
            ClipB32(chosen)


def test_a_folder_that_asks_for_foreign_code_is_refused(tmp_path: Path) -> None:
    bad = clip_folder(tmp_path, 512)
    config = json.loads((bad / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    (bad / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="trust_remote_code"):
        ClipB32(ClipB32Options(weights=bad))


@pytest.mark.parametrize("name", ["open_clip_config.json", "open_clip_model.safetensors"])
def test_a_folder_without_all_of_its_files_is_refused(name: str, tmp_path: Path) -> None:
    bad = clip_folder(tmp_path, 512)
    (bad / name).unlink()
    with pytest.raises(UsageError, match="no folder of open_clip's local-dir format"):
        ClipB32(ClipB32Options(weights=bad))


@pytest.mark.parametrize("content", ["{}", "no json", '{"model_cfg": {"embed_dim": 8}}'])
def test_a_folder_with_another_configuration_is_refused(content: str, tmp_path: Path) -> None:
    bad = clip_folder(tmp_path, 512)
    (bad / "open_clip_config.json").write_text(content)
    with pytest.raises(UsageError, match="not JSON" if content == "no json" else "not the weights of"):
        ClipB32(ClipB32Options(weights=bad))


# --- zero-shot ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(("cls", "field", "template"), [
    (ClipStyle, "style", "a painting in the style of {}"), (ClipObject, "objects", "a photo of a {}"),
])
def test_probabilities_are_open_clip_s(
    cls: type, field: str, template: str, count: int, folder: Path, pictures: Pictures
) -> None:
    labels = ["van gogh", "monet", "a child's drawing"]
    images = pictures(64)[:count]
    name = f"local-dir:{folder}"
    model, transform = open_clip.create_model_from_pretrained(name)
    classes = open_clip.build_zero_shot_classifier(
        model.eval(), open_clip.get_tokenizer(name), labels, [template.format], use_tqdm=False
    )
    with torch.inference_mode():
        x = torch.stack([transform(Image.fromarray(image)) for image in images])
        theirs = (100 * model.encode_image(x, normalize=True) @ classes).softmax(-1)
    ours = cls(cls.Options(weights=folder, labels=" van gogh,monet , a child's drawing,")).score(images, [{}] * count)
    for score, expected in zip(ours, theirs.tolist(), strict=True):
        assert list(score[field]) == labels
        assert list(score[field].values()) == pytest.approx(expected, abs=1e-4)
        assert sum(score[field].values()) == pytest.approx(1, abs=1e-5)


def test_the_template_and_the_labels_are_part_of_the_identity(folder: Path, images: list) -> None:
    chosen = [
        ClipObjectOptions(weights=folder, **given)
        for given in ({"labels": "cat,dog"}, {"labels": "dog,cat"}, {"labels": "cat,dog", "template": "a drawing of a {}"})
    ]
    assert len({json.dumps(ClipObject(each).identity()) for each in chosen}) == 3
    assert len({json.dumps(each.model_dump(mode="json")) for each in chosen}) == 3
    a, b, c = (ClipObject(each).score(images[:1], [{}])[0]["objects"] for each in chosen)
    assert a == pytest.approx(b, abs=1e-5)
    assert a != c


@pytest.mark.parametrize(("given", "message"), [
    ({}, "has 0"), ({"labels": " , "}, "has 0"), ({"labels": "cat"}, "has 1"), ({"labels": "cat,dog,cat"}, "given twice"),
    ({"labels": "cat,dog", "template": "a photo"}, "must hold {} once"),
    ({"labels": "cat,dog", "template": "{} and {}"}, "must hold {} once"),
])
def test_labels_that_say_nothing_are_refused(given: dict[str, str], message: str) -> None:
    for cls in (ClipStyle, ClipObject):
        with pytest.raises(UsageError) as caught:
            cls(cls.Options(**given))
        assert message in caught.value.message
        assert f"--set {cls.meta['name']}." in caught.value.hint


def test_a_label_is_no_format(folder: Path) -> None:
    scorer = ClipObject(ClipObjectOptions(weights=folder, labels="{0},{x.y}"))
    assert scorer._labels == ("{0}", "{x.y}")


# --- CSDR as IGMU's code has it ----------------------------------------------------------------------------------------------


def test_the_text_still_holds_the_concept_six_times() -> None:
    words = CsdrIgmuOptions().words.split(",")
    text = text_of("a photo of a church", words)
    assert len(words) == 7
    assert text.count("church") == 6
    assert text.count("a photo of a ") == 7


def test_the_change_is_open_clip_s_with_that_text(folder: Path, images: list) -> None:
    scorer = CsdrIgmu(CsdrIgmuOptions(weights=folder, words="red,apple"))
    found = scorer.score(images[:3], images[1:], [{"prompt": "a red apple"}] * 3)
    scores = by_open_clip(f"local-dir:{folder}", None, images, ["a  applea red "])[:, 0].clip(0)
    for i, each in enumerate(found):
        assert (each["image"], each["reference"]) == pytest.approx((scores[i], scores[i + 1]), abs=1e-4)
        change = None if not each["reference"] else 100 * abs(each["reference"] - each["image"]) / each["reference"]
        assert each["change"] == change
    assert any(each["change"] for each in found)


def test_a_reference_without_any_similarity_gives_no_number(folder: Path, images: list, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = CsdrIgmu(CsdrIgmuOptions(weights=folder))
    monkeypatch.setattr(scorer, "_similarity", lambda image, text: 0.0)
    assert scorer.score(images[:1], images[1:2], [{"prompt": "a cat"}]) == [{"image": 0.0, "reference": 0.0, "change": None}]
