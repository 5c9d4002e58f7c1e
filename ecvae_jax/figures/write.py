"""Figures written as PNG, by number or name: the command `ecvae figure`. Apart from the figures, as it imports all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.data.faces import load_faces
from ecvae_jax.figures.architecture import draw_architecture
from ecvae_jax.figures.latent import draw_latent
from ecvae_jax.figures.transfers import draw_emotions, draw_poses
from ecvae_jax.files import check_output, write_atomically

_DRAW = {"2": draw_latent, "3a": draw_emotions, "3b": draw_poses}


def write_figure(
    which: Literal["2", "3a", "3b", "model"],
    checkpoint: Path | None,
    out: Path,
    records: str = "rendered",
    split: str = "test",
) -> str:
    """Writes the figure as a PNG, atomically; returns a line for the user.

    Args:
        which: "2" latent space, "3a" emotion transfer, "3b" pose generation, "model" the network.
        records: folder of records with the tags yaw and expression, or "rendered".

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the records or the model lack what the figure needs.
        UnsafePathError: `out` exists and is no regular file.
        OSError: the file cannot be written.
    """
    check_output(out)
    model = load_model(checkpoint)
    if which == "model":
        figure = draw_architecture(model.config, f"The network of {checkpoint or 'the bundled model'}.")
    else:
        faces = load_faces(records, split)
        source = faces.metadata.get("source", records)
        note = f"{model.config.prior.kind} prior, step {model.step}; {source}, {split} split."
        figure = _DRAW[which](model, faces, note)
    write_atomically(out, lambda file: figure.savefig(file, format="png"))
    return f"figure {which}: {out}"
