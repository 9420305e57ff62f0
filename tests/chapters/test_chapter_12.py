"""The room of chapter 12: what a step's launches take, the table of other libraries, what exercise 12.2 is tried on."""

import random

import pytest
import torch
from test_compiled_epoch import steps_of  # noqa: F401 - a fixture

from mnist_gpu.chapters import chapter_12 as lab
from mnist_gpu.measuring.results import Results, Timed


def timed(name, seconds=1.0, first_use=None, **proof):
    section = "peers" if "test_loss" in proof else "ladder"
    return Timed(section, name, "cpu", 1, [seconds] * 10, {}, {"images": 60_000}, first_use, proof)


def test_launches_are_of_steps_with_one_image_and_one_hidden_unit(monkeypatch, steps_of):  # noqa: F811
    ran = []
    monkeypatch.setattr(lab, "measure", lambda function: ran.append(function()) or type("", (), {"median": 64.0}))
    rungs = {"no wait per step": "torch.mm, weights [H, 784]", "backward written out": "torch.mm, weights [H, 784]"}
    rungs |= {"compiled epoch": "oneDNN, weights [H, 784]"}
    measured = [timed(name, products=products) for name, products in rungs.items()]
    assert [lab.launches(rung) for rung in measured] == [1.0] * 3
    assert [len(losses) for losses in ran] == [64] * 3 and steps_of == [(16, 4, 1)]
    assert [lab.products_of(timed(name)) for name in list(rungs)[:2]] == list(rungs.values())[:2]
    assert lab.products_of(measured[2]) == rungs["compiled epoch"]
    assert lab.products_of(timed("written out, oneDNN")) == "oneDNN, weights [H, 784]"


@pytest.mark.parametrize(("by", "names"), [("s per epoch", "JAX plain fastai"), ("lines", "fastai JAX plain")])
def test_a_table_of_other_libraries_is_in_the_order_of_a_column(monkeypatch, capsys, by, names):
    peers = [("plain loop", 1.0, None, 30), ("JAX", 0.5, 4.5, 20), ("fastai", 2.0, None, 10)]
    measured = [timed(*one, test_loss=0.25, lines_of_code=lines) for *one, lines in peers]
    there = Results({"cpu_name": "AMD EPYC"}, measured, "2026-01-31")
    monkeypatch.setattr(lab, "recorded", lambda: [there, Results({}, [], "2026-01-31")])
    lab.libraries(by)
    head, _, _, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head[:2] == ["AMD", "EPYC,"] and [row[0] for row in rows] == names.split()
    said = {row[0]: row[1:] for row in rows}
    assert said["JAX"] == ["0.500", "2.00x", "4.0", "s", "0.250", "20"]
    assert said["plain"][2] == "-" and said["fastai"][1] == "0.500x"


def test_no_limit_in_float32_tells_rounding_from_a_fault_and_every_one_in_float64_does():
    random.seed(0)
    torch.default_generator.manual_seed(0)
    for i, pair in enumerate(lab.pairs()):
        single, double = (lab.apart(*pair, dtype) for dtype in (torch.float32, torch.float64))
        assert double > 1e-5 if i % 2 else double < 1e-12  # the fault is the second of each two
        assert single > 1e-3
