"""Which layer of an encoder an image meets first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass
class FirstLayer:
    """The module with parameters of its own that ran first.

    Attributes:
        name: below the encoder; empty until one has run.
        parameters: its own.
    """

    name: str = ""
    parameters: list[nn.Parameter] = field(default_factory=list)


@contextmanager
def first_layer(encoder: nn.Module) -> Iterator[FirstLayer]:
    """Watch which layer runs first while the context lasts."""
    first = FirstLayer()

    def ran(name: str, module: nn.Module) -> None:
        if not first.parameters:
            first.name, first.parameters = name, list(module.parameters(recurse=False))

    def watched(name: str, module: nn.Module) -> Any:
        return module.register_forward_hook(lambda *_: ran(name, module))

    hooks = [
        watched(name, module)
        for name, module in encoder.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    try:
        yield first
    finally:
        for hook in hooks:
            hook.remove()
