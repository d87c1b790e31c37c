"""Checkpoints that are taught again: does an unlearned model learn the concept back, and how fast?

A checkpoint `W~K` is W after K steps of fine-tuning on images that the untouched backbone draws of the concept (`W~K:other`: of
other things), or on a user's own. Low-rank adapters on all attention layers by default, the whole U-Net on request. The loss is
the backbone's own, the error of the predicted noise; a step's rate does not depend on how many follow, so that W~8 lies on the
way to W~32.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from srbench.analysis.lineage import OnName
from srbench.backbones.checkpoint import Checkpoint, is_home_made, laid_over, open_home_made, read_card
from srbench.backbones.loader import Backbone
from srbench.backbones.pipelines import Conditioning
from srbench.catalog import screen
from srbench.catalog.settings import overrides, parsed
from srbench.catalog.specs import ConceptSpec
from srbench.engine.judge import ConceptJudge
from srbench.engine.prepare import concept_sha
from srbench.engine.stored import write
from srbench.errors import MissingError, Unmade, UsageError
from srbench.hashing import digest
from srbench.methods import adapters, base, denoising, finetune, inversion, learning, pictures, texts
from srbench.methods.phrases import in_contexts, listed_contexts, listed_texts, neighbours, split_texts
from srbench.outputs import OutputFolder, written_folder
from srbench.results.keys import KEY_VERSION

NAME = "relearn"
"""What `--set` calls it."""
VERSION = 1
FITTED: dict[str, dict[str, dict[str, Any]]] = {
    "pocket": {
        kind: {"lr": 1e-3, "steps": 16, "guidance": 5.0, "contexts": f"@pocket-{kind}s", "texts": "@pocket-world"}
        for kind in ("object", "style")
    }
}
"""Family -> kind of concept -> settings for it: the family's own sampling, and a rate for a small model."""


class Settings(base.Options):
    """How a checkpoint is taught again."""

    parameters: Literal["adapters", "all"] = "adapters"
    """Low-rank adapters on self- and cross-attention, or every weight of the U-Net."""
    rank: int = Field(4, gt=0)
    lr: float = Field(1e-4, gt=0)
    """Adam's rate, the same in every step."""
    batch: int = Field(8, gt=0)
    images: int = Field(64, gt=0)
    """Pictures to learn from; of the concept those on which its judge sees it."""
    judged: bool = True
    folder: str | None = Field(None, exclude=True)
    """The user's own pictures in place of drawn ones; all are captioned with the concept's first name."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Texts with `{}` where a phrase of the concept stands, separated by semicolons, or `@NAME`. None: the phrase alone."""
    texts: Annotated[str | None, AfterValidator(listed_texts)] = Field(None, pattern=r"[^;\s]")
    """Of pictures of other things. None: the concept's neighbours; those that hold a phrase of the concept are left out."""
    guidance: float = 7.5
    """Of drawn pictures."""
    steps: int = Field(50, gt=0)
    """Of drawn pictures."""
    seed: int = 0


def settings_of(settings: tuple[str, ...] | list[str], concept: ConceptSpec, family: str) -> Settings:
    """The settings for a concept of a family, with the user's. Raises `UsageError` for a bad one."""
    kind = "style" if concept.kind == "style" else "object"
    return parsed(Settings, NAME, FITTED.get(family, {}).get(kind, {}), overrides(settings, (NAME,)))


# --- pictures --------------------------------------------------------------------------------------------------------------


def sentences_of(concept: ConceptSpec, family: str, settings: Settings, other: bool) -> list[tuple[str]]:
    """What the pictures say, screened. Raises `UsageError` where nothing is left of other things."""
    if other:
        listed = split_texts(settings.texts) or neighbours(concept, family)
        said = texts.without_concept(concept, family, listed)
        if not said:
            raise UsageError(f"there is nothing but '{concept.name}' to teach", f"Give some: --set {NAME}.texts='A; B'")
    else:
        said = [text for phrase in finetune.texts_of(concept, family, "all") for text in in_contexts(phrase, settings.contexts)]
    finetune.screened(concept, said)
    return [(text,) for text in said]


def lesson(
    info: base.BackboneInfo, concept: ConceptSpec, settings: Settings, other: bool, tell: base.Tell
) -> tuple[Tensor, list[str]]:
    """Latents (n, C, h, w) and their captions, by the untouched pipeline.

    Raises `MissingError` for a sensitive concept without a folder of the user's: no such picture is drawn.
    """
    if settings.folder is not None and not other:
        side = int(info.pipeline.unet.config.sample_size * info.pipeline.vae_scale_factor)
        pixels = inversion.read_images(Path(settings.folder).expanduser(), side, side)
        name = finetune.texts_of(concept, info.family, "names")[0]
        finetune.screened(concept, [name])
        return inversion.latents_of(info.pipeline, pixels), [name] * len(pixels)
    if screen.sensitive_concept(concept) and not other:
        problem = f"concept '{concept.name}' is sensitive: no pictures of it are drawn to learn from"
        raise MissingError(problem, f"Bring your own: --set {NAME}.folder=DIR")
    said = sentences_of(concept, info.family, settings, other)
    latents, found = pictures.of_sentences(info, concept, said, settings, NAME, tell, shows=not other)
    return latents, [text for (text,) in found]


