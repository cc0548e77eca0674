"""`segreg init`: looks at a folder of images and writes a recipe for it, with the reason of every setting."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

from segreg.cli.common import check_least, one_file, print_json, shown_progress
from segreg.errors import SegregError
from segreg.runtime.layout import Pasted, complain, show

NAME = "init"
HELP = "look at a folder of images and write a recipe for it, with a reason for each setting"
EXAMPLES = """examples:
  segreg init data/lesions
  segreg init data/lesions --budget medium --out lesions_r50.yaml
  segreg init data/street --layout folder       where a folder can be read in several ways
  segreg init data/street 'dataset.classes=[road,car,person]' train.epochs=30
  segreg init data/lesions --json               the fingerprint and the settings; writes nothing without --out

Every dataset part that is installed is asked whether it reads the folder. Images and masks are then read once, at most
1,000 of them, for the fingerprint: sizes, classes, objects, symmetry, copies. The settings follow from it by rules
(docs/init.md), and each has its reason and number behind it in the recipe. No file is replaced without --force.
The exit status is 1 where a recipe was written that can't train as it is; it says why.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="DATA|key.path=value", help="the folder, and overrides")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the recipe to write (FOLDER.yaml, here)")
    parser.add_argument("--force", action="store_true", help="replace the file where it exists")
    parser.add_argument("--layout", default="", metavar="DATASET", help="the dataset part to read the folder with")
    parser.add_argument(
        "--budget", choices=("small", "medium", "large"), help="what the network may cost (small on a CPU, else medium)"
    )
    parser.add_argument("--most", type=int, default=1000, metavar="N", help="images to read at most (1000)")
    parser.add_argument("--json", action="store_true", help="print fingerprint and settings as JSON")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.registry.registry import load_registry
    from segreg.runs.proposal import propose
    from segreg.runtime.files import write_text

    check_least(chosen, 1, "most")
    name, overrides = one_file(chosen.words, NAME, "data/lesions", what="folder")
    folder = Path(name)
    out = chosen.out or (None if chosen.json else Path(f"{_plain(folder)}.yaml"))
    if out is not None and out.exists() and not chosen.force:
        raise SegregError(f"{out} exists already", hint="--force replaces it, --out FILE names another")
    if out is not None and not out.parent.is_dir():
        raise SegregError(f"there is no folder {out.parent}", hint="--out names a file in a folder that is there")
    found = propose(
        folder, load_registry(), layout=chosen.layout, overrides=overrides, budget=chosen.budget, most=chosen.most,
        progress=shown_progress(quiet=chosen.json),
    )  # fmt: skip
    if out is not None:
        write_text(out, found.text)
    if chosen.json:
        print_json({**found.as_data(), "written": str(out) if out else None})
        return 1 if found.warnings else 0
    show(*found.lines(), *found.notes)
    for warning in found.warnings:
        complain(warning)
    recipe = shlex.quote(str(out))
    commands = [f"segreg check {recipe} --build", f"segreg data check {recipe}", f"segreg run {recipe}"]
    show(f"wrote {out}; next:", Pasted("\n".join(f"  {command}" for command in commands)))
    return 1 if found.warnings else 0


def _plain(folder: Path) -> str:
    """Return a folder's name as a file's, or "recipe" where it has none."""
    return re.sub(r"[^\w.-]+", "_", folder.resolve().name) or "recipe"
