"""Base of the scorers on CLIP: locates weights on this machine, opens them with open_clip, encodes one image per pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import huggingface_hub
import numpy as np
import open_clip
import PIL
import torch
import torchvision
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from PIL import Image
from pydantic import Field
from torch import Tensor

from srbench.backbones import weights
from srbench.backbones.tokenizers import SENTENCES, check_own_words
from srbench.downloads import Download
from srbench.errors import MissingError, UsageError, did_you_mean
from srbench.scorers import base
from srbench.scorers._files import check_rgb, one_thread, read_state, settings, sha256_of

IN_FOLDER = (HF_SAFE_WEIGHTS_NAME, "open_clip_pytorch_model.safetensors", HF_WEIGHTS_NAME)
"""Files of weights in a folder, in the order in which open_clip prefers them."""
HINT = "Give the file that belongs to it."
NUMBERS_A_BYTE = 2
"""Most weights that a byte can hold: two of four bits."""
MIN_SHARE = 0.9
"""Share of the token embedding table that a tokenizer must fill."""
SCALE = 100
"""CLIP's own logit scale after training, by which every cosine is multiplied (2103.00020, section 2.5)."""


class ClipOptions(base.Options):
    """Options of a scorer whose CLIP can be chosen."""

    model: str = "ViT-B-32-quickgelu"
    """open_clip's name of the architecture; not read where `weights` is a folder."""
    tag: str = "openai"
    """open_clip's name of the weights, which fixes how images are scaled; not read where `weights` is a folder."""
    weights: Path | None = Field(None, exclude=True)
    """A file of these weights, or a folder in open_clip's local-dir format; None: the file in the Hugging Face hub cache."""


@dataclass(frozen=True)
class Source:
    """What open_clip opens."""

    name: str
    """A built-in architecture, or `local-dir:` and a folder."""
    label: str
    """Names the weights in the identity, in place of a path."""
    file: Path
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """mean, std, interpolation and resize mode of the tag; empty for a folder, which has its own."""


# --- which weights -----------------------------------------------------------------------------------------------------------


def pretrained(model: str, tag: str, scorer: str) -> dict[str, Any]:
    """open_clip's entry for a tag of an architecture. Raises `UsageError` where the two do not belong together.

    open_clip only warns where one has QuickGELU and the other has not; the numbers would be wrong without a sign.
    """
    fitting = [name for name in open_clip.list_pretrained_models_by_tag(tag) if _quick(name) == _quick(name, tag)]
    entry = dict(open_clip.get_pretrained_cfg(model, tag))
    if not entry:
        raise UsageError(f"{scorer}: open_clip has no weights '{tag}' of a model '{model}'", did_you_mean(model, fitting))
    if model not in fitting:
        needs = "with" if entry.get("quick_gelu") else "without"
        raise UsageError(f"{scorer}: '{tag}' was trained {needs} QuickGELU, '{model}' is not so", did_you_mean(model, fitting))
    return entry


def _quick(model: str, tag: str | None = None) -> bool:
    """Whether an architecture, or the tag's weights of it, have QuickGELU."""
    entry = open_clip.get_model_config(model) if tag is None else open_clip.get_pretrained_cfg(model, tag)
    return bool((entry or {}).get("quick_gelu", False))


