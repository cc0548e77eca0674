"""The commands of `segreg.benchmark`, added to the command line as any other package adds its own."""

from __future__ import annotations

from segreg.cli import bench, best, compare, matrix, tune
from segreg.registry.entry import Command
from segreg.registry.hooks import hookimpl


@hookimpl
def segreg_commands() -> list[Command]:
    """Return `bench`, `best`, `compare`, `matrix` and `tune`."""
    return [
        Command(module.NAME, module.HELP, module.arguments, module.execute, module.EXAMPLES)
        for module in (bench, best, compare, matrix, tune)
    ]
