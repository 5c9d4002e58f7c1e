"""Layer-sequential unit-variance initialization."""

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.processes import run_python

from ecvae_jax.config import Config
from ecvae_jax.images import to_float
from ecvae_jax.model.conditioning import init_frozen, make_condition
from ecvae_jax.model.cvae import CVAE, init_params
from ecvae_jax.model.lsuv import init_unit_variance


@pytest.fixture(scope="module")
def batch_inputs(tiny_config: Config, tiny_batch: dict[str, np.ndarray]):
    frozen = init_frozen(jax.random.key(1), tiny_config, tiny_batch["landmarks"])
    condition = make_condition(tiny_config.architecture, None, frozen, tiny_batch["landmarks"])
    return to_float(jnp.asarray(tiny_batch["image"])), condition, frozen.z_scale


def output_variances(config: Config, params, inputs) -> dict[str, float]:
    """Returns the variance of each layer's output on this batch, without the bias, by the layer's path."""

    @jax.jit
    def run(params, inputs):
        _, captured = CVAE(config.model).apply(
            {"params": params},
            *inputs,
            capture_intermediates=lambda layer, _: isinstance(layer, (nn.Conv, nn.Dense)),
            mutable=["intermediates"],
        )
        return captured["intermediates"]

    biases = flax.traverse_util.flatten_dict(params, sep="/")
    outputs = flax.traverse_util.flatten_dict(run(params, inputs), sep="/")
    paths = {name: name.removesuffix("/__call__") for name in outputs}
    return {
        path: float(np.var(np.asarray(outputs[name][0]) - np.asarray(biases[f"{path}/bias"])))
        for name, path in paths.items()
    }


def test_every_layer_has_unit_variance_afterwards(tiny_config: Config, batch_inputs) -> None:
    raw = init_params(jax.random.key(0), tiny_config.architecture)
    before = output_variances(tiny_config.architecture, raw, batch_inputs)
    assert max(abs(v - 1) for v in before.values()) > 0.2
    scaled = init_unit_variance(tiny_config.architecture, raw, *batch_inputs)
    after = output_variances(tiny_config.architecture, scaled, batch_inputs)
    kernels = sum(path[-1].key == "kernel" for path, _ in jax.tree_util.tree_leaves_with_path(raw))
    assert len(after) == kernels  # every layer was measured
    np.testing.assert_allclose(list(after.values()), 1.0, rtol=1e-3)


def test_only_the_length_of_kernels_changes(tiny_config: Config, batch_inputs) -> None:
    raw = init_params(jax.random.key(0), tiny_config.architecture)
    done = init_unit_variance(tiny_config.architecture, raw, *batch_inputs)
    for (path, before), after in zip(jax.tree_util.tree_leaves_with_path(raw), jax.tree.leaves(done), strict=True):
        if path[-1].key == "kernel":
            scale = jnp.linalg.norm(after) / jnp.linalg.norm(before)
            np.testing.assert_allclose(after, before * scale, rtol=1e-5, atol=1e-7)
        else:
            assert np.array_equal(before, after)


def test_a_constant_batch_raises(tiny_config: Config, batch_inputs) -> None:
    image, condition, z_scale = batch_inputs
    raw = init_params(jax.random.key(0), tiny_config.architecture)
    message = "zero or not finite; unit-variance initialization needs a batch of differing faces"
    for constant in (0.0, jnp.nan):
        nothing = condition._replace(sketch=condition.sketch * constant)
        with pytest.raises(ValueError, match=message):
            init_unit_variance(tiny_config.architecture, raw, image * constant, nothing, z_scale)


@pytest.mark.slow
def test_python_without_asserts_initializes_and_runs_the_same_network() -> None:
    """`python -O` drops asserts; flax removes the interceptors of `nn.intercept_methods` in one."""
    code = """
import jax, numpy as np
from ecvae_jax.config import ClusterConfig, Config, ModelConfig
from ecvae_jax.images import to_float
from ecvae_jax.model.conditioning import init_frozen, make_condition
from ecvae_jax.model.cvae import CVAE, init_params
from ecvae_jax.model.lsuv import init_unit_variance
config = Config(clusters=ClusterConfig(count=2), model=ModelConfig(image_size=32, widths=(8, 8), z_dim=16, z_grid=4))
rng = np.random.default_rng(0)
faces = rng.uniform(size=(8, 98, 2)).astype(np.float32)
image = to_float(jax.numpy.asarray(rng.integers(0, 256, (8, 32, 32, 3), np.uint8)))
architecture = config.architecture
frozen = init_frozen(jax.random.key(1), config, faces)
condition = make_condition(architecture, None, frozen, faces)
params = init_params(jax.random.key(0), architecture)
params = init_unit_variance(architecture, params, image, condition, frozen.z_scale)
drawn = CVAE(architecture.model).apply({"params": params}, image, condition, frozen.z_scale)
for leaf in jax.tree.leaves((params, frozen, drawn)):
    print(np.asarray(leaf).tobytes().hex())
"""
    plain, optimized = (run_python(code, PYTHONOPTIMIZE=level).stdout for level in ("", "1"))
    assert plain.count("\n") > 30
    assert plain == optimized
