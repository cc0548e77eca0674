"""The built-in whole networks: torchvision's segmentation models, and those of transformers."""

from __future__ import annotations

from segreg.registry.entry import Family
from segreg.registry.hooks import hookimpl
from segreg_plugins.networks import torchvision_family, transformers_family


@hookimpl
def segreg_entries() -> list[Family]:
    """Return the networks."""
    return [
        Family(
            "network",
            "torchvision",
            prefix="torchvision/",
            build=torchvision_family.torchvision_network,
            members=torchvision_family.members,
        ),
        Family(
            "network",
            "transformers",
            prefix="hf/",
            build=transformers_family.transformers_network,
            members=transformers_family.members,
            member_settings=transformers_family.member_settings,
        ),
    ]
