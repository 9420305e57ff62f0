"""Chapter 08: the programs in its cells, its counting of bytes, sweeps and streams, and what its figures say."""

import ast
import functools
import itertools
import os
import random
from concurrent.futures.process import BrokenProcessPool

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from test_answers import CELLS

from mnist_gpu.chapters import chapter_08 as lab
from mnist_gpu.chapters.chapter_08 import lanes, regimes, sweeps
from mnist_gpu.chapters.chapter_08.lanes import CAPABILITY, WITH, WITHOUT, Lanes, vector_lanes
from mnist_gpu.chapters.chapter_08.streams import ONE, ROWS, TWO, overlap, predicted_overlap, seconds_in
from mnist_gpu.faster.ladder import RUNGS, TEXTBOOK
from mnist_gpu.measuring import timing
from mnist_gpu.measuring.operations import Operation
from mnist_gpu.measuring.predicting import Limits, predict_graph, predicted_card
from mnist_gpu.model import make_model, step_flops

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Two blocks of a call or two, and figures that are closed."""
    monkeypatch.setattr(timing, "BLOCKS", 2)
    monkeypatch.setattr(sweeps, "measure", lambda f, **_: timing.measure(f, min_seconds=1e-6))
    yield
    plt.close("all")


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
    seconds = iter([1.0] * 4 + [1.0, 1.0, 2.0, 9.0, 11.0, 99.0])  # of one by one up to k = 8, and fused
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


# Vector lanes


def test_two_processes_are_asked_and_one_of_them_has_no_wide_vectors(monkeypatch):
    monkeypatch.setenv(CAPABILITY, "avx2")  # a reader's own setting is not what is compared, and stays
    found = lab.measure_lanes(rounds=2)
    assert os.environ[CAPABILITY] == "avx2"
    assert found.capability[WITHOUT] in ("DEFAULT", "NO AVX") and set(found.capability) == {WITH, WITHOUT}
    assert found.capability[WITH] == torch.backends.cpu.get_cpu_capability()  # as in this process, begun without it
    assert set(found.seconds) == {"ReLU", "sigmoid", "exp", "matrix product"}
    assert all(len(times) == 2 and min(times) > 0 for sides in found.seconds.values() for times in sides.values())
    assert [vector_lanes(name) for name in ("AVX512", "AVX2", "DEFAULT", "something new")] == [16, 8, 4, 4]


def test_a_process_that_ends_early_is_an_error_and_the_environment_stays(monkeypatch):
    monkeypatch.delenv(CAPABILITY, raising=False)
    monkeypatch.setattr(lanes, "_round", functools.partial(os._exit, 3))
    with pytest.raises(BrokenProcessPool):
        lab.measure_lanes(rounds=1)
    assert CAPABILITY not in os.environ
    with pytest.raises(ValueError, match="rounds is 0"):
        lab.measure_lanes(rounds=0)


def test_what_obeys_the_setting_is_told_from_what_does_not():
    times = {name: {WITH: [1e-6] * 10, WITHOUT: [s] * 10} for name, s in (("ReLU", 4e-6), ("exp", 1e-6))}
    said = lab.lane_gains(Lanes({WITH: "AVX2", WITHOUT: "DEFAULT"}, times))
    assert "4.00 times as fast as ReLU without" in said and "No difference shown between exp" in said
    assert "with vector lanes 8 (AVX2), without 4" in said and "same code" not in said
    assert "same code" in lab.lane_gains(Lanes({WITH: "DEFAULT", WITHOUT: "DEFAULT"}, times))


# Streams


@pytest.mark.parametrize("batch_size", [8, 128, 65_536])  # a step is longer than a copy, or a copy than a step
def test_a_step_waits_for_its_copy_and_the_one_before_and_a_copy_for_the_copy_before_alone(batch_size):
    events = predicted_overlap("A100", steps=4, batch_size=batch_size)
    copy = batch_size * (784 * 4 + 8) / lab.named("A100").get("pinned transfer")
    step = predict_graph(predicted_card("A100"), batch_size).middle
    assert [end - begin for _, _, begin, end, _ in events[ONE]] == pytest.approx([copy, step] * 4)
    assert all(a[3] == b[2] for a, b in itertools.pairwise(events[ONE]))
    copies, steps = ([e for e in events[TWO] if e[1] == name] for name in ("copy", "step"))
    assert copies[0][2] == 0 and all(a[3] == b[2] for a, b in itertools.pairwise(copies))
    for i, (_, _, begin, _, _) in enumerate(steps):
        assert begin == max(copies[i][3], steps[i - 1][3] if i else 0.0)
    # At best the shorter disappears.
    assert seconds_in(events) == pytest.approx((4 * (copy + step), min(copy, step) + 4 * max(copy, step)))


def test_a_card_of_which_nothing_is_published_and_a_device_without_streams_are_refused():
    with pytest.raises(ValueError, match="how fast T4 is reached is published of none but A100, H100"):
        predicted_overlap("T4")
    with pytest.raises(ValueError, match="needs a GPU"):
        overlap(CPU)


@pytest.mark.cuda
def test_a_gpus_events_are_in_order_and_each_batch_is_there_before_its_step(gpu):
    events = overlap(gpu, steps=5, batch_size=1024)
    assert [name for _, name, *_ in events[ONE]] == ["copy", "step"] * 5
    copies, steps = ([e[2:4] for e in events[TWO] if e[0] == ROWS[TWO][name]] for name in ("copy", "step"))
    tolerance = 2e-6  # of the events' clock
    assert all(copy[1] <= step[0] + tolerance for copy, step in zip(copies, steps, strict=True)) and len(steps) == 5
    for row in (copies, steps, [e[2:4] for e in events[ONE]]):
        assert all(a[1] <= b[0] + tolerance for a, b in itertools.pairwise(row))


# Regimes


def test_a_rung_relieves_where_it_can_be_had_under_the_number_that_chapter_07_gives_it():
    assert all(rung.relieves or rung.name == TEXTBOOK for rung in RUNGS)
    assert {r for rung in RUNGS for r in rung.relieves} == {lab.LOADING, *lab.REGIMES}
    assert lab.rungs_of("operations") == ["11. bfloat16 autocast", "12. TF32", "17. written out, oneDNN"]
    assert regimes.relieving("operations", "cpu") == ["bfloat16 autocast", "written out, oneDNN"]
    assert regimes.relieving("operations", "cuda") == ["bfloat16 autocast", "TF32"]
    here, there = (set(regimes.relieving("launches", device)) for device in ("cpu", "cuda"))
    assert {"compiled epoch", "backward written out"} <= here - there and "no wait per step" in here & there
    said = lab.what_binds(Limits(1.0, 1e15, 1e15), CPU, [lab.named("T4"), lab.named("A100")], [(1, 128)])
    assert "predicted: T4; predicted: A100: 128 images at width 128 wait for launches." in said
    assert "this machine: CPU: 128 images" in said and said.count("Rungs that relieve") == 2


# Figures and tables


def row(text, begin):
    """The cells of the table's line that begins so."""
    return next(line.removeprefix(begin).split() for line in text.splitlines() if line.startswith(begin))


