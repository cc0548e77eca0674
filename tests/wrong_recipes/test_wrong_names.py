"""Names, keys and sections that don't exist, are missing, or name something else."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import pytest

CASES = [
    pytest.param(
        "encoder: tiny",
        "encoder: tinny",
        """
error: recipe.yaml:11:10: there is no encoder "tinny"
  did you mean "tiny"?
  `segreg list encoder` shows every encoder
""",
        id="encoder that nobody offers, with a near name",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: zzz",
        """
error: recipe.yaml:11:10: there is no encoder "zzz"
  it can be "resnet50", "tiny" or "timm/*"
  `segreg list encoder` shows every encoder
""",
        id="encoder that nobody offers, with no near name",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: ResNet50",
        """
error: recipe.yaml:11:10: there is no encoder "ResNet50"
  did you mean "resnet50"?
  `segreg list encoder` shows every encoder
""",
        id="encoder in other capitals",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder:\n  name: resnet5\n  weights: null",
        """
error: recipe.yaml:12:9: there is no encoder "resnet5"
  did you mean "resnet50"?
  `segreg list encoder` shows every encoder
""",
        id="encoder in a mapping misspelled",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: unet",
        """
error: recipe.yaml:11:10: there is no encoder "unet"
  "unet" is a decoder, not an encoder
  `segreg list encoder` shows every encoder
""",
        id="decoder as encoder",
    ),
    pytest.param(
        "metrics: [dice, iou]",
        "metrics: [dice, bce]",
        """
error: recipe.yaml:25:19: there is no metric "bce"
  "bce" is a loss, not a metric
  `segreg list metric` shows every metric
""",
        id="loss as metric",
    ),
    pytest.param(
        "name: adam",
        "name: iou",
        """
error: recipe.yaml:19:9: there is no optimizer "iou"
  "iou" is a metric, not an optimizer
  `segreg list optimizer` shows every optimizer
""",
        id="metric as optimizer",
    ),
    pytest.param(
        "name: folder",
        "name: foldr",
        """
error: recipe.yaml:3:9: there is no dataset "foldr"
  did you mean "folder"?
  `segreg list dataset` shows every dataset
""",
        id="dataset misspelled",
    ),
    pytest.param(
        "  - bce",
        "  - bcee",
        """
error: recipe.yaml:17:5: there is no loss "bcee"
  did you mean "bce"?
  `segreg list loss` shows every loss
""",
        id="loss misspelled in a list",
    ),
    pytest.param(
        "HorizontalFlip",
        "HorizontlFlip",
        """
error: recipe.yaml:10:12: there is no augmentation "HorizontlFlip"
  did you mean "HorizontalFlip"?
  `segreg list augmentation` shows every augmentation
""",
        id="augmentation misspelled",
    ),
    pytest.param(
        "schedule: cosine",
        "schedule: cosin",
        """
error: recipe.yaml:21:11: there is no schedule "cosin"
  did you mean "cosine"?
  `segreg list schedule` shows every schedule
""",
        id="schedule misspelled",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: timm/convnext_tinny",
        """
error: recipe.yaml:11:10: timm has no encoder "convnext_tinny"
  did you mean "timm/convnext_tiny" or "timm/convnext_small"?
""",
        id="member of a family misspelled",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: timm/qqqq",
        """
error: recipe.yaml:11:10: timm has no encoder "qqqq"
  `segreg list encoder 'timm/*'` lists them all
""",
        id="member of a family with no near name",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: convnext_tiny",
        """
error: recipe.yaml:11:10: there is no encoder "convnext_tiny"
  did you mean "timm/convnext_tiny"?
  `segreg list encoder` shows every encoder
""",
        id="member of a family without its prefix",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: tiny@segreg-foo",
        """
error: recipe.yaml:11:10: there is no encoder "tiny@segreg-foo"
  "tiny" is offered by "segreg-lab"
  `segreg list encoder` shows every encoder
""",
        id="part from a package that does not offer it",
    ),
    pytest.param(
        "encoder: tiny",
        "encodr: tiny",
        """
error: recipe.yaml:11:1: "encodr" is not a section of a recipe
  did you mean "encoder" or "decoder"?
error: recipe.yaml: the section "encoder" is missing: it names an encoder
  it can be "resnet50", "tiny" or "timm/*"
2 problems
""",
        id="section misspelled",
    ),
    pytest.param(
        "seed: 0",
        "seed: 0\nmodel: unet",
        """
error: recipe.yaml:2:1: "model" is not a section of a recipe
  the sections are "seed", "dataset", "split", "input", "crop", "augment", "batch_augment", "network", "encoder", "decoder", "auxiliary", "loss", "optimizer", "schedule", "train" and "evaluate"
""",
        id="section that does not exist",
    ),
    pytest.param(
        "optimizer:\n  name: adam\n  lr: 1e-3\n",
        "",
        """
error: recipe.yaml: the section "optimizer" is missing: it names an optimizer
  it can be "adam"
""",
        id="section missing",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder:",
        """
error: recipe.yaml:11:9: the section "encoder" is missing: it names an encoder
  it can be "resnet50", "tiny" or "timm/*"
""",
        id="section without a value",
    ),
    pytest.param(
        "train:\n  epochs: 3",
        "train: 3",
        """
error: recipe.yaml:22:8: the section "train" holds settings, not 3
""",
        id="number for a section of settings",
    ),
    pytest.param(
        "input:\n  size: [64, 64]",
        "input: [64, 64]",
        """
