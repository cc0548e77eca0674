"""An encoder of segmentation_models_pytorch (SMP) as segreg's contract has it."""

from __future__ import annotations

import copy
from typing import Any, Literal

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from segreg.errors import SegregError, listed
from segreg_plugins.batch_norm import with_single_values
from segreg_plugins.encoders.levels import by_level, measured, needed_by_level
from segreg_plugins.encoders.normalization import Statistics, per_channel, smp_statistics
from segreg_plugins.pretrained import Fallback, HubFile, obtain, read

_SIZE = (256, 256)


class SmpEncoder(nn.Module):
    """SMP's network without its copy of the image and its maps of no channels.

    Shape: image `[B, in_channels, H, W]` of any size to a list of `[B, channels[i], H / strides[i], W / strides[i]]`,
    rounded as the network does.

    Attributes:
        network: SMP's encoder. At depth 5 it has SMP's parameters and names; below, what no level needs is left out.
        normalization: mean and standard deviation of each input channel that the weights were trained with.
        weights_note: says so where random weights stand in for those that were asked for.
    """

    def __init__(self, network: Any, in_channels: int, normalization: Statistics, weights_note: str = "") -> None:
        super().__init__()
        self.network: Any = network
        self.in_channels = in_channels
        self.normalization = normalization
        self.weights_note = weights_note
        levels = measured(network, in_channels, _SIZE)
        self.kept = [level.index for level in levels]
        self.channels = [level.channels for level in levels]
        self.strides = [level.stride for level in levels]

    def forward(self, image: Tensor) -> list[Tensor]:
        features = self.network(image)
        return [features[index] for index in self.kept]

    def layer_groups(self) -> list[list[str]]:
        """Return SMP's stages: what each level is the first to need."""
        return [[f"network.{name}" for name in stage] for stage in by_level(self.network, self.in_channels, _SIZE)]

    def dilate(self, output_stride: int) -> bool:
        """Trades the strides beyond `output_stride` for dilation, as SMP's `make_dilated` does.

        It can't be done at output strides other than 8 and 16 and where a network halves by pooling (VGG, DenseNet,
        Inception, Xception).
        """
        if max(self.strides) <= output_stride:
            return True
        # SMP changes a network layer by layer and may give up half-way: a copy is tried first.
        trial = copy.deepcopy(self.network).to("meta")
        try:
            trial.make_dilated(output_stride)
        except (ValueError, NotImplementedError):
            return False
        levels = measured(trial, self.in_channels, _SIZE)
        if [level.channels for level in levels] != self.channels or max(v.stride for v in levels) > output_stride:
            return False
        self.network.make_dilated(output_stride)
        self.strides = [level.stride for level in levels]
        return True


def build(
    member: str,
    in_channels: int,
    *,
    weights: str | None = None,
    depth: Literal[3, 4, 5] = 5,
    weights_fallback: Fallback = "error",
) -> SmpEncoder:
    """Return the SMP encoder `member`; its settings are those of `smp_family.member_settings`.

    Raises:
        SegregError: the installed SMP does not know the encoder or its weights, or they are not available.
    """
    if member not in smp.encoders.encoders:
        raise SegregError(f'segmentation_models_pytorch {smp.__version__} has no encoder "{member}"')
    path, note = None, ""
    if weights is not None:
        known = smp.encoders.encoders[member]["pretrained_settings"]
        if weights not in known:
            raise SegregError(f'encoder "{member}" has no weights "{weights}"; it has {listed(list(known))}, or null')
        file = HubFile(known[weights]["repo_id"], revision=known[weights]["revision"])
        path, note = obtain(file, part=f"encoder {member}", weights=weights, fallback=weights_fallback)
    network = smp.encoders.get_encoder(member, in_channels=3, depth=depth, weights=None)
    if path:
        state = read(path)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise SegregError(f'{path}: these are no weights of encoder "{member}": {error}') from error
    network.set_in_channels(in_channels, pretrained=path is not None)
    if depth < 5:
        _leave_out_unused(network, in_channels)
    network = with_single_values(network)
    return SmpEncoder(network, in_channels, per_channel(smp_statistics(member, weights), in_channels), note)


class _Skipped(nn.Module):
    """What stands in a left-out module's place: SMP runs some of them (EfficientNet's) and drops what they give."""

    def forward(self, first: Tensor, *_: object) -> Tensor:
        return first


def _leave_out_unused(network: nn.Module, in_channels: int) -> None:
    """Replace the modules whose parameters no level depends on, which SMP builds and keeps whatever the depth."""
    used = {name for level in needed_by_level(network, in_channels, _SIZE) for name in level}

    def visit(module: nn.Module, prefix: str) -> None:
        for name, child in list(module.named_children()):
            inner = {f"{prefix}{name}.{own}" for own, _ in child.named_parameters()}
            if inner and not inner & used:
                setattr(module, name, _Skipped())
            else:
                visit(child, f"{prefix}{name}.")

    visit(network, "")
