"""The semantic segmentation networks of transformers: names, sizes and published weights, without importing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from segreg.settings import Setting
from segreg_plugins.pretrained import FALLBACK_MEANING, Fallback

if TYPE_CHECKING:
    from segreg_plugins.networks.transformers_network import Network

_SIZES = {
    "segformer_b0": ((32, 64, 160, 256), (2, 2, 2, 2), 256),
    "segformer_b1": ((64, 128, 320, 512), (2, 2, 2, 2), 256),
    "segformer_b2": ((64, 128, 320, 512), (3, 4, 6, 3), 768),
    "segformer_b3": ((64, 128, 320, 512), (3, 4, 18, 3), 768),
    "segformer_b4": ((64, 128, 320, 512), (3, 8, 27, 3), 768),
    "segformer_b5": ((64, 128, 320, 512), (3, 6, 40, 3), 768),
    "upernet_convnext_tiny": ((96, 192, 384, 768), (3, 3, 9, 3), 512),
    "upernet_convnext_small": ((96, 192, 384, 768), (3, 3, 27, 3), 512),
    "upernet_convnext_base": ((128, 256, 512, 1024), (3, 3, 27, 3), 512),
    "mask2former_swin_tiny": ((96, 192, 384, 768), (2, 2, 6, 2), 256),
    "mask2former_swin_small": ((96, 192, 384, 768), (2, 2, 18, 2), 256),
    "mask2former_swin_large": ((192, 384, 768, 1536), (2, 2, 18, 2), 256),
}
"""Channels and blocks of the four stages, and channels of the head: arXiv:2105.15203, 2201.03545, 2103.14030."""
_PLAIN = {"eomt_small": (384, 12, 3), "eomt_base": (768, 12, 3), "eomt_large": (1024, 24, 4)}
"""Channels and layers of a plain vision transformer, and in how many of these the queries are: arXiv:2503.19108."""
_EOMT = {
    "eomt_small": {"coco_panoptic": "coco_panoptic_eomt_small_640_2x"},
    "eomt_base": {"coco_panoptic": "coco_panoptic_eomt_base_640_2x"},
    "eomt_large": {
        "ade20k": "ade20k_semantic_eomt_large_512",
        "cityscapes": "cityscapes_semantic_eomt_large_1024",
        "coco_panoptic": "coco_panoptic_eomt_large_640",
    },
}
_DATA = {"ade20k": "ade", "cityscapes": "cityscapes"}


def members() -> Iterable[str]:
    """Return every network's name."""
    return [*_SIZES, *_PLAIN]


def published(member: str) -> dict[str, str]:
    """Return the repositories on the hub that have a network's weights, by what they were trained on."""
    architecture, _, size = member.partition("_")
    if architecture == "upernet":
        return {"ade20k": f"openmmlab/upernet-{size.replace('_', '-')}"}
    if architecture == "mask2former":
        return {data: f"facebook/mask2former-{size.replace('_', '-')}-{name}-semantic" for data, name in _DATA.items()}
    if architecture == "eomt":
        return {data: f"tue-mps/{name}" for data, name in _EOMT[member].items()}
    edge = 640 if size == "b5" else 512
    return {
        "imagenet": f"nvidia/mit-{size}",
        "ade20k": f"nvidia/segformer-{size}-finetuned-ade-{edge}-{edge}",
        "cityscapes": f"nvidia/segformer-{size}-finetuned-cityscapes-1024-1024",
    }


def member_settings(member: str) -> Mapping[str, Setting]:
    """Return what a recipe may set on a network."""
    meaning = (
        f"published weights: {', '.join(published(member))}, or another repository of the hub with weights of this "
        "network; null starts from random ones. The last layer is taken where the number of classes is the same"
    )
    settings = (
        Setting("weights", str | None, None, meaning),
        Setting("weights_fallback", Fallback, "error", FALLBACK_MEANING),
    )
    return {setting.name: setting for setting in settings}


def sizes_of(member: str) -> tuple[list[int], list[int], int]:
    """Return channels and blocks of a network's four stages, and the channels of its head."""
    channels, depths, width = _SIZES[member]
    return [*channels], [*depths], width


def plain_sizes_of(member: str) -> tuple[int, int, int]:
    """Return channels and layers of an EoMT, and how many of the layers have the queries."""
    return _PLAIN[member]


def transformers_network(member: str, in_channels: int, **settings: Any) -> Network:
    """A semantic segmentation network of Hugging Face's transformers, needs `segreg-toolkit[transformers]`."""
    from segreg_plugins.networks.transformers_network import build

    return build(member, in_channels, **settings)
