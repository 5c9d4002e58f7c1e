"""How far two sets of images lie apart in a space of features: Fréchet and kernel distance, spread of samples."""

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
"""A user's network: 8-bit images to one vector of features each."""


def frechet_distance(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"]) -> float:
    """Returns the squared Fréchet distance of the Gaussians fitted to two sets (Heusel et al. 2017).

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½). Zero for one set against itself. Of few images it is too large, the more so
    the fewer: compare only values of as many.

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
    apart = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
    return float(max(0.0, apart + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross))


def kernel_distance(
    first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"], gamma: float | None = None
) -> float:
    """Returns the unbiased squared MMD of two sets under the kernel (gamma x·y + 1)³ (KID, Bińkowski et al. 2018).

    Unbiased at any size, so it may be a little below zero where the sets are of one distribution.

    Args:
        first: features, a row an image.
        second: features of as many columns.
        gamma: 1 / d by default, as is usual for features of about unit size each; 1 suits rows of about unit length.

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

    Over k − 1, so that it does not depend on k. 0: all samples are one picture.
    """
    return float(samples.astype(np.float32).std(axis=1, ddof=1).mean())


def feature_spread(features: Float[np.ndarray, "n k d"]) -> float | None:
    """Returns the mean distance of two samples of one structure; rows of NaN (no face) are left out.

    None where no structure has two samples with features.
    """
    apart = []
    for rows in features:
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows) > 1:
            apart.append(pdist(rows).mean())
    return float(np.mean(apart)) if apart else None


def load_features(spec: str) -> tuple[str, Features]:
    """Returns the name and the function that MODULE:FUNCTION names; the working directory is searched as well.

    Raises:
        ValueError: it is no such text, the module cannot be imported, or it has no such function.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name.isidentifier():
        raise ValueError(f"features={spec!r}: must be MODULE:FUNCTION, a function from uint8 n h w 3 to n d")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:  # the user's module may raise anything; its name is what they need
        raise ValueError(f"features={spec!r}: cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise ValueError(f"features={spec!r}: {module_name} has no function {name}")
    return name, cast(Features, function)


def compute_features(name: str, function: Features, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
    """Returns the features of the images by a user's function.

    Raises:
        ValueError: it gives anything but one finite vector an image.
    """
    rows = np.asarray(function(images))
    if rows.ndim != 2 or len(rows) != len(images) or not np.isfinite(rows).all():
        raise ValueError(f"features {name}: must give finite [{len(images)}, d] of {len(images)} images; "
                         f"got {list(rows.shape)}")  # fmt: skip
    return rows.astype(np.float64)


def _check(first: np.ndarray, second: np.ndarray) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ValueError(f"features {list(first.shape)} and {list(second.shape)}: two sets of at least 2 rows of one "
                         "width are needed")  # fmt: skip
