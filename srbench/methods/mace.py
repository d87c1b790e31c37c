"""MACE (2403.06135): keys and values forget the concept's trace in its neighbours, adapters learn not to attend to it, and both
are brought together in closed form.

Written from the paper's equations. The released code scales the kept texts' weight twice in the first stage and normalises its
training images with another mean and deviation than the autoencoder's: the preset `mace-upstream` does both. Where the paper has
a segmenter, masks come from the frozen model's own attention, at half its maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import adapters, base, denoising, finetune, learning, pictures, probabilities, uce
from srbench.methods.phrases import in_contexts, listed_contexts, listed_texts, neighbours, split_texts
from srbench.methods.texts import bare, without_concept, word_tokens

METHOD = {
    "name": "mace",
    "version": 1,
    "kind": "weight",
    "title": "MACE: closed-form refinement, adapters that do not attend to the concept, closed-form fusion",
    "equation": [
        "W' = (S W e_n e_o^T + p S W e_p e_p^T + l W) (S e_o e_o^T + p S e_p e_p^T + l I)^-1, S: sum",
        "L_i = sum over layers of ||A||_F at the mask and the concept's tokens, which trains dW_i",
        "W* = W' + (S dW_i E_i) (S E_i + p S e_p e_p^T + l I)^-1, E_i = S e e^T over the concept's words",
    ],
    "paper": "2403.06135",
    "families": ["pocket", "sd", "sdxl"],
    "presets": {"mace": {}, "mace-upstream": {"released": True}},
    "fitted": {
        # Published, per kind (Shilin-LU/MACE); objects are the defaults.
        "sd": {
            "mace": {
                "style": {"lr": 1e-4, "lam": 0.1, "keep": 1e-4},
                "content": {"lr": 1e-5, "iterations": 120, "times": "uniform", "keep": 7e-7},
            },
            "mace-upstream": {
                "style": {"lr": 1e-4, "lam": 0.1, "keep": 1e-4},
                "content": {"lr": 1e-5, "iterations": 120, "times": "uniform", "keep": 7e-7},
            },
        },
        # Not fitted on `dev` rows: the published recipe with pocket's steps, more images and a rate for a small model.
        "pocket": {
            "mace": {
                "object": {
                    "steps": 16, "guidance": 5.0, "images": 32, "iterations": 150, "batch": 4, "lr": 3e-3, "lam": 0.5,
                    "keep": 0.1, "contexts": "@pocket-objects", "preserve_texts": "@pocket-world",
                },
                "style": {
                    "steps": 16, "guidance": 5.0, "images": 32, "iterations": 150, "batch": 4, "lr": 3e-3, "lam": 0.5,
                    "keep": 0.1, "contexts": "@pocket-styles", "preserve_texts": "@pocket-world",
                },
            },
            "mace-upstream": {
                "object": {
                    "steps": 16, "guidance": 5.0, "images": 32, "iterations": 150, "batch": 4, "lr": 3e-3, "lam": 0.5,
                    "keep": 0.1, "contexts": "@pocket-objects", "preserve_texts": "@pocket-world",
                },
                "style": {
                    "steps": 16, "guidance": 5.0, "images": 32, "iterations": 150, "batch": 4, "lr": 3e-3, "lam": 0.5,
                    "keep": 0.1, "contexts": "@pocket-styles", "preserve_texts": "@pocket-world",
                },
            },
        },
    },
    "unfitted": ["mace", "mace-upstream"],
    "decides": False,
    "reads_concept": True,
    "judged": True,
}

TEMPLATES = {
    "object": "a photo of {}; a picture of {}; {} in the park; {} by the sea; {} at night; a drawing of {}; {} on a sunny day; "
    "a close-up of {}; {} in the snow; two people next to {}",
    "style": "a painting {}; a landscape {}; a portrait {}; a cat {}; a house {}; a bowl of fruit {}; a street {}; flowers {}",
    "content": "a photo of {}; a picture of {}; {} in a room; {} outdoors; a drawing of {}; {} at night",
}
"""Kind of concept -> contexts, where none are given. The paper has thirty sentences of its own for each."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation that the released code normalises pixels with."""
AT_HALF = 0.5
"""A place is masked where the attention to the concept reaches this share of its maximum."""
MASK_TIME = 300
"""Timestep at which the attention is read: the middle of those that are trained."""


