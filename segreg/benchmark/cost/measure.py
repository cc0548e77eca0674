"""One round of measuring a recipe's network, in this process.

Prediction comes before training, because a process's peak memory only grows. Every place where the CPU waits for the
device has the comment "sync".
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median, quantiles
from time import perf_counter

import torch

from segreg.benchmark.cost.machine import CpuWatch
from segreg.benchmark.cost.network import ExportedModel, Network, count_flops
from segreg.benchmark.cost.record import DEFINITIONS, MemoryNeed, RoundResult
from segreg.config.resolve import Resolved
from segreg.errors import plural
from segreg.runtime.device import MIB, available_mib, peak_rss_mib, prepare_process
from segreg.task import Task

_LEAST_STEPS = 3
_LEAST_LATENCIES = 20  # fewer have no 95th percentile
_WARM_UP_STEPS = 2
_WARM_UP = 0.2
"""Share of a timing's seconds that goes before it: caches fill, kernels are chosen, clocks rise."""


def measure_round(
    recipe: Resolved, task: Task, *, seconds: float, exported: str = "", at: Callable[[str], None] = lambda _: None
) -> RoundResult:
    """Measure a network once.

    The peak RSS is the whole process's. So this needs a process that has done nothing else, and was not started by a
    large one (see `segreg.runtime.device`), such as `segreg.benchmark.cost.running` starts.

    Args:
        recipe: names the network and how it is trained.
        task: the classes.
        seconds: that each of the three timings takes about, besides a warm-up of a fifth of that.
        exported: the folder of an exported network, which is measured instead: its prediction, all that it can do.
        at: called with each stage that begins, such as "in building the network".

    Raises:
        SegregError: the network can't be built, trained or loaded.
    """
    prepare_process()
    imported = peak_rss_mib()
    at("in loading the exported network" if exported else "in building the network")
    network: Network | ExportedModel = ExportedModel.of(exported, recipe) if exported else Network.of(recipe, task)
    watch = CpuWatch()
    values: dict[str, float] = {}
    if imported is not None and network.device.type == "cpu":
        values["process_memory_rss_mib"] = imported
    at(f"in predicting {_batches(recipe, len(network.images))}")
    values |= _predicting(network, seconds, watch)
    if isinstance(network, Network):
        parameters = list(network.objective.model.parameters())
        values["parameters"] = float(sum(p.numel() for p in parameters))
        values["trained_parameters"] = float(sum(p.numel() for p in parameters if p.requires_grad))
        at(f"in training on {_batches(recipe, recipe.train.batch)}")
        values |= _training(network, seconds, watch)
        at("in counting the network's operations")
        values["flops"] = float(count_flops(network.objective.model, recipe.input.channels, recipe.input.size))
    return RoundResult(
        {name: values[name] for name in DEFINITIONS if name in values},
        device=_device(network.device),
        precision=network.precision.name,
        threads=torch.get_num_threads(),
        others=watch.others,
    )


def memory_need(recipe: Resolved, task: Task, *, at: Callable[[str], None] = lambda _: None) -> MemoryNeed:
    """Return the memory that training and prediction need: two optimizer steps, and one batch of predictions.

    Two, because an optimizer creates its own tensors at the end of the first, and has them beside all others only in
    the second. As in `measure_round`, the peak RSS is the whole process's.

    Raises:
        SegregError: the network can't be built or trained.
    """
    prepare_process()
    available = available_mib()
    at("in building the network")
    network = Network.of(recipe, task)
    device = network.device
    if device.type == "cuda":
        available = torch.cuda.mem_get_info(device)[0] / MIB + torch.cuda.memory_reserved(device) / MIB
    at(f"in training on {_batches(recipe, recipe.train.batch)}")
    training = network.prepared()
    network.train(training, steps=2)  # sync
    at(f"in predicting {_batches(recipe, len(network.images))}")
    network.objective.eval()
    network.predict()
    network.synchronise()  # sync
    return MemoryNeed(_peak_mib(device), available if device.type in ("cuda", "cpu") else None, _device(device))


def _predicting(network: Network | ExportedModel, seconds: float, watch: CpuWatch) -> dict[str, float]:
    def one() -> None:
        network.predict(1)
        network.synchronise()  # sync: a latency lasts until the result is there

    _repeated(one, least=_WARM_UP_STEPS, seconds=_WARM_UP * seconds)
    with watch:
        latencies = _repeated(one, least=_LEAST_LATENCIES, seconds=seconds)
    _repeated(network.predict, least=_WARM_UP_STEPS, seconds=_WARM_UP * seconds)
    network.synchronise()  # sync: nothing of the warm-up may be timed
    _reset_peak(network.device)
    with watch:
        start = perf_counter()
        batches = len(_repeated(network.predict, least=_LEAST_STEPS, seconds=seconds))
        network.synchronise()  # sync, once: batches queue as in a run, and the last one counts
        passed = perf_counter() - start
    return {
        "latency_p50_ms": 1000 * median(latencies),
        "latency_p95_ms": 1000 * quantiles(latencies, n=20, method="inclusive")[-1],
        "inference_images_per_second": batches * len(network.images) / passed,
        **_memory(network.device, "inference"),
    }


def _training(network: Network, seconds: float, watch: CpuWatch) -> dict[str, float]:
    training = network.prepared()
    network.train(training, steps=_WARM_UP_STEPS, seconds=_WARM_UP * seconds)
    network.synchronise()  # sync: nothing of the warm-up may be timed
    _reset_peak(network.device)
    with watch:
        start = perf_counter()
        images = network.train(training, steps=_LEAST_STEPS, seconds=seconds)  # syncs as a run does
        network.synchronise()  # sync, once: the last step counts
        passed = perf_counter() - start
    return {"training_images_per_second": images / passed, **_memory(network.device, "training")}


def _repeated(step: Callable[[], object], *, least: int, seconds: float) -> list[float]:
    """Repeat a step, and return the seconds of each."""
    times: list[float] = []
    start = now = perf_counter()
    while len(times) < least or now - start < seconds:
        before = now
        step()
        now = perf_counter()
        times.append(now - before)
    return times


def _memory(device: torch.device, doing: str) -> dict[str, float]:
    names = {"cuda": f"{doing}_memory_gpu_mib", "cpu": f"{doing}_memory_rss_mib"}
    peak = _peak_mib(device)
    return {} if peak is None else {names[device.type]: peak}


def _peak_mib(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    return peak_rss_mib() if device.type == "cpu" else None  # Apple's GPU keeps no peak


def _reset_peak(device: torch.device) -> None:
    """Reset a GPU's peak: the search for the fastest convolutions takes more memory than they do."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _device(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _batches(recipe: Resolved, count: int) -> str:
    height, width = recipe.input.size
    return f"batches of {plural(count, 'image')} of {height}x{width}"