error: recipe.yaml:7:8: the section "input" holds settings, not [64, 64]
""",
        id="list for a section of settings",
    ),
    pytest.param(
        "evaluate:\n  metrics: [dice, iou]",
        "evaluate: dice",
        """
error: recipe.yaml:24:11: the section "evaluate" holds settings, not the string "dice"
""",
        id="text for the section with the metrics",
    ),
    pytest.param(
        "  metrics: [dice, iou]",
        "  threshold: 0.5",
        """
error: recipe.yaml:25:3: "evaluate.metrics" is missing: it names one metric or several
  it can be "dice" or "iou"
""",
        id="no metrics",
    ),
    pytest.param(
        "metrics: [dice, iou]",
        "metrics: []",
        """
error: recipe.yaml:25:12: "evaluate.metrics" is missing: it names one metric or several
  it can be "dice" or "iou"
""",
        id="empty list of metrics",
    ),
    pytest.param(
        "loss:\n  - {name: dice, weight: 2}\n  - bce",
        "loss: []",
        """
error: recipe.yaml:15:7: "loss" is missing: it names one loss or several
  it can be "bce", "dice" or "tversky"
""",
        id="empty list of losses",
    ),
    pytest.param(
        "  lr: 1e-3",
        "  lr: 1e-3\n  beta: [0.9, 0.99]",
        """
error: recipe.yaml:21:3: the optimizer "adam" has no setting "beta"
  did you mean "betas"?
  it accepts "lr", "betas", "amsgrad" and "exclude_from_weight_decay"
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="setting of a part misspelled",
    ),
    pytest.param(
        "epochs: 3",
        "epoch: 3",
        """
error: recipe.yaml:23:3: the section "train" has no setting "epoch"
  did you mean "epochs"?
  it accepts "epochs", "batch_size", "effective_batch_size", "accumulate", "precision", "device", "channels_last", "compile", "checkpoint_activations", "sync_batch_norm", "batch_norm_momentum", "workers", "clip_gradient_norm", "ema", "swa_start", "freeze_encoder_epochs", "layer_decay", "lr_factors", "validate_on", "monitor", "early_stopping", "time_budget_minutes", "start_from", "start_part" and "keep_state"
""",
        id="setting of a section misspelled",
    ),
    pytest.param(
        "name: deeplabv3plus",
        "name: unet",
        """
error: recipe.yaml:14:3: the decoder "unet" has no setting "rates"
  it accepts "channels"
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="setting of another part",
    ),
    pytest.param(
        "  - bce",
        "  - {name: bce, smooth: 1}",
        """
error: recipe.yaml:17:17: the loss "bce" has no setting "smooth"
  it has no settings
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="setting of a part that has none",
    ),
    pytest.param(
        "  rates: [6, 12, 18]",
        "  weight: 2",
        """
error: recipe.yaml:14:3: the decoder "deeplabv3plus" has no setting "weight"
  it accepts "output_stride", "rates", "dropout" and "separable"
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="weight of the main decoder",
    ),
    pytest.param(
        "  images: data/images\n",
        "",
        """
error: recipe.yaml:3:3: the dataset "folder" needs "images", a path
  images: folder of the images.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="setting missing",
    ),
    pytest.param(
        "  - bce",
        "  - tversky",
        """
error: recipe.yaml:17:5: the loss "tversky" needs "alpha", a number between 0 and 1
  alpha: weight of false positives.
  defined at stand_ins.py (segreg-lab 1.0)
""",
        id="setting missing where only a name is written",
    ),
    pytest.param(
        "  images: data/images\n  masks: data/masks\n",
        "",
        """
error: recipe.yaml:3:3: the dataset "folder" needs "images", a path
  images: folder of the images.
  defined at stand_ins.py (segreg-lab 1.0)
error: recipe.yaml:3:3: the dataset "folder" needs "masks", a path
  masks: folder of the masks.
  defined at stand_ins.py (segreg-lab 1.0)
2 problems
""",
        id="two settings missing",
    ),
    pytest.param(
        "  name: deeplabv3plus\n",
        "",
        """
error: recipe.yaml:13:3: a decoder needs a name
  it can be "deeplabv3plus" or "unet"
""",
        id="part without a name",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder:\n  resnet50: {weights: null}",
        """
error: recipe.yaml:12:3: an encoder needs a name
  write `name: resnet50`, and its settings beside it
""",
        id="name as key",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: {name: 50}",
        """
error: recipe.yaml:11:17: the name of an encoder must be a string, not 50
""",
        id="name that is a number",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder:\n  name:\n  width: 4",
        """
error: recipe.yaml:12:8: the name of an encoder must be a string, not null
""",
        id="name that is empty",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: 50",
        """
error: recipe.yaml:11:10: an encoder is a name or a mapping with a name, not 50
  for example {name: resnet50}
""",
        id="number for a part",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: [tiny]",
        """
error: recipe.yaml:11:10: an encoder is a name or a mapping with a name, not ["tiny"]
  for example {name: resnet50}
""",
        id="list for a part",
    ),
    pytest.param(
        "encoder: tiny",
        "encoder: true",
        """
error: recipe.yaml:11:10: an encoder is a name or a mapping with a name, not the boolean true
  for example {name: resnet50}
""",
        id="boolean for a part",
    ),
]


@pytest.mark.parametrize(("old", "new", "says"), CASES)
def test_one_thing_is_wrong(old, new, says, complaint):
    assert complaint(old, new) == says.lstrip("\n")
