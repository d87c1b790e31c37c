"""Concept inversion (2511.04834): one free embedding c* under which a checkpoint draws a concept, learned from images of it.

It replaces the written concept in SLD's guidance and in SAFREE's subspace (presets `+ci`): an unlearned checkpoint no
longer reacts to the concept's words, but it does to c*.

c* has one of two places. `output`: it is all that the denoiser reads, in the space of the text encoder's output. `input`: it is a
new token's embedding at the text encoder's input, inside a sentence, as Textual Inversion (2208.01618) trains one. An artifact
says its place, and the presets use it there.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save
from torch import Tensor

from srbench.backbones.folder import MAX_BYTES
from srbench.backbones.weights import first_line
from srbench.catalog import screen
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, MissingError, Unmade, UsageError
from srbench.files import is_system_name, kind_of_path, read_bytes, read_json, write_atomic
from srbench.methods.base import BackboneInfo, Tell, denoiser
from srbench.methods.phrases import words_of
from srbench.outputs import OutputFolder, check_folder, own_card, written_folder
from srbench.rules import AMOUNT, TEXT, Misfit, check
from srbench.version import __version__

VECTOR, CARD = "inversion.safetensors", "card.json"
IMAGES = (".png", ".jpg", ".jpeg", ".webp")
CURVE_POINTS = 20
FOLDER = "Give a folder of `srbench train concept-inversion`."
MAX_FILE = 100_000_000
"""Bytes of an embedding's file: one vector."""
SLOT = "<c>"
"""The new token in a sentence."""
SENTENCE = "sentence"
"""Key of a file's metadata: the sentence around c*. A file without it holds c* of the encoder's output, as all did before."""


class Settings(BaseModel):
    """How c* is learned. The defaults are the paper's: Adam, 5e-3, batch 1, 3,000 steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    placement: Literal["output", "input"] = "output"
    """Whether c* is the text encoder's whole output, or one token's embedding at its input."""
    sentence: str = Field(f"a picture of {SLOT}", pattern=r"^[^<>]*<c>[^<>]*$")
    """With `placement: input`: what is encoded, with `<c>` where c* stands."""
    seed: int = 0
    iterations: int = Field(3000, gt=0)
    batch: int = Field(1, gt=0)
    learning_rate: float = Field(5e-3, gt=0)


NEW = frozenset({"placement", "sentence"})
"""Settings that came later: of an embedding of the encoder's output they are no part of its place in the cache."""

FITTED: dict[str, dict[str, Any]] = {"pocket": {"iterations": 800, "batch": 8}}
"""Backbone family -> settings for it. Pocket: about as many images seen in all, in an eighth of the time."""


@dataclass(frozen=True)
class Inversion:
    """A learned embedding."""

    vector: Tensor
    """(1, D) float32."""
    sha256: str
    seconds: float = 0.0
    """Of learning it."""
    sentence: str = ""
    """Where c* stands at the text encoder's input, as `<c>`; empty: c* is the encoder's output."""

    def card(self) -> dict[str, Any]:
        """The card's part on where the concept is from: images, no words."""
        place = f"a token in '{self.sentence}'" if self.sentence else "the text encoder's output"
        return {"phrases": [], "inversion": {"sha256": self.sha256, "place": place}}

    def rows(self, pipeline: Any) -> Tensor:
        """What the denoiser reads, (1, D), or (T, D) of the sentence with c* in it. Raises as `spoken` does."""
        return spoken(pipeline, self.vector, self.sentence).last_hidden_state[0].float() if self.sentence else self.vector

    def pooled(self, pipeline: Any) -> Tensor:
        """(1, D) in the space of pooled text embeddings. Raises as `spoken` does."""
        return spoken(pipeline, self.vector, self.sentence).pooler_output.float().cpu() if self.sentence else self.vector


def settings_for(family: str, **changes: Any) -> Settings:
    """The settings of a backbone family, with changes."""
    return Settings(**FITTED.get(family, {}) | changes)


# --- images --------------------------------------------------------------------------------------------------------------


def read_images(folder: Path, height: int, width: int) -> np.ndarray:
    """All images of a folder, by name, as uint8 RGB (N, H, W, 3), resized where they have another size.

    Raises `UsageError` where there is none, or one cannot be read.
    """
    paths = image_files(folder)
    if not paths:
        raise UsageError(f"{folder}: no images in it", f"Give a folder with {', '.join(IMAGES)} files that show the concept.")
    return np.stack([read_image(path, height, width) for path in paths])  # (N, H, W, 3)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, by name; none where there is no folder. Hidden and system files are not read."""
    paths = folder.glob("*") if folder.is_dir() else ()
    return sorted(path for path in paths if path.suffix.lower() in IMAGES and not is_system_name(path.name))


