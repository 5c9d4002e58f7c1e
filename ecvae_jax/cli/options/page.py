"""Options of `ecvae page` and `ecvae serve`."""

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


@dataclass(frozen=True)
class ServeOptions:
    """Shows the page of a model on this machine; with --compute the server computes, not the browser.

    docs/serve.md describes the interface for programs, and what the server refuses.
    """

    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[FOLDER]", help_behavior_hint="")] = (
        None
    )
    """A page that `ecvae page` wrote. Default: the page of the model, built now and removed at the end."""
    checkpoint: OptionalPath = None
    """Working directory of a training, the folder of one step in it, or a bundled model.
    Default: face128; with --compute, on a GPU or TPU, face256."""
    host: str = "127.0.0.1"
    """Address to listen on. Others than 127.0.0.1 admit other machines, without a password."""
    port: int = 8000
    """Port to listen on; 0 takes any free one. The address is printed on standard output."""
    compute: bool = False
    """Compute with JAX in the server: for larger models, and for programs (POST /api/transfer, ...)."""

    def __post_init__(self) -> None:
        """Checks the options before anything is loaded."""
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port={self.port}: must be between 0 and 65535")
        if self.folder is not None and self.checkpoint is not None and not self.compute:
            raise ValueError(
                f"checkpoint={str(self.checkpoint)!r}: FOLDER has its own model; add --compute, or omit it"
            )
