"""A trained network as it predicts: a copy that gives the same logits with less work.

A BatchNorm in evaluation multiplies each channel by one number and adds another, which the convolution before it can do
as well ("folding", arXiv:1712.05877, section 3.2). And where autocast computes in bf16, it turns the same float32
weights into bf16 at every call, which can be done once.

Whether that holds for a network, neither its modules' order nor a traced graph can tell for networks of any library. So
one image is sent through it, while each operation that PyTorch dispatches is looked at: attributes, names and Python
in between don't show there, and uses in other libraries' code do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from segreg.runtime.device import Precision

TOLERANCE = 1e-3
"""Share of the largest logit by which folding may change logits in float32; rounding takes about 1e-6."""


@dataclass(frozen=True)
class Lighter:
    """What became of a network.

    Attributes:
        network: gives the same logits; the network itself where nothing could be changed.
        folded: BatchNorms that went into convolutions.
        converted: parameters that are kept in bf16.
        left: why the network is as it was; empty where it isn't.
    """

    network: nn.Module
    folded: int = 0
    converted: int = 0
    left: str = ""


def lighten(network: nn.Module, image: Tensor, precision: Precision) -> Lighter:
    """Return a copy of a trained network with BatchNorms folded and, for bf16, with weights in bf16, both where proven.

    Logits in float32 are the network's to rounding. What is kept in bf16 changes no bit of what autocast gives.

    Args:
        network: gives logits for a normalised image; it is put into evaluation mode, and otherwise stays as it is.
        image: normalised float image `[B, C, H, W]` on the network's device. Its size matters only to a network whose
            layers follow on each other otherwise at another size.
        precision: what the copy is to compute in.
    """
    network.eval()
    if precision.name == "fp16":
        return Lighter(network, left="a folded weight can exceed the range of fp16")
    if precision.dtype is None and not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return Lighter(network, left="it has no BatchNorm")
    try:
        # Before the network runs: a copy may share with it, by closures, what it remembers of a image.
        light = copy.deepcopy(network)
        folded = fold_batch_norms(light, image)
        off, largest = _differ(light, network, image)
        if not off <= TOLERANCE * largest:  # NaN is to be caught too
            return Lighter(network, left=f"its logits would be off by {off:.2g}, of {largest:.2g}")
        converted = convert_weights(light, image, precision) if precision.dtype is not None else 0
    except Exception as error:  # whatever a network does that can't be copied, watched or changed
        return Lighter(network, left=f"{type(error).__name__}: {error}")
    if not folded and not converted:
        return Lighter(network, left="nothing in it is proven to fold or to convert")
    return Lighter(light, folded, converted)


def _differ(light: nn.Module, network: nn.Module, image: Tensor) -> tuple[float, float]:
    """Return by how much the logits in float32 differ at most, and the size of the largest."""
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        logits: Tensor = network(image)
        return float((light(image) - logits).abs().max()), float(logits.abs().max())


# BatchNorm


def fold_batch_norms(network: nn.Module, image: Tensor) -> int:
    """Put BatchNorms into the convolutions before them, in place, where that is proven; return how many.

    It is proven where, for one image in float32,

    * a Conv2d was computed as one convolution with its own weight, which nothing else used,
    * what it gave was used once: by a BatchNorm that ran once,
    * and that BatchNorm was one operation on it with the BatchNorm's own statistics, whose result it gave.

    So a BatchNorm with an activation inside stays, and so does the convolution of a branch, a shared layer, or a weight
    that is computed.
    """
    pairs = _Folding(network).watch(image)
    for conv, norm in pairs:
        _fold(conv, norm)
    gone = {norm for _, norm in pairs}
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if module in gone:
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, nn.Identity().eval())
    return len(pairs)


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    """Return a convolution the weight and bias with which it does the BatchNorm's work too, computed in float64."""

    def exact(tensor: Tensor | None, otherwise: float) -> Tensor:
        return torch.tensor(otherwise, dtype=torch.float64) if tensor is None else tensor.detach().cpu().double()

    factor = exact(norm.weight, 1) / (exact(norm.running_var, 1) + norm.eps).sqrt()
    weight = exact(conv.weight, 0) * factor.view(-1, 1, 1, 1)
    bias = (exact(conv.bias, 0) - exact(norm.running_mean, 0)) * factor + exact(norm.bias, 0)
    # New ones, so that a weight that something else shares stays.
    like = conv.weight
    conv.weight = nn.Parameter(weight.to(like), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(like), requires_grad=False)


@dataclass(eq=False)
class _Result:
    """What a convolution gave: how often it was used, and by which BatchNorm."""

    conv: nn.Conv2d
    uses: int = 0
    norm: _BatchNorm | None = None