def read_image(path: Path, height: int, width: int) -> np.ndarray:
    """An image as uint8 RGB (H, W, 3), resized where it has another size. Raises `UsageError` where it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    except (OSError, UnidentifiedImageError) as error:
        raise UsageError(f"{path}: cannot be read as an image", "Remove it, or save it again.") from error


def latents_of(pipeline: Any, pixels: np.ndarray) -> Tensor:
    """Scaled latents (N, C, h, w) of uint8 pixels (N, H, W, 3)."""
    vae = pipeline.vae
    images = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1  # (N, 3, H, W)
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    with torch.no_grad():
        return (torch.cat([vae.encode(one[None]).latent_dist.mode() for one in images]) - shift) * vae.config.scaling_factor


# --- learning --------------------------------------------------------------------------------------------------------------


def _start(pipeline: Any, text: str) -> Tensor:
    """(1, D): the embedding of `text` at its end-of-text token."""
    tokenizer = pipeline.tokenizer
    length = len(tokenizer(text, truncation=True).input_ids)
    with torch.no_grad():
        embedded, _ = pipeline.encode_prompt(text, pipeline.device, 1, False)  # (1, tokens, D)
    return embedded[:, length - 1].float()


def _start_token(pipeline: Any, text: str) -> Tensor:
    """(1, D): the input embedding of the last token of `text`, as Textual Inversion begins from a word for the thing."""
    last = pipeline.tokenizer(text, truncation=True).input_ids[-2]
    return pipeline.text_encoder.get_input_embeddings().weight[last : last + 1].detach().float().clone()


def _around(pipeline: Any, sentence: str) -> tuple[list[int], int]:
    """Token ids of the sentence, padded, and the place of c* among them.

    Raises `UsageError` where the sentence names a minor (design section 8) or is longer than the encoder reads.
    """
    if screen.names_minor(sentence.replace(SLOT, "")):
        raise UsageError("an inversion's sentence names minors and is not encoded", "Take that word out of it.")
    tokenizer = pipeline.tokenizer
    before, after = (tokenizer(part).input_ids for part in sentence.split(SLOT))  # each from start to end of text
    place = len(before) - 1
    ids = [*before[:-1], tokenizer.bos_token_id, *after[1:]]  # any token will do where c* stands
    room = tokenizer.model_max_length - len(ids)
    if room < 0:
        limit = tokenizer.model_max_length
        raise UsageError(f"'{sentence}' has {len(ids)} tokens and the text encoder reads {limit}", "Give a shorter one.")
    return [*ids, *[tokenizer.pad_token_id] * room], place


@contextmanager
def _in_place(encoder: Any, place: int, vector: Tensor) -> Iterator[None]:
    """Within this context the encoder's token embedding at a place is `vector` (1, D)."""

    def put(module: Any, args: Any, embedded: Tensor) -> Tensor:
        here = torch.arange(embedded.shape[1], device=embedded.device)[:, None] == place  # (T, 1)
        return torch.where(here, vector.to(embedded), embedded)  # (B, T, D)

    handle = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def spoken(pipeline: Any, vector: Tensor, sentence: str) -> Any:
    """The text encoder's output for a sentence with c* (1, D) as the embedding of its new token; differentiable in c*.

    Raises `UsageError` where the sentence names a minor or is longer than the encoder reads.
    """
    return _encoded(pipeline.text_encoder, *_around(pipeline, sentence), vector)


def _encoded(encoder: Any, ids: list[int], place: int, vector: Tensor) -> Any:
    """The text encoder's output for token ids with `vector` (1, D) in the place of one token's embedding."""
    with _in_place(encoder, place, vector):
        return encoder(torch.tensor([ids], device=encoder.device))


def _prompt_of(pipeline: Any, settings: Settings) -> Callable[[Tensor], Tensor]:
    """c* (1, D) -> the rows (n, D) that the denoiser reads. Raises as `spoken` does."""
    if settings.placement == "output":
        return lambda vector: vector
    around = _around(pipeline, settings.sentence)
    return lambda vector: _encoded(pipeline.text_encoder, *around, vector).last_hidden_state[0]


