import statistics

import pytest
import torch

from mnist_gpu.measuring import prediction
from mnist_gpu.measuring.prediction import (
    ThreeNumbers,
    off_by,
    predict,
    recorded_numbers,
    right_sides,
    three_numbers,
)
from mnist_gpu.measuring.results import REFERENCE, Results, Timed, read
from mnist_gpu.measuring.sections.crossover import crossover_map, crossover_table
from mnist_gpu.model import step_bytes, step_flops

CPU = torch.device("cpu")


def step(batch_size, hidden, seconds, threads=1):
    return Timed("crossover", "step", "cpu", threads, seconds, {"batch_size": batch_size, "hidden": hidden})


def test_a_prediction_is_the_sum_of_launching_operations_and_bytes():
    assert predict(ThreeNumbers(2.0, float("inf"), float("inf")), 32, 64) == 2.0
    assert predict(ThreeNumbers(0.0, 10.0, float("inf")), 32, 64) == pytest.approx(sum(step_flops(32, 64)) / 10)
    assert predict(ThreeNumbers(0.0, float("inf"), 4.0), 32, 64) == pytest.approx(step_bytes(32, 64) / 4)
    one, two, three = (1.0, 1e9, 2e9)
    both = predict(ThreeNumbers(one, two, three), 32, 64)
    assert both == pytest.approx(one + sum(step_flops(32, 64)) / two + step_bytes(32, 64) / three)


def test_a_prediction_is_off_by_a_factor_of_at_least_one():
    numbers = ThreeNumbers(2.0, float("inf"), float("inf"))
    assert off_by(numbers, [step(32, 64, [s]) for s in (1.0, 2.0, 8.0)]) == [2.0, 1.0, 4.0]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_recorded_cpu_is_predicted_from_its_three_numbers(threads):
    """Sixteen steps from 32 images at width 32 to 2048 at 2048, whose times differ by a factor of hundreds."""
    results = read(REFERENCE / "amd-epyc-2-cpus.json")
    steps = results.select("crossover", device="cpu", threads=threads)
    assert len(steps) == 16 and max(m.median for m in steps) > 100 * min(m.median for m in steps)
    off = off_by(recorded_numbers(results, "cpu", threads), steps)
    assert statistics.median(off) < 1.25 and max(off) < 1.6


def test_a_recorded_machine_without_one_of_the_three_has_no_prediction():
    def timed(section, name, work, **parameters):
        return Timed(section, name, "cpu", 1, [2.0], parameters, work)

    every = [
        timed("account", "smallest network", {}, batch_size=1),
        timed("ceilings", "matrix product", {"flop": 10.0}, size=1),
        timed("ceilings", "matrix product", {"flop": 8.0}, size=2),
        timed("ceilings", "copy", {"bytes": 60.0}, mebibytes=1),  # from the cache
        timed("ceilings", "copy", {"bytes": 30.0}, mebibytes=256),
    ]
    assert recorded_numbers(Results({}, every, "2026-01-31"), "cpu", 1) == ThreeNumbers(2.0, 5.0, 15.0)
    for part in (every[1:], [every[0], *every[3:]], every[:3]):
        assert recorded_numbers(Results({}, part, "2026-01-31"), "cpu", 1) is None
    assert recorded_numbers(Results({}, every, "2026-01-31"), "cuda", 1) is None


def test_three_numbers_are_measured_with_the_threads_asked_for(monkeypatch):
    threads = []
    monkeypatch.setattr(
        prediction, "two_ceilings", lambda device: threads.append(torch.get_num_threads()) or (5.0, 7.0)
    )
    found = three_numbers(CPU, 2)
    assert threads == [2] and found[1:] == (5.0, 7.0) and 0 < found.launch < 1 and torch.get_num_threads() == 1


def test_the_table_of_a_side_has_a_row_for_each_batch_size_and_a_column_for_each_width():
    found = [step(b, w, [b * w * t], t) for t in (1, 2) for w in (8, 4) for b in (3, 2)]
    table = crossover_table(iter(found), ("cpu", 2))
    assert [[m.median for m in row] for row in table] == [[2 * 4 * 2, 2 * 8 * 2], [3 * 4 * 2, 3 * 8 * 2]]


def test_the_cells_of_a_map_hold_together_and_the_right_sides_are_counted():
    slow = [[step(1, w, [2.0 + 0.01 * i for i in range(10)]) for w in (1, 2, 3)]]
    fast = [[step(1, w, [x] * 10) for w, x in ((1, 1.0), (2, 4.0), (3, 2.05))]]
    (cells,) = found = crossover_map(slow, fast)
    assert [c.of for c in cells] == [3, 3, 3] and [c.differs for c in cells] == [True, True, False]
    assert right_sides([[1.5, 0.5, 9.0]], found) == (2, 2)  # nothing is won in the third
    assert right_sides([[1.5, 1.5, 9.0]], found) == (1, 2)