def hub_files(entry: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Repository, the file in it to fetch, and those that open_clip would read, best first."""
    repo, _, name = str(entry["hf_hub"]).rpartition("/")
    if not name:
        return repo, HF_SAFE_WEIGHTS_NAME, (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    safe = str(PurePosixPath(name).with_suffix(".safetensors"))
    return repo, name, tuple(dict.fromkeys((safe, name)))


def cached(repo: str, names: Sequence[str]) -> Path | None:
    """The first of the files that is in the hub cache; downloads nothing."""
    for name in names:
        path = huggingface_hub.try_to_load_from_cache(repo, name)
        if isinstance(path, str):
            return Path(path)
    return None


def source(model: str, tag: str, user_path: Path | None, scorer: str) -> Source:
    """What to open: a folder, a file of a tag's weights, or the file in the hub cache.

    Raises `MissingError` with the command that fetches it, `UsageError` where model and tag do not belong together.
    """
    if user_path is not None and user_path.expanduser().is_dir():
        return _folder(user_path.expanduser(), scorer)
    entry = pretrained(model, tag, scorer)
    repo, wanted, names = hub_files(entry) if entry.get("hf_hub") else ("", "", ())
    path = user_path.expanduser() if user_path else cached(repo, names)
    if path is None or not path.is_file():
        where = f"{path} does not exist" if path else f"CLIP {model} ({tag}) is not on this machine"
        downloads = [Download(hub=repo, files=(wanted,))] if repo else []
        mend = f"Fetch it: {downloads[0].command()}" if downloads else "The hub does not have it. Give a file of it."
        raise MissingError(f"{scorer}: {where}", mend, [] if user_path else downloads)
    return Source(model, f"CLIP {model} {tag}", path, entry)


def _folder(folder: Path, scorer: str) -> Source:
    file = next((folder / name for name in IN_FOLDER if (folder / name).is_file()), None)
    if file is None or not (folder / HF_CONFIG_NAME).is_file():
        hint = f"Such a folder holds {HF_CONFIG_NAME} and {HF_SAFE_WEIGHTS_NAME}."
        raise UsageError(f"{scorer}: {folder} is no folder of open_clip's local-dir format", hint)
    check_config(folder / HF_CONFIG_NAME)
    named = [folder / name for name in (HF_CONFIG_NAME, "tokenizer.json") if (folder / name).is_file()]
    label = ", ".join(f"{path.name} {sha256_of(path)[:16]}" for path in named)
    return Source(f"local-dir:{folder}", f"CLIP of a folder: {label}", file)


def check_config(config: Path) -> None:
    """Raises `UsageError` where a folder's configuration asks for code.

    open_clip hands its tokenizer arguments to transformers, which would load code from where they say.
    """
    if "trust_remote_code" in json.dumps(settings(config)):
        raise UsageError(f"{config} sets trust_remote_code", "Foreign code is not run. Remove it.")


def check_bulk(config: Path, file: Path) -> None:
    """Check that a folder's configuration describes no more than its weights hold; open_clip allocates memory for all of it."""
    towers = settings(config).get("model_cfg")
    if not isinstance(towers, dict):
        raise UsageError(f"{config}: not the weights of a CLIP, it describes none (model_cfg)", HINT)
    described = sum(_numbers(tower) for tower in towers.values() if isinstance(tower, dict))
    if described > NUMBERS_A_BYTE * (stored_bytes := file.stat().st_size):
        raise UsageError(f"{config}: describes {described:,} numbers or more, and {file.name} has {stored_bytes:,} bytes", HINT)


def _numbers(tower: Mapping[str, Any]) -> int:
    """About how many numbers a tower has, rather too few: 12 width^2 a layer of a transformer, and its table of words."""
    width, layers, words = (tower.get(key) for key in ("width", "layers", "vocab_size"))
    deep = sum(each for each in layers if isinstance(each, int)) if isinstance(layers, list) else layers
    width, deep, words = (each if isinstance(each, int) and each > 0 else 0 for each in (width, deep, words))
    return 12 * deep * width**2 * (not isinstance(layers, list)) + words * width


# --- the network -------------------------------------------------------------------------------------------------------------


def opened(origin: Source) -> tuple[Any, Any]:
    """Network in evaluation mode, and the library's transform of a PIL image.

    Raises `UsageError` with the cause where the file holds no weights, or not exactly those of this network.
    """
    local = origin.name.startswith("local-dir:")
    transform = {f"image_{key}": origin.preprocessing.get(key) for key in ("mean", "std", "interpolation", "resize_mode")}
    # The strict reader opens the file before the library unpickles it.
    state = read_state(origin.file)
    if local:
        check_bulk(origin.file.parent / HF_CONFIG_NAME, origin.file)
    what = f"{origin.file}: not the weights of {origin.label}"
    with weights.one_line(what, HINT):
        model, preprocess = open_clip.create_model_from_pretrained(
            origin.name, None if local else str(origin.file), weights_only=True, **({} if local else transform)
        )
    check_whole(model, state, what)
    return model.eval().requires_grad_(False), preprocess


def check_whole(model: torch.nn.Module, state: Mapping[str, Any], what: str) -> None:
    """Check that every tensor comes from the file unchanged: open_clip resizes position tables that do not fit.

    Names differ between forms that it reads; shapes do not. Raises `UsageError`.
    """
    inner = state.get("state_dict", state)
    ours, theirs = (_shapes(each) for each in (model.state_dict(), inner if isinstance(inner, Mapping) else state))
    if ours != theirs:
        odd = next(iter((ours - theirs) or (theirs - ours)))
        where = "missing" if (ours - theirs)[odd] else "left over"
        raise UsageError(f"{what}: a tensor of {odd} is {where}", HINT)
    bad = weights.not_finite(model.state_dict())
    if bad:
        raise UsageError(f"{what}: {bad[0]} has values that are not numbers", HINT)


def _shapes(state: Mapping[str, Any]) -> Counter[tuple[int, ...]]:
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor) and value.ndim}
    values = (value for name, value in tensors.items() if value.is_floating_point() and not name.endswith("attn_mask"))
    return Counter(tuple(value.shape) for value in values)


def tokenizer(name: str, words: int, what: str) -> Any:
    """open_clip's tokenizer of a model or folder, tried on two sentences. words: rows of the text encoder's embedding table.

    Raises `UsageError` where it is not whole, or another model's.
    """
    with weights.one_line(f"{what}: no tokenizer that can be used", HINT):
        reader = open_clip.get_tokenizer(name)
        one, other = (reader([text])[0] for text in SENTENCES)
    for ids in (one, other):
        if len(set(ids.tolist())) < 5 or int(ids.max()) >= words:
            raise UsageError(f"{what}: its tokenizer does not know the words of its text encoder", HINT)
    if torch.equal(one, other):
        raise UsageError(f"{what}: its tokenizer writes two sentences in the same numbers", HINT)
    inner = getattr(reader, "tokenizer", None)
    if inner is not None and not MIN_SHARE * words <= len(inner) <= words:
        raise UsageError(f"{what}: its tokenizer knows {len(inner)} words, and its text encoder {words}", HINT)
    if inner is not None:
        check_own_words(inner, f"{what}: its tokenizer")
    return reader


