"""face128 trained further from its own weights: LPIPS in the objective, and a prior from which faces can be drawn.

    ecvae train configs/face128.py --workdir runs/lpips --train.init-from runs/shipped

The records are those of configs/shipped.py, which names the commands that prepare them, and trains 18,000 steps before
these. configs/face128_wild.py trains further, and lists all commands. Needs the extra lpips.

Hardware: 2 quiet CPU cores, 26 images/s, 5.5 minutes. Scores: docs/measurements/bundled_model.md.
"""

import dataclasses
from pathlib import Path

from ecvae_jax.config import OptimConfig, PriorConfig, TrainConfig, load_config

first = load_config(Path(__file__).with_name("shipped.py"))
config = dataclasses.replace(
    first,
    # Independent noise: the widths are those that face128 knows, so the first step starts with its own pictures.
    prior=PriorConfig(kind="covariance", noise="independent", fit_every=20),
    objective=dataclasses.replace(
        first.objective, perceptual_weight=0.5, perceptual_resolution=64, perceptual_every=4, beta=0.5, beta_ramp=0.0
    ),
    optim=OptimConfig(learning_rate=3e-4, warmup_steps=50, ema_decay=0.995),
    train=TrainConfig(
        steps=1000, batch_size=8, log_every=100, images_every=1000, checkpoint_every=250, init_from="face128"
    ),
)
