"""Checks of decoders: one map as it is declared, on the levels of any encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from segreg.errors import SegregError
from segreg.models.segmenter import Segmenter
from segreg.models.verify import verify
from segreg.testing import inputs, networks
from segreg.testing.check import Rule
from segreg.testing.subject import Broken, NotChecked, Subject, accepted, doing, needs_method, raised


def it_can_be_built(subject: Subject) -> None:
    """Its builder gives an nn.Module with channels and stride."""
    encoder = inputs.cnn()
    decoder = subject.try_to_build(encoder)
    with accepted():
        Segmenter(encoder, decoder, 1)


def it_takes_every_pyramid(subject: Subject) -> None:
    """It can be built on CNNs, transformers of one scale and of many, and on a single level."""
    subject.built(inputs.cnn())
    for name, make in inputs.PYRAMIDS.items():
        try:
            subject.build(make())
        except Exception as error:
            reason = error if isinstance(error, SegregError) else raised(error)
            raise Broken(f"it can't be built on {name}: {reason}") from error


def channels_and_stride_are_true(subject: Subject) -> None:
    """Square, odd and tall images give the map that it declares, on every pyramid."""
    for number, (name, encoder, decoder) in enumerate(_on_every_pyramid(subject)):
        for size in (*inputs.SIZES, (5, 9)) if number == 0 else inputs.SIZES[1:2]:
            _verify(encoder, decoder, size, f"on {name}")
        with torch.no_grad():
            if not Segmenter(encoder, decoder, 2).eval()(inputs.image(images=1)).isfinite().all():
                raise Broken(f"on {name}, what it gives for noise is not finite")


def size_divisor_holds(subject: Subject) -> None:
    """Images whose sides are multiples of `size_divisor` are enough."""
    for name, encoder, decoder in _on_every_pyramid(subject):
        if not hasattr(decoder, "size_divisor"):
            raise NotChecked("it offers no size_divisor: it takes images of any size")
        divisor = decoder.size_divisor
        if not isinstance(divisor, int) or isinstance(divisor, bool) or divisor < 1:
            raise Broken(f"its size_divisor is {divisor!r}; a positive integer was expected")
        _verify(encoder, decoder, (divisor, 3 * divisor), f"on {name}")


def it_offers_a_head(subject: Subject) -> None:
    """`head` gives layers to as many logits as there are classes."""
    encoder = inputs.cnn()
    decoder = subject.built(encoder)
    makes = [getattr(decoder, name, None) for name in ("task_head", "head")]
    if not any(callable(make) and not isinstance(make, nn.Module) for make in makes):
        raise NotChecked("it offers no head: a 1x1 convolution is put behind it")
    for classes in (1, 2, 5):
        decoder = subject.built(encoder)
        with doing(f"its head for {classes} classes"):
            model = Segmenter(encoder, decoder, classes)
            logits = model.head(decoder(encoder(inputs.image(size=networks.fitting(decoder, (64, 64))))))
        if logits.ndim != 4 or logits.shape[1] != classes:
            raise Broken(f"its head gives {list(logits.shape)} for {classes} classes")


def what_trains_it_is_sound(subject: Subject) -> None:
    """Further logits and losses of its own have their names, train all of it, and take ignored pixels and any task."""
    encoder = inputs.cnn()
    for task in inputs.TASKS.values():
        decoder = subject.built(encoder)
        networks.is_trained_soundly(encoder, decoder, task, part="decoder")


def no_weight_decay_names_what_it_has(subject: Subject) -> None:
    """`no_weight_decay` names parameters that it has."""
    decoder = subject.built(inputs.cnn())
    needs_method(decoder, "no_weight_decay")
    networks.undecayed_are_its_own(decoder)


def one_image_can_be_trained_on(subject: Subject) -> None:
    """A batch of one image can be trained on, also one so small that the coarsest level is one value."""
    for name, encoder, decoder in _on_every_pyramid(subject):
        networks.trains_on_one_image(encoder, decoder, f" on {name}")


def gradients_reach_every_parameter(subject: Subject) -> None:
    """The map depends on every weight and on the encoder, on every pyramid."""
    for name, encoder, decoder in _on_every_pyramid(subject):
        image = inputs.image(size=networks.fitting(decoder, (64, 64)))
        model = Segmenter(encoder, decoder, 2).train()
        features = model.decoder(model.encoder(image))
        given = features if isinstance(features, tuple) else (features,)
        networks.no_weight_is_left_out(decoder, [*given, model.head(features)], words=f", on {name}")
        if all(p.grad is None for p in encoder.parameters()):
            raise Broken(f"no gradient reaches the encoder, on {name}")


def _on_every_pyramid(subject: Subject) -> Iterator[tuple[str, Any, Any]]:
    for name, make in inputs.PYRAMIDS.items():
        encoder = make()
        yield name, encoder, subject.built(encoder)


def _verify(encoder: Any, decoder: Any, size: tuple[int, int], words: str) -> None:
    with accepted(f"{words}, "):
        verify(Segmenter(encoder, decoder, 2), size, 3)


RULES = (
    Rule(it_can_be_built, "the head is built on what channels and stride say, before any image is seen"),
    Rule(it_takes_every_pyramid, "a recipe may name any decoder with any encoder"),
    Rule(channels_and_stride_are_true, "the head is built for the channels, and logits are resized from the stride"),
    Rule(size_divisor_holds, "the model pads images to these multiples and to no others"),
    Rule(it_offers_a_head, "the head's logits are what is trained and scored"),
    Rule(what_trains_it_is_sound, "the recipe's losses score further logits, and its own losses take their place"),
    Rule(no_weight_decay_names_what_it_has, "what was meant would decay all the same"),
    Rule(one_image_can_be_trained_on, "train.batch_size may be 1, and an epoch's last batch may be one image"),
    Rule(gradients_reach_every_parameter, networks.GRADIENTS.why),
    *networks.RULES,
)
