"""The bundled model (`ecvae_jax/pretrained`): 128 px, 68 points, z in the face frame.

Training faces:

- the embedded rendered heads;
- the Face Research Lab London Set (DeBruine & Jones 2017, CC BY 4.0, doi 10.6084/m9.figshare.5047666), a neutral and a
  smiling photo of each person;
- a MultiPIE-like tree rendered from its neutral photos (five cameras, three expressions, three lights), once with
  dlib's landmarks and once with its own;
- morphs of two of these people.

All folders hold out the same people of the London Set, since `assign_splits` hashes names. Test: 018 032 094 096 119
120 121 125 127. Validation: 031 067 104.

    ecvae prepare LONDON records/london --size 128 --validation 0.05 --test 0.15
    ecvae prepare multipie:TREE records/views --size 128 --validation 0.05 --test 0.15 --landmarks none
    ecvae prepare multipie:TREE records/views-exact --size 128 --validation 0.05 --test 0.15
    ecvae morph records/london records/london-morphs --people 300
    ecvae morph records/views records/views-morphs --people 60
    ecvae morph records/views-exact records/views-exact-morphs --people 40
    ecvae train configs/shipped.py --workdir runs/shipped
    ecvae export runs/shipped ecvae_jax/pretrained --density 64

Hardware: 2 CPU cores, busy with other work; 30 to 36 images/s, 80 minutes. Scores: docs/measurements/bundled_model.md.
"""

from ecvae_jax.config import Config, DataConfig, ModelConfig, ObjectiveConfig, OptimConfig, TrainConfig

config = Config(
    data=DataConfig(
        # The London Set has the only photographed expressions: its faces are repeated three times, its morphs twice.
        records="+".join([
            "rendered", "records/views", "records/views-exact", "records/views-morphs", "records/views-exact-morphs",
            *["records/london"] * 3, *["records/london-morphs"] * 2,
        ]),
        points=68,
        pairs=0.75,
        color_jitter=0.25,
    ),
    model=ModelConfig(image_size=128, patch=4, widths=(24, 48, 96, 128), frame="face", z_dim=2048, z_grid=16),
    objective=ObjectiveConfig(ssim_weight=0.5, beta_ramp=0.2),
    optim=OptimConfig(learning_rate=3e-3, warmup_steps=200, ema_decay=0.999),
    train=TrainConfig(steps=18_000, batch_size=8, log_every=100, images_every=2000, checkpoint_every=1000),
)  # fmt: skip
