"""The checks of every scorer, one function each: of images, of pairs with a reference, and of sets.

`check_scorer` runs them all; `srbench.testing.ScorerTests` is the same as pytest tests.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from srbench.catalog import contracts
from srbench.scorers import base
from srbench.scorers.base import PAIR, SET, kind_of
from srbench.scoring.scoring import NAMED
from srbench.testing import checks
from srbench.testing.checks import require

SIDE_PX = 64
PROMPTS = ("a cat on a beach", "a red apple, noto style", "an empty scene", "a house")
REFERENCE = "an empty scene"
BROKEN: dict[str, Any] = {
    "a picture without channels": np.zeros((SIDE_PX, SIDE_PX), np.uint8),
    "four channels": np.zeros((SIDE_PX, SIDE_PX, 4), np.uint8),
    "floating-point pixels": np.zeros((SIDE_PX, SIDE_PX, 3), np.float32), "no pixels": np.zeros((0, SIDE_PX, 3), np.uint8),
    "a batch in place of a picture": np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8), "a file's name": "a.png",
}  # fmt: skip
"""What is no uint8 RGB picture (height, width, 3)."""
SHA256 = re.compile("[0-9a-f]{64}")


def pictures(side: int = SIDE_PX) -> list[np.ndarray]:
    """Four different pictures, uint8 RGB (side, side, 3): a gradient, a disc, noise, and white."""
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    gradient = np.stack([np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), np.full((side, side), 90, np.uint8)], -1)
    y, x = np.mgrid[:side, :side] - side // 2
    disc = np.where((x**2 + y**2 < (side // 3) ** 2)[..., None], (250, 210, 60), (120, 190, 240)).astype(np.uint8)
    noise = np.random.default_rng(3).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return [gradient, disc, noise, np.full((side, side, 3), 255, np.uint8)]


def rows_for(count: int) -> list[dict[str, Any]]:
    """Row fields that a scorer may read, one dict a picture."""
    return [
        {"prompt": PROMPTS[i % len(PROMPTS)], "reference": None if i % 2 else REFERENCE} for i in range(count)
    ]  # fmt: skip


@dataclass
class ScorerCase:
    """A scorer with its options, and pictures to score."""

    cls: Any
    """The scorer's class."""
    meta: Mapping[str, Any]
    raw_options: base.Options | Mapping[str, Any]
    """Its options, or values of them."""
    images: Sequence[np.ndarray]
    """Four at least, uint8 RGB (H, W, 3) each, all different."""
    rows: Sequence[Mapping[str, Any]]

    def __str__(self) -> str:
        return str(self.meta["name"])

    @property
    def kind(self) -> str:
        """`image`, `pair` or `set`."""
        return kind_of(self.meta)

    @property
    def options(self) -> Any:
        """The options that it is opened with."""
        return self.raw_options if isinstance(self.raw_options, base.Options) else self.cls.Options(**self.raw_options)

    @cached_property
    def scorer(self) -> Any:
        """The scorer, opened once."""
        return self.cls(self.options)

    def scored(self, images: Sequence[Any], rows: Sequence[Any], scorer: Any = None) -> list[dict[str, Any]]:
        """One dict a picture. A pair is a picture and the one before it (the first: the last); in a set each has a vector."""
        used = scorer or self.scorer
        if self.kind == PAIR:
            return used.score(images, [*images[-1:], *images[:-1]], rows)
        if self.kind == SET:
            return [{base.FEATURE: vector.tolist()} for vector, _ in zip(used.features(images), rows, strict=True)]
        return used.score(images, rows)

    def all(self, scorer: Any = None) -> list[dict[str, Any]]:
        """The numbers of all pictures, in one call."""
        return self.scored(self.images, self.rows, scorer)

    @property
    def references(self) -> list[np.ndarray]:
        """For each picture the one that it is compared with."""
        return [*self.images[-1:], *self.images[:-1]]


# --- the checks -------------------------------------------------------------------------------------------------------


def its_class_carries_its_metadata(case: ScorerCase) -> None:
    """The opened scorer's metadata is what its file declares."""
    carried = contracts.check("scorers", case.scorer.meta, f"metadata of {case}")
    require(carried == case.meta, "its class carries other metadata than its file declares", "Leave `meta` to the decorator.")


def one_result_with_the_declared_fields_per_image(case: ScorerCase) -> None:
    """As many results as pictures, in their order, with the fields of the metadata; none for no picture."""
    scores = case.all()
    count = len(case.images)
    require(len(scores) == count, f"it gives {len(scores)} results for {count} images", "Return one dict for each image.")
    wanted = [base.FEATURE] if case.kind == SET else list(case.meta["fields"])
    for score in scores:
        names = list(score) if isinstance(score, Mapping) else type(score).__name__
        require(names == wanted, f"a result has the fields {names}, and SCORER declares {wanted}", "Return these, in this order.")
    require(case.scored([], []) == [], "it gives a result for no image", "Return an empty list.")


