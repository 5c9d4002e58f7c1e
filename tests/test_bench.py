"""`ecvae bench`: the table and JSON of a tiny model, and the laws of its numbers. No duration is compared."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from ecvae_jax.bench.report import TITLES, Report, measure, to_json, to_lines
from ecvae_jax.bench.start import measure_start
from ecvae_jax.bench.timing import alternate
from ecvae_jax.bench.workloads import at_size, random_state
from ecvae_jax.cli.main import main
from ecvae_jax.config import Config, ModelConfig, PriorConfig
from ecvae_jax.training.state import abstract_state


@pytest.fixture(scope="module")
def report(tiny_config: Config) -> Report:
    return measure(tiny_config, rounds=1, seconds=0.0, start=False, peak_side=256)


def test_every_number_obeys_its_law(report: Report, tiny_config: Config) -> None:
    (found,) = report.sizes.values()
    assert list(report.sizes) == [tiny_config.model.image_size]
    assert set(found.rows) == set(TITLES)
    assert not found.skipped
    assert report.peaks_gflops["float32"] > 0
    assert report.peak_memory_gib > 0
    assert 0 <= found.input_stall_percent.low <= found.input_stall_percent.median <= 100
    for name, row in found.rows.items():
        speed = row.images_per_second
        assert 0 < speed.low <= speed.median <= speed.high < np.inf
        assert (row.peak_share is None) == (name in ("step_fed", "input", "sketch", "kl"))
        assert row.peak_share is None or 0 < row.peak_share <= 1.2
    rows = found.rows
    assert all(rows[name].memory_mib > 0 and rows[name].compile_seconds > 0 for name in ("step", "encode", "decode"))
    assert rows["step"].gflop_per_image > rows["transfer"].gflop_per_image  # the gradient
    both = rows["encode"].gflop_per_image + rows["decode"].gflop_per_image
    assert rows["transfer"].gflop_per_image == pytest.approx(both)


def test_the_table_has_the_numbers_of_the_json(report: Report) -> None:
    stored = json.loads(json.dumps(to_json(report), allow_nan=False))
    text = to_lines(report)
    (size,) = stored["sizes"]
    lines = {title: next(line for line in text if f"  {title:<26}" in line) for title in TITLES.values()}
    for name, row in stored["sizes"][size]["rows"].items():
        words = lines[TITLES[name]].split()
        assert words[0] == size
        after = lines[TITLES[name]].split(TITLES[name], 1)[1].replace(",", "").split()
        assert float(after[0]) == pytest.approx(row["images_per_second"]["median"], rel=6e-3)
        assert (after[4] == "–") == (row["peak_share"] is None)
        if row["peak_share"] is not None:
            assert float(after[4].rstrip("%")) == pytest.approx(100 * row["peak_share"], abs=0.06)
        if row["compile_seconds"] is not None:
            assert float(after[7]) == pytest.approx(row["compile_seconds"], rel=6e-3)


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("name", ["demo", "shipped", "paper_256"])
def test_another_size_keeps_the_coarsest_maps(name: str, size: int) -> None:
    from ecvae_jax.config import load_config

    config = load_config(Path(__file__).parents[1] / "configs" / f"{name}.py")
    other = at_size(config, size)
    assert other.model.image_size == size
    assert other.model.level_sides[-1] == config.model.level_sides[-1]
    assert other.model.widths[:2] == config.model.widths[:2]
    assert at_size(config, config.model.image_size) == config


def test_a_size_with_too_few_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two levels"):
        at_size(Config(model=ModelConfig(image_size=256, patch=8, widths=(8, 8), z_dim=64, z_grid=1)), 64)


def test_the_random_state_has_the_shapes_of_a_training(tiny_config: Config) -> None:
    for kind in ("equilibrium", "covariance"):
        config = dataclasses.replace(tiny_config, prior=PriorConfig(kind=kind, rank=4))
        made, wanted = random_state(config), abstract_state(config)
        assert jax.tree.structure(made) == jax.tree.structure(wanted)
        shapes = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, made, wanted)
        assert all(jax.tree.leaves(shapes))
        assert all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(jax.device_get(made.params)))


def test_rounds_alternate() -> None:
    order = []
    times = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, seconds=0.0)
    assert "".join(order) == "aabb" + "ab" * 3
    assert [len(each) for each in times.values()] == [3, 3]


def test_wrong_options_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words, message in (
        (["--sizes", "100"], "sizes=100: must be 32, 64, 128 or 256"),
        (["--rounds", "0"], "rounds=0: must be at least 1"),
        (["--json", str(tmp_path)], "is a folder; give a file name"),
    ):
        assert main(["bench", *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_writes_table_and_json(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "tiny.json"
    stored.write_text(tiny_config.to_json())
    out = tmp_path / "bench.json"
    words = [str(stored), "--rounds", "1", "--seconds", "0", "--json", str(out)]
    assert main(["bench", *words]) == 0
    shown, found = capsys.readouterr().out, json.loads(out.read_text())
    start = found["sizes"]["32"]["start"]
    assert f"empty compile cache: first step after {start['cold']['first_step']:.1f} s" in shown
    assert all(0 < one["compile"] < one["first_step"] < one["process"] for one in start.values())


@pytest.mark.slow
def test_a_failed_start_is_reported(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(RuntimeError, match="exited with 1"):
        measure_start(tiny_config)
