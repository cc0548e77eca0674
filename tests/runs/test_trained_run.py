"""A run that exists: its results, its network as a plain module, its preprocessing, its predictions."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import plugged
import segreg
import small_runs
import tiny_runs
from segreg.errors import SegregError, plural
from segreg.models.build import build_model
from segreg.runs.sidecar import describe_run
from segreg.training.checkpoint import read_notes, save_weights

pytestmark = pytest.mark.usefixtures("three_convolutions")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_runs.finished(tmp_path_factory)


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def changed(run, folder, **replaced):
    """Return a copy of a run that has these settings, `name=(value, other)`, and does not know where its data lie."""
    copy = folder / "changed"
    shutil.copytree(run.directory.path, copy)
    resolved = copy / "resolved.yaml"
    text = resolved.read_text().replace(str(run.recipe.dataset.settings["root"]), str(folder / "gone"))
    for name, (value, other) in replaced.items():
        assert text.count(f" {name}: {value}\n") == 1
        text = text.replace(f" {name}: {value}\n", f" {name}: {other}\n")
    resolved.write_text(text)
    return segreg.load_run(copy)


def test_a_run_is_loaded_from_its_directory_alone(finished, tmp_path, monkeypatch):
    directory = changed(finished, tmp_path).directory
    monkeypatch.chdir(tmp_path)
    run = segreg.load_run(directory.path.name)
    assert run.results == finished.results
    assert run.history == finished.history
    assert run.recipe.train == finished.recipe.train
    assert run.task == segreg.Task(("lesion",), "binary")
    image = noise(40, 50, 3)
    assert np.array_equal(run.predict(image), finished.predict(image))


def test_the_network_is_a_plain_module_whose_logits_are_those_of_the_weights(finished):
    network = finished.model()
    assert isinstance(network, nn.Module)
    assert not network.training
    assert not any(parameter.is_cuda for parameter in network.parameters())
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        logits = network(images)
    assert logits.shape == (2, 1, 32, 32)

    # The same network, built by hand from the parts that the recipe names.
    from segreg.models.segmenter import Segmenter

    encoder = segreg.build_part("encoder", "timm/test_resnet", 3)
    own = Segmenter(encoder, segreg.build_part("decoder", "deeplabv3plus", encoder, channels=16), 1)
    own.load_state_dict(load_file(finished.directory.best))
    with torch.inference_mode():
        assert torch.equal(own.eval()(images), logits)


def test_the_best_weights_and_the_last_are_reported_apart(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.directory.path, copy)
    tensors = load_file(copy / "last.safetensors")
    save_weights({name: tensor * 0 for name, tensor in tensors.items()}, copy / "last.safetensors",
                 notes=read_notes(copy / "last.safetensors"))  # fmt: skip
    run, image = segreg.load_run(copy), noise(32, 32, 3)
    assert not any(parameter.any() for parameter in run.model("last").parameters())
    assert np.array_equal(run.probabilities(image), finished.probabilities(image))
    assert (run.probabilities(image, weights="last") == 0.5).all()
    assert run.predict(image, weights="last").all()


@pytest.mark.parametrize("left", [("results.json",), ("history.jsonl",), ()])
def test_missing_best_weights_are_not_replaced_by_the_last_ones(left, finished, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("resolved.yaml", "last.safetensors", *left):
        shutil.copy(finished.directory.path / name, copy)
    run, image = segreg.load_run(copy), noise(32, 32, 3)
    for use in (run.model, run.predictor, lambda: run.predict(image), lambda: run.probabilities(image)):
        with pytest.raises(SegregError, match=r"best\.safetensors: is missing") as raised:
            use()
        assert "--weights last" in str(raised.value)
    if left == ("results.json",):
        assert f"epoch {finished.results['best_epoch']} was the best" in str(raised.value)
    assert np.array_equal(run.predict(image, weights="last"), finished.predict(image, weights="last"))
    assert run.preprocess(image).shape == (1, 3, 32, 32)
    shutil.copy(finished.directory.best, copy)
    (copy / "last.safetensors").unlink()
    with pytest.raises(SegregError, match=r"last\.safetensors: is missing") as raised:
        run.model("last")
    assert "--weights best" in str(raised.value)


@pytest.mark.parametrize("left", ["results.json", "history.jsonl"])
def test_where_no_epoch_was_the_best_the_last_weights_are_taken_and_named(left, finished, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("resolved.yaml", "last.safetensors", left):
        shutil.copy(finished.directory.path / name, copy)
    if left == "results.json":
        (copy / left).write_text(json.dumps({**finished.results, "best_epoch": 0, "best_value": None}))
    else:
        rows = [json.loads(line) for line in (copy / left).read_text().splitlines()]
        (copy / left).write_text("".join(json.dumps({**row, "val.dice.pooled": None}) + "\n" for row in rows))
    run, image = segreg.load_run(copy), noise(32, 32, 3)
    assert np.array_equal(run.predict(image), finished.predict(image, weights="last"))
    assert run.predictor().name == f"{copy} (last weights: no epoch was the best)"


PARTS = """
import albumentations, torch, torchmetrics
from segreg import Entry, hookimpl
from segreg_plugins.datasets.synthetic_lesions import synthetic_lesions

