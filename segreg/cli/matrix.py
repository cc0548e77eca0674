"""`segreg matrix`: which encoders work with which decoders."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.cli.common import check_folder, print_json, shown_progress
from segreg.errors import SegregError
from segreg.runtime.layout import show

if TYPE_CHECKING:
    from segreg.benchmark.matrix.make import Made

NAME = "matrix"
HELP = "try every encoder with every decoder and say what works"
EXAMPLES = """examples:
  segreg matrix                                             one encoder of every kind, every decoder
  segreg matrix --encoders resnet18 'timm/convnext_*' --decoders 'smp.*' deeplabv3plus
  segreg matrix --encoders my_backbone                      one of your own with every decoder
  segreg matrix --encoders all --jobs 8                     every member of every family: hours
  segreg matrix --export onnx                               also: which pairs can be exported, and give the same
  segreg matrix --summary docs/matrix.md                    the counts, into a page

Each pair is built with random weights on the CPU and trained for one step; its output is looked at for several image
sizes and numbers of channels. DIR gets matrix.html, matrix.csv and cells.jsonl. A call that was stopped continues where
it was; pairs that were tried with the installed versions are not tried again. The exit status is 1 if a pair fails.
"""
_MOST = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoders", nargs="+", metavar="PATTERN", default=[],
        help="names or wildcards, or all (one of every kind)",
    )  # fmt: skip
    parser.add_argument(
        "--decoders", nargs="+", metavar="PATTERN", default=[], help="names or wildcards (every decoder)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("matrix"), help="folder for results (matrix)")
    parser.add_argument("--jobs", type=int, metavar="N", help="encoders tried at the same time (one a core)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", default=600.0, help="that a pair may take (600)")
    parser.add_argument(
        "--export", metavar="NAME", default="", help="also export each pair that works, such as by onnx"
    )
    parser.add_argument("--again", action="store_true", help="also try what was tried already")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="also write the counts as Markdown")
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.registry.registry import load_registry
    from segreg.runtime.device import cores

    jobs = cores() if chosen.jobs is None else chosen.jobs
    for name, value in (("jobs", jobs), ("timeout", chosen.timeout)):
        if not value > 0:
            raise SegregError(f"--{name} must be above 0, not {value:g}")
    check_folder(chosen.out)

    from segreg.benchmark.matrix.make import choose_parts, make
    from segreg.benchmark.matrix.store import write_summary
    from segreg.config.resolve import choose
    from segreg.reports.matrix import write_matrix

    registry = load_registry()
    if chosen.export:
        choose("exporter", chosen.export, {}, registry).build()  # so that what is missing is said before any work
    shown = shown_progress(quiet=chosen.quiet or chosen.json)
    made = make(
        registry, choose_parts(registry, "encoder", chosen.encoders),
        choose_parts(registry, "decoder", chosen.decoders), chosen.out,
        jobs=jobs, timeout=chosen.timeout, again=chosen.again, exporter=chosen.export, progress=shown,
    )  # fmt: skip
    files = [write_matrix(made.matrix, chosen.out / "matrix.html"), *made.files]
    if chosen.summary is not None:
        write_summary(made.matrix, chosen.summary)
        files.append(chosen.summary)
    if chosen.json:
        print_json(_as_data(made, files))
    else:
        show(*_lines(made), *(f"wrote {file}" for file in files))
    return 0 if all(cell.ok for cell in made.cells) else 1


def _lines(made: Made) -> list[str]:
    asked = {(cell.encoder, cell.decoder) for cell in made.cells}
    lines = []
    for encoder, check, reason, decoders in made.matrix.reasons():
        if lost := [decoder for decoder in decoders if (encoder, decoder) in asked]:
            names = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
            lines.append(f"{encoder} with {names}: {check}: {reason}")
    if len(lines) > _MOST:
        lines = [*lines[:_MOST], f"and {len(lines) - _MOST} more reasons, all of them in matrix.html"]
    works = sum(cell.ok for cell in made.cells)
    known = len(made.cells) - made.checked
    lines.append(f"{works} of {len(made.cells)} pairs work" + (f" ({known} were known)" if known else ""))
    for name in sorted({cell.exporter for cell in made.cells if cell.exports is not None}):
        tried = [cell for cell in made.cells if cell.exporter == name and cell.exports is not None]
        lines.append(f"{sum(cell.exports == '' for cell in tried)} of {len(tried)} can be exported by {name}")
    if made.stale:
        lines.append(f"{made.stale} pairs were checked with other versions and are not included")
    return lines


def _as_data(made: Made, files: list[Path]) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "ok": sum(cell.ok for cell in made.cells),
        "all": len(made.cells),
        "checked": made.checked,
        "versions": dict(made.matrix.versions),
        "cells": [{**asdict(cell), "ok": cell.ok} for cell in made.cells],
        "files": [str(file) for file in files],
    }
