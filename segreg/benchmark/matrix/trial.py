"""Try one encoder with decoders: what a cell of the matrix checks.

The encoder is built once for each number of channels and copied for each decoder. Its levels of an image are computed
once for all decoders that leave the copy in the same state. An encoder that takes a single size is built for each size
instead, as a recipe would build it, and larger ones are tried on shapes alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from segreg.benchmark.matrix.gradient import first_layer
from segreg.benchmark.matrix.record import Cell, Row
from segreg.benchmark.matrix.shapes import Recorded, noise, on_shapes, outlined
from segreg.config.resolve import Choice
from segreg.errors import SegregError
from segreg.models.build import encoder_for
from segreg.models.segmenter import Segmenter, describe, verify
from segreg.registry.protocols import Decoder, Encoder

CLASSES = 5
_OWN_SIZE = (224, 224)
_SMALL_SIDES = (64, 96, 128)

_State: TypeAlias = dict[int, Recorded]
"""What an encoder does once a decoder has been built on it, by the channels of the image."""


@dataclass(frozen=True)
class Checks:
    """What is tried besides the declared levels and the training step.

    Attributes:
        sizes: heights and widths for images of three channels; the default ones are common, odd, and tall.
        own_size: whether the encoder's own size is among them.
        channels: other numbers of channels, each at one small odd size.
    """

    sizes: tuple[tuple[int, int], ...] = ((320, 320), (250, 333), (416, 96))
    own_size: bool = True
    channels: tuple[int, ...] = (1, 4, 6)


WHOLE = Checks()
"""Every check."""


def tried(encoder: Choice, decoders: Sequence[Choice], family: str, checks: Checks = WHOLE) -> Iterator[Row | Cell]:
    """Return the encoder, and then each decoder on it as soon as it has been tried.

    Whatever a part raises is told in its cell.
    """
    name = _named(encoder)
    try:
        subject = _Subject(encoder)
        fresh = subject.made
        own_size = _own_size(fresh)
        row = Row(
            name,
            family,
            parameters=sum(parameter.numel() for parameter in fresh.parameters()),
            channels=tuple(fresh.channels),
            strides=tuple(fresh.strides),
            native=own_size,
            seconds=round(time.process_time(), 3),
        )
    except Exception as error:
        row = Row(name, family, reason=in_one_sentence(error), seconds=round(time.process_time(), 3))
        yield row
        yield from (Cell(name, _named(decoder), "the encoder is built", row.reason) for decoder in decoders)
        return
    yield row
    sizes = tuple(dict.fromkeys(((own_size,) if checks.own_size else ()) + checks.sizes))
    for decoder in decoders:
        yield _cell(subject, decoder, replace(checks, sizes=sizes))


def in_one_sentence(error: BaseException) -> str:
    """Return an error's message on one line, behind its type unless it is segreg's own."""
    text = error.problems[0].message if isinstance(error, SegregError) else f"{type(error).__name__}: {error}"
    line = " ".join(text.strip().split("\n\n")[0].split())
    return line if len(line) <= 300 else f"{line[:297]}..."


def _named(choice: Choice) -> str:
    return f"{choice.part.name}@{choice.distribution}" if choice.distribution else choice.part.name


def _copied(encoder: Any) -> Any:
    """Return a copy that shares the parameters, which nothing here changes; layers and buffers are its own."""
    return copy.deepcopy(encoder, {id(parameter): parameter for parameter in encoder.parameters()})


def _own_size(encoder: Any) -> tuple[int, int]:
    """Return the height and width that the encoder says it was made for."""
    named = getattr(encoder, "image_size", None) or getattr(encoder, "native_size", None) or _OWN_SIZE
    height, width = (int(side) for side in named)
    return height, width


class _Subject:
    """An encoder under trial and what was computed of it."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        torch.manual_seed(0)
        self.made: Any = choice.build(3)
        if not isinstance(self.made, Encoder):
            raise SegregError(f"the builder gives {type(self.made).__name__}, no nn.Module with channels and strides")
        self.one_size = getattr(self.made, "image_size", None) is not None
        self.small = _small(self.made)
        self._fresh: dict[tuple[int, tuple[int, int] | None], Any] = {}
        self._states: dict[str, _State] = {}

    def fresh(self, channels: int, size: tuple[int, int]) -> Any:
        """Return the encoder for images of `channels`, and of `size` if it takes one size only, as it was built."""
        key = (channels, size if self.one_size else None)
        if key == (3, None):
            return self.made
        if key not in self._fresh:
            torch.manual_seed(0)
            self._fresh[key] = encoder_for(self.choice, channels, size)
        return self._fresh[key]

    def model(self, decoder: Choice, channels: int, size: tuple[int, int]) -> Segmenter:
        """Return `decoder` on a copy of the encoder for images of `channels` and `size`."""
        encoder = _copied(self.fresh(channels, size))
        torch.manual_seed(0)
        built = decoder.build(encoder)
        if not isinstance(built, Decoder):
            raise SegregError(f"the builder gives {type(built).__name__}, no nn.Module with channels and stride")
        return Segmenter(encoder, built, CLASSES)

    def state(self, model: Segmenter, size: tuple[int, int]) -> _State:
        """Return the state that the model's encoder is in; that it does the same is tried on an image of `size`."""
        encoder: Any = model.encoder
        height, width = model.pad(noise(3, size)).shape[-2:]
        # A network's description has the stride and the dilation of every layer.
        form = f"{list(encoder.channels)} {list(encoder.strides)} {encoder!r}"
        known = self._states.get(form)
        if known is not None and known[3].gives_what(encoder, (height, width)):
            return known
        state = {3: Recorded(_copied(encoder), 3)}  # for training changes BatchNorm's statistics
        return self._states.setdefault(form, state) if known is None else state

    def recorded(self, state: _State, decoder: Choice, channels: int, size: tuple[int, int]) -> Recorded:
        """Return the encoder for images of `channels` and `size`, which `decoder` has brought into that state."""
        if channels not in state:
            other = Recorded(self.model(decoder, channels, size).encoder, channels)
            usual = state[3]
            if (other.channels, other.strides) != (usual.channels, usual.strides):
                raise SegregError(
                    f"the encoder's levels have channels {other.channels} and strides {other.strides} for images of "
                    f"{channels} channels, {usual.channels} and {usual.strides} for 3"
                )
            state[channels] = other
        return state[channels]


