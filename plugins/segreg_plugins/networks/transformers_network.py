"""A semantic segmentation network of Hugging Face's transformers, as an encoder and the decoder built on it.

SegFormer is arXiv:2105.15203, UPerNet arXiv:1807.10221, Mask2Former arXiv:2112.01527, EoMT arXiv:2503.19108. Numbers
are those of transformers; what is added is that BatchNorm takes a single value (see `batch_norm`), so that a batch of
one image trains.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from segreg.errors import SegregError, listed
from segreg_plugins.batch_norm import with_single_values
from segreg_plugins.decoders.torchvision_weights import with_input_channels
from segreg_plugins.encoders.levels import by_level
from segreg_plugins.encoders.normalization import IMAGENET, per_channel
from segreg_plugins.networks.eomt_network import EomtBody, EomtTrunk
from segreg_plugins.networks.mask2former_network import Mask2FormerBody, with_last
from segreg_plugins.networks.transformers_family import plain_sizes_of, published, sizes_of
from segreg_plugins.pretrained import Fallback, HubFile, loading, obtain, read

_LAST = ("decode_head.classifier.weight", "class_predictor.weight")
"""The last layers, which have an output for each class, and those of queries one more for none."""
_QUERIES = ("query.weight", "model.transformer_module.queries_features.weight")
_UNUSED = re.compile(r"^criterion\.|^attn_mask_probs|\.swin\.layernorm\.")
"""What files may lack, as nothing here uses it: EoMT's training, and what comes after the last level of Mask2Former."""
_SIZE = (256, 256)
_FILES = ("model.safetensors", "pytorch_model.bin")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")

Network = tuple["Trunk | EomtTrunk", "Body | Mask2FormerBody | EomtBody"]


