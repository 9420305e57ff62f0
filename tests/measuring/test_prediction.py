"""The model of a step: launches, operations and bytes, of a device that is here and of a card that is not."""

import statistics

import pytest
import torch

from mnist_gpu.data import make_batches
from mnist_gpu.measuring import prediction as module
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.measuring.prediction import (
    Limits,
    PredictedCard,
    Range,
    batch_bytes,
    binding,
    figures_for,
    kernels,
    measured_limits,
    on_card,
    outcomes,
    predict_graph,
    predict_step,
    predictable,
    predicted_card,
    predicted_ladders,
    step_operations,
    written_down,
)
from mnist_gpu.measuring.published import MEASURED, SHEET, Card, Figure, Source, named
from mnist_gpu.measuring.results import Results, Timed
from mnist_gpu.model import parameter_count, step_bytes, step_flops

# A card whose kernels take 1 to 4 µs.
EXAMPLE = PredictedCard("example", Range(1e-6, 4e-6), Range(1e12, 2e12), Range(1e11, 3e11))


def test_what_binds_is_what_takes_longest_by_itself():
    limits = Limits(launch=2.0, rate=10.0, bandwidth=4.0)
    assert limits.parts(operations=30.0, moved=4.0) == {"launches": 2.0, "bytes": 1.0, "operations": 3.0}
    assert [binding(limits.parts(*work)) for work in ((1, 1), (1, 80), (80, 1))] == ["launches", "bytes", "operations"]
    assert limits.of_step(32, 64) == limits.parts(sum(step_flops(32, 64)), step_bytes(32, 64))


def test_limits_are_measured_with_the_threads_asked_for(monkeypatch):
    threads = []
    monkeypatch.setattr(module, "two_ceilings", lambda device: threads.append(torch.get_num_threads()) or (5.0, 7.0))
    found = measured_limits(torch.device("cpu"), 2)
    assert threads == [2] and found[1:] == (5.0, 7.0) and 0 < found.launch < 1 and torch.get_num_threads() == 1


def test_a_range_has_a_middle_and_is_turned_over_by_a_gain():
    found = Range(2.0, 8.0)
    assert found.middle == 4.0 and found.gain_over(16.0) == Range(2.0, 8.0) and found.gain_over(4.0) == Range(0.5, 2.0)
    assert 2.0 in found and 8.0 in found and 1.99 not in found and 8.01 not in found


@pytest.fixture
def known(monkeypatch):
    """Published are A, measured at half and at nine tenths of its sheet, and B, of which there is a sheet alone."""

    def card(name, *figures):
        source = Source("A table", "https://example.org", "2026-01-31")
        return Card(name, f"NVIDIA {name}", (name,), None, tuple(Figure(name, *f, source) for f in figures))

    a = card(
        "A", ("float32", 10e12, SHEET), ("float32", 5e12, MEASURED), ("float32", 9e12, MEASURED),
        ("memory", 1e12, SHEET), ("copy", 8e11, MEASURED), ("small kernel", 5e-6, MEASURED),
    )  # fmt: skip
    b = card("B", ("float32", 40e12, SHEET), ("memory", 2e12, SHEET), ("kernel in a graph", 1e-6, MEASURED))
    monkeypatch.setattr("mnist_gpu.measuring.published.cards", lambda: {"A": a, "B": b})
    monkeypatch.setattr(module, "cards", lambda: {"A": a, "B": b})


def test_a_rate_goes_from_what_others_measured_to_the_data_sheet(known):
    assert predicted_card("A") == PredictedCard("A", Range(1e-6, 5e-6), Range(5e12, 10e12), Range(8e11, 1e12))


def test_of_a_card_that_nobody_measured_it_is_the_share_of_the_data_sheet_that_others_reach(known):
    found = predicted_card("B")
    assert found.rate == pytest.approx((20e12, 36e12)) and found.bandwidth == pytest.approx((1.6e12, 1.6e12))
    assert {f.card for f in figures_for("B")} == {"A", "B"}  # what was borrowed is named, too
    assert [f.quantity for f in figures_for("A") if f.card == "B"] == ["kernel in a graph"]


def test_an_unknown_card_and_one_without_launching_times_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"'H900'; there are: T4, P100, .*H200"):
        predicted_card("H900")
    with pytest.raises(ValueError, match=r"'M2' \(.*launch.*\); there are: T4"):
        predicted_card("M2")


