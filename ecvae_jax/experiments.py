"""Experiment files: Python files like those in configs/, each with a `config` of type `Config`."""

from __future__ import annotations

import runpy
from pathlib import Path

from ecvae_jax.config import Config


def load_config(path: Path) -> Config:
    """Returns the `config` of an experiment file, or of a JSON file that `Config.to_json` wrote.

    Raises:
        ValueError: no such file, it cannot be run, or it defines no `config`.
    """
    if not path.is_file():
        raise ValueError(f"config {str(path)!r}: no such file; see configs/, or leave it out for the default")
    if path.suffix == ".json":
        return Config.from_json(path.read_text())
    try:
        config = runpy.run_path(str(path)).get("config")
    # It is the user's program: whatever it raises, the file's name is what they need.
    except (Exception, SystemExit) as error:
        raise ValueError(f"config {str(path)!r} cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise ValueError(f"config {str(path)!r}: must define `config`, an ecvae_jax.config.Config; got {config!r}")
    return config
