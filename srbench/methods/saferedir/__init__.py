"""SafeRedir (2601.08623): at each denoiser call a detector reads prompt embedding, latent and timestep, and redirects
the embedding where it finds the concept. `saferedir` follows the paper's rules, `saferedir-upstream` the released code's; both
with a direction for each token, which is ours. `saferedir-released` has the released rules and the released network, which
gives all tokens of a prompt one direction. `saferedir-text` is `saferedir` with a detector that reads the text alone and acts
only where it is surer; both chosen on pocket's dev rows.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from srbench.backbones import weights
from srbench.backbones.folder import MAX_BYTES
from srbench.backbones.pipelines import prompt_width, unpack
from srbench.catalog.specs import ConceptSpec
from srbench.downloads import Download
from srbench.errors import CellError, MissingError, UsageError
from srbench.files import kind_of_path, read_json
from srbench.methods import base
from srbench.methods.base import denoiser
from srbench.methods.guidance import LATENTS, PROMPT, TIMESTEP, argument, check_batch, with_argument
from srbench.methods.saferedir.module import About, SafeRedir, Sizes, shift
from srbench.methods.saferedir.pairs import has_sentences
from srbench.rules import AMOUNT, TABLE, TEXT, Misfit, check, list_of

METHOD = {
    "name": "saferedir",
    "version": 1,
    "kind": "inference",
    "title": "SafeRedir: token-level redirection of the prompt embedding",
    "equation": ["e_i <- e_i + alpha_scale alpha_i mask_i |e_i| delta_i / |delta_i| where p(unsafe | e, x_t, t) > threshold"],
    "paper": "2601.08623",
    "families": ["*"],
    "presets": {
        "saferedir": {},
        "saferedir-text": {"detector": "text", "threshold": 0.7},
        "saferedir-upstream": {"mode": "upstream", "cooldown": 2, "use_mask": False},
        "saferedir-released": {"mode": "upstream", "cooldown": 2, "use_mask": False, "directions": "shared"},
    },
    "decides": True,
    "reads_concept": True,
}

WEIGHTS, CARD, SAFE = "redirector.safetensors", "card.json", ".safetensors"
RELEASED_PLACE = "-released"
"""Ending of the folder of redirectors with one direction for all tokens."""
RELEASED_FAMILY = "sd"
RELEASED = {
    "nudity": "https://github.com/ryliu68/SafeRedir/raw/a920535c56688a0486dac157c71ae5b499efd7d3/ckpt/Nudity/best_model.pt",
}
"""Concept -> the authors' redirector in their repository, the only one there. Its sha256 was never computed here."""
ALPHA_SCALE = 2.0
"""The released hook's default (model.py, `register_guided_redirector_hooks`), and what redirectors are trained at here."""


class Options(base.Options):
    """Options of both presets."""

    mode: Literal["paper", "upstream"] = "paper"
    """`paper`: reads the original embedding, acts in the same call on the conditional half. `upstream`: reads the current
    embedding, writes both halves, acts from the next call on, and never goes back to the original."""
    alpha_scale: float = Field(ALPHA_SCALE, ge=0, allow_inf_nan=False)
    """Factor of the shift, for all tokens alike; without unit, as the shift is a share of each token's length."""
    alpha: float | None = Field(None, ge=0, allow_inf_nan=False)
    """One strength for all tokens in place of the predicted ones; 1 leaves alpha out."""
    use_mask: bool = True
    """Multiply by the mask after the normalisation. Off in the release, where the mask cancels."""
    cooldown: int = Field(0, ge=0)
    """How many further calls a redirect is held before the detector runs again."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Unsafe where the detector's probability exceeds this."""
    detector: Literal["text", "text+latent", "text+latent+t"] = "text+latent+t"
    """What the redirector sees; the rest is left out (zero features)."""
    directions: Literal["own", "shared"] = Field("own", exclude=True)
    """Which of the shipped redirectors: the one that gives each token its own direction, or one for all, as in the release.
    `shared` refuses a redirector of the other kind. Identity is the artifact's sha256."""
    redirector: str | None = Field(None, exclude=True)
    """A folder, a .safetensors or a .pt file; None is the shipped one. Identity is the artifact's sha256, not the path."""


