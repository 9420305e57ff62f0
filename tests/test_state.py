"""What a measurement changes in the whole program, such as the number of threads, it puts back."""

import contextlib
import gc
import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mnist_gpu import benchmark
from mnist_gpu.benchmark import SECTIONS
from mnist_gpu.chapters import chapter_03, chapter_05, chapter_07
from mnist_gpu.chapters.chapter_06 import account
from mnist_gpu.data import DeviceBatches
from mnist_gpu.device import using_threads
from mnist_gpu.faster import ladder
from mnist_gpu.faster.ladder import PLAIN, RUNGS, Rung, plain
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.measuring import climb, prediction, timing, workloads
from mnist_gpu.measuring.climb import Climb, measure_ladder
from mnist_gpu.measuring.prediction import measured_limits
from mnist_gpu.measuring.timing import in_turn
from mnist_gpu.measuring.workloads import repeat, train_part

CPU = torch.device("cpu")
BEFORE = 3  # threads: no measurement here takes so many
# Of the sections that are there: as little as they can do. One that is added runs with its quick settings.
LITTLE = {
    "ceilings": {"sizes": (8,), "mebibytes": (1,), "seconds": 0.001},
    "pipelines": {"batches": 2, "rounds": 1},
    "account": {"steps": 1, "rounds": 1},
    "crossover": {"batch_sizes": (4,), "widths": (2,), "rounds": 1, "call_seconds": 0.001},
    "ladder": {"steps": 2, "rounds": 1},
    "ensemble": {"counts": (2,), "steps": 1, "rounds": 1},
}


def state() -> dict:
    """What is set for the whole program."""
    backends = torch.backends
    return {
        "threads": torch.get_num_threads(),
        "threads between operations": torch.get_num_interop_threads(),
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "precision": (backends.fp32_precision, backends.cuda.matmul.fp32_precision, backends.mkldnn.fp32_precision),
        "type": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), backends.cudnn.benchmark),
        "garbage collection": gc.isenabled(),
        "random": random.getstate(),
        "interrupt": signal.getsignal(signal.SIGINT),
        "folder": os.getcwd(),
        "path": list(sys.path),
    }


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    for module in (workloads, chapter_07):
        monkeypatch.setattr(module, "usable_cpus", lambda: 2)


@pytest.fixture(autouse=True)
def before():
    """What is set before a test, with a number of threads of its own."""
    torch.set_num_threads(BEFORE)
    return state()


@pytest.fixture
def little(monkeypatch, mnist):
    """Ten batches in every pipeline, and nothing is compiled."""

    def few(kind, device="cpu", **loading):
        return DeviceBatches(mnist[0][:1280], mnist[1][:1280], device=device)

    for module in (account, chapter_03, chapter_05, chapter_07, ladder):
        monkeypatch.setattr(module, "make_batches", few)
    eager = [rung for rung in RUNGS if not rung.name.startswith("compiled")]
    monkeypatch.setattr(climb, "rungs", lambda names: [r for r in eager if names is None or r.name in names])


def watched(monkeypatch, fail=None) -> list:
    """Notes every measurement by `measure` or `alternate`, and lets them end with the errors in `fail`, by number."""
    seen = []

    @contextlib.contextmanager
    def watching():
        seen.append(len(seen) + 1)
        yield
        if error := (fail or {}).get(seen[-1]):
            raise error

    monkeypatch.setattr(timing, "watching", watching)
    return seen


# Every section of the benchmark


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_puts_back_what_it_changes_before_it_hands_anything_over(name, little, before, monkeypatch):
    def run():
        return SECTIONS[name].measure(CPU, **(SECTIONS[name].quick | LITTLE.get(name, {})))

    measurements, items = watched(monkeypatch), 0
    for _ in run():
        items += 1
        assert state() == before
    assert items and measurements and state() == before
    for number in {1, len(measurements)}:
        for error in (RuntimeError("it failed"), KeyboardInterrupt()):
            watched(monkeypatch, {number: error})
            with pytest.raises(type(error)):
                for _ in run():
                    assert state() == before
            assert state() == before


