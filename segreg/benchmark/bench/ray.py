"""Run a bench on a Ray cluster, or on Ray on this machine: a task for each run.

Where a worker shares the bench's folder, the run's directory is in it from the first epoch on. Elsewhere it is
made in a temporary folder of the worker, and its files are sent back at its end.
"""

from __future__ import annotations

import io
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segreg.benchmark.bench.folder import BenchFolder, finished
from segreg.benchmark.bench.local import work_on
from segreg.benchmark.bench.trials import Trial
from segreg.config.sections import Train
from segreg.errors import SegregError
from segreg.registry.local import plugin_files, using
from segreg.runs.directory import RunDirectory

RESOURCES = ("cpus", "gpus", "memory_gib")
MOST = 1_000_000
"""No run takes more of a resource."""
_POLL_SECONDS = 1.0
_NOT_SENT = ("state.pt",)
"""Only continuing a run needs it, and a run that is sent back has finished."""


def run_on_ray(
    trials: Sequence[Trial],
    folder: BenchFolder,
    *,
    resources: Mapping[str, float],
    retries: int,
    refresh: Callable[[], None],
) -> None:
    """Finish every run that has neither finished nor failed.

    Args:
        trials: the runs.
        folder: the bench's.
        resources: of each run: `cpus`, `gpus`, `memory_gib`. Its recipe decides what is missing.
        retries: how often a run whose worker was lost is started again; it continues if its folder was kept.
        refresh: called about once a second.

    Raises:
        SegregError: Ray is not installed or its cluster can't be reached.
    """
    ray = _ray()
    started = _connect(ray)
    token = folder.path / f".seen-{uuid.uuid4().hex}"
    token.touch()
    try:
        gpus = float(ray.cluster_resources().get("GPU", 0))
        task = ray.remote(_on_a_worker)
        parts = {str(file.path): file.source for file in plugin_files()}
        running: dict[Any, Trial] = {}
        for trial in trials:
            if folder.state(trial) not in ("waiting", "stopped"):
                continue
            wanted = {**default_resources(trial.recipe.train, gpus), **resources}
            options: dict[str, Any] = {"num_cpus": wanted["cpus"], "num_gpus": wanted["gpus"], "max_retries": retries}
            if "memory_gib" in wanted:
                options["memory"] = int(wanted["memory_gib"] * 2**30)
            text = folder.recipe(trial.name).read_text(encoding="utf-8")
            paths = (str(token), str(folder.recipe(trial.name).absolute()), str(folder.run(trial).path.absolute()))
            more = {"source": trial.source, "threads": int(max(1, wanted["cpus"])), "parts": parts}
            running[task.options(**options).remote(*paths, text, **more)] = trial
        while running:
            done, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
            for reference in done:
                _take(ray, reference, running.pop(reference), folder)
            refresh()
    finally:
        token.unlink(missing_ok=True)
        if started:
            ray.shutdown()


def default_resources(train: Train, gpus: float) -> dict[str, float]:
    """Return what a recipe needs: a GPU if it may use one and the cluster has any, and a CPU for each worker."""
    wants = train.device.startswith("cuda") or (train.device == "auto" and gpus > 0)
    workers = train.workers if isinstance(train.workers, int) else (4 if wants else 0)
    return {"cpus": float(1 + workers), "gpus": 1.0 if wants else 0.0}


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise SegregError("Ray is not installed", hint="pip install 'segreg-toolkit[ray]'") from None
    return ray


def _connect(ray: Any) -> bool:
    """Connect to the cluster of RAY_ADDRESS or start one on this machine; return False if it was connected before."""
    if ray.is_initialized():
        return False
    try:
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SegregError(
            f"Ray can't be reached: {error}", hint="RAY_ADDRESS names a cluster; without it Ray runs on this machine"
        ) from None
    return True


def _on_a_worker(
    token: str, recipe: str, run: str, text: str, *, source: str, threads: int, parts: Mapping[str, bytes]
) -> bytes | None:
    """Finish a run; return its files if this machine does not share the bench's folder."""
    import torch

    torch.set_num_threads(threads)
    if Path(token).exists():
        with using(parts):
            work_on(Path(recipe), Path(run), source)
        return None
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as code:
        files = [Path(code) / Path(name).name for name in parts]
        for file, content in zip(files, parts.values(), strict=True):
            file.write_bytes(content)
        own = Path(place) / Path(recipe).name
        own.write_text(text, encoding="utf-8")
        with using(files):
            work_on(own, Path(place) / "run", source)
        return pack(Path(place), own.stem)


def pack(place: Path, stem: str) -> bytes:
    """Return a run in the folder `place`, with its log and why it failed, as the bytes of a zip file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", strict_timestamps=False) as archive:
        for name in (f"{stem}.log", f"{stem}.failed.json"):
            if (place / name).exists():
                archive.write(place / name, name)
        for file in sorted((place / "run").rglob("*")) if (place / "run").exists() else ():
            if file.is_file() and file.name not in _NOT_SENT:
                archive.write(file, file.relative_to(place))
    return content.getvalue()


def unpack(content: bytes, trial: Trial, folder: BenchFolder) -> None:
    """Put the files of `pack` into a bench's folder; the run's directory appears as a whole.

    One that had begun there stays unless the other has finished.
    """
    run = folder.run(trial).path
    with tempfile.TemporaryDirectory(dir=folder.path) as place:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(place)  # which leads no file out of it
        for name in (f"{trial.name}.log", f"{trial.name}.failed.json"):
            if (Path(place) / name).exists():
                (Path(place) / name).replace(folder.trials / name)
        came = RunDirectory(Path(place) / "run")
        if came.path.exists() and (finished(came) or not run.exists()):
            run.parent.mkdir(parents=True, exist_ok=True)
            if run.exists():
                run.replace(Path(place) / "begun")
            came.path.replace(run)


def _take(ray: Any, reference: Any, trial: Trial, folder: BenchFolder) -> None:
    """Store a task's result; a task that was lost for good is a failed run."""
    try:
        content = ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        folder.fail(trial.name, f"its worker on the cluster was lost: {reason}")
        return
    if content is not None:
        unpack(content, trial, folder)
    if folder.state(trial) not in ("finished", "failed"):
        folder.fail(trial.name, "its worker on the cluster ended before the run did; see its log")
