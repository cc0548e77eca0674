"""A bundle: an exported network in a folder or a zip file that predicts without segreg and PyTorch."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from pathlib import Path
from typing import NoReturn

from segreg.deployment.proof import Proof
from segreg.errors import SegregError, plural
from segreg.inference.predictor import InferenceConfig
from segreg.runs.directory import folder_aside, replacing_folder
from segreg.runs.export_run import ExportRequest, export_run
from segreg.runs.exported_run import ExportedRun
from segreg.runs.sidecar import SIDECAR
from segreg.runs.trained_run import Run
from segreg.runtime.files import cannot_write, replacing, write_json
from segreg.runtime.hub import refuse_to_write
from segreg.runtime.output import as_folder_names
from segreg.runtime.progress import Progress

HERE = Path(__file__).parent
_MASKS = {
    "binary": "0, and 255 for {0}",
    "multiclass": "class numbers, from 0 for {0}",
    "multilabel": "0 and 255, in a folder for each class",
}
_READ = {("uint8", 1), ("uint8", 3), ("uint8", 4), ("uint16", 1)}
"""Types and channels of images that Pillow reads whole."""


def write_bundle(run: Run, request: ExportRequest, progress: Progress) -> tuple[Path, ExportedRun, Proof]:
    """Export a run as a bundle, and return it with the export and the proof.

    Args:
        run: what to export.
        request: names the folder, or the zip file; the format is ONNX whatever it says.
        progress: reports how far it is.

    Raises:
        SegregError: as for `export_run`; or the images are more than Pillow and numpy read and prepare.
    """
    _check(run, request)
    out = request.out or run.directory.path / "exports" / "bundle"
    refuse_to_write(out, "--out")
    # The current folder can't be replaced by another one.
    if out.name in ("", "..") or (out.exists() and not _is_bundle(out)):
        raise SegregError(f"{out} is there already, and is not a bundle", hint="name another with --out")
    try:
        with folder_aside(out.parent) as aside:
            onnx = dataclasses.replace(request, format="onnx", out=aside / "whole")
            exported, proof = export_run(run, onnx, progress)
            if run.input.resize == "crop" and exported.sidecar["network"]["input"]["shape"][2] is not None:
                _refuse("its network takes images of one size, and its program predicts whole ones")
            if out.suffix == ".zip":
                (folder := aside / "bundle" / out.stem).mkdir(parents=True)
                _fill(folder, exported)
                with replacing(out) as zipped, zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
                    for file in sorted(folder.iterdir()):
                        archive.write(file, f"{folder.name}/{file.name}")
            else:
                with replacing_folder(out) as folder:
                    _fill(folder, exported)
    except OSError as error:
        raise cannot_write(error, out) from None
    return out, exported, proof


def _fill(folder: Path, exported: ExportedRun) -> None:
    """Write a bundle's files into its folder, whose name it has."""
    for file in exported.directory.path.glob("network.*"):
        shutil.copyfile(file, folder / file.name)
    write_json(folder / SIDECAR, {**exported.sidecar, "folders": as_folder_names(exported.task.classes)})
    shutil.copyfile(HERE / "bundle_predict.py.txt", folder / "predict.py")
    (folder / "README.md").write_text(_readme(folder.name, exported), encoding="utf-8")


def _is_bundle(out: Path) -> bool:
    """Whether a folder or zip file holds a bundle, which a new one may replace."""
    if out.suffix != ".zip":
        return (out / "predict.py").is_file()
    try:
        with zipfile.ZipFile(out) as archive:
            return any(name.endswith("/predict.py") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _check(run: Run, request: ExportRequest) -> None:
    """Refuse what the bundle's program would do otherwise than segreg.

    Raises:
        SegregError: it names the setting.
    """
    section, config = run.input.complete(), InferenceConfig.of(run.network.evaluate, run.input)
    problem = ""
    if (section.dtype, section.channels) not in _READ:
        problem = f"images of {plural(section.channels, 'channel')} of {section.dtype} can't be read by Pillow"
    elif section.clip is not None or section.nodata is not None or section.sixteen_bit == "min_max":
        problem = "input.clip, input.nodata and input.sixteen_bit: min_max are not in its program"
    elif config.averages or isinstance(config.tile, tuple):
        problem = "evaluate.scales, evaluate.flips and a size as evaluate.tile are not in its program"
    elif request.labels or request.tile or request.precision not in ("float32", "float16"):
        problem = "its program makes labels of whole images itself, of logits in float32 or float16"
    if problem:
        _refuse(problem)


def _refuse(problem: str) -> NoReturn:
    raise SegregError(f"this run can't be a bundle: {problem}", hint="--format onnx exports the network alone")


def _readme(name: str, exported: ExportedRun) -> str:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701 - Markdown
    sidecar, task = exported.sidecar, exported.task
    network = sidecar["network"]
    return environment.get_template("bundle_readme.md.j2").render(
        name=name, file=network["file"], dtype=network["input"]["dtype"],
        shape=exported.input_shape,
        masks=_MASKS[task.mode].format(task.classes[0]), scores=sidecar["scores"],
        notices=list(filter(None, [sidecar["provenance"]["notice"]])),
    )  # fmt: skip
