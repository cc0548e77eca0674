"""torchvision's segmentation heads as decoders: all layers but the last, which is the model's head.

DeepLabV3 is arXiv:1706.05587, FCN arXiv:1411.4038. Numbers are exactly torchvision's; what is added is that BatchNorm
takes a single value (see `batch_norm`), so that a batch of one image trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from segreg.models.pyramid import Pyramid
from segreg_plugins.batch_norm import with_single_values


def deeplab_layers(in_channels: int, rates: Sequence[int]) -> list[nn.Module]:
    """Return the layers of torchvision's DeepLabHead but the last."""
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    return list(DeepLabHead(in_channels, 1, rates).children())[:-1]


def fcn_layers(in_channels: int) -> list[nn.Module]:
    """Return the layers of torchvision's FCNHead but the last."""
    from torchvision.models.segmentation.fcn import FCNHead

    return list(FCNHead(in_channels, 1).children())[:-1]


class TorchvisionHead(nn.Module):
    """A head of torchvision's on one level. `layers.<i>` has the keys that torchvision's `classifier.<i>` has.

    Args:
        pyramid: gives that level.
        layers: torchvision's, but the last.

    Attributes:
        last: the file's weights of the last layer, once a checkpoint has filled this.
        weights_note: tells which weights were loaded and where; empty if none were asked for.

    Shape: the encoder's levels to `[B, channels, H / stride, W / stride]`.
    """

    def __init__(self, pyramid: Pyramid, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.layers = nn.Sequential(*layers)
        with_single_values(self.layers)
        self.channels = [m.out_channels for m in self.layers.modules() if isinstance(m, nn.Conv2d)][-1]
        self.stride = pyramid.strides[0]
        self.last: Mapping[str, Tensor] | None = None
        self.weights_note = ""

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the features before the last layer."""
        (level,) = self.pyramid(levels)
        features: Tensor = self.layers(level)
        return features

    def head(self, classes: int) -> nn.Module:
        """Return torchvision's last layer, with the checkpoint's weights where it has that many classes."""
        layer = nn.Conv2d(self.channels, classes, kernel_size=1)
        if self.last is not None:
            known = len(self.last["bias"])
            if known == classes:
                layer.load_state_dict(dict(self.last))
                self.weights_note += "; last layer: loaded"
            else:
                self.weights_note += f"; last layer: random, for the file has {known} classes and the task {classes}"
        return layer
