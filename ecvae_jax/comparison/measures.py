"""What is measured of each training, value by value, so that two of them can be compared pair by pair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ecvae_jax.data.faces import Faces
from ecvae_jax.evaluation.distribution import feature_spread
from ecvae_jax.evaluation.likelihood import bits_per_dimension
from ecvae_jax.evaluation.metrics import detail_ratio, gradient_ratio
from ecvae_jax.evaluation.pairs import Pairs, expression_of, is_neutral, pair_classes
from ecvae_jax.evaluation.protocol import evaluate
from ecvae_jax.evaluation.report import Report
from ecvae_jax.evaluation.scoring import SAMPLES, STRUCTURES, Measures
from ecvae_jax.model.conditioning import Condition, condition_of
from ecvae_jax.model.model import Model
from ecvae_jax.prior import GaussianMixture, effective_clusters, mixture_kl_monte_carlo
from ecvae_jax.synthesis.batches import encode, sample


class Measure(NamedTuple):
    """One column of the tables."""

    key: str
    heading: str
    over: Literal["pairs", "structures", "runs"]
    """What has a value of its own: each pair of views, each structure that is sampled, or only the training."""
    digits: int
    better: int
    """1: larger is better, -1: smaller is, 0: neither."""
    factor: float = 1.0


MEASURES = (
    Measure("transfer_psnr", "transfer PSNR, dB", "pairs", 2, 1),
    Measure("transfer_ssim", "transfer SSIM", "pairs", 4, 1),
    Measure("transfer_sharpness", "transfer sharpness, % of the true image's", "pairs", 1, 1, 100),
    Measure("transfer_detail", "transfer fine detail, %", "pairs", 1, 1, 100),
    Measure("transfer_identity", "transfer identity distance", "pairs", 3, -1),
    Measure("transfer_nme", "transfer structure error, %", "pairs", 2, -1, 100),
    Measure("transfer_face_found", "transfer face found, %", "pairs", 1, 1, 100),
    Measure("reconstruction_psnr", "reconstruction PSNR, dB", "pairs", 2, 1),
    Measure("reconstruction_ssim", "reconstruction SSIM", "pairs", 4, 1),
    Measure("reconstruction_sharpness", "reconstruction sharpness, %", "pairs", 1, 1, 100),
    Measure("sample_spread", "spread of samples, levels of 255", "structures", 2, 1),
    Measure("sample_identity_spread", "spread of samples' identity", "structures", 3, 1),
    Measure("sample_sharpness", "sharpness of samples, %", "structures", 1, 1, 100),
    Measure("sample_frechet", "Fréchet distance of samples", "runs", 4, -1),
    Measure("sample_kernel", "kernel distance of samples", "runs", 4, -1),
    Measure("bits_per_dimension", "bits per dimension", "runs", 4, -1),
    Measure("recon_nll", "recon_nll, nats", "runs", 0, -1),
    Measure("kl", "KL to the prior, nats", "runs", 1, 0),
    Measure("effective_clusters", "effective clusters", "runs", 2, 0),
    Measure("prior_distance", "distance of two faces' priors, σ", "runs", 2, 0),
)
BY_KEY = {measure.key: measure for measure in MEASURES}

_KL_DRAWS = 64
_KL_BATCH = 16
_FACES = ("identity", "nme", "face_found")


def measure_run(model: Model, faces: Faces, limit: int, transport: bool, measures: Measures) -> dict[str, Any]:
    """Returns everything of one training as JSON: `values` of pairs and structures, `numbers`, `classes`, `baselines`.

    Pairs, structures and samples are drawn with one seed, whatever the training's, so that all trainings are measured
    on the same ones.

    Raises:
        ValueError: nobody has two views of one sitting: there is no true image for a transfer.
    """
    report = evaluate(model, faces, limit, measures.seed, transport, measures=measures)
    pairs = report.pairs
    if "model" not in report.outputs:
        raise ValueError(
            f"{faces.records.name}, split {faces.split}: nobody has two views of one sitting, so that no transfer has "
            "a true image to be compared with; take records with groups of views"
        )
    values: dict[str, np.ndarray] = {}
    for name, method in (("transfer", "model"), ("reconstruction", "reconstruction")):
        drawn, scored = report.outputs[method], report.methods[method].values
        values |= {f"{name}_{metric}": scored[metric] for metric in ("psnr", "ssim", *_FACES) if metric in scored}
        values[f"{name}_sharpness"] = gradient_ratio(drawn, pairs.target)
        values[f"{name}_detail"] = detail_ratio(drawn, pairs.target)
    spreads, people = _sample_values(model, pairs, measures)
    return {
        "people": {"pairs": pairs.people, "structures": people},
        "classes": _classes(pairs),
        "values": {key: _plain(each) for key, each in (values | spreads).items()},
        "numbers": _numbers(model, report),
        "baselines": _baselines(report),
    }


def _sample_values(
    model: Model, pairs: Pairs, measures: Measures
) -> tuple[dict[str, Float[np.ndarray, " s"]], list[str]]:
    """Diversity and sharpness of samples, one value a structure, and whose structure it is."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, STRUCTURES).round().astype(int))
    # The draws of `evaluate` again, which keeps only their means; the meter remembers the faces found in them.
    drawn = sample(model, jax.random.key(measures.seed), pairs.target_landmarks[chosen], SAMPLES)
    flat = drawn.reshape(-1, *drawn.shape[2:])
    true = np.repeat(pairs.target[chosen], SAMPLES, axis=0)
    values = {
        "sample_spread": drawn.astype(np.float32).std(axis=1, ddof=1).mean(axis=(1, 2, 3)),
        "sample_sharpness": gradient_ratio(flat, true).reshape(len(chosen), SAMPLES).mean(axis=1),
    }
    if measures.faces is not None:
        vectors = measures.faces.measure(flat, "samples").descriptors.reshape(len(chosen), SAMPLES, -1)
        each = [feature_spread(rows[None]) for rows in vectors]
        values["sample_identity_spread"] = np.array([np.nan if spread is None else spread for spread in each])
    return values, [pairs.people[i] for i in chosen]


