"""Reading recipes: YAML 1.2's scalars, the place of everything, overrides, and writing what reads back."""

from __future__ import annotations

import math
import os
import random
import string

import pytest
import yaml

from segreg.config.recipe import COMMAND_LINE, Recipe, is_override, plain_scalar, read_recipe, to_yaml
from segreg.errors import Place, SegregError

SCALARS = [
    ("1e-4", 1e-4),  # a text to YAML 1.1
    ("1E+3", 1000.0),
    ("-2.5e3", -2500.0),
    (".5", 0.5),
    ("1.", 1.0),
    ("+1", 1),
    ("-0", 0),
    ("007", 7),
    ("0o17", 15),
    ("0x1F", 31),
    (".inf", math.inf),
    ("-.Inf", -math.inf),
    ("+.INF", math.inf),
    ("~", None),
    ("null", None),
    ("Null", None),
    ("", None),
    ("true", True),
    ("False", False),
    ("TRUE", True),
    # texts, although YAML 1.1 makes booleans, numbers of base 60, octal numbers and dates of them
    ("on", "on"),
    ("off", "off"),
    ("yes", "yes"),
    ("no", "no"),
    ("y", "y"),
    ("N", "N"),
    ("12:30", "12:30"),
    ("1:30:00", "1:30:00"),
    ("0b101", "0b101"),
    ("1_000", "1_000"),
    ("2024-01-31", "2024-01-31"),
    ("2024-01-31T10:00:00Z", "2024-01-31T10:00:00Z"),
    ("=", "="),
    # texts that are nearly something else
    ("nul", "nul"),
    ("tRUE", "tRUE"),
    ("1e", "1e"),
    ("e5", "e5"),
    (".", "."),
    ("-", "-"),
    ("+", "+"),
    ("1.2.3", "1.2.3"),
    ("inf", "inf"),
    ("nan", "nan"),
    (".e5", ".e5"),
    ("0xG", "0xG"),
    ("0o8", "0o8"),
    ("-0x1F", "-0x1F"),
    ("timm/convnext_tiny.fb_in22k", "timm/convnext_tiny.fb_in22k"),
    ("C:\\data", "C:\\data"),
]


@pytest.fixture
def read(tmp_path):
    """Read a text as a recipe file."""

    def read_text(text, *overrides):
        file = tmp_path / "recipe.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_recipe(file, overrides)

    return read_text


def same(a, b):
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_plain_scalars_are_yaml_1_2s(text, value):
    assert same(plain_scalar(text), value)


def test_nan_is_read():
    assert math.isnan(plain_scalar(".nan"))


@pytest.mark.parametrize(("text", "value"), [s for s in SCALARS if s[0] not in ("", "-", "=")])
def test_files_and_overrides_read_scalars_alike(text, value, read):
    assert same(read(f"key: {text}").values["key"], value)
    assert same(read(f"key: [{text}]" if ":" not in text else f"key:\n- {text}").values["key"][0], value)
    assert same(read("key: 0", f"key={text}").values["key"], value)


@pytest.mark.parametrize("text", [text for text, _ in SCALARS])
def test_quoted_scalars_are_texts(text, read):
    assert read(f"key: '{text}'").values["key"] == text


def test_blocks_are_texts(read):
    assert read("a: |\n  1\n  2\nb: >\n  3\n").values == {"a": "1\n2\n", "b": "3\n"}


def test_keys_are_texts(read):
    assert read("1: a\non: b\nnull: c\n2024-01-31: d\n1e-4: e\n").values == {
        "1": "a", "on": "b", "null": "c", "2024-01-31": "d", "1e-4": "e",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["0x" + "f" * 8000, "0o" + "7" * 8000])
def test_a_number_that_python_could_not_write_is_a_text(text, read):
    assert read(f"key: {text}").values["key"] == text


def test_a_number_of_many_digits_is_read(read):
    assert read("key: " + "9" * 4000).values["key"] == 10**4000 - 1
    assert read("key: " + "9" * 5000).values["key"] == math.inf


TEXT = """\
# a recipe
encoder: resnet50
loss:
  - dice
  - {name: bce,
     weight: 2}
train:
    epochs:  3   # a comment
    lists: {val: a.txt}
"""