def order_does_not_matter(case: ScorerCase) -> None:
    """A picture's numbers do not depend on its place."""
    if case.kind == PAIR:
        turned = case.scorer.score(case.images[::-1], case.references[::-1], case.rows[::-1])
    else:
        turned = case.scored(case.images[::-1], case.rows[::-1])
    require(turned == case.all()[::-1], "an image's numbers depend on its place among the others", _APART)


def company_does_not_matter(case: ScorerCase) -> None:
    """A picture has the same numbers alone and among others, to the last bit."""
    if case.kind == PAIR:
        triples = zip(case.images, case.references, case.rows, strict=True)
        alone = [case.scorer.score([image], [beside], [row])[0] for image, beside, row in triples]
    else:
        alone = [case.scored([image], [row])[0] for image, row in zip(case.images, case.rows, strict=True)]
    require(alone == case.all(), "an image has other numbers alone than among others", _APART)


def the_number_of_threads_does_not_matter(case: ScorerCase) -> None:
    """Numbers are the same on one thread and on two, and torch has as many afterwards as before."""
    before, scores = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            scores.append(case.all())
            require(torch.get_num_threads() == count, "it changes torch's number of threads", "Put back what was there.")
    finally:
        torch.set_num_threads(before)
    require(scores[0] == scores[1], "its numbers depend on the number of threads", "Compute on one: torch.set_num_threads(1).")


def a_second_scorer_gives_the_same(case: ScorerCase) -> None:
    """Opened again, as in another run, it gives the same numbers, whatever is drawn from global generators."""
    scores = []
    for seed in (1, 2):
        with checks.other_noise(seed):
            scores.append(case.all(case.cls(case.options)))
    problem = "opened again it gives other numbers: it draws random numbers without a seed, or has weights that are not loaded"
    require(scores[0] == scores[1] == case.all(), problem, "Draw from a generator with a seed of its own, and load all weights.")


def numbers_are_finite_and_survive_json(case: ScorerCase) -> None:
    """No NaN and no infinity, which no table could hold; None stands for what has no number."""
    scores = case.all()
    try:
        again = json.loads(json.dumps(scores, allow_nan=False))
    except ValueError as error:
        raise AssertionError("it gives a number that is not finite. Return None where there is no number.") from error
    except TypeError as error:
        raise AssertionError(f"its numbers are not JSON ({error}). Convert numbers of numpy or torch: float(value).") from error
    require(again == scores, "its numbers are others after JSON", "Return numbers, texts, lists and dicts with texts as keys.")
    for read in {rule["field"] for rule in case.meta.get("metrics", {}).values()} if case.kind != SET else ():
        fits = all(isinstance(each[read], int | float | None) and not isinstance(each[read], bool) for each in scores)
        require(fits, f"'{read}', which a metric reads, is no number", "Return a number, or None.")


def pictures_are_not_changed(case: ScorerCase) -> None:
    """The arrays that it is given hold the same pixels afterwards."""
    before = [image.copy() for image in case.images]
    case.all()
    same = all(np.array_equal(a, b) for a, b in zip(case.images, before, strict=True))
    require(same, "it changes the pictures that it is given", "Work on a copy: image.copy().")


def a_read_only_or_strided_picture_scores_the_same(case: ScorerCase) -> None:
    """Pictures come from files and views: they may be read-only, or not contiguous in memory."""
    image, row = case.images[1], case.rows[1:2]
    frozen = image.copy()
    frozen.setflags(write=False)
    strided = np.repeat(image, 2, axis=1)[:, ::2]
    expected = case.scored([image], row)
    require(case.scored([frozen], row) == expected, "a read-only picture gets other numbers", "Work on a copy: image.copy().")
    require(case.scored([strided], row) == expected, "a strided picture gets other numbers", "Use np.ascontiguousarray(image).")


def what_is_no_rgb_picture_is_refused(case: ScorerCase) -> None:
    """A number for something else than uint8 RGB would be a wrong number."""
    for what, broken in BROKEN.items():
        try:
            case.scored([broken], case.rows[:1])
        except Exception:  # noqa: BLE001 - any error will do: what is refused costs one image
            continue
        raise AssertionError(f"it gives numbers for {what}. Begin with srbench.scorers.base.check_rgb(image, name).")


def rows_must_match_images(case: ScorerCase) -> None:
    """Two pictures with one row are an error, not one result."""
    try:
        case.scored(case.images[:2], case.rows[:1])
    except Exception:  # noqa: BLE001 - any error will do
        return
    raise AssertionError("it takes two images with one row. Use zip(images, rows, strict=True).")


