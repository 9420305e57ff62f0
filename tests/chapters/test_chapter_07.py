"""The room of chapter 07: its section, its figure, the graph that a cell makes by hand, and an exercise's score."""

from pathlib import Path

import nbformat
import pytest
import torch
from agreement import assert_same_losses
from PIL import Image

from mnist_gpu.chapters import chapter_07 as lab
from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import ladder
from mnist_gpu.faster.ladder import ALL_THREADS, PLAIN, RUNGS, TEXTBOOK, WIDE, plain
from mnist_gpu.measuring.exercises import UNDECIDED, WRONG, judge
from mnist_gpu.measuring.prediction import Range
from mnist_gpu.measuring.results import Results, Timed
from mnist_gpu.measuring.workloads import train_part

CPU = torch.device("cpu")
MM, ONEDNN = lab.climb.FLOORS
EPYC = {"device": "cpu", "cpu_name": "AMD EPYC", "device_name": "AMD EPYC", "load_average": 0.1}
NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "07_the_speed_ladder.ipynb"


def timed(name, seconds, device="cpu", threads=1, parameters=None, **proof):
    work, sizes = {"images": 60_000, "steps": 10}, parameters or {"hidden": 128}
    return Timed("ladder", name, device, threads, [seconds] * 10, sizes, work, 9.0, proof)


def machine(*measured, name="AMD EPYC", load=0.1):
    return Results(EPYC | {"device_name": name, "load_average": load}, list(measured), "2026-01-31")


def test_the_ladder_is_measured_with_all_threads_too_and_on_a_wide_network(monkeypatch):
    asked = []
    monkeypatch.setattr(lab.climb, "measure_ladder", lambda device, **options: asked.append(options) or [])
    first, every = {"steps": 7, "rounds": 3}, {"names": ALL_THREADS, "threads": 8, "steps": 7, "rounds": 3}
    wide = {"names": WIDE, "hidden": 2048, "steps": 50, "floor": False, "rounds": 3}
    alone = [first, wide]
    for device, cpus, expected in (("cpu", 8, [first, every, wide]), ("cpu", 1, alone), ("cuda", 8, alone)):
        asked.clear()
        monkeypatch.setattr(lab, "usable_cpus", lambda cpus=cpus: cpus)
        assert list(lab.all_ladders(torch.device(device), steps=7, rounds=3)) == [] and asked == expected


def test_rungs_are_compared_with_the_textbook_and_the_floor_with_the_plain_loop_and_the_fastest():
    times = {TEXTBOOK: 9.0, PLAIN: 3.0, "bfloat16 autocast": 0.5, "compiled epoch": 1.5, MM: 1.2, ONEDNN: 1.0}
    wide = [timed(name, 3.0 / i, parameters={"hidden": 2048}) for i, name in enumerate(WIDE, start=1)]
    said = lab.summary(machine(*(timed(*one) for one in times.items()), *wide), "cpu")
    assert [line.split(" is ")[1][:4] for line in said[:4]] == ["3.00", "18.0", "6.00", "9.00"]  # over the textbook
    assert f"{ONEDNN} is 3.00 times as fast as {PLAIN}" in said[4]
    assert f"{ONEDNN} is 1.50 times as fast as compiled epoch" in said[5]  # bfloat16 has another floor
    assert [line.split(" is ")[1][:4] for line in said[6:]] == ["2.00"] and "2048" in said[6]
    assert [c.names for c in lab.against_base(wide)] == [WIDE]
    assert lab.summary(machine(timed(PLAIN, 2.0), timed("fused optimizer", 1.0)), "cpu") == []


def test_a_gpu_through_webgpu_is_compared_with_the_cpu_and_drawn_by_its_name():
    names = [rung.name for rung in RUNGS if rung.hardware == "webgpu"]
    there = [timed(name, s, "webgpu", hardware="Iris Xe") for name, s in zip(names, (4.5, 0.9), strict=True)]
    found = machine(timed(TEXTBOOK, 9.0), timed(PLAIN, 2.25), *there)
    said = lab.summary(found, "webgpu")
    assert len(said) == 4 and "epoch is 10.0 times as fast as textbook" in said[1] and "2.00" in said[2]
    axes, says = lab.ladder_figure([], found)
    rows = [text.get_text() for text in axes.get_yticklabels()]
    assert {TEXTBOOK, PLAIN, *names} < {*rows} and "Iris Xe" in says and "an epoch 0.900 s, x 10.0" in says


