"""Chapter 05's room: the map of steps, the model of its times, and predictions for cards that are not here."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_05 as lab
from mnist_gpu.chapters.chapter_05 import exercises
from mnist_gpu.measuring import prediction, workloads
from mnist_gpu.measuring.drawing import span
from mnist_gpu.measuring.exercises import RIGHT, UNDECIDED, judge
from mnist_gpu.measuring.prediction import Limits, Range, predict_graph, predict_step, predictable, predicted_card
from mnist_gpu.measuring.results import Results, Timed
from mnist_gpu.model import step_bytes, step_flops

CPU, GPU, INF = torch.device("cpu"), torch.device("cuda"), float("inf")
NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "05_cpu_versus_gpu.ipynb"
ONE, TWO = "CPU with 1 thread", "CPU with 2 threads"


@pytest.fixture(autouse=True)
def nothing_is_shown(monkeypatch):
    """Figures stay open, to be looked at."""
    monkeypatch.setattr(workloads, "usable_cpus", lambda: 2)
    monkeypatch.setattr(plt, "show", lambda: None)
    yield
    plt.close("all")


def model(limits, batch_size, hidden):
    """Another way to the notebook's."""
    return sum(limits.of_step(batch_size, hidden).values())


def step(batch_size, hidden, seconds, threads=1, device="cpu"):
    return Timed("crossover", "step", device, threads, seconds, {"batch_size": batch_size, "hidden": hidden})


def of(section, name, device, seconds, work=(), **parameters):
    return Timed(section, name, device, 1, [seconds] * 10, parameters, dict(work))


def cell_texts():
    return [t.get_text() for t in plt.gcf().axes[0].texts]


@pytest.fixture
def machine(monkeypatch):
    """A recorded computer with a T4, which is all that is recorded."""
    sides = (("cpu", 1, 4e-4), ("cpu", 2, 3e-4), ("cuda", 1, 1e-4))
    measured = [
        *(step(b, w, [b * w * t] * 10, n, on) for b in (64, 128) for w in (32, 128) for on, n, t in sides),
        of("ceilings", "launch", "cuda", 5e-6, size=8),
        of("ceilings", "matrix product", "cuda", 2e-3, {"flop": 10}, size=8),
        of("ladder", "textbook", "cuda", 2.0, {"images": 60_000}, hidden=128),
        of("ladder", "tensors in memory", "cuda", 0.5, {"images": 60_000}, hidden=128),
    ]
    found = Results({"device_name": "Tesla T4", "cpu_name": "Some CPU"}, measured, "2026-02-28")
    monkeypatch.setattr(lab, "recorded", lambda unlike=None: [found])


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


def test_a_training_is_a_hundred_steps_with_its_threads(monkeypatch):
    threads, make_step = [], lab.make_step
    monkeypatch.setattr(lab, "make_step", lambda *a: threads.append(torch.get_num_threads()) or make_step(*a))
    first, again = (lab.training(CPU, 2)().losses for _ in range(2))
    assert len(first) == 100 and first == again and threads == [2, 2] and torch.get_num_threads() == 1


def test_a_program_is_started_anew_each_time():
    program = "import os\nprint('loading')\nprint(os.getpid(), 0.5)"
    (a, half), (b, _) = lab.fresh_starts(program, times=2)
    assert a != b and half == 0.5
    with pytest.raises(RuntimeError, match="no such thing"):
        lab.fresh_starts("raise SystemExit('no such thing')")


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
    says = lab.ratio_map(measured, slow, "it").says
    assert cell_texts() == [measured[0].times, measured[1].times, f"({measured[2].times})"]
    assert "3 cells" in says and "faster in 1, slower in 1, neither in 1" in says
    assert f"{measured[0].times} times as fast, with 1 images at width 1" in says
    four = [step(b, w, [1.0]) for b in (1, 2) for w in (1, 2)]
    axes, says = lab.ratio_map([Range(0.8, 1.5), Range(2.0, 5.31), Range(0.2, 0.5), Range(120.0, 480.0)], four, "")
    assert cell_texts() == ["(0.8 to 1.5)", "2 to 5.3", "0.2 to 0.5", "120 to 480"]
    assert axes.images[0].get_array()[0, 0] == 0 > axes.images[0].get_array()[1, 0]
    assert "faster in 2, slower in 1, neither in 1" in says and "120 to 480 times" in says
    lab.ratio_map([1.5, 0.25, 1.0, 1.0], four, "")
    assert cell_texts() == ["1.5", "0.25", "1", "1"]


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
    assert lab.off_by(model, limits[ONE], steps[:3]) == "off by a factor of 2.00 (median) and at most 4.0"
    lab.judge_model(model, limits, steps)
    out = capsys.readouterr().out
    assert f"{TWO}: " in out and "factor of 1.50 (median) and at most 4.0" in out
    # Of three cells the second wins two; the model names it everywhere.
    assert "Of the 3 cells" in out and "the right one in 2;" in out and "would get 2." in out
    assert "no crossover" not in out
    lab.judge_model(model, {TWO: limits[TWO], ONE: limits[ONE]}, steps)
    assert "would get 2." in capsys.readouterr().out
    lab.judge_model(model, {ONE: limits[ONE]}, steps)
    assert "Of the 0 cells" in capsys.readouterr().out


