"""What a kernel's programs are seen to read and write, and what a compiler makes of it.

The exercises' stubs, solutions and wrong answers: see ../chapters/test_answers.py.
"""

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_10 as lab
from mnist_gpu.chapters.chapter_10.compiled import TARGETS
from mnist_gpu.faster import kernels
from mnist_gpu.faster.with_triton import imported, kernel_device
from mnist_gpu.measuring.exercises import in_time

triton, tl = imported()


def of_update(n=10, block=4, believed=None):
    w, g = torch.rand(2, n)
    return {"w": w, "g": g, "lr": 0.1, "n": believed or n, "BLOCK": block}


@triton.jit
def update(w, g, lr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    new = tl.load(w + i, mask=i < n) - lr * tl.load(g + i, mask=i < n)
    tl.store(w + i, new, mask=i < n)


@triton.jit
def everywhere(x, out):
    i = tl.arange(0, 4)
    tl.store(x - 2 - i, tl.load(out + i + 10000000))


@triton.jit
def adding(x, out, n, ATOMIC: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = tl.sum(tl.load(x + i, mask=i < n, other=0.0), 0)
    if ATOMIC:
        tl.atomic_add(out, part)
    else:
        tl.store(out, tl.load(out) + part)


@triton.jit
def shifting(x, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i + 1, mask=i + 1 < n, other=0.0), mask=i < n)


@triton.jit
def endless(x):
    while tl.load(x) < 1:
        x += 0


@triton.jit
def reduced(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out, tl.sum(tl.load(x + i, mask=i < n), 0))
    tl.store(out + 1, tl.max(tl.load(x + i, mask=i < n), 0))


def test_every_access_is_seen_with_its_program_and_only_a_copy_is_changed():
    arguments = of_update()
    w, expected = arguments["w"].clone(), arguments["w"] - 0.1 * arguments["g"]
    found = lab.watch(update, (3,), arguments)
    assert found.wrong() == "" and found.count("w", "g") == 30
    assert found.touches["w"] == {i: [(str(i // 4), "read"), (str(i // 4), "write")] for i in range(10)}
    assert found.touches["g"] == {i: [(str(i // 4), "read")] for i in range(10)}
    assert torch.equal(arguments["w"], w) and torch.allclose(found.results["w"], expected)


def test_what_does_not_exist_is_seen_and_neither_read_nor_written():
    found = lab.watch(update, (3,), of_update(believed=12))
    assert [e for e in found.touches["w"] if e > 9] == [e for e in found.touches["g"] if e > 9] == [10, 11]
    far = lab.watch(everywhere, (1,), {"x": torch.rand(4), "out": torch.rand(4)})
    assert list(far.touches["x"]) == [-2, -3, -4, -5] and min(far.touches["out"]) > 3
    assert "Program 0 wants to write what does not exist: element -2 of x, which has 4" in far.wrong()
    for results in (found.results, far.results):  # all around them is 0 still
        memory = bytes(next(iter(results.values())).untyped_storage())
        assert sum(memory) == sum(sum(t.numpy().tobytes()) for t in results.values())


def test_a_race_is_seen_although_the_sum_is_right():
    for atomic, said in ((False, "Programs race for 1 of the elements of out."), (True, "")):
        x = torch.rand(10)
        found = lab.watch(adding, (3,), {"x": x, "out": torch.zeros(1), "n": 10, "ATOMIC": atomic, "BLOCK": 4})
        torch.testing.assert_close(found.results["out"], x.sum().view(1))
        assert found.wrong() == said
    # Written by one program, and read by another.
    assert "race for 2" in lab.watch(shifting, (3,), {"x": torch.rand(10), "n": 10, "BLOCK": 4}).wrong()


def test_what_is_masked_and_counts_as_nothing_named_spoils_a_sum_and_a_maximum():
    out = lab.watch(reduced, (1,), {"x": torch.rand(2), "out": torch.zeros(2), "n": 2, "BLOCK": 4}).results["out"]
    assert out[0].isnan() and out[1] > 1


def test_why_a_kernel_stopped_is_told_and_the_interpreter_is_as_before(monkeypatch):
    monkeypatch.setattr(lab, "in_time", lambda run, seconds: in_time(run, seconds=0.5))
    assert (
        lab.watch(endless, (1,), {"x": torch.rand(4)}).wrong()
        == "The kernel stops: it had not ended after 0.5 seconds."
    )
    stopped = lab.watch(update, (1,), of_update(block=5))
    assert "power of 2" in stopped.wrong() and lab.touched(stopped).says.startswith("Elements: none.")
    w, g = torch.rand(2, 10, device=kernel_device())
    expected = w - 0.1 * g
    update[(1,)](w, g, 0.1, 10, BLOCK=16)
    torch.testing.assert_close(w, expected)


def test_another_process_sees_the_same(monkeypatch):
    here = lab.watch(update, (3,), arguments := of_update(believed=12))
    monkeypatch.setattr(lab, "interpreted", lambda: False)
    there = lab.watch(update, (3,), arguments)
    assert there.touches == here.touches and torch.equal(there.results["w"], here.results["w"])


def test_the_picture_has_every_cell_and_says_what_is_wrong():
    drawn = lab.touched(lab.watch(update, (3,), of_update(believed=12)))
    texts = [t.get_text() for t in drawn.axes.texts]
    assert [t for t in texts if len(t) == 1] == 3 * list("000011112222")
    assert [bool(p.get_hatch()) for p in drawn.axes.patches] == 3 * [*[False] * 10, True, True]
    assert "Program 2" in drawn.says and "element 10 of w, which has 10" in drawn.says
    plt.close("all")


def test_our_products_touch_what_exists_and_are_not_rounded_to_tf32_and_pixels_are_divided_exactly():
    a, b, out = torch.zeros(3, 60, 60)
    ours = {"a": a, "b": b, "bias": None, "gate": None, "c": out, "m": 60, "n": 60, "k": 60, "RELU": False}
    ours |= {"a_row": 60, "a_column": 1, "b_row": 1, "b_column": 60, "TILE_M": 32, "TILE_N": 32, "TILE_K": 32}
    assert lab.watch(kernels.product_kernel, (2, 2), ours).wrong() == ""
    found = lab.assembly(kernels.product_kernel, ours)
    assert list(found) == list(TARGETS) and "v_mfma_f32" in found.pop("MI300X")
    assert all("fma.rn.f32" in code and "tf32" not in code for code in found.values())
    images, index, out = torch.empty(5, 784, dtype=torch.uint8), torch.tensor([3, 0]), torch.empty(2, 784)
    arguments = {"images": images, "index": index, "out": out, "PIXELS": 784}
    assert "div.rn.f32" in lab.assembly(kernels.gather_kernel, arguments | {"BLOCK": 1024}, ["H100"])["H100"]
    with pytest.raises(RuntimeError, match="power of 2"):
        lab.assembly(kernels.gather_kernel, arguments | {"BLOCK": 784}, ["H100"])
