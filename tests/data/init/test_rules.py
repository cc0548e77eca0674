"""The rules from a fingerprint to settings, as functions of numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segreg.data.init import rules
from segreg.data.init.fingerprint import Fingerprint, ObjectSizes
from segreg.data.init.machine import Machine
from segreg.data.inspection.scan import ClassShare
from segreg.task import Task

CPU = Machine("cpu", gpu=False, memory_mib=8000, half=False, precision="float32")
GPU = Machine("cuda:0", gpu=True, memory_mib=24_000, half=True, precision="bf16")
SMALL = rules.BUDGETS["small"]


def share(name, part, images=100, of=100):
    return ClassShare(name, int(part * 1e6), part, images, images / of)


def objects(small, thickness):
    return ObjectSizes(count=100, per_image=3, small=small, median=2 * small, thickness=thickness)


PRINT = Fingerprint(
    images=100, read=100, seed=0, task=Task(("lesion",), "binary"), splits={}, groups=0, sizes={(512, 512): 100},
    channels=3, dtype="uint8", grey=0.0, shares=[share("background", 0.7), share("lesion", 0.3)], weights={},
    objects={"lesion": objects(60, 80)}, upright=0.01, sideways=0.02,
)  # fmt: skip
STREET = replace(
    PRINT, task=Task(("road", "pole", "sky"), "multiclass"), sizes={(360, 480): 100}, upright=0.6, sideways=0.2,
    shares=[share("road", 0.6), share("pole", 0.01), share("sky", 0.39)], objects={"pole": objects(7, 4)},
    weights={"median_frequency": [0.65, 39.0, 1.0]},
)  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "small", "side", "size", "resize"),
    [
        ({(512, 512): 9}, 60, 256, (256, 256), "stretch"),
        ({(512, 512): 9}, 10, 256, (256, 256), "crop"),
        ({(200, 304): 9}, 2, 256, (200, 304), "none"),
        ({(600, 800): 5, (600, 801): 4}, 60, 256, (224, 288), "stretch"),
        ({(600, 800): 5, (800, 600): 4}, 60, 256, (256, 256), "letterbox"),
        ({(100, 100): 95, (4000, 4000): 5}, 10, 256, (96, 96), "stretch"),
        ({(100, 3000): 9}, 9, 256, (96, 256), "crop"),
    ],
)
def test_the_input(sizes, small, side, size, resize):
    found = rules.input_size(replace(PRINT, sizes=sizes, objects={"lesion": objects(small, 8)}), side)
    assert (found.size, found.resize) == (size, resize)


def test_a_set_without_an_object_is_resized():
    assert rules.input_size(replace(PRINT, objects={}), 256).resize == "stretch"


def test_values_that_are_not_photographs_have_their_own_statistics():
    assert rules.normalize(PRINT).value == "encoder"
    assert rules.normalize(replace(PRINT, dtype="uint16")).value == "dataset"
    assert rules.normalize(replace(PRINT, channels=6)).value == "dataset"


def names(found):
    return [item.value["name"] for item in found]


def test_augmentations_follow_symmetry():
    turned = ["HorizontalFlip", "VerticalFlip", "RandomRotate90"]
    square = (256, 256)
    assert names(rules.augmentations(PRINT, square)) == [*turned, "RandomBrightnessContrast"]
    assert names(rules.augmentations(replace(PRINT, dtype="uint16"), square)) == turned
    assert names(rules.augmentations(STREET, square)) == ["HorizontalFlip", "RandomBrightnessContrast"]
    uneven = replace(PRINT, upright=0.05, sideways=0.3, dtype="float32")
    assert names(rules.augmentations(uneven, square)) == turned[1:]


def test_only_square_inputs_are_turned_by_quarters():
    wide = rules.decide(replace(PRINT, sizes={(96, 128): 100}), "small", CPU)
    assert names(one for one in wide if one.path[0] == "augment") == [
        "HorizontalFlip", "VerticalFlip", "RandomBrightnessContrast",
    ]  # fmt: skip


def test_one_size_is_that_of_the_images_that_were_read():
    sizes = {(200, 304): 9}
    assert "that of all images;" in rules.input_size(replace(PRINT, sizes=sizes), 256).why_size
    part = replace(PRINT, sizes=sizes, images=5_000, read=1_000)
    assert "that of all 1,000 images that were read;" in rules.input_size(part, 256).why_size


def test_thin_objects_want_the_full_resolution():
    resized = rules.input_size(PRINT, 256)
    assert rules.decoder(PRINT, resized)[0].value == "deeplabv3plus"
    assert rules.decoder(replace(PRINT, objects={"lesion": objects(60, 30)}), resized)[0].value == "smp.unet"


def test_losses_and_weights():
    assert [(one.path, one.value) for one in rules.loss(PRINT)] == [(("loss", "name"), "dice_bce")]
    name, weights = rules.loss(STREET)
    assert name.value == "dice_ce"
    assert weights.value == [0.81, 4.0, 1.0]  # the roots of 0.65, 39 and 1, 4 at most
    even = replace(STREET, shares=[share("road", 0.6), share("pole", 0.1), share("sky", 0.3)])
    assert len(rules.loss(even)) == 1


def settings(decisions):
    return {one.path[-1]: one.value for one in decisions}


def test_splits():
    assert rules.splits(PRINT)[1] == 70
    assert settings(rules.splits(replace(PRINT, splits={"train": 80, "val": 20}))[0]) == {
        "method": "dataset",
        "test": 0.0,
    }
    assert rules.splits(replace(PRINT, splits={"train": 60, "test": 40}))[1] == 45, "15 of 100 become val"
    few, train = rules.splits(replace(PRINT, images=6))
    assert (settings(few), train) == ({"method": "random", "val": 0.17, "test": 0.17}, 4)
    two = rules.splits(replace(PRINT, images=40, groups=2))[0]
    assert settings(two) == {"method": "random", "val": 0.5, "test": 0.0}
    rare = replace(PRINT, shares=[share("background", 0.99), share("lesion", 0.01, images=9)])
    assert settings(rules.splits(rare)[0])["stratify"] is True


def test_batches_fit_the_memory_and_the_number_of_images():
    assert rules.batch_size((256, 256), 1000, SMALL, CPU).value == 8
    assert rules.batch_size((256, 256), 1000, SMALL, GPU).value == 16
    assert rules.batch_size((256, 256), 9, SMALL, GPU).value == 2
    # 2048^2 pixels of 1,280 bytes are 5,120 MiB, half in bf16: 7 fit into 0.8 of 24,000
    assert rules.batch_size((2048, 2048), 1000, SMALL, GPU).value == 4


def test_epochs_are_a_number_of_steps():
    assert rules.epochs(100, 8, SMALL, "small").value == 154  # 13 steps each
    assert rules.epochs(97, 8, SMALL, "small").value == 167  # 12 steps each: an image that is left over joins a batch
    assert rules.epochs(4, 4, SMALL, "small").value == rules.EPOCHS[1]
    assert rules.epochs(100_000, 8, SMALL, "small").value == rules.EPOCHS[0]


def test_the_budget_follows_from_the_machine():
    assert rules.default_budget(CPU)[0] == "small"
    assert rules.default_budget(GPU)[0] == "medium"
