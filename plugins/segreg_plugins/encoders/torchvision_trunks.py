"""What torchvision's source files say of its networks, read without importing it: names, weights, and how each runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Trunk:
    """How torchvision runs a network up to its classifier.

    Attributes:
        steps: names of the modules that run one after another; one that ends in `.*` stands for all its children.
        channels_last: whether they give `[B, H, W, C]`.
        dilated: the arguments by which torchvision builds it dilated, for each output stride that it knows.
    """

    steps: tuple[str, ...] = ("features.*",)
    channels_last: bool = False
    dilated: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)


# Left out, because their levels are not H / stride or their image has one size: AlexNet, GoogLeNet, Inception v3,
# SqueezeNet, MaxViT and the ViTs.
_TRUNKS: Mapping[str, Trunk] = {
    "convnext": Trunk(),
    "densenet": Trunk(),
    "efficientnet": Trunk(),
    "mnasnet": Trunk(("layers.*",)),
    "mobilenetv2": Trunk(),
    "mobilenetv3": Trunk(dilated={16: {"dilated": True}}),
    "regnet": Trunk(("stem", "trunk_output.*")),
    "resnet": Trunk(
        ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
        dilated={
            16: {"replace_stride_with_dilation": [False, False, True]},
            8: {"replace_stride_with_dilation": [False, True, True]},
        },
    ),
    "shufflenetv2": Trunk(("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5")),
    "swin_transformer": Trunk(("features.*", "norm"), channels_last=True),
    "vgg": Trunk(),
}
"""By torchvision's source file."""


@cache
def catalogue() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """Return every network's name with its source file and the names of its weights; empty without torchvision."""
    # The spec of a package that holds no dot is found without importing anything.
    spec = find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    found = {}
    for file in (Path(folder, "models", f"{stem}.py") for folder in folders or () for stem in _TRUNKS):
        source = file.read_text(encoding="utf-8")
        classes = re.findall(r"^class (\w+_Weights)\(WeightsEnum\):\n(.*?)(?=^\S)", source, re.MULTILINE | re.DOTALL)
        tags = {name: tuple(re.findall(r"^    (\w+) = Weights\(", body, re.MULTILINE)) for name, body in classes}
        builders = r"^@register_model\(\).*?^def (\w+)\(.*?weights: (?:Optional\[)?(\w+_Weights)"
        for name, weights in re.findall(builders, source, re.MULTILINE | re.DOTALL):
            found[name] = (file.stem, tags[weights])
    return found


def trunk(member: str) -> Trunk:
    """Return how a network runs."""
    return _TRUNKS[catalogue()[member][0]]
