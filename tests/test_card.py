import pytest
import torch

from mnist_gpu.data import make_batches
from mnist_gpu.faster.ladder import PLAIN, TEXTBOOK
from mnist_gpu.measuring import card as module
from mnist_gpu.measuring.card import (
    EPOCH,
    GRAPH,
    Card,
    Host,
    Range,
    batch_bytes,
    card_numbers,
    figures_for,
    host_of,
    kernels,
    on_card,
    pays_from,
    predict_graph,
    predict_ladder,
    predict_step,
    predictable,
    predicted_map,
    step_operations,
)
from mnist_gpu.measuring.published import MEASURED, SHEET, Figure, Source, published
from mnist_gpu.measuring.results import Timed
from mnist_gpu.model import parameter_count, step_bytes, step_flops

SOURCE = Source("A table", "https://example.org", "2026-01-31")
# A card whose kernels take 1 to 4 µs.
EXAMPLE = Card("example", Range(1e12, 2e12), Range(1e11, 3e11), Range(1e-6, 4e-6))
HOST = Host(launch=3e-4, textbook=1e-2, device=1e-4, disturbance=2e-3)


def test_a_range_has_a_middle_and_is_turned_over_by_a_gain():
    found = Range(2.0, 8.0)
    assert found.middle == 4.0 and found.gain_over(16.0) == Range(2.0, 8.0) and found.gain_over(4.0) == Range(0.5, 2.0)
    assert 2.0 in found and 8.0 in found and 1.99 not in found and 8.01 not in found


@pytest.fixture
def known(monkeypatch):
    """Published are A, measured at half and at nine tenths of its sheet, and B, of which there is a sheet alone."""

    def figure(card, quantity, value, kind):
        return Figure(card, f"NVIDIA {card}", (card,), quantity, value, kind, SOURCE)

    every = [
        figure("A", "float32", 10e12, SHEET),
        figure("A", "float32", 5e12, MEASURED),
        figure("A", "float32", 9e12, MEASURED),
        figure("A", "memory", 1e12, SHEET),
        figure("A", "copy", 8e11, MEASURED),
        figure("B", "float32", 40e12, SHEET),
        figure("B", "memory", 2e12, SHEET),
        figure("A", "small kernel", 5e-6, MEASURED),
        figure("B", "kernel in a graph", 1e-6, MEASURED),
    ]

    def chosen(*, card=None, quantity=None, kind=None):
        return [
            f for f in every if card in (None, f.card) and quantity in (None, f.quantity) and kind in (None, f.kind)
        ]

    monkeypatch.setattr(module, "published", chosen)


def test_a_rate_goes_from_what_others_measured_to_the_data_sheet(known):
    assert card_numbers("A") == Card("A", Range(5e12, 10e12), Range(8e11, 1e12), Range(1e-6, 5e-6))


def test_of_a_card_that_nobody_measured_it_is_the_share_of_the_data_sheet_that_others_reach(known):
    found = card_numbers("B")
    assert found.rate == pytest.approx((20e12, 36e12)) and found.bandwidth == pytest.approx((1.6e12, 1.6e12))
    assert found.kernel == Range(1e-6, 5e-6)
    assert {f.card for f in figures_for("B")} == {"A", "B"}  # what was borrowed is named, too
    assert [f.quantity for f in figures_for("A") if f.card == "B"] == ["kernel in a graph"]


def test_an_unknown_card_and_one_without_launching_times_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no prediction for 'H900'; there are: T4, P100, .*H200"):
        card_numbers("H900")
    with pytest.raises(ValueError, match=r"'M2' \(how long it takes to launch a kernel .*\); there are: T4"):
        card_numbers("M2")
    assert {"M2", "MI300X"} <= {f.card for f in published()} - set(predictable())


def test_every_card_of_the_course_has_ranges_that_its_data_sheet_bounds():
    sheets = {(f.card, f.quantity): f.value for f in published(kind=SHEET)}
    assert len(predictable()) >= 10
    for name in predictable():
        card = card_numbers(name)
        assert 0 < card.rate.low <= card.rate.high <= sheets[name, "float32"]
        assert 0 < card.bandwidth.low <= card.bandwidth.high <= sheets[name, "memory"]
        assert 0 < card.kernel.low < card.kernel.high < 1e-4


def test_kernels_are_the_operations_of_a_step_and_a_product_may_be_two():
    found = module.Operations()
    x, w = torch.rand(4, 3, requires_grad=True), torch.rand(3, 2)
    with found:
        (
            x @ w
        ).t().relu().sum().backward()  # relu of 2 x 4 and its sum; backward: ones, their spread is a view, relu, mm
    names = ["mm", "relu", "sum", "ones_like", "threshold_backward", "mm"]
    numbers = (12 + 6 + 8, 8 + 8, 8 + 1, 1 + 1, 8 + 8 + 8, 12 + 8 + 6)  # read and written
    assert [tuple(o) for o in found.seen] == [(name, 4 * n) for name, n in zip(names, numbers, strict=True)]
    default = kernels()
    assert default.high == default.low + 5  # the five products of chapter 02
    assert kernels(fused=True).low == default.low - 2  # momentum, weight update: one kernel instead of three
    more = kernels(batches=True)
    assert more.low - default.low == more.high - default.high >= 4  # images and labels gathered, scaled, shifted


