"""torchvision's ResNet as the backbone of its segmentation models: same layers, same names, same dilation."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from segreg_plugins.encoders.normalization import IMAGENET, per_channel
from segreg_plugins.pretrained import Fallback, WebFile, loading, obtain, read

_DILATED = {32: [False, False, False], 16: [False, False, True], 8: [False, True, True]}
_LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


class TorchvisionResNet(nn.Module):
    """The stem and the four stages of torchvision's ResNet, whose parameters keep their names.

    The first block of a dilated stage keeps the dilation of the stage before, as in torchvision (SMP's does not), so
    the last two levels are what torchvision's own segmentation models call "aux" and "out".

    Shape: image `[B, in_channels, H, W]` of any size to five levels `[B, C, H / stride, W / stride]`, rounded up: the
    stem's 64 channels at stride 2, and 256, 512, 1024 and 2048 channels from stride 4 to the output stride.

    Attributes:
        normalization: mean and standard deviation of each input channel that the weights were trained with.
        weights_note: says so where random weights stand in for those that were asked for.
    """

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self, name: str, network: nn.Module, in_channels: int, output_stride: int, weights_note: str) -> None:
        super().__init__()
        self.name = name
        for layer in _LAYERS:
            self.add_module(layer, network.get_submodule(layer))
        self.normalization = per_channel(IMAGENET, in_channels)
        self.weights_note = weights_note
        self.channels = [64, 256, 512, 1024, 2048]
        self._settle(output_stride)

    def _settle(self, output_stride: int) -> None:
        self.strides = [min(stride, output_stride) for stride in (2, 4, 8, 16, 32)]

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = [self.relu(self.bn1(self.conv1(image)))]
        x = self.maxpool(levels[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            levels.append(x)
        return levels

    def dilate(self, output_stride: int) -> bool:
        """Sets the stages' strides and dilations to those that torchvision builds for 8 or 16."""
        if max(self.strides) <= output_stride:
            return True
        if output_stride not in _DILATED:
            return False
        with torch.device("meta"):
            pattern = _network(self.name, output_stride)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and name.startswith("layer"):
                wanted = pattern.get_submodule(name)
                module.stride, module.dilation, module.padding = wanted.stride, wanted.dilation, wanted.padding
        self._settle(output_stride)
        return True


def build(
    name: str, in_channels: int, weights: str | None, output_stride: int, weights_fallback: Fallback
) -> TorchvisionResNet:
    """Gives torchvision's ResNet `name` as an encoder.

    Raises:
        SegregError: the weights can't be had.
    """
    path, note = None, ""
    if weights is not None:
        url = torchvision.models.get_model_weights(name)[weights].url
        path, note = obtain(
            WebFile(url), part=f"encoder torchvision.{name}", weights=weights, fallback=weights_fallback
        )
    network = _network(name, output_stride)
    if path:
        state = read(path)
        loading(path, lambda: network.load_state_dict(state))
    if in_channels != 3:
        network.conv1 = _first_layer(network.conv1, in_channels, pretrained=path is not None)
    return TorchvisionResNet(name, network, in_channels, output_stride, note)


def _network(name: str, output_stride: int) -> Any:
    return torchvision.models.get_model(name, weights=None, replace_stride_with_dilation=_DILATED[output_stride])


def _first_layer(layer: nn.Conv2d, in_channels: int, *, pretrained: bool) -> nn.Conv2d:
    """Gives the first convolution for other than three channels; pretrained weights are adapted as SMP and timm do.

    One channel takes the sum over the colours; n channels take the colours' weights in turn, times 3 / n.
    """
    first = nn.Conv2d(in_channels, layer.out_channels, 7, stride=2, padding=3, bias=False)
    with torch.no_grad():
        if not pretrained:
            nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        elif in_channels == 1:
            first.weight.copy_(layer.weight.sum(dim=1, keepdim=True))
        else:
            first.weight.copy_(layer.weight[:, [i % 3 for i in range(in_channels)]] * (3 / in_channels))
    return first
