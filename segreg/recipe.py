"""Reads a recipe: plain YAML to plain values that remember where each was written, and `key.path=value` overrides."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from segreg.errors import Place, Problem, SegregError

KeyPath = tuple[str | int, ...]
"""Where a value stands in a recipe: `("loss", 0, "name")`."""

COMMAND_LINE = Place("command line")
_LARGEST_FILE = 1_000_000

# YAML 1.2's core schema. PyYAML follows YAML 1.1, where `1e-4` is a text and `on`, `no` and `12:30` are not.
_NULL = re.compile(r"^(?:null|Null|NULL|~|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]+$")
_BASED_INT = re.compile(r"^(?:0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_NOT_FINITE = re.compile(r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$")


# A recipe is data: nothing in it refers to anything, runs anything or grows when it is read.
_REFUSED = {
    yaml.AnchorToken: "anchors (&) are no part of a recipe: write the value out where it is needed",
    yaml.AliasToken: "aliases (*) are no part of a recipe: write the value out",
    yaml.TagToken: "tags (!) are no part of a recipe: a recipe is plain values",
}


@dataclass(frozen=True)
class Recipe:
    """What a recipe says, before anything in it is looked up.

    Attributes:
        values: the mapping as written, overrides applied.
        keys: where each key was written.
        places: where each value was written.
        source: the file, or a name for a recipe made in Python.
        text: the file's text, as it was read.
    """

    values: Mapping[str, Any]
    keys: Mapping[KeyPath, Place] = field(default_factory=dict)
    places: Mapping[KeyPath, Place] = field(default_factory=dict)
    source: str = "recipe"
    text: str = ""

    def key_place(self, path: KeyPath) -> Place:
        """Gives where the key at `path`, or the nearest one above it, was written."""
        return self._nearest(self.keys, path)

    def place(self, path: KeyPath) -> Place:
        """Gives where the value at `path`, or the nearest one above it, was written."""
        return self._nearest(self.places, path)

    def _nearest(self, places: Mapping[KeyPath, Place], path: KeyPath) -> Place:
        for length in range(len(path), 0, -1):
            if path[:length] in places:
                return places[path[:length]]
        return Place(self.source)

    def changed(self, overrides: Iterable[str] = (), /) -> Recipe:
        """Gives the recipe with `key.path=value` overrides applied, in their order; values are YAML.

        A name in place of a part (`encoder=timm/convnext_tiny`) drops the settings of the part it replaces.

        Raises:
            SegregError: an override that is no `key.path=value`, or a path through something that is no mapping.
        """
        values = copy.deepcopy(dict(self.values))
        keys, places = dict(self.keys), dict(self.places)
        for override in overrides:
            path, value = _parse_override(override)
            _put(values, path, value, override)
            for known in (keys, places):
                for old in [p for p in known if p[: len(path)] == path]:
                    del known[old]
            for length in range(1, len(path) + 1):
                keys.setdefault(path[:length], COMMAND_LINE)
            places[path] = COMMAND_LINE
        return Recipe(values, keys, places, self.source, self.text)


def read_recipe(file: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """Reads a recipe file.

    Raises:
        SegregError: the file is missing, no text, no YAML, no mapping, or uses what recipes don't have: a key twice,
            tags, anchors, several documents.
    """
    path = Path(file)
    text = _read_text(path)
    node = _compose(text, str(path))
    if node is None:
        raise SegregError("the recipe is empty", place=Place(str(path)), hint="`segreg recipes` lists complete ones")
    reading = _Reading(str(path))
    values = reading.value(node)
    if reading.problems:
        raise SegregError.of(reading.problems)
    if not isinstance(values, dict):
        raise SegregError("a recipe is a mapping of sections such as `encoder: resnet50`", place=reading.places[()])
    return Recipe(values, reading.keys, reading.places, str(path), text).changed(overrides)


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise SegregError(f"{path} is a folder, not a recipe file")
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        from segreg.errors import did_you_mean

        hint = did_you_mean(path.name, near) or "`segreg recipes` lists the recipes that came with segreg"
        raise SegregError(f"there is no recipe {path}", hint=hint)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise SegregError(f"{path} is larger than a recipe can be ({_LARGEST_FILE // 1_000_000} MB)")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SegregError(f"{path} is no text in UTF-8 (byte {error.start}): a recipe is a YAML text") from None
    except OSError as error:
        raise SegregError(f"{path} can't be read: {error.strerror}") from None


_ADVICE = {
    "'\\t'": "indent with blanks, not with tabs",
    "mapping values are not allowed": "keys of one section stand in one column; a text with a colon in it needs quotes",
    "'@'": "a text that begins with @ needs quotes",
    "'`'": "a text that begins with ` needs quotes",
    "'%'": "a text that begins with % needs quotes",
    "<stream end>": "a bracket or quote that was opened is not closed",
    "while scanning a quoted scalar": "a quote that was opened is not closed",
}


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, tuple(_REFUSED)):
                mark = token.start_mark
                raise SegregError(_REFUSED[type(token)], place=Place(source, mark.line + 1, mark.column + 1))
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
        what = " ".join(part for part in (error.problem, error.context) if part)
        if "but found another document" in what:
            raise SegregError("a recipe is one YAML document; a second one begins here (---)", place=place) from None
        hint = next((advice for clue, advice in _ADVICE.items() if clue in what), "")
        raise SegregError(f"this is no YAML: {what}", place=place, hint=hint) from None
    except yaml.YAMLError as error:
        raise SegregError(f"this is no YAML: {str(error).splitlines()[0]}", place=Place(source)) from None
    except RecursionError:
        raise SegregError("this is nested more deeply than a recipe can be", place=Place(source)) from None


@dataclass
class _Reading:
    """Turns YAML nodes into plain values and notes where everything in them stands."""

    source: str
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def value(self, node: yaml.Node, path: KeyPath = ()) -> Any:
        self.places[path] = self._place(node)
        if isinstance(node, yaml.ScalarNode):
            quoted = node.style is not None
            return node.value if quoted else plain_scalar(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            here, key = self._place(key_node), key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem("a key must be a plain word", here))
            elif key in mapping:
                first = self.keys[*path, key]
                self.problems.append(Problem(f'"{key}" stands twice here', here, f"first at {first}"))
            elif key == "<<":
                self.problems.append(Problem("merge keys (<<) are no part of a recipe: write the settings out", here))
            else:
                self.keys[*path, key] = here
                mapping[key] = self.value(value_node, (*path, key))
        return mapping

    def _place(self, node: yaml.Node) -> Place:
        if self.source == COMMAND_LINE.source:
            return COMMAND_LINE
        return Place(self.source, node.start_mark.line + 1, node.start_mark.column + 1)


def plain_scalar(text: str) -> Any:
    """Gives the value of an unquoted YAML scalar by YAML 1.2's rules: `1e-4` is a number, `on` and `no` are texts."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text)
    if _BASED_INT.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    if _NOT_FINITE.match(text):
        return float(text.replace(".", "", 1))
    return text


