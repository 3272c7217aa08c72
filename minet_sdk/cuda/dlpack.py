"""DLPack by hand: read what a capsule says of an array, and put memory of our own into one.

The structures are those of dlpack.h, in the form without a version that every consumer understands and in the one with
a version that producers may answer with.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minet_sdk.errors import InputError

CPU = 1
CUDA = 2
CUDA_MANAGED = 13
"""Of the enumeration DLDeviceType."""

_NAME, _VERSIONED_NAME = b"dltensor", b"dltensor_versioned"
_MAJOR_VERSION = 1
_FLOAT = 2
_KINDS = {0: "i", 1: "u", _FLOAT: "f", 5: "c", 6: "b"}


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("ordinal", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """DLManagedTensor."""


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _python(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of Python's C interface, apart from everybody else's declaration of it."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_capsule_new = _python("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_is_valid = _python("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_pointer = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
_is_valid_address = _python("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_pointer_address = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)


@dataclass(frozen=True)
class Content:
    """What a capsule says."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    """In elements; None is C-contiguous."""

    dtype: str
    """NumPy's name, or DLPack's code where NumPy has none."""

    device: tuple[int, int]
    """Type and ordinal."""


def read(capsule: Any, role: str) -> Content:
    """What a capsule says. It stays unused: as long as it lives, the array lives.

    Args:
        capsule: of an array's ``__dlpack__``.
        role: what the array is, for the error.

    Raises:
        InputError: not a DLPack capsule, already used, or of a version to come.
    """
    if _is_valid(capsule, _VERSIONED_NAME):
        versioned = _Versioned.from_address(_pointer(capsule, _VERSIONED_NAME))
        if versioned.major != _MAJOR_VERSION:
            raise InputError(f"{role} comes as DLPack {versioned.major}.{versioned.minor}; expected {_MAJOR_VERSION}.x")
        tensor = versioned.tensor
    elif _is_valid(capsule, _NAME):
        tensor = _Managed.from_address(_pointer(capsule, _NAME)).tensor
    else:
        raise InputError(f"{role}: its __dlpack__ gave {capsule!r}; expected an unused DLPack capsule")
    return Content(
        address=(tensor.data or 0) + tensor.byte_offset,
        shape=tuple(tensor.shape[: tensor.ndim]),
        strides=tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None,
        dtype=_dtype_name(tensor.dtype),
        device=(tensor.device.type, tensor.device.ordinal),
    )


def _dtype_name(dtype: _DataType) -> str:
    if dtype.lanes == 1 and dtype.code in _KINDS and dtype.bits % 8 == 0:
        try:
            return np.dtype(f"{_KINDS[dtype.code]}{dtype.bits // 8}").name
        except TypeError:
            pass
    return f"DLPack code {dtype.code} of {dtype.bits} bits x {dtype.lanes}"


_exported: dict[int, tuple[Any, ...]] = {}
"""What consumers hold, by the address of its structure; DLPack keeps no Python reference for us."""


def export(address: int, shape: tuple[int, ...], device: tuple[int, int], owner: Any) -> Any:
    """A capsule of C-contiguous float32 memory; ``owner`` is kept until the consumer or the capsule lets go.

    Args:
        address: of the first element.
        shape: of the array.
        device: type and ordinal.
        owner: whatever frees the memory.
    """
    dims = (ctypes.c_int64 * len(shape))(*shape)
    managed = _Managed()
    managed.tensor = _Tensor(
        address,
        _Device(*device),
        len(shape),
        _DataType(_FLOAT, 32, 1),
        ctypes.cast(dims, ctypes.POINTER(ctypes.c_int64)),
    )
    managed.deleter = _release
    key = ctypes.addressof(managed)
    _exported[key] = (managed, dims, owner)
    return _capsule_new(key, _NAME, ctypes.cast(_drop_unused, ctypes.c_void_p))


@_Deleter
def _release(managed: Any) -> None:
    """Called once by whoever consumed the capsule."""
    _exported.pop(ctypes.addressof(managed.contents), None)


@_Destructor
def _drop_unused(capsule: int) -> None:
    """Called when a capsule dies; one that was consumed has another name by then."""
    if _is_valid_address(capsule, _NAME):
        _exported.pop(_pointer_address(capsule, _NAME), None)
