"""Every path that a model can take through segreg trains: encoders of every kind, decoders, losses, ways to train."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import segreg
import small_runs
import tiny_runs
from segreg.runs import assembly

SET = "{name: synthetic_lesions, root: images, samples: 24, size: 48}"
BINARY = tiny_runs.RECIPE.replace("samples: 24, size: 48", "samples: 14, size: 32").replace("epochs: 6", "epochs: 1")
SMALL = small_runs.RECIPE.replace("samples: 24, size: 48", "samples: 14, size: 32").replace("epochs: 6", "epochs: 1")
BRIEF = ("evaluate.overlays=0", "evaluate.metrics=[dice]")
LIGHT = ("optimizer={name: sgd, lr: 0.01}", "dataset.samples=8")
"""For large networks: without moments that are saved with every epoch, and two steps long."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


pytestmark = pytest.mark.usefixtures("three_convolutions", "quick_networks")


@pytest.fixture(autouse=True)
def begun(monkeypatch):
    """Return the weights that the runs of a test begin with."""
    begun = []

    def network(*given, real=assembly.seeded_network, **more):
        built = real(*given, **more)
        begun.append({name: tensor.clone() for name, tensor in built[0].state_dict().items()})
        return built

    monkeypatch.setattr(assembly, "seeded_network", network)
    return begun


@pytest.fixture
def multiclass(tmp_path):
    """The recipe of three classes, with ignored pixels."""
    images, masks = tiny_runs.folder_dataset(tmp_path / "set", count=14, classes=3)
    dataset = f"{{name: folder, images: {images}, masks: {masks}, classes: [ground, red, green]}}"
    return tiny_runs.RECIPE.replace(SET, dataset).replace("epochs: 6", "epochs: 1").replace("dice_bce", "cross_entropy")


def assert_trained(run, begun, *, epochs=1):
    """The losses are finite, the weights have moved, and there are scores and predictions."""
    assert [row["epoch"] for row in run.history] == list(range(1, epochs + 1))
    for row in run.history:
        for name, value in row.items():
            assert math.isfinite(value) or "loss" not in name, (name, value)
    weights = load_file(run.directory.last)
    assert all(tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point())
    assert 0 <= run.results["metrics"][run.results["scored_on"]]["dice.pooled"] <= 1
    (fresh,) = begun
    moved = [name for name in fresh if fresh[name].is_floating_point() and not torch.equal(fresh[name], weights[name])]
    parts = {name.split(".")[0] for name in moved}
    assert {"encoder", "head"} <= parts or {"encoder", "decoder"} <= parts, parts


def run_start(run):
    """Return the weights that the run began with: drawn from its seed."""
    from segreg.models.build import build_model
    from segreg.runtime.device import seed_everything

    seed_everything(run.recipe.seed)
    return build_model(run.recipe, run.task).state_dict()


PATHS = {
    "plain convolutions": ["decoder={name: deeplabv3plus, channels: 16, convolution: plain}"],
    "SMP's DeepLabV3+": ["encoder=mobilenet_v2", "decoder={name: smp.deeplabv3plus, channels: 16}"],
    "SMP's U-Net on timm": [
        "encoder=timm/test_efficientnet",
        "decoder={name: smp.unet, channels: [64, 32, 16, 16, 8]}",
    ],
    "a timm ViT of a size of its own": ["encoder={name: timm/test_vit, img_size: [32, 32]}"],
    "a timm hybrid": ["encoder={name: timm/test_maxvit, img_size: [32, 32]}"],
}


@pytest.mark.parametrize(("path", "loss"), list(zip(PATHS, itertools.cycle(["dice_bce", "focal"]), strict=False)))
def test_every_path_trains(path, loss, begun, tmp_path):
    assert_trained(tiny_runs.run(tmp_path, *PATHS[path], f"loss={loss}", *LIGHT, *BRIEF, text=BINARY), begun)


def test_torchvisions_deeplabv3_with_its_auxiliary_head_trains(begun, tmp_path):
    heads = ("decoder=torchvision.deeplabv3", "auxiliary={name: torchvision.fcn, weight: 0.4}", "loss=lovasz")
    run = tiny_runs.run(tmp_path, *heads, *LIGHT, *BRIEF, text=BINARY)
    assert_trained(run, begun)
    environment = json.loads(run.directory.environment.read_text())
    assert environment["model"]["parameters"]["auxiliary"] > 0
    assert "train.loss.auxiliary.lovasz" in run.history[0]
    assert not any(name.startswith("val.loss.auxiliary") for name in run.history[0])


@pytest.mark.parametrize(
    ("encoder", "loss"),
    [
        ("timm/test_convnext", "[{name: cross_entropy, weight: 0.5}, lovasz, focal]"),
        ("timm/test_vit", "dice"),
    ],
)
def test_several_classes_with_ignored_pixels_train(encoder, loss, multiclass, begun, tmp_path):
    run = tiny_runs.run(tmp_path, f"encoder={encoder}", f"loss={loss}", *BRIEF, text=multiclass)
    assert_trained(run, begun)
    assert {"dice.class.ground", "dice.class.red", "dice.class.green"} <= run.results["metrics"]["test"].keys()


