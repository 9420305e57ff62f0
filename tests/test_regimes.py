"""Which regime binds, and which one a rung relieves."""

from mnist_gpu.faster.ladder import RUNGS, TEXTBOOK
from mnist_gpu.measuring import tables
from mnist_gpu.measuring.prediction import ThreeNumbers, predict
from mnist_gpu.measuring.published import SHEET, published
from mnist_gpu.measuring.regimes import (
    BYTES,
    LAUNCHES,
    LOADING,
    OPERATIONS,
    REGIMES,
    RELIEVES,
    binding,
    parts,
    relieving,
    rungs_of,
)
from mnist_gpu.model import step_bytes, step_flops


def test_every_rung_of_the_ladder_is_placed():
    assert list(RELIEVES) == [rung.name for rung in RUNGS]
    assert RELIEVES[TEXTBOOK] == () and all(found for name, found in RELIEVES.items() if name != TEXTBOOK)
    assert {regime for found in RELIEVES.values() for regime in found} == {LOADING, *REGIMES}
    assert all(len(found) == len(set(found)) for found in RELIEVES.values())


def test_rungs_have_the_numbers_that_chapter_07_gives_them():
    assert rungs_of(OPERATIONS) == ["11. bfloat16 autocast", "12. TF32", "17. written out, oneDNN"]
    assert "14. CUDA graph of a step" in rungs_of(LAUNCHES) and "4. tensors in memory" in rungs_of(LOADING)


def test_the_parts_are_those_of_chapter_05s_model():
    numbers = ThreeNumbers(1e-4, 1e11, 2e10)
    found = parts(numbers, 64, 256)
    assert found == {
        LAUNCHES: 1e-4,
        BYTES: step_bytes(64, 256) / 2e10,
        OPERATIONS: sum(step_flops(64, 256)) / 1e11,
    }
    assert abs(sum(found.values()) - predict(numbers, 64, 256)) < 1e-12


def test_what_takes_longest_binds():
    assert binding(parts(ThreeNumbers(1.0, 1e12, 1e12))) == LAUNCHES
    assert binding(parts(ThreeNumbers(1e-9, 1e15, 1e9))) == BYTES
    assert binding(parts(ThreeNumbers(1e-9, 1e9, 1e15))) == OPERATIONS


def test_a_rung_relieves_only_where_it_can_be_had():
    assert relieving("operations", "cpu") == ["bfloat16 autocast", "written out, oneDNN"]
    assert relieving("operations", "cuda") == ["bfloat16 autocast", "TF32"]
    here, there = (set(relieving("launches", device)) for device in ("cpu", "cuda"))
    assert {"compiled epoch", "backward written out"} <= here - there
    assert {"CUDA graph of a step", "kernels of our own"} <= there - here and "no wait per step" in here & there


def test_the_table_of_regimes_groups_devices_that_wait_for_the_same(capsys):
    slow_start, slow_rate = ThreeNumbers(1.0, 1e15, 1e15), ThreeNumbers(1e-9, 1e9, 1e15)
    devices = {"this machine: CPU": slow_rate, "predicted: A": slow_start, "predicted: B": slow_start}
    tables.regimes(devices, [(1, 128), (128, 128)])
    out = capsys.readouterr().out
    assert "this machine: CPU: 128 images at width 128 wait for operations." in out
    assert "predicted: A; predicted: B: 128 images at width 128 wait for launches." in out
    assert out.count("Rungs that relieve them most:") == 2


def test_ridges_are_the_ratios_of_a_data_sheets_rates(capsys):
    found = tables.ridges(["A100"])
    rate, memory = (published(card="A100", quantity=q, kind=SHEET)[0].value for q in ("float32", "memory"))
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if " float32 " in line)
    assert row[-2:] == [f"{rate / memory:,.0f}", f"{1.5 * 4 * rate / memory:,.0f}"] and len(found) == 4
