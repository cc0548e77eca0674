"""Texts that are no YAML, more than a recipe may be, or no text at all."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import pytest

CASES = [
    pytest.param(
        "loss:",
        "encoder: resnet50\nloss:",
        """
error: recipe.yaml:15:1: "encoder" is given twice here
  first at recipe.yaml:11:1
""",
        id="section twice",
    ),
    pytest.param(
        "  epochs: 3",
        "  epochs: 3\n  batch_size: 4\n  epochs: 5",
        """
error: recipe.yaml:25:3: "epochs" is given twice here
  first at recipe.yaml:23:3
""",
        id="setting twice",
    ),
    pytest.param(
        "{name: dice, weight: 2}",
        "{name: dice, weight: 2, weight: 3}",
        """
error: recipe.yaml:16:29: "weight" is given twice here
  first at recipe.yaml:16:18
""",
        id="setting twice on one line",
    ),
    pytest.param(
        "rates: [6, 12, 18]",
        "rates: &rates [6, 12, 18]",
        """
error: recipe.yaml:14:10: anchors (&) are not allowed: write values out; a string that begins with & needs quotes
""",
        id="anchor",
    ),
    pytest.param(
        "rates: [6, 12, 18]",
        "rates: *rates",
        """
error: recipe.yaml:14:10: aliases (*) are not allowed: write values out; a string that begins with * needs quotes
""",
        id="alias",
    ),
    pytest.param(
        "  rates: [6, 12, 18]",
        "  <<: {rates: [6, 12, 18]}",
        """
error: recipe.yaml:14:3: merge keys (<<) can't be used in a recipe: write the settings out
""",
        id="merge key",
    ),
    pytest.param(
        "lr: 1e-3",
        "lr: !!float 1e-3",
        """
error: recipe.yaml:20:7: tags (!) are not allowed: a recipe holds plain values; a string that begins with ! needs quotes
""",
        id="tag",
    ),
    pytest.param(
        "encoder: tiny",
        'encoder: !!python/object/apply:os.system ["touch ran"]',
        """
error: recipe.yaml:11:10: tags (!) are not allowed: a recipe holds plain values; a string that begins with ! needs quotes
""",
        id="tag that would run code",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: !!python/object/new:segreg.errors.Place {}",
        """
error: recipe.yaml:11:10: tags (!) are not allowed: a recipe holds plain values; a string that begins with ! needs quotes
""",
        id="tag that would make an object",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: !include encoder.yaml",
        """
error: recipe.yaml:11:10: tags (!) are not allowed: a recipe holds plain values; a string that begins with ! needs quotes
""",
        id="tag of one's own",
    ),
    pytest.param(
        "loss:",
        "---\nloss:",
        """
error: recipe.yaml:15:1: a recipe is one YAML document; a second one begins here (---)
""",
        id="second document",
    ),
    pytest.param(
        "seed: 0",
        "? [seed, dataset]\n: 0",
        """
error: recipe.yaml:1:3: a key must be a plain word
""",
        id="key that is a list",
    ),
    pytest.param(
        "  epochs: 3",
        "\tepochs: 3",
        """
error: recipe.yaml:23:1: this is not valid YAML: found character '\\t'
  indent with blanks, not with tabs
""",
        id="tab for indentation",
    ),
    pytest.param(
        "  lr: 1e-3",
        "\tlr: 1e-3",
        """
error: recipe.yaml:20:1: this is not valid YAML: found character '\\t'
  indent with blanks, not with tabs
""",
        id="tab in the middle of a section",
    ),
    pytest.param(
        "  epochs: 3",
        "  epochs: 3\n    batch_size: 4",
        """
error: recipe.yaml:24:15: this is not valid YAML: mapping values are not allowed here
  keys of one section share one column; a string with a colon in it needs quotes
""",
        id="line that starts too far right",
    ),
    pytest.param(
        "  masks: data/masks",
        " masks: data/masks",
        """
error: recipe.yaml:5:2: this is not valid YAML: expected <block end>, but found '<block mapping start>' while parsing a block mapping
  this line starts further left or right than the others of its section
""",
        id="line that starts too far left",
    ),
    pytest.param(
        "rates: [6, 12, 18]",
        "rates: [6, 12, 18",
        """
