"""Checks that encoders and decoders share: what becomes of a network between training, saving and serving."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from operator import is_
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from segreg.errors import listed
from segreg.models.segmenter import Segmenter
from segreg.task import IGNORE_INDEX, Task
from segreg.testing import inputs
from segreg.testing.check import Rule
from segreg.testing.subject import COPIES, Broken, NotChecked, Subject, doing

TOLERANCE = 1e-3
"""How far two ways to compute one thing may differ, as a share of the largest value: kernels round in other orders."""


def specimen(subject: Subject, *, images: int = 2) -> tuple[nn.Module, Any]:
    """Return the network, and what it is called with: a batch of noise, or for a decoder a CNN's levels of it.

    Raises:
        NotChecked: it can't be built.
    """
    if subject.part.kind == "encoder":
        encoder = subject.built(3)
        return encoder, inputs.image(images=images, size=fitting(encoder, (64, 64)))
    if subject.part.kind == "network":
        encoder, decoder = subject.built(3)
        model = Segmenter(encoder, decoder, 2)
        return model, inputs.image(images=images, size=fitting(model.encoder, fitting(model, (64, 64))))
    encoder = inputs.cnn()
    decoder = subject.built(encoder)
    return decoder, [level.detach() for level in encoder(inputs.image(images=images, size=fitting(decoder, (64, 64))))]


def within(network: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image that the model can pad: this one, or less where `image_size` is less."""
    most = getattr(network, "image_size", None) or size
    return min(size[0], most[0]), min(size[1], most[1])


