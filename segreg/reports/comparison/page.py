"""A comparison as one page that opens from disk: how good each model is and how surely, next to what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from segreg.benchmark.comparison.record import Comparison, Disagreement
from segreg.errors import SegregError
from segreg.reports.comparison.classes import classes
from segreg.reports.comparison.curves import curves
from segreg.reports.comparison.definitions import definitions, runs
from segreg.reports.comparison.forest import forest
from segreg.reports.comparison.gallery import gallery
from segreg.reports.comparison.images import images
from segreg.reports.comparison.leaderboard import leaderboard
from segreg.reports.comparison.tradeoff import tradeoff
from segreg.reports.elements import Content, Html, element, facts, joined
from segreg.reports.frame import framed
from segreg.runtime.files import replacing


def write_page(comparison: Comparison, file: Path, input_images: Sequence[Disagreement] = ()) -> None:
    """Write the page.

    Args:
        comparison: what it shows.
        file: where to write it; its folder is made where it is not there.
        images: those on which the models disagree, as they are to stand on the page.

    Raises:
        SegregError: the page can't be written.
    """
    text = page(comparison, input_images)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SegregError(f"the page {file} can't be written: {error.strerror}") from None


def page(comparison: Comparison, input_images: Sequence[Disagreement] = ()) -> str:
    """Return the page. Without script it is whole, but for the choice of the cost and for sorting."""
    sections = {
        "Models": leaderboard(comparison),
        "Intervals": forest(comparison),
        "Quality against cost": tradeoff(comparison),
        "Learning curves": curves(comparison),
        "Classes": classes(comparison),
        "Single images": images(comparison),
        "Where the models disagree": gallery(comparison, input_images),
        "What each number is": definitions(comparison),
        "Runs": runs(comparison),
    }
    return framed(
        comparison.title,
        [_verdict(comparison), facts(_facts(comparison))],
        {heading: content for heading, content in sections.items() if content},
        tab=f"{comparison.title} - segreg comparison",
        banners=joined(element("div", notice, class_="banner", role="alert") for notice in _notices(comparison)),
        more_style=_part("page.css"),
        more_script=_part("page.js"),
    )


def _notices(comparison: Comparison) -> Iterator[str]:
    if comparison.waiting:
        runs_are = "1 planned run is" if comparison.waiting == 1 else f"{comparison.waiting} planned runs are"
        yield f"NOT FINISHED: {runs_are} still to come"
    yield from comparison.notices


def _verdict(comparison: Comparison) -> Html:
    if not comparison.verdict:
        return Html("")
    return element("div", (element("p", sentence) for sentence in comparison.verdict), class_="verdict")


def _facts(comparison: Comparison) -> Iterator[tuple[str, Content]]:
    direction = "higher is better" if comparison.higher_is_better else "lower is better"
    definition = comparison.definitions.get(comparison.metric, "")
    yield "compared", [element("code", comparison.metric), f", {direction}. {definition}"]
    yield "images", f"{len(comparison.images)}, the same for all models" if comparison.images else ""
    yield "models", str(len(comparison.models)) if comparison.models else ""
    yield "seeds", _seeds(comparison)
    yield "baseline", comparison.baseline
    yield "classes", ", ".join(comparison.classes)


def _seeds(comparison: Comparison) -> str:
    """Return how many seeds each model was trained with, and which."""
    kinds = list(dict.fromkeys(model.seeds for model in comparison.models))
    if not kinds:
        return ""
    if len(kinds) == 1:
        return f"{len(kinds[0])} a model: {', '.join(map(str, kinds[0]))}"
    counts = sorted({len(seeds) for seeds in kinds})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} a model, not the same for all; see Runs"


def _part(name: str) -> str:
    return files("segreg.reports.comparison").joinpath(name).read_text(encoding="utf-8")
