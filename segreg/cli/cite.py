"""`segreg cite RUN...`: prints references of what runs used."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "cite"
HELP = "print references of the parts and libraries that runs used"
EXAMPLES = """examples:
  segreg cite runs/isic_v3plus/2026-01-31_12-00-00 > references.bib
  segreg cite runs/isic_v3plus/* --format text

A part's source is what `segreg show` says of it. Where no more than its address is known, the entry is a @misc with it.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directories of runs")
    parser.add_argument("--format", choices=("bibtex", "text"), default="bibtex", help="of what is printed (bibtex)")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.runs.directory import open_run_directory
    from segreg.runs.references import references_of

    found, without = references_of([open_run_directory(path) for path in dict.fromkeys(chosen.runs)])
    bibtex = chosen.format == "bibtex"
    print(("\n\n" if bibtex else "\n").join(one.bibtex() if bibtex else one.text() for one in found))
    if without:
        line = f"without a source: {', '.join(without)}"
        print(f"\n% {line.replace('@', ' of ')}" if bibtex else line)
    return 0