def test_every_key_and_value_has_its_place(read):
    recipe = read(TEXT)
    keys = {path: (place.line, place.column) for path, place in recipe.keys.items()}
    values = {path: (place.line, place.column) for path, place in recipe.places.items()}
    assert keys == {
        ("encoder",): (2, 1),
        ("loss",): (3, 1),
        ("loss", 1, "name"): (5, 6),
        ("loss", 1, "weight"): (6, 6),
        ("train",): (7, 1),
        ("train", "epochs"): (8, 5),
        ("train", "lists"): (9, 5),
        ("train", "lists", "val"): (9, 13),
    }
    assert values == {
        (): (2, 1),
        ("encoder",): (2, 10),
        ("loss",): (4, 3),
        ("loss", 0): (4, 5),
        ("loss", 1): (5, 5),
        ("loss", 1, "name"): (5, 12),
        ("loss", 1, "weight"): (6, 14),
        ("train",): (8, 5),
        ("train", "epochs"): (8, 14),
        ("train", "lists"): (9, 12),
        ("train", "lists", "val"): (9, 18),
    }
    assert {place.source for place in recipe.places.values()} == {recipe.source}


def test_what_stands_nowhere_has_the_place_of_what_is_around_it(read):
    recipe = read(TEXT)
    assert recipe.place(("train", "nothing", "at", "all")) == Place(recipe.source, 8, 5)
    assert recipe.key_place(("train", "nothing")) == Place(recipe.source, 7, 1)
    assert recipe.place(("nothing",)) == Place(recipe.source)
    assert Recipe({"a": 1}).place(("a",)) == Place("recipe")


def test_a_recipe_keeps_the_text_as_it_was_read(read):
    assert read(TEXT, "train.epochs=5").text == TEXT


@pytest.mark.parametrize(
    "text", ["\ufeffkey: 1\n", "key: 1\r\n", "key: 1", "%YAML 1.2\n---\nkey: 1\n...\n", "{key: 1}"]
)
def test_texts_of_other_editors_are_read(text, read):
    assert read(text).values == {"key": 1}


def test_a_pipe_is_read(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, b"encoder: tiny\n")
    os.close(writer)
    try:
        assert read_recipe(f"/dev/fd/{reader}").values == {"encoder": "tiny"}
    finally:
        os.close(reader)


# overrides


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("seed=3", {"seed": 3}),
        ("train.epochs=3", {"train": {"epochs": 3, "lr": 0.1}}),
        ("train.workers=auto", {"train": {"epochs": 9, "lr": 0.1, "workers": "auto"}}),
        ("train=null", {"train": None}),
        ("train=", {"train": None}),
        ("train={}", {"train": {}}),
        ("encoder=timm/convnext_tiny", {"encoder": "timm/convnext_tiny"}),
        ("encoder.weights=null", {"encoder": {"name": "resnet50", "weights": None}}),
        ("encoder.name=tiny", {"encoder": {"name": "tiny"}}),
        ("decoder=unet", {"decoder": "unet"}),  # and not {name: unet, rates: ...}
        ("decoder.rates=[1, 2]", {"decoder": {"name": "deeplab", "rates": [1, 2]}}),
        ("loss.1=tversky", {"loss": ["dice", "tversky"]}),
        ("loss.1.weight=2", {"loss": ["dice", {"name": "bce", "weight": 2}]}),
        ("loss=[dice, {name: bce, weight: 2}]", {"loss": ["dice", {"name": "bce", "weight": 2}]}),
        ("optimizer.lr=1e-4", {"optimizer": {"lr": 1e-4}}),
        ("a.b.c=1", {"a": {"b": {"c": 1}}}),
        ("note=a=b", {"note": "a=b"}),
        ("note='3'", {"note": "3"}),
        (" seed =3", {"seed": 3}),
    ],
)
def test_an_override_changes_one_thing(override, values):
    before = {
        "train": {"epochs": 9, "lr": 0.1},
        "encoder": "resnet50",
        "decoder": {"name": "deeplab", "rates": [6]},
        "loss": ["dice", "bce"],
        "empty": None,
    }
    copy = {**before, "train": dict(before["train"]), "decoder": dict(before["decoder"]), "loss": list(before["loss"])}
    recipe = Recipe(before)
    assert recipe.changed([override]).values == {**before, **values}
    assert recipe.values == copy, "the recipe itself was changed"


def test_overrides_apply_in_their_order():
    recipe = Recipe({"decoder": {"name": "deeplab", "rates": [6]}})
    assert recipe.changed(["decoder.rates=[1]", "decoder=unet", "decoder.depth=3", "decoder.depth=4"]).values == {
        "decoder": {"name": "unet", "depth": 4}
    }
    assert recipe.changed(["a=1"]).changed(["a=2"]).values["a"] == 2


