"""Sentence forms over the pocket world. Suites and redirector training share no form and no row; a test checks it.

Slots: `{things}` objects with articles joined by `and`, `{thing}` one object without article, `{place}` a background
phrase, `{spot}` its short word, `{style}` a style phrase with its comma where it needs one, `{look}` its short word.
Every form occurs in the backbone's training captions.
"""

from __future__ import annotations

SUITE = ("{things} {place}{style}",)
TRAINING = (
    "a picture of {things} {place}{style}",
    "a picture of {things}{style}",
    "{things}{style}",
    "{thing}, {spot}, {look}",
    "{thing}, {look}, {spot}",
    "{thing}, {spot}",
    "a van gogh painting of {things} {place}",
    "a van gogh painting of {things}",
)
