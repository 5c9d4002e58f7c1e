"""TensorFlow as the host's data library only: quiet, and without touching the accelerators that JAX uses."""

from __future__ import annotations

import logging
import os
from types import ModuleType


def _quiet() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # nothing here uses it, and it prints a notice
    logging.getLogger("absl").setLevel(logging.ERROR)


def load_tensorflow() -> ModuleType:
    """Returns tensorflow, imported at the first call (4 to 9 s), its logging off and all GPUs hidden from it."""
    _quiet()
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:  # the host program has started TensorFlow's devices already; they are its own business
        logging.getLogger(__name__).debug("TensorFlow was started before ecvae_jax could hide the GPUs from it")
    return tf


def load_tfds() -> ModuleType:
    """Returns tensorflow_datasets, imported at the first call (0.5 s), its logging and progress bars off."""
    _quiet()
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    return tfds
