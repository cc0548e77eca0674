"""Recipes as plain YAML: values that remember where each was written, `key.path=value` overrides, and writing them."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from segreg.errors import Place, Problem, SegregError, did_you_mean, listed, with_article
from segreg.runtime.output import printable
from segreg.settings import format_value

KeyPath = tuple[str | int, ...]
"""Where a value stands in a recipe: `("loss", 0, "name")`."""

Overrides = Iterable[str] | Mapping[str, Any]
"""Changes of a recipe: `key.path=value` strings whose values are YAML, or a mapping of key paths to plain values."""

COMMAND_LINE = Place("command line")
_LARGEST_FILE = 200_000
_DEEPEST = 50

# A recipe is data: nothing in it refers to anything, runs anything or grows when it is read.
_REFUSED = {
    yaml.AnchorToken: "anchors (&) are not allowed: write values out; a string that begins with & needs quotes",
    yaml.AliasToken: "aliases (*) are not allowed: write values out; a string that begins with * needs quotes",
    yaml.TagToken: "tags (!) are not allowed: a recipe holds plain values; a string that begins with ! needs quotes",
}
_TOO_DEEP = f"this is nested more deeply than a recipe can be ({_DEEPEST} levels)"
_OPENING = (
    yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken, yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken,
)  # fmt: skip
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


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
        """Return where the key at `path`, or the nearest one above it, was written."""
        return self._nearest(self.keys, path)

    def place(self, path: KeyPath) -> Place:
        """Return where the value at `path`, or the nearest one above it, was written."""
        return self._nearest(self.places, path)

    def _nearest(self, places: Mapping[KeyPath, Place], path: KeyPath) -> Place:
        for length in range(len(path), 0, -1):
            if path[:length] in places:
                return places[path[:length]]
        return Place(self.source)

    def changed(self, overrides: Overrides = (), /) -> Recipe:
        """Return the recipe with overrides applied, in their order: see `override_words`.

        A name in place of a part (`encoder=timm/convnext_tiny`) drops the settings of the part it replaces.

        Raises:
            SegregError: an override that is not a `key.path=value`, or a path through something that is not a mapping.
        """
        values = copy.deepcopy(dict(self.values))
        keys, places = dict(self.keys), dict(self.places)
        for override in override_words(overrides):
            steps, value = _parse_override(override)
            path = _put(values, steps, value, override)
            for known in (keys, places):
                for old in [p for p in known if p[: len(path)] == path]:
                    del known[old]
            for length in range(1, len(path) + 1):
                keys.setdefault(path[:length], COMMAND_LINE)
            places[path] = COMMAND_LINE
        return Recipe(values, keys, places, self.source, self.text)


def read_recipe(file: Path | str, overrides: Overrides = ()) -> Recipe:
    """Read a recipe file.

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
    if os.path.isdir(path):  # noqa: PTH112 - pathlib raises on names that are too long
        raise SegregError(f"{path} is a folder, not a recipe file")
    if not os.path.exists(path):  # noqa: PTH110 - likewise
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if os.path.isdir(path.parent) else []  # noqa: PTH112
        hint = did_you_mean(path.name, near) or "`segreg recipes` lists the recipes that came with segreg"
        if path.suffix not in (".yaml", ".yml") and re.search(r"[.=]", path.name):
            hint += "\nan override is written key.path=value, such as train.epochs=3"
        raise SegregError(f"there is no recipe {path}", hint=hint)
    try:
        with path.open("rb") as file:  # its size isn't asked for: a pipe (`<(...)`) has none
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise SegregError(f"{path} is larger than a recipe can be ({_LARGEST_FILE // 1000} kB)")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SegregError(f"{path} is not UTF-8 text (byte {error.start}): a recipe is a YAML text") from None
    except OSError as error:
        raise SegregError(f"{path} can't be read: {error.strerror}") from None


_ADVICE = {
    "'\\t'": "indent with blanks, not with tabs",
    "mapping values are not allowed": "keys of one section share one column; a string with a colon in it needs quotes",
    "'@'": "a string that begins with @ needs quotes",
    "'`'": "a string that begins with ` needs quotes",
    "'%'": "a string that begins with % needs quotes",
    "while scanning an alias": "a string that begins with * needs quotes",
    "while scanning an anchor": "a string that begins with & needs quotes",
    "unknown escape character": "in double quotes a backslash begins an escape; single quotes take it as it is",
    "<block end>, but found '-'": "an item of a list (-) stands beside keys, or too far left or right",
    "<block end>": "this line starts further left or right than the others of its section",
    "could not find expected ':'": "a key is followed by a colon and a blank: `encoder: resnet50`",
    "but got '<stream end>'": "what is opened here ([ or {) is not closed",
    "but got ':'": "what is opened here ([ or {) is not closed, or a comma is missing inside",
    "while scanning a quoted scalar": "the quote that is opened here is not closed",
}
"""What to do about PyYAML's complaints, by words in them."""
_BEGINS_BEFORE = ("could not find expected ':'", "but got '<stream end>'", "but got ':'", "unexpected end of stream")
"""Complaints that are made where something ends, although what is wrong is where it began."""


