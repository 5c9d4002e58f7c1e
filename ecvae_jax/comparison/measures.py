"""The measures of each training, value by value, so that two trainings can be compared pair by pair."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from ecvae_jax.data.faces import Faces
from ecvae_jax.evaluation.likelihood import bits_per_dimension
from ecvae_jax.evaluation.metrics import METRICS, PAIR_METRICS
from ecvae_jax.evaluation.pairs import Pairs
from ecvae_jax.evaluation.protocol import PLAIN, evaluate
from ecvae_jax.evaluation.report import Report
from ecvae_jax.evaluation.scoring import Measures
from ecvae_jax.evaluation.tags import expression_of, is_neutral, pair_classes
from ecvae_jax.model.conditioning import Condition
from ecvae_jax.model.model import Model, condition_of
from ecvae_jax.prior import GaussianMixture, effective_clusters, mixture_kl_monte_carlo
from ecvae_jax.synthesis.batches import encode


class Measure(NamedTuple):
    """One column of the tables: a row of METRICS; pair metrics give one each for transfer and reconstruction."""

    key: str
    heading: str
    over: Literal["pairs", "structures", "runs"]
    digits: int
    better: int
    """1: larger is better; -1: smaller is better; 0: neither."""
    factor: float
    claim: str
    """The claim of the verdict that it bears on, or ""."""


MEASURES = tuple(
    Measure(
        f"{images}_{metric.key}" if images else metric.key,
        f"{images} {metric.heading}" if images else metric.heading,
        metric.over,
        metric.digits + metric.compared_digits,
        metric.better,
        metric.factor,
        metric.compared[images],
    )
    for images in ("transfer", "reconstruction", "")
    for metric in METRICS
    if images in metric.compared
)
BY_KEY = {measure.key: measure for measure in MEASURES}

_KL_DRAWS = 64
_KL_BATCH = 16
_COMPARED = tuple(metric.key for metric in PAIR_METRICS if metric.compared)


def measure_run(model: Model, faces: Faces, limit: int, transport: bool, measures: Measures) -> dict[str, Any]:
    """Returns a training's measures as JSON: `values` of pairs and structures, `numbers`, `classes`, `baselines`.

    Pairs, structures and samples depend on `measures.seed` only, so that all trainings are measured on the same ones.

    Raises:
        ValueError: no person has two views of one sitting, so no transfer has a true image.
    """
    report = evaluate(
        model, faces, limit=limit, seed=measures.seed, transport=transport, adapt=PLAIN, measures=measures
    )
    pairs, samples = report.pairs, report.samples
    if "model" not in report.methods:
        raise ValueError(
            f"{faces.records.name}, split {faces.split}: no person has two views of one sitting, so no transfer has a "
            "true image; use records with groups of views"
        )
    assert samples is not None
    values = {
        f"{images}_{key}": report.methods[method].values[key]
        for images, method in (("transfer", "model"), ("reconstruction", "reconstruction"))
        for key in _COMPARED
        if key in report.methods[method].values
    }
    return {
        "people": {"pairs": pairs.people, "structures": samples.people},
        "classes": _classes(pairs),
        "values": {key: _plain(each) for key, each in (values | samples.values).items()},
        "numbers": _numbers(model, report),
        "baselines": _baselines(report),
    }


_estimate_kl = jax.jit(mixture_kl_monte_carlo, static_argnames="num_samples")


def _numbers(model: Model, report: Report) -> dict[str, float | None]:
    likelihood, samples, pairs = report.sections["likelihood"], report.sections["samples"], report.pairs
    condition = condition_of(model, pairs.target_landmarks)
    kl, nats = likelihood["kl"], likelihood["recon_nll"]
    if isinstance(condition.prior, GaussianMixture):
        kl = _mixture_kl(model, pairs, condition.prior)
    return {
        "sample_frechet": samples.get("frechet_dlib128"),
        "sample_kernel": samples.get("kernel_dlib128"),
        "sample_frechet_faceres": samples.get("frechet_faceres"),
        "recon_nll": nats,
        "kl": kl,
        "kl_trained": likelihood["kl"],
        "bits_per_dimension": bits_per_dimension(nats + kl, math.prod(pairs.target.shape[1:])),
        "effective_clusters": float(jax.jit(effective_clusters)(condition.cluster_weights).mean()),
        "prior_distance": _prior_distance(condition),
    }


def _mixture_kl(model: Model, pairs: Pairs, mixture: GaussianMixture) -> float:
    """The KL to the mixture itself: comparing its training bound, which is larger, would be unfair."""
    posterior = encode(model, pairs.target, pairs.target_landmarks)
    parts = []
    for start in range(0, len(pairs), _KL_BATCH):
        rows = slice(start, start + _KL_BATCH)
        priors = mixture._replace(weights=mixture.weights[rows])
        posteriors = jax.tree.map(lambda leaf: leaf[rows], posterior)  # noqa: B023
        parts.append(np.asarray(_estimate_kl(jax.random.key(start), posteriors, priors, num_samples=_KL_DRAWS)[0]))
    return float(np.concatenate(parts).mean())


def _prior_distance(condition: Condition) -> float:
    """Median distance between the priors' means of two faces, in standard deviations of the prior."""
    mean, stddev = (np.asarray(each, np.float64) for each in (condition.reference.mean, condition.reference.stddev))
    order = np.random.default_rng(0).permutation(len(mean))
    return float(np.median(np.linalg.norm(mean - mean[order], axis=1) / stddev.mean(axis=1)))


def _classes(pairs: Pairs) -> dict[str, list[str | None]]:
    """The class of each pair by breakdown; expressions are "neutral" or "other"."""
    known = pair_classes(pairs.source_tags, pairs.target_tags)
    classes = {name: known[name] for name in ("by_turn", "by_view") if name in known}
    expressions = [expression_of(tags) for tags in pairs.target_tags]
    if any(expressions):
        classes["by_expression"] = [
            None if name is None else "neutral" if is_neutral(tags) else "other"
            for name, tags in zip(expressions, pairs.target_tags, strict=True)
        ]
    return classes


def _baselines(report: Report) -> dict[str, dict[str, float]]:
    """Means that no training changes: of copy and warp, and the spread of pixels between the true images."""
    rows: dict[str, dict[str, float]] = {}
    for method in ("copy", "warp"):
        values = report.methods[method].values
        rows[method] = {
            f"transfer_{key}": float(np.nanmean(values[key]))
            for key in _COMPARED
            if key in values and np.isfinite(values[key]).any()
        }
    spread = report.pairs.target.astype(np.float32).std(axis=0, ddof=1).mean() if len(report.pairs) > 1 else np.nan
    rows["true images"] = {"sample_spread": float(spread)} if np.isfinite(spread) else {}
    return rows


def _plain(values: np.ndarray) -> list[float | None]:
    """For JSON, which has no NaN; seven digits exceed the precision of every measure."""
    return [float(f"{value:.7g}") if np.isfinite(value) else None for value in values]