def test_the_recorded_cpu_is_predicted_from_its_limits(capsys):
    """Sixteen steps from 32 images at width 32 to 2048 at 2048, whose times differ by a factor of hundreds."""
    lab.judge_recorded(model)
    lines = [line for line in capsys.readouterr().out.splitlines() if "AMD EPYC, CPU" in line]
    assert len(lines) >= 2 and all(float(line.split()[-1]) < 1.6 for line in lines)


def test_a_recorded_machine_has_limits_if_each_of_them_is_recorded():
    every = [of("account", "smallest network", "cpu", 2.0)]
    every += [of("ceilings", "matrix product", "cpu", 2.0, {"flop": f}, size=f) for f in (10.0, 8.0)]
    # A small copy stays in the cache.
    every += [of("ceilings", "copy", "cpu", 2.0, {"bytes": b}, mebibytes=m) for b, m in ((60.0, 1), (30.0, 256))]
    assert lab.recorded_limits(Results({}, every, ""), "cpu", 1) == Limits(2.0, 5.0, 15.0)
    for part in (every[1:], [every[0], *every[3:]], every[:3]):
        assert lab.recorded_limits(Results({}, part, ""), "cpu", 1) is None


def test_what_a_recorded_gpu_gave_is_shown_and_without_one_nothing_is_said(machine, monkeypatch, capsys):
    lab.recorded_launches(CPU)
    assert "not waiting 5 µs, waiting 2000 µs" in capsys.readouterr().out
    lab.recorded_pipelines(CPU)
    assert "textbook 30,000 images/s, tensors in memory 120,000" in capsys.readouterr().out
    assert len(plt.gca().patches) == 2
    lab.recorded_maps(CPU)
    out = capsys.readouterr().out
    assert "Tesla T4 against Some CPU, CPU with 2 threads" in out and "faster in 4" in out
    assert cell_texts() == ["3.00"] * 4
    monkeypatch.setattr(lab, "recorded", lambda unlike=None: [])
    for show in (lab.recorded_launches, lab.recorded_pipelines, lab.recorded_maps):
        show(CPU)
    assert capsys.readouterr().out == ""


def test_a_card_pays_from_where_on_every_larger_size_gains(capsys):
    assert [lab.pays_from(gains, [1, 2, 3]) for gains in ((2, 3, 4), (2, 0.9, 2), (0.5, 1, 1))] == [1, 3, None]
    steps = [step(b, w, [s]) for b, w, s in ((32, 32, 1e-6), (32, 64, 1.0), (64, 32, 3.2e-4), (64, 64, 1.0))]
    gains = lab.gains_of("T4", 3e-4, steps)
    expected = predict_step(predicted_card("T4"), 3e-4, 64, 32)
    assert gains[2] == Range(3.2e-4 / expected.high, 3.2e-4 / expected.low) and 1 in gains[2]
    lab.predicted_map("T4", 3e-4, steps, "it")
    out = capsys.readouterr().out
    assert "width 32: pays perhaps from 64 images on" in out and "width 64: pays surely from 32 images on" in out
    assert f"({span(gains[2])})" in cell_texts() and "launching on this CPU 300 µs" in out
    lab.predicted_map("T4", 3e-4, steps[:1], "it")
    assert "width 32: pays at none" in capsys.readouterr().out
    rows = lab.predicted_maps(3e-4, steps).splitlines()[2:]
    assert [row[:9].strip() for row in rows] == predictable() and rows[0].split()[1:4] == ["2", "1", "1"]


