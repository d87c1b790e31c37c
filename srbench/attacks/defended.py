"""The denoiser of a victim with its method in force, as one prediction that gradients flow through; and what the untouched
backbone would have drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from srbench.attacks.base import Victim, undefended
from srbench.attacks.text import heard
from srbench.backbones.checkpoint import laid_over
from srbench.backbones.pipelines import Conditioning, kind_of
from srbench.errors import CellError, UsageError
from srbench.methods.base import Applied, Call, denoiser

Gradient = Literal["exact", "bpda"]
"""exact: through all that the method does; where it decides by a threshold there is none. bpda: the value with the method, the
gradient as if there were none (Athalye et al., 1802.00420, section 4.1)."""


class Speaker:
    """The victim's text encoder as its pipeline uses it, from texts or with embeddings in place of some tokens."""

    def __init__(self, victim: Victim) -> None:
        """Raises `UsageError` for a pipeline with other encoders than one CLIP text model."""
        kind = kind_of(victim.pipeline)
        if kind.name != "sd":
            raise UsageError(
                f"white-box attacks know one CLIP text encoder, not those of {type(victim.pipeline).__name__}",
                "They fit pocket and Stable Diffusion 1 and 2.",
            )
        self.model, self.tokenizer = victim.pipeline.text_encoder, victim.pipeline.tokenizer
        self.size: int = self.tokenizer.model_max_length
        """T, the tokens of a padded text."""
        self.table: Tensor = self.model.get_input_embeddings().weight.detach()  # (V, D)
        self.device = self.table.device

    def ids(self, texts: Sequence[str]) -> Tensor:
        """Padded token ids (B, T), on the CPU."""
        read = self.tokenizer(
            list(texts), padding="max_length", max_length=self.size, truncation=True, return_tensors="pt"
        )
        return read.input_ids

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Prompt embeddings (B, T, D)."""
        return self.model(self.ids(texts).to(self.device))[0]

    def embeds(self, ids: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """Prompt embeddings (B, T, D) of token ids (B, T) with `rows` (B, n, D) as the embeddings of the tokens at
        `places` (B, n); a place of T is none. Gradients flow to `rows`."""

        def put(output: Tensor) -> Tensor:
            beyond = torch.cat([output.detach(), output.detach()[:, :1]], 1)  # (B, T + 1, D)
            index = places.to(output.device)[..., None].expand(-1, -1, output.shape[-1])
            return beyond.scatter(1, index, rows.to(beyond.dtype))[:, : output.shape[1]]

        with heard(self.model, put):
            return self.model(ids.to(self.device))[0]


class Defended:
    """A victim's denoiser at the steps of its recipe.

    Each prediction applies the method anew: its state of earlier steps is lost, but it gets the step number that it would have
    while sampling.
    """

    def __init__(self, victim: Victim, gradient: Gradient = "exact", calls: int = 1) -> None:
        """calls: of the denoiser in one application; the last one counts. 2 for a method that acts from the next call on.

        Raises `UsageError` for a scheduler that scales what the denoiser reads.
        """
        self.victim, self.gradient, self.calls = victim, gradient, calls
        self.network = denoiser(victim.pipeline)
        self.scheduler = copy.deepcopy(victim.pipeline.scheduler)
        self.scheduler.set_timesteps(victim.recipe.steps)
        if float(self.scheduler.init_noise_sigma) != 1.0:
            raise UsageError(
                f"white-box attacks do not know {type(self.scheduler).__name__}, which scales the denoiser's input",
                "Take a backbone with DDIM or PNDM.",
            )
        self.t: Tensor = self.scheduler.timesteps  # (S,)
        self.negative = Speaker(victim).encode([""])  # (1, T, D)
        self.applied = Applied()
        """What was active in the last prediction."""

    def predict(self, x: Tensor, step: int, embeds: Tensor, texts: Sequence[str], guidance: float) -> Tensor:
        """Guided prediction (B, C, h, w) for x_t (B, C, h, w) at a step of the recipe, under prompt embeddings (B, T, D).

        texts: the prompts, for methods that read their words. guidance: 1 gives the positive side alone.
        Raises `CellError` where the method's hook did not run.
        """
        if self.gradient == "exact" or self.victim.defence is None or not torch.is_grad_enabled():
            return self._through(x, step, embeds, texts, guidance)
        plain = self._combined(x, step, Conditioning(embeds), self._empty(embeds), guidance)
        with torch.no_grad():
            defended = self._through(x, step, embeds.detach(), texts, guidance)
        return plain + (defended - plain).detach()

    def _empty(self, embeds: Tensor) -> Conditioning:
        return Conditioning(self.negative.expand_as(embeds))

    def _through(self, x: Tensor, step: int, embeds: Tensor, texts: Sequence[str], guidance: float) -> Tensor:
        positive, negative = Conditioning(embeds), self._empty(embeds)
        defence = self.victim.defence
        if defence is None:
            return self._combined(x, step, positive, negative, guidance)
        call = Call(len(x), self.victim.recipe.steps, True, tuple(texts))
        with defence.method.applied(self.victim.pipeline, defence.artifact, defence.options, call) as self.applied:
            positive, negative = self.applied.conditioning(positive, negative)
            for _ in range(self.calls):
                self.applied.calls = step  # the step's own number, for methods that count
                predicted = self._combined(x, step, positive, negative, guidance, both=True)
                if self.applied.hooked and self.applied.calls == step:
                    raise CellError("the method's hook did not run", "It does not fit this pipeline.")
        return predicted

    def _combined(
        self, x: Tensor, step: int, positive: Conditioning, negative: Conditioning, guidance: float, both: bool = False
    ) -> Tensor:
        """negative + guidance (positive - negative); without a method the negative half is left out at guidance 1."""
        t = self.t[step]
        if guidance == 1 and not both:
            return self._run(x, t, positive.embeds)
        e0, ec = self._run(torch.cat([x, x]), t, torch.cat([negative.embeds, positive.embeds])).chunk(2)
        return e0 + guidance * (ec - e0)

    def _run(self, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        return self.network(x, t.to(x.device), encoder_hidden_states=prompt, return_dict=False)[0]

    # --- targets of a prediction -------------------------------------------------------------------------------------------

    def noised(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """x_t (B, C, h, w) of clean latents at a step."""
        return self.scheduler.add_noise(clean, noise, self._times(clean, step))

    def truth(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """The denoiser's target at `noised`, (B, C, h, w), by the scheduler's prediction type."""
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            return self.scheduler.get_velocity(clean, noise, self._times(clean, step))
        raise UsageError(f"white-box attacks know no prediction of the kind '{kind}'", "They know epsilon and v_prediction.")

    def _times(self, clean: Tensor, step: int) -> Tensor:
        return self.t[step].long().expand(len(clean)).to(clean.device)  # (B,)


@dataclass(frozen=True)
class Drawn:
    """What the untouched backbone draws, without any method: B images, S steps."""

    clean: Tensor
    """The finished latents, (B, C, h, w)."""
    x: Tensor
    """x_t before each step, (S, B, C, h, w)."""
    guided: Tensor
    """Its guided prediction there, (S, B, C, h, w)."""


@torch.no_grad()
def drawn(victim: Victim, texts: Sequence[str], seeds: Sequence[int]) -> Drawn:
    """Sample the target prompts on the untouched backbone; noise as everywhere: a CPU generator a seed."""
    with laid_over(victim.pipeline, victim.original):
        plain = Defended(undefended(victim))
        embeds = Speaker(victim).encode(texts)
        x = _noise(victim, seeds).to(embeds)  # (B, C, h, w)
        seen: list[Any] = []
        for step, t in enumerate(plain.t):
            guided = plain.predict(x, step, embeds, texts, victim.recipe.guidance)
            seen.append((x, guided))
            x = plain.scheduler.step(guided, t, x).prev_sample
    before, predictions = (torch.stack(column) for column in zip(*seen, strict=True))
    return Drawn(x, before, predictions)


def _noise(victim: Victim, seeds: Sequence[int]) -> Tensor:
    pipeline, recipe = victim.pipeline, victim.recipe
    scale = pipeline.vae_scale_factor
    shape = (pipeline.vae.config.latent_channels, recipe.height // scale, recipe.width // scale)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
