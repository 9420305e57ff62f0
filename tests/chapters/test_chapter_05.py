"""Chapter 05's room: its sides, the map of steps, predictions for cards that are not here."""

from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy
import pytest
import torch
from guarded import any_adapter
from wrong_answers_05 import timed

from mnist_gpu.chapters import chapter_05 as lab
from mnist_gpu.measuring import workloads
from mnist_gpu.measuring.exercises import RIGHT, judge
from mnist_gpu.measuring.operations import step_bytes, step_flops
from mnist_gpu.measuring.prediction import Range
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.timing import compare
from mnist_gpu.webgpu.gpu import CHOICE, Array, the_gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ONE, TWO = "CPU with 1 thread", "CPU with 2 threads"


@pytest.fixture(autouse=True)
def two_cpus_and_no_webgpu(monkeypatch):
    monkeypatch.setattr(workloads, "usable_cpus", lambda: 2)
    monkeypatch.setattr(lab, "webgpu_missing", lambda: "needs a GPU")
    yield
    plt.close("all")


@pytest.fixture
def webgpu(monkeypatch):
    monkeypatch.setenv(CHOICE, any_adapter())
    monkeypatch.setattr(lab, "webgpu_missing", lambda: None)
    return the_gpu()


def test_a_map_is_measured_in_seconds_of_one_step_with_the_threads_of_each_side(monkeypatch):
    calls = []
    monkeypatch.setattr(lab, "training_step", lambda *size: lambda: calls.append(torch.get_num_threads()))
    monkeypatch.setattr(lab, "seconds_of", lambda steps, device: steps.keywords["threads"] / 1000)
    monkeypatch.setattr(lab, "alternate", lambda sides, **o: {n: [f() or 0.6] * o["rounds"] for n, f in sides.items()})
    found = list(lab.measure_crossover(CPU, batch_sizes=(4, 8), widths=(2,), rounds=3, call_seconds=0.02))
    assert calls == 2 * ([1] * 20 + [2] * 10) and torch.get_num_threads() == 1
    assert all(m.seconds == pytest.approx([0.03 * m.threads] * 3) for m in found)
    assert [(*m.parameters.values(), m.threads) for m in found] == [(b, 2, t) for b in (4, 8) for t in (1, 2)]
    assert found[0].per_call == {"flop": sum(step_flops(4, 2)), "bytes": step_bytes(4, 2), "images": 4}


def test_the_sides_are_the_cpu_and_the_gpus_there_are_but_no_software(monkeypatch):
    assert lab.own_gpu(CPU) is None
    assert lab.sides_of(GPU) == {ONE: (CPU, 1), TWO: (CPU, 2), "CUDA": (GPU, 1)}
    assert lab.two_of(lab.sides_of(CPU)) == (ONE, TWO) and lab.two_of({ONE: (CPU, 1)}) == (ONE, ONE)
    monkeypatch.setattr(lab, "webgpu_missing", lambda: None)
    for kind in ("software", "integrated", "discrete", "unknown"):
        monkeypatch.setattr(lab, "the_gpu", lambda kind=kind: SimpleNamespace(adapter=SimpleNamespace(kind=kind)))
        assert ("WebGPU" in lab.sides_of(CPU)) is (kind != "software")
    assert lab.two_of(lab.sides_of(CPU)) == (TWO, "WebGPU") and lab.two_of(lab.sides_of(GPU)) == (TWO, "CUDA")


@pytest.mark.gpu
def test_a_gpu_is_measured_and_takes_products(gpu):
    found = list(lab.measure_crossover(gpu, batch_sizes=(4,), widths=(2,), rounds=2, call_seconds=0.001))
    assert [m.device for m in found] == ["cpu", "cpu", gpu.type] and all(min(m.seconds) > 0 for m in found)
    own = lab.own_gpu(gpu)
    assert own.submit(33) is not None and own.wait() is None and own.name


def test_steps_through_webgpu_train_and_give_their_memory_back(webgpu, monkeypatch):
    steps, arrays = lab.counted_step(lab.WEBGPU, 1, 7, 5)
    (loss,) = (a for a in arrays if a.shape == (1,))
    assert loss.read() > (steps(100) or loss.read())
    made, released = [], []
    monkeypatch.setattr(lab, "sides_of", lambda device: {ONE: (CPU, 1), "WebGPU": (lab.WEBGPU, 1)})
    monkeypatch.setattr(Array, "__init__", lambda self, *a, new=Array.__init__: made.append(new(self, *a)))
    monkeypatch.setattr(Array, "release", lambda self, end=Array.release: released.append(end(self)))
    found = list(lab.measure_crossover(CPU, batch_sizes=(1, 5), widths=(3,), rounds=2, call_seconds=0.001))
    assert [(m.device, m.proof) for m in found] == 2 * [("cpu", {}), ("webgpu", {"hardware": webgpu.name})]
    assert all(min(m.seconds) > 0 for m in found) and len(made) == len(released) > 0


def test_the_readers_gpu_takes_products_of_which_each_size_is_prepared_once(webgpu, monkeypatch):
    asked, submit = [], webgpu.submit
    monkeypatch.setattr(webgpu, "submit", lambda calls: asked.append(calls[0]) or submit(calls))
    gpu = lab.own_gpu(CPU)
    for n in (65, 3, 65):
        gpu.submit(n)
    gpu.wait()
    assert gpu.name == webgpu.name and asked[0] is asked[2] is not asked[1]
    a, b, out = asked[1].arrays
    a.write(numpy.arange(9, dtype=numpy.float32)), b.write(numpy.eye(3, dtype=numpy.float32)), gpu.submit(3)
    assert (out.read() == range(9)).all()


def test_a_map_has_brackets_where_nothing_is_claimed_and_says_who_wins():
    seconds = [2.0 + 0.01 * i for i in range(10)]
    slow = [Timed("crossover", "step", "cpu", 1, seconds, {"batch_size": 1, "hidden": w}) for w in (3, 2, 1)]
    measured = [compare({"a": seconds, "b": [x] * 10}, "a", "b", of=3) for x in (1.0, 4.0, 2.05)]
    axes, says = lab.ratio_map(measured, slow, "it")
    assert [t.get_text() for t in axes.texts] == [measured[0].times, measured[1].times, f"({measured[2].times})"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["3", "2", "1"]  # as they were measured
    assert "faster in 1, slower in 1, open in 1 (" in says and measured[0].times in says
    axes, says = lab.ratio_map([Range(1.5, 3.0), Range(0.5, 0.9), Range(0.5, 2.0)], slow, "likely", [1.0, 0.25, 3.0])
    assert [t.get_text() for t in axes.texts] == ["1.5 to 3\nmodel 1", "0.5 to 0.9\nmodel 0.25", "(0.5 to 2)\nmodel 3"]
    assert axes.images[0].get_array()[0, 1] < 0 < axes.images[0].get_array()[0, 0]  # each side its colour


def test_other_right_answers_are_right():
    for answer in (partial(timed, warm_each=True), lambda *given: numpy.array(timed(*given))):
        assert judge(lab.EXERCISES[1], answer).status == RIGHT
