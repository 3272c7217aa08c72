"""TensorRT plans on disk: what they were built from, where they lie and which one fits.

A plan is `<graph>-<digest of its key>.plan` with a .json beside it that says all this and vouches for its bytes.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from minet_sdk.atomic import replacing
from minet_sdk.bundle import Bundle, Graph, Precision
from minet_sdk.errors import BackendError, InputError
from minet_sdk.gpus import Gpu, format_capability, lacks_precision
from minet_sdk.profiles import Profile, Size, choose_profile, coverage, distance, format_size

Engine = Literal["tensorrt", "tensorrt-rtx"]

Integration = Literal["plugin-mix", "plugin-fold", "inlined", "none"]
"""How a plan computes the integration: a kernel of this SDK, the node's ONNX body, or there is none in the graph."""

FORMAT = 1

FOLDER = "engines"
"""In a bundle: where export puts plans."""

ANY_GPU = "any"
"""A TensorRT-RTX plan for every GPU that its builder targets by default."""

AMPERE_PLUS = "Ampere and newer"
"""A TensorRT plan that was built for all these GPUs."""

_PORTABLE_FROM = (8, 0)

_PREFERENCE: tuple[Integration, ...] = ("plugin-mix", "plugin-fold", "none", "inlined")


@dataclass(frozen=True)
class EngineKey:
    """Everything that makes a plan another plan."""

    engine: Engine
    engine_version: str
    graph: Graph
    bundle_sha256: str
    precision: Precision
    profiles: tuple[Profile, ...]
    gpu: str
    """`ANY_GPU`, `AMPERE_PLUS`, a list of compute capabilities such as ``8.6, 8.9``, or the label of one GPU."""

    driver: str
    """See `Gpu.driver`; `ANY_GPU` for TensorRT-RTX, whose builder asks no driver."""

    integration: Integration
    settings: tuple[str, ...] = ()
    """Builder settings that change the plan and are off by default, such as ``tf32``."""

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name the key."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def file_name(self) -> str:
        """Of the plan."""
        return f"{self.graph}-{self.digest}.plan"


@dataclass(frozen=True)
class Plan:
    """A plan on disk, and what its .json says."""

    path: Path
    key: EngineKey
    sha256: str
    size: int
    """Bytes."""

    details: dict[str, Any] = field(default_factory=dict)
    """Tensors, memory, builder's warnings, build time: see `minet_sdk.backends.tensorrt_builder.BuiltPlan`."""

    def read(self) -> bytes:
        """The serialised engine.

        Raises:
            BackendError: missing, damaged or changed.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise BackendError(f"{self.path} cannot be read ({error}): build the plan again") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise BackendError(
                f"{self.path} does not match its SHA-256, so it is damaged or was changed: delete it and build it again"
            )
        return data

    def profile_for(self, target: Size) -> int:
        """Index of the optimisation profile for a target; see `choose_profile`."""
        return choose_profile(self.key.profiles, target, self.path.name)


@dataclass(frozen=True)
class Search:
    """What `find` found."""

    plan: Plan | None
    passed_over: dict[str, str]
    """Reason by file name, for each plan of the graph that was not taken."""


def bundle_folder(bundle: Bundle) -> Path:
    """Where export puts plans for a bundle."""
    return bundle.location / FOLDER


def cache_folder(bundle: Bundle) -> Path:
    """Where the runtime keeps plans that it built itself: they are of no use to another user or machine."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "minet-sdk" / FOLDER / bundle.sha256


def folders(bundle: Bundle) -> tuple[Path, ...]:
    """All folders that may hold plans for a bundle, the preferred one first."""
    return (cache_folder(bundle),) if bundle.bare else (bundle_folder(bundle), cache_folder(bundle))


