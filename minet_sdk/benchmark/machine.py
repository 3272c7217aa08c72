"""Which machine the figures belong to, and whether it was quiet: how much of it others used meanwhile."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

PACKAGES = ("minet-sdk", "numpy", "torch", "onnx", "onnxruntime", "openvino", "tensorrt-cu13", "tensorrt-rtx-cu13")

INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve")

QUIET_SHARE = 0.03
"""Of the cores' time; what others use beyond it makes a measurement unquiet."""

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """Processor, instruction sets, system, memory and versions; plain data."""
    processor = _processor()
    flags = processor.get("flags", processor.get("Features", "")).split()
    return {
        "processor": processor.get("model name", platform.processor() or platform.machine()),
        "cores": cores(),
        "instruction_sets": instruction_sets(),
        "virtual": "hypervisor" in flags,
        "governor": _read(_GOVERNOR) or "not visible",
        "memory_gib": _memory_gib(),
        "system": platform.platform(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def instruction_sets() -> list[str]:
    """Those of `INSTRUCTION_SETS` that the processor has; empty where the system does not tell."""
    flags = _processor().get("flags", _processor().get("Features", "")).split()
    return [name for name in INSTRUCTION_SETS if name in flags]


def free_memory_share() -> float:
    """Part of the memory that programs can still have; 1 where the system does not tell."""
    lines = (line.split() for line in _read(Path("/proc/meminfo")).splitlines())
    sizes = {words[0]: int(words[1]) for words in lines}
    return sizes["MemAvailable:"] / sizes["MemTotal:"] if "MemAvailable:" in sizes else 1.0


class _Ticks(NamedTuple):
    """Seconds of processor time."""

    busy: float
    stolen: float
    own: float


class LoadWatch:
    """Measures, from enter to exit, how much processor time others used; Linux tells, other systems do not.

    Own time is that of this process and of the children that have ended and been waited for.
    """

    def __init__(self) -> None:
        self.report: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._load, self._started, self._before = _load_average(), time.perf_counter(), _ticks()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds, after = time.perf_counter() - self._started, _ticks()
        self.report = {"seconds": round(seconds, 1), "load_average": [self._load, _load_average()]}
        if self._before is None or after is None:
            self.report |= {"others_share": None, "stolen_share": None, "warning": "this system tells no load"}
            return
        available = seconds * cores()
        others = (after.busy - self._before.busy - (after.own - self._before.own)) / available
        stolen = (after.stolen - self._before.stolen) / available
        self.report |= {"others_share": round(max(others, 0.0), 4), "stolen_share": round(max(stolen, 0.0), 4)}
        self.report["warning"] = unquiet(others, stolen)


def unquiet(others: float, stolen: float) -> str:
    """What was wrong with the quiet, in words; empty if nothing was.

    Args:
        others: share of the cores' time that other processes used.
        stolen: share that the hypervisor gave to other machines.
    """
    causes = ((others, "other processes"), (stolen, "other virtual machines"))
    found = [f"{who} used {share:.0%} of the cores" for share, who in causes if share > QUIET_SHARE]
    return f"not a quiet machine: {', '.join(found)}" if found else ""


def _ticks() -> _Ticks | None:
    first = _read(Path("/proc/stat")).split("\n")[0].split()
    if not first or first[0] != "cpu":
        return None
    user, nice, system, _, _, interrupt, soft, stolen = (int(value) for value in first[1:9])
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    per_second = os.sysconf("SC_CLK_TCK")
    return _Ticks((user + nice + system + interrupt + soft) / per_second, stolen / per_second, own)


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor() -> dict[str, str]:
    first = _read(Path("/proc/cpuinfo")).split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
