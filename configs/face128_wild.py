"""face128 trained further, with heads under wild light among its faces; then on its own faces again.

    bash launch/render_heads.sh records/heads-wild --people 0-199,240-439 --wild --quality 85
    ecvae train configs/shipped.py --workdir runs/shipped
    ecvae train configs/face128.py --workdir runs/lpips --train.init-from runs/shipped
    ecvae train configs/face128_wild.py --workdir runs/wild --train.init-from runs/lpips
    ecvae train configs/face128_wild.py --workdir runs/wild2 --train.init-from runs/wild --train.steps 4000
        --objective.beta 0.1 --objective.perceptual-weight 1
    ecvae train configs/face128.py --workdir runs/wild3 --train.init-from runs/wild2 --train.steps 2000
        --objective.beta 0.2 --objective.perceptual-weight 1 --prior.fit-decay 0.997 --optim.learning-rate 5e-4
        --optim.ema-decay 0.998
    ecvae export runs/wild3 ecvae_jax/pretrained/face128 --density 64

The bundled face128 is the result of all of them, each command on one line. The last takes the prior back to the light
of the photographs: after wild heads its samples have colors that no face has.

Hardware: 2 CPU cores, 45 to 57 images/s where quiet; 15, 10 and 5 minutes. Needs the extras lpips and render. Scores:
docs/measurements/bundled_model.md.
"""

import dataclasses
from pathlib import Path

from ecvae_jax.config import OptimConfig, load_config

first = load_config(Path(__file__).with_name("face128.py"))
config = dataclasses.replace(
    first,
    data=dataclasses.replace(
        first.data,
        # 43% of the faces are wild heads. The London photographs and their morphs keep their share.
        records="+".join([
            "rendered", "records/heads-wild", "records/views", "records/views-exact", "records/views-morphs",
            "records/views-exact-morphs", *["records/london"] * 6, *["records/london-morphs"] * 4,
        ]),
        color_jitter=0.4,
    ),
    optim=OptimConfig(learning_rate=1e-3, warmup_steps=100, ema_decay=0.998),
    train=dataclasses.replace(first.train, steps=6000, images_every=3000, checkpoint_every=500),
)  # fmt: skip
