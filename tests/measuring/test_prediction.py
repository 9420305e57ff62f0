"""From the file of published figures to a card's limits, the time of a step, and what was measured of it later."""

import datetime
import itertools
import json

import pytest
import torch

from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring import prediction as module
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.measuring.prediction import MEASURED, SHEET, Card, Figure, PredictedCard, Range

from mnist_gpu.measuring.prediction import kernels, named, on_card, outcomes, predict_graph, predict_step  # isort: skip
from mnist_gpu.measuring.prediction import predictable, predicted_card, published, sources  # isort: skip
from mnist_gpu.measuring.operations import step_bytes, step_flops
from mnist_gpu.measuring.results import Results, Timed
from mnist_gpu.model import make_model, parameter_count
from mnist_gpu.training import make_step

# A card whose kernels take 1 to 4 μs.
EXAMPLE = PredictedCard("example", Range(1e-6, 4e-6), Range(1e12, 2e12), Range(1e11, 3e11))


def test_the_file_has_for_every_figure_a_known_quantity_and_kind_a_number_and_a_source_and_none_twice():
    content = json.loads((module.PUBLISHED / "cards.json").read_text(encoding="utf-8"))
    for source in content["sources"].values():
        assert source.keys() == {"title", "url", "date"} and source["title"] and source["url"].startswith("https://")
        datetime.date.fromisoformat(source["date"])
    used = set()
    for name, card in content["cards"].items():
        assert card.keys() == {"full_name", "device_names", "figures"} and card["device_names"], name
        seen = set()
        for figure in card["figures"]:
            assert figure.keys() == {"quantity", "value", "kind", "source"} and figure["value"] > 0, (name, figure)
            assert figure["quantity"] in content["quantities"] and figure["kind"] in (SHEET, MEASURED), (name, figure)
            assert figure["source"] in content["sources"], (name, figure)
            seen.add((figure["quantity"], figure["kind"], figure["source"]))
            used.add(figure["source"])
        assert len(seen) == len(card["figures"]), f"a figure of {name} is there twice"
    assert used == content["sources"].keys()
    for card in module.cards().values():
        if lanes := card.get("lanes"):
            assert lanes * 2 * card.get("clock") == pytest.approx(card.get("float32", SHEET), rel=0.02), card.name
    names = [name for card in module.cards().values() for name in card.device_names]
    assert len(set(names)) == len(names)  # a machine has one card


def test_figures_are_chosen_by_quantity_and_kind_and_their_sources_listed_once():
    chosen = published(quantity="float32", kind=SHEET)
    assert chosen == [f for f in published() if (f.quantity, f.kind) == ("float32", SHEET)] and chosen
    with pytest.raises(ValueError, match=r"'H900'; there are: T4, .*H200"):
        named("H900")
    assert named("P100").get("lanes") is None  # what nobody published
    memory = published(quantity="memory")
    assert all(sources(memory).count(f.source[1]) == 1 for f in memory) and "T4, " in sources(memory)


@pytest.fixture
def known(monkeypatch):
    """Published are A, measured at half and at nine tenths of its sheet, and B, of which there is a sheet alone."""

    def card(name, *figures):
        source = ("A table", "https://example.org", "2026-01-31")
        return Card(name, f"NVIDIA {name}", (name,), tuple(Figure(name, *f, source) for f in figures))

    a = card(
        "A", ("float32", 10e12, SHEET), ("float32", 5e12, MEASURED), ("float32", 9e12, MEASURED),
        ("memory", 1e12, SHEET), ("copy", 8e11, MEASURED), ("small kernel", 5e-6, MEASURED),
    )  # fmt: skip
    b = card("B", ("float32", 40e12, SHEET), ("memory", 2e12, SHEET), ("kernel in a graph", 1e-6, MEASURED))
    monkeypatch.setattr(module, "cards", lambda: {"A": a, "B": b})


def test_a_rate_goes_from_what_others_measured_to_the_data_sheet_or_by_the_share_that_others_reach(known):
    measured, unknown = predicted_card("A"), predicted_card("B")
    assert measured == PredictedCard("A", Range(1e-6, 5e-6), Range(5e12, 10e12), Range(8e11, 1e12))
    assert unknown.rate == pytest.approx((20e12, 36e12)) and unknown.bandwidth == pytest.approx((1.6e12, 1.6e12))


def test_every_card_of_the_course_has_ranges_that_its_data_sheet_bounds():
    assert len(predictable()) >= 10
    for name in predictable():
        card = predicted_card(name)
        assert 0 < card.rate.low <= card.rate.high <= named(name).get("float32", SHEET)
        assert 0 < card.bandwidth.low <= card.bandwidth.high <= named(name).bandwidth
        assert 0 < card.kernel.low < card.kernel.high < 1e-4
    for name in ("H900", "M2"):  # not known, and none whose launches are
        with pytest.raises(ValueError, match=rf"'{name}'.*; there are: T4, P100, .*H200"):
            predicted_card(name)