# --- training --------------------------------------------------------------------------------------------------------------


def taught(
    pipeline: Any, latents: Tensor, captions: list[str], settings: Settings, steps: int, tell: base.Tell
) -> dict[str, Tensor]:
    """The U-Net's weights that changed after `steps` steps on the pipeline as it is, which is left alone.

    Raises `UsageError` for a backbone without a U-Net, `CellError` where the loss is not finite or nothing changed.
    """
    draws, scheduler = denoising.Denoising(pipeline, settings.steps, settings.guidance), pipeline.scheduler
    whole = settings.parameters == "all"
    unet = denoising.trainable(finetune.unet_of(pipeline, NAME)) if whole else denoising.frozen(pipeline, NAME)
    said = denoising.encoded(pipeline, list(dict.fromkeys(captions)))
    place = {text: i for i, text in enumerate(dict.fromkeys(captions))}
    rows = torch.tensor([place[text] for text in captions])
    rng = torch.Generator().manual_seed(settings.seed)
    own = {} if whole else adapters.made(
        adapters.attention_layers(unet, "all"), settings.rank, float(settings.rank), "kaiming", rng
    )  # fmt: skip
    weights = dict(unet.named_parameters()) if whole else {}
    for value in weights.values():
        value.requires_grad_(True)

    def draw(done: int) -> Tensor:
        which = torch.randint(len(latents), (settings.batch,), generator=rng)
        t = torch.randint(scheduler.config.num_train_timesteps, (settings.batch,), generator=rng).to(latents.device)
        clean, noise = latents[which], draws.noise(settings.batch, rng)
        x, wanted = denoising.added_noise(scheduler, clean, noise, t), denoising.wanted(scheduler, clean, noise, t)
        with adapters.attached(unet, own):
            return F.mse_loss(draws.predict(unet, x, t, _chosen(said, rows[which])), wanted)

    parameters = list(weights.values()) if whole else adapters.parameters(own)
    learning.train(parameters, draw, learning.Recipe(settings.lr, steps), tell, phase="teaching it again")
    if whole:
        before = dict(pipeline.unet.named_parameters())
        return finetune.changed(before, weights, NAME)
    before, after = adapters.fused(unet, own)
    return finetune.changed(before, after, NAME)


def _chosen(said: Conditioning, rows: Tensor) -> Conditioning:
    return denoising.chosen(said, rows.to(said.embeds.device))


def joined(under: Mapping[str, Mapping[str, Tensor]], unet: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A checkpoint's tensors with new ones of the U-Net: it stands alone on the untouched backbone."""
    whole = {component: dict(tensors) for component, tensors in under.items()}
    whole["unet"] = {**whole.get("unet", {}), **unet}
    return whole


# --- stored ----------------------------------------------------------------------------------------------------------------


def identity(
    backbone: Backbone, concept: ConceptSpec, under: Checkpoint | None, settings: Settings, name: OnName, judge: str
) -> dict[str, Any]:
    """Everything that determines the weights."""
    pictures_sha = ""
    if settings.folder is not None and not name.other:
        files = inversion.image_files(Path(settings.folder).expanduser())
        pictures_sha = digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    options = settings.model_dump(mode="json") | {"taught": name.steps, "other": name.other, "pictures": pictures_sha}
    return {
        "key_version": KEY_VERSION, "backbone_sha256": backbone.sha256, "method": NAME, "version": VERSION, "options": options,
        "concept_sha256": concept_sha(concept, backbone.spec.family),
        "base": {"checkpoint_sha256": under.sha256 if under else ""}, "judge": judge,
    }


def relearned(
    backbone: Backbone, concept: ConceptSpec, under: Checkpoint | None, name: OnName, settings: Settings, folder: Path,
    output: OutputFolder, tell: base.Tell, make: bool,
) -> Checkpoint:
    """The checkpoint after its lesson, from `folder` or made now.

    Raises as `lesson` and `taught` do, and `Unmade` where it is missing and nothing may be made.
    """
    judge = ConceptJudge.of(concept, backbone.spec.family) if settings.judged and settings.folder is None else None
    about = identity(backbone, concept, under, settings, name, judge.identity if judge else "")
    key = digest(about)
    place = folder / f"{NAME}-{concept.name}-{key[:12]}"
    title = f"{name.before}~{name.steps}{':other' if name.other else ''}"
    if not (is_home_made(place) and read_card(place).get("key") == key):
        if not make:
            raise Unmade(f"{title} is not made yet for {concept.name}", "A run makes it first.")
        plain = base.info_of(backbone, cache=folder, tell=tell, judge=judge)
        latents, captions = lesson(plain, concept, settings, name.other, tell)
        began = time.perf_counter()
        with laid_over(backbone.pipeline, under):
            new = taught(backbone.pipeline, latents, captions, settings, name.steps, tell)
        tensors = joined(under.tensors if under else {}, new)
        seconds = time.perf_counter() - began
        with written_folder(place, output, True) as fresh:
            write(fresh, backbone, base.Edit(tensors, {}), about, seconds, title=title, concept=concept.name)
    return open_home_made(place, title, backbone.sha256, concept.name, backbone.pipeline)
