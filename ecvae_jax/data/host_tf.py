"""TensorFlow as the host's data library only: quiet, and without touching the accelerators that JAX uses."""

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
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # nothing here uses it, and it prints a notice
    logging.getLogger("absl").setLevel(logging.ERROR)


@contextlib.contextmanager
def _keras_left_for_later() -> Iterator[None]:
    """TensorFlow imports Keras, and with it sklearn and matplotlib, to know of its optimizers: 40% of its own import.

    It goes on without where that fails, and `tensorflow.keras` is then imported by whoever first uses it.
    """
    if "tensorflow" in sys.modules or _KERAS in sys.modules:
        yield
        return
    sys.modules[_KERAS] = None  # type: ignore[assignment]  # what Python's import takes for "not to be had"
    try:
        yield
    finally:
        del sys.modules[_KERAS]


def load_tensorflow() -> ModuleType:
    """Returns tensorflow, imported at the first call (3 to 6 s), its logging off and all GPUs hidden from it."""
    _quiet()
    with _keras_left_for_later():
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
