"""Which scores images of sensitive rows wait for before they are dropped."""

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
    """Scores that no image waits for any more, since a scorer failed on them.

    unmade: keys of images that failed in several runs; scores of pairs with them are given up, too.
    """
    identities = {name: digest(identity) for name, identity in scoring.identities.items()}
    gone = set(unmade)
    return {
        await_of(score, identities)
        for score in wanted
        if score in scoring.errors or score.reference_key in gone or score.image_key in gone
    }
