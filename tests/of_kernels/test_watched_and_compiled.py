"""What a kernel's programs are seen to read and write, what its launches are said to cost, and what compilers make."""

import matplotlib.pyplot as plt
import pytest
import torch
import triton
import triton.language as tl

from mnist_gpu.chapters import chapter_09 as lab
from mnist_gpu.chapters.chapter_09 import compiled_kernels, exercises, launches, watched
from mnist_gpu.chapters.chapter_09.compiled_kernels import TARGETS, compile_for_cards
from mnist_gpu.chapters.chapter_09.launches import NAMES, Launch, launches_of, launches_of_a_step
from mnist_gpu.chapters.chapter_09.watched import NOWHERE, interpreter, watch
from mnist_gpu.faster import kernels
from mnist_gpu.faster.graphs import WARMUP
from mnist_gpu.faster.with_triton import kernel_device
from mnist_gpu.measuring.exercises import RIGHT, WRONG, judge
from mnist_gpu.model import step_flops


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
    found = watch(everywhere, (1,), {"x": torch.rand(4), "out": torch.rand(4), "n": 4, "BLOCK": 4})
    assert [(a.kind, a.tensor, a.elements) for a in found.outside()] == [
        ("read", "x", [-2, -3, -4, -5]), ("write", NOWHERE, [-1] * 4)]  # fmt: skip
    drawn = lab.touched(found, [("x", "read"), ("out", "written")])
    assert "-2, -3, -4, -5 of x" in drawn.says and "4 elements of out are written by no program" in drawn.says
    plt.close("all")


@pytest.mark.parametrize(("atomic", "races"), [(False, [0]), (True, [])])
def test_a_race_is_seen_although_the_sum_is_right(atomic, races):
    x = torch.rand(10)
    found = watch(adding, (3,), {"x": x, "out": torch.zeros(1), "n": 10, "ATOMIC": atomic, "BLOCK": 4})
    torch.testing.assert_close(found.results["out"], x.sum().view(1))
    assert found.races("out") == races and found.unwritten("out") == []
    assert [t.get_text() for t in lab.touched(found, [("out", "written")]).axes.texts] == ["0+"]  # and by others
    plt.close("all")


def test_what_one_program_writes_and_another_reads_is_a_race():
    assert watch(shifting, (3,), {"x": torch.rand(10), "n": 10, "BLOCK": 4}).races("x") == [4, 8]


def test_why_a_kernel_stopped_is_told_and_the_interpreter_is_as_before():
    assert "power of 2" in watch(kernels.update_kernel, (1,), of_update(block=5)).error
    w, g = torch.rand(2, 10, device=kernel_device())
    expected = w - 0.1 * g
    kernels.update(w, g, 0.1)
    torch.testing.assert_close(w, expected)


def test_another_process_sees_the_same_for_several_launches(monkeypatch):
    here = watch(kernels.update_kernel, (3,), arguments := of_update(believed=12))
    monkeypatch.setattr(watched, "interpreted", lambda: False)
    with interpreter() as watch_there:
        there = watch_there(kernels.update_kernel, (3,), arguments)
        stopped = watch_there(kernels.update_kernel, (1,), of_update(block=5))
    assert there.accesses == here.accesses and there.sizes == here.sizes
    assert torch.equal(there.results["w"], here.results["w"]) and "power of 2" in stopped.error


def test_the_picture_has_every_cell_and_says_what_is_wrong():
    drawn = lab.touched(watch(kernels.update_kernel, (3,), of_update(believed=12)), [("w", "read"), ("w", "written")])
    for axis in drawn.axes.figure.axes:
        assert [t.get_text() for t in axis.texts] == list("000011112222")
        assert [bool(p.get_hatch()) for p in axis.patches] == [False] * 10 + [True] * 2
    assert drawn.says.startswith("Program 2 wants to read and write") and "10, 11 of w, which has 10" in drawn.says
    assert (
        "by one program each" in lab.touched(watch(kernels.update_kernel, (3,), of_update()), [("w", "written")]).says
    )
    drawn = lab.touched(found := watch(kernels.update_kernel, (2,), of_update()), [("w", "written")])
    assert "2 elements of w are written by no program" in drawn.says
    assert [t.get_text() for t in lab.touched(found, [("w", "written")], only=(1,)).axes.texts] == list("1111")
    plt.close("all")


