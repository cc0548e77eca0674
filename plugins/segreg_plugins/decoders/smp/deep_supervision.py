"""U-Net++ under deep supervision (arXiv:1807.10165, 1912.05074): every node of its top row is trained to segment.

The top row is that of the encoder's finest level: X(0,1), X(0,2) ... in the paper's names. Each node gets a 1x1
convolution, and the losses of all outputs add up with equal weights, as in the second paper. Prediction takes the last
output alone: the first paper's fast mode, at full depth. The papers also average all outputs.

SMP's decoder has one more block behind the row's last node, which doubles its map where the encoder begins at stride 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segreg.errors import SegregError
from segreg_plugins.decoders.smp.network import SmpDecoder


class DeeplySupervised(nn.Module):
    """SMP's U-Net++ whose top row is given to the head.

    Args:
        decoder: around SMP's `UnetPlusPlusDecoder`.

    Shape: the encoder's levels to `[B, channels, H / stride, W / stride]` and each node `[B, C, h, w]` of the top row
    but the last, all of one size.

    Raises:
        SegregError: the row has a single node.
    """

    def __init__(self, decoder: SmpDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.channels, self.stride, self.size_divisor = decoder.channels, decoder.stride, decoder.size_divisor
        network: Any = decoder.network
        # Rows are counted from the coarsest; a row without channels is one of a level that the encoder doesn't have.
        self.row = max((row for row in range(network.depth) if network.skip_channels[row]), default=0)
        if not self.row:
            raise SegregError(
                "deep_supervision finds no node to train beside the last one",
                hint="give channels one number more, or leave it out",
            )
        self.node_channels = network.skip_channels[self.row]

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the decoder's features, and those of the top row's other nodes."""
        network: Any = self.decoder.network
        coarse_first = self.decoder.features(levels)[:0:-1]
        nodes: dict[tuple[int, int], Tensor] = {}  # by the row that a diagonal begins in, and the node's own
        for step in range(network.depth):
            for first in range(network.depth - step):
                row = first + step
                below = nodes[first, row - 1] if step else coarse_first[first]
                beside = [nodes[other, row] for other in range(first + 1, row + 1)]
                skip = torch.cat([*beside, coarse_first[row + 1]], dim=1)
                nodes[first, row] = network.blocks[f"x_{first}_{row}"](below, skip)
        last: Tensor = network.blocks[f"x_0_{network.depth}"](nodes[0, network.depth - 1])
        return last, *(nodes[first, self.row] for first in range(self.row, 0, -1))

    def head(self, classes: int) -> nn.Module:
        """Return SMP's head, and a 1x1 convolution for each other node."""
        return DeepHead(self.decoder.head(classes), self.row, self.node_channels, classes)


class DeepHead(nn.Module):
    """A head for the last node, and one for each other.

    Args:
        main: for the last node.
        nodes: how many others there are.
        channels: of each of them.
        classes: logits of a pixel.

    Attributes:
        further: name and weight of each other node's logits.
    """

    def __init__(self, main: nn.Module, nodes: int, channels: int, classes: int) -> None:
        super().__init__()
        self.main = main
        self.others = nn.ModuleList(nn.Conv2d(channels, classes, kernel_size=1) for _ in range(nodes))
        self.further = {f"node{number}": 1.0 for number in range(1, nodes + 1)}

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the last node's logits."""
        logits: Tensor = self.main(features[0])
        return logits

    def further_logits(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the other nodes' logits, in the order of the row."""
        return [head(node) for head, node in zip(self.others, features[1:], strict=True)]
