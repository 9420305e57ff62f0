"""What tables and figures say of numbers that are known."""

import itertools

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.faster.ladder import RUNGS
from mnist_gpu.measuring import plots, tables
from mnist_gpu.measuring.card import Range, card_numbers, predict_graph, predict_step, predictable
from mnist_gpu.measuring.published import MEASURED, SHEET, Figure, Source
from mnist_gpu.measuring.results import Results, Skipped, Timed
from mnist_gpu.measuring.scaling import Scaling
from mnist_gpu.measuring.sections.account import Account
from mnist_gpu.measuring.sections.ladder import Climb
from mnist_gpu.measuring.timing import compare
from mnist_gpu.measuring.written_predictions import Outcome, Predicted

NAMES = [rung.name for rung in RUNGS]
EPYC = {"device": "cpu", "cpu_name": "AMD EPYC", "device_name": "AMD EPYC", "load_average": 0.1}


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    """The figures that a test draws are closed after it, and not when they are shown."""
    monkeypatch.setattr(plt, "show", lambda: None)
    yield
    plt.close("all")


def rung(name, seconds, device="cpu", threads=1, first=None, proof=0.0):
    values = [seconds * (1 + i / 1000) for i in range(10)]
    proof = {"largest_loss_difference": proof, "tolerance": 0.02}
    return Timed("ladder", name, device, threads, values, {"hidden": 128}, {"images": 60_000}, first, proof)


def rows(capsys):
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_ladder_is_a_table_in_the_order_of_its_rungs(capsys):
    tables.ladder([rung("compiled step", 0.25, first=7.0, proof=2e-7), rung("textbook", 2.0, first=2.1)])
    head, _, first, second, *_ = rows(capsys)
    assert head == ["rung", "s", "per", "epoch", "interval", "speed-up", "first", "use", "losses"]
    assert first == "textbook 2.01 2.002 to 2.016 - - 0e+00".replace("2.002", "2.00").replace("2.016", "2.02").split()
    assert second == ["compiled", "step", "0.251", "0.250", "to", "0.252", "8.00x", "6.7", "s", "2e-07"]


def test_the_ladders_figure_and_its_table_show_the_same_ratio():
    measured = [rung("textbook", 2.0), rung("tensors in memory", 0.3)]
    ratio = compare({m.name: m.seconds for m in measured}, "textbook", "tensors in memory").times
    plots.ladder([(f"{plots.OWN}: AMD EPYC", measured)], NAMES, [])
    texts = [t.get_text() for t in plt.gca().texts]
    assert f"0.301 s, {ratio}x" in texts and texts.count("not on this machine") == len(NAMES) - 2


def test_the_floor_of_the_figure_is_the_fastest_of_the_products_and_a_rung_names_its_own(capsys):
    measured = [rung("textbook", 2.0), rung("floor a", 0.3), rung("floor b", 0.25), rung("tensors in memory", 0.5)]
    measured[-1].proof["products"] = "oneDNN"
    plots.ladder([(f"{plots.OWN}: AMD EPYC", measured)], NAMES, ["floor a", "floor b", "floor c"])
    labels = [text.get_text() for text in plt.gca().get_legend().get_texts()]
    assert "the floor: floor b, 0.251 s" in labels and not any("floor a" in label for label in labels)
    assert [t.get_text() for t in plt.gca().texts if "oneDNN" in t.get_text()] == ["0.502 s, 4.00x (oneDNN)"]


def test_bars_of_the_same_parts_are_drawn_and_said_but_for_what_is_next_to_nothing(capsys):
    rows = {
        "a": {"products": 50.0, "dust": 0.2, "launches": 30.0},
        "b": {"products": 50.0, "dust": -0.1, "launches": 2.0},
    }
    plots.stacks(rows, unit="µs")
    legend = [text.get_text() for text in plt.gca().get_legend().get_texts()]
    assert legend == ["products", "launches"]
    assert [p.get_width() for p in plt.gca().patches] == [50, 50, 30, 2]
    assert [p.get_x() for p in plt.gca().patches] == [0, 0, 50, 50]
    assert capsys.readouterr().out.splitlines() == [
        "a: 80.2 µs = products 50, launches 30",
        "b: 51.9 µs = products 50, launches 2",
        "Too small to draw: dust.",
    ]


