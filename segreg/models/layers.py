"""In which of an encoder's layers each of its parameters is, from the image on."""

from __future__ import annotations

from segreg.errors import SegregError
from segreg.registry.entry import where_made
from segreg.registry.protocols import Encoder


def layers_of(encoder: Encoder, setting: str) -> tuple[dict[str, int], int]:
    """Return the number of the layer of each parameter of an encoder, by its name, and how many layers there are.

    A parameter that is in none of the layers, such as those of a last norm, has the number of layers: it lies beyond
    the last one.

    Args:
        encoder: offers `layer_groups`.
        setting: what asks for them, for the message.

    Raises:
        SegregError: the encoder does not say what its layers are.
    """
    offered = getattr(encoder, "layer_groups", None)
    layers = offered() if callable(offered) else []
    if not layers:
        raise SegregError(
            f"{setting} needs an encoder that knows its layers, and {type(encoder).__name__} does not",
            hint="nearly all of timm, torchvision and SMP do; a plugin's has a method layer_groups() "
            f"(docs/plugins/contracts.md); it is defined at {where_made(encoder)}",
        )
    number = {name: index for index, names in enumerate(layers) for name in names}
    found = {}
    for name, _ in encoder.named_parameters():  # type: ignore[attr-defined]
        words = name.split(".")
        around = (".".join(words[:length]) for length in range(len(words), 0, -1))  # itself, and modules around it
        found[name] = next((number[each] for each in around if each in number), len(layers))
    return found, len(layers)
