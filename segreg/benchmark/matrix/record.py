"""What is known of one encoder and of one encoder with one decoder, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One encoder.

    Attributes:
        encoder: its name.
        family: the family that it is a member of, or the package that offers it alone.
        parameters: how many it has; None where it can't be built.
        channels: of each level, finest first.
        strides: of each level, before a decoder asks for dilation.
        native: height and width that it was made for.
        reason: why it can't be built; empty where it can.
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
class Cell:
    """One encoder with one decoder.

    Attributes:
        encoder: the encoder's name.
        decoder: the decoder's name.
        check: the first check that failed; empty where all passed.
        reason: why it failed, one sentence.
        parameters: of encoder, decoder, head and all together; empty where the network can't be built.
        strides: of the encoder's levels as the decoder got them.
        dilated: whether the decoder had the encoder dilated.
        notes: a sentence for each level that was adapted.
        seconds: of CPU time that the checks took.
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

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.check


@dataclass(frozen=True)
class Finished:
    """An encoder with the decoders that it was tried with.

    Attributes:
        row: the encoder.
        cells: one for each decoder.
        versions: of the packages that it was tried with, by their names.
    """

    row: Row
    cells: tuple[Cell, ...]
    versions: Mapping[str, str]

    @property
    def seconds(self) -> float:
        """Return the CPU time that it took."""
        return self.row.seconds + sum(cell.seconds for cell in self.cells)

    def as_data(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Finished:
        """Return what `as_data` gave.

        Raises:
            KeyError, TypeError: the values are not of that form.
        """
        row = {**data["row"], **{name: tuple(data["row"][name]) for name in ("channels", "strides")}}
        row["native"] = tuple(row["native"]) if row["native"] else None
        cells = [{**cell, **{name: tuple(cell[name]) for name in ("strides", "notes")}} for cell in data["cells"]]
        return cls(Row(**row), tuple(Cell(**cell) for cell in cells), dict(data["versions"]))
