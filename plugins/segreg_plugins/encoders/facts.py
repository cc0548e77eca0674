"""What a list says of encoders without building them: parameters and strides, measured once, and weights.

`python benchmarks/encoders.py` builds SMP's and torchvision's encoders and writes the table again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("networks.json")


@cache
def networks() -> Mapping[str, tuple[int, str]]:
    """Return the parameters of networks for three channels, and the strides of their levels, by name in recipes."""
    return {name: (count, strides) for name, (count, strides) in json.loads(TABLE.read_text("utf-8")).items()}


def facts_of(name: str, weights: Sequence[str]) -> Mapping[str, str]:
    """Return words by heading; a number that is not known is left out."""
    known = {}
    if name in networks():
        parameters, strides = networks()[name]
        known = {"parameters": f"{parameters / 1e6:.1f} M", "strides": strides}
    return {**known, "weights": ", ".join(weights)}
