"""Collectives and HBM bytes read from compiled programs: real ones for CPU, and a text in TPU notation."""

from __future__ import annotations

import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from ecvae_jax.plan.hlo import collectives, hbm_bytes

TPU = textwrap.dedent("""\
    HloModule jit_step, is_scheduled=true

    %region (a: f32[], b: f32[]) -> f32[] {
      %a = f32[] parameter(0)
      %b = f32[] parameter(1)
      ROOT %add.1 = f32[] add(%a, %b)
    }

    ENTRY %main (p: f32[100,20], q: bf16[8]) -> (f32[100,20]) {
      %p = f32[100,20]{1,0:T(8,128)} parameter(0)
      %q = bf16[8]{0:T(256)(128)(2,1)} parameter(1)
      %copy-start.1 = (f32[100,20]{1,0:T(8,128)S(1)}, f32[100,20]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%p)
      %copy-done.1 = f32[100,20]{1,0:T(8,128)S(1)} copy-done(%copy-start.1)
      %slice-start.1 = ((f32[100,20]{1,0:T(8,128)}), f32[8,20]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:8], [0:20]}
      %slice-done.1 = f32[8,20]{1,0:T(8,128)S(1)} slice-done(%slice-start.1)
      %fusion.1 = f32[100,20]{0,1:T(8,128)} fusion(%copy-done.1, %q), kind=kLoop, calls=%f
      %all-reduce.1 = (f32[100,20]{0,1:T(8,128)}, f32[]{:T(128)}) all-reduce(%fusion.1, %c), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%region, backend_config={"collective_algorithm_config":{"emitter":"Pincer","strategy":"Ring1D"}}
      %all-gather-start.1 = (f32[2]{0}, f32[16]{0}) all-gather-start(%x), channel_id=2, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
      %all-gather-done.1 = f32[16]{0} all-gather-done(%all-gather-start.1)
      ROOT %tuple.1 = (f32[100,20]{0,1:T(8,128)}) tuple(%fusion.1)
    }
    """)  # noqa: E501


def test_collectives_of_a_tpu_program() -> None:
    reduced, gathered = collectives(TPU)
    assert (reduced.kind, reduced.arrays, reduced.bytes) == ("all-reduce", 2, 100 * 20 * 4 + 4)
    assert (reduced.devices, reduced.overlaps, reduced.strategy) == (4, False, "Ring1D")
    assert (gathered.kind, gathered.bytes, gathered.devices, gathered.overlaps) == ("all-gather", 64, 8, True)


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", 2),
        ("[2,4]<=[8]", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("mesh['batch'=8] {'batch'}", 8),
        ("mesh['a'=2,'b'=4] {'b'}", 4),
        ("mesh['a'=2,'b'=4] {'a','b'}", 8),
        ("mesh['a'=2,'b'=4] {'a','b':(1)2}", 4),
        ("mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}", 4),
    ],
)
def test_groups_are_read_in_every_notation(groups: str, devices: int) -> None:
    (reduced,) = collectives(f"  %r = f32[8]{{0}} all-reduce(%p), channel_id=1, replica_groups={groups}, to_apply=%add")
    assert reduced.devices == devices


def test_bytes_of_a_tpu_program_are_those_of_hbm_with_tile_padding() -> None:
    copied = 104 * 128 * 4  # the source of the copy, in tiles of 8 × 128; its target is on the core
    sliced = 8 * 128 * 4  # only the slice is read, not the whole array
    read, written = 256 * 2, 24 * 128 * 4  # the fusion: 8 values in a tile of 256; 20 × 100, transposed in store
    reduced = 2 * written + 4
    gathered = 2 * 4 + 16 * 4
    assert hbm_bytes(TPU) == copied + sliced + read + written + reduced + gathered


@pytest.mark.parametrize("fused", [1, 3])
def test_collectives_of_a_real_program(fused: int) -> None:
    """The devices of the CPU average some arrays; the compiler may join them, but all bytes are found."""
    mesh = Mesh(np.array(jax.devices()), ("batch",), axis_types=(AxisType.Auto,))
    shapes = [(8, 4 * i + 4) for i in range(fused)]

    def average(arrays: list[jax.Array]) -> list[jax.Array]:
        return jax.lax.pmean([jnp.sin(array) for array in arrays], "batch")

    mapped = jax.shard_map(average, mesh=mesh, in_specs=PartitionSpec("batch"), out_specs=PartitionSpec())
    text = jax.jit(mapped).lower([jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]).compile().as_text()
    found = collectives(text)
    assert {one.kind for one in found} == {"all-reduce"}
    assert {one.devices for one in found} == {jax.device_count()}
    assert sum(one.arrays for one in found) == fused
    assert sum(one.bytes for one in found) == sum(4 * rows // jax.device_count() * columns for rows, columns in shapes)


def test_a_real_program_without_exchange_has_none_and_moves_its_arrays() -> None:
    text = jax.jit(lambda x: jnp.sin(x) + 1).lower(jax.ShapeDtypeStruct((1000,), jnp.float32)).compile().as_text()
    assert collectives(text) == []
    assert hbm_bytes(text) == 2 * 4000