SOURCES = [
    Source("A table", "https://example.org/a", "2026-01-31"),
    Source("A test", "https://example.org/b", "2026-02-01"),
]


def figure(card, quantity, value, measured=False):
    return Figure(
        card, f"A {card}", (f"Device {card}",), quantity, value, MEASURED if measured else SHEET, SOURCES[measured]
    )


def test_published_figures_are_drawn_as_a_kind_of_their_own_and_called_so(capsys):
    mine = Results(
        EPYC, [Timed("ceilings", "copy", "cpu", 1, [1.0] * 10, {"mebibytes": 1}, {"bytes": 5e9})], "2026-01-31"
    )
    others = [
        figure("A100", "memory", 2000e9),
        figure("A100", "copy", 1750e9, measured=True),
        figure("T4", "memory", 320e9),
    ]
    plots.rates("copy", "mebibytes", "bytes", mine, [], unit="GB/s", per=1e9, xlabel="MiB", published=others)
    handles, labels = plt.gca().get_legend_handles_labels()
    a100 = "published: A100, 2,000 GB/s (data sheet), 1,750 (measured by others)"
    assert labels == [f"{plots.OWN}: AMD EPYC, CPU with 1 thread", "published: T4, 320 GB/s (data sheet)", a100]
    marks = [(handle.get_marker(), handle.get_linestyle()) for handle in handles]
    assert marks[0] == ("o", "-") and marks[1:] == [("D", ":")] * 2 and "D" not in plots.MARKERS
    assert not set(plots.GREYS) & set(plots.PALETTE)
    heights = {
        line.get_ydata()[0] for line in plt.gca().get_lines() if line.get_linestyle() == ":" and len(line.get_ydata())
    }
    assert {2000, 1750, 320} <= heights
    assert [tick.get_text() for tick in plt.gca().get_xticklabels()] == ["1"]  # the sizes that were measured
    own, *rest = capsys.readouterr().out.splitlines()
    assert own.startswith(plots.OWN) and rest == [f"{label.replace(', ', ': ', 1)}." for label in reversed(labels[1:])]


def test_a_transfer_that_others_measured_is_a_diamond_even_if_nothing_was_measured_here(capsys):
    plots.bars([], "bytes", unit="GB/s", per=1e9, published=[("pinned", figure("H100", "pinned transfer", 56e9, True))])
    (handle,), (label,) = plt.gca().get_legend_handles_labels()
    assert label == "published: H100 (measured by others): 56 GB/s" and handle.get_marker() == "D"
    assert capsys.readouterr().out == "published: H100: 56 GB/s (measured by others).\n"


def test_sources_are_listed_once_with_their_cards(capsys):
    tables.sources(
        [figure("A100", "memory", 1.0), figure("T4", "memory", 1.0), figure("A100", "copy", 1.0, measured=True)]
    )
    assert capsys.readouterr().out.splitlines() == [
        "A100, T4: A table, 2026-01-31",
        "    https://example.org/a",
        "A100: A test, 2026-02-01",
        "    https://example.org/b",
    ]


def test_the_ceilings_of_a_step_on_published_cards_are_work_over_rate(capsys, monkeypatch):
    rates = [figure("A", "float32", 2e12), figure("A", "memory", 1e12), figure("A", "float32", 1e12, measured=True)]
    rates += [figure("B", "float32", 4e12, measured=True), figure("B", "copy", 2e12, measured=True)]

    def chosen(card, quantity, kind):
        return [f for f in rates if (f.card, f.quantity, f.kind) == (card, quantity, kind)]

    monkeypatch.setattr(tables, "published", chosen)
    used = tables.published_ceilings(["A", "B"], 4e6, 1e6)
    head, _, *found = capsys.readouterr().out.splitlines()
    assert head.split() == ["card", "kind", "of", "figure", "arithmetic,", "µs", "memory,", "µs"]
    assert [row.split()[1:] for row in found] == [
        ["A", "data", "sheet", "2.0", "1.0"],
        ["B", "measured", "by", "others", "1.0", "0.5"],
    ]
    assert used == [rates[0], rates[1], rates[3], rates[4]]  # nobody measured A's copy, so its product is not used


