"""The statistics that pretrained weights were trained with, for as many channels as an encoder's first layer takes."""

from __future__ import annotations

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of channel values in [0, 1]."""

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DPN: Statistics = ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3)


def smp_statistics(member: str, weights: str | None) -> Statistics:
    """Return the statistics that an SMP encoder's weights were trained with.

    SMP itself asks the Hugging Face hub for them, even for an encoder without weights.
    """
    if member.startswith("dpn"):
        return DPN
    if member.startswith(("inception", "xception")) or weights == "advprop":
        return HALVES
    return IMAGENET


def per_channel(statistics: Statistics, in_channels: int) -> Statistics:
    """Return mean and standard deviation of each of `in_channels` channels.

    It follows what SMP and timm do to the first layer: one channel takes the sum of the colours' weights, so here their
    average statistics; more than three take the colours' in turn.
    """
    if in_channels == 1:
        mean, deviation = (sum(values) / len(values) for values in statistics)
        return (mean,), (deviation,)
    mean_of, deviation_of = statistics
    return (
        tuple(mean_of[i % len(mean_of)] for i in range(in_channels)),
        tuple(deviation_of[i % len(deviation_of)] for i in range(in_channels)),
    )