def _numbers(model: Model, report: Report) -> dict[str, float | None]:
    likelihood, samples, pairs = report.sections["likelihood"], report.sections["samples"], report.pairs
    condition = condition_of(model.architecture, model.params, model.frozen, jnp.asarray(pairs.target_landmarks))
    kl, nats = likelihood["kl"], likelihood["recon_nll"]
    if isinstance(condition.prior, GaussianMixture):
        kl = _mixture_kl(model, pairs, condition.prior)
    return {
        "sample_frechet": samples.get("frechet_dlib128"),
        "sample_kernel": samples.get("kernel_dlib128"),
        "recon_nll": nats,
        "kl": kl,
        "kl_trained": likelihood["kl"],
        "bits_per_dimension": bits_per_dimension(nats + kl, math.prod(pairs.target.shape[1:])),
        "effective_clusters": float(jax.jit(effective_clusters)(condition.cluster_weights).mean()),
        "prior_distance": _prior_distance(condition),
    }


_estimate_kl = jax.jit(mixture_kl_monte_carlo, static_argnames="num_samples")


def _mixture_kl(model: Model, pairs: Pairs, mixture: GaussianMixture) -> float:
    """The KL to the mixture itself: what a mixture trains on is only an upper bound of it, and would not be fair."""
    posterior = encode(model, pairs.target, pairs.target_landmarks)
    parts = []
    for start in range(0, len(pairs), _KL_BATCH):
        rows = slice(start, start + _KL_BATCH)
        each = mixture._replace(weights=mixture.weights[rows])
        own = jax.tree.map(lambda leaf: leaf[rows], posterior)  # noqa: B023
        parts.append(np.asarray(_estimate_kl(jax.random.key(start), own, each, num_samples=_KL_DRAWS)[0]))
    return float(np.concatenate(parts).mean())


def _prior_distance(condition: Condition) -> float:
    """Median distance between the priors' means of two faces, in standard deviations of the prior."""
    mean, stddev = (np.asarray(each, np.float64) for each in (condition.reference.mean, condition.reference.stddev))
    order = np.random.default_rng(0).permutation(len(mean))
    apart = np.linalg.norm(mean - mean[order], axis=1) / stddev.mean(axis=1)
    return float(np.median(apart))


def _classes(pairs: Pairs) -> dict[str, list[str | None]]:
    """The class of each pair in each breakdown that the tags allow."""
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
    """Means of what no training changes: copy and warp; of the true images how much pixels differ between them."""
    rows: dict[str, dict[str, float]] = {}
    for method in ("copy", "warp"):
        scored: Mapping[str, np.ndarray] = report.methods[method].values
        means = {f"transfer_{name}": scored[name] for name in ("psnr", "ssim", *_FACES) if name in scored}
        means["transfer_sharpness"] = gradient_ratio(report.outputs[method], report.pairs.target)
        means["transfer_detail"] = detail_ratio(report.outputs[method], report.pairs.target)
        rows[method] = {key: float(np.nanmean(each)) for key, each in means.items() if np.isfinite(each).any()}
    spread = report.pairs.target.astype(np.float32).std(axis=0, ddof=1).mean() if len(report.pairs) > 1 else np.nan
    rows["true images"] = {"sample_spread": float(spread)} if np.isfinite(spread) else {}
    return rows


def _plain(values: np.ndarray) -> list[float | None]:
    """For JSON, which has no NaN; seven digits are more than any of them is good for."""
    return [float(f"{value:.7g}") if np.isfinite(value) else None for value in values]