def loss(task):
    \"\"\"A loss.\"\"\"
    return lambda logits, target: logits.sigmoid().mean()

def metric(task, threshold):
    \"\"\"A metric.\"\"\"
    return torchmetrics.MeanMetric()

def schedule(optimizer, steps_per_epoch, epochs):
    \"\"\"A schedule.\"\"\"
    return torch.optim.lr_scheduler.ConstantLR(optimizer)

def optimizer(parameters):
    \"\"\"An optimizer.\"\"\"
    return torch.optim.SGD(parameters, lr=0.01)

def augmentation():
    \"\"\"An augmentation.\"\"\"
    return albumentations.HorizontalFlip()

@hookimpl
def segreg_entries():
    parts = {"loss": loss, "schedule": schedule, "optimizer": optimizer, "augmentation": augmentation}
    return [Entry("dataset", "gone.dataset", synthetic_lesions),
            *(Entry(kind, f"gone.{kind}", part) for kind, part in parts.items())]
"""


def test_predicting_needs_the_plugins_of_the_network_alone(tmp_path, plugin, installed):
    installed(*plugged.builtin(), plugin(PARTS))
    text = small_runs.RECIPE.replace("synthetic_lesions", "gone.dataset").replace("loss: dice_bce", "loss: gone.loss")
    text = text.replace("{name: adam, lr: 0.01}", "gone.optimizer")
    text = text.replace("name: HorizontalFlip, p: 0.5", "name: gone.augmentation")
    made = small_runs.run(tmp_path, "train.epochs=1", "evaluate.overlays=0", "schedule=gone.schedule", text=text)
    image = noise(40, 30, 3)
    expected = made.probabilities(image)
    installed(*plugged.builtin())
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("resolved.yaml", "best.safetensors"):
        shutil.copy(made.directory.path / name, alone)
    run = segreg.load_run(alone)
    with pytest.raises(SegregError, match=r"gone\.loss"):
        _ = run.recipe
    assert np.array_equal(run.probabilities(image), expected)
    assert run.task.classes == ("lesion",)
    assert run.preprocess(image).shape == (1, 3, 32, 32)


def test_settings_that_training_alone_has_are_not_looked_at(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.directory.path, copy)
    resolved = (copy / "resolved.yaml").read_text()
    changed = resolved.replace("epochs: 6", "cycles: 6").replace("name: adam", "name: adam\n  of_another_time: 3")
    assert changed.count("cycles") == changed.count("of_another_time") == 1
    (copy / "resolved.yaml").write_text(changed + "a_new_section: {}\n")
    image = noise(40, 30, 3)
    assert np.array_equal(segreg.load_run(copy).predict(image), finished.predict(image))
    (copy / "resolved.yaml").write_text(resolved.replace("channels_last: true", "channels_last: perhaps"))
    with pytest.raises(SegregError, match='"channels_last" of the section "train"'):
        segreg.load_run(copy).predict(image)


def test_an_auxiliary_decoder_is_not_needed_and_its_padding_is_kept(tmp_path, plugin, installed):
    decoder = """
