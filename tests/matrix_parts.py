"""Encoders and decoders for tests of the matrix: good ones, and one for each way to fail."""

from __future__ import annotations

import os
import signal
import time

from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl


def _encoder(in_channels, strides=(4, 8)):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.channels, self.strides = (6, 8), strides
            self.fine = nn.Sequential(nn.Conv2d(in_channels, 6, 4, stride=4, padding=1), nn.BatchNorm2d(6))
            self.coarse = nn.Conv2d(6, 8, 3, stride=2, padding=1)

        def forward(self, image):
            fine = self.fine(image)
            return [fine, torch.relu(self.coarse(fine))]

    return Net()


def good(in_channels):
    """Strides 4 and 8."""
    return _encoder(in_channels)


def dilating(in_channels):
    """Strides 4 and 8, or 4 and 4."""
    net = _encoder(in_channels)

    class Dilating(type(net)):
        def dilate(self, output_stride):
            self.coarse.stride, self.strides = (1, 1), (4, 4)
            return True

    net.__class__ = Dilating
    return net


def lying(in_channels):
    """Declare strides that it does not have."""
    return _encoder(in_channels, strides=(4, 16))


def grey(in_channels):
    """Take colours only."""
    if in_channels != 3:
        raise ValueError("colours\nonly")
    return _encoder(in_channels)


def frozen(in_channels):
    """Let no gradient through."""
    import torch

    net = _encoder(in_channels)

    class Frozen(type(net)):
        def forward(self, image):
            with torch.no_grad():
                return super().forward(image)

    net.__class__ = Frozen
    return net


def fixed(in_channels):
    """Take one size."""
    from segreg.errors import SegregError

    net = _encoder(in_channels)

    class Fixed(type(net)):
        image_size = (96, 96)

        def forward(self, image):
            if image.shape[-2:] != (96, 96):
                raise SegregError("96x96 pixels only")
            return super().forward(image)

    net.__class__ = Fixed
    return net


def refusing(in_channels):
    """Can't be built."""
    raise ValueError("no such luck")


def crashing(in_channels):
    """Take its process with it."""
    os.kill(os.getpid(), signal.SIGKILL)


def member(name, in_channels):
    """One of many."""
    return _encoder(in_channels)


def _decoder(encoder, forward, output_stride=None):
    from torch import nn

    from segreg.models.pyramid import at_output_stride, pyramid_of

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pyramid = at_output_stride(encoder, output_stride) if output_stride else pyramid_of(encoder)
            self.mix = nn.Conv2d(encoder.channels[-1], 5, 1)
            self.channels, self.stride = 5, self.pyramid.strides[-1]

        def forward(self, levels):
            return forward(self, self.mix(self.pyramid(levels)[-1]), levels)

    return Net()


def last(encoder):
    """The last level."""
    return _decoder(encoder, lambda net, x, levels: x)


def close(encoder):
    """The last level, dilated."""
    return _decoder(encoder, lambda net, x, levels: x, output_stride=4)


def writing(encoder):
    """Write into the levels that it is given."""
    return _decoder(encoder, lambda net, x, levels: x if net.training else levels[-1].zero_()[:, :5])


def reading(encoder):
    """Read values on its way, which can't be done on shapes alone."""
    return _decoder(encoder, lambda net, x, levels: x * float(x.detach().abs().max() >= 0))


def overflowing(encoder):
    """Return infinite logits in training."""
    return _decoder(encoder, lambda net, x, levels: x / 0 if net.training else x)


def even(encoder):
    """Fails on sides that are no multiple of four."""

    def forward(net, x, levels):
        if levels[0].shape[-1] == 83:
            raise RuntimeError("sizes must match except in dimension 1\n\nmore words")
        return x

    return _decoder(encoder, forward)


def dying(encoder):
    """Take its process with it."""
    os.kill(os.getpid(), signal.SIGKILL)


def slow(encoder):
    """Never comes to an end."""
    time.sleep(600)


@hookimpl
def segreg_entries():
    encoders = (good, dilating, lying, grey, frozen, fixed, refusing, crashing)
    decoders = (last, close, writing, reading, overflowing, even, dying, slow)
    return [
        *(Entry("encoder", f"pair.{build.__name__}", build) for build in encoders),
        *(Entry("decoder", f"pair.{build.__name__}", build) for build in decoders),
        Family("encoder", "many", "many/", member, lambda: ["a", "b", "c"], representatives=lambda: ["b"]),
        Family("encoder", "few", "few/", member, lambda: ["d", "e"]),
    ]
