"""The whole network: encoder, decoder and head, from normalised images to logits of their size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from segreg.errors import SegregError, listed
from segreg.models.contract import (
    as_map,
    check_decoder,
    features_of,
    further_of,
    head_of,
    joined,
    own_terms,
    padded_to,
    pyramids_of,
    weights_of,
)
from segreg.models.pyramid import check_encoder
from segreg.registry.protocols import Decoder, Encoder
from segreg.runtime.device import out_of_memory
from segreg.task import Task

if TYPE_CHECKING:
    from segreg.runtime.device import Precision


AUXILIARY = "auxiliary"
"""Under which name the auxiliary decoder's logits are scored; what else trains it is named after it and a dot."""


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
        task: the classes; a number stands for one class or for several that exclude each other.
        auxiliary: a second decoder, built on this encoder after `decoder`.
        auxiliary_weight: factor of whatever trains the auxiliary decoder.

    Attributes:
        classes: logits of a pixel.
        further: name and weight of each logit map beside the main one that the recipe's losses score in training.
        own_losses: name and weight of each loss that a decoder brings; the recipe's don't score its logits in training.

    Raises:
        SegregError: a part does not keep to its contract, or the encoder was changed after a decoder was built on it.
    """

    encoder: Encoder
    decoder: Decoder
    head: nn.Module
    auxiliary: Decoder | None
    auxiliary_head: nn.Module | None

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        task: Task | int,
        *,
        auxiliary: Decoder | None = None,
        auxiliary_weight: float = 0.4,
    ) -> None:
        super().__init__()
        if isinstance(task, int):
            task = Task(tuple(map(str, range(task))), "binary" if task == 1 else "multiclass")
        check_encoder(encoder)
        for part, role in ((decoder, "decoder"), (auxiliary, "auxiliary decoder")):
            if part is not None:
                check_decoder(part, role, encoder)
        self.classes = task.channels
        self.encoder = encoder
        self.decoder = decoder
        self.head = head_of(decoder, task)
        self.auxiliary = auxiliary
        self.auxiliary_head = head_of(auxiliary, task) if auxiliary is not None else None
        self.auxiliary_weight = auxiliary_weight
        self.further: dict[str, float] = {}
        self.own_losses: dict[str, float] = {}
        for role, part, head in self.decoders():
            factor = auxiliary_weight if role else 1.0
            if own := weights_of(head, "own_losses", part):
                self.own_losses |= {joined(role, name): factor * weight for name, weight in own.items()}
                continue
            scored = {**({"": 1.0} if role else {}), **weights_of(head, "further", part)}
            self.further |= {joined(role, name): factor * weight for name, weight in scored.items()}
        self.size_divisor = math.lcm(*(getattr(part, "size_divisor", 1) for part in (encoder, decoder, auxiliary)))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits.

        Shape: normalised float image `[B, C, H, W]` to `[B, K, H, W]`, unbounded.
        """
        padded = self.pad(image)
        features = features_of(self.decoder(self.encoder(padded)), self.decoder)
        return self._fitted(self.head(features), self.decoder, self.head, image, padded)

    def all_logits(self, image: Tensor) -> list[Tensor]:
        """Return the main logits and then those of `further`, such as the auxiliary decoder's, from one run.

        Shape: normalised float image `[B, C, H, W]` to one or more `[B, K, H, W]`, unbounded.
        """
        return list(self.supervised(image)[0].values())

    def supervised(self, image: Tensor, targets: Tensor | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what training scores, from one run of the encoder: logits by name, and values of `own_losses`.

        The main logits come first, under "". A decoder that brings losses of its own gives logits only without targets.

        Shape: normalised float image `[B, C, H, W]` and int64 targets to logits `[B, K, H, W]`, and float32 scalars.
        """
        padded = self.pad(image)
        levels = self.encoder(padded)
        maps: dict[str, Tensor] = {}
        terms: dict[str, Tensor] = {}
        for role, decoder, head in self.decoders():
            features = features_of(decoder(levels), decoder)
            if targets is not None and weights_of(head, "own_losses", decoder):
                own = own_terms(head, features, padded_to(targets, padded), decoder)
                terms |= {joined(role, name): value for name, value in own.items()}
                continue
            for name, logits in {"": head(features), **further_of(head, features, decoder)}.items():
                maps[joined(role, name)] = self._fitted(logits, decoder, head, image, padded)
        return maps, terms

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

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Tell each decoder that has a method `set_epoch` which epoch of how many begins, from 1."""
        for _, decoder, _ in self.decoders():
            if set_epoch := getattr(decoder, "set_epoch", None):
                set_epoch(epoch, epochs)

    def decoders(self) -> Iterator[tuple[str, Decoder, nn.Module]]:
        """Yield the name of each decoder's logits, the decoder and its head."""
        yield "", self.decoder, self.head
        if self.auxiliary is not None and self.auxiliary_head is not None:
            yield AUXILIARY, self.auxiliary, self.auxiliary_head

    @staticmethod
    def _fitted(logits: Any, decoder: Decoder, head: nn.Module, image: Tensor, padded: Tensor) -> Tensor:
        """Return logits at the image's size.

        16-bit ones are float32 before they are interpolated: bf16 has 256 values between 1 and 2, so that two classes
        would often be equal along their border, and argmax would take the first.
        """
        logits = as_map(logits, "head of decoder", decoder, head)
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
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
    parameters["total"] = sum(parameters.values())
    trained = sum(p.numel() for part in model.parts().values() for p in part.parameters() if p.requires_grad)
    if trained < parameters["total"]:
        parameters["trained"] = trained
    facts: dict[str, Any] = {
        "parameters": parameters,
        "classes": model.classes,
        "size_divisor": model.size_divisor,
        "encoder": {
            "class": type(model.encoder).__name__,
            "channels": list(model.encoder.channels),
            "strides": list(model.encoder.strides),
        },
    }
    for name, part, head in model.decoders():
        notes = dict.fromkeys(note for pyramid in pyramids_of(part) for note in pyramid.notes)
        if own := getattr(head, "own_losses", None):
            notes[f"trained by its own losses, {listed([*own], quote='')}; the recipe's losses score validation"] = None
        facts[name or "decoder"] = {
            "class": type(part).__name__,
            "channels": part.channels,
            "stride": part.stride,
            "notes": [*notes],
        }
    for role in ("encoder", "decoder", AUXILIARY):
        if weights := getattr(getattr(model, role), "weights_note", ""):
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
