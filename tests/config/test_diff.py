"""What differs between two recipes, and what tells each of many from the others."""

from __future__ import annotations

import math

import pytest

from planted_runs import RECIPE, recipe
from segreg.config.diff import ABSENT, RecipeDifference, distinguishing, in_short, part_names, recipe_differences

ONE = {"name": "bce", "positive_weight": 2.0, "weight": 1.0}
OTHER = {"name": "dice", "smooth": 1.0, "weight": 0.5}


def test_equal_recipes_differ_in_nothing():
    assert recipe_differences(RECIPE, recipe()) == []
    assert recipe_differences({"a": math.nan, "b": [math.nan]}, {"a": math.nan, "b": [math.nan]}) == []


def test_settings_are_reported_by_path_in_the_order_of_the_recipe():
    other = recipe(train__epochs=5, seed=4, input__size=[64, 64], split__lists={"test": "/ids"})
    assert recipe_differences(RECIPE, other) == [
        RecipeDifference("seed", 3, 4),
        RecipeDifference("split.lists.test", ABSENT, "/ids"),
        RecipeDifference("input.size", [32, 32], [64, 64]),
        RecipeDifference("train.epochs", 3, 5),
    ]


def test_a_section_that_only_one_has():
    assert recipe_differences({"seed": 1}, {"seed": 1, "more": {"a": 2}}) == [RecipeDifference("more.a", ABSENT, 2)]


def test_the_settings_of_a_part_that_is_the_same():
    assert recipe_differences(RECIPE, recipe(decoder__channels=32, decoder__rates=[6])) == [
        RecipeDifference("decoder.channels", 16, 32),
        RecipeDifference("decoder.rates", ABSENT, [6]),
    ]


def test_settings_that_only_one_of_two_parts_has_stand_with_the_part():
    other = recipe(encoder={"name": "resnet18", "weights": "imagenet", "depth": 5})
    one = recipe(encoder={"name": "timm/test_resnet", "weights": None, "drop": 0.1})
    assert recipe_differences(one, other) == [
        RecipeDifference("encoder", "timm/test_resnet", "resnet18", {"drop": 0.1}, {"depth": 5}),
        RecipeDifference("encoder.weights", None, "imagenet"),
    ]


def test_a_part_that_only_one_has():
    other = recipe(schedule={"name": "poly", "power": 0.9})
    assert recipe_differences(RECIPE, other) == [RecipeDifference("schedule", None, "poly", {}, {"power": 0.9})]
    assert recipe_differences(other, RECIPE) == [RecipeDifference("schedule", "poly", None, {"power": 0.9}, {})]


def test_one_loss_in_the_place_of_another():
    assert recipe_differences(recipe(loss=[ONE]), recipe(loss=[OTHER])) == [
        RecipeDifference("loss", "bce", "dice", {"positive_weight": 2.0}, {"smooth": 1.0}),
        RecipeDifference("loss.weight", 1.0, 0.5),
    ]


def test_parts_of_a_list_go_by_their_names():
    both = recipe(loss=[OTHER, {**ONE, "weight": 3.0}])
    assert recipe_differences(recipe(loss=[ONE]), both) == [
        RecipeDifference("loss.bce.weight", 1.0, 3.0),
        RecipeDifference("loss.dice", ABSENT, "dice", {}, {"smooth": 1.0, "weight": 0.5}),
    ]
    flip = {"name": "HorizontalFlip", "p": 0.5}
    assert recipe_differences(recipe(augment=[]), recipe(augment=[flip, flip])) == [
        RecipeDifference("augment.HorizontalFlip", ABSENT, "HorizontalFlip", {}, {"p": 0.5}),
        RecipeDifference("augment.HorizontalFlip[2]", ABSENT, "HorizontalFlip", {}, {"p": 0.5}),
    ]


def test_another_order_of_the_same_parts():
    assert recipe_differences(recipe(loss=[ONE, OTHER]), recipe(loss=[OTHER, ONE])) == [
        RecipeDifference("loss", ["bce", "dice"], ["dice", "bce"])
    ]


# of many


def test_what_reports_recipes_apart():
    reported = distinguishing(
        [recipe(), recipe(decoder={"name": "smp.unet"}), recipe(seed=5, train__epochs=9), recipe(loss=[ONE, OTHER])]
    )
    assert reported == [
        {"decoder": "deeplabv3plus", "loss": "dice_bce", "train.epochs": "3"},
        {"decoder": "smp.unet", "loss": "dice_bce", "train.epochs": "3"},
        {"decoder": "deeplabv3plus", "loss": "dice_bce", "train.epochs": "9"},
        {"decoder": "deeplabv3plus", "loss": "bce + dice", "train.epochs": "3"},
    ]


def test_a_part_s_settings_are_reported_only_beside_the_same_part():
    reported = distinguishing(
        [
            recipe(encoder={"name": "resnet18", "weights": None, "depth": 5}),
            recipe(encoder={"name": "resnet18", "weights": "imagenet", "depth": 5}),
            recipe(encoder={"name": "resnet50", "weights": "imagenet", "drop": 0.1}),
        ]
    )
    assert reported == [
        {"encoder": "resnet18", "encoder.weights": "null"},
        {"encoder": "resnet18", "encoder.weights": "imagenet"},
        {"encoder": "resnet50"},
    ]


def test_settings_of_the_same_part_in_all():
    assert distinguishing([recipe(), recipe(optimizer__lr=0.001)]) == [
        {"optimizer.lr": "0.01"},
        {"optimizer.lr": "0.001"},
    ]
    assert distinguishing([recipe(loss=[ONE]), recipe(loss=[{**ONE, "positive_weight": 4.0}])]) == [
        {"loss.bce.positive_weight": "2.0"},
        {"loss.bce.positive_weight": "4.0"},
    ]


def test_a_part_that_not_all_have():
    reported = distinguishing([recipe(), recipe(schedule={"name": "poly"}, augment=[])])
    assert reported == [{"augment": "HorizontalFlip", "schedule": "none"}, {"augment": "none", "schedule": "poly"}]


def test_a_section_that_not_all_have_is_compared_among_those_that_have_it():
    crops = [recipe(input={"resize": "crop"}, crop={"per_image": count, "scale": [1, 1]}) for count in (1, 4)]
    reported = distinguishing([recipe(input={"resize": "stretch"}), *crops])
    assert reported == [
        {"input.resize": "stretch"},
        {"input.resize": "crop", "crop.per_image": "1"},
        {"input.resize": "crop", "crop.per_image": "4"},
    ]


def test_seeds_tell_no_recipe_from_another():
    assert distinguishing([recipe(), recipe(seed=4)]) == [{}, {}]
    assert distinguishing([recipe()]) == [{}]
    assert distinguishing([]) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (1e-4, "0.0001"), ([256, 256], "[256, 256]"), ("resnet18", "resnet18"),
     (ABSENT, "-"), ({"a": 1}, '{"a": 1}')],
)  # fmt: skip
def test_values_in_short(value, text):
    assert in_short(value) == text


def test_names_of_parts():
    assert part_names(ONE) == ["bce"]
    assert part_names([ONE, OTHER]) == ["bce", "dice"]
    assert [part_names(value) for value in ([], None, "bce", {"a": 1}, [1, 2], 3)] == [None] * 6
