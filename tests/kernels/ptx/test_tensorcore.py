"""Matrix tiles against float64 products, with fragments spread over the lanes one element at a time."""

from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minet_sdk.kernels.ptx import DivergenceError, In, Out, UnsupportedError, launch, unsupported

FOUR = "{%r1, %r2, %r3, %r4}"
DTYPES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "tf32": np.float32}


def element_a(form: str, lane: int, i: int) -> tuple[int, int]:
    """Row and column of element i of lane's fragment of A, as the manual's formulas give them."""
    group, thread = lane >> 2, lane & 3
    if form == "tf32":
        return group + 8 * (i & 1), thread + 4 * (i >> 1)
    return group + (0 if i < 2 or 4 <= i < 6 else 8), thread * 2 + (i & 1) + (8 if i >= 4 else 0)


def element_b(form: str, lane: int, i: int) -> tuple[int, int]:
    group, thread = lane >> 2, lane & 3
    return (thread + 4 * i, group) if form == "tf32" else (thread * 2 + (i & 1) + (8 if i >= 2 else 0), group)


def element_c(lane: int, i: int) -> tuple[int, int]:
    return (lane >> 2) + (8 if i >= 2 else 0), (lane & 3) * 2 + (i & 1)


def spread(matrix: Any, place: Any, count: int) -> Any:
    """(32, count) fragment."""
    return np.array([[matrix[place(lane, i)] for i in range(count)] for lane in range(32)], matrix.dtype)


def registers(name: str, count: int, first: int = 0) -> str:
    return "{" + ", ".join(f"%{name}{first + i}" for i in range(count)) + "}"


def multiply(kernel_of: Any, form: str, depth: int, a: Any, b: Any, c: Any, accumulate: str = "f32") -> Any:
    words = {"tf32": 1}.get(form, 2)
    counts = [16 * depth // 32 // words, 8 * depth // 32 // words, 4 if accumulate == "f32" else 2]
    fragments = (
        spread(a, partial(element_a, form), counts[0] * words),
        spread(b, partial(element_b, form), counts[1] * words),
        spread(c, element_c, 4),
    )
    loads, first = [], 0
    for i, count in enumerate(counts):
        loads.append(f"ld.param.u64 %rd1, [p{i}]; mad.wide.u32 %rd1, %r19, {4 * count}, %rd1;")
        loads += [f"ld.global.b32 %r{first + j}, [%rd1+{4 * j}];" for j in range(count)]
        first += count
    c_first = counts[0] + counts[1]
    kernel = kernel_of(
        f"""mov.u32 %r19, %tid.x; {"".join(loads)}
        mma.sync.aligned.m16n8k{depth}.row.col.{accumulate}.{form}.{form}.{accumulate}
            {registers("r", counts[2], 12)}, {registers("r", counts[0])}, {registers("r", counts[1], counts[0])},
            {registers("r", counts[2], c_first)};
        ld.param.u64 %rd1, [p3]; mad.wide.u32 %rd1, %r19, {4 * counts[2]}, %rd1;
        {"".join(f"st.global.b32 [%rd1+{4 * j}], %r{12 + j};" for j in range(counts[2]))} ret;""",
        *(f".param .u64 p{i}" for i in range(4)),
    )
    d = np.zeros((2, 32, 4), np.float32 if accumulate == "f32" else np.float16)
    both = [np.concatenate([part, part]) for part in fragments]
    launch(kernel, 1, 64, (*map(In, both), Out(d)))
    np.testing.assert_array_equal(d[0], d[1])
    result = np.zeros((16, 8))
    for lane in range(32):
        for i in range(4):
            result[element_c(lane, i)] = d[0, lane, i]
    return result


@pytest.mark.parametrize(
    ("form", "depth"), [("f16", 8), ("f16", 16), ("bf16", 8), ("bf16", 16), ("tf32", 4), ("tf32", 8)]
)
def test_products_of_tiles(kernel_of: Any, form: str, depth: int) -> None:
    rng = np.random.default_rng(depth)
    a, b = rng.standard_normal((16, depth)).astype(DTYPES[form]), rng.standard_normal((depth, 8)).astype(DTYPES[form])
    c = rng.standard_normal((16, 8)).astype(np.float32)
    if form == "tf32":
        a, b = ((x.view(np.uint32) & 0xFFFFE000).view(np.float32) for x in (a, b))
    expected = a.astype(float) @ b.astype(float) + c
    result = multiply(kernel_of, form, depth, a, b, c)
    assert np.abs(result - expected).max() <= 2.0**-24 * np.abs(expected).max()


def test_accumulation_in_half_precision(kernel_of: Any) -> None:
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(shape).astype(np.float16) for shape in ((16, 16), (16, 8), (16, 8)))
    expected = (a.astype(float) @ b.astype(float) + c).astype(np.float16)
    assert (multiply(kernel_of, "f16", 16, a, b, c, "f16") == expected).all()


