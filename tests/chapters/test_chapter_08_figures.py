"""Chapter 08: vector lanes, streams, regimes, and what its figures and tables say."""

import functools
import itertools
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_08 as lab
from mnist_gpu.chapters.chapter_08 import lanes, regimes
from mnist_gpu.chapters.chapter_08.lanes import CAPABILITY, WITH, WITHOUT, Lanes, vector_lanes
from mnist_gpu.chapters.chapter_08.streams import ONE, ROWS, TWO, overlap, predicted_overlap, seconds_in
from mnist_gpu.faster.ladder import RUNGS, TEXTBOOK
from mnist_gpu.measuring.operations import Operation
from mnist_gpu.measuring.prediction import Limits, predict_graph, predicted_card

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


# Vector lanes


def test_two_processes_are_asked_and_one_of_them_has_no_wide_vectors(monkeypatch):
    monkeypatch.setenv(CAPABILITY, "avx2")  # a reader's own setting is not what is compared, and stays
    found = lab.measure_lanes(rounds=2)
    assert os.environ[CAPABILITY] == "avx2"
    assert found.capability[WITHOUT] in ("DEFAULT", "NO AVX") and set(found.capability) == {WITH, WITHOUT}
    own = {name: value for name, value in os.environ.items() if name != CAPABILITY}
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    assert found.capability[WITH] == subprocess.check_output([sys.executable, "-c", code], env=own).decode().strip()
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
    assert "fused optimizer" not in here | there  # which relieves bytes most
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
    assert "T4: 2,560 lanes" in drawn.says and f"{16_896 / int(pictures[0].sum()):,.0f} times this CPU" in drawn.says


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
