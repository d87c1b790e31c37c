"""Published tables: what papers report, what was measured here beside it, and pocket's edition of each."""
