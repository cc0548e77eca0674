"""TensorBoard: a run's scalars, recipe, results and overlays as event files in the run's folder `tensorboard`.

Events are appended and flushed at once, by TensorBoard's own record writer: a run that is killed keeps all that it
logged, and nothing stays open where a run ends without saying so. `tensorboard --logdir runs` shows every run.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segreg.errors import SegregError
from segreg_plugins.trackers.flat import final_metrics, flat, format_plain

FOLDER = "tensorboard"
"""The folder in a run's directory."""
MOST_IMAGES = 8


def start(run: Path, recipe: Mapping[str, Any]) -> None:
    """Begin an event file; a run that continues gets another one beside the first.

    Raises:
        SegregError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise SegregError("TensorBoard is not installed", hint='pip install "segreg-toolkit[tensorboard]"')
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    number = len(list(folder.glob("events.out.tfevents.*")))
    name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{number}"
    (folder / name).touch()
    rows = "".join(f"    {name}: {format_plain(value)}\n" for name, value in flat(recipe).items())
    _append(run, [{"file_version": "brain.Event:2"}, {"summary": _summary().text("recipe", rows), "step": 0}])


def epoch(run: Path, number: int, values: Mapping[str, float]) -> None:
    """Add an epoch's row. `val.dice.pooled` becomes `val/dice.pooled`: what stands before a slash is a group."""
    if not _begun(run):
        return
    from tensorboard.compat.proto.event_pb2 import SessionLog

    # What an earlier process wrote of this epoch and later ones, before it was killed, is void.
    events: list[dict[str, Any]] = [{"session_log": SessionLog(status=SessionLog.START), "step": number}]
    events += [
        {"summary": _summary().scalar(name.replace(".", "/", 1), value), "step": number}
        for name, value in values.items()
        if name != "epoch" and isinstance(value, (int, float))
    ]
    _append(run, events)


def end(run: Path, results: Mapping[str, Any]) -> None:
    """Add the results, the table of settings beside them, and the first overlays."""
    if not _begun(run):
        return
    step = int(results.get("epochs") or 0)
    metrics = {f"final/{name}": value for name, value in final_metrics(results).items()}
    events = [{"summary": _summary().scalar(name, value), "step": step} for name, value in metrics.items()]
    events += [{"summary": part, "step": step} for part in _summary().hparams(_settings(run), metrics)]
    events += [
        {"summary": _image(file), "step": step} for file in sorted((run / "overlays").glob("*.png"))[:MOST_IMAGES]
    ]
    _append(run, events)


def _begun(run: Path) -> bool:
    return find_spec("tensorboard") is not None and any((run / FOLDER).glob("events.out.tfevents.*"))


def _append(run: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """Add events to the newest event file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    newest = max((run / FOLDER).glob("events.out.tfevents.*"), key=lambda file: (file.stat().st_mtime_ns, file.name))
    with newest.open("ab") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(Event(wall_time=time.time(), **event).SerializeToString())
        writer.flush()


def _settings(run: Path) -> dict[str, Any]:
    """Return the recipe's values by which runs can be compared."""
    import yaml

    recipe = flat(yaml.safe_load((run / "resolved.yaml").read_text(encoding="utf-8")))
    return {
        name: value if isinstance(value, (bool, int, float)) else format_plain(value) for name, value in recipe.items()
    }


def _summary() -> Any:
    """Return PyTorch's makers of TensorBoard's summaries, which have no types."""
    from torch.utils.tensorboard import summary

    return summary


def _image(file: Path) -> Any:
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(file) as input_image:
        width, height = input_image.size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.read_bytes())
    return Summary(value=[Summary.Value(tag=f"overlays/{file.stem}", image=image)])
