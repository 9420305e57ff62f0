"""Chapter 06's room: its measurements, what is made of them, its figures, and what is read from a profile."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mnist_gpu.chapters import chapter_06 as lab
from mnist_gpu.measuring.drawing import CAUSES

CPU = torch.device("cpu")
SECONDS = {  # launching takes 2, updating 1, and computing 0.5 per image
    "whole, textbook": 80.0, "whole, device": 67.25, "load, textbook": 10.0, "load, device": 0.25, "copy": 0.1,
    "step, waiting": 67.3, "step": 67.0, "smallest network": 2.0, "load, textbook, with steps": 79.3,
    "load, device, with steps": 67.0,
}  # fmt: skip


def test_every_part_of_the_account_is_done_as_often_as_there_are_steps(monkeypatch):
    done = []

    class Batches(list):
        def __iter__(self):
            return (done.append("load") or batch for batch in super().__iter__())

    def once(sides, **options):
        for name, function in sides.items():
            done.clear()
            function()
            yield name, [6.0 + done.count("load"), 6.0 + done.count("step"), 6.0 + done.count("wait")]

    batch, loss = (torch.zeros(128), torch.zeros(128)), SimpleNamespace(item=lambda: done.append("wait"))
    monkeypatch.setattr(lab, "make_batches", lambda kind, device="cpu": Batches([batch] * 9))
    monkeypatch.setattr(lab, "training_step", lambda device, n, hidden: lambda: done.append("step") or loss)
    for name in ("textbook", "plain", "train_part"):
        monkeypatch.setattr(lab, name, lambda *given: None)
    monkeypatch.setattr(lab, "in_turn", once)
    found = {m.name: m for m in lab.measure_account(CPU, sizes=(3,), steps=4)}
    every = {
        "load, textbook": (4, 0, 0), "load, device": (4, 0, 0), "load, textbook, with steps": (4, 4, 4),
        "load, device, with steps": (4, 4, 0), "copy": (0, 0, 0), "step, waiting": (0, 4, 4), "step": (0, 4, 0),
        "smallest network": (0, 4, 0), "step of 3": (0, 4, 0),
    }  # fmt: skip
    assert {name: tuple(4 * s - 6 for s in m.seconds) for name, m in found.items() if "whole" not in name} == every
    assert [tuple(found[n].parameters.values()) for n in [*every][-3:]] == [(128, 128), (1, 1), (3, 128)]


@pytest.mark.parametrize("gpu_too", [False, pytest.param(True, marks=pytest.mark.gpu)])
def test_every_part_is_measured(gpu_too, request):
    device = request.getfixturevalue("gpu") if gpu_too else CPU
    found = list(lab.measure_account(device, steps=2))
    assert {m.name for m in found} >= {n for n in SECONDS if not (gpu_too and "with steps" in n)}
    assert all(len(m.seconds) == 10 and min(m.seconds) > 0 and m.device == device.type for m in found)


def test_a_step_is_made_of_its_causes_and_none_of_them_is_below_zero():
    notebook = Path(__file__).resolve().parents[2] / "notebooks" / "06_where_the_time_goes.ipynb"
    cells = ["".join(c["source"]) for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"]]
    (definition,) = [c.split("\n\n\n")[0] for c in cells if c.startswith("def parts_of(")]
    exec(definition, names := {})
    parts_of = names["parts_of"]
    found = parts_of(SECONDS, 3.0, 0.5, "textbook")
    expected = {
        "loading": 10, "loading: slows the step": 2, "copying": 0.1, "launches": 2, "bytes": 1, "operations": 64,
        "waiting": 0.3,
    }  # fmt: skip
    assert found == pytest.approx(expected)
    on_device = expected | {"loading": 0.25, "loading: slows the step": 0, "copying": 0, "waiting": 0}
    assert parts_of(SECONDS, 3.0, 0.5, "device") == pytest.approx(on_device)
    on_gpu = {name: s for name, s in SECONDS.items() if "with steps" not in name}
    assert parts_of(on_gpu, 3.0, 0.5, "textbook") == pytest.approx(expected | {"loading: slows the step": 0})
    assert min(parts_of(SECONDS | {"step, waiting": 1.0}, 0.0, 0.5, "textbook").values()) == 0.0  # noise, no gain


def test_an_account_names_what_it_leaves_and_the_parts_that_are_smaller():
    parts = {"loading": 60e-6, "launches": 2e-6, "waiting": 0.0, "operations": 30e-6}
    for whole, off, smaller in (
        (100e-6, "8 μs are not explained", "launches"), (93e-6, "1 μs are", "no part"),
        (80e-6, "sum to 12 μs more", "launches"), (2e-4, "108 μs are", "loading, launches, operations"),
    ):  # fmt: skip
        said = lab.verdict("a", parts, whole)
        assert off in said and said.endswith(f": {smaller}.")
    axes, says = lab.account_bars({"textbook": (parts, 100e-6), "device": ({"operations": 9e-6}, 10e-6)})
    assert {t.get_text() for t in axes.texts} >= {"60 %", "30 %", "90 %", "8 %", "10 %"}
    assert "textbook: 100 μs; 8 μs are not explained" in says and "device: 10 μs; 1 μs are not" in says


def test_a_point_lies_under_the_roofs_and_the_regions_are_named():
    points = [("layer", 1, 1e9, 1e9, 0.1), ("layer", 128, 100e9, 1e9, 2.0), ("ReLU", 128, 1e9, 8e9, 5.0)]
    axes, says = lab.roofline(points, 100e9, 20e9, 50e9)
    lines = {line.get_label(): line.get_data() for line in axes.lines}
    assert [*map(list, lines["layer"])] == [[1, 100], pytest.approx([10, 50])]
    for (xs, ys), ridge, slope in ((lines["memory"], 5, 20), (lines["caches"], 2, 50)):
        assert xs[1] == ridge and ys[1:] == pytest.approx([100, 100]) and ys[0] == pytest.approx(slope * xs[0])
    assert {"layer", "ReLU", "bytes are the limit", "operations are the limit"} <= {t.get_text() for t in axes.texts}
    assert "5.0 operations per byte" in says and "1 of 3 points" in says


def test_a_timeline_begins_with_a_step_has_a_row_for_each_thread_and_leaves_out_the_profilers_own_events(monkeypatch):
    def event(name, start, end, device="CPU", parent=None, thread=1):
        times, kind = SimpleNamespace(start=start, end=end), SimpleNamespace(name=device)
        return SimpleNamespace(name=name, time_range=times, device_type=kind, cpu_parent=parent, thread=thread)

    step, linear = event("step 0", 10, 90), event("aten::linear", 12, 30)
    linear.cpu_parent = step
    events = [
        event("aten::relu", 1, 5), step, event("step 0", 15, 95, device="CUDA"), event("Buffer Flush", 11, 2000),
        linear, event("aten::addmm", 14, 28, parent=linear), event("aten::mm", 40, 60, thread=2),
        event("a kernel", 50, 70, device="CUDA"),
    ]  # fmt: skip
    watched, drawn = SimpleNamespace(events=lambda: events), []
    monkeypatch.setattr(lab.drawing, "timeline", lambda *given, **options: drawn.append((*given, options)) or (0, ""))
    assert "20 of 58" in lab.timeline(watched, "step 0").says
    (events, options), asked, work = *drawn, CAUSES["launches"], CAUSES["operations"]
    assert [(row, name, depth, options["colors"][name]) for row, name, _, _, depth in events] == [
        ("CPU", "aten::linear", 0, asked), ("CPU", "aten::addmm", 1, asked),
        ("CPU, backward", "aten::mm", 0, asked), ("CUDA", "a kernel", 0, work),
    ]  # fmt: skip
