"""What is exported: normalisation, network and, where asked for, labels, in one graph of `torch.export`."""

from __future__ import annotations

import logging
import math
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import Dim, ExportedProgram

from segreg.errors import SegregError, listed
from segreg.task import Task

Size = tuple[int, int]
_COARSEST = 32
"""Pixels of a side that are one on the coarsest level of nearly every encoder."""
_CLOSE = 1e-4
"""Difference of logits, as a share of the largest, that the traced program may have from the network."""


_ARITHMETIC = {
    operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg, operator.getitem,
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge, operator.and_, operator.or_,
}  # fmt: skip
"""By which sizes may be computed in a graph: every runtime has them."""


_ASSERTS = {
    getattr(torch.ops.aten, name).default
    for name in ("_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range", "sym_constrain_range_for_size")
}


class ExportGraph(nn.Module):
    """A network from an image's values to logits or labels.

    Shape: uint8, uint16 or float32 `[B, C, H, W]` to float32 logits `[B, K, H, W]`; or to uint8 labels `[B, H, W]`,
    `[B, K, H, W]` if multilabel.

    Args:
        model: returns logits for normalised images.
        normalize: turns values into what it takes.
        task: the classes.
        threshold: probability from which a pixel is foreground.
        labels: whether labels are returned.
        half: whether the network computes in float16; normalisation and labels are float32 all the same.
    """

    def __init__(
        self, model: nn.Module, normalize: nn.Module, task: Task, threshold: float, *, labels: bool, half: bool
    ) -> None:
        super().__init__()
        self.model, self.normalize = model, normalize
        self.task, self.threshold, self.labels, self.half_precision = task, threshold, labels, half
        if half:
            self.model.half()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits or labels."""
        values = self.normalize(images.float())
        logits = self.model(values.half() if self.half_precision else values).float()
        return self.task.labels(logits, threshold=self.threshold).to(torch.uint8) if self.labels else logits


@dataclass(frozen=True)
class Traced:
    """A traced network.

    Attributes:
        program: takes images of any batch size, unless `batch` is 1.
        size: the one height and width that it takes; None for any that are multiples of `multiple`.
        multiple: of the sides.
        least: of the sides, where they may change.
        batch: the one number of images that it takes; None for any.
        reason: why it takes one size only, where others were asked for.
    """

    program: ExportedProgram
    size: Size | None
    multiple: int = 1
    least: int = 1
    batch: int | None = None
    reason: str = ""


def trace(graph: ExportGraph, *, channels: int, dtype: torch.dtype, size: Size, any_size: bool) -> Traced:
    """Return a network's graph, with sizes that may change as far as the network can.

    Args:
        graph: in evaluation mode, on the CPU.
        channels: of the images.
        dtype: of their values.
        size: height and width that it is traced with; the only one unless `any_size`.
        any_size: whether other sizes are wanted too.

    Raises:
        SegregError: `torch.export` can't trace the network; the message has what it says of the line.
    """
    divisor = int(getattr(graph.model, "size_divisor", 1))
    fixed = getattr(getattr(graph.model, "encoder", None), "image_size", None)
    # Images are padded outside just as the network itself pads them to its divisor. A network without one sees another
    # border where its sides have to be multiples of something.
    multiples = dict.fromkeys((divisor, math.lcm(divisor, _COARSEST))) if any_size and fixed is None else ()
    ways = [*((multiple, False) for multiple in multiples), (None, False), (None, True)]
    reason = f"its encoder takes {fixed[0]}x{fixed[1]} alone" if any_size and fixed else ""
    problem: Exception | None = None
    for multiple, alone in ways:
        height, width = size
        if multiple:  # sides that are not equal by chance, nor multiples of more than they have to be
            height, width = ((max(2, size[0] // multiple) + odd) * multiple for odd in (1, 2))
        images = _random(channels, (height, width), dtype, batch=1 if alone else 2)
        shapes: dict[int, Any] = {} if alone else {0: Dim("batch", min=1, max=4096)}
        if multiple:
            least = _least(multiple, graph.model)
            shapes |= {2: _side("height", multiple, least), 3: _side("width", multiple, least)}
        try:
            with _quiet(), torch.no_grad():
                program = torch.export.export(
                    graph, (images,), dynamic_shapes={"images": shapes}, strict=False,
                    prefer_deferred_runtime_asserts_over_guards=multiple is not None,
                )  # fmt: skip
            traced = Traced(
                program, None if multiple else size, multiple or 1, least if multiple else 1,
                1 if alone else None,
            )  # fmt: skip
            _leave_out_asserts(program)
            _leave_out_places(program)
            if multiple and (odd_steps := _odd_steps(program)):
                reason = f"it computes sizes by {listed(odd_steps, quote='')}, which other runtimes don't"
            elif _agrees(graph, traced, images):
                return replace(traced, reason="" if multiple else reason)
        except Exception as error:  # whatever a network's code or torch raises
            problem = problem or error
            if multiple:
                reason = reason or f"torch.export can't trace it for any size: {_first_line(error)}"
    words = _first_line(problem) if problem else "its results differ"
    raise SegregError(f"torch.export can't trace the network: {words}") from problem


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next((line[:300] for line in lines if line), type(error).__name__)


def _leave_out_asserts(program: ExportedProgram) -> None:
    """Take what a graph asserts of sizes out of it, which no runtime but PyTorch's has operators for."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _ASSERTS:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _leave_out_places(program: ExportedProgram) -> None:
    """Leave out of which file and line each step is, which exporters write into their files: paths of this machine."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)


def _odd_steps(program: ExportedProgram) -> list[str]:
    """Return by what a graph computes sizes beside whole-numbered arithmetic, such as "ceil"."""
    found = {
        getattr(node.target, "__name__", str(node.target))
        for node in program.graph.nodes
        if node.op == "call_function" and callable(node.target)
        and not isinstance(node.target, (OpOverload, HigherOrderOperator)) and node.target not in _ARITHMETIC
    }  # fmt: skip
    return sorted(found)


def _side(name: str, multiple: int, least: int) -> Any:
    dim = Dim(name, min=least // multiple, max=16384 // multiple)
    return dim * multiple if multiple > 1 else dim


def _least(multiple: int, model: nn.Module) -> int:
    """Return the least side where sizes may change: with whole multiples of one, or such that no level has one row."""
    strides = getattr(getattr(model, "encoder", None), "strides", (_COARSEST,))
    return multiple if multiple > 1 else int(max(strides)) + 1


def _agrees(graph: ExportGraph, traced: Traced, images: Tensor) -> bool:
    """Whether a program returns what the network does, also for other sizes than it was traced with."""
    height, width = images.shape[-2:]
    sizes = [(height, width)]
    if traced.size is None:
        step = traced.multiple if traced.multiple > 1 else 7
        sizes += [(height + step, width), (height, max(traced.least, width - 2 * step)), (traced.least, traced.least)]
    run = traced.program.module()
    for size in sizes:
        given = _random(images.shape[1], size, images.dtype, batch=traced.batch or 1)
        with _quiet(), torch.no_grad():
            found, wanted = run(given), graph(given)
        if found.shape != wanted.shape:
            return False
        if found.dtype == torch.uint8:
            if (found != wanted).float().mean() > _CLOSE:
                return False
        elif (found - wanted).abs().max() > (1e-2 if graph.half_precision else _CLOSE) * (1 + wanted.abs().max()):
            return False
    return True


def _random(channels: int, size: Size, dtype: torch.dtype, *, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(batch, channels, *size, generator=generator)
    most = {torch.uint8: 255, torch.uint16: 65535}.get(dtype)
    return values if most is None else (values * most).to(torch.int32).to(dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what compilers say of torch itself from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.fx.experimental.symbolic_shapes")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