from segreg import Entry, hookimpl
from torch import nn

class Wide(nn.Module):
    size_divisor = 48
    def __init__(self, encoder):
        super().__init__()
        self.channels, self.stride = encoder.channels[-1], encoder.strides[-1]
    def forward(self, levels):
        return levels[-1]

def wide(encoder):
    \"\"\"A decoder that wants images of multiples of 48.\"\"\"
    return Wide(encoder)

@hookimpl
def segreg_entries():
    return [Entry("decoder", "gone.wide", wide)]
"""
    installed(*plugged.builtin(), plugin(decoder))
    made = small_runs.run(tmp_path, "train.epochs=1", "evaluate.overlays=0", "auxiliary={name: gone.wide, weight: 0.1}")
    whole = build_model(made.recipe, made.task).eval()
    whole.load_state_dict(load_file(made.directory.best))
    assert whole.auxiliary is not None
    image = noise(32, 32, 3)
    with torch.inference_mode():
        expected = whole(made.preprocess(image))
    installed(*plugged.builtin())
    run = segreg.load_run(made.directory.path)
    with torch.inference_mode():
        assert torch.equal(run.model()(run.preprocess(image)), expected)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": "\\', b"\xff\xfe{}"])
def test_damaged_results_are_named(content, finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.directory.path, copy)
    (copy / "results.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SegregError, match=r"results\.json: damaged") as raised:
        _ = segreg.load_run(copy).results
    assert "the results of a run" in str(raised.value)


def test_weights_without_the_notes_of_a_run_are_named(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.directory.path, copy)
    save_weights(load_file(copy / "best.safetensors"), copy / "best.safetensors", notes={"task": "lesions"})
    run, image = segreg.load_run(copy), noise(32, 32, 3)
    with pytest.raises(SegregError, match=r"best\.safetensors: damaged"):
        run.predict(image)
    assert run.task == finished.task  # of the last weights
    assert np.array_equal(run.predict(image, weights="last"), finished.predict(image, weights="last"))


def test_preprocessing_is_resizing_and_the_encoders_statistics(finished):
    image = noise(32, 32, 3)
    ready = finished.preprocess(image)
    assert ready.shape == (1, 3, 32, 32)
    assert ready.dtype == torch.float32
    expected = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    assert torch.allclose(ready, expected, atol=1e-6)
    larger = noise(77, 51, 3)
    pixels = torch.from_numpy(larger).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, size=(32, 32), mode="bilinear", antialias=True).round()
    assert (finished.preprocess(larger) - (resized / 255 - 0.5) / 0.5).abs().max() < 1.5 / 127.5  # rounding


@pytest.mark.parametrize("size", [(37, 53), (1, 1), (32, 32), (200, 9)])
def test_predictions_have_the_images_own_size(size, finished):
    image = noise(*size, 3)
    labels = finished.predict(image)
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, 1}
    probabilities = finished.probabilities(image)
    assert probabilities.shape == (1, *size)
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert np.array_equal(labels, probabilities[0] >= 0.5)


def test_at_the_networks_size_a_prediction_is_the_sigmoid_of_its_logits(finished):
    image = noise(32, 32, 3)
    with torch.inference_mode():
        logits = finished.model()(finished.preprocess(image))
    assert np.allclose(finished.probabilities(image), logits.sigmoid()[0].numpy(), atol=1e-6)


def test_a_file_and_its_pixels_are_the_same(finished, tmp_path):
    image = noise(45, 33, 3)
    file = tmp_path / "ein bild.png"
    Image.fromarray(image).save(file)
    assert np.array_equal(finished.probabilities(file), finished.probabilities(image))
    assert np.array_equal(finished.predict(str(file)), finished.predict(image))


def test_grey_full_alpha_and_strange_memory_are_taken(finished):
    grey = noise(40, 44)
    three = np.repeat(grey[..., None], 3, axis=2)
    expected = finished.probabilities(three)
    assert np.array_equal(finished.probabilities(grey), expected)
    assert np.array_equal(finished.probabilities(grey[..., None]), expected)
    alpha = np.full((*grey.shape, 1), 255, np.uint8)
    assert np.array_equal(finished.probabilities(np.concatenate([three, alpha], axis=2)), expected)
    with pytest.raises(SegregError, match=r"has 16 bits a channel(.|\n)*give 8 bits"):
        finished.probabilities(three.astype(np.uint16) * 257)
    for size in ((40, 44), (32, 32)):  # resized, and as it is
        image = noise(*size, 3)
        turned = image[::-1, ::-1]
        assert np.array_equal(finished.probabilities(turned), finished.probabilities(turned.copy()))
        image.flags.writeable = False
        assert np.array_equal(finished.probabilities(image), finished.probabilities(image.copy()))
        assert np.array_equal(finished.probabilities(Image.fromarray(image)), finished.probabilities(image))


def test_pil_images_of_palettes_and_tensors_are_the_images_that_they_show(finished, tmp_path):
    shown = Image.fromarray(noise(40, 44, 3)).quantize(16)
    shown.save(tmp_path / "palette.png")
    expected = finished.probabilities(tmp_path / "palette.png")
    assert np.array_equal(finished.probabilities(shown), expected)
    values = torch.from_numpy(np.array(shown.convert("RGB"))).permute(2, 0, 1)
    assert np.array_equal(finished.probabilities(values), expected)
    assert len(segreg.predict(finished, (each for each in (shown, values)))) == 2
    with pytest.raises(SegregError, match=r'is a PIL image of mode HSV\n  use image.convert\("RGB"\)'):
        finished.predict(shown.convert("RGB").convert("HSV"))


def test_a_network_that_was_prepared_for_no_data_takes_8_bits_wherever_it_takes_images(finished, tmp_path):
    run = changed(finished, tmp_path, dtype=("uint8", "auto"))
    for take in (run.preprocess, run.predict):
        with pytest.raises(SegregError, match="has 16 bits a channel, and the network gets 8"):
            take(noise(9, 9, 3, dtype=np.uint16))


def test_16_bits_with_alpha_are_stretched_by_their_colours_alone(finished, tmp_path):
    run = changed(finished, tmp_path, sixteen_bit=("keep", "min_max"))
    image = 1000 + noise(32, 32, 3).astype(np.uint16)
    alpha = np.full((32, 32, 1), 65535, np.uint16)
    stretched = np.round((image - image.min()) * 255.0 / np.ptp(image)).astype(np.uint8)
    expected = run.preprocess(stretched)
    for given in (image, np.concatenate([image, alpha], axis=2)):
        assert (run.preprocess(given) - expected).abs().max() < 1.1 / 127.5  # rounding


def test_what_can_not_be_predicted_is_reported(finished, tmp_path):
    with pytest.raises(SegregError, match="the image: holds values of type float32, and the network gets uint8"):
        finished.predict(np.zeros((40, 40, 3)))
    with pytest.raises(SegregError, match=r"shape \[40, 40, 3\] and type complex128"):
        finished.predict(np.zeros((40, 40, 3), complex))
    with pytest.raises(SegregError, match=r"shape \[5\]"):
        finished.predict(np.zeros(5, np.uint8))
    with pytest.raises(SegregError, match=r"shape \[0, 4, 3\]"):
        finished.predict(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(SegregError, match="has 5 channels, and the network takes 3"):
        finished.predict(noise(8, 8, 5))
    with pytest.raises(SegregError, match=str(tmp_path / "none.png")):
        finished.predict(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(SegregError, match=r"text\.png"):
        finished.predict(str(tmp_path / "text.png"))


def test_the_recipes_threshold_decides(finished, tmp_path):
    image = noise(32, 32, 3)
    middle = round(float(np.median(finished.probabilities(image))), 4)  # which another CPU's rounding moves
    run = changed(finished, tmp_path, threshold=(0.5, middle))
    assert not np.array_equal(run.predict(image), finished.predict(image))
    assert np.array_equal(run.predict(image), (run.probabilities(image)[0] >= middle))


def test_a_letterbox_is_put_on_and_taken_off(finished, tmp_path):
    """In the middle band of a tall image's letterbox lies the image; the network gives its logits there."""
    run = changed(finished, tmp_path, resize=("stretch", "letterbox"))
    image = noise(64, 32, 3)
    ready = run.preprocess(image)
    border = (torch.zeros(3) - 0.5) / 0.5
    assert torch.equal(ready[0, :, :, 0], border[:, None].expand(3, 32))
    assert torch.equal(ready[0, :, :, 31], border[:, None].expand(3, 32))
    with torch.inference_mode():
        logits = run.model()(ready)[:, :, :, 8:24]
        own = F.interpolate(logits, size=(64, 32), mode="bilinear", antialias=True, align_corners=False)
    assert np.allclose(run.probabilities(image), own.sigmoid()[0].numpy(), atol=1e-6)


