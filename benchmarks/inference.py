"""What folding BatchNorms, and in bf16 keeping the weights in it, is worth when a network predicts.

Each pair is timed one after the other, the order changing from pair to pair, in this process's own CPU time on
one thread, so that other work on the machine weighs little. Ratios above 1 say how many times quicker the lighter copy
is; the median of the pairs is printed with their quartiles, then what making the copy took, and how far logits are
apart. bf16 is measured where the CPU has it; "unfolded" is the copy with bf16 weights alone.

    OMP_NUM_THREADS=1 python benchmarks/inference.py
    OMP_NUM_THREADS=1 python benchmarks/inference.py resnet18 [decoder [size]]
"""

from __future__ import annotations

import copy
import statistics
import sys
import time

import torch
from torch import Tensor, nn

from segreg.api import build_part
from segreg.models.segmenter import Segmenter
from segreg.prediction.lighter import convert_weights, lighten
from segreg.runtime.device import Precision, choose_precision, prepare_process

PAIRS = {1: 40, 8: 12}
"""Pairs for each batch size."""
CPU = torch.device("cpu")


def main() -> None:
    """Print a line a case."""
    print(prepare_process())
    torch.set_num_threads(1)
    encoders = sys.argv[1:2] or ["resnet18", "resnet50"]
    decoder = sys.argv[2] if len(sys.argv) > 2 else "deeplabv3plus"
    size = int(sys.argv[3]) if len(sys.argv) > 3 else 256
    best = choose_precision("auto", CPU)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, 1 thread; {best.reason}")
    for name in encoders:
        network = trained(name, decoder)
        for precision in [choose_precision("float32", CPU), best][: 1 + (best.name == "bf16")]:
            started = time.process_time()
            light = lighten(network, torch.randn(1, 3, 96, 96), precision)
            seconds = time.process_time() - started
            print(
                f"{name}, {decoder}, {size} px, {precision.name}: folded {light.folded}, in bf16 {light.converted}, "
                f"{light.left or 'made'} in {seconds:.2f} s"
            )
            others = {"lighter": light.network}
            if precision.name == "bf16":
                others["unfolded"] = copy.deepcopy(network)
                convert_weights(others["unfolded"], torch.randn(1, 3, 96, 96), precision)
            for label, other in others.items():
                compare(label, network, other, size, precision)


def trained(encoder: str, decoder: str) -> nn.Module:
    """Return a network with statistics that are not those of the beginning, in which folding is seen."""
    torch.manual_seed(0)
    levels = build_part("encoder", encoder, 3)
    network = Segmenter(levels, build_part("decoder", decoder, levels), 1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network.eval().to(memory_format=torch.channels_last)


def compare(label: str, plain: nn.Module, other: nn.Module, size: int, precision: Precision) -> None:
    """Print the ratios for each batch size."""
    for batch, pairs in PAIRS.items():
        images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
        ratios = []
        for number in range(pairs + 1):
            times = {}
            for network in (plain, other) if number % 2 else (other, plain):
                start = time.process_time()
                computed(network, images, precision)
                times[network is plain] = time.process_time() - start
            if number:  # the first pair warms up
                ratios.append(times[True] / times[False])
        low, middle, high = statistics.quantiles(ratios, n=4)
        apart = (computed(plain, images, precision) - computed(other, images, precision)).abs().max()
        print(
            f"  {label}, batch {batch}: {middle:.3f} ({low:.3f} to {high:.3f}), logits apart by {apart:.2g}", flush=True
        )


def computed(network: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """Return the logits in that precision."""
    with torch.inference_mode(), precision.autocast(CPU):
        logits: Tensor = network(images)
    return logits.float()


if __name__ == "__main__":
    main()
