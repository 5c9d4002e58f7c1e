"""The prior of the bundled 256 px model, fitted to its training faces; its weights stay as they are.

    bash launch/render_heads.sh records256/heads --people 0-69,200-204,220-239 --size 256 --quality 88
    ecvae prepare LONDON records256/london --size 256 --validation 0.05 --test 0.15
    ecvae morph records256/london records256/london-morphs --people 150
    ecvae prepare multipie:TREE records256/views --size 256 --validation 0.05 --test 0.15
    ecvae train configs/face256.py --workdir runs/face256
    ecvae export runs/face256 ecvae_jax/pretrained/face256 --density 64

LONDON and TREE are those of configs/shipped.py. One step at a rate of nearly 0: the covariances are fitted to the
posteriors of 2,048 faces before it. To train further, give --train.steps 400 --optim.learning-rate 5e-4
--optim.warmup-steps 20 --objective.perceptual-weight 0.5 --objective.perceptual-resolution 128
--objective.perceptual-every 4.

Hardware: 2 CPU cores, 50 seconds. These 400 steps take 12 minutes there, and gain nothing: 0.3 dB less for the
model alone. Scores: docs/measurements/bundled_model.md.
"""

from ecvae_jax.config import Config, DataConfig, ModelConfig, ObjectiveConfig, OptimConfig, PriorConfig, TrainConfig

config = Config(
    data=DataConfig(
        records="+".join([
            "records256/heads", "records256/views", *["records256/london"] * 4, *["records256/london-morphs"] * 3,
        ]),
        points=68,
        pairs=0.75,
        color_jitter=0.25,
    ),
    model=ModelConfig(
        image_size=256, patch=4, widths=(48, 96, 160, 224), blocks=2, frame="face", z_dim=4096, z_grid=16
    ),
    prior=PriorConfig(kind="covariance", noise="independent", fit_every=20),
    objective=ObjectiveConfig(ssim_weight=0.5, beta_ramp=0.0),
    optim=OptimConfig(learning_rate=1e-12, warmup_steps=0, ema_decay=0.99),
    train=TrainConfig(steps=1, batch_size=8, init_from="face256"),
)  # fmt: skip
