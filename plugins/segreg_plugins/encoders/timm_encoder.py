"""A model of timm as segreg's contract has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
from torch import Tensor, nn

from segreg.errors import SegregError, listed
from segreg_plugins.batch_norm import with_single_values
from segreg_plugins.encoders.levels import Found, Level, computed, measured, once, outline
from segreg_plugins.encoders.normalization import per_channel
from segreg_plugins.encoders.timm_layers import Said
from segreg_plugins.pretrained import DEFAULT, Fallback, HubFile, WebFile, loading, obtain

_HUB_NAMES = ("model.safetensors", "pytorch_model.bin")
# How timm's models are made to take images of other sizes than they were trained at, the best way first.
_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)
_SINGLE_SCALE_LEVELS = 4
_REFUSED = (TypeError, AssertionError, RuntimeError, NotImplementedError, ValueError, AttributeError, LookupError)


class TimmEncoder(nn.Module):
    """A timm model's own maps of features, channels first.

    A network whose maps all have one stride (ViT) gives four, evenly spaced over its blocks. An image whose sides are
    no multiples of `size_divisor` is given zeros at its right and lower edge. A network whose convolutions don't pad
    (Inception, Xception) gives maps that lack the image's border: it is repeated around them.

    Shape: image `[B, in_channels, H, W]` to a list of `[B, channels[i], H / strides[i], W / strides[i]]`, rounded as
    the network does.

    Attributes:
        network: timm's model, as its `features_only` makes it.
        size_divisor: what the network wants an image's sides to be multiples of.
        image_size: the one height and width that the network takes, or None where it takes any.
        native_size: height and width that its weights were trained with.
        normalization: mean and standard deviation of each input channel that the weights were trained with.
        weights_note: says so where random weights stand in for those that were asked for.
    """

    def __init__(
        self, member: str, network: Any, arguments: dict[str, Any], size: tuple[int, int], *, doubtful: bool = False
    ) -> None:
        super().__init__()
        self.member = member
        self.network = network
        self.arguments = arguments
        self.in_channels: int = arguments["in_chans"]
        self.native_size = size
        self._settle(_once("levels", member, arguments, size, lambda: _levels(network, self.in_channels, size)))
        trial = computed if doubtful else outline
        self.size_divisor, self.image_size = _once("sizes", member, arguments, size, lambda: self._sizes(size, trial))
        self.normalization: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
        self.weights_note = ""
        self._known: Said | None = None

    def _settle(self, levels: list[Level]) -> None:
        self.levels = list(levels)
        self.channels = [level.channels for level in levels]
        self.strides = [level.stride for level in levels]

    def _sizes(
        self, size: tuple[int, int], trial: Callable[[nn.Module, int, tuple[int, int]], list[Tensor] | None]
    ) -> tuple[int, tuple[int, int] | None]:
        """Return what an image's sides must be a multiple of, and the only size that will do if there is just one.

        Args:
            size: that the network was made for.
            trial: gives the network's maps of an image of some channels and size.
        """
        finest, coarsest = min(self.strides), max(self.strides)
        # Patches that hang over the edge are padded by the network, unseen; whole ones are what the maps are true of.
        least = finest if finest == coarsest else 1
        for divisor in dict.fromkeys((least, finest, coarsest, math.lcm(*size))):
            # Odd, oblong and clearly larger: CrossViT takes any image and resizes it, so its levels would lie.
            height, width = (-(-side // divisor) * divisor for side in (size[0] + size[0] // 2 + 9, size[1] + 27))
            try:
                maps = trial(self.network, self.in_channels, (height, width))
            except _REFUSED:
                continue
            if maps is None:
                return coarsest, None  # it can't be tried without computing; this is the cautious guess
            heights = [maps[level.index].shape[1 if level.channels_last else 2] for level in self.levels]
            if all(abs(h * s / height - 1) < 0.3 for h, s in zip(heights, self.strides, strict=True)):
                return divisor, None
        return 1, size

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        if self.image_size and (height, width) != self.image_size:
            built = "x".join(map(str, self.image_size))
            raise SegregError(
                f'encoder "timm/{self.member}" was built for images of {built} pixels and takes no other size; this '
                f"one has {height}x{width}",
                hint=f"set img_size: [{height}, {width}] beside the encoder's name, or another input size",
            )
        if self.size_divisor > 1:
            image = F.pad(image, (0, -width % self.size_divisor, 0, -height % self.size_divisor))
        features = self.network(image)
        return [_whole(features[level.index], level, image) for level in self.levels]

    def layer_groups(self) -> list[list[str]]:
        """Return timm's layers of the network."""
        return self._said().layer_groups

    def no_weight_decay(self) -> list[str]:
        """Return the parameters that timm's model wants no weight decay for."""
        return self._said().no_weight_decay

    def _said(self) -> Said:
        self._known = self._known or Said.of(self.member, self.arguments, self.network)
        return self._known

    def dilate(self, output_stride: int) -> bool:
        """Rebuild the model with timm's own `output_stride` around the same parameters, where it knows one."""
        if max(self.strides) <= output_stride:
            return True
        arguments = {**self.arguments, "output_stride": output_stride}
        levels, shapes = _once("dilated", self.member, arguments, self.native_size, lambda: self._dilated(arguments))
        if [level.channels for level in levels] != self.channels or max(v.stride for v in levels) > output_stride:
            return False
        old = self.network.state_dict(keep_vars=True)
        if shapes != {name: tensor.shape for name, tensor in old.items()}:
            return False
        device = next(self.network.parameters()).device
        dilated = _create(self.member, arguments).to(device).train(self.network.training)
        dilated.load_state_dict(old, assign=True)  # the very parameters, so that an optimizer keeps hold of them
        self.network, self.arguments = dilated, arguments
        self._settle(levels)
        return True

    def _dilated(self, arguments: dict[str, Any]) -> tuple[list[Level], dict[str, torch.Size]]:
        """Return the levels and the tensors' shapes of a model of these arguments; nothing where timm refuses them."""
        try:
            with torch.device("meta"):
                trial = _create(self.member, arguments)
            levels = _levels(trial, self.in_channels, self.native_size)
        except _REFUSED:
            return [], {}
        return levels, {name: tensor.shape for name, tensor in trial.state_dict().items()}


