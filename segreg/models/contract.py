"""What decoders and their heads promise and give: layers, maps, weights and losses of their own, each checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.errors import SegregError, listed, with_article
from segreg.models.pyramid import Pyramid, is_count
from segreg.registry.entry import where_made
from segreg.registry.protocols import Encoder
from segreg.task import IGNORE_INDEX, Task


def check_decoder(decoder: object, role: str, encoder: Encoder) -> None:
    """Refuse what is not a decoder built on this encoder.

    Raises:
        SegregError: no `nn.Module`, `channels`, `stride` or `size_divisor` that can't be, or levels that the encoder no
            longer has.
    """
    title = f"{role} {type(decoder).__name__}"
    if not isinstance(decoder, nn.Module):
        raise SegregError(f"{title} is not a nn.Module")
    for name, otherwise in (("channels", None), ("stride", None), ("size_divisor", 1)):
        value = getattr(decoder, name, otherwise)
        if not is_count(value):
            raise SegregError(f"{title} has {name} {value!r}; a positive integer was expected")
    for pyramid in pyramids_of(decoder):
        if pyramid.encoder_strides != tuple(encoder.strides):
            raise SegregError(
                f"{title} was built on levels of strides {list(pyramid.encoder_strides)}, but the encoder's have since "
                f"become {list(encoder.strides)}",
                hint="give decoder and auxiliary decoder the same output_stride",
            )


def head_of(decoder: Any, task: Task) -> nn.Module:
    """Return the layers from what a decoder gives to logits: its own, or else a 1x1 convolution.

    Raises:
        SegregError: its own head is something other than an `nn.Module`.
    """
    offered = {"task_head(task)": task, "head(classes)": task.channels}
    for method, given in offered.items():
        make = getattr(decoder, method.partition("(")[0], None)
        if callable(make) and not isinstance(make, nn.Module):
            head = make(given)
            if not isinstance(head, nn.Module):
                raise SegregError(f"{method} of decoder {type(decoder).__name__} gives no nn.Module")
            return head
    return nn.Conv2d(decoder.channels, task.channels, kernel_size=1)


def features_of(given: Any, decoder: Any) -> Any:
    """Return what a decoder gives to its head: a map of features or, to its own head, a tuple that begins with one.

    Raises:
        SegregError: it is neither.
    """
    as_map(first_map(given, decoder), "decoder", decoder)
    return given


def first_map(given: Any, decoder: Any) -> Any:
    """Return the map of features in what a decoder gives to its head."""
    own_head = hasattr(decoder, "task_head") or hasattr(decoder, "head")
    return given[0] if isinstance(given, tuple) and given and own_head else given


def as_map(given: Any, role: str, decoder: Any, part: Any = None) -> Tensor:
    """Return what a decoder or a head gives.

    Raises:
        SegregError: it is not a map of features.
    """
    if not isinstance(given, Tensor) or given.ndim != 4:
        keys = f" with {listed([str(key) for key in given])}" if isinstance(given, Mapping) else ""
        shape = list(given.shape) if isinstance(given, Tensor) else f"{with_article(type(given).__name__)}{keys}"
        raise SegregError(
            f"the {role} {type(decoder).__name__} gives {shape} where [B, C, H, W] was expected",
            hint=f"return one tensor, in training too; it is defined at {place_of(decoder, part)}",
        )
    return given


def weights_of(head: Any, name: str, decoder: Any) -> Mapping[str, float]:
    """Return names and weights of a head's `further` logit maps or of its `own_losses`; none where it offers none.

    Raises:
        SegregError: they are not names and numbers above 0.
    """
    weights = getattr(head, name, {})
    if not isinstance(weights, Mapping) or not all(
        isinstance(key, str) and key and isinstance(value, (int, float)) and value > 0 for key, value in weights.items()
    ):
        raise SegregError(
            f"the head of decoder {type(decoder).__name__} has {name} {weights!r}; names with weights above 0 were "
            "expected",
            hint=f"it is defined at {place_of(decoder, head)}",
        )
    return weights


def further_of(head: Any, features: Any, decoder: Any) -> dict[str, Tensor]:
    """Return a head's further logit maps by their names; none where it offers none.

    Raises:
        SegregError: there are more or fewer of them than names.
    """
    names = weights_of(head, "further", decoder)
    return _by_name(names, head.further_logits(features), "further maps", head, decoder) if names else {}


def own_terms(head: Any, features: Any, targets: Tensor, decoder: Any) -> dict[str, Tensor]:
    """Return the values of a head's own losses by their names, of features in float32.

    Raises:
        SegregError: there are more or fewer of them than names.
    """
    with torch.autocast(targets.device.type, enabled=False):
        exact = tuple(one.float() for one in features) if isinstance(features, tuple) else features.float()
        given = head.loss_terms(exact, targets)
    return _by_name(weights_of(head, "own_losses", decoder), given, "loss terms", head, decoder)


def _by_name(
    names: Mapping[str, float], given: Sequence[Tensor], what: str, head: Any, decoder: Any
) -> dict[str, Tensor]:
    if len(given) != len(names):
        raise SegregError(
            f"the head of decoder {type(decoder).__name__} gives {len(given)} {what}, but names {len(names)}",
            hint=f"it is defined at {place_of(decoder, head)}",
        )
    return dict(zip(names, given, strict=True))


def padded_to(targets: Tensor, image: Tensor) -> Tensor:
    """Return targets at the size of a padded image, whose border counts for nothing."""
    down, right = (side - have for side, have in zip(image.shape[-2:], targets.shape[-2:], strict=True))
    return F.pad(targets, (0, right, 0, down), value=IGNORE_INDEX) if down or right else targets


def joined(*names: str) -> str:
    """Return names with dots between them, without those that are empty."""
    return ".".join(filter(None, names))


def place_of(decoder: Any, head: Any) -> str:
    """Return "file:line" of a head, or of its decoder where the head is none of the decoder's own classes."""
    own = head is not None and not type(head).__module__.startswith("torch.")
    return where_made(head if own else decoder)


def pyramids_of(decoder: Any) -> list[Pyramid]:
    """Return what makes the levels that a decoder gets."""
    return [module for module in decoder.modules() if isinstance(module, Pyramid)]