class _Folding:
    """Looks on while a network runs, and say which BatchNorms may be folded."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        modules = list(network.modules())
        owners: dict[int, list[nn.Module]] = {}
        for module in modules:
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append(module)
        self.convs = {
            id(weight): conv
            for conv in modules
            if isinstance(conv, nn.Conv2d)
            and isinstance(weight := conv.weight, nn.Parameter)
            and owners.get(id(weight)) == [conv]
        }
        self.norms = [module for module in modules if isinstance(module, _BatchNorm)]
        self.uses_of_weight = dict.fromkeys(self.convs, 0)
        self.runs_of_norm = dict.fromkeys(self.norms, 0)
        self.results: list[_Result] = []
        self.result_of = WeakTensorKeyDictionary()  # so that no image's maps are kept, and no id is met twice
        self.inside: list[tuple[list[Tensor], Any]] | None = None
        """Operations on tensors in the BatchNorm that runs: what they were given, and what they gave."""

    def watch(self, image: Tensor) -> list[tuple[nn.Conv2d, _BatchNorm]]:
        """Run the network, and return the convolutions with the BatchNorm that may go into them."""
        hooks = [
            hook
            for norm in self.norms
            for hook in (norm.register_forward_pre_hook(self.begin), norm.register_forward_hook(self.end))
        ]
        try:
            with torch.no_grad(), _Operations(self.see):
                self.network(image)
        finally:
            for hook in hooks:
                hook.remove()
        return [
            (result.conv, result.norm)
            for result in self.results
            if result.norm is not None
            and result.uses == self.runs_of_norm[result.norm] == self.uses_of_weight[id(result.conv.weight)] == 1
        ]

    def begin(self, norm: nn.Module, given: object) -> None:  # noqa: ARG002, torch's
        """Is called before a BatchNorm runs."""
        self.inside = []

    def end(self, norm: nn.Module, given: object, gave: object) -> None:  # noqa: ARG002, torch's
        """Is called after a BatchNorm ran."""
        assert isinstance(norm, _BatchNorm)
        self.runs_of_norm[norm] += 1
        operations, self.inside = self.inside, None
        if operations is None or len(operations) != 1 or norm.training:
            return
        taken, result = operations[0]
        own = (*norm.parameters(recurse=False), norm.running_mean, norm.running_var)
        alone = {id(tensor) for tensor in taken[1:]} == {id(tensor) for tensor in own}  # None is not a tensor
        if alone and taken[0] in self.result_of and (result if isinstance(result, Tensor) else result[0]) is gave:
            self.result_of[taken[0]].norm = norm

    def see(self, operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any], gave: Any) -> None:
        """Is called after each operation."""
        taken = _tensors(args, kwargs)
        for tensor in taken:
            if tensor in self.result_of:
                self.result_of[tensor].uses += 1
            if id(tensor) in self.uses_of_weight:
                self.uses_of_weight[id(tensor)] += 1
        conv = self.convs.get(id(args[1])) if operation is torch.ops.aten.convolution.default else None
        if conv is not None and args[2] is conv.bias:
            self.result_of[gave] = _Result(conv)
            self.results.append(self.result_of[gave])
        if taken and self.inside is not None:
            self.inside.append((taken, gave))


# bf16


def convert_weights(network: nn.Module, image: Tensor, precision: Precision) -> int:
    """Keep parameters in the precision's format, in place, where it is proven to change nothing; return how many.

    It is proven where the network, for one image under autocast, did nothing with a parameter but turn it into that
    format.
    """
    parameters = {id(parameter): parameter for parameter in network.parameters()}
    converted, used = set[int](), set[int]()

    def see(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any], _: Any) -> None:
        only = operation is torch.ops.aten._to_copy.default and kwargs.get("dtype") is precision.dtype  # noqa: SLF001
        (converted if only else used).update(id(tensor) for tensor in _tensors(args, kwargs))

    with torch.no_grad(), precision.autocast(image.device), _Operations(see):
        network(image)
    kept = [parameter for identity, parameter in parameters.items() if identity in converted - used]
    for parameter in kept:
        parameter.requires_grad_(False).data = parameter.data.to(precision.dtype)
    return len(kept)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells of each operation that PyTorch dispatches, after it: which, its arguments, and what it gave."""

    def __init__(self, tell: Callable[[Any, Sequence[Any], Mapping[str, Any], Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tell = tell

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        gave = func(*args, **(kwargs or {}))
        self.tell(func, args, kwargs or {}, gave)
        return gave


def _tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    return [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
