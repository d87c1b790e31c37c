"""The backbone, its judges and its CLIP, trained from nothing: `python -m srbench.pocket_build`."""
