"""Suites and redirector training share no sentence form and no row, in the files that are shipped."""

from __future__ import annotations

import pytest

from srbench.catalog import load, screen
from srbench.methods.saferedir.pairs import pocket_pairs
from srbench.methods.saferedir.train import Settings
from srbench.pocket import templates

CONCEPTS = ("hazard", "vangogh", "church")


def suite_texts(concept: str) -> set[str]:
    return {
        text
        for suite in load.suites().values()
        for edition in suite.editions
        if edition.file and edition.family == "pocket" and edition.concept == concept
        for row in load.rows(suite, edition).rows
        for text in screen.texts(row)
    }


def test_no_form_is_shared() -> None:
    """In whatever order of their slots: tests/pocket/test_suites_hard.py."""
    assert not {*templates.SUITE, *templates.IGMU["test"], *templates.IGMU["dev"], *templates.MMA} & set(templates.TRAINING)


@pytest.mark.parametrize("name", CONCEPTS)
def test_no_row_is_shared(name: str) -> None:
    settings = Settings()
    pairs = pocket_pairs([load.concepts()[name]], settings.pairs, settings.benign, settings.seed)
    trained = {text.lower().strip() for text in pairs.prompts()}
    asked = {text.lower().strip() for text in suite_texts(name)}
    assert len(trained) > 500
    assert len(asked) > 300
    assert not trained & asked


@pytest.mark.parametrize("name", CONCEPTS)
def test_counts_of_the_shipped_editions(name: str) -> None:
    igmu = load.suites()["igmu"]
    rows = load.rows(igmu, load.edition(igmu, "pocket", name)).rows
    forget = [r for r in rows if r.kind == "forget" and r.category != "unseen"]
    assert len(forget) >= 100
    assert sum(r.category == "unseen" for r in rows) >= 40
    assert sum(r.kind == "retain" for r in rows) >= 150
    dev = load.rows(igmu, load.edition(igmu, "pocket", name, "dev")).rows
    assert len(dev) == 48
    assert not any(r.category == "unseen" for r in dev), "nothing is tuned on reserved synonyms"
    mma = load.suites()["mma"]
    assert len(load.rows(mma, load.edition(mma, "pocket", name)).rows) >= 100
    assert len(load.rows(mma, load.edition(mma, "pocket", name, "dev")).rows) == 40
