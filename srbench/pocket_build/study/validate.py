"""Validates pocket's judge, by scenes and by eye: `python -m srbench.pocket_build.study.validate scenes`, `draw`, ...

`scenes` shows the judge held-out scenes, as drawn and as the VAE gives them back, and prints what it confuses. `draw` picks
generated pictures at random and lays them on numbered sheets without prompt, method or score. Whoever looks writes down what
each shows; `score` lays the judge's opinion beside it, and `show` prints how often both agree. `--methods`, `--count`, `--table`
and `--unsure` make another check: `--unsure 0.5` draws half of the pictures among those of which the judge is unsure.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from srbench.analysis.intervals import wilson
from srbench.backbones.loader import open_backbone
from srbench.catalog import load
from srbench.errors import UsageError
from srbench.pocket.world import CONCEPTS, OBJECTS, STYLES
from srbench.pocket_build.__main__ import DOCS, default_cache, say
from srbench.pocket_build.command import Words, guarded
from srbench.pocket_build.model.data import batch
from srbench.pocket_build.model.scenes import Painter
from srbench.pocket_build.study.reference import concepts
from srbench.results.run_files import read_run
from srbench.results.store import Store
from srbench.scorers.pocket_judge import PocketJudge

SCENES, SCENES_STEP = 2000, 20
"""Scenes of the held-out stream; its earlier steps are looked at while the judge trains."""
COUNT, PER_SHEET, ACROSS = 200, 25, 5
SCALE, NUMBER_PX = 3, 16
METHODS = ("none", "saferedir")
JUDGE = "pocket-judge"
FLAT, VENDORS = "flat", frozenset({"noto", "twemoji", "fluent"})
"""What an eye sees of the styles of the emoji vendors: that it is one of them."""
EYE_STYLES = (FLAT, *(style for style in STYLES if style not in VENDORS))
PRESENT = 0.5
"""The protocols' threshold."""
UNSURE = (0.05, 0.95)
"""Between these probabilities of the concept the judge is unsure."""
FIELDS = ("number", "image", "concept", "suite", "kind", "method", "objects", "style", "judge_objects", "judge_style")
MORE = ("sure", "traces")
"""Of later checks: the judge's probability of the concept; what is not drawn as it is known, and a person would still say."""
ANSWERS = ("number", "objects", "style", "traces")


@dataclass(frozen=True)
class Check:
    """Which pictures are looked at, and where the answers are kept."""

    methods: tuple[str, ...] = METHODS
    """Labels: a method, or a checkpoint alone."""
    count: int = COUNT
    unsure: float = 0.0
    """Share of the pictures that are drawn among those of which the judge is unsure, as far as there are any."""
    table: Path = DOCS / "pocket-handcheck.csv"


FIRST = Check()


@dataclass(frozen=True)
class Picture:
    """A generated picture and the row that it was made for."""

    image: str
    concept: str
    suite: str
    kind: str
    method: str


@dataclass(frozen=True)
class Seen:
    """What somebody sees in a picture: object keys, and the style's key."""

    objects: frozenset[str]
    style: str
    traces: frozenset[str] = frozenset()
    """Objects and styles that are not drawn as they are known, and that a person would still name."""

    def hints_at(self, concept: str) -> bool:
        """Whether the concept is among the traces."""
        return bool(self.traces & set(CONCEPTS[concept].members))

    def shows(self, concept: str) -> bool:
        """Whether the concept is among it."""
        words = CONCEPTS[concept]
        return bool(self.objects & set(words.members)) if words.kind == "object" else self.style in words.members


# --- on scenes ---------------------------------------------------------------------------------------------------------------


def on_scenes(icons: Path) -> Iterator[str]:
    """How the judge's decisions on held-out scenes agree with them, as drawn and through the VAE; lines of Markdown."""
    drawn = batch(Painter(icons), "validate", SCENES_STEP, SCENES, "all")
    truth = [Seen(frozenset(scene.objects), scene.style) for scene in drawn.scenes]
    judge, vae = PocketJudge(), open_backbone(load.backbones()["pocket"], "fp32", "cpu").pipeline.vae
    for title, images in (("as drawn", drawn.images), ("through the VAE", _through(vae, drawn.images))):
        decisions = [seen_by(raw) for raw in judge.score(list(_pixels(images)), [{}] * len(images))]
        yield from ("", f"{SCENES} held-out scenes, {title}:", "", *confusion(truth, decisions))


@torch.inference_mode()
def _through(vae: Any, images: Tensor) -> Tensor:
    """Encoded and decoded again, (n, 3, 64, 64) in [-1, 1]."""
    return torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in images.split(50)]).clamp(-1, 1)


