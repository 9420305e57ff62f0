"""What is measured over one number: that it is the right work. How fast it is, no test asks."""

import functools
import itertools
import os
import subprocess
import sys

import pytest
import torch

from mnist_gpu.measuring import lanes, sweeps, timing
from mnist_gpu.measuring.lanes import CAPABILITY, WITH, WITHOUT, measure_lanes, vector_lanes
from mnist_gpu.measuring.results import Skipped, Timed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Two blocks of a call or two."""
    monkeypatch.setattr(timing, "BLOCKS", 2)
    monkeypatch.setattr(sweeps, "measure", lambda f, **_: timing.measure(f, min_seconds=1e-6))


def timed(name, seconds, parameters=None, **per_call):
    return Timed("inside", name, "cpu", 1, [seconds] * 10, parameters or {}, per_call)


def copies(rates):
    """A copy of 4, 8, 16, ... KiB at each of these rates."""
    sizes = [4 * 2**i for i in range(len(rates))]
    return [timed("copy", 1.0, {"kibibytes": kib}, bytes=rate) for kib, rate in zip(sizes, rates, strict=True)]


@pytest.mark.parametrize("k", [0, 1, 5])
def test_k_multiply_adds(k):
    x = torch.rand(100, dtype=torch.float64)
    expected = 0.999**k * x + 0.001 * sum(0.999**i for i in range(k))
    found = sweeps.multiply_adds(k)(x)
    assert found is x and (found - expected).abs().max() < 1e-12


def test_fused_they_give_the_same_numbers_for_every_size():
    if reason := sweeps.compiler_missing(CPU):
        pytest.skip(reason)
    kernel = sweeps.fused(20)
    for n in (1000, 4097):
        x = torch.rand(n)
        expected = sweeps.multiply_adds(20)(x.clone())
        assert kernel(x) is not None and (x - expected).abs().max() < 1e-6


def test_fused_each_is_compiled_and_what_was_compiled_before_stays(monkeypatch):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    other = torch.compile(torch.nn.Linear(1, 1))
    other(torch.ones(1))
    kernels = [sweeps.fused(k) for k in (*range(1, 12), 5)]  # more than torch.compile compiles of one function
    for kernel in kernels:
        kernel(torch.ones(4))
    other(torch.ones(1))
    assert len(compiled) == 1 + len(kernels)


def test_a_kernel_over_sizes_reads_and_writes_every_number():
    found = list(sweeps.by_size(CPU, sizes=[256, 1000]))
    assert [m.parameters for m in found] == [{"size": 256}, {"size": 1000}]
    assert [m.per_call for m in found] == [{"bytes": 2048, "elements": 256}, {"bytes": 8000, "elements": 1000}]
    assert all(m.section == "inside" and m.device == "cpu" and m.threads == 1 for m in found)


def test_a_copy_counts_what_is_read_and_written():
    found = list(sweeps.copies(CPU, kibibytes=[4, 64]))
    assert [(m.parameters["kibibytes"], m.per_call["bytes"]) for m in found] == [(4, 8192), (64, 131_072)]


def test_whatever_the_stride_as_many_numbers_are_read(monkeypatch):
    monkeypatch.setattr(sweeps, "READ", 1000)
    seen = []
    monkeypatch.setattr(
        sweeps, "_timed", lambda name, device, call, parameters, per_call: seen.append((call(), parameters))
    )
    list(sweeps.strides(CPU, steps=(1, 3)))
    assert [len(out) for out, _ in seen] == [1000, 1000] and [p["stride"] for _, p in seen] == [1, 3]


def test_without_a_compiler_the_fused_ones_are_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr(sweeps, "compiler_missing", lambda device: "needs a compiler")
    *alone, last = sweeps.intensities(CPU, ks=(1, 4, 64), elements=1000)
    assert [(m.name, m.parameters["k"]) for m in alone] == [("one by one", 1), ("one by one", 4)]
    assert [m.per_call for m in alone] == [{"flop": 2000, "bytes": 16_000}, {"flop": 8000, "bytes": 64_000}]
    assert last == Skipped("inside", "fused", "cpu", "needs a compiler")


def test_the_compiler_is_missing_where_the_ladder_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in sweeps.compiler_missing(CPU)
    assert "generates no code for hpu" in sweeps.compiler_missing(torch.device("hpu"))


def test_fused_they_move_the_same_bytes_and_end_where_one_takes_ten_times_as_long(monkeypatch):
    seconds = iter([1e-9] * 9 + [1.0, 1.0, 2.0, 9.0, 11.0, 99.0])  # of which nine are never asked for

    def measured(name, device, call, parameters, per_call):
        return timed(name, 1e-9 if name == "one by one" else next(seconds), parameters, **per_call)

    monkeypatch.setattr(sweeps, "_timed", measured)
    monkeypatch.setattr(sweeps, "compiler_missing", lambda device: None)
    monkeypatch.setattr(sweeps, "fused", lambda k: None)
    seconds = iter([1.0, 1.0, 2.0, 9.0, 11.0, 99.0])
    found = [m for m in sweeps.intensities(CPU, ks=(1, 2, 4, 8, 16, 32), elements=1000) if m.name == "fused"]
    assert [m.parameters["k"] for m in found] == [1, 2, 4, 8, 16]
    assert {m.per_call["bytes"] for m in found} == {8000} and found[-1].per_call["flop"] == 32_000


def test_the_knee_is_the_best_rate_of_operations_over_that_of_bytes():
    found = [timed("fused", s, {"k": k}, flop=2 * k * 100, bytes=800) for k, s in ((1, 1.0), (8, 1.0), (64, 4.0))]
    assert sweeps.knee(found) == pytest.approx(2 * 64 * 100 / 4 / 800)


def test_a_condition_is_as_often_true_when_shuffled_and_the_sides_are_timed_in_turn():
    pixels = torch.zeros(50, 28, 28, dtype=torch.uint8)
    pixels[:, 10:15] = 200
    found = list(sweeps.conditions(CPU, pixels, rounds=2))
    names = [sweeps.EVERYWHERE, sweeps.NOWHERE, sweeps.INK, sweeps.SHUFFLED, sweeps.ALONE]
    assert [m.name for m in found] == names and all(len(m.seconds) == 2 for m in found)


def test_falls_are_those_after_the_highest_rate():
    assert sweeps.falls(copies([10, 5, 40, 39, 20, 19, 10])) == [(32, 64, 39 / 20), (128, 256, 1.9)]
    assert sweeps.falls(copies([10, 20, 40])) == []
    noisy = copies([40, 20])
    noisy[1].seconds[1:3] = [0.4, 0.4]  # a spread that reaches the other rate
    assert sweeps.falls(noisy) == []


@pytest.mark.parametrize(
    ("seconds", "size"),
    [([1.1, 1.0, 1.2, 1.6, 3.0], 4), ([9.0, 1.0, 1.2, 3.0], 4), ([1.0, 9.0, 1.4, 9.0], 4), ([2.0, 1.0], 2)],
)
def test_flat_is_what_takes_at_most_half_as_long_again_also_where_a_busy_machine_slowed_one_of_them(seconds, size):
    found = [timed("kernel", s, {"size": 2**i}) for i, s in enumerate(seconds)]
    assert sweeps.still_flat(found).parameters["size"] == size
    assert sweeps.still_flat(found, 100.0) is found[-1]


def test_caches_are_those_that_linux_names(tmp_path):
    for i, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2048K")]
    ):
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n", encoding="utf-8")
    assert sweeps.caches(CPU, tmp_path) == {"L1": 48 * 1024, "L2": 2 * 2**20}
    assert sweeps.caches(CPU, tmp_path / "no such folder") == {} == sweeps.caches(torch.device("mps"), tmp_path)


@pytest.mark.cuda
def test_a_gpus_sizes_go_from_a_block_to_four_waves(gpu):
    sizes = sweeps._wave_sizes(gpu)
    properties = torch.cuda.get_device_properties(gpu)
    assert (
        sizes[0] == 1024
        and sizes[-1] == 4 * properties.multi_processor_count * properties.max_threads_per_multi_processor
    )
    assert all(a < b for a, b in itertools.pairwise(sizes)) and sweeps.caches(gpu)["L2"] > 2**20


# Vector lanes


def test_a_vector_has_as_many_numbers_as_its_bits_hold():
    assert [vector_lanes(name) for name in ("AVX512", "AVX2", "DEFAULT", "something new")] == [16, 8, 4, 4]
    assert vector_lanes() in (4, 8, 16)


def test_two_processes_are_asked_in_turn_and_one_of_them_has_no_wide_vectors(monkeypatch):
    monkeypatch.setenv(CAPABILITY, "avx2")  # a reader's own setting is not what is compared
    found = measure_lanes(rounds=2)
    assert found.capability[WITHOUT] in ("DEFAULT", "NO AVX") and set(found.capability) == {WITH, WITHOUT}
    ask = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    free = {name: value for name, value in os.environ.items() if name != CAPABILITY}
    assert found.capability[WITH] == subprocess.check_output([sys.executable, "-c", ask], env=free, text=True).strip()
    assert set(found.seconds) == {"ReLU", "sigmoid", "exp", "matrix product"}
    assert all(len(times) == 2 and min(times) > 0 for sides in found.seconds.values() for times in sides.values())


def test_a_process_that_ends_early_is_an_error(monkeypatch):
    monkeypatch.setattr(lanes.sys, "executable", "false" if sys.platform != "win32" else "where")
    with pytest.raises(RuntimeError, match="the process with vector lanes ended with status"):
        measure_lanes(rounds=1)
    with pytest.raises(ValueError, match="rounds is 0"):
        measure_lanes(rounds=0)
