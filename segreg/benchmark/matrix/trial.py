"""Check one encoder with decoders.

The encoder is built once for each number of channels and copied for each decoder. Its levels of an image are computed
once for all decoders that leave the copy in the same state. An encoder that takes a single size is built for each size
instead, as for a recipe, and large sizes are checked on shapes alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.benchmark.matrix.record import EncoderResult, PairResult
from segreg.benchmark.pool import one_line
from segreg.config.resolve import Choice, choose
from segreg.deployment.graph import ExportGraph, trace
from segreg.errors import SegregError, plural
from segreg.models.build import encoder_for
from segreg.models.segmenter import Normalize, Segmenter, describe, meta_forward
from segreg.models.verify import verify
from segreg.registry.protocols import Decoder, Encoder, Exporter
from segreg.registry.registry import load_registry
from segreg.task import Task

CLASSES = 5
_TASK = Task(("one", "two", "three", "four", "five"), "multiclass")
_CLOSE = 1e-3
_OWN_SIZE = (224, 224)
_SMALL_LENGTHS = (64, 96, 128)
_MOST_PIXELS = 400_000
"""Larger images are checked on shapes alone: a vision transformer's attention over 1024x1024 pixels takes minutes."""


@dataclass(frozen=True)
class Checks:
    """What is checked besides the declared levels and the training step.

    Attributes:
        sizes: heights and widths for images of three channels; the default ones are common, odd, and tall.
        own_size: whether the encoder's own size is among them.
        channels: other numbers of channels, each at one small odd size.
        exporter: name of the exporter by which pairs that work are exported; empty: they are not.
    """

    sizes: tuple[tuple[int, int], ...] = ((320, 320), (250, 333), (416, 96))
    own_size: bool = True
    channels: tuple[int, ...] = (1, 4, 6)
    exporter: str = ""


WHOLE = Checks()
"""Every check."""


def results_of(
    encoder: Choice, decoders: Sequence[Choice], family: str, checks: Checks = WHOLE
) -> Iterator[EncoderResult | PairResult]:
    """Return the encoder's result, and then that of each pair as soon as it is known.

    Whatever a part raises is the reason in its result.
    """
    name = _name(encoder)
    try:
        builder = _Builder(encoder)
        fresh = builder.made
        own_size = _own_size(fresh)
        row = EncoderResult(
            name,
            family,
            parameters=sum(parameter.numel() for parameter in fresh.parameters()),
            channels=tuple(fresh.channels),
            strides=tuple(fresh.strides),
            native=own_size,
            seconds=round(time.process_time(), 3),
        )
    except Exception as error:
        row = EncoderResult(name, family, reason=format_error(error), seconds=round(time.process_time(), 3))
        yield row
        yield from (PairResult(name, _name(decoder), "the encoder is built", row.reason) for decoder in decoders)
        return
    yield row
    sizes = tuple(dict.fromkeys(((own_size,) if checks.own_size else ()) + checks.sizes))
    for decoder in decoders:
        yield _pair_result(builder, decoder, replace(checks, sizes=sizes))


def format_error(error: BaseException) -> str:
    """Return an error's message on one line, after its type unless it is segreg's own."""
    text = error.problems[0].message if isinstance(error, SegregError) else f"{type(error).__name__}: {error}"
    return one_line(text)


def _name(choice: Choice) -> str:
    return f"{choice.part.name}@{choice.distribution}" if choice.distribution else choice.part.name


def _copied(encoder: Any) -> Any:
    """Return a copy that shares the parameters, which no check changes; layers and buffers are its own."""
    return copy.deepcopy(encoder, {id(parameter): parameter for parameter in encoder.parameters()})


def _own_size(encoder: Any) -> tuple[int, int]:
    """Return the height and width that the encoder declares as its own."""
    named = getattr(encoder, "image_size", None) or getattr(encoder, "native_size", None) or _OWN_SIZE
    height, width = (int(length) for length in named)
    return height, width


def noise(channels: int, size: tuple[int, int]) -> Tensor:
    """Return the normalised image `[1, channels, *size]` for all checks, always the same."""
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))


