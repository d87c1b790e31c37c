"""Shared by the weight methods: a U-Net's weights by rule, prompt embeddings, sampling, the training loop, the result."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from srbench.catalog.screen import is_sexual, names_minor, sensitive_concept
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError
from srbench.methods.base import Tell
from srbench.methods.phrases import anchors, phrases, with_article, words_of

Rule = Literal["x", "u", "kv", "layers", "noxattn", "all"]
"""x: linear and convolution layers of cross-attention; kv: its keys and values; u: such layers outside of cross-attention;
layers: all of them; noxattn: everything, norms too, but cross-attention, the output's norm and convolution, and the time
embedding; all: everything."""

CURVE_POINTS = 20
NEGLIGIBLE = 1e-7
"""||dW|| / ||W|| at or below this is float32 rounding, not an edit."""


# --- texts ---------------------------------------------------------------------------------------------------------------


def texts_of(concept: ConceptSpec, family: str, which: Literal["names", "all"]) -> list[str]:
    """The concept's names, or all its phrases."""
    return list(words_of(concept, family).names) if which == "names" else phrases(concept, family)


def anchored(concept: ConceptSpec, family: str, which: Literal["names", "all"] = "all") -> dict[str, str]:
    """Phrases of the concept -> their anchors; a name without one of its own takes that of the longest word that it holds.

    Raises `UsageError` where a phrase has none.
    """
    anchor_of = anchors(concept, family)
    by_word = {word: anchor_of[with_article(word, concept)] for word in words_of(concept, family).words}
    chosen = texts_of(concept, family, which)
    return {phrase: anchor_of.get(phrase) or _anchor_within(phrase, by_word, concept.name) for phrase in chosen}


def _anchor_within(phrase: str, by_word: Mapping[str, str], concept: str) -> str:
    """The anchor of the longest word that the phrase holds."""
    words = [word for word in by_word if f" {word} " in f" {phrase} "]
    if not words:
        raise UsageError(
            f"concept '{concept}' has no anchor for '{phrase}': none of its words is part of it",
            f"Add '{phrase}' to the concept's counterparts.",
        )
    return by_word[max(words, key=len)]


def screened(concept: ConceptSpec, texts: Iterable[str]) -> None:
    """Refuse to encode texts that name minors for a sensitive concept (design section 8).

    Raises `UsageError`.
    """
    every = list(texts)
    if (sensitive_concept(concept) or any(map(is_sexual, every))) and any(map(names_minor, [concept.name, *every])):
        raise UsageError(
            f"concept '{concept.name}': a text that would be encoded names a minor", "Remove it from the concept's words."
        )


