"""timm's optimizers as a family, listed from timm's source without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError
from segreg.settings import NonNegativeFloat, PositiveFloat, Setting
from segreg_plugins.optimizers.from_torch import Decay, Groups

if TYPE_CHECKING:
    from torch.optim import Optimizer


_DECOUPLING = {
    "Adafactor", "AdafactorBigVision", "AdamP", "AdamWLegacy", "Adan", "LaProp", "Lion", "Mars", "Muon", "NAdamW",
    "RAdamLegacy", "SGDP", "SGDW",
}  # fmt: skip
"""Classes that always keep weight decay out of the gradient; others mark it in their groups where they do."""


@dataclass(frozen=True)
class Listed:
    """What timm's table says of one optimizer."""

    momentum: bool
    betas: int
    eps: bool


def build(member: str, parameter_groups: Groups, **settings: Any) -> Optimizer:
    """An optimizer of timm's, with the defaults that timm gives it.

    Raises:
        SegregError: it needs a package that is not installed.
    """
    from timm.optim import create_optimizer_v2

    if member.startswith("kron") and find_spec("opt_einsum") is None:
        raise SegregError(f"optimizer timm/{member} needs the package opt_einsum", hint="pip install opt_einsum")
    given = {name: value for name, value in settings.items() if value is not None}
    optimizer: Any = create_optimizer_v2(list(parameter_groups), opt=member, **given)
    if type(optimizer).__name__ in _DECOUPLING:
        optimizer.decouples_weight_decay = True
    return optimizer


def members() -> Iterable[str]:
    """Return the name of every optimizer that can be built here."""
    return sorted(_table())


def member_settings(member: str) -> Mapping[str, Setting]:
    """Return the settings that one optimizer takes."""
    listed = _table()[member]
    settings = [
        Setting("lr", PositiveFloat, meaning="learning rate"),
        Setting("weight_decay", NonNegativeFloat, 0.0, "weight decay, applied as this optimizer does"),
    ]
    if listed.momentum:
        settings.append(Setting("momentum", Decay, 0.9, "share of the last step that is kept"))
    if listed.betas:
        hint: Any = tuple[(Decay,) * listed.betas] | None  # type: ignore[misc]
        settings.append(Setting("betas", hint, None, "decay of its running means; timm's own where null"))
    if listed.eps:
        settings.append(Setting("eps", PositiveFloat | None, None, "added to the denominator; timm's own where null"))
    return {setting.name: setting for setting in settings}


@cache
def _table() -> dict[str, Listed]:
    """Read timm's registrations: `OptimInfo(name=..., opt_class=..., ...)`.

    Left out are optimizers of packages that are not installed (apex, bitsandbytes) and those that need second
    derivatives, which training does not compute.
    """
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        return {}
    source = Path(spec.origin).parent / "optim" / "_optim_factory.py"
    if not source.is_file():
        raise SegregError(f"this timm has no {source}; segreg lists timm's optimizers from it")
    table: dict[str, Listed] = {}
    for call in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "OptimInfo"):
            continue
        # Positional arguments stand in the order of OptimInfo's first two fields.
        fields = dict(zip(("name", "opt_class"), call.args, strict=False))
        fields |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        facts = {key: value.value for key, value in fields.items() if isinstance(value, ast.Constant)}
        package = str(facts.get("opt_class", "")).partition(".")[0]
        if facts.get("second_order") or (package and find_spec(package) is None):
            continue
        table[str(facts["name"])] = Listed(
            momentum=bool(facts.get("has_momentum", False)),
            betas=int(str(facts.get("num_betas", 2))) if facts.get("has_betas") else 0,
            eps=bool(facts.get("has_eps", True)),
        )
    return table
