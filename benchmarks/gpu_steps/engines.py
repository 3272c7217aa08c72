"""Step: export minet-x2 and build its engines: fp16 by every route, the other precisions, then the paper's network.

What is built is used by the steps `parity` and `latency`, which find it in this step's result.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from gpu_steps.networks import CHECKPOINT, SIDES, TINY_SIDE
from gpu_steps.results import Context
from minet_sdk.backends import BACKENDS, BackendSpec, availability
from minet_sdk.bundle import Bundle, Graph, Precision, models_folder, open_bundle
from minet_sdk.engines import Engine
from minet_sdk.export.bundle import export_bundle
from minet_sdk.export.engines import ENGINES, FeatureInputs, Outcome, Route, build_engines, obstacle
from minet_sdk.profiles import Profile
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.config import preset
from minet_sdk.training.model import build

ROUTES: dict[str, tuple[Route, FeatureInputs]] = {
    "mix": ("mix", "stacked"),
    "fold": ("fold", "stacked"),
    "inlined": ("inlined", "stacked"),
    "mix separate": ("mix", "separate"),
    "fold separate": ("fold", "separate"),
}
PAPER = "paper"
PREPARED = "prepared"
OTHER_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8", "bf16", "fp8")
LEAST_SECONDS = 20.0
"""Left for another export and its engines, and for as long as the longest build before."""


def run(context: Context) -> None:
    """Everything by value, until the time is up."""
    reasons = {engine: obstacle(engine, "fp32") for engine in ENGINES}
    context.record("builders", {engine: reason or "usable" for engine, reason in reasons.items()})
    usable: list[Engine] = [engine for engine in ENGINES if not reasons[engine]]
    if not usable_backends(context) and not context.tiny:
        context.skip("no engine here runs on the GPU: see backends")
        return
    folder = context.work / "bundles"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if context.tiny:
        bundled = shutil.copytree(models_folder() / "minet-x2", folder / "minet-x2")
        _build_routes(context, "minet-x2", open_bundle(bundled), usable, {"mix": ROUTES["mix"]})
        return
    with context.attempt("fp16"):
        _build_routes(context, "minet-x2", _bundle(context, "fp16"), usable, ROUTES)
    for precision in OTHER_PRECISIONS:
        if _has_time(context, precision):
            with context.attempt(precision):
                bundle = _bundle(context, precision)
                _build(context, "minet-x2", bundle, usable)
                context.record(f"bundles/minet-x2 {precision}", _entry(bundle))
    if _has_time(context, PAPER):
        with context.attempt(PAPER):
            routes = {name: ROUTES[name] for name in ("mix", "fold", "inlined")}
            _build_routes(context, PAPER, _bundle(context, PAPER), usable, routes)


def prepare(work: Path) -> None:
    """Export every bundle of this step, which takes minutes of a CPU and no GPU, for a later run in the same folder."""
    folder = work / PREPARED
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("fp16", *OTHER_PRECISIONS, PAPER):
        if not (folder / name).is_dir():
            _export(name, folder)


def _bundle(context: Context, name: str) -> Bundle:
    """The prepared bundle, or a new one."""
    folder, prepared = context.work / "bundles", context.work / PREPARED / name
    if not prepared.is_dir():
        return _export(name, folder)
    return open_bundle(shutil.copytree(prepared, folder / name))


def _export(name: str, folder: Path) -> Bundle:
    """Minet-x2 in the precision of that name, or the paper's network in fp16."""
    if name != PAPER:
        return export_bundle(CHECKPOINT, folder / name, cast(Precision, name))
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = Path(temporary) / "random.safetensors"
        save_checkpoint(checkpoint, build(preset("paper", 2)), {"note": "random weights: latency depends on no value"})
        return export_bundle(checkpoint, folder / name, "fp16", name=name)


def usable_backends(context: Context) -> list[BackendSpec]:
    """The engines that run on this step's device here; why the others do not is noted."""
    specs = [spec for spec in BACKENDS if spec.device == context.device]
    reasons = {spec.name: availability(spec).reason for spec in specs}
    context.record("backends", {name: reason or "usable" for name, reason in reasons.items()})
    return [spec for spec in specs if not reasons[spec.name]]


def built_bundles(context: Context) -> dict[str, dict[str, str]]:
    """What this step left for others: path, precision and route by name, such as ``minet-x2 fp16 mix``."""
    result = context.work / "engines.json"
    if not result.is_file():
        return {}
    return json.loads(result.read_text(encoding="utf-8"))["values"].get("bundles", {})


def _build_routes(
    context: Context,
    name: str,
    bundle: Bundle,
    engines: Sequence[Engine],
    routes: dict[str, tuple[Route, FeatureInputs]],
) -> None:
    """One copy of the bundle a route, because the runtime takes the best plan that a bundle has."""
    precision = bundle.manifest.precision
    if "tensorrt-rtx" in engines:
        _build(context, name, bundle, ["tensorrt-rtx"])
    context.record(f"bundles/{name} {precision}", _entry(bundle))
    if "tensorrt" not in engines:
        return
    _build(context, name, bundle, ["tensorrt"], ["reference"])
    for label, (route, inputs) in routes.items():
        if not _has_time(context, f"{name} {label}"):
            return
        copy = bundle.location.with_name(f"{bundle.location.name}-{label.replace(' ', '-')}")
        copied = open_bundle(shutil.copytree(bundle.location, copy))
        if _build(context, f"{name} {label}", copied, ["tensorrt"], ["target"], route, inputs):
            context.record(f"bundles/{name} {precision} {label}", {**_entry(copied), "route": label})


def _build(
    context: Context,
    name: str,
    bundle: Bundle,
    engines: Sequence[Engine],
    graphs: Sequence[Graph] | None = None,
    route: Route = "mix",
    inputs: FeatureInputs = "stacked",
) -> bool:
    """Build and note each plan; whether all were built."""
    sides = (TINY_SIDE,) if context.tiny else SIDES
    sizes = [(1, side // bundle.manifest.scale, side // bundle.manifest.scale) for side in sides]
    profiles = [Profile(size, size, size) for size in sizes]
    outcomes = build_engines(
        bundle, engines, profiles, graphs=graphs, route=route, inputs=inputs, report=_noted(context, name, bundle)
    )
    return all(outcome.status == "built" for outcome in outcomes)


def _noted(context: Context, name: str, bundle: Bundle) -> Callable[[Outcome], None]:
    precision = bundle.manifest.precision

    def note(outcome: Outcome) -> None:
        what = f"{name} {precision} {outcome.engine} {outcome.graph or ''}".strip()
        if outcome.plan is not None:
            seconds = outcome.plan.details["build_seconds"]
            context.record(f"built/{what}", {"seconds": seconds, "megabytes": outcome.plan.size / 1e6})
        elif outcome.status == "skipped":
            context.skip(f"{what}: {outcome.reason}")
        else:
            context.problem(f"{what}: {outcome.reason}")

    return note


def _entry(bundle: Bundle) -> dict[str, str]:
    return {"path": str(bundle.location), "precision": bundle.manifest.precision}


def _has_time(context: Context, what: str) -> bool:
    longest = max((built["seconds"] for built in context.values.get("built", {}).values()), default=0.0)
    if context.remaining() > LEAST_SECONDS + longest:
        return True
    context.skip(f"{what}: no time left")
    return False
