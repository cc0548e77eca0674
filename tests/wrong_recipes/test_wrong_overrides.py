"""Overrides on the command line that are wrong, in themselves or for the recipe."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import pytest

CASES = [
    pytest.param(
        ["encoder=tinny"],
        """
error: command line: there is no encoder "tinny"
  did you mean "tiny"?
  `segreg list encoder` shows every encoder
""",
        id="misspelled part",
    ),
    pytest.param(
        ["trian.epochs=3"],
        """
error: command line: "trian" is not a section of a recipe
  did you mean "train"?
""",
        id="misspelled section",
    ),
    pytest.param(
        ["train.epoch=3"],
        """
error: command line: the section "train" has no setting "epoch"
  did you mean "epochs"?
  it accepts "epochs", "batch_size", "effective_batch_size", "accumulate", "precision", "device", "channels_last", "compile", "checkpoint_activations", "sync_batch_norm", "batch_norm_momentum", "workers", "clip_gradient_norm", "ema", "swa_start", "freeze_encoder_epochs", "layer_decay", "lr_factors", "validate_on", "monitor", "early_stopping", "time_budget_minutes", "start_from", "start_part" and "keep_state"
""",
        id="misspelled setting",
    ),
    pytest.param(
        ["train.epochs=many"],
        """
error: command line: "epochs" of the section "train" must be an integer between 1 and 1000000, not the string "many"
  epochs: epochs at most.
""",
        id="wrong type",
    ),
    pytest.param(
        ["train.epochs=0"],
        """
error: command line: "epochs" of the section "train" must be an integer between 1 and 1000000, not 0
  epochs: epochs at most.
""",
        id="out of range",
    ),
    pytest.param(
        ["encoder=resnet50", "encoder.width=4"],
        """
