"""A tune's files: everything as JSON, and one page that opens from disk."""

from __future__ import annotations

from pathlib import Path

from segreg.benchmark.tune.folder import name_of
from segreg.benchmark.tune.record import TuneRecord, format_setting
from segreg.benchmark.tune.study import LEAST_FOR_IMPORTANCES
from segreg.reports import tune_charts as charts
from segreg.reports.render import render, write
from segreg.runtime.files import write_json
from segreg.runtime.progress import duration

RESULTS, PAGE = "results.json", "report.html"


def write_tune(record: TuneRecord, folder: Path) -> list[Path]:
    """Write `results.json` and `report.html` into a folder, and return them.

    Raises:
        SegregError: a file can't be written.
    """
    write_json(folder / RESULTS, record.as_data())
    write(page(record), folder / PAGE, "page")
    return [folder / name for name in (RESULTS, PAGE)]


def page(record: TuneRecord) -> str:
    """Return the page."""
    return render(
        "tune",
        record=record,
        best=next((one for one in record.outcomes if one.best), None),
        direction="higher" if record.larger_is_better else "lower",
        counts={state: len(record.of_state(state)) for state in ("completed", "pruned", "failed", "running")},
        seconds=duration(sum(one.seconds for one in record.outcomes)),
        history=charts.history(record),
        importances=charts.importances(record),
        least=LEAST_FOR_IMPORTANCES,
        parallel=charts.parallel(record),
        epochs=charts.epochs(record),
        duration=duration,
        setting=format_setting,
        name_of=name_of,
    )
