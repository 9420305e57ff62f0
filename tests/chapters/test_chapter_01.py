"""Chapter 01's room: the ceilings' measurement and summary, its figures, and what its checks claim."""

import gc

import pytest
import torch

from mnist_gpu.chapters import chapter_01 as lab
from mnist_gpu.measuring import workloads
from mnist_gpu.measuring.exercises import RIGHT, UNDECIDED, WRONG, judge
from mnist_gpu.measuring.prediction import SHEET, Figure, Source
from mnist_gpu.measuring.results import Results, Timed

CPU = torch.device("cpu")


def ceiling(name, rate, size, device="cuda", threads=1):
    """A product or a copy at so many 1e9 a second."""
    what, x = ("flop", "size") if "product" in name else ("bytes", "mebibytes")
    return Timed("ceilings", name, device, threads, [0.9, *[1.0] * 9, 1.1], {x: size}, {what: rate * 1e9})


def machine(*measured):
    return Results({"cpu_name": "AMD EPYC", "device_name": "NVIDIA T4", "device": "cuda"}, [*measured], "2026-01-31")


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
    assert "9 GFLOP/s (1 threads)" in product and "256 MiB at 30 GB/s (2 threads)" in copy
    assert lab.highest(results, "copy", device="cuda", threads=1) is copies[1]
    assert lab.SECTION.summary(machine(), "cuda") == []


def test_rates_are_drawn_over_size_beside_published_ones_from_side_to_side():
    mine = machine(ceiling("copy", 5, 1), ceiling("copy", 40, 256))
    source = Source("A table", "https://example.org", "2026-01-31")
    published = [Figure("A100", "memory", 2e12, SHEET, source), Figure("T4", "memory", 3e11, SHEET, source)]
    axes, says = lab.rates("copy", mine, [machine(ceiling("copy", 7, 4, "cpu"))], published)
    own, other, a100, t4 = axes.lines
    assert "NVIDIA T4, CUDA" in own.get_label()
    assert "AMD EPYC" in other.get_label() and "recorded 2026-01-31" in other.get_label()
    assert list(own.get_xdata()) == [1, 256] and list(own.get_ydata()) == [5, 40]
    assert list(a100.get_xdata()) == [1, 256] and list(t4.get_ydata()) == [300, 300]
    assert [text.get_text() for text in axes.texts] == ["A100", "T4"]
    said = says.splitlines()
    assert len(said) == 4 and "5 GB/s at 1, 40 GB/s at 256" in said[0] and "2,000 GB/s" in said[2]


def test_an_order_is_measured_and_neither_equal_times_nor_nearly_equal_ones_are_held_against_it(monkeypatch):
    def measured(**others):
        """A microsecond a call for each of the four, if nothing else is said."""
        seconds = {name: [1e-5 * others.get(name, 1)] * 12 for name in lab.COSTS}
        monkeypatch.setattr(lab, "alternate", lambda sides, **_: seconds)
        return judge(lab.EXERCISES[1], ["matrix times vector", "sum", "copy", "product"])

    assert measured().status == UNDECIDED
    assert measured(sum=20).status == WRONG
    assert measured(product=40).status == RIGHT
    found = measured(product=40, copy=20, sum=0.9)  # as on a fast GPU: the first two take little more than their start
    assert found.status == RIGHT and "copy 20 μs, product 40 μs" in found.text