def _cell(subject: _Subject, decoder: Choice, checks: Checks) -> Cell:
    start = time.process_time()
    cell = Cell(_named(subject.choice), _named(decoder))
    check = "it is built"
    try:
        model = subject.model(decoder, 3, subject.small)
        facts = describe(model)
        cell = replace(
            cell,
            parameters={name: facts["parameters"][name] for name in ("encoder", "decoder", "head", "total")},
            strides=tuple(model.encoder.strides),
            dilated=tuple(model.encoder.strides) != tuple(subject.made.strides),
            notes=tuple(facts["decoder"]["notes"]),
        )
        for check in _checked(subject, decoder, model, checks):  # noqa: B007, the last one begun is the one that fails
            pass
        check = ""
    except Exception as error:
        cell = replace(cell, reason=in_one_sentence(error))
    return replace(cell, check=check, seconds=round(time.process_time() - start, 3))


def _checked(subject: _Subject, decoder: Choice, model: Segmenter, checks: Checks) -> Iterator[str]:
    """Run the checks; return each one's name before it runs."""
    small = subject.small
    yield f"its levels are those that it declares, {_words(small)}"
    verify(model, small, 3)
    state = subject.state(model.eval(), small)
    yield f"a training step, {_words(small)}"
    _train(model, small)
    model.eval()
    for size in checks.sizes:
        yield _words(size)
        if subject.one_size:
            _compare(on_shapes(subject.model(decoder, 3, size).eval(), 3, size), size)
        else:
            model.encoder = state[3]  # type: ignore[assignment]
            _compare(on_shapes(model, 3, size), size)
    odd = (small[0] - 29, small[1] - 3) if subject.one_size else (small[0] + 3, small[1] + 29)
    for channels in checks.channels:
        yield f"{channels} channel{'' if channels == 1 else 's'}, {_words(odd)}"
        recorded = subject.recorded(state, decoder, channels, small)
        model.encoder = recorded  # type: ignore[assignment]
        with torch.no_grad():
            logits = model(noise(channels, odd))
        _compare(logits, odd)
        # Deep networks of random weights and untrained statistics may overflow by themselves.
        if recorded.finite and not logits.isfinite().all():
            raise SegregError("logits are not finite, though the encoder's levels are")


def _small(encoder: Any) -> tuple[int, int]:
    """Return the size of what is computed in full: as small as the encoder's strides and layers allow."""
    least = 2 * max(encoder.strides)
    sides = [side for side in _SMALL_SIDES if side >= least] or [least]
    if getattr(encoder, "image_size", None) is not None:
        return sides[0], sides[0]  # to which the model pads
    side = next((side for side in sides if _runs(encoder, side)), sides[0])
    return side, side


def _runs(encoder: Any, side: int) -> bool:
    try:
        outlined(encoder, 3, (side, side))
    except Exception:  # Inception's unpadded convolutions have nothing left of 64 pixels
        return False
    return True


def _words(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _compare(logits: Tensor, size: tuple[int, int]) -> None:
    if tuple(logits.shape) != (1, CLASSES, *size):
        raise SegregError(f"logits have shape {list(logits.shape)} where {[1, CLASSES, *size]} was expected")


def _train(model: Segmenter, size: tuple[int, int]) -> None:
    """Run forwards and backwards on one image and looks at what reaches the encoder's first layer.

    Raises:
        SegregError: logits of another size, or logits or gradients that are not finite, or no gradient.
    """
    model.train()
    model.zero_grad()  # the encoder's parameters have served other decoders
    torch.manual_seed(0)
    target = torch.randint(CLASSES, (1, *size))
    with first_layer(model.parts()["encoder"]) as first:
        logits = model(noise(3, size))
    _compare(logits, size)
    if not logits.isfinite().all():
        raise SegregError("logits are not finite in training mode")
    torch.autograd.backward([F.cross_entropy(logits, target)])
    gradients = [parameter.grad for parameter in first.parameters if parameter.grad is not None]
    if not gradients:
        raise SegregError(f"no gradient reaches the encoder's first layer {first.name}")
    if not all(gradient.isfinite().all() for gradient in gradients):
        raise SegregError(f"the gradient of the encoder's first layer {first.name} is not finite")
    if not any(gradient.any() for gradient in gradients):
        raise SegregError(f"the gradient of the encoder's first layer {first.name} is all zeros")
    model.zero_grad()
