"""What each cost is: its unit, the sentence that defines it, and whether larger is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class CostDefinition:
    """What a number of `segreg.benchmark.cost` is.

    Attributes:
        unit: such as "images/s"; empty for a plain number.
        sentence: what was counted or measured, and what is not included.
        higher_is_better: whether larger values are; None where neither is.
    """

    unit: str
    sentence: str
    higher_is_better: bool | None


_TRAINING = "training steps of `segreg run`, on one batch of `train.batch_size` random images in memory"
_PREDICTION = "prediction of `segreg predict`, from uint8 images in memory to float32 logits on the device"
_EVALUATION_BATCH = "batches of `evaluate.batch_size` images (`train.batch_size` where that is null)"
_ALLOCATOR = (
    "the peak memory that PyTorch's allocator had allocated on the GPU after the warm-up; what the allocator reserves "
    "and the driver's own share of some hundred MiB are not included"
)
_RSS = (
    "the peak memory of the whole process on the machine (peak RSS), nothing of which is on a GPU; "
    "`process_memory_rss_mib` of it was there before the network"
)

DEFINITIONS: Mapping[str, CostDefinition] = MappingProxyType(
    {
        "parameters": CostDefinition(
            "", "the network's parameters, those of an auxiliary decoder included, which only training uses", False
        ),
        "flops": CostDefinition(
            "FLOP",
            "floating-point operations of convolutions and matrix products (attention's too) in one prediction for one "
            "image of the recipe's size, a multiply-add counted as two; normalisation, activations, pooling and "
            "resampling are not counted",
            False,
        ),
        "training_images_per_second": CostDefinition(
            "images/s",
            f"images a second in {_TRAINING}: copy to the device, forward, losses, backward, optimizer; without "
            "reading and augmenting; the learning rate is 0, so that random labels can't make the loss diverge",
            True,
        ),
        "inference_images_per_second": CostDefinition(
            "images/s", f"images a second in {_PREDICTION}, in {_EVALUATION_BATCH}", True
        ),
        "latency_p50_ms": CostDefinition(
            "ms", f"the median time of {_PREDICTION}, for one image at a time, each waited for", False
        ),
        "latency_p95_ms": CostDefinition(
            "ms", "the time that 95% of the same predictions of one image took at most, of 20 or more", False
        ),
        "training_memory_gpu_mib": CostDefinition("MiB", f"in {_TRAINING}, {_ALLOCATOR}", False),
        "inference_memory_gpu_mib": CostDefinition(
            "MiB", f"in {_PREDICTION}, in {_EVALUATION_BATCH}, {_ALLOCATOR}", False
        ),
        "training_memory_rss_mib": CostDefinition(
            "MiB", f"in predictions and then in {_TRAINING}, {_RSS}", False
        ),
        "inference_memory_rss_mib": CostDefinition(
            "MiB", f"in {_PREDICTION}, of one image and in {_EVALUATION_BATCH}, {_RSS}", False
        ),
        "process_memory_rss_mib": CostDefinition(
            "MiB",
            "the peak memory of the same process (peak RSS) when it had imported segreg and PyTorch and built "
            "nothing; the libraries that the network is built with are not included, and count as the network's",
            None,
        ),
    }
)  # fmt: skip
"""Every cost by its name, in the order in which they are listed."""
