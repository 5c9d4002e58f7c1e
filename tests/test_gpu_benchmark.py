"""benchmarks/gpu.py runs in small on a CPU; its variants differ in what they name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import LONG, QUICK_COMPILATION, environment

from benchmarks.gpu import OPTIONS, kind_of, variants
from ecvae_jax.config import load_config

ROOT = Path(__file__).parent.parent


def test_variants_differ_from_the_experiment_in_one_thing() -> None:
    config = load_config(ROOT / "configs/paper_256.py")
    found = variants(config)
    assert next(iter(found.values())) == config
    assert len(set(found.values())) == len(found) == 3
    assert found["SSIM, two views"].objective.ssim_weight > 0 == config.objective.ssim_weight
    assert found["SSIM, two views"].data.pairs > 0 == config.data.pairs
    assert not set(OPTIONS) & set(found)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16", "convolution"),
        ("nvjet_hsh_128x256_gemm", "product"),
        ("input_reduce_fusion_12", "reduction"),
        ("loop_multiply_fusion", "element-wise"),
        ("MemcpyH2D", "copy"),
        ("something", "other"),
    ],
)
def test_kernels_are_sorted_by_name(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind


@pytest.mark.slow
def test_the_script_runs_in_small(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--out", str(out)]
    shown = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(XLA_FLAGS=" ".join(QUICK_COMPILATION)),
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert not shown.returncode, shown.stderr
    found = json.loads(out.read_text())
    rows = found["variants"]
    assert set(rows) == {"step", "SSIM, two views", "float32"}
    assert all(0 < row["peak_share"] <= 1.2 and row["skipped"] == 0 for row in rows.values())
    assert rows["SSIM, two views"]["gflop_per_image"] > rows["step"]["gflop_per_image"]
    assert found["profile"]["kernels"] > 0
    assert f"{found['device']}, jax {found['jax']}" in shown.stdout
