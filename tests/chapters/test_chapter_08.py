"""Chapter 08: the programs in its cells against cases by hand, its counting of bytes, its sweeps and its streams."""

import ast
import functools
import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from test_answers import CELLS

from mnist_gpu.chapters import chapter_08 as lab
from mnist_gpu.chapters.chapter_08 import sweeps
from mnist_gpu.chapters.chapter_08.streams import ONE, ROWS, TWO, overlap, predicted_overlap, seconds_in
from mnist_gpu.faster.ladder import RUNGS
from mnist_gpu.measuring.prediction import predict_graph, predicted_card
from mnist_gpu.model import make_model, step_flops


def defined(cell: str, name: str, **names):
    """What a cell of the notebook defines under this name, without what else it does; `names` are there before."""
    tree = ast.parse(next(c.source for c in CELLS["08"] if c.id == cell))
    kept = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ImportFrom)]
    namespace = {"torch": torch, "F": F, "lab": lab} | names
    exec(compile(ast.Module(kept, []), cell, "exec"), namespace)
    return namespace[name]


def a_batch(n, device="cpu"):
    return torch.rand(n, 1, 28, 28, device=device), torch.randint(10, (n,), device=device)


def test_the_lanes_wait_for_warps_or_for_memory_or_are_full():
    busy = defined("inside-latency", "busy", latency=96, interval=8, at_once=2)
    assert busy(1, 4) == pytest.approx(4 / 100 / 2)  # four of every hundred cycles, half of the lanes
    assert busy(10, 4) == pytest.approx(10 * busy(1, 4)) and busy(64, 4) == pytest.approx(4 / 8 / 2)
    assert busy(64, 16) == busy(64, 40) == 1  # from as many instructions a load on, the lanes are the limit


def test_a_warp_whose_lanes_disagree_does_both_sides():
    both_sides = defined("inside-divergence", "both_sides")
    one = torch.zeros(lab.WARP, dtype=torch.bool)
    one[7] = True
    same = torch.ones_like(one)
    assert both_sides(torch.cat([same, ~same, one, ~one]), 40, 4).tolist() == [40, 4, 44, 44]


def test_tables_of_cards_say_what_is_published_and_what_follows():
    def row(text, begin):
        return next(line.removeprefix(begin).split() for line in text.splitlines() if line.startswith(begin))

    text = lab.inside(lab.insides())
    assert row(text, "lanes x 2 x clock, TFLOP/s")[:3] == ["8.1", "14.9", "82.6"] and "within 0.5%" in text
    text = lab.memories([lab.named("A100"), lab.named("T4")])
    assert row(text, "published: A100, shared memory") == ["108", "x", "164", "KiB", "20", "23,101"]
    assert row(text, "published: T4, the bus") == ["-", "-", "-"]


def test_the_formula_is_what_autograd_keeps_to_the_byte_whatever_the_sizes():
    activations = defined("inside-held", "activations")
    for batch, width in [(1, 1), (128, 128), *((random.randint(1, 300), random.randint(1, 300)) for _ in range(10))]:
        assert lab.counted(make_model(width), *a_batch(batch)) == activations(batch, width)


def test_live_bytes_are_those_of_the_tensors_that_are_there():
    before = torch.zeros(3)
    with lab.LiveBytes() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1
        c = b.t()  # no new storage
        del b
        assert live.now == 8000
        del c
        assert live.now == 4000
        before.add_(1)  # made earlier, and so not counted
        d = torch.zeros(500)
    assert (live.now, live.peak) == (6000, 8000) and len(d) == 500
    del a
    assert live.now == 2000 and live.history[:3] == [("zeros", 4000), ("view", 4000), ("add", 8000)]
    drawn = lab.live_bytes([("addmm", 1_000_000), ("mm", 3_000_000), ("add_", 2_000_000)], 5_000_000, "a step")
    assert "8 MB, at the operation mm, of which 5 were there" in drawn.says and drawn.axes.has_data()


def test_a_batch_in_parts_has_the_gradient_of_the_whole_takes_fewer_bytes_and_more_launches():
    model, (images, labels) = make_model(64).double(), a_batch(2048)
    cost, right = lab.cost_of_gradient(model, images.double(), labels)
    expected = torch.autograd.grad(F.cross_entropy(model(images.double()), labels), list(model.parameters()))
    assert torch.equal(right, torch.cat([g.flatten() for g in expected]))
    assert cost["operations"] == sum(step_flops(2048, 64)) and cost["kept"] < cost["peak"]
    found, gradient = lab.cost_of_gradient(model, images.double(), labels, 7)  # parts of 293, and one of 290
    assert (gradient - right).abs().max() < 1e-14 and found["operations"] == cost["operations"]
    assert found["kept"] < cost["kept"] and found["peak"] < cost["peak"]
    assert found["launched"] > 5 * cost["launched"]
    assert lab.costs({1: (cost, right), 7: (found, gradient)}, "parts").splitlines()[2].split()[1:5] == ["1.00x"] * 4


