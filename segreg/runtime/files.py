"""Files that are written whole or not at all, and JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Return a path to write to, and put that file in `path`'s place once the disk has all of it."""
    aside = path.with_name(f".{path.name}.writing")
    try:
        aside.write_bytes(b"")
        mode = aside.stat().st_mode
        yield aside
        aside.chmod(mode)  # safetensors makes files that their owner alone can read
        _sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    # The rename itself is safe only when the folder is on the disk too.
    if os.name == "posix":
        _sync(path.parent)


def _sync(path: Path) -> None:
    # Windows flushes only what is open for writing; a folder opens only for reading.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(file: Path, content: Any) -> None:
    """Write JSON aside and renames it into place, so that no reader ever sees half a file.

    Numbers that are not finite, which JSON does not have, are written as null.
    """
    with replacing(file) as aside:
        aside.write_text(json.dumps(finite(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def finite(value: Any) -> Any:
    """Return the content with null in place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