def test_a_table_of_predictions_has_what_they_say():
    card, launch, here = predicted_card("T4"), 3e-4, 9e-4
    times = predict_step(card, launch), predict_graph(card)
    texts = [text for t in times for text in (span(t, 1e-6), span(t.gain_over(here)) + "x")]
    row = lab.predicted_steps(["T4"], launch, here).splitlines()[2]
    assert row.split() == ["T4", *" ".join(texts).split()]
    assert "ranges overlap" in lab.predicted_steps(["T4", "H100"], launch, here)
    assert "they differ" in lab.predicted_steps(["T4", "H100"], launch, here, 2048, 2048)


def test_a_prediction_stands_beside_what_was_recorded_since(machine, monkeypatch, capsys):
    sizes = {"batch_size": 128, "hidden": 128}
    written = [prediction.Predicted("T4", "crossover", "step", sizes, Range(1.0, 4.0))]
    written += [prediction.Predicted("T4", "ladder", "textbook", {"hidden": 128}, Range(5.0, 6.0))]
    monkeypatch.setattr(prediction, "written_down", lambda: ("with the CPU X (2026-01-31)", written))
    lab.outcomes()
    count, _, _, first, second, said = capsys.readouterr().out.splitlines()
    assert "2 predictions" in count and "2026-01-31" in count
    assert " ".join(first.split()).endswith("hidden 128 1,000,000 to 4,000,000 µs 1,638,400 0.82x yes")
    assert " ".join(second.split()) == "T4: textbook, hidden 128 5 to 6 s 2 0.37x NO" and "1 of 2" in said
    monkeypatch.setattr(lab, "recorded", lambda: [])
    lab.outcomes()
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_command_predicts_every_card_or_one(monkeypatch, capsys):
    monkeypatch.setattr(lab, "step_here", lambda batch, hidden: {1: 9e-4, 2: 5e-4})
    assert lab.run_predict() == 0
    out = capsys.readouterr().out
    assert [line[:9].strip() for line in out.splitlines() if line.endswith("x")] == predictable()
    assert "900 µs with 1 thread, 500 µs with 2 threads" in out and "as its 500 µs" in out and "https://" not in out
    lab.run_predict("A100", 2048, 2048)
    out = capsys.readouterr().out
    assert span(predict_step(predicted_card("A100"), 9e-4, 2048, 2048), 1e-6) in out and "https://" in out
    with pytest.raises(ValueError, match="no prediction for 'H900'; there are: T4, P100"):
        lab.run_predict("H900")
    with pytest.raises(ValueError, match="hidden is 0"):
        lab.run_predict(hidden=0)


def test_a_step_here_is_measured_with_one_thread_and_with_all(monkeypatch):
    threads = set()
    monkeypatch.setattr(lab, "training_step", lambda *size: lambda: threads.add(torch.get_num_threads()))
    assert lab.step_here(4, 2).keys() == threads == {1, 2} and torch.get_num_threads() == 1


def noisy(sides, **options):
    """Two threads are surely faster at width 512 alone; elsewhere by ratios that spread far, as on a busy machine."""
    return {(w, n): [1.0] * 10 if n == 1 else [0.5] * 10 if w == 512 else [0.9, 0.4] * 5 for w, n in sides}


@pytest.mark.parametrize(("answer", "cpus"), [(32, 1), (128, 2), (32, 2)])
def test_where_the_machine_cannot_tell_no_answer_is_wrong(monkeypatch, answer, cpus):
    monkeypatch.setattr(exercises, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(exercises, "alternate", noisy)
    (threads_pay,) = [e for e in lab.EXERCISES if e.name == "05.3"]
    found = judge(threads_pay, answer)
    assert found.status == UNDECIDED and ("one usable CPU" in found.text) == (cpus == 1)
    monkeypatch.setattr(exercises, "usable_cpus", lambda: 2)
    assert "width 512, below the answer" in judge(threads_pay, "never").text
    assert judge(threads_pay, 512).status == RIGHT


def test_what_a_second_measurement_does_not_show_again_is_held_against_no_answer(monkeypatch):
    seen = iter([0.5, 1.0] * 2)  # of two threads, at every width: once half the time, a moment later no less
    monkeypatch.setattr(exercises, "usable_cpus", lambda: 2)

    def measured(sides, **options):
        faster = next(seen)
        return {(width, n): [1.0 if n == 1 else faster] * 10 for width, n in sides}

    monkeypatch.setattr(exercises, "alternate", measured)
    (threads_pay,) = [e for e in lab.EXERCISES if e.name == "05.3"]
    assert judge(threads_pay, 512).status == judge(threads_pay, "never").status == UNDECIDED