def store(folder: Path, key: EngineKey, data: bytes, details: Mapping[str, Any] | None = None) -> Plan:
    """Write a plan and its .json; one of the same key is replaced.

    The .json comes last, so that an interrupted write leaves nothing that `find` would take. Two processes that store
    the same key at once may mix their files: then the hash does not match, and the plan is passed over and built again.

    Args:
        folder: made if missing.
        key: of the plan.
        data: the serialised engine.
        details: what else the .json should say.

    Raises:
        BackendError: the folder cannot be written.
    """
    path = folder / key.file_name
    plan = Plan(path, key, hashlib.sha256(data).hexdigest(), len(data), dict(details or {}))
    record = {"format": FORMAT, "plan": path.name, "sha256": plan.sha256, "size": plan.size, "key": asdict(key)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        with replacing(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps({**record, "details": plan.details}, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BackendError(f"{folder} cannot take a plan ({error}): make it writable, or free space in it") from error
    return plan


def load(path: Path) -> Plan:
    """Read the .json of a plan and check that it belongs to the file; `Plan.read` checks the bytes.

    Args:
        path: of the .plan.

    Raises:
        BackendError: the .json is missing, damaged, of another format or of another plan.
    """
    source = path.with_suffix(".json")
    try:
        record: object = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise BackendError(f"{source} cannot be read ({error}): build {path.name} again") from error
    except ValueError as error:
        raise BackendError(f"{source} is not valid JSON ({error}): build {path.name} again") from error
    data = cast(dict[str, Any], record if isinstance(record, dict) else {})
    if (found := data.get("format")) != FORMAT:
        raise BackendError(f"{source} has plan format {found}, this SDK reads format {FORMAT}: build the plan again")
    try:
        key = _key(data["key"])
        plan = Plan(path, key, str(data["sha256"]), int(data["size"]), dict(data["details"]))
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise BackendError(f"{source} is damaged or was changed ({error}): build the plan again") from error
    if key.file_name != path.name:
        raise BackendError(f"{source} describes {key.file_name}, not {path.name}: build the plan again")
    return plan


def _key(data: dict[str, Any]) -> EngineKey:
    """Inverse of `asdict`."""
    if unknown := set(data) - {f.name for f in fields(EngineKey)}:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    profiles = tuple(Profile(*(tuple(p[n]) for n in ("minimum", "optimum", "maximum"))) for p in data["profiles"])
    rest: dict[str, Any] = {**data, "settings": tuple(data["settings"]), "profiles": profiles}
    return EngineKey(**rest)


def find(
    bundle: Bundle,
    graph: Graph,
    *,
    engine: Engine,
    engine_version: str,
    gpu: Gpu,
    target: Size | None = None,
) -> Search:
    """The plan to use for one graph of a bundle, from the bundle or from the user's cache.

    Plans with a kernel of this SDK for the integration come before plans without; then those of the bundle before those
    of the cache, then those tuned nearest to the target, or for no target those that cover most.

    Args:
        bundle: opened.
        graph: of the bundle.
        engine: that will load the plan.
        engine_version: of the installed engine.
        gpu: that the plan will run on.
        target: N, H, W that it must cover; None for any.

    Returns:
        The plan, its bytes checked against its SHA-256, and why each other plan of the graph was passed over. Plans of
        another engine are not mentioned.
    """
    passed: dict[str, str] = {}
    fitting: list[Plan] = []
    for folder in folders(bundle):
        for path in sorted(folder.glob(f"{graph}-*.plan")):
            try:
                plan = load(path)
            except BackendError as error:
                passed[path.name] = str(error)
                continue
            if plan.key.engine != engine:
                continue
            reason = _misfit(plan.key, bundle, engine_version, gpu)
            if not reason and target is not None and not any(p.covers(target) for p in plan.key.profiles):
                reason = f"covers {coverage(plan.key.profiles)}, not {format_size(target)}"
            if reason:
                passed[path.name] = reason
            else:
                fitting.append(plan)
    chosen: Plan | None = None
    for plan in sorted(fitting, key=lambda plan: _rank(plan, bundle, target)):
        if chosen is not None:
            passed[plan.path.name] = f"{chosen.path.name} is preferred"
            continue
        try:
            plan.read()
        except BackendError as error:
            passed[plan.path.name] = str(error)
        else:
            chosen = plan
    return Search(chosen, passed)


def _rank(plan: Plan, bundle: Bundle, target: Size | None) -> tuple[int, bool, float]:
    """What `find` sorts by, the best first."""
    profiles = plan.key.profiles
    if target is None:
        tuning = -max(math.prod(profile.maximum) for profile in profiles)
    else:
        tuning = min(distance(profile, target) for profile in profiles if profile.covers(target))
    in_cache = plan.path.parent != bundle_folder(bundle)
    return _PREFERENCE.index(plan.key.integration), in_cache, tuning


def _misfit(key: EngineKey, bundle: Bundle, engine_version: str, gpu: Gpu) -> str:
    """Why a plan cannot be used; empty if it can."""
    if key.bundle_sha256 != bundle.sha256:
        return f"was built from another bundle ({key.bundle_sha256[:12]}, this one is {bundle.sha256[:12]})"
    if not _loads(key, engine_version):
        return f"was built by {key.engine} {key.engine_version}, installed is {engine_version}"
    return runs_on(key, gpu)


def _loads(key: EngineKey, installed: str) -> bool:
    """Whether the installed engine loads a plan: the same version, or a newer one if it was built to allow that."""
    if "version-compatible" not in key.settings:
        return installed == key.engine_version
    built, present = numbers(key.engine_version), numbers(installed)
    return built <= present and present[0] <= built[0] + 1


def runs_on(key: EngineKey, gpu: Gpu) -> str:
    """Why a plan cannot run on a GPU; empty if nothing speaks against it.

    A newer driver runs what an older one was there to build, as CUDA promises; an older driver may not.
    """
    if reason := lacks_precision(key.precision, [gpu.compute_capability]):
        return reason
    if key.gpu in (ANY_GPU, AMPERE_PLUS):
        if gpu.compute_capability < _PORTABLE_FROM:
            return f"is for compute capability {format_capability(_PORTABLE_FROM)} and newer, this GPU is {gpu.label}"
    elif key.gpu != gpu.label and format_capability(gpu.compute_capability) not in key.gpu.split(", "):
        return f"is for {key.gpu}, this GPU is {gpu.label}"
    if key.driver != ANY_GPU and numbers(gpu.driver) < numbers(key.driver):
        return f"was built with a driver for CUDA {key.driver}, this one is for {gpu.driver}: update the driver"
    return ""


def numbers(version: str) -> tuple[int, ...]:
    """Leading numbers of a version, for comparison: ``10.16.1.11`` -> (10, 16, 1, 11)."""
    found: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)
