"""Mask2Former's transformer (arXiv:2112.01527, section 3.2): queries look at an image's pixels through their masks.

Where it departs from the paper:

* The pixel decoder is MaskFormer's (arXiv:2107.06278), a feature pyramid network, and not one of deformable attention.
  Its layers are normalised over the channels of each place (LayerNorm), which takes maps of one pixel.
* With `annealed` masks, the share of queries that are masked falls as in EoMT (arXiv:2503.19108), by epochs in place of
  steps: each layer's from 1 to 0 with power 0.9 within a sixth of the training, the first layer's after one sixth,
  the last one's after four sixths. Predictions are never masked then, also before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.models.pyramid import LayerNorm, Pyramid
from segreg.task import Task
from segreg_plugins.decoders.mask_head import MaskHead


class MaskTransformer(nn.Module):
    """The decoder; see `mask_transformer` for its settings.

    Args:
        pyramid: levels of strides 4, 8, 16 and 32.

    Shape: the encoder's levels to the pixels' embeddings `[B, channels, H / 4, W / 4]`, and, of the learned queries and
    of those after each layer, the states and the embeddings of their masks, both `[B, 1 + layers, queries, channels]`.
    """

    masked: Tensor

    def __init__(
        self,
        pyramid: Pyramid,
        *,
        queries: int,
        layers: int,
        channels: int,
        heads: int,
        feedforward: int,
        masking: Literal["always", "annealed"],
        points: int,
    ) -> None:
        super().__init__()
        self.channels, self.stride, self.masking, self.points = channels, 4, masking, points
        self.pixels = PixelDecoder(pyramid, channels)
        self.queries = nn.Embedding(queries, channels)
        self.query_positions = nn.Embedding(queries, channels)
        self.scales = nn.Embedding(min(layers, 3), channels)
        self.layers = nn.ModuleList(Layer(channels, heads, feedforward) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.mask_embedding = perceptron(channels, channels, channels, channels)
        self.register_buffer("masked", torch.ones(layers), persistent=False)

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Set the share of masked queries of each layer."""
        if self.masking == "annealed":
            self.masked.copy_(masked_share(epoch / epochs, len(self.layers)))

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pixels' embeddings, the queries' states and the embeddings of their masks."""
        pixels, scales = self.pixels(levels)
        queries = self.queries.weight.expand(pixels.shape[0], -1, -1)
        states = [self.norm(queries)]
        for index, layer in enumerate(self.layers):
            scale = scales[index % 3]
            places = scale.flatten(2).transpose(1, 2) + self.scales.weight[index % 3]
            positions = sine_positions(scale.shape[-2], scale.shape[-1], self.channels, scale.device)
            hidden = self._hidden(index, states[-1], pixels, scale)
            queries = layer(queries, self.query_positions.weight, places, positions, hidden)
            states.append(self.norm(queries))
        stacked = torch.stack(states, dim=1)
        return pixels, stacked, self.mask_embedding(stacked)

    def task_head(self, task: Task) -> MaskHead:
        """Return the head.

        Raises:
            SegregError: there are fewer queries than classes.
        """
        return MaskHead(task, queries=self.queries.num_embeddings, channels=self.channels, points=self.points)

    def no_weight_decay(self) -> list[str]:
        """Return the embeddings, which the paper's training leaves without weight decay."""
        return ["queries.weight", "query_positions.weight", "scales.weight"]

    def _hidden(self, index: int, state: Tensor, pixels: Tensor, scale: Tensor) -> Tensor | None:
        """Return which places each query of a layer does not see, bool `[B, queries, h * w]`; None: it sees all."""
        annealed = self.masking == "annealed"
        if annealed and not self.training:
            return None
        # Not under no_grad: in older versions of torch, what autocast casts there has no gradient in the losses either.
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_embedding(state).detach(), pixels.detach())
        hidden = F.interpolate(masks, size=scale.shape[-2:], mode="bilinear", align_corners=False).flatten(2) < 0
        if annealed:
            hidden &= torch.rand(*hidden.shape[:2], 1, device=hidden.device) < self.masked[index]
        return hidden & ~hidden.all(dim=2, keepdim=True)  # who would see nothing sees everything


class PixelDecoder(nn.Module):
    """A feature pyramid network: each level joined with what is coarser.

    Shape: the encoder's levels to the pixels' embeddings `[B, channels, H / 4, W / 4]`, and the levels of strides 32,
    16 and 8, `[B, channels, h, w]`.
    """

    def __init__(self, pyramid: Pyramid, channels: int) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, channels, 1, bias=False), LayerNorm(channels)) for c in pyramid.channels
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), LayerNorm(channels), nn.ReLU())
            for _ in pyramid.channels
        )
        self.embedding = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the pixels' embeddings, and the levels, coarsest first."""
        maps: list[Tensor] = []
        for level, lateral, smooth in [*zip(self.pyramid(levels), self.lateral, self.smooth, strict=True)][::-1]:
            features = lateral(level)
            if maps:
                features = features + F.interpolate(maps[-1], size=features.shape[-2:], mode="nearest")
            maps.append(smooth(features))
        return self.embedding(maps[-1]), maps[:-1]


class Layer(nn.Module):
    """Attention of the queries to an image's places, then among themselves, then a feed-forward network.

    Shape: queries `[B, Q, C]`, their positions `[Q, C]`, places `[B, N, C]`, their positions `[N, C]` and hidden places
    `[B, Q, N]` to queries `[B, Q, C]`.
    """

    def __init__(self, channels: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_places = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.to_queries = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.feedforward = perceptron(channels, feedforward, channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(
        self, queries: Tensor, query_positions: Tensor, places: Tensor, positions: Tensor, hidden: Tensor | None
    ) -> Tensor:
        """Return the queries after the layer."""
        hidden = None if hidden is None else hidden.repeat_interleave(self.heads, dim=0)
        seen, _ = self.to_places(
            queries + query_positions, places + positions, places, attn_mask=hidden, need_weights=False
        )
        queries = self.norms[0](queries + seen)
        placed = queries + query_positions
        heard, _ = self.to_queries(placed, placed, queries, need_weights=False)
        queries = self.norms[1](queries + heard)
        result: Tensor = self.norms[2](queries + self.feedforward(queries))
        return result


def perceptron(*channels: int) -> nn.Sequential:
    """Return linear layers of these channels, with ReLU between them."""
    layers: list[nn.Module] = []
    for inner, outer in pairwise(channels):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def masked_share(done: float, layers: int) -> Tensor:
    """Return the share of queries that each layer masks, `[layers]`, after a share `done` of the training."""
    begins = 1 / 6 + torch.arange(layers) / max(layers - 1, 1) / 2
    return (1 - (done - begins) * 6).clamp(0, 1) ** 0.9


def sine_positions(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Return sines and cosines of each place's row and column, as DETR has them (arXiv:2005.12872): `[h * w, C]`."""
    quarter = channels // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, device=device) / quarter)
    waves = []
    for side in (height, width):
        angles = (torch.arange(side, device=device) + 1) / side * (2 * math.pi)
        waves.append(torch.cat([(angles[:, None] * frequencies).sin(), (angles[:, None] * frequencies).cos()], dim=1))
    rows = waves[0][:, None].expand(-1, width, -1)
    columns = waves[1][None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
