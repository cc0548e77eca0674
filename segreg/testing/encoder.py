"""Checks of encoders: levels are what is declared, on any image, for any decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segreg.errors import SegregError
from segreg.models.pyramid import check_encoder
from segreg.models.segmenter import Segmenter
from segreg.models.verify import verify
from segreg.registry.registry import Part, load_registry
from segreg.testing import inputs, networks
from segreg.testing.check import Rule
from segreg.testing.subject import Broken, NotChecked, Subject, accepted, doing, needs_method

MOST_DECODERS = 4
"""With how many of the installed decoders an encoder is tried."""


def it_can_be_built(subject: Subject) -> None:
    """Its builder gives an nn.Module with channels and strides."""
    encoder = subject.try_to_build(3)
    with accepted():
        check_encoder(encoder)


def channels_and_strides_are_true(subject: Subject) -> None:
    """Square, odd and tall images give the levels that it declares."""
    encoder = subject.built(3)
    for size in inputs.SIZES:
        _verify(encoder, size, 3)


def any_number_of_channels_will_do(subject: Subject) -> None:
    """Images of 1, 4 and 6 channels give the levels that it declares."""
    subject.built(3)
    for channels in (1, 4, 6):
        try:
            encoder = subject.build(channels)
        except SegregError as refused:
            raise NotChecked(f"in_channels {channels} is refused: {refused}") from refused
        except Exception as error:
            raise Broken(f"its builder fails for in_channels {channels}: {type(error).__name__}: {error}") from error
        _verify(encoder, (64, 64), channels)


def it_dilates(subject: Subject) -> None:
    """`dilate` keeps its word: no level is coarser, strides are true, and the weights are the same objects."""
    needs_method(subject.built(3), "dilate")
    dilated = 0
    for stride in (16, 8):
        encoder = subject.built(3)
        before = dict(encoder.named_parameters())
        values = {name: value.clone() for name, value in encoder.state_dict().items()}
        levels, coarsest = len(encoder.strides), max(encoder.strides)
        with doing(f"dilate({stride})"):
            done = encoder.dilate(stride)
        if not isinstance(done, bool):
            raise Broken(f"dilate({stride}) gives {done!r}; it must say True or False")
        _verify(encoder, (64, 64), 3, words=f"after dilate({stride}) ")
        if not done:
            if coarsest <= stride:
                continue
            if max(encoder.strides) != coarsest:
                raise Broken(f"dilate({stride}) says False, but the strides are {list(encoder.strides)}")
            continue
        dilated += 1
        if max(encoder.strides) > stride or len(encoder.strides) != levels:
            raise Broken(f"dilate({stride}) says True, but the strides are {list(encoder.strides)}")
        after = dict(encoder.named_parameters())
        if [name for name in before if after.get(name) is not before[name]] or len(after) != len(before):
            raise Broken(f"dilate({stride}) replaces parameters; it must keep the very same ones")
        state = encoder.state_dict()
        if any(name not in state or not torch.equal(state[name], value) for name, value in values.items()):
            raise Broken(f"dilate({stride}) changes weights or statistics")
    if not dilated:
        raise NotChecked("its dilate says False for 16 and for 8")


def normalization_is_of_values_up_to_one(subject: Subject) -> None:
    """`normalization` is a mean and a deviation for each channel, of values in [0, 1]."""
    encoder = subject.built(3)
    given = getattr(encoder, "normalization", None)
    if given is None:
        raise NotChecked("it offers no normalization")
    mean, std = given
    if len(mean) != len(std) or not mean:
        raise Broken(f"its normalization has {len(mean)} means for {len(std)} standard deviations")
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise Broken(f"its normalization {given!r} is not of values in [0, 1]")


def layers_name_what_it_has(subject: Subject) -> None:
    """`layer_groups` and `no_weight_decay` name modules and parameters that it has, in a list for each layer."""
    encoder = subject.built(3)
    offered = {name: getattr(encoder, name, None) for name in ("layer_groups", "no_weight_decay")}
    if not any(map(callable, offered.values())):
        raise NotChecked("it offers neither layer_groups nor no_weight_decay")
    parameters = [name for name, _ in encoder.named_parameters()]
    if callable(offered["layer_groups"]):
        layers = [list(names) for names in offered["layer_groups"]() if not isinstance(names, str)]
        named = [name for names in layers for name in names]
        strange = [name for name in named if not any(f"{p}.".startswith(f"{name}.") for p in parameters)]
        if strange or not named:
            raise Broken(
                f"its layer groups are {layers!r}, and it has no parameter in {strange[0] if strange else 'them'}"
            )
        if twice := [name for name in named if named.count(name) > 1]:
            raise Broken(f"{twice[0]} is in its layer groups twice")
    if callable(offered["no_weight_decay"]):
        networks.undecayed_are_its_own(encoder)


def it_works_with_decoders(subject: Subject) -> None:
    """Networks of it and several of the installed decoders run, and train it."""
    strides, size = tuple(subject.built(3).strides), networks.within(subject.built(3), (64, 64))
    tried_with = 0
    for part in _decoders():
        try:
            alone = inputs.Levels(*strides)
            verify(Segmenter(alone, part.build(alone, **_defaults(part)), 2), size, 3)
        except Exception:  # noqa: S112 - the decoder fails by itself: nothing is said of the encoder
            continue
        tried_with += 1
        encoder = subject.built(3)
        with doing(f"with the decoder {part.name}"):
            model = Segmenter(encoder, part.build(encoder, **_defaults(part)), 2)
            verify(model, size, 3)
            model.train()
            model(inputs.image(size=size)).square().mean().backward()
        parameters = list(encoder.parameters())
        if parameters and all(p.grad is None for p in parameters):
            raise Broken(f"with the decoder {part.name} no gradient reaches it")
    if not tried_with:
        raise NotChecked("no decoder is installed that can be built without settings")


def _verify(encoder: Any, size: tuple[int, int], channels: int, *, words: str = "") -> None:
    """Compare declared levels with those that an image gives."""
    with accepted(words):
        check_encoder(encoder)
        size = networks.within(encoder, size)
        verify(Segmenter(encoder, inputs.Finest(encoder), 1), size, channels)
    with torch.no_grad():
        levels = encoder.eval()(inputs.image(channels=channels, size=networks.fitting(encoder, size)))
    if not all(isinstance(level, Tensor) and level.is_floating_point() for level in levels):
        raise Broken(f"{words}its levels are not all tensors of floats")
    if any(not level.isfinite().all() for level in levels):
        raise Broken(f"{words}its levels are not all finite on noise of {size[0]}x{size[1]}")


def _decoders() -> list[Part]:
    """Return a few of the installed decoders that need no settings, from all over the list."""
    parts = [part for part in load_registry().parts("decoder") if not any(s.required for s in part.settings.values())]
    return parts[:: -(-len(parts) // MOST_DECODERS) or 1]


def _defaults(part: Part) -> dict[str, Any]:
    return {name: setting.default for name, setting in part.settings.items()}


RULES = (
    Rule(it_can_be_built, "decoders are built on what channels and strides say, before any image is seen"),
    Rule(channels_and_strides_are_true, "decoders would get maps of another size than they were built for"),
    Rule(any_number_of_channels_will_do, "input.channels may be anything: grey, infrared, many bands"),
    networks.GRADIENTS,
    Rule(it_dilates, "DeepLab's decoders dilate, and a changed weight is a lost pretrained one"),
    Rule(normalization_is_of_values_up_to_one, "images are divided by 255 before it is applied"),
    Rule(layers_name_what_it_has, "a layer that is not there would train at another rate than was meant"),
    Rule(it_works_with_decoders, "a recipe may name any encoder with any decoder", slow=True),
    *networks.RULES,
)
