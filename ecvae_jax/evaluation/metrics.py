"""Image metrics, by scikit-image, on 8-bit images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def psnr(
    predicted: UInt8[np.ndarray, "n h w 3"], true: UInt8[np.ndarray, "n h w 3"]
) -> Float[np.ndarray, " n"]:
    """Returns the peak signal-to-noise ratio of each image in dB, over all pixels and colours; larger is better.

    Of two equal images it is not infinite, which no mean survives, but that of one value wrong by one level.
    """
    return np.array([
        peak_signal_noise_ratio(t, p, data_range=255) if (t != p).any() else 10 * np.log10(255.0**2 * t.size)
        for p, t in zip(predicted, true, strict=True)
    ])


def ssim(
    predicted: UInt8[np.ndarray, "n h w 3"], true: UInt8[np.ndarray, "n h w 3"]
) -> Float[np.ndarray, " n"]:
    """Returns the structural similarity of each image, at most 1: Wang et al.'s Gaussian window, mean over colours."""
    return np.array([
        structural_similarity(
            t, p, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for p, t in zip(predicted, true, strict=True)
    ])