def _target(scheduler: Any, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The denoiser's target, by the scheduler's prediction type."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(clean, noise, t)
    raise UsageError(f"concept inversion knows no prediction of the kind '{kind}'", "It knows epsilon and v_prediction.")


def learn(
    pipeline: Any, concept: ConceptSpec, family: str, pixels: np.ndarray, settings: Settings, tell: Tell
) -> tuple[Tensor, list[float]]:
    """c* = argmin_c E || eps - eps_theta(z_t, c, t) ||^2 over the images (2511.04834, its one equation), K* = 1 vector.

    pixels: uint8 RGB (N, H, W, 3). Returns c* (1, D) float32 and the loss at up to 20 points. Deterministic in the seed.
    Raises `CellError` where the loss is no number.
    """
    network, scheduler = denoiser(pipeline), pipeline.scheduler
    latents = latents_of(pipeline, pixels)  # (N, C, h, w)
    start, prompt_of = _start if settings.placement == "output" else _start_token, _prompt_of(pipeline, settings)
    vector = start(pipeline, words_of(concept, family).names[0]).requires_grad_(True)  # (1, D)
    optimiser = torch.optim.Adam([vector], lr=settings.learning_rate)
    rng = torch.Generator("cpu").manual_seed(settings.seed)
    losses = []
    for step in range(settings.iterations):
        loss = _loss(network, scheduler, latents, prompt_of(vector), settings.batch, rng)
        if not bool(loss.isfinite()):
            raise CellError("concept inversion: the loss is not a number", "Lower learning_rate.")
        (vector.grad,) = torch.autograd.grad(loss, [vector])  # of the vector alone, whatever else could have one
        optimiser.step()
        losses.append(float(loss.detach()))
        tell("inversion", step + 1, settings.iterations, f"loss {np.mean(losses[-50:]):.4f}")
    return vector.detach().cpu(), _curve(losses)


def _loss(network: Any, scheduler: Any, latents: Tensor, rows: Tensor, batch: int, rng: torch.Generator) -> Tensor:
    """Mean squared error of the prediction under a prompt's rows (n, D), for random images, noise and timesteps."""
    chosen = torch.randint(len(latents), (batch,), generator=rng)
    t = torch.randint(scheduler.config.num_train_timesteps, (batch,), generator=rng).to(latents.device)  # (B,)
    clean = latents[chosen.to(latents.device)]  # (B, C, h, w)
    noise = torch.randn(clean.shape, generator=rng).to(clean)  # (B, C, h, w)
    prompt = rows.to(clean.dtype).expand(batch, -1, -1)  # (B, n, D)
    predicted = network(scheduler.add_noise(clean, noise, t), t, encoder_hidden_states=prompt, return_dict=False)[0]
    return (predicted.float() - _target(scheduler, clean, noise, t).float()).square().mean()


def _curve(losses: list[float]) -> list[float]:
    return [round(float(np.mean(part)), 5) for part in np.array_split(losses, min(CURVE_POINTS, len(losses)))]


# --- files -----------------------------------------------------------------------------------------------------------------


def make(
    backbone: BackboneInfo, concept: ConceptSpec, images: Path, settings: Settings, out: Path, size: tuple[int, int], tell: Tell,
    first_wins: bool = False,
) -> dict[str, Any]:
    """Learn c* on the pipeline as it is, with or without a checkpoint; write it with its card, and return the card.

    size: height and width in px. first_wins: as for `written_folder`. Raises `UsageError` for a sensitive concept, whose
    embedding can only be given as a file, and where `out` holds something else, before anything is learned.
    """
    if screen.sensitive_concept(concept):
        raise UsageError(f"concept '{concept.name}' is sensitive: no embedding is learned from images", "Give one as a file.")
    check_folder(out, INVERSION)
    began = time.perf_counter()
    pixels = read_images(images, *size)
    with torch.enable_grad():
        vector, curve = learn(backbone.pipeline, concept, backbone.family, pixels, settings, tell)
    sentence = settings.sentence if settings.placement == "input" else ""
    raw = save({"vector": vector}, {SENTENCE: sentence} if sentence else None)
    card = {
        "method": "concept-inversion", "srbench": __version__, "backbone": backbone.name, "backbone_sha256": backbone.sha256,
        "checkpoint_sha256": backbone.checkpoint_sha, "concept": concept.name, "images": len(pixels),
        "begins_from": words_of(concept, backbone.family).names[0],  # the one text that it is told
        "images_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(), "settings": settings.model_dump(), "curve": curve,
        "weights_sha256": hashlib.sha256(raw).hexdigest(), "seconds": round(time.perf_counter() - began, 1),
    }
    with written_folder(out, INVERSION, first_wins) as fresh:
        write_atomic(fresh / VECTOR, raw)
        write_atomic(fresh / CARD, (json.dumps(card, indent=1, allow_nan=False) + "\n").encode())
    return card


def _proved(folder: Path) -> dict[str, str]:
    """Files of an inversion that has no marker, by its card."""
    card, sha = own_card(folder)
    return {VECTOR: card["weights_sha256"], CARD: sha} if card["method"] == "concept-inversion" else {}


INVERSION = OutputFolder("srbench train concept-inversion", card=CARD, earlier=_proved)


def read(path: Path, backbone: BackboneInfo, concept: ConceptSpec) -> Inversion:
    """c* from a folder, or from a safetensors file with one vector.

    Raises `UsageError` where it is damaged, or its card names another backbone or concept. It may have been learned on
    another checkpoint: the paper transfers it.
    """
    file = path / VECTOR if path.is_dir() else path
    raw = read_bytes(file, FOLDER, MAX_FILE)
    try:
        tensors = load_safetensors(raw)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UsageError(f"{file}: not an embedding file ({first_line(error)})", FOLDER) from error
    vectors = [value for value in tensors.values() if value.ndim in (1, 2) and value.numel() == value.shape[-1]]
    if len(tensors) != 1 or not vectors or not bool(vectors[0].isfinite().all()):
        raise UsageError(f"{file}: expected one vector of finite numbers", "Give a safetensors file with one tensor (1, D).")
    card = _card(file.parent / CARD)
    if card and card.get("backbone_sha256") != backbone.sha256:
        raise UsageError(f"{file}: was learned on another backbone", f"Learn it on this one: {command(backbone, concept)}")
    if card and card.get("concept") != concept.name:
        raise UsageError(f"{file}: was learned for concept '{card.get('concept')}'", command(backbone, concept))
    sha, seconds = hashlib.sha256(raw).hexdigest(), float(card.get("seconds", 0.0))
    return Inversion(vectors[0].float().reshape(1, -1), sha, seconds, _sentence(raw, file))


def _sentence(raw: bytes, file: Path) -> str:
    """The sentence in a safetensors file's metadata; empty where there is none. Raises `UsageError` for one without c*."""
    size = int.from_bytes(raw[:8], "little")  # the header's: JSON with the tensors' places and the metadata
    sentence = json.loads(raw[8 : 8 + size]).get("__metadata__", {}).get(SENTENCE, "")
    if sentence and sentence.count(SLOT) != 1:
        raise UsageError(f"{file}: its sentence does not hold {SLOT} once", FOLDER)
    return str(sentence)


def _card(path: Path) -> dict[str, Any]:
    """The card beside an embedding; empty where there is none. Raises `UsageError` where it is damaged."""
    again = f"Remove {path.parent}, and learn the embedding again."
    if kind_of_path(path) == "nothing":
        return {}
    try:
        card = read_json(path, again, MAX_BYTES, unique=True)
        check(card, {}, {"seconds": AMOUNT, "backbone_sha256": TEXT, "concept": TEXT})
    except Misfit as error:
        raise UsageError(f"{path}: damaged card ({error})", again) from error
    except UsageError as error:
        raise UsageError(f"{path}: damaged card ({error.message.removeprefix(f'{path}: ')})", again) from error
    return dict(card)


def command(backbone: BackboneInfo, concept: ConceptSpec) -> str:
    """The command that learns one."""
    images = "" if backbone.scenes else " --images FOLDER"
    options = ("--backbone", backbone.name, "--concept", concept.name)
    return f"srbench train concept-inversion {shlex.join(options)}{images}"


def load(backbone: BackboneInfo, concept: ConceptSpec, path: str | None) -> Inversion:
    """c* for a concept: the user's file, or one from the cache, learned on the pipeline as it is.

    Raises `MissingError` with the command that makes it where there are no images to learn from.
    """
    return read(kept(backbone, concept) if path is None else Path(path).expanduser(), backbone, concept)


def kept(backbone: BackboneInfo, concept: ConceptSpec) -> Path:
    """Cache folder, by content, of c* for the pipeline as it is; learned where it is missing.

    Raises as `load` does, and `Unmade` where it is missing and nothing may be made.
    """
    scenes = backbone.scenes / concept.name if backbone.scenes else None
    if scenes is None or not scenes.is_dir() or backbone.cache is None:
        raise MissingError(
            f"no embedding of concept '{concept.name}' on backbone '{backbone.name}'",
            f"{command(backbone, concept)} --out DIR, then --set METHOD.inversion=DIR",
        )
    settings, size = settings_for(backbone.family), _size(backbone.pipeline)
    out = backbone.cache / f"inversion-{concept.name}-{_key(backbone, concept, scenes, settings)}"
    if not (out / CARD).is_file():
        if not backbone.make:
            raise Unmade(f"no embedding of concept '{concept.name}' is learned yet", "A run learns it first.")
        make(backbone, concept, scenes, settings, out, size, backbone.tell, first_wins=True)
    return out


def _size(pipeline: Any) -> tuple[int, int]:
    """The model's own image size in px, height and width."""
    side = int(denoiser(pipeline).config.sample_size * pipeline.vae_scale_factor)
    return side, side


def _key(backbone: BackboneInfo, concept: ConceptSpec, images: Path, settings: Settings) -> str:
    """Short digest of all that decides c*."""
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in image_files(images)]
    names = words_of(concept, backbone.family).names
    said = settings.model_dump(exclude=set(NEW) if settings.placement == "output" else None)
    parts = [backbone.sha256, backbone.checkpoint_sha, files, names, said]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