def test_operations_are_counted_with_the_bytes_that_they_read_and_write():
    x, w = torch.rand(4, 3, requires_grad=True), torch.rand(3, 2)
    with Operations() as found:
        (x @ w).t().relu().sum().backward()
    names = ["mm", "relu", "sum", "ones_like", "threshold_backward", "mm"]
    numbers = (12 + 6 + 8, 8 + 8, 8 + 1, 1 + 1, 8 + 8 + 8, 12 + 8 + 6)  # read and written
    seen = [(o.name, o.bytes) for o in found.seen if not o.is_view]
    assert seen == [(name, 4 * n) for name, n in zip(names, numbers, strict=True)]


def test_the_bytes_of_a_steps_operations_are_those_of_the_formula():
    def moved(batch_size, hidden):
        model, batch = make_model(hidden), (torch.rand(batch_size, 1, 28, 28), torch.zeros(batch_size).long())
        step = make_step(model, sgd(model, foreach=True))
        step(*batch)  # which makes the momentum
        with Operations() as found:
            step(*batch)
        return [(o.name, o.bytes) for o in found.seen if not o.is_view]

    assert sum(n for _, n in moved(128, 128)) == pytest.approx(step_bytes(128, 128), rel=0.05)
    wide, parameters = dict(moved(64, 1000)), 4 * parameter_count(1000)
    assert wide["_foreach_add_"] == 3 * parameters and wide["_foreach_mul_"] == 2 * parameters


def test_kernels_are_the_operations_of_a_step_and_a_product_may_be_two():
    default, more = kernels(), kernels(batches=True)
    assert default.high == default.low + 5  # the five products of chapter 02
    assert kernels(fused=True).low == default.low - 2  # momentum, weight update: one kernel instead of three
    assert more.low - default.low == more.high - default.high >= 4  # images and labels gathered, scaled, shifted


def test_on_the_card_a_step_is_its_kernels_operations_and_bytes_overlapped_or_not():
    count, operations, moved = kernels(), sum(step_flops(64, 256)), step_bytes(64, 256)
    found, fused = on_card(EXAMPLE, 64, 256), predict_graph(EXAMPLE, 64, 256)
    assert found.low == pytest.approx(count.low * 1e-6 + max(operations / 2e12, moved / 3e11))
    assert found.high == pytest.approx(count.high * 4e-6 + operations / 1e12 + moved / 1e11)
    assert fused == on_card(EXAMPLE, 64, 256, fused=True) and fused.high < found.high
    assert found.middle**2 == pytest.approx(found.low * found.high)
    assert found.gain_over(1.0) == (1 / found.high, 1 / found.low)


def test_launching_and_computing_overlap_at_least_and_follow_each_other_at_most():
    small, large, count = on_card(EXAMPLE, 1, 1), on_card(EXAMPLE, 2048, 2048), kernels()
    assert small.low < 1.5e-4 < large.low
    asked = 3e-4 + count.high * EXAMPLE.kernel.high
    assert predict_step(EXAMPLE, 3e-4, 1, 1) == pytest.approx(Range(1.5e-4, asked + small.high))
    computed = count.low * EXAMPLE.kernel.low + sum(step_flops(2048, 2048)) / EXAMPLE.rate.high
    assert predict_step(EXAMPLE, 3e-4, 2048, 2048) == pytest.approx(Range(computed, asked + large.high))


def test_what_was_written_down_stands_beside_what_is_recorded_of_the_card_later():
    _, every = module.written_down()
    assert all(0 < p["seconds"].low <= p["seconds"].high and p["card"] in predictable() for p in every)
    step, rung = (next(p for p in every if (p["card"], p["section"]) == ("T4", it)) for it in ("crossover", "ladder"))

    def machine(name, **factors):  # of the middle of both
        measured = []
        for (device, factor), p in itertools.product(factors.items(), (step, rung)):
            seconds = [factor * p["seconds"].middle] * 3
            measured.append(Timed(p["section"], p["name"], device, 1, seconds, p["parameters"], {"images": 60_000}))
        return Results({"device_name": name}, measured, "2026-01-31")

    *_, first, second, count = outcomes(machine("Tesla T4", cpu=50.0, cuda=1.0)).splitlines()  # the GPU's only
    assert first.endswith("1.00x           yes") and second.endswith("1.00x           yes") and "2 of 2" in count
    *_, slow, count = outcomes(machine("Tesla T4", cpu=1.0, cuda=50.0)).splitlines()
    assert "50.00x" in slow and slow.endswith("NO") and rung["name"] in slow and "0 of 2" in count
    assert outcomes(machine("AMD EPYC", cpu=1.0)) == ""
    drawn = dict(module.predicted_ladders([Results({"device_name": "NVIDIA H200"}, [], "2026-01-31")]))
    assert [name.split(",")[0] for name in drawn] == ["T4", "H100", "H200"]
    assert next(iter(drawn.values()))[rung["name"]] == rung["seconds"]
