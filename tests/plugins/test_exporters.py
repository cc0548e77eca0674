"""What the exporters do to a program before they write it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from exported import remembered_operators
from segreg_plugins.exporters.onnx_file import OnnxExporter


class Windows(nn.Module):
    """Attention inside each window of four pixels, with or without a mask."""

    def __init__(self, mask=None, scale=None):
        super().__init__()
        self.mask, self.scale = mask, scale

    def forward(self, image):
        windows = image.float().flatten(2).unflatten(2, (-1, 4)).permute(0, 2, 3, 1)[:, None]  # [B, 1, windows, 4, C]
        return scaled_dot_product_attention(windows, windows * 2, windows + 1, self.mask, scale=self.scale)


@pytest.mark.parametrize(
    ("mask", "scale"),
    [(None, None), (torch.eye(4) > 0, 0.1), (torch.linspace(-1, 1, 16).reshape(4, 4), None)],
    ids=["plain", "boolean mask and a scale", "bias"],
)
def test_attention_of_five_dimensions_goes_to_onnx(mask, scale, tmp_path):
    network = Windows(mask, scale).eval()
    image = torch.randint(8, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exporter, file = OnnxExporter(18), tmp_path / "network.onnx"
    with remembered_operators():
        exporter.write(torch.export.export(network, (image,)), file, precision="float32", notes="")
    found = exporter.load(file, precision="float32")(image.numpy())
    np.testing.assert_allclose(found, network(image).numpy(), atol=1e-5)
