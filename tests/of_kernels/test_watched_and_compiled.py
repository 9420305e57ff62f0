"""What a kernel's programs are seen to read and write, and what a compiler makes of it."""

import matplotlib.pyplot as plt
import pytest
import torch
import triton
import triton.language as tl

from mnist_gpu.chapters import chapter_10 as lab
from mnist_gpu.chapters.chapter_10 import exercises, watched
from mnist_gpu.chapters.chapter_10.compiled import TARGETS, assembly
from mnist_gpu.chapters.chapter_10.watched import interpreter, watch
from mnist_gpu.faster import kernels
from mnist_gpu.faster.with_triton import kernel_device
from mnist_gpu.measuring.exercises import Wrong, same


def of_update(n=10, block=4, believed=None):
    w, g = torch.rand(2, n)
    return {"w": w, "g": g, "lr": 0.1, "n": believed or n, "BLOCK": block}


@triton.jit
def everywhere(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i + 10000000, tl.load(x - 2 - i))


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
def reduced(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out, tl.sum(tl.load(x + i, mask=i < n), 0))
    tl.store(out + 1, tl.max(tl.load(x + i, mask=i < n), 0))


# Watching


def test_every_access_is_seen_with_its_program():
    arguments = of_update()
    found = watch(kernels.update_kernel, (3,), arguments)
    assert found.error is None and found.outside() == [] and found.races("w") == [] and found.unwritten("w") == []
    assert found.programs("w", "write") == {i: [(i // 4, 0, 0)] for i in range(10)}
    assert found.programs("g", "write") == {} and found.programs("g", "read").keys() == set(range(10))
    assert torch.equal(found.results["w"], watch(kernels.update_kernel, (3,), arguments).results["w"])  # only a copy


def test_what_does_not_exist_is_seen_and_neither_read_nor_written():
    found = watch(kernels.update_kernel, (3,), of_update(believed=12))
    assert [(a.kind, a.tensor, a.elements) for a in found.outside()] == [
        ("read", "w", [10, 11]), ("read", "g", [10, 11]), ("write", "w", [10, 11])]  # fmt: skip
    memory = found.results["w"].untyped_storage()
    assert sum(memory) == sum(bytes(found.results["w"].numpy().tobytes()))  # all around it is 0 still


def test_what_lies_far_away_or_before_the_first_is_seen_too():
    before, far = watch(everywhere, (1,), {"x": torch.rand(4), "out": torch.rand(4), "n": 4, "BLOCK": 4}).outside()
    assert before == ((0, 0, 0), "read", "x", [-2, -3, -4, -5])
    assert far.kind == "write" and len(far.elements) == 4


def test_a_race_is_seen_although_the_sum_is_right():
    for atomic, races in ((False, [0]), (True, [])):
        x = torch.rand(10)
        found = watch(adding, (3,), {"x": x, "out": torch.zeros(1), "n": 10, "ATOMIC": atomic, "BLOCK": 4})
        torch.testing.assert_close(found.results["out"], x.sum().view(1))
        assert found.races("out") == races and found.unwritten("out") == []
    assert watch(shifting, (3,), {"x": torch.rand(10), "n": 10, "BLOCK": 4}).races("x") == [4, 8]  # written and read


def test_what_is_masked_and_counts_as_nothing_named_spoils_a_sum_and_a_maximum():
    out = watch(reduced, (1,), {"x": torch.rand(2), "out": torch.zeros(2), "n": 2, "BLOCK": 4}).results["out"]
    assert out[0].isnan() and out[1] > 1


def test_why_a_kernel_stopped_is_told_and_the_interpreter_is_as_before():
    assert "power of 2" in watch(kernels.update_kernel, (1,), of_update(block=5)).error
    w, g = torch.rand(2, 10, device=kernel_device())
    expected = w - 0.1 * g
    kernels.update_kernel[(1,)](w, g, 0.1, 10, BLOCK=16)
    torch.testing.assert_close(w, expected)


def test_another_process_sees_the_same_for_several_launches(monkeypatch):
    here = watch(kernels.update_kernel, (3,), arguments := of_update(believed=12))
    monkeypatch.setattr(watched, "interpreted", lambda: False)
    with interpreter() as watch_there:
        there = watch_there(kernels.update_kernel, (3,), arguments)
        stopped = watch_there(kernels.update_kernel, (1,), of_update(block=5))
    assert there.accesses == here.accesses and "power of 2" in stopped.error
    assert torch.equal(there.results["w"], here.results["w"])


def test_the_picture_has_every_cell_and_says_what_is_wrong():
    drawn = lab.touched(watch(kernels.update_kernel, (3,), of_update(believed=12)), [("w", "read"), ("w", "written")])
    for axis in drawn.axes.figure.axes:
        assert [t.get_text() for t in axis.texts] == list("000011112222")
        assert [bool(p.get_hatch()) for p in axis.patches] == [False] * 10 + [True] * 2
    assert "Program 2" in drawn.says and "10, 11 of w, which has 10" in drawn.says
    racing = watch(adding, (3,), {"x": torch.rand(10), "out": torch.zeros(1), "n": 10, "ATOMIC": False, "BLOCK": 4})
    drawn = lab.touched(racing, [("out", "written")])
    assert [t.get_text() for t in drawn.axes.texts] == ["0+"] and "race for 1 of out" in drawn.says
    plt.close("all")


# Compiled for cards that are not here


def test_what_multiplies_stands_in_the_assembly_and_our_products_are_not_rounded_to_tf32():
    a, b, out = torch.empty(3, 64, 64)
    ours = {"a": a, "b": b, "bias": None, "gate": None, "c": out, "m": 64, "n": 64, "k": 64, "RELU": False}
    ours |= {"a_row": 64, "a_column": 1, "b_row": 1, "b_column": 64, "TILE_M": 32, "TILE_N": 32, "TILE_K": 32}
    found = assembly(kernels.product_kernel, ours)
    assert list(found) == list(TARGETS) and "v_mfma_f32" in found.pop("MI300X")
    assert all("fma.rn.f32" in code and "tf32" not in code for code in found.values())


def test_pixels_are_divided_exactly_and_what_does_not_compile_says_why():
    images, index, out = torch.empty(5, 784, dtype=torch.uint8), torch.tensor([3, 0]), torch.empty(2, 784)
    arguments = {"images": images, "index": index, "out": out, "PIXELS": 784}
    assert "div.rn.f32" in assembly(kernels.gather_kernel, arguments | {"BLOCK": 1024}, ["H100"])["H100"]
    with pytest.raises(RuntimeError, match="power of 2"):
        assembly(kernels.gather_kernel, arguments | {"BLOCK": 784}, ["H100"])


# The puzzles; their stubs, solutions and wrong answers: see ../chapters/test_answers.py


def test_every_hint_differs_from_what_is_right():
    for puzzle in (e.check for e in exercises.EXERCISES):
        for instead, hint in puzzle.hints:
            assert not all(same(instead(a), puzzle.right(a)) for (a,) in puzzle.inputs()), hint


def test_where_kernels_are_compiled_a_right_answer_runs_on_the_gpu_too(monkeypatch):
    """Here the process only says that it compiles."""
    monkeypatch.setattr(exercises, "interpreted", lambda: False)

    def arguments(n):
        return {"x": torch.rand(n), "out": torch.zeros(1), "n": n, "ATOMIC": True}

    puzzle = exercises.Puzzle(arguments, [(10,)], lambda a, block: (10,), lambda a: a["x"].sum().view(1), (), "")
    assert "1 size" in puzzle(adding)
    monkeypatch.setattr(exercises, "same", lambda found, expected: False)
    with pytest.raises(Wrong, match="compiled for this GPU"):
        puzzle(adding)