def test_the_figure_has_a_row_a_rung_and_few_rungs_of_others_and_no_unknown_ones(monkeypatch):
    predicted = {TEXTBOOK: Range(5.0, 6.0), lab.LAST: Range(0.02, 0.1)}
    monkeypatch.setattr(lab, "predicted_ladders", lambda machines: [("T4", predicted)])
    names = ("pinned memory", TEXTBOOK, "two workers", "fused optimizer", "compiled epoch", MM)
    every = [timed(*one) for one in zip(names, (1.9, 2.0, 2.0, 0.5, 0.25, 0.2), strict=True)]
    axes, says = lab.ladder_figure([], machine(*every, timed(TEXTBOOK, 1.5, threads=2)))
    rows = [text.get_text() for text in axes.get_yticklabels()]
    assert rows == [TEXTBOOK, "two workers", "fused optimizer", lab.LAST, "compiled epoch", lab.FLOOR]
    assert "two workers 2.00 s; " in says and says.count("(seconds per epoch).") == 2
    assert "compiled epoch 0.250 s, x 8.00" in says  # no difference, no ratio
    assert f"{lab.LAST} 0.02 to 0.1 s, x 55 to 270" in says
    assert "2 threads" not in says and "pinned" not in says
    both = machine(*every, timed(TEXTBOOK, 1.5, threads=2), timed(TEXTBOOK, 1.0, "cuda"), name="NVIDIA T4", load=0.6)
    says = lab.ladder_figure([both]).says  # one thread is no fair opponent of a GPU
    assert says.count("at a load of 0.6") == 3 and "2 threads" in says and "fused" not in says


def test_the_figure_is_drawn_from_recorded_files_alone_and_always_the_same(tmp_path, monkeypatch):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    assert [lab.draw_ladder(file) for file in files] == [0, 0]
    first, second = (file.read_bytes() for file in files)
    says = Image.open(files[0]).text["Description"]  # for whoever cannot see it
    assert first == second and "textbook" in says and "CUDA graph of an epoch" in says
    monkeypatch.setattr(lab, "recorded", lambda: [])
    with pytest.raises(ValueError, match="recorded"):
        lab.draw_ladder(files[0])
    assert files[0].read_bytes() == first and sorted(tmp_path.iterdir()) == files


def test_the_readme_says_what_its_figure_shows_to_whoever_cannot_see_it():
    with Image.open(lab.REFERENCE / "ladder.png") as figure:
        says = " ".join(figure.text["Description"].split())
    assert f"![{says}](data/reference/ladder.png)" in (NOTEBOOK.parents[1] / "README.md").read_text("utf-8")


def test_the_graph_that_a_cell_makes_by_hand_is_the_same_training(monkeypatch, mnist, cuda_graphs):
    few = mnist[0][:640], mnist[1][:640]
    monkeypatch.setattr(ladder, "make_batches", lambda kind, device: DeviceBatches(*few, device=device))
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, 4).cells}
    made = {"torch": torch, "climb": type("Climb", (), {"show": lambda *_: None}), **vars(ladder)}
    exec(cells["07-by-hand"], made)
    exec(cells["07-graphs"], made)
    training = made["graph_of_a_step"](CPU, 16)
    assert_same_losses(train_part(training).losses, train_part(plain(CPU, 16)).losses)
    assert cuda_graphs.replays == 5 and len(cuda_graphs.recorded_in) == 1


def test_a_rung_of_ones_own_is_scored_by_its_distance_to_the_floor_and_may_claim_nothing(monkeypatch):
    monkeypatch.setattr(lab, "same_training", lambda answer: "")
    (exercise,) = (e for e in lab.EXERCISES if e.name == "07.1")
    for mine, expected in (([1.5] * 10, "Score: 1.50"), ([1.5, 4.5] * 5, UNDECIDED), ([5.0] * 10, WRONG)):
        times = {lab.THEIRS: [3.0] * 10, lab.YOURS: mine, MM: [1.0] * 10, ONEDNN: [2.0] * 10}
        monkeypatch.setattr(lab, "alternate", lambda sides, times=times, **options: times)
        found = judge(exercise, lambda device, hidden: plain(device, hidden))
        assert expected in (found.status, *found.text.partition("Score: 1.50"))
