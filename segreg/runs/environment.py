"""What a run runs on: Python, packages, device, commit and plugins; and the header that a run prints."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.config.resolve import NETWORK, Choice, Resolved
from segreg.errors import plural
from segreg.registry.compatibility import DISTRIBUTION, installed_version
from segreg.registry.local import text_of
from segreg.registry.registry import Plugin, Registry
from segreg.runtime.device import cpu_fact
from segreg.runtime.layout import Block, banners
from segreg.training.groups import described

if TYPE_CHECKING:
    from segreg.config.sections import Input
    from segreg.runs.assembly import Assembly


PACKAGES = (
    DISTRIBUTION, "torch", "torchvision", "timm", "segmentation-models-pytorch", "albumentations", "torchmetrics",
    "numpy",
)  # fmt: skip


def environment(registry: Registry, device: Any) -> dict[str, Any]:
    """Return what a later reader needs to know to repeat a run."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": _device(device),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "plugins": [
            {"name": p.name, "distribution": p.distribution, "version": p.version, "error": p.error,
             "digest": "" if p.error or p.distribution == DISTRIBUTION else p.digest, **_origin(p)}
            for p in registry.plugins
        ],
        "commit": git_commit(Path.cwd()),
        "command": sys.argv,
    }  # fmt: skip


def _origin(plugin: Plugin) -> dict[str, str]:
    """Return where a plugin came from that no package has brought: its file, or the source of a registered entry."""
    if plugin.file:
        return {"file": str(plugin.file)}
    return {"text": text_of(plugin.parts[0])} if plugin.source else {}


def sources(recipe: Resolved) -> dict[str, str]:
    """Return a digest of the source of each plugin, other than segreg's own, whose parts a recipe names."""
    plugins = [choice.part.plugin for choice in recipe.choices()]
    return {f"{p.distribution}:{p.name}": p.digest for p in plugins if p.distribution != DISTRIBUTION}


