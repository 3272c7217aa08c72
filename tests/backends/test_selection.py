"""Which backend is taken, which is passed over or refused, and the line that says why."""

import importlib
import subprocess
import sys
import types
from collections.abc import Callable, Generator, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from minet_sdk import Runtime, backends
from minet_sdk.backends import BACKENDS, Availability, BackendSpec, Need, availability, choose, names, probes
from minet_sdk.backends.base import RunnerOptions
from minet_sdk.cuda.driver import Driver, Gpu
from minet_sdk.errors import BackendError, InputError

ADA = Driver("", (13, 0), (Gpu(0, "Stub", (8, 9)), Gpu(1, "Small", (7, 5))))
NONE = Driver("no NVIDIA driver: libcuda.so.1 is not found")


def spec(name: str) -> BackendSpec:
    return next(s for s in BACKENDS if s.name == name)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[[Driver], None]:
    """Say what the driver answers."""
    return lambda found: monkeypatch.setattr(probes, "probe", lambda: found)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[..., None]]:
    """Say which modules exist; what is imported then is what was given, or fails with the error that was given."""

    def install(**modules: Any) -> None:
        found = {name.replace("__", "."): module for name, module in modules.items()}
        really = importlib.import_module

        def load(name: str) -> Any:
            if isinstance(found.get(name), Exception):
                raise found[name]
            return found[name] if name in found else really(name)

        probes.lacks_libraries.cache_clear()
        monkeypatch.setattr(probes, "_exists", found.__contains__)
        monkeypatch.setattr(probes.importlib, "import_module", load)

    yield install
    probes.lacks_libraries.cache_clear()


def onnxruntime_with(*providers: str, starting: Sequence[str] | None = None) -> types.SimpleNamespace:
    """ONNX Runtime built with these providers, of which some find their libraries; all if it is not said."""

    def session(model: bytes, options: object, providers: list[str]) -> types.SimpleNamespace:
        assert model
        started = [one for one in providers if starting is None or one in starting]
        return types.SimpleNamespace(get_providers=lambda: [*started, "CPUExecutionProvider"])

    return types.SimpleNamespace(
        get_available_providers=lambda: list(providers), SessionOptions=types.SimpleNamespace, InferenceSession=session
    )


def openvino_with(*capabilities: str) -> types.SimpleNamespace:
    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return list(capabilities)

    return types.SimpleNamespace(Core=Core)


def test_the_registry_is_data_in_the_order_of_preference() -> None:
    on_gpus = ("tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt", "onnxruntime-cuda")
    assert names() == (*on_gpus, "native", "openvino", "onnxruntime")
    for entry in BACKENDS:
        values = [getattr(entry, field.name) for field in fields(entry)]
        assert all(isinstance(value, (str, bool, tuple)) for value in values)
        module, _, function = entry.probe.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
        module, _, runner = entry.runner.partition(":")
        assert callable(getattr(importlib.import_module(module), runner))


def test_the_cpu_is_what_is_left_here() -> None:
    assert choose("auto").spec.name == "native"
    assert choose("auto", Need("int8")).spec.name == "openvino"
    assert choose("auto", Need("fp8")).spec.name == "onnxruntime"
    assert availability(spec("onnxruntime")).available
    assert choose("onnxruntime").passed_over == {}


def test_missing_packages_come_first(packages: Callable[..., None], driver: Callable[[Driver], None]) -> None:
    driver(NONE)
    packages()
    for entry in (entry for entry in BACKENDS if entry.package):
        reason = availability(entry).reason
        assert reason == f"package {entry.package} is not installed: pip install 'minet-sdk[{entry.extra}]'"
    packages(tensorrt=object())
    assert "package cuda.core is not installed: pip install 'minet-sdk[tensorrt]'" in availability(BACKENDS[0]).reason
    with pytest.raises(BackendError, match=r"no inference engine can run here: tensorrt: package cuda\.core"):
        choose("auto", Need("bf16"))


def test_without_openvino_the_error_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    message = r"package openvino is not installed: pip install 'minet-sdk\[openvino\]'"
    with pytest.raises(BackendError, match=f"backend openvino cannot run here: {message}"):
        choose("openvino")


