"""Options of `ecvae page`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ecvae_jax.cli.options.kinds import OUT, OptionalPath


@dataclass(frozen=True)
class PageOptions:
    """Writes a page that moves faces in a browser, as a folder of static files for any web server.

    Photo, landmarks and model stay in the browser: after loading, the page makes no request. It needs the extra page.
    """

    out: Annotated[Path, tyro.conf.Positional, OUT]
    """Folder to write; `ecvae serve OUT` shows it."""
    checkpoint: OptionalPath = None
    """Working directory of a training, the folder of one step in it, or a bundled model. Default: face128, the model
    that a browser draws at once."""
    half: bool = True
    """Store the parameters as float16 instead of float32; the page computes in float32."""
    overwrite: bool = False
    """Replace OUT if it is an earlier page."""
