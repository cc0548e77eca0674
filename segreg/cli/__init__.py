"""The command line: `segreg COMMAND`. Each command is one module here, and imports what it needs when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from segreg.cli import (
    cache,
    check,
    cite,
    data,
    diff,
    evaluate,
    export,
    init,
    listing,
    plugin,
    plugins,
    predict,
    profile,
    push,
    recipes,
    report,
    run,
    runs,
    schema,
    serve,
    show,
)
from segreg.cli.common import HelpFormatter, add_parser, add_plugin_option, json_alone, plugin_option
from segreg.errors import SegregError, did_you_mean
from segreg.registry.compatibility import DISTRIBUTION
from segreg.registry.entry import Command, where
from segreg.registry.guard import Guard
from segreg.runtime.files import outside_error
from segreg.runtime.layout import complain
from segreg.runtime.output import keep_standard_output

if TYPE_CHECKING:
    from segreg.registry.registry import Registry

COMMANDS = {
    module.NAME: Command(module.NAME, module.HELP, module.arguments, module.execute, module.EXAMPLES)
    for module in (
        run, evaluate, predict, serve, export, push, report, cite, profile, runs, diff, check, data, listing, show,
        plugins, plugin, recipes, init, schema, cache,
    )
}  # fmt: skip
"""The commands that are always there. Others come from plugins, as segreg's own `bench` and `compare` do."""

SPINS = "20000"
"""How often a thread of GNU's OpenMP looks for work before it sleeps, some tenths of a millisecond in all.

By its own rules it looks 300,000 times, while a thread that has been given work may wait for the very core that the
looking takes. On two cores with six other busy processes a small step took half as long so; alone it took as long."""

GROUPS = {
    "train": ("init", "recipes", "check", "run", "tune", "profile"),
    "look": ("report", "predict", "evaluate", "runs"),
    "compare": ("bench", "best", "compare", "diff", "matrix", "cite"),
    "use elsewhere": ("export", "serve", "push"),
    "extend": ("list", "show", "plugins", "plugin", "schema"),
    "data": ("data", "cache"),
}
"""What people do, with the commands for it; other plugins' commands are a group of their own."""

EPILOG = """examples:
  segreg init data/lesions
  segreg run recipes/isic_v3plus.yaml
  segreg run recipes/isic_v3plus.yaml train.epochs=3 encoder=timm/convnext_tiny
  segreg evaluate runs/isic_v3plus/2026-01-31_12-00-00 --split val
  segreg predict runs/isic_v3plus/2026-01-31_12-00-00 photos --out predicted
  segreg check recipes/*.yaml
  segreg list encoder 'timm/convnext*'
  segreg show decoder deeplabv3plus
"""


def parser(added: Mapping[str, Command] = MappingProxyType({})) -> argparse.ArgumentParser:
    """Return the parser of every command, also of those that plugins add, by name."""
    top = argparse.ArgumentParser(
        prog="segreg",
        description="Semantic segmentation from plain YAML recipes.",
        epilog=EPILOG,
        formatter_class=_Grouped,
    )
    top.add_argument("--version", action=_Version, help="print the version and stop")
    add_plugin_option(top)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, command in COMMANDS.items():
        own = add_parser(commands, name, command.help, command.examples)
        command.arguments(own)
        own.set_defaults(execute=command.execute)
    with Guard(keep_output=True) as guard:
        for name, command in added.items():
            own = add_parser(commands, name, command.help, command.examples)
            execute = command.execute
            try:
                with guard.call(f"adding the arguments of {name} ({command.place})"):
                    command.arguments(own)
            except BaseException as error:  # a stranger's code: the other commands work all the same
                if guard.interrupted:
                    raise
                execute = _unusable(name, command, error)
            own.set_defaults(execute=execute)
    return top


def _unusable(name: str, command: Command, error: BaseException) -> Callable[[argparse.Namespace], int]:
    """Return what a command does whose arguments can't be added."""

    def execute(_: argparse.Namespace) -> int:
        problem = f'{where(command.arguments)}: the arguments of the command "{name}" can\'t be added'
        raise SegregError(f"{problem}: {type(error).__name__}: {error}") from error

    return execute


