"""The recipes that follow a paper: they resolve to what it states, and train and score a made-up set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tiny_runs
from quick_init import quick_init
from segreg.config.recipe import read_recipe, shipped_recipe
from segreg.config.resolve import resolve
from segreg.models.build import build_model, without_pretrained
from segreg.registry.registry import load_registry
from segreg.task import Task
from segreg_plugins.datasets.camvid import COLOURS
from segreg_plugins.datasets.cityscapes import LABELS

SIZES = ((40, 56), (56, 40), (40, 56), (40, 56))
TINY = [
    "encoder={name: timm/test_resnet}", "decoder.channels=8", "input.size=[33,33]", "train.epochs=1",
    "train.batch_size=2", "train.workers=0", "train.device=cpu", "evaluate.overlays=0",
]  # fmt: skip


def save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(file)


def pascal(root: Path, rng: np.random.Generator) -> None:
    for number, size in enumerate(SIZES * 2):
        save(root / f"JPEGImages/{number}.jpg", rng.integers(0, 256, (*size, 3)))
        save(root / f"SegmentationClassAug/{number}.png", rng.choice([0, 3, 20, 255], size))
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/trainaug.txt").write_text("0\n1\n2\n3\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("4\n5\n6\n7\n")


def cities(root: Path, rng: np.random.Generator) -> None:
    for split, city in (("train", "ulm"), ("val", "lindau")):
        for number in range(4):
            stem = f"{city}/{city}_{number:06d}_000019"
            save(root / f"leftImg8bit/{split}/{stem}_leftImg8bit.png", rng.integers(0, 256, (40, 80, 3)))
            save(root / f"gtFine/{split}/{stem}_gtFine_labelIds.png", rng.choice([0, *LABELS], (40, 80)))


def full_size(root: Path, rng: np.random.Generator) -> None:
    colours = np.array([colour for group in COLOURS.values() for colour in group])
    for split in ("train", "val"):
        for number in range(4):
            save(root / f"{split}/{split}{number}.png", rng.integers(0, 256, (45, 60, 3)))
            save(root / f"{split}_labels/{split}{number}_L.png", rng.choice(colours, (45, 60)))


@pytest.mark.parametrize(
    ("name", "make", "classes"),
    [("voc_v3plus", pascal, 21), ("cityscapes_v3plus", cities, 19), ("camvid_960_v3plus", full_size, 11)],
)
def test_a_small_one_trains_and_is_scored(name, make, classes, tmp_path):
    make(tmp_path / "data", np.random.default_rng(0))
    more = ["schedule.warmup_epochs=0"] if name == "camvid_960_v3plus" else []
    text = shipped_recipe(name).read_text(encoding="utf-8")
    run = tiny_runs.run(tmp_path, *TINY, *more, f"dataset.root={tmp_path}/data", text=text)
    assert len(run.task.classes) == classes
    assert run.results["epochs"] == 1
    assert 0 <= run.results["metrics"]["val"]["iou.pooled"] <= 1
    split = json.loads((run.directory.path / "split.json").read_text())
    assert [len(split[name]) for name in ("train", "val", "test")] == [4, 4, 0]


def network(name: str, *overrides: str) -> nn.Module:
    recipe = resolve(read_recipe(shipped_recipe(name), overrides), load_registry())
    with torch.device("meta"), quick_init():  # its layers alone are of interest
        return build_model(without_pretrained(recipe), Task(("a", "b", "c"), "multiclass"))


def atrous(network: nn.Module) -> dict[str, list[int]]:
    """Return the rates above 1 of each part's 3x3 convolutions, those of the encoder by block."""
    found: dict[str, list[int]] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.dilation[0] > 1:
            assert module.padding == module.dilation
            found.setdefault(".".join(name.split(".")[:3]), []).append(module.dilation[0])
    return found


def test_the_network_for_voc_is_the_papers():
    built = network("voc_v3plus")
    # The authors' rates layer by layer: of 21 blocks the last has 2. At output stride 8 it has 4, and those from
    # stride 8 on have 2.
    assert atrous(built) == {"encoder.network.blocks_20": [2, 2, 2], "decoder.aspp.atrous": [6, 12, 18]}
    assert built.encoder.strides == [2, 4, 8, 16, 16]
    # Low-level features of stride 4 by a 1x1 to 48 channels, and 256 everywhere else.
    assert (built.decoder.reduce[0].in_channels, built.decoder.reduce[0].out_channels) == (256, 48)
    assert built.decoder.stride == 4
    assert built.decoder.aspp.project[0].in_channels == 5 * 256
    depthwise = [m for m in built.decoder.modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels]
    assert len(depthwise) == 3 + 2
    assert built.encoder.dilate(8)
    finer = atrous(built.encoder)
    assert finer.pop("network.blocks_20.stack") == [4, 4, 4]
    assert finer == {f"network.blocks_{block}.stack": [2, 2, 2] for block in range(3, 20)}


def test_cityscapes_has_no_features_of_the_whole_image():
    assert network("cityscapes_v3plus", "encoder=timm/test_resnet").decoder.aspp.project[0].in_channels == 4 * 256


def test_the_variant_with_resnet_has_its_multi_grid():
    encoder = "{name: torchvision.resnet50, output_stride: 16, multi_grid: [1, 2, 4]}"
    built = network("voc_v3plus", f"encoder={encoder}", "decoder.convolution=plain")
    assert atrous(built.encoder) == {"layer4.0.conv2": [2], "layer4.1.conv2": [4], "layer4.2.conv2": [8]}


@pytest.mark.parametrize(
    ("name", "images", "steps"), [("voc_v3plus", 10_582, 30_000), ("cityscapes_v3plus", 2_975, 90_000)]
)
def test_the_epochs_are_the_papers_steps(name, images, steps):
    train = resolve(read_recipe(shipped_recipe(name)), load_registry()).train
    batches = -(-images // train.batch_size)
    assert abs(train.epochs * batches - steps) <= batches / 2