def test_sums_do_not_overflow_on_the_way(kernel_of: Any) -> None:
    """Products of the largest halves are far inside of float32; infinities and NaN stay in their rows."""
    a, b = np.full((16, 16), 65504, np.float16), np.full((16, 8), 65504, np.float16)
    c = np.zeros((16, 8), np.float32)
    assert (multiply(kernel_of, "f16", 16, a, b, c) == np.float32(16 * 65504.0**2)).all()
    a[3, 2], a[5, 0] = np.inf, np.nan
    result = multiply(kernel_of, "f16", 16, a, b, c)
    assert np.isinf(result[3]).all()
    assert np.isnan(result[5]).all()
    assert np.isfinite(np.delete(result, [3, 5], axis=0)).all()


def test_a_swapped_register_is_noticed(kernel_of: Any) -> None:
    """The fragments are what this test thinks, not just any consistent spreading."""
    a, b = np.zeros((16, 16), np.float16), np.zeros((16, 8), np.float16)
    a[2, 9], b[9, 5] = 3, 5
    result = multiply(kernel_of, "f16", 16, a, b, np.zeros((16, 8), np.float32))
    assert result[2, 5] == 15
    assert np.count_nonzero(result) == 1


def test_part_of_a_warp_is_refused(kernel_of: Any) -> None:
    kernel = kernel_of(
        """mov.u32 %r1, %tid.x; mov.u32 %r2, 0; setp.gt.u32 %p1, %r1, 30; @%p1 bra DONE;
        mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%r4, %r5, %r6, %r7}, {%r2, %r2}, {%r2}, {%r2, %r2, %r2, %r2};
        DONE: ret;"""
    )
    with pytest.raises(DivergenceError, match=r"mma.*a part of it only"):
        launch(kernel, 1, 32, ())


@pytest.mark.parametrize(
    "text",
    [
        f"mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {FOUR}, {FOUR}, {{%r1, %r2}}, {FOUR};",
        f"mma.sync.aligned.m16n8k8.row.col.f32.f16.bf16.f32 {FOUR}, {{%r1, %r2}}, {{%r1}}, {FOUR};",
        f"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {FOUR}, {{%r1, %r2}}, {{%r1}}, {FOUR};",
        "wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r1}, [%rd1];",
    ],
)
def test_other_shapes_are_refused(kernel_of: Any, text: str) -> None:
    kernel = kernel_of(text + " ret;")
    assert [instruction.line for instruction, _ in unsupported(kernel)] != []
    with pytest.raises(UnsupportedError):
        launch(kernel, 1, 32, ())


@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices_through_shared_memory(kernel_of: Any, count: int, trans: str) -> None:
    """Rows go in by address; element (lane // 4, 2 (lane % 4)) comes out in each register, and back."""
    matrices = np.random.default_rng(3).integers(0, 2**16, (4, 8, 8)).astype(np.uint16)
    names = registers("r", count, 4)
    kernel = kernel_of(
        f"""ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mov.u32 %r1, %tid.x; mad.wide.u32 %rd1, %r1, 16, %rd1;
        mov.u32 %r2, buffer; mad.lo.u32 %r2, %r1, 16, %r2; ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%rd1];
        st.shared.v4.u32 [%r2], {{%r10, %r11, %r12, %r13}}; bar.sync 0;
        ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {names}, [%r2];
        mad.wide.u32 %rd3, %r1, {4 * count}, %rd2;
        {"".join(f"st.global.u32 [%rd3+{4 * i}], %r{4 + i};" for i in range(count))}
        bar.sync 0; mov.u32 %r3, other; mad.lo.u32 %r3, %r1, 16, %r3;
        stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r3], {names}; bar.sync 0;
        setp.ge.u32 %p1, %r1, {8 * count}; @%p1 bra DONE; ld.shared.v4.u32 {{%r10, %r11, %r12, %r13}}, [%r3];
        ld.param.u64 %rd2, [z]; mad.wide.u32 %rd3, %r1, 16, %rd2; st.global.v4.u32 [%rd3], {{%r10, %r11, %r12, %r13}};
        DONE: ret;""",
        ".param .u64 x",
        ".param .u64 y",
        ".param .u64 z",
        before=".shared .align 16 .b8 buffer[512]; .shared .align 16 .b8 other[512];",
    )
    loaded, back = np.zeros((32, count, 2), np.uint16), np.zeros((count, 8, 8), np.uint16)
    launch(kernel, 1, 32, (In(matrices), Out(loaded), Out(back)))
    for lane in range(32):
        for i in range(count):
            matrix = matrices[i].T if trans else matrices[i]
            assert loaded[lane, i].tolist() == matrix[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2].tolist()
    assert (back == matrices[:count]).all()
