"""How sharp a drawn image is beside the true one: two ratios, of which 1 is as sharp as the true image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_FINE = 1.0  # px, standard deviation of the blur that takes the finest octave away

Images = UInt8[np.ndarray, "n h w 3"]


def gradient_ratio(drawn: Images, true: Images) -> Float[np.ndarray, " n"]:
    """Returns the mean length of the luminance gradient (central differences) over that of the true image.

    All edges count, strong ones most. Below 1: blurred. An artefact with edges counts as sharpness too, so that it is
    read beside SSIM. NaN where the true image is of one colour.
    """
    return _ratio(_gradients(drawn), _gradients(true))


def detail_ratio(drawn: Images, true: Images) -> Float[np.ndarray, " n"]:
    """Returns the finest detail over that of the true image: root mean square of what a blur by 1 pixel takes away.

    Hair, lashes, teeth, and the noise of a photo. Below 1: smoothed. NaN where the true image has none.
    """
    return _ratio(_fine(drawn), _fine(true))


def _luminance(images: Images) -> Float[np.ndarray, "n h w"]:
    return images.astype(np.float64) @ _LUMA


def _gradients(images: Images) -> Float[np.ndarray, " n"]:
    rows, columns = np.gradient(_luminance(images), axis=(1, 2))
    return np.hypot(rows, columns).mean(axis=(1, 2))


def _fine(images: Images) -> Float[np.ndarray, " n"]:
    light = _luminance(images)
    return np.sqrt(np.square(light - gaussian_filter(light, (0, _FINE, _FINE))).mean(axis=(1, 2)))


def _ratio(drawn: np.ndarray, true: np.ndarray) -> Float[np.ndarray, " n"]:
    return np.divide(drawn, true, out=np.full(len(true), np.nan), where=true > 0)