def added_commands(registry: Registry) -> dict[str, Command]:
    """Return the commands that plugins add, by the name that calls each.

    That is `NAME@DISTRIBUTION` where two packages offer the name, or where it is one of `COMMANDS`, which can't be
    replaced.
    """
    found = {}
    for name, offers in registry.commands().items():
        for owner, command in offers:
            alone = len(offers) == 1 and name not in COMMANDS
            found[name if alone else f"{name}@{owner.distribution}"] = command
    return found


class _Grouped(HelpFormatter):
    """Commands under what people do with them."""

    def _format_action(self, action: argparse.Action) -> str:
        subactions = {each.dest: each for each in self._iter_indented_subactions(action)}
        if not subactions:
            return super()._format_action(action)
        of_plugins = tuple(name for name in subactions if not any(name in names for names in GROUPS.values()))
        parts = []
        self._indent()
        for title, names in {**GROUPS, "of plugins": of_plugins}.items():
            if shown := [subactions[name] for name in names if name in subactions]:
                parts += [f"  {title}\n", *(super(_Grouped, self)._format_action(each) for each in shown)]
        self._dedent()
        return "".join(parts)


class _Version(argparse.Action):
    """Print the version, which is looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: str | None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=options.get("help"))

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"segreg {version(DISTRIBUTION)}")
        parser.exit()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; overrides may stand anywhere, also behind options, where argparse alone loses them.

    Plugins are loaded only where their commands matter: for help, and for a command that is not one of `COMMANDS`.

    Raises:
        SegregError: two packages offer the command.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = next((word for word in given if not word.startswith("-")), None)
    if asked in COMMANDS or given == ["--version"]:
        top = parser()
    else:
        from segreg.registry.registry import load_registry

        registry = load_registry()
        added = added_commands(registry)
        top = parser(added)
        if asked is not None and asked not in added:
            try:
                registry.find_command(asked)  # offered twice, or by nobody
            except SegregError as error:
                if asked in registry.commands():
                    raise
                close = did_you_mean(asked, [*COMMANDS, *added])
                top.error("\n".join(filter(None, [error.problems[0].message, close, error.problems[0].hint])))
    chosen, rest = top.parse_known_args(given)
    if rest and (not hasattr(chosen, "words") or any(word.startswith("-") for word in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        chosen.words = [*chosen.words, *rest]
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 in part, 2 the user's mistake, 130 interrupted.

    A `SegregError`, and what the disk refuses, is printed without a traceback; any other exception is a bug and keeps
    its traceback. A reader of standard output that leaves, as `head` does, does not stop the command.
    """
    output = keep_standard_output() if arguments is None else None
    try:
        files, words = plugin_option(sys.argv[1:] if arguments is None else arguments)
        with _plugin_files(files):
            return _execute(parse(words), output)
    except SegregError as error:
        for problem in error.problems:
            complain(str(problem), "error")
        return 2
    except OSError as error:
        if not (message := outside_error(error)):
            raise
        complain(message, "error")
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _plugin_files(files: Sequence[str]) -> AbstractContextManager[None]:
    if not files:
        return nullcontext()
    from segreg.registry.local import using

    return using(files)


def _execute(chosen: argparse.Namespace, output: Any) -> int:
    """Run a command; `output` is what `keep_standard_output` has returned."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when PyTorch is imported: no command has done so yet
    if chosen.command != run.NAME and "WORLD_SIZE" in os.environ:  # as torchrun leaves it
        from segreg.runtime.distributed import refuse_several

        refuse_several(chosen.command)
    # A plugin's own command may print its JSON by itself.
    alone = getattr(chosen, "json", False) and chosen.execute.__module__.startswith("segreg.cli.")
    with json_alone() if alone else nullcontext():
        status: int = chosen.execute(chosen)
    sys.stdout.flush()
    if output and output.lost and not isinstance(output.lost, BrokenPipeError):
        raise SegregError(f"standard output can't be written: {outside_error(output.lost) or output.lost}")
    return status


if __name__ == "__main__":
    sys.exit(main())
