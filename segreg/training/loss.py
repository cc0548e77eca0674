"""The objective of training: a network and its losses as one module, from uint8 images to named loss terms."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segreg.config.sections import Ramp
from segreg.errors import SegregError
from segreg.registry.entry import where_made
from segreg.task import IGNORE_INDEX
from segreg.training.monitor import TOTAL

if TYPE_CHECKING:
    from segreg.models.segmenter import Segmenter
    from segreg.registry.protocols import Loss

AUXILIARY = "auxiliary."
"""The prefix of a loss term of the auxiliary decoder."""


class Objective(nn.Module):
    """Normalize images, run the network and weigh its losses, as one module to compile and call.

    In training, the losses score every logit map of the network, the auxiliary decoder's with a weight of its own; in
    evaluation only the main one, so that validation losses are comparable with and without an auxiliary decoder.

    Attributes:
        model: the network.
        terms: names of the loss terms in evaluation, without the total.
    """

    def __init__(
        self,
        model: Segmenter,
        normalize: nn.Module,
        losses: Sequence[tuple[str, float | Ramp, Loss]],
        auxiliary_weight: float = 0.4,
        auxiliary_losses: Sequence[tuple[str, float | Ramp, Loss]] = (),
    ) -> None:
        """Combine a network and its losses.

        Args:
            model: a network with `all_logits(image)`: the main logits first, then the auxiliary decoder's.
            normalize: maps uint8 images to the network's input.
            losses: name, weight and function of each loss. Repeated names are numbered.
            auxiliary_weight: factor of all losses on the auxiliary logits.
            auxiliary_losses: the same losses, built once more for the auxiliary logits, because a loss may count its
                calls; without them, copies are taken, and what functions keep in closures is shared.

        Raises:
            SegregError: there is no loss.
        """
        super().__init__()
        if not losses:
            raise SegregError("there is no loss to train with; name at least one")
        self.model = model
        self.normalize = normalize
        self.terms = _numbered([name for name, _, _ in losses])
        self.ramps = tuple(weight for _, weight, _ in losses)
        # One that changes is a tensor, which a compiled step does not take for a constant.
        self.weights = tuple(torch.tensor(w.at(1)) if isinstance(w, Ramp) else float(w) for w in self.ramps)
        self.auxiliary_weight = float(auxiliary_weight)
        self.losses = tuple(loss for _, _, loss in losses)
        # Losses that are modules are registered as well, so that class weights and the like move with the network.
        self.loss_modules = nn.ModuleList(loss for loss in self.losses if isinstance(loss, nn.Module))
        has_auxiliary = getattr(model, "auxiliary", None) is not None
        own = tuple(loss for _, _, loss in auxiliary_losses) or copy.deepcopy(self.losses)
        self.auxiliary_losses = own if has_auxiliary else ()
        self.auxiliary_loss_modules = nn.ModuleList(
            loss for loss in self.auxiliary_losses if isinstance(loss, nn.Module)
        )

    def set_epoch(self, epoch: int) -> None:
        """Tell each loss that has a method `set_epoch` which epoch begins, from 1, and weigh the losses by it."""
        for weight, ramp in zip(self.weights, self.ramps, strict=True):
            if isinstance(ramp, Ramp) and isinstance(weight, Tensor):
                weight.fill_(ramp.at(epoch))
        for loss in (*self.losses, *self.auxiliary_losses):
            if set_epoch := getattr(loss, "set_epoch", None):
                set_epoch(epoch)

    def changing_weights(self, epoch: int) -> dict[str, float]:
        """Return the weights in an epoch that are not those in every other, by the names of their terms."""
        pairs = zip(self.terms, self.ramps, strict=True)
        return {name: ramp.at(epoch) for name, ramp in pairs if isinstance(ramp, Ramp)}

    def forward(self, images: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the named terms, "loss" (the weighted total) first, and the main logits, all float32.

        Shape: images `[B, C, H, W]` uint8; targets `[B, H, W]`, or `[B, K, H, W]` if multilabel, uint8 labels with 255
        for ignored pixels; terms are scalars, logits `[B, K, H, W]`.
        """
        image = self.normalize(images)
        maps = [logits.float() for logits in (self.model.all_logits(image) if self.training else [self.model(image)])]
        return self.terms_of(maps, targets), maps[0]

    def terms_of(self, maps: Sequence[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Return the named terms, "loss" first, of float32 logits: the main ones and then the auxiliary decoder's."""
        targets = targets.long()
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=targets.device)
        # Losses see float32 whatever the network computed in: a soft Dice over 65 thousand pixels overflows fp16.
        with torch.autocast(targets.device.type, enabled=False):
            for index, logits in enumerate(maps):
                prefix, factor = (AUXILIARY, self.auxiliary_weight) if index else ("", 1.0)
                losses = self.auxiliary_losses if index else self.losses
                for name, weight, loss in zip(self.terms, self.weights, losses, strict=True):
                    value = _scalar(name, loss, loss(logits, targets)).float()
                    if torch.is_grad_enabled() and logits.requires_grad and not value.requires_grad:
                        value = _attached(name, loss, value, logits, targets)
                    terms[prefix + name] = terms.get(prefix + name, 0) + value
                    total = total + factor * weight * value
        return {TOTAL: total, **terms}


def _scalar(name: str, loss: object, value: object) -> Tensor:
    """Return the value of a loss.

    Raises:
        SegregError: it is not a scalar of floats.
    """
    if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
        given = list(value.shape) if isinstance(value, Tensor) and value.shape != () else type(value).__name__
        if isinstance(value, Tensor) and value.shape == ():
            given = str(value.dtype)
        hint = 'average over the batch, as in "cost.mean()"' if isinstance(value, Tensor) else "return one tensor"
        raise SegregError(
            f'the loss "{name}" returned {given} where a scalar tensor was expected',
            hint=f"{hint}; it is defined at {where_made(loss)}",
        )
    return value


def _attached(name: str, loss: object, value: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the value of a loss that has no gradient: right where nothing is to be learned from a batch.

    Raises:
        SegregError: the batch has pixels to learn from.
    """
    if (targets != IGNORE_INDEX).any():
        raise SegregError(
            f'the loss "{name}" returned a value without a gradient: it is cut off from the logits, and nothing would '
            "be learned from it",
            hint="compute it from the logits by differentiable operations of torch: no .detach(), .item(), argmax, "
            f"NumPy or torch.no_grad() on the way; it is defined at {where_made(loss)}",
        )
    return value + logits.flatten()[:0].sum()


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, with "#2", "#3" ... appended to repeated ones."""
    given: list[str] = []
    for name in names:
        count, unique = 1, name
        while unique in given or unique == TOTAL:
            count += 1
            unique = f"{name}#{count}"
        given.append(unique)
    return tuple(given)
