"""Checks of losses: a finite scalar that falls as answers get better, and that ignored pixels don't touch."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from segreg.errors import SegregError, listed, plural
from segreg.models.trained import reached
from segreg.task import IGNORE_INDEX, Task
from segreg.testing import inputs
from segreg.testing.check import Rule
from segreg.testing.modes import build_for, it_leaves_its_inputs_alone, served, shape_of, try_every_mode
from segreg.testing.subject import Broken, NotChecked, Subject, doing, saved_and_loaded

LARGEST = 1e4
"""Logits that a network may give before it is trained, or once it diverges."""
HALF_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
PAST = 200
"""Training calls, and epochs, after which a loss with a state is checked once more."""


class _Afresh:
    """A loss each call of which is the first after the same past, so that its values can be compared.

    Args:
        make: builds the loss and lets its past pass.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make, self.made = make, make()

    def __call__(self, logits: Tensor, target: Tensor) -> Any:
        # What a function remembers outside of itself, in a list for instance, is not copied with it.
        loss = self.make() if inspect.isfunction(self.made) else copy.deepcopy(self.made)
        return loss(logits, target)


def _each_age(subject: Subject) -> Iterator[tuple[Task, str, Any]]:
    """Return each task that a loss serves and the loss, as it is built and, if it has a state, later in training."""
    for task, first in served(subject):
        target = inputs.truth(task)
        wrong = inputs.answers(task, target, -1.0)

        def make(past: int, task: Task = task, wrong: Tensor = wrong, target: Tensor = target) -> Any:
            with torch.random.fork_rng():  # a loss that begins at random begins alike
                torch.manual_seed(0)
                loss = build_for(subject, task)
            with doing(f"on a {task.mode} task after {past} calls" if past else ""), torch.no_grad():
                if past and hasattr(loss, "set_epoch"):
                    loss.set_epoch(past)
                for _ in range(past):
                    loss(wrong, target)
            return loss

        try:
            before = _state_of(first)
            changes = hasattr(first, "set_epoch") or not _equal(first(wrong, target), first(wrong, target))
            changes = changes or repr(_state_of(first)) != repr(before)
            later = changes and not _equal(make(0)(wrong, target), make(PAST)(wrong, target))
        except (Broken, NotChecked):
            raise
        except Exception:  # the check itself tells it
            later = changes = False
        if not isinstance(first, nn.Module) and not changes:
            yield task, "", first
            continue
        yield task, "", _Afresh(functools.partial(make, 0))
        if later:
            yield task, f" after {PAST} calls", _Afresh(functools.partial(make, PAST))


def _state_of(loss: Any) -> dict[str, Any]:
    """Return the numbers that an object remembers by itself."""
    tensors = loss.state_dict() if isinstance(loss, nn.Module) else {}
    plain = {name: value for name, value in getattr(loss, "__dict__", {}).items() if isinstance(value, (int, float))}
    return plain | {name: value.tolist() for name, value in tensors.items() if isinstance(value, Tensor)}


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)


def on_each_task(check: Callable[[Task, Any], None], *, from_zero: bool = False) -> Callable[[Subject], None]:
    """Make a check of a loss from one of what it is for a task; a state's past is named where it matters.

    A loss that is 0 whatever it is given has not begun: it is checked later in training alone, unless `from_zero`.
    """

    @functools.wraps(check)
    def run(subject: Subject) -> None:
        ages = list(_each_age(subject))
        later = {task.mode for task, age, _ in ages if age}
        for task, age, loss in ages:
            if not age and task.mode in later and not from_zero and _has_not_begun(task, loss):
                continue
            with doing(f"on a {task.mode} task{age}"):
                try:
                    check(task, loss)
                except Broken as error:
                    raise Broken(f"on a {task.mode} task{age} {error}", at=error.at) from error

    return run


def _has_not_begun(task: Task, loss: Any) -> bool:
    target = inputs.truth(task)
    values = [loss(inputs.answers(task, target, size), target) for size in (6.0, -6.0)]
    return all(isinstance(value, Tensor) and value.numel() == 1 and value.item() == 0 for value in values)


