"""From named values, as a settings file and the command line give them, to a run: recipe, then file, then options."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from minet_sdk.errors import TrainingError
from minet_sdk.requirements import require
from minet_sdk.training.architecture import Architecture
from minet_sdk.training.config import preset
from minet_sdk.training.hardware import fast_precision
from minet_sdk.training.loading import Augmentation
from minet_sdk.training.methods import Method, Size, find_method
from minet_sdk.training.objectives import objective_settings
from minet_sdk.training.pairs import options_of
from minet_sdk.training.recipes import DEFAULT, RECIPES
from minet_sdk.training.settings import Machine, TrainingSettings
from minet_sdk.training.typed import typed, typed_fields


@dataclass(frozen=True)
class Choices:
    """What settles the network and the objective, before any single setting."""

    recipe: str = DEFAULT
    """One of `recipes.RECIPES`."""

    method: str = "minet"
    """One of `methods.METHODS`."""

    size: Size = "matched"
    """`published` also trains as published, unless told otherwise."""

    scale: int = 2
    preset: str = ""
    """Of MINet and its variants: an architecture by its name instead of the method's size, one of `config.PRESETS`."""

    network: Mapping[str, Any] | None = None
    """Fields of the architecture that differ from the method's."""

    objective: str = ""
    """Instead of the method's."""


@dataclass(frozen=True)
class Run:
    """A run that could be started."""

    settings: TrainingSettings
    machine: Machine


def read_settings(path: Path) -> dict[str, Any]:
    """A settings file (YAML).

    Raises:
        TrainingError: no such file, no YAML, not a mapping of names, or an unknown name.
    """
    yaml = require("yaml", "reading settings")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}); --config names a YAML file of settings") from error
    except yaml.YAMLError as error:
        raise TrainingError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path}: holds {type(content).__name__}; expected settings by name, like `steps: 20000`")
    _check_names(content, str(path))
    return content


def assemble(*layers: Mapping[str, Any]) -> Run:
    """A run from layers of named values; later layers win, mappings are merged.

    Args:
        layers: settings by the names of `Choices`, `TrainingSettings` and `Machine`, for example a settings file and
            the command line.

    Raises:
        TrainingError: unknown name, a value of the wrong type, or values that do not fit each other.
    """
    for layer in layers:
        _check_names(layer, "settings")
    given = _merged(*layers)
    recipe = str(given.get("recipe", DEFAULT))
    if recipe not in RECIPES:
        raise TrainingError(f"recipe is {recipe!r}; choose one of {', '.join(RECIPES)}")
    values = _merged(RECIPES[recipe].settings, given)
    choices = Choices(**_converted(Choices, values))
    method = find_method(choices.method)
    if method.trained != "once":
        what = "an interpolation, which nothing trains" if method.trained == "never" else "trained when it is evaluated"
        raise TrainingError(f"{method.name} is {what}; choose another method")
    if choices.size == "published":
        values = _merged(RECIPES[recipe].settings, method.recipe, given)
    values.setdefault("precision", fast_precision(str(values.get("accelerator", "auto"))))
    settings = TrainingSettings(
        network=_network(method, choices),
        method=method.name,
        objective=choices.objective or method.objective,
        **_converted(TrainingSettings, values, leave=("network", "method", "objective")),
    )
    objective_settings(settings.objective_settings)
    Augmentation.from_dict(settings.augmentation)
    options_of(settings.data, settings.data_options)
    return Run(settings, Machine(**_converted(Machine, values)))


def to_yaml(run: Run) -> str:
    """A settings file that assembles the same run, whatever the recipes become."""
    yaml = require("yaml", "writing settings")
    settings = run.settings.to_dict()
    network = {name: value for name, value in settings["network"].items() if name not in ("kind", "scale")}
    machine = {entry.name: getattr(run.machine, entry.name) for entry in fields(Machine)}
    path = run.machine.data_path
    return yaml.safe_dump(
        {
            "scale": run.settings.network.scale,
            **settings,
            "network": network,
            **machine,
            "data_path": None if path is None else str(path),
        },
        sort_keys=False,
    )


def _network(method: Method, choices: Choices) -> Architecture:
    """The description that the choices settle."""
    if choices.preset:
        if method.changes is None:
            raise TrainingError(
                f"preset is {choices.preset!r}, method {method.name}; presets are of MINet and its variants"
            )
        config: Architecture = replace(preset(choices.preset, choices.scale), **method.changes)
    else:
        config = method.config(choices.scale, choices.size)
    changes = dict(choices.network or {})
    known = [entry.name for entry in fields(config) if entry.name != "scale"]
    if unknown := sorted(set(changes) - set(known)):
        raise TrainingError(f"network has no {', '.join(unknown)}; {config.kind} knows {', '.join(known)}")
    return replace(config, **typed_fields(type(config), changes, "network"))


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers win; mappings inside are merged; None says nothing; steps replace epochs and the other way round."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for length, other in (("steps", "epochs"), ("epochs", "steps")):
            if layer.get(length) and not layer.get(other):
                merged.pop(other, None)
        for name, value in layer.items():
            if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
                merged[name] = {**merged[name], **value}
            elif value is not None:
                merged[name] = value
    return merged


def _names(*forms: Any) -> list[str]:
    return list(dict.fromkeys(entry.name for form in forms for entry in fields(form)))


def _check_names(given: Mapping[str, Any], where: str) -> None:
    """Refuse a name that nothing has.

    Raises:
        TrainingError: naming it and the nearest that exists.
    """
    known = _names(Choices, TrainingSettings, Machine)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise TrainingError(f"{where}: no setting is called {name!r}; {advice}")


def _converted(form: Any, values: Mapping[str, Any], leave: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values that a dataclass takes, each in its field's type."""
    hints = get_type_hints(form)
    return {
        name: typed(name, values[name], hints[name]) for name in _names(form) if name in values and name not in leave
    }
