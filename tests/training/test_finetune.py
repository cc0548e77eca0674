"""Starting from existing weights: what fits is loaded, and what does not is reported."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segreg.errors import SegregError
from segreg.models.segmenter import Segmenter
from segreg.task import Task
from segreg.training.checkpoint import load_weights
from segreg.training.finetune import start_from
from segreg_plugins.decoders.mask_head import MaskHead

LESION = Task(("lesion",), "binary")


class Levels(nn.Module):
    """An encoder whose layers stand behind a prefix, as those of wrapped networks do."""

    channels = (4, 6)
    strides = (2, 4)

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1))

    def forward(self, image):
        fine = self.network[0](image)
        return [fine, self.network[1](fine)]


class Join(nn.Module):
    channels, stride = 5, 4

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(6, 5, 1)

    def forward(self, levels):
        return self.layer(levels[-1])


def model(classes=1):
    return Segmenter(Levels(), Join(), classes)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_whole_network(tmp_path):
    trained, fresh = model(), model()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    match = start_from(fresh, tmp_path / "w.safetensors", "model", LESION)
    assert same(trained, fresh)
    assert {name: len(names) for name, names in match.loaded.items()} == {"encoder": 4, "decoder": 2, "head": 2}
    assert match.missing == match.unused == match.mismatched == ()


def test_the_best_weights_of_a_run_directory_are_loaded(tmp_path):
    trained, fresh = model(), model()
    save_file(model().state_dict(), tmp_path / "last.safetensors")
    save_file(trained.state_dict(), tmp_path / "best.safetensors")
    start_from(fresh, tmp_path, "model", LESION)
    assert same(trained, fresh)


def test_a_head_for_other_classes_stays_as_it_is(tmp_path):
    trained, fresh = model(3), model(1)
    head = {name: value.clone() for name, value in fresh.head.state_dict().items()}
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "w.pth")
    match = start_from(fresh, tmp_path / "w.pth", "model", LESION)
    assert match.mismatched == ("head.weight [3, 5, 1, 1] for [1, 5, 1, 1]", "head.bias [3] for [1]")
    assert all(torch.equal(fresh.head.state_dict()[name], value) for name, value in head.items())
    assert torch.equal(fresh.decoder.layer.weight, trained.decoder.layer.weight)


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.network.", "backbone."])
def test_an_encoders_layers_are_found_behind_any_prefix(tmp_path, prefix):
    trained, fresh = Levels(), model()
    tensors = {prefix + name: value for name, value in trained.network.state_dict().items()}
    torch.save({**tensors, "fc.weight": torch.zeros(9, 6)}, tmp_path / "w.pth")
    match = start_from(fresh, tmp_path / "w.pth", "encoder", LESION)
    assert same(trained, fresh.encoder)
    assert match.unused == ("fc.weight",)


def test_only_the_encoder_of_a_whole_network(tmp_path):
    trained, fresh = model(), model()
    before = fresh.decoder.layer.weight.clone()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    start_from(fresh, tmp_path / "w.safetensors", "encoder", LESION)
    assert same(trained.encoder, fresh.encoder)
    assert torch.equal(fresh.decoder.layer.weight, before)


def test_nothing_that_fits_is_refused(tmp_path):
    save_file({"other.weight": torch.zeros(7, 7)}, tmp_path / "w.safetensors")
    fresh = model()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(SegregError, match=r"train.start_from: nothing in .*w.safetensors fits the model"):
        start_from(fresh, tmp_path / "w.safetensors", "model", LESION)
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in before.items())


def test_whole_numbers_are_not_weights(tmp_path):
    torch.save({name: (10 * t).to(torch.int8) for name, t in model().state_dict().items()}, tmp_path / "w.pth")
    with pytest.raises(SegregError, match=r"nothing in .* fits the model") as caught:
        start_from(model(), tmp_path / "w.pth", "model", LESION)
    assert "int8 for torch.float32" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (torch.Tensor.to_sparse, "has the layout torch.sparse_coo"),
        (lambda weight: weight.to("meta"), "is on the device meta"),
    ],
)
def test_a_tensor_that_is_sparse_or_has_no_values_is_named(change, words, tmp_path):
    state = model().state_dict()
    state["encoder.network.0.weight"] = change(state["encoder.network.0.weight"])
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(SegregError, match=f'"encoder.network.0.weight" {words}'):
        start_from(model(), tmp_path / "w.pth", "model", LESION)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_where_they_would_be_loaded(value, tmp_path):
    state = model().state_dict()
    state["head.weight"][0] = value
    save_file(state, tmp_path / "w.safetensors")
    message = r'w.safetensors: NaN or infinite values in 1 tensor, first "head.weight"'
    with pytest.raises(SegregError, match=message):
        start_from(model(), tmp_path / "w.safetensors", "model", LESION)
    with pytest.raises(SegregError, match=message):
        load_weights(model(), tmp_path / "w.safetensors")
    start_from(model(), tmp_path / "w.safetensors", "encoder", LESION)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(SegregError, match="holds no weights"):
        start_from(model(), tmp_path, "model", LESION)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module.", "model._orig_mod.net."])
@pytest.mark.parametrize("nest", [("state_dict",), ("model_state_dict",), ("network_weights",), ("a", "b", "c"), ()])
def test_every_component_is_found_under_its_own_prefix(tmp_path, prefix, nest):
    """An SMP network's names: the encoder's without its wrapper, the decoder's too, another word for the head."""
    trained, fresh = model(), model()
    theirs = {"encoder.network.": "encoder.", "decoder.": "decoder.", "head.": "segmentation_head."}
    content = {
        prefix + theirs[own] + name.removeprefix(own): value
        for name, value in trained.state_dict().items() for own in theirs if name.startswith(own)
    }  # fmt: skip
    assert len(content) == 8
    for key in reversed(nest):
        content = {"epoch": 3, "optimizer_state_dict": {"state": {0: {"step": torch.zeros(1)}}}, key: content}
    torch.save({**content, "mask_values": [0, 1]}, tmp_path / "w.pth")
    match = start_from(fresh, tmp_path / "w.pth", "model", LESION)
    assert same(trained, fresh)
    assert match.missing == match.unused == match.mismatched == ()


