"""`ecvae plan`: the real step and synthesis through the real TPU compiler, on a machine without a TPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecvae_jax.cli.main import main
from ecvae_jax.config import Config


def needs_compiler(test: Any) -> Any:
    """Marks a test that compiles for a TPU: slow, and skipped without libtpu."""
    missing = importlib.util.find_spec("libtpu") is None
    return pytest.mark.slow(pytest.mark.skipif(missing, reason="needs the extra tpu")(test))


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Restores the environment variables by which the command makes libtpu compile without a TPU."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def experiment(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plan") / "tiny.json"
    file.write_text(tiny_config.to_json())
    return file


@pytest.fixture(scope="module")
def planned(experiment: Path) -> tuple[dict[str, Any], str]:
    """The JSON and the printed lines of a plan, made by the command in its own process."""
    out = experiment.with_name("plan.json")
    clean = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    command = [sys.executable, "-m", "ecvae_jax", "plan", str(experiment), "--topology", "v5e:2x2", "--json", str(out)]
    shown = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == f"ecvae: written: {out}\n"
    return json.loads(out.read_text()), shown.stdout


@needs_compiler
def test_the_step_is_the_real_one(planned: tuple[dict[str, Any], str], tiny_config: Config) -> None:
    from ecvae_jax.training.state import abstract_state, count_params

    plan, _ = planned
    step = plan["programs"]["step"]
    parameters = count_params(abstract_state(tiny_config).params)
    assert plan["state"]["params"] == plan["state"]["ema_params"] == 4 * parameters
    # The state is donated: all outputs but the metrics overwrite it.
    assert step["arguments"] > sum(plan["state"].values())
    assert step["outputs"] < 64 * 1024
    assert step["memory"] == sum(step[part] for part in ("arguments", "outputs", "temporaries", "code"))
    # A convolution reuses parameters: more than one multiplication per parameter and image, forward and backward.
    assert step["flops"] > 6 * parameters * plan["batch_per_chip"]


@needs_compiler
def test_gradients_and_metrics_go_in_one_all_reduce(planned: tuple[dict[str, Any], str], tiny_config: Config) -> None:
    """The other all-reduce is one number, the likelihood's scale, which the backward pass needs."""
    from ecvae_jax.training.state import abstract_state, count_params

    first, second = planned[0]["programs"]["step"]["collectives"]
    assert (first["kind"], first["bytes"], first["devices"]) == ("all-reduce", 4, 4)
    assert (second["kind"], second["devices"]) == ("all-reduce", 4)
    gradient = 4 * count_params(abstract_state(tiny_config).params)
    metrics = 4 * 6
    # The compiler drops parameters without a gradient, such as a bias before a norm.
    assert 0.99 * gradient < second["bytes"] <= gradient + metrics