def fitting(network: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size that the model pads such an image to: `image_size`, or the next multiple of `size_divisor`."""
    divisor = getattr(network, "size_divisor", 1)
    height, width = (-(-side // divisor) * divisor for side in size)
    return getattr(network, "image_size", None) or (height, width)


def maps(network: nn.Module, given: Any) -> tuple[Tensor, ...]:
    """Return what a network gives as a tuple: an encoder's levels, or a decoder's one map."""
    found = network(given)
    return (found,) if isinstance(found, Tensor) else tuple(found)


def evaluated(network: nn.Module, given: Any) -> tuple[Tensor, ...]:
    """Return what a network gives in evaluation mode, without gradients."""
    with torch.no_grad():
        return maps(network.eval(), given)


def difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Return the largest difference of two networks' maps as a share of the largest value; NaN differs."""
    if [tuple(a.shape) for a in one] != [tuple(b.shape) for b in other]:
        return float("inf")
    shares = [
        (a.float() - b.float()).abs().max() / b.float().abs().max().clamp(min=1e-12)
        for a, b in zip(one, other, strict=True)
    ]
    return float(torch.stack(shares).max().nan_to_num(float("inf")))


def gradients_reach_every_parameter(subject: Subject) -> None:
    """Some output depends on each weight."""
    network, given = specimen(subject)
    if isinstance(network, Segmenter) and (network.further or network.own_losses):
        raise NotChecked("it has further logits or losses of its own, see what_trains_it_is_sound")
    no_weight_is_left_out(network.train(), maps(network, given))


def no_weight_is_left_out(network: nn.Module, outputs: Sequence[Tensor], *, words: str = "") -> None:
    """Compute gradients of all that a network gave, and names what has none.

    Raises:
        Broken: a weight has no gradient or one that is not finite, or an output is cut off from the weights.
        NotChecked: it has nothing to train.
    """
    names = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if not names:
        raise NotChecked("it has no parameter to train")
    for number, output in enumerate(outputs, start=1):
        if not output.requires_grad:
            raise Broken(f"output {number} of {len(outputs)} is cut off from the weights{words}")
    torch.autograd.backward([(output * torch.randn_like(output)).sum() for output in outputs])
    if unreached := [name for name, p in names.items() if p.grad is None]:
        raise Broken(f"nothing that it gives depends on {listed(unreached)}{words}")
    if wild := [name for name, p in names.items() if p.grad is not None and not p.grad.isfinite().all()]:
        raise Broken(f"the gradient of {listed(wild)} is not finite{words}")


def is_trained_soundly(encoder: Any, decoder: Any, task: Task, *, part: Literal["decoder", "network"]) -> None:
    """Train with further logits and losses of the decoder's own: they are finite, and reach each weight of the part.

    Raises:
        Broken: they don't, or a loss is not a scalar.
        NotChecked: it offers neither.
    """
    with doing(f"trained for a {task.mode} task"):
        model = Segmenter(encoder, decoder, task).train()
        if not (model.further or model.own_losses):
            raise NotChecked("it offers neither further logits nor losses of its own")
        size = fitting(model.encoder, fitting(model, (64, 64)))
        image, target = inputs.image(size=size), inputs.truth(task, images=2, size=size, ignored=True)
        whole = model if part == "network" else nn.ModuleList([decoder, model.head])
        for given in (target, torch.full_like(target, IGNORE_INDEX)):
            maps, terms = model.supervised(image, given)
            if wrong := [n for n, t in terms.items() if t.shape or t.dtype != torch.float32 or not t.isfinite()]:
                raise Broken(f"its loss {listed(wrong)} is not a finite float32 scalar, for a {task.mode} task")
            no_weight_is_left_out(whole, [*maps.values(), *terms.values()], words=f", for a {task.mode} task")


def evaluation_repeats(subject: Subject) -> None:
    """In evaluation mode the same input gives the same, bit for bit."""
    network, given = specimen(subject)
    first, second = evaluated(network, given), evaluated(network, given)
    if any(not torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise Broken("in evaluation mode the same input gives something else the second time")


def it_leaves_its_inputs_alone(subject: Subject) -> None:
    """What it is given is the same before and after, in training too."""
    network, given = specimen(subject)
    tensors = [given] if isinstance(given, Tensor) else list(given)
    before = [one.clone() for one in tensors]
    what = "image" if isinstance(given, Tensor) else "levels"
    for mode in (True, False):
        with torch.no_grad():
            maps(network.train(mode), given)
        same = isinstance(given, Tensor) or (len(given) == len(tensors) and all(map(is_, given, tensors)))
        if not same or any(not torch.equal(a, b) for a, b in zip(before, tensors, strict=True)):
            raise Broken(f"it changes the {what} that it is given in place")


def trains_on_one_image(encoder: Any, decoder: Any, words: str = "") -> None:
    """Train a network on one image of 32x32, as an epoch begins.

    Raises:
        Broken: it fails, or gives numbers that are not finite.
    """
    with doing(f"training on one image of 32x32{words}"):
        model = Segmenter(encoder, decoder, 2).train()
        model.set_epoch(1, 3)
        logits = model(inputs.image(images=1, size=(32, 32)))
    if not logits.isfinite().all():
        raise Broken(f"training on one image of 32x32{words}, it gives numbers that are not finite")


def undecayed_are_its_own(network: nn.Module) -> None:
    """Refuse a `no_weight_decay` that names what a network does not have."""
    for pattern in network.no_weight_decay():  # type: ignore[operator]
        if not any(fnmatchcase(name, pattern) for name, _ in network.named_parameters()):
            raise Broken(f"no_weight_decay names {pattern}, and it has no such parameter")


def the_seed_decides(subject: Subject) -> None:
    """The same seed builds the same weights, and trains the same."""
    states, outputs = [], []
    for stray in (1, 2):
        random.seed(stray)  # what a network must not draw from
        np.random.seed(stray)
        torch.manual_seed(7)
        network, given = specimen(subject)
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        torch.manual_seed(8)
        outputs.append([one.detach() for one in maps(network.train(), given)])
    if other := [n for n, value in states[0].items() if not torch.equal(value, states[1].get(n, value.new_empty(0)))]:
        raise Broken(f"one seed of torch's builds other weights the second time: {listed(other)}")
    if difference(*outputs) > 0:
        raise Broken("in training mode one seed of torch's gives something else the second time")


def images_of_a_batch_do_not_mix(subject: Subject) -> None:
    """In evaluation mode an image gives the same alone and beside others."""
    network, given = specimen(subject, images=3)
    alone = given[1:2] if isinstance(given, Tensor) else [level[1:2] for level in given]
    together = [one[1:2] for one in evaluated(network, given)]
    words = "in evaluation mode an image gives something else beside others"
    _nearly_equal(evaluated(network, alone), together, words)


def half_precision_is_finite(subject: Subject) -> None:
    """Under bf16 autocast it runs, in both modes, and return finite numbers."""
    network, given = specimen(subject)
    for mode in (True, False):
        network.train(mode)
        with torch.autocast("cpu", dtype=torch.bfloat16), doing("under bf16 autocast"):
            outputs = maps(network, given)
        if any(not one.isfinite().all() for one in outputs):
            words = "training" if mode else "evaluation"
            raise Broken(f"under bf16 autocast in {words} mode it gives numbers that are not finite")


def weights_travel_by_state_dict(subject: Subject) -> None:
    """A new network with another's state gives what the other gives."""
    network, given = specimen(subject)
    state = network.state_dict()
    if strange := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise Broken(f"its state_dict holds {listed(strange)}, which is not a tensor")
    with torch.no_grad():
        maps(network.train(), given)  # so that running statistics are no longer those of a new network
    wanted = evaluated(network, given)
    torch.manual_seed(99)
    other, _ = specimen(subject)
    with doing("loading its state_dict into a new one"):
        other.load_state_dict({name: value.clone() for name, value in network.state_dict().items()})
    _nearly_equal(evaluated(other, given), wanted, "a new one with its state_dict gives something else")


def it_can_be_copied_and_sent(subject: Subject) -> None:
    """A deep copy, and what goes to another process and back, are networks of their own that give the same."""
    network, given = specimen(subject)
    wanted = evaluated(network, given)
    for words, copied in COPIES.items():
        with doing(f"when it is {words}"):
            other = copied(network)
        if difference(evaluated(other, given), wanted) > 0:
            raise Broken(f"when it was {words}, it gives something else")
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        if difference(evaluated(network, given), wanted) > 0:
            raise Broken(f"a network that was {words} shares its weights with the first")


def it_compiles(subject: Subject) -> None:
    """`torch.compile` takes it, and it gives the same."""
    network, given = specimen(subject)
    wanted = evaluated(network, given)
    with warnings.catch_warnings(action="ignore"), torch.no_grad():  # what compilers say of torch itself
        torch.compiler.reset()
        try:
            with doing("under torch.compile"):
                # This backend runs what was traced as it is: what fails with it fails with every other.
                found = maps(torch.compile(network, backend="eager"), given)  # type: ignore[arg-type]
        finally:
            torch.compiler.reset()
    _nearly_equal(found, wanted, "compiled it gives something else")


def it_exports(subject: Subject) -> None:
    """`torch.export` takes it, and it gives the same."""
    network, given = specimen(subject)
    wanted = evaluated(network, given)
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        with doing("under torch.export"):
            exported = torch.export.export(network, (given,)).module()
        found = maps(exported, given)
    _nearly_equal(found, wanted, "exported it gives something else")


def _nearly_equal(found: Sequence[Tensor], wanted: Sequence[Tensor], words: str) -> None:
    """Refuse maps that differ by more than those of kernels that round in another order."""
    if (share := difference(found, wanted)) > TOLERANCE:
        raise Broken(f"{words}: {share:.1%} of the largest value")


GRADIENTS = Rule(
    gradients_reach_every_parameter,
    "a weight without a gradient is saved and counted, but never trained, and distributed training stops at it",
)
RULES = (
    Rule(evaluation_repeats, "scores and predictions could not be repeated"),
    Rule(
        it_leaves_its_inputs_alone,
        "an auxiliary decoder is given the same levels, and mixed images are looked at twice, once for each truth",
    ),
    Rule(the_seed_decides, "a run is to be repeated by its seed"),
    Rule(images_of_a_batch_do_not_mix, "predictions would depend on the batch size and on what else is predicted"),
    Rule(half_precision_is_finite, "train.precision bf16 is what a GPU trains with by default"),
    Rule(
        weights_travel_by_state_dict, "checkpoints are state_dicts: a run that is loaded would not be what was scored"
    ),
    Rule(it_can_be_copied_and_sent, "train.ema keeps a deep copy, and worker processes are sent a pickle"),
    Rule(it_compiles, "users compile networks to train faster", slow=True),
    Rule(it_exports, "users export networks to serve them elsewhere", slow=True),
)
