"""Image metrics, by scikit-image, on 8-bit images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def psnr(
    predicted: UInt8[np.ndarray, "n h w 3"], true: UInt8[np.ndarray, "n h w 3"]
) -> Float[np.ndarray, " n"]:
    """Returns the peak signal-to-noise ratio of each image in dB, over all pixels and colors; larger is better.

    Of two equal images it is not infinite, which no mean survives, but that of one value wrong by one level.
    """
    return np.array([
        peak_signal_noise_ratio(t, p, data_range=255) if (t != p).any() else 10 * np.log10(255.0**2 * t.size)
        for p, t in zip(predicted, true, strict=True)
    ])


def ssim(
    predicted: UInt8[np.ndarray, "n h w 3"], true: UInt8[np.ndarray, "n h w 3"]
) -> Float[np.ndarray, " n"]:
    """Returns the structural similarity of each image, at most 1: Wang et al.'s Gaussian window, mean over colors."""
    return np.array([
        structural_similarity(
            t, p, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for p, t in zip(predicted, true, strict=True)
    ])

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


_FINE = 1.0  # px, standard deviation of the blur that takes the finest octave away

Images = UInt8[np.ndarray, "n h w 3"]


def gradient_ratio(drawn: Images, true: Images) -> Float[np.ndarray, " n"]:
    """Returns the mean length of the luminance gradient (central differences) over that of the true image.

    All edges count, strong ones most. Below 1: blurred. An artifact with edges counts as sharpness too, so that it is
    read beside SSIM. NaN where the true image is of one color.
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

_OUTER_CORNERS = (36, 45)  # of the eyes, in the 68 points of iBUG


def landmark_error(
    found: Float[np.ndarray, "n 68 2"], true: Float[np.ndarray, "n 68 2"]
) -> Float[np.ndarray, " n"]:
    """Returns the normalized mean error: mean distance of the 68 points over the distance of the outer eye corners.

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
