"""What a measurement changes in the whole program, such as the number of threads, it puts back."""

import contextlib
import gc
import os
import random
import signal
import sys
from pathlib import Path

import pytest
import torch

from mnist_gpu import benchmark
from mnist_gpu.benchmark import SECTIONS
from mnist_gpu.chapters import chapter_07
from mnist_gpu.data import DeviceBatches
from mnist_gpu.device import using_threads
from mnist_gpu.faster import ladder
from mnist_gpu.faster.ladder import RUNGS
from mnist_gpu.measuring import climb, timing, workloads

CPU = torch.device("cpu")
BEFORE = 3  # threads: no measurement here takes so many
# As little as the sections can do.
LITTLE = {
    "ceilings": {"sizes": (8,), "mebibytes": (1,), "seconds": 0.001},
    "crossover": {"batch_sizes": (4,), "widths": (2,), "rounds": 1, "call_seconds": 0.001},
    "ladder": {"steps": 2, "rounds": 1},
}


def state() -> tuple:
    """What is set for the whole program."""
    backends = torch.backends
    return (
        (torch.get_num_threads(), torch.get_num_interop_threads()),
        {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        (backends.fp32_precision, backends.cuda.matmul.fp32_precision, backends.mkldnn.fp32_precision),
        (torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")),
        (torch.are_deterministic_algorithms_enabled(), backends.cudnn.benchmark, gc.isenabled()),
        (random.getstate(), signal.getsignal(signal.SIGINT), os.getcwd(), list(sys.path)),
    )


@pytest.fixture(autouse=True)
def before(monkeypatch):
    """What is set before a test, with a number of threads of its own, on two CPUs."""
    for module in (workloads, chapter_07):
        monkeypatch.setattr(module, "usable_cpus", lambda: 2)
    torch.set_num_threads(BEFORE)
    return state()


@pytest.fixture
def little(monkeypatch, mnist):
    """Ten batches in every pipeline, and nothing is compiled."""

    def few(kind, device="cpu", **loading):
        return DeviceBatches(mnist[0][:1280], mnist[1][:1280], device=device)

    monkeypatch.setattr(ladder, "make_batches", few)
    eager = [rung for rung in RUNGS if not rung.name.startswith("compiled")]
    monkeypatch.setattr(climb, "rungs", lambda names: [r for r in eager if names is None or r.name in names])


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_puts_back_what_it_changes_before_it_hands_anything_over(name, little, before, monkeypatch):
    seen = []

    def run(fail):
        """The section. Its measurements by `measure` or `alternate` end with the errors in `fail`, by number."""

        @contextlib.contextmanager
        def watching():
            seen.append(len(seen) + 1)
            yield
            if error := fail.get(seen[-1]):
                raise error

        seen.clear()
        monkeypatch.setattr(timing, "watching", watching)
        return SECTIONS[name](CPU, **LITTLE[name])

    found = [state() == before for _ in run({})]
    assert found and all(found) and state() == before
    for number in {1, len(seen)}:
        for error in (RuntimeError("it failed"), KeyboardInterrupt()):
            with pytest.raises(type(error)):
                for _ in run({number: error}):
                    assert state() == before
            assert state() == before


def test_threads_are_set_for_a_block_and_put_back(before):
    for error in (RuntimeError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(error), using_threads(2):
            with using_threads():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 2
            raise error
        assert state() == before
    with pytest.raises(ValueError, match="threads is 0"), using_threads(0):
        pytest.fail("it began")
    assert state() == before


def test_the_benchmark_leaves_no_variable_that_it_or_the_compiler_set(before, monkeypatch, capsys):
    """torch.compile sets TRITON_CACHE_DIR at its first use, to a folder in the one that is gone afterwards."""
    folders = []

    def compiling(device, **options):
        folders.append(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        assert list(folders[-1].iterdir()) == []
        os.environ["TRITON_CACHE_DIR"] = str(folders[-1] / "triton")
        yield from ()

        if len(folders) > 1:
            raise RuntimeError

    monkeypatch.setitem(SECTIONS, "ceilings", compiling)
    for status in (0, 1):  # an error ends its section
        assert benchmark.run(only=["ceilings"]) == status
        assert state() == before and not any(folder.exists() for folder in folders)
