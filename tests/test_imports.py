"""What is not imported until it is asked for, in processes of their own: this one has imported it long ago."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

import tiny_runs

ABOUT = f"""
import os, sys, types, warnings
warnings.simplefilter("error")
sys.path.insert(0, {str(tiny_runs.__file__).removesuffix("/tiny_runs.py")!r})
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

def real(name):
    return type(sys.modules.get(name)) is types.ModuleType
"""
IN_TIME = """
import torch
from segreg.imports import compiler_when_asked
with compiler_when_asked():
    import torchvision
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    weight.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    seen = []

    @torch.compiler.disable
    def hidden(x):
        seen.append(torch.compiler.is_compiling())
        return x.sin()

    @torch.compiler.disable(recursive=False)
    def also_hidden(x):
        return x.sin()

    assert torch.equal(also_hidden(weight), hidden(weight))
    assert "torch._dynamo.eval_frame" not in sys.modules and not real("torch._dynamo")
    assert weight.tolist() == [0, 0, 0]
    {asked}
{after}
graphs = []

def backend(graph, _):
    graphs.append([node.target for node in graph.graph.nodes if node.op.startswith("call")])
    return graph

ones = torch.ones(2)
compiled = torch.compile(lambda x: hidden(x.cos()) + 1, backend=backend)
torch.testing.assert_close(compiled(ones), ones.cos().sin() + 1)
assert [len(calls) for calls in graphs] == [1, 1], graphs  # cos before, + 1 after, and not what is hidden
assert seen == [False, False]
for function in (hidden, also_hidden):
    try:
        torch.compile(lambda x: function(x), backend="eager", fullgraph=True)(ones)
    except torch._dynamo.exc.Unsupported:
        pass
    else:
        raise AssertionError("the compiler traced what is hidden from it")
assert real("torch._dynamo") and real("torch._dynamo.utils")
assert sys.modules["torch._dynamo.config"] is torch._dynamo.config and torch._dynamo.config.__spec__.origin
rois = torch.tensor([[0.0, 0, 0, 4, 4]])
assert torchvision.ops.roi_align(torch.rand(1, 1, 8, 8), rois, 2).shape == (1, 1, 2, 2)
named = sys.modules["torchvision.ops.roi_align"].is_compile_supported
assert named("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
assert len(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)).graph.nodes) == 5
torch.optim.SGD([weight], lr=1.0).zero_grad()
"""
LATER = """
assert [name for name in sys.modules if name.startswith("torch._dynamo")] == []
assert "_dynamo" not in vars(torch) and not any("segreg" in type(f).__module__ for f in sys.meta_path)
"""
RUN = """
import segreg, tiny_runs
run = tiny_runs.run(sys.argv[1], "train.epochs=1", "encoder=resnet18", *sys.argv[2:])
assert run.results["epochs"] == 1
names = ("torch._dynamo", "torch._inductor", "torch._dynamo.eval_frame", "scipy.signal", "scipy.stats", "sympy")
print([name for name in names if name in sys.modules])
for name in ("timm", "torchvision", "torchmetrics"):
    assert name in sys.modules
again = segreg.load_run(run.directory.path)
again.model()
print([name for name in names if name in sys.modules])
"""
SIGNAL = """
from segreg.imports import signal_processing_when_asked
with signal_processing_when_asked():
    import scipy.signal, torchmetrics
    lent = scipy.signal.hamming
    assert "scipy.signal._signaltools" not in sys.modules
    assert lent(3).tolist() == scipy.signal.windows.hamming(3).tolist()
assert real("scipy.signal") or "scipy.signal" not in sys.modules
from scipy.signal import convolve
assert convolve([1, 2], [1, 1]).tolist() == [1, 3, 2]
import scipy.signal
assert real("scipy.signal")
import torch
from torchmetrics.functional.audio import permutation_invariant_training, scale_invariant_signal_noise_ratio
sound = torch.randn(2, 2, 50)
_, order = permutation_invariant_training(sound.flip(1), sound, scale_invariant_signal_noise_ratio)
assert order.tolist() == [[1, 0], [1, 0]]
"""


def in_a_process(code, *arguments):
    done = subprocess.run([sys.executable, "-c", ABOUT + code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_run_imports_no_compiler_and_leaves_nothing_in_its_place(tmp_path, optimizer):
    assert in_a_process(RUN, tmp_path, f"optimizer={{name: {optimizer}, lr: 0.01}}") == ["[]", "[]"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param("", id="afterwards"),
        pytest.param("torch.compile(torch.sin, backend='eager')(torch.ones(1))", id="compiling"),
        pytest.param("import torch._dynamo.config as config; assert config is torch._dynamo.config", id="a-module"),
        pytest.param("from torch._dynamo.backends.registry import list_backends; list_backends()", id="a-function"),
        pytest.param("torch._dynamo.config.verbose", id="an-attribute"),
    ],
)
def test_the_compiler_is_as_ever_when_it_is_asked_for(asked):
    in_a_process(IN_TIME.format(asked=asked or "pass", after="" if asked else LATER))


@pytest.mark.slow
def test_torchmetrics_and_signal_processing_are_as_ever():
    in_a_process(SIGNAL)


def test_what_is_imported_already_is_left_alone():
    import torch._dynamo

    from segreg.imports import compiler_when_asked

    before = sys.modules["torch._dynamo"], sys.modules["torch._dynamo.utils"], list(sys.meta_path)
    with compiler_when_asked():
        assert (sys.modules["torch._dynamo"], sys.modules["torch._dynamo.utils"], list(sys.meta_path)) == before
    assert torch._dynamo is before[0]


def test_nothing_is_swept_meanwhile_and_what_is_unreachable_is_found_afterwards():
    import weakref

    from segreg.imports import unswept

    class Ring:
        pass

    with unswept():
        assert not gc.isenabled()
        with unswept():
            ring = Ring()
            ring.itself = ring
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    left = weakref.ref(ring)
    del ring
    gc.collect()
    assert left() is None


def test_who_switched_the_search_off_keeps_it_off():
    from segreg.imports import unswept

    gc.disable()
    try:
        with unswept():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
