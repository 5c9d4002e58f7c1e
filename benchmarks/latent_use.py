"""How the trainings of `ecvae compare` use their latent space: why samples of one prior are more alike than another's.

    python benchmarks/latent_use.py runs/comparison [--faces 120]

For each variant, over its seeds, on faces of the test split. In units of the prior, u = (z − m(c)) / σ(c), the KL sees
N(0, I) whatever the prior. `var E[u]` is the variance of the posteriors' means over faces, the mean of all dimensions;
`E[var u]` is the posteriors' own variance. Both together are the variance of the aggregate posterior: above 1, the
faces lie farther out than draws from the prior, which then fall between them and are more alike. `code` is the
variance over faces of what the prior's mean adds to the decoder's input, m(c) / s, and `scale` that of σ(c) / s (5th
and 95th percentile). The last columns are read from scores.json.

The second table tells what the decoder makes of draws that are narrower or wider than the prior, u ~ N(0, t²): their
spread under one structure, in levels of 255, beside the spread of what the posteriors of all faces give there.
`largest` is the variance of the posteriors' means along the direction in which they vary most (the prior has 1 in
each), `first ten` the share of their whole variance that lies in ten of the directions. `length` tells how much a
picture changes when its face's u is made half as long again: root mean square, as a share of the faces' spread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.data.faces import load_faces
from ecvae_jax.evaluation.distribution import pixel_spread
from ecvae_jax.model.conditioning import make_condition
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.batches import decode, encode

COLUMNS = ("variant", "seeds", "var E[u]", "E[var u]", "code", "scale, 5 to 95%", "KL, nats", "spread of samples",
           "reconstruction SSIM")  # fmt: skip
WIDTHS = (0.5, 1.0, 2.0, 3.0)
SPREADS = ("variant", "largest", "first ten, %", *(f"t = {t:g}" for t in WIDTHS), "posteriors", "length, %")
STRUCTURES, DRAWS = 12, 8


class Posteriors(NamedTuple):
    """Of n faces, n d each: their priors, and their posteriors in units of these."""

    mean: np.ndarray
    stddev: np.ndarray
    unit_mean: np.ndarray
    unit_stddev: np.ndarray


def posteriors_of(model: Model, images: np.ndarray, landmarks: np.ndarray) -> Posteriors:
    """Returns what the model makes of the faces."""
    condition = jax.jit(make_condition, static_argnums=0)(model.config, model.frozen, landmarks)
    posterior = encode(model, images, landmarks)
    mean, stddev = (np.asarray(each, np.float64) for each in (condition.reference.mean, condition.reference.stddev))
    unit_mean, unit_stddev = (np.asarray(posterior.mean) - mean) / stddev, np.asarray(posterior.stddev) / stddev
    return Posteriors(mean, stddev, unit_mean, unit_stddev)


def use(faces: Posteriors, z_scale: float) -> list[float]:
    """Returns var E[u], E[var u], code, two percentiles of the scale, and the KL in nats."""
    mean, stddev, unit_mean, unit_stddev = faces
    low, high = np.percentile(stddev.mean(axis=1) / z_scale, [5, 95])
    kl = 0.5 * (unit_mean**2 + unit_stddev**2 - 1 - 2 * np.log(unit_stddev)).sum(axis=1).mean()
    return [unit_mean.var(axis=0).mean(), (unit_stddev**2).mean(), (mean / z_scale).var(axis=0).mean(), low, high, kl]


def spreads(model: Model, faces: Posteriors, landmarks: np.ndarray) -> list[float]:
    """Returns the second table's columns; the faces' landmarks are the structures that are drawn."""
    mean, stddev, u, _ = faces
    variances = np.linalg.eigvalsh(np.cov(u.T))[::-1]
    structures = np.linspace(0, len(u) - 1, STRUCTURES).round().astype(int)
    rng = np.random.default_rng(0)

    def spread(draws: np.ndarray) -> float:
        z = mean[structures, None] + stddev[structures, None] * draws
        repeated = np.repeat(landmarks[structures], DRAWS, axis=0)
        drawn = decode(model, z.reshape(-1, z.shape[-1]).astype(np.float32), repeated)
        return pixel_spread(drawn.reshape(STRUCTURES, DRAWS, *drawn.shape[1:]))

    noise = rng.standard_normal((STRUCTURES, DRAWS, u.shape[1]))
    posteriors = spread(u[rng.integers(0, len(u), (STRUCTURES, DRAWS))])
    own, longer = (decode(model, (mean + stddev * factor * u).astype(np.float32), landmarks).astype(np.float64)
                   for factor in (1.0, 1.5))  # fmt: skip
    change = np.sqrt(((longer - own) ** 2).mean())
    first_ten = variances[:10].sum() / variances.sum()
    return [variances[0], 100 * first_ten, *(spread(t * noise) for t in WIDTHS), posteriors, 100 * change / posteriors]


def main() -> None:
    """Prints both tables in Markdown, the widest code last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("workdir", type=Path, help="that of `ecvae compare`")
    parser.add_argument("--faces", type=int, default=120)
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    spread: dict[str, list[list[float]]] = {}
    for folder in sorted((options.workdir / "runs").iterdir()):
        if not (folder / "scores.json").is_file() or not (folder / "checkpoints").is_dir():
            continue  # unfinished, or a variant that borrows another's training
        model = load_model(folder)
        faces = load_faces(model.config.data.records, "test")
        chosen = np.linspace(0, len(faces) - 1, options.faces).round().astype(int).tolist()
        images = faces.images(chosen, model.config.model.image_size)
        landmarks = faces.landmarks_as(model.config.data.points)[chosen]
        values = json.loads((folder / "scores.json").read_text())["values"]
        scores = [float(np.mean(values[name])) for name in ("sample_spread", "reconstruction_ssim")]
        variant = folder.name.rpartition("-seed")[0]
        posteriors = posteriors_of(model, images, landmarks)
        found.setdefault(variant, []).append(use(posteriors, float(model.frozen.z_scale)) + scores)
        spread.setdefault(variant, []).append(spreads(model, posteriors, landmarks))
    ordered = sorted(found, key=lambda variant: np.mean(found[variant], axis=0)[2])
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for variant in ordered:
        mean, own, code, low, high, kl, samples, ssim = np.mean(found[variant], axis=0)
        print(f"| {variant} | {len(found[variant])} | {mean:.2f} | {own:.2f} | {code:.2f} | {low:.2f} to {high:.2f} | "
              f"{kl:.0f} | {samples:.1f} | {ssim:.3f} |", flush=True)  # fmt: skip
    print("\n| " + " | ".join(SPREADS) + " |\n" + "|---" * len(SPREADS) + "|")
    for variant in ordered:
        print(f"| {variant} | " + " | ".join(f"{value:.1f}" for value in np.mean(spread[variant], axis=0)) + " |")


if __name__ == "__main__":
    main()
