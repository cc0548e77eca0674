"""Checks of whole networks: an encoder and a decoder that were built together, for any channels, task and size."""

from __future__ import annotations

from typing import Any

import torch

from segreg.errors import SegregError
from segreg.models.segmenter import Segmenter
from segreg.models.verify import verify
from segreg.registry.protocols import KINDS
from segreg.testing import inputs, networks
from segreg.testing.check import Rule
from segreg.testing.subject import Broken, NotChecked, Subject, accepted


def it_can_be_built(subject: Subject) -> None:
    """Its builder gives an encoder and a decoder."""
    built = subject.try_to_build(3)
    if not isinstance(built, tuple) or len(built) != 2:
        raise Broken(f"it gives {type(built).__name__}, but it must give {KINDS['network'].returns}")
    with accepted():
        Segmenter(*built, 1)


def levels_and_logits_are_true(subject: Subject) -> None:
    """Square, odd and tall images give what encoder and decoder declare, and logits of any task."""
    parts = subject.built(3)
    for size in inputs.SIZES:
        _verify(parts, 3, size)


def any_number_of_channels_will_do(subject: Subject) -> None:
    """It can be built for 1, 4 and 6 channels, unless it refuses them with a message."""
    for channels in (1, 4, 6):
        try:
            parts = subject.build(channels)
        except SegregError as refused:
            raise NotChecked(f"in_channels {channels} is refused: {refused}") from refused
        _verify(parts, channels, (64, 64))


def what_trains_it_is_sound(subject: Subject) -> None:
    """Further logits and losses of its own have their names, train all of it, and take ignored pixels and any task."""
    for task in inputs.TASKS.values():
        encoder, decoder = subject.built(3)
        networks.is_trained_soundly(encoder, decoder, task, part="network")


def one_image_can_be_trained_on(subject: Subject) -> None:
    """A batch of one small image can be trained on."""
    networks.trains_on_one_image(*subject.built(3))


def _verify(parts: tuple[Any, Any], channels: int, size: tuple[int, int]) -> None:
    encoder, decoder = parts
    size = networks.within(encoder, size)
    for task in inputs.TASKS.values():
        try:
            model = Segmenter(encoder, decoder, task)
            verify(model, size, channels)
        except SegregError as error:
            raise Broken(f"{error.problems[0].message}, for a {task.mode} task") from error
        with torch.no_grad():
            if not model.eval()(inputs.image(channels=channels, size=size)).isfinite().all():
                raise Broken(f"its logits of noise are not finite, for a {task.mode} task")


RULES = (
    Rule(it_can_be_built, "a recipe that names it gets its encoder and its decoder"),
    Rule(levels_and_logits_are_true, "what was declared decides how images are padded and logits are resized"),
    Rule(any_number_of_channels_will_do, "input.channels may be anything: grey, infrared, many bands"),
    Rule(what_trains_it_is_sound, "the recipe's losses score further logits, and its own losses take their place"),
    Rule(one_image_can_be_trained_on, "the last batch of an epoch may be one image"),
    networks.GRADIENTS,
    *networks.RULES,
)
