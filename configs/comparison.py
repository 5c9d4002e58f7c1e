"""The three priors side by side, on the rendered heads at 64 px: a small budget that many trainings fit into.

    ecvae compare configs/comparison.py --workdir runs/comparison

12,000 images a training, a fourth of what configs/demo.py sees: where that takes five minutes, a training here takes
between one and two. Scoring takes seconds with --metrics pixels; with all, dlib looks at 1,200 pictures of each
training, 0.1 s of one core each (measured).
17 trainings a seed, three seeds; --variants standard,mixture compares the three priors alone.
"""

from ecvae_jax.config import Config, OptimConfig, TrainConfig

config = Config(
    optim=OptimConfig(learning_rate=3e-3, warmup_steps=100, ema_decay=0.998),
    train=TrainConfig(
        steps=1500, batch_size=8, log_every=500, images_every=1500, checkpoint_every=500, keep_checkpoints=1
    ),
)
