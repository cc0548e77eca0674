"""What several commands have in common: words, checks of options, actions, what they print."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import SegregError
from segreg.runtime.layout import Screen, wrapped
from segreg.runtime.output import output_to_error
from segreg.settings import format_value

if TYPE_CHECKING:
    from segreg.registry.registry import Part
    from segreg.runtime.progress import Progress


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help within the terminal's width: paragraphs are filled, and long examples continue behind a backslash."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        room = Screen.of().width
        if room is None:
            return super()._fill_text(text, width, indent)
        lines: list[str] = []
        for line in text.splitlines():
            prose = bool(line) and not line[0].isspace() and not line.endswith(":")
            if prose and lines and lines[-1] and not lines[-1][0].isspace() and not lines[-1].endswith(":"):
                lines[-1] += f" {line}"
            else:
                lines.append(line)
        return "\n".join(part for line in lines for part in _example_or_prose(line, room)) + "\n"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)


def _example_or_prose(line: str, width: int) -> list[str]:
    found = re.match(r"(\s+(?:segreg|pip|SEGREG_\w+=) ?.*?)(?:\s{3,}(\S.*))?$", line)
    if len(line) <= width or not found:
        return wrapped(line, width)
    comment = [f"      {part}" for part in wrapped(found[2], width - 6)] if found[2] else []
    command = textwrap.wrap(
        found[1], width - 2, subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
    )
    return [*(f"{part} \\" for part in command[:-1]), command[-1], *comment]


def add_parser(commands: Any, name: str, about: str, examples: str, *, more: str = "") -> argparse.ArgumentParser:
    """Add the parser of a command, or of one action of a command, and return it.

    Args:
        commands: what `add_subparsers` has returned.
        name: what calls it.
        about: what it does, in one line without a full stop.
        examples: printed below its options.
        more: printed below `about` in its own help.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about.replace("%", "%%"),  # a plugin's may have one, and argparse formats it
        description=f"{about[0].upper()}{about[1:]}." + (f"\n\n{more}" if more else ""),
        epilog=examples,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    add_plugin_option(parser)
    return parser


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--plugin`, which every command has, anywhere on its line: `plugin_option` takes it off."""
    parser.add_argument(
        "--plugin", dest="plugin_files", action="append", default=[], metavar="FILE",
        help="also take the parts of this Python file; may be given several times",
    )  # fmt: skip


def plugin_option(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files that `--plugin` names on a command line, and the other words."""
    parser = argparse.ArgumentParser(prog="segreg", add_help=False, allow_abbrev=False)
    add_plugin_option(parser)
    chosen, rest = parser.parse_known_args(list(words))
    return chosen.plugin_files, rest


def add_actions(parser: argparse.ArgumentParser) -> Any:
    """Add what the actions of a command are added to by `add_parser`."""
    return parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)


def add_wide(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wide", action="store_true", help="show all columns, also those that don't fit the terminal")


def files_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of a command line that name files, and those that are `key.path=value`."""
    from segreg.config.recipe import is_override

    return [word for word in words if not is_override(word)], [word for word in words if is_override(word)]


def one_file(words: Sequence[str], command: str, example: str, *, what: str = "recipe") -> tuple[str, list[str]]:
    """Return the one file that a command line names, and the overrides.

    Raises:
        SegregError: it names none, or several.
    """
    files, overrides = files_and_overrides(words)
    if len(files) != 1:
        problem = f"these are {len(files)}" if files else f"name one, for example: segreg {command} {example}"
        raise SegregError(f"{command} takes one {what}; {problem}")
    return files[0], overrides


def check_least(chosen: argparse.Namespace, least: float, *names: str, most: float = math.inf) -> None:
    """Refuse options below their least value, or above what no use comes near."""
    for name in names:
        value = getattr(chosen, name)
        if not least <= value <= most:
            bound = f"least {least}" if value < least else f"most {most}"
            raise SegregError(f"--{name.replace('_', '-')} must be at {bound}, not {format_value(value)}")


def check_folder(out: Path | None, option: str = "--out") -> None:
    """Refuse a file where an option should name a folder."""
    if out is not None and out.is_file():
        raise SegregError(f"{out} is a file", hint=f"{option} names a folder")


def add_views(parser: argparse.ArgumentParser) -> None:
    """Add `--flips` and `--scales`, at which an image is predicted and averaged."""
    parser.add_argument(
        "--flips",
        choices=("none", "mirror", "flips"),
        help="average over left-right (mirror), or also up-down and both (the recipe's evaluate.flips)",
    )
    parser.add_argument(
        "--scales", metavar="S,S", help="average over these factors of the image's size (the recipe's evaluate.scales)"
    )


def scales_of(text: str) -> tuple[float, ...]:
    """Return the numbers of "0.5,0.75,1"."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise SegregError(
            f'--scales: "{text}" are not numbers', hint="they are parted by commas, for example: --scales 0.75,1,1.25"
        ) from None


def tile_of(text: str) -> tuple[int, int] | Literal["auto"] | None:
    """Return height and width of "512" or "384x512"; None for "whole"."""
    if text in ("auto", "whole"):
        return "auto" if text == "auto" else None
    found = re.fullmatch(r"([0-9]{1,5})(?:[xX]([0-9]{1,5}))?", text)
    if not found:
        raise SegregError(
            f'"{text}" is not a size of tiles',
            hint="it is written HEIGHTxWIDTH, for example: --tile 512x512, or it is auto or whole",
        )
    return int(found[1]), int(found[2] or found[1])


def add_device(parser: argparse.ArgumentParser, *, precision: str = "") -> None:
    """Add `--device`, and `--precision` where `precision` says what stands for its default."""
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps")
    if precision:
        choices = ("recipe", "auto", "float32", "bf16", "fp16")
        parser.add_argument("--precision", choices=choices, default="recipe", help=precision)


def add_figures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--figures", type=Path, metavar="DIR", help="also write figures for a paper, as SVG and PDF")


def shown_progress(*, quiet: bool, stream: Any = None) -> Progress:
    """Return the progress that a command shows, on standard error unless `stream` is another."""
    from segreg.runtime.progress import progress

    return progress("quiet" if quiet else "auto", stream or sys.stderr)


_held_back: list[str] | None = None
"""What `print_json` has been given within `json_alone`."""


@contextmanager
def json_alone() -> Iterator[None]:
    """Let standard output have nothing but what `print_json` is given; what parts print goes to standard error."""
    global _held_back  # noqa: PLW0603 - there is one standard output
    _held_back = []
    try:
        with output_to_error():
            yield
    finally:
        texts, _held_back = _held_back, None
        for text in texts:
            print(text)


def print_json(data: Any) -> None:
    """Print data as JSON, with null for numbers that are not finite, and the text of what JSON does not have."""
    from segreg.runtime.files import finite

    text = json.dumps(finite(data), indent=2, default=str)
    print(text) if _held_back is None else _held_back.append(text)


def origin(part: Part) -> dict[str, Any]:
    """Return which part it is and where it comes from, as JSON holds it."""
    return {
        "kind": part.kind,
        "name": part.name,
        "summary": part.summary,
        "distribution": part.plugin.distribution,
        "version": part.plugin.version,
        "defined": part.offer.place,
    }
