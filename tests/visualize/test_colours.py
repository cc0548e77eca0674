"""Colours of classes: the defaults, and colour maps: what is read, what keeps its default, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from segreg.errors import SegregError
from segreg.task import Task
from segreg.visualize.colours import class_colours, label_colours, read_colours

BINARY = Task(("disc",), "binary")
MULTILABEL = Task(("cell", "nucleus"), "multilabel")


def test_every_class_has_a_colour_of_its_own():
    for count in (2, 3, 8, 60, 255):
        colours = class_colours(Task(tuple(f"c{i}" for i in range(count)), "multiclass"))
        assert len(colours) == len(set(colours)) == count
        assert colours[0] == (0, 0, 0)
        assert all(0 <= value <= 255 for colour in colours for value in colour)
    assert len(class_colours(BINARY)) == 2  # the ground and the class
    assert (0, 0, 0) not in class_colours(MULTILABEL)
    assert len(class_colours(MULTILABEL)) == 2


@pytest.mark.parametrize(("count", "apart"), [(8, 65), (12, 65), (20, 65), (40, 60)])
def test_colours_of_many_classes_are_different(count, apart):
    colours = np.array([*class_colours(Task(tuple(f"c{i}" for i in range(count)), "multiclass")), (128, 128, 128)])
    between = np.linalg.norm(colours[:, None].astype(float) - colours[None], axis=-1)
    assert between[~np.eye(len(colours), dtype=bool)].min() > apart


# colour maps

LESION = Task(("lesion",), "binary")
CLASSES = Task(("sky", "no", "1"), "multiclass")


def read(tmp_path, text, task=CLASSES, name="colours.yaml"):
    (tmp_path / name).write_text(text)
    return read_colours(tmp_path / name, task)


def test_yaml_and_json_lists_and_hex(tmp_path):
    expected = [(1, 2, 3), (255, 0, 128), (0, 255, 16)]
    # Names that YAML takes for a truth value and a number are names.
    assert read(tmp_path, "sky: [1, 2, 3]\nno: '#ff0080'\n1: 00ff10\n") == expected
    assert read(tmp_path, '{"sky": [1, 2, 3], "no": "#FF0080", "1": [0, 255, 16]}', name="c.json") == expected


def test_what_is_left_out_keeps_its_colour(tmp_path):
    assert read(tmp_path, "no: [9, 9, 9]") == [class_colours(CLASSES)[0], (9, 9, 9), class_colours(CLASSES)[2]]
    assert read(tmp_path, "lesion: [9, 9, 9]", LESION) == [(0, 0, 0), (9, 9, 9)]
    assert read(tmp_path, "background: [7, 7, 7]", LESION) == [(7, 7, 7), label_colours(LESION)[1]]
    assert len(read(tmp_path, "a: [1, 1, 1]", Task(("a", "b"), "multilabel"))) == 2


def test_every_mistake_is_reported_where_it_stands(tmp_path):
    file = tmp_path / "colours.yaml"
    text = "skye: [1, 2, 3]\nsky: #ff0000\nno: [1, 2, 256]\n1: [1, 2]\n'1': [1, 2, 3]\ncat: red\n"
    with pytest.raises(SegregError) as refused:
        read(tmp_path, text)
    wanted = '[red, green, blue], each 0 to 255, or "#rrggbb"'
    assert str(refused.value).splitlines() == [
        f'{file}:1:1: there is no class "skye"',
        '  did you mean "sky"?',
        f'{file}:2:5: "sky" needs a colour: {wanted}',
        "  YAML takes a bare # as the start of a comment: quote it",
        f'{file}:3:5: "no" needs a colour: {wanted}',
        f'{file}:4:4: "1" needs a colour: {wanted}',
        f'{file}:5:1: "1" is given a second colour',
        f'{file}:6:1: there is no class "cat"',
        '  the classes are "sky", "no" and "1"',
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"- 1\n- 2\n", 'is not a map from class names to colours\n  for example: lesion: "#ff3cc8"'),
        (b"", 'is not a map from class names to colours\n  for example: lesion: "#ff3cc8"'),
        (b"a: [1, 2\n", "is neither YAML nor JSON"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_files_that_are_no_colour_maps(tmp_path, content, says):
    file = tmp_path / "colours.yaml"
    file.write_bytes(content)
    with pytest.raises(SegregError) as refused:
        read_colours(file, CLASSES)
    assert str(refused.value).startswith(f"{file}: {says}")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SegregError, match="can't be read"):
        read_colours(tmp_path / "colours.yaml", CLASSES)
