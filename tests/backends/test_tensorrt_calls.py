"""What the builder asks of TensorRT, which cannot be installed without its GPU libraries.

It is recorded in real builds with TensorRT-RTX, whose interface is the same, and compared with the bindings of two
versions of TensorRT.
"""

import json
import subprocess
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minet_sdk.backends.tensorrt_builder import engine_from_onnx
from minet_sdk.backends.tensorrt_log import logger_of
from minet_sdk.bundle import Bundle
from minet_sdk.errors import BackendError, InputError
from minet_sdk.profiles import Profile

trt: Any = pytest.importorskip("tensorrt_rtx", reason="pip install 'minet-sdk[tensorrt-rtx]'")

STATIC = Profile((1, 40, 32), (1, 40, 32), (1, 40, 32))
DYNAMIC = Profile((1, 16, 16), (1, 40, 32), (3, 64, 64))
BINDINGS = Path(sys.prefix) / "tensorrt"
VERSIONS = ("10.16.1.11", "11.4.0.106")
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")


class Recording:
    """Stands before TensorRT-RTX's module or one of its objects and notes which members are used, and how."""

    def __init__(
        self,
        subject: Any,
        used: dict[tuple[str, str], str] | None = None,
        on_build: Callable[[Any], None] | None = None,
    ) -> None:
        self.pretend(subject=subject, used={} if used is None else used, on_build=on_build, made=[])

    def pretend(self, **members: Any) -> None:
        """Have members of its own, which are not noted."""
        self.__dict__.update(members)

    def _note(self, name: str) -> None:
        kind = type(self.subject)
        if isinstance(self.subject, types.ModuleType):
            self.used["", name] = ""
        elif isinstance(self.subject, type):
            self.used[self.subject.__name__, name] = ""
        else:
            self.used[kind.__name__, name] = (getattr(kind, name).__doc__ or "").split("\n")[0]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.subject, name)
        if name.startswith("__"):
            return value
        self._note(name)
        if isinstance(value, type):
            if issubclass(value, trt.ILogger):
                return value
            recording = Recording(value, self.used, self.on_build)
            recording.pretend(made=self.made)
            return recording
        if not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            if name == "build_serialized_network" and self.on_build is not None:
                self.on_build(arguments[1].subject)
            result = value(*(a.subject if isinstance(a, Recording) else a for a in arguments))
            ours = type(result).__module__.startswith("tensorrt_rtx") and not hasattr(type(result), "__members__")
            if not ours or isinstance(result, trt.IHostMemory | trt.Dims):
                return result
            return self._follow(result)

        return call

    def _follow(self, made: Any) -> "Recording":
        """Note what is made with it too, and whether it lives."""
        self.made.append((type(made).__name__, weakref.ref(made)))
        recording = Recording(made, self.used, self.on_build)
        recording.pretend(made=self.made)
        return recording

    def __call__(self, *arguments: Any) -> Any:
        return self._follow(self.subject(*(a.subject if isinstance(a, Recording) else a for a in arguments)))

    def __setattr__(self, name: str, value: Any) -> None:
        self._note(name)
        setattr(self.subject, name, value)


def as_tensorrt(recording: Recording, version: str = VERSIONS[0]) -> Recording:
    """The recording under TensorRT's name, so that the builder takes the way of TensorRT."""
    recording.pretend(__name__="tensorrt", __version__=version)
    return recording


@pytest.fixture(scope="module")
def made(make_bundle: Callable[..., Bundle]) -> Bundle:
    """A float16 bundle; nobody changes it."""
    return make_bundle("fp16")


def test_float32_is_float32_unless_tf32_is_asked_for(small_bundle: Path) -> None:
    graph = small_bundle / "target.onnx"
    flags: list[int] = []

    def note(config: Any) -> None:
        flags.append(config.flags)

    recording = Recording(trt, on_build=note)
    for tf32 in (False, True):
        assert engine_from_onnx(recording, graph, [STATIC], tf32=tf32).settings == (("tf32",) if tf32 else ())
    bit = 1 << int(trt.BuilderFlag.TF32)
    assert [bool(value & bit) for value in flags] == [False, True]
    assert all(value & (1 << int(trt.BuilderFlag.STRICT_NANS)) for value in flags)


def test_profiles_that_no_gpu_holds_are_refused_before_the_builder_reserves_memory(made: Bundle) -> None:
    huge = Profile((1, 16, 16), (1, 40, 32), (256, 4096, 4096))
    recording = Recording(trt)
    with pytest.raises(BackendError, match=r"with targets of 256x4096x4096 the tensor reference has 17179869184 elem"):
        engine_from_onnx(recording, made.graph("reference"), [DYNAMIC, huge])
    assert not any(name == "build_serialized_network" for _, name in recording.used)


def test_options_of_the_other_engine_are_refused(made: Bundle) -> None:
    graph = made.graph("reference")
    with pytest.raises(InputError, match="are options of tensorrt"):
        engine_from_onnx(trt, graph, [STATIC], version_compatible=True)
    with pytest.raises(InputError, match="are options of tensorrt"):
        engine_from_onnx(trt, graph, [STATIC], hardware_compatible=True)
    with pytest.raises(InputError, match="for tensorrt-rtx only"):
        engine_from_onnx(as_tensorrt(Recording(trt)), graph, [STATIC], compute_capabilities=[(8, 9)])


