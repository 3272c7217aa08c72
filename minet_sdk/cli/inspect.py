"""`minet-sdk models`, `info` and `verify`: what is installed, what can run, whether a bundle is what it says."""

import platform
import sys
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from minet_sdk import __version__
from minet_sdk.backends import AUTO, BACKENDS, availability
from minet_sdk.bundle import bundled_names, open_bundle
from minet_sdk.cli.console import print_json, remark
from minet_sdk.cli.options import Backend, JsonOutput
from minet_sdk.cuda.driver import probe
from minet_sdk.runtime import Runtime


def models(json: JsonOutput = False) -> None:
    """List the bundled models."""
    rows: list[dict[str, Any]] = []
    for name in bundled_names():
        bundle = open_bundle(name)
        manifest = bundle.manifest
        rows.append(
            {
                "name": name,
                "method": manifest.training.get("method") or manifest.architecture.get("kind", "minet"),
                "scale": manifest.scale,
                "reference": manifest.needs_reference,
                "precision": manifest.precision,
                "version": manifest.version,
                "sha256": bundle.sha256,
                "folder": str(bundle.location),
            }
        )
    if json:
        print_json(rows)
        return
    table = Table("model", "method", "scale", "reference", "precision", "SHA-256")
    for row in rows:
        guided = "needed" if row["reference"] else "none"
        table.add_row(row["name"], row["method"], f"x{row['scale']}", guided, row["precision"], row["sha256"][:12])
    Console().print(table)
    remark("Research use only, not a medical device. Model cards: MODEL_CARD.md beside each model.")


def info(json: JsonOutput = False) -> None:
    """Show versions, GPUs and every inference engine: available, or why not."""
    engines = [availability(spec) for spec in BACKENDS]
    driver = probe()
    if json:
        print_json(
            {
                "minet-sdk": __version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "platform": platform.platform(),
                "gpus": [str(gpu) for gpu in driver.gpus],
                "driver": driver.reason or f"supports CUDA {driver.supports}",
                "backends": {e.spec.name: {"available": e.available, "reason": e.reason} for e in engines},
                "models": bundled_names(),
            }
        )
        return
    print(f"minet-sdk {__version__}, Python {platform.python_version()}, NumPy {np.__version__}, {sys.platform}")
    print(f"GPU: {driver.reason or '; '.join(str(gpu) for gpu in driver.gpus)}")
    for engine in engines:
        print(f"{engine.spec.name} ({engine.spec.device}): {engine.reason or 'available'}")
    print(f"models: {', '.join(bundled_names())}")


def verify(
    model: Annotated[str, typer.Argument(help="Bundled name, bundle folder or .onnx file.")] = "minet-x2",
    backend: Backend = AUTO,
    json: JsonOutput = False,
) -> None:
    """Check a bundle: hashes of all files, then the golden vector on an engine."""
    with Runtime(model, backend=backend) as runtime:
        result = {
            "model": runtime.info.model,
            "sha256": runtime.info.model_sha256,
            "files": len(runtime.bundle.manifest.files),
            "backend": runtime.info.backend,
            "golden_error": runtime.info.golden_error,
            "golden_tolerance": runtime.bundle.manifest.golden_tolerance,
        }
    if json:
        print_json(result)
    elif result["golden_error"] is None:
        print(
            f"{model}: a bare .onnx file loads on {result['backend']}; it has no hashes and no golden vector to check"
        )
    else:
        print(
            f"{model}: {result['files']} files match their SHA-256; golden vector on {result['backend']}: "
            f"relative error {result['golden_error']:.1e}, at most {result['golden_tolerance']:.0e} allowed"
        )
