"""Distances of two sets of images in a feature space (Fréchet, kernel), and the spread of samples."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.distance import pdist

Features = Callable[[UInt8[np.ndarray, "n h w 3"]], Float[np.ndarray, "n d"]]
"""The user's network: 8-bit images to one feature vector each."""


def frechet_distance(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"]) -> float:
    """Returns the squared Fréchet distance of the Gaussians fitted to two sets (Heusel et al. 2017).

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½). Zero for a set and itself. The estimate is biased upwards for few images:
    compare only values of equally many.

    Raises:
        ValueError: a set has fewer than two rows, or they differ in width.
    """
    _check(first, second)
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    covariances = [np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (first, second)]
    # tr (Σ₁ Σ₂)^½ by the symmetric Σ₁^½ Σ₂ Σ₁^½, which has the same eigenvalues and stays real
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariances[1] @ root), 0)).sum()
    shift = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
    return float(max(0.0, shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross))


def kernel_distance(
    first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"], gamma: float | None = None
) -> float:
    """Returns the unbiased squared MMD of two sets under the kernel (gamma x·y + 1)³ (KID, Bińkowski et al. 2018).

    Unbiased at any size, so it may be slightly negative for two sets of one distribution.

    Args:
        gamma: None: 1 / d, usual for features of about unit size each; 1 suits rows of about unit length.

    Raises:
        ValueError: a set has fewer than two rows, or they differ in width.
    """
    _check(first, second)
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    n, m = len(first), len(second)
    scale = 1.0 / first.shape[1] if gamma is None else gamma
    within_first, within_second, between = (
        (scale * (a @ b.T) + 1.0) ** 3 for a, b in ((first, first), (second, second), (first, second))
    )
    within = (within_first.sum() - np.trace(within_first)) / (n * (n - 1))
    within += (within_second.sum() - np.trace(within_second)) / (m * (m - 1))
    return float(within - 2 * between.mean())


def pixel_spread(samples: UInt8[np.ndarray, "n k h w 3"]) -> float:
    """Returns the standard deviation of each pixel over the k samples of one structure, mean over all, 0..255 levels.

    It divides by k − 1, so that it does not depend on k. 0: all samples are equal.
    """
    return float(_deviations(samples).mean())


def pixel_spreads(samples: UInt8[np.ndarray, "n k h w 3"]) -> Float[np.ndarray, " n"]:
    """Returns `pixel_spread` of each structure."""
    return _deviations(samples).mean(axis=(1, 2, 3))


def feature_spread(features: Float[np.ndarray, "n k d"]) -> float | None:
    """Returns the mean of `feature_spreads`; None if no structure has two samples with features."""
    spreads = feature_spreads(features)
    finite = spreads[np.isfinite(spreads)]
    return float(finite.mean()) if len(finite) else None


def feature_spreads(features: Float[np.ndarray, "n k d"]) -> Float[np.ndarray, " n"]:
    """Returns the mean distance of two samples of each structure, leaving out rows of NaN (no face).

    NaN for a structure with fewer than two samples with features.
    """
    kept = [rows[np.isfinite(rows).all(axis=1)] for rows in features]
    return np.array([pdist(rows).mean() if len(rows) > 1 else np.nan for rows in kept])


def load_features(spec: str) -> tuple[str, Features]:
    """Returns name and function of MODULE:FUNCTION, imported with the working directory on the path.

    Raises:
        ValueError: another format, a module that cannot be imported, or one without that function.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name.isidentifier():
        raise ValueError(f"features={spec!r}: must be MODULE:FUNCTION, a function from uint8 n h w 3 to n d")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:  # the user's module may raise anything
        raise ValueError(f"features={spec!r}: cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise ValueError(f"features={spec!r}: {module_name} has no function {name}")
    return name, cast(Features, function)


def compute_features(name: str, function: Features, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
    """Returns the images' features by the user's function.

    Raises:
        ValueError: it does not return one finite vector an image.
    """
    rows = np.asarray(function(images))
    if rows.ndim != 2 or len(rows) != len(images) or not np.isfinite(rows).all():
        shape = list(rows.shape)
        raise ValueError(f"features {name}: must give finite [{len(images)}, d] of {len(images)} images; got {shape}")
    return rows.astype(np.float64)


def _deviations(samples: np.ndarray) -> Float[np.ndarray, "n h w 3"]:
    return samples.astype(np.float32).std(axis=1, ddof=1)


def _check(first: np.ndarray, second: np.ndarray) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        shapes = f"features {list(first.shape)} and {list(second.shape)}"
        raise ValueError(f"{shapes}: must be two sets of at least 2 rows of one width")
