"""The generator of the embedded heads: synthetic people with exact landmarks, from CC0 assets.

Run it from the repository root with `python -m tools.render_heads.bake` or `launch/render_heads.sh`. Data flow::

    assets (CC0 mesh and targets) -> mesh (the drawn part) -> identity (shape, colors) + hair + glasses
    expression + views (pose, framing, light) -> landmarks (98 points) -> render (OpenGL) -> bake (records on disk)

It is not part of the wheel: the package needs only the baked records. It needs the extra `render` (moderngl) and the
CC0 assets (see `assets.find_assets`).
"""
