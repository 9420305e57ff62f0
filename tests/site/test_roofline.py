"""The roofline's page computes what the package predicts, from the same figures."""

import math
from itertools import pairwise, product

import pytest
from moving import PLAY, at

from mnist_gpu.measuring import prediction
from mnist_gpu.measuring.drawing import number, span
from mnist_gpu.measuring.operations import step_bytes, step_flops
from mnist_gpu.measuring.prediction import Range, kernels, named, predict_graph, predict_step, predictable, published
from mnist_gpu.measuring.results import read

ROOT = PLAY.parents[1]
SIZES = [*product((1, 128, 2048, 65536), (16, 128, 1024, 8192))]


@pytest.fixture(scope="module")
def address(serve):
    return f"{serve(PLAY)}/roofline.html"


@pytest.fixture
def page(visit, address):
    return visit(address)


def close(found, expected) -> bool:
    return [*found] == pytest.approx([*expected], rel=1e-6)


def test_operations_and_bytes_are_the_packages(page):
    found = page.evaluate("sizes => sizes.map(s => [stepFlops(...s), stepBytes(...s)])", SIZES)
    assert found == [[sum(step_flops(*size)), step_bytes(*size)] for size in SIZES]


def test_a_cards_limits_are_the_packages(page):
    assert page.evaluate("predictable") == predictable()
    for name in predictable():
        found, card = page.evaluate("limits", name), prediction.predicted_card(name)
        for limit in ("kernel", "rate", "bandwidth"):
            assert close(found[limit], getattr(card, limit)), (name, limit)
        of = "card => figuresFor(card).map(f => [f.card, f.quantity, f.value, f.kind, SOURCES[f.source].url])"
        used = [f for f in named(name).figures if f.kind == "data sheet" and f.quantity in ("float32", "memory")]
        used += prediction._measured(name, "float32") + prediction._measured(name, "copy")
        used += published(quantity="small kernel") + published(quantity="kernel in a graph")
        assert page.evaluate(of, name) == [[f.card, f.quantity, f.value, f.kind, f.source[1]] for f in used]


def test_counts_and_the_recorded_host_are_the_packages(page):
    counted = page.evaluate("COUNTED")
    assert counted["one by one"] == [*kernels()] and counted["graph"] == [*kernels(fused=True)]
    host, machine = counted["smallest step"], read(ROOT / counted["smallest step"]["file"])
    (measured,) = machine.select("account", "smallest network", device="cpu")
    assert host["cpu"] == machine.environment["cpu_name"]
    assert host["seconds"] == pytest.approx(measured.median, abs=5e-7)
    assert page.evaluate("state().host") == round(host["seconds"] * 1e6)


def parts_of(card, batch, width, way, host) -> dict[str, Range]:
    count, flops, moved = kernels(fused=way == "graph"), sum(step_flops(batch, width)), step_bytes(batch, width)
    own = Range(count.low * card.kernel.low, count.high * card.kernel.high)
    asked = own if way == "graph" else Range(max(host / 2, own.low), host + own.high)
    return {
        "launches": asked,
        "operations": Range(flops / card.rate.high, flops / card.rate.low),
        "bytes": Range(moved / card.bandwidth.high, moved / card.bandwidth.low),
    }


def test_a_step_takes_what_the_package_predicts_and_the_largest_part_is_the_limit(page):
    ways = (("one", 258e-6), ("one", 2e-5), ("graph", 0))
    cases = [(name, *size, *way) for name, size, way in product(predictable(), SIZES, ways)]
    given = "cases => cases.map(c => { const parts = predict(...c); return [parts, limiting(parts)] })"
    limits = set()
    for (name, *size, way, host), (found, limit) in zip(cases, page.evaluate(given, cases), strict=True):
        card = prediction.predicted_card(name)
        whole = predict_graph(card, *size) if way == "graph" else predict_step(card, host, *size)
        parts = parts_of(card, *size, way, host)
        assert close(found["whole"], whole), (name, size, way)
        assert all(close(found[part], parts[part]) for part in parts), (name, size, way)
        first = max(parts, key=lambda part: parts[part].middle)
        assert limit[0] == first and {*limit} == {p for p in parts if parts[p].high >= parts[first].low}
        limits.add(tuple(limit))
    assert {("launches",), ("operations",), ("bytes",)} < limits and any(len(one) == 3 for one in limits)


SAID = [
    ("T4", 1, 128, "one", "Launches are the limit."),
    ("RTX 4090", 1, 8192, "graph", "Bytes are the limit."),
    ("H100", 65536, 4096, "graph", "Operations are the limit."),
    ("L4", 512, 128, "graph", "leave open"),
]


def test_the_sentence_says_the_packages_numbers(page):
    for card, batch, width, way, limit in SAID:
        said = at(page, card=card, batch=batch, width=width, way=way)
        there, size = prediction.predicted_card(card), (batch, width)
        whole = predict_graph(there, *size) if way == "graph" else predict_step(there, 258e-6, *size)
        flops, times = sum(step_flops(*size)), [*parts_of(there, *size, way, 258e-6).values(), whole]
        units = [(1e-6, "μs") if t.high < 1e-3 else (1e-3, "ms") if t.high < 1 else (1, "s") for t in times]
        texts = [f"{span(t, per)} {unit}" for t, (per, unit) in zip(times, units, strict=True)]
        assert said.startswith(f"{card}, batch size {batch:,}, hidden width {width:,}. ") and limit in said
        assert "Launches take {} of a step, operations {}, bytes {}. The step takes {}".format(*texts) in said
        assert f"{span([flops / t / 1e12 for t in (whole.high, whole.low)])} TFLOP/s" in said
        assert f"of {number(named(card).get('float32') / 1e12)} on the data sheet" in said
        assert page.evaluate("$('host-control').hidden") is (way == "graph")
        assert page.inner_text("#parts").count(" to ") == 4 and "predicted" in page.inner_text("#parts")


def test_numbers_are_written_as_the_course_writes_them(page):
    values = [0.00123, 0.5, 1.3, 9.4, 13.04, 99.4, 100.2, 1234.6, 52363264]
    assert page.evaluate("values => values.map(number)", values) == [number(v) for v in values]
    pairs = [*pairwise(values)]
    assert page.evaluate("pairs => pairs.map(p => span(p))", pairs) == [span(pair) for pair in pairs]


def test_the_point_moves_under_the_roof(page):
    """Where the circle is drawn: at the step's operations per byte, higher with the batch."""
    spots = []
    for batch in (1, 128, 65536):
        at(page, card="T4", batch=batch, width=1024, way="graph")
        spots.append(page.evaluate("(c => [c.cx.baseVal.value, c.cy.baseVal.value])(document.querySelector('.point'))"))
    ratios = [math.log(sum(step_flops(b, 1024)) / step_bytes(b, 1024)) for b in (1, 128, 65536)]
    (x0, y0), (x1, y1), (x2, y2) = spots
    assert (x1 - x0) / (x2 - x0) == pytest.approx((ratios[1] - ratios[0]) / (ratios[2] - ratios[0]), abs=0.01)
    assert y0 > y1 > y2
