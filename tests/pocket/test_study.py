"""The study of `make pocket-results` asks for the cells that are committed, and for no others.

What is committed was measured on pocket's first edition and on the suites' first editions, whose rows are those of `NAME-v1` now;
the study runs the suites as they are. So planned cells are compared with their first editions' rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from srbench.analysis.results import ResultCell
from srbench.catalog import load
from srbench.engine import plan as planning
from srbench.engine.options import RunOptions, resolve
from srbench.engine.plan import variant_of
from srbench.engine.prepare import options_of, options_text
from srbench.engine.request import Cell, RunRequest
from srbench.methods.base import quiet
from srbench.pocket_build.study import reference
from srbench.progress import Quiet
from srbench.results.run_files import summarised
from srbench.studies import steps
from srbench.studies.read import read
from srbench.studies.spec import Job, Made, Study
from srbench.studies.steps import Bench, StudyOptions
from tests.golden import collect

RESULTS = reference.DOCS.parent / "results" / "pocket"
NOT_OF_THE_STUDY = re.compile(r"rows=alone|redirector=hardened@")
"""What `reference.py` and `hardened.py` make: cells on rows without another concept, and those of an idea that was tried."""
HASH = re.compile(r"@[0-9a-f]{8}")


class Asked(NamedTuple):
    """What a cell is, as far as it is known before anything is trained."""

    concept: str
    suite: str
    method: str
    on: str
    variant: str
    protocol: str
    dtype: str
    rows_sha: str
    n_loaded: int
    n_excluded: int


@cache
def study() -> Study:
    return read(RESULTS / "study.yaml")


@cache
def committed() -> tuple[ResultCell, ...]:
    return tuple(summarised(RESULTS))


def of_committed(cell: ResultCell) -> Asked:
    return Asked(
        cell.concept, cell.suite, cell.method, cell.on, HASH.sub("@", cell.variant), cell.protocol, cell.dtype, cell.rows_sha,
        cell.n_loaded, cell.n_excluded,
    )  # fmt: skip


def planned(job: Job, bench: Bench) -> Iterator[Asked]:
    """The cells of a run. Nothing is made: what earlier steps make is left out of the plan and named in the variant."""
    settings = job.values.get("settings", ())
    made = {name: value.job.called for name, value in settings if isinstance(value, Made)}
    rest = [f"{name}={value}" for name, value in settings if not isinstance(value, Made)]
    known = replace(job, values={name: value for name, value in job.values.items() if name not in ("settings", "scorers")})
    request, cells = _plan(steps.run_options(bench, known), bench)
    for cell in cells:
        options, changed = options_of(cell.method, rest, "pocket", cell.concept.kind)
        named = [f"{name.rpartition('.')[2]}={called}@" for name, called in made.items() if acts(name, cell.method)]
        variant = variant_of(request, options_text(options, changed), *named)
        rows_sha, loaded, excluded = rows_then(cell)
        yield Asked(
            cell.concept.name, cell.suite.name, cell.method, cell.on, variant, cell.protocol.name, request.dtype, rows_sha,
            loaded, excluded,
        )  # fmt: skip


def rows_then(cell: Cell) -> tuple[str, int, int]:
    """The hash of the rows that the committed run had, how many were loaded, and how many of them left out."""
    first = load.suites().get(f"{cell.suite.name}-v1")
    if first is None:  # prompts that were made against a method: a file of its own, which stays
        return cell.rows_sha, cell.n_loaded, cell.n_excluded
    rows = load.rows(first, load.edition(first, "pocket", cell.concept.name)).rows
    return load.rows_sha(rows), len(rows), 0


_PLANS: dict[RunOptions, tuple[RunRequest, list[Cell]]] = {}


def _plan(options: RunOptions, bench: Bench) -> tuple[RunRequest, list[Cell]]:
    """The plan of a run without settings: they change no row. How long texts are does not matter here, and takes long."""
    if options not in _PLANS:
        request, backbone, _ = resolve(options, lambda line: None, bench.open)
        # Prompts against the first edition's text encoder are refused in a run, and planned here.
        of_then = mock.patch.object(planning, "_check_encoder")
        with collect.nothing_made(), mock.patch.object(planning.Ready, "lengths", return_value=()), of_then:
            _PLANS[options] = request, planning.plan(request, backbone, make=False)
    return _PLANS[options]


def acts(setting: str, method: str) -> bool:
    return setting.rpartition(".")[0] in (method, method.partition("-")[0])


@cache
def all_planned() -> Mapping[str, frozenset[Asked]]:
    """Concept -> the cells of every run of the study."""
    found: dict[str, set[Asked]] = {}
    bench = Bench(study(), StudyOptions(device="cpu"), lambda line: None, Quiet, lambda what: nullcontext(quiet))
    for job in (job for step in study().steps for job in step.jobs if job.verb == "run"):
        for cell in planned(job, bench):
            found.setdefault(cell.concept, set()).add(cell)
    return {concept: frozenset(cells) for concept, cells in found.items()}


@pytest.mark.parametrize("concept", load.backbones()["pocket"].concepts)
def test_the_study_plans_the_cells_that_are_committed(concept: str) -> None:
    cells = [cell for cell in committed() if cell.concept == concept]
    there = {of_committed(cell) for cell in cells if not NOT_OF_THE_STUDY.search(cell.variant)}
    assert len(there) > 150
    assert there - all_planned()[concept] == set(), "committed, and not in the study"
    assert all_planned()[concept] - there == set(), "in the study, and not committed"


def test_the_study_trains_what_the_committed_cells_name() -> None:
    jobs = [job for step in study().steps for job in step.jobs if job.verb == "train"]
    made = {(concept, job.called) for job in jobs for concept in job.concepts}
    named = {
        (cell.concept, name) for cell in committed() if not NOT_OF_THE_STUDY.search(cell.variant)
        for name in re.findall(r"(?:redirector|inversion)=([\w-]+)@", cell.variant)
    }  # fmt: skip
    assert made == named


def test_a_changed_option_is_seen() -> None:
    """The comparison above can fail."""
    (job,) = (job for job in study().steps[0].jobs if job.concepts == ("church",))
    bench = Bench(study(), StudyOptions(device="cpu"), lambda line: None, Quiet, lambda what: nullcontext(quiet))
    other = replace(job, values={**job.values, "limit": 3})
    assert not {*planned(other, bench)} & all_planned()["church"]


def test_paths_in_the_study_are_of_the_repository() -> None:
    files = {Path(job.values["prompts"]) for step in study().steps for job in step.jobs if "prompts" in job.values}
    assert files == set((RESULTS / "attacks").glob("*/*.json"))