def test_names_that_agree_by_chance_are_not_loaded(tmp_path):
    """The file's decoder has a layer of the right shape, but is another decoder."""
    trained, fresh = model(), model()
    before = fresh.decoder.layer.weight.clone()
    tensors = {name: value for name, value in trained.state_dict().items() if name.startswith("encoder")}
    tensors |= {f"decoder.block.{i}.weight": torch.zeros(3, 3) for i in range(6)}
    tensors |= {"decoder.block.6.bias": torch.ones(5), "decoder.block.6.weight": torch.ones(5, 7, 1, 1)}
    save_file(tensors, tmp_path / "w.safetensors")
    match = start_from(fresh, tmp_path / "w.safetensors", "model", LESION)
    assert torch.equal(before, fresh.decoder.layer.weight)
    assert match.loaded["decoder"] == match.loaded["head"] == []
    assert len(match.unused) == 8


def test_of_two_copies_the_one_taken_is_named(tmp_path):
    trained, average = model(), model()
    torch.save({"state_dict": trained.state_dict(), "state_dict_ema": average.state_dict()}, tmp_path / "w.pth")
    match = start_from(fresh := model(), tmp_path / "w.pth", "model", LESION)
    assert same(trained, fresh)
    assert match.remarks == ('taken from "state_dict"; there is also "state_dict_ema"',)


@pytest.mark.parametrize(
    ("classes", "mode", "loaded", "remark"),
    [
        (("sky", "road", "car"), "multiclass", [0, 1, 2], ""),
        (("car", "sky", "road"), "multiclass", [1, 2, 0], "the head's outputs were reordered: the file's classes are"),
        (
            ("car", "sky", "tree"),
            "multiclass",
            None,
            'left out: the file\'s classes are "car", "sky" and "tree" (multi',
        ),
        (("sky", "road", "car"), "multilabel", None, "left out"),
    ],
)
def test_a_runs_head_is_loaded_by_the_names_of_its_classes(classes, mode, loaded, remark, tmp_path):
    trained, fresh = model(3), model(3)
    before = fresh.head.weight.clone()
    task = json.dumps({"classes": classes, "mode": mode})
    save_file(trained.state_dict(), tmp_path / "best.safetensors", metadata={"task": task})
    match = start_from(fresh, tmp_path, "model", Task(("sky", "road", "car"), "multiclass"))
    assert torch.equal(fresh.head.weight, before if loaded is None else trained.head.weight[loaded])
    assert same(trained.encoder, fresh.encoder)
    assert remark in str(match)


class Queries(Join):
    def task_head(self, task):
        return MaskHead(task, queries=6, channels=5, points=10)

    def forward(self, levels):
        return super().forward(levels), None


def test_the_output_for_no_class_stays_behind_those_of_the_classes(tmp_path):
    before, after = ("car", "sky", "road"), ("sky", "road", "car")
    trained, fresh = (Segmenter(Levels(), Queries(), Task(classes, "multiclass")) for classes in (before, after))
    task = json.dumps({"classes": before, "mode": "multiclass"})
    save_file(trained.state_dict(), tmp_path / "best.safetensors", metadata={"task": task})
    start_from(fresh, tmp_path, "model", Task(after, "multiclass"))
    for name in ("weight", "bias"):
        mine, theirs = (getattr(each.head.classify, name) for each in (fresh, trained))
        assert torch.equal(mine, theirs[[1, 2, 0, 3]])
