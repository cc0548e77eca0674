"""Values of a wrong type, out of range, or at odds with each other."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import pytest

CASES = [
    pytest.param(
        "  epochs: 3",
        "  epochs: 3\n  start_part: encoder",
        """
error: recipe.yaml:24:15: "start_part" goes with start_from, which names the weights
""",
        id="part of weights that are not named",
    ),
    pytest.param(
        "{name: dice, weight: 2}",
        "{name: dice, weight: 0x1" + 300 * "0" + "}",
        f"""
error: recipe.yaml:16:26: "weight" of the loss "dice" must be a finite number above 0, not {str(16**300)[:77]}...
""",
        id="integer that no float holds",
    ),
    pytest.param(
        "  epochs: 3",
        "  epochs: 3\n  ema: 0.9\n  swa_start: 3",
        """
error: recipe.yaml:25:3: "swa_start" does not go with ema
  ema averages over steps and swa_start over epochs: leave one of them out
error: recipe.yaml:25:14: "swa_start": from epoch 3 on, 3 epochs have no two to average
2 problems
""",
        id="two averages, and one of a single epoch",
    ),
    pytest.param(
        "{name: dice, weight: 2}",
        "{name: dice, weight: {start: 0, stop: 1, epochs: [1, 9]}}",
        """
error: recipe.yaml:16:26: "weight" of the loss "dice" needs "end", a number of at least 0
  end: the weight from the last of `epochs` on.
error: recipe.yaml:16:37: "weight" of the loss "dice" has no setting "stop"
  it accepts "start", "end" and "epochs"
2 problems
""",
        id="setting of a weight misspelled",
    ),
    pytest.param(
        "{name: dice, weight: 2}",
        "{name: dice, weight: {start: 0, end: 1, epochs: [9, 9]}}",
        """
error: recipe.yaml:16:53: "weight" of the loss "dice" goes from an epoch to a later one, not from 9 to 9
""",
        id="weight that changes within an epoch",
    ),
    pytest.param(
        "{name: dice, weight: 2}",
        "{name: dice, weight: {start: 1, end: 1, epochs: [1, 9]}}",
        """
error: recipe.yaml:16:26: "weight" of the loss "dice" is 1 in every epoch
  write weight: 1
""",
        id="weight that does not change",
    ),
    pytest.param(
        "{name: dice, weight: 2}",
        "{name: dice, weight: {start: 0, end: 1, epochs: [1, 9]}}",
        """
error: recipe.yaml:16:3: train.monitor: "val.loss" can't choose the best epoch, as weights of its terms change
  monitor a metric such as val.dice.pooled, or a single term of the loss
""",
        id="total whose weights change as the monitor",
    ),
    pytest.param(
        "split: {val: 0.2, test: 0.2}",
        "split: {method: train_test_split, stratify: true}",
        """
error: recipe.yaml:6:45: in the section "split", "stratify" goes with method: random; split.method is train_test_split
""",
        id="stratify what is not drawn by segreg",
    ),
    pytest.param(
        "epochs: 3",
        'epochs: "3"',
        """
error: recipe.yaml:23:11: "epochs" of the section "train" must be an integer between 1 and 1000000, not the string "3"
  epochs: epochs at most.
""",
        id="text for an integer",
    ),
    pytest.param(
        "epochs: 3",
        "epochs: true",
        """
error: recipe.yaml:23:11: "epochs" of the section "train" must be an integer between 1 and 1000000, not the boolean true
  epochs: epochs at most.
""",
        id="boolean for an integer",
    ),
    pytest.param(
        "epochs: 3",
        "epochs: 3.5",
        """
error: recipe.yaml:23:11: "epochs" of the section "train" must be an integer between 1 and 1000000, not 3.5
  epochs: epochs at most.
""",
        id="broken number for an integer",
    ),
    pytest.param(
        "epochs: 3",
        "epochs: 3.0",
        """
error: recipe.yaml:23:11: "epochs" of the section "train" must be an integer between 1 and 1000000, not 3.0
  epochs: epochs at most.
""",
        id="whole number with a point for an integer",
    ),
    pytest.param(
        "epochs: 3",
        "epochs: [3]",
        """
error: recipe.yaml:23:11: "epochs" of the section "train" must be an integer between 1 and 1000000, not [3]
  epochs: epochs at most.
""",
        id="list for an integer",
    ),
    pytest.param(
        "epochs: 3",
        "epochs:",
        """
