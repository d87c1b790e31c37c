"""What must not move unseen: image, checkpoint and score keys, rows, method metadata, and the texts that people and scripts read.

`keys.json` holds literals: a key that moves orphans every user's store. `pytest tests/golden --write-golden keys` adds
entries for what is new and refuses to change one that is there. `texts/` holds the output of commands on the committed
results; `pytest tests/golden --write-golden texts` writes them anew after a change that was meant: read the diff.
"""
