"""Do an encoder, a decoder and its head give what they declare? One empty image tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from segreg.errors import SegregError, plural, with_article
from segreg.models.contract import as_map, first_map, further_of, place_of, pyramids_of
from segreg.models.segmenter import Segmenter
from segreg.registry.entry import where_made


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
    words = f"an image of {image_size[0]}x{image_size[1]} with {plural(in_channels, 'channel')}"
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
    for name, decoder, head in model.decoders():
        role = f"{name} decoder".lstrip()
        title = f"{role} {type(decoder).__name__}"
        features = _tried(f"{title} on {type(model.encoder).__name__}", words, decoder, levels)
        # Resampled levels take the image's size from the finest level, which knows it to within its own stride.
        pixels = decoder.stride / max((pyramid.scale for pyramid in pyramids_of(decoder)), default=1)
        slack = 1 + model.encoder.strides[0] / pixels
        _compare(title, first_map(features, decoder), decoder.channels, pixels, image=padded, slack=slack)
        logits = _tried(f"the head of {title}", words, head, features)
        for given in (logits, *further_of(head, features, decoder).values()):
            if as_map(given, f"head of {role}", decoder, head).shape[1] != model.classes:
                raise SegregError(
                    f"the head of {title} gives {list(given.shape)} for {model.classes} classes",
                    hint=f"it is defined at {place_of(decoder, head)}",
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
