"""Photographs with dlib's 68 points at 64 px, on one machine without an accelerator.

    ecvae prepare PHOTOS records/photos --size 64
    ecvae train configs/photos_64.py --workdir runs/photos --data.records records/photos

Scores: docs/measurements/photos.md.
"""

from ecvae_jax.config import Config, DataConfig, TrainConfig

config = Config(
    data=DataConfig(points=68, pairs=0.5),
    train=TrainConfig(steps=12_000, batch_size=8, log_every=200, images_every=2000, checkpoint_every=1000),
)
