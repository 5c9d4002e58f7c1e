"""Renders the page's example photos: people of the test split of `tools/render_heads`, with room around the head.

python -m tools.page.render_examples [--sheet FILE.png]      (needs what launch/render_heads.sh needs)
"""

from __future__ import annotations

import argparse
import io
from itertools import islice
from pathlib import Path

from PIL import Image

from tools.render_heads import person
from tools.render_heads.assets import find_assets

OUT = Path(__file__).parents[2] / "ecvae_jax" / "page" / "static" / "examples"
SIDE, MARGIN, QUALITY = 480, 2.3, 88
VIEWS = {"face1": (229, 0), "face2": (237, 0), "face3": (238, 0), "face4": (222, 0), "face5": (231, 0),
         "face6": (239, 0), "laugh": (224, 13), "smile": (228, 1), "surprise": (235, 1), "kiss": (232, 1)}  # fmt: skip
"""Each example's person and view: view 0 is neutral and nearly frontal, the others have an expression."""


def main() -> None:
    """Writes NAME.jpg of each example; with --sheet, a contact sheet of all people of the split instead."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet", type=Path)
    sheet = parser.parse_args().sheet
    person.MARGIN = MARGIN
    studio = person.Studio(find_assets(), SIDE, 0)
    if sheet:
        faces = [Image.fromarray(next(studio.pictures(number)).image).resize((200, 200)) for number in range(220, 240)]
        canvas = Image.new("RGB", (1000, 800))
        for index, face in enumerate(faces):
            canvas.paste(face, (200 * (index % 5), 200 * (index // 5)))
        canvas.save(sheet)
        return
    OUT.mkdir(exist_ok=True)
    for name, (number, view) in VIEWS.items():
        picture = next(islice(studio.pictures(number), view, None))
        data = io.BytesIO()
        Image.fromarray(picture.image).save(data, "JPEG", quality=QUALITY)
        (OUT / f"{name}.jpg").write_bytes(data.getvalue())
        print(f"{name}.jpg: {len(data.getvalue()):,} bytes")


if __name__ == "__main__":
    main()
