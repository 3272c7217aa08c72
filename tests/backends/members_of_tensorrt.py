"""Which members of TensorRT this SDK's source uses that a real module does not have; run as a script.

Arguments: folder of the bindings (or - for an installed package), module, source files. On stdin further members as
JSON, {class: [names]}. On stdout the number of members that were looked at, and the faults.
"""

import ast
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

RECEIVERS = {
    "trt": "",
    "self._trt": "",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
    "runtime": "Runtime",
    "config": "IRuntimeConfig",
    "self._config": "IRuntimeConfig",
    "cache": "IRuntimeCache",
    "strategies": "CudaGraphStrategy",
}
"""By the expression in the source: the class of the bindings that it is; empty for the module."""

OF_RTX_ONLY = {"IRuntimeConfig", "IRuntimeCache", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy"}


def path_of(node: ast.expr) -> str | None:
    """Dotted path in the module of an expression, None if it is nothing of TensorRT's."""
    text = ast.unparse(node)
    if text in RECEIVERS:
        return RECEIVERS[text]
    if isinstance(node, ast.Attribute) and (parent := path_of(node.value)) is not None:
        return f"{parent}.{node.attr}".strip(".")
    return None


def uses(source: str) -> dict[str, int | None]:
    """Paths of all members that a source uses, with the number of arguments if it calls them."""
    found: dict[str, int | None] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (path := path_of(node)):
            found.setdefault(path, None)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (path := path_of(node.func)):
            found[path] = len(node.args) + len(node.keywords)
    return found


def fault(module: Any, path: str, arguments: int | None) -> str:
    """Why a member cannot be used so; empty if it can."""
    value = module
    for name in path.split("."):
        if not hasattr(value, name):
            return f"{path} does not exist"
        value = getattr(value, name)
    if arguments is None or isinstance(value, type):
        return ""
    own = 0 if path.endswith(".__init__") else 1
    signatures = re.findall(rf"{path.split('.')[-1]}\((.*)\)(?: ->|$)", value.__doc__ or "", re.MULTILINE)
    counts = [
        (len(split(s)) - own, sum(" = " not in part for part in split(s)) - own) for s in signatures if s[0] != "*"
    ]
    if counts and not any(least <= arguments <= most for most, least in counts):
        return f"{path} takes {signatures}, not {arguments} arguments"
    return ""


def split(signature: str) -> list[str]:
    """The parameters of a signature, at commas outside brackets."""
    parts, depth = [""], 0
    for letter in signature:
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def main(folder: str, name: str, *sources: str) -> None:
    """Print the outcome."""
    if folder != "-":
        sys.path.insert(0, folder)
    module = importlib.import_module(name)
    wanted: dict[str, int | None] = {}
    for source in sources:
        wanted |= uses(Path(source).read_text())
    for kind, members in json.load(sys.stdin).items():
        wanted |= {f"{kind}.{member}": wanted.get(f"{kind}.{member}") for member in members}
    if not hasattr(module, "CudaGraphStrategy"):
        wanted = {path: n for path, n in wanted.items() if path.split(".")[0] not in OF_RTX_ONLY}
        wanted.pop("ICudaEngine.create_runtime_config", None)
    faults = [text for path, arguments in wanted.items() if (text := fault(module, path, arguments))]
    print(json.dumps({"looked at": sorted(wanted), "faults": faults}))


if __name__ == "__main__":
    main(*sys.argv[1:])
