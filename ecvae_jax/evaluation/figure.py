"""Pictures of an evaluation: a grid of pairs with what each method made of them, and every output as a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from ecvae_jax.evaluation.report import Report
from ecvae_jax.evaluation.tables import LABELS
from ecvae_jax.pictures import enlarge, save_picture, tile

_COLUMNS = 10
_FACE = 128  # px that small faces are enlarged to
_CAPTION = 150  # px for the names of the rows
_WORDS = {"psnr": "{:.2f} dB", "ssim": "SSIM {:.3f}", "identity": "identity {:.3f}", "nme": "structure {:.2%}"}


def draw_figure(report: Report) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a grid of at most ten pairs, evenly spaced: source, true target, then a row for each method.

    The copy has no row: it is the source. At the left stand the methods' means over all pairs.
    """
    chosen = np.unique(np.linspace(0, len(report.pairs) - 1, _COLUMNS).round().astype(int))
    names = [name for name in ("model", "plain", "warp", "reconstruction") if name in report.outputs]
    rows = [report.pairs.source[chosen], report.pairs.target[chosen], *(report.outputs[n][chosen] for n in names)]
    captions = [["source", *_caption(report, "copy")], ["target (true)"]]
    captions += [[LABELS.get(name, name), *_caption(report, name)] for name in names]
    picture = enlarge(tile([list(row) for row in rows]), max(1, _FACE // rows[0].shape[1]))
    canvas = Image.new("RGB", (picture.shape[1] + _CAPTION, picture.shape[0]), "white")
    canvas.paste(Image.fromarray(picture), (_CAPTION, 0))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for row, caption in enumerate(captions):
        pen.multiline_text((8, 8 + row * picture.shape[0] // len(rows)), "\n".join(caption), "black", font)
    return np.asarray(canvas)


def save_images(report: Report, folder: Path) -> int:
    """Writes every image as FOLDER/METHOD/NAME.png, with those of `source` and `target`; returns how many.

    Raises:
        OSError: the folder cannot be made or written.
    """
    sets = {"source": report.pairs.source, "target": report.pairs.target, **report.outputs}
    for method, images in sets.items():
        for name, image in zip(report.pairs.names, images, strict=True):
            save_picture(image, folder / method / f"{name}.png")
    return sum(map(len, sets.values()))


def _caption(report: Report, method: str) -> list[str]:
    scores = report.scores.get(method, {})
    words = [text.format(each.mean) for name, text in _WORDS.items() if (each := scores.get(name))]
    return ["(copied:)", *words] if method == "copy" and words else words
