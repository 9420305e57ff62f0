from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from mnist_gpu.measuring import timing
from mnist_gpu.measuring.timing import alternate, compare, compare_all, fewest_pairs, in_turn, interval, measure


@pytest.fixture
def clock():
    """A clock that stands still except where a side takes its time."""
    clock = Mock(now=100.0)
    clock.side_effect = lambda: clock.now
    return clock


def test_alternate_runs_the_sides_in_turn_and_times_each_call(clock):
    order = []

    def side(name, seconds):
        def run():
            order.append(name)
            clock.now += seconds[order.count(name) - 1]

        return run

    sides = {"a": side("a", [9, 1, 2, 3]), "b": side("b", [9, 10, 20, 30])}
    assert alternate(sides, rounds=3, clock=clock) == {"a": [1, 2, 3], "b": [10, 20, 30]}
    assert "".join(order) == "ab" + "ab" * 3  # the first of each is the warm-up
    with pytest.raises(ValueError, match="rounds is 0"):
        alternate(sides, rounds=0)


def test_it_waits_for_the_device_before_and_after_each_timed_call_and_warms_up_as_asked(monkeypatch):
    events = []
    monkeypatch.setattr(timing, "synchronize", lambda device: events.append(f"wait {device}"))
    sides = {"a": lambda: events.append("a")}
    alternate(sides, rounds=1, warmup=2, device="cuda", clock=lambda: events.append("clock") or 1.0)
    assert events == ["a", "a", "wait cuda", "clock", "a", "wait cuda", "clock"]


def test_an_interrupted_run_gives_the_rounds_that_it_has_finished(clock):
    calls, found = [], {}

    def side():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        clock.now += 2.0

    with pytest.raises(KeyboardInterrupt):
        for name, seconds in in_turn({"b": lambda: None, "a": side}, rounds=5, warmup=0, clock=clock):
            found[name] = seconds
    assert found == {"b": [0.0, 0.0], "a": [2.0, 2.0]}


# Ranks, counted from 1, of the order statistics that enclose the median with at least 95 % confidence: tables of
# binomial confidence intervals have them.
RANKS = [(1, 1, 1), (5, 1, 5), (8, 1, 8), (9, 2, 8), (10, 2, 9), (12, 3, 10), (20, 6, 15), (50, 18, 33), (100, 40, 61)]


def test_the_interval_goes_between_the_tabulated_order_statistics():
    for n, low, high in RANKS:
        assert interval([float(i) for i in range(n, 0, -1)]) == (low, high)  # not sorted
    values = [float(i) for i in range(1, 11)]
    assert [interval(values, c) for c in (0.5, 0.89, 0.95, 0.99)] == [(4, 7), (3, 8), (2, 9), (1, 10)]


SLOW = [2.0, 2.02, 1.98, 2.01, 1.99, 2.0, 2.02, 1.98, 2.01, 1.99]
FAST = [s / 4 for s in SLOW]


def test_a_clear_difference_is_claimed_in_both_directions():
    for a, b, ratio in ((SLOW, FAST, 4.0), (FAST, SLOW, 0.25)):
        found = compare({"cpu": a, "gpu": b}, "cpu", "gpu")
        assert found.differs and found.pairs == 10
        assert found.ratio == pytest.approx(ratio) and found.interval == pytest.approx((ratio, ratio))
        faster, slower, said = *(("gpu", "cpu") if ratio > 1 else ("cpu", "gpu")), str(found)
        assert said.index(faster) < said.index("4.00 times") < said.index(slower) and "4.00 to 4.00" in said


