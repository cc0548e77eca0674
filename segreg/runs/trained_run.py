"""A run that exists, for those who use what it trained: its results, its network, its preprocessing, predictions."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from segreg.errors import SegregError, plural
from segreg.runs.directory import RunDirectory
from segreg.runs.records import read_environment, read_results, trained_since
from segreg.runtime.files import cannot_read
from segreg.task import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from segreg.config.recipe import Recipe
    from segreg.config.resolve import InferenceRecipe, Resolved
    from segreg.config.sections import Input
    from segreg.inference.predictor import InferenceConfig, InputImage, Predictor
    from segreg.models.segmenter import Normalize, Segmenter
    from segreg.runtime.device import PrecisionName

Weights = Literal["best", "last"]


@dataclass(frozen=True)
class Run:
    """A run's directory and what is read from it.

    Attributes:
        directory: where its files are.
        overrides: `key.path=value` in which `recipe` differs from the one it was trained with.
    """

    directory: RunDirectory
    overrides: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Run {self.directory}: {self._state()}>"

    def _state(self) -> str:
        """Return how far it got, in short."""
        try:
            results = self.results
        except SegregError:
            return "no results yet; segreg.resume(run) continues"
        if results["stopped_because"] == "interrupted":
            return f"interrupted after {plural(results['epochs'], 'epoch')}; segreg.resume(run) continues"
        return f"{plural(results['epochs'], 'epoch')}, {results['stopped_because']}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: how far it got, its scores, and an image with its prediction."""
        parts = [f"<p><b>{escape(str(self.directory.path))}</b>: {escape(self._state())}</p>"]
        with contextlib.suppress(SegregError):
            split = self.results["scored_on"]
            found = self.results.get("intervals", {}).get(split, {})
            ends = {name: f"{each[0]:.4f} to {each[1]:.4f}" for name, each in found.items() if None not in each}
            rows = [
                f"<tr><td>{escape(name)}</td><td>{'-' if value is None else f'{value:.4f}'}</td>"
                f"<td>{ends.get(name, '')}</td></tr>"
                for name, value in self.results["metrics"].get(split, {}).items()
            ]
            heads = f"<tr><th>{escape(str(split))}</th><th></th><th>95% interval</th></tr>"
            parts.append(f"<table>{heads}{''.join(rows)}</table>")
        for file in sorted(self.directory.overlays.glob("*.png"))[:1]:
            with contextlib.suppress(OSError):
                data = base64.b64encode(file.read_bytes()).decode()
                parts.append(
                    f'<img alt="{escape(file.stem)}" style="max-width:640px" src="data:image/png;base64,{data}">'
                )
        return "\n".join(parts)

    @cached_property
    def results(self) -> Mapping[str, Any]:
        """Return `results.json`: final metrics with their definitions.

        Raises:
            SegregError: the run has not come to its end, or the file is damaged.
        """
        hint = f"segreg run --resume {self.directory.path} continues with it"
        if not self.directory.results.is_file():
            raise SegregError(f"{self.directory.path} has no results yet", hint=hint)
        results = read_results(self.directory.results)
        if trained_since(results, history := self.history):
            raise SegregError(
                f"{self.directory.path} has no results of its {len(history)} epochs: those that are there are of "
                f"{plural(results['epochs'], 'epoch')}",
                hint=hint,
            )
        return results

    @property
    def history(self) -> list[dict[str, float]]:
        """Return a row for each finished epoch."""
        from segreg.training import history

        return history.read(self.directory.path)

    @cached_property
    def written(self) -> Recipe:
        """Return the run's complete recipe as it is written, none of its parts looked up."""
        from segreg.config.recipe import read_recipe

        return read_recipe(self.directory.resolved, self.overrides)

    @cached_property
    def recipe(self) -> Resolved:
        """Return the run's complete recipe.

        Raises:
            SegregError: a plugin that it names a part of is not installed any more, or has other settings.
        """
        from segreg.config.resolve import resolve_begun
        from segreg.runs.plugin_files import check_recipe

        return check_recipe(self.directory, self.written, resolve_begun)

    @cached_property
    def network(self) -> InferenceRecipe:
        """Return what predicting needs of the recipe; plugins of other parts need not be installed.

        Raises:
            SegregError: the plugin of the encoder or decoder is not installed any more, or has other settings.
        """
        from segreg.config.resolve import resolve_inference
        from segreg.runs.plugin_files import check_recipe

        return check_recipe(self.directory, self.written, resolve_inference)

    def weights_file(self, weights: Weights = "best") -> Path:
        """Return the file of the best epoch's weights, or of the last one's.

        Where no epoch was the best, because the monitored value was never defined, the last one's are the best.

        Raises:
            SegregError: there are no such weights; the message says which ones there are.
        """
        if weights not in get_args(Weights):
            raise SegregError(f'there are no weights "{weights}"', hint='they are "best" or "last"')
        best, last = self.directory.best, self.directory.last
        file, other = (best, last) if weights == "best" else (last, best)
        if file.is_file():
            return file
        if not other.is_file():
            hint = f"segreg run --resume {self.directory.path} continues with it"
            raise SegregError(f"{self.directory.path} has no {weights} weights yet", hint=hint)
        if weights == "last":
            raise SegregError(f"{last}: is missing", hint="--weights best takes the best epoch's")
        epoch = self._best_epoch()
        if epoch is None:
            return last
        raise SegregError(
            f"{best}: is missing" + (f", though {epoch} was the best" if epoch else ""),
            hint='--weights last takes the last epoch\'s (weights="last" in Python)',
        )

    def _best_epoch(self) -> str | None:
        """Return which epoch was the best; "" if no file says so, None if the monitored value was never defined."""
        results: Mapping[str, Any] = {}
        rows: list[dict[str, float]] = []
        with contextlib.suppress(SegregError):
            results = self.results
        with contextlib.suppress(SegregError):
            rows = self.history
        if epoch := results.get("best_epoch"):
            return f"epoch {epoch}"
        monitor = _Notes.read(self.directory.last).values.get("monitor", "")
        values = [row[monitor] for row in rows if monitor in row]
        if not all(map(math.isnan, values)):
            return f"one of {len(values)} epochs"
        return None if values or "best_epoch" in results else ""

    def model(self, weights: Weights = "best") -> Segmenter:
        """Return the trained network, in evaluation mode on the CPU. Nothing is downloaded.

        It has no auxiliary decoder, which only training uses. Where no epoch was the best, because the monitored value
        was never defined, the last one's weights are taken.

        Shape: `preprocess`ed images `[B, C, H, W]` to logits `[B, K, H, W]`.

        Raises:
            SegregError: there are no such weights, or they don't fit the installed plugins' network.
        """
        from segreg.models.build import build_model, without_pretrained
        from segreg.training.checkpoint import SIZE_DIVISOR, load_weights

        file = self.weights_file(weights)
        notes = _Notes.read(file)
        model = build_model(without_pretrained(self.network), notes.task())
        load_weights(model, file, without=("auxiliary.", "auxiliary_head."))
        # Images are padded as they were in training, also where an auxiliary decoder asked for it.
        model.size_divisor = int(notes.values.get(SIZE_DIVISOR, model.size_divisor))
        return model.eval()

    @cached_property
    def task(self) -> Task:
        """Return the classes."""
        return self._notes.task()

    @property
    def normalize(self) -> nn.Module:
        """Return what turns an image's values into what the network takes."""
        return self._notes.normalize()

    @property
    def input(self) -> Input:
        """Return how an image is prepared."""
        return self.network.input

    @property
    def environment(self) -> Mapping[str, Any]:
        """Return what the run ran on, as `environment.json` has it; nothing where that is missing or damaged."""
        with contextlib.suppress(SegregError):
            return read_environment(self.directory.environment)
        return {}

    @property
    def notice(self) -> str:
        """Return what must not be overlooked of the data that it was trained on, such as that it was synthetic."""
        return self._notes.values.get("notice", "")

    def preprocess(self, image: NDArray[Any] | Path | str) -> Tensor:
        """Return an image as the network takes it: normalised, and resized unless it was trained on crops.

        Shape: uint8, uint16 or float32 `[H, W]` or `[H, W, C]`, or a file, to float32 `[1, C, h, w]`.

        Raises:
            SegregError: the file can't be read, or its channels don't fit.
        """
        import numpy as np
        import torch

        from segreg.data import fit_image
        from segreg.data.values import as_network_input, image_statistics, read_values

        pixels, name = read_pixels(image)
        section = self.input.complete()
        if section.resize == "crop":
            section = dataclasses.replace(section, size=(pixels.shape[0], pixels.shape[1]))
        values, invalid = read_values(pixels, section, name)
        statistics = image_statistics(values, invalid) if section.per_image else None
        fitted = as_network_input(fit_image(values, section), section, statistics)
        # A copy: torch warns of arrays that can't be written to, and refuses negative strides.
        own = torch.from_numpy(np.array(fitted, order="C"))
        normalized: Tensor = self.normalize(own.permute(2, 0, 1)[None])
        return normalized

    def predict(
        self,
        image: NDArray[Any] | Path | str,
        *,
        weights: Weights = "best",
        threshold: float | None = None,
        config: InferenceConfig | None = None,
    ) -> NDArray[np.uint8]:
        """Return predicted labels at the image's own size.

        Shape: uint8, uint16 or float32 `[H, W]` or `[H, W, C]`, or a file, to uint8 labels `[H, W]` (binary 0/1,
        multiclass 0..K-1), or 0/1 `[K, H, W]` if multilabel.

        Args:
            image: what to predict.
            weights: those of the best epoch or of the last one.
            threshold: probability from which a pixel is foreground; None: the recipe's.
            config: tiles, scales and flips; None: those of the recipe's section evaluate.

        Raises:
            SegregError: the file can't be read, its channels don't fit, or there are no weights.
        """
        from segreg.inference.predictor import predict_labels

        predictors = [self.predictor(weights)]
        return predict_labels(predictors, input_image(predictors, image, config), config, threshold=threshold)

    def probabilities(
        self,
        image: NDArray[Any] | Path | str,
        *,
        weights: Weights = "best",
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
        from segreg.inference.predictor import predict_probabilities

        predictors = [self.predictor(weights)]
        return predict_probabilities(predictors, input_image(predictors, image, config), config)

    def predictor(
        self,
        weights: Weights = "best",
        *,
        device: str = "cpu",
        precision: PrecisionName | Literal["recipe"] = "float32",
    ) -> Predictor:
        """Return the trained network with all that a prediction needs, loaded once. Nothing is downloaded.

        Args:
            weights: those of the best epoch or of the last one.
            device: where it computes; "auto" takes the GPU where there is one.
            precision: what it computes in; "recipe" is what scoring computes in, where the device has it, and
                "float32" is exact, without the TF32 that a run of float32 has on a GPU.

        Raises:
            SegregError: there are no such weights yet, they don't fit the installed plugins' network, or there is no
                such device.
        """
        import torch

        from segreg.inference.predictor import InferenceConfig, Predictor
        from segreg.runtime.device import choose_device, choose_precision, prepare_device

        if predictor := self._predictors.get((weights, device, precision)):
            return predictor
        place, name, why = choose_device(device), precision, ""
        prepare_device(place)
        if name == "recipe":
            name = self.network.precision
            if name == "auto" and (used := self.environment.get("precision")) in ("float32", "fp16"):
                name, why = used, f"{used}, as the run computed"  # also where `auto` would take bf16
            # A run with fp16 on its GPU predicts on a CPU too.
            name, why = ("auto", "") if name == "fp16" and place.type != "cuda" else (name, why)
        file = self.weights_file(weights)
        notes, model = _Notes.read(file), self.model(weights).to(place)
        if self.network.channels_last:
            model = model.to(memory_format=torch.channels_last)
        which = " (last weights)" if file == self.directory.last else ""
        if which and weights == "best":
            which = " (last weights: no epoch was the best)"
        computing = choose_precision(name, place)
        computing = dataclasses.replace(computing, exact=precision == "float32", reason=why or computing.reason)
        predictor = self._predictors[weights, device, precision] = Predictor(
            name=str(self.directory) + which,
            model=model,
            normalize=notes.normalize().to(place),
            input=self.network.input,
            task=notes.task(),
            threshold=self.network.evaluate.threshold,
            device=place,
            precision=computing,
            config=InferenceConfig.of(self.network.evaluate, self.network.input),
            bands=self._bands,
            weights=file,
        )
        return predictor

    @property
    def _bands(self) -> tuple[int | str, ...] | None:
        """Return the bands that the run's data set reads, where it has a setting for it."""
        dataset = self.written.values.get("dataset")
        bands = dataset.get("bands") if isinstance(dataset, Mapping) else None
        return tuple(bands) if bands else None

    @cached_property
    def _predictors(self) -> dict[tuple[str, str, str], Predictor]:
        return {}

    @cached_property
    def _notes(self) -> _Notes:
        """Return the notes of the best weights, or of the last ones where those are missing or damaged."""
        try:
            notes = _Notes.read(self.directory.best)
            notes.task()
        except SegregError:
            if not self.directory.last.is_file():
                raise
            notes = _Notes.read(self.directory.last)
        return notes


@dataclass(frozen=True)
class _Notes:
    """The notes in a weights file."""

    file: Path
    values: Mapping[str, str]

    @classmethod
    def read(cls, file: Path) -> _Notes:
        from segreg.training.checkpoint import read_notes

        return cls(file, read_notes(file))

    def task(self) -> Task:
        from segreg.training.checkpoint import TASK

        with self._understood():
            stored = json.loads(self.values[TASK])
            return Task(tuple(stored["classes"]), stored["mode"])

    def normalize(self) -> Normalize:
        from segreg.models.segmenter import Normalize
        from segreg.training.checkpoint import NORMALIZE

        with self._understood():
            return Normalize(**json.loads(self.values[NORMALIZE]))

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Report what is not as `notes_for_weights` writes it."""
        try:
            yield
        except (ValueError, LookupError, TypeError) as error:
            what = "a weights file of a run, whose notes say what the network was trained on"
            raise cannot_read(error, self.file, what) from None


def input_image(
    predictors: Sequence[Predictor], image: NDArray[Any] | Path | str, config: InferenceConfig | None
) -> InputImage:
    """Return an image as the networks take it; a georeferenced raster is read as `segreg predict` reads it."""
    from segreg.data.rasters import is_raster
    from segreg.inference.predictor import common_config, prepare_image, takes_any_size
    from segreg.inference.rasters import read_raster

    config = config or common_config(predictors)
    if isinstance(image, (str, Path)) and is_raster(Path(image)):
        return read_raster(predictors, Path(image), config)
    return prepare_image(predictors, *read_pixels(image, in_tiles=takes_any_size(predictors, config)), config)


def read_pixels(image: NDArray[Any] | Path | str, *, in_tiles: bool = False) -> tuple[NDArray[Any], Path]:
    """Return an image's pixels and what to call it in messages; `in_tiles` where it may be very large."""
    from segreg.data.images import read_image
    from segreg.data.python_data import values_of_image

    if isinstance(image, (str, Path)):
        return read_image(Path(image), in_tiles=in_tiles), Path(image)
    pixels = values_of_image(image)
    if pixels.dtype.kind not in "buif" or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise SegregError(
            f"the image has shape {list(pixels.shape)} and type {pixels.dtype}; "
            "it must be uint8, uint16 or float32, [H, W] or [H, W, C]"
        )
    return pixels, Path("the image")
