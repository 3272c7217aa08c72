"""Which command, code and versions made a checkpoint."""

import hashlib
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch

from minet_sdk import __version__
from minet_sdk.errors import TrainingError

DATA_FILES = ("pairs", "splits")
"""Options of data that name a file."""


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


def data_files(options: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Fingerprints of the files that options of data name, by option."""
    named = {name: Path(options[name]) for name in DATA_FILES if options.get(name)}
    return {name: fingerprint(path) for name, path in named.items() if path.is_file()}


def as_started(settings: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a resumed run, with the paths that it was started with where they only name another place.

    The cache may lie anywhere; a file is what it was if it has the same content.

    Args:
        settings: those of now, as `TrainingSettings.to_dict` gives them.
        record: of the state to resume from. What it does not know is left as it is.

    Raises:
        TrainingError: a file has another content.
    """
    before = record.get("settings", {})
    known = {
        name: record[key] for name, key in (("initialise", "initialised"), ("teacher", "teacher")) if key in record
    }
    options = {name: value for name, value in settings["data_options"].items() if name != "cache"}
    options_before = before.get("data_options", {})
    if "cache" in options_before:
        options["cache"] = options_before["cache"]
    options |= _unmoved(options, options_before, record.get("data_files", {}))
    return {**settings, **_unmoved(settings, before, known), "data_options": options}


def _unmoved(
    now: Mapping[str, Any], before: Mapping[str, Any], known: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Of named files that are known, and there, the paths that they had before."""
    paths: dict[str, Any] = {}
    for name, file in known.items():
        if not now.get(name) or not before.get(name) or not Path(now[name]).is_file():
            continue
        found = fingerprint(Path(now[name]))["sha256"]
        if found != file["sha256"]:
            raise TrainingError(
                f"{name} is {now[name]} (SHA-256 {found[:12]}...), which is not the file that the run was started with"
                f" ({file['sha256'][:12]}...): resume with that one, or start anew in another folder"
            )
        paths[name] = before[name]
    return paths


def _commit() -> str:
    """The commit of this code, or its release where there is no repository or no git."""
    release = f"release {__version__}"
    git = shutil.which("git")
    if git is None:
        return release
    describe = [git, "describe", "--always", "--dirty", "--abbrev=40"]
    root = Path(__file__).resolve().parent
    return subprocess.run(describe, cwd=root, capture_output=True, text=True, check=False).stdout.strip() or release
