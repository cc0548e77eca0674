"""The optimizers: PyTorch's by name, and timm's as the family `timm/<name>`."""

from __future__ import annotations

from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl
from segreg_plugins.optimizers import from_timm, from_torch


@hookimpl
def segreg_entries() -> list[Entry | Family]:
    """Return every optimizer."""
    return [
        *from_torch.entries(),
        Family(
            "optimizer",
            "timm",
            prefix="timm/",
            build=from_timm.build,
            members=from_timm.members,
            member_settings=from_timm.member_settings,
        ),
    ]
