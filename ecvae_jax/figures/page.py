"""A page of faces with captions, pixel for pixel: Matplotlib writes the words, the faces are not resampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.data.faces import load_faces
from ecvae_jax.figures.latent import draw_latent
from ecvae_jax.figures.transfers import draw_emotions, draw_poses
from ecvae_jax.files import write_atomically
from ecvae_jax.images import enlarge, tile

FACE = 128
"""Small faces are enlarged, by whole factors, to about so many pixels."""

_DPI = 100


_LEFT, _TOP, _LINE = 96, 58, 15  # px: room for captions of rows and columns, height of a line of the text below


def face_page(
    rows: Sequence[Sequence[UInt8[np.ndarray, "h w 3"] | None]],
    columns: Sequence[str],
    captions: Sequence[str],
    title: str,
    below: Sequence[str],
) -> Any:
    """Returns a Matplotlib figure: a title, a grid of faces with captions above its columns and beside its rows, text.

    Args:
        rows: faces of one size; None leaves a place empty.
        columns: captions above, one a column.
        captions: captions at the left, one a row.
        title: one line.
        below: lines of text under the grid.
    """
    from matplotlib.figure import Figure

    side = next(face for row in rows for face in row if face is not None).shape[0]
    picture = enlarge(tile(rows), max(1, FACE // side))
    height, width = picture.shape[:2]
    bottom = _LINE * len(below) + 14
    across, down = width + _LEFT + 8, height + _TOP + bottom
    figure = Figure(figsize=(across / _DPI, down / _DPI), dpi=_DPI)
    axes = figure.add_axes((_LEFT / across, bottom / down, width / across, height / down))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for number, words in enumerate(columns):
        x = _LEFT + (number + 0.5) * width / len(columns)
        figure.text(x / across, (down - _TOP + 5) / down, words, ha="center", va="bottom", fontsize=9)
    for number, words in enumerate(captions):
        y = bottom + height - (number + 0.5) * height / len(captions)
        figure.text((_LEFT - 8) / across, y / down, words, ha="right", va="center", fontsize=9)
    figure.text(0.5, 1 - 8 / down, title, ha="center", va="top", fontsize=12)
    for number, line in enumerate(below):
        figure.text(8 / across, (bottom - 10 - _LINE * number) / down, line, va="top", fontsize=8, color="0.25")
    return figure

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
    write_atomically(out, lambda file: figure.savefig(file, format="png"))
    return f"figure {which}: {out}"
