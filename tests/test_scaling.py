"""Chapter 10's measurements: several processes and one of them alone, in turn."""

import pytest
import torch

from mnist_gpu.faster.distributed import Group
from mnist_gpu.measuring import scaling
from mnist_gpu.measuring.scaling import measured_by, steps_of, together

ALONE = Group(0, 1, torch.device("cpu"))


def test_sides_are_timed_in_turn_and_repeated_as_often_as_fills_a_call(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(scaling.time, "perf_counter", lambda: clock[0])

    def side(name, seconds):
        def run():
            calls.append(name)
            clock[0] += seconds

        return run

    found = together({"short": side("short", 0.01), "long": side("long", 1.0)}, ALONE, rounds=2, least=0.03)
    assert found == {"short": pytest.approx([0.01] * 2), "long": pytest.approx([1.0] * 2)}
    text = "".join(name[0] for name in calls)
    count = text.count("s", 12) // 2
    assert count in (2, 3) and text == "s" * 6 + "l" * 6 + ("s" * count + "l") * 2


def test_a_rank_that_is_not_the_first_does_nothing_while_one_is_measured(monkeypatch):
    monkeypatch.setattr(Group, "wrap", lambda self, model: model)
    monkeypatch.setattr(scaling, "make_distributed_step", scaling.make_step)
    first, second = (steps_of(Group(rank, 2, torch.device("cpu")), 8) for rank in (0, 1))
    assert list(first) == list(second) == ["one", "strong", "weak", "alone"]
    assert second["one"]() is None and first["one"]() > 0


def test_two_processes_measure_themselves_and_one_of_them():
    found = measured_by(2, widths=[8])
    assert found.processes == 2 and len(found.losses) == len(found.losses_of_one) == 100
    assert max(abs(a - b) for a, b in zip(found.losses, found.losses_of_one, strict=True)) < 0.02
    assert list(found.steps) == [8] and list(found.steps[8]) == ["one", "strong", "weak", "alone"]
    assert {len(seconds) for seconds in found.steps[8].values()} == {10}
    assert list(found.all_reduce) == [4096, 4 * (785 * 8 + 9 * 10), 4 * 2**20]
    assert all(s > 0 for seconds in (*found.steps[8].values(), *found.all_reduce.values()) for s in seconds)
