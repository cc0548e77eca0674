"""The kinds of part: what segreg gives each and what it gets back. A new kind is one more row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of part.

    Attributes:
        name: as entries and `segreg list` name it.
        gives: what segreg passes to the builder, by position.
        returns: what the builder must return, for messages.
        reserved: setting names that a recipe uses for itself on this kind.
    """

    name: str
    gives: tuple[str, ...]
    returns: str
    reserved: frozenset[str] = frozenset({"name"})


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("encoder", ("in_channels",), "an nn.Module that is a segreg.Encoder"),
        Kind("decoder", ("encoder",), "an nn.Module that is a segreg.Decoder", frozenset({"name", "weight"})),
        Kind("loss", ("task",), "a function (logits, target) -> scalar", frozenset({"name", "weight"})),
        Kind("dataset", (), "a segreg.Dataset"),
        Kind("augmentation", (), "an Albumentations transform"),
        Kind("metric", ("task", "threshold"), "a torchmetrics.Metric"),
        Kind("optimizer", ("parameter_groups",), "a torch.optim.Optimizer"),
        Kind("schedule", ("optimizer", "steps_per_epoch", "epochs"), "a segreg.Schedule"),
    )
}
