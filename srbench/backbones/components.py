"""Opens a pipeline's folder component by component, and reads the report that the libraries give of each.

diffusers and transformers fill what they do not find with random numbers, leave out what they do not know, and make a
tokenizer without a vocabulary; all of that with a warning at most. Here each of these is an error.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from srbench.backbones import tokenizers, weights
from srbench.backbones.folder import ENCODERS, FETCH, TOKENIZERS, Component, anatomy, read_index, weight_files
from srbench.backbones.lengths import Reader, reader_of
from srbench.backbones.names import OLD_ATTENTION
from srbench.backbones.places import WEIGHTS
from srbench.backbones.weights import one_line
from srbench.errors import UsageError

NUMBERS_A_BYTE = 2
"""Most weights that a byte can hold: two of four bits."""
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")
"""What a denoiser may predict, as diffusers' schedulers call it."""
NUMBERS = ("scaling_factor", "sample_size")
"""Numbers of a configuration that may not be null."""


def opened(folder: Path, family: str, dtype: torch.dtype, left_out: Mapping[str, Any]) -> Any:
    """The pipeline of a folder, every component whole and every tokenizer tried.

    left_out: components that the pipeline goes without. Raises `HalfHere` with a file that is missing, `UsageError` with the
    names of tensors that are missing, unknown, of another shape or not numbers, or with what a tokenizer does wrong.
    """
    from diffusers import DiffusionPipeline

    parts = anatomy(folder, family)
    with quiet():
        components = {name: _load(component, dtype) for name, component in parts.items()}
        check_tokenizers(folder, components)
        with one_line(f"{folder}: cannot be loaded as a diffusers pipeline"):
            return DiffusionPipeline.from_pretrained(folder, local_files_only=True, **{**left_out, **components})


def check(folder: Path, family: str) -> None:
    """All that `opened` checks, with one component in memory at a time, in the numbers of its file. Raises as `opened` does."""
    parts, facts = anatomy(folder, family), {}
    with quiet():
        for name, component in parts.items():
            part = _load(component, None)
            facts[name] = part if name in TOKENIZERS else _EncoderFacts(part) if name in ENCODERS else None
        check_tokenizers(folder, facts)


def reader(folder: Path, family: str) -> Reader:
    """The tokenizers of a pipeline's folder, without any weights. Raises as `opened` does."""
    import diffusers

    parts = anatomy(folder, family, weights=False)
    with quiet():
        components = {name: _load(component, None) for name, component in parts.items() if name in TOKENIZERS}
    return reader_of(getattr(diffusers, str(read_index(folder)["_class_name"])), components)


class _EncoderFacts:
    """What a tokenizer is compared with in an encoder, without its weights."""

    def __init__(self, encoder: Any) -> None:
        self.config = copy.deepcopy(encoder.config)
        self._words = encoder.get_input_embeddings().num_embeddings

    def get_input_embeddings(self) -> Any:
        with torch.device("meta"):
            return torch.nn.Embedding(self._words, 1)


def check_tokenizers(folder: Path, components: Mapping[str, Any]) -> None:
    """Check every tokenizer against the encoder that reads its token ids. Raises `UsageError`."""
    for encoder, tokenizer in zip(ENCODERS, TOKENIZERS, strict=True):
        if components.get(tokenizer) is not None and components.get(encoder) is not None:
            with one_line(f"{folder / tokenizer}: cannot be used"):
                tokenizers.check(components[tokenizer], components[encoder], str(folder / tokenizer))


def _load(component: Component, dtype: torch.dtype | None) -> Any:
    """One component, whole. dtype: None keeps the file's."""
    cls = _class(component)
    with one_line(f"{component.folder}: cannot be loaded as {component.cls}"):
        _check_types(cls, component)
        if not issubclass(cls, torch.nn.Module):
            loaded = cls.from_pretrained(component.folder, local_files_only=True)
            if component.name == "scheduler":
                _check_prediction(loaded, component)
            return loaded
        _check_twins(cls, component)  # reads the names, so a file without weights is reported first
        _check_bulk(cls, component)
        variant = {"variant": component.variant} if component.variant else {}
        kind = {"dtype": dtype} if dtype is not None else {"dtype": "auto"} if component.library == "transformers" else {}
        loaded, report = cls.from_pretrained(
            component.folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, **kind, **variant
        )
    check_whole(loaded, report, str(component.folder))
    return loaded


def _check_types(cls: Any, component: Component) -> None:
    """Check that numbers of the configuration are numbers, as diffusers expects. Raises `UsageError`."""
    if component.library != "diffusers":
        return
    config = cls.load_config(component.folder, local_files_only=True)
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        number = isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool)
        none = name in NUMBERS and config.get(name, 0) is None
        if number and (none or isinstance(config.get(name), str | dict)):
            raise UsageError(f"{component.folder}: its configuration's '{name}' is no number but {config[name]!r:.60}", FETCH)