def is_override(word: str) -> bool:
    """Says whether a word of the command line is `key.path=value` rather than a file's name."""
    return bool(re.match(r"^[A-Za-z_][\w.]*=", word)) and not Path(word).exists()


def _parse_override(override: str) -> tuple[KeyPath, Any]:
    path_text, equals, value_text = override.partition("=")
    path = tuple(int(part) if part.isdigit() else part for part in path_text.strip().split("."))
    if not equals or not all(str(part) for part in path):
        raise SegregError(f'"{override}" is no override: write key.path=value, such as train.epochs=3')
    reading = _Reading(COMMAND_LINE.source)
    try:
        node = _compose(value_text, COMMAND_LINE.source)
    except SegregError as error:
        raise SegregError(f'the value of "{override}" is no YAML: {error.problems[0].message}') from None
    value = None if node is None else reading.value(node)
    if reading.problems:
        raise SegregError.of(reading.problems)
    return path, value


def _put(values: dict[str, Any], path: KeyPath, value: Any, override: str) -> None:
    inside: Any = values
    for depth, step in enumerate(path):
        last = depth == len(path) - 1
        at = ".".join(map(str, path[:depth])) or "a recipe"
        if isinstance(inside, list):
            if not isinstance(step, int) or step >= len(inside):
                raise SegregError(f'"{override}": {at} is a list of {len(inside)}; name an item by its number, from 0')
        elif isinstance(step, int) or not isinstance(inside, dict):
            raise SegregError(f'"{override}": {at} is no list, so it has no item {step}')
        if last:
            inside[step] = value
            return
        below = inside.get(step) if isinstance(inside, dict) else inside[int(step)]
        if isinstance(below, str):  # `encoder: resnet50` is short for `{name: resnet50}`
            below = {"name": below}
        elif below is None:
            below = {}
        elif not isinstance(below, (dict, list)):
            at = ".".join(map(str, path[: depth + 1]))
            raise SegregError(f'"{override}": {at} is {below!r} and has nothing inside it')
        inside[step] = below
        inside = below


def to_yaml(values: Mapping[str, Any], *, header: str = "") -> str:
    """Gives plain values as YAML that `read_recipe` reads back as they are."""
    text = yaml.dump(dict(values), Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True, width=110)
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + text


class _RecipeDumper(yaml.SafeDumper):
    """Writes what this module reads: YAML 1.2 scalars, no aliases, short lists on one line."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = {float("inf"): ".inf", float("-inf"): "-.inf"}.get(value) or (".nan" if value != value else repr(value))  # noqa: PLR0124
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _represent_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flow = not any(isinstance(item, (dict, list)) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    ambiguous = not isinstance(plain_scalar(value), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="'" if ambiguous else None)


_RecipeDumper.add_representer(float, _represent_float)
_RecipeDumper.add_representer(list, _represent_list)
_RecipeDumper.add_representer(str, _represent_str)
