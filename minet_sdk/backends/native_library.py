"""The native engine's C library as `kernels/native/include/minet.h` declares it: structures, functions, statuses."""

import ctypes
import functools
import os
from importlib import resources
from pathlib import Path
from typing import Any

from minet_sdk.errors import BackendError, BundleError, InputError

ABI = 1
INVALID_ARGUMENT, FILE_ERROR, BAD_PLAN = 1, 2, 3
"""Statuses that are not the engine's own trouble."""

ISAS = ("best", "avx2", "avx512")
"""Instruction sets in the order of their numbers."""


def _structure(name: str, *fields: tuple[str, Any]) -> type[ctypes.Structure]:
    """A structure of minet.h, whose first field is its own size."""
    return type(name, (ctypes.Structure,), {"_fields_": [("size", ctypes.c_uint32), *fields]})


Options = _structure(
    "Options",
    ("threads", ctypes.c_uint32),
    ("isa", ctypes.c_uint32),
    ("reserved", ctypes.c_uint32),
    ("memory_limit", ctypes.c_uint64),
)
Information = _structure(
    "Information",
    ("format", ctypes.c_uint32),
    ("scale", ctypes.c_uint32),
    ("needs_reference", ctypes.c_uint32),
    ("target_channels", ctypes.c_uint32),
    ("reference_channels", ctypes.c_uint32),
    ("restored_channels", ctypes.c_uint32),
    ("operations", ctypes.c_uint32),
    ("weight_bytes", ctypes.c_uint64),
)
MemoryFigures = _structure(
    "MemoryFigures",
    ("reserved", ctypes.c_uint32),
    ("weights", ctypes.c_uint64),
    ("features", ctypes.c_uint64),
    ("prepare", ctypes.c_uint64),
    ("restore", ctypes.c_uint64),
    ("run", ctypes.c_uint64),
)


class Level(ctypes.Structure):
    """minet_level, which never grows and holds no size."""

    _fields_ = (("mean", ctypes.c_double), ("deviation", ctypes.c_double))


_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "minet_version": (ctypes.c_char_p, ()),
    "minet_abi": (ctypes.c_uint32, ()),
    "minet_last_error": (ctypes.c_char_p, ()),
    "minet_supports": (ctypes.c_int, (ctypes.c_int,)),
    "minet_plan_open": (ctypes.c_int, (ctypes.c_char_p, ctypes.c_void_p)),
    "minet_plan_from_memory": (
        ctypes.c_int,
        (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p),
    ),
    "minet_plan_close": (None, (ctypes.c_void_p,)),
    "minet_plan_query": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_void_p)),
    "minet_engine_create": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)),
    "minet_engine_destroy": (None, (ctypes.c_void_p,)),
    "minet_engine_threads": (ctypes.c_uint32, (ctypes.c_void_p,)),
    "minet_engine_isa": (ctypes.c_int, (ctypes.c_void_p,)),
    "minet_engine_memory": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
    ),
    "minet_prepare": (
        ctypes.c_int,
        (
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32),
            *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
        ),
    ),
    "minet_restore": (
        ctypes.c_int,
        (
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
        ),
    ),
    "minet_run": (
        ctypes.c_int,
        (
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
        ),
    ),
    "minet_features_free": (None, (ctypes.c_void_p,)),
    "minet_normalise": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_double, ctypes.c_void_p, ctypes.c_void_p),
    ),
    "minet_undo": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p),
    ),
    "minet_see": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
    ),
    "minet_seen_bytes": (ctypes.c_size_t, (ctypes.c_void_p,)),
    "minet_trust": (
        ctypes.c_int,
        (*(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32), ctypes.c_void_p, ctypes.c_void_p),
    ),
    "minet_seen_free": (None, (ctypes.c_void_p,)),
    "minet_put_back": (
        ctypes.c_int,
        (*(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p), ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
    ),
}


def library_path() -> Path:
    """Where the compiled library is, if it was compiled."""
    return Path(str(resources.files("minet_sdk.kernels"))) / "native" / "libminet.so"


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library with its signatures; see `load`."""
    return load(library_path())


def load(path: Path) -> ctypes.CDLL:
    """A compiled library with the signatures of its functions.

    Raises:
        BackendError: it cannot be loaded, or is of another version.
    """
    try:
        loaded = ctypes.CDLL(os.fspath(path))
    except OSError as error:
        raise BackendError(f"{path} cannot be loaded ({error}): install minet-sdk again") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name, None)
        if function is None:
            raise BackendError(f"{path} has no {name}: install minet-sdk again")
        function.restype, function.argtypes = result, list(arguments)
    if loaded.minet_abi() != ABI:
        raise BackendError(f"{path} has interface {loaded.minet_abi()}, expected {ABI}: install minet-sdk again")
    return loaded


def check(status: int) -> None:
    """Raise what a status says, with the library's own text.

    Raises:
        InputError: an image or a setting does not fit.
        BundleError: the plan or its weights are missing or damaged.
        BackendError: anything else.
    """
    if status:
        text = str(library().minet_last_error().decode(errors="replace"))
        kind = {INVALID_ARGUMENT: InputError, FILE_ERROR: BundleError, BAD_PLAN: BundleError}
        raise kind.get(status, BackendError)(text)
