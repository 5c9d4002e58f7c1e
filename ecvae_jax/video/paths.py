"""Walks: closed loops from a face's own structure along named directions (`synthesis.directions`)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ecvae_jax.structure.openings import without_crossing
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.synthesis.directions import POSES, fit_directions, in_frame
from ecvae_jax.video.options import PathName

_YAW, _PITCH = 15.0, 8.0
"""Degrees at the ends of a turn and of a nod."""
_TAGS = {"blink": "closed"}
"""Expressions of the heads that have another name here."""
_FULL = {"blink": 1.3}
"""Amounts at the far end, where not 1: at 1, the mean over the heads' people leaves 16 to 28% of an eye's opening."""


def walk(landmarks: Float[np.ndarray, "p 2"], name: PathName, count: int) -> Float[np.ndarray, "n p 2"]:
    """Returns a face's landmarks along a closed loop of `count` frames, which begins at the face itself.

    Args:
        landmarks: in any unit.
    """
    full = _FULL.get(name, 1.0)
    turn = 2 * np.pi * np.arange(count) / count
    rise, swing = 0.5 - 0.5 * np.cos(turn), np.sin(turn)
    amounts = {
        "circle": {"yaw": _YAW * 0.7 * swing, "pitch": _PITCH * 1.2 * rise},
        "turn": {"yaw": _YAW * swing},
        "nod": {"pitch": _PITCH * swing},
    }.get(name, {_TAGS.get(name, name): full * rise})
    directions, scheme = fit_directions(len(landmarks)), get_scheme(len(landmarks))
    moved = np.repeat(landmarks[None].astype(np.float64), count, axis=0)
    for direction, along in amounts.items():
        moved += along[:, None, None] * in_frame(directions[direction], landmarks, direction not in POSES)
    return np.stack([without_crossing(face, scheme) for face in moved]).astype(np.float32)
