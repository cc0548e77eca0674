"""What exporters raise, as a message that names the operator."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from segreg.errors import SegregError

_OPERATOR = re.compile(
    r"No (?:ONNX function|conversion rule) found for[^.\n]*|Error when translating node %\w+|"
    r"\b(?:aten|prims|torchvision|quantized)(?:\.|::)\w+(?:\.\w+)?"
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def named(runtime: str, logger: str = "") -> Iterator[None]:
    """Report whatever a runtime's converter raises with the operator that it has no word for, where it says which.

    What else it says is kept from the user: warnings, and what a logger has to say below an error.

    Raises:
        SegregError: the converter failed.
    """
    chosen = logging.getLogger(logger or __name__)
    level = chosen.level
    chosen.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except SegregError:
        raise
    except Exception as error:  # converters raise everything
        text = _COLOURS.sub("", str(error))
        operators = [*dict.fromkeys(_OPERATOR.findall(text))]
        first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
        what = "; ".join(operators[:3]) if operators else first[:300]
        hint = "" if runtime == "torch.export" else "--format torch has every operator that PyTorch has"
        raise SegregError(f"{runtime} can't have this network: {what}", hint=hint) from error
    finally:
        chosen.setLevel(level)
