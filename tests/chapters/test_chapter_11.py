"""Chapter 11: several processes and one of them, in turn, and a training that goes on after a worker's death."""

import subprocess
import sys

import pytest
import torch

from mnist_gpu.chapters import chapter_11 as lab
from mnist_gpu.faster.distributed import Group
from mnist_gpu.measuring.commands import run_command
from mnist_gpu.model import parameter_count


@pytest.mark.parametrize("rank", [0, 1])
def test_all_wait_before_each_of_the_turns_and_the_first_rank_only_makes_the_steps_of_one(monkeypatch, rank):
    turns = []

    def step(name):
        return lambda *training: lambda images, labels: turns.append(f"{name}{len(images)}")

    def in_order(sides):
        for side in sides.values():
            side()
        return {name: [6.0, 3.0] for name in sides}

    monkeypatch.setattr(Group, "wrap", lambda self, model: model)
    monkeypatch.setattr(lab.dist, "barrier", lambda: turns.append("|"))
    monkeypatch.setattr(lab.dist, "all_reduce", lambda numbers: turns.append(f"sent{4 * len(numbers)}"))
    monkeypatch.setattr(lab, "make_step", step("one"))
    monkeypatch.setattr(lab, "make_distributed_step", step("all"))
    monkeypatch.setattr(lab, "alternate", in_order)
    found = lab.measure(Group(rank, 2, torch.device("cpu")), (6,), 8, often=3)
    one = [[f"one{n}"] * 3 * (rank == 0) for n in (3, 6)]
    sent = [[f"sent{size}"] * 3 for size in (4096, 4 * parameter_count(8), 2**21, 2**22)]
    expected = [one[0], ["all3"] * 3, one[1], ["all6"] * 3, *sent]
    assert turns == [turn for side in expected for turn in ("|", *side)]
    assert [*found] == [("one", 3), ("all", 3), ("one", 6), ("all", 6), *(("sent", int(s[0][4:])) for s in sent)]
    assert all(seconds == [2.0, 1.0] for seconds in found.values())  # of one of three


@pytest.fixture
def busy():
    """Somebody else keeps two CPUs busy."""
    forever = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for process in forever:
        process.kill()
        process.wait()


def test_three_processes_and_two_of_them_measure_themselves_in_one_run_on_a_busy_machine(busy):
    found = lab.measured((2, 3), (12,), 8)
    assert [*found] == [2, 3]
    for n, seconds in found.items():
        assert [key for key in seconds if key[0] != "sent"] == [
            (who, i) for i in (12 // n, 12) for who in ("one", "all")
        ]
        assert all(len(each) == 10 and min(each) > 0 for each in seconds.values())


def test_the_reason_of_a_worker_is_not_hidden_behind_torchruns_report():
    with pytest.raises(RuntimeError) as caught:
        run_command(lab.torchrun(1, "--no-python", sys.executable, "-c", "raise ValueError('the reason')"))
    assert "ended with status 1:" in str(caught.value) and str(caught.value).endswith("ValueError: the reason")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal that kills")
def test_a_training_goes_on_after_a_worker_was_killed_to_the_weights_of_the_other(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    training = (
        "-m mnist_gpu train --device cpu --epochs 3 --batch-size 512 --save model.pt --every-epoch --resume model.pt"
    )
    command = lab.torchrun(2, *training.split(), restarts=1)
    killed = lab.weights_after(command, kill=True)
    said = capsys.readouterr().out
    assert "killed" in said and "Resumed model.pt after epoch " in said and "Finished Training" in said
    whole = lab.weights_after(command)
    assert "Resumed" not in capsys.readouterr().out
    assert killed.keys() == whole.keys() and all(torch.equal(killed[name], whole[name]) for name in killed)
