"""A matrix as one page that opens from disk: encoders down, decoders across, and why a cell failed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from segreg.benchmark.matrix.record import EncoderResult, Matrix, PairResult, count_results
from segreg.errors import SegregError
from segreg.reports.elements import Content, Html, element, facts, joined, table
from segreg.reports.frame import framed
from segreg.runtime.files import replacing
from segreg.runtime.progress import duration

_LEGEND = (
    ("works", "ok", "every check passed, on the encoder's own levels"),
    ("dilated", "ok", "every check passed; the decoder had the encoder dilated"),
    ("adapted", "ok", "every check passed; some levels were resampled between encoder and decoder"),
    ("fails", "failed", "a check failed; the reason stands on the cell and below"),
    ("untried", "untried", "this pair was not tried"),
)
_SIGNS = {"works": "\u2713", "dilated": "D", "adapted": "R", "fails": "\u2717", "untried": "\u00b7"}


def write_matrix(matrix: Matrix, file: Path) -> Path:
    """Write the page, and return the file.

    Raises:
        SegregError: the file can't be written.
    """
    try:
        with replacing(file) as aside:
            aside.write_text(page(matrix), encoding="utf-8")
    except OSError as error:
        raise SegregError(f"{file} can't be written: {error.strerror}") from None
    return file


def page(matrix: Matrix) -> str:
    """Return the page."""
    whole = count_results([cell for row in matrix.rows for cell in matrix.of_encoder(row.encoder)])
    sections: dict[str, Content] = {
        "Pairs": [_legend(), *(_family(matrix, name, rows) for name, rows in matrix.families.items())],
        "What fails": _failures(matrix),
        "Decoders": _decoders(matrix),
        "Versions": facts([*sorted(matrix.versions.items()), ("time", f"{duration(matrix.seconds)} of one core")]),
    }
    words = f"{whole['ok']} of {whole['all']} pairs of {len(matrix.rows)} encoders and {len(matrix.decoders)} decoders"
    headline = element("p", f"{words} work.", class_="note")
    style = files("segreg.reports").joinpath("matrix.css").read_text(encoding="utf-8")
    return framed("segreg matrix", headline, {h: c for h, c in sections.items() if c}, more_style=style)


def _kind(cell: PairResult | None) -> str:
    if cell is None:
        return "untried"
    if not cell.ok:
        return "fails"
    return "dilated" if cell.dilated else "adapted" if cell.notes else "works"


def _legend() -> Html:
    items = (
        element("span", element("b", _SIGNS[kind], class_=f"sign {colour}"), f" {meaning}")
        for kind, colour, meaning in _LEGEND
    )
    return element("p", items, class_="legend")


def _family(matrix: Matrix, name: str, rows: Sequence[EncoderResult]) -> Html:
    of = count_results([cell for row in rows for cell in matrix.of_encoder(row.encoder)])
    head: list[Content] = ["encoder", "M parameters", "strides", "work"]
    head += [element("span", decoder, class_="upright") for decoder in matrix.decoders]
    title = element("h3", f"{name} ", element("small", f"{of['ok']} of {of['all']} pairs work"))
    return joined([title, table(head, [_row(matrix, row) for row in rows], sortable=True)])


def _row(matrix: Matrix, row: EncoderResult) -> Html:
    of = count_results(matrix.of_encoder(row.encoder))
    millions = "" if row.parameters is None else f"{row.parameters / 1e6:.1f}"
    made_for = f"made for {row.native[0]}x{row.native[1]}" if row.native else None
    return element(
        "tr",
        element("th", row.encoder, scope="row", title=made_for),
        element("td", millions, class_="figure"),
        element("td", "/".join(map(str, row.strides)), class_="strides"),
        element("td", str(of["ok"]), class_="figure"),
        (_cell(matrix.cells.get((row.encoder, decoder)), row.encoder, decoder) for decoder in matrix.decoders),
    )


def _cell(cell: PairResult | None, encoder: str, decoder: str) -> Html:
    kind = _kind(cell)
    colour = {name: colour for name, colour, _ in _LEGEND}[kind]
    told = [f"{encoder} with {decoder}"]
    if cell is not None:
        told += [f"{cell.check}: {cell.reason}"] if not cell.ok else []
        told += [f"{cell.parameters['total'] / 1e6:.1f} M parameters"] if "total" in cell.parameters else []
        told += [f"levels of strides {', '.join(map(str, cell.strides))}"] if cell.dilated else []
        told += cell.notes
    return element("td", _SIGNS[kind], class_=f"sign {colour}", title="\n".join(told))


def _failures(matrix: Matrix) -> Html:
    rows = (
        element(
            "tr",
            element("th", encoder, scope="row"),
            element("td", "all" if len(decoders) == len(matrix.of_encoder(encoder)) else ", ".join(decoders)),
            element("td", check),
            element("td", reason),
        )
        for encoder, check, reason, decoders in matrix.reasons()
    )
    if not matrix.failed:
        return element("p", "Nothing.")
    return table(["encoder", "decoders", "check", "reason"], rows, sortable=True)


def _decoders(matrix: Matrix) -> Html:
    rows = []
    for decoder in matrix.decoders:
        of = count_results(matrix.of_decoder(decoder))
        numbers = (element("td", str(of[name]), class_="figure") for name in ("ok", "all", "dilated", "adapted"))
        rows.append(element("tr", element("th", decoder, scope="row"), numbers))
    head = ["decoder", "works", "of", "with the encoder dilated", "with levels resampled"]
    return table(head, rows, sortable=True)
