"""Which scores pictures of sensitive rows wait for before they are dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from srbench.hashing import digest
from srbench.results.gated import text_sha
from srbench.results.sensitive import Await
from srbench.scoring.scoring import Scoring, Wanted


def await_of(wanted: Wanted, identities: Mapping[str, str]) -> Await:
    """A wanted score as a picture's record names it. identities: scorer -> digest of its identity, where it is open."""
    return Await(
        wanted.scorer, identities.get(wanted.scorer, ""), text_sha(wanted.fields), wanted.image_key, wanted.reference_key
    )


def given_up(scoring: Scoring, wanted: Iterable[Wanted], unmade: Iterable[str] = ()) -> set[Await]:
    """Scores that no picture waits for any more: a scorer failed on them.

    unmade: images that could not be made, time and again; the pairs that they belong to are given up, too.
    """
    identities = {name: digest(identity) for name, identity in scoring.identities.items()}
    gone = set(unmade)
    return {
        await_of(each, identities)
        for each in wanted
        if each in scoring.errors or each.reference_key in gone or each.image_key in gone
    }
