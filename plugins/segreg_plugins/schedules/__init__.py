"""The schedules: what changes the learning rate from one optimizer step to the next."""

from __future__ import annotations

from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl
from segreg_plugins.schedules import builders


@hookimpl
def segreg_entries() -> list[Entry | Family]:
    """Return every schedule."""
    return [
        Entry("schedule", "constant", builders.constant),
        Entry("schedule", "cosine", builders.cosine, paper="arXiv:1608.03983"),
        Entry("schedule", "poly", builders.poly, paper="arXiv:1606.00915"),
        Entry("schedule", "step", builders.step),
        Entry("schedule", "plateau", builders.plateau),
        Entry("schedule", "one_cycle", builders.one_cycle, paper="arXiv:1708.07120"),
    ]