def test_a_run_without_results_says_how_to_go_on(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.directory.path, copy)
    for name in ("results.json", "best.safetensors", "last.safetensors"):
        (copy / name).unlink()
    run = segreg.load_run(copy)
    with pytest.raises(SegregError, match=f"segreg run --resume {copy} continues with it"):
        _ = run.results
    with pytest.raises(SegregError, match="weights yet"):
        run.model()


def test_scores_of_fewer_epochs_are_not_those_of_the_weights(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.directory.path, copy)
    assert describe_run(segreg.load_run(copy))["scores"]["metrics"]
    rows = (copy / "history.jsonl").read_text().splitlines()
    row = {**json.loads(rows[-1]), "epoch": len(rows) + 1}
    (copy / "history.jsonl").write_text("\n".join([*rows, json.dumps(row), ""]))
    run = segreg.load_run(copy)
    with pytest.raises(SegregError) as refused:
        _ = run.results
    assert str(refused.value) == (
        f"{copy} has no results of its {len(rows) + 1} epochs: those that are there are of "
        f"{plural(len(rows), 'epoch')}\n"
        f"  segreg run --resume {copy} continues with it"
    )
    assert describe_run(run)["scores"] == {}
    assert "no results yet" in repr(run)


def test_weights_of_another_network_are_reported(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.directory.path, copy)
    resolved = copy / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("channels: 16", "channels: 24"))
    with pytest.raises(SegregError, match="the weights do not fit the network"):
        segreg.load_run(copy).model()


