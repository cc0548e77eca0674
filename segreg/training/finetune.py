"""Start a training from existing weights: those of another run, or any file of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError
from segreg.training.checkpoint import BEST, LAST, Match, matched, read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from segreg.models.segmenter import Segmenter


def start_from(model: Segmenter, source: Path, component: Literal["model", "encoder"]) -> Match:
    """Load what fits of a run's best weights, or of a weights file, and report it.

    Names may have other prefixes than the model's (`module.`, `backbone.`, `encoder.`): those are chosen with which
    most names and shapes match. What does not fit, such as a head for other classes, stays as it is.

    Args:
        model: the network, which is changed in place.
        source: a run's directory, a safetensors file, or a PyTorch file of tensors, which is read without running code.
        component: the whole network, or only its encoder.

    Raises:
        SegregError: the file can't be read, or nothing in it fits.
    """
    file = _weights_file(source)
    tensors, notes = read_weights(file)
    target: nn.Module = model.parts()["encoder"] if component == "encoder" else model
    own = target.state_dict()
    mine, theirs = _prefixes_that_match(own, tensors)
    renamed = {mine + name.removeprefix(theirs): value for name, value in tensors.items() if name.startswith(theirs)}
    fitting, match = matched(own, renamed, notes)
    if not any(own[name].ndim > 1 for name in fitting):  # a BatchNorm of the right width is not a match
        raise SegregError(f"train.start_from: nothing in {file} fits the {component}", hint=str(match))
    target.load_state_dict(fitting, strict=False)
    return match


def _weights_file(source: Path) -> Path:
    if not source.is_dir():
        return source
    for file in (source / BEST, source / LAST):
        if file.is_file():
            return file
    raise SegregError(f"train.start_from: {source} holds no weights", hint=f"a run's folder has {BEST} or {LAST}")


def _prefixes_that_match(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return the two prefixes with which most names and shapes match; the shortest of those that are as good."""
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}

    def matching(mine: str, theirs: str) -> int:
        return sum(
            shapes.get(mine + name.removeprefix(theirs)) == tuple(tensor.shape)
            for name, tensor in given.items()
            if name.startswith(theirs)
        )

    pairs = [(mine, theirs) for mine in _prefixes(own) for theirs in _prefixes(given)]
    return max(pairs, key=lambda pair: (matching(*pair), -len(pair[0]) - len(pair[1])))


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return "" and every prefix of one or two words that several names share, such as "encoder.network."."""
    counts: dict[str, int] = {}
    for name in tensors:
        words = name.split(".")
        for length in (1, 2):
            if len(words) > length:
                prefix = ".".join(words[:length]) + "."
                counts[prefix] = counts.get(prefix, 0) + 1
    least = max(2, len(tensors) // 4)
    return ["", *(prefix for prefix, count in counts.items() if count >= least)]
