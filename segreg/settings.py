"""A function's keyword-only parameters as a schema: what a recipe may set, of which type, with which default."""

from __future__ import annotations

import inspect
import json
import math
import operator
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, GroupedMetadata, Gt, Interval, Le, Lt, MaxLen, MinLen

T = TypeVar("T")
PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]

MOST_BITS = 128
"""No setting takes longer integers."""

UNDEFINED_TOO = "undefined numbers too"
"""Beside a type (`Annotated[dict[str, float], UNDEFINED_TOO]`): its numbers may be .nan."""

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
        """Whether a recipe must give it."""
        return self.default is REQUIRED


def settings_of(function: Callable[..., Any]) -> dict[str, Setting]:
    """Return the settings that `function`'s keyword-only parameters declare, in their order.

    Raises:
        NameError: a type hint names something that its module does not have at run time.
    """
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    # Only these hints are evaluated: the others may name types that are imported for type checkers alone.
    source = function.__init__ if inspect.isclass(function) else inspect.unwrap(function)
    carrier = type("Settings", (), {"__annotations__": {p.name: p.annotation for p in parameters}})
    hints = typing.get_type_hints(carrier, globalns=source.__globals__, include_extras=True)
    meanings = documented_arguments(function.__doc__ or "")
    defaults = {p.name: p.default for p in parameters}
    for field in fields(function) if is_dataclass(function) else ():
        if field.default_factory is not MISSING:
            defaults[field.name] = field.default_factory()
    return {p.name: Setting(p.name, hints[p.name], defaults[p.name], meanings.get(p.name, "")) for p in parameters}


@cache
def documented_arguments(docstring: str) -> dict[str, str]:
    """Return the meaning of each argument in a docstring's "Args:" block (Google style)."""
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
    """Return `value`, as a recipe has it, as the Python value that `hint` asks for.

    Strict: neither `"512"` nor `true` is an int; a list serves for a tuple, an int for a float, a string for a path.

    Raises:
        ValueError: the value does not fit. The message says what was expected, and where inside the value.
    """
    if far := next((n.bit_length() for n in _of_type(int, value) if n.bit_length() > MOST_BITS), 0):
        raise ValueError(f"must be {format_type(hint)}, not an integer of {far} bits; at most {MOST_BITS} are taken")
    if any("\0" in text for text in _of_type(str, value)):
        raise ValueError(f"must be {format_type(hint)}, not {format_value(value)}, which has a null character in it")
    if hint is Any:
        return value
    from pydantic import ValidationError

    try:
        text = json.dumps(value, default=_path_as_text)
    except TypeError:  # only a recipe made in Python can hold such a thing
        raise ValueError(f"must be {format_type(hint)}, not {value!r}") from None
    try:
        # Through JSON, because pydantic's strict mode takes a list for a tuple there and nowhere else.
        checked = _adapter(hint).validate_json(text, strict=True)
    except ValidationError as error:
        inside = _place_inside(error, value)
        raise ValueError(f"must be {format_type(hint)}, not {format_value(value)}{inside}") from None
    odd = next((n for n in _of_type(float, value) if not math.isfinite(n)), None)
    if odd is not None and not (math.isnan(odd) and _undefined_too(hint)):
        raise ValueError(f"must be {format_type(hint)}, and finite, not {format_value(odd)}")
    return checked


def plainly_fits(hint: Any, value: Any) -> bool:
    """Whether a value fits a hint, where that is seen at once; False leaves it to pydantic, which is slow to import."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or (hint in (None, type(None)) and value is None):
        return True
    if origin is Annotated:
        holds = {"gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le}
        return plainly_fits(arguments[0], value) and all(
            isinstance(limit, (Gt, Ge, Lt, Le, Interval))
            and all(holds[name](value, bound) for name in holds if (bound := getattr(limit, name, None)) is not None)
            for limit in arguments[1:]
        )
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)
    if origin in (typing.Union, types.UnionType):
        return any(plainly_fits(each, value) for each in arguments)
    if origin is list:
        return isinstance(value, list) and all(plainly_fits(arguments[0], each) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            plainly_fits(arguments[0], key) and plainly_fits(arguments[1], each) for key, each in value.items()
        )
    if origin is tuple and isinstance(value, tuple):
        hints = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return len(hints) == len(value) and all(map(plainly_fits, hints, value))
    if hint is float:
        return type(value) is int or (type(value) is float and math.isfinite(value))
    return isinstance(value, Path) if hint is Path else hint in (bool, int, str) and type(value) is hint


def nested(hint: Any) -> Any:
    """Return the dataclass of settings that a hint is, or is beside None; None for other hints."""
    hints = (hint, *get_args(hint)) if get_origin(hint) is not Annotated else ()
    return next((each for each in hints if isinstance(each, type) and is_dataclass(each)), None)


def check_default(setting: Setting) -> None:
    """Check that a setting's default is a value that a recipe could write.

    Raises:
        ValueError: it is not; the message says what was expected.
    """
    if setting.required or (setting.hint is not Any and plainly_fits(setting.hint, setting.default)):
        return
    try:
        written = plain(setting.hint, setting.default)
        json.dumps(written)
    except Exception as error:
        raise ValueError(f"can't be written into a recipe: {type(error).__name__}: {error}") from None
    check_value(setting.hint, written)


def default_of(setting: Setting) -> Any:
    """Return a setting's default as a recipe gives it that names it: 1.0 for 1 where a float is asked for."""
    return check_value(setting.hint, plain(setting.hint, setting.default))


