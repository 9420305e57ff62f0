"""What is made of the account's measurements: the parts of a step, and what comes before it."""

import time

import pytest
import torch

from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.sections import account
from mnist_gpu.measuring.sections.account import account_of, growing_steps, line_of, measure_disturbance

CPU = torch.device("cpu")


def timed(name, seconds, batch_size=128):
    return Timed("account", name, "cpu", 1, [seconds], {"batch_size": batch_size, "hidden": 128})


def measured(**changed):
    """Launching 2, updating 1 and computing 0.5 per image; loading 10 or 0.25, copying 0.1, waiting 0.3."""
    seconds = {
        "whole, textbook": 80.0,
        "whole, device": 67.25,
        "load, textbook": 10.0,
        "load, device": 0.25,
        "copy": 0.1,
        "step, waiting": 67.3,
        "step": 67.0,
        "smallest network": 2.0,
    }
    found = {name: timed(name, s) for name, s in (seconds | changed).items()}
    return found | {f"step of {n}": timed(f"step of {n}", 3 + 0.5 * n, n) for n in (1, 16, 256)}


def test_a_step_is_launching_updating_and_computing():
    assert line_of(measured()) == pytest.approx((3.0, 0.5))
    found = account_of(measured(), "textbook")
    expected = {"load": 10, "copy": 0.1, "launch": 2, "compute: update": 1, "compute: images": 64, "wait": 0.3}
    assert found.parts == pytest.approx(expected)
    assert found.sum == pytest.approx(77.4) and found.whole == 80.0 and found.disturbance is None


def test_with_the_data_on_the_device_nothing_is_copied_and_nobody_waits():
    found = account_of(measured(), "device")
    assert found.parts["copy"] == found.parts["wait"] == 0.0 and found.parts["load"] == 0.25
    assert found.sum == pytest.approx(found.whole)


def test_the_disturbance_is_no_part_so_the_sum_can_fall_short():
    together = {"load, textbook, with steps": 79.0, "load, device, with steps": 60.0}
    found = account_of(measured(**together), "textbook")
    assert found.disturbance == pytest.approx(79.0 - 67.3 - 10.0) and "disturbance" not in found.parts
    assert found.sum == pytest.approx(77.4)
    assert account_of(measured(**together), "device").disturbance == 0.0  # less than both: noise, not a gain


def test_the_batch_grows_until_the_step_takes_much_longer_than_that_of_one_image(monkeypatch):
    monkeypatch.setattr(account, "training_step", lambda device, n, hidden: n)

    def sizes(seconds_of):
        monkeypatch.setattr(account, "seconds_of", lambda n, device: seconds_of(n))
        return list(growing_steps(CPU))

    assert sizes(lambda n: 3 + 0.05 * n) == [1, 4, 16, 64, 256, 1024]  # a CPU
    assert sizes(lambda n: max(3, n / 1000)) == [4**i for i in range(9)]  # a fast GPU: up to 65,536
    assert sizes(lambda n: n) == [1, 4, 16, 64]  # a line needs a few of them


def test_only_the_step_is_timed_and_what_comes_before_it_takes_as_long_as_loading(monkeypatch):
    befores = []
    monkeypatch.setattr(account, "training_step", lambda *a: lambda: time.sleep(0.002))
    monkeypatch.setattr(account, "make_batches", lambda *a, **k: [befores.append("batch")] * 3)
    monkeypatch.setattr(account, "seconds_of", lambda function, device: 0.01)
    start = time.perf_counter()
    found = list(measure_disturbance(CPU, steps=3, rounds=2))
    assert [m.name.removeprefix("step after ") for m in found] == [
        "nothing", "loading", "a pause", "other code", "other data",
    ]  # fmt: skip
    assert all(len(m.seconds) == 2 and min(m.seconds) >= 0.002 for m in found)
    # Three of the five are preceded by 10 ms, in every step of two rounds and the warm-up, which no time has in it.
    assert time.perf_counter() - start >= 3 * 3 * 3 * 0.01
    assert sum(m.median for m in found) < time.perf_counter() - start - 3 * 3 * 3 * 0.01