class Trunk(nn.Module):
    """The network's backbone.

    Shape: image `[B, in_channels, H, W]` to maps `[B, channels[i], H / strides[i], W / strides[i]]`, rounded as the
    network does.

    Attributes:
        normalization: mean and standard deviation of each input channel that published weights were trained with.
        weights_note: which weights were loaded, and what they left random.
    """

    def __init__(self, network: Any, channels: Sequence[int], in_channels: int) -> None:
        super().__init__()
        self.network = network
        self.in_channels = in_channels
        self.channels = [*channels]
        self.strides = [4, 8, 16, 32]
        self.normalization = per_channel(IMAGENET, in_channels)
        self.weights_note = ""

    def layer_groups(self) -> list[list[str]]:
        """Return the stages: what each level is the first to need."""
        return by_level(self, self.in_channels, _SIZE)

    def no_weight_decay(self) -> list[str]:
        """Return the tables of positions (Swin)."""
        return [name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the levels."""
        if not hasattr(self.network, "stages"):
            return list(self.network(image).feature_maps)
        levels = []
        for stage in self.network.stages:
            image = stage(image)
            levels.append(image)
        return levels


class Body(nn.Module):
    """The network's head up to its last layer, which is the model's head.

    Args:
        layers: transformers' head.
        loaded: whether its last layer has weights that were trained.

    Shape: the levels to `[B, channels, H / 4, W / 4]`.
    """

    def __init__(self, layers: Any, *, loaded: bool) -> None:
        super().__init__()
        self.channels: int = layers.classifier.in_channels
        self.stride = 4
        self.last: Mapping[str, Tensor] | None = layers.classifier.state_dict() if loaded else None
        layers.classifier = nn.Identity()
        self.layers = layers

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the features before the last layer."""
        features: Tensor = self.layers(tuple(levels))
        return features

    def head(self, classes: int) -> nn.Module:
        """Return the last layer, with the loaded weights where it has that many classes."""
        return with_last(nn.Conv2d(self.channels, classes, 1), self.last)


def build(
    member: str, in_channels: int, *, weights: str | None = None, weights_fallback: Fallback = "error"
) -> Network:
    """Return the network `member`; its settings are those of `transformers_family.member_settings`.

    Raises:
        SegregError: transformers is not installed, or the weights are not available or not this network's.
    """
    try:
        import transformers as library
    except ImportError:
        raise SegregError(
            f'the network "hf/{member}" needs the package transformers',
            hint="pip install 'segreg-toolkit[transformers]'",
        ) from None
    path, note = None, ""
    if weights is not None:
        repository, _, revision = published(member).get(weights, weights.removeprefix("hf://")).partition("@")
        if not _REPOSITORY.fullmatch(repository):
            raise SegregError(
                f'hf/{member} has no weights "{weights}"; it has {listed([*published(member)])}, or null',
                hint="another repository of the hub is written user/name, or user/name@revision",
            )
        file = HubFile(repository, _FILES, revision or None)
        path, note = obtain(file, part=f"network hf/{member}", weights=weights, fallback=weights_fallback)
    kind, config = _configured(library, member, in_channels)
    loaded = False
    if path is None:
        network = kind(config)
    else:
        state = _fitting(read(path), in_channels)
        loaded = _fit(config, state)
        with _quiet():
            network, found = loading(
                path, lambda: kind.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
            )
        missing = sorted(name for name in found["missing_keys"] if not _UNUSED.search(name))
        if any(not name.startswith("decode_head.") for name in missing):
            raise SegregError(
                f"{path}: these are not the weights of hf/{member}: {listed(missing, most=3)} are missing"
            )
        note = f'"{weights}" fills the encoder alone' if missing else ""
    with_single_values(network)
    encoder, decoder = _divided(network, member, in_channels, loaded=loaded)
    encoder.weights_note = note
    return encoder, decoder


def _divided(network: Any, member: str, in_channels: int, *, loaded: bool) -> Network:
    """Return the encoder and the decoder that a network is made of."""
    if member.startswith("eomt"):
        return EomtTrunk(network, in_channels), EomtBody(network, loaded=loaded)
    channels, _, _ = sizes_of(member)
    if member.startswith("mask2former"):
        backbone = network.model.pixel_level_module.encoder
        if hasattr(backbone, "swin"):  # in newer versions of transformers; nothing reads what it normalises
            backbone.swin.layernorm = nn.Identity()
        return Trunk(backbone, channels, in_channels), Mask2FormerBody(network, loaded=loaded)
    backbone = network.segformer if member.startswith("segformer") else network.backbone
    return Trunk(backbone, channels, in_channels), Body(network.decode_head, loaded=loaded)


def _configured(library: Any, member: str, in_channels: int) -> tuple[Any, Any]:
    """Return the class of a network in transformers, and its configuration."""
    if member.startswith("eomt"):
        width, layers, with_queries = plain_sizes_of(member)
        config = library.EomtConfig(
            num_channels=in_channels, hidden_size=width, num_hidden_layers=layers, num_blocks=with_queries,
            num_attention_heads=max(width // 64, 1), num_queries=100,
        )  # fmt: skip
        return library.EomtForUniversalSegmentation, config
    channels, depths, width = sizes_of(member)
    stages = {"num_channels": in_channels, "depths": depths}
    named = {"out_features": [f"stage{number}" for number in range(1, 5)]}
    if member.startswith("segformer"):
        config = library.SegformerConfig(**stages, hidden_sizes=channels, decoder_hidden_size=width)
        return library.SegformerForSemanticSegmentation, config
    if member.startswith("upernet"):
        backbone = library.ConvNextConfig(**stages, **named, hidden_sizes=channels)
        config = library.UperNetConfig(backbone_config=backbone, hidden_size=width, use_auxiliary_head=False)
        return library.UperNetForSemanticSegmentation, config
    backbone = library.SwinConfig(
        **stages, **named, embed_dim=channels[0], num_heads=[max(c // 32, 1) for c in channels],
        window_size=12 if channels[0] > 96 else 7, drop_path_rate=0.3,
    )  # fmt: skip
    config = library.Mask2FormerConfig(
        backbone_config=backbone, hidden_dim=width, feature_size=width, mask_feature_size=width
    )
    return library.Mask2FormerForUniversalSegmentation, config


def _fit(config: Any, state: Mapping[str, Tensor]) -> bool:
    """Set classes, queries and positions of a configuration to those of weights; return whether they have classes."""
    if "embeddings.position_embeddings.weight" in state:
        config.image_size = round(len(state["embeddings.position_embeddings.weight"]) ** 0.5) * config.patch_size
    if queries := [state[name] for name in _QUERIES if name in state]:
        config.num_queries = len(queries[0])
    last = next((state[name] for name in _LAST if name in state), None)
    if last is None:
        return False
    config.num_labels = len(last) - (last.ndim == 2)
    return True


def _fitting(state: Mapping[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """Return the weights with a first convolution for so many channels: the one that takes three."""
    return {
        name: with_input_channels(value, in_channels) if value.ndim == 4 and value.shape[1] == 3 else value
        for name, value in state.items()
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers print neither a progress bar nor a report of what it loaded, which the note has."""
    from transformers.utils import logging as theirs

    logging: Any = theirs
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
