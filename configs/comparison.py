"""The three priors trained alike, on the rendered heads at 64 px, with a small budget for many trainings.

    ecvae compare configs/comparison.py --workdir runs/comparison

A training reads 12,000 images, a quarter of those of configs/demo.py, and takes one to two minutes where that one takes
five. Scoring takes seconds with --metrics pixels. With all, dlib also measures 1,200 images of each training, at 0.1 s
of one core each. A seed has 20 trainings, and the default is three seeds. --variants standard,mixture compares only the
three priors; --variants covariance,covariance-clusters,covariance-shared the fitted ones with Eq. (4).
"""

from ecvae_jax.config import Config, OptimConfig, TrainConfig

config = Config(
    optim=OptimConfig(learning_rate=3e-3, warmup_steps=100, ema_decay=0.998),
    train=TrainConfig(
        steps=1500, batch_size=8, log_every=500, images_every=1500, checkpoint_every=500, keep_checkpoints=1
    ),
)