def test_sides_in_turn_have_the_threads_asked_for_or_those_that_are_set(before):
    for threads, used in ((2, 2), (None, BEFORE)):
        seen = []
        for _ in in_turn({"a": lambda seen=seen: seen.append(torch.get_num_threads())}, rounds=2, threads=threads):
            assert state() == before
        assert seen == [used] * 3


# Every other function that sets something


def test_threads_are_set_for_a_block_and_put_back(before):
    with using_threads(2):
        assert torch.get_num_threads() == 2
        with using_threads():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    assert state() == before
    for error in (RuntimeError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(error), using_threads(1):
            raise error
        assert state() == before
    with using_threads(None):
        assert state() == before
        torch.set_num_threads(1)
    assert state() == before
    with pytest.raises(ValueError, match="threads is 0"), using_threads(0):
        pytest.fail("it began")
    assert state() == before


def climbed():
    upwards = Climb(CPU, 8, steps=2, threads=2)
    upwards.show(PLAIN)
    assert upwards.reach(Rung("again", plain, None)) is None
    assert [m.threads for m in upwards.measure(rounds=1, floor=False)] == [2, 2]


def above():
    measured = list(measure_ladder(CPU, names=[PLAIN], hidden=8, steps=2, rounds=1))
    assert list(chapter_07.above_the_floor(measured)) == [PLAIN]


CALLS = {  # and a part of it that may fail
    "repeat": (lambda: repeat(lambda: torch.rand(1), 1, 2), torch, "rand"),
    "a training": (lambda: chapter_05.training(CPU, 2)(), chapter_05, "train_part"),
    "run_predict": (lambda: chapter_05.run_predict("T4", 1, 1), chapter_05, "measure"),
    "measured_limits": (lambda: measured_limits(CPU, 2), prediction, "two_ceilings"),
    "Climb": (climbed, climb, "train_part"),
    "above_the_floor": (above, chapter_07, "measure"),
    "benchmark": (lambda: benchmark.run(only=["ceilings"]), benchmark, "benchmark"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_function_puts_back_what_it_changes(name, little, before, monkeypatch):
    call, module, part = CALLS[name]
    monkeypatch.setattr(prediction, "two_ceilings", lambda device: (1.0, 1.0))
    monkeypatch.setitem(SECTIONS, "ceilings", replace(SECTIONS["ceilings"], full=LITTLE["ceilings"]))
    call()
    assert state() == before
    for error in (RuntimeError("it failed"), KeyboardInterrupt()):

        def fail(*args, error=error, **options):
            assert torch.get_num_threads() != BEFORE
            raise error

        monkeypatch.setattr(module, part, fail)
        with pytest.raises(type(error)):
            call()
        assert state() == before


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_a_rung_that_stops_leaves_nothing_changed(error, little, before):
    def make(device, hidden):
        if error:
            raise error
        return plain(device, hidden)

    upwards = Climb(CPU, 8, steps=2, threads=2)
    with pytest.raises(KeyboardInterrupt) if error is KeyboardInterrupt else contextlib.nullcontext():
        upwards.reach(Rung("it", make, None))
    assert state() == before


def test_the_benchmark_leaves_no_variable_that_it_or_the_compiler_set(before, monkeypatch, capsys):
    """torch.compile sets TRITON_CACHE_DIR at its first use, to a folder in the one that is gone afterwards."""
    folders = []

    def compiling(device, **options):
        folders.append(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        assert list(folders[0].iterdir()) == []
        os.environ["TRITON_CACHE_DIR"] = str(folders[0] / "triton")
        yield from ()

    monkeypatch.setitem(SECTIONS, "ceilings", replace(SECTIONS["ceilings"], measure=compiling))
    benchmark.run(only=["ceilings"])
    assert state() == before and not folders[0].exists()


def test_after_a_part_of_an_epoch_a_pass_is_whole_again(little):
    class Epoch(WholeEpoch):
        def run(self, drawn):
            ran.append(len(drawn))
            return torch.zeros(len(drawn))

    model, _, batches = plain(CPU, 8)
    ran, epoch = [], Epoch(batches)
    assert len(train_part((model, epoch.step, epoch), 2).losses) == 2
    assert len(train_part((model, epoch.step, epoch)).losses) == len(list(epoch)) == 10 and ran == [2, 10, 10]
