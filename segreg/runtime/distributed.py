"""Which of how many processes this is, and what they tell each other; alone, nothing here does or costs anything.

`torchrun` starts the processes and tells each in its environment who it is. They exchange small values on the
CPU's network (gloo); gradients on GPUs go by NCCL. Whatever ends one process ends all of them, and is reported once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from segreg.errors import SegregError

if TYPE_CHECKING:
    from torch import Tensor
    from torch._C._distributed_c10d import Store

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells a process, all of them."""
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others in one exchange, should one be alive but stuck, or its machine be gone."""
GRACE_SECONDS = 3.0
"""How long a process may take to notice by itself that another has ended."""
_ENDED, _STATUS, _KNOWN = "end/processes", "end/status", "end/known"
"""Notes: how many processes have failed, with which status the first one did, and how many know of it."""


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return all(name in os.environ for name in VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def count() -> int:
    """Return how many processes work together; 1 outside `processes`."""
    if "torch" not in sys.modules:
        return 1
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return which of them this is, from 0."""
    if count() == 1:
        return 0
    import torch.distributed as dist

    return dist.get_rank()


def local_rank() -> int:
    """Return which of its machine's processes this is, from 0."""
    return int(os.environ.get("LOCAL_RANK", rank())) if count() > 1 else 0


def local_count() -> int:
    """Return how many of the processes are on this machine, where torchrun says it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if count() > 1 else 1


def is_main() -> bool:
    """Whether this is the process that writes files and tells what happens."""
    return rank() == 0


def nodes() -> int:
    """Return on how many machines the processes are."""
    return len(set(gathered(_node())))


def launch() -> str:
    """Names the launch that started this process, the same after torchrun started it again; "" without one."""
    if not launched():
        return ""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return name if name != "none" else f"{socket.gethostname()}:{os.getppid()}"


def started_again() -> bool:
    """Whether torchrun started the processes again after one of them had failed."""
    return launched() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def own_device(name: str) -> str:
    """Return the device that this process is to take where a recipe names that one: each takes a GPU of its own.

    All processes must call it at once: where each sees one GPU alone, as schedulers may have it, they compare theirs.

    Raises:
        SegregError: it names a device that several processes can't share, or that can't work with others.
    """
    if count() == 1:
        return name
    import torch

    if name == "cpu":
        return "cpu"
    if name in ("auto", "cuda"):
        only = str(torch.cuda.get_device_properties(0).uuid) if torch.cuda.device_count() == 1 else ""
        if gathered(only).count(only) == 1 and only:
            return "cuda:0"
        return f"cuda:{local_rank()}" if name == "cuda" or torch.cuda.is_available() else "cpu"
    raise SegregError(
        f'train.device: {count()} processes can\'t compute on "{name}"',
        hint='"auto" and "cuda" give each process a GPU of its own; "cpu" works too',
    )


def from_main(make: Callable[[], T]) -> T:
    """Return every process the value that the main one makes; it is made there alone."""
    if count() == 1:
        return make()
    import torch.distributed as dist

    box: list[T | None] = [make() if is_main() else None]
    dist.broadcast_object_list(box, src=0)
    return cast("T", box[0])


def gathered(value: T) -> list[T]:
    """Return every process's value, in the order of their ranks. All wait for each other."""
    if count() == 1:
        return [value]
    import torch.distributed as dist

    values: list[T | None] = [None] * count()
    dist.all_gather_object(values, value)
    return cast("list[T]", values)


def barrier() -> None:
    """Wait until every process is here."""
    gathered(None)


def any_of(*asked: bool) -> tuple[bool, ...]:
    """Return for each question whether any process says yes."""
    if count() == 1:
        return asked
    import torch
    import torch.distributed as dist

    votes = torch.tensor(asked, dtype=torch.uint8)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return tuple(bool(vote) for vote in votes)


def as_main_has(tensors: Iterable[Tensor]) -> None:
    """Fill tensors with what those of the main process hold, in place."""
    if count() == 1:
        return
    import torch.distributed as dist

    for tensor in tensors:
        dist.broadcast(tensor.detach(), src=0)


