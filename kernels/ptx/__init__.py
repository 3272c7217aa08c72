"""Run compiled CUDA kernels (PTX) with NumPy only, and be told what they do wrong: no GPU, no driver, no CUDA.

module = parse(text)
launch(module["my_kernel"], grid=4, block=128, arguments=(In(x), x.size, Out(y)))
"""

from minet_sdk.kernels.ptx.arguments import In, InOut, Out
from minet_sdk.kernels.ptx.coverage import Coverage
from minet_sdk.kernels.ptx.errors import (
    ArgumentError,
    BarrierError,
    DivergenceError,
    DivisionError,
    HangError,
    MisalignedError,
    OutOfBoundsError,
    PtxError,
    PtxSyntaxError,
    RaceError,
    ReadOnlyError,
    TrapError,
    UninitialisedError,
    UnsupportedError,
    UnwrittenError,
)
from minet_sdk.kernels.ptx.launch import Statistics, launch
from minet_sdk.kernels.ptx.parser import parse
from minet_sdk.kernels.ptx.program import unsupported
from minet_sdk.kernels.ptx.syntax import Kernel, Module

__all__ = [
    "ArgumentError",
    "BarrierError",
    "Coverage",
    "DivergenceError",
    "DivisionError",
    "HangError",
    "In",
    "InOut",
    "Kernel",
    "MisalignedError",
    "Module",
    "Out",
    "OutOfBoundsError",
    "PtxError",
    "PtxSyntaxError",
    "RaceError",
    "ReadOnlyError",
    "Statistics",
    "TrapError",
    "UninitialisedError",
    "UnsupportedError",
    "UnwrittenError",
    "launch",
    "parse",
    "unsupported",
]
