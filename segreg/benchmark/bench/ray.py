"""Run a bench on a Ray cluster, or on Ray on this machine: a task for each run.

Where a worker sees the bench's folder, the run's directory is in it from the first epoch on. Where it does not, the run
is made in a folder of the worker's and its files are sent back when it has come to its end.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segreg.benchmark.bench.folder import BenchFolder
from segreg.benchmark.bench.trials import Cell
from segreg.config.sections import Train
from segreg.errors import SegregError

RESOURCES = ("cpus", "gpus", "memory_gib")
_LOOK = 1.0
_NOT_SENT = ("state.pt",)
"""What only continuing with a run needs, and a run that is sent back is finished."""


def run_on_ray(
    cells: Sequence[Cell],
    folder: BenchFolder,
    *,
    resources: Mapping[str, float],
    retries: int,
    look: Callable[[], None],
) -> None:
    """Bring every run to its end that is neither finished nor failed.

    Args:
        cells: the runs.
        folder: the bench's.
        resources: what each run takes: `cpus`, `gpus`, `memory_gib`. What is left out, its recipe decides.
        retries: how often a run whose worker was lost is begun again; it continues where its folder was kept.
        look: is called about once a second.

    Raises:
        SegregError: Ray is not installed or its cluster can't be reached.
    """
    ray = _ray()
    started = _connect(ray)
    token = folder.path / f".seen-{uuid.uuid4().hex}"
    token.touch()
    try:
        at_all = float(ray.cluster_resources().get("GPU", 0))
        task = ray.remote(_on_a_worker)
        going: dict[Any, Cell] = {}
        for cell in cells:
            if folder.state(cell) not in ("waiting", "stopped"):
                continue
            asked = {**asked_for(cell.recipe.train, at_all), **resources}
            options: dict[str, Any] = {"num_cpus": asked["cpus"], "num_gpus": asked["gpus"], "max_retries": retries}
            if "memory_gib" in asked:
                options["memory"] = int(asked["memory_gib"] * 2**30)
            text = folder.recipe(cell).read_text(encoding="utf-8")
            paths = (str(token), str(folder.recipe(cell).absolute()), str(folder.run(cell).path.absolute()))
            going[task.options(**options).remote(*paths, text, int(max(1, asked["cpus"])))] = cell
        while going:
            done, _ = ray.wait(list(going), timeout=_LOOK)
            for reference in done:
                _take(ray, reference, going.pop(reference), folder)
            look()
    finally:
        token.unlink(missing_ok=True)
        if started:
            ray.shutdown()


def asked_for(train: Train, gpus: float) -> dict[str, float]:
    """Return what a recipe asks for: a GPU where it may use one and the cluster has any, and a CPU a worker."""
    wants = train.device.startswith("cuda") or (train.device == "auto" and gpus > 0)
    workers = train.workers if isinstance(train.workers, int) else (4 if wants else 0)
    return {"cpus": float(1 + workers), "gpus": 1.0 if wants else 0.0}


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise SegregError("Ray is not installed", hint="pip install 'segreg[ray]'") from None
    return ray


def _connect(ray: Any) -> bool:
    """Connect to the cluster of RAY_ADDRESS, or begins one on this machine; say whether it was not connected yet."""
    if ray.is_initialized():
        return False
    try:
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SegregError(
            f"Ray can't be reached: {error}", hint="RAY_ADDRESS names a cluster; without it Ray runs on this machine"
        ) from None
    return True


def _on_a_worker(token: str, recipe: str, run: str, text: str, threads: int) -> bytes | None:
    """Bring a run to its end; return its files where the bench's folder is not to be seen from here."""
    import torch

    torch.set_num_threads(threads)
    if Path(token).exists():
        _work(Path(recipe), Path(run))
        return None
    with tempfile.TemporaryDirectory() as place:
        own = Path(place) / Path(recipe).name
        own.write_text(text, encoding="utf-8")
        _work(own, Path(place) / "run")
        return packed(Path(place), own.stem)


def _work(recipe: Path, run: Path) -> None:
    from segreg.benchmark.bench.work import work_on

    with recipe.with_suffix(".log").open("a", encoding="utf-8") as log:
        work_on(recipe, run, log)


def packed(place: Path, stem: str) -> bytes:
    """Return a run that was made in `place`, with its log and why it failed, as the bytes of a tar file."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in (f"{stem}.log", f"{stem}.failed.json"):
            if (place / name).exists():
                tar.add(place / name, name)
        for file in sorted((place / "run").rglob("*")) if (place / "run").exists() else ():
            if file.is_file() and file.name not in _NOT_SENT:
                tar.add(file, str(file.relative_to(place)))
    return content.getvalue()


def unpacked(content: bytes, cell: Cell, folder: BenchFolder) -> None:
    """Put what `packed` gave into a bench's folder; the run's directory appears as a whole."""
    run = folder.run(cell).path
    with tempfile.TemporaryDirectory(dir=folder.path) as place:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(place, filter="data")
        for name in (f"{cell.name}.log", f"{cell.name}.failed.json"):
            if (Path(place) / name).exists():
                (Path(place) / name).replace(folder.cells / name)
        if (Path(place) / "run").exists():
            run.parent.mkdir(parents=True, exist_ok=True)
            (Path(place) / "run").replace(run)


def _take(ray: Any, reference: Any, cell: Cell, folder: BenchFolder) -> None:
    """Take what a task gave; a task that was lost for good is a failed run."""
    try:
        content = ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        folder.fail(cell.name, f"its worker on the cluster was lost: {reason}")
        return
    if content is not None:
        unpacked(content, cell, folder)
    if folder.state(cell) not in ("finished", "failed"):
        folder.fail(cell.name, "its worker on the cluster ended before the run did; its log may say why")
