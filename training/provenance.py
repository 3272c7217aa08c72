"""Which command, code and versions made a checkpoint."""

import hashlib
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import torch

from minet_sdk import __version__


def provenance() -> dict[str, Any]:
    """Command, commit and versions, for the record of a checkpoint."""
    versions = {
        "minet-sdk": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }
    return {"command": shlex.join(["minet-sdk", *sys.argv[1:]]), "commit": _commit(), "versions": versions}


def fingerprint(path: Path) -> dict[str, str]:
    """Name and SHA-256 of a file that a run depends on."""
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _commit() -> str:
    """The commit of this code, or its release where there is no repository or no git."""
    release = f"release {__version__}"
    git = shutil.which("git")
    if git is None:
        return release
    describe = [git, "describe", "--always", "--dirty", "--abbrev=40"]
    root = Path(__file__).resolve().parent
    return subprocess.run(describe, cwd=root, capture_output=True, text=True, check=False).stdout.strip() or release
