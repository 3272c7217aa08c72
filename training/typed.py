"""Values as a settings file or the command line writes them, in the types that a dataclass's fields have."""

import types
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from minet_sdk.errors import TrainingError

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    Mapping: "settings by name",
}


def typed_fields(form: Any, given: Mapping[str, Any], where: str, lacks: str = "has no") -> dict[str, Any]:
    """Values by name, each in the type of a dataclass's field.

    Args:
        form: the dataclass.
        given: some of its fields by name.
        where: what the values are settings of, at the start of a message.
        lacks: between that and a name that the dataclass does not have.

    Raises:
        TrainingError: an unknown name, or a value of another type.
    """
    known = [entry.name for entry in fields(form)]
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        raise TrainingError(f"{where} {lacks} {', '.join(unknown)}; expected some of {', '.join(known)}")
    hints = get_type_hints(form)
    return {name: typed(f"{where}: {name}", value, hints[name]) for name, value in given.items()}


def typed(name: str, value: Any, hint: Any) -> Any:
    """A value in the type that a hint describes; YAML reads 1e-3 as text, and has lists for tuples.

    Raises:
        TrainingError: it is of another type; the message has its name.
    """
    for allowed in _alternatives(hint):
        try:
            return _in_type(value, allowed)
        except (TypeError, ValueError, OverflowError):
            continue
    raise TrainingError(f"{name} is {value!r}; expected {_in_words(hint)}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union, in order; the type itself if it is none."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _in_type(value: Any, wanted: Any) -> Any:
    """A value in one type.

    Raises:
        TypeError, ValueError, OverflowError: it is of another.
    """
    origin, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if origin is Literal:
        if value in arguments:
            return value
    elif origin is float and not isinstance(value, bool):
        return float(value)
    elif origin is int and not isinstance(value, bool) and float(value) == int(float(value)):
        return value if isinstance(value, int) else int(float(value))
    elif origin is Path:
        return Path(cast(str, value))
    elif origin is Mapping and isinstance(value, Mapping):
        return dict(cast(Mapping[str, Any], value))
    elif origin is tuple and isinstance(value, list | tuple):
        return _tuple(cast("list[Any]", value), arguments)
    elif origin in (str, bool):
        if type(value) is origin:
            return value
    elif issubclass(origin, Enum):
        return origin(value)
    elif origin not in _WORDS and isinstance(value, origin):
        return value
    raise TypeError


def _tuple(values: list[Any] | tuple[Any, ...], wanted: tuple[Any, ...]) -> tuple[Any, ...]:
    """A tuple of the given types, or of any number of one type."""
    kinds = wanted[:1] * len(values) if wanted[1:] == (...,) else wanted
    return tuple(_in_type(value, kind) for value, kind in zip(values, kinds, strict=True))


def _in_words(hint: Any) -> str:
    """What a type hint expects, for a message."""
    return " or ".join(_words(one) for one in _alternatives(hint) if one in _WORDS or get_origin(one) or _is_enum(one))


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple:
        several = arguments[1:] == (...,)
        inner = ", ".join(_words(one) for one in (arguments[:1] if several else arguments))
        return f"a list of [{inner}]" if several else f"[{inner}]"
    return " or ".join(str(one.value) for one in hint) if _is_enum(hint) else _WORDS[origin]
