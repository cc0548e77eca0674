"""Where torchvision's segmentation weights come from, and how a checkpoint is shared out to encoder and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from segreg.errors import SegregError, listed
from segreg.registry.protocols import Encoder
from segreg.runtime.hub import local_path
from segreg_plugins.pretrained import Fallback, WebFile, obtain

PUBLISHED = "COCO_WITH_VOC_LABELS_V1"


class Fillable(Protocol):
    """A decoder that a checkpoint fills: see `TorchvisionHead`."""

    layers: nn.Sequential
    last: Mapping[str, Tensor] | None
    weights_note: str


class Checkpoint:
    """A state laid out as torchvision's segmentation models: `backbone.`, `classifier.` and `aux_classifier.`.

    Attributes:
        name: what it is called in notes and messages.
        state: its tensors by key.
    """

    def __init__(self, name: str, state: Mapping[str, Tensor]) -> None:
        self.name = name
        self.state = state

    @classmethod
    def of(
        cls,
        architecture: Literal["deeplabv3", "fcn"],
        weights: str | None,
        encoder: Encoder,
        decoder: Fillable,
        *,
        fallback: Fallback,
    ) -> Checkpoint | None:
        """Return the checkpoint that `weights` names, or None for random weights.

        Raises:
            SegregError: no such tag or file, or it is not available or read.
        """
        if weights is None:
            return None
        if weights != PUBLISHED:
            return cls(weights, _read(local_path(weights)))
        address = _published(architecture, encoder)
        path, decoder.weights_note = obtain(
            WebFile(address), part=f"decoder torchvision.{architecture}", weights=weights, fallback=fallback
        )
        return None if path is None else cls(f"torchvision's {architecture} {PUBLISHED}", _read(path))

    def fill(self, decoder: Fillable, prefix: str, encoder: Encoder | None) -> None:
        """Load what lies under `prefix` into the decoder and, where it fits, `backbone.` into the encoder.

        Raises:
            SegregError: the file has no such layers, or others than the decoder has.
        """
        classifier = _under(self.state, prefix)
        last = str(len(decoder.layers))
        final = {name: classifier.pop(f"{last}.{name}", None) for name in ("weight", "bias")}
        if not classifier or any(tensor is None for tensor in final.values()):
            raise SegregError(
                f"{self.name} has no {prefix.rstrip('.')!r} as torchvision's segmentation models have it",
                hint=f"it has {listed(sorted({key.split('.')[0] for key in self.state}))}",
            )
        wanted = decoder.layers.state_dict()
        if wrong := _differences(classifier, wanted):
            raise SegregError(
                f"{self.name} does not fit this decoder: {prefix}{wrong[0]}",
                hint="torchvision's DeepLabV3 takes 2048 channels from a ResNet-50 or ResNet-101",
            )
        decoder.layers.load_state_dict(classifier)
        decoder.last = {name: tensor for name, tensor in final.items() if tensor is not None}
        notes = [f"{self.name}: decoder: loaded"]
        if encoder is not None:
            notes.append(f"encoder: {_fill_encoder(encoder, _under(self.state, 'backbone.'))}")
        decoder.weights_note = "; ".join(notes)


def _fill_encoder(encoder: Any, backbone: dict[str, Tensor]) -> str:
    """Load torchvision's backbone where the encoder has its layers, and say what was done."""
    own = encoder.state_dict()
    first = next(iter(backbone), "")
    prefixes = [key.removesuffix(first) for key in own if first and key.endswith(first)]
    found = [prefix for prefix in prefixes if all(prefix + key in own for key in backbone)]
    title = f"left as it is, for {type(encoder).__name__}"
    if not found:
        return f"{title} has not the layers of the file's backbone"
    layers = {key.removeprefix(found[0]): key for key in own if key.startswith(found[0])}
    if more := [key for key in layers if key not in backbone and not key.startswith("fc.")]:
        return f"{title} has layers that the file's backbone has not, such as {more[0]}"
    state = {found[0] + key: tensor for key, tensor in backbone.items()}
    entry = found[0] + first
    note = "loaded"
    if state[entry].ndim == 4 and state[entry].shape[1] != own[entry].shape[1]:
        channels = own[entry].shape[1]
        note = f"loaded, its first layer fitted from {state[entry].shape[1]} to {channels} input channels"
        state[entry] = with_input_channels(state[entry], channels)
    if wrong := _differences(state, {key: own[key] for key in state}):
        return f"{title} has other layers: {wrong[0]}"
    encoder.load_state_dict({**own, **state})
    return note


def with_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Return a first convolution's weights for other input channels, so that a grey image gives the same features.

    Shape: `[out, C, h, w]` to `[out, channels, h, w]`: the sum for one channel, the old ones in turn for more, scaled.
    """
    had = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, [i % had for i in range(channels)]] * (had / channels)


def _published(architecture: str, encoder: Any) -> str:
    """Return the address of torchvision's published checkpoint for an encoder."""
    from torchvision.models import segmentation

    if architecture == "deeplabv3" and getattr(encoder, "member", "") == "mobilenet_v3_large":
        return str(segmentation.DeepLabV3_MobileNet_V3_Large_Weights[PUBLISHED].url)
    keys = [key.split("layer3.")[-1] for key in encoder.state_dict() if "layer3." in key and "conv3" in key]
    blocks = len([key for key in keys if key.endswith("conv3.weight")])
    names = {6: "ResNet50", 23: "ResNet101"}
    if blocks not in names:
        raise SegregError(
            f"torchvision publishes {PUBLISHED} for its ResNet-50 and ResNet-101; "
            f"encoder {type(encoder).__name__} is neither",
            hint="choose such an encoder, set weights to a file, or set it to null",
        )
    title = {"deeplabv3": "DeepLabV3", "fcn": "FCN"}[architecture]
    enum = getattr(segmentation, f"{title}_{names[blocks]}_Weights")
    return str(enum[PUBLISHED].url)


def _read(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a .pth or .safetensors file, running no code that it may hold.

    Raises:
        SegregError: no such file, or none of tensors.
    """
    if not file.is_file():
        raise SegregError(
            f"weights: there is no file {str(file)!r}", hint=f'the published weights are named "{PUBLISHED}"'
        )
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not a checkpoint can raise nearly anything
        reason = (str(error) or "it ends too soon").splitlines()[0]
        raise SegregError(f"weights: {file} can't be read: {reason}") from error
    # torchvision's own training script saves the model beside the optimizer.
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise SegregError(f"weights: {file} holds no state of tensors by name")
    return state


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _differences(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{key} is missing" for key in wanted if key not in given]
    extra = [f"{key} is too much" for key in given if key not in wanted]
    shapes = [
        f"{key} is {list(given[key].shape)} where {list(wanted[key].shape)} was expected"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    return [*shapes, *missing, *extra]