error: command line: the encoder "resnet50" has no setting "width"
  it accepts "weights", "trainable", "freeze_layers" and "lora"
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="setting that the new part does not have",
    ),
    pytest.param(
        [".=3"],
        """
error: there is no recipe .=3
  `segreg recipes` lists the recipes that came with segreg
  an override is written key.path=value, such as train.epochs=3
""",
        id="no path",
    ),
    pytest.param(
        ["train..epochs=3"],
        """
error: command line: "train..epochs=3" is not an override
  write key.path=value, such as train.epochs=3
""",
        id="dots alone",
    ),
    pytest.param(
        ["train.=3"],
        """
error: command line: "train.=3" is not an override
  write key.path=value, such as train.epochs=3
""",
        id="trailing dot",
    ),
    pytest.param(
        ["seed.value=3"],
        """
error: command line: in "seed.value=3", "seed" is 0 and has nothing inside it
""",
        id="through a number",
    ),
    pytest.param(
        ["train.epochs.most=3"],
        """
error: command line: in "train.epochs.most=3", "train.epochs" is 3 and has nothing inside it
""",
        id="through a setting",
    ),
    pytest.param(
        ["loss.5=bce"],
        """
error: command line: in "loss.5=bce", "loss" is a list of 2; an item is named by its number, from 0
""",
        id="item beyond the end",
    ),
    pytest.param(
        ["loss.first=bce"],
        """
error: command line: in "loss.first=bce", "loss" is a list of 2; an item is named by its number, from 0
""",
        id="word for an item",
    ),
    pytest.param(
        ["train.0=3"],
        """
error: command line: in "train.0=3", "train" is not a list, so it has no item 0
""",
        id="number for a key",
    ),
    pytest.param(
        ["decoder.rates=[6, 12"],
        """
error: command line: in "decoder.rates=[6, 12", this is not valid YAML: expected ',' or ']', but got '<stream end>' while parsing a flow sequence
  what is opened here ([ or {) is not closed
""",
        id="YAML that is none",
    ),
    pytest.param(
        ["encoder=*best"],
        """
error: command line: in "encoder=*best", aliases (*) are not allowed: write values out; a string that begins with * needs quotes
""",
        id="alias",
    ),
    pytest.param(
        ["encoder=!!python/name:os.system"],
        """
error: command line: in "encoder=!!python/name:os.system", tags (!) are not allowed: a recipe holds plain values; a string that begins with ! needs quotes
""",
        id="tag",
    ),
    pytest.param(
        ["encoder={name: tiny, name: resnet50}"],
        """
error: command line: in "encoder={name: tiny, name: resnet50}", "name" is given twice here
""",
        id="key twice",
    ),
    pytest.param(
        ["loss.0.weight=-1"],
        """
error: command line: "weight" of the loss "dice" must be a finite number above 0, not -1
""",
        id="weight",
    ),
    pytest.param(
        ["dataset={name: folder, images: a}"],
        """
error: command line: the dataset "folder" needs "masks", a path
  masks: folder of the masks.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="missing setting",
    ),
    pytest.param(
        ["optimizer=null"],
        """
error: command line: the section "optimizer" is missing: it names an optimizer
  it can be "adam"
""",
        id="part emptied",
    ),
    pytest.param(
        ["encoder="],
        """
error: command line: the section "encoder" is missing: it names an encoder
  it can be "resnet50", "tiny" or "timm/*"
""",
        id="nothing after the equals sign",
    ),
    pytest.param(
        ["train.epochs=5", "train.batch_size=0"],
        """
error: command line: "batch_size" of the section "train" must be an integer between 1 and 1000000 or auto, not 0
  batch_size: images in a batch, of all processes together; `auto` takes `effective_batch_size`, computed in as many parts as the device's memory asks for.
""",
        id="one wrong beside one right",
    ),
    pytest.param(
        ["train.effective_batch_size=64"],
        """
error: command line: "effective_batch_size" goes with batch_size: auto
  set batch_size: auto, or leave it out; the batch has 16 images
""",
        id="an effective batch size of a batch in numbers",
    ),
    pytest.param(
        ["train.batch_size=auto", "train.accumulate=4"],
        """
error: command line: "accumulate" does not go with batch_size: auto, which adds up itself
  set effective_batch_size to the images of a step, and leave accumulate out
""",
        id="adding up what adds up itself",
    ),
    pytest.param(
        ["encoder.lora.ranc=4", "encoder.trainable=all"],
        """
error: command line: "lora" has no setting "ranc"
  did you mean "rank"?
  it accepts "rank", "alpha" and "targets"
""",
        id="misspelled setting of LoRA",
    ),
    pytest.param(
        ["encoder.lora={}", "encoder.trainable=all", "encoder.freeze_layers=2"],
        """
error: command line: "trainable: all" does not go with "lora", which keeps weights as they are
  leave it out; `norms` are trained beside lora
error: command line: "freeze_layers" and "lora" of the encoder do not go together
  leave one of them out
2 problems
""",
        id="what of the encoder trains, in two ways",
    ),
    pytest.param(
        ["encoder.trainable=none", "train.freeze_encoder_epochs=1", "train.layer_decay=0.5"],
        """
error: command line: "freeze_encoder_epochs" says nothing where encoder.trainable is none
  leave it out, or train something of the encoder
error: command line: "layer_decay" says nothing where encoder.trainable is none
  leave it out, or train something of the encoder
2 problems
""",
        id="rates of an encoder that does not train",
    ),
    pytest.param(
        ["train.compile=true", "train.checkpoint_activations=true"],
        """
error: command line: "compile: true" does not go with "checkpoint_activations"
  leave one of them out
""",
        id="compiling what is computed twice",
    ),
    pytest.param(
        ["optimizer.exclude_from_weight_decay=true"],
        """
error: command line: "exclude_from_weight_decay" of the optimizer "adam": it has no weight decay
  set weight_decay, or leave this out
""",
        id="what a weight decay of nothing excludes",
    ),
    pytest.param(
        ["train.epochs"],
        """
error: there is no recipe train.epochs
  `segreg recipes` lists the recipes that came with segreg
  an override is written key.path=value, such as train.epochs=3
""",
        id="no equals sign",
    ),
    pytest.param(
        ["train epochs=3"],
        """
error: there is no recipe train epochs=3
  `segreg recipes` lists the recipes that came with segreg
  an override is written key.path=value, such as train.epochs=3
""",
        id="blank in the path",
    ),
]


@pytest.mark.parametrize(("overrides", "says"), CASES)
def test_an_override_is_wrong(overrides, says, complaint):
    assert complaint("", "", *overrides) == says.lstrip("\n")