def test_multilabel_predicts_a_layer_for_each_class(tmp_path, plugin, installed):
    """From a data set that is not a files and comes from another package."""
    installed(*plugged.builtin(), plugin(tiny_runs.LAYERS, distribution="segreg-layers"))
    text = small_runs.RECIPE.replace("{name: synthetic_lesions, root: images, samples: 24, size: 48}", "layers")
    run = small_runs.run(
        tmp_path, "loss=bce", "train.epochs=1", "augment=[]", "evaluate.resolution=original", text=text
    )
    assert run.task.mode == "multilabel"
    image = np.zeros((36, 36, 3), np.uint8)
    image[5:15, :, 0] = 200
    labels = run.predict(image)
    assert labels.shape == (2, 36, 36)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, run.probabilities(image) >= 0.5)
    assert {"dice.class.row", "dice.class.column"} <= run.results["metrics"]["test"].keys()
    environment = json.loads(run.directory.environment.read_text())
    assert "segreg-layers" in {plugin["distribution"] for plugin in environment["plugins"]}


def test_multiclass_probabilities_sum_to_one(tmp_path):
    tiny_runs.folder_dataset(tmp_path, classes=3)
    text = small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        f"{{name: folder, images: {tmp_path}/images, masks: {tmp_path}/masks, classes: [a, b, c]}}",
    )
    run = small_runs.run(tmp_path, "loss=cross_entropy", "train.epochs=1", "evaluate.overlays=0", text=text)
    image = noise(50, 41, 3)
    probabilities = run.probabilities(image)
    assert probabilities.shape == (3, 50, 41)
    assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(run.predict(image), probabilities.argmax(axis=0))