def check_hint(hint: Any) -> None:
    """Check that a recipe's values can be checked by a type hint, and that a schema can have it.

    Raises:
        ValueError: they can't; the message has pydantic's reason.
    """
    if _is_common(hint):
        return
    try:
        json_schema(hint)
    except Exception as error:  # pydantic's have no common class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"can't be checked or written as JSON Schema: {reason}") from None


def _is_common(hint: Any) -> bool:
    """Whether a type hint is made of types that are known to serve, which spares asking pydantic."""
    if get_origin(hint) is Literal or hint in (bool, int, float, str, Path, None, type(None), Any, ...):
        return True
    arguments = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return bool(arguments) and all(map(_is_common, arguments))


def _of_type(kind: type[T], value: Any) -> Iterator[T]:
    """Yield what a value is or holds of a type; the values of mappings, not their keys."""
    if isinstance(value, kind):
        yield value
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for item in items:
        yield from _of_type(kind, item)


def _undefined_too(hint: Any) -> bool:
    return UNDEFINED_TOO in get_args(hint) or any(map(_undefined_too, get_args(hint)))


def _path_as_text(value: Any) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError


def _place_inside(error: Any, value: Any) -> str:
    """Return '; item 2 is the string "a"' when one item of a list or mapping is at fault and the rest is well."""
    faults = {item["loc"] for item in error.errors()}
    if len(faults) != 1 or not (loc := faults.pop()):
        return ""
    if isinstance(value, list) and isinstance(loc[0], int) and loc[0] < len(value):
        return f"; item {loc[0] + 1} is {format_value(value[loc[0]])}"
    if isinstance(value, Mapping) and loc[0] in value:
        return f'; "{loc[0]}" is {"none of its keys" if "[key]" in loc else format_value(value[loc[0]])}'
    return ""


def plain(hint: Any, value: Any) -> Any:
    """Return a setting's Python value as YAML can hold it: paths as strings, tuples as lists."""
    return value if hint is Any else _adapter(hint).dump_python(value, mode="json", warnings=False)


@cache
def json_schema(hint: Any) -> Mapping[str, Any]:
    """Return the JSON Schema of a type hint."""
    return {} if hint is Any else _adapter(hint).json_schema(mode="validation")


def format_value(value: Any) -> str:
    """Return a recipe's value as a message quotes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": ".inf", "-inf": "-.inf"}.get(str(value), ".nan")
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    short = text if len(text) <= 80 else f"{text[:77]}..."
    return f'the string "{short}"' if isinstance(value, str) else short


_PLAIN = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    type(None): "null",
    Path: "a path",
}
_MANY = {int: "integers", float: "numbers", str: "strings", bool: "true/false values", Path: "paths"}


def format_type(hint: Any) -> str:
    """Return a type hint in a recipe writer's words: "a number between 0 and 1", "a list of integers or null"."""
    if hint is Any:
        return "anything"
    if hint in _PLAIN:
        return _PLAIN[hint]
    if isinstance(hint, type) and is_dataclass(hint):
        return f"settings ({', '.join(field.name for field in fields(hint))})"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return format_type(arguments[0]) + _format_limits(arguments[1:])
    if origin is Literal:
        words = [a if isinstance(a, str) else format_value(a) for a in arguments]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(format_type(argument) for argument in arguments)
    if origin in (list, Sequence) or (origin is tuple and Ellipsis in arguments):
        return f"a list of {_plural(arguments[0])}"
    if origin is tuple:
        inner = {_plural(argument) for argument in arguments}
        return f"a list of {len(arguments)} {inner.pop()}" if len(inner) == 1 else f"a list of {len(arguments)} values"
    if origin in (dict, Mapping):
        keys = format_type(arguments[0]).removeprefix("one of ") if get_origin(arguments[0]) is Literal else "names"
        return f"a mapping of {keys} to {_plural(arguments[1])}"
    return getattr(hint, "__name__", str(hint))


def _plural(hint: Any) -> str:
    bare, limits = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
    return (_MANY.get(bare) or f"values, each {format_type(bare)}") + _format_limits(limits)


def _format_limits(limits: Sequence[Any]) -> str:
    """Return " above 0 and at most 1" for annotated_types' limits, also where pydantic.Field holds them."""
    found: dict[type, Any] = {}
    for limit in limits:
        parts = limit if isinstance(limit, GroupedMetadata) else getattr(limit, "metadata", None) or [limit]
        found |= {type(part): part for part in parts}
    match [found.get(kind) for kind in (Gt, Ge, Lt, Le)]:
        case [None, Ge(ge=low), None, Le(le=high)]:
            words = [f"between {low} and {high}"]
        case [Gt(gt=low), None, Lt(lt=high), None]:
            words = [f"strictly between {low} and {high}"]
        case _:
            bounds = {Gt: ("above", "gt"), Ge: ("of at least", "ge"), Lt: ("below", "lt"), Le: ("of at most", "le")}
            words = [f"{text} {getattr(found[kind], name)}" for kind, (text, name) in bounds.items() if kind in found]
    counts = [f"at least {found[MinLen].min_length}"] if MinLen in found else []
    counts += [f"at most {found[MaxLen].max_length}"] if MaxLen in found else []
    return "".join(f" {text}" for text in [" and ".join(words)] if text) + (f" ({', '.join(counts)})" if counts else "")