def test_a_cpu_is_drawn_with_all_its_threads_where_a_gpu_is_drawn():
    cpu = [rung("textbook", 2.0), rung("textbook", 1.5, threads=2)]
    gpu = [rung("textbook", 1.0, device="cuda")]
    names = EPYC | {"device": "cuda", "device_name": "NVIDIA T4"}

    def labels(*machines, own=None):
        return [label.split(" (")[0] for label, _ in plots.ladder_sources(machines, own)]

    here = Results(EPYC, cpu, "2026-01-31")
    assert labels(here) == ["AMD EPYC, CPU with 1 thread"]
    every = ["AMD EPYC, CPU with 1 thread", "AMD EPYC, CPU with 2 threads", "NVIDIA T4, CUDA"]
    assert labels(Results(names, cpu + gpu, "2026-01-31")) == every
    own = labels(Results(names, gpu, "2026-01-31"), own=here)
    assert own == [f"{plots.OWN}: {label}" for label in every[:2]] + every[2:]


@pytest.mark.parametrize(("load", "said"), [(None, ""), (0.5, ""), (0.6, ", at a load of 0.6")])
def test_a_record_of_a_busy_machine_says_so_in_every_legend(load, said):
    busy = Results(EPYC | {"load_average": load}, [rung("textbook", 2.0)], "2026-01-31")
    assert plots.series(busy, busy.measurements[0]) == f"AMD EPYC, CPU with 1 thread (recorded 2026-01-31{said})"
    assert "load" not in plots.series(busy, busy.measurements[0], own=True)


def test_an_account_that_falls_short_says_what_is_missing(capsys):
    plots.account(Account({"load": 60e-6, "compute": 20e-6}, 100e-6, 15e-6), "a step")
    said = capsys.readouterr().out
    assert "sum to 80 µs, 80% of the 100 measured" in said and "off by -20%, NOT within the 15%" in said
    assert "20 µs are missing. Loading and computing in turn take 15 µs more than the two by themselves." in said
    plots.account(Account({"load": 60e-6, "compute": 50e-6}, 100e-6, 15e-6), "a step")
    said = capsys.readouterr().out
    assert "off by +10%, within the 15%" in said and "missing" not in said


def test_the_line_is_drawn_on_linear_axes_with_the_point_that_it_predicts():
    steps = [
        Timed("account", f"step of {n}", "cpu", 1, [1e-6 * (3 + n)], {"batch_size": n}) for n in (1, 64, 256, 1024)
    ]
    plots.line_fit(steps, Timed("account", "step", "cpu", 1, [140e-6], {"batch_size": 128}), 3e-6, 1e-6)
    for axis, largest in zip(plt.gcf().axes, (1024, 256), strict=True):
        assert axis.get_xscale() == axis.get_yscale() == "linear"
        lines = {line.get_label(): line for line in axis.lines}
        assert max(lines["measured"].get_xdata()) == largest and len(lines["fixed + slope x images"].get_xdata()) > 50
        assert list(lines["predicted for it"].get_ydata()) == pytest.approx([131])
        assert list(lines["measured, not in the fit"].get_ydata()) == pytest.approx([140])