def token_ids(pipeline: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, padded to the tokenizer's length as `encode_prompt` does."""
    tokenizer = pipeline.tokenizer
    length = tokenizer.model_max_length
    return tokenizer(list(texts), padding="max_length", max_length=length, truncation=True).input_ids


@torch.no_grad()
def encode(pipeline: Any, texts: Sequence[str]) -> Tensor:
    """Prompt embeddings as the pipeline's own `encode_prompt` makes them, (N, T, D) float32 on its device."""
    return pipeline.encode_prompt(
        prompt=list(texts), device=pipeline.unet.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )[0].float()


# --- weights -------------------------------------------------------------------------------------------------------------


def unet_of(pipeline: Any, method: str) -> Any:
    """The pipeline's U-Net. Raises `UsageError` where it has none."""
    unet = getattr(pipeline, "unet", None)
    if unet is None:
        raise UsageError(f"{method} knows U-Nets only; this backbone has none", "Give a Stable Diffusion backbone.")
    return unet


NOXATTN_LEAVES_OUT = ("conv_norm_out.", "conv_out.", "time_embedding.")
"""CompVis' `out.` and `time_embed`, as diffusers names them."""


def _layers(unet: nn.Module) -> set[str]:
    """Names of the weights and biases of linear and convolution layers."""
    return {
        f"{path}.{name}"
        for path, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for name, _ in module.named_parameters(recurse=False)
    }


def _matches(name: str, rule: Rule, layers: set[str]) -> bool:
    crosses = ".attn2." in f".{name}"
    if rule == "all":
        return True
    if rule == "noxattn":
        return not crosses and not name.startswith(NOXATTN_LEAVES_OUT)
    if rule == "kv":
        return name in layers and (".attn2.to_k." in f".{name}" or ".attn2.to_v." in f".{name}")
    return name in layers and (rule == "layers" or crosses is (rule == "x"))


def chosen(unet: nn.Module, rule: Rule) -> dict[str, nn.Parameter]:
    """The U-Net's parameters under a rule, by name. Cross-attention is what diffusers calls `attn2`.

    Raises `UsageError` where there are none.
    """
    layers = _layers(unet)
    parameters = {name: value for name, value in unet.named_parameters() if _matches(name, rule, layers)}
    if not parameters:
        raise UsageError(f"this U-Net has no weights under the rule '{rule}'", "It has no cross-attention named attn2.")
    return parameters


def keys_and_values(unet: nn.Module) -> dict[str, Tensor]:
    """Cross-attention's key and value matrices, each (out, D), float64 on the CPU, by name."""
    return {name: p.detach().double().cpu() for name, p in chosen(unet, "kv").items() if name.endswith(".weight")}


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
    """Those of `after` that differ from `before`, float32 on the CPU.

    Raises `CellError` where values are not finite, or where nothing changed by more than rounding.
    """
    new = {name: value.detach().float().cpu() for name, value in after.items()}
    old = {name: before[name].detach().float().cpu() for name in new}
    if not all(bool(value.isfinite().all()) for value in new.values()):
        raise CellError(f"{method}: the new weights are not finite", "Lower lr, or raise lam.")
    different = {name: value.contiguous() for name, value in new.items() if not torch.equal(value, old[name])}
    if relative_change(old, different) <= NEGLIGIBLE:
        raise CellError(f"{method}: nothing changed", "Raise lr, iterations or the erase scale, or give another guide.")
    return different


def relative_change(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """||dW|| / ||W|| (Frobenius) over the tensors of `after`."""
    moved = sum(float((value.double() - before[name].double()).square().sum()) for name, value in after.items())
    size = sum(float(before[name].double().square().sum()) for name in after)
    return math.sqrt(moved / size) if size else float(moved > 0)


@dataclass(frozen=True)
class Copies:
    """A U-Net twice in float32: as it is, and the copy that is trained."""

    frozen: Any
    edited: Any
    parameters: dict[str, nn.Parameter]
    """The edited copy's trained parameters; all others of it are frozen."""

    def result(self, method: str) -> dict[str, Tensor]:
        """What training changed. Raises `CellError` as `changed` does."""
        before = dict(self.frozen.named_parameters())
        return changed(before, self.parameters, method)


def copies(pipeline: Any, rule: Rule, method: str) -> Copies:
    """Copies for training under a rule; the pipeline's own U-Net is read and never written.

    Raises `UsageError` for a pipeline without a U-Net and for one whose U-Net wants more than a prompt (SDXL).
    """
    unet = unet_of(pipeline, method)
    if getattr(unet.config, "addition_embed_type", None):
        raise UsageError(
            f"{method} knows U-Nets that read a prompt only; this one also reads {unet.config.addition_embed_type}",
            "Give a Stable Diffusion 1 or 2 backbone.",
        )
    edited = copy.deepcopy(unet).float().eval().requires_grad_(False)
    parameters = chosen(edited, rule)
    for value in parameters.values():
        value.requires_grad_(True)
    frozen = unet if unet.dtype == torch.float32 else copy.deepcopy(unet).float()
    return Copies(frozen, edited, parameters)


# --- sampling ------------------------------------------------------------------------------------------------------------


def predict(unet: Any, x: Tensor, t: Tensor, prompts: Tensor) -> Tensor:
    """The U-Net's output (B, C, h, w) for x (B, C, h, w), t of one value, and prompts (B, T, D)."""
    return unet(x, t, encoder_hidden_states=prompts).sample


@dataclass(frozen=True)
class Sampler:
    """Draws latents with copies of the pipeline's scheduler; the pipeline's own is never stepped.

    The size is the U-Net's own `sample_size`.
    """

    pipeline: Any
    empty: Tensor  # (1, T, D)
    steps: int
    """Inference steps from noise to image."""
    guidance: float

    @torch.no_grad()
    def noisy(self, unet: Any, prompts: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """x_t for prompts (B, T, D) at one random step for the whole batch, as the U-Net reads it, and t."""
        scheduler = self._scheduler(unet)
        step = int(torch.randint(len(scheduler.timesteps), (), generator=rng))
        x = self._walk(scheduler, unet, prompts, step, rng)  # (B, C, h, w)
        t = scheduler.timesteps[step]
        return scheduler.scale_model_input(x, t), t

    @torch.no_grad()
    def clean(self, unet: Any, prompts: Tensor, rng: torch.Generator) -> Tensor:
        """x_0 for prompts (B, T, D), (B, C, h, w)."""
        scheduler = self._scheduler(unet)
        return self._walk(scheduler, unet, prompts, len(scheduler.timesteps), rng)

    def _scheduler(self, unet: Any) -> Any:
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(self.steps, device=unet.device)
        return scheduler

    def _walk(self, scheduler: Any, unet: Any, prompts: Tensor, steps: int, rng: torch.Generator) -> Tensor:
        """From noise through `steps` guided steps."""
        size = unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        noise = torch.randn((len(prompts), unet.config.in_channels, height, width), generator=rng)  # (B, C, h, w)
        x = noise.to(unet.device) * scheduler.init_noise_sigma
        both = torch.cat([self.empty.expand_as(prompts), prompts])  # (2B, T, D)
        # Only stochastic schedulers draw noise of their own; without this they draw it from the global generator.
        options = {"generator": rng} if "generator" in inspect.signature(scheduler.step).parameters else {}
        for t in scheduler.timesteps[:steps]:
            negative, wanted = predict(unet, scheduler.scale_model_input(torch.cat([x, x]), t), t, both).chunk(2)
            x = scheduler.step(negative + self.guidance * (wanted - negative), t, x, **options).prev_sample
        return x


# --- training ------------------------------------------------------------------------------------------------------------


def fit(
    parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], rate: float, iterations: int, tell: Tell,
    look: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """Adam on `loss`, drawn anew in each iteration; returns the losses. `look` gets the iterations done.

    Raises `CellError` at the first loss that is not finite.
    """
    optimiser = torch.optim.Adam(list(parameters), lr=rate)
    seen: list[float] = []
    for done in range(1, iterations + 1):
        with torch.enable_grad():
            value = loss()
            seen.append(float(value.detach()))
            if not math.isfinite(seen[-1]):
                raise CellError(f"the loss of iteration {done} is not finite", f"Lower the rate (lr, now {rate:g}).")
            optimiser.zero_grad(set_to_none=True)
            value.backward()
        optimiser.step()
        tell("training", done, iterations, f"loss {seen[-1]:.4g}")
        look(done)
    return seen


def curve(losses: Sequence[float], points: int = CURVE_POINTS) -> list[list[float]]:
    """[iteration, mean loss since the point before] at about `points` iterations."""
    ends = sorted({len(losses) * k // points for k in range(1, points + 1)} - {0})
    spans = itertools.pairwise([0, *ends])
    return [[end, float(f"{sum(losses[start:end]) / (end - start):.6g}")] for start, end in spans]


def training_card(losses: Sequence[float], parameters: Mapping[str, nn.Parameter], changed: int) -> dict[str, Any]:
    """The card's part on training."""
    return {
        "loss_curve": curve(losses),
        "trained_parameters": sum(p.numel() for p in parameters.values()),
        "trained_tensors": len(parameters),
        "changed_tensors": changed,
    }


def edit_card(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Any]:
    """The card's part on a closed-form edit."""
    return {
        "changed_parameters": sum(value.numel() for value in after.values()),
        "changed_tensors": len(after),
        "relative_change": float(f"{relative_change(before, after):.6g}"),
    }
