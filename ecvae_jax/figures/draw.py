"""`ecvae figure`: one figure of the paper from one checkpoint, as a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ecvae_jax.data.faces import load_faces
from ecvae_jax.figures.latent import draw_latent
from ecvae_jax.figures.transfers import draw_emotions, draw_poses
from ecvae_jax.pictures import write_aside
from ecvae_jax.training.checkpoint import load_model

FigureName = Literal["2", "3a", "3b"]
_DRAW = {"2": draw_latent, "3a": draw_emotions, "3b": draw_poses}


def write_figure(
    which: FigureName, checkpoint: Path | None, out: Path, records: str = "rendered", split: str = "test"
) -> str:
    """Returns a line for the user, having written the figure as a PNG, aside and then renamed.

    Args:
        which: "2" latent space, "3a" emotion transfer, "3b" pose generation.
        checkpoint: working directory of a training.
        out: file to be written.
        records: folder of records with the tags yaw and expression, or "rendered".
        split: of the records; its people should not have been trained on.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the records, or the model, do not allow the figure.
        OSError: the file cannot be written.
    """
    model = load_model(checkpoint)
    faces = load_faces(records, split)
    source = faces.metadata.get("source", records)
    told = f"{model.config.prior.kind} prior, step {model.step}; {source}, {split} split."
    figure = _DRAW[which](model, faces, told)
    write_aside(out, lambda file: figure.savefig(file, format="png"))
    return f"figure {which}: {out}"
