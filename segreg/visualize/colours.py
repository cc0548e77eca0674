"""The colours of classes: the defaults, and a colour map of the user's."""

from __future__ import annotations

import colorsys
import math
import re
from functools import cache
from pathlib import Path

import yaml

from segreg.errors import Place, Problem, SegregError, did_you_mean, listed
from segreg.task import Task, label_names

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
# Okabe and Ito's colours, which colour-blind readers can distinguish; further ones are as far as possible from these.
_OKABE_ITO = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
TRUTH_COLOUR = (0, 220, 90)
PREDICTION_COLOUR = (255, 60, 200)
IGNORED_COLOUR = (128, 128, 128)


def class_colours(task: Task) -> list[Colour]:
    """Return a colour, 0 to 255, for each label; label 0 of binary and multiclass tasks is black."""
    count = len(task.classes) + (task.mode == "binary")
    colours: list[Colour] = [] if task.mode == "multilabel" else [(0, 0, 0)]
    wanted = count - len(colours)
    return [*colours, *_OKABE_ITO[:wanted], *_further_colours(max(0, wanted - len(_OKABE_ITO)))]


@cache
def _further_colours(count: int) -> tuple[Colour, ...]:
    """Return colours that keep away from each other, from the first ones, and from those that mean something else."""
    shades = ((1.0, 1.0), (1.0, 0.6), (0.5, 1.0), (0.5, 0.6), (1.0, 0.8), (0.75, 1.0), (0.25, 0.9), (0.75, 0.45))
    circle = [colorsys.hsv_to_rgb(step / 36, saturation, value) for saturation, value in shades for step in range(36)]
    candidates = list(dict.fromkeys((int(255 * r), int(255 * g), int(255 * b)) for r, g, b in circle))
    taken = [(0, 0, 0), (255, 255, 255), IGNORED_COLOUR, TRUTH_COLOUR, PREDICTION_COLOUR, *_OKABE_ITO]
    nearest = {colour: min(_distance(colour, other) for other in taken) for colour in candidates}
    found: list[Colour] = []
    for _ in range(count):
        found.append(max(nearest, key=lambda colour: nearest[colour]))
        nearest = {c: min(d, _distance(c, found[-1])) for c, d in nearest.items() if c != found[-1]}
    return tuple(found)


def _distance(one: Colour, other: Colour) -> float:
    """Return how far two colours seem apart, by the formula for sRGB that weighs red and blue by how red they are."""
    red = (one[0] + other[0]) / 2
    squares = [(a - b) ** 2 for a, b in zip(one, other, strict=True)]
    return math.sqrt((2 + red / 256) * squares[0] + 4 * squares[1] + (2 + (255 - red) / 256) * squares[2])


_HEX = re.compile(r"#?([0-9a-fA-F]{6})")


def label_colours(task: Task) -> list[Colour]:
    """Return the default colour, 0 to 255, of each label; the foreground of a binary task is pink."""
    return [(0, 0, 0), PREDICTION_COLOUR] if task.mode == "binary" else class_colours(task)


def read_colours(file: Path, task: Task) -> list[Colour]:
    """Return a colour, 0 to 255, for each label: those of a YAML or JSON file, and the defaults for what it leaves out.

    The file maps class names to `[red, green, blue]` or `"#rrggbb"`; the ground of a binary task is "background".

    Raises:
        SegregError: the file can't be read, is not such a map, or names a class that the task does not have.
    """
    names = label_names(task)
    colours = label_colours(task)
    problems: list[Problem] = []
    given: set[str] = set()
    for key, value in _entries(file):
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        colour = _colour(value)
        if name not in names:
            hint = did_you_mean(name, names) or f"the classes are {listed(names)}"
            problems.append(Problem(f'there is no class "{name}"', _place(file, key), hint))
        elif name in given:
            problems.append(Problem(f'"{name}" is given a second colour', _place(file, key)))
        elif colour is None:
            hint = "YAML takes a bare # as the start of a comment: quote it" if value.value == "" else ""
            wanted = '[red, green, blue], each 0 to 255, or "#rrggbb"'
            problems.append(Problem(f'"{name}" needs a colour: {wanted}', _place(file, value), hint))
        else:
            colours[names.index(name)] = colour
        given.add(name)
    if problems:
        raise SegregError.of(problems)
    return colours


def _entries(file: Path) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the nodes of a mapping, strings as they are written: a class may be called "no" or "1"."""
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise SegregError(f"{file}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SegregError(f"{file}: is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise SegregError(f"{file}: is neither YAML nor JSON ({' '.join(str(error).split())})") from None
    if not isinstance(root, yaml.MappingNode):
        raise SegregError(f"{file}: is not a map from class names to colours", hint='for example: lesion: "#ff3cc8"')
    return root.value


def _colour(node: yaml.Node) -> Colour | None:
    if isinstance(node, yaml.ScalarNode):
        found = _HEX.fullmatch(node.value)
        if not found:
            return None
        red, green, blue = bytes.fromhex(found[1])
        return red, green, blue
    if not isinstance(node, yaml.SequenceNode) or len(node.value) != 3:
        return None
    parts = [item.value for item in node.value if isinstance(item, yaml.ScalarNode)]
    numbers = [int(part) for part in parts if re.fullmatch(r"[0-9]{1,3}", part) and int(part) <= 255]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def _place(file: Path, node: yaml.Node) -> Place:
    return Place(str(file), node.start_mark.line + 1, node.start_mark.column + 1)
