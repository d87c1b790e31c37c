"""AdvUnlearn (2405.15234): the text encoder is trained away from the concept under adversarial prompts, with a retain loss.

Written from the paper. The released attack never clears its gradients, so that its steps add up; here each step has its own. The
retain prompts are srbench's own list, or the user's; the released ones are 243 objects filtered by a language model.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.specs import ConceptSpec
from srbench.methods import base, denoising, esd, finetune, learning, texts
from srbench.methods.phrases import listed_texts

METHOD = {
    "name": "advunlearn",
    "version": 1,
    "kind": "weight",
    "title": "AdvUnlearn: adversarial training of the text encoder",
    "equation": [
        "L = || e(x_t, enc'(adv, c)) - [e_0 - eta (e_c - e_0)] ||^2",
        "    + w || e(x_r, enc'(c_r)) - e(x_r, enc(c_r)) ||^2",
        "adv = argmin || e(x_t, enc'(adv, c)) - e_c ||^2; e_0 and e_c are under the untouched encoder enc",
    ],
    "paper": "2405.15234",
    "families": ["pocket", "sd"],
    "presets": {"advunlearn": {}},
    # Not fitted on `dev` rows: the published recipe with pocket's steps, fewer iterations, a shorter attack and a larger rate.
    "fitted": {
        "pocket": {
            "advunlearn": {
                "object": {
                    "steps": 16, "iterations": 300, "warmup": 60, "attack_steps": 4, "attack_lr": 1e-2, "lr": 1e-4, "batch": 2,
                    "retain_texts": "@pocket-world",
                },
                "style": {
                    "steps": 16, "iterations": 300, "warmup": 60, "attack_steps": 4, "attack_lr": 1e-2, "lr": 1e-4, "batch": 2,
                    "retain_texts": "@pocket-world",
                },
            },
        },
    },
    "unfitted": ["advunlearn"],
    "decides": False,
    "reads_concept": True,
}


class Options(base.Options):
    """Options; the defaults are the published ones (OPTML-Group/AdvUnlearn, whose code has a retain weight of 1 by default)."""

    eta: float = Field(1.0, gt=0)
    """How far the target is beyond the empty prompt's prediction, as ESD's."""
    retain_weight: float = Field(0.3, ge=0)
    """w: the weight of the retain loss, without unit."""
    retain_texts: Annotated[str | None, AfterValidator(listed_texts)] = Field(None, pattern=r"[^;\s]")
    """Prompts that are kept, separated by semicolons, or `@NAME`; those that hold a phrase of the concept are left out. None:
    srbench's own objects. The concept's neighbours are kept, too."""
    retain_batch: int = Field(5, gt=0)
    """Retain prompts an iteration."""
    attack_steps: int = Field(30, ge=0)
    """Of the adversary, which moves one embedding before the phrase; 0: none, which is ESD on the text encoder."""
    attack_lr: float = Field(1e-3, gt=0)
    """Adam's rate for the adversary's embedding."""
    attack_start: Literal["random", "continued"] = "random"
    """Where the adversary's embedding begins in each iteration."""
    warmup: int = Field(200, ge=0)
    """Iterations before the first attack."""
    lr: float = Field(1e-5, gt=0)
    """Adam's rate."""
    iterations: int = Field(1000, gt=0)
    """Training steps: how often the weights are updated, the warm-up among them."""
    batch: int = Field(1, gt=0)
    """Samples an iteration, of one phrase; they share the timestep."""
    steps: int = Field(50, gt=0)
    """Inference steps of the sampling; x_t is taken at a random one."""
    start_guidance: float = 3.0
    """Guidance towards the concept while x_t is sampled; a factor without unit."""
    prompts: Literal["names", "all"] = "all"
    """Phrases that are erased: the concept's names, or those of its members too."""
    seed: int = 0
    """Of all random draws of the training: equal seeds make equal weights."""