error: recipe.yaml:14:10: this is not valid YAML: expected ',' or ']', but got ':' while parsing a flow sequence
  what is opened here ([ or {) is not closed, or a comma is missing inside
""",
        id="bracket that stays open",
    ),
    pytest.param(
        "metrics: [dice, iou]",
        "metrics: [dice, iou",
        """
error: recipe.yaml:25:12: this is not valid YAML: expected ',' or ']', but got '<stream end>' while parsing a flow sequence
  what is opened here ([ or {) is not closed
""",
        id="bracket that stays open at the end",
    ),
    pytest.param(
        "{name: dice, weight: 2}",
        "{name: dice, weight: 2",
        """
error: recipe.yaml:16:5: this is not valid YAML: expected ',' or '}', but got ':' while parsing a flow mapping
  what is opened here ([ or {) is not closed, or a comma is missing inside
""",
        id="brace that stays open",
    ),
    pytest.param(
        "rates: [6, 12, 18]",
        "rates: 6, 12, 18]",
        """
error: recipe.yaml:14:10: "rates" of the decoder "deeplabv3plus" must be a list of 3 integers above 0, not the string "6, 12, 18]"
  rates: of the three atrous convolutions.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="bracket that was never opened",
    ),
    pytest.param(
        "images: data/images",
        'images: "data/images',
        """
error: recipe.yaml:4:11: this is not valid YAML: found unexpected end of stream while scanning a quoted scalar
  the quote that is opened here is not closed
""",
        id="quote that stays open",
    ),
    pytest.param(
        "  epochs: 3",
        "  epochs:3",
        """
error: recipe.yaml:23:3: the section "train" holds settings, not the string "epochs:3"
  a colon is followed by a blank
""",
        id="no blank after the colon",
    ),
    pytest.param(
        "  lr: 1e-3",
        "  lr:1e-3",
        """
error: recipe.yaml:20:3: this is not valid YAML: could not find expected ':' while scanning a simple key
  a key is followed by a colon and a blank: `encoder: resnet50`
""",
        id="no blank after the colon, among others",
    ),
    pytest.param(
        "images: data/images",
        "images: see: here",
        """
error: recipe.yaml:4:14: this is not valid YAML: mapping values are not allowed here
  keys of one section share one column; a string with a colon in it needs quotes
""",
        id="colon in a text",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder tiny",
        """
error: recipe.yaml:11:1: this is not valid YAML: could not find expected ':' while scanning a simple key
  a key is followed by a colon and a blank: `encoder: resnet50`
""",
        id="no colon",
    ),
    pytest.param(
        "  rates: [6, 12, 18]",
        "  - rates",
        """
error: recipe.yaml:14:3: this is not valid YAML: expected <block end>, but found '-' while parsing a block mapping
  an item of a list (-) stands beside keys, or too far left or right
""",
        id="item of a list beside keys",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: @tiny",
        """
error: recipe.yaml:11:10: this is not valid YAML: found character '@'
  a string that begins with @ needs quotes
""",
        id="text that begins with @",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: `tiny`",
        """
error: recipe.yaml:11:10: this is not valid YAML: found character '`'
  a string that begins with ` needs quotes
""",
        id="text that begins with a backtick",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: %tiny",
        """
error: recipe.yaml:11:10: this is not valid YAML: found character '%'
  a string that begins with % needs quotes
""",
        id="text that begins with a percent sign",
    ),
    pytest.param(
        "images: data/images",
        "images: *.png",
        """
error: recipe.yaml:4:12: this is not valid YAML: expected alphabetic or numeric character, but found '.' while scanning an alias
  a string that begins with * needs quotes
""",
        id="wildcard as a text",
    ),
    pytest.param(
        "images: data/images",
        'images: "C:\\data"',
        """
error: recipe.yaml:4:15: this is not valid YAML: found unknown escape character 'd' while scanning a double-quoted scalar
  in double quotes a backslash begins an escape; single quotes take it as it is
""",
        id="backslashes in a quoted text",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: ti\x07ny",
        """
error: recipe.yaml:11:12: this is not text: it holds the control character 0x07
""",
        id="control character",
    ),
    pytest.param(
        "seed: 0\ndataset:\n  name: folder\n",
        "seed: no\ndatset: x\ndataset:\n  name: folder\n  sufix: _m\n",
        """
error: recipe.yaml:1:7: "seed" must be an integer from 0 to 4294967295, not the string "no"
error: recipe.yaml:2:1: "datset" is not a section of a recipe
  did you mean "dataset"?
error: recipe.yaml:5:3: the dataset "folder" has no setting "sufix"
  did you mean "suffix"?
  it accepts "images", "masks", "suffix" and "classes"
  defined at stand_ins.py (segreg-lab 1.0)
3 problems
""",
        id="several problems at once",
    ),
]

WHOLE = [
    pytest.param(
        b"",
        """
error: recipe.yaml: the recipe is empty
  `segreg recipes` lists complete ones
""",
        id="an empty file",
    ),
    pytest.param(
        b"\n\n  \n",
        """
error: recipe.yaml: the recipe is empty
  `segreg recipes` lists complete ones
""",
        id="blank lines",
    ),
    pytest.param(
        b"# encoder: tiny\n# decoder: unet\n",
        """
error: recipe.yaml: the recipe is empty
  `segreg recipes` lists complete ones
""",
        id="comments alone",
    ),
    pytest.param(
        b"---\n",
        """
error: recipe.yaml:2:1: a recipe is a mapping of sections such as `encoder: resnet50`
""",
        id="a document without anything",
    ),
    pytest.param(
        b"- encoder: tiny\n- decoder: unet\n",
        """
error: recipe.yaml:1:1: a recipe is a mapping of sections such as `encoder: resnet50`
""",
        id="a list",
    ),
    pytest.param(
        b"resnet50\n",
        """
error: recipe.yaml:1:1: a recipe is a mapping of sections such as `encoder: resnet50`
""",
        id="one word",
    ),
    pytest.param(
        b"encoder: tiny\n",
        """
error: recipe.yaml: the section "dataset" is missing: it names a dataset
  it can be "drawn" or "folder"
error: recipe.yaml: the section "decoder" is missing: it names a decoder
  it can be "deeplabv3plus" or "unet"
error: recipe.yaml: the section "optimizer" is missing: it names an optimizer
  it can be "adam"
error: recipe.yaml: "loss" is missing: it names one loss or several
  it can be "bce", "dice" or "tversky"
error: recipe.yaml: "evaluate.metrics" is missing: it names one metric or several
  it can be "dice" or "iou"
5 problems
""",
        id="one section",
    ),
    pytest.param(
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        """
error: recipe.yaml is not UTF-8 text (byte 0): a recipe is a YAML text
""",
        id="a PNG image",
    ),
    pytest.param(
        bytes(100),
        """
error: recipe.yaml:1:1: this is not text: it holds the control character 0x00
""",
        id="zeros",
    ),
    pytest.param(
        b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.",
        """
error: recipe.yaml is not UTF-8 text (byte 0): a recipe is a YAML text
""",
        id="a pickle",
    ),
    pytest.param(
        b"# gr\xf6\xdfe\nencoder: tiny\n",
        """
error: recipe.yaml is not UTF-8 text (byte 4): a recipe is a YAML text
""",
        id="Latin-1",
    ),
    pytest.param(
        "encoder: tiny\n".encode("utf-16"),
        """
error: recipe.yaml is not UTF-8 text (byte 0): a recipe is a YAML text
""",
        id="UTF-16",
    ),
    pytest.param(
        b"encoder: " + b"[" * 5000 + b"]" * 5000,
        """
error: recipe.yaml:1:59: this is nested more deeply than a recipe can be (50 levels)
""",
        id="deep nesting in brackets",
    ),
    pytest.param(
        b"encoder: " + b"{a: " * 100 + b"1" + b"}" * 100,
        """
error: recipe.yaml:1:206: this is nested more deeply than a recipe can be (50 levels)
""",
        id="deep nesting in braces",
    ),
    pytest.param(
        b"".join(b" " * i + b"a:\n" for i in range(60)),
        """
error: recipe.yaml:51:51: this is nested more deeply than a recipe can be (50 levels)
""",
        id="deep nesting by indentation",
    ),
    pytest.param(
        b"# " + b"x" * 250_000 + b"\n",
        """
error: recipe.yaml is larger than a recipe can be (200 kB)
""",
        id="a file that is too large",
    ),
    pytest.param(
        b'{"encoder": "tiny", "decoder"',
        """
error: recipe.yaml:1:1: this is not valid YAML: expected ',' or '}', but got '<stream end>' while parsing a flow mapping
  what is opened here ([ or {) is not closed
""",
        id="JSON that is cut off",
    ),
]


@pytest.mark.parametrize(("old", "new", "says"), CASES)
def test_one_thing_is_wrong(old, new, says, complaint):
    assert complaint(old, new) == says.lstrip("\n")


@pytest.mark.parametrize(("whole", "says"), WHOLE)
def test_the_whole_file_is_wrong(whole, says, complaint):
    assert complaint(whole=whole) == says.lstrip("\n")