class Options(base.Options):
    """Options; the defaults are the published ones for objects."""

    lam: float = Field(100.0, gt=0)
    """l, which ties W' to W: published 10, 100, 1000 for objects, and 0 else, where kept captions alone do it; here never 0."""
    keep: float = Field(1e-4, ge=0)
    """p, the weight of what is kept."""
    preserve: Literal["none", "neighbours"] = "neighbours"
    """Texts that are kept: none, or the concept's neighbours."""
    preserve_texts: Annotated[str | None, AfterValidator(listed_texts)] = Field(None, pattern=r"[^;\s]")
    """Further texts that are kept, separated by semicolons, or `@NAME`. The paper keeps captions of COCO."""
    substitute: str | None = None
    """What stands in the concept's place; None: each phrase's anchor."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Sentences with `{}` where a phrase or its substitute stands, or `@NAME`; None: some of srbench's for the concept's kind."""
    rank: int = Field(1, gt=0)
    """Of the adapters: inner dimensions of each."""
    lr: float = Field(1e-5, gt=0)
    """AdamW's rate, with weight decay .01 and gradients of norm 1 at most."""
    iterations: int = Field(50, gt=0)
    """Training steps of each concept's adapters."""
    batch: int = Field(1, gt=0)
    """Images a training step."""
    images: int = Field(8, gt=0)
    """Images of each concept that are drawn and trained on."""
    times: Literal["early", "uniform"] = "early"
    """Density of the timesteps: sigmoid(.05 (t - 200)) - sigmoid(.05 (t - 400)), or all alike."""
    judged: bool = True
    """Whether the concept's judge has to see the concept in the images."""
    guidance: float = 7.5
    """Of the images; a factor without unit."""
    steps: int = Field(50, gt=0)
    """Inference steps of the images."""
    released: bool = False
    """The released code's arithmetic: p once more in the first stage, and another normalisation of the images."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""


# --- stages 1 and 3 --------------------------------------------------------------------------------------------------------


def shared(first: Sequence[int], second: Sequence[int], end: int) -> tuple[list[int], list[int]]:
    """Places of the tokens that two padded sentences share: from the start, and from the end with all after it, aligned."""
    ends = [list(ids).index(end, 1) for ids in (first, second)]
    before = 0
    while before < min(ends) and first[before] == second[before]:
        before += 1
    after = 0
    while after < min(ends) - before and first[ends[0] - 1 - after] == second[ends[1] - 1 - after]:
        after += 1
    tail = min(len(first) - ends[0], len(second) - ends[1]) + after
    head = list(range(before))
    return [*head, *range(ends[0] - after, ends[0] - after + tail)], [*head, *range(ends[1] - after, ends[1] - after + tail)]


def neighbourhood(pipeline: Any, pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """e_o and e_n, (N, D) float64: states of the words that each sentence shares with its substitute, in either."""
    ids = [finetune.token_ids(pipeline, list(pair)) for pair in pairs]
    states = [denoising.encoded(pipeline, [text for pair in pairs for text in pair][i::2]).embeds.double().cpu() for i in (0, 1)]
    places = [shared(first, second, pipeline.tokenizer.eos_token_id) for first, second in ids]
    old = torch.cat([state[where] for state, (where, _) in zip(states[0], places, strict=True)])
    new = torch.cat([state[where] for state, (_, where) in zip(states[1], places, strict=True)])
    return old, new


def refined(weights: Mapping[str, Tensor], old: Tensor, new: Tensor, kept: Tensor, lam: float, keep: float) -> dict[str, Tensor]:
    """W' = (S W e_n e_o^T + p S W e_p e_p^T + l W) (S e_o e_o^T + p S e_p e_p^T + l I)^-1 (2403.06135, section 3.2).

    Every state is (n, D) float64. Without words of the concept in a sentence e_n is e_o, and W' is W.
    """
    return uce.edited(weights, uce.mixing(uce.Directions(old, new, kept), lam, 1.0, keep))


def fused(
    weights: Mapping[str, Tensor], deltas: Sequence[Mapping[str, Tensor]], words: Sequence[Tensor], kept: Tensor, lam: float,
    keep: float,
) -> dict[str, Tensor]:
    """W* that gives (W' + dW_i) e on concept i's words and W' e_p on what is kept, least squares (2403.06135, section 3.4).

    W* = W' + (S dW_i E_i) (S E_i + p S e_p e_p^T + l I)^-1 with E_i = S e e^T over words (n_i, D). At l = p = 0 of all solutions
    the one nearest to W'.
    """
    moments = [each.T @ each for each in words]  # (D, D)
    norm = sum(moments) + keep * kept.T @ kept + lam * torch.eye(kept.shape[1], dtype=kept.dtype)
    inverse = torch.linalg.pinv(norm, hermitian=True)
    result = {}
    for name, weight in weights.items():
        moved = [delta[name] @ moment for delta, moment in zip(deltas, moments, strict=True) if name in delta]
        result[name] = weight + sum(moved, torch.zeros_like(weight)) @ inverse
    return result


# --- stage 2 ---------------------------------------------------------------------------------------------------------------


def density(times: str, total: int = 1000) -> Tensor:
    """Weights of the timesteps (total,) (2403.06135, section 3.3)."""
    t = torch.arange(total, dtype=torch.float64)
    return (0.05 * (t - 200)).sigmoid() - (0.05 * (t - 400)).sigmoid() if times == "early" else torch.ones(total)


def as_released(pipeline: Any, latents: Tensor) -> Tensor:
    """Latents of the same images under the released code's normalisation of pixels, (N, C, h, w)."""
    mean, deviation = (torch.tensor(value).view(1, 3, 1, 1) for value in IMAGENET)
    pixels = torch.from_numpy(denoising.pixels_of(pipeline, latents)).permute(0, 3, 1, 2).float() / 255  # (N, 3, H, W)
    vae = pipeline.vae
    scaled = ((pixels - mean) / deviation).to(vae.device, vae.dtype)
    with torch.no_grad():
        encoded = torch.cat([vae.encode(one[None]).latent_dist.mode() for one in scaled])
    return (encoded - (getattr(vae.config, "shift_factor", None) or 0.0)) * vae.config.scaling_factor


@dataclass(frozen=True)
class Images:
    """Training images of one concept."""

    latents: Tensor  # (n, C, h, w)
    prompts: Any
    """Their sentences' conditioning, a row each."""
    tokens: Tensor  # (n, T) bool: the concept's, the end and the padding
    words: Tensor  # (n, T) bool: the concept's alone
    masks: Tensor  # (n, h, w) bool: where the concept is


@torch.no_grad()
def masks_of(
    draws: denoising.Denoising, unet: Any, latents: Tensor, prompts: Any, words: Tensor, rng: torch.Generator
) -> Tensor:
    """(n, h, w) bool at the finest layer: where the frozen model attends to the words, at half the maximum or more."""
    t = torch.full((len(latents),), MASK_TIME, device=latents.device)
    x = denoising.added_noise(draws.pipeline.scheduler, latents, draws.noise(len(latents), rng), t)
    with probabilities.recorded(unet) as recorders:
        draws.predict(unet, x, t, prompts)
        maps = probabilities.word_map(probabilities.last(recorders), words.to(x.device), *draws.size)
    return maps >= AT_HALF


def loss(draws: denoising.Denoising, unet: Any, own: adapters.Adapters, x: Tensor, t: Tensor, images: Images) -> Tensor:
    """Sum over layers of ||A||_F at the masked places and the concept's tokens, the end and the padding (2403.06135, eq. 4)."""
    with probabilities.recorded(unet) as recorders, adapters.attached(unet, own):
        draws.predict(unet, x, t, images.prompts)
        layers = probabilities.last(recorders)
    masks = [probabilities.resized(images.masks, each.shape[2], *draws.size) for each in layers]
    return probabilities.attended(layers, images.tokens.to(x.device), masks)


def part_of(images: Images, which: Tensor) -> Images:
    """Some of the images."""
    here = which.to(images.latents.device)
    prompts = denoising.chosen(images.prompts, here)
    return Images(images.latents[here], prompts, images.tokens[which], images.words[which], images.masks[here])


def learn(
    backbone: base.BackboneInfo, draws: denoising.Denoising, unet: Any, images: Images, options: Options, tell: base.Tell
) -> tuple[dict[str, adapters.Adapter], list[float]]:
    """Adapters on keys and values that turn attention away from the concept, and the losses. unet: with the refined weights."""
    rng = torch.Generator().manual_seed(options.seed + 1)
    own = adapters.made(adapters.keys_and_values(unet), options.rank, float(options.rank), "gaussian", rng)
    weights = density(options.times, draws.pipeline.scheduler.config.num_train_timesteps)

    def draw(done: int) -> Tensor:
        which = torch.randint(len(images.latents), (options.batch,), generator=rng)
        part = part_of(images, which)
        t = torch.multinomial(weights, options.batch, replacement=True, generator=rng).to(part.latents.device)
        noise = draws.noise(options.batch, rng)
        return loss(draws, unet, own, denoising.added_noise(draws.pipeline.scheduler, part.latents, noise, t), t, part)

    recipe = learning.Recipe(options.lr, options.iterations, decay=1e-2, clip=1.0)
    look = adapters.looking(backbone, unet, own, options.iterations)
    return own, learning.train(adapters.parameters(own), draw, recipe, tell, look)


# --- texts -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Sentences of one concept."""

    phrases: list[str]
    sentences: list[tuple[str, str, str]]
    """With a phrase, with its substitute, and the phrase."""


def plan(concept: ConceptSpec, family: str, options: Options) -> Plan:
    """What is read. Raises `UsageError` where an anchor is asked for and missing, and for a text that names a minor."""
    if options.substitute is None:
        substitutes = finetune.anchored(concept, family)
    else:
        substitutes = dict.fromkeys(finetune.texts_of(concept, family, "all"), options.substitute)
    contexts = options.contexts or TEMPLATES[concept.kind]
    sentences = [
        (said, safe, phrase) for phrase, other in substitutes.items()
        for said, safe in zip(in_contexts(phrase, contexts), in_contexts(other, contexts), strict=True)
    ]  # fmt: skip
    finetune.screened(concept, [text for said, safe, _ in sentences for text in (said, safe)])
    return Plan(list(substitutes), sentences)


def kept_texts(concept: ConceptSpec, family: str, options: Options) -> list[str]:
    """Neighbours and listed texts; of a joint concept without those that any part is to forget."""
    listed = [*(neighbours(concept, family) if options.preserve == "neighbours" else []), *split_texts(options.preserve_texts)]
    kept = without_concept(concept, family, listed)
    finetune.screened(concept, kept)
    return kept


def prepared(
    backbone: base.BackboneInfo, concept: ConceptSpec, todo: Plan, options: Options, unet: Any, tell: base.Tell
) -> Images:
    """The images of a concept with their tokens and masks; of a style the mask is the whole image."""
    pipeline, draws = backbone.pipeline, denoising.Denoising(backbone.pipeline, options.steps, options.guidance)
    latents, sentences = pictures.of_sentences(backbone, concept, todo.sentences, options, "mace", tell)
    words, tokens = (
        torch.stack([word_tokens(pipeline.tokenizer, said, phrase, ends) for said, _, phrase in sentences])
        for ends in (False, True)
    )
    prompts = denoising.encoded(pipeline, [said for said, _, _ in sentences])
    masks = masks_of(draws, unet, latents, prompts, words, torch.Generator().manual_seed(options.seed))
    if concept.kind == "style":
        masks = torch.ones_like(masks)
    return Images(as_released(pipeline, latents) if options.released else latents, prompts, tokens, words, masks)


def concept_words(images: Images) -> Tensor:
    """States of the concept's words in the images' sentences, (n, D) float64."""
    return torch.cat([states[mask] for states, mask in zip(images.prompts.embeds.double().cpu(), images.words, strict=True)])


def _all_tokens(pipeline: Any, texts: Sequence[str], width: int) -> Tensor:
    """Every token's state of each text, (n, D) float64."""
    if not texts:
        return torch.zeros(0, width, dtype=torch.float64)
    return denoising.encoded(pipeline, texts).embeds.double().cpu().flatten(0, 1)


@base.method(METHOD)
class Mace:
    """Solves, trains, and solves again."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """The three stages; of a joint concept the first and the last for all parts at once, adapters for each.

        Raises `UsageError` for a backbone without a U-Net, a concept without anchors where they are asked for, or without a judge
        where one is wanted; `CellError` where training diverges or nothing changes.
        """
        pipeline = backbone.pipeline
        original = denoising.frozen(pipeline, "mace")
        parts = concept.parts or (concept,)
        todo = [plan(part, backbone.family, options) for part in parts]
        _check_contradictions(todo)
        weights = finetune.keys_and_values(original)
        tells = [_phase(tell, part.name if concept.parts else "") for part in parts]
        images = [
            prepared(backbone, part, each, options, original, its) for part, each, its in zip(parts, todo, tells, strict=True)
        ]
        old, new = neighbourhood(pipeline, [(said, safe) for each in todo for said, safe, _ in each.sentences])
        kept = _all_tokens(pipeline, kept_texts(concept, backbone.family, options), old.shape[1])
        first = refined(weights, old, new, kept, options.lam, options.keep**2 if options.released else options.keep)
        tell("refinement", 1, 1, f"{len(weights)} matrices")

        unet = denoising.trainable(original)
        # Not strict: of the whole network only the refined keys and values, whose names are its own.
        unet.load_state_dict({name: value.float() for name, value in first.items()}, strict=False)
        draws = denoising.Denoising(pipeline, options.steps, options.guidance)
        learned = [learn(backbone, draws, unet, each, options, its) for each, its in zip(images, tells, strict=True)]
        words = [concept_words(each) for each in images]
        final = fused(first, [adapters.deltas(own) for own, _ in learned], words, kept, options.lam, options.keep)
        tensors = finetune.changed(weights, final, "mace")
        tell("fusion", 1, 1, f"{len(tensors)} matrices")
        phrases = [phrase for each in todo for phrase in each.phrases]
        card = {"names": len(phrases), "phrases": phrases, "images": [len(each.latents) for each in images], "kept": len(kept)}
        curves = {"loss_curve": finetune.curve(learned[-1][1])}
        return base.Edit({"unet": tensors}, card | curves | finetune.edit_card(weights, tensors))


def _phase(tell: base.Tell, name: str) -> base.Tell:
    """Progress under a concept's own name, where there are several."""
    return lambda phase, done, total, note: tell(f"{phase} {name}".strip(), done, total, note)


def _check_contradictions(todo: Sequence[Plan]) -> None:
    """Raises `UsageError` where one concept is to become what another one is to forget."""
    for each in todo:
        for other in todo:
            gone = {phrase for phrase in other.phrases if other is not each}
            clash = next(((phrase, safe) for _, safe, phrase in each.sentences if _holds_any(safe, gone)), None)
            if clash is not None:
                raise UsageError(f"'{clash[0]}' would become '{clash[1]}', which another concept forgets", "Give a substitute.")


def _holds_any(text: str, phrases: set[str]) -> bool:
    return any(f" {bare(phrase)} " in f" {text.replace(',', ' ')} " for phrase in phrases)
