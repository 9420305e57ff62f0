"""Chapter 06's room: its measurements, what is made of them, its figures, and what is read from a profile."""

import time
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_06 as lab
from mnist_gpu.chapters.chapter_06 import account
from mnist_gpu.chapters.chapter_06.account import growing_steps
from mnist_gpu.faster import ladder
from mnist_gpu.faster.ladder import PLAIN, TEXTBOOK
from mnist_gpu.measuring import workloads
from mnist_gpu.measuring.prediction import Limits, PredictedCard, Range, on_card
from mnist_gpu.measuring.results import Results, Timed
from mnist_gpu.measuring.workloads import training_step
from mnist_gpu.training import make_step

CPU = torch.device("cpu")
CARD = PredictedCard("example", Range(1e-6, 4e-6), Range(1e12, 2e12), Range(1e11, 3e11))
HOST = lab.Host(launch=3e-4, textbook=1e-2, device=1e-4, disturbance=2e-3, loop=5e-6)
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


def timed(seconds, device="cpu"):
    shapes = {name: {"batch_size": int(name[8:]) if name.startswith("step of") else 128} for name in seconds}
    return {name: Timed("account", name, device, 1, [s], shapes[name]) for name, s in seconds.items()}


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

    def in_turn(sides, **options):
        for Batches.part, function in sides.items():
            function()
            yield Batches.part, [6.0] * 3

    for module in (workloads, ladder):
        monkeypatch.setattr(module, "make_step", noted_step)
    monkeypatch.setattr(torch.Tensor, "item", lambda self: Batches.seen.append((Batches.part, "wait")) or item(self))
    monkeypatch.setattr(account, "in_turn", in_turn)
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
        return list(growing_steps(CPU))

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
    torch.set_num_threads(2)
    found = {}
    for m in lab.SECTION.measure(CPU, steps=1, rounds=2):
        found[m.name] = m
        assert torch.get_num_threads() == 2  # as set here, whenever it hands something over
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
    found = lab.parts_of(SECONDS, *line, "textbook")
    expected = {"load": 10, "copy": 0.1, "launch": 2, "compute: update": 1, "compute: images": 64, "wait": 0.3}
    assert found == pytest.approx(expected)
    assert lab.parts_of(SECONDS, *line, "device") == pytest.approx(expected | {"load": 0.25, "copy": 0, "wait": 0})
    assert min(lab.parts_of(SECONDS | {"step, waiting": 1.0}, 0.0, 0.5, "textbook").values()) == 0.0  # noise, no gain


def test_of_the_line_the_relative_errors_are_the_smallest():
    sizes, seconds = torch.tensor([1.0, 2, 4, 10_000]).double(), torch.tensor([1.1, 1.2, 1.4, 2000.0]).double()
    found = lab.line_of(timed({f"step of {n:.0f}": float(s) for n, s in zip(sizes, seconds, strict=True)}))
    relative = torch.stack([1 / seconds, sizes / seconds], dim=1)
    assert found == pytest.approx(torch.linalg.lstsq(relative, torch.ones(4, 1).double()).solution.flatten().tolist())


def test_an_account_says_by_how_much_the_sum_is_off_and_what_loading_and_computing_do_to_each_other():
    seconds = {name: 1e-6 * us for name, us in (SECONDS | TOGETHER).items()}
    parts = lab.parts_of(seconds, 3e-6, 0.5e-6, "textbook")
    axes, says = lab.account_bar(parts, seconds, "textbook", "CPU")
    for said in ("97%", "of the 80 µs", "2.6 µs are missing", "1.7 µs more", "load (12%) 10", "within the 15%"):
        assert said in says.replace("NOT within", "")
    assert axes.lines[0].get_xdata() == pytest.approx([80, 80])
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(77)  # but for 0.4, too little to draw
    assert "NOT within" in lab.account_bar(parts, seconds | {"whole, textbook": 100e-6}, "textbook", "CPU").says
    assert "missing" not in lab.account_bar(parts, seconds | {"whole, textbook": 70e-6}, "textbook", "CPU").says
    assert account.disturbance(SECONDS, "textbook") is None
    assert account.disturbance(SECONDS | TOGETHER, "device") == 0.0  # less than both: noise, not a gain


def test_recorded_accounts_are_those_of_gpus(monkeypatch):
    environment = {"cpu_name": "a CPU", "device_name": "a card"}
    every = [m for device in ("cpu", "cuda") for m in timed(SECONDS, device).values()]
    monkeypatch.setattr(lab, "recorded", lambda unlike: [Results(environment, every, "2026-01-31")])
    textbook, device = lab.recorded_accounts(CPU)
    assert "textbook, a card, CUDA (recorded 2026-01-31)" in textbook.says
    assert "device, a card" in device.says and "100%" in device.says


