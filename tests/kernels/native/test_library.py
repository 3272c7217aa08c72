"""The C library beyond its arithmetic: damaged files, memory, wrong arguments, and use from C without Python."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from minet_sdk.backends.native import NativeEngine, NativePlan
from minet_sdk.backends.native_library import Information, Options, library, library_path
from minet_sdk.bundle import locate
from minet_sdk.errors import BackendError, BundleError, InputError
from minet_sdk.export.native_program import Code, Kind, Program, Tensor
from minet_sdk.kspace import degrade
from minet_sdk.runtime import Runtime

ROOT = Path(__file__).resolve().parents[3]
INCLUDE = ROOT / "kernels" / "native" / "include"
OK, INVALID_ARGUMENT, BAD_PLAN, OVER_LIMIT = 0, 1, 3, 6


def compile_against_library(source: Path, output: Path, *flags: str) -> Path:
    """With the compiler for the source's language; skips the test where there is none."""
    compiler = shutil.which("g++" if source.suffix == ".cpp" else "gcc")
    if compiler is None:
        pytest.skip("no compiler")
    compiled = library_path()
    command = [compiler, *flags, "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}", source, compiled, "-lm", "-pthread"]
    subprocess.run([*command, f"-Wl,-rpath,{compiled.parent}", "-o", output], check=True)
    return output


@pytest.fixture
def small(draft: Any) -> tuple[Program, bytes]:
    """A program with a reference, whose features are an image and a matrix."""
    draft.scale = 2
    target, reference = Tensor(Kind.IMAGE, 16), Tensor(Kind.IMAGE, 1, 2)
    guides = [draft.convolution([reference], 16) for _ in range(2)]
    known = draft.add(Code.GRAM, guides, Tensor(Kind.MATRIX, 2))
    fine = draft.convolution([target], 64, shuffle=2)
    gram = draft.add(Code.GRAM, [*guides, fine], Tensor(Kind.MATRIX, 3), known=known)
    matrix = draft.add(Code.AFFINITY, [gram], Tensor(Kind.MATRIX, 3), mode="cosine")
    mixed = draft.convolution([*guides, fine], 16, mixing=matrix)
    return draft.program(target, draft.convolution([mixed], 1), reference), bytes(draft.weights)


@pytest.fixture
def folder(small: tuple[Program, bytes], tmp_path: Path) -> Path:
    """The program and its weights as files."""
    program, weights = small
    (tmp_path / "native.plan").write_bytes(program.to_bytes(weights))
    (tmp_path / "weights.bin").write_bytes(weights)
    return tmp_path


def images(height: int = 9, width: int = 14) -> tuple[Any, Any]:
    rng = np.random.default_rng(2)
    target = rng.standard_normal((height, width, 16)).astype(np.float32)
    return target, rng.standard_normal((2 * height, 2 * width)).astype(np.float32)


def _cut(end: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:end]


