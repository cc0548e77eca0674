"""What the exporters do to a program before they write it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from exported import remembered_operators
from segreg_plugins.exporters.onnx_file import OnnxExporter


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