def test_every_card_of_the_course_has_ranges_that_its_data_sheet_bounds():
    assert len(predictable()) >= 10
    for name in predictable():
        card = predicted_card(name)
        assert 0 < card.rate.low <= card.rate.high <= named(name).sheet_peak
        assert 0 < card.bandwidth.low <= card.bandwidth.high <= named(name).bandwidth
        assert 0 < card.kernel.low < card.kernel.high < 1e-4


def test_operations_are_counted_with_the_bytes_that_they_read_and_write():
    x, w = torch.rand(4, 3, requires_grad=True), torch.rand(3, 2)
    with Operations() as found:
        (x @ w).t().relu().sum().backward()
    names = ["mm", "relu", "sum", "ones_like", "threshold_backward", "mm"]
    numbers = (12 + 6 + 8, 8 + 8, 8 + 1, 1 + 1, 8 + 8 + 8, 12 + 8 + 6)  # read and written
    seen = [(o.name, o.bytes) for o in found.seen if not o.is_view]
    assert seen == [(name, 4 * n) for name, n in zip(names, numbers, strict=True)] and found.fetches() == 0
    with Operations() as found:
        x.sum().item()
    assert found.fetches() == 1


def test_the_bytes_of_a_steps_operations_are_those_of_chapter_02():
    assert sum(o.bytes for o in step_operations(128, 128)) == pytest.approx(step_bytes(128, 128), rel=0.05)
    wide = {o.name: o.bytes for o in step_operations(64, 1000)}
    parameters = 4 * parameter_count(1000)
    assert wide["_foreach_add_"] == 3 * parameters and wide["_foreach_mul_"] == 2 * parameters


def test_kernels_are_the_operations_of_a_step_and_a_product_may_be_two():
    default, more = kernels(), kernels(batches=True)
    assert default.high == default.low + 5  # the five products of chapter 02
    assert kernels(fused=True).low == default.low - 2  # momentum, weight update: one kernel instead of three
    assert more.low - default.low == more.high - default.high >= 4  # images and labels gathered, scaled, shifted
    images = next(iter(make_batches("device")))[0]
    pixels = images.numel()  # gathered (bytes), scaled, shifted, and the labels, int64
    assert batch_bytes(128) == 2 * pixels + pixels + 4 * pixels + 2 * 4 * pixels + 128 * 2 * 8


def test_on_the_card_a_step_is_its_kernels_operations_and_bytes_overlapped_or_not():
    count, operations, moved = kernels(), sum(step_flops(64, 256)), step_bytes(64, 256)
    found = on_card(EXAMPLE, 64, 256)
    assert found.low == pytest.approx(count.low * 1e-6 + max(operations / 2e12, moved / 3e11))
    assert found.high == pytest.approx(count.high * 4e-6 + operations / 1e12 + moved / 1e11)
    fused = predict_graph(EXAMPLE, 64, 256)
    assert fused == on_card(EXAMPLE, 64, 256, fused=True) and fused.high < found.high


def test_launching_and_computing_overlap_at_least_and_follow_each_other_at_most():
    small, large = on_card(EXAMPLE, 1, 1), on_card(EXAMPLE, 2048, 2048)
    assert small.low < 3e-4 < large.low
    assert predict_step(EXAMPLE, 3e-4, 1, 1) == Range(3e-4, 3e-4 + small.high)
    assert predict_step(EXAMPLE, 3e-4, 2048, 2048) == Range(large.low, 3e-4 + large.high)


def test_what_was_written_down_stands_beside_what_is_recorded_of_the_card_later():
    _, every = written_down()
    assert all(0 < p.seconds.low <= p.seconds.high for p in every) and {p.card for p in every} <= set(predictable())
    rung = next(p for p in every if p.card == "T4" and p.section == "ladder")
    middle = rung.seconds.middle
    images, sizes = {"images": 60_000}, dict(rung.parameters)
    measured = [Timed("ladder", rung.name, device, 1, [2 * middle] * 3, sizes, images) for device in ("cpu", "cuda")]
    machines = [Results({"device_name": "Tesla T4"}, measured, "2026-01-31")]
    (found,) = outcomes(machines)  # the GPU's alone
    assert found.predicted == rung and found.factor == pytest.approx(2.0)
    assert outcomes([Results({"device_name": "AMD EPYC"}, measured, "2026-01-31")]) == []
    assert statistics.median(measured[0].per_epoch()) == found.measured
    drawn = dict(predicted_ladders([Results({"device_name": "NVIDIA H200"}, [], "2026-01-31")]))
    assert [name.split(",")[0] for name in drawn] == ["T4", "H100", "H200"]
    assert all(r.low <= r.high for ladder in drawn.values() for r in ladder.values())
