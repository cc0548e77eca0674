"""What differs between recipes, as plain values: of two each setting, of many what tells each from the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final


class Absent(Enum):
    """Stands for a setting that a recipe does not have."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
_SEED = "seed"
_PARTS = (
    "dataset", "network", "encoder", "decoder", "loss", "optimizer", "schedule", "auxiliary", "augment",
    "batch_augment",
)  # fmt: skip
"""Paths of parts, whose names speak for themselves."""
_NOTHING = ("none", "null", "-")
"""How a part that is not there is shown."""


@dataclass(frozen=True)
class RecipeDifference:
    """One thing in which two recipes differ.

    Attributes:
        path: the setting or part, such as "train.epochs"; in a list of parts each goes by its name: "loss.dice.weight".
        one: the one recipe's value, of a part its name; ABSENT where it has none.
        other: the other recipe's.
        only_one: of a part that was exchanged, settings that the one's has and the other's has not.
        only_other: of a part that was exchanged, settings that the other's has and the one's has not.
    """

    path: str
    one: Any
    other: Any
    only_one: Mapping[str, Any] = field(default_factory=dict)
    only_other: Mapping[str, Any] = field(default_factory=dict)


def recipe_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[RecipeDifference]:
    """Return what differs between two plain recipes, in the order in which they are written.

    Where a part was exchanged for another, settings that both have are compared one by one; those that only one of them
    has stand with the part.
    """
    return list(_differences("", a, b))


def label_of(settings: Mapping[str, str]) -> str:
    """Return what to call a recipe that these settings tell from others: a part by its name, else "path=value"."""
    shown = settings
    if "network" in settings:  # a whole network has no encoder and no decoder, and another recipe has no network
        absent = {path for path in ("network", "encoder", "decoder", "auxiliary") if settings.get(path) in _NOTHING}
        shown = {path: text for path, text in settings.items() if path not in absent}
    return ", ".join(text if path in _PARTS else f"{path}={text}" for path, text in shown.items())


def distinguishing(recipes: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return for each recipe what tells it from the others: by path, in short words.

    A part is named by its name, a list of parts by their names; a part's settings where others name the same part with
    other settings. A section that only some recipes have (`crop`, as `input.resize` says) is compared among those. The
    recipe's seed is left out, and recipes that differ in nothing else get an empty text.
    """
    differing: list[dict[str, str]] = [{} for _ in recipes]
    _collect("", [{name: value for name, value in recipe.items() if name != _SEED} for recipe in recipes], differing)
    return differing


def in_short(value: Any) -> str:
    """Return a recipe's value as a table shows it: "null", "0.5", "[256, 256]", "resnet18"."""
    if value is ABSENT:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def part_names(value: Any) -> list[str] | None:
    """Return the names of the parts that a section holds, in their order; None if it holds something else."""
    if _is_part(value):
        return [str(value["name"])]
    if isinstance(value, Sequence) and not isinstance(value, str) and value and all(map(_is_part, value)):
        return [str(item["name"]) for item in value]
    return None


def _differences(path: str, one: Any, other: Any) -> Iterator[RecipeDifference]:
    both = [one, other]
    if _alike(both):
        return
    if _are_parts(both):
        yield from _of_parts(path, one, other)
    elif _are_lists_of_parts(both):
        yield from _of_lists(path, *([] if value in (None, ABSENT) else value for value in both))
    elif _are_mappings(both):
        for name in _keys(both):
            yield from _differences(_below(path, name), _get(one, name), _get(other, name))
    else:
        yield RecipeDifference(path, one, other)


def _of_parts(path: str, one: Any, other: Any) -> Iterator[RecipeDifference]:
    mine, its = _settings(one), _settings(other)
    if _name(one) != _name(other):
        only_one = {name: value for name, value in mine.items() if name not in its}
        only_other = {name: value for name, value in its.items() if name not in mine}
        yield RecipeDifference(path, _name(one), _name(other), only_one, only_other)
        shared: Iterable[str] = [name for name in mine if name in its]
    else:
        shared = _keys([mine, its])
    for name in shared:
        yield from _differences(_below(path, name), _get(mine, name), _get(its, name))


def _of_lists(path: str, one: Sequence[Any], other: Sequence[Any]) -> Iterator[RecipeDifference]:
    if len(one) == len(other) == 1 and _name(one[0]) != _name(other[0]):  # one part in place of another
        yield from _of_parts(path, one[0], other[0])
        return
    mine, its = _by_name(one), _by_name(other)
    for name in _keys([mine, its]):
        yield from _of_parts(_below(path, name), _get(mine, name), _get(its, name))
    if [name for name in mine if name in its] != [name for name in its if name in mine]:
        yield RecipeDifference(path, [*mine], [*its])


def _collect(path: str, values: Sequence[Any], differing: Sequence[dict[str, str]]) -> None:
    """Add to each recipe's label what distinguishes its value at `path` from the others'."""
    if _alike(values):
        return
    if _are_parts(values) or _are_lists_of_parts(values):
        names = [" + ".join(part_names(value) or ["none"]) for value in values]
        if len(set(names)) > 1:
            for each, name in zip(differing, names, strict=True):
                each[path] = name
        for name in dict.fromkeys(names):
            group = [place for place, own in enumerate(names) if own == name]
            same = [_parts_by_name(values[place]) for place in group]
            for part in _keys(same):
                below = path if _are_parts(values) else _below(path, part)
                _collect_each(below, [_settings(parts[part]) for parts in same], [differing[place] for place in group])
    elif _are_mappings(values):
        there = [place for place, value in enumerate(values) if value is not ABSENT]
        _collect_each(path, [values[place] for place in there], [differing[place] for place in there])
    else:
        for each, value in zip(differing, values, strict=True):
            each[path] = in_short(value)


def _collect_each(path: str, values: Sequence[Any], differing: Sequence[dict[str, str]]) -> None:
    for name in _keys(values):
        _collect(_below(path, name), [_get(value, name) for value in values], differing)


def _alike(values: Sequence[Any]) -> bool:
    # By their texts as well, because a NaN is not equal to itself.
    return all(value == values[0] or repr(value) == repr(values[0]) for value in values[1:])


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("name"), str)


def _are_parts(values: Sequence[Any]) -> bool:
    return any(map(_is_part, values)) and all(value in (None, ABSENT) or _is_part(value) for value in values)


def _are_lists_of_parts(values: Sequence[Any]) -> bool:
    lists = [value for value in values if value not in (None, ABSENT)]
    return any(map(part_names, lists)) and all(
        isinstance(value, Sequence) and (not value or part_names(value)) for value in lists
    )


def _are_mappings(values: Sequence[Any]) -> bool:
    return all(value is ABSENT or isinstance(value, Mapping) for value in values)


def _name(part: Any) -> Any:
    return part["name"] if _is_part(part) else part


def _settings(part: Any) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != "name"} if _is_part(part) else {}


def _parts_by_name(value: Any) -> dict[str, Any]:
    if _is_part(value):
        return {str(value["name"]): value}
    return _by_name(value) if part_names(value) else {}


def _by_name(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parts of a list by name; the second of one name is "Rotate[2]"."""
    found: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for part in parts:
        name = str(part["name"])
        counts[name] = counts.get(name, 0) + 1
        found[name if counts[name] == 1 else f"{name}[{counts[name]}]"] = part
    return found


def _keys(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(name for value in values if isinstance(value, Mapping) for name in value))


def _get(value: Any, name: str) -> Any:
    return value.get(name, ABSENT) if isinstance(value, Mapping) else ABSENT


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
