"""Chapter 10: several processes and one of them alone, in turn, and what is said of them."""

import subprocess
import sys
from functools import partial

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_10 as lab
from mnist_gpu.chapters.chapter_10 import Scaling
from mnist_gpu.chapters.chapter_10 import __main__ as processes
from mnist_gpu.faster.distributed import Group
from mnist_gpu.measuring.commands import run_command

ONE, STRONG, WEAK = [0.004] * 10, [0.008] * 10, [0.005] * 10
STEPS = {128: {"one": ONE, "strong": STRONG, "weak": WEAK, "alone": ONE}}


def test_the_ranks_wait_for_one_another_before_each_of_the_sides_which_take_turns(monkeypatch):
    turns, clock = [], [0.0]

    def side(name, seconds):
        def run():
            turns.append(name)
            clock[0] += seconds

        return run

    short, long = side("s", 0.01), side("l", 1.0)
    monkeypatch.setattr(processes.dist, "barrier", side("|", 0.5))
    monkeypatch.setattr(processes, "alternate", partial(processes.alternate, clock=lambda: clock[0]))
    monkeypatch.setattr(processes, "seconds_of", lambda function, device: 0.011 if function is short else 1.0)
    found = processes.together({"short": short, "long": long}, Group(0, 1, torch.device("cpu")), rounds=2)
    assert found == {"short": pytest.approx([0.01] * 2), "long": pytest.approx([1.0] * 2)}
    assert "".join(turns).endswith("|ss|l|ss|l")


def test_a_rank_that_is_not_the_first_does_nothing_while_one_is_measured(monkeypatch):
    monkeypatch.setattr(Group, "wrap", lambda self, model: model)
    monkeypatch.setattr(processes, "make_distributed_step", processes.make_step)
    first, second = (processes.steps_of(Group(rank, 2, torch.device("cpu")), 8) for rank in (0, 1))
    assert list(first) == list(second) == ["one", "strong", "weak", "alone"]
    assert second["one"]() is None and first["one"]() > 0


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
    assert measured.processes == 2 and len(measured.losses) == len(measured.losses_of_one) == 100
    assert measured.losses == pytest.approx(measured.losses_of_one, abs=0.02)
    assert list(measured.steps) == [8] and list(measured.steps[8]) == ["one", "strong", "weak", "alone"]
    assert {len(seconds) for seconds in measured.steps[8].values()} == {10}
    assert list(measured.all_reduce) == [4096, 4 * (785 * 8 + 9 * 10), 4 * 2**20]
    assert all(s > 0 for seconds in (*measured.steps[8].values(), *measured.all_reduce.values()) for s in seconds)


def test_the_processes_import_nothing_that_draws():
    code = "import sys, mnist_gpu.chapters.chapter_10.__main__; print('matplotlib' in sys.modules)"
    assert run_command([sys.executable, "-c", code]) == "False\n"


def test_the_reason_of_a_worker_is_not_hidden_behind_torchruns_report():
    with pytest.raises(RuntimeError) as caught:
        run_command(lab.torchrun(1, "--no-python", sys.executable, "-c", "raise ValueError('the reason')"))
    assert "ended with status 1:" in str(caught.value) and str(caught.value).endswith("ValueError: the reason")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal that kills")
def test_a_training_goes_on_after_a_worker_was_killed_to_the_weights_of_the_other(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    killed = lab.train_with_two_workers(kill=True)
    said = capsys.readouterr().out
    assert said.startswith("(one worker killed)\nResumed model.pt after epoch ") and "Finished Training" in said
    whole = lab.train_with_two_workers()
    assert "Resumed" not in capsys.readouterr().out
    assert killed.keys() == whole.keys() and all(torch.equal(killed[name], whole[name]) for name in killed)


def test_another_training_is_not_compared(capsys):
    losses = [0.5, 0.4]
    lab.one_and_several({2: Scaling(2, losses, [0.5, 0.41], STEPS, {})})
    said = capsys.readouterr().out
    assert "1 process 1.88 s per epoch, 2 processes 3.75 s per epoch" in said and "at most 1e-02" in said
    assert "1 process is 2.00 times as fast as 2 processes" in said
    for other in ([0.5, 0.5], [0.5, float("nan")]):
        with pytest.raises(RuntimeError, match="2 processes: another training"):
            lab.one_and_several({2: Scaling(2, losses, other, STEPS, {})})


def test_a_line_has_the_smallest_relative_errors():
    latency, per_byte = lab.line({1000: 0.012, 2000: 0.022, 4000: 0.042})
    assert (latency, per_byte) == (pytest.approx(0.002), pytest.approx(1e-5))
    messages = {1000: 0.011, 2000: 0.025, 4000: 0.03}

    def squares(a, b):
        return sum(((a + b * size) / seconds - 1) ** 2 for size, seconds in messages.items())

    latency, per_byte = lab.line(messages)
    for a, b in ((1.01, 1), (0.99, 1), (1, 1.01), (1, 0.99)):
        assert squares(latency, per_byte) < squares(a * latency, b * per_byte)


def test_tables_and_figures_say_the_key_numbers(capsys):
    steps = {8: STEPS[128], 16: {"one": ONE, "strong": [0.002] * 10}}
    lab.widths(Scaling(2, [], [], steps, {}), {8: 0.016, 16: 0.001})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[2:4] == [["8", "4", "16", "8", "0.25x", "0.500x"], ["16", "4", "1", "2", "4.00x", "2.00x"]]
    assert " ".join(rows[4]) == "2 processes gain most at width 16: 2.00 times as fast." and "pays." in rows[5]
    for saved, spent, expected in ((3, 1, "about 1,300 "), (1, 3, "at no width"), (1, 1, "too close")):
        lab.break_even(saved * 1e-9, spent * 1e-9, latency=0.001)
        assert expected in capsys.readouterr().out
    lab.at_scale(lambda machine, n, batch, parameters: (8.0 / n, 3.0 * (n > 1)), {"it": (None, 100, 1)}, (1, 8, 101))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[2:] == [["it", "1", "8,000", "0", "1x", "compute"], ["8", "1,000", "3,000", "2x", "all-reduce"]]


def test_scaling_is_drawn_beside_the_ideal():
    drawn = lab.scaling({2: Scaling(2, [], [], STEPS, {})})
    curves = [list(line.get_ydata()) for line in drawn.axes.lines]
    assert curves == [pytest.approx(y) for y in ([32_000, 16_000], [32_000, 51_200], [32_000, 64_000])]
    assert "16,000" in drawn.says and "51,200" in drawn.says
    plt.close("all")