class Session:
    """What one training needs at hand: a frozen U-Net, a frozen text encoder, and the copy that is trained."""

    def __init__(self, pipeline: Any, options: Options) -> None:
        self.pipeline, self.options = pipeline, options
        self.unet = denoising.frozen(pipeline, "advunlearn")
        self.edited, self.parameters = texts.trainable_encoder(pipeline, "advunlearn")
        self.draws = denoising.Denoising(pipeline, options.steps, options.start_guidance)
        self.rng = torch.Generator().manual_seed(options.seed)
        self.vector: Tensor | None = None
        """The adversary's embedding, where it is continued."""

    def predict(self, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The U-Net's prediction for x (B, C, h, w) under prompts (B, T, D), or under one (1, T, D)."""
        return self.draws.predict(self.unet, x, t, Conditioning(states.expand(len(x), -1, -1)))

    def frozen(self, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The same without a gradient."""
        with torch.no_grad():
            return self.predict(x, t, states)

    def read(self, *prompts: str) -> Tensor:
        """(N, T, D): texts as the edited encoder reads them."""
        return texts.states(self.edited, texts.padded_ids(self.pipeline, prompts))

    def attacked(self, x: Tensor, t: Tensor, phrase: str, wanted: Tensor, seen: list[float] | None = None) -> Tensor:
        """The adversary's embedding (1, 1, width): before the phrase, it brings the edited prediction near `wanted`, e(c_e).

        seen: gets the adversary's losses. The encoder is not moved.
        """
        options = self.options
        ids, start = texts.with_places(self.pipeline, phrase, 1, before=True)
        fresh = self.vector is None or options.attack_start == "random"
        vector = texts.random_vectors(self.edited, 1, self.rng) if fresh or self.vector is None else self.vector.clone()
        vector.requires_grad_(True)
        chosen = torch.optim.Adam([vector], lr=options.attack_lr)
        for _ in range(options.attack_steps):
            with torch.enable_grad():
                loss = F.mse_loss(self.predict(x, t, texts.states(self.edited, ids, vector, start)), wanted)
                grads = learning.gradients(loss, [vector])
            learning.step(chosen, [vector], grads)
            if seen is not None:
                seen.append(float(loss.detach()))
        self.vector = vector.detach()
        return self.vector

    def erasing(self, x: Tensor, t: Tensor, phrase: str, concept: Tensor, attack: bool) -> Tensor:
        """ESD's target, on the frozen encoder's states; the edited encoder reads the adversary's prompt. concept: (1, T, D)."""
        wanted, nothing = self.frozen(x, t, concept), self.frozen(x, t, self.draws.empty.embeds)
        if attack and self.options.attack_steps:
            vector = self.attacked(x, t, phrase, wanted)
            ids, start = texts.with_places(self.pipeline, phrase, 1, before=True)
            states = texts.states(self.edited, ids, vector, start)
        else:
            states = self.read(phrase)
        return F.mse_loss(self.predict(x, t, states), esd.target(wanted, nothing, wanted, self.options.eta))

    def retaining(self, x: Tensor, t: Tensor, prompts: list[str], states: Tensor) -> Tensor:
        """|| e'(x, c_r) - e(x, c_r) ||^2, mean; 0 at the start. states: (R, T, D), the frozen encoder's."""
        return F.mse_loss(self.predict(x, t, self.read(*prompts)), self.frozen(x, t, states))


@base.method(METHOD)
class AdvUnlearn:
    """Trains a copy of the text encoder; the U-Net stays."""

    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any, tell: base.Tell) -> base.Edit:
        """Text encoder weights under which the concept's prompts, and adversarial ones, no longer lead to it.

        Raises `UsageError` for a backbone with several text encoders or without a U-Net, `CellError` where training diverges or
        changes nothing.
        """
        pipeline = backbone.pipeline
        finetune.unet_of(pipeline, "advunlearn")
        phrases = finetune.texts_of(concept, backbone.family, options.prompts)
        kept = texts.kept_texts(concept, backbone.family, options.retain_texts, "advunlearn")
        finetune.screened(concept, [*phrases, *kept])
        session = Session(pipeline, options)
        concepts, stays = denoising.encoded(pipeline, phrases).embeds, denoising.encoded(pipeline, kept).embeds  # (N, T, D) each
        rng, draws = session.rng, session.draws

        def draw(done: int) -> Tensor:
            which = int(torch.randint(len(phrases), (), generator=rng))
            retained = torch.randint(len(kept), (options.retain_batch,), generator=rng)
            with torch.no_grad():
                now = session.read(phrases[which]).expand(options.batch, -1, -1)
            x, t = draws.noisy(session.unet, Conditioning(now), rng)
            loss = session.erasing(x, t, phrases[which], concepts[which : which + 1], done >= options.warmup)
            if not options.retain_weight:
                return loss
            other, when = draws.noisy(session.unet, Conditioning(stays[retained]), rng)
            names = [kept[i] for i in retained.tolist()]
            return loss + options.retain_weight * session.retaining(other, when, names, stays[retained])

        recipe = learning.Recipe(options.lr, options.iterations)
        losses = learning.train(list(session.parameters.values()), draw, recipe, tell)
        before = dict(pipeline.text_encoder.named_parameters())
        tensors = finetune.changed(before, session.parameters, "advunlearn")
        card = {"names": len(phrases), "phrases": phrases, "kept": len(kept), "loss_curve": finetune.curve(losses)}
        return base.Edit({"text_encoder": tensors}, card | finetune.edit_card(
            {name: before[name].detach().float().cpu() for name in tensors}, tensors
        ))
