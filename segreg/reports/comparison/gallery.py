"""Pictures on which the models disagree: what each of them makes of the same picture, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from segreg.benchmark.comparison.disagreement_record import Disagreement
from segreg.benchmark.comparison.record import Comparison
from segreg.reports.comparison.looks import swatch
from segreg.reports.elements import Content, Html, element, embedded, joined, number


def gallery(comparison: Comparison, pictures: Sequence[Disagreement]) -> Html:
    """Gives each picture, its truth, and every model's prediction with its score; empty without pictures."""
    if not pictures:
        return Html("")
    said = f"The number below a prediction is {comparison.metric.partition('.')[0]} in this picture."
    return joined([element("p", said), (_picture(comparison, picture) for picture in pictures)])


def _picture(comparison: Comparison, picture: Disagreement) -> Html:
    whole = "image" if picture.truth is not None else "image and truth"
    shown = [_figure(picture.image, [element("b", whole)], f"{picture.id}: {whole}")]
    if picture.truth is not None:
        shown.append(_figure(picture.truth, [element("b", "truth")], f"{picture.id}: truth"))
    places = {model.name: place for place, model in enumerate(comparison.models)}
    known = [name for name in places if name in picture.predictions]
    for name in [*known, *(name for name in picture.predictions if name not in places)]:
        colour = swatch(places[name]) if name in places else Html("")
        score = number(picture.values[name]) if name in picture.values else ""
        words: list[Content] = [colour, element("b", name), " ", score]
        shown.append(_figure(picture.predictions[name], words, f"{picture.id}: prediction of {name}"))
    return element("article", element("h3", picture.id), element("div", shown, class_="side-by-side"))


def _figure(data: bytes, caption: Sequence[Content], alt: str) -> Html:
    return element("figure", embedded(data, alt=alt), element("figcaption", caption))