def _compose(text: str, source: str) -> yaml.Node | None:
    depth = 0
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            refused = _TOO_DEEP if depth > _DEEPEST else _REFUSED.get(type(token))
            if refused:
                mark = token.start_mark
                raise SegregError(refused, place=Place(source, mark.line + 1, mark.column + 1))
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        what = " ".join(part for part in (error.problem, error.context) if part)
        what = what.removesuffix(" that cannot start any token while scanning for the next token")
        begins_before = any(clue in what for clue in _BEGINS_BEFORE)
        mark = (error.context_mark if begins_before else None) or error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
        if "but found another document" in what:
            raise SegregError("a recipe is one YAML document; a second one begins here (---)", place=place) from None
        hint = next((advice for clue, advice in _ADVICE.items() if clue in what), "")
        raise SegregError(f"this is not valid YAML: {what}", place=place, hint=hint) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(source, before.count("\n") + 1, error.position - before.rfind("\n"))
        raise SegregError(
            f"this is not text: it holds the control character {error.character:#04x}", place=place
        ) from None


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
                self.problems.append(Problem(f'"{key}" is given twice here', here, f"first at {first}"))
            elif key == "<<":
                self.problems.append(Problem("merge keys (<<) can't be used in a recipe: write the settings out", here))
            else:
                self.keys[*path, key] = here
                mapping[key] = self.value(value_node, (*path, key))
        return mapping

    def _place(self, node: yaml.Node) -> Place:
        if self.source == COMMAND_LINE.source:
            return COMMAND_LINE
        return Place(self.source, node.start_mark.line + 1, node.start_mark.column + 1)


# YAML 1.2's core schema. PyYAML follows YAML 1.1, where `1e-4` is a text and `on`, `no` and `12:30` are not.
_NULL = re.compile(r"^(?:null|Null|NULL|~|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]{1,4000}$")  # Python neither reads nor writes integers of more than 4300 digits
_BASED_INT = re.compile(r"^(?:0o[0-7]{1,4000}|0x[0-9a-fA-F]{1,3000})$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_NOT_FINITE = re.compile(r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$")


def plain_scalar(text: str) -> Any:
    """Return the value of an unquoted YAML scalar by YAML 1.2: `1e-4` is a number, `on` and `no` are strings."""
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


def override_words(overrides: Overrides) -> list[str]:
    """Return overrides as `key.path=value` strings.

    In a mapping, `{"train.epochs": 3}` and `{"train": {"epochs": 3}}` are the same: a mapping below a section's name
    changes the settings that it names. With a name, as in `{"encoder": {"name": "resnet18"}}`, it replaces the part.

    Raises:
        SegregError: a value is not one that a recipe can hold.
    """
    if isinstance(overrides, str):
        return [overrides]
    if not isinstance(overrides, Mapping):
        return list(overrides)
    pairs: list[tuple[str, Any]] = []
    for key, value in overrides.items():
        if isinstance(value, Mapping) and "name" not in value and "." not in key:
            pairs += [(f"{key}.{below}", inside) for below, inside in value.items()]
        else:
            pairs.append((key, value))
    return [f"{key}={one_line(key, as_written(value))}" for key, value in pairs]


def as_written(value: Any) -> Any:
    """Return a Python value as a recipe writes it: paths as strings, tuples as lists, NumPy scalars as numbers."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: as_written(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_written(item) for item in value]
    return value.item() if callable(getattr(value, "item", None)) and getattr(value, "shape", None) == () else value


def one_line(key: str, value: Any) -> str:
    """Return a plain value as YAML on one line, as an override or a short setting has it.

    Raises:
        SegregError: a recipe can't hold it; the message names the key.
    """
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_/][\w./@-]*", value) and plain_scalar(value) == value:
        return value
    try:
        text = yaml.dump(
            value,
            Dumper=_RecipeDumper,
            default_flow_style=True,
            allow_unicode=True,
            width=float("inf"),
            sort_keys=False,
        )
    except yaml.YAMLError:
        raise SegregError(
            f'overrides: "{key}" is {with_article(type(value).__name__)}, which a recipe can\'t hold',
            hint="numbers, strings, true or false, None, paths, and lists and mappings of these",
        ) from None
    return text.removesuffix("\n").removesuffix("\n...")


def is_override(word: str) -> bool:
    """Whether a word of the command line is `key.path=value` rather than a file's name."""
    return bool(re.match(r"^[A-Za-z_][\w.]*=", word)) and not os.path.exists(word)  # noqa: PTH110 - may be too long


