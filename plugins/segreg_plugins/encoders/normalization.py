"""The statistics of three colour channels, told for as many channels as an encoder's first layer takes."""

from __future__ import annotations


def per_channel(
    statistics: tuple[tuple[float, ...], tuple[float, ...]], in_channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Gives mean and standard deviation of each of `in_channels` channels.

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