def _check_prediction(scheduler: Any, component: Component) -> None:
    """Check the `prediction_type`: with an unknown one a scheduler fails at its first step. Raises `UsageError`."""
    prediction = scheduler.config.get("prediction_type")
    if prediction is not None and prediction not in PREDICTIONS:
        expected = ", ".join(PREDICTIONS)
        raise UsageError(f"{component.folder}: its prediction_type is {prediction!r:.60}, not one of {expected}", FETCH)


def _check_twins(cls: Any, component: Component) -> None:
    """Check that no tensor is stored under two names, of which the library would take one. Raises `UsageError`."""
    prefixes = {"text_model.", f"{getattr(cls, 'base_model_prefix', '') or 'text_model'}."}
    seen: dict[str, str] = {}
    for name in _tensor_names(component):
        plain = name
        for prefix in prefixes:
            plain = plain.removeprefix(prefix)
        for old, new in OLD_ATTENTION.items():
            plain = plain.replace(old, new)
        if plain in seen:
            raise UsageError(f"{component.folder}: holds one tensor under two names ({seen[plain]} and {name})", FETCH)
        seen[plain] = name


def _tensor_names(component: Component) -> list[str]:
    """Names in the files of weights that the library reads."""
    files = weight_files(component.folder, component.variant, component.library)
    return [name for file in files for name in weights.names(file)]


def _check_bulk(cls: Any, component: Component) -> None:
    """Check that the configuration describes no more than the files can hold, before memory is reserved. Raises `UsageError`."""
    with torch.device("meta"):
        if component.library == "diffusers":
            sketch = cls.from_config(cls.load_config(component.folder, local_files_only=True))
        else:
            sketch = cls(cls.config_class.from_pretrained(component.folder, local_files_only=True))
    described = sum(value.numel() for value in sketch.state_dict().values())
    stored_bytes = sum(path.stat().st_size for path in component.folder.iterdir() if path.suffix in WEIGHTS)
    if described > NUMBERS_A_BYTE * stored_bytes:
        raise UsageError(
            f"{component.folder}: its config.json describes {described:,} numbers, and its weights have {stored_bytes:,} bytes",
            FETCH,
        )


def check_whole(network: torch.nn.Module, report: Mapping[str, Any], where: str) -> None:
    """Check that every tensor was loaded and none is missing, not finite or all zeros. Raises `UsageError`."""
    wrong = weights.of_report(report)
    if wrong:
        raise UsageError(f"{where}: {wrong}", f"The weights are not those that its config.json describes. {FETCH}")
    state = network.state_dict()
    empty = [name for name, value in state.items() if value.is_meta]
    if empty:
        raise UsageError(f"{where}: {weights.difference(missing=empty)}", FETCH)
    bad = weights.not_finite(state)
    if bad:
        raise UsageError(f"{where}: values of {min(bad)} are not numbers ({len(bad)} such tensors)", FETCH)
    zero = weights.all_zero(state)
    if zero:
        raise UsageError(f"{where}: {min(zero)} holds nothing but zeros{weights.BROKEN_OFF} ({len(zero)} such tensors)", FETCH)


def _class(component: Component) -> Any:
    """The component's class, of the kind that its role in the pipeline needs. Raises `UsageError`."""
    import diffusers
    import transformers
    from diffusers import ModelMixin, SchedulerMixin
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    cls = getattr({"diffusers": diffusers, "transformers": transformers}[component.library], component.cls, None)
    kind = (
        SchedulerMixin if component.name == "scheduler" else PreTrainedTokenizerBase if component.name in TOKENIZERS
        else PreTrainedModel if component.name in ENCODERS else ModelMixin
    )  # fmt: skip
    if not isinstance(cls, type) or not issubclass(cls, kind):
        what = "no such class" if cls is None else f"no {kind.__name__}"
        raise UsageError(f"{component.folder}: {component.library} has {what} '{component.cls}'", "It is another model's.")
    return cls


# --- libraries --------------------------------------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' reports and progress bars; srbench reads the reports and raises errors itself."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    # The missing safety checker is what a benchmark of unlearning wants; `srbench run` says so in its header.
    # diffusers logs an error for a folder with .bin files alone, and reads it all the same.
    diffusers_logging.set_verbosity(diffusers_logging.CRITICAL)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        yield
    finally:
        diffusers_logging.set_verbosity_error()
        transformers_logging.set_verbosity(before)
