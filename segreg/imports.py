"""How importing is made cheap: what libraries name long before it is used is put off, and nothing is swept meanwhile.

torchvision, timm and every optimizer of torch name torch's compiler, and torchmetrics names `scipy.signal`. Importing
these takes nearly as long as importing torch, and most runs never use them. Here a module stands in for each meanwhile.
It has the few names that the libraries want when they are imported. Asked for anything else, or for a module below it,
the stand-ins make way for the modules themselves, which are then imported as ever; and none is left when its time is
over.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

COMPILER = "torch._dynamo"


@contextmanager
def unswept() -> Iterator[None]:
    """Pause the search for objects that nothing reaches: importing makes very many, and next to none of that kind.

    What is made meanwhile counts as old afterwards, so that the next search does not begin with it.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()


@contextmanager
def compiler_when_asked() -> Iterator[None]:
    """Let torch's compiler be imported by who compiles, and by nobody else."""
    spared: list[FunctionType] = []

    def disable(function: Any = None, *arguments: Any, **options: Any) -> Any:
        if function is None:
            return lambda function: disable(function, *arguments, **options)
        if type(function) is not FunctionType:
            stand_ins.leave()
            return importlib.import_module(COMPILER).disable(function, *arguments, **options)
        if options.get("wrapping") is False:
            spared.append(function)  # torch._compile, which remembers what it is given on the function
            return function
        return _disabled_once_compiling(function, arguments, options)

    def forget() -> None:
        for function in spared:
            function.__dict__.pop("__dynamo_disable", None)

    names = {
        COMPILER: {"disable": disable, "graph_break": _nothing},
        f"{COMPILER}.utils": {"is_compile_supported": _called_later(f"{COMPILER}.utils", "is_compile_supported")},
    }
    stand_ins = _StandIns(names, forget)
    with stand_ins.standing():
        yield


@contextmanager
def signal_processing_when_asked() -> Iterator[None]:
    """Let `scipy.signal` be imported by who calls it.

    torchmetrics looks whether it has a `hamming`, for a package that wants the one of `scipy.signal.windows` there.
    """
    names = {"scipy.signal": {"hamming": _called_later("scipy.signal.windows", "hamming")}}
    with _StandIns(names, _nothing).standing():
        yield


def _nothing(*_: object) -> None:
    """Does what `torch._dynamo.graph_break` does outside of a compiled function."""


def _called_later(module: str, name: str) -> Callable[..., Any]:
    def called(*arguments: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **options)

    return called


def _disabled_once_compiling(
    function: FunctionType, arguments: Sequence[Any], options: Mapping[str, Any]
) -> Callable[..., Any]:
    """Return the function, to be left alone by the compiler as soon as there is one."""
    disabled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def called(*given: Any, **named: Any) -> Any:
        nonlocal disabled
        compiler = sys.modules.get(COMPILER)
        if disabled is None and type(compiler) is ModuleType and hasattr(compiler, "disable"):
            disabled = compiler.disable(function, *arguments, **options)
        return (disabled or function)(*given, **named)

    called.__dict__.update(_torchdynamo_disable=True, _torchdynamo_disable_msg=options.get("reason"))
    return called


class _StandIn(ModuleType):
    """Has the given names; for any other one the module itself is imported."""

    def __init__(self, name: str, given: Mapping[str, Any], leave: Callable[[], None]) -> None:
        super().__init__(name)
        self.__dict__.update(given, __path__=[], __spec__=ModuleSpec(name, None), leave=leave)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what is asked of every module in turn, by inspect and by warnings
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__dict__["leave"]()
        return getattr(importlib.import_module(self.__name__), name)


class _StandIns:
    """Modules that stand in for others, and the finder that is asked for what lies below them."""

    def __init__(self, given: Mapping[str, Mapping[str, Any]], forget: Callable[[], None]) -> None:
        self.modules = {name: _StandIn(name, names, self.leave) for name, names in given.items()}
        self.forget = forget

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Let them stand in, unless one of the modules is imported already."""
        if any(name in sys.modules for name in self.modules):
            yield
            return
        sys.modules.update(self.modules)
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """Make way for the modules themselves."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for name, module in self.modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        self.forget()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Import the module above first, which may bring what is looked for."""
        above = name.rpartition(".")[0]
        if above not in self.modules:
            return None
        self.leave()
        importlib.import_module(above)
        if name in sys.modules:
            return ModuleSpec(name, _Brought(sys.modules[name]))
        return importlib.util.find_spec(name)


class _Brought(Loader):
    """Return a module that is imported already, as it is."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec
