"""A bundle is the folder that `export` writes and `Runtime` opens: graphs, weights, a manifest to vouch for them.

manifest.json     what the model is, how it was made, SHA-256 of every other file
model.onnx        target, reference -> restored
reference.onnx    reference -> reference_features     (not for single-contrast models)
target.onnx       target, reference_features -> restored
weights.bin       the weights that all graphs share
native.plan       model.onnx in the form of the native CPU engine; fp32 only, its weights stand in weights.bin
golden.npz        inputs and the restored image that the trained network gave for them
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, cast, get_args
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import BundleError
from minet_sdk.normalisation import Normalisation

FORMAT = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
NATIVE_PLAN = "native.plan"
METADATA_KEY = "minet.manifest"
"""Where a graph carries its own manifest, so that a bare .onnx file opens too."""

Graph = Literal["model", "reference", "target"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself."""

    name: str
    scale: int
    precision: Precision
    needs_reference: bool
    affinity: str
    golden_tolerance: float
    """Largest root-mean-square difference from the golden vector, relative to its rms, that an engine may show."""

    version: str
    """Version of the SDK that wrote the bundle."""

    contrasts: dict[str, str] = field(default_factory=lambda: {"target": "any", "reference": "any"})
    normalisation: Normalisation = field(default_factory=Normalisation)
    architecture: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    """Command, seed, data, commit, versions, validation curve: see `training.checkpoint`."""

    quantisation: dict[str, Any] = field(default_factory=dict)
    """Of int8 and fp8: the scale of every quantised layer's input, and the slices they come from; else empty."""

    without_reference: bool = False
    """Whether the network was trained with references missing now and then, all zeros in their place: it can do
    without one that cannot be used."""

    reach: int | None = None
    """Pixels of the restored image, to one side, that a restored pixel depends on, the global parts left aside; None
    (bundles of earlier versions, operators of unknown reach): not known."""

    global_parts: tuple[str, ...] = ()
    """What in the network depends on the whole image, for example channel attention: it forbids exact tiles."""

    bytes_per_pixel: float | None = None
    """Of images alive at once in model.onnx, in float32, per pixel of the restored image; None: not recorded."""

    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every other file of the bundle by name."""

    intended_use: str = "Research use only. Not a medical device."
    format: int = FORMAT

    def to_json(self) -> str:
        """Text of manifest.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "Manifest":
        """Inverse of `to_json`; ``source`` names the file in errors.

        Raises:
            BundleError: not JSON, a missing, unknown or ill-typed field, or another format version.
        """
        try:
            parsed: object = json.loads(text)
        except ValueError as error:
            raise BundleError(f"{source} is not valid JSON ({error}): export the bundle again") from error
        data = cast(dict[str, Any], parsed if isinstance(parsed, dict) else {})
        if (found := data.get("format")) != FORMAT:
            raise BundleError(f"{source} has bundle format {found}, this SDK reads format {FORMAT}: export it again")
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown:
            raise BundleError(f"{source} has unknown fields {sorted(unknown)}: it was changed after export")
        try:
            data["normalisation"] = Normalisation(**data.get("normalisation", {}))
            data["global_parts"] = tuple(str(part) for part in data.get("global_parts", ()))
            manifest = cls(**data)
        except TypeError as error:
            raise BundleError(f"{source} is incomplete ({error}): export the bundle again") from error
        manifest._check(source)
        return manifest

    def _check(self, source: str) -> None:
        kinds: dict[str, type | UnionType] = {
            "name": str,
            "scale": int,
            "needs_reference": bool,
            "golden_tolerance": float,
            "quantisation": dict,
            "without_reference": bool,
            "reach": int | None,
            "bytes_per_pixel": float | None,
            "files": dict,
        }
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                expected = getattr(kind, "__name__", kind)
                raise BundleError(f"{source}: {name} is {getattr(self, name)!r}, expected {expected}")
        if self.reach is not None and self.reach < 0:
            raise BundleError(f"{source}: reach is {self.reach}, expected 0 or more")
        if self.precision not in get_args(Precision):
            raise BundleError(
                f"{source}: precision is {self.precision!r}, this SDK knows {', '.join(get_args(Precision))}: update it"
            )
        for name in self.files:
            if Path(name).name != name or name in ("", ".", ".."):
                raise BundleError(f"{source} names the file {name!r}: a bundle's files lie in its own folder")