def _parse_override(override: str) -> tuple[Sequence[str], Any]:
    path_text, equals, value_text = override.partition("=")
    path = path_text.strip().split(".")
    if not equals or not all(path):
        raise SegregError(
            f'"{override}" is not an override', hint="write key.path=value, such as train.epochs=3", place=COMMAND_LINE
        )
    reading = _Reading(COMMAND_LINE.source)
    try:
        node = _compose(value_text, COMMAND_LINE.source)
    except SegregError as error:
        problem = error.problems[0]
        raise SegregError(f'in "{override}", {problem.message}', hint=problem.hint, place=COMMAND_LINE) from None
    rest = value_text[node.end_mark.index if node else 0 :].strip()
    if rest.startswith("#"):
        comment = f'in "{override}", "{rest}" is a comment by the rules of YAML'
        hint = f"quotes within those of the shell make it part of the string: '{path_text}=\"...\"'"
        raise SegregError(comment, hint=hint, place=COMMAND_LINE)
    value = None if node is None else reading.value(node)
    if reading.problems:
        raise SegregError(f'in "{override}", {reading.problems[0].message}', place=COMMAND_LINE)
    return path, value


def _put(values: dict[str, Any], steps: Sequence[str], value: Any, override: str) -> KeyPath:
    """Put a value where the steps lead, and return the path: items of lists by their numbers, all else by its key."""

    def no_way(reason: str) -> SegregError:
        return SegregError(f'in "{override}", {reason}', place=COMMAND_LINE)

    inside: Any = values
    path: list[str | int] = []
    for depth, written in enumerate(steps):
        at = ".".join(steps[:depth]) or "a recipe"
        number = int(written) if written.isdecimal() and len(written) < 10 else None
        if isinstance(inside, list) and (number is None or number >= len(inside)):
            raise no_way(f'"{at}" is a list of {len(inside)}; an item is named by its number, from 0')
        if isinstance(inside, dict) and number is not None and (depth < 2 or not inside or "name" in inside):
            raise no_way(f'"{at}" is not a list, so it has no item {written}')
        step: Any = number if isinstance(inside, list) else written
        path.append(step)
        if depth == len(steps) - 1:
            inside[step] = value
            break
        below = inside.get(step) if isinstance(inside, dict) else inside[step]
        if isinstance(below, str):  # `encoder: resnet50` is short for `{name: resnet50}`
            below = {"name": below}
        elif below is None:
            below = {}
        elif not isinstance(below, (dict, list)):
            at = ".".join(steps[: depth + 1])
            raise no_way(f'"{at}" is {format_value(below)} and has nothing inside it')
        inside[step] = below
        inside = below
    return tuple(path)


def to_yaml(values: Mapping[str, Any], *, header: str = "") -> str:
    """Return plain values as YAML that `read_recipe` reads back as they are."""
    text = yaml.dump(dict(values), Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True, width=110)
    comment = "".join(f"# {line}\n" for line in printable(header).splitlines())
    return comment + text


class _RecipeDumper(yaml.SafeDumper):
    """Write what this module reads: YAML 1.2 scalars, no aliases, short lists on one line."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flow = dumper.default_flow_style or not any(isinstance(item, (dict, list)) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    if not value.isprintable():  # single quotes lose some line breaks that aren't \n
        style: str | None = '"'
    else:
        style = None if isinstance(plain_scalar(value), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_RecipeDumper.add_representer(list, _represent_list)
_RecipeDumper.add_representer(str, _represent_str)


def recipes_folder() -> Path:
    """Return the folder of the shipped recipes: `segreg/recipes` in the wheel, `recipes` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    return {file.stem: file for file in sorted(recipes_folder().glob("*.yaml"))}


def shipped_recipe(name: str) -> Path:
    """Return one shipped recipe.

    Raises:
        SegregError: there is none of that name.
    """
    known = shipped_recipes()
    stem = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    if stem not in known:
        hint = did_you_mean(stem, known) or f"there are {listed(list(known))}"
        raise SegregError(f'segreg ships no recipe "{name}"', hint=hint)
    return known[stem]


def about(recipe: Path) -> str:
    """Return the first sentence of the comment that heads a recipe."""
    for line in recipe.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "yaml-language-server" not in line:
            return re.sub(r"^#\s*", "", line)
    return ""