def identity_is_complete(case: ScorerCase) -> None:
    """The identity is part of every score's key: scorer, library, versions and weights; the same each time."""
    identity = case.scorer.identity()
    mend = "See identity() in srbench.scorers.base."
    require(isinstance(identity, dict), f"its identity is {type(identity).__name__}, not a dict", mend)
    lacking = [name for name in NAMED if not isinstance(identity.get(name), str) or not identity[name]]
    require(not lacking, f"its identity does not say {' and '.join(lacking)}", f"Add {' and '.join(lacking)}: texts. {mend}")
    try:
        again = json.loads(json.dumps(identity, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"its identity is not JSON ({error}). Use texts and finite numbers.") from error
    require(again == identity, "its identity is another one after JSON", "Use texts, numbers, lists and dicts.")
    same = case.scorer.identity() == identity == case.cls(case.options).identity()
    require(same, "its identity is another one each time", "Leave times and memory addresses out.")
    path = str(identity.get("weights", "")).startswith("/")
    require(not path, "its identity holds a path of this machine (weights)", "Name the file's content, by its sha256.")
    _check_weights(case, identity)


def _check_weights(case: ScorerCase, identity: Mapping[str, Any]) -> None:
    """Options that are left out of keys (`exclude=True`) are files: what is in them has to be in the identity."""
    files = [name for name, each in case.cls.Options.model_fields.items() if each.exclude]
    sha = str(identity.get("weights_sha256", ""))
    problem = f"its identity does not say what is in '{checks.names_of(files)}', an option that is left out of the key"
    require(not files or SHA256.fullmatch(sha), problem, "Add weights_sha256: the sha256 of the file.")
    require(not sha or SHA256.fullmatch(sha), f"its weights_sha256 is no sha256 ('{sha[:12]}')", "Give 64 hexadecimal digits.")


def a_pair_of_two_sizes_is_refused(case: ScorerCase) -> None:
    """A scorer of pairs compares pictures of one size."""
    if case.kind != PAIR:
        return
    image = case.images[0]
    try:
        case.scorer.score([image], [image[: len(image) * 3 // 4]], case.rows[:1])
    except Exception:  # noqa: BLE001 - any error will do
        return
    raise AssertionError("it compares pictures of two sizes. Raise CellError where image.shape != reference.shape.")


def a_set_has_vectors_and_what_the_metrics_read(case: ScorerCase) -> None:
    """Of a scorer of sets: float32 vectors, also of no picture, and finite numbers of a set beside itself, the same twice."""
    if case.kind != SET:
        return
    vectors = case.scorer.features(case.images)
    fits = isinstance(vectors, np.ndarray) and vectors.dtype == np.float32 and vectors.ndim == 2
    require(fits, "its features are no float32 array (N, D)", "Return np.stack(vectors).astype(np.float32).")
    none = np.asarray(case.scorer.features([]))
    require(none.shape == (0, vectors.shape[1]), f"its features of no image have shape {none.shape}", "Return shape (0, D).")
    numbers = case.scorer.reduce(vectors, vectors)
    lacking = {rule["field"] for rule in case.meta["metrics"].values()} - numbers.keys()
    require(not lacking, f"`reduce` does not give '{checks.names_of(lacking)}', which a metric reads", "Return it.")
    require(all(map(math.isfinite, numbers.values())), "`reduce` gives a number that is not finite", "Raise CellError instead.")
    require(case.scorer.reduce(vectors, vectors) == numbers, "`reduce` gives other numbers each time", "Use a seed of its own.")


CHECKS: tuple[checks.Check[ScorerCase], ...] = (
    its_class_carries_its_metadata, pictures_are_not_changed,
    one_result_with_the_declared_fields_per_image, numbers_are_finite_and_survive_json, order_does_not_matter,
    company_does_not_matter, the_number_of_threads_does_not_matter, a_second_scorer_gives_the_same,
    a_read_only_or_strided_picture_scores_the_same, what_is_no_rgb_picture_is_refused, rows_must_match_images,
    identity_is_complete, a_pair_of_two_sizes_is_refused, a_set_has_vectors_and_what_the_metrics_read,
)  # fmt: skip
"""Pictures first, before a scorer could have changed them; then finite numbers, since NaN equals nothing, not even itself."""
_APART = "Score each image by itself: no mean, maximum or state over the batch, and networks on one image a call."


# --- all of them ------------------------------------------------------------------------------------------------------


def case_of(
    scorer: str | type, options: Mapping[str, Any] | None = None, images: Sequence[np.ndarray] | None = None
) -> ScorerCase:
    """What there is to check. The arguments are those of `check_scorer`.

    Raises `AssertionError` where the scorer is unknown, its metadata is wrong, or it has no such options.
    """
    with checks.as_assertion():
        cls, meta = checks.plugin_of("scorers", scorer)
    chosen = list(images) if images is not None else pictures()
    return ScorerCase(cls, meta, dict(options or {}), chosen, rows_for(len(chosen)))


def check_scorer(
    scorer: str | type, *, options: Mapping[str, Any] | None = None, images: Sequence[np.ndarray] | None = None
) -> None:
    """The battery of a scorer of images, pairs or sets, on a few pictures made in memory.

    scorer: its class, or its name: of an installed package's scorer, or of one under `@srbench.scorer` in this process.
    options: values that the checks use, such as the path of a small stand-in for its weights. images: four different pictures
    at least, uint8 RGB (H, W, 3) each, for a scorer that reads other sizes than 64 x 64 px.
    Raises `AssertionError` with one sentence on what is wrong and one on how to mend it.
    """
    __tracebackhide__ = True
    checks.run(CHECKS, case_of(scorer, options, images))
