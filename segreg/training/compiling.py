"""Whether a training's network is compiled, and what happens where that fails."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError
from segreg.training.micro_batches import forget_gradients

if TYPE_CHECKING:
    import torch

    from segreg.training.setup import Training

STEPS_WORTH_IT = 3000
"""Optimizer steps from which `train.compile: auto` compiles. An estimate: compiling takes a minute or two, and the
fused BatchNorm and ReLU of a GPU were expected to save a fifth of each step, of 50 to 200 ms."""


def worth_compiling(setting: bool | Literal["auto"], device: torch.device, steps: int) -> tuple[bool, str]:
    """Whether to compile, and for `auto` why, as a line for people.

    On CPUs compiled training was measured at 0.94 to 1.05 of the eager speed after 20 to 100 s of compiling.

    Args:
        setting: the recipe's.
        device: where the network computes.
        steps: optimizer steps that the run has before it.
    """
    if setting != "auto":
        return setting, ""
    if device.type != "cuda":
        return False, f"not compiled: it gains nothing on {device.type}"
    if importlib.util.find_spec("triton") is None:
        return False, "not compiled: there is no triton here, which makes a GPU's code"
    if steps < STEPS_WORTH_IT:
        return False, f"not compiled: {steps} steps are too few to gain what compiling takes"
    return True, f"compiled, because there are {steps} steps to gain by it; the first ones take longer"


def compile_if_worth_it(training: Training, epochs: int, say: Callable[[str], None]) -> None:
    """Let the network be compiled as the recipe has it, for so many epochs that are to come."""
    steps = training.steps_per_epoch * epochs
    compiles, why = worth_compiling(training.settings.compile, training.device, steps)
    if compiles:
        compile_network(training)
    if why:
        say(why)


def compile_network(training: Training) -> None:
    """Let what trains, and what is averaged of it, be compiled at its first call."""
    training.objective.compile()
    if training.average:
        training.average.network.compile()
    training.compiled = True


def from_the_compiler(error: BaseException) -> bool:
    """Whether compiling failed, rather than the network that was compiled."""
    packages = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")
    return any(kind.__module__.startswith(packages) for kind in type(error).__mro__)


def go_on_without(training: Training, error: BaseException, say: Callable[[str], None]) -> None:
    """Goes on without compiling where that was segreg's choice.

    Raises:
        SegregError: the recipe asked for it.
    """
    why = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if training.settings.compile is True:
        raise SegregError(
            f"train.compile: this network can't be compiled here: {why}", hint="leave train.compile out"
        ) from error
    forget_gradients(training)
    for network in (training.objective, training.eval_model):
        network._compiled_call_impl = None  # noqa: SLF001, what nn.Module.compile() has set and nothing takes back
    training.compiled = False
    say(f"notice: compiling failed, and the run continues without it: {why}")
