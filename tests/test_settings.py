"""Signatures as schemas: hints, defaults, meanings, checks and words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jsonschema
import pytest
from annotated_types import Ge, Gt, Interval, Le, Len, Lt, MaxLen, MinLen
from pydantic import Field

from segreg.config.sections import Evaluate, Input, Split, Train
from segreg.settings import (
    REQUIRED,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Setting,
    check_value,
    default_of,
    documented_arguments,
    format_type,
    format_value,
    json_schema,
    plain,
    settings_of,
)

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[PositiveInt, PositiveInt]

# hint, value as a recipe has it, value as the builder gets it
FITTING = [
    (int, 3, 3),
    (int, -3, -3),
    (int, 10**30, 10**30),
    (float, 3, 3.0),
    (float, 0.5, 0.5),
    (bool, True, True),
    (str, "512", "512"),
    (str, "", ""),
    (str, "größe 🙂", "größe 🙂"),
    (Path, "data/images", Path("data/images")),
    (Path, Path("data/images"), Path("data/images")),
    (Literal["a", "b"], "b", "b"),
    (Literal[8, 16], 16, 16),
    (Literal[8, 16], 8.0, 8),
    (int | None, None, None),
    (Literal["auto"] | int, "auto", "auto"),
    (Literal["auto"] | int, 4, 4),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    (tuple[int, ...], (1, 2), (1, 2)),
    (tuple[int, ...], [], ()),
    (tuple[float, float], [1, 2.5], (1.0, 2.5)),
    (list[str], ["a"], ["a"]),
    (Sequence[int], [1, 2], [1, 2]),
    (float | tuple[float, float], 3, 3.0),
    (float | tuple[float, float], [1, 2], (1.0, 2.0)),
    (tuple[Pair, ...], [[1, 2], [3, 4]], ((1, 2), (3, 4))),
    (Mapping[Literal["train", "val"], Path], {"val": "v.txt"}, {"val": Path("v.txt")}),
    (dict[str, float], {"a": 1}, {"a": 1.0}),
    (PositiveInt, 1, 1),
    (NonNegativeInt, 0, 0),
    (PositiveFloat, 1e-300, 1e-300),
    (NonNegativeFloat, 0, 0.0),
    (Fraction, 1, 1.0),
    (Any, {"a": [1, None]}, {"a": [1, None]}),
]

# hint, value as a recipe has it, what is said
REFUSED = [
    (int, "3", 'must be an integer, not the string "3"'),
    (int, True, "must be an integer, not the boolean true"),
    (int, 3.0, "must be an integer, not 3.0"),
    (int, 3.5, "must be an integer, not 3.5"),
    (int, None, "must be an integer, not null"),
    (float, "1e-4", 'must be a number, not the string "1e-4"'),
    (float, False, "must be a number, not the boolean false"),
    (float, [1.0], "must be a number, not [1.0]"),
    (bool, 1, "must be true or false, not 1"),
    (bool, "yes", 'must be true or false, not the string "yes"'),
    (str, 512, "must be a string, not 512"),
    (str, ["größe"], 'must be a string, not ["größe"]'),
    (Path, 3, "must be a path, not 3"),
    (Path, None, "must be a path, not null"),
    (Literal["a", "b"], "c", 'must be one of a, b, not the string "c"'),
    (Literal[8, 16], "8", 'must be one of 8, 16, not the string "8"'),
    (int | None, "no", 'must be an integer or null, not the string "no"'),
    (PositiveInt | Literal["auto"], 0, "must be an integer above 0 or auto, not 0"),
    (tuple[int, ...], 3, "must be a list of integers, not 3"),
    (tuple[int, ...], "3", 'must be a list of integers, not the string "3"'),
    (tuple[int, ...], [1, "b"], 'must be a list of integers, not [1, "b"]; item 2 is the string "b"'),
    (tuple[int, ...], ["a", "b"], 'must be a list of integers, not ["a", "b"]'),
    (Pair, [256], "must be a list of 2 integers above 0, not [256]"),
    (Pair, [256, 256, 3], "must be a list of 2 integers above 0, not [256, 256, 3]"),
    (Pair, [256, 0], "must be a list of 2 integers above 0, not [256, 0]; item 2 is 0"),
    (
        tuple[Pair, ...],
        [[1, 2], 3],
        "must be a list of values, each a list of 2 integers above 0, not [[1, 2], 3]; item 2 is 3",
    ),
    (list[bool], [1], "must be a list of true/false values, not [1]; item 1 is 1"),
    (dict[str, int], [1], "must be a mapping of names to integers, not [1]"),
    (dict[str, int], {"a": "b"}, 'must be a mapping of names to integers, not {"a": "b"}; "a" is the string "b"'),
    (
        Mapping[Literal["train", "val"], Path],
        {"trian": "t.txt"},
        'must be a mapping of train, val to paths, not {"trian": "t.txt"}; "trian" is none of its keys',
    ),
    (PositiveInt, 0, "must be an integer above 0, not 0"),
    (NonNegativeInt, -1, "must be an integer of at least 0, not -1"),
    (PositiveFloat, 0.0, "must be a number above 0, not 0.0"),
    (PositiveFloat, math.nan, "must be a number above 0, not .nan"),
    (PositiveFloat, -math.inf, "must be a number above 0, not -.inf"),
    (float, math.inf, "must be a number, and finite, not .inf"),
    (PositiveFloat, math.inf, "must be a number above 0, and finite, not .inf"),
    (list[float], [1.0, math.inf], "must be a list of numbers, and finite, not .inf"),
    (Mapping[str, float], {"a": math.nan}, "must be a mapping of names to numbers, and finite, not .nan"),
    (Fraction, 1.5, "must be a number between 0 and 1, not 1.5"),
    (Annotated[int, Field(ge=2, lt=9)], 9, "must be an integer of at least 2 and below 9, not 9"),
    (Annotated[tuple[int, ...], MinLen(1)], [], "must be a list of integers (at least 1), not []"),
    (int, object, "must be an integer, not <class 'object'>"),
    (str, "\ud800", 'must be a string, not the string "\ud800"'),
    (int, "x" * 100, f'must be an integer, not the string "{"x" * 77}..."'),
]


@pytest.mark.parametrize(("hint", "value", "expected"), FITTING, ids=str)
def test_a_value_that_fits_becomes_what_the_builder_asks_for(hint, value, expected):
    got = check_value(hint, value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(("hint", "value", "expected"), FITTING, ids=str)
def test_a_value_that_fits_survives_writing_and_reading(hint, value, expected):
    assert check_value(hint, plain(hint, check_value(hint, value))) == expected


@pytest.mark.parametrize(("hint", "value", "says"), REFUSED, ids=str)
def test_a_value_that_does_not_fit_is_reported_formatted(hint, value, says):
    with pytest.raises(ValueError) as reported:
        check_value(hint, value)
    assert str(reported.value) == says


@pytest.mark.parametrize(
    ("hint", "value"),
    [(h, v) for h, v, _ in FITTING if not isinstance(v, (Path, tuple))],
    ids=str,
)
def test_the_json_schema_takes_what_the_check_takes(hint, value):
    jsonschema.validate(value, json_schema(hint))
    assert json_schema(hint) is json_schema(hint)  # many parts have settings of one type


@pytest.mark.parametrize(
    ("hint", "value"),
    # JSON Schema calls 3.0 an integer, and what is not JSON is none of its business.
    [(h, v) for h, v, says in REFUSED if v not in (3.0, object, "\ud800") and not re.search("finite|[.]nan", says)],
    ids=str,
)
def test_the_json_schema_refuses_what_the_check_refuses(hint, value):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, json_schema(hint))


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Any, "anything"),
        (type(None), "null"),
        (Literal["scse"] | None, "scse or null"),
        (list[Literal["a", "b"]], "a list of values, each one of a, b"),
        (tuple[int, str], "a list of 2 values"),
        (Annotated[float, Interval(gt=0, le=1)], "a number above 0 and of at most 1"),
        (Annotated[float, Interval(ge=0, lt=1)], "a number of at least 0 and below 1"),
        (Annotated[float, Interval(gt=0, lt=1)], "a number strictly between 0 and 1"),
        (Annotated[float, Gt(0), Lt(1)], "a number strictly between 0 and 1"),
        (Annotated[int, Ge(1), Le(9)], "an integer between 1 and 9"),
        (Annotated[int, Interval(ge=1)], "an integer of at least 1"),
        (Annotated[int, Le(9)], "an integer of at most 9"),
        (Annotated[int, Field(gt=0)], "an integer above 0"),
        (Annotated[list[int], Len(1, 3)], "a list of integers (at least 1, at most 3)"),
        (Annotated[list[int], MaxLen(3)], "a list of integers (at most 3)"),
        (Annotated[int, "a note of somebody's"], "an integer"),
    ],
    ids=str,
)
def test_types_formatted(hint, words):
    assert format_type(hint) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (True, "the boolean true"),
        ("on", 'the string "on"'),
        (3, "3"),
        (math.nan, ".nan"),
        ({"a": [1, "größe"]}, '{"a": [1, "größe"]}'),
        (list(range(100)), f"{str(list(range(100)))[:77]}..."),
    ],
)
def test_values_formatted(value, words):
    assert format_value(value) == words


def test_keyword_only_parameters_are_settings():
    def build(task: Tensor, other, *, rate: PositiveFloat, mode: Literal["a"] | None = None) -> Tensor:
        """A part.

        Args:
            rate: how fast,
                told on two lines.
            mode: how.
        """

    assert settings_of(build) == {
        "rate": Setting("rate", PositiveFloat, REQUIRED, "how fast, told on two lines."),
        "mode": Setting("mode", Literal["a"] | None, None, "how."),
    }
    assert settings_of(build)["rate"].required
    assert not settings_of(build)["mode"].required


def test_hints_come_from_the_module_of_the_function_that_is_wrapped():
    def build(task, *, size: PositiveInt = 3):
        """A part."""

    @wraps(build)
    def wrapper(*given, **settings):
        return build(*given, **settings)

    assert settings_of(wrapper)["size"].hint == PositiveInt


def test_a_class_is_read_like_its_initialiser():
    class Loss:
        """A loss.

        Args:
            power: of something.
        """

        def __init__(self, task, *, power: float = 1.0):
            pass

    assert settings_of(Loss) == {"power": Setting("power", float, 1.0, "of something.")}


@pytest.mark.parametrize(
    ("hint", "default", "wanted"),
    [
        (float, 10_000, 10_000.0),
        (PositiveFloat | None, 1, 1.0),
        (tuple[float, float], (0, 1), (0.0, 1.0)),
        (tuple[int, ...], [1, 2], (1, 2)),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (Path, "data", Path("data")),
        (int, 3, 3),
        (Any, {"a": (1, 2)}, {"a": (1, 2)}),
    ],
    ids=str,
)
def test_a_default_is_what_a_recipe_gives_that_names_it(hint, default, wanted):
    found = default_of(Setting("x", hint, default))
    assert repr(found) == repr(wanted)
    if hint is not Any:
        assert repr(check_value(hint, plain(hint, found))) == repr(wanted)


@pytest.mark.parametrize("value", ["a\0b", ["a", "b\0"], {"a": ["\0"]}])
def test_no_string_has_a_null_character(value):
    with pytest.raises(ValueError, match="which has a null character in it"):
        check_value(Any, value)


def test_a_dataclass_gives_a_fresh_default_where_it_has_a_factory():
    @dataclass(frozen=True, kw_only=True)
    class Section:
        files: dict[str, int] = field(default_factory=dict)

    first, second = settings_of(Section)["files"].default, settings_of(Section)["files"].default
    assert first == second == {}
    assert first is not second


def test_a_hint_that_only_type_checkers_can_see_is_a_name_error():
    def build(*, weights: Tensor):
        """A part."""

    with pytest.raises(NameError, match="Tensor"):
        settings_of(build)


@pytest.mark.parametrize(
    ("docstring", "meanings"),
    [
        ("", {}),
        ("One line.", {}),
        ("Args: in a sentence.", {}),
        (
            "A part.\n\n    Args:\n        a: one.\n        b: two\n            lines.\n\n    Returns:\n        c: no.",
            {"a": "one.", "b": "two lines."},
        ),
        ("A part.\n\nArgs:\n  a: with: colons, and http://x.y/z.\n", {"a": "with: colons, and http://x.y/z."}),
        ("A part.\n\nArgs:\n    a:\n        below.\n    b: beside.\n", {"a": "below.", "b": "beside."}),
        ("A part.\n\nArgs:\n    a: one.\n\n    b: after a blank line.\n", {"a": "one.", "b": "after a blank line."}),
        ("A part.\n\nArgs:\n    a: one.\nRaises:\n    b: no.\n", {"a": "one."}),
    ],
)
def test_meanings_are_read_from_google_style_docstrings(docstring, meanings):
    assert documented_arguments(docstring) == meanings


@pytest.mark.parametrize("section", [Split, Input, Train, Evaluate])
def test_every_setting_of_the_sections_has_a_meaning_and_a_default_that_fits(section):
    for setting in settings_of(section).values():
        assert setting.meaning
        written = plain(setting.hint, setting.default)
        assert check_value(setting.hint, written) == setting.default
        jsonschema.validate(written, json_schema(setting.hint))
