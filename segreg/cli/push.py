"""`segreg push RUN user/name`: publishes a run on the Hugging Face hub."""

from __future__ import annotations

import argparse
import re
import tempfile
from dataclasses import asdict
from pathlib import Path

from segreg.cli.common import print_json
from segreg.errors import SegregError
from segreg.runtime.layout import Pasted, show

NAME = "push"
HELP = "publish a run on the Hugging Face hub: weights, recipe, scores and a model card"
EXAMPLES = """examples:
  segreg push runs/isic_v3plus/2026-01-31_12-00-00 anna/lesions --dry-run     look at it first, without the network
  segreg push runs/isic_v3plus/2026-01-31_12-00-00 anna/lesions               a private repository
  segreg push RUN anna/lesions --public --revision v2
  segreg predict hf://anna/lesions photos --out predicted                     use it, anywhere

A new repository is private unless --public is given. Paths are left out of the recipe, the machine, the command and
warnings of what the run noted, and the names of the samples unless --samples is given. What else looks like a path, a
user, a machine, an address or a token stops the push, with its file and line. What the card's owner has written into
it, its licence for instance, stays when it is pushed again.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the directory of a run, or of an exported network")
    parser.add_argument("repository", metavar="USER/NAME", help="the repository on the hub")
    seen = parser.add_mutually_exclusive_group()
    seen.add_argument("--private", action="store_true", help="only its owner sees a new repository (as without it)")
    seen.add_argument("--public", action="store_true", help="everybody sees it")
    parser.add_argument("--revision", default="", metavar="BRANCH", help="push to this branch (main)")
    parser.add_argument("--message", default="", metavar="TEXT", help="of the commit")
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="of which epoch (best)")
    parser.add_argument(
        "--samples", action="store_true", help="also the names of the samples: the split, and scores of each image"
    )
    parser.add_argument(
        "--allow", action="append", default=[], metavar="WORD",
        help="let a word pass that looks like something of this machine; may be given several times",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="write the folder and show the card; no network is used")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep what is uploaded in this folder (hub/NAME)")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", chosen.repository):
        raise SegregError(
            f'"{chosen.repository}" is not a repository on the hub', hint="it is written USER/NAME, as in anna/lesions"
        )
    from segreg.runs.load import load_run

    run = load_run(chosen.run)

    from segreg.runs.push import card_on_hub, pack, upload

    card = "" if chosen.dry_run else card_on_hub(chosen.repository, chosen.revision, public=chosen.public)
    with tempfile.TemporaryDirectory() as temporary:
        aside = Path(temporary) / "run"
        folder = chosen.out or (Path("hub") / chosen.repository.partition("/")[2] if chosen.dry_run else aside)
        package = pack(
            run, chosen.repository, folder,
            weights=chosen.weights, samples=chosen.samples, allowed=chosen.allow, card=card,
        )  # fmt: skip
        if not chosen.json:
            size = sum(package.files.values())
            show(
                *([Pasted(package.card)] if chosen.dry_run else []),
                f"{len(package.files)} files, {size / 1e6:,.1f} MB: {', '.join(package.files)}",
                *(f"left out  {each}" for each in package.left_out),
            )
        if chosen.dry_run:
            if chosen.json:
                print_json({"folder": str(folder), "files": package.files, "left_out": package.left_out})
            else:
                show(f"nothing was uploaded; everything is in {folder}")
            package.refuse_private()
            return 0
        pushed = upload(
            package, chosen.repository, public=chosen.public, revision=chosen.revision, message=chosen.message
        )
    if chosen.json:
        print_json({**asdict(pushed), "files": package.files, "left_out": package.left_out})
    else:
        seen = "public" if pushed.public else "private"
        show(f"{pushed.url} ({seen}) is at commit {pushed.commit}", f"use it: hf://{chosen.repository}@{pushed.commit}")
    return 0