def it_can_be_built(subject: Subject) -> None:
    """It gives a function for each mode that it serves, and refuses the others with a SegregError."""
    for mode, loss in try_every_mode(subject).items():
        task = inputs.TASKS[mode]
        if not callable(loss):
            kind = type(loss).__name__
            raise Broken(f"for a {mode} task it gives {kind}, which is not a function of logits and target")
        try:
            loss(inputs.answers(task, target := inputs.truth(task), 1.0), target)
        except SegregError as error:
            raise Broken(f"it refuses a {mode} task only when it is called: {error}", at=loss) from error


def it_has_nothing_to_train(subject: Subject) -> None:
    """It has no parameters with a gradient, and no gradient goes to tensors other than the logits."""
    for task, loss in served(subject):
        named = loss.named_parameters() if isinstance(loss, nn.Module) else ()
        if wanting := [name for name, p in named if p.requires_grad]:
            raise Broken(f"it has parameters, and nothing would train them: {listed(wanting)}")
        target = inputs.truth(task)
        logits = inputs.answers(task, target, 1.0).requires_grad_()
        with doing(f"on a {task.mode} task"):
            value = _scalar(loss, logits, target)
        if others := [tensor for tensor in reached(value) if tensor is not logits]:
            shapes = listed([str(list(tensor.shape)) for tensor in others], quote="", most=3)
            raise Broken(f"it depends on tensors with a gradient, and nothing would train them: of shape {shapes}")


@functools.partial(on_each_task, from_zero=True)
def any_batch_will_do(task: Task, loss: Any) -> None:
    """One image, wide images and tall ones have a finite loss and gradient."""
    for images, size in ((1, (12, 12)), (2, (6, 20)), (2, (20, 6))):
        target = inputs.truth(task, images=images, size=size, ignored=True)
        words = f"{plural(images, 'image')} of {size[0]}x{size[1]}"
        _finite(loss, inputs.answers(task, target, 1.0), target, words)


@on_each_task
def it_gives_a_scalar_with_a_gradient(task: Task, loss: Any) -> None:
    """The loss is one float, and logits that are wrong get a gradient from it."""
    target = inputs.truth(task)
    logits = torch.zeros_like(inputs.answers(task, target, 1.0)).requires_grad_()
    value = loss(logits, target)
    if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
        raise Broken(f"it gives {shape_of(value)} where a scalar tensor was expected")
    if not value.requires_grad:
        raise Broken("it is cut off from the logits: it has no gradient")
    torch.autograd.backward(value)
    if logits.grad is None or not logits.grad.abs().sum() > 0:
        raise Broken("logits of 0 get no gradient")


@functools.partial(on_each_task, from_zero=True)
def it_is_finite_everywhere(task: Task, loss: Any) -> None:
    """Empty, full and ignored targets, and logits of any size, give finite losses and gradients."""
    whole = inputs.truth(task)
    targets = {
        "an empty target": torch.zeros_like(whole),
        "a full target": torch.ones_like(whole),
        "a target that is all ignored": torch.full_like(whole, IGNORE_INDEX),
        "a target of all classes": inputs.truth(task, ignored=True),
    }
    for words, target in targets.items():
        for size in (0.0, 1.0, LARGEST, -LARGEST):
            logits = inputs.answers(task, target, size)
            _finite(loss, logits, target, f"{words} and logits of {size:+g}" if size else words)


@functools.partial(on_each_task, from_zero=True)
def it_is_finite_on_half_precision(task: Task, loss: Any) -> None:
    """Logits that a network computed in half precision, up to the largest, give finite losses and gradients."""
    target = inputs.truth(task, ignored=True)
    for name, dtype in HALF_TYPES.items():
        largest = min(torch.finfo(dtype).max, 1e30)
        noise = torch.randn_like(inputs.answers(task, target, 1.0))
        for logits in (noise * 20, noise.sign() * largest):
            _finite(loss, logits.to(dtype).float(), target, f"logits born in {name}")


