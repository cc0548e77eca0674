"""The dataset `synthetic_lesions`: drawn images of skin lesions, written once in the layout of ISIC 2018."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from segreg.errors import SegregError
from segreg.registry.protocols import Dataset
from segreg.runtime.files import expanded
from segreg.settings import NonNegativeInt
from segreg_plugins.datasets.challenge import MASK_SUFFIX, challenge_dataset, input_folder, truth_folder

VERSION = 1
"""Raised whenever the drawing changes, so that sets of an older one are not taken for it."""


def synthetic_lesions(
    *,
    root: Path = Path("data/synthetic_lesions"),
    samples: Annotated[int, Interval(ge=1, le=1_000_000)] = 160,
    size: Annotated[int, Interval(ge=32, le=2048)] = 256,
    seed: NonNegativeInt = 0,
) -> Dataset:
    """Drawn skin lesions with exact masks, written once in the layout of ISIC 2018.

    They are for trying things out on a machine without data. Each set of settings has its own folder in `root`.

    Args:
        root: folder for the sets; made where it is missing.
        samples: number of images. A larger set begins with the images of a smaller one.
        size: height and width of the images in pixels.
        seed: seed of the drawing; the same seed gives the same files.

    Raises:
        SegregError: the folder can't be written to, or a set in it is no longer complete.
    """
    drawn = drawn_set(expanded(root), samples=samples, size=size, seed=seed)
    notice = (
        f"SYNTHETIC IMAGES: {samples} drawn skin lesions ({drawn}), not photographs. "
        "Scores on them say nothing about real lesions."
    )
    return challenge_dataset(drawn, ("training",), notice=notice)


def drawn_set(
    root: Path, *, samples: int, size: int, seed: int, hint: str = "set dataset.root to a folder that can"
) -> Path:
    """Return the folder of a set that is complete, drawing it first where it is not there yet.

    It is drawn aside and then renamed, so that it is whole or absent, also where two processes draw it at once. `hint`
    says what to do where `root` can't be written to.

    Raises:
        SegregError: the folder can't be written to, or the set in it is no longer complete.
    """
    settings: dict[str, str | int] = {
        "drawn_by": "segreg synthetic_lesions",
        "version": VERSION,
        "samples": samples,
        "size": size,
        "seed": seed,
    }
    final = root / f"v{VERSION}-{samples}x{size}-seed{seed}"
    if final.is_dir():
        _check_complete(final, settings)
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".drawing-", dir=root))
    except OSError as error:
        raise SegregError(
            f"{root}: can't be written to ({error.strerror}), and the synthetic images are to be drawn there",
            hint=hint,
        ) from None
    try:
        aside.chmod(0o755)  # mkdtemp's folders are for their maker alone
        _draw_all(aside, samples=samples, size=size, seed=seed)
        (aside / "set.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        try:
            aside.rename(final)
        except OSError:
            if not final.is_dir():
                raise
            _check_complete(final, settings)  # another process was quicker
    except OSError as error:
        raise SegregError(f"{aside}: the synthetic images can't be written ({error.strerror})") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final


def _draw_all(folder: Path, *, samples: int, size: int, seed: int) -> None:
    from PIL import Image

    from segreg_plugins.datasets.drawing import draw

    images, masks = folder / input_folder("training"), folder / truth_folder("training")
    images.mkdir()
    masks.mkdir()
    start = printed = time.monotonic()
    for index in range(samples):
        image, mask = draw(seed, index, size)
        Image.fromarray(image).save(images / f"ISIC_{index:07d}.jpg", quality=92)
        Image.fromarray(mask).save(masks / f"ISIC_{index:07d}{MASK_SUFFIX}.png")
        now = time.monotonic()
        if now - start > 2 and now - printed > 2:
            printed = now
            sys.stderr.write(f"drawing synthetic images: {index + 1} of {samples}\n")


def _check_complete(folder: Path, settings: dict[str, str | int]) -> None:
    try:
        found = json.loads((folder / "set.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    folders = (folder / input_folder("training"), folder / truth_folder("training"))
    counts = [sum(1 for _ in inside.glob("ISIC_*")) for inside in folders]
    if found != settings or counts != [settings["samples"]] * 2:
        raise SegregError(
            f"{folder}: is not the complete set that was drawn there ({counts[0]} images and {counts[1]} masks of "
            f"{settings['samples']})",
            hint="delete that folder; it will be drawn again",
        )