@needs_compiler
def test_one_all_reduce_joins_more_arrays_than_the_default() -> None:
    """Deep networks have more than 256 arrays, unlike the tiny one."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from ecvae_jax.plan.chips import Topology, use_compiler_only
    from ecvae_jax.plan.compile import tpu_devices
    from ecvae_jax.plan.hlo import collectives
    from ecvae_jax.training.parallel import make_mesh, shard_step
    from ecvae_jax.training.step import AXIS

    topology = Topology.parse("v5e:2x2")
    use_compiler_only(topology.chip)
    mesh = make_mesh(tpu_devices(topology))

    def step(state, batch, hyper):
        return [old + jax.lax.pmean(old * jnp.mean(batch["image"]), AXIS) for old in state], {}

    state = [
        jax.ShapeDtypeStruct((8 + i,), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec())) for i in range(300)
    ]
    batch = {"image": jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(AXIS)))}
    found = collectives(shard_step(step, mesh).lower(state, batch, ()).compile().as_text())
    assert [(one.kind, one.arrays) for one in found] == [("all-reduce", 300)]


@needs_compiler
def test_the_prediction_follows_from_the_stated_inputs(planned: tuple[dict[str, Any], str]) -> None:
    plan, printed = planned
    step, chip = plan["programs"]["step"], plan["chip"]
    bound, expected = (plan["prediction"][kind]["programs"]["step"] for kind in ("bound", "expected"))
    assert bound["compute"] == pytest.approx(step["flops"] / chip["bf16_flops"])
    assert bound["memory"] == pytest.approx(step["hbm_bytes"] / chip["hbm_bandwidth"])
    work = max(bound["compute"], bound["memory"])
    assert expected["step"] == pytest.approx(2 * work + bound["collective"])
    assert plan["prediction"]["expected"]["images_per_second"] == pytest.approx(8 / expected["step"])
    for words in (
        "training step on v5e:2x2, 4 chips: 8 images, 2 a chip",
        "197 TFLOP/s",
        "819 GB/s",
        "50 GB/s",
        "checked on no hardware",
        "limit: ",
    ):
        assert words in printed


@needs_compiler
def test_synthesis_is_planned_for_one_chip(
    experiment: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "synthesis.json"
    assert (
        main(
            [
                "plan",
                str(experiment),
                "--topology",
                "v5e:2x2",
                "--what",
                "synthesis",
                "--batch-per-chip",
                "2",
                "--json",
                str(out),
            ]
        )
        == 0
    )
    plan = json.loads(out.read_text())
    assert "synthesis (transfer) on one chip of v5e: 2 images" in capsys.readouterr().out
    assert list(plan["programs"]) == ["encode", "move", "decode"]
    assert list(plan["state"]) == ["ema_params", "frozen"]  # no optimizer
    assert not any(program["collectives"] for program in plan["programs"].values())
    seconds = sum(times["step"] for times in plan["prediction"]["bound"]["programs"].values())
    assert plan["prediction"]["bound"]["images_per_second"] == pytest.approx(2 / seconds)


@needs_compiler
def test_batch_that_does_not_fit_the_chips_is_refused(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(experiment), "--topology", "v5e:4x4"]) == 1
    printed = capsys.readouterr().err
    assert "train.batch_size=8: must be a multiple of the 16 chips of v5e:4x4; use 16, or --batch-per-chip" in printed


def test_the_batch_compiled_for_is_the_pipelines(tiny_config: Config, tiny_batch: dict[str, np.ndarray]) -> None:
    from ecvae_jax.plan.compile import abstract_batch

    planned = abstract_batch(tiny_config, 8)
    assert {name: (one.shape, one.dtype) for name, one in planned.items()} == {
        name: (array.shape, array.dtype) for name, array in tiny_batch.items()
    }


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "--topology is required"),
        (["--topology", "v5e:3x3"], 1, "the shape of a v5e must be one of"),
        (["--topology", "v7:2x2"], 1, "no TPU 'v7'"),
        (["--topology", "v5e:2x2", "--batch-per-chip", "0"], 2, "batch_per_chip=0: must be at least 1"),
        (["--topology", "v5e:2x2", "--efficiency", "0"], 2, "efficiency=0.0: must be above 0"),
        (["--topology", "v5e:2x2", "--what", "synthesis", "--largest-batch"], 2, "largest_batch: is only for --what"),
        (["--topology", "v5e:2x2", "--what", "serve"], 2, "--what"),
        (["--topology", "v5e:2x2", "--json", "."], 2, "json='.': is a folder"),
        (["--topology", "v5e:2x2", "a.py"], 2, "CONFIG comes first: ecvae plan CONFIG [options]"),
        (["missing.py", "--topology", "v5e:2x2"], 1, "config 'missing.py': no such file"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) == code
    printed = capsys.readouterr().err
    assert words in printed
    assert len(printed.strip().splitlines()) == 1


def test_missing_compiler_names_the_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name))
    assert main(["plan", "--topology", "v5e:2x2"]) == 1
    printed = capsys.readouterr().err
    assert "pip install -e '.[tpu]'" in printed
    assert len(printed.strip().splitlines()) == 1


def test_jax_too_old_for_the_chip_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find, version = importlib.util.find_spec, metadata.version
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "libtpu" else find(name))
    monkeypatch.setattr(metadata, "version", lambda name: "0.10.2" if name == "jax" else version(name))
    assert main(["plan", "--topology", "v6e:2x2"]) == 1
    assert "jax 0.10.2: its compiler crashes on a v6e; install jax 0.12 or newer" in capsys.readouterr().err
