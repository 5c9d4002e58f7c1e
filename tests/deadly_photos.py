"""Photos that kill the process that reads them, as a crash in a decoder does. Each worker imports this small file."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ecvae_jax.data.photos import photo as photo_module
from ecvae_jax.data.prepare import pool as workers

START, OPEN = workers._start_worker, photo_module.Image.open


def deadly_open(file, *rest, **options):
    """Opens an image with Pillow; some names kill the process."""
    name = Path(file).name
    if name.startswith("PersonB"):
        os.kill(os.getpid(), signal.SIGSEGV if name.endswith("1.png") else signal.SIGKILL)
    if name.startswith("PersonD"):
        os._exit(3)
    return OPEN(file, *rest, **options)


def deadly_start(options, detect):
    """Starts a worker process that opens images with `deadly_open`."""
    photo_module.Image.open = deadly_open
    START(options, detect)


def stillborn(options, detect):
    """Kills the worker at its start."""
    os.kill(os.getpid(), signal.SIGKILL)
