"""Images on which the models disagree: what each of them makes of the same image, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from segreg.benchmark.comparison.record import Comparison, Disagreement
from segreg.reports.comparison.looks import swatch
from segreg.reports.elements import Content, Html, element, embedded, joined, number


def gallery(comparison: Comparison, images: Sequence[Disagreement]) -> Html:
    """Return each image, its truth, and every model's prediction with its score; empty without images."""
    if not images:
        return Html("")
    said = f"The number below a prediction is {comparison.metric.partition('.')[0]} in this image."
    return joined([element("p", said), (_image(comparison, image) for image in images)])


def _image(comparison: Comparison, image: Disagreement) -> Html:
    whole = "image" if image.truth is not None else "image and truth"
    shown = [_figure(image.image, [element("b", whole)], f"{image.id}: {whole}")]
    if image.truth is not None:
        shown.append(_figure(image.truth, [element("b", "truth")], f"{image.id}: truth"))
    places = {model.name: place for place, model in enumerate(comparison.models)}
    known = [name for name in places if name in image.predictions]
    for name in [*known, *(name for name in image.predictions if name not in places)]:
        colour = swatch(places[name]) if name in places else Html("")
        score = number(image.values[name]) if name in image.values else ""
        words: list[Content] = [colour, element("b", name), " ", score]
        shown.append(_figure(image.predictions[name], words, f"{image.id}: prediction of {name}"))
    return element("article", element("h3", image.id), element("div", shown, class_="side-by-side"))


def _figure(data: bytes, caption: Sequence[Content], alt: str) -> Html:
    return element("figure", embedded(data, alt=alt), element("figcaption", caption))
