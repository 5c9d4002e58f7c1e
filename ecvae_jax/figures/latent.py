"""Figure 2 of the paper from a trained model: Gaussian mixture against equilibrium latent space."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces
from ecvae_jax.evaluation.pairs import evenly_spaced
from ecvae_jax.figures.choose import Face, choose_yaws, format_yaw, tagged_faces
from ecvae_jax.model.conditioning import cluster_means
from ecvae_jax.model.model import Model, condition_of
from ecvae_jax.prior import equilibrium_prior
from ecvae_jax.synthesis.batches import encode

_SHOWN_YAWS = (-35.0, 0.0, 35.0)
_COLORS = ("#d1495b", "#2e4057", "#2a9134")
_MOST_FACES = 480
_LABELED_WEIGHT = 0.12  # smallest weight that a component is labeled with


class LatentSpace(NamedTuple):
    """The data of figure 2, projected onto the plane in which the faces' equilibrium priors differ most."""

    components: Float[np.ndarray, "k 2"]
    """The frozen cluster means."""
    component_stddev: Float[np.ndarray, " k"]
    weights: Float[np.ndarray, "f k"]
    """c_k of the shown faces."""
    means: Float[np.ndarray, "f 2"]
    """Their equilibrium priors."""
    stddev: Float[np.ndarray, " f"]
    posteriors: Float[np.ndarray, "n 2"]
    """Posterior means of all faces."""
    yaws: Float[np.ndarray, " n"]
    shown: list[Face]
    pictures: UInt8[np.ndarray, "f h w 3"]
    share: float
    """Fraction of the variance of the priors' means in the plane."""


def latent_space(model: Model, faces: Faces) -> LatentSpace:
    """Returns the data of figure 2.

    Raises:
        DataError: the prior has no cluster means, or the faces have no tags yaw and expression.
    """
    config, frozen = model.config, model.frozen
    means_of_clusters = cluster_means(model.architecture, model.params, frozen)
    if config.prior.kind == "standard" or not np.asarray(means_of_clusters).any():
        raise DataError(
            "figure 2 shows cluster means, and this model's latent space has none (prior.kind="
            f"{config.prior.kind!r}, mean_norm={config.prior.mean_norm:g}): use an equilibrium or mixture model"
        )
    found = tagged_faces(faces)
    chosen = [found[i] for i in evenly_spaced(len(found), _MOST_FACES)]
    shown = choose_yaws(found, _SHOWN_YAWS)
    landmarks = faces.landmarks_as(config.data.points)
    rows = [face.index for face in chosen]
    posterior = np.asarray(encode(model, faces.images(rows, config.model.image_size), landmarks[rows]).mean)
    weights = np.asarray(condition_of(model, landmarks[rows]).cluster_weights)
    shown_weights = condition_of(model, landmarks[[face.index for face in shown]]).cluster_weights
    means = weights @ np.asarray(means_of_clusters)
    center = means.mean(axis=0)
    _, lengths, axes = np.linalg.svd(means - center, full_matrices=False)
    plane = axes[:2].T
    prior = equilibrium_prior(shown_weights, means_of_clusters, frozen.cluster_stddev)
    return LatentSpace(
        (np.asarray(means_of_clusters) - center) @ plane,
        np.asarray(frozen.cluster_stddev),
        np.asarray(shown_weights),
        (np.asarray(prior.mean) - center) @ plane,
        np.asarray(prior.stddev)[:, 0],
        (posterior - center) @ plane,
        np.array([face.yaw for face in chosen]),
        shown,
        faces.images([face.index for face in shown], config.model.image_size),
        float((lengths[:2] ** 2).sum() / (lengths**2).sum()),
    )