# A card that is not here


def test_the_hosts_part_comes_from_an_account_of_its_cpu(monkeypatch):
    host = lab.measure_host(timed(SECONDS | TOGETHER))
    assert host == (2.0, 10.0, 0.25, pytest.approx(1.7), host.loop) and 0 < host.loop < 1
    again = []
    monkeypatch.setattr(lab, "measure_account", lambda *a, **k: again.append(a) or timed(SECONDS | TOGETHER).values())
    assert lab.measure_host(timed(SECONDS, "cuda"))[:4] == lab.measure_host()[:4] == host[:4] and again == [(CPU,)] * 2


def test_the_ladder_of_a_card_has_an_epoch_of_the_rungs_that_can_be_predicted():
    found = lab.predict_ladder(CARD, HOST)
    step, with_batch, graph = on_card(CARD), on_card(CARD, batches=True), on_card(CARD, fused=True, batches=True)
    assert with_batch.low < HOST.launch  # which hides the computing, at least
    expected = {
        TEXTBOOK: (1e-2 + 3e-4, 1.2e-2 + 3e-4 + step.high), PLAIN: (3e-4, 1e-4 + 3e-4 + with_batch.high),
        lab.GRAPH: (graph.low, 1e-4 + graph.high), lab.EPOCH: (5e-6 + graph.low, 5e-6 + graph.high),
    }  # fmt: skip
    assert found == {rung: pytest.approx([469 * s for s in ends]) for rung, ends in expected.items()}
    slow = lab.predict_accounts(CARD, HOST._replace(launch=1e-6))[PLAIN]
    assert slow["compute"][0] == pytest.approx(with_batch.low - 1e-6)  # what launching does not hide


def test_this_machines_account_stands_beside_the_predicted_ones():
    own = {"load": 1e-4, "launch": 2e-4, "compute: update": 1e-4, "compute: images": 3e-4, "wait": 0.0}
    axes, says = lab.predicted_accounts(own, CARD, HOST)
    assert "this machine: 700 µs per step = load 100, launch 200, compute 400" in says
    assert f"predicted: example, {PLAIN}, at least: 300 µs" in says and says.count(lab.EPOCH) == 2
    hollow = [bar for bar in axes.patches if bar.get_facecolor()[:3] == (1, 1, 1)]
    assert len(axes.patches) - len(hollow) == 3


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


def test_a_profile_has_the_steps_operators_longest_first_and_its_timeline():
    watched = lab.profiled(training_step(CPU, 128, 16), 3, CPU)
    every = lab.operators(watched)
    assert {e.key: e.count for e in every}["aten::mm"] == 3 * 3  # backward; those of the calls before are not kept
    times = [e.self_cpu_time_total for e in every]
    assert times == sorted(times, reverse=True) and times[0] > 0
    assert lab.seconds_a_step(watched, 3) >= sum(times) / 3 / 1e6 * 0.9
    table = lab.operators_table(watched, 3, rows=2).splitlines()
    assert len(table) == 2 + 2 + 1 and every[0].key in table[2] and f"{times[0] / 3:.1f}" in table[2]
    axes, says = lab.timeline(watched, 2)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CPU"] and "aten::linear" in says
    assert lab.trace_file().name == "trace.json"


def test_on_a_gpu_the_profilers_own_events_are_left_out_and_the_backward_pass_has_a_row_of_its_own(monkeypatch):
    def event(name, start, end, device="DeviceType.CPU", parent=None, thread=1):
        times = {"time_range": SimpleNamespace(start=start, end=end), "self_cpu_time_total": 1}
        names = {"name": name, "key": name, "device_type": device, "cpu_parent": parent, "thread": thread}
        return SimpleNamespace(**times, **names, self_device_time_total=2)

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
    watched = SimpleNamespace(events=lambda: events, key_averages=lambda: events)
    monkeypatch.setattr(lab.drawing, "timeline", lambda events, named: events)
    assert [(row, name, depth) for row, name, _, _, depth in lab.timeline(watched, 0)] == [
        ("CPU", "aten::linear", 0), ("CPU", "aten::addmm", 1),
        ("CPU, backward", "aten::mm", 0), ("CUDA", "a kernel", 0),
    ]  # fmt: skip
    assert {e.key for e in lab.operators(watched)} == {"aten::relu", "aten::linear", "aten::addmm", "aten::mm"}
    assert lab.seconds_a_step(watched, 1) == pytest.approx(80e-6)
