"""Forget-Me-Not (2303.17591): the U-Net is trained for a few steps not to attend to the concept's words.

Written from the paper. `fmn` reads the concept's own words; `fmn-ti` first learns an embedding of the concept from the same
images, as the paper does, which stands in for them. The paper's has four tokens at the encoder's input, srbench's is one at its
output.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.screen import sensitive_concept
from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import base, denoising, finetune, inversion, learning, pictures, probabilities, texts
from srbench.methods.phrases import in_contexts, listed_contexts

METHOD = {
    "name": "fmn",
    "version": 1,
    "kind": "weight",
    "title": "Forget-Me-Not: a few steps away from attending to the concept",
    "equation": ["L = || A ||, A: the cross-attention probabilities of all layers at x_t, at the concept's tokens alone"],
    "paper": "2303.17591",
    "families": ["pocket", "sd"],
    "presets": {"fmn": {}, "fmn-ti": {"words": "inversion"}},
    # Not fitted on `dev` rows: the published recipe with pocket's steps, more images and a rate for a small model.
    "fitted": {
        "pocket": {
            "fmn": {
                "object": {"steps": 16, "guidance": 5.0, "images": 32, "batch": 4, "lr": 1e-4, "contexts": "@pocket-objects"},
                "style": {"steps": 16, "guidance": 5.0, "images": 32, "batch": 4, "lr": 1e-4, "contexts": "@pocket-styles"},
            },
            "fmn-ti": {
                "object": {"steps": 16, "guidance": 5.0, "images": 32, "batch": 4, "lr": 1e-4, "contexts": "@pocket-objects"},
                "style": {"steps": 16, "guidance": 5.0, "images": 32, "batch": 4, "lr": 1e-4, "contexts": "@pocket-styles"},
            },
        },
    },
    "unfitted": ["fmn", "fmn-ti"],
    "decides": False,
    "reads_concept": True,
    "judged": True,
}


class Options(base.Options):
    """Options; the defaults are the published ones (SHI-Labs/Forget-Me-Not)."""

    words: Literal["plain", "inversion"] = "plain"
    """What the attention is taken from: the concept's words, or an embedding learned from its images in their place."""
    inversion_iterations: int = Field(500, gt=0)
    """Training steps of the embedding; `words` is `inversion`."""
    inversion_lr: float = Field(1e-3, gt=0)
    """The rate at which the embedding is learned."""
    ends: bool = True
    """Whether the end of the text and its padding count as the concept's tokens, too."""
    parameters: Literal["all", "x"] = "all"
    """The whole U-Net, or cross-attention's linear layers."""
    lr: float = Field(2e-6, gt=0)
    """AdamW's rate, with weight decay .01."""
    iterations: int = Field(35, gt=0)
    """Training steps: how often the weights are updated."""
    batch: int = Field(1, gt=0)
    """Images a training step."""
    images: int = Field(8, gt=0)
    """Images of the concept that are drawn and trained on."""
    judged: bool = True
    """Whether the concept's judge has to see the concept in the images."""
    contexts: Annotated[str | None, AfterValidator(listed_contexts)] = Field(None, pattern=r"[^;\s]")
    """Texts with `{}` where a phrase stands, separated by semicolons, or `@NAME`. None: the phrase alone."""
    guidance: float = 7.5
    """Of the images; a factor without unit."""
    steps: int = Field(50, gt=0)
    """Inference steps of the images."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""


def loss(draws: denoising.Denoising, unet: Any, x: Tensor, t: Tensor, prompts: Conditioning, tokens: Tensor) -> Tensor:
    """The norm of all cross-attention probabilities at the concept's tokens, layers concatenated (2303.17591, section 3.2).

    x (B, C, h, w), t (B,), prompts a row each, tokens (B, T) bool.
    """
    with probabilities.recorded(unet) as recorders:
        draws.predict(unet, x, t, prompts)
        layers = probabilities.last(recorders)
    return torch.cat([(each * tokens.to(each)[:, None, None, :]).flatten() for each in layers]).norm()


def inverted(
    backbone: base.BackboneInfo, concept: ConceptSpec, latents: Tensor, states: Tensor, words: Tensor, options: Options,
    tell: base.Tell,
) -> Tensor:
    """Prompts' states (n, T, D) with an embedding learned from the images at the words' places, words (n, T) bool.

    Raises `UsageError` for a sensitive concept, of which no embedding is learned from images.
    """
    if sensitive_concept(concept):
        raise UsageError(f"concept '{concept.name}' is sensitive: no embedding is learned from images", "Take the preset 'fmn'.")
    settings = inversion.Settings(
        seed=options.seed, iterations=options.inversion_iterations, batch=options.batch, learning_rate=options.inversion_lr
    )
    pixels = denoising.pixels_of(backbone.pipeline, latents)
    with torch.enable_grad():
        vector, _ = inversion.learn(backbone.pipeline, concept, backbone.family, pixels, settings, tell)
    return torch.where(words[..., None].to(states.device), vector.to(states), states)


@base.method(METHOD)
class ForgetMeNot:
    """Trains a copy of the U-Net for a few steps."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """A U-Net that attends less to the concept's words.

        Raises `UsageError` for a backbone without a U-Net or where a judge is wanted and there is none, `CellError` where
        training diverges or changes nothing.
        """
        pipeline = backbone.pipeline
        nets = finetune.copies(pipeline, options.parameters, "fmn")
        phrases = finetune.texts_of(concept, backbone.family, "all")
        sentences = [(text, phrase) for phrase in phrases for text in in_contexts(phrase, options.contexts)]
        finetune.screened(concept, [text for text, _ in sentences])
        latents, said = pictures.of_sentences(backbone, concept, sentences, options, "fmn", tell)
        words, tokens = (
            torch.stack([texts.word_tokens(pipeline.tokenizer, text, phrase, ends) for text, phrase in said])
            for ends in (False, options.ends)
        )
        states = denoising.encoded(pipeline, [text for text, _ in said]).embeds  # (n, T, D)
        if options.words == "inversion":
            states = inverted(backbone, concept, latents, states, words, options, tell)
        draws = denoising.Denoising(pipeline, options.steps, options.guidance)
        rng = torch.Generator().manual_seed(options.seed + 1)

        def draw(done: int) -> Tensor:
            which = torch.randint(len(latents), (options.batch,), generator=rng)
            t = torch.randint(pipeline.scheduler.config.num_train_timesteps, (options.batch,), generator=rng).to(latents.device)
            x = denoising.added_noise(pipeline.scheduler, latents[which], draws.noise(options.batch, rng), t)
            return loss(draws, nets.edited, x, t, Conditioning(states[which]), tokens[which])

        def look(done: int) -> None:
            backbone.look(nets.edited, done, options.iterations)

        recipe = learning.Recipe(options.lr, options.iterations, decay=1e-2)
        losses = learning.train(list(nets.parameters.values()), draw, recipe, tell, look)
        tensors = nets.result("fmn")
        card = {"names": len(phrases), "phrases": phrases, "images": len(latents)}
        return base.Edit({"unet": tensors}, card | finetune.training_card(losses, nets.parameters, len(tensors)))
