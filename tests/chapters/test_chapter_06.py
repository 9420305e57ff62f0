"""Chapter 06's room: its measurements, what is made of them, its figures, and what is read from a profile."""

import time
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from torch.profiler import profile, record_function

from mnist_gpu.chapters import chapter_06 as lab
from mnist_gpu.chapters.chapter_06 import account
from mnist_gpu.faster import ladder
from mnist_gpu.measuring import timing, workloads
from mnist_gpu.measuring.prediction import Limits
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.workloads import training_step
from mnist_gpu.training import make_step

CPU = torch.device("cpu")
SECONDS = {  # launching takes 2, updating 1, and computing 0.5 per image
    "whole, textbook": 80.0, "whole, device": 67.25, "load, textbook": 10.0, "load, device": 0.25, "copy": 0.1,
    "step, waiting": 67.3, "step": 67.0, "smallest network": 2.0, "step of 1": 3.5,
    "step of 16": 11.0, "step of 256": 131.0,
}  # fmt: skip
TOGETHER = {"load, textbook, with steps": 79.0, "load, device, with steps": 60.0}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def timed(seconds):
    shapes = {name: {"batch_size": int(name[8:]) if name.startswith("step of") else 128} for name in seconds}
    return {name: Timed("account", name, "cpu", 1, [s], shapes[name]) for name, s in seconds.items()}


# The measurements


class Batches(list):
    """Nine times the same batch, of one kind; `seen` gets what is done, and in which part of the account."""

    seen, part = [], None

    def __init__(self, kind, device="cpu"):
        super().__init__([(torch.zeros(128, 1, 28, 28), torch.zeros(128, dtype=torch.int64))] * 9)
        self.kind = kind

    def __iter__(self):
        for batch in super().__iter__():
            self.seen.append((Batches.part, self.kind))
            yield batch


@pytest.fixture
def few_batches(monkeypatch):
    monkeypatch.setattr(Batches, "seen", [])
    for module in (account, ladder):
        monkeypatch.setattr(module, "make_batches", Batches)


def test_every_part_of_the_account_is_done_as_often_as_there_are_steps(few_batches, monkeypatch):
    item = torch.Tensor.item

    def noted_step(model, optimizer):
        step = make_step(model, optimizer)

        def noting(images, labels):
            Batches.seen.append((Batches.part, (len(images), model.hidden.out_features)))
            return step(images, labels)

        return noting

    def alternate(sides, *, into, **options):
        for Batches.part, function in sides.items():
            function()
            into[Batches.part] = [6.0] * 3

    for module in (workloads, ladder):
        monkeypatch.setattr(module, "make_step", noted_step)
    monkeypatch.setattr(torch.Tensor, "item", lambda self: Batches.seen.append((Batches.part, "wait")) or item(self))
    monkeypatch.setattr(timing, "alternate", alternate)
    found = list(lab.measure_account(CPU, sizes=(3,), steps=4))
    step = 128, 128
    every = {  # a training waits once more, for the end of its epoch
        "whole, textbook": 4 * ["dataloader", step, "wait"] + ["wait"],
        "whole, device": 4 * ["device", step] + ["wait"],
        "load, textbook": 4 * ["dataloader"], "load, device": 4 * ["device"],
        "load, textbook, with steps": 4 * ["dataloader", step, "wait"],
        "load, device, with steps": 4 * ["device", step],
        "copy": [], "step, waiting": 4 * [step, "wait"], "step": 4 * [step],
        "smallest network": 4 * [(1, 1)], "step of 3": 4 * [(3, 128)],
    }  # fmt: skip
    assert [m.name for m in found] == list(every)
    for m in found:
        assert [what for part, what in Batches.seen if part == m.name] == every[m.name], m.name
        assert (m.section, m.threads, m.seconds) == ("account", 1, [1.5] * 3)
        assert tuple(m.parameters.values()) == {"smallest network": (1, 1), "step of 3": (3, 128)}.get(m.name, step)


def test_the_batch_grows_until_the_step_takes_much_longer_than_that_of_one_image(monkeypatch):
    monkeypatch.setattr(account, "training_step", lambda device, n, hidden: n)

    def sizes(seconds_of):
        monkeypatch.setattr(account, "seconds_of", lambda n, device: seconds_of(n))
        return list(account.growing_steps(CPU))

    assert sizes(lambda n: 3 + 0.05 * n) == [1, 4, 16, 64, 256, 1024]  # a CPU
    assert sizes(lambda n: max(3, n / 1000)) == [4**i for i in range(9)]  # a fast GPU: up to 65,536
    assert sizes(lambda n: n) == [1, 4, 16, 64]  # a line needs a few of them


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