WAYS = {
    "an odd size and a batch of one left over": ["input.size=[37, 45]", "train.batch_size=7"],
    "one channel, batches of one, memory in the other order": [
        "input.channels=1",
        "input.normalize=none",
        "train.batch_size=1",
        "train.channels_last=false",
    ],
    "all at once": [  # its last step of an epoch has one batch, not three
        "train.epochs=2",
        "train.ema=0.9",
        "train.accumulate=3",
        "train.batch_size=2",
        "train.freeze_encoder_epochs=1",
        "train.lr_factors={encoder: 0.1, head: 2}",
        "train.clip_gradient_norm=0.1",
        "loss=[dice, bce]",
        "schedule={name: poly, warmup_epochs: 1}",
        "auxiliary={name: smp.linknet, weight: 0.2}",
    ],
}
"""Ways that depend on the network: on its normalisation, its first layer, its strides, its number of levels."""
ANY_NETWORK = {
    "bf16 and a worker": ["train.precision=bf16", "train.workers=1", "dataset.samples=8"],
    "timm's optimizer and weights' decay": ["optimizer={name: timm/lamb, lr: 0.01, weight_decay: 0.1}"],
}  # fmt: skip


@pytest.mark.parametrize("way", [*WAYS, *ANY_NETWORK])
def test_every_way_of_training_works(way, begun, tmp_path):
    text = BINARY if way in WAYS else SMALL
    if way.startswith("one channel"):  # drawn images have colours, so grey ones are made
        from PIL import Image

        images, masks = tiny_runs.folder_dataset(tmp_path / "set", count=8)
        for file in images.iterdir():
            with Image.open(file) as image:
                grey = image.convert("L")
            grey.save(file)
        text = text.replace(SET.replace("samples: 24, size: 48", "samples: 14, size: 32"),
                            f"{{name: folder, images: {images}, masks: {masks}}}")  # fmt: skip
    run = tiny_runs.run(tmp_path, *BRIEF, *(WAYS | ANY_NETWORK)[way], text=text)
    assert_trained(run, begun, epochs=run.recipe.train.epochs)
    if way == "all at once":
        rates = [[row[f"lr.{part}"] for part in ("encoder", "decoder", "head")] for row in run.history]
        assert all(row == pytest.approx([row[1] / 10, row[1], row[1] * 2]) for row in rates)


def test_a_frozen_encoder_stays_as_it_was(tmp_path):
    run = tiny_runs.run(tmp_path, "train.freeze_encoder_epochs=1", *BRIEF, text=BINARY)
    start, end = run_start(run), load_file(run.directory.last)
    frozen = [name for name in start if name.startswith("encoder.")]
    assert len(frozen) > 10
    assert all(torch.equal(start[name], end[name]) for name in frozen)  # its BatchNorm's statistics as well
    assert any(not torch.equal(start[name], end[name]) for name in start if name.startswith("decoder."))


def test_training_begins_from_another_runs_weights_named_by_a_relative_path(tmp_path, monkeypatch):
    first = tiny_runs.run(tmp_path, *BRIEF, text=SMALL)
    monkeypatch.chdir(first.directory.path.parent)
    override = f"train.start_from={first.directory.path.name}"
    second = tiny_runs.run(tmp_path, override, "optimizer.lr=1e-12", *BRIEF, text=SMALL)
    weights, begun = load_file(second.directory.last), load_file(first.directory.best)
    assert all(torch.allclose(weights[n], begun[n], atol=1e-6) for n in weights if n.endswith("weight"))
    assert second.recipe.train.start_from == str(first.directory.path)
    reported = json.loads(second.directory.environment.read_text())["initial_weights"]
    assert str(first.directory.path) in reported
    assert re.search(r"\d+ tensors loaded", reported)


# Real images: enough of them to see that nothing about them is special to drawn ones.

REAL = Path(os.environ.get("SEGREG_REAL_DATA", "/nowhere"))
real = pytest.mark.skipif(not REAL.is_dir(), reason="needs the images under SEGREG_REAL_DATA")


def first_lines(file, count, target):
    target.write_text("\n".join(file.read_text().split()[:count]), encoding="utf-8")
    return target


@pytest.mark.real
@real
def test_nuclei_in_a_folder(begun, tmp_path):
    ids = (REAL / "dsb2018" / "lists" / "mini.txt").read_text().split()[:16]
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for name in ids:
            (tmp_path / kind / f"{name}.png").symlink_to(REAL / "dsb2018" / kind / f"{name}.png")
    text = small_runs.RECIPE.replace(SET, f"{{name: folder, images: {tmp_path}/images, masks: {tmp_path}/masks}}")
    run = tiny_runs.run(tmp_path, "input.size=[64, 64]", "evaluate.resolution=original", "train.epochs=1", text=text)
    assert_trained(run, begun)
    assert run.results["notice"] == ""
    assert sum(run.results["images"].values()) == 16
    assert len(list(run.directory.overlays.iterdir())) == 2


@pytest.mark.real
@real
def test_lesions_by_their_lists(begun, tmp_path):
    lists = {
        split: first_lines(REAL / "isic" / "lists" / f"{source}.txt", count, tmp_path / f"{split}.txt")
        for split, source, count in (("train", "train", 8), ("val", "val", 4))
    }
    text = small_runs.RECIPE.replace(SET, f"{{name: isic2018, root: {REAL}/isic}}").replace(
        "{method: random, val: 0.2, test: 0.2}",
        f"{{method: lists, lists: {{train: {lists['train']}, val: {lists['val']}}}}}",
    )
    run = tiny_runs.run(tmp_path, "train.epochs=1", "input.size=[64, 64]", text=text)
    assert_trained(run, begun)
    assert run.results["scored_on"] == "val"
    assert run.results["images"] == {"train": 8, "val": 4, "test": 0}
    assert json.loads(run.directory.split.read_text())["train"] == sorted(lists["train"].read_text().split())
    assert run.results["notice"] == ""
    image = next((REAL / "isic" / "ISIC2018_Task1-2_Training_Input").glob("*.jpg"))
    assert segreg.load_run(run.directory.path).predict(image).shape == (512, 512)
