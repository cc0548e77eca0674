"""`segreg report RUN`: writes the page about a run."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from segreg.cli.common import add_figures, check_folder
from segreg.errors import SegregError
from segreg.runtime.layout import Styled, complain, show

NAME = "report"
HELP = "write a run's report.html: scores, curves, images, recipe, environment in one file"
EXAMPLES = """examples:
  segreg report runs/isic_v3plus/2026-01-31_12-00-00
  segreg report runs/isic_v3plus/2026-01-31_12-00-00 --open
  segreg report runs/isic_v3plus/2026-01-31_12-00-00 --out lesions.html

A finished run has one already. A run that is continuing is reported as far as it got.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file to write (RUN/report.html)")
    add_figures(parser)
    parser.add_argument("--open", action="store_true", help="show it in the browser")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.reports import report_run
    from segreg.runs.directory import open_run_directory

    directory = open_run_directory(chosen.run)
    if chosen.out is not None and chosen.out.is_dir():
        raise SegregError(f"{chosen.out} is a folder", hint=f"name a file: --out {chosen.out / 'report.html'}")
    check_folder(chosen.figures, "--figures")
    file = report_run(directory, chosen.out, warn=complain)
    show(Styled(str(file), f"link {file.absolute().as_uri()}"))
    if chosen.figures is not None:
        from segreg.reports.figures import run_figures

        show(*(f"wrote {file}" for file in run_figures(directory, chosen.figures)))
    if chosen.open and not webbrowser.open(file.absolute().as_uri()):
        complain(f"no browser could be started; open {file.absolute()}")
    return 0