class Recorded(nn.Module):
    """Replaces an encoder and returns its levels of `noise`, whatever the image.

    Shape: image `[1, C, H, W]` to the encoder's levels; on the meta device, tensors of their shapes.

    Attributes:
        channels: the encoder's.
        strides: the encoder's.
        image_size: the encoder's, None where it takes any.
        finite: whether all computed values are.
    """

    def __init__(self, encoder: Any, in_channels: int) -> None:
        super().__init__()
        self._encoder = (encoder,)  # in a tuple, so that its parameters are not this module's
        self._in_channels = in_channels
        self._levels: dict[tuple[int, int], list[Tensor]] = {}
        self.channels = list(encoder.channels)
        self.strides = list(encoder.strides)
        self.image_size = getattr(encoder, "image_size", None)
        self.finite = True

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the levels, copied, since a decoder may write into what it is given."""
        height, width = image.shape[-2:]
        if image.device.type != "meta":
            return [level.clone() for level in self._computed((height, width))]
        if height * width > _MOST_PIXELS:
            return list(meta_forward(self._encoder[0].eval(), self._in_channels, (height, width)))
        return [torch.empty_like(level, device="meta") for level in self._computed((height, width))]

    def matches(self, encoder: Any, size: tuple[int, int]) -> bool:
        """Whether another encoder returns the same levels for an image of `size`."""
        with torch.no_grad():
            theirs = encoder.eval()(noise(self._in_channels, size))
        ours = self._computed(size)
        return len(ours) == len(theirs) and all(
            one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, equal_nan=True)
            for one, other in zip(ours, theirs, strict=True)
        )

    def _computed(self, size: tuple[int, int]) -> Sequence[Tensor]:
        if size not in self._levels:
            with torch.no_grad():
                self._levels[size] = list(self._encoder[0].eval()(noise(self._in_channels, size)))
            self.finite = self.finite and all(bool(level.isfinite().all()) for level in self._levels[size])
        return self._levels[size]


def on_shapes(model: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    """Return the model's output for an image `[1, channels, *size]`, on the meta device.

    A model that can't run on shapes runs on values, so that it raises what a user would see.
    """
    try:
        outline: Tensor = meta_forward(model, channels, size)
        return outline
    except Exception:
        with torch.no_grad():
            computed: Tensor = model(noise(channels, size))
        return computed


_State: TypeAlias = dict[int, Recorded]
"""An encoder after a decoder has been built on it, by the channels of the image."""


class _Builder:
    """Builds the checked encoder and keeps what was computed with it."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        torch.manual_seed(0)
        self.made: Any = choice.build(3)
        if not isinstance(self.made, Encoder):
            raise SegregError(
                f"the builder returns {type(self.made).__name__}, not an nn.Module with channels and strides"
            )
        self.one_size = getattr(self.made, "image_size", None) is not None
        self.small = _small(self.made)
        self._fresh: dict[tuple[int, tuple[int, int] | None], Any] = {}
        self._states: dict[str, _State] = {}

    def fresh(self, channels: int, size: tuple[int, int]) -> Any:
        """Return the encoder for images of `channels`, and of `size` if it takes a single size, before any decoder."""
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
            raise SegregError(f"the builder returns {type(built).__name__}, not an nn.Module with channels and stride")
        return Segmenter(encoder, built, CLASSES)

    def state(self, model: Segmenter, size: tuple[int, int]) -> _State:
        """Return the state of the model's encoder; a known one if it returns the same for an image of `size`."""
        encoder: Any = model.encoder
        height, width = model.pad(noise(3, size)).shape[-2:]
        # A network's repr has the stride and the dilation of every layer.
        form = f"{list(encoder.channels)} {list(encoder.strides)} {encoder!r}"
        known = self._states.get(form)
        if known is not None and known[3].matches(encoder, (height, width)):
            return known
        state = {3: Recorded(_copied(encoder), 3)}  # a copy, because training changes BatchNorm's statistics
        return self._states.setdefault(form, state) if known is None else state

    def recorded(self, state: _State, decoder: Choice, channels: int, size: tuple[int, int]) -> Recorded:
        """Return the encoder for images of `channels` and `size` in that state, into which `decoder` brings it."""
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


def _pair_result(builder: _Builder, decoder: Choice, checks: Checks) -> PairResult:
    start = time.process_time()
    cell = PairResult(_name(builder.choice), _name(decoder))
    check = "it is built"
    try:
        model = builder.model(decoder, 3, builder.small)
        facts = describe(model)
        cell = replace(
            cell,
            parameters={name: facts["parameters"][name] for name in ("encoder", "decoder", "head", "total")},
            strides=tuple(model.encoder.strides),
            dilated=tuple(model.encoder.strides) != tuple(builder.made.strides),
            notes=tuple(facts["decoder"]["notes"]),
        )
        for check in _run_checks(builder, decoder, model, checks):  # noqa: B007, the last one is the one that fails
            pass
        check = ""
        if checks.exporter:
            problem = export_problem(builder.model(decoder, 3, builder.small), builder.small, checks.exporter)
            cell = replace(cell, exports=problem, exporter=checks.exporter)
    except Exception as error:
        cell = replace(cell, reason=format_error(error))
    return replace(cell, check=check, seconds=round(time.process_time() - start, 3))


