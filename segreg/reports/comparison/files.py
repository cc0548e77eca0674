"""The files of a comparison: everything as JSON, a row for each run as CSV, and the page."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from segreg.benchmark.comparison.record import Comparison, Disagreement
from segreg.errors import SegregError
from segreg.reports.comparison.page import write_page
from segreg.runtime.files import replacing, write_json

RESULTS, ROWS, PAGE = "results.json", "results.csv", "report.html"


def write_comparison(comparison: Comparison, folder: Path, images: Sequence[Disagreement] = ()) -> list[Path]:
    """Write the files, each aside first and then renamed into place, and return them.

    Raises:
        SegregError: the folder can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SegregError(f"the folder {folder} can't be made: {error.strerror}") from None
    write_json(folder / RESULTS, comparison.as_data())
    write_rows(comparison, folder / ROWS)
    write_page(comparison, folder / PAGE, images)
    return [folder / name for name in (RESULTS, ROWS, PAGE)]


def write_rows(comparison: Comparison, file: Path) -> None:
    """Write a row for each run: what it is, each metric, each cost of its model; and each failure with its reason."""
    settings = list(dict.fromkeys(name for model in comparison.models for name in model.settings))
    metrics = list(dict.fromkeys(name for model in comparison.models for name in model.values))
    costs = list(dict.fromkeys(name for model in comparison.models for name in model.costs))
    with replacing(file) as aside, aside.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(
            text, ["model", *settings, "seed", *metrics, *costs, "run", "failed"], restval="", lineterminator="\n"
        )
        writer.writeheader()
        for model in comparison.models:
            for number, (seed, run) in enumerate(zip(model.seeds, model.runs, strict=True)):
                writer.writerow({
                    "model": model.name, **model.settings, "seed": seed, "run": run,
                    **{name: model.values[name].of_seeds[number] for name in model.values},
                    **{name: cost.median for name, cost in model.costs.items()},
                })  # fmt: skip
        for failure in comparison.failures:
            writer.writerow({"model": failure.name, "seed": failure.seed, "run": failure.run, "failed": failure.reason})
