"""The optimizers: PyTorch's by name, and timm's as the family `timm/<name>`."""

from __future__ import annotations

from segreg.entry import Entry, Family
from segreg.hooks import hookimpl
from segreg_plugins.optimizers import from_timm, from_torch


@hookimpl
def segreg_entries() -> list[Entry | Family]:
    """Gives every optimizer."""
    return [
        Entry("optimizer", "adam", from_torch.adam, paper="arXiv:1412.6980"),
        Entry("optimizer", "adamw", from_torch.adamw, paper="arXiv:1711.05101"),
        Entry("optimizer", "sgd", from_torch.sgd),
        Entry("optimizer", "nadam", from_torch.nadam, paper="https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ"),
        Entry("optimizer", "radam", from_torch.radam, paper="arXiv:1908.03265"),
        Entry("optimizer", "adamax", from_torch.adamax, paper="arXiv:1412.6980"),
        Entry("optimizer", "adagrad", from_torch.adagrad, paper="https://jmlr.org/papers/v12/duchi11a.html"),
        Entry("optimizer", "adadelta", from_torch.adadelta, paper="arXiv:1212.5701"),
        Entry("optimizer", "rmsprop", from_torch.rmsprop, paper="arXiv:1308.0850"),
        Family(
            "optimizer",
            "timm",
            prefix="timm/",
            build=from_timm.build,
            members=from_timm.members,
            member_settings=from_timm.member_settings,
        ),
    ]
