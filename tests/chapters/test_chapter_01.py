"""Chapter 01's room: the ceilings' measurement and summary, its figures, and a call through WebGPU."""

import gc

import numpy
import pytest
import torch
from guarded import any_adapter

from mnist_gpu.chapters import chapter_01 as lab
from mnist_gpu.measuring import workloads
from mnist_gpu.measuring.prediction import SHEET, Figure
from mnist_gpu.measuring.results import Results, Skipped, Timed
from mnist_gpu.webgpu.gpu import Gpu, WebGPUError

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
    monkeypatch.setattr(lab, "own_gpu", lambda device: None)
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
            ("copy", {"mebibytes": 1}, {"bytes": 2 * 2**20}),
        ]


def test_the_ceilings_are_the_fastest_product_and_the_fastest_of_the_largest_copies():
    products = [ceiling("matrix product", rate, size) for rate, size in ((7, 64), (9, 128), (8, 256))]
    copies = [ceiling("copy", 90, 1), ceiling("copy", 20, 256), ceiling("copy", 30, 256, threads=2)]
    results = machine(*products, *copies, ceiling("copy", 99, 256, device="cpu"))
    product, copy = lab.summary(results, "cuda")
    assert "9 GFLOP/s (1 threads)" in product and "30 GB/s (2 threads)" in copy
    assert lab.highest(results, "copy", device="cuda", threads=1) is copies[1]


def test_a_ceiling_stands_beside_published_ones_as_multiples_of_the_cpus_best():
    mine = machine(ceiling("copy", 9, 1, "cpu"), ceiling("copy", 4, 256, "cpu", 2), ceiling("copy", 40, 256))
    other = machine(ceiling("copy", 3, 256, "cpu"), ceiling("copy", 20, 256))
    sheet = Figure("A100", "memory", 2e12, SHEET, ("A table", "https://example.org", "2026-01-31"))
    axes, says = lab.rates("copy", mine, [other], [sheet])
    assert [text.get_text() for text in axes.texts] == ["x 1", "x 10", "x 5", "x 500"]
    assert all(part in says for part in ("CPU with 2 threads, 4 GB/s x 1;", "recorded 2026", "A100, 2,000 GB/s x 500"))


@pytest.mark.parametrize(("device", "rows"), [(CPU, 4), (torch.device("cuda"), 2)])
def test_the_payoff_is_drawn_with_predicted_cards_where_no_gpu_was_measured(device, rows, monkeypatch):
    monkeypatch.setattr(lab, "environment", lambda device: machine().environment)
    sides = zip(lab.first_and_last(CPU), ("cpu", "webgpu"), (6, 2), strict=False)
    timed = [Timed("ladder", n, device, 1, [s] * 7, {}, {"images": 60_000}) for n, device, s in sides]
    axes, says = lab.factors(timed, device)
    assert [text.get_text() for text in axes.texts][:2] == ["x 1", "x 3"] and len(axes.texts) == rows
    assert ("T4 x " in says) == (rows == 4)


def test_through_webgpu_products_and_copies_are_right_and_measured_after_the_cpu(monkeypatch):
    gpu = Gpu(any_adapter())
    calls = [workloads.webgpu_call(gpu, size=65), workloads.webgpu_call(gpu, mebibytes=2)]
    gpu.run(calls)
    (a, b, product), (copied, copy) = ([array.read() for array in call.arrays] for call in calls)
    assert numpy.allclose(product.reshape(65, 65), a.reshape(65, 65) @ b.reshape(65, 65), rtol=1e-4)
    assert (copied == copy).all() and copy.size == 2**19
    monkeypatch.setattr(lab, "own_gpu", lambda device: gpu)
    little = {"sizes": (8, 65), "mebibytes": (1,), "seconds": 0.001}
    *_, small, large, copy = lab.measure_ceilings(CPU, **little)
    assert small.device == copy.device == "webgpu" and large.proof == {"hardware": gpu.name}
    assert large.per_call == {"flop": 2 * 65**3} and copy.per_call == {"bytes": 2**21} and min(copy.seconds) > 0
    monkeypatch.setattr(gpu, "run", lambda calls: (_ for _ in ()).throw(WebGPUError("it hangs")))
    *_, last = lab.measure_ceilings(CPU, **little)  # what the CPU gave is kept
    assert isinstance(last, Skipped) and last.device == "webgpu" and "it hangs" in last.reason
    gpu.close()
