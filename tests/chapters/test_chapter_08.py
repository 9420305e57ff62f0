"""Chapter 08: the programs in its cells against cases by hand and laws, its counting of bytes, its sweeps."""

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
from mnist_gpu.measuring import timing
from mnist_gpu.model import make_model, step_flops

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Two blocks of a call or two."""
    monkeypatch.setattr(timing, "BLOCKS", 2)
    monkeypatch.setattr(sweeps, "measure", lambda f, **_: timing.measure(f, min_seconds=1e-6))


def defined(cell: str, name: str):
    """What a cell of the notebook defines under this name, without what else it does."""
    tree = ast.parse(next(c.source for c in CELLS["08"] if c.id == cell))
    kinds = (ast.FunctionDef, ast.ClassDef, ast.ImportFrom)
    kept = [node for node in tree.body if isinstance(node, kinds) or ast.unparse(node).startswith("LOAD")]
    namespace = {"torch": torch, "F": F, "lab": lab}
    exec(compile(ast.Module(kept, []), cell, "exec"), namespace)
    return namespace[name]


simulate = defined("inside-simulate", "simulate")
both_sides = defined("inside-divergence", "both_sides")
activations = defined("inside-held", "activations")
Deep = defined("inside-checkpointing", "Deep")
LOAD = 4 * lab.WARP


def a_batch(n, device="cpu"):
    return torch.rand(n, 1, 28, 28, device=device), torch.randint(10, (n,), device=device)


# A multiprocessor


def test_cases_by_hand():
    for warps, latency, interval, busy_cycles, loads in (
        ([4], 16, 1, 4 / 20, 1 / 20),  # four instructions, the load, and 15 cycles more to wait
        ([4] * 2, 16, 1, 8 / 20, 2 / 20),
        ([4] * 4, 16, 1, 16 / 20, 4 / 20),  # each issues five of every 20 cycles: there is none left
        ([1] * 60, 100, 10, 1 / 10, 1 / 10),  # the memory sets the pace: more warps wait, and no more bytes fly
        # The warp that had the last turn goes on, and the others follow in their order.
        ([3, 8], 2, 1, (3 + 8) / 13, 2 / 13),  # turns of four and nine cycles
        ([8, 3], 1, 1, 8 / 9, 1 / 9),  # the first never waits
    ):
        found = simulate(warps, latency=latency, interval=interval, cycles=4 * 5 * 9 * 13)
        assert found == pytest.approx((busy_cycles, loads * LOAD, latency * loads * LOAD), rel=2e-3)


def test_its_curve_is_littles_law_and_more_warps_never_do_less():
    random.seed(0)
    for _ in range(30):
        latency, interval = random.randint(20, 400), random.choice([1, 2.5, 7, 12])
        compute, warps = random.randint(1, 30), random.randint(1, 48)
        busy, rate, in_flight = simulate([compute] * warps, latency=latency, interval=interval, cycles=6000)
        assert in_flight == pytest.approx(rate * latency, rel=0.03)
        assert in_flight <= min(warps, latency / interval) * LOAD * 1.03
        expected = min(warps * compute / (compute + latency), compute / (compute + 1), compute / interval)
        assert busy == pytest.approx(expected, rel=0.08)
        assert simulate([compute] * 2 * warps, latency=latency, interval=interval, cycles=2000)[0] > 0.98 * busy


def test_a_warp_whose_lanes_disagree_does_both_sides():
    one = torch.zeros(lab.WARP, dtype=torch.bool)
    one[7] = True
    same = torch.ones_like(one)
    assert both_sides(torch.cat([same, ~same, one, ~one]), 40, 4).tolist() == [40, 4, 44, 44]


# Memory


def test_the_formula_is_what_autograd_keeps_to_the_byte_whatever_the_sizes():
    random.seed(0)
    for batch, width in [(1, 1), (128, 128), *((random.randint(1, 300), random.randint(1, 300)) for _ in range(10))]:
        assert lab.counted(make_model(width), *a_batch(batch)) == activations(batch, width)


def test_live_bytes_are_those_of_the_tensors_that_are_there():
    before = torch.zeros(3)
    with lab.LiveBytes() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1
        assert live.now == 8000
        c = b.t()  # no new storage
        del b
        assert live.now == 8000
        del c
        assert live.now == 4000
        a.add_(1)
        before.add_(1)  # made earlier, and so not counted
        d = torch.zeros(500)
    assert (live.now, live.peak) == (6000, 8000)
    del a
    assert live.now == 2000 and len(d) == 500
    assert live.history[:3] == [("zeros", 4000), ("view", 4000), ("add", 8000)]


def test_a_batch_in_parts_has_the_gradient_of_the_whole_takes_fewer_bytes_and_more_launches():
    model, (images, labels) = make_model(64).double(), a_batch(2048)
    cost, right = lab.cost_of_gradient(model, images.double(), labels)
    expected = torch.autograd.grad(F.cross_entropy(model(images.double()), labels), list(model.parameters()))
    assert torch.equal(right, torch.cat([g.flatten() for g in expected])) and model.hidden.weight.grad is None
    assert cost["operations"] == sum(step_flops(2048, 64)) and cost["kept"] < cost["peak"]
    for parts in (4, 7):  # 7: parts of 293, and one of 290
        found, gradient = lab.cost_of_gradient(model, images.double(), labels, parts)
        assert (gradient - right).abs().max() < 1e-14 and found["operations"] == cost["operations"]
        assert found["kept"] < cost["kept"] and found["peak"] < cost["peak"]
        assert found["launched"] > 0.7 * parts * cost["launched"]
    text = lab.costs({1: (cost, right), 7: (found, gradient)}, "parts").splitlines()
    assert text[2].split()[2:] == ["1.00x"] * 4 + ["0e+00"] and "1.00x" in text[3]
    for parts in (0, 2049, 1.5):
        with pytest.raises(ValueError, match="parts is"):
            lab.accumulate(model, images, labels, parts)


def test_checkpointing_keeps_less_computes_more_and_gives_the_same_gradient():
    def of(pieces):
        torch.manual_seed(0)
        return lab.cost_of_gradient(Deep(pieces, width=32), *a_batch(512))

    (whole, right), (four, gradient), (sixteen, _) = of(1), of(4), of(16)
    forward = 2 * 512 * (784 * 32 + 16 * 32 * 32 + 32 * 10)
    assert whole["kept"] - four["kept"] == 9 * 4 * 512 * 32  # of each of the first three pieces, three of four layers
    assert whole["operations"] == 3 * forward - 2 * 512 * 784 * 32  # no gradient for the images
    assert four["operations"] - whole["operations"] == 12 * 2 * 512 * 32 * 32  # twelve layers again
    assert sixteen["operations"] > four["operations"] and sixteen["kept"] == whole["kept"]
    assert four["peak"] < min(whole["peak"], sixteen["peak"]) and torch.equal(gradient, right)


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


# Sweeps


def test_k_multiply_adds_are_what_the_series_says_each_chain_is_compiled_and_what_was_compiled_before_stays(
    monkeypatch,
):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    other = torch.compile(torch.nn.Linear(1, 1))
    other(torch.ones(1))
    for k in (*range(1, 12), 5):  # more than torch.compile compiles of one function
        expected = 0.999**k * 2 + 0.001 * sum(0.999**i for i in range(k))
        assert sweeps.fused(k)(torch.full((4,), 2.0)).tolist() == pytest.approx([expected] * 4, rel=1e-5)
    other(torch.ones(1))
    assert len(compiled) == 1 + 12


def test_fused_ones_end_where_one_takes_ten_times_as_long_and_are_left_out_without_a_compiler(monkeypatch):
    seconds = iter([1.0] * 4 + [1.0, 1.0, 2.0, 9.9, 10.1, 99.0])  # of one by one up to k = 8, and fused
    monkeypatch.setattr(sweeps, "timed", lambda kernel, x: [next(seconds)])
    monkeypatch.setattr(sweeps, "compiler_missing", lambda device: None)
    found = lab.intensities(CPU, 1000, ks=(1, 2, 4, 8, 16, 32))
    assert list(found["one by one"]) == [1, 2, 4, 8] and list(found["fused"]) == [1, 2, 4, 8, 16]
    monkeypatch.setattr(sweeps, "compiler_missing", lambda device: "needs a compiler")
    found = lab.intensities(CPU, 1000, ks=(1, 16))
    assert found == {"one by one": {1: [99.0]}} and "needs a compiler" in lab.own_ridge(found, CPU, 1000)


def test_their_own_ridge_is_the_best_rate_of_operations_over_that_of_bytes():
    said = lab.own_ridge({"fused": {1: [1.0], 8: [1.4], 64: [4.0], 256: [100.0]}}, CPU, 10**9)
    assert "k = 8 takes at most 1.5 times" in said and "32 GFLOP/s (at k = 64) and 8 GB/s" in said
    assert "at 4.0 FLOP/byte, k = 16" in said and "At k = 256 the rate is down to 16%" in said


def test_a_curve_has_seconds_or_rates_with_their_intervals():
    sweep = {4: [1.0, *[2.0] * 8, 4.0], 8: [1.0, 1.0, *[2.0] * 7, 4.0]}
    found = lab.curve("a copy", sweep, per=1e-3)
    assert (found.xs, found.ys, found.lows, found.highs) == ([4, 8], [2000] * 2, [2000, 1000], [2000] * 2)
    found = lab.curve("a copy", sweep, work=lambda x: 8 * x)
    assert (found.ys, found.lows, found.highs) == ([16, 32], [16, 32], [16, 64])


def test_a_kernel_over_sizes_and_each_condition_are_timed():
    assert [len(seconds) for seconds in lab.by_size(CPU, sizes=[256, 1000]).values()] == [2, 2]
    pixels = torch.zeros(50, 28, 28, dtype=torch.uint8)
    pixels[:, 10:15] = 200
    found = lab.conditions(CPU, pixels, rounds=3)
    assert list(found) == [sweeps.EVERYWHERE, sweeps.NOWHERE, sweeps.INK, sweeps.SHUFFLED, sweeps.ALONE]
    assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in found.values())


def test_steps_down_are_those_after_the_highest_rate_that_show_beside_the_noise():
    def said(rates, **spreads):
        sweep = {4 * 2**i: spreads.get(f"at{i}", [1 / rate] * 10) for i, rate in enumerate(rates)}
        return lab.steps_down(lab.curve("a copy", sweep, work=lambda kib: 1.0), {"L1": 48 * 1024, "L3": 2**25})

    found = said([10, 5, 40, 39, 20, 19, 10])
    assert found.count("From") == 2 and "40 GB/s, is at 16 KiB" in found and "L1 48 KiB, L3 32 MiB" in found
    assert "From 32 to 64 KiB it falls to 1/1.9" in found and "From 128 to 256 KiB it falls to 1/1.9" in found
    assert "From" not in said([10, 20, 40])
    assert "From" not in said([40, 20], at1=[1 / 20, 1 / 50, 1 / 50, *[1 / 20] * 7])  # an interval that reaches 40


def test_flat_is_what_takes_at_most_half_as_long_again_also_where_a_busy_machine_slowed_one_of_them():
    for seconds, size in (([1.1, 1.0, 1.2, 1.6, 3.0], 4), ([9.0, 1.0, 1.2, 3.0], 4), ([1.0, 9.0, 1.4], 4)):
        assert lab.still_flat({2**i: [s] for i, s in enumerate(seconds)}) == size


def test_caches_are_those_that_linux_names(tmp_path):
    for i, texts in enumerate([("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2048K")]):
        (folder := tmp_path / f"index{i}").mkdir()
        for name, text in zip(("level", "type", "size"), texts, strict=True):
            (folder / name).write_text(text + "\n", encoding="utf-8")
    assert lab.caches(CPU, tmp_path) == {"L1": 48 * 1024, "L2": 2 * 2**20}
    assert lab.caches(CPU, tmp_path / "no such folder") == {} == lab.caches(torch.device("mps"), tmp_path)


@pytest.mark.cuda
def test_a_gpus_sizes_go_from_a_block_to_four_waves(gpu):
    sizes, properties = sweeps.wave_sizes(gpu), torch.cuda.get_device_properties(gpu)
    assert sizes[0] == 1024
    assert sizes[-1] == 4 * properties.multi_processor_count * properties.max_threads_per_multi_processor
    assert all(a < b for a, b in itertools.pairwise(sizes)) and lab.caches(gpu)["L2"] > 2**20
    assert list(lab.by_size(gpu, sizes[:2])) == sizes[:2]