def _put(place: int, change: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content[:place] + change + content[place + len(change) :]


def test_damaged_plans_and_many_callers(tmp_path: Path, folder: Path, make_small_plan: Callable[[], Path]) -> None:
    """Thousands of plans, in a process of their own so that a crash is a failure and not the end of all tests.

    `make sanitize` sets MINET_SANITIZER: then engine and program are compiled together, with that sanitizer.
    """
    source, output, plans = Path(__file__).with_name("stress.cpp"), tmp_path / "stress", "3000"
    sanitizer = os.environ.get("MINET_SANITIZER")
    if sanitizer:
        build, plans = ROOT / "kernels" / "native" / "build.py", "1000"
        options = ["--program", source, "--output", output, "--sanitizer", sanitizer]
        subprocess.run([sys.executable, build, *options], check=True)
    else:
        compile_against_library(source, output, "-std=c++17", "-O1")
    for path in (folder, make_small_plan()):
        done = subprocess.run([output, path, plans], capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        assert f"{plans} damaged plans" in done.stdout


def test_threads_of_an_engine(tmp_path: Path) -> None:
    """Callers that meet share them, too many of them get along without helpers; each thread keeps its stretch."""
    compiler, source = shutil.which("g++"), ROOT / "kernels" / "native" / "src"
    if compiler is None:
        pytest.skip("no compiler")
    program = [Path(__file__).with_name("pool.cpp"), source / "pool.cpp", f"-I{source}", "-o", tmp_path / "pool"]
    subprocess.run([compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *program], check=True)

    def found(threads: int, callers: int) -> tuple[int, int, int]:
        command = [tmp_path / "pool", str(threads), str(callers)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        working, helpers, own_share = map(int, done.stdout.split())
        return working, helpers, own_share

    working, helpers, own_share = found(4, 1)
    assert (working, helpers) == (4, 3)
    assert own_share >= 60  # of tasks handed to whoever comes first it would be a quarter
    for callers in (2, 3):
        working, helpers, _ = found(4, callers)
        assert working == 4
        assert helpers >= 4 - callers
    assert found(4, 4)[:2] == (4, 0)
    assert found(2, 5)[:2] == (5, 0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("native.plan", _cut(-1), "damaged: its checksum differs"),
        ("native.plan", _cut(40), "truncated"),
        ("native.plan", _cut(0), "truncated"),
        ("native.plan", _put(0, b"PK"), "is no plan"),
        ("native.plan", _put(8, b"\x09"), "format 9, this library reads format 1"),
        ("native.plan", _put(70, b"\x77"), "damaged: its checksum differs"),
        ("weights.bin", _cut(-4), "bytes, native.plan expects"),
        ("weights.bin", _put(1, b"\x7f\x7f"), "weights.bin is damaged"),
    ],
)
def test_damage_is_named(folder: Path, name: str, change: Callable[[bytes], bytes], message: str) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    with pytest.raises(BundleError, match=message):
        NativePlan(folder)


@pytest.mark.parametrize("name", ["native.plan", "weights.bin"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        NativePlan(folder)


def test_wrong_images_and_features_are_refused(small: tuple[Program, bytes], engine_of: Any) -> None:
    program, weights = small
    engine, other = engine_of(program, weights), engine_of(program, weights)
    target, reference = images()
    for call, message in (
        (lambda: engine.run(target), "needs a reference"),
        (lambda: engine.restore(target), "needs a reference"),
        (lambda: engine.prepare(reference[:, :-1]), "expected multiples of 2"),
        (lambda: engine.restore(target, engine.prepare(reference[2:])), "the features fit a target of 8 x 14"),
        (lambda: engine.restore(target, other.prepare(reference)), "come from another plan"),
        (lambda: engine.run(target, reference[2:]), "the reference is"),
        (lambda: engine.run(target[..., 0], reference), "the target has shape"),
        (lambda: engine.memory(0, 5), "expected 1 to"),
        (lambda: engine.memory(1 << 20, 5), "expected 1 to"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    np.testing.assert_array_equal(engine.run(target, reference), engine.restore(target, engine.prepare(reference)))


def test_features_serve_every_engine_of_a_plan_and_outlive_theirs(small: tuple[Program, bytes]) -> None:
    program, weights = small
    plan = NativePlan(program=program.to_bytes(weights), weights=weights)
    target, reference = images()
    engine = NativeEngine(plan, threads=1)
    expected, features = engine.run(target, reference), engine.prepare(reference)
    del engine
    np.testing.assert_array_equal(NativeEngine(plan, threads=3).restore(target, features), expected)


def test_memory_limit_holds(small: tuple[Program, bytes], engine_of: Any) -> None:
    program, weights = small
    needed = engine_of(program, weights).memory(9, 14)
    assert needed.run == max(needed.prepare, needed.restore) + needed.features
    target, reference = images()
    just = engine_of(program, weights, memory_limit=needed.weights + needed.run)
    just.run(target, reference)
    tight = engine_of(program, weights, memory_limit=needed.weights + needed.run - 1)
    with pytest.raises(BackendError, match="the memory limit is"):
        tight.run(target, reference)
    with pytest.raises(BackendError, match="the memory limit is"):
        just.run(*images(20, 20))


def test_workspace_of_the_caller(small: tuple[Program, bytes], engine_of: Any) -> None:
    """The engine stays inside it: what lies around is as it was."""
    program, weights = small
    engine = engine_of(program, weights)
    target, reference = images()
    expected, needed = engine.run(target, reference), engine.memory(9, 14)
    loaded, handle = library(), engine.handle
    margin = 4096
    memory = np.full(needed.run + 2 * margin, 0xA5, np.uint8)
    start = margin + (-(memory.ctypes.data + margin)) % 64
    restored = np.empty_like(expected)

    def run(offset: int, size: int) -> int:
        return loaded.minet_run(
            handle, target.ctypes.data, 9, 14, reference.ctypes.data, restored.ctypes.data,
            memory.ctypes.data + offset, size,
        )  # fmt: skip

    assert run(start, needed.run) == OK
    np.testing.assert_array_equal(restored, expected)
    assert (memory[:start] == 0xA5).all()
    assert (memory[start + needed.run :] == 0xA5).all()
    assert run(start, needed.run - 1) == INVALID_ARGUMENT
    assert b"minet_engine_memory" in loaded.minet_last_error()
    assert run(start + 4, needed.run) == INVALID_ARGUMENT
    assert b"aligned" in loaded.minet_last_error()


def test_null_pointers_and_other_structures_are_refused(small: tuple[Program, bytes], engine_of: Any) -> None:
    program, weights = small
    engine = engine_of(program, weights)
    loaded, plan = library(), engine.plan.handle
    assert loaded.minet_plan_open(None, None) == INVALID_ARGUMENT
    assert loaded.minet_plan_from_memory(b"", 0, b"", 0, ctypes.byref(ctypes.c_void_p())) == BAD_PLAN
    assert loaded.minet_engine_create(None, None, None) == INVALID_ARGUMENT
    assert loaded.minet_run(engine.handle, None, 1, 1, None, None, None, 0) == INVALID_ARGUMENT
    assert loaded.minet_prepare(None, None, 1, 1, None, 0, None) == INVALID_ARGUMENT
    assert loaded.minet_restore(None, None, 1, 1, None, None, None, 0) == INVALID_ARGUMENT
    older = Information(8)
    assert loaded.minet_plan_query(plan, ctypes.byref(older)) == INVALID_ARGUMENT
    options = Options(ctypes.sizeof(Options), 1, 9, 0, 0)
    assert loaded.minet_engine_create(plan, ctypes.byref(options), ctypes.byref(ctypes.c_void_p())) == INVALID_ARGUMENT
    loaded.minet_plan_close(None)
    loaded.minet_engine_destroy(None)
    loaded.minet_features_free(None)


@pytest.mark.parametrize("right", [True, False])
def test_c_example_restores_as_python_does(tmp_path: Path, right: bool) -> None:
    """From magnitudes to magnitudes, to the bit; with a reference that the runtime uses and one that it does not."""
    example = compile_against_library(ROOT / "examples" / "c" / "restore.c", tmp_path / "restore", "-std=c11", "-O2")
    rng = np.random.default_rng(4)
    truth = ndimage.gaussian_filter(rng.gamma(2, 100, (84, 66)), 1.5).astype(np.float32)
    target, reference = degrade(truth, 2), 500 - truth if right else rng.gamma(2, 100, truth.shape).astype(np.float32)
    target.tofile(tmp_path / "target.raw")
    reference.tofile(tmp_path / "reference.raw")
    arguments = [locate("minet-fast-x2"), "target.raw", "42", "33", "reference.raw", "restored.raw"]
    done = subprocess.run([example, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("restored without it" in done.stdout) is not right
    result = np.fromfile(tmp_path / "restored.raw", np.float32).reshape(84, 66)
    with Runtime("minet-fast-x2", backend="native", threads=1) as runtime:
        np.testing.assert_array_equal(result, runtime(target, reference))
        assert runtime.stats().unguided == (0 if right else 1)


def test_c_example_says_what_is_wrong(tmp_path: Path) -> None:
    example = compile_against_library(ROOT / "examples" / "c" / "restore.c", tmp_path / "restore", "-std=c11", "-O2")
    failed = subprocess.run(
        [example, tmp_path, "target.raw", "9", "9", "-", "restored.raw"], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert "native.plan is missing" in failed.stderr


def test_library_needs_no_cpp_library() -> None:
    """A wheel must not depend on the C++ library of the machine that it was built on."""
    if sys.platform != "linux" or shutil.which("ldd") is None:
        pytest.skip("no ldd")
    listed = subprocess.run(["ldd", library_path()], capture_output=True, text=True, check=True).stdout
    assert "libstdc++" not in listed
