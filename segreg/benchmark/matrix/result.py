"""A matrix as its table, its page and its summary are made from: rows, columns, cells, and what to count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segreg.benchmark.matrix.record import Cell, Row


@dataclass(frozen=True)
class Matrix:
    """Encoders, decoders and the cells that were tried.

    Attributes:
        rows: the encoders, by family and name.
        decoders: names of the decoders.
        cells: by the names of encoder and decoder; a pair that was not tried has none.
        versions: of the packages.
        seconds: that the processes took, added up.
    """

    rows: tuple[Row, ...]
    decoders: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    versions: Mapping[str, str]
    seconds: float

    @property
    def families(self) -> dict[str, list[Row]]:
        """Return the encoders of each family."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.family, []).append(row)
        return found

    @property
    def failed(self) -> list[Cell]:
        """Return the cells that failed, in the order of rows and columns."""
        return [cell for row in self.rows for cell in self.of_encoder(row.encoder) if not cell.ok]

    def of_encoder(self, encoder: str) -> list[Cell]:
        """Return an encoder's cells, in the order of the columns."""
        found = (self.cells.get((encoder, decoder)) for decoder in self.decoders)
        return [cell for cell in found if cell is not None]

    def of_decoder(self, decoder: str) -> list[Cell]:
        """Return a decoder's cells, in the order of the rows."""
        found = (self.cells.get((row.encoder, decoder)) for row in self.rows)
        return [cell for cell in found if cell is not None]

    def reasons(self) -> list[tuple[str, str, str, list[str]]]:
        """Return encoder, check, reason and decoders of all cells of one encoder that failed for one reason."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for cell in self.failed:
            found.setdefault((cell.encoder, cell.check, cell.reason), []).append(cell.decoder)
        return [(*key, decoders) for key, decoders in found.items()]


def counted(cells: Sequence[Cell]) -> Counter[str]:
    """Return how many cells there are: `all`, `ok`, and of these `dilated` and `adapted`."""
    counts = Counter(all=len(cells), ok=0, dilated=0, adapted=0)
    for cell in cells:
        if cell.ok:
            counts.update(ok=1, dilated=int(cell.dilated), adapted=int(bool(cell.notes)))
    return counts
