"""The whole network: encoder, decoder and head, from normalised images to logits of their size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from segreg.errors import SegregError, listed, with_article
from segreg.models.pyramid import Pyramid, check_encoder
from segreg.registry.entry import where_made
from segreg.registry.protocols import Decoder, Encoder
from segreg.runtime.device import out_of_memory

if TYPE_CHECKING:
    from segreg.runtime.device import Precision


class Normalize(nn.Module):
    """Turns pixel values into what the encoder was trained on.

    Shape: `[B, C, H, W]`, uint8 or float, to float32 of the same shape: `(value / value_range - mean) / std`.

    Args:
        mean: of each channel's values, of integers in [0, 1].
        std: their standard deviation.
        value_range: the largest integer, 255 or 65535; 1 for values in their own units.

    Raises:
        SegregError: `mean` and `std` differ in length, a deviation is not above 0, or the image's channels differ.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], value_range: float = 255.0) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise SegregError(f"normalisation has {len(mean)} means for {len(std)} standard deviations")
        if min(std) <= 0:
            raise SegregError(f"normalisation has a standard deviation of {min(std)}; it must be above 0")
        self.value_range = value_range
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return the normalised image."""
        if image.shape[1] != self.mean.shape[1]:
            raise SegregError(
                f"an image has {image.shape[1]} channels, but normalisation has {self.mean.shape[1]} means",
                hint="input.mean and input.std need one number for each of input.channels",
            )
        return (image.float() / self.value_range - self.mean) / self.std


class Segmenter(nn.Module):
    """An encoder, a decoder and a head; in training also an auxiliary decoder on the same levels.

    Images of any size are taken. Where a part needs sides that are multiples of its `size_divisor`, or the encoder just
    one `image_size`, the image is padded at the right and at the bottom by repeating its border, and the logits are
    cropped again. (Zeros would draw an edge, and mirroring can't pad a small image by more than its own size.)

    Args:
        encoder: gives the levels.
        decoder: built on this encoder.
        classes: logits of a pixel, `Task.channels`.
        auxiliary: a second decoder, built on this encoder after `decoder`.

    Raises:
        SegregError: a part does not keep to its contract, or the encoder was changed after a decoder was built on it.
    """

    encoder: Encoder
    decoder: Decoder
    head: nn.Module
    auxiliary: Decoder | None
    auxiliary_head: nn.Module | None

    def __init__(self, encoder: Encoder, decoder: Decoder, classes: int, *, auxiliary: Decoder | None = None) -> None:
        super().__init__()
        check_encoder(encoder)
        for part, role in ((decoder, "decoder"), (auxiliary, "auxiliary decoder")):
            if part is not None:
                _check_decoder(part, role, encoder)
        self.classes = classes
        self.encoder = encoder
        self.decoder = decoder
        self.head = _head(decoder, classes)
        self.auxiliary = auxiliary
        self.auxiliary_head = _head(auxiliary, classes) if auxiliary is not None else None
        self.size_divisor = math.lcm(*(getattr(part, "size_divisor", 1) for part in (encoder, decoder, auxiliary)))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits.

        Shape: normalised float image `[B, C, H, W]` to `[B, K, H, W]`, unbounded.
        """
        padded = self.pad(image)
        return self._logits(self.encoder(padded), self.decoder, self.head, image, padded)

    def all_logits(self, image: Tensor) -> list[Tensor]:
        """Return the decoder's logits and then the auxiliary decoder's, from one run of the encoder.

        Shape: normalised float image `[B, C, H, W]` to one or two `[B, K, H, W]`, unbounded.
        """
        padded = self.pad(image)
        levels = self.encoder(padded)
        logits = [self._logits(levels, self.decoder, self.head, image, padded)]
        if self.auxiliary is not None and self.auxiliary_head is not None:
            logits.append(self._logits(levels, self.auxiliary, self.auxiliary_head, image, padded))
        return logits

    def pad(self, image: Tensor) -> Tensor:
        """Return the image with sides that the parts take; the same tensor where it has them.

        An image larger than the one size that an encoder takes is left so, for the encoder to refuse.
        """
        least = getattr(self.encoder, "image_size", None) or (1, 1)
        down, right = missing_border(image.shape[-2:], self.size_divisor, least)
        return F.pad(image, (0, right, 0, down), mode="replicate") if down or right else image

    def parts(self) -> dict[str, nn.Module]:
        """Return the modules that a learning rate can be set for: encoder, decoder, head and, if any, auxiliary."""
        named: dict[str, Any] = {"encoder": self.encoder, "decoder": self.decoder, "head": self.head}
        if self.auxiliary is not None:
            named["auxiliary"] = nn.ModuleList([self.auxiliary, self.auxiliary_head])  # type: ignore[list-item]
        return named

    @staticmethod
    def _logits(levels: Sequence[Tensor], decoder: Decoder, head: nn.Module, image: Tensor, padded: Tensor) -> Tensor:
        logits = _map(head(_map(decoder(levels), "decoder", decoder)), "head of decoder", decoder, head)
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., : image.shape[-2], : image.shape[-1]]


