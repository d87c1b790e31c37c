"""Scorers: raw scores per image, before any threshold."""
