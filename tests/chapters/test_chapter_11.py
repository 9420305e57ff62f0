"""Chapter 11: several processes and one of them, in turn, and a training that goes on after a worker's death."""

import sys

import pytest
import torch

from mnist_gpu.chapters import chapter_11 as lab
from mnist_gpu.faster.distributed import Group


@pytest.mark.parametrize("rank", [0, 1])
def test_all_wait_before_each_of_the_turns_and_the_first_rank_only_makes_the_steps_of_one(monkeypatch, rank):
    turns = []

    def step(name):
        return lambda *training: lambda images, labels: turns.append(f"{name}{len(images)}")

    monkeypatch.setattr(Group, "wrap", lambda self, model: model)
    monkeypatch.setattr(lab.dist, "barrier", lambda: turns.append("|"))
    monkeypatch.setattr(lab.dist, "all_reduce", lambda numbers: turns.append("sent"))
    monkeypatch.setattr(lab, "make_step", step("one"))
    monkeypatch.setattr(lab, "make_distributed_step", step("all"))
    monkeypatch.setattr(lab, "alternate", lambda sides: {name: side() or [6.0, 3.0] for name, side in sides.items()})
    found = lab.measure(Group(rank, 2, torch.device("cpu")), (6,), 8, often=2)
    one3, one6 = (f"one{n} " * 2 * (rank == 0) for n in (3, 6))
    steps = f"| {one3}| all3 all3 | {one6}| all6 all6 " + "| sent sent " * 4
    assert turns == steps.split()
    assert all(seconds == [3.0, 1.5] for seconds in found.values())  # of one of two


def test_two_and_three_processes_measure_themselves():
    found = lab.measured((2, 3), (12,), 8)
    assert [*found] == [2, 3]
    for n, seconds in found.items():
        assert [*seconds][:4] == [(who, images) for images in (12 // n, 12) for who in ("one", "all")]
        assert all(len(each) == 10 and min(each) > 0 for each in seconds.values())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal that kills")
def test_a_training_goes_on_after_a_worker_was_killed_to_the_weights_of_the_other(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ["--device", "cpu", "--epochs", 3, "--batch-size", 512, "--save", "model.pt"]
    command = lab.torchrun(2, "-m", "mnist_gpu", "train", *options, "--resume", "model.pt", restarts=1)
    killed = lab.weights_after(command, kill=True)
    said = capsys.readouterr().out
    assert "killed" in said and "Resumed model.pt after epoch " in said and "Finished Training" in said
    whole = lab.weights_after(command)
    assert "Resumed" not in capsys.readouterr().out
    assert killed.keys() == whole.keys() and all(torch.equal(killed[name], whole[name]) for name in killed)