def missing_border(size: Sequence[int], multiple: int, least: Sequence[int]) -> tuple[int, int]:
    """Return how many rows below and columns at the right an image of `size` lacks of what a network takes.

    Args:
        size: its height and width.
        multiple: the network's sides are multiples of it.
        least: height and width that the network takes at least.
    """
    lacks = [-side % multiple for side in size]
    # Where any size will do, sizes are not compared: in a graph that is traced for all sizes that would be an operator.
    down, right = (
        max(lack, one - side) if one > 1 else lack for lack, one, side in zip(lacks, least, size, strict=True)
    )
    return down, right


def _map(given: Any, role: str, decoder: Any, part: Any = None) -> Tensor:
    """Return what a decoder or a head gives.

    Raises:
        SegregError: it is not a map of features.
    """
    if not isinstance(given, Tensor) or given.ndim != 4:
        keys = f" with {listed([str(key) for key in given])}" if isinstance(given, Mapping) else ""
        shape = list(given.shape) if isinstance(given, Tensor) else f"{with_article(type(given).__name__)}{keys}"
        raise SegregError(
            f"the {role} {type(decoder).__name__} gives {shape} where [B, C, H, W] was expected",
            hint=f"return one tensor, in training too; it is defined at {_place(decoder, part)}",
        )
    return given


def _place(decoder: Any, head: Any) -> str:
    """Return "file:line" of a head, or of its decoder where the head is none of the decoder's own classes."""
    own = head is not None and not type(head).__module__.startswith("torch.")
    return where_made(head if own else decoder)


def predict_logits(
    model: nn.Module, normalize: nn.Module, images: Tensor, device: torch.device, precision: Precision
) -> Tensor:
    """Return float32 logits `[B, K, H, W]` for uint8 images `[B, C, H, W]`, on `device`.

    Validation, the final results, `segreg evaluate` and `segreg predict` all come here, so that the same weights give
    the same numbers. The images take the memory layout of the weights; a batch that memory has no room for is computed
    in halves.
    """
    try:
        with torch.no_grad(), precision.predicting(device):
            shown = images.to(device, non_blocking=True).contiguous(memory_format=_layout(model))
            logits: Tensor = model(normalize(shown))
        return logits.float()
    except Exception as error:
        if len(images) == 1 or not out_of_memory(error):
            raise
    # Outside the except block, where the error would keep the tensors alive that did not fit.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return torch.cat([predict_logits(model, normalize, half, device, precision) for half in images.tensor_split(2)])


def _layout(model: nn.Module) -> torch.memory_format:
    """Return the memory layout of a network's weights, by the first that has one of the two; else channels-last."""
    for weight in model.parameters():
        last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
        if weight.ndim == 4 and last != weight.is_contiguous():
            return torch.channels_last if last else torch.contiguous_format
    return torch.channels_last


def describe(model: Segmenter) -> dict[str, Any]:
    """Return facts about a model for a run's header and its environment file: plain values only."""
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in model.parts().items()}
    decoders: dict[str, Any] = {"decoder": model.decoder}
    if model.auxiliary is not None:
        decoders["auxiliary"] = model.auxiliary
    facts: dict[str, Any] = {
        "parameters": {**parameters, "total": sum(parameters.values())},
        "classes": model.classes,
        "size_divisor": model.size_divisor,
        "encoder": {
            "class": type(model.encoder).__name__,
            "channels": list(model.encoder.channels),
            "strides": list(model.encoder.strides),
        },
    }
    for role, part in decoders.items():
        facts[role] = {
            "class": type(part).__name__,
            "channels": part.channels,
            "stride": part.stride,
            "notes": [*dict.fromkeys(note for pyramid in _pyramids(part) for note in pyramid.notes)],
        }
    for role, part in {"encoder": model.encoder, **decoders}.items():
        if weights := getattr(part, "weights_note", ""):
            facts[role]["weights"] = weights
    return facts


def meta_forward(network: nn.Module, channels: int, size: tuple[int, int]) -> Any:
    """Return the network's output for an image `[1, channels, *size]` on the meta device: shapes and no values."""
    # Tying would swap a layer that occurs twice two times, and put back what it was given the first time.
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    image = torch.empty(1, channels, *size, device="meta")
    with torch.no_grad():
        return functional_call(network, shapes, (image,), tie_weights=False)


