"""PyTorch's optimizers, with the settings and defaults of torch's own signatures, read from its source.

A learning rate has no default: what serves one optimizer ruins another, so a recipe gives it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from inspect import Parameter, Signature
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval

from segreg.errors import SegregError
from segreg.registry.entry import Entry
from segreg.settings import REQUIRED, NonNegativeFloat, PositiveFloat

if TYPE_CHECKING:
    from torch.optim import Optimizer

Decay = Annotated[float, Interval(ge=0, lt=1)]
Groups = Sequence[dict[str, Any]]

_SETTINGS: Mapping[str, tuple[Any, str]] = {
    "lr": (PositiveFloat, "learning rate"),
    "betas": (tuple[Decay, Decay], "decay of the gradient's running mean and of its square's (adamax: maximum's)"),
    "rho": (Decay, "decay of the running means of squared gradients and squared steps"),
    "alpha": (Decay, "decay of the running mean of squares"),
    "eps": (PositiveFloat, "added to the denominator"),
    "weight_decay": (
        NonNegativeFloat,
        "factor of the weights that is added to the gradient; decoupled (AdamW): that each step subtracts",
    ),
    "momentum": (Decay, "share of the last step that is kept"),
    "dampening": (NonNegativeFloat, "share of the gradient that does not enter the momentum"),
    "nesterov": (bool, "whether the gradient is taken ahead of the momentum"),
    "amsgrad": (bool, "whether the denominator never shrinks (arXiv:1904.09237)"),
    "momentum_decay": (NonNegativeFloat, "how fast the momentum reaches its full value"),
    "decoupled_weight_decay": (bool, "whether weight decay is kept out of the gradient, as in AdamW"),
    "lr_decay": (NonNegativeFloat, "how fast the rate falls with the steps besides"),
    "initial_accumulator_value": (NonNegativeFloat, "start of the sum of squared gradients"),
    "centered": (bool, "whether the gradient's variance is the denominator, not its mean square"),
}
"""The settings that are offered: their types and meanings. Others, such as `foreach`, choose an implementation."""
# PyTorch has no fused Adagrad for CUDA in every version that segreg takes.
_FUSED = {"Adam": ("cpu", "cuda"), "AdamW": ("cpu", "cuda"), "SGD": ("cpu", "cuda"), "Adagrad": ("cpu",)}


@cache
def entries() -> list[Entry]:
    """Return an entry for each optimizer."""
    return [
        _entry("Adam", "Adam; its weight decay is added to the gradient (L2 penalty).", "arXiv:1412.6980"),
        _entry("AdamW", "AdamW: Adam with weight decay apart from the gradient.", "arXiv:1711.05101"),
        _entry("SGD", "Stochastic gradient descent with momentum.", momentum=0.9),
        _entry("NAdam", "NAdam: Adam with Nesterov momentum.", "https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ"),
        _entry("RAdam", "RAdam: Adam whose first steps are rectified, a warm-up of its own.", "arXiv:1908.03265"),
        _entry("Adamax", "Adamax: Adam with the largest recent gradient as denominator.", "arXiv:1412.6980"),
        _entry(
            "Adagrad", "Adagrad: each weight's rate falls with the sum of its squared gradients.",
            "https://jmlr.org/papers/v12/duchi11a.html",
        ),
        _entry(
            "Adadelta", "Adadelta: step sizes from running means of squared gradients and squared steps.",
            "arXiv:1212.5701",
        ),
        _entry("RMSprop", "RMSprop: the gradient over the running root mean square of itself.", "arXiv:1308.0850"),
    ]  # fmt: skip


def build(name: str, parameter_groups: Groups, **settings: Any) -> Optimizer:
    """Build `torch.optim.<name>`, with its fused implementation (one pass over all weights) where there is one.

    Raises:
        SegregError: torch refuses the settings.
    """
    import torch

    parameters = [p for group in parameter_groups for p in group["params"]]
    if name in _FUSED and all(p.device.type in _FUSED[name] and p.is_floating_point() for p in parameters):
        settings["fused"] = True
    try:
        optimizer: Optimizer = getattr(torch.optim, name)(parameter_groups, **settings)
    except ValueError as error:
        raise SegregError(f"optimizer {name.lower()}: {error}") from error
    return optimizer


def _entry(name: str, summary: str, paper: str = "", **defaults: Any) -> Entry:
    def builder(parameter_groups: Groups, **settings: Any) -> Optimizer:
        return build(name, parameter_groups, **settings)

    signature = {**_signature(name), "lr": REQUIRED, **defaults}
    arguments = "".join(f"\n    {setting}: {_SETTINGS[setting][1]}." for setting in signature)
    builder.__doc__ = f"{summary}\n\nArgs:{arguments}\n"
    groups = Parameter("parameter_groups", Parameter.POSITIONAL_OR_KEYWORD)
    builder.__signature__ = Signature(  # type: ignore[attr-defined]
        [groups, *(Parameter(s, Parameter.KEYWORD_ONLY, default=d, annotation=_SETTINGS[s][0])
                   for s, d in signature.items())]
    )  # fmt: skip
    return Entry("optimizer", name.lower(), builder, paper=paper)


def _signature(name: str) -> dict[str, Any]:
    """Return the settings of `torch.optim.<name>` with torch's defaults, from its source: torch is not imported."""
    spec = find_spec("torch")
    source = Path(spec.origin if spec and spec.origin else "torch").parent / "optim" / f"{name.lower()}.py"
    if not source.is_file():
        raise SegregError(f"this torch has no {source}; segreg reads the settings of its optimizers there")
    # The signature alone: parsing whole files would take tens of milliseconds of every command that lists parts.
    if head := re.search(r"^    def __init__\(.*?^    \)[^\n]*:$", source.read_text(encoding="utf-8"), re.M | re.S):
        (function,) = ast.parse(f"{dedent(head.group())} pass").body
        assert isinstance(function, ast.FunctionDef)
        named = function.args.args[-len(function.args.defaults) :]
        defaults = {a.arg: ast.literal_eval(d) for a, d in zip(named, function.args.defaults, strict=True)}
        return {s: float(d) if type(d) is int else d for s, d in defaults.items() if s in _SETTINGS}
    raise SegregError(f"{source} defines no __init__; segreg reads the settings of torch's optimizers there")
