"""The version of srbench."""

__version__ = "0.1.0"
