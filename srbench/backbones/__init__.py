"""Backbones: base models as ready diffusers pipelines."""