def test_the_section_has_the_account_and_on_a_cpu_what_disturbs_a_step(few_batches):
    found = {m.name: m for m in lab.SECTION.measure(CPU, steps=1, rounds=2)}
    assert {*SECONDS, *TOGETHER, "step after nothing", "step after loading"} <= found.keys()
    assert all(len(m.seconds) == 2 and min(m.seconds) > 0 for m in found.values())


@pytest.mark.gpu
def test_the_account_of_a_gpu(gpu):
    found = list(lab.SECTION.measure(gpu, steps=2, rounds=2))
    assert SECONDS.keys() <= {m.name for m in found} and {m.device for m in found} == {gpu.type}


# What is made of them


def test_a_step_is_loading_copying_launching_updating_computing_and_waiting():
    line = lab.line_of(timed(SECONDS))
    assert line == pytest.approx((3.0, 0.5))
    found = account.parts_of(SECONDS, *line, "textbook")
    expected = {"load": 10, "copy": 0.1, "launch": 2, "compute: update": 1, "compute: images": 64, "wait": 0.3}
    assert found == pytest.approx(expected)
    assert account.parts_of(SECONDS, *line, "device") == pytest.approx(expected | {"load": 0.25, "copy": 0, "wait": 0})
    noisy = SECONDS | {"step, waiting": 1.0}
    assert min(account.parts_of(noisy, 0.0, 0.5, "textbook").values()) == 0.0  # noise, no gain
    fixed, _ = lab.line_of(timed({"step of 1": 1.0, "step of 4": 1.6, "step of 10000": 2e3, "step of 20000": 4.4e3}))
    assert 0.5 < fixed < 1.1  # by relative errors: by absolute ones the largest steps would decide


def test_an_account_says_by_how_much_the_sum_is_off_and_what_loading_and_computing_do_to_each_other():
    seconds = {name: 1e-6 * us for name, us in (SECONDS | TOGETHER).items()}
    parts = account.parts_of(seconds, 3e-6, 0.5e-6, "textbook")
    axes, says = lab.account_bar(parts, seconds, "textbook", "CPU")
    assert "off by 2.6 µs: more than copy, launch, compute: update, wait." in says and "1.7 µs more" in says
    assert axes.lines[0].get_xdata() == pytest.approx([80, 80])
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(77)  # but for 0.4, too little to draw
    exact = seconds | {"whole, textbook": sum(parts.values())}
    assert "less than any" in lab.account_bar(parts, exact, "textbook", "CPU").says
    assert account.disturbance(SECONDS, "textbook") is None
    assert account.disturbance(SECONDS | TOGETHER, "device") == 0.0  # less than both: noise, not a gain


# The line and the roof


def test_the_line_is_drawn_on_linear_axes_with_the_point_that_it_predicts():
    axes, says = lab.line_fit(timed({n: 1e-6 * s for n, s in SECONDS.items()}), 3e-6, 0.5e-6)
    line, measured, held_out = axes.lines
    assert axes.get_xscale() == axes.get_yscale() == "linear" and axes.get_ylim()[0] == 0
    assert dict(zip(*line.get_data(), strict=True))[128] == pytest.approx(67) and line.get_xdata()[0] == 0
    assert list(measured.get_xdata()) == [1, 16, 256] and held_out.get_ydata() == pytest.approx([67])
    assert "fixed 3 µs" in says and "0.50 µs per image" in says


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
    def event(name, start, end, device="DeviceType.CPU", parent=None, thread=1):
        times = SimpleNamespace(start=start, end=end)
        return SimpleNamespace(name=name, time_range=times, device_type=device, cpu_parent=parent, thread=thread)

    step = event("step 0", 10, 90)
    linear = event("aten::linear", 12, 30, parent=step)
    events = [
        event("aten::relu", 1, 5),  # before the step
        step,
        event("step 0", 15, 95, device="DeviceType.CUDA"),  # the same name, laid over the kernels
        event("Activity Buffer Request", 11, 2000),
        linear,
        event("aten::addmm", 14, 28, parent=linear),
        event("aten::mm", 40, 60, thread=2),
        event("a kernel", 50, 70, device="DeviceType.CUDA"),
    ]
    watched = SimpleNamespace(events=lambda: events)
    monkeypatch.setattr(lab.drawing, "timeline", lambda events, named: events)
    assert [(row, name, depth) for row, name, _, _, depth in lab.timeline(watched, "step 0")] == [
        ("CPU", "aten::linear", 0), ("CPU", "aten::addmm", 1),
        ("CPU, backward", "aten::mm", 0), ("CUDA", "a kernel", 0),
    ]  # fmt: skip
