"""A run in the forms of other tools: the hub's, a paper's, and those of experiment trackers."""
