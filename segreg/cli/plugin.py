"""`segreg plugin`: for authors of plugins. `new` writes a package, `check` runs the conformance kit on one."""

from __future__ import annotations

import argparse
import fnmatch
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.cli.common import add_actions, add_parser, print_json
from segreg.config.recipe import Recipe, read_recipe
from segreg.errors import SegregError, plural
from segreg.registry.protocols import KINDS
from segreg.runtime.layout import Pasted, Styled, show

if TYPE_CHECKING:
    from segreg.testing import Outcome

NAME = "plugin"
HELP = "write a new plugin, or check one of yours against what its kinds of part promise"
_EXAMPLES_OF_CHECK = """\
  segreg plugin check segreg-example
  segreg plugin check segreg-example 'encoder.*' --quick
  segreg plugin check segreg-example --set dataset.disks.root=data/disks
  segreg plugin check segreg-example --recipe disks.yaml --json
"""
EXAMPLES = f"examples:\n  segreg plugin new segreg-example --with encoder,loss\n{_EXAMPLES_OF_CHECK}"
_NEW = "write a package of parts, complete and ready to be published"
_WRITTEN = """A folder of the package's name is made, with one small part of each kind that is asked for, tests that run
the conformance kit, a recipe that uses the parts, settings of ruff, mypy and pytest, a README and a workflow for GitHub
Actions. All of it runs and passes as it stands; change what the parts compute. Nothing is ever replaced. The licence is
left to you.
"""
_NEW_EXAMPLES = """examples:
  segreg plugin new segreg-lung-ct --with dataset
  segreg plugin new segreg-lung-ct --with encoder,decoder,loss,metric --out ~/work
  pip install -e 'segreg-lung-ct[dev]' && segreg list encoder 'lung_ct.*'
"""
_CHECK = "run the conformance kit on an installed plugin"
_CHECKED = """Each part gets the checks of its kind: what it declares is compared with what it gives, on images, levels,
targets and logits of every shape. A failure says what is wrong, why it matters, and which file and line to look at.
What can't be checked, for instance without a setting, says so and is not a failure. A family is checked by the first
of its representatives, or its first member, unless others are named. The exit status is 1 where a check failed.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = add_actions(parser)
    _new_arguments(add_parser(actions, "new", _NEW, _NEW_EXAMPLES, more=_WRITTEN))
    _check_arguments(add_parser(actions, "check", _CHECK, f"examples:\n{_EXAMPLES_OF_CHECK}", more=_CHECKED))


def execute(chosen: argparse.Namespace) -> int:
    return _new(chosen) if chosen.action == "new" else _check(chosen)


def _new_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("package", metavar="NAME", help="the package's name, by custom segreg-SOMETHING")
    parser.add_argument(
        "--with", required=True, dest="kinds", metavar="KIND[,KIND...]", help=f"kinds of part: {', '.join(KINDS)}"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="FOLDER", help="where the folder is made; here if not given"
    )


def _new(chosen: argparse.Namespace) -> int:
    from segreg.testing.scaffold import kinds_of, names_of, write_package

    names, kinds = names_of(chosen.package), kinds_of(chosen.kinds.split(","))
    files = write_package(names, kinds, chosen.out)
    folder = chosen.out / names.distribution
    show(f"wrote {folder}, {len(files)} files; try:")
    show(Pasted(f"  pip install -e '{folder if folder.is_absolute() else f'./{folder}'}[dev]'"))
    show(Pasted(f"  segreg list {kinds[0]} '{names.short}.*'"))
    show(Pasted(f"  segreg run {folder / 'example.yaml'}"))
    show(Pasted(f"  cd {folder} && ruff check . && mypy && pytest"))
    show("the licence is left to you: name it in pyproject.toml, and put its text into a file LICENSE")
    return 0


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("package", metavar="DISTRIBUTION", help="the package's name, as pip or as Python knows it")
    parser.add_argument("parts", nargs="*", metavar="KIND.NAME", help="only these parts; wildcards are allowed")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KIND.NAME.SETTING=VALUE",
        help="build that part with this setting; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--recipe", type=Path, metavar="RECIPE", help="build the parts that this recipe names with its settings"
    )
    parser.add_argument(
        "--without", action="append", default=[], metavar="CHECK",
        help="leave out a check, or KIND.NAME.CHECK of one part; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="leave out what takes long: compiling, exporting, decoders"
    )
    parser.add_argument("--all", action="store_true", help="name the checks that were passed as well")
    parser.add_argument("--json", action="store_true", help="print JSON, nothing else")


def _check(chosen: argparse.Namespace) -> int:
    from segreg.testing import package_checks

    checks = package_checks(
        chosen.package,
        chosen.parts,
        settings=_settings(chosen),
        exclude=dict.fromkeys(chosen.without, "left out by --without"),
    )
    outcomes: list[Outcome] = []
    for title, of_part in groupby(checks, key=lambda check: f"{check.subject.part.kind} {check.subject.part.name}"):
        found = [
            (replace(check, left_out="left out by --quick") if chosen.quick and check.rule.slow else check).outcome()
            for check in of_part
        ]
        outcomes += found
        if not chosen.json:
            show(f"{title}: {_counted(found)}", *_lines(found, all_=chosen.all))
    if chosen.json:
        print_json([vars(outcome) for outcome in outcomes])
    else:
        parts = plural(len({(outcome.kind, outcome.part) for outcome in outcomes}), "part")
        show(f"{parts} of {chosen.package}: {_counted(outcomes) or 'nothing to check'}")
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def _counted(outcomes: Iterable[Outcome]) -> str:
    counts = Counter(outcome.status for outcome in outcomes)
    return ", ".join(f"{counts[status]} {status}" for status in ("passed", "failed", "not checked") if counts[status])


def _lines(outcomes: list[Outcome], *, all_: bool) -> list[str]:
    """Return the lines of one part: failures in full, then what was not checked, a line for each reason."""
    lines: list[str] = []
    for outcome in outcomes:
        if outcome.status == "failed":
            what = outcome.what.replace("\n", "\n    ")
            lines += [Styled(f"  FAILED {outcome.check}: {what}", "red")]
            lines += [f"    why it matters: {outcome.why}", f"    look at: {outcome.place}"]
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.status == "not checked":
            reasons.setdefault(outcome.what.replace("\n", "\n    "), []).append(outcome.check)
    lines += [f"  not checked: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    if all_ and (passed := [outcome.check for outcome in outcomes if outcome.status == "passed"]):
        lines.append(f"  passed: {', '.join(passed)}")
    return lines


def _settings(chosen: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return settings by "KIND.NAME": those of the recipe, and over them those of --set.

    Raises:
        SegregError: the recipe is none, or an option is not a KIND.NAME.SETTING=VALUE.
    """
    settings = _settings_of_recipe(chosen) if chosen.recipe else {}
    for word in chosen.set:
        path, equals, value = word.partition("=")
        title, _, setting = path.strip().rpartition(".")
        if not equals or "." not in title:
            raise SegregError(
                f'"{word}" is not a KIND.NAME.SETTING=VALUE', hint="for example --set dataset.disks.root=data/disks"
            )
        settings.setdefault(title, {})[setting] = Recipe({}).changed([f"{setting}={value}"]).values[setting]
    return settings


def _settings_of_recipe(chosen: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return what a recipe sets on the parts that are checked."""
    from segreg.config.resolve import resolve
    from segreg.registry.registry import load_registry
    from segreg.testing.checks import plugins_of

    registry = load_registry()
    own = {plugin.distribution for plugin in plugins_of(registry, chosen.package)}
    settings = {}
    for choice in resolve(read_recipe(chosen.recipe), registry).choices():
        title = f"{choice.part.kind}.{choice.part.name}"
        wanted = not chosen.parts or any(fnmatch.fnmatchcase(title, pattern) for pattern in chosen.parts)
        if choice.part.plugin.distribution in own and wanted:
            settings[title] = {name: value for name, value in choice.plain().items() if name in choice.settings}
    return settings
