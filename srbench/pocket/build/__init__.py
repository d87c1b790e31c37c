"""Builds the pocket backbone, its judges and its CLIP from nothing: `python -m srbench.pocket.build`."""