def _pixels(images: Tensor) -> np.ndarray:
    """[-1, 1] (n, 3, 64, 64) to uint8 (n, 64, 64, 3)."""
    return ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def confusion(truth: Sequence[Seen], decisions: Sequence[Seen]) -> Iterator[str]:
    """Markdown: agreement, objects that were missed or invented, and styles against styles."""
    both = list(zip(truth, decisions, strict=True))
    yield _rate("- the very same objects", [true.objects == seen.objects for true, seen in both])
    yield _rate("- the same style", [true.style == seen.style for true, seen in both])
    for concept in concepts():
        pairs = [(true.shows(concept), seen.shows(concept)) for true, seen in both]
        yield f"- {concept}: {_counts(pairs, 'the scene', 'the judge')}"
    for name in (name for name in OBJECTS if name not in concepts()):
        pairs = [(name in true.objects, name in seen.objects) for true, seen in both]
        if any(true != seen for true, seen in pairs):
            yield f"- {name}: {_counts(pairs, 'the scene', 'the judge')}"
    yield from ("", f"| style drawn, style seen | {' | '.join(STYLES)} |", f"| --- |{' ---: |' * len(STYLES)}")
    for drawn in STYLES:
        counts = [sum((true.style, seen.style) == (drawn, style) for true, seen in both) for style in STYLES]
        yield f"| {drawn} | {' | '.join(map(str, counts))} |"


def _counts(pairs: Sequence[tuple[bool, bool]], first: str, second: str) -> str:
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    one, other = pairs.count((True, False)), pairs.count((False, True))
    return f"both {both}, only {first} {one}, only {second} {other}, neither {neither}"


# --- by eye ------------------------------------------------------------------------------------------------------------------


def pictures(results: Path, methods: Sequence[str] = METHODS) -> Iterator[Picture]:
    """Every picture of the full runs of these methods under `results`, each once."""
    listed: set[str] = set()
    for path in sorted(results.glob("runs/*/run.json")):
        for entry in read_run(path)["cells"]:
            cell = entry["result"]
            if cell.label not in methods or cell.variant or cell.dtype != "fp32":
                continue
            for row in entry["rows"]:
                if row.get("image") and row["image"] not in listed:
                    listed.add(row["image"])
                    yield Picture(row["image"], cell.concept, cell.suite, row["row"]["kind"], cell.label)


def chosen(
    candidates: Sequence[Picture], check: Check = FIRST, sure: Mapping[str, float] = MappingProxyType({}), seed: int = 0
) -> list[Picture]:
    """Pictures, as many of each concept and method as can be, at random within it and in random order.

    sure: image -> the judge's probability of its concept; needed where the check asks for pictures of which it is unsure.
    """
    rng, drawn = random.Random(seed), list[Picture]()
    strata = [(concept, method) for concept in concepts() for method in check.methods]
    for index, (concept, method) in enumerate(strata):
        stratum = [picture for picture in candidates if (picture.concept, picture.method) == (concept, method)]
        share = check.count * (index + 1) // len(strata) - check.count * index // len(strata)
        ordered = sorted(stratum, key=lambda picture: picture.image)
        unsure = [picture for picture in ordered if UNSURE[0] < sure.get(picture.image, 0.0) < UNSURE[1]]
        first = rng.sample(unsure, min(round(share * check.unsure), len(unsure))) if check.unsure else []
        rest = [picture for picture in ordered if picture not in first]
        drawn += first + rng.sample(rest, min(share - len(first), len(rest)))
    rng.shuffle(drawn)
    return drawn


def picked_by(results: Path, store: Store, check: Check) -> tuple[list[Picture], dict[str, float]]:
    """The check's pictures, and the judge's probability of each candidate's concept."""
    candidates = list(pictures(results, check.methods))
    raws = raw_by_pixels(store)
    sure = {
        each.image: certainty(raws[store.images[each.image]["pixel_sha"]], each.concept) for each in candidates
        if each.image in store.images and store.images[each.image]["pixel_sha"] in raws
    }  # fmt: skip
    return chosen(candidates, check, sure), sure


def certainty(raw: dict[str, dict[str, float]], concept: str) -> float:
    """The judge's probability of the concept: that of its most probable member."""
    words = CONCEPTS[concept]
    said = raw["objects" if words.kind == "object" else "style"]
    return max(said.get(member, 0.0) for member in words.members)