@on_each_task
def ignored_pixels_count_for_nothing(task: Task, loss: Any) -> None:
    """Ignored pixels have no gradient, and what is said of them changes nothing."""
    target = inputs.truth(task, ignored=True)
    _, counts = task.one_hot(target)
    logits = torch.randn_like(counts).requires_grad_()
    value = _scalar(loss, logits, target)
    torch.autograd.backward(value)
    if logits.grad is not None and logits.grad[counts == 0].abs().max() > 0:
        raise Broken("ignored pixels get a gradient")
    other = loss(torch.where(counts == 0, -30 * logits, logits).detach(), target)
    if not torch.allclose(value, other, rtol=1e-5, atol=1e-6):
        found, wanted = float(other.detach()), float(value.detach())
        raise Broken(f"other logits of ignored pixels make it {found:.6g}, not {wanted:.6g}")


@on_each_task
def better_answers_cost_less(task: Task, loss: Any) -> None:
    """Right answers cost less than chance, and chance less than wrong answers."""
    target = inputs.truth(task)
    sizes = {"right": 6.0, "half right": 0.5, "undecided": 0.0, "wrong": -6.0}
    costs = [(words, _cost(loss, inputs.answers(task, target, size), target)) for words, size in sizes.items()]
    for (better, less), (worse, more) in itertools.pairwise(costs):
        if not less < more:
            raise Broken(f"{better} answers cost {less:.4g} and {worse} answers {more:.4g}")


def classes_are_alike(subject: Subject) -> None:
    """Classes in another order give the same loss, where no setting tells them apart."""
    weighing = [name for name, value in subject.settings.items() if isinstance(value, (tuple, list, dict)) and value]
    if weighing:
        raise NotChecked(f'its setting "{weighing[0]}" may tell classes apart')
    several = False
    for task, age, loss in _each_age(subject):
        if age or task.mode == "binary":  # later, it may have learned how frequent each class is
            continue
        several = True
        target = inputs.truth(task, ignored=True)
        order = torch.arange(task.channels).roll(1)
        logits = torch.randn_like(inputs.answers(task, target, 1.0))
        if task.mode == "multilabel":
            other = target[:, order]
        else:
            other = torch.where(target == IGNORE_INDEX, target, order.argsort()[target.clamp(max=task.channels - 1)])
        first, second = _cost(loss, logits, target), _cost(loss, logits[:, order], other)
        if abs(first - second) > 1e-4 * max(1.0, abs(first)):
            raise Broken(f"on a {task.mode} task classes in another order make it {second:.6g}, not {first:.6g}")
    if not several:
        raise NotChecked("it serves binary tasks alone")