def test_the_bytes_of_a_steps_operations_are_those_of_chapter_02():
    moved = sum(o.bytes for o in step_operations(128, 128, fused=False))
    assert moved == pytest.approx(step_bytes(128, 128), rel=0.05)
    wide = {o.name: o.bytes for o in step_operations(64, 1000)}
    parameters = 4 * parameter_count(1000)
    assert wide["_foreach_add_"] == 3 * parameters and wide["_foreach_mul_"] == 2 * parameters
    assert wide["relu"] == 2 * 4 * 64 * 1000


def test_on_the_card_a_step_is_its_kernels_operations_and_bytes_overlapped_or_not():
    count, operations, moved = kernels(), sum(step_flops(64, 256)), step_bytes(64, 256)
    found = on_card(EXAMPLE, 64, 256)
    assert found.low == pytest.approx(count.low * 1e-6 + max(operations / 2e12, moved / 3e11))
    assert found.high == pytest.approx(count.high * 4e-6 + operations / 1e12 + moved / 1e11)
    more = on_card(EXAMPLE, 64, 256, batches=True)
    extra = kernels(batches=True)
    assert more.high - found.high == pytest.approx((extra.high - count.high) * 4e-6 + batch_bytes(64) / 1e11)
    fused = predict_graph(EXAMPLE, 64, 256)
    assert fused == on_card(EXAMPLE, 64, 256, fused=True) and fused.high < found.high


def test_the_bytes_of_a_batch_are_those_of_its_operations():
    images = next(iter(make_batches("device")))[0]
    bytes_, floats = images.numel(), 4 * images.numel()
    gathered, scaled, shifted = 2 * bytes_, bytes_ + floats, 2 * floats
    assert batch_bytes(128) == gathered + scaled + shifted + 128 * 2 * 8  # and the labels, int64


def test_launching_and_computing_overlap_at_least_and_follow_each_other_at_most():
    small, large = on_card(EXAMPLE, 1, 1), on_card(EXAMPLE, 2048, 2048)
    assert small.low < 3e-4 < large.low
    assert predict_step(EXAMPLE, 3e-4, 1, 1) == Range(3e-4, 3e-4 + small.high)
    assert predict_step(EXAMPLE, 3e-4, 2048, 2048) == Range(large.low, 3e-4 + large.high)


def test_it_pays_from_the_size_on_from_which_every_larger_one_gains():
    def ranges(*ends):
        return [Range(*pair) for pair in ends]

    sizes = [32, 128, 512]
    assert pays_from(ranges((1.1, 2), (2, 3), (3, 4)), sizes) == (32, 32)
    assert pays_from(ranges((0.4, 0.9), (0.8, 1.2), (1.5, 2)), sizes) == (512, 128)
    assert pays_from(ranges((0.5, 1.5), (0.5, 1.5), (0.5, 1.5)), sizes) == (None, 32)
    assert pays_from(ranges((0.1, 0.2), (0.1, 0.3), (0.1, 1.0)), sizes) == (None, None)  # as fast is no gain
    assert pays_from(ranges((2, 3), (0.5, 0.9), (2, 3)), sizes) == (512, 512)  # not from 32 on: 128 loses


def test_a_map_is_the_prediction_against_what_was_measured():
    step = Timed("crossover", "step", "cpu", 1, [3e-3] * 3, {"batch_size": 64, "hidden": 256})
    ((found,),) = predicted_map(EXAMPLE, 3e-4, [[step]])
    assert found == predict_step(EXAMPLE, 3e-4, 64, 256).gain_over(3e-3)


def test_the_ladder_of_a_card_has_an_epoch_of_the_rungs_that_can_be_predicted():
    found = predict_ladder(EXAMPLE, HOST)
    epoch, step = on_card(EXAMPLE, fused=True, batches=True), predict_step(EXAMPLE, HOST.launch)
    assert list(found) == [TEXTBOOK, PLAIN, GRAPH, EPOCH]
    assert found[EPOCH] == pytest.approx((469 * epoch.low, 469 * epoch.high))
    assert found[TEXTBOOK] == pytest.approx((469 * (1e-2 + step.low), 469 * (1.2e-2 + step.high)))
    assert found[GRAPH] == pytest.approx((469 * epoch.low, 469 * (1e-4 + epoch.high)))
    assert found[PLAIN].low == pytest.approx(469 * 3e-4) and found[PLAIN].high > 469 * (3e-4 + 1e-4 + step.high - 3e-4)
    assert found[TEXTBOOK].low > found[PLAIN].high > found[GRAPH].high > found[EPOCH].high


def test_what_the_host_does_around_a_graph_of_an_epoch_is_in_its_prediction():
    alone, found = (predict_ladder(EXAMPLE, HOST._replace(loop=loop)) for loop in (0.0, 5e-6))
    assert found[EPOCH] == pytest.approx([seconds + 469 * 5e-6 for seconds in alone.pop(EPOCH)])
    assert alone.items() <= found.items()


def test_the_hosts_part_comes_from_an_account():
    names = {
        "smallest network": 2.0, "load, textbook": 50.0, "load, device": 1.0, "step": 8.0, "step, waiting": 9.0,
        "load, textbook, with steps": 62.0, "copy": 1.0, "whole, textbook": 70.0, "step of 1": 3.0, "step of 64": 6.0,
    }  # fmt: skip
    sizes = {"step of 1": 1, "step of 64": 64}
    found = {n: Timed("account", n, "cpu", 1, [s], {"batch_size": sizes.get(n, 128)}) for n, s in names.items()}
    host = host_of(found)
    assert host == Host(2.0, 50.0, 1.0, 62.0 - 9.0 - 50.0, host.loop) and 0 < host.loop < 1
