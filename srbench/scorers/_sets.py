"""Distances of two sets of feature vectors, by torch-fidelity."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import torch
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from srbench.errors import CellError

KID_SUBSETS, KID_SUBSET_SIZE, KID_SEED = 100, 1000, 2020
"""torch-fidelity's defaults; smaller sets are taken whole, and then the subsets do not differ."""
LIBRARY = {"library": "torch-fidelity", "library_version": metadata.version("torch-fidelity")}


def frechet(images: np.ndarray, references: np.ndarray) -> float:
    """Frechet distance of Gaussians fitted to (N, D) and (M, D). Raises `CellError` for fewer than two vectors."""
    _check(images, references)
    ours, theirs = (fid_features_to_statistics(torch.from_numpy(each)) for each in (images, references))
    return float(fid_statistics_to_metric(ours, theirs, verbose=False)[KEY_METRIC_FID])


def kernel(images: np.ndarray, references: np.ndarray) -> tuple[float, float]:
    """Kernel distance (cubic polynomial, unbiased): mean and standard deviation over subsets of (N, D) and (M, D).

    Raises `CellError` for fewer than two vectors.
    """
    _check(images, references)
    size = min(KID_SUBSET_SIZE, len(images), len(references))
    metrics = kid_features_to_metric(
        torch.from_numpy(images), torch.from_numpy(references), kid_subsets=KID_SUBSETS, kid_subset_size=size,
        rng_seed=KID_SEED, verbose=False,
    )
    return float(metrics[KEY_METRIC_KID_MEAN]), float(metrics[KEY_METRIC_KID_STD])


def both(images: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """`frechet`, `kernel` and `kernel_std` of two sets."""
    mean, std = kernel(images, references)
    return {"frechet": frechet(images, references), "kernel": mean, "kernel_std": std}


def _check(images: np.ndarray, references: np.ndarray) -> None:
    if min(len(images), len(references)) < 2:
        raise CellError("a distance of sets needs two images at least", "Take a larger --limit.")