def test_a_failed_build_keeps_no_builder(made: Bundle) -> None:
    """One that is freed by a garbage collection in a call of the logger waits for a lock that TensorRT holds."""
    recording = Recording(trt)
    with pytest.raises(BackendError) as caught:
        engine_from_onnx(recording, made.graph("target"), [STATIC], compute_capabilities=[(9, 0)])
    assert {"Builder", "INetworkDefinition", "OnnxParser", "IBuilderConfig"} <= {kind for kind, _ in recording.made}
    assert [kind for kind, reference in recording.made if reference() is not None] == []
    assert "compute capability 9.0" in str(caught.value), "the error is still held"


def test_a_recording_shares_the_logger() -> None:
    """Or what follows would look at another way of building than the one that is taken."""
    assert logger_of(Recording(trt)) is logger_of(trt)


COMPARE = """
import json, re, sys
sys.path.insert(0, str(sys.argv[1]))
import ctypes
for library in sys.argv[2:]:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
import tensorrt_bindings as trt
problems = []
for kind, name, signature in json.load(sys.stdin):
    owner = getattr(trt, kind, None) if kind else trt
    if not hasattr(owner, name):
        problems.append(f"{kind}.{name} is missing")
    elif signature.replace("tensorrt_rtx", "tensorrt") not in (getattr(owner, name).__doc__ or ""):
        problems.append(f"{kind}.{name} is not {signature}")
print(json.dumps({"version": trt.__version__, "problems": problems}))
"""

START = """
import ctypes, sys
from pathlib import Path
sys.path.insert(0, str(sys.argv[1]))
for library in sys.argv[3:]:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
import tensorrt_bindings as bindings
sys.modules["tensorrt"] = bindings
from minet_sdk.bundle import open_bundle
from minet_sdk.cuda.driver import Driver, Gpu
from minet_sdk.export import engines
print(engines.obstacle("tensorrt", "fp16"))
engines.probe = lambda: Driver("", (13, 0), (Gpu(0, "NVIDIA L4", (8, 9)),))
print(engines.obstacle("tensorrt", "fp16"))
print(*engines.build_engines(open_bundle(sys.argv[2]), ["tensorrt"], graphs=["reference"]))
"""


@pytest.fixture(scope="module")
def asked(made: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """Every member of TensorRT's interface that the builder uses, with the signature that TensorRT-RTX declares."""
    used: dict[tuple[str, str], str] = {}
    graph, cache = made.graph("reference"), tmp_path_factory.mktemp("timings") / "folder" / "timings.cache"
    recording = as_tensorrt(Recording(trt, used))
    for step in ("write the cache", "read it"):
        with pytest.warns(DeprecationWarning, match="Timing cache operations are no-ops"):
            built = engine_from_onnx(recording, graph, [STATIC, DYNAMIC], hardware_compatible=True, timing_cache=cache)
        assert cache.stat().st_size > 0, step
        assert not [remark for remark in built.remarks if "cannot be written" in remark]
    with pytest.warns(DeprecationWarning, match="Timing cache operations are no-ops"):
        built = engine_from_onnx(recording, graph, [STATIC], hardware_compatible=True, timing_cache=cache / "in a file")
    assert "in a file cannot be written" in built.remarks[-1]
    assert (built.engine, built.engine_version) == ("tensorrt", VERSIONS[0])
    assert built.settings == ("hardware-compatible",)
    with pytest.raises(BackendError, match="libnvinfer_lean"):
        engine_from_onnx(recording, graph, [STATIC], version_compatible=True)
    with pytest.raises(BackendError, match="initializer"):
        engine_from_onnx(recording, graph.read_bytes(), [STATIC])
    engine_from_onnx(recording, graph.read_bytes(), [STATIC], weights_beside=graph, tf32=True)
    names = {name for _, name in used}
    assert {"build_serialized_network", "add_optimization_profile", "set_timing_cache", "get_error"} <= names
    return [(kind, name, signature) for (kind, name), signature in sorted(used.items())]


def libraries_of(stubs: Path, version: str) -> list[str]:
    return [str(stubs / f"lib{library}.so.{version.split('.')[0]}") for library in LIBRARIES]


def compare(asked: list[tuple[str, str, str]], version: str, stubs: Path) -> list[str]:
    command = [sys.executable, "-c", COMPARE, str(BINDINGS / version), *libraries_of(stubs, version)]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(done.stdout)
    assert answer["version"] == version
    return answer["problems"]


needs_bindings = pytest.mark.skipif(
    not all((BINDINGS / version).is_dir() for version in VERSIONS) or not sysconfig.get_platform().startswith("linux"),
    reason=f"the bindings of TensorRT are not in {BINDINGS}: make test installs them there",
)


@needs_bindings
@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_has_all_that_the_builder_asks_of_it(
    asked: list[tuple[str, str, str]], tensorrt_stubs: Path, version: str
) -> None:
    assert compare(asked, version, tensorrt_stubs) == []


@needs_bindings
def test_what_tensorrt_lacks_would_be_noticed(tensorrt_stubs: Path) -> None:
    planted = [
        ("Builder", "build_cuda_engine", ""),
        ("IBuilderConfig", "set_flag", "set_flag(self: anything, flag: str) -> None"),
        ("", "ComputeCapability", ""),
    ]
    assert len(compare(planted, VERSIONS[1], tensorrt_stubs)) == len(planted)


@needs_bindings
@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_that_does_not_start_is_one_line(made: Bundle, tensorrt_stubs: Path, version: str) -> None:
    libraries = libraries_of(tensorrt_stubs, version)
    command = [sys.executable, "-c", START, str(BINDINGS / version), str(made.location), *libraries]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    without_gpu, with_gpu, outcome = done.stdout.splitlines()
    assert without_gpu.startswith("its builder measures kernels on the GPU that the plan is for: ")
    assert with_gpu == ""
    assert "status='failed'" in outcome
    assert "cannot make a builder here" in outcome
