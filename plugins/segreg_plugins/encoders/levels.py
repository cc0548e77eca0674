"""What a network's levels really are: measured by a pass of tensors that have a shape and no content."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

Found = TypeVar("Found")
_KNOWN: dict[Hashable, Any] = {}


def once(network: Hashable, find: Callable[[], Found]) -> Found:
    """Return what is found out of a network by trying it, once in a process: it is the same whatever its weights are.

    Args:
        network: which one it is: the library, its name, how it is built.
        find: tries it. Nobody may change what it returns.
    """
    if network not in _KNOWN:
        _KNOWN[network] = find()
    found: Found = _KNOWN[network]
    return found


@dataclass(frozen=True)
class Level:
    """One map of features.

    Attributes:
        index: its place in the network's own list.
        channels: its channels.
        stride: image pixels between two of its pixels.
        channels_last: whether the network gives it as `[B, H, W, C]`.
    """

    index: int
    channels: int
    stride: int
    channels_last: bool = False


def outline(network: nn.Module, channels: int, size: tuple[int, int]) -> list[Tensor] | None:
    """Return what `network` makes of an image `[1, channels, *size]`, on the meta device: shapes and no values.

    The network is left as it is; nothing is computed and no random number is drawn. None is given for a network that
    can't run on shapes alone, because it reads a tensor's values on its way. What else a network raises goes through.
    """
    # Tying would swap a layer that stands in two places twice, and put back what it was given the first time.
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    shapes = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for name, tensor in tensors.items()}
    image = torch.empty(1, channels, *size, device="meta")
    try:
        with _evaluating(network), _OneChannel():
            return list(functional_call(network, shapes, (image,), tie_weights=False))
    except (RuntimeError, NotImplementedError) as error:
        if "meta" in str(error) or "device" in str(error):
            return None
        raise


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, without gradients, and leave it as it was."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


_SAME_SHAPE = {
    F.batch_norm, F.layer_norm, F.relu, torch.relu, torch.relu_, F.relu6, F.hardtanh, F.hardswish, F.hardsigmoid,
    F.silu, F.gelu, F.softmax, torch.softmax, Tensor.softmax, torch.sigmoid, Tensor.sigmoid, Tensor.sigmoid_,
}  # fmt: skip
_SUMS_AND_PRODUCTS = {Tensor.add, Tensor.add_, torch.add, Tensor.mul, Tensor.mul_, torch.mul}
_MAXIMA = {F.max_pool2d, torch.max_pool2d}


class _OneChannel(TorchFunctionMode):
    """Give the shapes of common layers at once; whatever else a network does goes its usual way.

    On the meta device torch derives sizes in Python, with a package for symbolic algebra whose import alone takes
    longer than a real pass of a small network. A convolution is asked of a single channel's values instead.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        image, second = (*args, None, None)[:2]
        if not isinstance(image, Tensor) or image.device.type != "meta":
            return func(*args, **kwargs)
        if func in _SAME_SHAPE:
            return image
        if isinstance(second, Tensor):
            if func in _SUMS_AND_PRODUCTS and second.shape == image.shape:
                return image
            if func is F.linear and second.shape[-1] == image.shape[-1]:
                return image.new_empty((*image.shape[:-1], *second.shape[:-1]))
            if func is F.scaled_dot_product_attention and len(args) > 2 and args[2].shape[-1] == image.shape[-1]:
                return image
        if image.ndim != 4:
            return func(*args, **kwargs)
        one = torch.zeros(1, 1, *image.shape[2:])
        if func in _MAXIMA and not kwargs.get("return_indices"):
            return image.new_empty((*image.shape[:2], *func(one, *args[1:], **kwargs).shape[2:]))
        if func is torch.conv2d and len(args) == 7 and image.shape[1] == args[1].shape[1] * args[6]:
            weight, _, *how = args[1:6]
            sizes = func(one, torch.zeros(1, 1, *weight.shape[2:]), None, *how).shape[2:]
            return image.new_empty((len(image), len(weight), *sizes))
        return func(*args, **kwargs)


def computed(network: nn.Module, channels: int, size: tuple[int, int]) -> list[Tensor]:
    """Return what `network` makes of an empty image `[1, channels, *size]`, with its values, in evaluation mode."""
    with _evaluating(network):
        return list(network(torch.zeros(1, channels, *size)))


def measured(
    network: nn.Module, channels: int, size: tuple[int, int], declared: Sequence[tuple[int, int]] | None = None
) -> list[Level]:
    """Return the levels of `network`, finest first: no empty ones and no copy of the image.

    Args:
        network: takes `[B, C, H, W]` and gives a list of maps.
        channels: channels of the image.
        size: height and width of the image that is tried.
        declared: channels and stride of each map as the network's author names them. Where the map that comes out
            does not contradict a stride, it holds: a convolution without padding gives a little less than H / stride.
    """
    maps = outline(network, channels, size)
    if maps is None:
        return [Level(index, depth, stride) for index, (depth, stride) in enumerate(declared or ())]
    levels = []
    for index, level in enumerate(maps):
        named_channels, named_stride = declared[index] if declared else (level.shape[1], 0)
        last = level.shape[1] != named_channels and level.shape[-1] == named_channels
        depth, height = (level.shape[-1], level.shape[1]) if last else (level.shape[1], level.shape[2])
        # SMP's first map is the image itself where its network has no level of stride 1.
        if depth == 0 or (index == 0 and declared is None and tuple(level.shape[1:]) == (channels, *size)):
            continue
        ratio = size[0] / height
        stride = named_stride if named_stride and abs(ratio / named_stride - 1) < 0.3 else round(ratio)
        levels.append(Level(index, depth, stride, last))
    return levels


def by_level(network: nn.Module, channels: int, size: tuple[int, int]) -> list[list[str]]:
    """Return a network's modules with parameters by the map, of those that it gives, which is the first to need them.

    A map that needs no others is left out.
    """
    layers: list[list[str]] = []
    known: set[str] = set()
    for used in needed_by_level(network, channels, size):
        modules = dict.fromkeys(name.rpartition(".")[0] or name for name in used)
        layers.append([name for name in modules if name not in known])
        known.update(modules)
    return [layer for layer in layers if layer]


def needed_by_level(network: nn.Module, channels: int, size: tuple[int, int]) -> list[list[str]]:
    """Return the parameters that each map of a network depends on, found on the meta device by their gradients.

    A map without any, such as a copy of the image, is left out.
    """
    parameters = {
        name: torch.empty_like(parameter, device="meta", requires_grad=True)
        for name, parameter in network.named_parameters()
    }
    buffers = {name: torch.empty_like(buffer, device="meta") for name, buffer in network.named_buffers()}
    image = torch.empty(2, channels, *size, device="meta")
    needed: list[list[str]] = []
    with torch.enable_grad():
        for level in functional_call(network, {**parameters, **buffers}, (image,)):
            if level.requires_grad:
                found = torch.autograd.grad(level.sum(), [*parameters.values()], allow_unused=True, retain_graph=True)
                needed.append([name for name, each in zip(parameters, found, strict=True) if each is not None])
    return needed
