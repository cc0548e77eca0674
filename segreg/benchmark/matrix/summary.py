"""A matrix in short, as Markdown for a page of the docs."""

from __future__ import annotations

from pathlib import Path

from segreg.benchmark.matrix.record import Matrix, count_results
from segreg.errors import SegregError
from segreg.runtime.files import replacing
from segreg.runtime.progress import duration

BEGIN, END = "<!-- matrix -->", "<!-- end -->"


def write_summary(matrix: Matrix, file: Path) -> None:
    """Put the summary between the marks of a page; write a new page if there is none.

    Raises:
        SegregError: the page has no marks, or can't be read or written.
    """
    block = f"{BEGIN}\n\n{summary(matrix)}\n{END}"
    try:
        if not file.exists():
            text = f"# Matrix\n\n{block}\n"
        else:
            before, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
            _, end, after = rest.partition(END)
            if not begin or not end:
                raise SegregError(
                    f"{file} has no place for the summary",
                    hint=f"put the lines {BEGIN} and {END} where the summary belongs, or name another file",
                )
            text = f"{before}{block}{after}"
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SegregError(f"the summary {file} can't be written: {error.strerror}") from None


def summary(matrix: Matrix) -> str:
    """Return counts, exceptions with their reasons, and versions."""
    whole = count_results([cell for row in matrix.rows for cell in matrix.of_encoder(row.encoder)])
    parts = f"{len(matrix.rows)} encoders, {len(matrix.decoders)} decoders"
    lines = [
        f"{whole['ok']} of {whole['all']} pairs work: {parts}. It took {duration(matrix.seconds)} of one core.",
        "",
        ", ".join(f"{name} {number}" for name, number in sorted(matrix.versions.items())),
        "",
        "| decoder | works | of | with the encoder dilated | with levels adapted |",
        "|---|---|---|---|---|",
    ]
    for decoder in matrix.decoders:
        of = count_results(matrix.of_decoder(decoder))
        lines.append(f"| `{decoder}` | {of['ok']} | {of['all']} | {of['dilated']} | {of['adapted']} |")
    lines += ["", "| encoders | number | pairs that work | of |", "|---|---|---|---|"]
    for family, rows in matrix.families.items():
        of = count_results([cell for row in rows for cell in matrix.of_encoder(row.encoder)])
        lines.append(f"| {family} | {len(rows)} | {of['ok']} | {of['all']} |")
    if reasons := matrix.reasons():
        lines += ["", "What does not work:", "", "| encoder | decoders | check | reason |", "|---|---|---|---|"]
    for encoder, check, reason, decoders in reasons:
        every = len(decoders) == len(matrix.of_encoder(encoder))
        names = "all" if every else ", ".join(f"`{decoder}`" for decoder in decoders)
        lines.append(f"| `{encoder}` | {names} | {check} | {_escape(reason)} |")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
