"""Landmark schemes: the points of each boundary, their order in a mirror, and 98 points converted to 68.

The boundaries are LAB's 13 plus, for 98 points, the lower lines of the eyebrows. "left" and "right" are the viewer's.
`mirror_landmarks` and the conversions accept NumPy and JAX arrays and return the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import jax
import numpy as np
from jaxtyping import Float

Landmarks = jax.Array | np.ndarray


@dataclass(frozen=True)
class Scheme:
    """One way to place landmarks on a face; hashable, so a static argument of jitted functions."""

    points: int
    """p, the number of landmarks."""
    boundaries: tuple[tuple[str, tuple[int, ...]], ...]
    """(name, landmark indices along the curve) of each boundary, in the order of the sketch's channels."""
    mirror: tuple[int, ...]
    """After a horizontal flip, landmark i is the former landmark mirror[i]."""

    @property
    def names(self) -> tuple[str, ...]:
        """The boundaries' names, in the order of the sketch's channels."""
        return tuple(name for name, _ in self.boundaries)

    @property
    def eyes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Indices of the eyelid landmarks: left eye, right eye."""
        curves = dict(self.boundaries)
        left = {*curves["eye_left_upper"], *curves["eye_left_lower"]}
        right = {*curves["eye_right_upper"], *curves["eye_right_lower"]}
        return tuple(sorted(left)), tuple(sorted(right))


def _run(first: int, last: int) -> tuple[int, ...]:
    """Returns the indices from first to last, both included, ascending or descending."""
    step = 1 if last >= first else -1
    return tuple(range(first, last + step, step))


_WFLW_98 = Scheme(
    points=98,
    boundaries=(
        ("contour", _run(0, 32)),
        ("brow_left", _run(33, 37)),
        ("brow_right", _run(42, 46)),
        ("nose_bridge", _run(51, 54)),
        ("nose_base", _run(55, 59)),
        ("eye_left_upper", _run(60, 64)),
        ("eye_left_lower", (60, 67, 66, 65, 64)),
        ("eye_right_upper", _run(68, 72)),
        ("eye_right_lower", (68, 75, 74, 73, 72)),
        ("lip_upper_outer", _run(76, 82)),
        ("lip_upper_inner", _run(88, 92)),
        ("lip_lower_inner", (88, 95, 94, 93, 92)),
        ("lip_lower_outer", (76, *_run(87, 82))),
        ("brow_left_lower", (33, *_run(41, 38))),
        ("brow_right_lower", _run(50, 46)),
    ),
    mirror=(
        *_run(32, 0),
        *(*_run(46, 42), *_run(50, 47)),
        *(*_run(37, 33), *_run(41, 38)),
        *(*_run(51, 54), *_run(59, 55)),
        *(*_run(72, 68), *_run(75, 73)),
        *(*_run(64, 60), *_run(67, 65)),
        *(*_run(82, 76), *_run(87, 83)),
        *(*_run(92, 88), *_run(95, 93)),
        *(97, 96),
    ),
)
"""WFLW: 33 contour points, eyebrows as loops, 8 points per eye, pupils 96 and 97 (in no boundary)."""

_IBUG_68 = Scheme(
    points=68,
    boundaries=(
        ("contour", _run(0, 16)),
        ("brow_left", _run(17, 21)),
        ("brow_right", _run(22, 26)),
        ("nose_bridge", _run(27, 30)),
        ("nose_base", _run(31, 35)),
        ("eye_left_upper", _run(36, 39)),
        ("eye_left_lower", (36, 41, 40, 39)),
        ("eye_right_upper", _run(42, 45)),
        ("eye_right_lower", (42, 47, 46, 45)),
        ("lip_upper_outer", _run(48, 54)),
        ("lip_upper_inner", _run(60, 64)),
        ("lip_lower_inner", (60, 67, 66, 65, 64)),
        ("lip_lower_outer", (48, *_run(59, 54))),
    ),
    mirror=(
        *_run(16, 0),
        *_run(26, 17),
        *(*_run(27, 30), *_run(35, 31)),
        *(*_run(45, 42), 47, 46),
        *(*_run(39, 36), 41, 40),
        *(*_run(54, 48), *_run(59, 55)),
        *(*_run(64, 60), *_run(67, 65)),
    ),
)
"""iBUG 300-W, dlib's model: 17 contour points, one line per eyebrow, 6 points per eye."""

SCHEMES = MappingProxyType({scheme.points: scheme for scheme in (_WFLW_98, _IBUG_68)})