def build(
    member: str,
    in_channels: int,
    *,
    weights: str | None = None,
    img_size: tuple[int, int] | None = None,
    weights_fallback: Fallback = "error",
) -> TimmEncoder:
    """Return the timm model `member`; its settings are those of `timm_family.member_settings`.

    Raises:
        SegregError: timm has no such model, weights or size, it gives no features, or the weights are not available.
    """
    if not timm.is_model(member):
        raise SegregError(f'timm {timm.__version__} has no model "{member}"')
    pretrained, path, note = _config(member, weights), None, ""
    if weights is not None:
        path, note = obtain(
            _file(member, weights, pretrained),
            part=f"encoder timm/{member}",
            weights=weights,
            fallback=weights_fallback,
        )
    arguments: dict[str, Any] = {"in_chans": in_channels}
    if img_size is not None:
        arguments["img_size"] = img_size
    if pretrained.tag:
        arguments["pretrained_cfg"] = pretrained.tag
    ways = _ANY_SIZE if pretrained.fixed_input_size else ({},)
    arguments |= _once("fitting", member, arguments, None, lambda: _fitting(member, arguments, ways))
    if path:
        network, untouched = _pretrained(member, arguments, path, custom_load=bool(pretrained.custom_load))
        if untouched:
            note = f'RANDOM weights in {listed(untouched, most=4)}: "{weights}" of timm/{member} does not fit there'
    else:
        network = _create(member, arguments)
    size = img_size or tuple(pretrained.input_size[-2:])
    try:
        # Tables of positions that are too short for larger images show in values alone, not in shapes (MViT).
        doubtful = bool(pretrained.fixed_input_size) and not {"dynamic_img_size", "strict_img_size"} & set(arguments)
        encoder = TimmEncoder(member, network, arguments, size, doubtful=doubtful)
    except _REFUSED as error:
        raise SegregError(
            f"timm's \"{member}\" can't take images of {in_channels} channels and {size[0]}x{size[1]} pixels: {error}"
        ) from error
    encoder.normalization = per_channel((tuple(pretrained.mean), tuple(pretrained.std)), in_channels)
    encoder.weights_note = note
    return encoder


def _once(
    what: str, member: str, arguments: dict[str, Any], size: tuple[int, int] | None, find: Callable[[], Found]
) -> Found:
    return once(("timm", what, member, repr(sorted(arguments.items())), size), find)


