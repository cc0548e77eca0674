"""What leaving out dead taps is worth: DeepLabV3+ and its ASPP with atrous convolutions as torch's and as ours.

Each pair is timed one after the other, the order changing from pair to pair, in this process's own CPU time on
one thread, so that other work on the machine weighs little. Ratios above 1 say how many times quicker ours is; the
median of the pairs is printed with their quartiles. bf16 on a CPU without it is emulated, and labelled so.

    OMP_NUM_THREADS=1 python benchmarks/atrous.py
    OMP_NUM_THREADS=1 python benchmarks/atrous.py aspp float32
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from segreg.api import build_part
from segreg.models.segmenter import Segmenter
from segreg.runtime.device import choose_precision, prepare_process
from segreg_plugins.decoders.atrous import CPU, AtrousConv2d
from segreg_plugins.decoders.deeplabv3plus_network import ASPP

PAIRS = {"float32": 15, "bf16": 5}
BATCH = 2


def main() -> None:
    """Print a line a case."""
    print(prepare_process())
    torch.set_num_threads(1)
    words = sys.argv[1:]
    native = choose_precision("auto", torch.device("cpu")).name == "bf16"
    print(f"torch {torch.__version__}, {CPU}, 1 thread; batch {BATCH}, channels last, CPU time")
    for precision in [word for word in words if word in PAIRS] or list(PAIRS):
        label = precision if precision == "float32" or native else f"{precision} (emulated)"
        if "step" not in words:
            for channels, size in ((512, 8), (512, 16), (2048, 16)):
                for separable in (True, False):
                    aspp(channels, size, separable=separable, precision=precision, label=label)
        if "aspp" not in words:
            for encoder in ("resnet18", "torchvision.mobilenet_v3_large"):
                for pixels in (256, 128):
                    step(encoder, pixels, precision=precision, label=label)


def aspp(channels: int, size: int, *, separable: bool, precision: str, label: str) -> None:
    """Compare the pooling alone, with its gradients and without."""
    ours = ASPP(channels, 256, rates=(6, 12, 18), separable=separable, dropout=0.1)
    features = torch.randn(BATCH, channels, size, size).to(memory_format=torch.channels_last).requires_grad_()
    kind = "separable" if separable else "plain"
    compare(f"{label} ASPP {kind}, {channels} channels, {size}x{size}", ours, features, precision)


def step(encoder_name: str, pixels: int, *, precision: str, label: str) -> None:
    """Compare a training step of the whole network, and its prediction."""
    encoder = build_part("encoder", encoder_name, 3)
    network = Segmenter(encoder, build_part("decoder", "deeplabv3plus", encoder), 1)
    images = torch.randn(BATCH, 3, pixels, pixels).to(memory_format=torch.channels_last)
    compare(f"{label} DeepLabV3+ {encoder_name}, {pixels} px", network, images, precision)


def compare(name: str, ours: nn.Module, given: Tensor, precision: str) -> None:
    """Print the ratios of training and of predicting."""
    ours = ours.to(memory_format=torch.channels_last)
    theirs = ordinary(copy.deepcopy(ours))
    training, predicting = [], []
    for mode, ratios in ((train, training), (predict, predicting)):
        for number in range(PAIRS[precision] + 1):
            times = {}
            for network in (ours, theirs) if number % 2 else (theirs, ours):
                times[network is ours] = mode(network, given, precision)
            if number:  # the first pair warms up
                ratios.append(times[False] / times[True])
    print(f"{name}: training {spread(training)}, predicting {spread(predicting)}", flush=True)


def ordinary(network: nn.Module) -> nn.Module:
    """Return the network with torch's own convolutions."""
    for layer in network.modules():
        if isinstance(layer, AtrousConv2d):
            layer.__class__ = nn.Conv2d
    return network


def train(network: nn.Module, given: Tensor, precision: str) -> float:
    """Return the seconds of a forward and a backward pass."""
    network.train().zero_grad(set_to_none=True)
    given.grad = None
    return timed(lambda: computed(network, given, precision).float().square().mean().backward())


def predict(network: nn.Module, given: Tensor, precision: str) -> float:
    """Return the seconds of a forward pass in evaluation."""
    network.eval()
    with torch.inference_mode():
        return timed(lambda: computed(network, given, precision))


def computed(network: nn.Module, given: Tensor, precision: str) -> Tensor:
    """Return what the network makes of its input in that precision."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        result: Tensor = network(given)
    return result


def timed(work: Callable[[], object]) -> float:
    """Return the CPU time of this process that the work took, in seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def spread(ratios: list[float]) -> str:
    """Return the median of the ratios, with their quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
