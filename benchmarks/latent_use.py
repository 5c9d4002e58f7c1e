"""How the trainings of `ecvae compare` use their latent space: why samples of one prior are more alike than another's.

    python benchmarks/latent_use.py runs/comparison [--faces 120]

For each variant, over its seeds, on faces of the test split. In units of the prior, u = (z − m(c)) / σ(c), the KL sees
N(0, I) whatever the prior. `var E[u]` is the variance of the posteriors' means over faces, the mean of all dimensions;
`E[var u]` is the posteriors' own variance. Both together are the variance of the aggregate posterior: above 1, the
training faces lie farther out than draws from the prior, which then fall between them and are more alike. `code` is the
variance over faces of what the prior's mean adds to the decoder's input, m(c) / s, and `scale` that of σ(c) / s (5th
and 95th percentile). The last columns are read from scores.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from ecvae_jax.data.faces import load_faces
from ecvae_jax.model.conditioning import make_condition
from ecvae_jax.synthesis import infer_posterior
from ecvae_jax.training.checkpoint import Model, load_model

COLUMNS = ("variant", "seeds", "var E[u]", "E[var u]", "code", "scale, 5 to 95%", "KL, nats", "spread of samples",
           "reconstruction SSIM")  # fmt: skip


def use(model: Model, images: np.ndarray, landmarks: np.ndarray) -> list[float]:
    """Returns var E[u], E[var u], code, two percentiles of the scale, and the KL in nats."""
    condition = jax.jit(make_condition, static_argnums=0)(model.config, model.frozen, landmarks)
    posterior = infer_posterior(model, images, landmarks)
    mean, stddev = (np.asarray(each, np.float64) for each in (condition.reference.mean, condition.reference.stddev))
    unit_mean = (np.asarray(posterior.mean) - mean) / stddev
    unit_stddev = np.asarray(posterior.stddev) / stddev
    z_scale = float(model.frozen.z_scale)
    low, high = np.percentile(stddev.mean(axis=1) / z_scale, [5, 95])
    kl = 0.5 * (unit_mean**2 + unit_stddev**2 - 1 - 2 * np.log(unit_stddev)).sum(axis=1).mean()
    return [unit_mean.var(axis=0).mean(), (unit_stddev**2).mean(), (mean / z_scale).var(axis=0).mean(), low, high, kl]


def main() -> None:
    """Prints the table in Markdown, the widest code last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("workdir", type=Path, help="that of `ecvae compare`")
    parser.add_argument("--faces", type=int, default=120)
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
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
        found.setdefault(variant, []).append(use(model, images, landmarks) + scores)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for variant, rows in sorted(found.items(), key=lambda item: np.mean(item[1], axis=0)[2]):
        mean, own, code, low, high, kl, spread, ssim = np.mean(rows, axis=0)
        print(f"| {variant} | {len(rows)} | {mean:.2f} | {own:.2f} | {code:.2f} | {low:.2f} to {high:.2f} | {kl:.0f} | "
              f"{spread:.1f} | {ssim:.3f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