def test_tables_of_cards_say_what_is_published_and_what_follows():
    cards = lab.insides()
    text = lab.inside(cards)
    assert row(text, "lanes x 2 x clock, TFLOP/s")[:3] == ["8.1", "14.9", "82.6"] and "within 0.5%" in text
    text = lab.memories([lab.named("A100"), lab.named("T4")])
    assert row(text, "published: A100, shared memory") == ["108", "x", "164", "KiB", "20", "23,101"]
    assert row(text, "published: T4, the bus") == ["-", "-", "-"]
    needed = 2.039e12 * 400 / 1.41e9  # Little's law: rate x latency
    each = [Operation("mm", int(needed) + 1, False), Operation("relu", int(needed) - 1, False)]
    assert row(lab.in_flight(cards, each), "A100") == ["284", "2,039", "578", "5.4", "1", "of", "2"]
    rate, memory = lab.named("A100").sheet_peak, lab.named("A100").bandwidth
    found = row(lab.ridges(cards), "published: A100")
    assert found == ["float32", "19.5", f"{rate / memory:,.0f}", f"{1.5 * 4 * rate / memory:,.0f}"]


def test_processors_are_drawn_to_scale_a_dot_a_lane():
    drawn = lab.lanes_to_scale([lab.named("T4"), lab.named("H100")])
    pictures = [image.get_array() for image in drawn.axes.get_images()]
    assert [int(p.sum()) for p in pictures[1:]] == [2560, 16_896]
    for image, picture in zip(drawn.axes.get_images(), pictures, strict=True):
        left, right, bottom, top = image.get_extent()
        assert (bottom - top, right - left) == picture.shape  # a dot is as large in each
    assert "T4: 2,560 lanes" in drawn.says and f"{16_896 / int(pictures[0].sum()):,.0f} times as many" in drawn.says


def test_figures_say_their_numbers():
    drawn = lab.live_bytes([("addmm", 1_000_000), ("mm", 3_000_000), ("add_", 2_000_000)], 5_000_000, "a step")
    assert "8 MB, at the operation mm, of which 5 were there" in drawn.says and drawn.axes.has_data()
    drawn = lab.plane(Limits(launch=1e-4, rate=1e11, bandwidth=2e10), CPU, [(1, 128), (128, 128)])
    assert "ridge is at 5 FLOP/byte; below 2 MB" in drawn.says
    texts = [t.get_text() for t in drawn.axes.texts]
    assert "operations\nrungs 11, 12, 17" in texts and texts[-2:] == ["1 image, width 128", "128 images, width 128"]
    drawn = lab.copies_and_steps(CPU, "A100")
    one, two = seconds_in(predicted_overlap("A100"))
    assert f"predicted: A100: {1e6 * one:.0f} µs in one stream" in drawn.says and f"{one / two:.2f} times" in drawn.says
