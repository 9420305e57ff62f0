"""Chapter 11: several processes and one of them alone, in turn, and what is said of them."""

import subprocess
import sys
from functools import partial

import pytest
import torch

from mnist_gpu.chapters import chapter_11 as lab
from mnist_gpu.faster.distributed import Group
from mnist_gpu.measuring.commands import run_command


def test_the_ranks_wait_for_one_another_before_each_of_the_sides_which_take_turns(monkeypatch):
    turns, clock = [], [0.0]

    def side(name, seconds):
        def run():
            turns.append(name)
            clock[0] += seconds

        return run

    short, long = side("s", 0.01), side("l", 1.0)
    monkeypatch.setattr(lab.dist, "barrier", side("|", 0.5))
    monkeypatch.setattr(lab, "alternate", partial(lab.alternate, clock=lambda: clock[0]))
    monkeypatch.setattr(lab, "seconds_of", lambda function, device: 0.011 if function is short else 1.0)
    found = lab.together({"short": short, "long": long}, Group(0, 1, torch.device("cpu")), rounds=2)
    assert found == {"short": pytest.approx([0.01] * 2), "long": pytest.approx([1.0] * 2)}
    assert "".join(turns).endswith("|ss|l|ss|l")


def test_the_sides_have_their_parts_of_the_batch_and_only_the_first_rank_measures_one(monkeypatch):
    monkeypatch.setattr(Group, "wrap", lambda self, model: model)
    monkeypatch.setattr(lab, "make_distributed_step", lambda *training: lambda images, labels: -len(images))
    monkeypatch.setattr(lab, "make_step", lambda *training: lambda images, labels: len(images))
    first, second = (lab.steps_of(Group(rank, 2, torch.device("cpu")), 8) for rank in (0, 1))
    assert {name: step() for name, step in first.items()} == {"one": 128, "strong": -64, "weak": -128, "alone": 64}
    assert {name: step() for name, step in second.items()} == {"one": None, "strong": -64, "weak": -128, "alone": 64}


@pytest.fixture
def busy():
    """Somebody else keeps two CPUs busy."""
    forever = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for process in forever:
        process.kill()
        process.wait()


def test_two_processes_measure_themselves_and_one_of_them_also_on_a_busy_machine(busy):
    measured = lab.measured_by(2, widths=[8])
    assert 0 < measured.difference < 0.02
    assert list(measured.steps) == [8] and list(measured.steps[8]) == ["one", "strong", "weak", "alone"]
    assert {len(seconds) for seconds in measured.steps[8].values()} == {10}
    assert list(measured.all_reduce) == [4096, 4 * (785 * 8 + 9 * 10), 4 * 2**20]
    assert all(s > 0 for seconds in (*measured.steps[8].values(), *measured.all_reduce.values()) for s in seconds)


def test_the_reason_of_a_worker_is_not_hidden_behind_torchruns_report():
    with pytest.raises(RuntimeError) as caught:
        run_command(lab.torchrun(1, "--no-python", sys.executable, "-c", "raise ValueError('the reason')"))
    assert "ended with status 1:" in str(caught.value) and str(caught.value).endswith("ValueError: the reason")


def test_another_training_is_not_measured(monkeypatch):
    monkeypatch.setattr(lab, "run_command", lambda command: "Busy.\n{'difference': 0.1}\n")
    with pytest.raises(RuntimeError, match=r"2 processes: another training.* 0\.1"):
        lab.measured_by(2, widths=[8])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal that kills")
def test_a_training_goes_on_after_a_worker_was_killed_to_the_weights_of_the_other(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    killed = lab.train_with_two_workers(kill=True)
    said = capsys.readouterr().out
    assert "killed" in said and "Resumed model.pt after epoch " in said and "Finished Training" in said
    whole = lab.train_with_two_workers()
    assert "Resumed" not in capsys.readouterr().out
    assert killed.keys() == whole.keys() and all(torch.equal(killed[name], whole[name]) for name in killed)
