"""`segreg schema`: writes the JSON Schema of recipes for the installed plugins."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from segreg.errors import SegregError
from segreg.runtime.files import write_text

NAME = "schema"
HELP = "write the JSON Schema of recipes, by which editors complete and check them"
EXAMPLES = """examples:
  segreg schema recipes/segreg.schema.json
      and recipes that begin with
      # yaml-language-server: $schema=segreg.schema.json
      are completed and checked by every editor that speaks YAML's language server
  segreg schema | less
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, help="where to write it; printed where no file is named")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.config.schema import recipe_schema
    from segreg.registry.registry import load_registry

    text = json.dumps(recipe_schema(load_registry()), indent=1) + "\n"
    if chosen.file is None:
        print(text, end="")
        return 0
    if chosen.file.exists() and not _is_schema(chosen.file):
        raise SegregError(
            f"{chosen.file} is there, and is not a schema of recipes",
            hint="name another file; `segreg check` looks at a recipe",
        )
    write_text(chosen.file, text)
    print(f"wrote {chosen.file}")
    return 0


def _is_schema(file: Path) -> bool:
    """Whether a file is the schema of recipes, which an earlier call has written."""
    from segreg.config.schema import TITLE

    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("title") == TITLE