error: recipe.yaml:23:10: "epochs" of the section "train" must be an integer between 1 and 1000000, not null
  epochs: epochs at most.
""",
        id="null for an integer",
    ),
    pytest.param(
        "lr: 1e-3",
        "lr: fast",
        """
error: recipe.yaml:20:7: "lr" of the optimizer "adam" must be a number above 0, not the string "fast"
  lr: learning rate.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="text for a number",
    ),
    pytest.param(
        "lr: 1e-3",
        "lr: {start: 1e-3}",
        """
error: recipe.yaml:20:7: "lr" of the optimizer "adam" must be a number above 0, not {"start": 0.001}
  lr: learning rate.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="mapping for a number",
    ),
    pytest.param(
        "  lr: 1e-3",
        "  lr: 1e-3\n  amsgrad: yes",
        """
error: recipe.yaml:21:12: "amsgrad" of the optimizer "adam" must be true or false, not the string "yes"
  amsgrad: whether the largest second average is kept.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="YAML 1.1's word for a boolean",
    ),
    pytest.param(
        "  lr: 1e-3",
        "  lr: 1e-3\n  amsgrad: 1",
        """
error: recipe.yaml:21:12: "amsgrad" of the optimizer "adam" must be true or false, not 1
  amsgrad: whether the largest second average is kept.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="integer for a boolean",
    ),
    pytest.param(
        "images: data/images",
        "images: 3",
        """
error: recipe.yaml:4:11: "images" of the dataset "folder" must be a path, not 3
  images: folder of the images.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="number for a path",
    ),
    pytest.param(
        "rates: [6, 12, 18]",
        "rates: 6",
        """
error: recipe.yaml:14:10: "rates" of the decoder "deeplabv3plus" must be a list of 3 integers above 0, not 6
  rates: of the three atrous convolutions.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="integer for a list",
    ),
    pytest.param(
        "rates: [6, 12, 18]",
        "rates: [6, 12]",
        """
error: recipe.yaml:14:10: "rates" of the decoder "deeplabv3plus" must be a list of 3 integers above 0, not [6, 12]
  rates: of the three atrous convolutions.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="list that is too short",
    ),
    pytest.param(
        "size: [64, 64]",
        "size: [64, 64, 3]",
        """
error: recipe.yaml:8:9: "size" of the section "input" must be a list of 2 integers between 1 and 16384, not [64, 64, 3]
  size: height and width in pixels; of the crops where `resize` is `crop`.
""",
        id="list that is too long",
    ),
    pytest.param(
        "rates: [6, 12, 18]",
        "rates: [6, twelve, 18]",
        """
error: recipe.yaml:14:10: "rates" of the decoder "deeplabv3plus" must be a list of 3 integers above 0, not [6, "twelve", 18]; item 2 is the string "twelve"
  rates: of the three atrous convolutions.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="list with one wrong item",
    ),
    pytest.param(
        "rates: [6, 12, 18]",
        "rates: [six, twelve, 18]",
        """
error: recipe.yaml:14:10: "rates" of the decoder "deeplabv3plus" must be a list of 3 integers above 0, not ["six", "twelve", 18]
  rates: of the three atrous convolutions.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="list with two wrong items",
    ),
    pytest.param(
        "  masks: data/masks",
        "  masks: data/masks\n  classes: lesion",
        """
error: recipe.yaml:6:12: "classes" of the dataset "folder" must be a list of strings, not the string "lesion"
  classes: names of the classes.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="text for a list of strings",
    ),
    pytest.param(
        "  rates: [6, 12, 18]",
        "  output_stride: 32",
        """
error: recipe.yaml:14:18: "output_stride" of the decoder "deeplabv3plus" must be one of 8, 16, not 32
  output_stride: stride of the coarsest level.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="word that is none of the choices",
    ),
    pytest.param(
        "size: [64, 64]",
        "resize: pad",
        """
error: recipe.yaml:8:11: "resize" of the section "input" must be one of stretch, letterbox, none, crop, not the string "pad"
  resize: `stretch` to the size, `letterbox` into it (the border is ignored), `none` where all images have it, or `crop`: training sees crops of that size, as the section crop says, and images are scored at their own.
""",
        id="choice in a section",
    ),
    pytest.param(
        "{name: HorizontalFlip, p: 0.5}",
        "{name: Rotate, limit: wide}",
        """
error: recipe.yaml:10:27: "limit" of the augmentation "Rotate" must be a number or a list of 2 numbers, not the string "wide"
  limit: range of the angle in degrees
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="neither of two types",
    ),
    pytest.param(
        "{name: HorizontalFlip, p: 0.5}",
        "{name: Rotate, limit: [1, 2, 3]}",
        """
error: recipe.yaml:10:27: "limit" of the augmentation "Rotate" must be a number or a list of 2 numbers, not [1, 2, 3]
  limit: range of the angle in degrees
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="list of the wrong length where a number would do",
    ),
    pytest.param(
        "split: {val: 0.2, test: 0.2}",
        "split: {method: lists, lists: {trian: a.txt, val: b.txt}}",
        """
error: recipe.yaml:6:31: "lists" of the section "split" must be a mapping of train, val, test to paths, not {"trian": "a.txt", "val": "b.txt"}; "trian" is none of its keys
  lists: for each of train, val and test a text file with one sample id a line.
""",
        id="key that a mapping has no place for",
    ),
    pytest.param(
        "epochs: 3",
        "lr_factors: {encoder: slow}",
        """
error: recipe.yaml:23:15: "lr_factors" of the section "train" must be a mapping of encoder, decoder, head, auxiliary to numbers above 0, not {"encoder": "slow"}; "encoder" is the string "slow"
  lr_factors: learning rate of a part (encoder, decoder, head, auxiliary) as a multiple of the optimizer's.
""",
        id="value in a mapping",
    ),
    pytest.param(
        "seed: 0",
        "seed: 1.5",
        """
error: recipe.yaml:1:7: "seed" must be an integer from 0 to 4294967295, not 1.5
""",
        id="seed with a point",
    ),
    pytest.param(
        "seed: 0",
        "seed: -1",
        """
error: recipe.yaml:1:7: "seed" must be an integer from 0 to 4294967295, not -1
""",
        id="negative seed",
    ),
    pytest.param(
        "epochs: 3",
        "epochs: 0",
        """
error: recipe.yaml:23:11: "epochs" of the section "train" must be an integer between 1 and 1000000, not 0
  epochs: epochs at most.
""",
        id="integer below its range",
    ),
    pytest.param(
        "  rates: [6, 12, 18]",
        "  dropout: 1.5",
        """
error: recipe.yaml:14:12: "dropout" of the decoder "deeplabv3plus" must be a number between 0 and 1, not 1.5
  dropout: share of features dropped before the head.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="number above its range",
    ),
    pytest.param(
        "lr: 1e-3",
        "lr: 0",
        """
error: recipe.yaml:20:7: "lr" of the optimizer "adam" must be a number above 0, not 0
  lr: learning rate.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="number at its range's open end",
    ),
    pytest.param(
        "lr: 1e-3",
        "lr: .nan",
        """
error: recipe.yaml:20:7: "lr" of the optimizer "adam" must be a number above 0, not .nan
  lr: learning rate.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="number that is none",
    ),
    pytest.param(
        "size: [64, 64]",
        "size: [64, 0]",
        """
error: recipe.yaml:8:9: "size" of the section "input" must be a list of 2 integers between 1 and 16384, not [64, 0]; item 2 is 0
  size: height and width in pixels; of the crops where `resize` is `crop`.
""",
        id="one item out of range",
    ),
    pytest.param(
        "epochs: 3",
        "epochs: " + "9" * 5000,
        """
error: recipe.yaml:23:11: "epochs" of the section "train" must be an integer between 1 and 1000000, not .inf
  epochs: epochs at most.
""",
        id="integer of five thousand digits",
    ),
    pytest.param(
        "epochs: 3",
        "epochs: " + "9" * 4000,
        """
error: recipe.yaml:23:11: "epochs" of the section "train" must be an integer between 1 and 1000000, not an integer of 13288 bits; at most 128 are taken
  epochs: epochs at most.
""",
        id="integer of four thousand digits",
    ),
    pytest.param(
        "epochs: 3",
        "epochs: 3\n  workers: 100000",
        """
error: recipe.yaml:24:12: "workers" of the section "train" must be an integer between 0 and 1024 or auto, not 100000
  workers: processes that augment; 0 is one thread beside the training, `auto` fits the machine.
""",
        id="more workers than any machine has cores",
    ),
    pytest.param(
        "size: [64, 64]",
        "size: [1000000000, 64]",
        """
error: recipe.yaml:8:9: "size" of the section "input" must be a list of 2 integers between 1 and 16384, not [1000000000, 64]; item 1 is 1000000000
  size: height and width in pixels; of the crops where `resize` is `crop`.
""",
        id="size of kilometres",
    ),
    pytest.param(
        "epochs: 3",
        "epochs: " + "many " * 40,
        """
error: recipe.yaml:23:11: "epochs" of the section "train" must be an integer between 1 and 1000000, not the string "many many many many many many many many many many many many many many many ma..."
  epochs: epochs at most.
""",
        id="very long text for an integer",
    ),
    pytest.param(
        "weight: 2",
        "weight: 0",
        """
error: recipe.yaml:16:26: "weight" of the loss "dice" must be a finite number above 0, not 0
""",
        id="weight of zero",
    ),
    pytest.param(
        "weight: 2",
        "weight: -0.5",
        """
error: recipe.yaml:16:26: "weight" of the loss "dice" must be a finite number above 0, not -0.5
""",
        id="negative weight",
    ),
    pytest.param(
        "weight: 2",
        "weight: heavy",
        """
error: recipe.yaml:16:26: "weight" of the loss "dice" must be a finite number above 0, not the string "heavy"
""",
        id="text for a weight",
    ),
    pytest.param(
        "weight: 2",
        "weight: .inf",
        """
error: recipe.yaml:16:26: "weight" of the loss "dice" must be a finite number above 0, not .inf
""",
        id="infinite weight",
    ),
    pytest.param(
        "split: {val: 0.2, test: 0.2}",
        "split: {val: 0.6, test: 0.4}",
        """
error: recipe.yaml:6:8: in the section "split", val and test are shares of all samples: 0.6 and 0.4 leave none to train
""",
        id="shares that leave nothing to train on",
    ),
    pytest.param(
        "split: {val: 0.2, test: 0.2}",
        "split:\n  method: lists",
        """
error: recipe.yaml:7:3: "split.lists" must name a file for train and one for val
""",
        id="lists without files",
    ),
    pytest.param(
        "split: {val: 0.2, test: 0.2}",
        "split: {method: folds, folds: 4, fold: 4}",
        """
error: recipe.yaml:6:40: in the section "split", there are 4 folds, numbered from 0, and no fold 4
""",
        id="a fold beyond the last",
    ),
    pytest.param(
        "split: {val: 0.2, test: 0.2}",
        "split: {val: 0.2, fold: 1}",
        """
error: recipe.yaml:6:19: in the section "split", "fold" goes with method: folds; split.method is auto
""",
        id="a fold of a split without folds",
    ),
    pytest.param(
        "split: {val: 0.2, test: 0.2}",
        "split: {val: 0.2, lists: {train: a.txt, val: b.txt}}",
        """
error: recipe.yaml:6:19: in the section "split", "lists" goes with method: lists; split.method is auto
""",
        id="lists that nothing reads",
    ),
    pytest.param(
        "size: [64, 64]",
        "mean: [0.5, 0.5, 0.5]",
        """
error: recipe.yaml:8:3: "mean" and "std" of the section "input" go together
""",
        id="mean without std",
    ),
    pytest.param(
        "size: [64, 64]",
        "mean: [0.5]\n  std: [0.2, 0.2, 0.2]",
        """
error: recipe.yaml:8:9: "mean" of the section "input" has 1 value, but input.channels is 3
""",
        id="mean with too few values",
    ),
    pytest.param(
        "size: [64, 64]",
        "mean: grey\n  std: [0.2, 0.2, 0.2]",
        """
error: recipe.yaml:8:9: "mean" of the section "input" must be a list of numbers or null, not the string "grey"
  mean: mean of each channel, of integers in [0, 1]; takes the place of `normalize`.
""",
        id="mean of a wrong type beside a std",
    ),
    pytest.param(
        "size: [64, 64]",
        "channels: 1\n  normalize: imagenet",
        """
error: recipe.yaml:9:14: ImageNet's statistics have 3 channels
  normalize: dataset computes them; or give mean and std with 1 value
""",
        id="ImageNet's statistics for one channel",
    ),
]


@pytest.mark.parametrize(("old", "new", "says"), CASES)
def test_one_thing_is_wrong(old, new, says, complaint):
    assert complaint(old, new) == says.lstrip("\n")