def _config(member: str, weights: str | None) -> Any:
    """Return timm's record of the weights, or of its default ones where none are asked for."""
    known = {config.tag or DEFAULT: config for config in get_arch_pretrained_cfgs(member).values()}
    had = [tag for tag, config in known.items() if config.has_weights]
    config = get_pretrained_cfg(member) if weights in (None, DEFAULT) else known.get(weights)
    if weights is not None and (config is None or not config.has_weights):
        others = (
            f"it has {listed([*had, DEFAULT] if had else [], most=40)}, or null" if had else "it has none: use null"
        )
        raise SegregError(f'timm {timm.__version__} has no weights "{weights}" for "{member}"; {others}')
    if config is None:
        raise SegregError(f'timm {timm.__version__} does not say what images "{member}" takes')
    return config


def _file(member: str, weights: str, pretrained: Any) -> HubFile | WebFile:
    if pretrained.hf_hub_id:
        repository, _, revision = pretrained.hf_hub_id.partition("@")
        names = (pretrained.hf_hub_filename,) if pretrained.hf_hub_filename else _HUB_NAMES
        return HubFile(repository, names, revision or None)
    if pretrained.url:
        return WebFile(pretrained.url)
    raise SegregError(f'timm has the weights "{weights}" of "{member}" neither on the hub nor behind a URL')


def _fitting(member: str, arguments: dict[str, Any], ways: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return the arguments that make the model take any size, where it can, and choose its levels."""
    refused: Exception | None = None
    for way in ways:
        try:
            with torch.device("meta"):
                network = _create(member, {**arguments, **way})
        except TypeError as error:
            refused = error
            if "unexpected keyword" in str(error):
                continue
            raise _no_features(member, error) from error
        except _REFUSED as error:
            raise _no_features(member, error) from error
        strides = network.feature_info.get("reduction", list(range(len(network.feature_info))))
        if len(set(strides)) > 1 or len(strides) <= _SINGLE_SCALE_LEVELS:
            return way
        chosen = (len(strides) * (i + 1) // _SINGLE_SCALE_LEVELS - 1 for i in range(_SINGLE_SCALE_LEVELS))
        return {**way, "out_indices": tuple(chosen)}
    if "img_size" in arguments:
        raise SegregError(f'timm\'s "{member}" is not built for a chosen size: it has no img_size', hint="leave it out")
    raise _no_features(member, refused)


def _no_features(member: str, error: Exception | None) -> SegregError:
    return SegregError(f'timm {timm.__version__} can\'t build "{member}" as an encoder: {error}')


def _pretrained(member: str, arguments: dict[str, Any], path: Path, *, custom_load: bool) -> tuple[Any, list[str]]:
    """Return the model with the weights of `path`, and the names of parameters that they left random.

    timm loads a backbone's weights leniently and tells what did not fit to its log alone. So the model is built once
    more from the same random numbers: what is equal then was not loaded.

    Raises:
        SegregError: the file is damaged, or no parameter came from it.
    """
    overlay = {"file": str(path), "custom_load": custom_load}
    start = torch.get_rng_state()
    network = loading(path, lambda: _create(member, arguments, pretrained=True, pretrained_cfg_overlay=overlay))
    torch.set_rng_state(start)
    fresh = dict(_create(member, arguments).named_parameters())
    random = {name for name, parameter in fresh.items() if parameter.min() != parameter.max()}
    untouched = [name for name, p in network.named_parameters() if name in random and torch.equal(p, fresh[name])]
    if len(untouched) == len(random):
        raise SegregError(f'{path}: these are no weights of timm\'s "{member}": no parameter was found in them')
    return network, untouched


def _create(member: str, arguments: dict[str, Any], **more: Any) -> Any:
    return with_single_values(
        timm.create_model(member, features_only=True, **{"pretrained": False, **arguments, **more})
    )


def _whole(features: Tensor, level: Level, image: Tensor) -> Tensor:
    """Return a map, channels first, with the border that unpadded convolutions took from it repeated around it."""
    if level.channels_last:
        features = features.permute(0, 3, 1, 2)
    missing = [side // level.stride - own for own, side in zip(features.shape[-2:], image.shape[-2:], strict=True)]
    if max(missing) <= 0:
        return features
    down, right = (max(0, number) for number in missing)
    return F.pad(features, (right // 2, right - right // 2, down // 2, down - down // 2), mode="replicate")


def _levels(network: Any, in_channels: int, size: tuple[int, int]) -> list[Level]:
    """Return the network's levels, finest first."""
    declared = list(zip(network.feature_info.channels(), network.feature_info.reduction(), strict=True))
    return sorted(measured(network, in_channels, size, declared), key=lambda level: level.stride)
