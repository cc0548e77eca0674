"""What a run says of itself before it begins: data, network, device, and everything that must not be overlooked."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from segreg.config.resolve import Resolved
from segreg.registry.registry import Registry

_BANNER = 80


def header_lines(
    recipe: Resolved,
    registry: Registry,
    *,
    sides: Mapping[str, int],
    model: Mapping[str, Any],
    device: str,
    precision: str,
    memory: str,
    folder: str,
) -> list[str]:
    """Return the lines of a run's header."""
    strangers = sorted({c.part.plugin.title for c in recipe.choices() if c.part.plugin.distribution != "segreg"})
    height, width = recipe.input.size
    lines = [
        f"recipe     {recipe.source}",
        f"run        {folder}",
        f"data       {recipe.dataset.part.name}: {', '.join(f'{n} {side}' for side, n in sides.items())}",
        f"input      {height}x{width} ({recipe.input.resize}), {recipe.input.channels} channels",
        *network_lines(recipe, model),
    ]
    loss = " + ".join(f"{c.weight:g} {c.part.name}" if c.weight != 1 else c.part.name for c in recipe.loss)
    lines += [f"loss       {loss}", f"device     {device}, {precision}", f"           {memory}"]
    if strangers:
        lines.append(f"plugins    {', '.join(strangers)}")
    lines += note_lines(model)
    lines += [
        f"warning    plugin {plugin.title} is not in use: {plugin.error.splitlines()[0]}"
        for plugin in registry.plugins
        if plugin.error
    ]
    return lines


def network_lines(recipe: Resolved, model: Mapping[str, Any]) -> list[str]:
    """Return a line for each part of the network."""
    encoder, decoder = model["encoder"], model["decoder"]
    sizes = {role: f"{counted(count)} parameters" for role, count in model["parameters"].items()}
    lines = [
        f"encoder    {recipe.encoder.part.name}, {sizes['encoder']}, strides {numbers(encoder['strides'])}",
        f"decoder    {recipe.decoder.part.name}, {sizes['decoder']}, output stride {decoder['stride']}",
    ]
    if recipe.auxiliary:
        lines.append(f"auxiliary  {recipe.auxiliary.part.name}, weight {recipe.auxiliary.weight:g}")
    return lines


def note_lines(model: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing about the network's levels and weights that must not be overlooked."""
    lines = []
    for role in ("encoder", "decoder", "auxiliary"):
        facts = model.get(role, {})
        lines += [f"note       {role}: {note}" for note in facts.get("notes", ())]
        if facts.get("weights"):
            lines.append(f"weights    {role}: {facts['weights']}")
    return lines


def weights_notice(model: Mapping[str, Any]) -> str:
    """Return what must not be overlooked of a model's weights: that random ones stand in for others."""
    told = [model.get(role, {}).get("weights", "") for role in ("encoder", "decoder", "auxiliary")]
    return "; ".join(dict.fromkeys(note for note in told if note.casefold().startswith("random")))


def banner(notice: str) -> list[str]:
    """Return a notice that can't be overlooked, as lines; none for an empty notice."""
    if not notice:
        return []
    lines = textwrap.wrap(notice, _BANNER - 6)
    return ["!" * _BANNER, *(f"!! {line:<{_BANNER - 6}} !!" for line in lines), "!" * _BANNER]


def numbers(values: Sequence[int]) -> str:
    """Return "2/4/8"."""
    return "/".join(str(value) for value in values)


def counted(count: int) -> str:
    """Return "23.51 M" or, of a small network, "4,096"."""
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count:,}"
