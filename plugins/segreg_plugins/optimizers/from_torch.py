"""PyTorch's optimizers, each with its settings named and the fused implementation where there is one.

A learning rate has no default: what serves one optimizer ruins another, so that a recipe tells it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval

from segreg.errors import SegregError
from segreg.settings import NonNegativeFloat, PositiveFloat

if TYPE_CHECKING:
    from torch.optim import Optimizer

Decay = Annotated[float, Interval(ge=0, lt=1)]
Groups = Sequence[dict[str, Any]]


def adam(
    parameter_groups: Groups,
    *,
    lr: PositiveFloat,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam; its weight decay is added to the gradient (L2 penalty).

    Args:
        lr: learning rate.
        betas: decay of the gradient's running mean and of its square's.
        eps: added to the denominator.
        weight_decay: factor of the weights that is added to the gradient.
        amsgrad: whether the denominator never shrinks (arXiv:1904.09237).
    """
    from torch.optim import Adam

    fused = can_fuse(parameter_groups) or None
    return Adam(parameter_groups, lr, betas, eps, weight_decay, amsgrad, fused=fused)


def adamw(
    parameter_groups: Groups,
    *,
    lr: PositiveFloat,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.01,
    amsgrad: bool = False,
) -> Optimizer:
    """AdamW: Adam with weight decay apart from the gradient.

    Args:
        lr: learning rate.
        betas: decay of the gradient's running mean and of its square's.
        eps: added to the denominator.
        weight_decay: share of the weights, times the learning rate, taken off at each step.
        amsgrad: whether the denominator never shrinks (arXiv:1904.09237).
    """
    from torch.optim import AdamW

    fused = can_fuse(parameter_groups) or None
    return AdamW(parameter_groups, lr, betas, eps, weight_decay, amsgrad, fused=fused)


def sgd(
    parameter_groups: Groups,
    *,
    lr: PositiveFloat,
    momentum: Decay = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
    dampening: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Stochastic gradient descent with momentum.

    Args:
        lr: learning rate.
        momentum: share of the last step that is kept.
        nesterov: whether the gradient is taken ahead of the momentum.
        weight_decay: factor of the weights that is added to the gradient.
        dampening: share of the gradient that does not enter the momentum.

    Raises:
        SegregError: nesterov without momentum or with dampening.
    """
    from torch.optim import SGD

    if nesterov and (momentum == 0 or dampening != 0):
        raise SegregError("optimizer sgd: nesterov needs a momentum above 0 and no dampening")
    fused = can_fuse(parameter_groups) or None
    return SGD(parameter_groups, lr, momentum, dampening, weight_decay, nesterov, fused=fused)


def nadam(
    parameter_groups: Groups,
    *,
    lr: PositiveFloat,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    momentum_decay: NonNegativeFloat = 0.004,
    decoupled_weight_decay: bool = False,
) -> Optimizer:
    """NAdam: Adam with Nesterov momentum.

    Args:
        lr: learning rate.
        betas: decay of the gradient's running mean and of its square's.
        eps: added to the denominator.
        weight_decay: weight decay.
        momentum_decay: how fast the momentum comes to its full value.
        decoupled_weight_decay: whether the decay stands apart from the gradient, as in AdamW.
    """
    from torch.optim import NAdam

    return NAdam(parameter_groups, lr, betas, eps, weight_decay, momentum_decay, decoupled_weight_decay)


def radam(
    parameter_groups: Groups,
    *,
    lr: PositiveFloat,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    decoupled_weight_decay: bool = False,
) -> Optimizer:
    """RAdam: Adam whose first steps are rectified, a warm-up of its own.

    Args:
        lr: learning rate.
        betas: decay of the gradient's running mean and of its square's.
        eps: added to the denominator.
        weight_decay: weight decay.
        decoupled_weight_decay: whether the decay stands apart from the gradient, as in AdamW.
    """
    from torch.optim import RAdam

    return RAdam(parameter_groups, lr, betas, eps, weight_decay, decoupled_weight_decay)


def adamax(
    parameter_groups: Groups,
    *,
    lr: PositiveFloat,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Adamax: Adam with the largest recent gradient as denominator.

    Args:
        lr: learning rate.
        betas: decay of the gradient's running mean and of its running maximum.
        eps: added to the denominator.
        weight_decay: factor of the weights that is added to the gradient.
    """
    from torch.optim import Adamax

    return Adamax(parameter_groups, lr, betas, eps, weight_decay)


def adagrad(
    parameter_groups: Groups,
    *,
    lr: PositiveFloat,
    lr_decay: NonNegativeFloat = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
    initial_accumulator_value: NonNegativeFloat = 0.0,
    eps: PositiveFloat = 1e-10,
) -> Optimizer:
    """Adagrad: each weight's rate falls with the sum of its squared gradients.

    Args:
        lr: learning rate.
        lr_decay: how fast the rate falls with the steps besides.
        weight_decay: factor of the weights that is added to the gradient.
        initial_accumulator_value: what the sum of squares starts from.
        eps: added to the denominator.
    """
    from torch.optim import Adagrad

    # PyTorch has no fused Adagrad for CUDA in every version that segreg takes.
    fused = can_fuse(parameter_groups, devices={"cpu"}) or None
    return Adagrad(parameter_groups, lr, lr_decay, weight_decay, initial_accumulator_value, eps, fused=fused)


def adadelta(
    parameter_groups: Groups,
    *,
    lr: PositiveFloat,
    rho: Decay = 0.9,
    eps: PositiveFloat = 1e-6,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Adadelta: step sizes from running means of squared gradients and squared steps.

    Args:
        lr: factor of the step that the method itself finds; the paper has 1.
        rho: decay of both running means.
        eps: added inside the square roots.
        weight_decay: factor of the weights that is added to the gradient.
    """
    from torch.optim import Adadelta

    return Adadelta(parameter_groups, lr, rho, eps, weight_decay)


def rmsprop(
    parameter_groups: Groups,
    *,
    lr: PositiveFloat,
    alpha: Decay = 0.99,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    momentum: NonNegativeFloat = 0.0,
    centered: bool = False,
) -> Optimizer:
    """RMSprop: the gradient over the running root mean square of itself.

    Args:
        lr: learning rate.
        alpha: decay of the running mean of squares.
        eps: added to the denominator.
        weight_decay: factor of the weights that is added to the gradient.
        momentum: share of the last step that is kept.
        centered: whether the variance takes the mean square's place.
    """
    from torch.optim import RMSprop

    return RMSprop(parameter_groups, lr, alpha, eps, weight_decay, momentum, centered)


def can_fuse(groups: Groups, *, devices: Collection[str] = ("cpu", "cuda")) -> bool:
    """Says whether PyTorch's fused implementation, one pass over all weights, takes these parameters."""
    parameters = [p for group in groups for p in group["params"]]
    return all(p.device.type in devices and p.is_floating_point() for p in parameters)