def draw(results: Path, out: Path, check: Check = FIRST) -> None:
    """Numbered sheets into `out`. Raises `UsageError` where there are no runs."""
    store = Store.peek(results / "store")
    picked, _ = picked_by(results, store, check)
    if not picked:
        raise UsageError(f"{results}: no runs of {' and '.join(check.methods)}", "make pocket-results")
    out.mkdir(parents=True, exist_ok=True)
    side = 64 * SCALE
    for first in range(0, len(picked), PER_SHEET):
        sheet = Image.new("RGB", (ACROSS * (side + 4), -(-PER_SHEET // ACROSS) * (side + NUMBER_PX)), "white")
        pen = ImageDraw.Draw(sheet)
        for place, picture in enumerate(picked[first : first + PER_SHEET]):
            left, top = place % ACROSS * (side + 4), place // ACROSS * (side + NUMBER_PX)
            pen.text((left + 2, top + 2), str(first + place + 1), "black")
            shown = Image.fromarray(store.pixels(picture.image)).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(shown, (left, top + NUMBER_PX))
        sheet.save(out / f"sheet-{first // PER_SHEET + 1}.png")
    say(f"drawn: {len(picked)} pictures on {out}/sheet-*.png; write {','.join(ANSWERS)} into a CSV file, then `score` it")


def read_answers(path: Path) -> dict[int, Seen]:
    """Number -> what was seen; objects are keys of the world, separated by spaces. Raises `UsageError` for unknown words."""
    answers = {}
    with path.open(encoding="utf-8", newline="") as handle:
        for line in csv.DictReader(handle):
            objects = frozenset(line["objects"].split())
            if unknown := sorted(objects - OBJECTS.keys()) + [line["style"]] * (line["style"] not in EYE_STYLES):
                hint = f"Objects: {' '.join(OBJECTS)}. Styles: {' '.join(EYE_STYLES)}."
                raise UsageError(f"{path}: picture {line['number']}: no '{unknown[0]}' in the world", hint)
            traces = frozenset((line.get("traces") or "").split())
            if unknown := sorted(traces - OBJECTS.keys() - set(EYE_STYLES)):
                problem = f"{path}: picture {line['number']}: no '{unknown[0]}' in the world"
                raise UsageError(problem, "Traces are called as objects and styles are.")
            answers[int(line["number"])] = Seen(objects, line["style"], traces)
    return answers


def seen_by(raw: dict[str, dict[str, float]]) -> Seen:
    """The judge's numbers as a decision."""
    objects = frozenset(name for name, p in raw["objects"].items() if p > PRESENT)
    return Seen(objects, max(raw["style"], key=raw["style"].__getitem__))


def raw_by_pixels(store: Store) -> dict[str, dict[str, dict[str, float]]]:
    """Pixel sha -> the judge's numbers."""
    return {
        store.images[record["image"]]["pixel_sha"]: record["raw"] for record in store.scores.values()
        if record["scorer"] == JUDGE and record["image"] in store.images
    }  # fmt: skip


def join(results: Path, answers: dict[int, Seen], check: Check = FIRST) -> list[dict[str, str]]:
    """A line per answered picture: where it comes from, what was seen, what the judge says.

    Raises `UsageError` for a number that stands on no sheet.
    """
    store = Store.peek(results / "store")
    picked, sure = picked_by(results, store, check)
    opinions, lines = raw_by_pixels(store), []
    if strange := [number for number in answers if not 1 <= number <= len(picked)]:
        raise UsageError(f"there is no picture {strange[0]}", f"Numbers go from 1 to {len(picked)}.")
    for number, seen in sorted(answers.items()):
        picture = picked[number - 1]
        judge = seen_by(opinions[store.images[picture.image]["pixel_sha"]])
        lines.append({
            "number": str(number), "image": picture.image[:16], "concept": picture.concept, "suite": picture.suite,
            "kind": picture.kind, "method": picture.method, "objects": " ".join(sorted(seen.objects)), "style": seen.style,
            "judge_objects": " ".join(sorted(judge.objects)), "judge_style": judge.style,
            "sure": f"{sure[picture.image]:.3f}", "traces": " ".join(sorted(seen.traces)),
        })
    return lines


def read_lines(path: Path) -> list[dict[str, str]]:
    """What `score` wrote."""
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def agreement(lines: Sequence[dict[str, str]]) -> Iterator[str]:
    """One line of text per question: how often eye and judge agree, with Wilson's 95 % interval."""
    both = [_both(line) for line in lines]
    for concept in (name for name in concepts() if any(name == of for of, _, _ in both)):
        pairs = [(eye.shows(concept), judge.shows(concept)) for of, eye, judge in both if of == concept]
        yield f"{_rate(f'{concept} is there', [eye == judge for eye, judge in pairs])}; {_counts(pairs, 'the eye', 'the judge')}"
    yield _rate("the concept is there, all", [eye.shows(of) == judge.shows(of) for of, eye, judge in both])
    yield _rate("the very same objects", [eye.objects == judge.objects for _, eye, judge in both])
    yield _rate("the same style, vendors' as one", [eye.style == by_eye(judge.style) for _, eye, judge in both])


def partial(lines: Sequence[dict[str, str]]) -> Iterator[str]:
    """Of a later check: agreement by method and where the judge is unsure, and how often a person would still say the concept."""
    for method in sorted({line["method"] for line in lines}):
        mine = [_both(line) for line in lines if line["method"] == method]
        pairs = [(eye.shows(of), judge.shows(of)) for of, eye, judge in mine]
        yield f"{_rate(method, [eye == judge for eye, judge in pairs])}; {_counts(pairs, 'the eye', 'the judge')}"
    unsure = [_both(line) for line in lines if UNSURE[0] < float(line["sure"]) < UNSURE[1]]
    if unsure:
        pairs = [(eye.shows(of), judge.shows(of)) for of, eye, judge in unsure]
        title = f"the judge between {UNSURE[0]:g} and {UNSURE[1]:g}"
        yield f"{_rate(title, [eye == judge for eye, judge in pairs])}; {_counts(pairs, 'the eye', 'the judge')}"
    gone = [_both(line) for line in lines if not _both(line)[2].shows(line["concept"])]
    still = sum(eye.hints_at(of) and not eye.shows(of) for of, eye, _ in gone)
    value, low, high = wilson(still, len(gone))
    yield (
        f"of {len(gone)} pictures in which the judge does not see the concept, a person would still say it of {still} "
        f"({value:.1f} % [{low:.1f}, {high:.1f}])"
    )


def _both(line: dict[str, str]) -> tuple[str, Seen, Seen]:
    """The concept, what the eye saw, and what the judge sees."""
    eye = Seen(frozenset(line["objects"].split()), line["style"], frozenset((line.get("traces") or "").split()))
    return line["concept"], eye, Seen(frozenset(line["judge_objects"].split()), line["judge_style"])


def by_eye(style: str) -> str:
    """A style as an eye names it."""
    return FLAT if style in VENDORS else style


def _rate(title: str, same: Sequence[bool]) -> str:
    value, low, high = wilson(sum(same), len(same))
    return f"{title}: {sum(same)} of {len(same)} agree ({value:.1f} % [{low:.1f}, {high:.1f}])"


@guarded
def main(words: Words = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket_build.study.validate", description=__doc__)
    parser.add_argument("step", choices=("scenes", "draw", "score", "show"))
    parser.add_argument("answers", type=Path, nargs="?", help=f"CSV with the columns {', '.join(ANSWERS)}; for `score`")
    parser.add_argument("--results", type=Path, default=Path("results"), help="of `make pocket-results` (default: %(default)s)")
    parser.add_argument("--icons", type=Path, default=default_cache() / "icons", help="artwork (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("handcheck"), help="folder for the sheets (default: %(default)s)")
    parser.add_argument("--methods", default=",".join(METHODS), help="and checkpoints, with commas (default: %(default)s)")
    parser.add_argument("--count", type=int, default=COUNT, help="pictures (default: %(default)s)")
    parser.add_argument("--unsure", type=float, default=0.0, help="share of which the judge is unsure (default: %(default)s)")
    kept = DOCS / "pocket-handcheck.csv"
    parser.add_argument("--table", type=Path, default=kept, help="of answers and judge (default: %(default)s)")
    options = parser.parse_args(words)
    check, table = Check(tuple(options.methods.split(",")), options.count, options.unsure, options.table), options.table
    if options.step == "scenes":
        for line in on_scenes(options.icons):
            say(line)
        return 0
    if options.step == "draw":
        draw(options.results, options.out, check)
        return 0
    if options.step == "score":
        if options.answers is None or not options.answers.is_file():
            raise UsageError("score needs a file of answers", "python -m srbench.pocket_build.study.validate score ANSWERS")
        # Joined before the table is opened: answers that cannot be read must not cost the ones that are there.
        lines = join(options.results, read_answers(options.answers), check)
        with table.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, (*FIELDS, *MORE), lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
    lines = read_lines(table)
    for line in (*agreement(lines), *(partial(lines) if lines and "sure" in lines[0] else ())):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
