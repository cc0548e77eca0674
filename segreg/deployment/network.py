"""An exported network as the predictor calls a network: values of images to logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from segreg.errors import SegregError
from segreg.models.segmenter import missing_border

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segreg.task import Task

_CERTAIN = 88.0
"""A logit whose sigmoid is 1 in float32, and 0 for its negative."""


class ExportedNetwork(nn.Module):
    """A network in a file of another runtime. It normalises images itself, and computes on the CPU.

    Where the file returns labels, logits are certain ones, of which probabilities are 0 or 1.

    Shape: values `[B, C, H, W]`, uint8 or float32, to float32 logits `[B, K, H, W]`.

    Args:
        run: the file's network, a function of images.
        network: what the sidecar says of it.
        task: the classes.
        pads: whether an image that is smaller than the one size that it takes is padded; else it is refused.

    Raises:
        SegregError: an image has a size that it does not take.
    """

    def __init__(
        self, run: Callable[[NDArray[Any]], NDArray[Any]], network: Mapping[str, Any], task: Task, *, pads: bool
    ) -> None:
        super().__init__()
        self.run, self.task, self.pads = run, task, pads
        self.batch, self.channels, height, width = network["input"]["shape"]
        self.fixed = (height, width) if height else None
        self.image_size = self.fixed if pads else None
        self.size_divisor, self.least = int(network["input"]["multiple"]), int(network["input"]["least"])
        self.dtype = np.dtype(network["input"]["dtype"])
        self.returns_labels = network["output"]["values"] == "labels"

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        height, width = images.shape[-2:]
        fits = self.fixed and (
            (height, width) == self.fixed or (self.pads and height <= self.fixed[0] and width <= self.fixed[1])
        )
        if self.fixed and not fits:
            raise SegregError(
                f"the network was exported for images of {self.fixed[0]}x{self.fixed[1]} (height x width) alone, and "
                f"this one has {height}x{width}",
                hint="export it again with --any-size",
            )
        if not self.fixed and self.size_divisor == 1 and min(height, width) < self.least:
            raise SegregError(
                f"the network was exported for images of at least {self.least} pixels a side, and this one has "
                f"{height}x{width} (height x width)",
                hint="name the run that it was exported from",
            )
        values = self.taken(images)
        count = self.batch or len(values)
        parts = [self.run(values[at : at + count]) for at in range(0, len(values), count)]
        found = torch.from_numpy(np.concatenate(parts) if len(parts) > 1 else parts[0])[..., :height, :width]
        if not self.returns_labels:
            return found.float()
        return (self.task.one_hot(found)[0] * 2 - 1) * _CERTAIN

    def taken(self, images: Tensor) -> NDArray[Any]:
        """Return images as the file takes them: of its type, and padded as the network itself pads."""
        down, right = missing_border(images.shape[-2:], self.size_divisor, self.fixed or (1, 1))
        values = images.cpu().numpy()
        if down or right:
            values = np.pad(values, ((0, 0), (0, 0), (0, down), (0, right)), mode="edge")
        if values.dtype != self.dtype:  # wide integers come as float32
            values = np.rint(values).astype(self.dtype)
        return np.ascontiguousarray(values)
