"""Which of a network's weights are trained, where not all of its encoder's are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segreg.errors import SegregError
from segreg.models.layers import layers_of
from segreg.models.lora import add_lora

if TYPE_CHECKING:
    from segreg.config.sections import EncoderTraining
    from segreg.models.segmenter import Segmenter

BASE = "frozen"
"""The note in a file of trained weights that identifies the frozen ones that they go with."""


def choose_trained(encoder: Any, chosen: EncoderTraining) -> None:
    """Freeze what a recipe does not train of its encoder, and add what it trains instead, in place.

    Raises:
        SegregError: the encoder has no such layers, or no norms.
    """
    if chosen.lora is not None:
        add_lora(encoder, chosen.lora.rank, chosen.lora.alpha, chosen.lora.targets)
    if chosen.trainable in ("none", "norms"):
        trained = list[nn.Parameter]() if chosen.trainable == "none" else _norms(encoder)
        if chosen.lora is None:
            encoder.requires_grad_(requires_grad=False)
        for parameter in trained:
            parameter.requires_grad_()
    if chosen.freeze_layers:
        numbers, last = layers_of(encoder, "encoder.freeze_layers")
        if chosen.freeze_layers >= last:
            raise SegregError(
                f"encoder.freeze_layers: {chosen.freeze_layers}, and the encoder has {last} layers",
                hint="trainable: none freezes all",
            )
        for name, parameter in encoder.named_parameters():
            if numbers[name] < chosen.freeze_layers:
                parameter.requires_grad_(False)


def _norms(encoder: nn.Module) -> list[nn.Parameter]:
    """Return the weights and biases of layers whose class is called a norm; libraries have many of their own."""
    found = [
        parameter
        for module in encoder.modules()
        if "norm" in type(module).__name__.lower()
        for parameter in module.parameters(recurse=False)
        if parameter.ndim == 1
    ]
    if not found:
        raise SegregError(f"encoder.trainable: norms, and {type(encoder).__name__} has none")
    return found


def settle_frozen(encoder: nn.Module) -> None:
    """Let what is frozen compute as in evaluation: norms with their running statistics, or all where nothing trains.

    Otherwise weights that stay would be given other values by and by than they were trained on.
    """
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        encoder.eval()
    for _, module, trains in _with_training(encoder):
        if isinstance(module, _BatchNorm) and not trains:
            module.eval()


def _with_training(encoder: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Return an encoder's modules by name, and whether they train; one without weights goes with those before it."""
    trains = all(parameter.requires_grad for parameter in encoder.parameters())  # freezing begins at the image
    for name, module in encoder.named_modules(prefix="encoder", remove_duplicate=False):
        if own := list(module.parameters(recurse=False)):
            trains = any(parameter.requires_grad for parameter in own)
        yield name, module, trains


def trained_tensors(model: Segmenter) -> tuple[str, ...]:
    """Return the names in a network's state without those that are frozen in its encoder; none where all are trained.

    A buffer, such as running statistics, goes with the parameters of its module; statistics of a BatchNorm without
    parameters with those before it.
    """
    encoder: Any = model.encoder
    if all(parameter.requires_grad for parameter in encoder.parameters()):
        return ()
    state = model.state_dict()
    kept = [name for name in state if not name.startswith("encoder.")]
    for module_name, module, trains in _with_training(encoder):
        own = module.named_parameters(recurse=False)
        leaves = [leaf for leaf, parameter in own if parameter.requires_grad]
        moves = leaves or (trains and isinstance(module, _BatchNorm))
        leaves += [leaf for leaf, _ in module.named_buffers(recurse=False)] if moves else []
        kept += [name for leaf in leaves if (name := f"{module_name}.{leaf}") in state]
    return tuple(kept)


def digest_of_frozen(model: Segmenter, trained: tuple[str, ...]) -> str:
    """Return a digest of the names and values of what is not trained."""
    found, kept = hashlib.blake2b(digest_size=16), set(trained)
    for name, tensor in model.state_dict().items():
        if name not in kept:
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def reached(loss: Tensor) -> set[Tensor]:
    """Return the parameters that a loss has a gradient for."""
    found, seen, ahead = set(), set(), [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(variable)
        ahead += [before for before, _ in node.next_functions]
    return found
