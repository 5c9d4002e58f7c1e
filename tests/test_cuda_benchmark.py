"""benchmarks/cuda.py counts kernels, bytes and FLOPs of a compiled program; the text is in XLA's notation for CUDA."""

from __future__ import annotations

import re
import textwrap

import pytest

from benchmarks.cuda import CARDS, kernels

PROGRAM = textwrap.dedent("""\
    HloModule jit_step, is_scheduled=true

    %fused_reduce (p: bf16[2,4,4,8]) -> f32[2,8] {
      %p = bf16[2,4,4,8]{3,2,1,0} parameter(0)
      %convert = f32[2,4,4,8]{3,2,1,0} convert(%p)
      ROOT %reduce = f32[2,8]{1,0} reduce(%convert, %zero), dimensions={1,2}, to_apply=%add
    }

    %fused_add (p: f32[2,8]) -> f32[2,8] {
      %p = f32[2,8]{1,0} parameter(0)
      ROOT %add = f32[2,8]{1,0} add(%p, %p)
    }

    %fused_update (p: f32[5,8], n: s32[]) -> f32[5,8] {
      %p = f32[5,8]{1,0} parameter(0)
      %n = s32[] parameter(1)
      %row = f32[1,8]{1,0} dynamic-slice(%p, %n, %zero), dynamic_slice_sizes={1,8}
      %more = f32[1,8]{1,0} add(%row, %row)
      ROOT %write = f32[5,8]{1,0} dynamic-update-slice(%p, %more, %n, %zero)
    }

    %body (state: (s32[], f32[5,8])) -> (s32[], f32[5,8]) {
      %state = (s32[], f32[5,8]{1,0}) parameter(0)
      %n.1 = s32[] get-tuple-element(%state), index=0
      %rows.1 = f32[5,8]{1,0} get-tuple-element(%state), index=1
      %written = f32[5,8]{1,0} fusion(%rows.1, %n.1), kind=kLoop, calls=%fused_update
      ROOT %next = (s32[], f32[5,8]{1,0}) tuple(%n.1, %written)
    }

    ENTRY %main (maps: bf16[2,4,4,8], kernel: bf16[16,3,3,8]) -> f32[2,8] {
      %maps = bf16[2,4,4,8]{3,2,1,0} parameter(0)
      %kernel = bf16[16,3,3,8]{3,2,1,0} parameter(1)
      %conv = (bf16[2,4,4,16]{3,2,1,0}, u8[1000]{0}) custom-call(%maps, %kernel), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
      %sums = f32[2,8]{1,0} fusion(%maps), kind=kInput, calls=%fused_reduce
      %doubled = f32[2,8]{1,0} fusion(%sums), kind=kLoop, calls=%fused_add
      %turned = f32[8,2]{1,0} bitcast(%doubled)
      %product = (f32[2,2]{1,0}, s8[64]{0}) custom-call(%sums, %turned), custom_call_target="__cublas$lt$matmul"
      %loop = (s32[], f32[5,8]{1,0}) while(%start), condition=%less, body=%body, backend_config={"known_trip_count":{"n":"3"}}
      ROOT %copy = f32[2,8]{1,0} copy(%doubled)
    }
    """)  # noqa: E501


def test_kernels_bytes_and_flops_of_a_program() -> None:
    found = kernels(PROGRAM)
    assert [(one.kind, one.bytes) for one in found] == [
        ("cudnn$convForward", 2 * (256 + 16 * 72 + 512)),
        ("reduce", 2 * 256 + 4 * 16),
        ("element-wise", 2 * 4 * 16),
        ("cublas$lt$matmul", 4 * (16 + 16 + 4)),
        # One row is read and one written; 4 bytes are its number.
        *[("element-wise", 4 + 4 * 8 + 4 * 8)] * 3,
        ("copy", 2 * 4 * 16),
    ]
    convolution, product = found[0], found[3]
    assert convolution.flops == pytest.approx(2 * 2 * 4 * 4 * 9 * 8 * 16)
    assert product.flops == pytest.approx(2 * 2 * 2 * 8)
    assert (convolution.float32, product.float32) == (False, True)
    assert not any(one.flops for one in found if "$" not in one.kind)


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_a_card_is_described_in_xlas_format(card) -> None:
    text = card.description
    assert text.count("{") == text.count("}") == 3
    fields = dict(re.findall(r"(\w+): (\S+)", text))
    assert float(fields["memory_bandwidth"]) == card.bandwidth
    assert float(fields["device_memory_size"]) == card.memory