# Launches and what they cost


@pytest.fixture(scope="module")
def of_a_step():
    return launches_of_a_step(5, 7, tile=4)


def test_a_step_has_these_launches_in_this_order(of_a_step):
    assert list(of_a_step) == list(NAMES) and len(NAMES) == 11
    assert of_a_step["hidden layer, ReLU"].arguments["RELU"] is True
    assert of_a_step["hidden layer, ReLU"].grid == (1, 1)  # tiles of 16 at least
    assert launches_of_a_step(128, 128, tile=32)["gradient of weights 1"].programs == 4 * 25
    assert launches_of_a_step(128, 128)["hidden layer, ReLU"].programs == 8 * 8  # as on a GPU
    assert of_a_step["loss, its gradient"].options == {"num_warps": 1}


def test_noting_launches_makes_none():
    w, g = torch.ones(2, 10, device=kernel_device())
    (found,) = launches_of(lambda: kernels.update(w, g, 0.5))
    assert (found.name, found.grid, found.arguments["n"]) == ("update_kernel", (1,), 10) and w.sum() == 10
    kernels.update(w, g, 0.5)
    assert w.sum() == 5


@pytest.mark.parametrize("name", [*NAMES, "plain SGD"])
def test_the_bytes_of_a_launch_are_those_that_it_is_seen_to_move(of_a_step, name):
    """Every element that it reads counts once, and every one that it writes."""
    w, g = torch.rand(2, 10, device=kernel_device())
    launch = of_a_step[name] if name in of_a_step else launches_of(lambda: kernels.update(w, g, 0.1))[0]
    arguments = {  # nothing has been computed, so the memory between the launches holds anything, NaN included
        k: torch.zeros_like(a) if torch.is_tensor(a) and a.is_floating_point() else a
        for k, a in launch.arguments.items()
    }
    if "a_row" in arguments:  # watching copies tensors, so a transposed one has to lie in memory as it did
        arguments = {k: a.t() if torch.is_tensor(a) and not a.is_contiguous() else a for k, a in arguments.items()}
    found = watch(launch.kernel, launch.grid, arguments)
    assert found.error is None and found.outside() == []
    once = {(a.tensor, a.kind, e) for a in found.accesses for e in a.elements}
    assert launch.bytes == sum(found.results[tensor].element_size() for tensor, _, _ in once)


def test_the_operations_of_the_products_are_those_of_the_model():
    found = launches_of_a_step(128, 32)
    products = sum(f.operations for f in found.values() if f.name == "product_kernel")
    assert products == sum(step_flops(128, 32)) + 128 * (32 + 10)  # and the biases


def test_the_tables_say_what_they_show(of_a_step, capsys):
    lab.launch_table(of_a_step)
    lab.predicted_table(launches_of_a_step(), ["T4", "H100"])
    said = capsys.readouterr().out
    assert "11 launches, 0 million operations" in said and "Most bytes: update of everything" in said
    assert "7.7 to 14, bytes" in said and "4.5 to 15, operations" in said  # 2 MB at 220 to 320 GB/s; 26 MFLOP
    assert "H100: launching the kernel takes longest in 11 of 11." in said


def test_where_kernels_are_compiled_they_are_timed_inside_graphs_in_turn(monkeypatch, capsys, cuda_graphs):
    """Here the process only says how it runs kernels."""
    monkeypatch.setattr(launches, "interpreted", lambda: True)
    launches.timed(one=lambda: pytest.fail("it was run"))
    assert "Not timed" in capsys.readouterr().out
    monkeypatch.setattr(launches, "interpreted", lambda: False)
    calls, done = [], torch.zeros(2)
    launches.timed(
        kernel=lambda: calls.append("kernel") or done[0].add_(1),
        pytorch=lambda: calls.append("pytorch") or done[1].add_(1),
    )
    assert calls.count("kernel") == calls.count("pytorch") == WARMUP + 100  # Python calls nothing while it is timed
    assert cuda_graphs.replays == 2 * 12 and done.tolist() == [WARMUP + 100 + 12 * 100] * 2
    assert "kernel: " in (said := capsys.readouterr().out) and "µs" in said and "10 pairs" in said


