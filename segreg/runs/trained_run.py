"""A run that exists, for those who use what it trained: its results, its network, its preprocessing, predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import SegregError
from segreg.registry.compatibility import DISTRIBUTION
from segreg.runs.directory import RunDirectory, open_run_directory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from segreg.config.resolve import Resolved
    from segreg.inference.predictor import InferenceConfig, Predictor
    from segreg.models.segmenter import Normalize, Segmenter
    from segreg.registry.protocols import Dataset
    from segreg.runtime.device import PrecisionName
    from segreg.task import Task

RECIPE, TASK, NORMALIZE = "recipe", "task", "normalize"
"""Notes in a weights file by which it explains itself without its run directory."""


def notes_for_weights(recipe: Resolved, dataset: Dataset, normalize: nn.Module) -> dict[str, str]:
    """Return what a weights file says of the network: recipe, classes and statistics of normalisation."""
    from importlib.metadata import version

    statistics = {"mean": normalize.mean.flatten().tolist(), "std": normalize.std.flatten().tolist()}  # type: ignore[operator]
    return {
        RECIPE: recipe.yaml(),
        TASK: json.dumps(asdict(dataset.task)),
        NORMALIZE: json.dumps(statistics),
        "notice": dataset.notice,
        "segreg": version(DISTRIBUTION),
    }


@dataclass(frozen=True)
class Run:
    """A run's directory and what can be had from it.

    Attributes:
        directory: where its files are.
    """

    directory: RunDirectory

    @cached_property
    def results(self) -> Mapping[str, Any]:
        """Return `results.json`: final metrics with their definitions.

        Raises:
            SegregError: the run has not come to its end.
        """
        if not self.directory.results.is_file():
            hint = f"segreg run --resume {self.directory.path} continues with it"
            raise SegregError(f"{self.directory.path} has no results yet", hint=hint)
        results: dict[str, Any] = json.loads(self.directory.results.read_text(encoding="utf-8"))
        return results

    @property
    def history(self) -> list[dict[str, float]]:
        """Return a row for each finished epoch."""
        from segreg.training import history

        return history.read(self.directory.path)

    @cached_property
    def recipe(self) -> Resolved:
        """Return the run's complete recipe."""
        from segreg.config.recipe import read_recipe
        from segreg.config.resolve import resolve
        from segreg.registry.registry import load_registry

        return resolve(read_recipe(self.directory.resolved), load_registry())

    def model(self, weights: Literal["best", "last"] = "best") -> Segmenter:
        """Return the trained network, in evaluation mode on the CPU. Nothing is downloaded.

        Where no epoch was the best, because the monitored value was never defined, the last one's weights are taken.

        Shape: `preprocess`ed images `[B, C, H, W]` to logits `[B, K, H, W]`.

        Raises:
            SegregError: there are no such weights yet, or they don't fit the installed plugins' network.
        """
        from segreg.models.build import build_model, without_pretrained
        from segreg.training.checkpoint import load_weights

        file = self.directory.best if weights == "best" and self.directory.best.exists() else self.directory.last
        if not file.is_file():
            hint = f"segreg run --resume {self.directory.path} continues with it"
            raise SegregError(f"{self.directory.path} has no {weights} weights yet", hint=hint)
        model = build_model(without_pretrained(self.recipe), self.task)
        load_weights(model, file)
        return model.eval()

    @cached_property
    def task(self) -> Task:
        """Return the classes."""
        from segreg.task import Task

        stored = json.loads(self._notes[TASK])
        return Task(tuple(stored["classes"]), stored["mode"])

    @property
    def notice(self) -> str:
        """Return what must not be overlooked of the data that it was trained on, such as that it was synthetic."""
        return self._notes.get("notice", "")

    def preprocess(self, image: NDArray[Any] | Path | str) -> Tensor:
        """Return an image as the network takes it: resized and normalised.

        Shape: uint8 or uint16 `[H, W]` or `[H, W, C]`, or a file, to float32 `[1, C, h, w]`.

        Raises:
            SegregError: the file can't be read, or its channels don't fit.
        """
        import numpy as np
        import torch

        from segreg.data import fit_image
        from segreg.data.images import fit_channels, to_uint8

        pixels, name = _read(image)
        section = self.recipe.input
        fitted = fit_image(to_uint8(fit_channels(pixels, section.channels, name), section.sixteen_bit, name), section)
        # A copy where it is needed: torch warns of arrays that can't be written to, and refuses negative strides.
        own = torch.from_numpy(np.require(fitted, requirements=["C", "W"]))
        normalized: Tensor = self._normalize()(own.permute(2, 0, 1)[None])
        return normalized

    def predict(
        self,
        image: NDArray[Any] | Path | str,
        *,
        weights: Literal["best", "last"] = "best",
        threshold: float | None = None,
        config: InferenceConfig | None = None,
    ) -> NDArray[np.uint8]:
        """Return predicted labels at the image's own size.

        Shape: uint8 or uint16 `[H, W]` or `[H, W, C]`, or a file, to uint8 labels `[H, W]` (binary 0/1, multiclass
        0..K-1), or 0/1 `[K, H, W]` if multilabel.

        Args:
            image: what to predict.
            weights: those of the best epoch or of the last one.
            threshold: probability from which a pixel is foreground; None: the recipe's.
            config: tiles and averaged views; None: the whole image as it is.

        Raises:
            SegregError: the file can't be read, its channels don't fit, or there are no weights.
        """
        from segreg.inference.predictor import WHOLE_IMAGE, predict_labels, prepare_image

        predictors = [self.predictor(weights)]
        input_image = prepare_image(predictors, *_read(image), config or WHOLE_IMAGE)
        return predict_labels(predictors, input_image, config or WHOLE_IMAGE, threshold=threshold)

    def probabilities(
        self,
        image: NDArray[Any] | Path | str,
        *,
        weights: Literal["best", "last"] = "best",
        config: InferenceConfig | None = None,
    ) -> NDArray[np.float32]:
        """Return probabilities, float32 `[K, H, W]` in [0, 1], at the image's own size.

        Args:
            image: as for `predict`.
            weights: those of the best epoch or of the last one.
            config: as for `predict`.

        Raises:
            SegregError: the file can't be read, its channels don't fit, or there are no weights.
        """
        from segreg.inference.predictor import WHOLE_IMAGE, predict_probabilities, prepare_image

        predictors = [self.predictor(weights)]
        input_image = prepare_image(predictors, *_read(image), config or WHOLE_IMAGE)
        return predict_probabilities(predictors, input_image, config or WHOLE_IMAGE)

    def predictor(
        self,
        weights: Literal["best", "last"] = "best",
        *,
        device: str = "cpu",
        precision: PrecisionName | Literal["recipe"] = "float32",
    ) -> Predictor:
        """Return the trained network with all that a prediction needs, loaded once. Nothing is downloaded.

        Args:
            weights: those of the best epoch or of the last one.
            device: where it computes; "auto" takes the GPU where there is one.
            precision: what it computes in; "recipe" is what scoring computes in, where the device has it.

        Raises:
            SegregError: there are no such weights yet, they don't fit the installed plugins' network, or there is no
                such device.
        """
        import torch

        from segreg.inference.predictor import Predictor
        from segreg.runtime.device import choose_device, choose_precision, prepare_device

        if predictor := self._predictors.get((weights, device, precision)):
            return predictor
        place, name = choose_device(device), precision
        prepare_device(place)
        if name == "recipe":
            # A run with fp16 on its GPU predicts on a CPU too.
            name = self.recipe.train.precision
            name = "auto" if name == "fp16" and place.type != "cuda" else name
        model = self.model(weights).to(place)
        if self.recipe.train.channels_last:
            model = model.to(memory_format=torch.channels_last)
        predictor = self._predictors[weights, device, precision] = Predictor(
            name=str(self.directory.path) + (" (last weights)" if weights == "last" else ""),
            model=model,
            normalize=self._normalize().to(place),
            input=self.recipe.input,
            task=self.task,
            threshold=self.recipe.evaluate.threshold,
            device=place,
            precision=choose_precision(name, place),
        )
        return predictor

    def _normalize(self) -> Normalize:
        from segreg.models.segmenter import Normalize

        statistics = json.loads(self._notes[NORMALIZE])
        return Normalize(statistics["mean"], statistics["std"])

    @cached_property
    def _predictors(self) -> dict[tuple[str, str, str], Predictor]:
        return {}

    @cached_property
    def _notes(self) -> Mapping[str, str]:
        from segreg.training.checkpoint import read_notes

        return read_notes(self.directory.last)


def load_run(path: Path | str) -> Run:
    """Return a run from its directory.

    Raises:
        SegregError: there is none.
    """
    return Run(open_run_directory(path))


def _read(image: NDArray[Any] | Path | str) -> tuple[NDArray[Any], Path]:
    """Return an image's pixels and what to call it in messages."""
    import numpy as np

    from segreg.data.images import read_image

    if isinstance(image, (str, Path)):
        return read_image(Path(image)), Path(image)
    pixels = np.asarray(image)
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise SegregError(
            f"the image has shape {list(pixels.shape)} and type {pixels.dtype}; "
            "it must be uint8 or uint16, [H, W] or [H, W, C]"
        )
    return pixels, Path("the image")