@pytest.mark.parametrize("rates", [(75, 100, 88, 198), (1, 20, 400, 9000)])
def test_values_can_be_read_from_the_axis_of_rates(rates):
    measured = [
        Timed("ceilings", "matrix product", "cpu", 1, [1.0] * 10, {"size": 64 * 2**i}, {"flop": rate * 1e9})
        for i, rate in enumerate(rates)
    ]
    mine = Results(EPYC, measured, "2026-01-31")
    plots.rates("matrix product", "size", "flop", mine, [], unit="GFLOP/s", per=1e9, xlabel="n")
    axis = plt.gca()
    plt.gcf().canvas.draw()
    low, high = axis.get_ylim()
    named = [t for t, text in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True) if text.get_text()]
    assert sum(low <= t <= high for t in named) >= 3


def test_a_map_shows_what_is_not_claimed_in_brackets():
    cells = [[compare({"a": [2.0 + 0.1 * i for i in range(10)], "b": [x] * 10}, "a", "b") for x in (1.0, 2.45)]]
    plots.ratio_map(cells, [32], [8, 16], "measured")
    first, second = (t.get_text() for t in plt.gcf().axes[0].texts)
    assert first == cells[0][0].times and second == f"({cells[0][1].times})" and not cells[0][1].differs
    plots.ratio_map([[1.5, 0.25]], [32], [8, 16], "predicted")
    assert [t.get_text() for t in plt.gcf().axes[0].texts] == ["1.5", "0.25"]


def test_a_predicted_range_with_1_in_it_stands_in_brackets():
    plots.ratio_map([[Range(0.8, 1.5), Range(2.0, 5.31)], [Range(0.2, 0.5), Range(120.0, 480.0)]], [1, 2], [1, 2], "")
    texts = [t.get_text() for t in plt.gcf().axes[0].texts]
    assert texts == ["(0.8 to 1.5)", "2 to 5.3", "0.2 to 0.5", "120 to 480"]


PREDICTED = {"textbook": Range(5.0, 6.0), "CUDA graph of an epoch": Range(0.02, 0.1)}


def test_predictions_are_hollow_ranges_in_the_ladder_with_names_of_their_own(capsys):
    measured = [rung("textbook", 2.0), rung("tensors in memory", 0.3)]
    label = "predicted: T4, with the CPU AMD EPYC (2026-01-31)"
    plots.ladder([(f"{plots.OWN}: AMD EPYC", measured)], NAMES, [], [(label, PREDICTED)])
    axis = plt.gca()
    hollow = [p for p in axis.patches if p.get_linestyle() == ":"]
    ends = [(round(p.get_x(), 6), round(p.get_x() + p.get_width(), 6)) for p in hollow]
    assert ends == [tuple(r) for r in PREDICTED.values()]
    assert all(p.get_facecolor()[3] == 0 for p in hollow)
    assert [t.get_text() for t in axis.get_legend().get_texts()] == [f"{plots.OWN}: AMD EPYC", label]
    texts = [t.get_text() for t in axis.texts]
    assert "5 to 6 s" in texts and "0.02 to 0.1 s, 50 to 300x" in texts  # 5 / 0.1 to 6 / 0.02
    ys = sorted(p.get_y() + p.get_height() / 2 for p in axis.patches)
    assert all(b - a > 0.9 for a, b in itertools.pairwise(ys))  # a lane each
    assert dict(zip([t.get_text() for t in axis.get_yticklabels()], axis.get_yticks(), strict=True))["1. textbook"] == 1
    out = capsys.readouterr().out
    assert f"{label}, seconds per epoch at least to at most: textbook 5 to 6 s, CUDA graph of an epoch 0.02" in out


def test_predicted_bars_are_hollow_among_measured_ones(capsys):
    plots.stacks(
        {"mine": {"load": 5.0}, "predicted: T4,\nat least": {"load": 2.0}},
        unit="µs",
        predicted={"predicted: T4,\nat least"},
    )
    mine, there = plt.gca().patches
    assert mine.get_facecolor()[:3] != (1, 1, 1) and there.get_facecolor()[:3] == (1, 1, 1)
    assert there.get_edgecolor() == mine.get_facecolor()
    assert capsys.readouterr().out == "mine: 5 µs = load 5\npredicted: T4, at least: 2 µs = load 2\n"


