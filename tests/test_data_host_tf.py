"""TensorFlow as the host's data library: no more of it is imported than that."""

from __future__ import annotations

import subprocess
import sys


def test_keras_waits_until_it_is_used() -> None:
    code = (
        "import sys\n"
        "from ecvae_jax.data.host_tf import load_tensorflow\n"
        "tf = load_tensorflow()\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('keras', 'matplotlib')]\n"
        "assert load_tensorflow() is tf\n"
        "print(tf.keras.layers.Dense(3)(tf.ones((1, 2))).shape, tf.keras.optimizers.Adam.__name__)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() == "(1, 3) Adam"


def test_a_program_that_has_keras_keeps_it() -> None:
    code = (
        "import sys, keras\n"
        "optimizers = sys.modules['keras.src.optimizers']\n"
        "from ecvae_jax.data.host_tf import load_tensorflow\n"
        "load_tensorflow()\n"
        "print(sys.modules['keras.src.optimizers'] is optimizers)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() == "True"
