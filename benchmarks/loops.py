"""One process of benchmarks/training.py: trains as a competitor does, and write what it took.

All do the same work: the same images, the same kind of network, Adam, every epoch validated with loss and IoU.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clock import Case, Clock

if TYPE_CHECKING:  # a competitor imports what it needs, while its clock runs
    import torch
    from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RATES, RATE = (6, 12, 18), 1e-3


def segreg(case: Case, clock: Clock) -> None:
    """`segreg run`, with all that belongs to it."""
    clock.listen()
    from segreg.cli import main

    out = Path(case.recipe).parent / f"runs-{time.monotonic_ns()}"
    before, sys.argv = sys.argv, ["segreg", "run", case.recipe, *case.changed, "--quiet", "--out", str(out)]
    if main():  # given no arguments it is the command, to the end of its process
        raise SystemExit(1)
    sys.argv = before
    (history,) = out.rglob("history.jsonl")
    rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    clock.epochs = [(case.train / row["images_per_second"], row["seconds"]) for row in rows]
    clock.loss = rows[-1]["val.loss"]


def limit(case: Case, clock: Clock) -> None:
    """A bare loop with segreg's network and settings of the device, on uint8 images in memory."""
    from segreg.runtime.device import choose_device, choose_precision, prepare_device, prepare_process

    prepare_process()
    clock.listen()
    import torch

    from segreg import build_part
    from segreg.models.segmenter import Normalize, Segmenter

    device = choose_device(case.device)
    precision = choose_precision("auto", device)
    prepare_device(device)
    encoder = build_part("encoder", case.encoder, 3)
    network = Segmenter(encoder, build_part("decoder", "deeplabv3plus", encoder), case.classes)
    network = network.to(device).to(memory_format=torch.channels_last)
    normalize = Normalize(MEAN, STD).to(device)
    optimizer = torch.optim.Adam(network.parameters(), RATE, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision.scaler)
    images, masks = (array.to(device) for array in in_memory(case))

    def batches(order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in order.to(device).split(case.batch):
            # Rows of [N, H, W, C] are a batch that is channels-last.
            image = normalize(images.index_select(0, chosen).permute(0, 3, 1, 2))
            yield image, masks.index_select(0, chosen).long()

    def forward(image: Tensor) -> Tensor:
        with precision.autocast(device):
            logits: Tensor = network(image)
        return logits.float()

    for _ in range(case.epochs):
        clock.epoch_begins()
        network.train()
        for image, target in batches(torch.randperm(case.train)):
            scaler.scale(loss_of(forward(image), target)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
        validate(network, forward, batches(torch.arange(case.train, len(images))), clock)
        clock.epoch_ends()


def naive(case: Case, clock: Clock) -> None:
    """A float32 loop as tutorials have it: images decoded at each step, torch's and the loader's defaults."""
    clock.listen()
    import torch
    from torch.utils.data import DataLoader, Subset

    images = decoded(case)
    train, val = range(case.train), range(case.train, len(case.images))
    workers = case.workers or 0
    loader = DataLoader(Subset(images, train), case.batch, shuffle=True, num_workers=workers)
    val_loader = DataLoader(Subset(images, val), case.batch, num_workers=workers)
    device = torch.device(case.device)
    network = smp_network(case).to(device)
    optimizer = torch.optim.Adam(network.parameters(), RATE)

    def on_device(batches: Iterable[list[Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for image, target in batches:
            yield image.to(device), target.to(device)

    for _ in range(case.epochs):
        clock.epoch_begins()
        network.train()
        for image, target in on_device(loader):
            optimizer.zero_grad()
            loss_of(network(image), target).backward()
            optimizer.step()
        validate(network, network, on_device(val_loader), clock)
        clock.epoch_ends()


def lightning(case: Case, clock: Clock) -> None:
    """Lightning as fast as its own settings make it: bf16 where it is native, channels-last, fused Adam, its loader."""
    clock.listen()
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader, Subset

    from segreg.data import fitting_workers
    from segreg.runtime.device import choose_precision

    cuda = case.device.startswith("cuda")
    workers = fitting_workers(case.device.partition(":")[0]) if case.workers is None else case.workers

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = smp_network(case).to(memory_format=torch.channels_last)
            self.losses: list[Tensor] = []
            self.score = Score(case.classes)

        def on_train_epoch_start(self) -> None:
            clock.epoch_begins()

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            return loss_of(self.forward(batch[0]).float(), batch[1])

        def validation_step(self, batch: list[Tensor], _: int) -> None:
            logits = self.forward(batch[0]).float()
            self.losses.append(loss_of(logits, batch[1]))
            self.score.add(logits, batch[1])

        def on_validation_epoch_end(self) -> None:
            clock.loss, _ = torch.stack(self.losses).mean().item(), self.score.iou()
            self.losses.clear()
            self.score = Score(case.classes)

        def on_train_epoch_end(self) -> None:  # after the validation
            clock.epoch_ends()

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.network(image.contiguous(memory_format=torch.channels_last))
            return logits

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), RATE, fused=True)

    def loader(chosen: range, *, shuffle: bool) -> Any:
        return DataLoader(Subset(decoded(case), chosen), case.batch, shuffle=shuffle, num_workers=workers,
                          persistent_workers=workers > 0, pin_memory=cuda)  # fmt: skip

    precision = {"bf16": "bf16-mixed", "fp16": "16-mixed", "float32": "32-true"}
    name, _, index = case.device.partition(":")
    trainer = pl.Trainer(
        max_epochs=case.epochs, accelerator="gpu" if cuda else name, devices=[int(index or 0)] if cuda else 1,
        precision=precision[choose_precision("auto", torch.device(case.device)).name], benchmark=cuda, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    train, val = range(case.train), range(case.train, len(case.images))
    trainer.fit(Module(), loader(train, shuffle=True), loader(val, shuffle=False))


CONTESTANTS: dict[str, Callable[[Case, Clock], None]] = {
    "segreg": segreg, "limit": limit, "naive": naive, "lightning": lightning,
}  # fmt: skip


def smp_network(case: Case) -> nn.Module:
    """Return SMP's DeepLabV3+ with the rates that segreg's has."""
    import segmentation_models_pytorch as smp

    return smp.DeepLabV3Plus(
        case.encoder, encoder_weights=None, encoder_output_stride=16, decoder_atrous_rates=RATES,
        decoder_aspp_dropout=0.1, classes=case.classes,
    )  # fmt: skip


def in_memory(case: Case) -> tuple[Tensor, Tensor]:
    """Return all images, uint8 [N, H, W, 3], and masks, uint8 [N, H, W], decoded once."""
    import cv2
    import numpy as np
    import torch

    cv2.setNumThreads(1)
    size = (case.size, case.size)
    images = np.empty((len(case.images), *size, 3), np.uint8)
    masks = np.empty((len(case.images), *size), np.uint8)
    for number, (image, mask) in enumerate(zip(case.images, case.masks, strict=True)):
        pixels = cv2.cvtColor(cv2.imread(image), cv2.COLOR_BGR2RGB)
        images[number] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(cv2.imread(mask, cv2.IMREAD_GRAYSCALE), size, interpolation=cv2.INTER_NEAREST)
        masks[number] = labels > 0 if case.classes == 1 else labels
    return torch.from_numpy(images), torch.from_numpy(masks)


def decoded(case: Case) -> Any:
    """Return the images as a dataset that decodes, resizes and normalises each one anew."""
    import numpy as np
    import torch
    from PIL import Image
    from torch.utils.data import Dataset
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor

    prepare = Compose([Resize((case.size, case.size)), ToTensor(), Normalize(MEAN, STD)])

    class Images(Dataset[tuple[torch.Tensor, torch.Tensor]]):
        def __len__(self) -> int:
            return len(case.images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            image = prepare(Image.open(case.images[index]).convert("RGB"))
            mask = Image.open(case.masks[index]).convert("L").resize((case.size, case.size), Image.Resampling.NEAREST)
            labels = torch.from_numpy(np.array(mask))
            return image, (labels > 0 if case.classes == 1 else labels).long()

    return Images()


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of [B, K, H, W] and labels [B, H, W], the binary one where there is one class."""
    import torch.nn.functional as F

    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], target.float())
    return F.cross_entropy(logits, target)


def validate(
    network: nn.Module, forward: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], clock: Clock
) -> None:
    """Compute loss and IoU as a validation does."""
    import torch

    network.eval()
    losses, score = [], Score(clock.case.classes)
    with torch.no_grad():
        for image, target in batches:
            logits = forward(image)
            losses.append(loss_of(logits, target))
            score.add(logits, target)
    clock.loss, _ = torch.stack(losses).mean().item(), score.iou()


class Score:
    """The IoU over all pixels, of a confusion matrix on the device."""

    def __init__(self, classes: int) -> None:
        self.labels = max(classes, 2)
        self.matrix: Tensor | None = None

    def add(self, logits: Tensor, target: Tensor) -> None:
        found = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
        counted = (self.labels * target + found).flatten().bincount(minlength=self.labels**2)
        self.matrix = counted if self.matrix is None else self.matrix + counted

    def iou(self) -> float:
        assert self.matrix is not None
        matrix = self.matrix.reshape(self.labels, self.labels)
        both = matrix.diag()
        each: Tensor = both / (matrix.sum(0) + matrix.sum(1) - both)
        return each[-1].item() if self.labels == 2 else each.nanmean().item()


def main() -> None:
    name, file, started, found = sys.argv[1:]
    case = Case(**json.loads(Path(file).read_text(encoding="utf-8")))
    clock = Clock(case, float(started))
    CONTESTANTS[name](case, clock)
    Path(found).write_text(json.dumps(clock.as_data()), encoding="utf-8")


if __name__ == "__main__":
    main()