def get_scheme(points: int) -> Scheme:
    """Returns the scheme with `points` landmarks.

    Raises:
        ValueError: no such scheme exists.
    """
    if points not in SCHEMES:
        raise ValueError(f"points={points!r}: must be one of {sorted(SCHEMES)}")
    return SCHEMES[points]


def check_landmarks(landmarks: Landmarks, scheme: Scheme) -> None:
    """Accepts landmarks of the scheme's shape (…, p, 2).

    Raises:
        ValueError: the last two axes differ from (p, 2).
    """
    if landmarks.ndim < 2 or landmarks.shape[-2:] != (scheme.points, 2):
        raise ValueError(f"landmarks {landmarks.shape}: the last two axes must be ({scheme.points}, 2), points of x, y")


def mirror_landmarks(landmarks: Float[Landmarks, "*b p 2"], scheme: Scheme) -> Float[Landmarks, "*b p 2"]:
    """Returns the landmarks of the horizontally flipped crop: x becomes 1 - x, left points become right ones.

    Raises:
        ValueError: the landmarks do not have the scheme's shape.
    """
    check_landmarks(landmarks, scheme)
    flipped = landmarks[..., np.asarray(scheme.mirror), :]
    sign, origin = np.array([[-1.0, 1.0], [1.0, 0.0]], landmarks.dtype)
    return flipped * _as_wide(sign, landmarks) + _as_wide(origin, landmarks)


def _as_wide(constant: np.ndarray, landmarks: Landmarks) -> np.ndarray:
    """Returns the constant with leading axes added, for as many axes as the landmarks."""
    return constant.reshape((1,) * (landmarks.ndim - constant.ndim) + constant.shape)


def _blend_98_to_68() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, for each of the 68 points, two of the 98 and the second's weight in x and in y."""
    picks: list[tuple[int, int, float, float]] = [(i, i, 0, 0) for i in range(0, 33, 2)]
    # An eyebrow of the 68 follows the middle of the loop: x of the upper line, y halfway to the lower one. Its outer
    # end is the loop's corner.
    picks += [(33, 33, 0, 0), *((upper, 75 - upper, 0, 1 / 2) for upper in _run(34, 37))]
    picks += [*((upper, 92 - upper, 0, 1 / 2) for upper in _run(42, 45)), (46, 46, 0, 0)]
    picks += [(i, i, 0, 0) for i in _run(51, 59)]
    # Three points between the corners of a lid become two, a third of the way from the outer ones to the middle.
    for corner in (60, 68):
        upper, lower = (corner + 1, corner + 2, corner + 3), (corner + 5, corner + 6, corner + 7)
        picks += [(corner, corner, 0, 0), *((outer, upper[1], 1 / 3, 1 / 3) for outer in (upper[0], upper[2]))]
        picks += [(corner + 4, corner + 4, 0, 0), *((outer, lower[1], 1 / 3, 1 / 3) for outer in (lower[0], lower[2]))]
    picks += [(i, i, 0, 0) for i in _run(76, 95)]
    first, second, x_weight, y_weight = zip(*picks, strict=True)
    return np.array(first), np.array(second), np.stack([x_weight, y_weight], axis=-1)


_FIRST, _SECOND, _SECOND_WEIGHT = _blend_98_to_68()


def landmarks_98_to_68(landmarks: Float[Landmarks, "*b 98 2"]) -> Float[Landmarks, "*b 68 2"]:
    """Returns the 68 points for 98 points, (…, 68, 2): PIPNet's rule with thirds and halves exact.

    Contour: every second point. Nose and mouth: the same points. Eyebrows: the middle of the loop. Eyelids: two points
    for three, at 2/3 of the outer and 1/3 of the middle one. The schemes define their points differently, so this
    approximates the output of a 68-point detector.

    Raises:
        ValueError: the landmarks do not have 98 points.
    """
    check_landmarks(landmarks, _WFLW_98)
    first, second = landmarks[..., _FIRST, :], landmarks[..., _SECOND, :]
    return first + (second - first) * _as_wide(_SECOND_WEIGHT.astype(landmarks.dtype), landmarks)


def convert_landmarks(landmarks: Float[Landmarks, "*b p 2"], to_points: int) -> Float[Landmarks, "*b q 2"]:
    """Returns the landmarks in the scheme with `to_points` points.

    Raises:
        ValueError: one of the schemes is unknown, or 68 points should become 98.
    """
    source, target = get_scheme(landmarks.shape[-2]), get_scheme(to_points)
    check_landmarks(landmarks, source)
    if source is target:
        return landmarks
    if target is _WFLW_98:
        raise ValueError("landmarks with 68 points cannot become 98 (they lack eyebrow loops and pupils); use 68")
    return landmarks_98_to_68(landmarks)
