"""The built-in decoders: the kind's table of contents, one line an entry."""

from __future__ import annotations

from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl
from segreg_plugins.decoders import torchvision_heads
from segreg_plugins.decoders.deeplabv3plus import deeplabv3plus
from segreg_plugins.decoders.lraspp import lraspp
from segreg_plugins.decoders.mask_transformer import mask_transformer
from segreg_plugins.decoders.mlp import mlp
from segreg_plugins.decoders.smp import dilated, dpt, ladders, pyramids


@hookimpl
def segreg_entries() -> list[Entry | Family]:
    """Return the decoders."""
    return [
        Entry("decoder", "deeplabv3plus", deeplabv3plus, paper="arXiv:1802.02611"),
        Entry("decoder", "lraspp", lraspp, paper="arXiv:1905.02244"),
        Entry("decoder", "mask_transformer", mask_transformer, paper="arXiv:2112.01527"),
        Entry("decoder", "mlp", mlp, paper="arXiv:2105.15203"),
        Entry("decoder", "torchvision.deeplabv3", torchvision_heads.deeplabv3, paper="arXiv:1706.05587"),
        Entry("decoder", "torchvision.fcn", torchvision_heads.fcn, paper="arXiv:1411.4038"),
        Entry("decoder", "smp.unet", ladders.unet, paper="arXiv:1505.04597"),
        Entry("decoder", "smp.unetplusplus", ladders.unetplusplus, paper="arXiv:1807.10165"),
        Entry("decoder", "smp.manet", ladders.manet, paper="https://ieeexplore.ieee.org/document/9201310"),
        Entry("decoder", "smp.linknet", ladders.linknet, paper="arXiv:1707.03718"),
        Entry("decoder", "smp.fpn", pyramids.fpn, paper="arXiv:1612.03144"),
        Entry("decoder", "smp.pspnet", pyramids.pspnet, paper="arXiv:1612.01105"),
        Entry("decoder", "smp.deeplabv3", dilated.deeplabv3, paper="arXiv:1706.05587"),
        Entry("decoder", "smp.deeplabv3plus", dilated.deeplabv3plus, paper="arXiv:1802.02611"),
        Entry("decoder", "smp.pan", dilated.pan, paper="arXiv:1805.10180"),
        Entry("decoder", "smp.upernet", pyramids.upernet, paper="arXiv:1807.10221"),
        Entry("decoder", "smp.segformer", pyramids.segformer, paper="arXiv:2105.15203"),
        Entry("decoder", "smp.dpt", dpt.dpt, paper="arXiv:2103.13413"),
    ]
