"""Checks of batch augmentations: pixels keep their truth, images their size and type, and the generator decides."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segreg.data.mixing import refuse_changed
from segreg.errors import SegregError
from segreg.registry.protocols import MixedBatch
from segreg.task import Task
from segreg.testing import inputs
from segreg.testing.check import Rule
from segreg.testing.modes import served, try_every_mode
from segreg.testing.subject import Broken, NotChecked, Subject, doing

SEEDS = range(8)
IMAGES = 3
DTYPES = (torch.uint8, torch.uint16, torch.float32)


def it_can_be_built(subject: Subject) -> None:
    """It gives a function for each mode that it serves, and refuses the others with a SegregError."""
    for mode, part in try_every_mode(subject).items():
        if not callable(part):
            raise Broken(f"for a {mode} task it gives {type(part).__name__}, which is not a function of a batch")


def on_each_task(check: Callable[[Task, Callable[..., Any]], None]) -> Callable[[Subject], None]:
    """Make a check of a batch augmentation from one of what it is for a task; it is applied to every batch."""

    @functools.wraps(check)
    def run(subject: Subject) -> None:
        if "probability" in subject.settings:
            subject.settings = {**subject.settings, "probability": 1.0}
        for task, part in served(subject):
            with doing(f"on a {task.mode} task"):
                check(task, part)

    return run


@on_each_task
def it_keeps_size_and_type(task: Task, part: Callable[..., Any]) -> None:
    """Images of each type, and their targets, stay of their size and type: also two, also where all is ignored."""
    _, targets = _scene(task)
    for target in (targets, targets[:2], torch.full_like(targets, 255)):
        for dtype in DTYPES:
            images = _painted(task, target).to(dtype)
            for seed in SEEDS:
                mixed = part(images, target, np.random.default_rng(seed))
                try:
                    refuse_changed("it", part, mixed, images, target)
                except SegregError as error:
                    raise Broken(error.problems[0].message.removeprefix('the batch augmentation "it" ')) from error


@on_each_task
def pixels_keep_their_truth(task: Task, part: Callable[..., Any]) -> None:
    """What is at a pixel of a mixed image has the truth there that it had, ignored pixels too, as its share says."""
    images, targets = _scene(task)
    for seed in SEEDS:
        mixed = _mixed(part, images, targets, seed)
        if not 0 <= mixed.share <= 1:
            raise Broken(f"the share is {mixed.share:g}, not between 0 and 1")
        wanted = _painted(task, mixed.targets)
        if mixed.others is not None:
            wanted = mixed.share * wanted + (1 - mixed.share) * _painted(task, mixed.others)
        wrong = ((mixed.images - wanted).abs() > 0.01).float().mean().item()
        if wrong:
            raise Broken(f"{100 * wrong:.0f}% of the pixels show something else than their truth says")


@on_each_task
def the_generator_decides(task: Task, part: Callable[..., Any]) -> None:
    """The same generator gives the same, whatever torch's and NumPy's own are at, and those are left alone."""
    images, targets = _scene(task)
    for seed in SEEDS:
        found = []
        for stray in (1, 2):
            torch.manual_seed(stray)
            np.random.seed(stray)  # what it must not draw from
            before = torch.get_rng_state(), repr(np.random.get_state())
            found.append(_mixed(part, images, targets, seed))
            if not torch.equal(before[0], torch.get_rng_state()):
                raise Broken("it draws from torch's own generator; draw from the one that it is given")
            if before[1] != repr(np.random.get_state()):
                raise Broken("it draws from NumPy's own generator; draw from the one that it is given")
        one, other = found
        if not torch.equal(one.images, other.images) or not torch.equal(one.targets, other.targets):
            raise Broken("one generator gives something else the second time; draw from the one that it is given")


@on_each_task
def it_leaves_its_inputs_alone(task: Task, part: Callable[..., Any]) -> None:
    """Images and targets are the same before and after."""
    images, targets = _scene(task)
    for seed in SEEDS:
        given = images.clone(), targets.clone()
        _mixed(part, *given, seed)
        for name, after, before in (("images", given[0], images), ("targets", given[1], targets)):
            if not torch.equal(after, before):
                raise Broken(f"it changes the {name} in place")


def it_mixes(subject: Subject) -> None:
    """Some batch is another one afterwards."""

    def changed(task: Task, part: Callable[..., Any]) -> bool:
        images, targets = _scene(task)
        return any(not torch.equal(_mixed(part, images, targets, seed).images, images) for seed in SEEDS)

    if not any(changed(task, part) for task, part in served(subject)):
        raise Broken("it leaves every batch as it is")


def _mixed(part: Callable[..., Any], images: Tensor, targets: Tensor, seed: int) -> MixedBatch:
    mixed = part(images, targets, np.random.default_rng(seed))
    if not isinstance(mixed, MixedBatch) or mixed.images.shape != images.shape or mixed.targets.shape != targets.shape:
        raise NotChecked("it gives no batch of the same size, see it_keeps_size_and_type")
    return mixed


def _scene(task: Task) -> tuple[Tensor, Tensor]:
    """Return float32 images whose every pixel says what its truth is, and the uint8 targets."""
    targets = inputs.truth(task, images=IMAGES, size=(12, 16), ignored=True).to(torch.uint8)
    return _painted(task, targets), targets


def _painted(task: Task, targets: Tensor) -> Tensor:
    """Return the images `[B, 3, H, W]` of some targets; no two truths of a pixel have one colour."""
    layers = targets if task.mode == "multilabel" else targets.unsqueeze(1)
    codes = layers.float().clamp(max=7) * torch.tensor([8.0**k for k in range(layers.shape[1])]).view(-1, 1, 1)
    return codes.sum(dim=1, keepdim=True).repeat(1, 3, 1, 1)


RULES = (
    Rule(it_can_be_built, "a task that it does not serve is to be refused before anything trains"),
    Rule(it_keeps_size_and_type, "the network and the losses are given what it returns"),
    Rule(pixels_keep_their_truth, "the network would be taught that something is where it is not"),
    Rule(the_generator_decides, "a run is to be repeated by its seed, and dropout stays what it is without"),
    Rule(it_leaves_its_inputs_alone, "where memory runs out, the step starts again with the same batch"),
    Rule(it_mixes, "a batch augmentation that does nothing is a mistake"),
)
