"""TensorFlow as the host's data library: no more of it is imported than that."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALONE = """
import sys
from ecvae_jax.data.host_tf import load_tensorflow
tf = load_tensorflow()
assert not [name for name in sys.modules if name.split(".")[0] in ("keras", "matplotlib")]
assert load_tensorflow() is tf
print(tf.keras.layers.Dense(3)(tf.ones((1, 2))).shape, tf.keras.optimizers.Adam.__name__)
"""

BESIDE_KERAS = """
import sys, keras
optimizers = sys.modules["keras.src.optimizers"]
from ecvae_jax.data.host_tf import load_tensorflow
load_tensorflow()
print(sys.modules["keras.src.optimizers"] is optimizers)
"""


@pytest.mark.parametrize(
    ("program", "output"),
    [
        pytest.param(ALONE, "(1, 3) Adam", id="keras waits until it is used"),
        pytest.param(BESIDE_KERAS, "True", id="a program that has keras keeps it", marks=pytest.mark.slow),
    ],
)
def test_keras_is_imported_only_on_use(program: str, output: str) -> None:
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() == output
