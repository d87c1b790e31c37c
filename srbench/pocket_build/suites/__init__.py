"""Pocket's editions of the suites: `python -m srbench.pocket_build.suites NAME...`."""
