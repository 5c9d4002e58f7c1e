"""The ten-minute run of launch/demo.sh: rendered heads at 64 px, from scratch, on 2 CPU cores.

    ecvae train configs/demo.py --workdir demo/run
"""

from ecvae_jax.config import Config, TrainConfig

config = Config(
    train=TrainConfig(steps=3000, batch_size=16, log_every=100, images_every=1000, checkpoint_every=1000),
)
