"""What the exporters do to a program before they write it, and which files they refuse to load."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from exported import remembered_operators
from segreg.errors import SegregError
from segreg_plugins.exporters.onnx_file import OnnxExporter
from segreg_plugins.exporters.torch_file import TorchExporter


class Windows(nn.Module):
    """Attention inside each window of four pixels, `[B, 1, windows, 4, C]` or `[B, windows, 4, C]`."""

    def __init__(self, mask=None, scale=None, heads=True):
        super().__init__()
        self.mask, self.scale, self.heads = mask, scale, heads

    def forward(self, image):
        windows = image.float().flatten(2).unflatten(2, (-1, 4)).permute(0, 2, 3, 1)
        query = windows[:, None] if self.heads else windows
        return scaled_dot_product_attention(query, query * 2, query + 1, self.mask, scale=self.scale)


@pytest.mark.parametrize(
    ("mask", "scale", "heads"),
    [
        (None, None, True),
        (torch.eye(4) > 0, 0.1, True),
        (torch.linspace(-1, 1, 16).reshape(4, 4), None, True),
        (torch.linspace(-1, 1, 16).reshape(4, 4), None, False),
    ],
    ids=["plain", "boolean mask and a scale", "bias", "bias of usual dimensions"],
)
def test_attention_of_windows_goes_to_onnx(mask, scale, heads, tmp_path):
    network = Windows(mask, scale, heads).eval()
    image = torch.randint(8, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exporter, file = OnnxExporter(18), tmp_path / "network.onnx"
    with remembered_operators():
        program = torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},))
        exporter.write(program, file, precision="float32", notes="")
    found = exporter.load(file, precision="float32")(image.numpy())
    np.testing.assert_allclose(found, network(image).numpy(), atol=1e-5)


class Touches:
    """Is pickled as a call that makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


class Doubled(nn.Module):
    def forward(self, images):
        return images.float().relu() * 2


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Return what a program of PyTorch has in its file, by name."""
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("batch", max=64), 2: torch.export.Dim("height", min=4, max=64)}}
    program = torch.export.export(Doubled(), (images,), dynamic_shapes=shapes)
    file = tmp_path_factory.mktemp("program") / "network.pt2"
    TorchExporter().write(program, file, precision="float32", notes='{"target": "a note"}')
    found = TorchExporter().load(file, precision="float32")(np.full((3, 3, 5, 8), 4, np.uint8))
    np.testing.assert_array_equal(found, np.full((3, 3, 5, 8), 8))
    with zipfile.ZipFile(file) as written:
        return {name.removeprefix("network/"): written.read(name) for name in written.namelist()}


def _pickled(content, made):
    file = io.BytesIO()
    torch.save((Touches(made),), file)
    return {"data/sample_inputs/model.pt": file.getvalue()}


def _pickled_weights(content, made):
    return {"data/weights/model.pt": pickle.dumps(Touches(made))}


def _opaque_constant(content, made):
    config = {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}}
    return {
        "data/constants/model_constants_config.json": json.dumps({"config": config}).encode(),
        "data/constants/opaque_obj_0": pickle.dumps(Touches(made)),
    }


def _call(content, made):
    return {
        "models/model.json": content["models/model.json"].replace(b"torch.ops.aten.relu.default", b"torch.os.mkdir")
    }


def _formula(content, made):
    program = json.loads(content["models/model.json"])
    text = json.dumps(program).replace("Symbol('s", "exec('open(1)').s", 1)
    assert "exec(" in text
    return {"models/model.json": text.encode()}


def _guard(content, made):
    program = json.loads(content["models/model.json"])
    return {"models/model.json": json.dumps({**program, "guards_code": ["__import__('os').getpid() == 1"]}).encode()}


def _library(content, made):
    return {"data/aotinductor/model/a.so": b""}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (_pickled, "pickled objects"),
        (_pickled_weights, "pickled objects"),
        (_opaque_constant, "pickled objects"),
        (_call, 'a call of "torch.os.mkdir"'),
        (_formula, 'the formula "exec\\('),
        (_guard, 'the formula "__import__\\('),
        (_library, "compiled libraries"),
    ],
)
def test_a_program_that_could_run_any_code_is_not_loaded(archive, tmp_path, changed, says):
    file, made = tmp_path / "network.pt2", tmp_path / "made"
    with zipfile.ZipFile(file, "w") as written:
        for name, data in {**archive, **changed(archive, made)}.items():
            written.writestr(f"network/{name}", data)
    with pytest.raises(SegregError, match=rf"network\.pt2: holds {says}.* could run any code"):
        TorchExporter().load(file, precision="float32")
    assert not made.exists()


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_program_with_two_files_of_one_name_is_not_loaded(archive, tmp_path):
    file = tmp_path / "network.pt2"
    with zipfile.ZipFile(file, "w") as written:
        for name, data in [*archive.items(), ("models/model.json", b"{}")]:
            written.writestr(f"network/{name}", data)
    with pytest.raises(SegregError, match="two files of one name"):
        TorchExporter().load(file, precision="float32")
