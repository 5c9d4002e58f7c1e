"""Who is on a picture, in the space of dlib's face network: distances, verification, identification. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

SAME_PERSON = 0.6
"""dlib's own threshold: two photos at a smaller distance show one person."""

Descriptors = Float[np.ndarray, "n d"]


def distances(drawn: Descriptors, true: Descriptors) -> Float[np.ndarray, " n"]:
    """Returns the Euclidean distance of each drawn face to its true one; smaller is better. NaN where one is missing.

    dlib's vectors: about 0.3 between photos of one person, 0.8 between strangers.
    """
    return np.linalg.norm(drawn - true, axis=1)


def cosines(drawn: Descriptors, true: Descriptors) -> Float[np.ndarray, " n"]:
    """Returns the cosine of each drawn face's vector to its true one's, at most 1; NaN where one is missing."""
    lengths = np.linalg.norm(drawn, axis=1) * np.linalg.norm(true, axis=1)
    return np.divide((drawn * true).sum(axis=1), lengths, out=np.full(len(drawn), np.nan), where=lengths > 0)


def verified(drawn: Descriptors, true: Descriptors, threshold: float = SAME_PERSON) -> Float[np.ndarray, " n"]:
    """Returns 1 where the drawn face passes as the true person, else 0.

    A picture in which no face was found passes as nobody: 0. NaN where the true image shows no face.
    """
    with np.errstate(invalid="ignore"):
        accepted = (distances(drawn, true) < threshold).astype(np.float64)  # NaN is not below anything
    accepted[~np.isfinite(true).all(axis=1)] = np.nan
    return accepted


def against_others(
    drawn: Descriptors, true: Descriptors, people: Sequence[str], threshold: float = SAME_PERSON
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns each drawn face's mean distance to the true images of all other people, and which part it passes for.

    NaN where no face was found in the drawing, or nobody else is there.
    """
    apart, other = _to_gallery(drawn, true, people)
    counted = other & np.isfinite(apart)
    numbers = counted.sum(axis=1)
    blank = np.full(len(drawn), np.nan)
    mean = np.divide(np.where(counted, apart, 0.0).sum(axis=1), numbers, out=blank.copy(), where=numbers > 0)
    passes = (counted & (np.nan_to_num(apart, nan=np.inf) < threshold)).sum(axis=1)
    return mean, np.divide(passes, numbers, out=blank, where=numbers > 0)


def identified(drawn: Descriptors, true: Descriptors, people: Sequence[str]) -> Float[np.ndarray, " n"]:
    """Returns 1 where the nearest of all true images is one of the drawn person, else 0 (rank 1).

    A picture without a face is 0. NaN where the person has no true image with a face, or nobody else is there.
    """
    apart, other = _to_gallery(drawn, true, people)
    there = np.isfinite(true).all(axis=1)
    apart = np.where(np.isfinite(apart), apart, np.inf)
    own = np.where(other, np.inf, apart).min(axis=1, initial=np.inf)
    others = np.where(other, apart, np.inf).min(axis=1, initial=np.inf)
    hits = (own < others).astype(np.float64)
    possible = (~other & there).any(axis=1) & (other & there).any(axis=1)
    return np.where(possible, hits, np.nan)


def _to_gallery(drawn: Descriptors, true: Descriptors, people: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Distances of every drawn face to every true one, and whether that is another person."""
    names = np.asarray(people)
    return cdist(drawn, true), names[:, None] != names[None, :]