def test_an_account_stands_beside_the_predicted_ones(capsys):
    own = Account(
        {"load": 1e-4, "copy": 0.0, "launch": 2e-4, "compute: update": 1e-5, "compute: images": 9e-5}, 4e-4, None
    )
    accounts = {"a rung": ({"launch": 2e-4, "compute": 0.0}, {"launch": 2e-4, "compute": 1e-4})}
    plots.predicted_accounts(own, "cpu", "T4", accounts, ["a rung"])
    assert capsys.readouterr().out.splitlines() == [
        "this machine, CPU: 400 µs per step = load 100, launch 200, compute 100",
        "predicted: T4, a rung, at least: 200 µs per step = launch 200, compute 0",
        "predicted: T4, a rung, at most: 300 µs per step = launch 200, compute 100",
    ]


def test_a_table_of_predictions_has_what_the_model_says(capsys):
    card, launch, here = card_numbers("T4"), 3e-4, 9e-4
    tables.predicted_steps(["T4"], launch, here, 128, 128)
    found = predict_step(card, launch), predict_graph(card)
    (row,) = (line for line in rows(capsys) if line[0] == "T4")
    texts = [text for t in found for text in (plots.span(t, 1e-6), plots.span(t.gain_over(here)) + "x")]
    assert row == ["T4", *" ".join(texts).split()]
    tables.predicted_steps(["T4", "H100"], launch, here, 128, 128)
    assert "all may take as long: their ranges overlap." in capsys.readouterr().out
    tables.predicted_steps(["T4", "H100"], launch, here, 2048, 2048)
    assert "they differ." in capsys.readouterr().out


def test_of_every_card_a_table_says_in_how_many_cells_it_is_surely_faster(capsys):
    def step(seconds, size):
        return Timed("crossover", "step", "cpu", 1, [seconds], {"batch_size": size, "hidden": size})

    tables.predicted_maps(3e-4, [[step(1e-6, 32), step(3.5e-4, 32)], [step(1.0, 32), step(1e-6, 2048)]])
    _, _, *found = capsys.readouterr().out.splitlines()
    assert [line[:8].strip() for line in found] == predictable() and found[0].split()[:4] == ["T4", "1", "1", "2"]


def test_a_prediction_stands_beside_its_measurement_with_the_factor(capsys):
    step = Predicted("T4", "crossover", "step", {"batch_size": 128, "hidden": 32}, Range(1e-4, 4e-4))
    epoch = Predicted("T4", "ladder", "textbook", {"hidden": 128}, Range(5.0, 6.0))
    tables.outcomes([Outcome(step, 3e-4), Outcome(epoch, 11.0)])
    first, second, said = capsys.readouterr().out.splitlines()[2:]
    assert " ".join(first.split()) == "T4: step, batch size 128, hidden 32 100 to 400 µs 300 1.50x yes"
    assert " ".join(second.split()) == "T4: textbook, hidden 128 5 to 6 s 11 2.01x NO"
    assert said == "1 of 2 measured times lie in the predicted range."


def test_a_roofline_marks_larger_batches_larger(capsys):
    points = [("first layer", n, n / 4, n * 1e9) for n in (1, 16, 128)]
    plots.roofline(points, flops=100e9, bandwidth=20e9, device="CPU")
    sizes = [line.get_markersize() for line in plt.gca().lines if line.get_marker() == "o"]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3
    assert "larger the batch: 1, 16, 128.\n2 of 3 points lie left of the ridge at 5.0" in capsys.readouterr().out


def test_many_networks_are_compared_with_one_by_the_time_for_each(capsys):
    def trained(name, networks, seconds):
        work = {"images": 6000 * networks}
        return Timed("ensemble", name, "cpu", 1, [seconds] * 10, {"networks": networks}, work)

    tables.ensemble([trained("plain step", 1, 1.0), trained("at once", 1, 2.0), trained("at once", 4, 2.0)])
    said = rows(capsys)
    assert said[2:5] == [["plain", "step,", "1", "6,000", "0.1", "1x"], ["at", "once,", "1", "3,000", "0.05", "0.500x"],
                         ["at", "once,", "4", "12,000", "0.2", "2.00x"]]  # fmt: skip
    assert " ".join(said[5]).startswith("At best, by the time for each network: at once, 4 is 2.00 times as fast")


