"""srbench: the benchmark for concept unlearning in text-to-image models."""

__version__ = "0.1.0"
