"""Flags and memory settings by platform: only where they were tested; each case in its own process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest


def flags_after(code: str, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport os; print(os.environ.get('XLA_FLAGS', ''))"],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.strip()


SET = "from ecvae_jax.cli.runtime import set_platform_flags; set_platform_flags()"


def test_flag_is_added_to_the_given_ones() -> None:
    flags = flags_after(SET, XLA_FLAGS="--xla_force_host_platform_device_count=2", JAX_PLATFORMS="cpu")
    assert flags.startswith("--xla_force_host_platform_device_count=2 --xla_cpu_experimental_ynn_fusion_type=")


def test_users_flag_is_unchanged() -> None:
    own = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
    assert flags_after(SET, XLA_FLAGS=own, JAX_PLATFORMS="cpu") == own


@pytest.mark.parametrize("platforms", ["cuda", "tpu", "cuda,cpu"])
def test_nothing_is_set_for_accelerators(platforms: str) -> None:
    assert flags_after(SET, JAX_PLATFORMS=platforms) == ""


def test_nothing_is_set_once_jax_is_imported() -> None:
    assert flags_after(f"import jax\n{SET}", JAX_PLATFORMS="cpu") == ""


def test_untested_versions_of_jaxlib_get_no_flag() -> None:
    pretend = "from importlib import metadata\nmetadata.version = lambda name: '9.0.0'\n"
    assert flags_after(pretend + SET, JAX_PLATFORMS="cpu") == ""


def test_jax_accepts_the_flag() -> None:
    assert flags_after(f"{SET}\nimport jax\nassert jax.numpy.ones(3).sum() == 3", JAX_PLATFORMS="cpu") != ""


def test_freed_memory_is_kept_on_cpus_only() -> None:
    code = (
        "import os; from ecvae_jax.cli.runtime import keep_freed_memory; "
        "os.environ['XLA_FLAGS'] = str(keep_freed_memory())"
    )
    glibc = sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"
    assert flags_after(code, JAX_PLATFORMS="cpu") == str(glibc)
    assert flags_after(code, JAX_PLATFORMS="cuda") == "False"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
@pytest.mark.parametrize("keep", [True, False])
def test_a_thread_gets_a_large_block_again_without_page_faults(keep: bool) -> None:
    """As XLA's convolutions allocate it: 80 MB, more than a thread's own heap of glibc can hold."""
    code = f"""if True:
        import os, resource, threading
        import numpy as np
        from ecvae_jax.cli.runtime import keep_freed_memory
        assert not {keep} or keep_freed_memory()
        faults = []
        def work():
            for _ in range(3):
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                np.empty(20 * 2**20, np.float32).fill(1)
                faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        os.environ["XLA_FLAGS"] = str(faults[-1])
    """
    faults = int(flags_after(code, JAX_PLATFORMS="cpu"))
    assert (faults < 10) == keep


@pytest.mark.parametrize("vendor", ["0x1ae0", "0x8086", "no such device"])
def test_libtpu_without_a_tpu_trains_on_the_cpu(tmp_path: Path, vendor: str) -> None:
    """As on a machine that plans for a pod: JAX does not look for a TPU; a real TPU is found."""
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu" / "__init__.py").touch()
    if vendor.startswith("0x"):
        (tmp_path / "vendor").write_text(f"{vendor}\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import os; from ecvae_jax.cli import runtime; "
        f"runtime._PCI_VENDORS, runtime._DRIVERS = {str(tmp_path / 'vendor')!r}, (); "
        "print(runtime.set_platform_flags(), runtime.keep_freed_memory(), os.environ.get('JAX_PLATFORMS'))"
    )
    glibc = sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"
    printed = flags_after(code).splitlines()[0]
    assert printed == ("False False None" if vendor == "0x1ae0" else f"True {glibc} cpu")


def test_driver_of_a_tpu_is_enough(tmp_path: Path) -> None:
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu" / "__init__.py").touch()
    (tmp_path / "accel0").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ecvae_jax.cli import runtime; "
        f"runtime._PCI_VENDORS, runtime._DRIVERS = '', ({str(tmp_path / 'accel*')!r},); runtime.set_platform_flags()"
    )
    assert flags_after(code) == ""
