"""Chapter 06's room: its measurements, what is made of them, its figures, and what is read from a profile."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from torch.profiler import profile, record_function

from mnist_gpu.chapters import chapter_06 as lab
from mnist_gpu.chapters.chapter_06 import account
from mnist_gpu.measuring.prediction import Limits
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.workloads import training_step

CPU = torch.device("cpu")
SECONDS = {  # launching takes 2, updating 1, and computing 0.5 per image
    "whole, textbook": 80.0, "whole, device": 67.25, "load, textbook": 10.0, "load, device": 0.25, "copy": 0.1,
    "step, waiting": 67.3, "step": 67.0, "smallest network": 2.0, "step of 1": 3.5,
    "step of 16": 11.0, "step of 256": 131.0,
}  # fmt: skip
NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "06_where_the_time_goes.ipynb"


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def timed(seconds):
    shapes = {name: {"batch_size": int(name[8:]) if name.startswith("step of") else 128} for name in seconds}
    return {name: Timed("account", name, "cpu", 1, [s], shapes[name]) for name, s in seconds.items()}


# The measurements


def test_every_part_of_the_account_is_done_as_often_as_there_are_steps(monkeypatch):
    done = []

    class Batches(list):
        def __iter__(self):
            return (done.append("load") or batch for batch in super().__iter__())

    class Loss:
        item = staticmethod(lambda: done.append("wait"))

    def once(sides, **options):
        for name, function in sides.items():
            done.clear()
            function()
            yield name, [6.0 + done.count("load"), 6.0 + done.count("step"), 6.0 + done.count("wait")]

    batch = torch.zeros(128, 1, 28, 28), torch.zeros(128, dtype=torch.int64)
    monkeypatch.setattr(account, "make_batches", lambda kind, device="cpu": Batches([batch] * 9))
    monkeypatch.setattr(account, "training_step", lambda device, n, hidden: lambda: done.append("step") or Loss())
    monkeypatch.setattr(account, "train_part", lambda training, steps: done.extend([training] * steps))
    monkeypatch.setattr(account, "textbook", lambda device: "textbook")
    monkeypatch.setattr(account, "plain", lambda device: "plain")
    monkeypatch.setattr(account, "in_turn", once)
    found = {m.name: m for m in lab.measure_account(CPU, sizes=(3,), steps=4)}
    every = {
        "load, textbook": (4, 0, 0), "load, device": (4, 0, 0), "load, textbook, with steps": (4, 4, 4),
        "load, device, with steps": (4, 4, 0), "copy": (0, 0, 0), "step, waiting": (0, 4, 4), "step": (0, 4, 0),
        "smallest network": (0, 4, 0), "step of 3": (0, 4, 0),
    }  # fmt: skip
    assert {name: tuple(4 * s - 6 for s in m.seconds) for name, m in found.items() if "whole" not in name} == every
    shapes = [tuple(found[name].parameters.values()) for name in ("step", "smallest network", "step of 3")]
    assert shapes == [(128, 128), (1, 1), (3, 128)]


def test_only_the_step_is_timed_and_what_comes_before_it_takes_as_long_as_loading(monkeypatch):
    monkeypatch.setattr(account, "training_step", lambda *a: lambda: time.sleep(0.002))
    monkeypatch.setattr(account, "make_batches", lambda *a, **k: ["batch"] * 3)
    monkeypatch.setattr(account, "seconds_of", lambda function, device: 0.01)
    start = time.perf_counter()
    found = {m.name.removeprefix("step after "): m for m in lab.measure_disturbance(steps=3, rounds=2)}
    took = time.perf_counter() - start
    assert list(found) == ["nothing", "loading", "a pause", "other code", "other data"]
    assert all(len(m.seconds) == 2 and min(m.seconds) >= 0.002 for m in found.values())
    # Three of the five are preceded by 10 ms, in every step of two rounds and the warm-up, which no time has in it.
    assert took >= 27 * 0.01 and 3 * sum(sum(m.seconds) for m in found.values()) <= took - 18 * 0.01


def test_the_section_has_the_account_and_on_a_cpu_what_disturbs_a_step():
    found = {m.name: m for m in lab.SECTION.measure(CPU, steps=1, rounds=2)}
    assert {*SECONDS, "load, device, with steps", "step after nothing", "step after loading"} <= found.keys()
    assert all(len(m.seconds) == 2 and min(m.seconds) > 0 for m in found.values())


@pytest.mark.gpu
def test_the_account_of_a_gpu(gpu):
    found = list(lab.SECTION.measure(gpu, steps=2, rounds=2))
    assert SECONDS.keys() <= {m.name for m in found} and {m.device for m in found} == {gpu.type}


# What is made of them


@pytest.fixture
def parts_of():
    """The subtractions, as they stand in the notebook."""
    cells = ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]]
    (definition,) = [c.split("\n\n\n")[0] for c in cells if c.startswith("def parts_of(")]
    exec(definition, names := {})
    return names["parts_of"]


def test_a_step_is_loading_copying_launching_updating_computing_and_waiting(parts_of):
    line = lab.line_of(timed(SECONDS))
    assert line == pytest.approx((3.0, 0.5))
    found = parts_of(SECONDS, *line, "textbook")
    expected = {"load": 10, "copy": 0.1, "launch": 2, "compute: update": 1, "compute: images": 64, "wait": 0.3}
    assert found == pytest.approx(expected)
    assert parts_of(SECONDS, *line, "device") == pytest.approx(expected | {"load": 0.25, "copy": 0, "wait": 0})
    noisy = SECONDS | {"step, waiting": 1.0}
    assert min(parts_of(noisy, 0.0, 0.5, "textbook").values()) == 0.0  # noise, no gain
    fixed, _ = lab.line_of(timed({"step of 1": 1.0, "step of 4": 1.6, "step of 10000": 2e3, "step of 20000": 4.4e3}))
    assert 0.5 < fixed < 1.1  # by relative errors: by absolute ones the largest steps would decide


def test_an_account_says_which_parts_are_smaller_than_what_the_sum_is_off_by(parts_of):
    seconds = {name: 1e-6 * us for name, us in SECONDS.items()}
    parts = parts_of(seconds, 3e-6, 0.5e-6, "textbook")
    axes, says = lab.account_bar(parts, 80e-6, "textbook, CPU")
    assert "off by 2.6 μs: more than copy, launch, compute: update, wait." in says
    assert axes.lines[0].get_xdata() == pytest.approx([80, 80])
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(77)  # but for 0.4, too little to draw
    assert "less than any" in lab.account_bar(parts, sum(parts.values()), "textbook, CPU").says


# The line and the roof


def test_the_line_is_drawn_on_linear_axes_with_the_point_that_it_predicts():
    axes, says = lab.line_fit(timed({n: 1e-6 * s for n, s in SECONDS.items()}), 3e-6, 0.5e-6)
    line, measured, held_out = axes.lines
    assert axes.get_xscale() == axes.get_yscale() == "linear" and axes.get_ylim()[0] == 0
    assert dict(zip(*line.get_data(), strict=True))[128] == pytest.approx(67) and line.get_xdata()[0] == 0
    assert list(measured.get_xdata()) == [1, 16, 256] and held_out.get_ydata() == pytest.approx([67])
    assert "fixed 3 μs" in says and "0.50 μs per image" in says


def test_a_point_lies_under_the_roof_of_operations_and_bytes():
    points = [("layer", 1, 1e9, 1e9, 0.1), ("layer", 128, 100e9, 1e9, 2.0), ("ReLU", 128, 1e9, 8e9, 0.5)]
    axes, says = lab.roofline(points, Limits(0.0, 100e9, 20e9))
    layer, _, _, roof = axes.lines
    assert layer.get_xdata() == pytest.approx([1, 100]) and layer.get_ydata() == pytest.approx([10, 50])
    assert roof.get_xdata()[1] == 5 and roof.get_ydata()[1:] == pytest.approx([100, 100])
    assert roof.get_ydata()[0] == pytest.approx(20 * roof.get_xdata()[0])
    assert "2 of 3 points" in says and "5.0 FLOP/byte" in says


# The profiler


def test_a_timeline_begins_with_a_step_and_shows_neither_it_nor_what_was_before():
    step = training_step(CPU, 128, 16)
    with profile() as watched:
        for i in range(3):
            with record_function(f"step {i}"):
                step()
    axes, says = lab.timeline(watched, "step 2")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CPU"]
    assert "aten::linear" in says and "step 2" not in says


def test_on_a_gpu_the_profilers_own_events_are_left_out_and_the_backward_pass_has_a_row_of_its_own(monkeypatch):
    def event(name, start, end, device="CPU", parent=None, thread=1):
        times, kind = SimpleNamespace(start=start, end=end), SimpleNamespace(name=device)
        return SimpleNamespace(name=name, time_range=times, device_type=kind, cpu_parent=parent, thread=thread)

    step = event("step 0", 10, 90)
    linear = event("aten::linear", 12, 30, parent=step)
    events = [
        event("aten::relu", 1, 5),  # before the step
        step,
        event("step 0", 15, 95, device="CUDA"),  # the same name, laid over the kernels
        event("Activity Buffer Request", 11, 2000),
        linear,
        event("aten::addmm", 14, 28, parent=linear),
        event("aten::mm", 40, 60, thread=2),
        event("a kernel", 50, 70, device="CUDA"),
    ]
    watched = SimpleNamespace(events=lambda: events)
    monkeypatch.setattr(lab.drawing, "timeline", lambda events, named: events)
    assert [(row, name, depth) for row, name, _, _, depth in lab.timeline(watched, "step 0")] == [
        ("CPU", "aten::linear", 0), ("CPU", "aten::addmm", 1),
        ("CPU, backward", "aten::mm", 0), ("CUDA", "a kernel", 0),
    ]  # fmt: skip