def test_the_other_device_layer_needs_the_other_package(
    packages: Callable[..., None], driver: Callable[[Driver], None]
) -> None:
    driver(ADA)
    packages(tensorrt=object(), pycuda=object())
    assert availability(spec("tensorrt"), options=RunnerOptions(device_layer="pycuda")).available
    packages(tensorrt=object(), cuda__core=object())
    found = availability(spec("tensorrt"), options=RunnerOptions(device_layer="pycuda"))
    assert found.reason == "package pycuda is not installed: pip install 'minet-sdk[pycuda]'"


def test_driver_and_device_come_next(packages: Callable[..., None], driver: Callable[[Driver], None]) -> None:
    packages(tensorrt=object(), cuda__core=object(), onnxruntime=onnxruntime_with("CUDAExecutionProvider"))
    driver(NONE)
    for name in ("tensorrt", "onnxruntime-cuda"):
        assert availability(spec(name)).reason == NONE.reason
    driver(ADA)
    assert availability(spec("tensorrt")).available
    assert availability(spec("onnxruntime-cuda"), options=RunnerOptions(device=1)).available
    reason = availability(spec("tensorrt"), options=RunnerOptions(device=2)).reason
    assert reason == "device 2 is asked for and there are 2 GPUs"


def test_a_package_that_does_not_load_is_told(packages: Callable[..., None], driver: Callable[[Driver], None]) -> None:
    driver(ADA)
    packages(tensorrt=ImportError("libnvinfer.so.11: cannot open\nshared object file"), cuda__core=object())
    assert availability(spec("tensorrt")).reason == "package tensorrt does not load: libnvinfer.so.11: cannot open"
    packages(openvino=ImportError("libopenvino.so.2641: cannot open\nshared object file"))
    assert availability(spec("openvino")).reason == "package openvino does not load: libopenvino.so.2641: cannot open"


