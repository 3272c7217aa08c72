"""What docs/ptx.md shows is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minet_sdk.kernels import ptx
from minet_sdk.kernels.ptx import In, Out, OutOfBoundsError, PtxError, launch, parse
from minet_sdk.kernels.ptx.instructions import INSTRUCTIONS

FIXTURES = Path(__file__).parent / "fixtures"
TEXT = (Path(__file__).parents[3] / "docs" / "ptx.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return found[1]


def test_the_kernel_is_the_one_that_was_compiled() -> None:
    assert block("cuda") == (FIXTURES / "scale.cu").read_text()


def test_the_example_runs() -> None:
    """In a process of its own, which also shows that NumPy is enough."""
    code = "import sys\n" + block("python") + "assert not {'torch', 'onnx', 'ml_dtypes', 'scipy'} & set(sys.modules)"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=FIXTURES,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+ scale: (\d+) of \1 instructions executed\n", done.stdout)


def test_the_error_is_the_one_shown() -> None:
    x, y = np.zeros(1000, np.float32), np.zeros(1001, np.float32)
    with pytest.raises(OutOfBoundsError) as caught:
        launch(parse((FIXTURES / "scale.ptx").read_text())["scale"], 8, 128, (In(x), 2.5, 1001, Out(y)))
    assert f"OutOfBoundsError: {caught.value}" in TEXT.splitlines()


def test_every_error_and_instruction_is_named() -> None:
    for name in ptx.__all__:
        if isinstance(getattr(ptx, name), type) and issubclass(getattr(ptx, name), PtxError):
            assert f"`{name}" in TEXT, name
    for name in INSTRUCTIONS:
        assert re.search(rf"\b{name.removesuffix('u')}\b", TEXT), name
