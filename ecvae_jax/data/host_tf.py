"""The only import of TensorFlow: a data library on the host, quiet, with all accelerators left to JAX."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from types import ModuleType

_KERAS = "keras.src.optimizers"


def _quiet() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # unused here, and it prints a notice
    logging.getLogger("absl").setLevel(logging.ERROR)


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Blocks the import of Keras while TensorFlow is imported.

    TensorFlow imports Keras, with sklearn and matplotlib, only to register its optimizers: 40% of the import time. It
    ignores a failure, and `tensorflow.keras` still imports Keras on first use.
    """
    if "tensorflow" in sys.modules or _KERAS in sys.modules:
        yield
        return
    sys.modules[_KERAS] = None  # type: ignore[assignment]  # Python's import then raises ImportError
    try:
        yield
    finally:
        del sys.modules[_KERAS]


def load_tensorflow() -> ModuleType:
    """Returns tensorflow, imported on the first call (3 to 6 s), with logging off and all GPUs hidden."""
    _quiet()
    with _without_keras():
        import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:  # the calling program has already initialized TensorFlow's devices
        logging.getLogger(__name__).debug("TensorFlow was initialized before ecvae_jax could hide the GPUs from it")
    return tf


def load_tfds() -> ModuleType:
    """Returns tensorflow_datasets, imported on the first call (0.5 s), with logging and progress bars off."""
    _quiet()
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    return tfds
