"""Chapter 08: the programs in its cells against cases by hand, its counting of bytes, and its sweeps."""

import ast
import random

import pytest
import torch
import torch.nn.functional as F
from test_answers import CELLS

from mnist_gpu.chapters import chapter_08 as lab
from mnist_gpu.faster.ladder import RUNGS
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
    text = lab.inside([lab.named("T4"), lab.named("RTX 4090")])
    assert [line.split()[-2:] for line in text.splitlines()[-2:]] == [["8.1", "82.6"]] * 2  # by lanes; on the sheet
    text = lab.memories([lab.named("A100"), lab.named("T4")]).splitlines()
    assert text[3].split()[-6:] == ["108", "x", "164", "KiB", "20", "23,101"]  # its shared memory
    assert text[11].split()[-3:] == ["-", "-", "-"]  # the bus of the T4


def test_the_formula_is_what_autograd_keeps_to_the_byte_whatever_the_sizes():
    activations, kept = (defined("inside-held", name) for name in ("activations", "kept"))
    for batch, width in [(1, 1), (128, 128), *((random.randint(1, 300), random.randint(1, 300)) for _ in range(10))]:
        assert kept(make_model(width), *a_batch(batch)) == activations(batch, width)


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


def test_a_batch_in_parts_has_the_gradient_of_the_whole_takes_fewer_bytes_and_more_launches():
    model, (images, labels) = make_model(64).double(), a_batch(2048)
    cost, right = lab.cost_of_gradient(model, images.double(), labels)
    expected = torch.autograd.grad(F.cross_entropy(model(images.double()), labels), list(model.parameters()))
    assert torch.equal(right, torch.cat([g.flatten() for g in expected]))
    assert cost["operations"] == sum(step_flops(2048, 64))
    found, gradient = lab.cost_of_gradient(model, images.double(), labels, 7)  # parts of 293, and one of 290
    assert (gradient - right).abs().max() < 1e-14 and found["operations"] == cost["operations"]
    assert found["peak"] < cost["peak"] and found["launched"] > 5 * cost["launched"]
    assert lab.costs({1: (cost, right), 7: (found, gradient)}, "parts").splitlines()[2].split()[1:4] == ["1.00x"] * 3


def test_checkpointing_keeps_less_computes_more_and_gives_the_same_gradient():
    def of(pieces):
        torch.manual_seed(0)
        return lab.cost_of_gradient(defined("inside-checkpointing", "Deep")(pieces, width=32), *a_batch(512))

    (whole, right), (four, gradient) = of(1), of(4)
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


def test_a_curve_has_seconds_or_rates_with_their_intervals():
    sweep = {4: [1.0, *[2.0] * 8, 4.0], 8: [1.0, 1.0, *[2.0] * 7, 4.0]}
    found = lab.curve("a copy", sweep, per=1e-3)
    assert (found.xs, found.ys, found.lows, found.highs) == ([4, 8], [2000] * 2, [2000, 1000], [2000] * 2)
    found = lab.curve("a copy", sweep, work=lambda x: 8 * x)
    assert (found.ys, found.lows, found.highs) == ([16, 32], [16, 32], [16, 64])


@pytest.mark.cuda
def test_a_kernel_is_timed_inside_a_graph(gpu):
    small, large = (lab.timed(torch.Tensor.mul_, torch.rand(n, device=gpu), 1.0) for n in (256, 2**25))
    assert 0 < max(small) < min(large)


def test_every_rung_but_the_textbook_relieves_something():
    assert all(rung.relieves or rung.base is None for rung in RUNGS)
    assert {cause for rung in RUNGS for cause in rung.relieves} == {"loading", *lab.REGIMES}