def export_problem(model: Segmenter, size: tuple[int, int], exporter: str) -> str:
    """Return why a network can't be exported for images of `size`; empty where the file gives what the network does."""
    graph = ExportGraph(model, Normalize([0.5] * 3, [0.25] * 3), _TASK, 0.5, labels=False, half=False).eval()
    try:
        writer: Exporter = choose("exporter", exporter, {}, load_registry()).build()
        traced = trace(graph, channels=3, dtype=torch.uint8, size=size, any_size=False)
        with TemporaryDirectory() as folder:
            file = Path(folder) / f"network{writer.suffix}"
            writer.write(traced.program, file, precision="float32", notes="{}")
            run = writer.load(file, precision="float32")
            images = torch.randint(256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
            found = torch.from_numpy(run(images.numpy()))
        with torch.no_grad():
            wanted = graph(images)
    except Exception as error:
        return format_error(error)
    far = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    return "" if far < _CLOSE else f"its logits differ by {far:.1%} of the largest"


def _run_checks(builder: _Builder, decoder: Choice, model: Segmenter, checks: Checks) -> Iterator[str]:
    """Run the checks; return each one's name before it runs."""
    small = builder.small
    yield f"its levels are as declared, {_format_size(small)}"
    verify(model, small, 3)
    state = builder.state(model.eval(), small)
    yield f"a training step, {_format_size(small)}"
    _train(model, small)
    model.eval()
    for size in checks.sizes:
        yield _format_size(size)
        if builder.one_size:
            _check_shape(on_shapes(builder.model(decoder, 3, size).eval(), 3, size), size)
        else:
            model.encoder = state[3]  # type: ignore[assignment]
            _check_shape(on_shapes(model, 3, size), size)
    odd = (small[0] - 29, small[1] - 3) if builder.one_size else (small[0] + 3, small[1] + 29)
    for channels in checks.channels:
        yield f"{plural(channels, 'channel')}, {_format_size(odd)}"
        recorded = builder.recorded(state, decoder, channels, small)
        model.encoder = recorded  # type: ignore[assignment]
        with torch.no_grad():
            logits = model(noise(channels, odd))
        _check_shape(logits, odd)
        # Deep networks of random weights and untrained statistics may overflow by themselves.
        if recorded.finite and not logits.isfinite().all():
            raise SegregError("logits are not finite, though the encoder's levels are")


def _small(encoder: Any) -> tuple[int, int]:
    """Return the size of images that are computed in full: as small as the encoder's strides and layers allow."""
    least = 2 * max(encoder.strides)
    lengths = [length for length in _SMALL_LENGTHS if length >= least] or [least]
    if getattr(encoder, "image_size", None) is not None:
        return lengths[0], lengths[0]  # to which the model pads
    length = next((length for length in lengths if _runs(encoder, length)), lengths[0])
    return length, length


def _runs(encoder: Any, length: int) -> bool:
    try:
        meta_forward(encoder, 3, (length, length))
    except Exception:  # Inception's unpadded convolutions have nothing left of 64 pixels
        return False
    return True


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _check_shape(logits: Tensor, size: tuple[int, int]) -> None:
    if tuple(logits.shape) != (1, CLASSES, *size):
        raise SegregError(f"logits have shape {list(logits.shape)} where {[1, CLASSES, *size]} was expected")


def _train(model: Segmenter, size: tuple[int, int]) -> None:
    """Run a training step on one image and check the gradient of the encoder's first layer.

    Raises:
        SegregError: logits of another size, or logits or gradients that are not finite, or no gradient.
    """
    model.train()
    model.zero_grad()  # other decoders share the encoder's parameters
    torch.manual_seed(0)
    target = torch.randint(CLASSES, (1, *size))
    with first_layer(model.parts()["encoder"]) as first:
        logits = model(noise(3, size))
    _check_shape(logits, size)
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


@dataclass
class FirstLayer:
    """The module with parameters of its own that ran first, by its name in the encoder; empty until one has run."""

    name: str = ""
    parameters: list[nn.Parameter] = field(default_factory=list)


@contextmanager
def first_layer(encoder: nn.Module) -> Iterator[FirstLayer]:
    """Record which layer runs first while the context lasts."""
    first = FirstLayer()

    def ran(name: str, module: nn.Module, *_: Any) -> None:
        if not first.parameters:
            first.name, first.parameters = name, list(module.parameters(recurse=False))

    hooks = [
        module.register_forward_hook(partial(ran, name))
        for name, module in encoder.named_modules()
        if list(module.parameters(recurse=False))
    ]
    try:
        yield first
    finally:
        for hook in hooks:
            hook.remove()
