"""Which run a name means: a run's folder, an exported network, a folder of SMP's, or any of these on the hub."""

from __future__ import annotations

from pathlib import Path

from segreg.errors import SegregError
from segreg.runs.directory import open_run_directory
from segreg.runs.exported_run import exported_run
from segreg.runs.sidecar import SIDECAR, read_sidecar
from segreg.runs.trained_run import Run
from segreg.runtime.hub import SMP_WEIGHTS, is_reference, local_path


def load_run(path: Path | str) -> Run:
    """Return a run from its directory, on the disk or on the hub: `hf://user/name[@revision]`.

    The folder of an exported network, or its file, is a run too. So is a folder of SMP's `save_pretrained`: its network
    is built from our parts, and gives SMP's outputs.

    Raises:
        SegregError: there is none, or the hub can't be reached and its cache does not have it.
    """
    given = local_path(path)
    beside = (given.parent if given.is_file() else given) / SIDECAR
    network = read_sidecar(beside).get("network", {}) if beside.is_file() else {}
    if network:
        if given.is_file() and given.name not in (network.get("file"), SIDECAR):
            raise SegregError(f"{given}: {beside} is of another file, {network.get('file')}")
        return exported_run(open_run_directory(beside.parent))
    from segreg.runs.smp_folder import is_smp_folder, run_of_smp  # which reads weights

    return Run(open_run_directory(run_of_smp(given) if is_smp_folder(given) else given))


def is_run_name(word: str) -> bool:
    """Whether a word of a command line names a run rather than an image."""
    path = Path(word)
    folder = any((path / name).is_file() for name in ("resolved.yaml", SMP_WEIGHTS))
    return is_reference(word) or folder or (path.is_file() and (path.parent / SIDECAR).is_file())
