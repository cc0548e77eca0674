"""Build SMP's and torchvision's encoders, and write the table of their parameters and strides that `segreg list` shows.

python benchmarks/encoders.py
"""

from __future__ import annotations

import json

from segreg import build_part
from segreg.registry.registry import load_registry
from segreg_plugins.encoders.facts import TABLE


def measured(name: str) -> tuple[int, str]:
    """Build an encoder for three channels, without its weights, and return its parameters and strides."""
    encoder = build_part("encoder", name, 3, weights=None)
    return sum(each.numel() for each in encoder.parameters()), "/".join(map(str, encoder.strides))


def main() -> None:
    """Measure every encoder whose settings have weights, timm's many left out."""
    registry = load_registry()
    parts = [part for pattern in ("*", "torchvision/*") for part in registry.parts("encoder", pattern)]
    names = sorted({part.name for part in parts if "weights" in part.settings and not part.name.startswith("timm/")})
    lines = [f" {json.dumps(name)}: {json.dumps(measured(name))}" for name in names]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
