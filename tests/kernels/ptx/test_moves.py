"""Copies, packing and unpacking, and addresses."""

from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import In, Out, UnsupportedError, launch

POINTERS = (".param .u64 x", ".param .u64 y")
START = "ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mov.u32 %r1, %tid.x;"


@pytest.mark.parametrize("kind", ["b16", "u32", "s32", "f32", "b64", "f64", "pred"])
def test_copies(execute: Any, kind: str) -> None:
    dtype = {"f32": "float32", "f64": "float64", "pred": "bool"}.get(kind, f"uint{kind[1:]}")
    values = np.array([0, 1, 7], dtype)
    assert execute(f"mov.{kind}", dtype, values).tolist() == values.tolist()


def test_copies_keep_the_bits_of_nan(execute: Any) -> None:
    bits = np.array([0x7F800001, 0xFFC12345, 0x7FFFFFFF], np.uint32)
    assert execute("mov.f32", "uint32", bits).tolist() == bits.tolist()


def test_packing_and_unpacking(kernel_of: Any) -> None:
    kernel = kernel_of(
        START
        + """mad.wide.u32 %rd1, %r1, 8, %rd1; mad.wide.u32 %rd2, %r1, 8, %rd2; ld.global.u64 %rd3, [%rd1];
        mov.b64 {%r2, %r3}, %rd3; mov.b32 {%h1, %h2}, %r2; mov.b32 {_, %h3}, %r3;
        mov.b64 %rd4, {%h3, %h2, %h1, %h1}; st.global.u64 [%rd2], %rd4; ret;""",
        *POINTERS,
    )
    x, y = np.array([0x4444333322221111, 0xDDDDCCCCBBBBAAAA], np.uint64), np.zeros(2, np.uint64)
    launch(kernel, 1, 2, (In(x), Out(y)))
    assert [f"{value:x}" for value in y] == ["1111111122224444", "aaaaaaaabbbbdddd"]


def test_constants(kernel_of: Any) -> None:
    kernel = kernel_of(
        """ld.param.u64 %rd1, [y]; mov.f32 %f1, 0f40490FDB; st.global.f32 [%rd1], %f1;
        mov.b32 %r1, 0xFFFFFFFFU; st.global.b32 [%rd1+4], %r1; mov.s32 %r2, -17; st.global.b32 [%rd1+8], %r2;
        mov.b64 %rd2, 0d3FF8000000000000; st.global.b64 [%rd1+16], %rd2; mov.f32 %f2, 2.5; st.global.f32 [%rd1+12], %f2;
        st.global.v2.b32 [%rd1+24], {017, 0b101}; ret;""",
        ".param .u64 y",
    )
    y = np.zeros(8, np.uint32)
    launch(kernel, 1, 1, (Out(y),))
    assert y[:1].view(np.float32)[0] == np.float32(np.pi)
    assert y[1:3].view(np.int32).tolist() == [-1, -17]
    assert y[3:4].view(np.float32)[0] == 2.5
    assert y[4:6].view(np.float64)[0] == 1.5
    assert y[6:].tolist() == [15, 5]


def test_special_registers(kernel_of: Any) -> None:
    names = ["%tid.x", "%tid.y", "%tid.z", "%ntid.x", "%ntid.y", "%ntid.z", "%ctaid.x", "%ctaid.y", "%ctaid.z"]
    names += ["%nctaid.x", "%nctaid.y", "%nctaid.z", "%laneid", "%warpid", "%nwarpid", "%lanemask_lt", "%lanemask_ge"]
    names += ["%lanemask_eq", "%lanemask_le", "%lanemask_gt", "%dynamic_smem_size", "%total_smem_size"]
    stores = "\n".join(f"mov.u32 %r9, {name}; st.global.u32 [%rd2+{4 * i}], %r9;" for i, name in enumerate(names))
    kernel = kernel_of(
        f"""ld.param.u64 %rd1, [y];
        mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mov.u32 %r4, %ctaid.x; mov.u32 %r5, %ctaid.y;
        mad.lo.u32 %r1, %r2, 8, %r1; mad.lo.u32 %r1, %r3, 40, %r1; mad.lo.u32 %r4, %r5, 2, %r4;
        mad.lo.u32 %r1, %r4, 120, %r1;
        mad.wide.u32 %rd2, %r1, {4 * len(names)}, %rd1; {stores} ret;""",
        ".param .u64 y",
        before=".extern .shared .align 4 .b8 buffer[];",
    )
    y = np.zeros((3, 2, 3, 5, 8, len(names)), np.uint32)
    for schedule in ("lockstep", "forward"):
        y[...] = 0
        launch(kernel, (2, 3), (8, 5, 3), (Out(y),), shared_bytes=48, schedule=schedule)
        cta_y, cta_x, z, t_y, x = np.indices(y.shape[:-1])
        thread = x + 8 * t_y + 40 * z
        lane = thread % 32
        below = (1 << lane) - 1
        expected = [x, t_y, z, 8, 5, 3, cta_x, cta_y, 0, 2, 3, 1, lane, thread // 32, 4]
        expected += [below, 2**32 - 1 - below, 1 << lane, below + (1 << lane), 2**32 - 1 - below - (1 << lane), 48, 48]
        for i, values in enumerate(expected):
            assert (y[..., i] == values).all(), names[i]


def test_addresses_of_shared_memory(kernel_of: Any) -> None:
    """Within the space, and generic."""
    kernel = kernel_of(
        """ld.param.u64 %rd1, [y]; mov.u32 %r1, %tid.x; mad.wide.u32 %rd2, %r1, 4, %rd1;
        mov.u64 %rd3, first; mad.wide.u32 %rd3, %r1, 4, %rd3; st.shared.u32 [%rd3], %r1; bar.sync 0;
        cvta.shared.u64 %rd4, %rd3; ld.u32 %r2, [%rd4]; cvta.to.shared.u64 %rd5, %rd4; ld.shared.u32 %r3, [%rd5];
        mov.u32 %r4, second+4; st.shared.u32 [%r4], %r1; mov.u32 %r4, second; ld.shared.u32 %r5, [%r4+4];
        add.u32 %r2, %r2, %r3; add.u32 %r2, %r2, %r5;
        cvta.to.global.u64 %rd6, %rd2; cvta.global.u64 %rd6, %rd6; st.u32 [%rd6], %r2; ret;""",
        ".param .u64 y",
        before=".shared .align 4 .b8 first[4]; .shared .align 4 .b8 second[8];",
    )
    y = np.zeros(1, np.uint32)
    launch(kernel, 1, 1, (Out(y),))
    assert y.tolist() == [0]


def test_what_does_not_fit_is_refused(kernel_of: Any) -> None:
    for text in (
        "mov.b64 %r1, %rd1;",
        "mov.b32 {%h1, %h2, %h3}, %r1;",
        "mov.u32 %r1, %r2, %r3;",
        "cvta.u64 %rd1, %rd2;",
    ):
        with pytest.raises(UnsupportedError, match="line"):
            launch(kernel_of(text + " ret;"), 1, 1, ())
