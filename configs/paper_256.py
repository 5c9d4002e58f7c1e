"""The paper's setting: 256×256, self-reconstruction only, K = 80 clusters. The latent size of 150 becomes 256.

    ecvae prepare multipie:DIR records/multipie          # or a folder of photos
    ecvae train configs/paper_256.py --workdir runs/paper --data.records records/multipie --data.points 68

Hardware: one or more GPUs or a TPU slice. The batch is global and is split over the devices. The paper states neither
the length of training nor a score. We have not run this experiment to its end.
"""

from ecvae_jax.config import ClusterConfig, Config, DataConfig, ModelConfig, ObjectiveConfig, OptimConfig, TrainConfig

config = Config(
    data=DataConfig(pairs=0.0, points=98),
    clusters=ClusterConfig(count=80),
    model=ModelConfig(
        image_size=256, patch=2, widths=(32, 64, 128, 128, 256, 256), blocks=2, z_dim=256, z_grid=8, dtype="bfloat16"
    ),
    objective=ObjectiveConfig(ssim_weight=0.0, beta=1.0),
    optim=OptimConfig(learning_rate=1e-3, schedule="linear", warmup_steps=1000, ema_decay=0.9998),
    train=TrainConfig(steps=200_000, batch_size=64, log_every=100, images_every=2000, checkpoint_every=2000),
)
