"""The generator of the rendered heads: synthetic people with exact landmarks, from CC0 assets.

A head goes one way through the files of this folder::

    assets (CC0 mesh and targets) -> mesh (the part that is drawn) -> identity (shape, colors) + hair + glasses
    expression + views (pose, framing, light) -> landmarks (98 points) -> render (OpenGL) -> bake (records on disk)

Nothing in the package imports this folder: the baked records are enough to train. It needs the extra `render`
(moderngl) and the CC0 assets; see `assets.find_assets`.
"""
