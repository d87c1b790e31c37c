"""Which texts name minors: their letters made plain (`normalise`), words and spellings (`wordlist`, `spelling`), ages (`ages`).

`srbench.catalog.screen` is the door; it imports these when the first text of a sensitive run is read, not before.
"""
