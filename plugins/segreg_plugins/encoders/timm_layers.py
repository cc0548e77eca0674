"""What timm says of a model's parameters: in which layer each is, and which are best left without weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import nn


@dataclass(frozen=True)
class Said:
    """What timm says, by the names that the parameters have in an encoder.

    Attributes:
        layer_groups: the layers of timm's `group_matcher` but the last, the classifier's, to which a last norm may
            belong; none where a model has no such.
        no_weight_decay: what timm's model wants no weight decay for.
    """

    layer_groups: list[list[str]]
    no_weight_decay: list[str]

    @classmethod
    def of(cls, member: str, arguments: Mapping[str, Any], network: nn.Module) -> Said:
        """Ask timm's model, with a classifier and without values, which takes a tenth of a second or more.

        Args:
            member: timm's name of it.
            arguments: what it was made with.
            network: what `features_only` made of it, which an encoder calls `network`.
        """
        given = {name: value for name, value in arguments.items() if name != "out_indices"}
        with torch.device("meta"):
            whole: Any = timm.create_model(member, pretrained=False, **{**given, "num_classes": 2})
        names = _names(whole, network)
        undecayed: set[str] = getattr(whole, "no_weight_decay", set)()
        return cls(_layers(whole, names), [names[name] for name in undecayed if name in names])


def _layers(whole: Any, names: Mapping[str, str]) -> list[list[str]]:
    if not callable(getattr(whole, "group_matcher", None)):
        return []
    numbers: dict[str, int] = group_parameters(whole, whole.group_matcher(coarse=False), reverse=True)
    plain = {name for name, module in whole.named_modules() if not any(True for _ in module.children())}
    layers: list[dict[str, None]] = [{} for _ in range(max(numbers.values()))]
    for name, number in numbers.items():
        if name in names and number < len(layers):
            # Of a plain layer the module, so that what is put beside its weights belongs there too.
            whose = name.rpartition(".")[0]
            layers[number][names[name].rpartition(".")[0] if whose in plain else names[name]] = None
    return [list(layer) for layer in layers]


def _names(whole: nn.Module, network: nn.Module) -> dict[str, str]:
    """Return how those of a model's parameters that an encoder has are called there.

    `features_only` puts a model into a wrapper, or takes its modules out of it and joins the first two words of their
    names.
    """
    modules = {name for name, module in network.named_modules() if any(True for _ in module.parameters())}
    parameters = {name for name, _ in network.named_parameters()}
    names = {}
    for name, _ in whole.named_parameters():
        module, dot, leaf = name.rpartition(".")
        for renamed in (f"model.{module}", f"body.{module}", module, module.replace(".", "_", 1)):
            here = f"{renamed}{dot}{leaf}"
            if here in parameters or (module and renamed in modules):
                names[name] = f"network.{here}"
                break
    return names
