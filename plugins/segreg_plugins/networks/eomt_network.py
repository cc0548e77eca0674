"""EoMT of transformers (arXiv:2503.19108): a plain vision transformer, whose last layers have queries among the tokens.

The encoder is the transformer up to the layer where the queries come in, and the decoder is what follows; losses and
scores are our mask head's. Where it departs: positions are resized with the image, where transformers takes one size
(bicubically, as DINOv2's are), and the share of masked queries falls by epochs in place of steps, see `masked_share`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.task import Task
from segreg_plugins.decoders.mask_head import MaskHead
from segreg_plugins.decoders.mask_transformer_network import masked_share
from segreg_plugins.encoders.normalization import IMAGENET, per_channel
from segreg_plugins.networks.mask2former_network import loaded_head, with_rows


class EomtTrunk(nn.Module):
    """The layers before the queries come in.

    Shape: image `[B, in_channels, H, W]`, of sides that are multiples of 16, to the patches `[B, C, H / 16, W / 16]`
    and, the same at every place, the class and register tokens `[B, tokens * C, H / 16, W / 16]`.

    Attributes:
        normalization: mean and standard deviation of each input channel that published weights were trained with.
        weights_note: which weights were loaded, and what they left random.
    """

    def __init__(self, network: Any, in_channels: int) -> None:
        super().__init__()
        self.embeddings = network.embeddings
        self.layers = network.layers[: -network.config.num_blocks]
        width: int = network.config.hidden_size
        self.channels = [width, width * self.embeddings.num_prefix_tokens]
        self.size_divisor: int = network.config.patch_size
        self.strides = [self.size_divisor] * 2
        self.normalization = per_channel(IMAGENET, in_channels)
        self.weights_note = ""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the patches, and the other tokens at every place."""
        patches = self.embeddings.patch_embeddings.projection(image)
        size = patches.shape[-2:]
        places = (patches + self._positions(size)).flatten(2).transpose(1, 2)
        first = torch.cat([self.embeddings.cls_token, self.embeddings.register_tokens], dim=1)
        tokens = torch.cat([first.expand(len(places), -1, -1), places], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        first, places = tokens[:, : first.shape[1]], tokens[:, first.shape[1] :]
        everywhere = first.flatten(1)[..., None, None].expand(-1, -1, *size)
        return [places.transpose(1, 2).reshape(len(places), -1, *size), everywhere]

    def layer_groups(self) -> list[list[str]]:
        """Return the embeddings and each layer."""
        return [["embeddings"], *([f"layers.{index}"] for index in range(len(self.layers)))]

    def fit_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Take as many positions as these weights have."""
        with_rows(self.embeddings.position_embeddings, tensors.get("embeddings.position_embeddings.weight"))

    def no_weight_decay(self) -> list[str]:
        """Return the tokens and positions."""
        return [f"embeddings.{name}" for name in ("cls_token", "register_tokens", "position_embeddings.weight")]

    def _positions(self, size: Sequence[int]) -> Tensor:
        """Return the positions' embeddings `[1, C, h, w]`."""
        own = self.embeddings.position_embeddings.weight
        side = round(len(own) ** 0.5)
        return F.interpolate(own.T.unflatten(1, (side, side))[None], size=size, mode="bicubic", align_corners=False)


class EomtBody(nn.Module):
    """The layers with the queries.

    Args:
        network: transformers' network.
        loaded: whether its last layer has weights that were trained.

    Shape: the trunk's maps to the pixels' embeddings `[B, C, H / 4, W / 4]`; and of each step, in training before each
    layer and after the last one, otherwise only after that, the queries' states and the embeddings of their masks,
    `[B, steps, queries, C]`, and the pixels' embeddings `[B, steps, C, H / 4, W / 4]`.
    """

    masked: Tensor

    def __init__(self, network: Any, *, loaded: bool) -> None:
        super().__init__()
        blocks: int = network.config.num_blocks
        self.layers = network.layers[-blocks:]
        self.norm = network.layernorm
        self.queries = network.query
        self.mask_embedding = network.mask_head
        self.upscale = network.upscale_block
        self.channels: int = network.config.hidden_size
        self.scale: int = 2**network.config.num_upscale_blocks
        self.stride = network.config.patch_size // self.scale
        self.last: Mapping[str, Tensor] | None = network.class_predictor.state_dict() if loaded else None
        self.register_buffer("masked", torch.ones(blocks), persistent=False)

    def fit_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Take as many queries as these weights have."""
        with_rows(self.queries, tensors.get("queries.weight"))

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Set the share of masked queries of each layer."""
        self.masked.copy_(masked_share(epoch / epochs, len(self.layers)))

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the pixels' embeddings, the queries' states, the embeddings of their masks, and all steps' pixels."""
        patches, everywhere = levels
        size = patches.shape[-2:]
        first = everywhere[..., 0, 0].view(len(patches), -1, self.channels)
        queries = self.queries.weight.expand(len(patches), -1, -1)
        tokens = torch.cat([queries, first, patches.flatten(2).transpose(1, 2)], dim=1)
        steps = []
        for layer, share in zip(self.layers, self.masked, strict=True):
            seen = None
            if self.training:
                steps.append(self._step(tokens, size))
                seen = self._seen(tokens, *steps[-1][1:], share)
            tokens = layer(tokens, seen)
        steps.append(self._step(tokens, size))
        states, embeddings, pixels = (torch.stack(each, dim=1) for each in zip(*steps, strict=True))
        return pixels[:, -1], states, embeddings, pixels

    def task_head(self, task: Task) -> MaskHead:
        """Return the head, with the loaded weights of its classes where there are as many.

        Raises:
            SegregError: there are fewer queries than classes.
        """
        return loaded_head(task, self.queries.num_embeddings, self.channels, self.last)

    def no_weight_decay(self) -> list[str]:
        """Return the queries."""
        return ["queries.weight"]

    def _step(self, tokens: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries' states, the embeddings of their masks and those of the pixels."""
        normed = self.norm(tokens)
        states, patches = normed[:, : self.queries.num_embeddings], normed[:, -size[0] * size[1] :]
        return states, self.mask_embedding(states), self.upscale(patches.transpose(1, 2).unflatten(2, size))

    @torch.no_grad()
    def _seen(self, tokens: Tensor, embeddings: Tensor, pixels: Tensor, share: Tensor) -> Tensor:
        """Return what the tokens see of one another, 0 or minus infinity `[B, 1, tokens, tokens]`.

        A masked query sees the patches where its mask is, the other queries, and the class and register tokens.
        """
        masks = torch.einsum("bqc,bchw->bqhw", embeddings, pixels)
        size = [side // self.scale for side in masks.shape[-2:]]
        hidden = F.interpolate(masks, size=size, mode="bilinear", align_corners=False).flatten(2) <= 0
        hidden &= torch.rand(*hidden.shape[:2], 1, device=hidden.device) < share
        seen = tokens.new_zeros(len(tokens), 1, tokens.shape[1], tokens.shape[1])
        seen[:, 0, : hidden.shape[1], -hidden.shape[2] :].masked_fill_(hidden, -torch.inf)
        return seen
