"""The objective of training: a network and its losses as one module, from uint8 images to named loss terms."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segreg.config.sections import Ramp
from segreg.errors import SegregError, listed
from segreg.models.segmenter import AUXILIARY
from segreg.registry.entry import where_made
from segreg.task import IGNORE_INDEX
from segreg.training.monitor import TOTAL

if TYPE_CHECKING:
    from segreg.models.segmenter import Segmenter
    from segreg.registry.protocols import Loss


class Objective(nn.Module):
    """Normalize images, run the network and weigh its losses, as one module to compile and call.

    In training, the losses score every logit map of the network, each but the main one with a weight of its own. What a
    decoder brings losses for is trained by those instead. In evaluation the losses score the main logits and nothing
    else, so that validation losses of all networks are comparable.

    Attributes:
        model: the network.
        terms: names of the recipe's losses: of the terms in evaluation, without the total.
    """

    def __init__(
        self,
        model: Segmenter,
        normalize: nn.Module,
        losses: Sequence[tuple[str, float | Ramp, Loss]],
        further_losses: Sequence[Sequence[tuple[str, float | Ramp, Loss]]] = (),
    ) -> None:
        """Combine a network and its losses.

        Args:
            model: a network with `supervised(image, targets)`, as a `Segmenter` has it, and what that names.
            normalize: maps uint8 images to the network's input.
            losses: name, weight and function of each loss. Repeated names are numbered.
            further_losses: the same losses, built once more for each of the network's further logit maps, because a
                loss may count its calls; without them, copies are taken, and what functions keep in closures is shared.

        Raises:
            SegregError: there is no loss, or one has parameters that want to be trained.
        """
        super().__init__()
        if not losses:
            raise SegregError("there is no loss to train with; name at least one")
        for name, _, loss in losses:
            _refuse_untrained(name, loss)
        self.model = model
        self.normalize = normalize
        self.terms = _numbered([name for name, _, _ in losses])
        self.ramps = tuple(weight for _, weight, _ in losses)
        # One that changes is a tensor, which a compiled step does not take for a constant.
        self.weights = tuple(torch.tensor(w.at(1)) if isinstance(w, Ramp) else float(w) for w in self.ramps)
        self.losses = tuple(loss for _, _, loss in losses)
        built = [tuple(loss for _, _, loss in each) for each in further_losses]
        self.further_losses = dict(
            zip(model.further, built or [copy.deepcopy(self.losses) for _ in model.further], strict=True)
        )
        # Losses that are modules are registered as well, so that class weights and the like move with the network.
        self.loss_modules = nn.ModuleList(loss for loss in self.losses if isinstance(loss, nn.Module))
        every = itertools.chain(*self.further_losses.values())
        self.auxiliary_loss_modules = nn.ModuleList(loss for loss in every if isinstance(loss, nn.Module))

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Tell the network and each loss with a method `set_epoch` which epoch begins, from 1, and weigh the losses."""
        self.model.set_epoch(epoch, epochs)
        for weight, ramp in zip(self.weights, self.ramps, strict=True):
            if isinstance(ramp, Ramp) and isinstance(weight, Tensor):
                weight.fill_(ramp.at(epoch))
        for loss in itertools.chain(self.losses, *self.further_losses.values()):
            if set_epoch := getattr(loss, "set_epoch", None):
                set_epoch(epoch)

    def changing_weights(self, epoch: int) -> dict[str, float]:
        """Return the weights in an epoch that are not those in every other, by the names of their terms."""
        pairs = zip(self.terms, self.ramps, strict=True)
        return {name: ramp.at(epoch) for name, ramp in pairs if isinstance(ramp, Ramp)}

    def forward(
        self, images: Tensor, targets: Tensor, others: Tensor | None = None, share: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the named terms, "loss" (the weighted total) first, float32 scalars.

        Shape: images `[B, C, H, W]` uint8; targets `[B, H, W]`, or `[B, K, H, W]` if multilabel, uint8 labels with 255
        for ignored pixels. Of mixed images, `others` are a second truth, and the terms are `share` of the first one's
        and the rest of the second's.
        """
        image, targets = self.normalize(images), targets.long()
        maps, own = self.model.supervised(image, targets) if self.training else ({"": self.model(image)}, {})
        terms = self.terms_of(maps, targets, own)
        if others is not None and share is not None:
            if own:  # which the network computes: it runs once more
                maps, own = self.model.supervised(image, others.long())
            rest = self.terms_of(maps, others, own)
            terms = {name: share * term + (1 - share) * rest[name] for name, term in terms.items()}
        return terms

    def terms_of(
        self, maps: Mapping[str, Tensor], targets: Tensor, own: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the named terms, "loss" first: of logits by name, the main ones under "", and decoders' own losses."""
        targets = targets.long()
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=targets.device)
        # Losses see float32 whatever the network computed in: a soft Dice over 65 thousand pixels overflows fp16.
        with torch.autocast(targets.device.type, enabled=False):
            for output, given in maps.items():
                logits = given.float()
                factor = self.model.further[output] if output else 1.0
                losses = self.further_losses[output] if output else self.losses
                for name, weight, loss in zip(self.terms, self.weights, losses, strict=True):
                    value = _scalar(name, loss, loss(logits, targets)).float()
                    if torch.is_grad_enabled() and logits.requires_grad and not value.requires_grad:
                        value = _attached(name, loss, value, logits, targets)
                    terms[f"{output}.{name}".lstrip(".")] = value
                    total = total + factor * weight * value
            for name, value in (own or {}).items():
                head = self.model.auxiliary_head if name.startswith(f"{AUXILIARY}.") else self.model.head
                terms[name] = _scalar(name, head, value)
                total = total + self.model.own_losses[name] * value
        return {TOTAL: total, **terms}


def _refuse_untrained(name: str, loss: object) -> None:
    """Refuse a loss with parameters that have a gradient: the optimizer has those of the network alone.

    Raises:
        SegregError: it has such parameters.
    """
    if not isinstance(loss, nn.Module):
        return
    if wanting := [key for key, parameter in loss.named_parameters() if parameter.requires_grad]:
        raise SegregError(
            f'the loss "{name}" has parameters, and nothing would train them: {listed(wanting, quote="", most=3)}',
            hint=f"keep numbers in buffers, and call requires_grad_(False) of a network that stays as it is; "
            f"it is defined at {where_made(loss)}",
        )


def _scalar(name: str, loss: object, value: object) -> Tensor:
    """Return the value of a loss.

    Raises:
        SegregError: it is not a scalar of floats.
    """
    if isinstance(value, Tensor) and value.shape == () and value.is_floating_point():
        return value
    given: object = type(value).__name__
    hint = "return one tensor"
    if isinstance(value, Tensor):
        given = list(value.shape) or value.dtype
        hint = 'average over the batch, as in "cost.mean()"'
    raise SegregError(
        f'the loss "{name}" returned {given} where a scalar tensor was expected',
        hint=f"{hint}; it is defined at {where_made(loss)}",
    )


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
