"""Results of a matrix as plain values: of an encoder, of a pair of encoder and decoder, and of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EncoderResult:
    """One encoder.

    Attributes:
        encoder: its name.
        family: the family that it is a member of, or the package that offers it alone.
        parameters: how many it has; None if it can't be built.
        channels: of each level, finest first.
        strides: of each level, before a decoder asks for dilation.
        native: height and width that it was trained with or designed for.
        reason: why it can't be built; empty if it can.
        seconds: of CPU time to build it, imports included.
    """

    encoder: str
    family: str
    parameters: int | None = None
    channels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    native: tuple[int, int] | None = None
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class PairResult:
    """One encoder with one decoder.

    Attributes:
        encoder: the encoder's name.
        decoder: the decoder's name.
        check: the first check that failed; empty if all passed.
        reason: why it failed, one sentence.
        parameters: of encoder, decoder, head and all together; empty if the network can't be built.
        strides: of the encoder's levels as the decoder receives them.
        dilated: whether the decoder made the encoder dilate.
        notes: a sentence for each level that was adapted.
        seconds: of CPU time that the checks took.
        exports: why it can't be exported; empty where the file predicts the same, None where that was not tried.
        exporter: by which it was tried.
    """

    encoder: str
    decoder: str
    check: str = ""
    reason: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)
    strides: tuple[int, ...] = ()
    dilated: bool = False
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    exports: str | None = None
    exporter: str = ""

    @property
    def ok(self) -> bool:
        return not self.check


@dataclass(frozen=True)
class Finished:
    """An encoder with all decoders that it was checked with.

    Attributes:
        row: the encoder.
        cells: one for each decoder.
        versions: of the packages, by their names.
    """

    row: EncoderResult
    cells: tuple[PairResult, ...]
    versions: Mapping[str, str]

    @property
    def seconds(self) -> float:
        """CPU time that it took."""
        return self.row.seconds + sum(cell.seconds for cell in self.cells)

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Finished:
        """Create it from what JSON holds of it.

        Raises:
            KeyError, TypeError: the data have another form.
        """
        row = {**data["row"], **{name: tuple(data["row"][name]) for name in ("channels", "strides")}}
        row["native"] = tuple(row["native"]) if row["native"] else None
        cells = [{**cell, **{name: tuple(cell[name]) for name in ("strides", "notes")}} for cell in data["cells"]]
        return cls(EncoderResult(**row), tuple(PairResult(**cell) for cell in cells), dict(data["versions"]))


@dataclass(frozen=True)
class Matrix:
    """Encoders, decoders and the results of their pairs.

    Attributes:
        rows: the encoders, by family and name.
        decoders: the columns' names.
        cells: by the names of encoder and decoder; pairs that were not checked are missing.
        versions: of the packages.
        seconds: of CPU time that the processes took together.
    """

    rows: tuple[EncoderResult, ...]
    decoders: tuple[str, ...]
    cells: Mapping[tuple[str, str], PairResult]
    versions: Mapping[str, str]
    seconds: float

    @property
    def families(self) -> dict[str, list[EncoderResult]]:
        found: dict[str, list[EncoderResult]] = {}
        for row in self.rows:
            found.setdefault(row.family, []).append(row)
        return found

    @property
    def failed(self) -> list[PairResult]:
        """The pairs that failed, in the order of rows and columns."""
        return [cell for cell in self.of_rows(self.rows) if not cell.ok]

    def of_rows(self, rows: Iterable[EncoderResult]) -> list[PairResult]:
        """Return the pairs of some encoders, in the order of rows and columns."""
        return [cell for row in rows for cell in self.of_encoder(row.encoder)]

    def of_encoder(self, encoder: str) -> list[PairResult]:
        """Return an encoder's pairs, in the order of the columns."""
        return [self.cells[encoder, decoder] for decoder in self.decoders if (encoder, decoder) in self.cells]

    def of_decoder(self, decoder: str) -> list[PairResult]:
        """Return a decoder's pairs, in the order of the rows."""
        return [self.cells[row.encoder, decoder] for row in self.rows if (row.encoder, decoder) in self.cells]

    def reasons(self) -> list[tuple[str, str, str, list[str]]]:
        """Return (encoder, check, reason, decoders) for each encoder and reason."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for cell in self.failed:
            found.setdefault((cell.encoder, cell.check, cell.reason), []).append(cell.decoder)
        return [(*key, decoders) for key, decoders in found.items()]

    def not_exported(self) -> list[tuple[str, str, list[str]]]:
        """Return (encoder, reason, decoders) for each encoder and reason why its pairs can't be exported."""
        found: dict[tuple[str, str], list[str]] = {}
        for cell in self.of_rows(self.rows):
            if cell.exports:
                found.setdefault((cell.encoder, cell.exports), []).append(cell.decoder)
        return [(*key, decoders) for key, decoders in found.items()]


def count_results(cells: Sequence[PairResult]) -> Counter[str]:
    """Count pairs: `all`, `ok`, and of these `dilated`, `adapted`, `tried` to export and those that `export`."""
    counts = Counter(all=len(cells), ok=0, dilated=0, adapted=0, tried=0, exports=0)
    for cell in cells:
        if cell.ok:
            counts.update(ok=1, dilated=int(cell.dilated), adapted=int(bool(cell.notes)))
            counts.update(tried=int(cell.exports is not None), exports=int(cell.exports == ""))
    return counts
