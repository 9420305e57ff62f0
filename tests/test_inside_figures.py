"""What chapter 08's figures and tables say of numbers that are known."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest

from mnist_gpu.measuring import plots, tables
from mnist_gpu.measuring.card import Operation
from mnist_gpu.measuring.chips import chip, read_chips
from mnist_gpu.measuring.lanes import WITH, WITHOUT, Lanes
from mnist_gpu.measuring.prediction import ThreeNumbers
from mnist_gpu.measuring.results import Timed


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    yield
    plt.close("all")


def test_a_curve_is_a_rate_or_seconds_with_their_intervals():
    seconds = [1.0, *[2.0] * 8, 4.0]
    found = [Timed("inside", "copy", "cpu", 1, seconds, {"kibibytes": 4}, {"bytes": 8e9})]
    assert plots.curve(found, "kibibytes", "bytes", 1e9) == ([4], [4.0], [4.0], [4.0])
    assert plots.curve(found, "kibibytes", per=1e-3) == ([4], [2000.0], [2000.0], [2000.0])
    found[0].seconds[1] = 1.0
    assert plots.curve(found, "kibibytes") == ([4], [2.0], [1.0], [2.0])


def test_this_machines_lines_are_filled_simulated_ones_hollow_and_published_ones_grey():
    series = {
        "this machine: a copy": ([1, 2], [3.0, 4.0], [2.0, 3.0], [4.0, 5.0]),
        "simulated: warps": ([1, 2], [1.0, 2.0]),
        "published: A100": ([1, 2], [5.0, 5.0]),
    }
    plots.lines(series, xlabel="x", ylabel="y", marks={"L2": 1.5}, log="x")
    own, simulated, others, mark = plt.gca().get_lines()
    assert own.get_linestyle() == "-" and own.get_markerfacecolor() == own.get_color() == plots.PALETTE[0]
    assert simulated.get_linestyle() == "--" and simulated.get_markerfacecolor() == "white"
    assert (others.get_linestyle(), others.get_marker()) == (":", "D") and others.get_color() in plots.GREYS
    assert list(mark.get_xdata()) == [1.5, 1.5] and [t.get_text() for t in plt.gca().texts] == ["L2"]
    assert [t.get_text() for t in plt.gca().get_legend().get_texts()] == list(series)
    assert len(plt.gca().collections) == 1  # the one interval
    assert (plt.gca().get_xscale(), plt.gca().get_yscale()) == ("log", "linear")


def test_processors_are_drawn_to_scale_a_dot_a_lane(capsys):
    rows = [("this CPU", 2, 16), ("published: T4", 40, 64), ("published: H100", 132, 128)]
    plots.lanes_to_scale(rows)
    pictures = [axis.get_images()[0].get_array() for axis in plt.gcf().axes]
    assert [int(p.sum()) for p in pictures] == [32, 2560, 16_896]
    plt.gcf().canvas.draw()  # which fits the axes to their pictures
    boxes = [axis.get_window_extent().width / (axis.get_xlim()[1] - axis.get_xlim()[0]) for axis in plt.gcf().axes]
    assert max(boxes) == pytest.approx(min(boxes), rel=0.05)  # a dot is as large in each
    first, second = capsys.readouterr().out.splitlines()
    assert first == "published: T4: 2,560 lanes, 80 times as many as this CPU (32)." and "528 times" in second


def test_the_live_bytes_of_a_step_lie_on_those_that_stay(capsys):
    plots.live([("addmm", 1_000_000), ("mm", 3_000_000), ("add_", 2_000_000)], 5_000_000, "a step")
    assert capsys.readouterr().out == "The most: 8 MB, at the operation mm, of which 5 were there.\n"
    assert [t.get_text() for t in plt.gca().texts] == ["mm"]


def test_the_plane_is_divided_at_the_ridge_and_where_launching_ends(capsys):
    rungs = {"launches": ["7", "14"], "bytes": ["8"], "operations": ["12"]}
    numbers = ThreeNumbers(launch=1e-4, rate=1e11, bandwidth=2e10)
    plots.regimes("this machine: CPU", numbers, [("128 images", 9.0, 5e6), ("1 image", 0.1, 4e6)], rungs)
    texts = [t.get_text() for t in plt.gca().texts]
    assert texts[:3] == ["launches\nrungs 7, 14", "bytes\nrungs 8", "operations\nrungs 12"]
    assert texts[3:] == ["128 images", "1 image"]
    out = capsys.readouterr().out
    assert out == "this machine: CPU: the ridge is at 5 FLOP/byte; below 2 MB a step, launching takes longest.\n"


def test_the_table_of_chips_has_the_check_that_anyone_can_do(capsys):
    every = list(read_chips().values())
    tables.chips(
        [*every, every[0]._replace(name="T4", facts={k: v for k, v in every[0].facts.items() if k != "clock"})]
    )
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("lanes x 2 x clock"))
    assert line.split()[-6:] == ["8.1", "14.9", "19.5", "82.6", "66.9", "-"]
    assert "peak to within 0.5%." in out


def test_the_table_of_memories_says_what_is_not_published(capsys):
    tables.memories([chip("A100"), chip("T4")])
    rows = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()[2:-1]}
    assert rows["published: A100, L2"][-4:] == ["40", "MiB", "200", "7,219"]
    assert rows["published: A100, shared memory"][-6:] == ["108", "x", "164", "KiB", "20", "23,101"]
    assert rows["published: T4, the bus"][-3:] == ["-", "-", "-"]
    assert rows["published: T4, the card's memory"][-3:] == ["-", "-", "320"]


def test_littles_law_beside_the_bytes_of_operations(capsys):
    needed = 2.039e12 * 400 / 1.41e9
    tables.in_flight([chip("A100"), chip("T4")], [Operation("mm", int(needed) + 1), Operation("relu", int(needed) - 1)])
    row, without = capsys.readouterr().out.splitlines()[2:]
    assert row.split() == ["A100", "284", "2,039", "578", "5.4", "1", "of", "2"]
    assert without == "No latency is published here of: T4."


def seconds(per_side):
    return {side: [s * (1 + i / 1000) for i in range(10)] for side, s in zip((WITH, WITHOUT), per_side, strict=True)}


def test_what_obeys_the_setting_is_told_from_what_does_not(capsys):
    found = Lanes({WITH: "AVX2", WITHOUT: "DEFAULT"}, {"ReLU": seconds((1e-6, 4e-6)), "exp": seconds((2e-6, 2e-6))})
    tables.lanes(found)
    out = capsys.readouterr().out
    assert "4.00x" in out and "no difference shown" in out
    assert "The setting changes: ReLU. It leaves as they are: exp." in out and "same code" not in out
    same = Lanes({WITH: "DEFAULT", WITHOUT: "DEFAULT"}, {"ReLU": seconds((1e-6, 1e-6))})
    tables.lanes(same)
    out = capsys.readouterr().out
    assert "The setting changes: none of them. It leaves as they are: ReLU." in out
    assert "PyTorch has no wider variant for this processor" in out


def test_sources_of_chips_are_named_with_those_of_figures(capsys):
    tables.sources([], [chip("A100"), chip("T4")])
    out = capsys.readouterr().out
    assert "A100, T4: NVIDIA/cccl" in out and out.count("https://") == len(
        {f.source for name in ("A100", "T4") for f in chip(name).facts.values()}
    )
    assert tables.binary(164 * 1024) == "164 KiB" and tables.binary(40 * 2**20) == "40 MiB"
