"""Chapter 01's room: the ceilings' measurement and summary, its figures, and what its checks claim."""

import gc

import pytest
import torch

from mnist_gpu.chapters import chapter_01 as lab
from mnist_gpu.measuring import workloads
from mnist_gpu.measuring.exercises import RIGHT, UNDECIDED, WRONG, judge
from mnist_gpu.measuring.prediction import MEASURED, SHEET, Figure, Source
from mnist_gpu.measuring.results import Results, Timed

CPU = torch.device("cpu")


def ceiling(name, rate, size, device="cuda", threads=1):
    """A product or a copy at so many 1e9 a second."""
    what, x = ("flop", "size") if "product" in name else ("bytes", "mebibytes")
    return Timed("ceilings", name, device, threads, [0.9, *[1.0] * 9, 1.1], {x: size}, {what: rate * 1e9})


def machine(*measured):
    return Results({"cpu_name": "AMD EPYC", "device_name": "NVIDIA T4", "device": "cuda"}, [*measured], "2026-01-31")


def figure(card, quantity, value, kind=SHEET):
    return Figure(card, quantity, value, kind, Source("A table", "https://example.org", "2026-01-31"))


# The measurement


def test_products_and_copies_are_measured_with_one_thread_and_all_and_no_tensor_is_kept(monkeypatch):
    """Half a gigabyte of a copy that is done, while products are measured, decides how many kernels a server holds."""

    def tensors():
        gc.collect()
        return {id(o) for o in gc.get_objects() if type(o) is torch.Tensor}

    monkeypatch.setattr(workloads, "usable_cpus", lambda: 2)
    used, measure = [], lab.measure
    monkeypatch.setattr(
        lab, "measure", lambda *a, **options: used.append(torch.get_num_threads()) or measure(*a, **options)
    )
    found, before = [], tensors()
    for m in lab.measure_ceilings(CPU, sizes=(8, 16), mebibytes=(1,), seconds=0.001):
        assert tensors() <= before and torch.get_num_threads() == 1
        found.append(m)
    assert used == [1, 1, 1, 2, 2, 2]
    assert {(m.section, m.device) for m in found} == {("ceilings", "cpu")} and all(min(m.seconds) > 0 for m in found)
    for threads in (1, 2):  # no transfers: a CPU has nobody to transfer to
        assert [(m.name, m.parameters, m.per_call) for m in found if m.threads == threads] == [
            ("matrix product", {"size": 8}, {"flop": 1024}),
            ("matrix product", {"size": 16}, {"flop": 8192}),
            ("launch", {"size": 16}, {}),
            ("copy", {"mebibytes": 1}, {"bytes": 2 * 2**20}),
        ]


@pytest.mark.gpu
def test_on_the_gpu_transfers_are_measured_too(gpu):
    names = {m.name for m in lab.measure_ceilings(gpu, sizes=(64,), mebibytes=(1,), seconds=0.001)}
    transfers = {"transfer, pageable", "transfer, pinned"} if gpu.type in ("cuda", "xpu") else set()
    assert names == {"matrix product", "copy", "launch"} | transfers


def test_the_ceilings_are_the_fastest_product_and_the_fastest_of_the_largest_copies():
    products = [ceiling("matrix product", rate, size) for rate, size in ((7, 64), (9, 128), (8, 256))]
    copies = [ceiling("copy", 90, 1), ceiling("copy", 20, 256), ceiling("copy", 30, 256, threads=2)]
    results = machine(*products, *copies, ceiling("copy", 99, 256, device="cpu"))
    product, copy = lab.SECTION.summary(results, "cuda")
    assert "up to 9 GFLOP/s (1 threads)" in product and "256 MiB at 30 GB/s (2 threads)" in copy
    assert lab.highest(results, "copy", device="cuda", threads=1) is copies[1]
    assert lab.SECTION.summary(machine(), "cuda") == []


# The figures


def test_rates_are_drawn_over_size_beside_published_ones_from_side_to_side():
    mine = machine(ceiling("copy", 5, 1), ceiling("copy", 40, 256))
    published = [figure("A100", "memory", 2e12), figure("A100", "copy", 1.75e12, MEASURED)]
    published.append(figure("T4", "memory", 3e11))
    axes, says = lab.rates("copy", mine, [machine(ceiling("copy", 7, 4, "cpu"))], published)
    lines = {line.get_label(): line for line in axes.lines}
    own, other, t4, a100 = lines  # the slowest card first
    assert "NVIDIA T4, CUDA" in own and "AMD EPYC" in other and "recorded 2026-01-31" in other
    assert list(lines[own].get_xdata()) == [1, 256] and list(lines[own].get_ydata()) == [5, 40]
    assert {x for x in lines[a100].get_xdata()} == {1, 256} and {y for y in lines[a100].get_ydata()} == {2000, 1750}
    assert [text.get_text() for text in axes.texts] == ["T4", "A100"] and "300 GB/s (data sheet)" in t4
    assert list(axes.get_xticks()) == [1, 4, 256]
    said = says.splitlines()
    assert len(said) == 4 and "5 GB/s at 1, 40 at 256" in said[0] and "1,750 GB/s (measured by others)" in said[3]


def test_of_transfers_the_largest_are_drawn_and_published_ones_also_where_nothing_was_measured():
    h100 = figure("H100", "pinned transfer", 56e9, MEASURED)
    assert "H100 (measured by others): transfer, pinned 56 GB/s" in lab.transfers(machine(), [], [h100]).says
    pinned = [ceiling("transfer, pinned", rate, size) for rate, size in ((50, 1), (12, 256))]
    recorded = machine(ceiling("transfer, pageable", 6, 256), *pinned)
    axes, says = lab.transfers(machine(), [recorded], [h100])
    assert {6, 12} <= {bar.get_width() for bar in axes.patches} and "6 GB/s" in says and "12 GB/s" in says


# The checks


def test_an_order_is_measured_and_neither_equal_times_nor_mere_starts_are_held_against_it(monkeypatch):
    def measured(**others):
        """A microsecond a call for each of the five, if nothing else is said."""
        seconds = {name: [1e-6 * others.get(name, 1)] * 12 for name in [*lab.COSTS, lab.STARTING]}
        monkeypatch.setattr(lab, "seconds_per_call", lambda device: seconds)
        return judge(lab.EXERCISES[1], ["matrix times vector", "sum", "copy", "product"])

    assert measured().status == UNDECIDED
    assert measured(sum=2.9).status == UNDECIDED  # slower than the copy, both by their start alone
    assert measured(sum=20).status == WRONG
    assert measured(product=40).status == RIGHT
    found = measured(product=40, copy=20, sum=1.5)  # as on a fast GPU: the sum before the product of matrix and vector
    assert found.status == RIGHT and "The matrix times vector and the sum take little more than" in found.text
