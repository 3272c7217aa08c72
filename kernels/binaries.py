"""The compiled kernels: PTX text that any NVIDIA driver since its instruction set turns into machine code.

Two files serve every GPU from Turing on; `manifest.json` vouches for them and says how they were built.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from minet_sdk.errors import BackendError

Target = Literal["sm75", "sm80"]
"""sm75 has the float32 and float16 kernels, sm80 also bfloat16."""

FOLDER = Path(__file__).parent / "compiled"
MANIFEST = "manifest.json"


def target_for(compute_capability: tuple[int, int]) -> Target:
    """The newest target that a GPU runs.

    Args:
        compute_capability: of the GPU, major and minor.

    Raises:
        BackendError: the GPU is older than Turing (7.5).
    """
    if compute_capability >= (8, 0):
        return "sm80"
    if compute_capability >= (7, 5):
        return "sm75"
    major, minor = compute_capability
    raise BackendError(f"GPU has compute capability {major}.{minor}; the kernels need 7.5 (Turing) or newer")


@cache
def manifest() -> dict[str, Any]:
    """Compiler, and per target the file's SHA-256, instruction set and the resources of every entry.

    Raises:
        BackendError: the manifest is missing or unreadable.
    """
    try:
        return json.loads((FOLDER / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(f"{FOLDER / MANIFEST} is missing or damaged: install minet-sdk again") from error


@cache
def ptx(target: Target) -> str:
    """PTX of a target.

    Raises:
        BackendError: no such target, or its file is missing or not the one that the manifest vouches for.
    """
    if target not in get_args(Target):
        raise BackendError(f"no kernels for target {target!r}; expected one of {', '.join(get_args(Target))}")
    path = FOLDER / f"minet_{target}.ptx"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackendError(f"{path} is missing: install minet-sdk again") from error
    if hashlib.sha256(content).hexdigest() != manifest()["targets"][target]["sha256"]:
        raise BackendError(f"{path} is not the file that {MANIFEST} vouches for: install minet-sdk again")
    return content.decode("ascii")