def test_an_old_driver_is_told(
    packages: Callable[..., None], driver: Callable[[Driver], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(tensorrt=object(), cuda__core=object())
    driver(Driver("", (12, 8), ADA.gpus))
    monkeypatch.setattr(probes, "_is_installed", {"tensorrt-cu13"}.__contains__)
    assert "supports CUDA 12.8 and 13.0 is needed: update the driver" in availability(spec("tensorrt")).reason
    monkeypatch.setattr(probes, "_is_installed", {"tensorrt-cu12"}.__contains__)
    assert availability(spec("tensorrt")).available


def test_the_cuda_version_of_an_installed_package_is_read_from_its_name() -> None:
    assert find_spec("tensorrt_rtx") is not None
    assert probes.cuda_needed("tensorrt_rtx") == (13, 0)
    assert probes.cuda_needed("numpy") is None


def test_two_onnxruntimes_are_a_conflict(packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    packages(onnxruntime=onnxruntime_with("CPUExecutionProvider"))
    monkeypatch.setattr(probes, "_is_installed", {"onnxruntime", "onnxruntime-gpu"}.__contains__)
    for name in ("onnxruntime", "onnxruntime-cuda"):
        assert "both installed and overwrite each other: pip uninstall both" in availability(spec(name)).reason


def test_a_missing_provider_is_told(packages: Callable[..., None], driver: Callable[[Driver], None]) -> None:
    driver(ADA)
    packages(onnxruntime=onnxruntime_with("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert availability(spec("onnxruntime-cuda")).available
    reason = availability(spec("onnxruntime-tensorrt")).reason
    assert "no TensorrtExecutionProvider (it has CUDAExecutionProvider, CPUExecutionProvider)" in reason


def test_a_provider_without_its_libraries_is_told(
    packages: Callable[..., None], driver: Callable[[Driver], None]
) -> None:
    driver(ADA)
    built_with = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    packages(onnxruntime=onnxruntime_with(*built_with, starting=["CUDAExecutionProvider"]))
    assert availability(spec("onnxruntime-cuda")).available
    reason = availability(spec("onnxruntime-tensorrt")).reason
    assert reason.endswith(
        "TensorrtExecutionProvider, but TensorRT's libraries of the version it was built for are not found"
    )
    packages(onnxruntime=onnxruntime_with(*built_with, starting=[]))
    assert "CUDA's libraries or cuDNN" in availability(spec("onnxruntime-cuda")).reason
    assert choose("auto", Need(bare=True)).spec.name == "onnxruntime"


def test_the_real_onnxruntime_starts_what_it_lists() -> None:
    assert not probes.lacks_libraries("onnxruntime", "CPUExecutionProvider")
    assert "NoSuchProvider" in probes.lacks_libraries("onnxruntime", "NoSuchProvider")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_precisions_of_each_backend(
    precision: Any, packages: Callable[..., None], driver: Callable[[Driver], None]
) -> None:
    driver(ADA)
    providers = [s.provider for s in BACKENDS if s.package == "onnxruntime"]
    packages(
        tensorrt=object(),
        tensorrt_rtx=object(),
        cuda__core=object(),
        onnxruntime=onnxruntime_with(*providers),
        openvino=openvino_with("FP32", "BF16", "INT8"),
    )
    need, small = Need(precision), RunnerOptions(device=1)
    able = {s.name for s in BACKENDS if availability(s, need).available}
    assert able == {s.name for s in BACKENDS if precision in s.precisions}
    assert {"tensorrt", "tensorrt-rtx"} <= able
    assert ("onnxruntime" in able) == (precision != "bf16")
    on_turing = availability(spec("tensorrt"), need, small).reason
    least = {"bf16": "8.0", "fp8": "8.9"}.get(precision)
    if least is None:
        assert on_turing == ""
    else:
        assert on_turing == f"{precision} needs compute capability {least} or newer, not 7.5 (Small)"


def test_auto_passes_over_what_cannot_run_the_precision(
    driver: Callable[[Driver], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(NONE)

    def no_instructions(*_: Any) -> str:
        return "this processor has no bfloat16 instructions"

    monkeypatch.setattr(probes, "openvino", no_instructions)
    with pytest.raises(BackendError, match="onnxruntime: runs fp32, fp16, int8, fp8, not bf16") as error:
        choose("auto", Need("bf16"))
    assert "\n" not in str(error.value)
    with pytest.raises(BackendError, match="backend onnxruntime cannot run here: runs fp32, fp16, int8, fp8, not bf16"):
        choose("onnxruntime", Need("bf16"))


def test_a_bare_file_needs_a_backend_that_opens_it(driver: Callable[[Driver], None]) -> None:
    driver(NONE)
    found = choose("auto", Need(bare=True))
    assert found.spec.name == "onnxruntime"
    assert found.passed_over["tensorrt"] == "opens bundles only, not a lone .onnx file"
    with pytest.raises(BackendError, match="backend tensorrt-rtx cannot run here: opens bundles only"):
        choose("tensorrt-rtx", Need(bare=True))


def test_auto_takes_the_first_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    able = {"onnxruntime-cuda", "onnxruntime"}

    def probed(entry: BackendSpec, *_: Any) -> Availability:
        return Availability(entry, "" if entry.name in able else f"no {entry.name}")

    monkeypatch.setattr(backends, "availability", probed)
    found = choose("auto")
    assert found.spec.name == "onnxruntime-cuda"
    assert list(found.passed_over) == ["tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt"]
    with pytest.raises(InputError, match="choose one of auto, tensorrt, tensorrt-rtx"):
        choose("abacus")


def test_nothing_of_a_gpu_is_imported_on_a_cpu(small_bundle: Path) -> None:
    """A process of its own: other tests import everything."""
    code = (
        f"import sys; from minet_sdk import Runtime; Runtime({str(small_bundle)!r}, backend='onnxruntime');"
        "print([m for m in sys.modules if m.split('.')[0] in ('cuda', 'pycuda', 'tensorrt', 'tensorrt_rtx')"
        " or m.startswith(('minet_sdk.kernels', 'minet_sdk.cuda.')) and m != 'minet_sdk.cuda.driver'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"device": -1}, "ordinal of a GPU"), ({"device_layer": "cupy"}, "choose one of cuda-core, pycuda")],
)
def test_bad_device_options(small_bundle: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Runtime(small_bundle, **options)