def git_commit(folder: Path) -> str | None:
    """Return the commit of the checkout that `folder` is in, with "+changes" where files differ from it, or None."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", "-C", str(folder), *arguments],  # noqa: S607
        capture_output=True, text=True, timeout=5, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def _device(device: Any) -> dict[str, Any]:
    import torch

    if device.type != "cuda":
        model = cpu_fact("model name") or platform.processor() or platform.machine()
        return {"name": str(device), "model": model, "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": str(device), "model": properties.name, "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    }  # fmt: skip


# header


def header_lines(registry: Registry, assembly: Assembly, ran_on: Mapping[str, Any], folder: Path) -> list[Block]:
    """Return the lines that a run prints before it begins, notices first.

    Args:
        registry: the plugins; those that could not be loaded get a warning.
        assembly: what the recipe names, built.
        ran_on: as `environment.json` has it.
        folder: the run's.
    """
    recipe, model, processes = assembly.recipe, ran_on["model"], ran_on["processes"]
    foreign = sorted({c.part.plugin.title for c in recipe.choices() if c.part.plugin.distribution != DISTRIBUTION})
    height, width = recipe.input.size
    loss = " + ".join(f"{_weight(c)}{c.part.name}" for c in recipe.loss)
    lines: list[Block] = [
        *banners(assembly.dataset.notice, weights_notice(model), *assembly.verdict.alerts()),
        f"recipe     {recipe.source}",
        f"run        {folder}",
        f"data       {recipe.dataset.part.name}: "
        + ", ".join(f"{len(indices)} {split}" for split, indices in assembly.splits.items()),
        *assembly.verdict.facts(),
        f"input      {height}x{width} ({recipe.input.resize}), {plural(recipe.input.channels, 'channel')}",
        *_statistics(recipe.input),
        *network_lines(recipe, model),
        f"loss       {loss}",
        *group_lines(described(assembly.setup().optimizer())),
        f"device     {assembly.device} ({ran_on['device']['model']}), {assembly.precision.reason}",
        f"           {assembly.memory}",
    ]
    if without_alpha := assembly.prepared.without_alpha:
        lines.append(f"alpha      left out of {without_alpha} images, where it is full everywhere")
    if foreign:
        lines.append(f"plugins    {', '.join(foreign)}")
    lines += note_lines(model)
    lines += [f"warning    {warning}" for warning in assembly.verdict.warnings()]
    lines += [
        f"warning    plugin {plugin.title} is not in use: {plugin.error.splitlines()[0]}"
        for plugin in registry.plugins
        if plugin.error
    ]
    lines += [
        f"warning    of plugin {plugin.title} can't be used: {str(fault).splitlines()[0]}"
        for plugin in registry.plugins
        for fault in plugin.faults
    ]
    if processes["count"] > 1:
        on = "1 machine" if processes["nodes"] == 1 else f"{processes['nodes']} machines"
        lines.append(f"processes  {processes['count']} on {on}, which share each batch of {recipe.train.batch}")
    if assembly.initial_weights:
        lines.append("start      " + assembly.initial_weights.replace("\n", "\n           "))
    return lines


def _weight(choice: Choice) -> str:
    if isinstance(choice.weight, float):
        return f"{choice.weight:g} " if choice.weight != 1 else ""
    return f"({choice.weight.start:g} to {choice.weight.end:g}) "


def _statistics(section: Input) -> list[str]:
    if section.normalize != "dataset" or section.mean is None or section.std is None:
        return []
    top = section.value_range
    mean, std = (", ".join(f"{top * value:.4g}" for value in values) for values in (section.mean, section.std))
    return [f"normalize  mean {mean}; deviation {std}" + (f", of 0 to {top:g}" if top > 1 else "")]


def network_lines(recipe: Resolved, model: Mapping[str, Any]) -> list[str]:
    """Return a line for each component of the network."""
    sizes = {role: f"{counted(count)} parameters" for role, count in model["parameters"].items()}
    names = {role: choice.part.name for role, choice in recipe.network_parts.items()}
    if recipe.network:
        names |= dict.fromkeys(("encoder", "decoder"), f"that of {recipe.network.part.name}")
    encoder, decoder = model["encoder"], model["decoder"]
    lines = [
        f"encoder    {names['encoder']}, {sizes['encoder']}, strides {numbers(encoder['strides'])}",
        f"decoder    {names['decoder']}, {sizes['decoder']}, output stride {decoder['stride']}",
    ]
    if recipe.auxiliary:
        lines.append(f"auxiliary  {recipe.auxiliary.part.name}, weight {recipe.auxiliary_weight:g}")
    if "trained" in sizes:
        lines.append(f"trained    {sizes['trained']} of {counted(model['parameters']['total'])}{_how(recipe)}")
    return lines


def _how(recipe: Resolved) -> str:
    """Return what of the encoder is trained."""
    chosen = recipe.trunk.beside
    if chosen.lora is not None:
        words = f"; of the encoder LoRA of rank {chosen.lora.rank} at {', '.join(chosen.lora.targets)}"
        return words + (" and norms" if chosen.trainable == "norms" else "")
    if chosen.freeze_layers:
        return f"; the first {chosen.freeze_layers} layers of the encoder stay as they are"
    return f"; of the encoder {chosen.trainable}"


def group_lines(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line each for what has no weight decay while the rest has it, and for the rates of the layers."""
    lines = []
    undecayed = sum(group["parameters"] for group in groups if group["weight_decay"] == 0)
    everything = sum(group["parameters"] for group in groups)
    if 0 < undecayed < everything:
        lines.append(f"decay      none for {undecayed:,} of {counted(everything)} parameters (biases, norms, ...)")
    layers = {group["layer"]: group["lr"] for group in groups if group["layer"] is not None}
    if layers:
        rates = list(layers.values())
        lines.append(f"rates      of {len(layers)} layers of the encoder from {min(rates):.3g} to {max(rates):.3g}")
    return lines


def note_lines(model: Mapping[str, Any]) -> list[str]:
    """Return a line for each note about the network's levels and weights."""
    lines = []
    for role in NETWORK:
        facts = model.get(role, {})
        lines += [f"note       {role}: {note}" for note in facts.get("notes", ())]
        if facts.get("weights"):
            lines.append(f"weights    {role}: {facts['weights']}")
    return lines


def weights_notice(model: Mapping[str, Any]) -> str:
    """Return a notice where a model has random weights instead of the pretrained ones; empty where it hasn't."""
    notes = [model.get(role, {}).get("weights", "") for role in NETWORK]
    return "; ".join(dict.fromkeys(note for note in notes if note.casefold().startswith("random")))


def numbers(values: Sequence[int]) -> str:
    """Return "2/4/8"."""
    return "/".join(str(value) for value in values)


def counted(count: int) -> str:
    """Return "23.51 M" or, of a small network, "4,096"."""
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count:,}"
