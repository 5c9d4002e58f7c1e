"""The warp baseline: the source image warped to the target's landmarks. No model, no metric: the protocol scores it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from scipy.interpolate import LinearNDInterpolator
from skimage.transform import warp

Images = UInt8[np.ndarray, "n h w 3"]
Landmarks = Float[np.ndarray, "n p 2"]

_BORDER_SPANS = 8  # anchors along each side of the crop


def warp_to_landmarks(images: Images, landmarks: Landmarks, target_landmarks: Landmarks) -> Images:
    """Returns each image warped so that its landmarks move to the target's: piecewise affine, bilinear.

    The map is that of scikit-image's `PiecewiseAffineTransform`: affine in each Delaunay triangle of the target's
    points. SciPy's interpolator is forty times faster, and a test holds both equal. 32 fixed points along the border
    make hair and background follow smoothly; crops are centered on the face, so the border moves little.

    No alternative scored higher on photos, turned heads and rendered heads alike: points above the brows, 8 border
    points, a border that moves with the landmarks (1 to 2 dB lower on turned heads), cubic interpolation, a finer warp.
    Images are at the model's resolution, so that the warp sees what the model sees.
    """
    return np.stack(
        [
            _warp_one(image, source, target)
            for image, source, target in zip(images, landmarks, target_landmarks, strict=True)
        ]
    )


def border_anchors(spans: int = _BORDER_SPANS) -> Float[np.ndarray, "k 2"]:
    """Returns points on the border of the crop, `spans` a side, corners included, in crop units."""
    along = np.arange(spans) / spans
    low, high = np.zeros(spans), np.ones(spans)
    sides = ((along, low), (high, along), (1 - along, high), (low, 1 - along))
    return np.concatenate([np.stack(side, axis=1) for side in sides])


def _warp_one(image: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    anchors = border_anchors()
    to_source = LinearNDInterpolator(np.concatenate([target, anchors]), np.concatenate([source, anchors]))
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    source_pixels = to_source(np.stack(np.meshgrid(x, y), axis=-1)) * [width, height] - 0.5
    rows, columns = source_pixels[..., 1], source_pixels[..., 0]
    layers = [
        warp(image[..., c].astype(np.float64), np.stack([rows, columns]), order=1, mode="edge", preserve_range=True)
        for c in range(3)
    ]
    return np.clip(np.rint(np.stack(layers, axis=-1)), 0, 255).astype(np.uint8)