def draw_latent(model: Model, faces: Faces, note: str) -> Any:
    """Returns figure 2: left the mixture's components weighted by c, right the equilibrium prior of the same faces.

    `note` is the text below, about model and records.

    Raises:
        DataError: see `latent_space`.
    """
    from matplotlib.figure import Figure

    space = latent_space(model, faces)
    figure = Figure(figsize=(12.4, 6.4), dpi=110, layout="constrained")
    left, right, side = figure.subplots(1, 3, gridspec_kw={"width_ratios": [5, 5, 1.1]})
    _draw_mixture(left, space)
    dots = _draw_equilibrium(right, space)
    side.set_axis_off()
    for number, (face, picture) in enumerate(zip(space.shown, space.pictures, strict=True)):
        inset = side.inset_axes((0.0, 0.70 - 0.31 * number, 1.0, 0.26))
        inset.imshow(picture)
        inset.set(xticks=[], yticks=[], title=f"yaw {format_yaw(face.yaw)}, {face.expression}")
        inset.title.set_fontsize(8)
        for edge in inset.spines.values():
            edge.set(color=_COLORS[number % len(_COLORS)], linewidth=3)
    trained = left if model.config.prior.kind == "mixture" else right
    whose = "this model's prior" + (" before its fit" if model.config.prior.kind == "covariance" else "")
    trained.set_title(f"{trained.get_title()}\n({whose})", fontsize=11)
    figure.colorbar(dots, ax=right, shrink=0.7, label="dots: posterior means of faces, by yaw in degrees")
    edge = float(space.component_stddev.max())
    extent = np.concatenate([space.components - edge, space.components + edge, space.posteriors])
    low, high = extent.min(axis=0), extent.max(axis=0)
    margin = 0.03 * float((high - low).max())
    for panel in (left, right):
        panel.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
        panel.set(aspect="equal", xlabel="first axis")
        panel.tick_params(labelsize=8)
    left.set_ylabel("second axis")
    below = (
        f"The plane in which the priors of {len(space.yaws)} faces differ most ({space.share:.0%} of the variance). "
        f"Circles: one standard deviation, and two of the equilibrium prior. {note}"
    )
    figure.supxlabel(below, fontsize=8)
    return figure


def _draw_mixture(panel: Any, space: LatentSpace) -> None:
    from matplotlib.patches import Circle

    panel.set_title("Gaussian mixture: component $k$ is drawn\nwith probability $c_k$ (numbers)", fontsize=11)
    for center, stddev in zip(space.components, space.component_stddev, strict=True):
        panel.add_patch(Circle(center, stddev, fill=False, color="0.85", linewidth=0.8))
    for number, weights in enumerate(space.weights):
        color = _COLORS[number % len(_COLORS)]
        for center, stddev, weight in zip(space.components, space.component_stddev, weights, strict=True):
            # even the nearest component weighs far below 1: the root keeps small weights visible
            panel.add_patch(Circle(center, stddev, color=color, alpha=0.55 * float(weight) ** 0.5, linewidth=0))
            if weight >= _LABELED_WEIGHT:
                panel.annotate(f"{weight:.2f}", center, ha="center", va="center", fontsize=7, color=color)
    panel.plot(*space.components.T, "+", color="0.5", markersize=4)


def _draw_equilibrium(panel: Any, space: LatentSpace) -> Any:
    from matplotlib.patches import Circle

    panel.set_title("Equilibrium: one Gaussian, N(Σ $c_k μ_k$, Σ $c_k^2 σ_k^2$)", fontsize=11)
    for center, stddev in zip(space.components, space.component_stddev, strict=True):
        panel.add_patch(Circle(center, stddev, fill=False, color="0.9", linewidth=0.8))
    dots = panel.scatter(*space.posteriors.T, c=space.yaws, s=9, cmap="coolwarm", linewidths=0, zorder=2)
    for number, (mean, stddev) in enumerate(zip(space.means, space.stddev, strict=True)):
        color = _COLORS[number % len(_COLORS)]
        for times in (1, 2):
            panel.add_patch(Circle(mean, times * stddev, fill=False, color=color, linewidth=2.4 / times, zorder=3))
        for center, weight in zip(space.components, space.weights[number], strict=True):
            if weight >= _LABELED_WEIGHT:  # components that pull the mean, by weight
                panel.plot(*np.stack([center, mean]).T, color=color, linewidth=6 * weight, alpha=0.35, zorder=1)
    return dots