def verify(model: Segmenter, image_size: tuple[int, int], in_channels: int) -> None:
    """Run one empty image through the model and compares what its parts declare with what they give.

    The model is left as it was: evaluation mode and no gradients for this one run, on the device where it lies.

    Args:
        model: to be tried.
        image_size: height and width in pixels.
        in_channels: channels of the image.

    Raises:
        SegregError: a part fails, or declares channels or strides that its output does not have.
    """
    training = {module: module.training for module in model.modules()}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    words = f"an image of {image_size[0]}x{image_size[1]} with {in_channels} channel{'' if in_channels == 1 else 's'}"
    try:
        with torch.no_grad():
            model.eval()
            _verify(model, torch.zeros(1, in_channels, *image_size, device=device), words)
    finally:
        for module, mode in training.items():
            module.training = mode


def _verify(model: Segmenter, image: Tensor, words: str) -> None:
    padded = model.pad(image)
    title = f"encoder {type(model.encoder).__name__}"
    levels = _tried(title, words, model.encoder, padded)
    if not isinstance(levels, Sequence):
        given = f"a tensor {list(levels.shape)}" if isinstance(levels, Tensor) else with_article(type(levels).__name__)
        raise SegregError(
            f"{title} gives {given} where a list of levels was expected, finest first",
            hint=f"it is defined at {where_made(model.encoder)}",
        )
    if len(levels) != len(model.encoder.strides):
        raise SegregError(f"{title} gives {len(levels)} levels, but declares {len(model.encoder.strides)}")
    declared = zip(model.encoder.channels, model.encoder.strides, strict=True)
    for number, (level, (channels, stride)) in enumerate(zip(levels, declared, strict=True), start=1):
        _compare(f"{title}, level {number} of {len(levels)},", level, channels, stride, image=padded, slack=1)
    roles = [("decoder", model.decoder, model.head)]
    if model.auxiliary is not None and model.auxiliary_head is not None:
        roles.append(("auxiliary decoder", model.auxiliary, model.auxiliary_head))
    for role, decoder, head in roles:
        title = f"{role} {type(decoder).__name__}"
        features = _tried(f"{title} on {type(model.encoder).__name__}", words, decoder, levels)
        # Resampled levels take the image's size from the finest level, which knows it to within its own stride.
        pixels = decoder.stride / max((pyramid.scale for pyramid in _pyramids(decoder)), default=1)
        slack = 1 + model.encoder.strides[0] / pixels
        _compare(title, features, decoder.channels, pixels, image=padded, slack=slack)
        logits = _tried(f"the head of {title}", words, head, features)
        logits = _map(logits, f"head of {role}", decoder, head)
        if logits.shape[1] != model.classes:
            raise SegregError(
                f"the head of {title} gives {list(logits.shape)} for {model.classes} classes",
                hint=f"it is defined at {_place(decoder, head)}",
            )


def _tried(title: str, words: str, part: Any, given: Any) -> Any:
    try:
        return part(given)
    except SegregError:
        raise
    except Exception as error:  # whatever a plugin's network raises is reported, and chained for its author
        raise SegregError(f"{title} can't take {words}: {type(error).__name__}: {error}") from error


def _compare(title: str, features: Any, channels: int, stride: float, *, image: Tensor, slack: float) -> None:
    if not isinstance(features, Tensor) or features.ndim != 4:
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise SegregError(f"{title} gives {shape} where [B, C, H, W] was expected")
    if features.shape[1] != channels:
        raise SegregError(f"{title} declares {channels} channels, but gives {features.shape[1]}")
    wanted, got = image.shape[-2:], features.shape[-2:]
    if any(abs(side - whole / stride) > slack for side, whole in zip(got, wanted, strict=True)):
        expected = "x".join(str(math.ceil(side / stride)) for side in wanted)
        raise SegregError(
            f"{title} declares stride {stride:g}, but gives {got[0]}x{got[1]} for an image of {wanted[0]}x{wanted[1]}, "
            f"where about {expected} was expected"
        )


def _check_decoder(decoder: object, role: str, encoder: Encoder) -> None:
    title = f"{role} {type(decoder).__name__}"
    if not isinstance(decoder, nn.Module):
        raise SegregError(f"{title} is not a nn.Module")
    for name in ("channels", "stride"):
        value = getattr(decoder, name, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SegregError(f"{title} has {name} {value!r}; a positive integer was expected")
    for pyramid in _pyramids(decoder):
        if pyramid.encoder_strides != tuple(encoder.strides):
            raise SegregError(
                f"{title} was built on levels of strides {list(pyramid.encoder_strides)}, but the encoder's have since "
                f"become {list(encoder.strides)}",
                hint="give decoder and auxiliary decoder the same output_stride",
            )


def _pyramids(decoder: Any) -> list[Pyramid]:
    return [module for module in decoder.modules() if isinstance(module, Pyramid)]


def _head(decoder: Any, classes: int) -> nn.Module:
    make = getattr(decoder, "head", None)
    if callable(make) and not isinstance(make, nn.Module):
        head = make(classes)
        if not isinstance(head, nn.Module):
            raise SegregError(f"head(classes) of decoder {type(decoder).__name__} gives no nn.Module")
        return head
    return nn.Conv2d(decoder.channels, classes, kernel_size=1)
