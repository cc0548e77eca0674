"""LoRA: a low-rank change of weights is trained, and the weights stay as they are (arXiv:2106.09685).

`h = W x + alpha / rank * B A x`, where B begins as zeros, so that a network begins as it was. The paper draws A from a
normal distribution; here it is drawn as torch draws the weights of linear layers, which the authors' code does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.errors import SegregError, listed

Network = TypeVar("Network", bound=nn.Module)
_FROZEN, _A, _B, _SCALE = "frozen", "lora_a", "lora_b", "lora_scale"


class Lora(nn.Module):
    """A linear layer, or a convolution of 1x1, with a trained low-rank change of its weights.

    Shape: as the layer's.

    Attributes:
        frozen: the layer.
        lora_a: A, `[rank, in]`, of a convolution `[rank, in, 1, 1]`.
        lora_b: B, `[out, rank]`, of a convolution `[out, rank, 1, 1]`.
        lora_scale: alpha / rank.
    """

    lora_scale: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, alpha: float) -> None:
        super().__init__()
        self.frozen = layer.requires_grad_(requires_grad=False)
        out_channels, in_channels, *kernel = layer.weight.shape
        self.lora_a = nn.Parameter(layer.weight.new_empty(rank, in_channels, *kernel))
        self.lora_b = nn.Parameter(layer.weight.new_zeros(out_channels, rank, *kernel))
        self.register_buffer(_SCALE, torch.tensor(alpha / rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    @property
    def weight(self) -> Tensor:
        """Return the changed weight: some networks (BEiT, EVA, Swin V2) read it and don't call the layer."""
        return _changed(self.frozen.weight, self.lora_a, self.lora_b, self.lora_scale)

    @property
    def bias(self) -> Tensor | None:
        """Return the layer's bias."""
        return self.frozen.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return what the changed layer makes of `x`."""
        if isinstance(self.frozen, nn.Linear):
            change = F.linear(F.linear(x, self.lora_a), self.lora_b)
        else:
            few = F.conv2d(x, self.lora_a, stride=self.frozen.stride, padding=self.frozen.padding)
            change = F.conv2d(few, self.lora_b)
        return self.frozen(x) + self.lora_scale * change


def _changed(weight: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    return weight + scale * (b.flatten(1) @ a.flatten(1)).view_as(weight)


def add_lora(encoder: nn.Module, rank: int, alpha: float, targets: Sequence[str]) -> None:
    """Freeze an encoder, in place, and train a low-rank change of those of its layers that targets name.

    Args:
        encoder: the network.
        rank: of the change.
        alpha: over `rank`, the factor of the change.
        targets: how the names of layers end, in whole words.

    Raises:
        SegregError: there is no such linear layer or convolution of 1x1; the message has those that there are.
    """
    # A layer that stands in several places has several names, and one change in all of them.
    layers = {name: module for name, module in encoder.named_modules(remove_duplicate=False) if _fits(module)}
    named = {target: [name for name in layers if f".{name}".endswith(f".{target}")] for target in targets}
    if unknown := [target for target, names in named.items() if not names]:
        count = Counter(name.rpartition(".")[2] for name in layers if not name.rpartition(".")[2].isdecimal())
        there = listed([f"{name} ({number})" for name, number in count.most_common()], quote="", most=20)
        raise SegregError(
            f"encoder.lora.targets: {type(encoder).__name__} has no linear layer and no convolution of 1x1 that is "
            f"called {listed(unknown, last='or')}",
            hint=f"there are {there}" if count else "it has none at all",
        )
    encoder.requires_grad_(requires_grad=False)
    chosen = dict.fromkeys(layers[name] for names in named.values() for name in names)
    changed = {layer: Lora(layer, rank, alpha) for layer in chosen}
    for name, layer in layers.items():
        if layer in changed:
            encoder.set_submodule(name, changed[layer])


def _fits(module: nn.Module) -> bool:
    # A class that computes its weight in a forward of its own, as with standardised weights, is another function.
    if type(module).forward is nn.Linear.forward:
        return True
    if not isinstance(module, nn.Conv2d) or type(module).forward is not nn.Conv2d.forward:
        return False
    return module.kernel_size == (1, 1) and module.groups == 1 and module.padding_mode == "zeros"


def merge_lora(network: Network) -> Network:
    """Return a network with each low-rank change added to the weights that it changes, in place."""
    for module in network.modules():
        if isinstance(module, Lora):  # anew, as another layer may have the same tensor
            module.frozen.weight = nn.Parameter(module.weight.detach(), requires_grad=False)
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, Lora):
            network.set_submodule(name, module.frozen)
    return network


def merged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that a network's `state_dict` has after `merge_lora`, from those that it has before."""
    found = {}
    for name, value in tensors.items():
        if name.rpartition(".")[2] in (_A, _B, _SCALE):
            continue
        plain = plain_name(name, tensors)
        layer = plain.rpartition(".")[0]
        changes = plain != name and name.endswith(".weight")
        found[plain] = _changed(value, *(tensors[f"{layer}.{one}"] for one in (_A, _B, _SCALE))) if changes else value
    return found


def plain_name(name: str, names: Mapping[str, object]) -> str:
    """Return what a tensor would be called in a network without LoRA; `names` has all of this network's."""
    layer, _, leaf = name.rpartition(".")
    outer, _, inner = layer.rpartition(".")
    return f"{outer}.{leaf}" if inner == _FROZEN and f"{outer}.{_A}" in names else name