@on_each_task
def it_can_be_learned_from(task: Task, loss: Any) -> None:
    """A tiny network that is trained with it on eight images comes near to what right answers cost."""
    coarse = inputs.truth(task, images=8, size=(4, 4))  # the classes are in blocks
    target = coarse.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
    ones, _ = task.one_hot(target)
    images = torch.cat([ones.float(), 0.1 * torch.randn(8, 1, 16, 16)], dim=1)
    network = nn.Sequential(nn.Conv2d(images.shape[1], 8, 1), nn.ReLU(), nn.Conv2d(8, task.channels, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    best = _cost(loss, inputs.answers(task, target, 10.0), target)
    costs = []
    for _ in range(60):
        value = loss(network(images), target)
        costs.append(float(value.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
    if not costs[-1] - best < 0.5 * (costs[0] - best):
        raise Broken(
            f"60 steps of Adam on eight easy images bring it from {costs[0]:.4g} to {costs[-1]:.4g}, where right "
            f"answers cost {best:.4g}"
        )


def evaluation_leaves_its_state_alone(subject: Subject) -> None:
    """In evaluation mode a module gives the same for the same, and training goes on from where it was."""
    for task, loss in served(subject):
        target = inputs.truth(task)
        logits = inputs.answers(task, target, 0.5)
        if isinstance(loss, nn.Module):
            loss.eval()
        first, second = (_cost(loss, logits, target) for _ in range(2))
        if first != second and not isinstance(loss, nn.Module):
            raise NotChecked("it is not a nn.Module, and can't know of evaluation")
        if first != second:
            what = f"on a {task.mode} task in evaluation mode it is first {first:.6g}, and then {second:.6g}"
            raise Broken(f"{what}, for the same logits and target; let its state change only while self.training")


def it_goes_on_where_it_stopped(subject: Subject) -> None:
    """A new one that loads its state, and is given the same epoch, returns the very same."""
    for task, first in served(subject):
        target = inputs.truth(task)
        logits = inputs.answers(task, target, 0.5)
        again = build_for(subject, task)
        for loss in (first, again):
            if hasattr(loss, "set_epoch"):
                loss.set_epoch(PAST)
        with doing(f"in three training steps on a {task.mode} task, each with backward()"):
            for _ in range(3):
                value = _scalar(first, logits.clone().requires_grad_(), target)
                if value.requires_grad:
                    torch.autograd.backward(value)
        for _ in range(PAST):
            first(logits.detach(), target)
        if isinstance(first, nn.Module):
            with doing("loading its state into a new one"):
                again.load_state_dict(saved_and_loaded(first.state_dict()))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            wanted = _cost(first, logits, target)
            torch.manual_seed(0)
            found = _cost(again, logits, target)
        if wanted != found:
            raise Broken(
                f"on a {task.mode} task after {PAST} calls it is {wanted:.6g}, and a new one with its state gives "
                f"{found:.6g}; let it be a nn.Module that keeps what it counts in a buffer"
            )


def _cost(loss: Any, logits: Tensor, target: Tensor) -> float:
    return float(_scalar(loss, logits, target).detach())


def _scalar(loss: Any, logits: Tensor, target: Tensor) -> Tensor:
    """Return the loss, for every check but the one of whether it is a scalar."""
    value = loss(logits, target)
    if not isinstance(value, Tensor) or value.shape != ():
        raise NotChecked("it gives no scalar, see it_gives_a_scalar_with_a_gradient")
    return value


def _finite(loss: Any, logits: Tensor, target: Tensor, words: str) -> None:
    logits = logits.clone().requires_grad_()
    with doing(f"with {words}"):
        value = _scalar(loss, logits, target)
    if not torch.isfinite(value):
        raise Broken(f"with {words} it is {float(value.detach())}")
    if value.requires_grad:
        torch.autograd.backward(value)
    if logits.grad is not None and not logits.grad.isfinite().all():
        raise Broken(f"with {words} its gradient is not finite")


RULES = (
    Rule(it_can_be_built, "a loss that does not serve a task is to be refused before anything trains"),
    Rule(it_has_nothing_to_train, "the optimizer has the network's parameters alone"),
    Rule(it_gives_a_scalar_with_a_gradient, "losses are weighed, added up and followed by backward()"),
    Rule(any_batch_will_do, "input.size need not be square, and an epoch's last batch may be one image"),
    Rule(it_is_finite_everywhere, "images without any class, or all ignored, come in real batches; one NaN ends a run"),
    Rule(it_is_finite_on_half_precision, "networks compute in half precision; the loss is given their values"),
    Rule(ignored_pixels_count_for_nothing, "255 marks pixels of which nobody knows the truth"),
    Rule(better_answers_cost_less, "training goes where the loss is lower"),
    Rule(classes_are_alike, "the order in which classes are listed is an accident"),
    Rule(it_goes_on_where_it_stopped, "a run that was stopped continues as if it had not been"),
    Rule(evaluation_leaves_its_state_alone, "validation comes between the epochs, and its losses are compared"),
    Rule(it_leaves_its_inputs_alone, "the next loss and the metrics are given the same tensors"),
    Rule(it_can_be_learned_from, "this is what a loss is for"),
)