def test_libraries_are_sorted_and_said_to_be_faster_or_slower(capsys):
    def peer(name, seconds):
        proof = {"test_loss": 0.25, "lines_of_code": 12}
        return Timed("peers", name, "cpu", 1, [seconds * (1 + i / 100) for i in range(10)], {}, {}, 9.0, proof)

    skipped = [Skipped("peers", "Keras", "cpu", "is not installed"), Skipped("ladder", "TF32", "cpu", "no")]
    measured = [peer("plain loop", 1.0), peer("JAX", 0.5), peer("fastai", 2.0), peer("twin", 1.0)]
    tables.peers(Results(EPYC, measured, "2026-01-31", skipped=skipped))
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[2:6]] == ["JAX", "plain", "twin", "fastai"]
    assert "Keras: is not installed." in said and "TF32" not in said
    assert "Slower than the plain loop: fastai.\nFaster than the plain loop: JAX.\n" in said


def test_several_processes_are_compared_with_one_over_widths(capsys):
    steps = {
        w: {"one": [0.004] * 10, "strong": [s] * 10, "weak": [1.0], "alone": [1.0]} for w, s in ((8, 8e-3), (16, 2e-3))
    }
    tables.widths(Scaling(2, [], [], steps, {}), {8: 0.016, 16: 0.001})
    said = rows(capsys)
    assert said[2:4] == [["8", "4", "16", "8", "0.25x", "0.500x"], ["16", "4", "1", "2", "4.00x", "2.00x"]]
    assert " ".join(said[4]) == "2 processes gain most at width 16: 2.00 times as fast."
    assert " ".join(said[5]) == "That pays."


def test_scaling_is_drawn_beside_the_ideal(capsys):
    plots.scaling({"strong": {1: 100.0, 2: 150.0}, "weak": {1: 100.0, 2: 190.0}})
    assert [list(line.get_ydata()) for line in plt.gca().lines] == [[100, 150], [100, 190], [100, 200]]
    assert "weak: 1 process 100 images/s, 2 processes 190 images/s" in capsys.readouterr().out


def test_a_rung_says_what_its_first_pass_gave_or_why_it_has_none(capsys):
    there = [rung("TF32", 0.125, device="cuda"), rung("TF32", 0.1, threads=2)]  # more threads are not shown
    gpu = Results(EPYC | {"device_name": "NVIDIA T4"}, there, "2026-01-31")
    climb = Climb(torch.device("cpu"), hidden=8, steps=2, others=[gpu])
    climb.show("no wait per step")
    climb.show("TF32")
    climb.show("CUDA graph of a step")
    plain, tf32, graph = capsys.readouterr().out.splitlines()
    assert plain.startswith("no wait per step: first 2 steps in ") and plain.endswith("differ by at most 0e+00")
    assert "needs an NVIDIA GPU of" in tf32 and "recorded" not in tf32  # of width 128
    assert graph == "CUDA graph of a step: needs an NVIDIA GPU."
    climb = Climb(torch.device("cpu"), steps=1, others=[gpu])
    climb.show("TF32")
    assert capsys.readouterr().out.endswith(". NVIDIA T4: 0.126 s per epoch (recorded 2026-01-31)\n")


def test_a_rung_that_fails_says_why_and_nothing_of_other_machines(capsys):
    gpu = Results(EPYC | {"device_name": "NVIDIA T4"}, [rung("fused optimizer", 0.125, device="cuda")], "2026-01-31")

    def broken(device, hidden):
        raise RuntimeError("the reason.\nand its details")

    Climb(torch.device("cpu"), steps=1, others=[gpu]).show("fused optimizer", broken)
    assert capsys.readouterr().out == "fused optimizer: failed: RuntimeError: the reason.\n"