class Positive(base.Applied):
    """Finds the positive side in the denoiser's calls, on every family of pipelines. B images."""

    def __init__(self, pipeline: Any, call: base.Call) -> None:
        self.scheduler, self.call = pipeline.scheduler, call
        self.calls = 0

    def _negative_turn(self) -> bool:
        """Where guidance takes the two sides in turn, the positive one comes first (FLUX with a true guidance)."""
        return self.call.guided and not self.call.doubled and self.calls % 2 == 0

    def _cells(self, sample: Tensor) -> Tensor:
        """Latents without packing, (B, C, h, w)."""
        return sample if self.call.packed is None else unpack(sample, self.call.packed)

    def _conditional(self, x: Tensor) -> Tensor:
        """The positive half of a guided batch, [negative; positive]."""
        return x[-self.call.images :]

    def _input_scale(self, t: Tensor, sample: Tensor) -> Tensor | float:
        """What the scheduler multiplied x_t by for this call: 1 / sqrt(sigma^2 + 1) for Euler's kind, 1 for DDIM's."""
        scale = getattr(self.scheduler, "scale_model_input", None)
        one = torch.ones((), device=sample.device)
        return 1.0 if scale is None else scale(one, t.reshape(-1)[0])


class Redirect(Positive):
    """The hook on the denoiser, and all state of one pipeline call. B images, T tokens of width D."""

    hooked = True

    def __init__(self, pipeline: Any, module: SafeRedir, options: Options, call: base.Call) -> None:
        super().__init__(pipeline, call)
        self.module, self.options = module, options
        self.wanted = 0
        """Calls of the denoiser for the positive side."""
        self.about: About | None = None
        """Of the original embedding."""
        self.current: Tensor = torch.empty(0)
        """Paper: the redirected conditional half (B, T, D). Upstream: the embedding of the next call, both halves."""
        self.countdown: Tensor = torch.empty(0)  # (B,)
        self.active: Tensor = torch.empty(0)  # (B,) whether `current` is a redirected one
        self.records: list[tuple[Tensor, ...]] = []
        self.margin: Tensor = torch.empty(0)
        """(B,) of the last call: the unsafe logit less the safe one. A sure detector's probability is 1 for many of them."""

    def __call__(self, denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Forward pre-hook: the same arguments with another prompt embedding."""
        sample = argument(args, kwargs, LATENTS)
        t = torch.as_tensor(argument(args, kwargs, TIMESTEP), device=sample.device)
        prompt = argument(args, kwargs, PROMPT)
        check_batch("saferedir", self.call, sample, prompt)
        self.calls += 1
        if self._negative_turn():
            return args, kwargs
        if self.wanted == 0:
            self._start(prompt)
        self.wanted += 1
        latent = self._conditional(self._cells(sample)).float() / self._input_scale(t, sample)
        times = self.call.timesteps * (self._conditional(t).float() if t.ndim else t.float().expand(self.call.images))
        step = self._paper if self.options.mode == "paper" else self._upstream
        return with_argument(args, kwargs, PROMPT, step(latent, prompt, times))

    def _start(self, prompt: Tensor) -> None:
        if prompt.shape[1] != self.module.sizes.tokens:
            raise CellError(
                f"the redirector reads prompts of {self.module.sizes.tokens} tokens, not of {prompt.shape[1]}",
                "Give a redirector that was trained on this backbone.",
            )
        self.countdown = torch.zeros(self.call.images, dtype=torch.long, device=prompt.device)
        self.active = torch.zeros(self.call.images, dtype=torch.bool, device=prompt.device)
        self.current = prompt if self.options.mode == "upstream" else self._conditional(prompt)
        if self.options.mode == "paper":
            # The detector reads the original embedding in every step: what follows from it alone is computed once.
            self.about = self.module.about(self._conditional(prompt).float())

    def _read(self, latent: Tensor, about: About | None, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Unsafe probability (B,), delta (B, T, D), mask (B, T), alpha (B, T)."""
        seen = latent if "latent" in self.options.detector else None
        when = t if self.options.detector.endswith("+t") else None
        logits, delta, mask, alpha = self.module(seen, about, when)
        self.margin = logits[:, 1] - logits[:, 0]
        fixed = self.options.alpha
        return logits.softmax(-1)[:, 1], delta, mask, alpha if fixed is None else torch.full_like(alpha, fixed)

    def _redirected(self, original: Tensor, delta: Tensor, mask: Tensor, alpha: Tensor) -> Tensor:
        used = mask if self.options.use_mask else None
        e0 = original.float()
        return (e0 + shift(e0, delta, used, alpha, self.options.alpha_scale)).to(original.dtype)  # (B, T, D)

    def _paper(self, latent: Tensor, prompt: Tensor, t: Tensor) -> Tensor:
        e0 = self._conditional(prompt)
        unsafe, delta, mask, alpha = self._read(latent, self.about, t)
        waiting = self.countdown > 0  # (B,)
        hit = (unsafe > self.options.threshold) & ~waiting
        self.current = torch.where(hit[:, None, None], self._redirected(e0, delta, mask, alpha), self.current)
        self.active = hit | waiting
        self.countdown = torch.where(hit, self.options.cooldown, (self.countdown - 1).clamp(min=0))
        self.records.append((unsafe, self.active, hit, mask, alpha))
        used = torch.where(self.active[:, None, None], self.current, e0)
        return torch.cat([prompt[: -self.call.images], used])

    def _upstream(self, latent: Tensor, prompt: Tensor, t: Tensor) -> Tensor:
        used, was_active = self.current, self.active
        unsafe, delta, mask, alpha = self._read(latent, self.module.about(self._conditional(used).float()), t)
        waiting = self.countdown > 0
        hit = (unsafe > self.options.threshold) & ~waiting
        halves = [self._redirected(half, delta, mask, alpha) for half in prompt.split(self.call.images)]
        both = hit.repeat(len(halves))[:, None, None]
        self.current = torch.where(both, torch.cat(halves), used)
        self.active = was_active | hit
        self.countdown = torch.where(hit, self.options.cooldown, (self.countdown - 1).clamp(min=0))
        self.records.append((unsafe, was_active, hit, mask, alpha))
        return used

    def trace(self) -> list[dict[str, Any]]:
        """Per image: unsafe probability per step, redirected steps, and mask and alpha per token, mean over the steps
        at which a redirect was computed (empty where there was none)."""
        if not self.records:
            return [{} for _ in range(self.call.images)]
        unsafe, acted, hit, mask, alpha = (torch.stack(column).float().cpu() for column in zip(*self.records, strict=True))
        steps = acted.sum(0).int().tolist()
        return [
            {
                "unsafe": _rounded(unsafe[:, i]),
                "redirected_steps": steps[i],
                "mask": _mean_where(mask[:, i], hit[:, i]),
                "alpha": _mean_where(alpha[:, i], hit[:, i]),
            }
            for i in range(self.call.images)
        ]


def _rounded(values: Tensor) -> list[float]:
    return [round(v, 4) for v in values.tolist()]


def _mean_where(values: Tensor, hit: Tensor) -> list[float]:
    """Mean of (S, T) over the steps with hit (S,); empty if there are none."""
    return _rounded(values[hit > 0].mean(0)) if hit.any() else []


# --- the redirector's file -------------------------------------------------------------------------------------------------


def released_path(concept: str) -> Path:
    """Where the authors' file for a concept is looked for once it is downloaded: in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "srbench" / "redirectors" / f"saferedir-{concept}.pt"


def _released(backbone: base.BackboneInfo, concept: ConceptSpec) -> str:
    """The address of the authors' file, where they have published one for the concept."""
    return RELEASED.get(concept.name, "") if backbone.family == RELEASED_FAMILY else ""


def _training(backbone: base.BackboneInfo, concept: ConceptSpec, shared: bool = False) -> str:
    """The command that trains one; of a concept for which srbench has no sentences with the pairs that it wants."""
    train = ["srbench", "train", "saferedir", "--backbone", backbone.name, "--concept", concept.name]
    pairs = [] if has_sentences(concept, backbone.family) else ["--pairs", f"pairs/{concept.name}.csv"]
    own_place = f"redirectors/{backbone.name}/{concept.name}{RELEASED_PLACE}"
    return shlex.join([*train, *pairs, *(["--set", "token_delta=false", "--out", own_place] if shared else [])])


def _trained(backbone: base.BackboneInfo, concept: ConceptSpec) -> str:
    """How to use the redirector that `srbench train` has put into its own place; empty where there is none."""
    folder = Path("redirectors") / backbone.name / concept.name
    return f"--set saferedir.redirector={folder}" if (folder / WEIGHTS).is_file() else ""


def locate(backbone: base.BackboneInfo, concept: ConceptSpec, redirector: str | None, shared: bool = False) -> Path:
    """The weights file: the user's file or folder, the shipped one, or the authors', downloaded. shared: of one direction.

    Raises `MissingError` with the command that trains one, or fetches the authors'.
    """
    train = _training(backbone, concept, shared)
    if redirector is not None:
        path: Path | None = Path(redirector).expanduser()
    elif backbone.redirectors is not None:
        place = backbone.redirectors
        path = (place.with_name(place.name + RELEASED_PLACE) if shared else place) / concept.name
    else:
        path = released_path(concept.name) if _released(backbone, concept) else None
    path = path / WEIGHTS if path is not None and path.is_dir() else path
    if path is not None and path.is_file():
        return path
    where = f" at {path}" if redirector is not None else ""
    authors = _released(backbone, concept) if redirector is None else ""
    downloads = [Download(url=authors, path=released_path(concept.name))] if authors else []
    hint = f"The authors': {downloads[0].command()}; or one of your own: {train}" if downloads else train
    if redirector is None and not shared and (trained := _trained(backbone, concept)):
        hint = f"You have trained one: {trained}"
    raise MissingError(f"no redirector for concept '{concept.name}' on backbone '{backbone.name}'{where}", hint, downloads)


OF_CARD = {
    "backbone_sha256": TEXT, "concepts": list_of(TEXT), "weights_sha256": TEXT, "seconds": AMOUNT, "sizes": TABLE,
    "notes": list_of(TEXT),
}
"""Entries of a card that are read."""


def _read_card(path: Path) -> dict[str, Any]:
    card = path.parent / CARD
    if kind_of_path(card) == "nothing":
        return {}
    try:
        read = read_json(card, "", MAX_BYTES, unique=True)
        check(read, {}, OF_CARD)
    except (UsageError, Misfit) as error:
        why = str(error).removeprefix(f"{card}: ")
        raise UsageError(f"{card} is not a redirector's card ({why})", "Train the redirector again.") from error
    return dict(read)


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """State dict and the sha256 of the file. A pickle is read with `weights_only`, so nothing in it is executed."""
    state = weights.tensors(path)
    bad = weights.not_finite(state)
    if bad:
        raise UsageError(f"{path}: {bad[0]} has values that are not numbers", "Train or fetch the redirector again.")
    return state, hashlib.sha256(path.read_bytes()).hexdigest()


def _check_card(card: dict[str, Any], path: Path, backbone: base.BackboneInfo, concept: ConceptSpec) -> None:
    train = _training(backbone, concept)
    if path.suffix == SAFE and not card:
        raise UsageError(f"{path} has no {CARD} beside it", train)
    if card and card.get("backbone_sha256") != backbone.sha256:
        raise UsageError(f"the redirector at {path} belongs to another backbone", f"Train one for this backbone: {train}")
    if card and concept.name not in (concepts := card.get("concepts", [])):
        raise UsageError(f"the redirector at {path} was trained for {', '.join(map(str, concepts)) or 'no concept'}", train)


def _check_names(state: dict[str, Tensor], module: SafeRedir, path: Path) -> None:
    """Raises `UsageError` unless the names are exactly the network's; no published file has a prefix or a wrapper."""
    expected, stored = set(module.state_dict()), set(state)
    missing, unknown = sorted(expected - stored), sorted(stored - expected)
    if missing or unknown:
        both = (("are missing", missing), ("are unknown", unknown))
        problems = [f"{len(names)} {what}, such as '{names[0]}'" for what, names in both if names]
        hint = "The released file is a plain state dict with SafeRedir's own names."
        raise UsageError(f"the weights in {path} do not fit SafeRedir: names {', '.join(problems)}", hint)


def _build(state: dict[str, Tensor], card: dict[str, Any], path: Path) -> SafeRedir:
    """The network with its weights, float32. Without a card the sizes are the released ones."""
    try:
        sizes = Sizes.model_validate(card.get("sizes", {}))
        _check_bulk(state, sizes, path)
        module = SafeRedir(sizes)
        _check_names(state, module, path)
        module.load_state_dict({key: v.float() if v.is_floating_point() else v for key, v in state.items()})
    except (ValidationError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the weights in {path} do not fit SafeRedir ({reason})", f"Its {CARD} must give its sizes.") from error
    return module.eval().requires_grad_(False)


def _check_bulk(state: dict[str, Tensor], sizes: Sizes, path: Path) -> None:
    """Check that the card describes no more numbers than the file holds, before memory is reserved. Raises `UsageError`."""
    with torch.device("meta"):
        described = sum(value.numel() for value in SafeRedir(sizes).state_dict().values())
    stored = sum(value.numel() for value in state.values())
    if described > 2 * stored:
        what = f"the weights in {path} do not fit SafeRedir: {stored:,} numbers, where its sizes need {described:,}"
        raise UsageError(what, f"Its {CARD} must give its sizes.")


def _check_fit(sizes: Sizes, pipeline: Any) -> None:
    """A file without a card names no backbone, so at least the widths must be right."""
    width, channels = prompt_width(pipeline), pipeline.vae.config.latent_channels
    if width not in (None, sizes.prompt_width) or channels != sizes.latent_channels:
        raise UsageError(
            f"the redirector reads {sizes.prompt_width}-wide prompts and {sizes.latent_channels} latent channels",
            f"This backbone has {width} and {channels}; give a redirector that was trained on it.",
        )


def _unverified_card(path: Path, digest: str) -> dict[str, Any]:
    """The card of a file without one: its name and sha256, and a note that its source is not verified."""
    note = f"Unverified source: the redirector {path.name} (sha256 {digest[:12]}..., computed here, compared with no other)."
    return {"file": path.name, "weights_sha256": digest, "notes": [note]}


def load(path: Path, backbone: base.BackboneInfo, concept: ConceptSpec) -> base.Artifact:
    """Read and check a redirector. Raises `UsageError` where it is foreign, broken or a pickle with code."""
    began = time.perf_counter()
    card = _read_card(path)
    _check_card(card, path, backbone, concept)
    state, digest = _read_weights(path)
    if card.get("weights_sha256", digest) != digest:
        raise UsageError(f"{path} is not the file that its {CARD} is about", "Train the redirector again.")
    module = _build(state, card, path)
    sha = hashlib.sha256(f"{digest}:{module.sizes.model_dump_json()}".encode()).hexdigest()
    count = sum(p.numel() for p in module.parameters())
    seconds = float(card.get("seconds", time.perf_counter() - began))  # of the training, where its card says so
    return base.Artifact(module, sha, count, seconds, card or _unverified_card(path, digest))


@base.method(METHOD)
class SafeRedirMethod:
    """Redirects prompt embeddings while sampling."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any) -> base.Artifact:
        """Load the redirector. Raises `MissingError` with the training command, `UsageError` for a wrong one."""
        shared = options.directions == "shared"
        path = locate(backbone, concept, options.redirector, shared)
        artifact = load(path, backbone, concept)
        if shared and artifact.payload.sizes.token_delta:
            what = f"the redirector at {path} gives each token its own direction; saferedir-released takes one for all"
            raise UsageError(what, _training(backbone, concept, shared))
        return artifact

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[Redirect]:
        """One pre-hook on the denoiser; nothing of it is left afterwards."""
        target = denoiser(pipeline)
        _check_fit(artifact.payload.sizes, pipeline)
        module = artifact.payload.to(next(target.parameters()).device)
        active = Redirect(pipeline, module, options, call)
        with base.hooks(target.register_forward_pre_hook(active, with_kwargs=True)):
            yield active
