"""What segreg adds to a pair that SMP runs too: time, operations and memory of a training step and of a prediction.

The network is built once by SMP and once by segreg, with the same weights. They take turns; the ratio of CPU
times, segreg's over SMP's, is printed with its median and quartiles: 1.00 costs nothing. Operations are those that
PyTorch dispatches, memory is what the backward pass keeps.

    OMP_NUM_THREADS=1 python benchmarks/adapter.py [encoder [size [decoder ...]]]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import segreg
from segreg.models.segmenter import Segmenter

PAIRS = {
    "smp.unet": smp.Unet,
    "smp.fpn": smp.FPN,
    "smp.deeplabv3plus": smp.DeepLabV3Plus,
    "smp.pspnet": smp.PSPNet,
}
ROUNDS = 40
Step = Callable[[nn.Module, Tensor], None]


class Counter(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Any:
        self.count += 1
        return function(*arguments, **(named or {}))


def main() -> None:
    """Print a line for each decoder."""
    encoder = sys.argv[1] if len(sys.argv) > 1 else "resnet18"
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 128
    print(f"{encoder}, 4 images of {size}x{size}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in sys.argv[3:] or PAIRS:
        build = PAIRS[name]
        theirs = build(encoder, encoder_weights=None, classes=1)
        ours = same(theirs, encoder, name)
        images = torch.rand(4, 3, size, size)
        assert torch.equal(theirs.eval()(images), ours.eval()(images))
        cells = [f"{name:<18}"]
        for what, step in (("training", trained), ("prediction", predicted)):
            ratios = [measured(ours, theirs, images, step, turned=bool(turn % 2)) for turn in range(ROUNDS)][4:]
            low, median, high = statistics.quantiles(ratios, n=4)
            cells.append(f"{what} {median:.3f} [{low:.3f}, {high:.3f}]")
        cells.append("operations {} and {}".format(*(operations(network, images) for network in (ours, theirs))))
        cells.append("kept {:.2f} and {:.2f} MiB".format(*(kept(network, images) for network in (ours, theirs))))
        print("  ".join(cells), flush=True)


def same(theirs: nn.Module, encoder: str, decoder: str) -> Segmenter:
    """Return segreg's network with SMP's weights."""
    # SMP's PSPNet has no levels beyond the one that it takes; here the encoder's `depth` says so.
    own = segreg.build_part("encoder", encoder, 3, **({"depth": 3} if decoder == "smp.pspnet" else {}))
    # Numbers that are SMP's to the last bit, so that nothing but the adapter is measured.
    exact = {"dead_taps": "compute"} if decoder == "smp.deeplabv3plus" else {}
    ours = Segmenter(own, segreg.build_part("decoder", decoder, own, **exact), 1)
    own.network.load_state_dict(theirs.encoder.state_dict(), strict=False)  # type: ignore[union-attr,operator]
    ours.decoder.network.load_state_dict(theirs.decoder.state_dict())  # type: ignore[union-attr,operator]
    ours.head.load_state_dict(theirs.segmentation_head.state_dict())  # type: ignore[operator]
    return ours


def trained(network: nn.Module, images: Tensor) -> None:
    """Forward and backward."""
    network.train()
    network(images).mean().backward()
    network.zero_grad()


def predicted(network: nn.Module, images: Tensor) -> None:
    """Forward alone."""
    network.eval()
    with torch.inference_mode():
        network(images)


def measured(ours: nn.Module, theirs: nn.Module, images: Tensor, step: Step, *, turned: bool) -> float:
    """Return the ratio of their CPU times, the first one alternates."""
    seconds = {}
    for network in (theirs, ours) if turned else (ours, theirs):
        before = time.process_time()
        step(network, images)
        seconds[id(network)] = time.process_time() - before
    return seconds[id(ours)] / seconds[id(theirs)]


def operations(network: nn.Module, images: Tensor) -> int:
    """Return how many operations a prediction dispatches."""
    with Counter() as counter:
        predicted(network, images)
    return counter.count


def kept(network: nn.Module, images: Tensor) -> float:
    """Return the MiB that a forward pass in training keeps for the backward one, each storage counted once."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images).mean()
    return sum(found.values()) / 2**20


if __name__ == "__main__":
    main()
