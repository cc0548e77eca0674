"""The JSON Schema of recipes: it takes what `segreg check` takes, and refuses what that refuses."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

import plugged
from segreg.config.recipe import Recipe, read_recipe, shipped_recipes
from segreg.config.resolve import SECTIONS, resolve
from segreg.config.schema import recipe_schema
from segreg.registry.registry import load_registry

RIGHT = Path(__file__).parents[1] / "wrong_recipes" / "right.yaml"


@pytest.fixture(scope="module")
def lab_schema(lab):
    schema = recipe_schema(lab)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def builtin_schema(builtin):
    schema = recipe_schema(builtin)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_sections_are_those_of_recipes_in_their_order(lab):
    schema = recipe_schema(lab)
    assert tuple(schema["properties"]) == SECTIONS
    assert schema["required"] == ["dataset", "optimizer", "loss", "evaluate"]
    assert json.loads(json.dumps(schema)) == schema


RIGHT_ONES = [
    [],
    ["seed=4294967295"],
    ["train=null", "split={}", "input=null"],
    ["schedule=null", "augment=null", "auxiliary=null"],
    ["augment=[]"],
    ["augment=HorizontalFlip"],
    ["augment=[Rotate, {name: Rotate, limit: 3}, {name: Rotate, limit: [1, 2]}]"],
    ["encoder=timm/resnet18"],
    ["encoder={name: timm/resnet18, weights: in1k}"],
    ["encoder={name: tiny, width: 4}"],
    ["auxiliary={name: unet, weight: 0.4}"],
    ["loss={name: tversky, alpha: 0.3}"],
    ["loss=[bce, {name: bce, weight: 3}]"],
    ["train.workers=auto", "train.early_stopping=null"],
    ["train.workers=3", "train.lr_factors={encoder: 0.1}"],
    ["encoder.lora={rank: 4, targets: [qkv]}", "encoder.trainable=norms"],
    ["encoder={name: timm/resnet18, lora: null, freeze_layers: 3}", "optimizer.exclude_from_weight_decay=false"],
]

WRONG_ONES = [
    ["encoder.lora={ranc: 4}"],
    ["encoder.lora=8"],
    ["encoder.trainable=most"],
    ["optimizer.exclude_from_weight_decay=1"],
    ["seed=-1"],
    ["seed=4294967296"],
    ["seed=1.5"],
    ["model=unet"],
    ["encoder=null"],
    ["encoder=unet"],
    ["encoder=tinny"],
    ["encoder=50"],
    ["encoder=[tiny]"],
    ["encoder={width: 4}"],
    ["encoder={name: tiny, width: 0}"],
    ["encoder={name: tiny, depth: 4}"],
    ["encoder={name: timm/resnet18, width: 4}"],
    ["decoder.rates=[6, 12]"],
    ["decoder.rates=[6, 12, x]"],
    ["decoder=unet", "decoder.rates=[6, 12, 18]"],
    ["augment=[Rotat]"],
    ["augment=[{name: HorizontalFlip, limit: 3}]"],
    ["augment=[{name: Rotate, limit: [1, 2, 3]}]"],
    ["loss=tversky.x"],
    ["loss=[{name: bce, weight: 0}]"],
    ["loss={name: tversky, beta: 0.3}"],
    ["optimizer={name: adam}"],
    ["optimizer=adam"],
    ["decoder={name: unet, weight: 0.4}"],
    ["loss=bce@nobody"],
    ["optimizer.lr=fast"],
    ["train=3"],
    ["train.epochs=0"],
    ["train.epoch=3"],
    ["train.epochs=true"],
    ["train.lr_factors={neck: 0.1}"],
    ["evaluate={threshold: 0.5}"],
    ["evaluate=null"],
    ["evaluate.metrics=[bce]"],
    ["evaluate.metrics=null"],
    ["evaluate.metrics=[]"],
    ["loss=null"],
    ["loss=[]"],
    ["evaluate.threshold=1.5"],
]


@pytest.mark.parametrize("overrides", RIGHT_ONES, ids=" ".join)
def test_right_recipes_are_taken(overrides, lab, lab_schema):
    recipe = read_recipe(RIGHT, overrides)
    resolve(recipe, lab)
    lab_schema.validate(recipe.values)


@pytest.mark.parametrize("overrides", WRONG_ONES, ids=" ".join)
def test_wrong_recipes_are_refused(overrides, lab, lab_schema):
    recipe = read_recipe(RIGHT, overrides)
    with pytest.raises(Exception, match=r"."):
        resolve(recipe, lab)
    assert not lab_schema.is_valid(recipe.values)


@pytest.mark.parametrize("overrides", RIGHT_ONES, ids=" ".join)
def test_complete_recipes_are_taken(overrides, lab, lab_schema):
    lab_schema.validate(resolve(read_recipe(RIGHT, overrides), lab).plain())


def test_editors_find_meanings_and_defaults(lab):
    schema = recipe_schema(lab)
    epochs = schema["properties"]["train"]["properties"]["epochs"]
    assert epochs == {
        "type": "integer", "minimum": 1, "maximum": 1_000_000, "description": "epochs at most.", "default": 100,
    }  # fmt: skip
    (adam,) = (shape for shape in schema["$defs"]["optimizer"]["anyOf"] if shape["type"] == "object")
    (name, _) = adam["properties"]["name"]["anyOf"]
    assert (name, adam["properties"]["name"]["description"]) == ({"enum": ["adam"]}, "Adam.")
    assert adam["required"] == ["name", "lr"]


def test_a_kind_that_nobody_offers_has_no_right_value():
    schema = recipe_schema(load_registry([]))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert not jsonschema.Draft202012Validator(schema).is_valid(Recipe({"encoder": "tiny"}).values)
    assert not jsonschema.Draft202012Validator(schema["$defs"]["encoder"]).is_valid("tiny")


def test_a_name_offered_twice_is_written_with_its_package(plugin):
    ours = plugged.OFFERING.format(name="ours")
    twice = [plugin(ours, distribution="segreg-foo"), plugin(ours, distribution="segreg-bar")]
    registry = load_registry([plugged.STAND_INS, *twice])
    schema = jsonschema.Draft202012Validator(recipe_schema(registry))
    right = read_recipe(RIGHT).values
    assert schema.is_valid({**right, "loss": "ours@segreg-foo"})
    assert schema.is_valid({**right, "loss": {"name": "ours@segreg-bar", "power": 2.0}})
    assert not schema.is_valid({**right, "loss": "ours"})


def test_a_prefix_is_no_regular_expression(plugin):
    source = plugin('''
from segreg.registry.entry import Family
from segreg.registry.hooks import hookimpl

def build(member, in_channels):
    """A model."""

@hookimpl
def segreg_entries():
    return [Family("encoder", "odd", "c++.", build, lambda: ["a"])]
''')
    schema = jsonschema.Draft202012Validator(recipe_schema(load_registry([source]))["$defs"]["encoder"])
    assert schema.is_valid("c++.a")
    assert not schema.is_valid("ccx")


@pytest.mark.parametrize("file", shipped_recipes().values(), ids=lambda file: file.stem)
def test_shipped_recipes_are_taken_and_so_are_their_complete_forms(file, builtin, builtin_schema):
    recipe = read_recipe(file)
    builtin_schema.validate(recipe.values)
    builtin_schema.validate(resolve(recipe, builtin).plain())


@pytest.mark.parametrize(
    "override", ["encoder=resnet51", "decoder.rates=6", "loss=unet", "train.epochs=many", "augment=[Rotat]", "sed=1"]
)
def test_shipped_recipes_that_were_spoilt_are_refused(override, builtin_schema):
    recipe = read_recipe(shipped_recipes()["isic_v3plus"], [override])
    assert not builtin_schema.is_valid(recipe.values)