@dataclass(frozen=True)
class Golden:
    """Normalised network inputs and what the trained network made of them in float32."""

    target: npt.NDArray[np.float32]
    """(1, 1, H, W)."""

    restored: npt.NDArray[np.float32]
    """(1, 1, scale * H, scale * W)."""

    reference: npt.NDArray[np.float32] | None = None
    """(1, 1, scale * H, scale * W); None for single-contrast models."""

    def save(self, path: Path) -> None:
        """Write as .npz."""
        arrays = {"target": self.target, "restored": self.restored}
        if self.reference is not None:
            arrays["reference"] = self.reference
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type] # numpy's stub takes no dict of arrays

    def error(self, restored: npt.NDArray[np.float32]) -> float:
        """Root-mean-square difference of ``restored`` from the golden vector, relative; inf if not finite."""
        difference = restored.astype(np.float64) - self.restored
        value = float(np.sqrt(np.mean(difference**2) / np.mean(self.restored.astype(np.float64) ** 2)))
        return value if np.isfinite(value) else float("inf")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files have been checked."""

    location: Path
    """The folder, or the .onnx file of a bare model."""

    manifest: Manifest
    sha256: str
    """Identity of the model: SHA-256 of manifest.json, which holds those of all files (of the file, if bare)."""

    @property
    def bare(self) -> bool:
        """Whether this is a lone .onnx file: no prefetch graphs, no golden vector, no hashes."""
        return self.location.suffix == ".onnx"

    def graph(self, graph: Graph) -> Path:
        """Path of one of the graphs."""
        return self.location if self.bare else self.location / f"{graph}.onnx"

    def golden(self) -> Golden | None:
        """The golden vector; None for a bare model."""
        if self.bare:
            return None
        try:
            with np.load(self.location / GOLDEN, allow_pickle=False) as data:
                return Golden(data["target"], data["restored"], data.get("reference"))
        except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
            raise BundleError(f"{self.location / GOLDEN} cannot be read ({error}): export the bundle again") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def models_folder() -> Path:
    """Where the bundled models are."""
    return Path(str(resources.files("minet_sdk") / "models"))


def bundled_names() -> list[str]:
    """Names that `open_bundle` and `Runtime` understand, sorted."""
    return sorted(path.parent.name for path in models_folder().glob(f"*/{MANIFEST}"))


def locate(model: str | os.PathLike[str]) -> Path:
    """Folder or .onnx file of a bundled name or a path.

    Raises:
        BundleError: neither; the message lists the bundled names.
    """
    if str(model) in bundled_names():
        return models_folder() / str(model)
    path = Path(model)
    if path.is_dir() or (path.is_file() and path.suffix == ".onnx"):
        return path
    raise BundleError(
        f"{model}: neither a bundled model ({', '.join(bundled_names()) or 'none installed'}), a bundle folder "
        "nor an .onnx file"
    )


def open_bundle(model: str | os.PathLike[str]) -> Bundle:
    """Open a bundle folder and check every file against its manifest.

    Args:
        model: a bundled name (see `bundled_names`) or the path of a folder. Bare .onnx files are opened by the
            backend that can read their metadata; see `bare_bundle`.

    Raises:
        BundleError: not a bundle, or a file is missing, corrupt or was changed after export.
    """
    folder = locate(model)
    source = folder / MANIFEST
    if not source.is_file():
        raise BundleError(f"{folder} has no {MANIFEST}: not a bundle; `minet-sdk export` writes one")
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{source} cannot be read ({error}): export the bundle again") from error
    manifest = Manifest.from_json(text, str(source))
    bundle = Bundle(folder, manifest, hashlib.sha256(text.encode()).hexdigest())
    problems = file_problems(bundle)
    if problems:
        raise BundleError(f"{folder}: {'; '.join(problems)}: export the bundle again")
    return bundle


def bare_bundle(path: Path, metadata: dict[str, str]) -> Bundle:
    """The bundle of a lone .onnx file, from the metadata that a backend read from it.

    Raises:
        BundleError: the file was not written by this SDK's export.
    """
    if METADATA_KEY not in metadata:
        raise BundleError(f"{path} has no {METADATA_KEY} metadata: only models that `minet-sdk export` wrote open")
    return Bundle(path, Manifest.from_json(metadata[METADATA_KEY], str(path)), sha256(path))


def file_problems(bundle: Bundle) -> list[str]:
    """One line for each file that is missing or differs from the manifest; empty if all is well."""
    manifest = bundle.manifest
    graphs = ("model.onnx", "reference.onnx", "target.onnx") if manifest.needs_reference else ("model.onnx",)
    problems = [f"the manifest does not list {name}" for name in (*graphs, GOLDEN) if name not in manifest.files]
    for name, expected in manifest.files.items():
        path = bundle.location / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif sha256(path) != expected:
            problems.append(f"{name} does not match its SHA-256, so it is damaged or was changed")
    return problems
