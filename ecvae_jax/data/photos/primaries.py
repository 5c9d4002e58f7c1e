"""Colors given by numbers, an exponent and chromaticities, to sRGB."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from PIL import Image

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""CIE x and y of white, red, green and blue: the order of PNG's cHRM."""

D65 = (0.3127, 0.3290)
SRGB: Chromaticities = (*D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
P3: Chromaticities = (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE: Chromaticities = (*D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
BT2020: Chromaticities = (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
_BLOCK = 1 << 20
"""Pixels converted at once; float arrays of a whole photo would take a gigabyte."""
_FINE = 4095
"""Steps of the table from linear light to sRGB's square root scale."""


def is_srgb(chromaticities: Chromaticities) -> bool:
    """Returns whether they are sRGB's to within rounding."""
    return bool(np.abs(np.subtract(chromaticities, SRGB)).max() < 0.002)


def convert_to_srgb(image: Image.Image, exponent: float, chromaticities: Chromaticities) -> Image.Image:
    """Returns an RGB image of these numbers in sRGB; colors outside its gamut are clipped.

    Linear light is sample ** exponent; exponent 0 is sRGB's curve.

    Raises:
        ValueError: the primaries span no plane.
    """
    samples = np.arange(256) / 255
    linear = (_srgb_linear(samples) if not exponent else samples**exponent).astype(np.float32)
    if is_srgb(chromaticities):
        table = np.rint(255 * srgb_encoded(linear)).astype(int).tolist()
        return image.point(table * 3)
    matrix = (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(chromaticities)).astype(np.float32)
    # Spaced by square roots: sRGB's curve is steep near black.
    encoded = np.rint(255 * srgb_encoded((np.arange(_FINE + 1) / _FINE) ** 2)).astype(np.uint8)
    pixels = np.asarray(image).reshape(-1, 3)
    out = np.empty_like(pixels)
    for start in range(0, len(pixels), _BLOCK):
        light = np.clip(linear[pixels[start : start + _BLOCK]] @ matrix.T, 0, 1)
        out[start : start + _BLOCK] = encoded[np.rint(np.sqrt(light) * _FINE).astype(np.uint16)]
    return Image.fromarray(out.reshape(image.height, image.width, 3))


def _srgb_linear(sample: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns linear light of sRGB samples, 0..1 (IEC 61966-2-1)."""
    return np.where(sample <= 0.04045, sample / 12.92, ((sample + 0.055) / 1.055) ** 2.4)


def srgb_encoded(light: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns sRGB samples, 0..1, of linear light."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def to_xyz(chromaticities: Chromaticities) -> Float[np.ndarray, "3 3"]:
    """Returns the matrix from linear RGB to XYZ, with white adapted to D65 by Bradford's transform.

    Raises:
        ValueError: the primaries span no plane.
    """
    pairs = np.asarray(chromaticities, np.float64).reshape(4, 2)
    if not (np.isfinite(pairs).all() and (pairs[:, 1] > 1e-4).all() and (pairs >= 0).all() and (pairs <= 2).all()):
        raise ValueError("chromaticities outside the diagram")
    xyz = np.stack([pairs[:, 0] / pairs[:, 1], np.ones(4), (1 - pairs.sum(axis=1)) / pairs[:, 1]])
    white, primaries = xyz[:, 0], xyz[:, 1:]
    if abs(np.linalg.det(primaries / np.linalg.norm(primaries, axis=0))) < 1e-3:
        raise ValueError("primaries on a line")
    matrix = primaries * np.linalg.solve(primaries, white)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d65 = np.array([D65[0] / D65[1], 1.0, (1 - sum(D65)) / D65[1]])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d65) / (bradford @ white)) @ bradford
    return adapt @ matrix