# Compiled for cards that are not here


def test_every_kernel_of_the_step_is_compiled_for_every_card(capsys):
    found = compile_for_cards(launches_of_a_step(128, 128))
    assert list(found) == list(NAMES) and all(list(cards) == list(TARGETS) for cards in found.values())
    for name, cards in found.items():
        assert all(one.registers > 0 and one.spilled_bytes == 0 for one in cards.values()), name
        instructions = {card: one.instruction for card, one in cards.items()}
        if name in ("hidden layer, ReLU", "logits") or "weights" in name or "hidden layer" in name:
            nvidia = {instructions.pop(card) for card in ("T4", "A100", "H100")}
            assert nvidia == {"fma.rn.f32"} and instructions["MI300X"].startswith("v_mfma_f32_")  # no TF32
            assert all(one.shared_bytes > 0 for one in cards.values())
    assert found["gather, normalize"]["H100"].instruction == "div.rn.f32"  # not an approximation
    lab.compiled_table(found)
    said = capsys.readouterr().out
    assert "Spilled: nothing." in said and "logits: multiplied by tensor cores on MI300X." in said
    assert "update of everything: multiplied by no tensor cores." in said


@triton.jit
def default_product(a, b, out, TILE: tl.constexpr):
    i = tl.arange(0, TILE)
    at = i[:, None] * TILE + i[None, :]
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at)))


@triton.jit
def quotient(a, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(a + i) / 127.5)


def test_the_default_precision_what_has_no_room_and_an_inexact_quotient_show():
    a, b, out = torch.empty(3, 64, 64)
    large = Launch(default_product, (1,), {"a": a, "b": b, "out": out, "TILE": 64}, {})
    crowded = large._replace(options={"maxnreg": 32, "num_warps": 1})
    divided = Launch(quotient, (1,), {"a": a, "out": out, "BLOCK": 64}, {})
    found = compile_for_cards({"large": large, "crowded": crowded, "divided": divided}, ("A100", "H100"))
    assert "tf32" in found["large"]["A100"].instruction and found["large"]["A100"].spilled_bytes == 0
    assert found["large"]["H100"].instruction.startswith("wgmma") and found["crowded"]["A100"].spilled_bytes > 0
    assert found["divided"]["H100"].instruction != "div.rn.f32"  # which is why the package takes tl.div_rn


def test_what_cannot_be_compiled_is_an_error_with_its_reason(monkeypatch):
    a, b, out = torch.empty(3, 9)
    with pytest.raises(RuntimeError, match="power of 2"):
        compile_for_cards({"": Launch(default_product, (1,), {"a": a, "b": b, "out": out, "TILE": 3}, {})}, ("H100",))
    with pytest.raises(ValueError, match="no target is known for B1; there are: T4, A100, H100, MI300X"):
        compile_for_cards({}, ("H100", "B1"))
    monkeypatch.setattr(compiled_kernels, "not_installed", lambda: "there is none")
    with pytest.raises(RuntimeError, match="nothing can be compiled: there is none"):
        compile_for_cards({})


# The puzzles; their stubs, solutions and wrong answers: see ../chapters/test_answers.py


@triton.jit
def counted(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out + tl.load(labels + i, mask=i < n, other=0), 1, mask=i < n)


def test_where_kernels_are_compiled_a_right_answer_runs_on_the_gpu_too(monkeypatch):
    """Here the process only says that it compiles."""
    monkeypatch.setattr(exercises, "interpreted", lambda: False)
    assert judge(exercises.EXERCISES[4], counted).status == RIGHT
    monkeypatch.setattr(exercises, "same", lambda found, expected: False)
    found = judge(exercises.EXERCISES[4], counted)
    assert found.status == WRONG and "compiled for this GPU it computes something else" in found.text
