"""An exported network's folder, which is used as the run that it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from segreg.config.resolve import choose, read_section
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg.runs.directory import RunDirectory
from segreg.runs.environment import weights_notice
from segreg.runs.records import read_evaluation, read_split
from segreg.runs.sidecar import SIDECAR, read_sidecar
from segreg.runs.trained_run import Run, Weights
from segreg.task import Task

if TYPE_CHECKING:
    from torch import nn

    from segreg.config.sections import Input
    from segreg.deployment.network import ExportedNetwork
    from segreg.inference.predictor import Predictor
    from segreg.models.segmenter import Segmenter
    from segreg.registry.protocols import Exporter
    from segreg.runtime.device import PrecisionName


_PRECISIONS = {"fp16": "float16"}
"""What exporters call the precisions of recipes, where that is something else."""


def exported_run(directory: RunDirectory) -> ExportedRun:
    """Return the exported network in a folder; its scores are those of its evaluation on the split that the run has."""
    run, split = ExportedRun(directory), "val"
    of_test = run.sidecar["evaluate"].get("split") != "val"
    if of_test and directory.split.is_file() and read_split(directory.split).get("test"):
        split = "test"
    folder = directory.path / "evaluations" / split
    directory.per_image, directory.counts, directory.sums = (
        folder / file.name for file in (directory.per_image, directory.counts, directory.sums)
    )
    return run


class ExportedRun(Run):
    """A folder with an exported network. Its recipe and split are those of the run, its predictions the file's."""

    @cached_property
    def sidecar(self) -> Mapping[str, Any]:
        """Return what is noted of the network."""
        return read_sidecar(self.directory.path / SIDECAR)

    @property
    def made_as(self) -> str:
        """Return format and precision, such as "onnx float32, labels"."""
        network = self.sidecar["network"]
        labels = ", labels" if network["output"]["values"] == "labels" else ""
        return f"{network['format']} {network['precision']}{labels}"

    @property
    def input_shape(self) -> str:
        """Return the shape of the images that the network takes, such as "[B, 3, 256, 256]"."""
        sides = zip(self.sidecar["network"]["input"]["shape"], "BCHW", strict=True)
        return f"[{', '.join(letter if side is None else str(side) for side, letter in sides)}]"

    @cached_property
    def task(self) -> Task:
        """Return the classes."""
        return Task(tuple(self.sidecar["classes"]), self.sidecar["mode"])

    @cached_property
    def results(self) -> Mapping[str, Any]:
        """Return its scores, as `segreg evaluate` wrote them, with what else the results of a run hold.

        Raises:
            SegregError: it has not been evaluated.
        """
        folder = self.directory.per_image.parent
        if not (folder / "metrics.json").is_file():
            path = self.directory.path
            raise SegregError(f"{path} has no scores yet", hint=f"segreg evaluate {path} --split {folder.name}")
        found = read_evaluation(folder / "metrics.json")
        return {
            **found, "seed": self.recipe.seed, "epochs": 0, "best_epoch": 0, "stopped_because": "exported",
            "weights": weights_notice(self.environment.get("model", {})),  # an evaluation says of which epoch
        }  # fmt: skip

    @property
    def history(self) -> list[dict[str, float]]:
        """Return no row: it is not trained."""
        return []

    @property
    def notice(self) -> str:
        """Return what must not be overlooked of the data that it was trained on."""
        return str(self.sidecar["provenance"].get("notice", ""))

    @property
    def normalize(self) -> nn.Module:
        """Return nothing to do: the exported network normalises images itself."""
        from torch import nn

        return nn.Identity()

    @cached_property
    def input(self) -> Input:
        """Return how an image is prepared."""
        section: Input = read_section("input", self.sidecar["input"], str(self.directory.path / SIDECAR))
        return section

    def weights_file(self, weights: Weights = "best") -> Path:
        """Return the network's file.

        Raises:
            SegregError: it is missing, or the last epoch's weights are asked for and it has those of the best one.
        """
        if weights != "best" and self.sidecar["provenance"].get("weights") != weights:
            self._refuse(f"has the best epoch's weights, not the {weights} one's")
        file = self.directory.path / self.sidecar["network"]["file"]
        if not file.is_file() or file.parent != self.directory.path:
            raise SegregError(f"{file}: is missing", hint="segreg export writes it again")
        return file

    def model(self, weights: Weights = "best") -> Segmenter:  # noqa: ARG002
        """Refuse: what is exported is not a module of PyTorch.

        Raises:
            SegregError: always.
        """
        self._refuse("has no module of PyTorch; predict(), probabilities() and predictor() use it")

    def exported(self) -> ExportedNetwork:
        """Return the file's network, loaded.

        Raises:
            SegregError: the exporter is not installed any more, or the file can't be read.
        """
        from segreg.deployment.network import ExportedNetwork

        network = self.sidecar["network"]
        exporter: Exporter = choose("exporter", network["format"], network.get("settings", {}), load_registry()).build()
        run = exporter.load(self.weights_file(), precision=network["precision"])
        return ExportedNetwork(run, network, self.task, pads=self.input.resize == "crop")

    def predictor(
        self,
        weights: Weights = "best",
        *,
        device: str = "cpu",
        precision: PrecisionName | Literal["recipe"] = "recipe",
    ) -> Predictor:
        """Return the exported network with all that a prediction needs, loaded once.

        Args:
            weights: "best" are those that it was exported with.
            device: "cpu" or "auto": exported networks compute on the CPU.
            precision: "recipe" and "auto" are the file's.

        Raises:
            SegregError: another device, precision or epoch was asked for, or the file can't be read.
        """
        import torch

        from segreg.inference.predictor import InferenceConfig, Predictor
        from segreg.runtime.device import choose_precision

        made_in = self.sidecar["network"]["precision"]
        if device not in ("cpu", "auto"):
            self._refuse(f'computes on the CPU, not on "{device}"')
        if precision not in ("recipe", "auto") and _PRECISIONS.get(precision, precision) != made_in:
            self._refuse(f"computes in {made_in}, not in {precision}")
        exported = self.weights_file(weights)
        if predictor := self._predictors.get(("best", "cpu", "float32")):
            return predictor
        place, file = torch.device("cpu"), str(self.directory.path / SIDECAR)
        evaluate = read_section("evaluate", self.sidecar["evaluate"], file)
        computing = choose_precision("float32", place)
        bands = self.sidecar["provenance"].get("bands")
        predictor = self._predictors["best", "cpu", "float32"] = Predictor(
            name=f"{self.directory.path} ({self.made_as})",
            model=self.exported(),
            normalize=self.normalize,
            input=self.input,
            task=self.task,
            threshold=evaluate.threshold,
            device=place,
            precision=dataclasses.replace(computing, name=made_in, reason=self.made_as, exact=True),
            config=InferenceConfig.of(evaluate, self.input),
            bands=tuple(bands) if bands else None,
            weights=exported,
        )
        return predictor

    def _refuse(self, what: str) -> NoReturn:
        raise SegregError(
            f"{self.directory.path} is an exported network ({self.made_as}), which {what}",
            hint="name the run that it was exported from",
        )