def test_the_ratio_and_its_interval_are_those_of_the_pairs():
    found = compare({"a": [2.0, 4.0, 9.0], "b": [1.0, 1.0, 3.0]}, "a", "b")
    assert found.ratio == 3.0 and found.interval == (2.0, 4.0)
    turned = str(compare({"a": [1.0] * 6, "b": [2.0, 4.0, 4.0, 4.0, 4.0, 5.0]}, "a", "b"))
    assert "4 times" in turned and "2.0 to 5.0" in turned
    # A machine that slows down slows both: the times of the two overlap, and every ratio says the same.
    a = [1.0, 1.3, 1.6, 1.9, 2.2, 2.5]
    assert compare({"a": a, "b": [1.1 * s for s in a]}, "a", "b").differs


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([1.0, 1.2, 1.4, 1.6, 3.0, 3.2], [1.1, 1.3, 1.5, 1.7, 2.9, 3.1], "0.967 to 1.10"),  # 1 is in it
        ([1.0, 2.0, 2.0, 2.0, 2.0, 2.0], [1.0] * 6, "1.00 to 2.0"),  # and here its end
        ([100.0] * 5, [1.0] * 5, "at least 6"),
        ([100.0], [1.0], "at least 6"),
    ],
)
def test_nothing_is_claimed_where_the_interval_holds_1_or_from_too_few_pairs(a, b, said):
    found = compare({"a": a, "b": b}, "a", "b")
    assert not found.differs and "times as fast" not in str(found) and said in str(found)


def test_comparisons_made_together_need_more_pairs_and_wider_intervals():
    # If the sides are equal, all of n ratios lie on one side of 1 with a chance of 2 / 2^n, for each comparison.
    for of in (1, 2, 5, 10, 25, 100):
        n = fewest_pairs(of)
        assert 2 / 2**n <= 0.05 / of < 2 / 2 ** (n - 1)
    one_off = {"a": [2.0] * 9 + [0.5], "b": [1.0] * 10}
    assert compare(one_off, "a", "b").differs and not compare(one_off, "a", "b", of=10).differs
    assert not compare({"a": [2.0] * 6, "b": [1.0] * 6}, "a", "b", of=2).differs
    for found in compare_all({"a": SLOW, "b": FAST, "c": FAST}, [("a", "b"), ("b", "c")]):
        assert found.of == 2


def test_equal_sides_are_seldom_claimed_to_differ():
    generator, claimed = torch.Generator().manual_seed(0), 0
    for _ in range(1000):
        a, b = (1 + torch.rand(2, 10, generator=generator)).tolist()
        claimed += compare({"a": a, "b": b}, "a", "b").differs
    assert claimed <= 50  # the chance is 2 P(X < 2), X ~ Binomial(10, 1/2): 21 of 1000


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((97.71, 84.08, 147.0), ("100", "84", "147")),
        ((1.004, 1.002, 1.005), ("1.004", "1.002", "1.005")),
        ((1.3, 1.02, 1.9), ("1.3", "1.02", "1.90")),
        ((1543.0, 1400.0, 1800.0), ("1,500", "1,400", "1,800")),
        ((20.0, 1.0, 500.0), ("20", "1", "500")),
    ],
)
def test_a_number_is_shown_with_the_digits_that_its_interval_leaves_it(values, texts):
    assert timing.rounded(*values) == texts


@pytest.mark.parametrize(("each", "calls"), [(0.001, 20), (0.5, 1)])
def test_measure_takes_ten_blocks_from_idle_to_idle_also_of_slow_calls(monkeypatch, clock, each, calls):
    events = []

    def function():
        clock.now += each
        events.append("call")

    def wait(device):
        assert device == torch.device("cuda")
        clock.now += 0.0001
        events.append("wait")

    monkeypatch.setattr(timing, "accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(timing, "synchronize", wait)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=clock))
    found = measure(function, min_seconds=0.2)
    calls = min(calls, events.count("call") // 10)  # the first block of a short operation may leave room for fewer
    assert len(found.times) == 10 and events.count("call") == 3 + 10 * calls
    assert found.median == pytest.approx(each, rel=0.01)
    warmup = ["wait", "call", "call", "wait", "wait", "call", "wait"]
    assert events == warmup + ["wait", *["call"] * calls, "wait"] * 10
