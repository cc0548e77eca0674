"""Starting from existing weights: what fits is loaded, and what does not is reported."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segreg.errors import SegregError
from segreg.models.segmenter import Segmenter
from segreg.training.finetune import start_from


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
    match = start_from(fresh, tmp_path / "w.safetensors", "model")
    assert same(trained, fresh)
    assert len(match.loaded) == len(fresh.state_dict())
    assert match.missing == match.unexpected == match.mismatched == ()


def test_the_best_weights_of_a_run_directory_are_loaded(tmp_path):
    trained, fresh = model(), model()
    save_file(model().state_dict(), tmp_path / "last.safetensors")
    save_file(trained.state_dict(), tmp_path / "best.safetensors")
    start_from(fresh, tmp_path, "model")
    assert same(trained, fresh)


def test_a_head_for_other_classes_stays_as_it_is(tmp_path):
    trained, fresh = model(3), model(1)
    head = {name: value.clone() for name, value in fresh.head.state_dict().items()}
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "w.pth")
    match = start_from(fresh, tmp_path / "w.pth", "model")
    assert match.mismatched == ("head.weight [3, 5, 1, 1] for [1, 5, 1, 1]", "head.bias [3] for [1]")
    assert all(torch.equal(fresh.head.state_dict()[name], value) for name, value in head.items())
    assert torch.equal(fresh.decoder.layer.weight, trained.decoder.layer.weight)


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.network.", "backbone."])
def test_an_encoders_layers_are_found_behind_any_prefix(tmp_path, prefix):
    trained, fresh = Levels(), model()
    tensors = {prefix + name: value for name, value in trained.network.state_dict().items()}
    torch.save({**tensors, "fc.weight": torch.zeros(9, 6)}, tmp_path / "w.pth")
    match = start_from(fresh, tmp_path / "w.pth", "encoder")
    assert same(trained, fresh.encoder)
    assert match.unexpected == ((("network." if not prefix else "") + "fc.weight",) if not prefix else ())


def test_only_the_encoder_of_a_whole_network(tmp_path):
    trained, fresh = model(), model()
    before = fresh.decoder.layer.weight.clone()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    start_from(fresh, tmp_path / "w.safetensors", "encoder")
    assert same(trained.encoder, fresh.encoder)
    assert torch.equal(fresh.decoder.layer.weight, before)


def test_nothing_that_fits_is_refused(tmp_path):
    save_file({"other.weight": torch.zeros(7, 7)}, tmp_path / "w.safetensors")
    fresh = model()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(SegregError, match=r"train.start_from: nothing in .*w.safetensors fits the model"):
        start_from(fresh, tmp_path / "w.safetensors", "model")
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in before.items())


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(SegregError, match="holds no weights"):
        start_from(model(), tmp_path, "model")