def test_an_override_has_the_command_line_as_its_place(read):
    recipe = read(TEXT, "train.epochs=5", "loss.1={name: iou, smooth: 1}", "encoder.weights=null", "new.key=1")
    for path in [("train", "epochs"), ("loss", 1), ("loss", 1, "smooth"), ("encoder", "weights"), ("new", "key")]:
        assert recipe.place(path) == COMMAND_LINE
        assert recipe.key_place(path) == COMMAND_LINE or path == ("loss", 1)
    assert recipe.key_place(("new",)) == COMMAND_LINE
    # everything else stays where it was
    assert recipe.place(("train", "lists")) == Place(recipe.source, 9, 12)
    assert recipe.key_place(("train",)) == Place(recipe.source, 7, 1)
    assert recipe.place(("encoder", "name")) == Place(recipe.source, 2, 10)
    assert ("loss", 1, "weight") not in recipe.places


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("train.epochs=3", True),
        ("loss.0.weight=2", True),
        ("seed=", True),
        ("dataset.root=C:\\data=x", True),
        ("classes=[" + "lesion, " * 500 + "]", True),  # longer than a file's name can be
        ("recipe.yaml", False),
        ("train.epochs", False),
        ("../train=3/recipe.yaml", False),
        ("=3", False),
        ("there=is.yaml", False),  # such a file exists
    ],
)
def test_overrides_are_reported_from_files(word, answer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there=is.yaml").touch()
    assert is_override(word) is answer


@pytest.mark.parametrize("override", ["", "seed", "=3", ".=3", "a..b=3", "a.=3", " =3", "²"])
def test_what_is_no_override_is_refused(override):
    with pytest.raises(SegregError) as reported:
        Recipe({}).changed([override])
    assert str(reported.value) == (
        f'command line: "{override}" is not an override\n  write key.path=value, such as train.epochs=3'
    )


@pytest.mark.parametrize("value", ["/data/photos #1", "#ff0000", "20 # images", "'a' #b", "[a, b] #c"])
def test_an_override_loses_nothing_as_a_comment(value):
    with pytest.raises(SegregError) as reported:
        Recipe({}).changed([f"dataset.root={value}"])
    rest = value[value.index("#") :]
    assert str(reported.value) == (
        f'command line: in "dataset.root={value}", "{rest}" is a comment by the rules of YAML\n'
        "  quotes within those of the shell make it part of the string: 'dataset.root=\"...\"'"
    )


def test_an_override_may_have_a_number_sign():
    changed = Recipe({}).changed(["a=x#y", "b='/data/photos #1'", 'c="#ff0000"', "d=[x#y]"])
    assert changed.values == {"a": "x#y", "b": "/data/photos #1", "c": "#ff0000", "d": ["x#y"]}
    assert Recipe({}).changed({"f": "/data/photos #1"}).values == {"f": "/data/photos #1"}


def test_a_number_may_be_the_key_of_a_mapping():
    recipe = Recipe({"dataset": {"name": "folder", "values": {"0": 0, "1": 255}}, "loss": "dice"})
    changed = recipe.changed(["dataset.values.1=128", "dataset.values.007=7"])
    assert changed.values["dataset"]["values"] == {"0": 0, "1": 128, "007": 7}
    assert changed.place(("dataset", "values", "1")) == changed.place(("dataset", "values", "007"))
    for word in ("loss.0.weight=2", "augment.0.p=1", "0=1"):
        with pytest.raises(SegregError, match="is not a list, so it has no item 0"):
            recipe.changed([word])


def test_a_number_of_too_many_digits_names_no_item():
    with pytest.raises(SegregError, match="is a list of 1; an item is named by its number"):
        Recipe({"loss": ["dice"]}).changed([f"loss.{'9' * 5000}=bce"])


def test_a_header_of_any_characters_is_a_comment(read):
    text = to_yaml({"key": 1}, header="run a\x07\x1b[31m/b\u2028key: 2/caf\udce9")
    assert text.isprintable() or text.count("\n") == 2
    assert read(text).values == {"key": 1}


def test_a_digit_that_is_no_number_is_a_key():
    assert Recipe({}).changed(["a.²=1"]).values == {"a": {"²": 1}}


# writing


def random_value(chance, depth):
    kind = chance.choice(["text", "text", "integer", "number", "boolean", "null", "list", "mapping"])
    if kind in ("list", "mapping") and depth == 0:
        kind = "text"
    match kind:
        case "text":
            return random_text(chance)
        case "integer":
            return chance.choice([0, -1, chance.randint(-(10**6), 10**6), 10**30])
        case "number":
            extremes = [0.0, -0.0, 1.0, 1e-5, 1e22, 5e-324, 1.7e308, math.inf, -math.inf, 0.1 + 0.2]
            return chance.choice(
                [*extremes, chance.uniform(-1, 1), chance.uniform(-1, 1) * 10 ** chance.randint(-20, 20)]
            )
        case "boolean":
            return chance.random() < 0.5
        case "null":
            return None
        case "list":
            return [random_value(chance, depth - 1) for _ in range(chance.randint(0, 4))]
    return {random_key(chance, i): random_value(chance, depth - 1) for i in range(chance.randint(0, 4))}


def random_text(chance):
    odd = [
        "",
        " ",
        "a: b",
        "- a",
        "# a",
        "'",
        '"',
        "a\nb",
        "a\n",
        "\n",
        "\ta",
        "a ",
        " a",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
    ]
    odd += [
        "`a",
        "|",
        ">",
        "[",
        "]",
        "{",
        "}",
        ",",
        "?",
        "? a",
        ":",
        "a:",
        "<<",
        "---",
        "...",
        "größe",
        "🙂",
        "\u2028",
        "\x85",
    ]
    odd += ["x " * 200, "\\", "C:\\new", "\x00", "\x7f", "\ufeff", "\r\n", *(text for text, _ in SCALARS)]
    if chance.random() < 0.7:
        return chance.choice(odd)
    alphabet = string.printable + "äß€\u00a0\u3000"
    return "".join(chance.choice(alphabet) for _ in range(chance.randint(1, 30)))


def random_key(chance, number):
    key = random_text(chance)
    return f"{key}{number}" if len(key) < 100 else f"key{number}"


def equal(a, b):
    """Whether two values are the same, types and the sign of zero included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return repr(a) == repr(b)


@pytest.mark.parametrize("seed", range(200))
def test_what_is_written_reads_back_as_it_was(seed, read):
    chance = random.Random(seed)
    values = {random_key(chance, i): random_value(chance, 3) for i in range(chance.randint(1, 5))}
    text = to_yaml(values, header="a header: with\ntwo lines")
    assert text.startswith("# a header: with\n# two lines\n")
    again = read(text)
    assert equal(again.values, values), text
    assert to_yaml(again.values, header="a header: with\ntwo lines") == text


@pytest.mark.parametrize(
    "value", [1e-5, 1e22, 0.1, math.inf, "1e-4", "on", "12:30", "2024-01-31", "1_000", "0b101", None, 15]
)
def test_what_is_written_is_the_same_to_readers_of_yaml_1_1(value):
    read = yaml.safe_load(to_yaml({"key": value}))["key"]
    assert same(read, value)


def test_the_same_list_twice_is_written_twice():
    rates = [6, 12, 18]
    assert to_yaml({"a": rates, "b": rates, "c": [{"d": rates}]}) == (
        "a: [6, 12, 18]\nb: [6, 12, 18]\nc:\n- d: [6, 12, 18]\n"
    )


# files


def test_a_missing_file_is_reported_with_near_names(tmp_path):
    (tmp_path / "isic_v3plus.yaml").touch()
    with pytest.raises(SegregError) as reported:
        read_recipe(tmp_path / "isic_v3.yaml")
    assert str(reported.value) == f'there is no recipe {tmp_path}/isic_v3.yaml\n  did you mean "isic_v3plus.yaml"?'


@pytest.mark.parametrize("name", ["nothing.yaml", "no/folder/recipe.yaml", "x" * 300 + ".yaml", "a\x00b.yaml"])
def test_a_missing_file_without_near_names_is_reported(name, tmp_path):
    with pytest.raises(SegregError) as reported:
        read_recipe(tmp_path / name)
    assert str(reported.value) == (
        f"there is no recipe {tmp_path}/{name}\n  `segreg recipes` lists the recipes that came with segreg"
    )


def test_a_folder_is_reported(tmp_path):
    with pytest.raises(SegregError, match=r"/folder\.yaml is a folder, not a recipe file$"):
        read_recipe(_made(tmp_path / "folder.yaml"))


def _made(folder):
    folder.mkdir()
    return folder


def test_a_file_that_may_not_be_read_is_reported(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "recipe.yaml"
    file.touch()
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(SegregError) as reported:
        read_recipe(file)
    assert str(reported.value) == f"{file} can't be read: Permission denied"
