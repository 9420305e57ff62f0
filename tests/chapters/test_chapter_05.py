"""Chapter 05's room: the map of steps, the model of its times, and predictions for cards that are not here."""

import json
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_05 as lab
from mnist_gpu.measuring import workloads
from mnist_gpu.measuring.drawing import span
from mnist_gpu.measuring.prediction import Limits, predict_graph, predict_step, predictable, predicted_card
from mnist_gpu.measuring.results import Timed
from mnist_gpu.model import step_bytes, step_flops

CPU, GPU, INF = torch.device("cpu"), torch.device("cuda"), float("inf")
NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "05_cpu_versus_gpu.ipynb"
ONE, TWO = "CPU with 1 thread", "CPU with 2 threads"


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    monkeypatch.setattr(workloads, "usable_cpus", lambda: 2)
    yield
    plt.close("all")


def model(limits, batch_size, hidden):
    """Another way to the notebook's."""
    return sum(limits.of_step(batch_size, hidden).values())


def step(batch_size, hidden, seconds, threads=1, device="cpu"):
    return Timed("crossover", "step", device, threads, seconds, {"batch_size": batch_size, "hidden": hidden})


def test_a_map_is_measured_in_seconds_of_one_step_with_the_threads_of_each_side(monkeypatch):
    calls = []
    monkeypatch.setattr(lab, "training_step", lambda *size: lambda: calls.append(torch.get_num_threads()))
    monkeypatch.setattr(lab, "seconds_of", lambda function, device: torch.get_num_threads() / 1000)
    monkeypatch.setattr(lab, "alternate", lambda sides, **o: {n: [f() or 0.6] * o["rounds"] for n, f in sides.items()})
    found = list(lab.measure_crossover(CPU, batch_sizes=(4, 8), widths=(2,), rounds=3, call_seconds=0.02))
    assert calls == 2 * ([1] * 20 + [2] * 10) and torch.get_num_threads() == 1
    assert all(m.seconds == pytest.approx([0.03 * m.threads] * 3) for m in found)
    cells = [(m.device, m.threads, m.parameters, m.per_call["images"]) for m in found]
    assert cells == [("cpu", t, {"batch_size": b, "hidden": 2}, b) for b in (4, 8) for t in (1, 2)]
    assert found[0].per_call["flop"] == sum(step_flops(4, 2)) and found[0].per_call["bytes"] == step_bytes(4, 2)


def test_the_sections_sides_train_and_a_gpu_is_one_more():
    found = list(lab.SECTION.measure(CPU, batch_sizes=(4,), widths=(2,), rounds=2, call_seconds=0.001))
    assert [(m.section, m.threads, len(m.seconds)) for m in found] == [("crossover", t, 2) for t in (1, 2)]
    assert lab.SECTION.once and lab.sides_of(GPU) == {ONE: (CPU, 1), TWO: (CPU, 2), "CUDA": (GPU, 1)}


@pytest.mark.gpu
def test_a_map_is_measured_on_a_gpu_too(gpu):
    found = list(lab.measure_crossover(gpu, batch_sizes=(4,), widths=(2,), rounds=2, call_seconds=0.001))
    assert [m.device for m in found] == ["cpu", "cpu", gpu.type] and all(min(m.seconds) > 0 for m in found)


def test_the_steps_of_a_side_are_in_order_and_are_compared_together():
    found = [step(b, w, [b * w * t + i / 1000 for i in range(10)], t) for t in (1, 2) for w in (8, 4) for b in (3, 2)]
    one, two = (lab.steps_of(iter(found), side) for side in (ONE, TWO))
    assert [(m.threads, *m.parameters.values()) for m in two] == [(2, b, w) for b in (2, 3) for w in (4, 8)]
    cells = lab.compared_steps(one, two)
    assert [(c.of, c.differs) for c in cells] == [(4, True)] * 4
    assert [c.ratio for c in cells] == pytest.approx([0.5] * 4, abs=0.01)


