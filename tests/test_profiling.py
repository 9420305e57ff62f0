"""What is read from a profile: the program's own operators and events, without the profiler's."""

from types import SimpleNamespace

import pytest
import torch

from mnist_gpu.measuring import profiling
from mnist_gpu.measuring.profiling import operators, profiled, seconds_a_step, timeline
from mnist_gpu.measuring.workloads import training_step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def watched():
    torch.set_num_threads(1)
    return profiled(training_step(CPU, 128, 16), 3, CPU)


def test_the_calls_before_are_not_kept(watched):
    found = {e.key: e.count for e in operators(watched)}
    assert found["aten::mm"] == 3 * 3  # a step's backward pass has three products, the first layer's input needs none
    assert not [key for key in found if key.startswith(("step ", "ProfilerStep"))]


def test_the_operators_come_longest_first(watched):
    times = [e.self_cpu_time_total + e.self_device_time_total for e in operators(watched)]
    assert times == sorted(times, reverse=True) and times[0] > 0


def test_a_step_takes_as_long_as_its_operators_at_least(watched):
    assert seconds_a_step(watched, 3) >= sum(e.self_cpu_time_total for e in operators(watched)) / 3 / 1e6 * 0.9


def test_the_timeline_is_of_the_step_asked_for_with_what_an_operation_calls_below_it(watched):
    events = timeline(watched, 2, CPU)
    names = {name: depth for _, name, _, _, depth in events}
    assert sum(name == "aten::mm" for _, name, *_ in events) == 3
    assert names["Optimizer.zero_grad"] == 0 and names["aten::addmm"] > names["aten::linear"] == 0
    assert all(begin < end for _, _, begin, end, _ in events) and {row for row, *_ in events} == {"CPU"}


def event(name, start, end, device="DeviceType.CPU", parent=None, thread=1):
    time_range = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(name=name, time_range=time_range, device_type=device, cpu_parent=parent, thread=thread)


def test_on_a_gpu_the_profilers_own_events_are_left_out_and_the_backward_pass_has_a_row_of_its_own():
    step = event("step 0", 10, 90)
    events = [
        event("aten::relu", 1, 5),  # before the step
        step,
        event("step 0", 15, 95, device="DeviceType.CUDA"),  # the same name, laid over the kernels
        event("Activity Buffer Request", 11, 2000),
        event("aten::linear", 12, 30, parent=step),
        event("aten::mm", 40, 60, thread=2),
        event("a kernel", 50, 70, device="DeviceType.CUDA"),
    ]
    found = timeline(SimpleNamespace(events=lambda: events), 0, torch.device("cuda"))
    assert [(row, name, depth) for row, name, _, _, depth in found] == [
        ("CPU", "aten::linear", 0),
        ("CPU, backward", "aten::mm", 0),
        ("CUDA", "a kernel", 0),
    ]
    averages = [SimpleNamespace(key=e.name, device_type=e.device_type, self_cpu_time_total=1, self_device_time_total=2)
                for e in events]  # fmt: skip
    kept = profiling.operators(SimpleNamespace(key_averages=lambda: averages))
    assert {e.key for e in kept} == {"aten::relu", "aten::linear", "aten::mm"}
    assert seconds_a_step(SimpleNamespace(events=lambda: events), 1) == pytest.approx(80e-6)
