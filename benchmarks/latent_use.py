"""Latent-space statistics of the trainings of `ecvae compare`: why samples of some priors are less diverse.

    python benchmarks/latent_use.py runs/comparison [--faces 120]

Each row is a variant, averaged over its seeds, on faces of the test split. In units of the prior,
u = (z − m(c)) / σ(c), the KL compares the posterior with N(0, I) for every prior:

- `var E[u]`: variance of the posteriors' means over faces, mean over dimensions.
- `E[var u]`: mean variance of the posteriors. The sum of both is the variance of the aggregate posterior. Above 1,
  faces are spread wider than samples from the prior, which are therefore less diverse.
- `code`: variance over faces of m(c) / s, the part of the decoder's input that comes from the prior's mean.
- `scale`: 5th and 95th percentile of σ(c) / s.
- The last columns are read from scores.json.

The second table shows images of narrower or wider draws, u ~ N(0, t²):

- `t = …`: their spread under one structure in levels of 255, and `posteriors`: that of the faces' own posteriors there.
- `largest`: largest variance of the posteriors' means along a direction (the prior has 1 in each).
- `first ten`: share of their variance in the ten largest directions.
- `length`: root mean square change of an image when its u grows by half, as a share of the faces' spread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.comparison.measures import condition_of
from ecvae_jax.data.faces import load_faces
from ecvae_jax.evaluation.distribution import pixel_spread
from ecvae_jax.evaluation.pairs import evenly_spaced
from ecvae_jax.evaluation.report import markdown_table
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.batches import decode, encode

COLUMNS = (
    "variant",
    "seeds",
    "var E[u]",
    "E[var u]",
    "code",
    "scale, 5 to 95%",
    "KL, nats",
    "spread of samples",
    "reconstruction SSIM",
)
WIDTHS = (0.5, 1.0, 2.0, 3.0)
SPREADS = ("variant", "largest", "first ten, %", *(f"t = {t:g}" for t in WIDTHS), "posteriors", "length, %")
STRUCTURES, DRAWS = 12, 8


class Posteriors(NamedTuple):
    """Priors of n faces, n d, and their posteriors in units of these."""

    mean: np.ndarray
    stddev: np.ndarray
    unit_mean: np.ndarray
    unit_stddev: np.ndarray


def posteriors_of(model: Model, images: np.ndarray, landmarks: np.ndarray) -> Posteriors:
    """Returns the faces' priors and posteriors."""
    condition = condition_of(model, landmarks)
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
    """Returns the second table's columns, under structures of these faces."""
    mean, stddev, u, _ = faces
    variances = np.linalg.eigvalsh(np.cov(u.T))[::-1]
    structures = evenly_spaced(len(u), STRUCTURES)
    rng = np.random.default_rng(0)

    def spread(draws: np.ndarray) -> float:
        z = mean[structures, None] + stddev[structures, None] * draws
        repeated = np.repeat(landmarks[structures], DRAWS, axis=0)
        drawn = decode(model, z.reshape(-1, z.shape[-1]).astype(np.float32), repeated)
        return pixel_spread(drawn.reshape(len(structures), DRAWS, *drawn.shape[1:]))

    noise = rng.standard_normal((len(structures), DRAWS, u.shape[1]))
    posteriors = spread(u[rng.integers(0, len(u), (len(structures), DRAWS))])
    drawn, longer = (
        decode(model, (mean + stddev * factor * u).astype(np.float32), landmarks).astype(np.float64)
        for factor in (1.0, 1.5)
    )
    change = np.sqrt(((longer - drawn) ** 2).mean())
    first_ten = variances[:10].sum() / variances.sum()
    return [variances[0], 100 * first_ten, *(spread(t * noise) for t in WIDTHS), posteriors, 100 * change / posteriors]


def main() -> None:
    """Prints both tables in Markdown, sorted by `code`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("workdir", type=Path, help="working directory of `ecvae compare`")
    parser.add_argument("--faces", type=int, default=120)
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    spread: dict[str, list[list[float]]] = {}
    for folder in sorted((options.workdir / "runs").iterdir()):
        if not (folder / "scores.json").is_file() or not (folder / "checkpoints").is_dir():
            continue  # unfinished, or a variant scored from another one's training
        model = load_model(folder)
        faces = load_faces(model.config.data.records, "test")
        chosen = evenly_spaced(len(faces), options.faces).tolist()
        images = faces.images(chosen, model.config.model.image_size)
        landmarks = faces.landmarks_as(model.config.data.points)[chosen]
        values = json.loads((folder / "scores.json").read_text())["values"]
        scores = [float(np.mean(values[name])) for name in ("sample_spread", "reconstruction_ssim")]
        variant = folder.name.rpartition("-seed")[0]
        posteriors = posteriors_of(model, images, landmarks)
        found.setdefault(variant, []).append(use(posteriors, float(model.frozen.z_scale)) + scores)
        spread.setdefault(variant, []).append(spreads(model, posteriors, landmarks))
    ordered = sorted(found, key=lambda variant: np.mean(found[variant], axis=0)[2])
    rows, spread_rows = [], []
    for variant in ordered:
        mean, within, code, low, high, kl, samples, ssim = np.mean(found[variant], axis=0)
        row = [f"{mean:.2f}", f"{within:.2f}", f"{code:.2f}", f"{low:.2f} to {high:.2f}", f"{kl:.0f}"]
        rows.append([variant, str(len(found[variant])), *row, f"{samples:.1f}", f"{ssim:.3f}"])
        spread_rows.append([variant, *(f"{value:.1f}" for value in np.mean(spread[variant], axis=0))])
    print(f"{markdown_table(COLUMNS, rows)}\n\n{markdown_table(SPREADS, spread_rows)}")


if __name__ == "__main__":
    main()
