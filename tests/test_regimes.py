"""Which regime binds, and which one a rung relieves."""

from mnist_gpu.faster.ladder import RUNGS, TEXTBOOK
from mnist_gpu.measuring.prediction import ThreeNumbers, predict
from mnist_gpu.measuring.regimes import (
    BYTES,
    LAUNCHES,
    LOADING,
    OPERATIONS,
    REGIMES,
    RELIEVES,
    binding,
    parts,
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
    assert rungs_of(OPERATIONS, numbered=False) == ["bfloat16 autocast", "TF32", "written out, oneDNN"]
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
