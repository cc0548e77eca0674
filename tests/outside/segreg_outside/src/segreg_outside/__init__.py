"""What this package offers to segreg's recipes: a table of contents that imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import segreg
from segreg.settings import PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from torch import nn


def two_levels(in_channels: int, *, width: PositiveInt = 8) -> nn.Module:
    """Two convolutions of stride 2.

    Args:
        width: channels of the first.
    """
    from segreg_outside.network import TwoLevels

    return TwoLevels(in_channels, width)


def squared_error(task: segreg.Task, *, power: PositiveFloat = 2.0) -> segreg.Loss:
    """A power of the distance between probability and truth.

    Args:
        power: the power.
    """
    from segreg_outside.loss import DistancePower

    return DistancePower(task, power)


def arrays(*, folder: Path) -> segreg.Dataset:
    """Images and masks saved by numpy, as NAME.image.npy and NAME.mask.npy.

    Args:
        folder: where they are.
    """
    from segreg_outside.arrays import read_folder

    return read_folder(folder)


@segreg.hookimpl
def segreg_entries() -> list[segreg.Entry]:
    """Return everything."""
    return [
        segreg.Entry("encoder", "outside.two_levels", two_levels),
        segreg.Entry("loss", "outside.squared_error", squared_error),
        segreg.Entry("dataset", "outside.arrays", arrays),
    ]