@contextlib.contextmanager
def one_of_each_node_first() -> Iterator[None]:
    """Let one process of each machine through before its others, which then find what it downloaded and prepared.

    It may take any time: who waits looks at a note rather than waiting in an exchange. None may begin inside.
    """
    if count() == 1:
        yield
        return
    store = _store()
    note = f"{from_main(lambda: secrets.token_hex(8))}/{_node()}"
    while local_rank() != 0 and not store.check([note]):
        time.sleep(0.05)
    yield
    if local_rank() == 0:
        store.set(note, "done")


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started, for as long as the context lasts.

    What one of them raises ends all: the first to fail raises it, the others `SystemExit` with the status that the
    command line would give. One that is waiting for something that will never come is ended.

    Raises:
        SegregError: another process ended without a word, as where memory runs out.
    """
    if not launched() or count() > 1:
        yield
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    store, number, total = next(iter(rendezvous("env://", timeout=PATIENCE)))
    # A name of its own for the second group that a script makes, where the first one's notes are still there.
    begun = store.add(f"segreg/begun/{number}", 1)
    store = dist.PrefixStore(f"segreg/{begun}", store)  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=total, timeout=PATIENCE)
    left = threading.Event()
    # A connection of its own: an answer that is long in coming would hold up the main thread's.
    watcher = threading.Thread(target=_watch, args=(store.clone(), left), name="segreg-processes", daemon=True)
    watcher.start()
    try:
        yield
        barrier()  # who holds the notes leaves last
    except BaseException as error:
        left.set()
        raise _raised_once(error, store) from None
    left.set()
    watcher.join(GRACE_SECONDS)  # a thread inside the store while the process ends aborts it
    dist.destroy_process_group()


def refuse_several(command: str) -> None:
    """Let a command continue that is for one process; where torchrun started several, they say so once.

    Raises:
        SegregError: this process is one of several.
    """
    if launched():
        with processes():
            raise SegregError(
                f"segreg {command} is for one process, and torchrun started {count()}",
                hint='leave torchrun out; several processes share "segreg run" alone',
            )


def _raised_once(error: BaseException, store: Store) -> BaseException:
    """Return what this process is to raise: the error where it is the first to fail, else the first one's status."""
    status = _status(error)
    try:
        first = store.add(_ENDED, 1) == 1
        if first:
            store.set(_STATUS, str(status))
        else:
            status = int(store.get(_STATUS))
        store.add(_KNOWN, 1)
        # The main process may be the one that holds the notes: it leaves when the others have read them.
        end = time.monotonic() + GRACE_SECONDS + 2
        while is_main() and store.add(_KNOWN, 0) < count() and time.monotonic() < end:
            time.sleep(0.05)
    except RuntimeError:  # who held the notes is gone
        first = True
    if not first:
        return SystemExit(status)
    if _of_the_network(error):
        return SegregError(
            "another process of this run ended without a word, or can't be reached",
            hint="as where memory runs out; torchrun tells how it ended. Go on with: segreg run --resume RUN",
        )
    return error


def _status(error: BaseException) -> int:
    """Return the status that the command line ends with for an error."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 2 if isinstance(error, SegregError) or _of_the_network(error) else 1


def _of_the_network(error: BaseException) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _watch(store: Store, left: threading.Event) -> None:
    """End this process when another has ended and it has not noticed, waiting for what will never come."""
    while not left.wait(0.5):
        try:
            status = int(store.get(_STATUS)) if store.check([_STATUS]) else None
        except RuntimeError:  # who held the notes is gone
            status = 2
        if status is not None:
            if not left.wait(GRACE_SECONDS):
                with contextlib.suppress(RuntimeError):
                    store.add(_KNOWN, 1)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
            return


def _store() -> Store:
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def _node() -> str:
    return f"{socket.gethostname()}/{os.environ.get('GROUP_RANK', '0')}"
