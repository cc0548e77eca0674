"""One thread in which the networks of a device predict, several waiting images of one size at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from segreg.data.images import ImageBytes
from segreg.inference.predictor import InputImage, PredictedRows, Predictor, predict, prepare_image
from segreg.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

Values = Literal["labels", "probabilities", "levels"]
LOG = logging.getLogger("segreg.serve")


@dataclass(frozen=True)
class Prediction:
    """What a job comes to.

    Attributes:
        values: labels, probabilities or levels, see `collect`.
        waited: seconds until the network had time.
        computed: seconds that it took, for all images that were predicted together.
    """

    values: NDArray[Any]
    waited: float
    computed: float


@dataclass(frozen=True, eq=False)
class Job:
    """An image to predict; whoever waits for `done` no longer cancels it.

    Attributes:
        predictor: the network.
        image: as it takes it.
        threshold: probability from which a pixel is foreground; None: the network's own.
        values: what is collected of the prediction.
        layer: of which class probabilities are collected; None: of all.
    """

    predictor: Predictor
    image: InputImage
    threshold: float | None = None
    values: Values = "labels"
    layer: int | None = None
    done: Future[Prediction] = field(default_factory=Future)
    asked: float = field(default_factory=perf_counter)

    def goes_with(self, other: Job) -> bool:
        """Whether both can be predicted at once."""
        one, two = ((id(job.predictor), job.threshold, job.image.size) for job in (self, other))
        return one == two


class Worker:
    """The thread, and what it has done.

    Attributes:
        not_ready: why it can't be relied on yet; empty as soon as each network has made a trial prediction.
        batches: how often a network has computed.
        images: how many images it has computed.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        """Prepare the thread; the networks' `config.batch_size` images are predicted at once."""
        self.not_ready = "the networks have made no trial prediction yet"
        self.batches = self.images = 0
        self._predictors = predictors
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._waiting: list[Job] = []
        self._thread = Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin with the trial predictions."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn."""
        self._jobs.put(job)

    @property
    def waiting(self) -> int:
        """Return how many jobs wait for their turn."""
        return self._jobs.qsize() + len(self._waiting)

    def stop(self) -> None:
        """End the thread after the images that are being predicted."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            for predictor in self._predictors:
                list(predict([predictor], [_trial(predictor)]))
            self.not_ready = ""
        except Exception:
            LOG.exception("the trial prediction failed")
            self.not_ready = "the trial prediction failed; the server's log has the reason"
        while True:
            while not self._waiting or not self._jobs.empty():
                job = self._jobs.get()
                if job is None:
                    return
                self._waiting.append(job)
            first = self._waiting[0]
            together = [job for job in self._waiting if job.goes_with(first)][: first.predictor.config.batch_size]
            self._waiting = [job for job in self._waiting if job not in together]
            self._predict([job for job in together if job.done.set_running_or_notify_cancel()])

    def _predict(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        began, first = perf_counter(), jobs[0]
        self.batches += 1
        try:
            found = predict([first.predictor], [job.image for job in jobs], threshold=first.threshold)
            for job, (image, strips) in zip(jobs, found, strict=True):
                values = collect(first.predictor.task, image.size, strips, job.values, job.layer)
                self.images += 1
                job.done.set_result(Prediction(values, began - job.asked, perf_counter() - began))
        except Exception as error:
            # Together they may be too large for the device's memory.
            failed = [job for job in jobs if not job.done.done()]
            for job in failed:
                if len(jobs) > 1:
                    self._predict([job])
                else:
                    job.done.set_exception(error)


def _trial(predictor: Predictor) -> InputImage:
    """Return a black image as the network takes it."""
    import numpy as np

    dtype = np.dtype(predictor.input.complete().dtype)
    pixels = np.zeros((*predictor.input.size, predictor.input.channels), dtype)
    return prepare_image([predictor], pixels, ImageBytes("the trial image", b""))


def collect(
    task: Task, size: tuple[int, int], strips: Iterable[PredictedRows], values: Values, layer: int | None = None
) -> NDArray[Any]:
    """Return an image's whole prediction.

    * `labels`: uint8 `[H, W]`, or 0/1 `[K, H, W]` if multilabel.
    * `probabilities`: float16 `[K, H, W]` in [0, 1].
    * `levels`: probabilities as uint8 `[K, H, W]`, of which exactly those from `threshold_level` on are foreground.

    Args:
        task: the classes.
        size: height and width.
        strips: the prediction.
        values: what is collected.
        layer: the class whose probabilities or levels are collected, K being 1 then; None: all.
    """
    import numpy as np

    several = values != "labels" or task.mode == "multilabel"
    classes = slice(None) if layer is None or values == "labels" else slice(layer, layer + 1)
    shape = (len(range(task.channels)[classes]), *size) if several else size
    found = np.empty(shape, np.float16 if values == "probabilities" else np.uint8)
    for strip in strips:
        if values == "labels":
            found[..., strip.rows, :] = strip.labels
        elif values == "probabilities":
            found[:, strip.rows] = strip.probabilities[classes]
        else:
            levels = (strip.probabilities * np.float32(254)).astype(np.uint8)
            found[:, strip.rows] = (levels + strip.labels.reshape(levels.shape))[classes]
    return found


def threshold_level(threshold: float) -> int:
    """Return the least of the `levels` of a pixel whose probability is at least the threshold, 1 to 255."""
    import numpy as np

    return int(np.float32(254) * np.float32(threshold)) + 1