def test_a_map_has_brackets_where_nothing_is_claimed_and_says_who_wins():
    slow = [step(1, w, [2.0 + 0.01 * i for i in range(10)]) for w in (1, 2, 3)]
    measured = lab.compared_steps(slow, [step(1, w, [x] * 10) for w, x in ((1, 1.0), (2, 4.0), (3, 2.05))])
    assert [c.differs for c in measured] == [True, True, False]
    axes, says = lab.ratio_map(measured, slow, "it")
    assert [t.get_text() for t in axes.texts] == [measured[0].times, measured[1].times, f"({measured[2].times})"]
    assert "faster in 1, slower in 1, neither in 1" in says and measured[0].times in says
    axes, _ = lab.ratio_map([1.5, 0.25, 1.0], slow, "predicted")
    assert [t.get_text() for t in axes.texts] == ["1.5", "0.25", "1"]
    assert axes.images[0].get_array()[0, 1] < 0 < axes.images[0].get_array()[0, 0]  # each side its colour


def test_the_model_in_the_notebook_adds_launching_operations_and_bytes():
    cells = ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]]
    (definition,) = [c.split("\n\n\n")[0] for c in cells if c.startswith("def predict(")]
    exec(definition, names := {"step_flops": step_flops, "step_bytes": step_bytes})
    for limits in (Limits(2.0, INF, INF), Limits(0.0, 10.0, INF), Limits(0.0, INF, 4.0), Limits(1.0, 1e9, 2e9)):
        assert names["predict"](limits, 32, 64) == pytest.approx(model(limits, 32, 64))


def test_it_is_said_how_far_a_model_is_off_and_how_often_it_knows_the_faster_side(capsys):
    limits = {ONE: Limits(2.0, INF, INF), TWO: Limits(1.0, INF, INF)}
    times = {1: ((32, 8.0), (64, 1.0), (96, 2.0), (99, 4.0)), 2: ((32, 1.0), (64, 4.0), (96, 2.0), (99, 1.0))}
    steps = [step(w, 1, [s] * 10, t) for t, each in times.items() for w, s in each]
    lab.judge_model(model, limits, steps)
    out = capsys.readouterr().out
    assert f"{TWO}: " in out and "factor of 1.50 (median), at most 4.0" in out
    # Of three cells the second wins two; the model names it everywhere.
    assert "Of the 3 cells" in out and "the right one in 2;" in out and "would get 2." in out
    lab.judge_model(model, {ONE: limits[ONE]}, steps)
    assert "Of the 0 cells" in capsys.readouterr().out


def test_the_command_predicts_every_card_or_one(monkeypatch, capsys):
    taken = lambda size: 9e-4 if size == (1, 1) else 1e-3 / torch.get_num_threads()  # noqa: E731
    monkeypatch.setattr(lab, "training_step", lambda device, *size: size)
    monkeypatch.setattr(lab, "measure", lambda size: SimpleNamespace(median=taken(size)))
    lab.run_predict()
    out = capsys.readouterr().out
    assert [line[:9].strip() for line in out.splitlines() if line.endswith("x")] == predictable()
    assert "500 μs" in out and "900 μs" in out and "https://" not in out
    lab.run_predict("A100", 2048, 64)
    out = capsys.readouterr().out
    times = predict_step(predicted_card("A100"), 9e-4, 2048, 64), predict_graph(predicted_card("A100"), 2048, 64)
    texts = [text for t in times for text in (span(t, 1e-6), span(t.gain_over(5e-4)) + "x")]
    assert " ".join(["A100", *texts]).split() in [line.split() for line in out.splitlines()] and "https://" in out
    with pytest.raises(ValueError, match="no prediction for 'H900'; there are: T4, P100"):
        lab.run_predict("H900")
    with pytest.raises(ValueError, match="hidden is 0"):
        lab.run_predict(hidden=0)
