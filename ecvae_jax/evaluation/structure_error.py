"""Whether a picture has the structure that was asked for: landmarks found again in it, against the true ones."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_OUTER_CORNERS = (36, 45)  # of the eyes, in the 68 points of iBUG


def landmark_error(
    found: Float[np.ndarray, "n 68 2"], true: Float[np.ndarray, "n 68 2"]
) -> Float[np.ndarray, " n"]:
    """Returns the normalised mean error: mean distance of the 68 points over the distance of the outer eye corners.

    A fraction: 0.03 is 3% of the inter-ocular distance of the true face; smaller is better. NaN where one is missing.

    Raises:
        ValueError: the landmarks are not 68 points.
    """
    if found.shape != true.shape or found.shape[1:] != (68, 2):
        raise ValueError(f"landmarks {list(found.shape)} and {list(true.shape)}: must both be [n, 68, 2]")
    left, right = (true[:, corner].astype(np.float64) for corner in _OUTER_CORNERS)
    apart = np.linalg.norm(left - right, axis=1)
    error = np.linalg.norm(found.astype(np.float64) - true, axis=2).mean(axis=1)
    return np.divide(error, apart, out=np.full(len(error), np.nan), where=apart > 0)
