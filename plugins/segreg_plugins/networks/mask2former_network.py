"""Mask2Former of transformers (arXiv:2112.01527) as a decoder; the losses and the scores are our mask head's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segreg.task import Task
from segreg_plugins.decoders.mask_head import MaskHead

POINTS = 12544
"""At which masks are compared in training, as in the paper."""


class Mask2FormerBody(nn.Module):
    """The pixel decoder, of deformable attention, and the transformer.

    Args:
        network: transformers' network.
        loaded: whether its last layer has weights that were trained.

    Shape: the levels to the pixels' embeddings `[B, channels, H / 4, W / 4]`, and, of the queries after each layer, the
    states and the embeddings of their masks, both `[B, layers, queries, channels]`.
    """

    def __init__(self, network: Any, *, loaded: bool) -> None:
        super().__init__()
        self.pixels = network.model.pixel_level_module.decoder
        self.transformer = network.model.transformer_module
        self.channels: int = network.config.mask_feature_size
        self.queries: int = network.config.num_queries
        self.queries_channels: int = network.config.hidden_dim
        self.stride = 4
        self.last: Mapping[str, Tensor] | None = network.class_predictor.state_dict() if loaded else None

    def fit_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Take as many queries as these weights have."""
        for name in ("queries_features", "queries_embedder"):
            with_rows(getattr(self.transformer, name), tensors.get(f"transformer.{name}.weight"))
        self.queries = len(self.transformer.queries_features.weight)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pixels' embeddings, the queries' states and the embeddings of their masks."""
        decoded = self.pixels(levels)
        pixels: Tensor = decoded.mask_features
        seen = self.transformer(
            multi_scale_features=decoded.multi_scale_features, mask_features=pixels, output_hidden_states=True
        )
        states = torch.stack([state.transpose(0, 1) for state in seen.intermediate_hidden_states], dim=1)
        return pixels, states, self.transformer.decoder.mask_predictor.mask_embedder(states)

    def task_head(self, task: Task) -> MaskHead:
        """Return the head, with the loaded weights of its classes where there are as many.

        Raises:
            SegregError: there are fewer queries than classes.
        """
        return loaded_head(task, self.queries, self.queries_channels, self.last)


def loaded_head(task: Task, queries: int, channels: int, last: Mapping[str, Tensor] | None) -> MaskHead:
    """Return our head for so many queries, with the loaded weights of its classes where there are as many.

    Raises:
        SegregError: there are fewer queries than classes.
    """
    head = MaskHead(task, queries=queries, channels=channels, points=POINTS)
    with_last(head.classify, last)
    return head


def with_last(layer: nn.Module, last: Mapping[str, Tensor] | None) -> nn.Module:
    """Return a last layer, in place with the weights that were loaded where these are for as many classes."""
    if last is not None and {name: value.shape for name, value in layer.state_dict().items()} == {
        name: value.shape for name, value in last.items()
    }:
        layer.load_state_dict(dict(last))
    return layer


def with_rows(table: nn.Embedding, weights: Tensor | None) -> None:
    """Give a table as many rows as weights that will be loaded have, in place."""
    if weights is not None and len(weights) != len(table.weight):
        table.weight = nn.Parameter(
            table.weight.new_zeros(len(weights), table.embedding_dim), table.weight.requires_grad
        )
        table.num_embeddings = len(weights)
