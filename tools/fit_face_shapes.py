"""Writes ecvae_jax/data/photos/face_shapes.json from the embedded heads: `python tools/fit_face_shapes.py`."""

from __future__ import annotations

import json

import numpy as np

from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.photos.face_shapes import FILE, fit_shapes


def main() -> None:
    """Fits the directions for 68 and 98 points to the training split, to four decimals."""
    faces = load_faces("rendered", "train")
    fitted = {points: fit_shapes(np.asarray(faces.landmarks_as(points), np.float64)) for points in (68, 98)}
    rows = {str(points): np.round(directions, 4).tolist() for points, directions in fitted.items()}
    FILE.write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
