"""Which parameters train, at which learning rate and with which weight decay: the groups of the optimizer.

There is a group for each component of the network. `train.layer_decay` divides the encoder's by its layers: the rate of
a layer is the next one's times the decay (BEiT, arXiv:2106.08254), where the decoder is what follows the last layer.
What has no weight decay, as in BEiT and in timm, is a group of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError, listed
from segreg.models.layers import layers_of

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from segreg.config.sections import Train
    from segreg.models.segmenter import Segmenter

Build = Callable[[Sequence[dict[str, Any]]], "Optimizer"]
_DECOUPLED = ("decoupled_weight_decay", "decoupled_decay", "decoupled")
"""How torch's and timm's optimizers mark, in their groups, that weight decay is kept out of the gradient."""


def build_optimizer(model: Segmenter, settings: Train, build: Build, *, exclude: bool | None = None) -> Optimizer:
    """Return the optimizer over the groups that a recipe asks for, each with its rate.

    Args:
        model: the network.
        settings: the recipe's `train` section.
        build: builds the optimizer from parameter groups.
        exclude: the recipe's `optimizer.exclude_from_weight_decay`; None goes by the optimizer.

    Raises:
        SegregError: nothing trains, a setting names what the network does not have, or the optimizer can't have it.
    """
    groups = parameter_groups(model, settings.lr_factors)
    optimizer = build(groups)
    excludes = decouples(optimizer) if exclude is None else exclude
    if excludes or settings.layer_decay:
        optimizer = build(divided(model, groups, layer_decay=settings.layer_decay, exclude=excludes))
    asked = {
        "lr_factors": settings.lr_factors,
        "layer_decay": settings.layer_decay,
        "exclude_from_weight_decay": exclude,
    }
    scale_rates(optimizer, settings.lr_factors, asked=[name for name, value in asked.items() if value])
    return optimizer


def parameter_groups(model: Segmenter, lr_factors: Mapping[Any, float]) -> list[dict[str, Any]]:
    """Return the trainable parameters by component of the network, each parameter once.

    Raises:
        SegregError: `lr_factors` names a component that the network does not have or that has nothing to train.
    """
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for name, component in (*model.parts().items(), ("other", model)):
        parameters = [p for p in component.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(id(p) for p in parameters)
        if parameters:
            groups.append({"params": parameters, "name": name})
    names = [group["name"] for group in groups]
    if unknown := [name for name in lr_factors if name not in names]:
        raise SegregError(
            f"train.lr_factors: this network has no component {listed(unknown, last='or')} to train",
            hint=f"there is {listed(names)}",
        )
    if not groups:
        raise SegregError("the network has no parameter to train")
    return groups


def divided(
    model: Segmenter, groups: Sequence[dict[str, Any]], *, layer_decay: float | None, exclude: bool
) -> list[dict[str, Any]]:
    """Return the groups of components divided by the encoder's layers, first to last, and by weight decay.

    Each has the component's `name`; with `layer_decay`, those of the encoder have `layer` and the factor `scale` of
    their rate; without weight decay, `weight_decay` is 0.

    Raises:
        SegregError: the encoder does not say what its layers are, or has nothing to train.
    """
    layer: dict[int, int] = {}
    last = 0
    if layer_decay is not None:
        names, last = layers_of(model.encoder, "train.layer_decay")
        layer = {id(p): names[name] for name, p in model.encoder.named_parameters() if p.requires_grad}  # type: ignore[attr-defined]
        if not layer:
            raise SegregError("train.layer_decay: nothing of the encoder trains", hint="leave it out")
    without = undecayed(model) if exclude else set()
    found = []
    for group in groups:
        parameters: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
        for p in group["params"]:
            parameters[layer.get(id(p), last), id(p) in without].append(p)
        for (index, undecaying), some in sorted(parameters.items(), key=lambda item: item[0]):
            of_layer = {}
            if layer_decay is not None and group["name"] == "encoder":
                of_layer = {"layer": index, "scale": layer_decay ** (last - index)}
            found.append(
                {"params": some, "name": group["name"], **of_layer, **({"weight_decay": 0.0} if undecaying else {})}
            )
    return found


def decouples(optimizer: Optimizer) -> bool:
    """Whether an optimizer has a weight decay, and keeps it out of the gradient as AdamW does.

    An optimizer says so by an attribute `decouples_weight_decay`, or by the mark in its groups that torch's have.
    """
    group = optimizer.param_groups[0]
    said = getattr(optimizer, "decouples_weight_decay", any(group.get(mark) for mark in _DECOUPLED))
    return bool(said and group.get("weight_decay"))


def undecayed(model: Segmenter) -> set[int]:
    """Return the ids of the parameters that weight decay leaves alone.

    They are biases, what has at most one dimension, as the weights of norms and factors of layers have, and what
    encoder and decoders name in `no_weight_decay()`.
    """
    found = {id(p) for name, p in model.named_parameters() if p.ndim <= 1 or name.endswith(".bias")}
    for part in (model.encoder, model.decoder, model.auxiliary):
        if asked := getattr(part, "no_weight_decay", None):
            patterns = asked()
            found |= {
                id(p)
                for name, p in part.named_parameters()  # type: ignore[union-attr]
                if any(fnmatchcase(name, pattern) for pattern in patterns)
            }
    return found


def scale_rates(optimizer: Optimizer, lr_factors: Mapping[Any, float], *, asked: Sequence[str] = ()) -> None:
    """Multiply every group's learning rate by its component's factor and its layer's; `asked` are settings' names.

    Raises:
        SegregError: the optimizer makes groups of its own, which can't have what was asked for.
    """
    for index, group in enumerate(optimizer.param_groups):
        # An optimizer that makes groups of its own may drop the names.
        if "name" not in group and asked:
            raise SegregError(
                f"{type(optimizer).__name__} regroups the parameters; it can't be used with {listed(asked, quote='')}"
            )
        group.setdefault("name", str(index))
        group["lr"] = group["lr"] * lr_factors.get(group["name"], 1.0) * group.get("scale", 1.0)


def described(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return a row of plain values for each group: what it is, its size, its rate and its weight decay."""
    return [
        {
            "component": group["name"],
            "layer": group.get("layer"),
            "tensors": len(group["params"]),
            "parameters": sum(p.numel() for p in group["params"]),
            "lr": float(group["lr"]),
            "weight_decay": group.get("weight_decay"),
        }
        for group in optimizer.param_groups
    ]
