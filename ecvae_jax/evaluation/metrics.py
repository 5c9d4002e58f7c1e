"""The METRICS table, which reports, comparisons and figures read; and the image metrics on 8-bit images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ecvae_jax.evaluation import faces as identity
from ecvae_jax.evaluation.faces import MeasuredFaces

Images = UInt8[np.ndarray, "n h w 3"]

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_FINE = 1.0  # px, standard deviation of the blur that removes the finest octave
_OUTER_CORNERS = (36, 45)  # of the eyes, in the 68 points of iBUG


def psnr(predicted: Images, true: Images) -> Float[np.ndarray, " n"]:
    """Returns the peak signal-to-noise ratio of each image in dB, over all pixels and colors.

    Equal images score as if one value were wrong by one level: infinity would spoil the mean.
    """
    return np.array(
        [
            peak_signal_noise_ratio(t, p, data_range=255) if (t != p).any() else 10 * np.log10(255.0**2 * t.size)
            for p, t in zip(predicted, true, strict=True)
        ]
    )


def ssim(predicted: Images, true: Images) -> Float[np.ndarray, " n"]:
    """Returns the structural similarity of each image, at most 1: Wang et al.'s Gaussian window, mean over colors."""
    return np.array(
        [
            structural_similarity(
                t, p, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for p, t in zip(predicted, true, strict=True)
        ]
    )


def gradient_ratio(drawn: Images, true: Images) -> Float[np.ndarray, " n"]:
    """Returns the mean length of the luminance gradient (central differences) over that of the true image.

    Strong edges count most. Below 1: blurred. Artifacts with edges raise it too, so read it beside SSIM.
    NaN if the true image has one color.
    """
    return _ratio(_gradients(drawn), _gradients(true))


def detail_ratio(drawn: Images, true: Images) -> Float[np.ndarray, " n"]:
    """Returns the finest detail over that of the true image: root mean square of what a 1-pixel blur removes.

    Hair, lashes, teeth, and photo noise. Below 1: smoothed. NaN if the true image has none.
    """
    return _ratio(_fine(drawn), _fine(true))


def landmark_error(found: Float[np.ndarray, "n 68 2"], true: Float[np.ndarray, "n 68 2"]) -> Float[np.ndarray, " n"]:
    """Returns the normalized mean error: mean distance of the 68 points over the distance of the outer eye corners.

    A fraction: 0.03 is 3% of the true face's inter-ocular distance. NaN if a face is missing.

    Raises:
        ValueError: the landmarks are not 68 points.
    """
    if found.shape != true.shape or found.shape[1:] != (68, 2):
        raise ValueError(f"landmarks {list(found.shape)} and {list(true.shape)}: must both be [n, 68, 2]")
    left, right = (true[:, corner].astype(np.float64) for corner in _OUTER_CORNERS)
    span = np.linalg.norm(left - right, axis=1)
    error = np.linalg.norm(found.astype(np.float64) - true, axis=2).mean(axis=1)
    return _ratio(error, span)


class FacePairs(NamedTuple):
    """Faces found in n drawn images, beside those of the true images."""

    drawn: MeasuredFaces
    true: MeasuredFaces
    asked: Float[np.ndarray, "n 68 2"]
    """The landmarks that the images were drawn from, crop units."""
    people: Sequence[str]


class Drawn(NamedTuple):
    """One method's images beside the true ones: the argument of every pair metric."""

    images: Images
    true: Images
    faces: FacePairs | None = None
    """None: metrics of faces are not computed."""
    lpips: Callable[[Images, Images], Float[np.ndarray, " n"]] | None = None
    """None: LPIPS is not computed."""
    vectors: tuple[identity.Descriptors, identity.Descriptors] | None = None
    """Of the second embedder, drawn and true; None: not computed."""

    @property
    def measured(self) -> set[str]:
        """What was at hand, as in `Metric.needs`."""
        parts = {"dlib": self.faces, "lpips": self.lpips, "faceres": self.vectors}
        return {""} | {name for name, part in parts.items() if part is not None}


@dataclass(frozen=True)
class Metric:
    """One row of METRICS. A new metric is one row and its function."""

    key: str
    name: str
    unit: str
    """"%" shows 100 times the value."""
    digits: int
    better: Literal[1, 0, -1]
    """1: larger is better; -1: smaller is better; 0: neither."""
    compute: Callable[[Drawn], Float[np.ndarray, " n"]] | None = None
    """One value a pair, NaN if it has none; None: `scoring.score_samples` or `comparison.measures` computes it."""
    needs: Literal["", "dlib", "lpips", "faceres"] = ""
    """What must be installed to compute it."""
    over: Literal["pairs", "structures", "runs"] = "pairs"
    """What has one value: a pair of views, a sampled structure, or a whole training."""
    shown: bool = False
    """In the printed report and the Markdown tables; the JSON has every pair metric."""
    caption: str = ""
    """Word in the figure of pairs; empty: not in it."""
    compared: Mapping[str, str] = field(default_factory=dict)
    """For `ecvae compare`: "transfer", "reconstruction" or "" (neither), each with a claim of its verdict or ""."""
    compared_digits: int = 0
    """Digits added in comparisons, for metrics whose differences are small."""

    @property
    def heading(self) -> str:
        """Name and unit, for a table's column."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    @property
    def factor(self) -> float:
        """From value to unit."""
        return 100.0 if self.unit == "%" else 1.0

    def format(self, value: float | None) -> str:
        """Returns the value in the unit, without it."""
        return "–" if value is None else f"{self.factor * value:.{self.digits}f}"


def _of_faces(compute: Callable[[FacePairs], Float[np.ndarray, " n"]]) -> Callable[[Drawn], Float[np.ndarray, " n"]]:
    def of_drawn(drawn: Drawn) -> Float[np.ndarray, " n"]:
        assert drawn.faces is not None
        return compute(drawn.faces)

    return of_drawn


def _of_vectors(
    compute: Callable[[identity.Descriptors, identity.Descriptors], Float[np.ndarray, " n"]],
) -> Callable[[Drawn], Float[np.ndarray, " n"]]:
    return _of_faces(lambda faces: compute(faces.drawn.descriptors, faces.true.descriptors))


def _lpips(drawn: Drawn) -> Float[np.ndarray, " n"]:
    assert drawn.lpips is not None
    return drawn.lpips(drawn.images, drawn.true)


def _second_identity(drawn: Drawn) -> Float[np.ndarray, " n"]:
    assert drawn.vectors is not None
    return identity.distances(*drawn.vectors)


def _others(faces: FacePairs) -> Float[np.ndarray, " n"]:
    return identity.against_others(faces.drawn.descriptors, faces.true.descriptors, faces.people)[0]


def _identified(faces: FacePairs) -> Float[np.ndarray, " n"]:
    return identity.identified(faces.drawn.descriptors, faces.true.descriptors, faces.people)


METRICS = (
    Metric("psnr", "PSNR", "dB", 2, 1, lambda d: psnr(d.images, d.true), shown=True, caption="PSNR",
           compared={"transfer": "appearance", "reconstruction": ""}),
    Metric("ssim", "SSIM", "", 3, 1, lambda d: ssim(d.images, d.true), shown=True, caption="SSIM",
           compared={"transfer": "appearance", "reconstruction": "appearance"}, compared_digits=1),
    Metric("sharpness", "sharpness", "%", 1, 1, lambda d: gradient_ratio(d.images, d.true), shown=True,
           caption="sharpness", compared={"transfer": "sharpness", "reconstruction": "sharpness"}),
    Metric("detail", "fine detail", "%", 1, 1, lambda d: detail_ratio(d.images, d.true), shown=True,
           compared={"transfer": "sharpness"}),
    Metric("lpips", "LPIPS (alex)", "", 3, -1, _lpips, needs="lpips", shown=True, caption="LPIPS",
           compared={"transfer": "realism", "reconstruction": "realism"}),
    Metric("identity", "identity distance", "", 3, -1, _of_vectors(identity.distances), needs="dlib", shown=True,
           caption="identity", compared={"transfer": "appearance"}),
    Metric("identity_cosine", "identity cosine", "", 3, 1, _of_vectors(identity.cosines), needs="dlib"),
    Metric("identity_others", "distance to other people", "", 3, 1, _of_faces(_others), needs="dlib"),
    Metric("verified", "verified", "%", 1, 1, _of_vectors(identity.verified), needs="dlib", shown=True),
    Metric("identity_faceres", "identity distance (faceres)", "", 3, -1, _second_identity, needs="faceres", shown=True,
           compared={"transfer": "appearance"}),
    Metric("identification", "identified", "%", 1, 1, _of_faces(_identified), needs="dlib"),
    Metric("nme", "structure error", "%", 2, -1,
           _of_faces(lambda f: landmark_error(f.drawn.landmarks, f.true.landmarks)), needs="dlib", shown=True,
           caption="structure", compared={"transfer": ""}),
    Metric("nme_asked", "error to the given landmarks", "%", 2, -1,
           _of_faces(lambda f: landmark_error(f.drawn.landmarks, f.asked)), needs="dlib"),
    Metric("face_found", "face found", "%", 1, 1, _of_faces(lambda f: f.drawn.found.astype(np.float64)),
           needs="dlib", shown=True, compared={"transfer": ""}),
    Metric("sample_spread", "spread of samples", "levels of 255", 2, 1, over="structures", compared={"": "diversity"}),
    Metric("sample_identity_spread", "spread of samples' identity", "", 3, 1, needs="dlib", over="structures",
           compared={"": "diversity"}),
    Metric("sample_face_found", "face found in samples", "%", 1, 1, needs="dlib", over="structures", compared={"": ""}),
    Metric("sample_sharpness", "sharpness of samples", "%", 1, 1, over="structures", compared={"": "sharpness"}),
    Metric("sample_frechet", "Fréchet distance of samples", "", 4, -1, needs="dlib", over="runs",
           compared={"": "realism"}),
    Metric("sample_kernel", "kernel distance of samples", "", 4, -1, needs="dlib", over="runs",
           compared={"": "realism"}),
    Metric("sample_frechet_faceres", "Fréchet distance of samples (faceres)", "", 4, -1, needs="faceres", over="runs",
           compared={"": "realism"}),
    Metric("recon_nll", "recon_nll", "nats", 0, -1, over="runs", compared={"": ""}),
    Metric("kl", "KL to the prior", "nats", 1, 0, over="runs", compared={"": ""}),
    Metric("bits_per_dimension", "bits per dimension", "", 4, -1, over="runs", compared={"": "realism"}),
    Metric("effective_clusters", "effective clusters", "", 2, 0, over="runs", compared={"": ""}),
    Metric("prior_distance", "distance of two faces' priors", "σ", 2, 0, over="runs", compared={"": ""}),
)  # fmt: skip
PAIR_METRICS = tuple(metric for metric in METRICS if metric.over == "pairs")


def pair_values(drawn: Drawn) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns each pair metric's values by key; only those whose `needs` were measured."""
    metrics = [metric for metric in PAIR_METRICS if metric.needs in drawn.measured]
    return {metric.key: metric.compute(drawn) for metric in metrics if metric.compute}


def _luminance(images: Images) -> Float[np.ndarray, "n h w"]:
    return images.astype(np.float64) @ _LUMA


def _gradients(images: Images) -> Float[np.ndarray, " n"]:
    rows, columns = np.gradient(_luminance(images), axis=(1, 2))
    return np.hypot(rows, columns).mean(axis=(1, 2))


def _fine(images: Images) -> Float[np.ndarray, " n"]:
    light = _luminance(images)
    return np.sqrt(np.square(light - gaussian_filter(light, (0, _FINE, _FINE))).mean(axis=(1, 2)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> Float[np.ndarray, " n"]:
    return np.divide(numerator, denominator, out=np.full(len(denominator), np.nan), where=denominator > 0)
