"""A classification network of torchvision as segreg's contract has it: same layers, same names, same dilation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from segreg_plugins.decoders.torchvision_weights import with_input_channels
from segreg_plugins.encoders.levels import by_level, measured, once
from segreg_plugins.encoders.normalization import IMAGENET, per_channel
from segreg_plugins.encoders.torchvision_trunks import trunk
from segreg_plugins.pretrained import Fallback, WebFile, loading, obtain, read

_SIZE = (256, 256)
# DenseNet's published files are older than the rule that names of modules hold no dot.
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)")


class TorchvisionEncoder(nn.Module):
    """torchvision's network without its classifier, whose parameters keep their names.

    Shape: image `[B, in_channels, H, W]` of any size to a list of `[B, channels[i], H / strides[i], W / strides[i]]`,
    rounded as the network does.

    Args:
        member: torchvision's name of the network.
        network: torchvision's network.
        in_channels: channels of the image.
        kept: names of the modules whose outputs are the levels, None for the last one of each stride.

    Attributes:
        steps: names of the modules that run one after another.
        normalization: mean and standard deviation of each input channel that the weights were trained with.
        weights_note: says so where random weights stand in for those that were asked for.
    """

    def __init__(self, member: str, network: nn.Module, in_channels: int, kept: Sequence[str] | None = None) -> None:
        super().__init__()
        self.member = member
        self.in_channels = in_channels
        self.channels_last = trunk(member).channels_last
        self.steps = [name for step in trunk(member).steps for name in _names(network, step)]
        for top in dict.fromkeys(step.split(".")[0] for step in self.steps):
            self.add_module(top, network.get_submodule(top))
        self._settle(kept)
        self.normalization = per_channel(IMAGENET, in_channels)
        self.weights_note = ""
        self.multi_grid: tuple[int, int, int] | None = None

    def _settle(self, kept: Sequence[str] | None, output_stride: int | None = None) -> None:
        self.kept = self.steps
        which = ("torchvision", self.member, self.in_channels, output_stride)
        levels = once(which, lambda: measured(self, self.in_channels, _SIZE))
        measures = {self.steps[level.index]: level for level in levels}
        last = {level.stride: step for step, level in measures.items()}
        self.kept = list(last.values() if kept is None else kept)
        self.channels = [measures[step].channels for step in self.kept]
        self.strides = [measures[step].stride for step in self.kept]

    def forward(self, image: Tensor) -> list[Tensor]:
        levels, x = [], image
        for step in self.steps:
            x = self.get_submodule(step)(x)
            if step in self.kept:
                levels.append(x.permute(0, 3, 1, 2) if self.channels_last else x)
        return levels

    def layer_groups(self) -> list[list[str]]:
        """Return torchvision's stages: what each level is the first to need."""
        return by_level(self, self.in_channels, _SIZE)

    def no_weight_decay(self) -> list[str]:
        """Return the tables of positions (Swin)."""
        return [name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")]

    def dilate(self, output_stride: int) -> bool:
        """Set strides and dilations to those that torchvision itself builds, where it knows how.

        Its ResNets of bottlenecks can have 8 and 16, its MobileNetV3s 16. The first block of a dilated stage keeps the
        dilation of the stage before, as in torchvision (SMP's does not), unless there is a multi-grid.
        """
        if max(self.strides) <= output_stride:
            return True
        arguments = trunk(self.member).dilated.get(output_stride)
        if arguments is None:
            return False
        try:
            with torch.device("meta"):
                pattern = _network(self.member, arguments)
        except NotImplementedError:  # a ResNet of basic blocks
            return False
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                wanted = pattern.get_submodule(name)
                module.stride, module.dilation, module.padding = wanted.stride, wanted.dilation, wanted.padding
        self._settle(self.kept, output_stride)
        if self.multi_grid:
            self.use_multi_grid(self.multi_grid)
        return True

    def use_multi_grid(self, units: tuple[int, int, int]) -> None:
        """Dilate a ResNet of bottlenecks as DeepLabV3 does, at every output stride (arXiv:1706.05587, section 3.2.1).

        All blocks of a stage whose stride was traded have the stage's rate, the first one too. Those of the last stage
        have theirs times `units`: at an output stride of 16, (1, 2, 4) makes it 2, 4 and 8.
        """
        self.multi_grid = units
        for name, native, stride in (("layer3", 16, self.strides[-2]), ("layer4", 32, self.strides[-1])):
            blocks: Any = self.get_submodule(name)
            for index, block in enumerate(blocks):
                rate = native // stride * (units[index] if name == "layer4" else 1)
                block.conv2.dilation = block.conv2.padding = (rate, rate)


def build(
    part: str,
    member: str,
    in_channels: int,
    *,
    weights: str | None = None,
    weights_fallback: Fallback = "error",
    kept: Sequence[str] | None = None,
) -> TorchvisionEncoder:
    """Return torchvision's network `member` as an encoder that messages call `part`.

    Raises:
        SegregError: the weights are not available.
    """
    path, note, statistics = None, "", IMAGENET
    if weights is not None:
        published = torchvision.models.get_model_weights(member)[weights]
        path, note = obtain(WebFile(published.url), part=f"encoder {part}", weights=weights, fallback=weights_fallback)
        preset = published.transforms()
        statistics = tuple(preset.mean), tuple(preset.std)
    network = _network(member, {})
    if path:
        _load(network, path)
    if in_channels != 3:
        name, layer = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
        network.set_submodule(name, _first_layer(layer, in_channels, pretrained=path is not None))
    encoder = TorchvisionEncoder(member, network, in_channels, kept)
    encoder.normalization = per_channel(statistics, in_channels)
    encoder.weights_note = note
    return encoder


def _names(network: nn.Module, step: str) -> list[str]:
    """Return the names that a step stands for: its own, or those of all children where it ends in a star."""
    whole = step.removesuffix(".*")
    return [step] if whole == step else [f"{whole}.{name}" for name, _ in network.get_submodule(whole).named_children()]


def _network(member: str, arguments: Any) -> Any:
    return torchvision.models.get_model(member, weights=None, **arguments)


def _load(network: nn.Module, path: Path) -> None:
    state = read(path)
    for key in list(state):
        if (name := _OLD_NAME.sub(r"\1\2", key)) != key:
            state[name] = state.pop(key)
    loading(path, lambda: network.load_state_dict(state))


def _first_layer(layer: nn.Conv2d, in_channels: int, *, pretrained: bool) -> nn.Conv2d:
    """Return the first convolution for other than three channels; pretrained weights are adapted as SMP and timm do."""
    first = nn.Conv2d(
        in_channels,
        layer.out_channels,
        (layer.kernel_size[0], layer.kernel_size[1]),
        stride=(layer.stride[0], layer.stride[1]),
        padding=(int(layer.padding[0]), int(layer.padding[1])),
        bias=layer.bias is not None,
    )
    with torch.no_grad():
        if first.bias is not None and layer.bias is not None:
            first.bias.copy_(layer.bias)
        if not pretrained:
            nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        else:
            first.weight.copy_(with_input_channels(layer.weight, in_channels))
    return first
