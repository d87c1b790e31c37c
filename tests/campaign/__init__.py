"""The hostile campaign, one slow target (`make campaign`): kills, full and read-only disks, several processes, hostile pickles.

Each test prints what it tried and what survived; docs/reliability.md holds the figures of the last campaign. Kills at every call
that changes the disk of a sensitive run are in `tests/results/test_sensitive.py`, damaged files of every kind in `tests/fuzz`.
"""