def words_of(model: torch.nn.Module) -> int:
    """Rows of a CLIP's token embedding table."""
    tables = [table for table in model.modules() if isinstance(table, torch.nn.Embedding)]
    return max((table.num_embeddings for table in tables), default=0)


class Clip:
    """A CLIP that encodes images and texts one by one, in float32."""

    def __init__(self, origin: Source, scorer: str) -> None:
        """scorer: its name, for messages. Raises `UsageError` for other weights than `origin` says."""
        self._source, self._scorer = origin, scorer
        self._model, self._transform = opened(origin)
        self._texts: dict[str, Tensor] = {}

    @cached_property
    def _tokenizer(self) -> Any:
        return tokenizer(self._source.name, words_of(self._model), f"{self._scorer}: {self._source.label}")

    def need_texts(self) -> None:
        """Try the tokenizer before any image is scored. Raises `UsageError`."""
        self._tokenizer  # noqa: B018 - made when it is first asked for

    @property
    def width(self) -> int:
        """D, the length of its vectors."""
        return int(open_clip.get_model_config(self._source.name)["embed_dim"])

    def need_width(self, width: int) -> None:
        """Raises `UsageError` unless its vectors have this length."""
        if self.width != width:
            message = f"{self._scorer} reads CLIP vectors of {width} numbers, not {self.width}"
            raise UsageError(message, "Give the CLIP that it was made for, or leave the option out.")

    def identity(self) -> dict[str, Any]:
        """What its numbers depend on, for the scorer's identity."""
        scaling = self._model.visual.preprocess_cfg
        return {
            "library": "open_clip_torch",
            "library_version": open_clip.__version__,
            "torch_version": torch.__version__,
            "torchvision_version": torchvision.__version__,
            "pillow_version": PIL.__version__,
            "weights": self._source.label,
            "weights_sha256": sha256_of(self._source.file),
            "preprocessing": f"open_clip's transform of a PIL image, mean {list(scaling['mean'])}, std {list(scaling['std'])}, "
            "float32, one picture a pass on one thread; texts cut at the context length, one a pass",
            "resize": f"{scaling['size']} px, mode {scaling['resize_mode']}, {scaling['interpolation']} with anti-aliasing",
            "channel_order": "RGB",
        }

    def identity_under(self, meta: Mapping[str, Any], what: str, path: Path) -> dict[str, Any]:
        """Identity of a scorer with further weights, `what` in the file `path`, that read these vectors."""
        clip = self.identity()
        return {
            "scorer": meta["name"],
            "version": meta["version"],
            **clip,
            "weights": f"{what} on {clip['weights']}",
            "weights_sha256": sha256_of(path),
            "clip_sha256": clip["weights_sha256"],
        }

    @torch.inference_mode()
    def image(self, image: np.ndarray) -> Tensor:
        """Vector of an image as the network gives it, not of length 1, (D,). Raises `CellError` for other than uint8 RGB."""
        x = self._transform(Image.fromarray(check_rgb(image, self._scorer)))[None]  # (1, 3, S, S)
        with one_thread():
            return self._model.encode_image(x)[0]

    @torch.inference_mode()
    def unit(self, image: np.ndarray) -> Tensor:
        """Vector of an image, of length 1, (D,). Raises `CellError` for other than uint8 RGB."""
        return torch.nn.functional.normalize(self.image(image), dim=-1)

    @torch.inference_mode()
    def text(self, text: str) -> Tensor:
        """Vector of a text, of length 1, (D,); encoded once."""
        if text not in self._texts:
            with one_thread():
                self._texts[text] = self._model.encode_text(self._tokenizer([text]), normalize=True)[0]
        return self._texts[text]


# --- the scorer --------------------------------------------------------------------------------------------------------------


class ClipScore:
    """100 x cosine of an image with its prompt, and with its reference prompt."""

    meta: ClassVar[Mapping[str, Any]]
    Options: ClassVar[type[base.Options]] = ClipOptions

    def __init__(self, options: ClipOptions | None = None) -> None:
        chosen = options or self.Options()
        assert isinstance(chosen, ClipOptions)
        name = self.meta["name"]
        self._clip = Clip(source(chosen.model, chosen.tag, chosen.weights, name), name)
        self._clip.need_texts()

    def identity(self) -> dict[str, Any]:
        return {"scorer": self.meta["name"], "version": self.meta["version"], **self._clip.identity()}

    def _similarity(self, feature: Tensor, text: str | None) -> float | None:
        return None if text is None else round(SCALE * float(feature @ self._clip.text(text)), 6)

    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image; `reference` is None where the row has no reference prompt. Raises `CellError`."""
        scores = []
        with one_thread():
            for image, row in zip(images, rows, strict=True):
                feature = self._clip.unit(image)
                scores.append({key: self._similarity(feature, row.get(key)) for key in ("prompt", "reference")})
        return scores
