"""Checks of losses: a finite scalar that falls as answers get better, and that ignored pixels don't touch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segreg.errors import SegregError
from segreg.task import IGNORE_INDEX, Task
from segreg.testing import drawn
from segreg.testing.check import Broken, NotChecked, Rule, doing
from segreg.testing.modes import served, tried_modes
from segreg.testing.subject import Subject

LARGEST = 1e4
"""Logits that a network may give before it is trained, or once it diverges."""
HALF_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def it_can_be_built(subject: Subject) -> None:
    """It gives a function for each mode that it serves, and refuses the others with a SegregError."""
    for mode, loss in tried_modes(subject).items():
        task = drawn.TASKS[mode]
        if not callable(loss):
            raise Broken(
                f"for a {mode} task it gives {type(loss).__name__}, which is not a function of logits and target"
            )
        try:
            loss(drawn.answers(task, target := drawn.truth(task), 1.0), target)
        except SegregError as error:
            raise Broken(f"it refuses a {mode} task only when it is called: {error}", at=loss) from error


def it_gives_a_scalar_with_a_gradient(subject: Subject) -> None:
    """The loss is one float, and logits that are wrong get a gradient from it."""
    for task, loss in served(subject):
        target = drawn.truth(task)
        logits = torch.zeros_like(drawn.answers(task, target, 1.0)).requires_grad_()
        with doing(f"on a {task.mode} task", at=loss):
            value = loss(logits, target)
        if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
            shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise Broken(f"on a {task.mode} task it gives {shape} where a scalar tensor was expected", at=loss)
        if not value.requires_grad:
            raise Broken(f"on a {task.mode} task it is cut off from the logits: it has no gradient", at=loss)
        torch.autograd.backward(value)
        if logits.grad is None or not logits.grad.abs().sum() > 0:
            raise Broken(f"on a {task.mode} task logits of 0 get no gradient", at=loss)


def it_is_finite_everywhere(subject: Subject) -> None:
    """Empty, full and ignored targets, and logits of any size, give finite losses and gradients."""
    for task, loss in served(subject):
        whole = drawn.truth(task)
        targets = {
            "an empty target": torch.zeros_like(whole),
            "a full target": torch.ones_like(whole),
            "a target that is all ignored": torch.full_like(whole, IGNORE_INDEX),
            "a target of all classes": drawn.truth(task, ignored=True),
        }
        for words, target in targets.items():
            for size in (0.0, 1.0, LARGEST, -LARGEST):
                logits = drawn.answers(task, target, size)
                _finite(task, loss, logits, target, f"{words} and logits of {size:+g}" if size else words)


def it_is_finite_on_half_precision(subject: Subject) -> None:
    """Logits that a network computed in half precision, up to the largest, give finite losses and gradients."""
    for task, loss in served(subject):
        target = drawn.truth(task, ignored=True)
        for name, kind in HALF_TYPES.items():
            largest = min(torch.finfo(kind).max, 1e30)
            noise = torch.randn_like(drawn.answers(task, target, 1.0))
            for logits in (noise * 20, noise.sign() * largest):
                _finite(task, loss, logits.to(kind).float(), target, f"logits born in {name}")


def ignored_pixels_count_for_nothing(subject: Subject) -> None:
    """Ignored pixels have no gradient, and what is said of them changes nothing."""
    for task, loss in served(subject):
        target = drawn.truth(task, ignored=True)
        _, counts = task.one_hot(target)
        logits = torch.randn_like(counts).requires_grad_()
        value = _scalar(loss, logits, target)
        torch.autograd.backward(value)
        if logits.grad is not None and logits.grad[counts == 0].abs().max() > 0:
            raise Broken(f"on a {task.mode} task ignored pixels get a gradient", at=loss)
        other = loss(torch.where(counts == 0, -30 * logits, logits).detach(), target)
        if not torch.allclose(value, other, rtol=1e-5, atol=1e-6):
            raise Broken(
                f"on a {task.mode} task other logits of ignored pixels make it {float(other.detach()):.6g}, "
                f"not {float(value.detach()):.6g}",
                at=loss,
            )


def better_answers_cost_less(subject: Subject) -> None:
    """Right answers cost less than chance, and chance less than wrong answers."""
    for task, loss in served(subject):
        target = drawn.truth(task)
        sizes = {"right": 6.0, "half right": 0.5, "undecided": 0.0, "wrong": -6.0}
        costs = {
            words: float(_scalar(loss, drawn.answers(task, target, size), target).detach())
            for words, size in sizes.items()
        }
        for (better, less), (worse, more) in zip(list(costs.items()), list(costs.items())[1:], strict=False):
            if not less < more:
                raise Broken(
                    f"on a {task.mode} task {better} answers cost {less:.4g} and {worse} answers {more:.4g}", at=loss
                )


def classes_are_alike(subject: Subject) -> None:
    """Classes in another order give the same loss, where no setting tells them apart."""
    weighing = [name for name, value in subject.settings.items() if isinstance(value, (tuple, list, dict)) and value]
    if weighing:
        raise NotChecked(f'its setting "{weighing[0]}" may tell classes apart')
    several = False
    for task, loss in served(subject):
        if task.mode == "binary":
            continue
        several = True
        target = drawn.truth(task, ignored=True)
        order = torch.arange(task.channels).roll(1)
        logits = torch.randn_like(drawn.answers(task, target, 1.0))
        if task.mode == "multilabel":
            other = target[:, order]
        else:
            other = torch.where(target == IGNORE_INDEX, target, order.argsort()[target.clamp(max=task.channels - 1)])
        first = float(_scalar(loss, logits, target).detach())
        second = float(_scalar(loss, logits[:, order], other).detach())
        if abs(first - second) > 1e-4 * max(1.0, abs(first)):
            raise Broken(
                f"on a {task.mode} task classes in another order make it {second:.6g}, not {first:.6g}", at=loss
            )
    if not several:
        raise NotChecked("it serves binary tasks alone")


def it_leaves_its_inputs_alone(subject: Subject) -> None:
    """Logits and target are the same before and after."""
    for task, loss in served(subject):
        target = drawn.truth(task, ignored=True)
        logits = torch.randn_like(drawn.answers(task, target, 1.0))
        before = logits.clone(), target.clone()
        loss(logits, target)
        for name, old, new in (("logits", before[0], logits), ("target", before[1], target)):
            if not torch.equal(old, new):
                raise Broken(f"on a {task.mode} task it changes the {name} in place", at=loss)


def it_can_be_learned_from(subject: Subject) -> None:
    """A tiny network that is trained with it on eight images comes near to what right answers cost."""
    for task, loss in served(subject):
        target = _blobs(task)
        ones, _ = task.one_hot(target)
        images = torch.cat([ones.float(), 0.1 * torch.randn(8, 1, 16, 16)], dim=1)
        network = nn.Sequential(nn.Conv2d(images.shape[1], 8, 1), nn.ReLU(), nn.Conv2d(8, task.channels, 1))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
        best = float(_scalar(loss, drawn.answers(task, target, 10.0), target).detach())
        costs = []
        for _ in range(60):
            value = loss(network(images), target)
            costs.append(float(value.detach()))
            optimizer.zero_grad()
            torch.autograd.backward(value)
            optimizer.step()
        if not costs[-1] - best < 0.5 * (costs[0] - best):
            raise Broken(
                f"on a {task.mode} task 60 steps of Adam on eight easy images bring it from {costs[0]:.4g} to "
                f"{costs[-1]:.4g}, where right answers cost {best:.4g}",
                at=loss,
            )


def _blobs(task: Task) -> Tensor:
    """Return the target of eight images, in which the classes stand in blocks."""
    coarse = drawn.truth(task, images=8, size=(4, 4))
    return coarse.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)


def _scalar(loss: Any, logits: Tensor, target: Tensor) -> Tensor:
    """Return the loss, for every check but the one of just that.

    Raises:
        NotChecked: it is not a scalar.
    """
    value = loss(logits, target)
    if not isinstance(value, Tensor) or value.shape != ():
        raise NotChecked("it gives no scalar, see it_gives_a_scalar_with_a_gradient")
    return value


def _finite(task: Task, loss: Any, logits: Tensor, target: Tensor, words: str) -> None:
    logits = logits.clone().requires_grad_()
    with doing(f"on a {task.mode} task with {words}", at=loss):
        value = _scalar(loss, logits, target)
    if not torch.isfinite(value):
        raise Broken(f"on a {task.mode} task with {words} it is {float(value.detach())}", at=loss)
    if value.requires_grad:
        torch.autograd.backward(value)
    if logits.grad is not None and not logits.grad.isfinite().all():
        raise Broken(f"on a {task.mode} task with {words} its gradient is not finite", at=loss)


RULES = (
    Rule(it_can_be_built, "a loss that does not serve a task is to be refused before anything trains"),
    Rule(it_gives_a_scalar_with_a_gradient, "losses are weighed, added up and followed by backward()"),
    Rule(it_is_finite_everywhere, "images without any class, or all ignored, come in real batches; one NaN ends a run"),
    Rule(it_is_finite_on_half_precision, "networks compute in half precision; the loss is given their values"),
    Rule(ignored_pixels_count_for_nothing, "255 marks pixels of which nobody knows the truth"),
    Rule(better_answers_cost_less, "training goes where the loss is lower"),
    Rule(classes_are_alike, "the order in which classes are listed is an accident"),
    Rule(it_leaves_its_inputs_alone, "the next loss and the metrics are given the same tensors"),
    Rule(it_can_be_learned_from, "this is what a loss is for"),
)