def test_checkpointing_keeps_less_computes_more_and_gives_the_same_gradient():
    def of(pieces):
        torch.manual_seed(0)
        return lab.cost_of_gradient(defined("inside-checkpointing", "Deep")(pieces, width=32), *a_batch(512))

    (whole, right), (four, gradient) = of(1), of(4)
    assert whole["kept"] - four["kept"] == 9 * 4 * 512 * 32  # of each of the first three pieces, three of four layers
    assert four["operations"] - whole["operations"] == 12 * 2 * 512 * 32 * 32  # twelve layers again
    assert four["peak"] < whole["peak"] and torch.equal(gradient, right)


@pytest.mark.cuda
def test_the_allocators_peak_is_not_below_what_is_counted(gpu):
    model, batch = make_model(512, device=gpu), a_batch(4096, gpu)
    lab.accumulate(model, *batch, 1)  # which makes the gradients
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with lab.LiveBytes() as live:
        lab.accumulate(model, *batch, 1)
    most = torch.cuda.max_memory_allocated() - before
    assert live.peak <= most < 1.2 * live.peak + 32 * 2**20  # it rounds up, and products take some work space


def test_each_chain_of_multiply_adds_is_compiled_and_what_was_compiled_before_stays(monkeypatch):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    for k in (*range(1, 12), 5):  # more than torch.compile compiles of one function
        expected = 0.999**k * 2 + 0.001 * sum(0.999**i for i in range(k))
        assert sweeps.fused(k)(torch.full((4,), 2.0)).tolist() == pytest.approx([expected] * 4, rel=1e-5)
    assert len(compiled) == 12


def test_a_curve_has_seconds_or_rates_with_their_intervals():
    sweep = {4: [1.0, *[2.0] * 8, 4.0], 8: [1.0, 1.0, *[2.0] * 7, 4.0]}
    found = lab.curve("a copy", sweep, per=1e-3)
    assert (found.xs, found.ys, found.lows, found.highs) == ([4, 8], [2000] * 2, [2000, 1000], [2000] * 2)
    found = lab.curve("a copy", sweep, work=lambda x: 8 * x)
    assert (found.ys, found.lows, found.highs) == ([16, 32], [16, 32], [16, 64])


@pytest.mark.cuda
def test_a_kernel_is_timed_inside_a_graph(gpu):
    small, large = lab.by_size(gpu, sizes=(256, 2**25)).values()
    assert 0 < max(small) < min(large)


@pytest.mark.parametrize("batch_size", [8, 65_536])  # a step is longer than a copy, or a copy than a step
def test_a_step_waits_for_its_copy_and_the_one_before_and_a_copy_for_the_copy_before_alone(batch_size):
    events = predicted_overlap("A100", steps=4, batch_size=batch_size)
    copy = batch_size * (784 * 4 + 8) / lab.named("A100").get("pinned transfer")
    step = predict_graph(predicted_card("A100"), batch_size).middle
    assert all(a[3] == b[2] for a, b in itertools.pairwise(events[ONE]))
    copies, steps = ([e for e in events[TWO] if e[1] == name] for name in ("copy", "step"))
    assert copies[0][2] == 0 and all(a[3] == b[2] for a, b in itertools.pairwise(copies))
    for i, (_, _, begin, _, _) in enumerate(steps):
        assert begin == max(copies[i][3], steps[i - 1][3] if i else 0.0)
    # At best the shorter disappears.
    assert seconds_in(events) == pytest.approx((4 * (copy + step), min(copy, step) + 4 * max(copy, step)))
    one, two = seconds_in(predicted_overlap("A100"))
    assert f"{one / two:.2f} times" in lab.copies_and_steps(torch.device("cpu"), "A100").says


@pytest.mark.cuda
def test_a_gpus_events_are_in_order_and_each_batch_is_there_before_its_step(gpu):
    events = overlap(gpu, steps=5, batch_size=1024)
    assert [name for _, name, *_ in events[ONE]] == ["copy", "step"] * 5
    copies, steps = ([e[2:4] for e in events[TWO] if e[0] == ROWS[TWO][name]] for name in ("copy", "step"))
    tolerance = 2e-6  # of the events' clock
    assert all(copy[1] <= step[0] + tolerance for copy, step in zip(copies, steps, strict=True)) and len(steps) == 5
    for row in (copies, steps, [e[2:4] for e in events[ONE]]):
        assert all(a[1] <= b[0] + tolerance for a, b in itertools.pairwise(row))


def test_every_rung_but_the_textbook_relieves_something():
    assert all(rung.relieves or rung.base is None for rung in RUNGS)
    assert {cause for rung in RUNGS for cause in rung.relieves} == {"loading", *lab.REGIMES}
