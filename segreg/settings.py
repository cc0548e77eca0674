"""A function's keyword-only parameters as a schema: what a recipe may set, of which type, with which default."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]

REQUIRED: Any = inspect.Parameter.empty
"""The default of a setting that has none."""


@dataclass(frozen=True)
class Setting:
    """One thing that a recipe may set."""

    name: str
    hint: Any
    default: Any = REQUIRED
    meaning: str = ""

    @property
    def required(self) -> bool:
        """Says whether a recipe must give it."""
        return self.default is REQUIRED


def settings_of(function: Callable[..., Any], *, ignore: Sequence[str] = ()) -> dict[str, Setting]:
    """Gives the settings that `function`'s keyword-only parameters declare, in their order.

    Raises:
        NameError: a type hint names something that its module does not have at run time.
    """
    parameters = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in ignore
    ]
    # Only these hints are evaluated: the others may name types that are imported for type checkers alone.
    source = function.__init__ if inspect.isclass(function) else function
    carrier = type("Settings", (), {"__annotations__": {p.name: p.annotation for p in parameters}})
    hints = typing.get_type_hints(carrier, globalns=source.__globals__, include_extras=True)
    meanings = documented_arguments(function.__doc__ or "")
    defaults = {p.name: p.default for p in parameters}
    for field in fields(function) if is_dataclass(function) else ():
        if field.default_factory is not MISSING:
            defaults[field.name] = field.default_factory()
    return {p.name: Setting(p.name, hints[p.name], defaults[p.name], meanings.get(p.name, "")) for p in parameters}


def documented_arguments(docstring: str) -> dict[str, str]:
    """Gives the meaning of each argument in a docstring's "Args:" block (Google style)."""
    found = re.search(r"^Args:\n((?:[ \t]+\S.*\n?|\n)+)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    if not found:
        return {}
    block = textwrap.dedent(found.group(1))
    entries = re.findall(r"^(\w+):[ ]?(.*(?:\n[ \t]+\S.*)*)", block, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


@cache
def _adapter(hint: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(hint)


def check_value(hint: Any, value: Any) -> Any:
    """Gives `value`, as a recipe has it, as the Python value that `hint` asks for.

    Strict: `"512"` is no int and `true` is no int; a list serves for a tuple, an int for a float, a string for a path.

    Raises:
        ValueError: the value does not fit. The text says what was expected, in words, and where inside the value.
    """
    from pydantic import ValidationError

    if hint is Any:
        return value
    try:
        # Through JSON, because pydantic's strict mode takes a list for a tuple there and nowhere else.
        return _adapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        inside = _place_inside(error, value)
        raise ValueError(f"{inside}must be {type_in_words(hint)}, not {value_in_words(value)}") from None


def _place_inside(error: Any, value: Any) -> str:
    """Gives "item 2 " when one item of a list is at fault and the rest is well."""
    places = {item["loc"][0] for item in error.errors() if item["loc"]}
    if isinstance(value, list) and len(places) == 1 and isinstance(place := places.pop(), int):
        return f"(item {place + 1}) "
    return ""


def plain(hint: Any, value: Any) -> Any:
    """Gives a setting's Python value as YAML can hold it: paths as strings, tuples as lists."""
    return value if hint is Any else _adapter(hint).dump_python(value, mode="json", warnings=False)


def json_schema(hint: Any) -> dict[str, Any]:
    """Gives the JSON Schema of a type hint."""
    return {} if hint is Any else _adapter(hint).json_schema(mode="validation")


def value_in_words(value: Any) -> str:
    """Gives a recipe's value as a message quotes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        return f'the text "{value}"'
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


_PLAIN = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    type(None): "null",
    Path: "a path",
}
_MANY = {int: "integers", float: "numbers", str: "texts", bool: "true/false values", Path: "paths"}


def type_in_words(hint: Any) -> str:
    """Gives a type hint in a recipe writer's words: "a number between 0 and 1", "a list of integers or null"."""
    if hint is Any:
        return "anything"
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_in_words(arguments[0]) + _limits_in_words(arguments[1:])
    if origin is Literal:
        words = [a if isinstance(a, str) else value_in_words(a) for a in arguments]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_in_words(argument) for argument in arguments)
    if origin in (list, Sequence) or (origin is tuple and Ellipsis in arguments):
        return f"a list of {_plural(arguments[0])}"
    if origin is tuple:
        inner = {_plural(argument) for argument in arguments}
        return f"a list of {len(arguments)} {inner.pop()}" if len(inner) == 1 else f"a list of {len(arguments)} values"
    if origin in (dict, Mapping):
        return f"a mapping to {_plural(arguments[1])}"
    return getattr(hint, "__name__", str(hint))


def _plural(hint: Any) -> str:
    bare, limits = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
    return (_MANY.get(bare) or f"values, each {type_in_words(bare)}") + _limits_in_words(limits)


def _limits_in_words(limits: Sequence[Any]) -> str:
    for limit in limits:
        match limit:
            case Interval(ge=low, le=high) if low is not None and high is not None:
                return f" between {low} and {high}"
            case Interval(gt=low, le=high) if low is not None and high is not None:
                return f" above {low} and at most {high}"
            case Interval(ge=low, lt=high) if low is not None and high is not None:
                return f" of at least {low} and below {high}"
            case Interval(gt=low, lt=high) if low is not None and high is not None:
                return f" strictly between {low} and {high}"
            case Gt(gt=low):
                return f" above {low}"
            case Ge(ge=low):
                return f" of at least {low}"
            case Lt(lt=high):
                return f" below {high}"
            case Le(le=high):
                return f" of at most {high}"
            case MinLen(min_length=least):
                return f" (at least {least})"
    return ""
